"""The journal of a run: what is there is found again, what was cut never was, and a full disk is told."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from corral.errors import DiskFull, StoreError
from corral.workspace.pipelines.journal import Answer, Journal


def answer(step: str = "one", attempt: int = 1, **more: object) -> Answer:
    return Answer(step, attempt, f"run-1:{step}:{attempt}", "m", **more)  # type: ignore[arg-type]


def again(path: Path) -> Journal:
    journal = Journal(path)
    journal.load()
    return journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "workspace" / "runs" / "run-1.journal"


def test_what_was_written_is_found_again(path: Path) -> None:
    first = answer(text="für dich\n\0", rows=[["r", 1, None]], hours=[[[1, "k"], [1, 2.5]]], cost=7, receipt={"a": 1})
    second = answer("two[3]", 2, error={"code": "x", "message": "half: \ud83d", "hint": ""}, rows=[], hours=[2**70])
    journal = Journal(path)
    journal.write(first)
    journal.write(second)
    journal.close()

    assert again(path).answers == {"one": [first], "two[3]": [second]}
    assert again(path).find("two[3]", 2) == second
    assert again(path).find("two[3]", 1) is None


def test_what_is_held_is_written_behind_what_others_wrote_since(path: Path) -> None:
    mine = Journal(path)
    mine.write(answer(text="written"))
    mine.hold(answer(attempt=2, text="held"))
    mine.close()
    other = again(path)
    other.write(answer("two", text="of another"))
    other.close()

    mine.load()
    assert {step: [each.text for each in found] for step, found in mine.answers.items()} == {
        "one": ["written", "held"],
        "two": ["of another"],
    }
    mine.ready()
    mine.close()
    assert (mine.owing, again(path).answers.keys()) == (False, {"one", "two"})
    assert [each.text for each in again(path).answers["one"]] == ["written", "held"]


def test_a_line_that_was_cut_was_never_written(path: Path) -> None:
    journal = Journal(path)
    journal.write(answer(text="whole"))
    journal.write(answer(attempt=2, text="cut"))
    journal.close()
    for size in range(path.stat().st_size - 1, path.read_bytes().index(b"\n"), -37):
        os.truncate(path, size)
        found = again(path)
        assert [each.text for each in found.answers["one"]] == ["whole"]
    found.write(answer(attempt=2, text="again"))
    found.close()
    assert [each.text for each in again(path).answers["one"]] == ["whole", "again"]


def test_a_journal_that_is_not_there_is_empty_and_is_made_by_the_first_line(path: Path) -> None:
    journal = again(path)
    assert journal.answers == {}
    assert not path.exists()
    journal.close()
    journal.remove()
    journal.write(answer())
    assert path.stat().st_mode & 0o777 == 0o600
    journal.remove()
    assert not path.exists()


@pytest.mark.parametrize("line", [b"nonsense\n", b"[1]\n", b'{"step": "one"}\n'])
def test_a_damaged_line_is_told(path: Path, line: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(line)
    with pytest.raises(StoreError, match=r"Line 1 of .* is damaged"):
        again(path)


@contextmanager
def small_files() -> Iterator[None]:
    """No file may become larger than 600 bytes, as if the disk were full: for one write, as pytest has files too."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_told_and_leaves_no_half_of_a_line(path: Path) -> None:
    journal = Journal(path)
    journal.write(answer(text="fits"))
    with pytest.raises(StoreError), small_files():
        journal.write(answer(attempt=2, text="x" * 1000))
    assert journal.find("one", 2) is None
    journal.close()
    assert [each.text for each in again(path).answers["one"]] == ["fits"]


def test_what_finds_no_room_is_held_and_written_before_anybody_is_asked(path: Path) -> None:
    journal = Journal(path)
    journal.write(answer(text="fits"))
    held = [answer(attempt=2, text="x" * 1000), answer("two", 1, text="y")]
    with small_files():
        for each in held:
            journal.hold(each)
        with pytest.raises(StoreError):
            journal.ready()
    assert journal.owing
    assert journal.find("one", 2) == held[0]
    assert "two" not in again(path).answers

    journal.ready()
    journal.ready()
    journal.write(answer("three"))
    assert not journal.owing
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [(each["step"], each["attempt"]) for each in lines] == [("one", 1), ("one", 2), ("two", 1), ("three", 1)]
    journal.close()


def test_a_line_takes_with_it_what_is_held(path: Path) -> None:
    journal = Journal(path)
    journal.hold(answer(text="held"))
    journal.write(answer(attempt=2))
    journal.close()
    assert [each.attempt for each in again(path).answers["one"]] == [1, 2]


def test_nobody_is_asked_where_an_answer_would_find_no_room(path: Path) -> None:
    with pytest.raises(DiskFull, match=r"no room for answers in .*/workspace/runs: .* free"):
        Journal(path, room=2**62).ready()
    Journal(path).ready()
    assert not path.exists()
