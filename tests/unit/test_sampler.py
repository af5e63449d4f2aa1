"""Looks at a machine again and again: a bounded history, and GPUs that vanish and come back, each told once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.domain.hardware import Cpu, DeviceChange, Disk, Gpu, Machine, Memory
from corral.hardware.loss import Roll, called
from corral.hardware.sampler import Sampler
from support.clocks import HandClock, settle

GB = 1000**3
A = Gpu("cuda:0", "A", 24 * GB, 20 * GB, 50.0, 60.0, power=100.0, uuid="GPU-a")
B = Gpu("cuda:1", "B", 8 * GB, 8 * GB, 0.0, 40.0, uuid="GPU-b")


def machine(*gpus: Gpu, cpu: float = 10.0) -> Machine:
    return Machine(Cpu(4, usage=cpu), Memory(16 * GB, 12 * GB), Disk(), gpus)


SILENT = replace(machine(), gpus=None)


class Scripted:
    """A machine that is seen as the script says, the last look again and again."""

    def __init__(self, *looks: Machine) -> None:
        self._looks = list(looks)
        self.count = 0

    def __call__(self) -> Machine:
        self.count += 1
        return self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]


async def test_the_latest_look_and_the_history_in_columns() -> None:
    clock = HandClock()
    sampler = Sampler(Scripted(machine(A), machine(A, B, cpu=30.0), machine(B)), clock, kept=2)
    assert sampler.latest is None
    assert sampler.history() == {"at": [], "cpu": [], "memory": [], "gpus": {}}
    for _ in range(3):
        latest = await sampler.look()
        clock.time += 2
    assert sampler.latest is latest
    first = clock.wall() - 4

    shown = sampler.history()
    assert shown["at"] == [first, first + 2]
    assert shown["cpu"] == [30.0, 10.0]
    assert shown["memory"] == [4 * GB, 4 * GB]
    assert shown["gpus"] == {
        "cuda:0": {
            "used": [4 * GB, None],
            "usage": [50.0, None],
            "temperature": [60.0, None],
            "power": [100.0, None],
        },
        "cuda:1": {"used": [0, 0], "usage": [0.0, 0.0], "temperature": [40.0, 40.0], "power": [None, None]},
    }
    assert sampler.history(1)["at"] == [first + 2]


async def test_a_fresh_look_serves_all_who_ask() -> None:
    clock, script = HandClock(), Scripted(machine(A))
    sampler = Sampler(script, clock)

    await asyncio.gather(*(sampler.look() for _ in range(20)))
    assert script.count == 1
    await sampler.look(fresh=5)
    assert script.count == 1
    clock.time += 6
    await sampler.look(fresh=5)
    assert script.count == 2


async def test_a_lost_gpu_is_told_once_and_so_is_its_return(caplog: pytest.LogCaptureFixture) -> None:
    told: list[DeviceChange] = []
    clock = HandClock()
    fallen = replace(A, total=None, free=None, fault="GPU is lost")
    script = Scripted(machine(A, B), machine(fallen, B), machine(fallen, B), machine(A, B))
    sampler = Sampler(script, clock, tell=told.append)
    with caplog.at_level(logging.WARNING, "corral"):
        seen = []
        for _ in range(4):
            seen.append(await sampler.look())
            clock.time += 1

    at = clock.wall() - 3
    assert told == [
        DeviceChange("cuda:0", back=False, reason="GPU is lost", at=at),
        DeviceChange("cuda:0", back=True, reason="it was gone: GPU is lost", at=at + 2),
    ]
    assert [[gpu.id for gpu in look.gpus or ()] for look in seen] == [
        ["cuda:0", "cuda:1"],
        ["cuda:1"],
        ["cuda:1"],
        ["cuda:0", "cuda:1"],
    ]
    (lost,) = seen[2].lost
    assert (lost.gpu, lost.lost_at, lost.reason) == (A, at, "GPU is lost")
    assert seen[3].lost == ()
    assert "cuda:0 is lost: GPU is lost" in caplog.text
    assert "cuda:0 is back" in caplog.text


@pytest.mark.parametrize(
    ("later", "reason"),
    [
        (SILENT, "the driver does not answer"),
        (machine(), "the driver is gone, or shows no device"),
        (machine(B), "the driver no longer lists it"),
        (machine(replace(B, id="cuda:0")), "the driver no longer lists it"),  # the driver counts anew
    ],
)
def test_why_a_gpu_is_lost(later: Machine, reason: str) -> None:
    roll, _, first = called(Roll(), machine(A, B), 5.0)
    roll, now, changes = called(roll, later, 6.0)

    assert first == ()
    assert DeviceChange("cuda:0", back=False, reason=reason, at=6.0) in changes
    assert now.lost[0].gpu == A
    assert [gpu.id for gpu in now.gpus or ()] == ["cuda:1"] * bool(later.gpus)
    assert now.best_device == "cuda"
    _, again, changes = called(roll, machine(A, B), 7.0)
    assert again.lost == ()
    assert all(change.back for change in changes)


def test_a_gpu_that_never_worked_is_lost_from_the_start() -> None:
    _, now, changes = called(Roll(), machine(Gpu("cuda:0", fault="GPU is lost")), 5.0)

    assert now.gpus == ()
    assert now.best_device == "cuda"
    assert [change.reason for change in changes] == ["GPU is lost"]


def test_a_driver_that_never_answered_is_unknown() -> None:
    roll, now, changes = called(Roll(), SILENT, 5.0)

    assert now.gpus is None
    assert (roll, now.lost, changes) == (Roll(), (), ())


def test_a_new_gpu_in_the_place_of_a_lost_one_has_another_number() -> None:
    roll, _, _ = called(Roll(), machine(A), 1.0)
    _, now, _ = called(roll, machine(replace(B, id="cuda:0")), 2.0)

    assert [gpu.id for gpu in now.gpus or ()] == ["cuda:1"]
    assert [lost.gpu.id for lost in now.lost] == ["cuda:0"]


looks = st.lists(
    st.none() | st.lists(st.sampled_from("abcd"), unique=True, max_size=4).map(tuple), min_size=1, max_size=12
)


@settings(deadline=None)
@given(looks)
def test_nothing_that_was_seen_is_ever_forgotten(script: Iterable[tuple[str, ...] | None]) -> None:
    roll = Roll()
    ever: set[str | None] = set()
    gone: set[str | None] = set()
    for at, names in enumerate(script):
        gpus = None if names is None else tuple(Gpu(f"cuda:{i}", uuid=name) for i, name in enumerate(names))
        ever |= set(names or ())
        roll, now, changes = called(roll, replace(SILENT, gpus=gpus), float(at))
        there = {gpu.uuid for gpu in now.gpus or ()}
        lost = {gpu.gpu.uuid for gpu in now.lost}
        assert there == set(names or ())
        assert there | lost == ever
        ids = [gpu.id for gpu in now.gpus or ()] + [gpu.gpu.id for gpu in now.lost]
        assert len(set(ids)) == len(ids)
        assert sum(not change.back for change in changes) == len(lost - gone)
        assert sum(change.back for change in changes) == len(gone - lost)
        gone = lost


async def test_looks_are_rare_while_nobody_watches_and_begin_when_somebody_does() -> None:
    clock, script = HandClock(), Scripted(machine(A))
    sampler = Sampler(script, clock, every=2.0)
    running = asyncio.ensure_future(sampler.run())
    await sampler.look()
    await settle()
    await clock.advance(19)
    assert script.count == 1

    seen = []
    async with aclosing(sampler.subscribe()) as news:
        seen.append(await anext(news))
        upcoming = asyncio.ensure_future(anext(news))
        await settle()  # the first watcher ends the long pause at once
        seen.append(await upcoming)
        for _ in range(2):
            upcoming = asyncio.ensure_future(anext(news))
            await settle()
            await clock.advance(2)
            seen.append(await upcoming)
    assert len({id(look) for look in seen}) == 4
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_look_that_fails_is_no_end() -> None:
    class Failing:
        def __init__(self) -> None:
            self.count = 0

        def __call__(self) -> Machine:
            self.count += 1
            if self.count == 1:
                raise OSError("no")
            return machine()

    sampler = Sampler(Failing(), HandClock())
    with pytest.raises(OSError, match="no"):
        await sampler.look()
    assert (await sampler.look()).gpus == ()


async def test_figures_and_changes_as_messages() -> None:
    sampler = Sampler(Scripted(machine(A), SILENT, machine(A)), HandClock())
    await sampler.look()
    told = []
    async with aclosing(sampler.messages()) as messages:
        told.append(await anext(messages))
        for _ in range(2):
            await sampler.look()
            told += [await anext(messages), await anext(messages)]

    assert [(one["type"], one.get("back")) for one in told] == [
        ("sample", None),
        ("device", False),
        ("sample", None),
        ("device", True),
        ("sample", None),
    ]
    assert told[0]["gpus"]["cuda:0"] == {"used": 4 * GB, "usage": 50.0, "temperature": 60.0, "power": 100.0}
    assert told[2]["lost"] == ["cuda:0"]
    assert told[1]["reason"] == "the driver does not answer"
