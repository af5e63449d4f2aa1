"""How far an install is, for each reader."""

from __future__ import annotations

import io
import json

from corral.cli.output import Mode, Output
from corral.cli.progress import shown
from corral.domain.ports import Progress

STEPS = [
    Progress("resolve", detail="pypi:x"),
    *(Progress("download", done, 1_000_000) for done in range(0, 1_000_001, 1000)),
    Progress("check", 1_000_000, 1_000_000),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def watch(
    mode: Mode = Mode.HUMAN, steps: list[Progress] = STEPS, *, terminal: bool = False
) -> tuple[str, str, int, bool]:
    kind = Terminal if terminal else io.StringIO
    stdout, stderr = kind(), kind()
    with shown(Output(mode, stdout=stdout, stderr=stderr, env={}), "m") as seen:
        for step in steps:
            seen(step)
    return stdout.getvalue(), stderr.getvalue(), seen.held, seen.moved


def test_json_lines_are_news() -> None:
    stdout, stderr, held, moved = watch(Mode.JSON)
    lines = [json.loads(row) for row in stdout.splitlines()]

    assert [row["phase"] for row in lines] == ["resolve", *["download"] * 101, "check"]
    assert lines[1] == {
        "event": "progress", "name": "m", "phase": "download", "done": 0, "total": 1_000_000, "detail": "",
    }  # fmt: skip
    assert stderr == ""
    assert (held, moved) == (1_000_000, True)


def test_json_lines_without_a_total_come_with_each_megabyte() -> None:
    steps = [Progress("download", done) for done in range(0, 3_000_000, 100_000)]

    assert len(watch(Mode.JSON, steps)[0].splitlines()) == 3


def test_lines_in_a_log_are_few() -> None:
    stdout, stderr, _, _ = watch()

    assert stdout == ""
    assert stderr.splitlines() == [
        "m: resolve",
        "m: download: 0 B of 1 MB",
        "m: download: 250 kB of 1 MB",
        "m: download: 500 kB of 1 MB",
        "m: download: 750 kB of 1 MB",
        "m: download: 1 MB of 1 MB",
        "m: check: 1 MB of 1 MB",
    ]


def test_quiet_is_quiet() -> None:
    assert watch(Mode.QUIET) == ("", "", 1_000_000, True)


def test_a_bar_shows_bytes_and_leaves_nothing_behind() -> None:
    stdout, stderr, _, _ = watch(terminal=True)

    assert stdout == ""
    assert "m check" in stderr
    assert "1.0/1.0 MB" in stderr
    assert stderr.endswith("\x1b[2K")


def test_nothing_was_fetched() -> None:
    assert watch(Mode.QUIET, []) == ("", "", 0, False)
