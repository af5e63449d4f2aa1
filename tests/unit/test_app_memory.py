"""How much memory engines may take, where one may be put, and what is remembered of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from corral.app.memory import Memory
from corral.config.settings import EngineSettings
from corral.domain.hardware import Cpu, Disk, Gpu, Machine
from corral.domain.hardware import Memory as MainMemory
from corral.domain.memory import Demand, Placement
from corral.domain.ports import Footprint, LaunchSpec
from corral.errors import DoesNotFit
from corral.lifecycle.engines import Launch
from corral.lifecycle.recollection import Recollection
from support.clocks import HandClock

GIB = 1024**3
FACTS = {"block_count": 30, "head_count": 9, "head_count_kv": 3, "embedding_length": 576, "context_length": 8192}


@dataclass(frozen=True)
class NoOptions:
    pass


def machine(available: int = 20 * GIB, gpu: int | None = None, gpu_free: int = 0) -> Machine:
    gpus = () if gpu is None else (Gpu("cuda:0", uuid="one", total=gpu, free=gpu_free),)
    return Machine(Cpu(), MainMemory(24 * GIB, available), Disk(), gpus)


class Yard:
    """A memory over a machine that the test changes."""

    def __init__(self, there: Machine, **settings: Any) -> None:
        self.there = there
        self.looks = 0
        self.slow: Callable[[], Machine] | None = None
        self.settings = EngineSettings(**settings)
        self.clock = HandClock()
        self.recollection = Recollection(None)
        self.memory = Memory(lambda: self.settings, self.look, self.recollection, self.clock)

    def look(self) -> Machine:
        if self.slow is not None:
            take, self.slow = self.slow, None
            return take()
        self.looks += 1
        return self.there

    async def later(self) -> dict[str, int]:
        """What engines may take after a while in which nothing came or went."""
        self.clock.time += 10
        await self.memory.look_again()
        return dict(self.memory.capacity(settled=True))


class Session:
    def __init__(self, pids: Sequence[int] = ()) -> None:
        self._pids = pids
        self.says = {"cpu": 5}
        self.thread: threading.Thread | None = None

    async def footprint(self) -> Footprint:
        return Footprint(self.says)

    def processes(self) -> Sequence[int]:
        self.thread = threading.current_thread()
        return self._pids


def engine(
    launch: Launch, placement: Placement, peak: dict[str, int], pids: Sequence[int] = (), name: str = "e-1"
) -> Any:
    revision = launch.spec.revision.id if launch.spec.revision else None
    return SimpleNamespace(
        id=name,
        launch=launch,
        placement=placement,
        peak=peak,
        session=Session(pids),
        revision=revision,
        gone=asyncio.Event(),
    )


def launch(model: str = "m", size: int = GIB) -> Launch:
    revision: Any = SimpleNamespace(id="r1", facts=FACTS, size=size)
    runtime: Any = SimpleNamespace(kind="any")
    return Launch(runtime, LaunchSpec(model, NoOptions(), revision=revision), 60)


def test_engines_may_take_all_but_the_reserve() -> None:
    yard = Yard(machine(available=24 * GIB))
    assert yard.memory.capacity(settled=True) == {"cpu": 23 * GIB}


def test_of_a_small_device_at_most_a_tenth_is_kept_back() -> None:
    yard = Yard(machine(gpu=4 * GIB, gpu_free=4 * GIB))
    assert yard.memory.capacity(settled=True)["cuda:0"] == 4 * GIB - 4 * GIB // 10


async def test_a_limit_of_the_settings_holds_and_what_others_take_comes_off_the_device() -> None:
    yard = Yard(machine(available=24 * GIB), memory={"cpu": 2 * GIB})
    assert yard.memory.capacity(settled=True) == {"cpu": 2 * GIB}
    yard.there = machine(available=GIB)
    assert await yard.later() == {"cpu": GIB}


async def test_others_are_looked_at_only_while_nothing_comes_or_goes() -> None:
    yard = Yard(machine(available=24 * GIB))
    assert yard.memory.capacity(settled=False) == {"cpu": 23 * GIB}
    yard.there = machine(available=4 * GIB)
    yard.clock.time += 10
    assert yard.memory.capacity(settled=False) == {"cpu": 23 * GIB}  # an engine may be what takes it
    assert await yard.later() == {"cpu": 4 * GIB}
    looks = yard.looks
    yard.memory.capacity(settled=True)
    await yard.memory.look_again()
    assert yard.looks == looks  # a look a moment ago is good enough


async def test_the_machine_is_looked_at_beside_the_loop_and_what_was_seen_is_told() -> None:
    yard = Yard(machine(available=24 * GIB))
    told, seen, go_on = asyncio.Event(), asyncio.Event(), threading.Event()
    yard.memory.news = told.set
    yard.memory.capacity(settled=True)
    loop, take = asyncio.get_running_loop(), yard.look

    def slow() -> Machine:
        loop.call_soon_threadsafe(seen.set)
        assert go_on.wait(30)
        return take()

    yard.slow = slow
    yard.there = machine(available=GIB)
    yard.clock.time += 10
    assert yard.memory.capacity(settled=True) == {"cpu": 23 * GIB}  # as it was seen last
    await seen.wait()
    assert yard.memory.capacity(settled=True) == {"cpu": 23 * GIB}
    go_on.set()
    await told.wait()
    assert yard.memory.capacity(settled=True) == {"cpu": GIB}
    await yard.memory.close()


async def test_what_was_remembered_is_read_beside_the_loop(tmp_path: Path) -> None:
    yard = Yard(machine())
    file = tmp_path / "footprints.json"
    before = Memory(lambda: yard.settings, yard.look, Recollection(file), yard.clock)
    before.measured(engine(launch(), Placement({"cpu": 3}), {"cpu": 3}))
    await before.close()
    after = Memory(lambda: yard.settings, yard.look, Recollection(file), yard.clock)
    await after.look_again()
    file.unlink()  # what is there now has been read
    assert after.placements(launch(), Demand())[0].devices == {"cpu": 3}


async def test_a_look_during_which_an_engine_came_or_went_says_nothing_of_others() -> None:
    yard = Yard(machine(available=24 * GIB))
    yard.memory.capacity(settled=True)
    yard.there = machine(available=GIB)
    yard.clock.time += 10
    yard.memory.capacity(settled=True)  # it begins
    yard.memory.capacity(settled=False)  # and an engine is being loaded
    await yard.memory.look_again()
    assert yard.memory.capacity(settled=True) == {"cpu": 23 * GIB}
    yard.clock.time += 10
    yard.memory.capacity(settled=True)
    yard.memory.forget(engine(launch(), Placement(), {}))  # and one has left
    await yard.memory.look_again()
    assert yard.memory.capacity(settled=True) == {"cpu": 23 * GIB}
    assert await yard.later() == {"cpu": GIB}


async def test_an_engine_that_went_while_it_was_measured_is_not_counted_for_ever() -> None:
    yard = Yard(machine(available=24 * GIB))
    mine = engine(launch(), Placement({"cpu": GIB}), {}, pids=[1])
    measuring = asyncio.create_task(yard.memory.measure(mine))
    await asyncio.sleep(0)
    mine.gone.set()
    yard.memory.forget(mine)
    await measuring
    assert yard.memory._private == {}


async def test_what_our_engines_take_is_not_taken_by_others() -> None:
    yard = Yard(machine(available=24 * GIB))
    mine = engine(launch(), Placement({"cpu": GIB}), {}, pids=[1])
    yard.memory.capacity(settled=True)
    assert await yard.memory.measure(mine) == {"cpu": 5}
    private = yard.memory._private["e-1"]["cpu"]
    yard.there = machine(available=24 * GIB - private)
    assert await yard.later() == {"cpu": 23 * GIB}
    yard.memory.forget(mine)
    assert await yard.later() == {"cpu": min(23 * GIB, 24 * GIB - private)}


async def test_an_engine_without_processes_is_measured_by_what_it_says() -> None:
    yard = Yard(machine())
    mine = engine(launch(), Placement(), {})
    assert await yard.memory.measure(mine) == {"cpu": 5}
    assert mine.session.thread is not threading.current_thread()


async def test_a_device_that_is_gone_gives_nothing_and_is_not_replaced_in_silence() -> None:
    yard = Yard(machine(gpu=8 * GIB, gpu_free=8 * GIB))
    assert yard.memory.capacity(settled=True)["cuda:0"] > 0
    yard.there = replace(machine(), gpus=())
    assert (await yard.later())["cuda:0"] == 0
    (way,) = yard.memory.placements(launch(), Demand(), ())
    assert way.device == "cpu"
    assert "cuda:0 is gone" in way.said


async def test_what_a_daemon_holds_for_us_is_not_taken_by_others() -> None:
    yard = Yard(machine(available=24 * GIB, gpu=16 * GIB, gpu_free=16 * GIB))
    before = dict(yard.memory.capacity(settled=True))
    mine = engine(launch(), Placement({"cuda:0": 8 * GIB}), {})
    mine.session.says = {"cpu": GIB, "cuda:0": 8 * GIB}
    assert await yard.memory.measure(mine) == mine.session.says
    yard.there = machine(available=23 * GIB, gpu=16 * GIB, gpu_free=8 * GIB)
    assert await yard.later() == before


def test_the_best_place_comes_first_and_only_devices_that_the_runtime_can_use() -> None:
    yard = Yard(machine(gpu=8 * GIB, gpu_free=8 * GIB))
    assert [way.device for way in yard.memory.placements(launch(), Demand())] == ["cuda:0", "cpu"]
    assert [way.device for way in yard.memory.placements(launch(), Demand(), ("cpu",))] == ["cpu"]
    assert [way.device for way in yard.memory.placements(launch(), Demand(), ("cuda",))] == ["cuda:0"]


def test_what_cannot_fit_is_refused_with_figures_and_what_to_change() -> None:
    yard = Yard(machine(), memory={"cpu": GIB})
    with pytest.raises(DoesNotFit, match=r"'m' does not fit this machine.*GB") as caught:
        yard.memory.placements(launch(size=40 * GIB), Demand())
    assert caught.value.hint


async def test_what_was_measured_is_taken_the_next_time() -> None:
    yard = Yard(machine())
    (first,) = yard.memory.placements(launch(), Demand())
    assert first.source == "estimated"
    yard.memory.measured(engine(launch(), first, {"cpu": 2 * GIB}))
    (second,) = yard.memory.placements(launch(), Demand())
    assert (second.devices, second.source) == ({"cpu": 2 * GIB}, "measured")
    await yard.memory.close()


async def test_what_is_measured_while_files_are_shared_is_not_remembered() -> None:
    yard = Yard(machine())
    (first,) = yard.memory.placements(launch(), Demand())
    other = engine(launch("other"), first, {"cpu": GIB}, name="e-2")
    yard.memory.measured(other)
    yard.memory.measured(engine(launch(), first, {"cpu": GIB // 2}))
    assert yard.memory.placements(launch(), Demand())[0].devices == {"cpu": GIB}
    yard.memory.forget(other)
    yard.memory.measured(engine(launch(), first, {"cpu": 2 * GIB}))
    assert yard.memory.placements(launch(), Demand())[0].devices == {"cpu": 2 * GIB}
    await yard.memory.close()


async def test_what_did_not_suffice_is_more_the_next_time() -> None:
    yard = Yard(machine())
    (first,) = yard.memory.placements(launch(), Demand())
    yard.memory.too_small(launch(), first)
    (second,) = yard.memory.placements(launch(), Demand())
    assert second.total > first.total * 1.1
    await yard.memory.close()


async def test_an_engine_that_turned_out_larger_than_the_machine_is_refused() -> None:
    yard = Yard(machine(), memory={"cpu": 2 * GIB})
    (way,) = yard.memory.placements(launch(), Demand())
    yard.memory.measured(engine(launch(), way, {"cpu": 3 * GIB}))
    with pytest.raises(DoesNotFit, match="took before"):
        yard.memory.placements(launch(), Demand())
    await yard.memory.close()


async def test_many_things_learned_at_once_are_written_once(tmp_path: Any) -> None:
    yard = Yard(machine())
    file = tmp_path / "footprints.json"
    memory = Memory(lambda: yard.settings, yard.look, Recollection(file), yard.clock)
    for size in (1, 2, 3):
        memory.measured(engine(launch(), Placement({"cpu": size}), {"cpu": size}))
    await asyncio.gather(memory.close())
    again = Memory(lambda: yard.settings, yard.look, Recollection(file), yard.clock)
    assert again.placements(launch(), Demand())[0].devices == {"cpu": 3}
