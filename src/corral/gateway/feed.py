"""What happens in the yard, as it happens: how it stands first, then each change, for events and WebSockets alike.

    {"type": "snapshot", "at", "models": […], "memory": {…}, "queues": {…}}
    {"type": "transition", "at", "model", "state", "reason"}
    {"type": "decision", "at", "model", "effect", "reason", "room_for"}
    {"type": "container", "at", "container": {…}}
    {"type": "container_event", "at", "name", "what", "before", "after", "reason", "detail"}
    {"type": "sample", "at", …}                 the machine's own figures, where somebody takes them
    {"type": "device", "at", "device", "back", "reason"}
    {"type": "lost", "count"}                   so many of the oldest went lost: the listener was too slow

Times in Unix seconds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from corral.domain.states import Transition
from corral.gateway import described

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping

    from corral.app import Corral
    from corral.app.registration import Registrations
    from corral.lifecycle.supervisor import Entry

BACKLOG = 512
"""Messages that are kept for a listener who does not come to take them."""
HEARTBEAT = 15.0
"""Seconds of silence after which a stream says that it is still there."""


class Backlog:
    """Messages for one listener: as many as it may leave lying, then the oldest make room and are counted."""

    def __init__(self, most: int = BACKLOG) -> None:
        self._waiting: deque[Mapping[str, Any]] = deque()
        self._most = most
        self._lost = 0
        self._there = asyncio.Event()
        self.ended = False

    def put(self, message: Mapping[str, Any]) -> None:
        """Keep a message; the oldest goes when there are too many."""
        if len(self._waiting) >= self._most:
            self._waiting.popleft()
            self._lost += 1
        self._waiting.append(message)
        self._there.set()

    def end(self) -> None:
        """No more will come."""
        self.ended = True
        self._there.set()

    async def take(self, patience: float) -> Mapping[str, Any] | None:
        """The next message, how many went lost before it first of all; None after `patience` seconds, or at the end."""
        if not self._waiting and not self.ended:
            self._there.clear()
            try:
                async with asyncio.timeout(patience):
                    await self._there.wait()
            except TimeoutError:
                return None
        if self._lost:
            count, self._lost = self._lost, 0
            return {"type": "lost", "count": count}
        return self._waiting.popleft() if self._waiting else None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to take."""
        return not self._waiting and not self._lost


class Feed:
    """Tells whoever listens.

    Args:
        corral: the parts.
        registrations: models that were registered.
        leaving: set when the server is about to stop; every listener is then sent home.
        samples: the machine's figures, as somebody takes them; each has a `type` of its own, or is a `sample`.
    """

    def __init__(
        self,
        corral: Corral,
        registrations: Registrations,
        leaving: asyncio.Event,
        samples: Callable[[], AsyncIterator[Mapping[str, Any]]] | None = None,
    ) -> None:
        self._corral = corral
        self._registrations = registrations
        self._leaving = leaving
        self._samples = samples

    async def listen(
        self, most: int = BACKLOG, heartbeat: float = HEARTBEAT
    ) -> AsyncGenerator[Mapping[str, Any] | None, None]:
        """How it stands, then each change, until the server leaves; None for `heartbeat` seconds of silence."""
        backlog = Backlog(most)
        sources = [_changes(self._corral.supervisor.events()), self._corral.fleet.feed()]
        if self._samples is not None:
            sources.append(self._samples())
        pumps = [asyncio.ensure_future(_pump(source, backlog)) for source in sources]
        pumps.append(asyncio.ensure_future(_wait(self._leaving, backlog)))
        pumps[0].add_done_callback(lambda _: backlog.end())
        try:
            await asyncio.sleep(0)  # now the pumps listen, so that nothing is missed between the snapshot and them
            yield self._snapshot()
            while not (backlog.ended and backlog.empty):
                message = await backlog.take(heartbeat)
                if message is not None or not backlog.ended:
                    yield message
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)

    def _snapshot(self) -> dict[str, Any]:
        corral = self._corral
        return {
            "type": "snapshot",
            "at": corral.clock.wall(),
            "models": described.models(corral, self._registrations),
            "memory": described.memory(corral),
            "queues": described.queues(corral),
        }


async def _pump(source: AsyncIterator[Mapping[str, Any]], backlog: Backlog) -> None:
    async for message in source:
        backlog.put({"type": "sample", **message})


async def _wait(leaving: asyncio.Event, backlog: Backlog) -> None:
    await leaving.wait()
    backlog.end()


async def _changes(events: AsyncIterator[Transition | Entry]) -> AsyncIterator[Mapping[str, Any]]:
    async for change in events:
        kind = "transition" if isinstance(change, Transition) else "decision"
        yield {"type": kind, **asdict(change)}
