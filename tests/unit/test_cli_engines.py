"""How `ps`, `explain` and `events` show what a server says, whatever it leaves out."""

from __future__ import annotations

import io

import pytest

from corral.cli.engines import _brief, _candidate, _needs, _row, _tell
from corral.cli.invocation import Invocation
from corral.cli.output import Mode, Output


def said(event: dict[str, object]) -> tuple[str, str]:
    stdout, stderr = io.StringIO(), io.StringIO()
    _tell(Invocation(Output(Mode.HUMAN, stdout=stdout, stderr=stderr, env={})), event)
    return stdout.getvalue(), stderr.getvalue()


def test_a_row_has_what_is_measured_and_what_was_given() -> None:
    model = {
        "name": "m",
        "state": "ready",
        "engine": "fake-1",
        "footprint": {"cpu": 300_000_000, "cuda:0": 200_000_000},
        "estimated": {"cpu": 600_000_000},
        "device": "cuda:0",
        "context": 4096,
        "slots": 4,
        "in_flight": 2,
        "waiting": 3,
        "idle_seconds": None,
    }
    row = [str(cell) for cell in _row(model)]
    assert row == ["m", "ready", "fake-1", "500 MB", "600 MB", "cuda:0", "4096", "-", "3", "2/4", "-"]


def test_a_row_of_a_model_that_waits() -> None:
    row = [str(cell) for cell in _row({"name": "m", "state": "queued", "runtime": "fake", "waiting": 1})]
    assert row == ["m", "queued", "fake", "-", "-", "-", "-", "-", "1", "-", "-"]


@pytest.mark.parametrize(
    ("facts", "shown"),
    [({"possible": False}, "no"), ({"possible": True}, "could"), ({"possible": True, "chosen": True}, "yes")],
)
def test_a_candidate(facts: dict[str, bool], shown: str) -> None:
    other = {"model": "b", "state": "ready", "worth": None, "reason": "it answers", **facts}
    assert [str(cell) for cell in _candidate(other)] == ["b", "ready", shown, "-", "it answers"]
    assert _candidate({**other, "worth": 0.51234})[3] == "0.512"


def test_an_event_is_a_line() -> None:
    moved = {"type": "transition", "at": 0.0, "model": "m", "state": "ready", "reason": "loaded in 1.2 s"}
    assert said(moved)[0].endswith("  m ready: loaded in 1.2 s\n")
    assert _brief(moved) == ["m ready"]
    decided = {"type": "decision", "model": "b", "effect": "evict", "reason": "unused", "room_for": "m"}
    assert said(decided)[0].endswith("  decided: evict b for m: unused\n")
    assert _brief(decided) == []
    assert said({"type": "snapshot", "models": [{"name": "m", "state": "ready"}]})[0].endswith("in memory: m\n")
    assert said({"type": "snapshot"})[0].endswith("in memory: nothing\n")
    happened = {"type": "container_event", "at": 0.0, "name": "coder", "what": "die", "before": "healthy"}
    shown = said({**happened, "after": "exited", "reason": "it ended with code 1"})[0]
    assert shown.endswith("  container coder die (healthy → exited): it ended with code 1\n")
    assert "7 events went lost" in said({"type": "lost", "count": 7})[1]
    assert said({"type": "sample"}) == ("", "")


def test_what_a_model_takes_stands_beside_what_there_is() -> None:
    memory = {"cpu": {"capacity": 8_000_000_000, "held": 0, "free": 7_000_000_000}}
    placement = {"devices": {"cpu": 300_000_000, "cuda:0": 1_000_000_000}, "source": "measured"}
    assert list(_needs(placement, memory)) == [
        "It takes 300 MB of cpu (measured); 7 GB free of the 8 GB that engines may take.",
        "It takes 1 GB of cuda:0 (measured); without limit.",
    ]
    assert list(_needs({}, memory)) == []
