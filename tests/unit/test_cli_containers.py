"""What `corral containers` makes of what is known of containers: tables, lines, words and exit codes."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from corral.cli import containers, containers_live
from corral.cli.containers_words import STATES, STEPS, trouble
from corral.cli.invocation import Invocation
from corral.cli.output import Mode, Output
from corral.domain.containers import Usage
from corral.domain.standings import ContainerState, ModelInside, Standing, Step, describe
from corral.errors import ContainerNotFound, CorralError, DockerUnavailable, InvalidRequest

NOW = 1_000_000.0


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def given(mode: Mode = Mode.HUMAN, width: int | None = None) -> tuple[Invocation, io.StringIO, io.StringIO]:
    """An invocation whose output is kept; with `width`, as on a terminal of so many cells without colours."""
    stdout = io.StringIO() if width is None else Terminal()
    stderr = io.StringIO()
    env = {"NO_COLOR": "1", "COLUMNS": str(width or "")}
    return Invocation(Output(mode, stdout=stdout, stderr=stderr, env=env)), stdout, stderr


def standing(name: str = "coder", state: ContainerState = ContainerState.HEALTHY, **more: Any) -> dict[str, Any]:
    """A container as every surface shows it."""
    facts: dict[str, Any] = {
        "container": f"corral-{name}",
        "kind": "ollama",
        "image": "ollama/ollama:0.12.3",
        "port": 11434,
        "url": "http://127.0.0.1:11434",
        "started_at": NOW - 3700,
        "models": (ModelInside("qwen2.5-coder:7b", "sha256:0123456789abcdef", 4_700_000_000, True, 4_000_000_000),),
        **more,
    }
    return describe(Standing(name, state=state, **facts), NOW)


def tabled(found: Sequence[dict[str, Any]], width: int | None = None) -> str:
    invocation, stdout, _ = given(width=width)
    containers._tabled(invocation, found)
    return stdout.getvalue()


def test_a_table_has_a_row_for_each() -> None:
    text = tabled([standing(purpose="code completion", gpus=("0",), memory_limit=8_000_000_000)])

    head, row = text.splitlines()
    assert head.split() == ["NAME", "STATE", "PURPOSE", "PORT", "UP", "RESTARTS", "MODELS", "MEMORY", "GPUS", "IMAGE"]
    for word in ("coder", "healthy", "code completion", "11434", "1h 1m", "qwen2.5-coder:7b", "8 GB", "ollama/ollama"):
        assert word in row


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_table_is_as_wide_as_the_terminal(width: int) -> None:
    names = ["coder", "a-container-with-quite-a-long-name-indeed", "writer"]
    text = tabled([standing(name, purpose="long reasoning over documents " * 3) for name in names], width)

    assert max(map(len, text.splitlines())) <= width
    assert "STATE" in text
    assert "healthy" in text


def test_a_reason_that_all_share_is_said_once() -> None:
    reason = "the Docker engine does not answer"
    text = tabled([standing(name, ContainerState.UNKNOWN, reason=reason) for name in ("a", "b", "c")])

    assert text.count(reason) == 1
    assert f"all: {reason}" in text


def test_each_reason_names_whom_it_is_about() -> None:
    drifted = standing("a", drift=("memory: 8 GB, not 4 GB",))
    killed = standing("b", ContainerState.OOM_KILLED, reason="it took more than 2 GB")
    text = tabled([drifted, killed, standing("c")])

    assert "a: differs: memory: 8 GB, not 4 GB" in text
    assert "b: it took more than 2 GB" in text
    assert "OOM killed" in text
    assert "c:" not in text


def test_nothing_configured_says_where_to_begin() -> None:
    assert "corral.yaml" in tabled([])


def test_quiet_names_those_that_can_be_asked() -> None:
    invocation, stdout, _ = given(Mode.QUIET)
    containers._tabled(invocation, [standing("a"), standing("b", ContainerState.STARTING)])

    assert stdout.getvalue() == "a\n"


def test_why_one_could_not_be_made_is_told_beside_it() -> None:
    refused = standing("a", ContainerState.ABSENT, reason="as there are only 2 CPUs available")

    assert "a: as there are only 2 CPUs available" in tabled([refused, standing("b")])
    assert "there is none" not in tabled([standing("a", ContainerState.ABSENT, reason="there is none")])


def test_one_container_is_shown_whole() -> None:
    invocation, stdout, _ = given(width=80)
    one = standing(reason="why", exit_code=137, missing=("phi4:14b",), previous="ollama/ollama:0.12.2", cpu_limit=1.5)
    containers._show(invocation, {**one, "wanted": False})
    text = stdout.getvalue()

    for word in ("137", "phi4:14b", "0.12.2", "1.5 processors", "qwen2.5-coder:7b (loaded)", "stays down", "why"):
        assert word in text
    assert "Version" not in text  # what is not known is left out
    assert max(map(len, text.splitlines())) <= 80


def test_what_hostile_servers_say_cannot_drive_a_terminal() -> None:
    text = tabled([standing(version="\x1b[2J", reason="\x1b]0;gone\x07\nnext", models=(ModelInside("\x1b[31mred"),))])

    assert "\x1b" not in text
    assert "\x07" not in text


@pytest.mark.parametrize("state", ContainerState)
def test_every_state_has_a_word_and_a_colour(state: ContainerState) -> None:
    assert "_" not in str(STATES.painted(state))
    assert STATES.painted(state).style


@pytest.mark.parametrize("step", Step)
def test_every_step_has_a_colour(step: Step) -> None:
    assert STEPS.painted(step).style


@pytest.mark.parametrize(
    ("state", "wanted", "waited", "is_trouble"),
    [
        ("healthy", True, True, False),
        ("fallen_back", True, True, True),
        ("starting", True, True, True),
        ("starting", True, False, False),
        ("waiting", True, False, False),
        ("crash_loop", True, False, True),
        ("stopped", False, True, False),
        ("stopped", True, True, True),
        ("orphan", True, True, False),
        ("unknown", True, True, True),
    ],
)
def test_what_is_trouble(state: str, wanted: bool, waited: bool, is_trouble: bool) -> None:
    assert trouble({"state": state, "wanted": wanted}, waited=waited) is is_trouble


def test_what_to_do_with_orphans_is_one_of_three() -> None:
    assert containers._chosen(None) is None
    assert containers._chosen("adopt") == "adopt"
    with pytest.raises(InvalidRequest, match="report, remove, adopt"):
        containers._chosen("forget")


def test_what_became_of_a_container_is_a_sentence() -> None:
    invocation, stdout, _ = given()
    containers._say(invocation, standing())
    containers._say(invocation, standing("b", ContainerState.CRASH_LOOP, reason="it ended 5 times. See its log."))
    containers._say(invocation, standing("c", ContainerState.STOPPED))

    assert stdout.getvalue().splitlines() == [
        "coder is healthy at http://127.0.0.1:11434.",
        "b is in a crash loop: it ended 5 times. See its log.",
        "c is stopped.",
    ]


def figures(**more: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return {"name": "coder", **asdict(Usage(NOW, **more))}


def test_figures_are_in_units_that_people_read() -> None:
    row = containers_live._row(
        figures(cpu=1.5, memory=2_000_000_000, throttled=0.25, gpu_memory=4_000_000_000, gpu_temperature=61.0, pids=0)
    )

    assert row[1:4] == ["150 %", "2 GB", "-"]
    assert row[8:] == [0, "25 %", "-", "4 GB", "61 C"]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_figures_fit_the_terminal(width: int) -> None:
    invocation, stdout, _ = given(width=width)
    containers_live._show(invocation.output, [figures(cpu=0.1, memory=5_000_000)], ["writer"])

    lines = stdout.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "writer: not running" in lines[-1]


def test_what_is_known_of_no_container_has_no_column() -> None:
    invocation, stdout, _ = given()
    containers_live._show(invocation.output, [figures(cpu=0.1, memory=5_000_000, pids=3)], [])
    assert stdout.getvalue().splitlines()[0].split() == ["NAME", "CPU", "MEMORY", "PIDS"]


class Player:
    """Hands over what it is told to say: what a server or an engine would answer."""

    def __init__(self, usages: dict[str, Sequence[Usage | CorralError]], up: Sequence[str] = ()) -> None:
        self._usages = usages
        self._up = [standing(name) for name in up]

    async def all(self) -> list[dict[str, Any]]:
        return self._up

    async def usages(self, name: str) -> AsyncIterator[dict[str, Any]]:
        for usage in self._usages[name]:
            if isinstance(usage, CorralError):
                raise usage
            from dataclasses import asdict

            yield asdict(usage)


async def test_live_figures_are_json_lines_until_all_have_ended() -> None:
    invocation, stdout, _ = given(Mode.JSON)
    hands: Any = Player({"a": [Usage(1.0, cpu=0.5), Usage(2.0)], "b": [Usage(1.5)]}, up=["a", "b"])

    await containers_live._live(invocation, hands, [])

    lines = [json.loads(line) for line in stdout.getvalue().splitlines()]
    assert sorted((line["name"], line["at"]) for line in lines) == [("a", 1.0), ("a", 2.0), ("b", 1.5)]


async def test_one_that_cannot_be_looked_at_does_not_hide_the_others() -> None:
    invocation, stdout, _ = given(Mode.JSON)
    hands: Any = Player({"a": [DockerUnavailable("it is gone")], "b": [Usage(1.5)]}, up=["a", "b"])

    await containers_live._live(invocation, hands, [])
    assert json.loads(stdout.getvalue())["name"] == "b"


@pytest.mark.parametrize("error", [DockerUnavailable("it is gone"), ContainerNotFound("there is none")])
async def test_when_none_can_be_looked_at_the_reason_is_told(error: CorralError) -> None:
    invocation, _, _ = given(Mode.JSON)
    hands: Any = Player({"a": [error]})

    with pytest.raises(type(error)):
        await containers_live._live(invocation, hands, ["a"])


async def test_without_anything_that_runs_there_is_nothing_to_look_at() -> None:
    invocation, stdout, _ = given()
    hands: Any = Player({})

    await containers_live._live(invocation, hands, [])
    assert "corral containers up" in stdout.getvalue()


def test_a_line_of_a_log_may_have_its_time() -> None:
    invocation, stdout, _ = given()
    show: Callable[[bool, dict[str, Any]], None] = lambda times, line: containers_live._line(  # noqa: E731
        invocation.output, times, line
    )
    show(False, {"text": "loaded", "at": NOW, "error": False})
    show(True, {"text": "loaded", "at": NOW, "error": True})
    show(True, {"text": "no time", "at": None, "error": False})

    first, second, third = stdout.getvalue().splitlines()
    assert first == "loaded"
    assert second.endswith("  loaded")
    assert second[2] == ":"
    assert third == "no time"
