"""Engines that would be started otherwise by now are exchanged, each when it has answered whom it is answering."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from corral.app import launching
from corral.domain.states import State
from corral.errors import CorralError, ModelBusy

if TYPE_CHECKING:
    from corral.app.corral import Corral
    from corral.lifecycle.engines import Engine

_PAUSE = 1.0
"""Seconds between two tries to exchange an engine that is answering."""


class Exchange:
    """Exchanges the engines of one `Corral`, after an update, a rollback or a change of the configuration."""

    def __init__(self, corral: Corral) -> None:
        self._corral = corral
        self._under_way: dict[str, asyncio.Task[None]] = {}

    def look(self) -> None:
        """See to every engine in memory, or on its way there. Does not wait."""
        for status in self._corral.supervisor.statuses():
            under_way = self._under_way.get(status.model)
            # One that is done has seen how it was, and is only not forgotten yet.
            if status.state is not State.FAILED and (under_way is None or under_way.done()):
                task = asyncio.ensure_future(self._exchange(status.model))
                self._under_way[status.model] = task
                task.add_done_callback(self._done)

    async def go_by_the_rules(self) -> None:
        """Have every engine go by the rules that its model has now; what must be exchanged is left to `look`."""
        for status in self._corral.supervisor.statuses():
            if status.engine is not None:
                await self._stale(status.engine)

    async def close(self) -> None:
        """Stop waiting for engines to become free."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way = {model: other for model, other in self._under_way.items() if other is not task}

    async def _exchange(self, model: str) -> None:
        corral = self._corral
        while True:
            status = next((s for s in corral.supervisor.statuses() if s.model == model), None)
            if status is None or status.state is State.FAILED:
                return
            if status.engine is None:  # it is being loaded as it was configured before
                await corral.clock.sleep(_PAUSE)
                continue
            if (why := await self._stale(status.engine)) is None:
                return
            try:
                await corral.supervisor.unload(model, drain=corral.settings.engines.drain_grace, reason=why)
            except ModelBusy:
                await corral.clock.sleep(_PAUSE)

    async def _stale(self, engine: Engine) -> str | None:
        """Why the model would be started otherwise now, or not at all; None when it would not."""
        try:
            now = await launching.prepare(self._corral, engine.model)
        except CorralError as error:
            return error.message
        was = engine.launch
        if now.spec.revision != was.spec.revision:
            return "another revision took its place"
        # How long a start may take says nothing of an engine that has started.
        spec = replace(now.spec, load_timeout=was.spec.load_timeout)
        if now.runtime.kind != was.runtime.kind or spec != was.spec:
            return "it is configured otherwise now"
        rules = replace(
            was, idle_timeout=now.idle_timeout, resident=now.resident, priority=now.priority, limit=now.limit
        )
        engine.go_by(rules)
        self._corral.supervisor.decide_soon()
        return None
