"""Bars, sparklines, state words and narrowed tables of the menu."""

from __future__ import annotations

import pytest

from corral.cli.table import Cell, Column
from corral.cli.tui.marks import Table, bar, cell, inked, percent, spark, state_word, toned
from corral.domain.operations import OperationStatus
from corral.domain.standings import ContainerState
from corral.domain.states import State


def test_a_course_stands_to_the_right_and_has_a_cell_for_each_figure() -> None:
    assert spark([0, 50, 100], 5, 100.0) == "··▁▅█"
    assert spark([1, 2, 3, 4], 2) == "▇█"
    assert spark([], 3) == "···"


def test_a_course_says_what_it_does_not_know() -> None:
    assert spark([None, 10, None], 3, 10.0) == "·█·"


def test_a_course_of_nothing_but_zeros_is_low() -> None:
    assert spark([0, 0], 2) == "▁▁"


def test_a_course_has_no_place() -> None:
    assert spark([1, 2], 0) == ""


@pytest.mark.parametrize(
    ("share", "drawn"), [(0.0, "····"), (1.0, "████"), (0.5, "██··"), (0.53, "██▏·"), (None, "····"), (7.0, "████")]
)
def test_a_bar_is_filled_to_an_eighth_of_a_cell(share: float | None, drawn: str) -> None:
    assert bar(share, 4) == drawn
    assert bar(share, 0) == ""


def test_what_is_not_filled_is_quiet() -> None:
    assert inked("··▁·█··") == (Cell("··", "dim"), Cell("▁·█", "accent"), Cell("··", "dim"))
    assert inked("···") == (Cell("···", "dim"),)


def test_shares_are_told_in_percent() -> None:
    assert (percent(0.426), percent(None)) == ("43 %", "-")


@pytest.mark.parametrize("state", [*State, *ContainerState, *OperationStatus])
def test_every_state_is_a_word_whatever_its_tone(state: str) -> None:
    shown = toned(state)

    assert shown.text == state_word(state)
    assert shown.text.replace(" ", "").isalpha()
    assert shown.style


def test_what_is_bad_is_red() -> None:
    for state in ("failed", "crash_loop", "oom_killed", "unhealthy"):
        assert toned(state).style == "red", state


def test_a_cell_is_one_safe_line() -> None:
    assert cell("a\x1b[31m\nb") == Cell("a[31m b")
    assert cell(None) == cell("") == Cell("-")
    assert cell(0) == Cell("0")


def test_a_table_is_narrowed_to_the_rows_with_a_text() -> None:
    table = Table(
        (Column("A"), Column("B")), ("x", "y"), ((Cell("Alpha"), Cell("1")), (Cell("Beta"), Cell("2"))), "none"
    )

    assert table.narrowed("") is table
    assert table.narrowed("ALPH").keys == ("x",)
    assert table.narrowed("2").rows == (table.rows[1],)
    assert table.narrowed("zzz").empty == "Nothing here has 'zzz' in it. Esc shows all again."
    assert Table((), (), (), "none").narrowed("zzz").empty == "none"
