"""Files that somebody wrote to do harm, or in a hurry: they are refused in words, soon, and without much memory."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from corral.config import ContainerSettings
from corral.domain.containers import ContainerSpec, Seen, Wanted
from corral.domain.standings import ContainerState, Health
from corral.errors import ConfigError
from corral.fleet import standing
from corral.fleet.compose import Imported, read_compose
from corral.fleet.desired import wanted
from corral.fleet.standing import News

SERVICE = "services:\n  coder:\n    image: ollama/ollama\n"
MOST = 200 << 20
"""Bytes that reading one file may take: far more than is needed, far less than what it stands for."""


def read(text: str, **variables: str) -> Imported:
    return read_compose(text, variables, folder=Path("/srv/stack"))


def doubling(first: str, line: str, times: int) -> str:
    """Anchors of which each holds the one before it several times."""
    return first + "".join(line.format(now=number, before=number - 1) for number in range(1, times))


BOMBS = {
    "lists": doubling("x-0: &n0 [x, x]\n", "x-{now}: &n{now} [" + ", ".join(["*n{before}"] * 9) + "]\n", 12) + SERVICE,
    "an environment": SERVICE
    + "    environment:\n"
    + doubling("      V0: &n0 [x, x]\n", "      V{now}: &n{now} [" + ", ".join(["*n{before}"] * 9) + "]\n", 12),
    "merged keys": doubling("x-0: &n0 {a: b}\n", "x-{now}: &n{now} {{<<: [*n{before}, *n{before}]}}\n", 40) + SERVICE,
    "keys": doubling("x-0: &n0 [x]\n", "x-{now}: &n{now} {{? [*n{before}, *n{before}] : x}}\n", 30) + SERVICE,
    "levels": doubling("x-0: &n0 [x]\n", "x-{now}: &n{now} [*n{before}]\n", 2000)
    + SERVICE
    + "    environment: {A: *n1999}\n",
    "itself": "x-0: &n0 [*n0]\n" + SERVICE,
    "a long text": 'x-0: &n0 "$$' + "y" * 60_000 + '"\nx-1: [' + ", ".join(["*n0"] * 10_000) + "]\n" + SERVICE,
}


@pytest.mark.parametrize("what", BOMBS)
def test_anchors_that_stand_for_more_than_anybody_wrote_are_refused_before_they_are_followed(what: str):
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match=r"anchors|too much|too deeply|not YAML") as refused:
            read(BOMBS[what])
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        tracemalloc.stop()
    assert "compose.yaml" in refused.value.message


@pytest.mark.parametrize(
    "text",
    [
        SERVICE + "    working_dir: '" + "$LONG" * 5000 + "'\n",
        SERVICE + "    environment:\n" + "".join(f"      V{number}: $LONG$LONG\n" for number in range(2500)),
        "x-all: '" + "${LONG:-x}" * 5000 + "'\n" + SERVICE,
    ],
    ids=["one key", "an environment", "beside services"],
)
def test_a_long_variable_that_is_named_often_is_not_filled_in_everywhere(text: str):
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match="too much"):
            read(text, LONG="x" * 100_000)
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        tracemalloc.stop()


def test_variables_within_variables_without_end_are_refused():
    with pytest.raises(ConfigError, match="nested too deeply"):
        read(SERVICE + '    working_dir: "' + "${A:-" * 5000 + "x" + "}" * 5000 + '"\n')


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("pids_limit: 1.0e999", "pids"),
        (f"mem_limit: {'9' * 400}", "memory"),
        ("mem_limit: 99999999999999999999999g", "memory"),
        ("shm_size: 99999999999999999999999g", "shm"),
        ('gpus: "²"', "gpus.count"),
        ("gpus: [{count: [a]}]", "gpus.count"),
        ("x-corral: {kind: [a]}", "x-corral.kind"),
        ("x-corral: {kind: {a: b}}", "x-corral.kind"),
        ("x-corral: {kind: 5}", "x-corral.kind"),
        ("x-corral: {kind: olama}", "x-corral.kind"),
        ('ports: ["²:11434"]', "ports"),
        (f'ports: ["{"1" * 5000}:11434"]', "ports"),
        ('volumes: [{type: tmpfs, target: /x, tmpfs: {mode: "0²"}}]', "volumes"),
        (f"volumes: [{{type: tmpfs, target: /x, tmpfs: {{size: {'9' * 400}}}}}]", "volumes"),
        ("ports: [{target: 11434, published: 1, host_ip: 5}, {target: 2, published: 2, host_ip: 6}]", ""),
        ("pids_limit: 99999999999999999999999", ""),
        ("stop_grace_period: 99999999999999s", ""),
    ],
)
def test_a_value_that_cannot_be_is_left_out_with_its_key(line: str, key: str):
    found = read(f"{SERVICE}    {line}\n")
    left = {one.key: one.reason for one in found.unsupported}
    assert key in left
    assert "literal" not in left[key]
    assert "convert" not in left[key]
    assert len(left[key]) < 400


def test_what_is_a_number_beside_services_is_said_like_any_other_key():
    found = read("1: x\n~: y\nfoo: z\n" + SERVICE)
    assert list(found.entries) == ["coder"]
    assert {one.key for one in found.unsupported} == {"1", "None", "foo"}


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"environment": {"TOKEN": "hidden\0value"}}, "NUL"),
        ({"environment": {"TOKEN": "hidden" * 30_000}}, "longer than"),
        ({"health": "/中"}, "no path"),
        ({"health": "/x\0"}, "no path"),
        ({"health": "/x\x1b[2J"}, "no path"),
        ({"cpus": 1e30}, "no machine"),
        ({"memory": 10**30}, "no machine"),
        ({"shm": 10**30}, "no machine"),
        ({"pids": 10**30}, "no machine"),
        ({"stop_grace": 1e15}, "never ends"),
        ({"container": "corral-other.before"}, "makes room"),
    ],
)
def test_what_no_engine_takes_is_refused_before_it_is_asked_and_secrets_are_not_shown(
    entry: dict[str, object], reason: str
):
    with pytest.raises(ConfigError, match=reason) as refused:
        wanted("coder", ContainerSettings(**entry), {})  # type: ignore[arg-type]  # one of its fields
    assert "hidden" not in str(refused.value)


def test_an_entry_whose_container_would_be_called_as_one_that_makes_room_is_refused():
    with pytest.raises(ConfigError, match="makes room"):
        wanted("coder.before", ContainerSettings(), {})


def test_an_engine_that_dies_often_makes_no_crash_loop_of_what_it_ends():
    want = Wanted(ContainerSpec("coder", "corral-coder", "ollama", "ollama/ollama"))
    seen = Seen("1" * 64, "corral-coder", "ollama/ollama", running=True, started_at=1000.0)
    now, past = 1000.0, standing.Past()
    for time in range(3 * want.watch.crashes):
        now = 1000.0 + 10 * time
        past = standing.stand(want, replace(seen, started_at=now), past, now).past
        past = standing.gone(past, "it does not answer", now + 1).past
        down = replace(seen, running=False, exit_code=143, started_at=now, finished_at=now + 1)
        found = standing.stand(want, down, past, now + 2)
        assert found.state is not ContainerState.CRASH_LOOP
        past = found.past
    assert past.crashes == 0


def test_a_clock_that_is_set_back_puts_nothing_off_for_long():
    want = Wanted(ContainerSpec("coder", "corral-coder", "ollama", "ollama/ollama"))
    seen = Seen("1" * 64, "corral-coder", "ollama/ollama", running=True, started_at=9000.0)
    past = standing.stand(want, seen, standing.Past(), 9000.0).past
    back = 5000.0  # an hour and more before it was started
    found = standing.stand(want, seen, past, back, News(health=Health(True, back)))
    assert found.state is ContainerState.HEALTHY
    down = replace(seen, running=False, exit_code=1, finished_at=9001.0)
    ended = standing.stand(want, down, past, 9001.0)
    assert ended.effects == ()
    assert ended.wake == pytest.approx(9002.0)
    waiting = standing.stand(want, down, ended.past, 9001.5)
    assert waiting.state is ContainerState.WAITING
    assert [effect.do for effect in standing.stand(want, down, waiting.past, back).effects] == [standing.Do.START]
