"""Metrics: what is counted, what becomes a label, and that Prometheus can read it; docs/metrics.md names them all."""

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from corral.app import Corral, measuring
from corral.config import load
from corral.domain.money import Usage
from corral.domain.receipts import Attempt
from corral.errors import UpstreamError
from corral.observability.exposition import CONTENT_TYPE
from corral.observability.metrics import MOST_CODES, MOST_SERIES, Histogram, Metrics
from corral.routing.book import Budget
from corral.routing.budgets import Budgets
from corral.routing.policies import classify
from support.records import answered
from tests.docs import pages

PAGE = pages.read("docs/metrics.md")


def read(metrics):
    """Every sample, by its name and the values of its labels in the order of their names."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            place = (sample.name, *(sample.labels[name] for name in sorted(sample.labels)))
            assert place not in found
            found[place] = sample.value
    return found


def full():
    """Metrics in which every name has a sample."""
    metrics = Metrics()
    failed = Attempt("smollm2", "llamacpp", None, "engine_died", "", 200, Usage(5, 1), 7, 0.001, billed=True)
    used = Usage(100, 21, cached=30, cache_write=10, reasoning=5)
    metrics.record(answered(1, stream=True, usage=used, wait_ms=3.0, attempts=(failed,)))
    metrics.record(answered(2, error="engine_died", cost=None))
    metrics.record(answered(3, gone=True))
    metrics.enter()
    metrics.refuse("unauthorized")
    metrics.breakers = lambda: [(("smollm2",), 2.0)]
    metrics.budgets = lambda: [(("team", "usd"), 1.5)]
    metrics.engines = lambda: [(("smollm2", "ready"), 1.0)]
    metrics.memory = lambda: [(("cuda:0", "held"), 4e9)]
    metrics.decisions = lambda: [(("load",), 3.0)]
    metrics.books = lambda: [(("waiting",), 5.0), (("unrecorded",), 1.0)]
    return metrics


def test_what_answers_are_counted_as():
    found = read(full())
    place = ("openai.chat", "smollm2", "llamacpp")  # dialect, model, runtime

    def of(name, *more):
        return found[name, place[0], *more, *place[1:]]

    assert found["corral_requests_total", "openai.chat", "smollm2", "ok", "llamacpp"] == 1
    assert found["corral_requests_total", "openai.chat", "smollm2", "error", "llamacpp"] == 1
    assert found["corral_requests_total", "openai.chat", "smollm2", "client_gone", "llamacpp"] == 1
    assert found["corral_errors_total", "engine_died", "smollm2"] == 1
    assert of("corral_tokens_total", "input") == 100 + 5 + 100 + 100
    assert of("corral_tokens_total", "cached") == 30
    assert of("corral_tokens_total", "cache_write") == 10
    assert of("corral_tokens_total", "reasoning") == 5
    assert of("corral_spend_dollars_total") == pytest.approx(10_007e-9)
    assert of("corral_unpriced_total") == 1
    assert of("corral_retries_total") == 1
    assert of("corral_fallbacks_total") == 0
    assert of("corral_request_seconds_count") == 3
    assert of("corral_request_seconds_sum") == pytest.approx(0.15)
    assert of("corral_first_byte_seconds_count") == 3
    assert of("corral_token_seconds_sum") == pytest.approx(0.002)
    assert of("corral_wait_seconds_sum") == pytest.approx(0.003)
    assert found["corral_overhead_seconds_count",] == 3
    assert found["corral_in_flight",] == 1
    assert found["corral_refused_total", "unauthorized"] == 1
    assert found["corral_breaker_state", "smollm2"] == 2
    assert found["corral_budget_left", "team", "usd"] == 1.5
    assert found["corral_unrecorded_total", "unrecorded"] == 1
    assert found["corral_usage_rows", "waiting"] == 5


def test_an_answer_of_another_model_is_a_fallback():
    metrics = Metrics()
    metrics.record(answered(0, model="big", runtime="openai"))
    metrics.record(answered(1, attempts=(Attempt("big", "openai", cost=9, billed=True, usage=Usage(1, 1)),)))

    found = read(metrics)

    assert found["corral_fallbacks_total", "openai.chat", "smollm2", "llamacpp"] == 1
    assert found["corral_retries_total", "openai.chat", "smollm2", "llamacpp"] == 0
    assert found["corral_spend_dollars_total", "openai.chat", "big", "openai"] == pytest.approx(5009e-9)


def test_histograms_hold_what_is_at_most_their_bound():
    histogram = Histogram((1.0, 2.0))
    for seconds in (0.0, 1.0, 1.5, 2.0, 2.5, 1e9):
        histogram.add(seconds)

    assert histogram.counts == [2, 2, 2]


def test_buckets_are_named_apart_and_grow():
    metrics = Metrics()
    for _ in range(5):
        metrics.record(answered())

    text = metrics.render().decode()

    bounds = re.findall(r'corral_overhead_seconds_bucket\{le="([^"]+)"\} (\S+)', text)
    assert len({float(bound) for bound, _ in bounds}) == len(bounds) == 13
    counts = [float(count) for _, count in bounds]
    assert counts == sorted(counts)
    assert counts[-1] == 5


def test_names_that_clients_make_up_are_no_labels():
    metrics = Metrics()
    for number in range(5000):
        metrics.record(answered(number, asked=f"made-up-{number}", model="", runtime="", error="model_not_found"))

    assert len(metrics.series) == 1
    assert "made-up" not in metrics.render().decode()


def test_labels_are_bounded_even_when_a_thousand_models_come_and_go():
    metrics = Metrics()
    for number in range(MOST_SERIES + 50):
        metrics.record(answered(number, model=f"m{number}"))
    for number in range(MOST_CODES + 50):
        metrics.record(answered(number, error=f"code-{number}"))
        metrics.refuse(f"code-{number}")

    found = read(metrics)

    assert len(metrics.series) == MOST_SERIES + 1
    assert found["corral_requests_total", "other", "other", "ok", "other"] == 50
    assert len(metrics.refused) == MOST_CODES + 1
    assert found["corral_refused_total", "other"] == 50


def test_a_label_may_hold_anything():
    metrics = Metrics()
    metrics.record(answered(model='a"b\\c\nd'))

    assert ("corral_requests_total", "openai.chat", 'a"b\\c\nd', "ok", "llamacpp") in read(metrics)


def test_every_metric_is_documented_and_no_other():
    families = {family.name: family for family in text_string_to_metric_families(full().render().decode())}
    names = {name + "_total" if family.type == "counter" else name: family for name, family in families.items()}

    documented = {pages.code(row[0]): row for row in PAGE.table("Names")}

    assert set(documented) == set(names)
    for name, (_, kind, labels, *_) in documented.items():
        assert kind == names[name].type, name
        used = {label for sample in names[name].samples for label in sample.labels} - {"le"}
        assert used == set(re.findall(r"`(\w+)`", labels)), name


def test_the_type_says_the_format():
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


async def test_the_parts_are_asked(tmp_path):
    corral = Corral(load({"HOME": str(tmp_path)}, cwd=tmp_path), env={})
    corral.books.unrecorded = 4
    assert not corral.database.file.exists()
    assert read(Rendered(await measuring.look(corral)))["corral_unrecorded_total", "unrecorded"] == 4
    assert not corral.database.file.exists()  # to look is no reason to make one

    budget = Budget("b-1", "team", "all", "", "usd", "month", 2 * 10**9)
    await Budgets(corral.database, corral.clock).create(budget)
    for _ in range(corral.routes.breakers.threshold.failures):
        corral.routes.breakers.failed("smollm2", classify(UpstreamError("It failed.")))
    found = read(Rendered(await measuring.look(corral)))

    assert found["corral_budget_left", "team", "usd"] == 2
    assert found["corral_breaker_state", "smollm2"] == 2
    assert corral.traffic.metrics is corral.metrics
    assert corral.traffic.books is corral.books
    await corral.close()


class Rendered:
    """What has been rendered already."""

    def __init__(self, text):
        self._text = text

    def render(self):
        return self._text
