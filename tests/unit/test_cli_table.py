"""Tables and fields in terminals of every width."""

from __future__ import annotations

import pytest

from corral.cli.table import Cell, Column, cells, cut, field_lines, fold, table_lines

COLUMNS = [Column("NAME"), Column("SIZE", right=True), Column("SOURCE", soft=True)]


def as_it_is(text: str, _: str) -> str:
    return text


def lines(rows: list[list[str]], width: int | None) -> list[str]:
    return list(table_lines(COLUMNS, [[Cell(text) for text in row] for row in rows], width, as_it_is))


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert lines([["a", "1 MB", "x"], ["longer", "10 MB", "y" * 200]], None) == [
        "NAME     SIZE  SOURCE",
        "a        1 MB  x",
        f"longer  10 MB  {'y' * 200}",
    ]


@pytest.mark.parametrize("width", [4, 11, 20, 33, 40, 60, 80, 500])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    found = lines(
        [["a-rather-long-name", "1 MB", "pypi:some-package==1.2.3"], ["日本語のモデル", "2 MB", "é" * 50]], width
    )

    least = 3 * 3 + 2 * 2
    assert max(cells(line) for line in found) <= max(width, least)


def test_the_soft_column_gives_first() -> None:
    head, row = lines([["a-rather-long-name", "1 MB", "pypi:some-package==1.2.3"]], 40)

    assert row == "a-rather-long-name  1 MB  pypi:some-pac…"
    assert head.startswith("NAME")


def test_wide_letters_are_counted_as_two() -> None:
    assert lines([["日本", "1 B", "x"], ["ab", "1 B", "x"]], None)[1:] == ["日本   1 B  x", "ab     1 B  x"]
    assert (cells("日本"), cells("e\u0301"), cells("abc")) == (4, 1, 3)


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("日本語", 4, "日…"), ("日本語", 5, "日本…"), ("", 0, "")],
)
def test_cutting(text: str, width: int, shown: str) -> None:
    assert cut(text, width) == shown
    assert cells(shown) <= width


def test_folding_between_words_and_within_them() -> None:
    assert fold("one two three", 7) == ["one two", "three"]
    assert fold("abcdefghij kl", 4) == ["abcd", "efgh", "ij", "kl"]
    assert fold("", 4) == [""]
    assert fold("日本語", 4) == ["日本", "語"]
    assert "".join(fold("x" * 1000, 1)) == "x" * 1000
    assert fold("日", 1) == ["日"]


def test_fields_go_on_below_themselves() -> None:
    pairs = [("name", Cell("value")), ("longer name", Cell("one two three four"))]

    assert list(field_lines(pairs, 24, as_it_is)) == [
        "name         value",
        "longer name  one two",
        "             three four",
    ]
    assert list(field_lines(pairs, None, as_it_is))[1] == "longer name  one two three four"
    assert list(field_lines([], 24, as_it_is)) == []


def test_styles_do_not_count_as_width() -> None:
    def paint(text: str, style: str) -> str:
        return f"<{style}>{text}</>"

    rows = [[Cell("a", "red"), Cell("1", ""), Cell("x")]]
    assert list(table_lines(COLUMNS, rows, None, paint))[1] == "<red>a</>        1  x"


def test_nothing_but_the_headings() -> None:
    assert lines([], 80) == ["NAME  SIZE  SOURCE"]


def test_what_is_needed_least_is_left_out_before_anything_is_cut() -> None:
    columns = [Column("NAME"), Column("SIZE", right=True, spare=2), Column("STATE", spare=1), Column("UNTIL")]
    rows = [[Cell("a-long-name"), Cell("100 MB"), Cell("ready"), Cell("18:13")]]

    def heads(width: int) -> list[str]:
        return next(iter(table_lines(columns, rows, width, lambda text, _: text))).split()

    assert heads(40) == ["NAME", "SIZE", "STATE", "UNTIL"]
    assert heads(30) == ["NAME", "STATE", "UNTIL"]
    assert heads(20) == ["NAME", "UNTIL"]
    assert heads(15)[0].startswith("NAME")
