"""How far long work is, for each reader."""

from __future__ import annotations

import io
import json
import re

import pytest

from corral.cli.output import Mode, Output
from corral.cli.progress import Meter, Step, amount_text, shown
from corral.cli.table import cells
from corral.domain.operations import Operation, OperationStatus, Order

STEPS = [
    Step("wait"),
    Step("resolve", detail="pypi:x"),
    *(Step("download", done, 1_000_000) for done in range(0, 1_000_001, 1000)),
    Step("check", 1_000_000, 1_000_000),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Hand:
    """A clock moved by hand: each look moves it on by `pace`."""

    def __init__(self, pace: float = 0.0) -> None:
        self.now = 100.0
        self.pace = pace

    def __call__(self) -> float:
        self.now += self.pace
        return self.now


def watch(
    mode: Mode = Mode.HUMAN, steps: list[Step] = STEPS, *, terminal: bool = False, pace: float = 0.0, columns: int = 100
) -> tuple[str, str, int, bool]:
    kind = Terminal if terminal else io.StringIO
    stdout, stderr = kind(), kind()
    with shown(Output(mode, stdout=stdout, stderr=stderr, env={"COLUMNS": str(columns)}), Hand(pace)) as board:
        seen = board.watch("m")
        for step in steps:
            seen(step)
    return stdout.getvalue(), stderr.getvalue(), seen.held, seen.moved


def operation(**more: object) -> Operation:
    return Operation(
        "op-1", Order("install", "m"), **{"status": OperationStatus.IN_PROGRESS, "created_at": 1.0, **more}
    )  # type: ignore[arg-type]


def test_json_lines_are_news() -> None:
    stdout, stderr, held, moved = watch(Mode.JSON)
    lines = [json.loads(row) for row in stdout.splitlines()]

    assert [row["phase"] for row in lines] == ["wait", "resolve", *["download"] * 101, "check"]
    assert lines[2] == {
        "event": "progress", "name": "m", "phase": "download", "done": 0, "total": 1_000_000, "rate": None,
        "eta": None, "detail": "",
    }  # fmt: skip
    assert stderr == ""
    assert (held, moved) == (1_000_000, True)


def test_json_lines_without_a_total_come_with_each_megabyte() -> None:
    steps = [Step("download", done) for done in range(0, 3_000_000, 100_000)]

    assert len(watch(Mode.JSON, steps)[0].splitlines()) == 3


def test_lines_in_a_log_come_with_phases_where_time_stands_still() -> None:
    stdout, stderr, _, _ = watch()

    assert stdout == ""
    assert stderr.splitlines() == ["m: resolve", "m: download: 0 B/1 MB", "m: check: 1/1 MB"]


def test_lines_in_a_log_come_every_few_seconds() -> None:
    _, stderr, _, _ = watch(pace=0.01)
    lines = stderr.splitlines()

    assert lines[0] == "m: resolve"
    assert lines[1].startswith("m: download: 0 B/1 MB")
    assert 2 < len(lines) < 12
    assert "/s, " in lines[3]
    assert lines[3].endswith(" left")


def test_work_that_stands_still_writes_no_lines() -> None:
    stuck = [Step("download", 10, 100)] * 1000

    assert len(watch(steps=stuck, pace=1.0)[1].splitlines()) == 1


def test_quiet_is_quiet() -> None:
    assert watch(Mode.QUIET) == ("", "", 1_000_000, True)


@pytest.mark.parametrize("columns", [20, 30, 69, 80, 200])
def test_a_bar_shows_bytes_and_leaves_nothing_behind(columns: int) -> None:
    stdout, stderr, _, _ = watch(terminal=True, columns=columns)

    assert stdout == ""
    assert "1/1 MB" in stderr
    assert stderr.endswith("\x1b[2K")


def widest(written: str) -> int:
    """Cells of the longest line."""
    return max(cells(part) for part in re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written)))


def test_bars_follow_the_width_of_the_terminal() -> None:
    stderr, env = Terminal(), {"COLUMNS": "100"}
    with shown(Output(Mode.HUMAN, stdout=Terminal(), stderr=stderr, env=env), Hand()) as board:
        seen = board.watch("a-model-with-a-long-name" * 2)
        wide = len(stderr.getvalue())
        env["COLUMNS"] = "40"
        seen(Step("download", 500_000, 1_000_000, 250_000.0, 2.0))

    assert 70 < widest(stderr.getvalue()[:wide]) <= 97
    assert widest(stderr.getvalue()[wide:]) <= 37


def test_a_wide_bar_tells_rate_and_time_left() -> None:
    steps = [Step("download", 500_000, 1_000_000, 250_000.0, 2.0)]
    _, stderr, _, _ = watch(terminal=True, steps=steps, columns=120)

    assert "500 kB/1 MB" in stderr
    assert "250 kB/s" in stderr
    assert "2s" in stderr


def test_nothing_was_fetched() -> None:
    assert watch(Mode.QUIET, []) == ("", "", 0, False)


def test_nothing_goes_backwards_within_a_phase() -> None:
    steps = [Step("download", done, 100) for done in (0, 50, 20, 60)] + [Step("check", 10, 100)]
    stdout, _, held, _ = watch(Mode.JSON, steps)

    assert [json.loads(row)["done"] for row in stdout.splitlines()] == [0, 50, 60, 10]
    assert held == 60


def test_an_operation_is_shown_as_it_stands() -> None:
    told = Step.of(operation(phase="download", done=5, total=10, rate=2.0, eta=2.5, progress=40.0, message="a.gguf"))

    assert told == Step("download", 5, 10, 2.0, 2.5, 40.0, "a.gguf")
    assert Step.of(operation()).phase == "start"
    assert Step.of(operation(status=OperationStatus.PENDING, phase="download")).phase == "wait"
    assert Step.of(operation(status=OperationStatus.PAUSED, phase="download")).phase == "paused"


def test_an_operation_that_has_ended_is_not_shown() -> None:
    out = Output(Mode.JSON, stdout=io.StringIO(), stderr=io.StringIO(), env={})
    with shown(out) as board:
        seen = board.watch("m")
        seen.operation(operation(phase="download", done=5))
        seen.operation(operation(status=OperationStatus.COMPLETED, done=9))

    assert seen.held == 5


def test_a_rate_is_measured_where_none_is_told() -> None:
    clock = Hand()
    meter = Meter(clock)
    assert meter.read(Step("download", 0, 1000)).rate is None
    clock.now += 2
    step = meter.read(Step("download", 400, 1000))
    assert (step.rate, step.eta) == (200, 3)
    clock.now += 10
    assert meter.read(Step("download", 400, 1000)).rate is None
    assert meter.read(Step("check", 400, 1000)).rate is None
    assert meter.read(Step("download", 1, 2, 7.0)).rate == 7.0
    clock.now += 1
    assert meter.read(Step("download", 5)).eta is None


@pytest.mark.parametrize(
    ("done", "total", "text"),
    [
        (12_300_000, 98_400_000, "12.3/98.4 MB"),
        (900_000, 98_400_000, "900 kB/98.4 MB"),
        (5, None, "5 B"),
        (0, 0, "0 B"),
    ],
)
def test_amounts(done: int, total: int | None, text: str) -> None:
    assert amount_text(done, total) == text
