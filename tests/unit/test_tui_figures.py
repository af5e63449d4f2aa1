"""The machine, money and receipts as the menu shows them."""

from __future__ import annotations

from typing import Any

from corral.cli.tui.figures import (
    budgets_table,
    head_text,
    machine_lines,
    receipt_fields,
    receipt_line,
    spent_line,
    spent_table,
)
from corral.cli.tui.marks import Row
from corral.cli.tui.yard import Yard

MACHINE = {
    "cpu": {"name": "A processor", "count": 8, "cores": 4, "instructions": ["AVX2"]},
    "memory": {"total": 16_000_000_000, "swap_total": 2_000_000_000, "swap_free": 500_000_000},
    "disk": {"total": 100_000_000_000, "free": 25_000_000_000},
    "gpus": [],
}


def told(row: Row) -> str:
    return "".join(piece.text for piece in row)


def page(machine: dict[str, Any], width: int = 80, **trails: list[float | None]) -> str:
    yard = Yard(machine=machine)
    for name, values in trails.items():
        yard.trail(name).values.extend(values)
    return "\n".join(map(told, machine_lines(yard, width)))


def spent(**more: Any) -> dict[str, Any]:
    row = {
        "model": "m", "requests": 1200, "errors": 0, "input_tokens": 5, "cached_tokens": 0, "output_tokens": 7,
        "mean_first_ms": 250.0, "cost_nano": 1_500_000_000, "unpriced": 0,
    }  # fmt: skip
    return row | more


def test_a_machine_with_its_figures() -> None:
    text = page(MACHINE, cpu=[10.0, 55.0], memory=[4e9])

    assert "Processor  A processor" in text
    assert "8 threads on 4 cores; AVX2" in text
    assert "55 %" in text
    assert "4 GB" in text
    assert "swap 1.5 GB of 2 GB in use" in text
    assert "25 GB free of 100 GB, where the models are" in text
    assert "75 %" in text
    assert "There is none: models run on the processor." in text


def test_a_machine_of_which_nothing_is_known() -> None:
    text = page({"cpu": {}, "memory": {}, "disk": {}, "gpus": None})

    assert "Processor  unknown" in text
    assert "It could not be found out" in text


def test_a_gpu_with_its_courses() -> None:
    yard = Yard(machine=MACHINE | {"gpus": [{"id": "cuda:0", "name": "H200", "total": 140e9, "power_limit": 700}]})
    yard.take({"type": "sample", "gpus": {"cuda:0": {"usage": 42.0, "used": 7e9, "temperature": 51.0, "power": 300.0}}})
    text = "\n".join(map(told, machine_lines(yard, 80)))

    for said in ("GPU cuda:0  H200, 140 GB", "42 %", "7 GB", "51 °C", "300 W"):
        assert said in text


def test_gpus_that_do_not_work_or_are_lost_say_why() -> None:
    gpus = [{"id": "cuda:0", "fault": "driver too old"}]
    text = page(MACHINE | {"gpus": gpus, "lost": [{"gpu": {"id": "cuda:1"}, "reason": "fell off the bus"}]})

    assert "driver too old" in text
    assert "cuda:1 is lost" in text
    assert "fell off the bus" in text


def test_no_line_is_wider_than_the_terminal() -> None:
    long = MACHINE | {"cpu": {"name": "p", "count": 2, "instructions": ["AVX512"] * 30}}

    assert max(len(text) for text in page(long, 60, cpu=[1.0] * 300).splitlines()) <= 60


def test_the_head_tells_what_is_known() -> None:
    yard = Yard()
    assert head_text(yard, 80) == ""

    yard.take({"type": "sample", "cpu": 12.4, "memory": 3e9})
    assert head_text(yard, 80) == "cpu 12 %  memory 3 GB"
    yard.machine = MACHINE
    assert head_text(yard, 80) == "cpu 12 %  memory 3 GB of 16 GB"
    assert head_text(yard, 25) == "cpu 12 %  memory 3 GB"
    assert head_text(yard, 10) == "cpu 12 %"
    assert head_text(yard, 3) == ""


def test_what_was_spent_by_model() -> None:
    table = spent_table({"usage": [spent(), spent(model="n", cost_nano=0, unpriced=3, errors=2)]})

    assert [cell.text for cell in table.rows[0]] == [
        "m", "1.2k", "-", "5", "-", "7", "250ms", "$1.50", "████████████",
    ]  # fmt: skip
    assert table.rows[1][2].text == "2"
    assert table.rows[1][7].text == "unknown"


def test_where_nothing_cost_anything_tokens_are_compared() -> None:
    table = spent_table({"usage": [spent(cost_nano=0, output_tokens=10), spent(cost_nano=0, output_tokens=5)]})

    assert [row[8].text for row in table.rows] == ["████████████", "██████······"]
    assert spent_table(None).empty == "Nothing was asked today."


def test_today_in_one_line() -> None:
    total = spent(unpriced=2, input_tokens=1000)

    assert told(spent_line({"total": total})) == (
        "Today, in UTC: $1.50  1,200 requests, 1,000 tokens in, 7 out; the cost of 2 is not known"
    )
    assert told(spent_line({"total": None})) == told(spent_line(None)) == "Today, in UTC: nothing yet."


def test_budgets_say_how_far_they_are() -> None:
    budget = {
        "name": "b",
        "subject": "all",
        "unit": "usd",
        "period": "month",
        "amount": 10.0,
        "spent": 2.5,
        "leased": 0,
    }
    yard = Yard(
        budgets=[
            budget,
            budget | {"name": "c", "spent": 8.0, "leased": 0.5},
            budget | {"name": "d", "spent": 10.0, "period": "total", "renews_at": 0.0},
            budget | {"name": "e", "unit": "tokens", "subject": "project", "who": "game", "amount": 2000, "spent": 100},
        ]
    )
    rows = [[cell.text for cell in row] for row in budgets_table(yard).rows]

    assert rows[0][:5] == ["b", "all", "$2.50", "-", "$10.00 a month"]
    assert rows[0][5].endswith("25 %")
    assert rows[1][3] == "$0.50"
    assert rows[1][5].endswith("85 %  nearly")
    assert rows[2][4] == "$10.00 in all"
    assert rows[2][5].endswith("100 %  spent")
    assert rows[3][1:3] == ["project game", "100"]
    assert "corral budgets create" in budgets_table(Yard()).empty


def test_a_receipt_in_a_line() -> None:
    receipt = {
        "model": "m", "asked": "m", "engine": "fake-1", "device": "cpu", "wait_ms": 0.0, "first_ms": 20.0,
        "total_ms": 1500.0, "usage": {"input": 1000, "output": 33}, "cost_nano": 27_200,
    }  # fmt: skip

    assert told(receipt_line(receipt)) == (
        "fake-1  on cpu  waited 0ms  first word 20ms  in all 1.5s  1,000 in, 33 out  $0.0000272"
    )


def test_a_receipt_says_who_answered_instead_and_what_had_no_effect() -> None:
    text = told(receipt_line({"model": "n", "asked": "m", "runtime": "openai", "ignored": ["seed"]}))

    assert text == "n answered for m  openai  waited 0ms  cost unknown  ignored: seed"


def test_a_receipt_in_full_leaves_out_what_is_empty() -> None:
    fields = receipt_fields({"request_id": "r", "error": None, "ignored": [], "wait_ms": 0.0})

    assert [(name, value.text) for name, value in fields] == [("request id", "r"), ("wait ms", "0.0")]
