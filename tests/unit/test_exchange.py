"""Which engines a changed configuration exchanges, and which only go by other rules from then on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from corral.app import Corral, launching
from corral.config import load
from corral.domain.states import State
from corral.lifecycle.engines import Engine
from support.clocks import HandClock, settle
from support.stores import Store


class Supervisor:
    """Has one engine, and writes down why that was unloaded."""

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.state = State.READY
        self.unloaded: list[str] = []
        self.decided = 0

    def statuses(self) -> list[Any]:
        return [SimpleNamespace(model="a", state=self.state, engine=self.engine)]

    async def unload(self, model: str, *, drain: float, reason: str) -> bool:
        self.unloaded.append(reason)
        self.engine, self.state = None, State.FAILED
        return True

    def decide_soon(self) -> None:
        self.decided += 1


def corral(home: Path, model: Mapping[str, Any], **flags: Any) -> Corral:
    file = home / "corral.yaml"
    content = {"runtime": "fake", "options": {"reply": model["reply"]}, **model}
    del content["reply"]
    file.write_text(json.dumps({"models": {"a": content}}))  # which is YAML, too
    env = {"CORRAL_HOME": str(home), "HOME": str(home)}
    return Corral(load(env, flags, file), env=env)


async def installed(home: Path) -> tuple[Corral, Supervisor, Engine, HandClock]:
    """An engine that was started of the second revision of an installed model."""
    running = corral(home, {"reply": "old", "source": "m"})
    clock = running.clock = HandClock()
    running.registry = store = Store(home / "models")
    await store.through("m", 0, 1)
    return *await started(running), clock


async def begun(home: Path) -> tuple[Corral, Supervisor, Engine]:
    """An engine that was started by an old configuration."""
    return await started(corral(home, {"reply": "old"}))


async def started(running: Corral) -> tuple[Corral, Supervisor, Engine]:
    """The model, in memory."""
    launch = await launching.prepare(running, "a")
    session: Any = SimpleNamespace(facts=SimpleNamespace(device="cpu", slots=4))
    there: Any = SimpleNamespace()
    engine = Engine("fake-1", "a", launch, session, there, there, 0.0, 0.0, 0.0, limit=4)
    supervisor: Any = Supervisor()
    supervisor.engine = engine
    running.supervisor = supervisor
    return running, supervisor, engine


async def exchanged(home: Path, model: Mapping[str, Any], **flags: Any) -> tuple[Supervisor, Engine]:
    """What becomes of an engine that was started before the configuration became this one."""
    running, supervisor, engine = await begun(home)
    fresh = corral(home, model, **flags)
    running.settings, running.models = fresh.settings, fresh.models
    running.exchange.look()
    await settle()
    return supervisor, engine


async def test_an_engine_that_would_be_started_otherwise_is_exchanged(tmp_path: Path) -> None:
    supervisor, _ = await exchanged(tmp_path, {"reply": "new"})
    assert supervisor.unloaded == ["it is configured otherwise now"]


async def test_an_engine_stays_when_only_the_time_of_a_start_changes(tmp_path: Path) -> None:
    supervisor, engine = await exchanged(tmp_path, {"reply": "old"}, **{"engines.load_timeout": "9m"})
    assert supervisor.unloaded == []
    assert supervisor.engine is engine


@pytest.mark.parametrize(("wanted", "limit"), [(2, 2), (None, 4)])
async def test_how_many_requests_it_is_given_at_once_changes_without_an_exchange(
    tmp_path: Path, wanted: int | None, limit: int
) -> None:
    rules = {} if wanted is None else {"concurrency": wanted}
    supervisor, engine = await exchanged(tmp_path, {"reply": "old", **rules})
    assert supervisor.unloaded == []
    assert engine.limit == limit
    assert engine.launch.limit == wanted
    assert supervisor.decided == 1


async def test_an_engine_that_is_being_started_by_the_old_configuration_is_exchanged_once_it_is_there(
    tmp_path: Path,
) -> None:
    running, supervisor, engine = await begun(tmp_path)
    clock = running.clock = HandClock()
    supervisor.engine, supervisor.state = None, State.LOADING
    fresh = corral(tmp_path, {"reply": "new"})
    running.settings, running.models = fresh.settings, fresh.models
    running.exchange.look()
    await settle()
    assert supervisor.unloaded == []
    supervisor.engine, supervisor.state = engine, State.READY
    await clock.advance(1)
    assert supervisor.unloaded == ["it is configured otherwise now"]


async def test_an_engine_of_a_revision_that_was_replaced_while_it_was_started_is_exchanged(tmp_path: Path) -> None:
    running, supervisor, engine, clock = await installed(tmp_path)
    supervisor.engine, supervisor.state = None, State.LOADING
    await running.catalog.rollback("m")
    await settle()
    assert supervisor.unloaded == []
    supervisor.engine, supervisor.state = engine, State.READY
    await clock.advance(1)
    assert supervisor.unloaded == ["another revision took its place"]


async def test_an_engine_is_looked_at_again_in_the_moment_it_was_found_to_be_as_it_should(tmp_path: Path) -> None:
    running, supervisor, _ = await begun(tmp_path)
    running.exchange.look()
    await asyncio.sleep(0)  # it has been looked at, and nothing more has happened yet
    fresh = corral(tmp_path, {"reply": "new"})
    running.settings, running.models = fresh.settings, fresh.models
    running.exchange.look()
    await settle()
    assert supervisor.unloaded == ["it is configured otherwise now"]
