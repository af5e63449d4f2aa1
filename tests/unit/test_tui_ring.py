"""The lines of a log that the menu keeps."""

from __future__ import annotations

from corral.cli.tui.ring import LONGEST, Ring, fresh_of


def test_the_oldest_lines_go_and_are_counted() -> None:
    ring = Ring(3)
    ring.extend(["a", "b"])
    ring.extend(["c", "d"])

    assert list(ring.lines) == ["b", "c", "d"]
    assert (ring.gone, len(ring)) == (1, 3)


def test_more_than_fit_at_once() -> None:
    ring = Ring(2)
    ring.extend(["a", "b", "c", "d", "e"])

    assert (list(ring.lines), ring.gone) == (["d", "e"], 3)


def test_lines_cannot_drive_a_terminal() -> None:
    ring = Ring(5)
    ring.extend(["\x1b[2Jgone\x07", "a\tb", "x" * (LONGEST + 5)])

    assert list(ring.lines)[:2] == ["[2Jgone", "a   b"]
    assert len(ring.lines[2]) == LONGEST


def test_only_what_is_wanted_is_shown_and_the_rest_is_kept() -> None:
    ring = Ring(10)
    ring.extend(["one error", "two", "three ERROR"])
    ring.wanted = "Error"
    ring.extend(["four", "five error"])
    assert list(ring.lines) == ["one error", "three ERROR", "five error"]

    ring.wanted = ""
    assert len(ring.lines) == 5


def test_each_change_of_what_is_shown_is_another_version() -> None:
    ring = Ring(10)
    before = ring.version
    ring.extend([])
    assert ring.version == before

    ring.extend(["a"])
    ring.wanted = "a"
    ring.clear()
    assert ring.version == before + 3
    assert (len(ring), len(ring.lines), ring.gone) == (0, 0, 0)


def test_two_looks_at_one_log_give_what_is_new() -> None:
    assert fresh_of([], ["a"]) == ["a"]
    assert fresh_of(["a", "b"], ["a", "b", "c"]) == ["c"]
    assert fresh_of(["a", "b", "c"], ["b", "c", "d", "e"]) == ["d", "e"]
    assert fresh_of(["a", "b"], ["a", "b"]) == []
    assert fresh_of(["a", "b"], ["x", "y"]) == ["x", "y"]
