"""What is noted of an answer, its receipt, and its rows: values."""

import json
from dataclasses import fields

import pytest

from corral.domain.callers import Caller
from corral.domain.money import MOST_TOKENS, Usage
from corral.domain.receipts import Attempt, Fallback
from corral.observability import sums
from corral.observability.record import Record, described, receipt, receipt_json, restored
from support.records import ADA, AT, answered

FAILED = Attempt("big", "openai", "big-1", "upstream_busy", "No room.", 503, None, 0, 0.3)
BROKEN = Attempt("big", "openai", "big-1", "engine_died", "It ended.", 200, Usage(100, 7), 900, 0.2, billed=True)


def test_a_record_knows_nothing_when_it_is_made():
    record = Record("req-1", AT, 10.0, ADA)

    record.ended = 10.5

    made = receipt(record)
    assert (made.model, made.usage, made.cost, made.engine, made.error, made.attempts) == (
        "",
        None,
        None,
        None,
        None,
        0,
    )
    assert made.project == "atlas"
    assert made.total_ms == 500


def test_a_receipt_of_an_answer_at_the_first_call():
    made = receipt(answered())

    assert (made.request_id, made.model, made.asked, made.key) == ("req-1", "smollm2", "smollm2", "key-ada")
    assert (made.prompt_tokens, made.completion_tokens, made.finish_reason, made.cost) == (100, 20, "stop", 5000)
    assert made.first_ms == pytest.approx(10)
    assert made.total_ms == pytest.approx(50)
    assert len(made.tries) == made.attempts == 1
    assert made.fallbacks == ()


def test_a_receipt_of_an_answer_at_the_third_call_names_the_others_and_adds_what_they_cost():
    record = answered(attempts=(FAILED, BROKEN), drops=(Fallback("tiny", "context_length_exceeded", "Too long."),))

    made, content = receipt(record), json.loads(receipt_json(record))

    assert made.fallbacks == (Fallback("big", "engine_died", "It ended."),)
    assert [each.billed for each in made.tries] == [False, True, True]
    assert made.cost == content["cost_nano"] == 5900
    assert content["cost_usd"] == pytest.approx(0.0000059)
    assert content["attempts"] == len(content["tries"]) == 3
    assert content["tries"][1]["usage"] == {"input": 100, "output": 7}
    assert "cost_nano" not in content["tries"][0]
    assert content["route"] == [{"model": "tiny", "code": "context_length_exceeded", "message": "Too long."}]


def test_a_receipt_in_json_says_what_the_receipt_says():
    record = answered(attempts=(FAILED,), ignored=("seed",), degraded=("json_schema",), device="cuda:0", error="x")
    record.drops = (Fallback("tiny", "no", "No."),)
    made, content = receipt(record), described(record)
    elsewhere = {"cost": "cost_nano", "extra": None, "prompt_tokens": None, "completion_tokens": None}

    for each in fields(made):
        name = elsewhere.get(each.name, each.name)
        if name is None:
            continue
        value = getattr(made, each.name)
        if each.name in {"usage", "tries", "fallbacks", "route"}:
            assert name in content
        elif isinstance(value, float):
            assert content[name] == pytest.approx(value, abs=0.001)
        else:
            assert content[name] == value, name


def test_what_is_unknown_is_not_in_the_json_and_a_cost_of_nothing_is():
    assert "cost_nano" not in described(answered(cost=None))
    assert described(answered(cost=0))["cost_nano"] == 0


@pytest.mark.parametrize("words", ["half a \ud800 character", "a\0b", "😀"])
def test_whatever_an_engine_says_becomes_json(words):
    record = answered(error="engine_error", message=words)

    content = json.loads(receipt_json(record))

    assert content["message"] in {words, words.replace("\ud800", "?")}


def test_a_number_beyond_64_bits_becomes_json_and_fits_a_row():
    record = answered(usage=Usage(10**30, -5))

    told = json.loads(receipt_json(record))["usage"]
    row = dict(zip(sums.COLUMNS, sums.rows(record)[0], strict=True))
    assert (row["input"], row["output"]) == (told["input"], told["output"]) == (MOST_TOKENS, 0)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"project": "game"},
        {"cost": None, "price": "unknown"},
        {"price": None, "device": "cuda:0", "context": 4096, "revision": "abc"},
        {"usage": Usage(31, 62, cached=7, reasoning=3)},
        {"usage": Usage(31, 62, seconds=1.5)},
        {"ignored": ("seed",)},
        {"error": "engine_died", "message": "It ended."},
        {"usage": None, "cost": 0},
        {"asked": "x" * 300},
    ],
)
def test_a_receipt_of_a_row_is_that_of_the_answer(more):
    record = answered(**more)

    row = dict(zip(sums.COLUMNS, sums.rows(record)[0], strict=True))

    assert restored(row) == json.loads(receipt_json(record))


def test_time_that_is_corrals_own():
    assert answered().own == pytest.approx(0.002)
    assert answered(wait_ms=0.5).own == pytest.approx(0.0015)
    assert answered(sent=10.501, heard=10.509, first=10.510, attempts=(FAILED, BROKEN)).own == pytest.approx(0.002)
    assert answered(sent=0.0, heard=0.0, first=0.0, ended=10.003).own == pytest.approx(0.003)
    assert answered(heard=0.0, first=0.0).own == pytest.approx(0.001)


def test_each_attempt_that_counts_is_a_row_and_the_last_has_the_receipt():
    rows = [dict(zip(sums.COLUMNS, row, strict=True)) for row in sums.rows(answered(attempts=(FAILED, BROKEN)))]

    assert [(row["attempt"], row["model"], row["cost"], row["output"]) for row in rows] == [
        (2, "big", 900, 7),
        (3, "smollm2", 5000, 20),
    ]
    assert rows[0]["receipt"] is None
    assert json.loads(rows[1]["receipt"])["request_id"] == "req-1"


def test_sums_are_of_the_hour_and_count_an_answer_once():
    found: sums.Sums = {}
    sums.add(found, answered(1, attempts=(BROKEN,)))
    sums.add(found, answered(2, at=AT + 3600, error="engine_died", cost=None))

    hour = 1_699_999_200
    by_name = {place: dict(zip(sums.MEASURES, values, strict=True)) for place, values in found.items()}
    good = by_name[hour, "key-ada", "atlas", "smollm2", "llamacpp"]
    broken = by_name[hour, "key-ada", "atlas", "big", "openai"]
    later = by_name[hour + 3600, "key-ada", "atlas", "smollm2", "llamacpp"]
    assert (good["requests"], good["errors"], good["input"], good["cost"], good["firsts"]) == (1, 0, 100, 5000, 1)
    assert (broken["requests"], broken["output"], broken["cost"]) == (0, 7, 900)
    assert (later["requests"], later["errors"], later["unpriced"], later["cost"]) == (1, 1, 1, 0)
    assert good["total_ms"] == pytest.approx(50)


def test_days_are_made_of_hours():
    found: sums.Sums = {}
    for hour in range(3):
        sums.add(found, answered(hour, at=AT + hour * 3600))

    days = sums.merge({}, found, sums.DAY)

    assert {place[0]: values[0] for place, values in days.items()} == {1_699_920_000: 2, 1_700_006_400: 1}
    assert len(found) == 3


def test_a_row_says_whether_its_cost_is_known():
    def price(record):
        row = dict(zip(sums.COLUMNS, sums.rows(record)[-1], strict=True))
        return row["cost"], row["price"]

    assert price(answered()) == (5000, "configured")
    assert price(answered(cost=None)) == (0, "unknown")
    assert price(answered(cost=None, usage=None, price=None)) == (0, None)


def test_texts_of_clients_fit_every_database():
    row = dict(zip(sums.COLUMNS, sums.rows(answered(asked="a\0\ud800" + "b" * 300))[0], strict=True))

    assert row["asked"] == "a??" + "b" * 197
    assert sums.text("grün") == "grün"


def test_a_caller_of_two_projects_counts_for_the_one_it_named():
    record = Record("req-1", AT, 1.0, Caller("k", "k", project="a"))
    record.project = "b"

    assert sums.rows(record)[0][sums.COLUMNS.index("project")] == "b"
