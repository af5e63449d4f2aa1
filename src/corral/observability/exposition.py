"""The metrics as Prometheus reads them. Names and labels are described in docs/metrics.md, and a test compares them."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from corral.domain.money import NANO

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from prometheus_client.core import Metric

    from corral.observability.metrics import Histogram, Metrics, Sample

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_PLACE = ("model", "runtime", "dialect")


class _Collector(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        metrics = self._metrics
        yield from _counters(metrics)
        yield from _times(metrics)
        yield _gauge("in_flight", "Requests that are being answered.", (), [((), metrics.in_flight)])
        yield _counter("refused", "Requests turned away at the door.", ("code",), _by_code(metrics.refused.items()))
        yield _gauge("breaker_state", "0 closed, 1 half open, 2 open.", ("model",), metrics.breakers())
        yield _gauge("budget_left", "What a budget has left in its period.", ("budget", "unit"), metrics.budgets())
        yield _gauge("engine_state", "1 for the state that a model is in.", ("model", "state"), metrics.engines())
        yield _gauge("memory_bytes", "Memory that engines hold, and may hold.", ("device", "what"), metrics.memory())
        yield _counter("decisions", "What the scheduler decided.", ("what",), metrics.decisions())
        yield _gauge("usage_rows", "Answers waiting to be written down.", ("what",), _only(metrics, "waiting"))
        yield _counter(
            "unrecorded", "Answers only added up, not written down.", ("what",), _only(metrics, "unrecorded")
        )


def render(metrics: Metrics) -> bytes:
    """All of `metrics`, in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(metrics))
    return generate_latest(registry)


def _counters(metrics: Metrics) -> Iterator[Metric]:
    requests = CounterMetricFamily("corral_requests", "Answers by how they ended.", labels=(*_PLACE, "outcome"))
    errors = CounterMetricFamily("corral_errors", "Answers that were errors, by code.", labels=("model", "code"))
    tokens = CounterMetricFamily("corral_tokens", "Tokens by kind.", labels=(*_PLACE, "kind"))
    spend = CounterMetricFamily("corral_spend_dollars", "US dollars spent.", labels=_PLACE)
    unpriced = CounterMetricFamily("corral_unpriced", "Answers whose cost nobody knows.", labels=_PLACE)
    retries = CounterMetricFamily("corral_retries", "Calls made again to the same model.", labels=_PLACE)
    fallbacks = CounterMetricFamily("corral_fallbacks", "Answers by a model that was not the first.", labels=_PLACE)
    by_code: dict[tuple[str, str], int] = {}
    for place, series in metrics.series.items():
        failed = sum(series.errors.values())
        for outcome, count in (("ok", series.ok), ("error", failed), ("client_gone", series.gone)):
            if count:
                requests.add_metric((*place, outcome), count)
        for code, count in series.errors.items():
            by_code[place[0], code] = by_code.get((place[0], code), 0) + count
        for kind in ("input", "output", "cached", "cache_write", "reasoning"):
            if count := getattr(series, kind):
                tokens.add_metric((*place, kind), count)
        spend.add_metric(place, series.cost / NANO)
        unpriced.add_metric(place, series.unpriced)
        retries.add_metric(place, series.retries)
        fallbacks.add_metric(place, series.fallbacks)
    for labels, count in by_code.items():
        errors.add_metric(labels, count)
    yield from (requests, errors, tokens, spend, unpriced, retries, fallbacks)


def _times(metrics: Metrics) -> Iterator[Metric]:
    whole = HistogramMetricFamily("corral_request_seconds", "From the request to the answer's end.", labels=_PLACE)
    first = HistogramMetricFamily("corral_first_byte_seconds", "From the request to its first byte.", labels=_PLACE)
    pace = HistogramMetricFamily("corral_token_seconds", "Between two tokens of a stream, on average.", labels=_PLACE)
    wait = HistogramMetricFamily("corral_wait_seconds", "Waiting for a place, of those that waited.", labels=_PLACE)
    for place, series in metrics.series.items():
        pairs = ((whole, series.latency), (first, series.first), (pace, series.per_token), (wait, series.wait))
        for family, histogram in pairs:
            family.add_metric(place, _buckets(histogram), histogram.total)
    own = HistogramMetricFamily("corral_overhead_seconds", "Corral's own part of a request, without any waiting.")
    own.add_metric((), _buckets(metrics.own), metrics.own.total)
    yield from (whole, first, pace, wait, own)


def _buckets(histogram: Histogram) -> Sequence[tuple[str, float]]:
    bounds = [*map(_bound, histogram.bounds), "+Inf"]
    return list(zip(bounds, map(float, accumulate(histogram.counts)), strict=True))


def _bound(seconds: float) -> str:
    return f"{seconds:g}" if seconds >= 0.0001 else f"{seconds:.5f}"


def _gauge(name: str, words: str, labels: Sequence[str], samples: Iterable[Sample]) -> Metric:
    family = GaugeMetricFamily(f"corral_{name}", words, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family


def _counter(name: str, words: str, labels: Sequence[str], samples: Iterable[Sample]) -> Metric:
    family = CounterMetricFamily(f"corral_{name}", words, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family


def _by_code(counts: Iterable[tuple[str, int]]) -> Iterable[Sample]:
    return (((code,), float(count)) for code, count in counts)


def _only(metrics: Metrics, what: str) -> Iterable[Sample]:
    return [sample for sample in metrics.books() if sample[0] == (what,)]
