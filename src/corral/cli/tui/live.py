"""Keeps what the menu knows true: the server's events, with reconnection, and what only an answer tells.

There is no timer of its own. What no event tells, such as requests under way, is asked for again when a sample of the
machine comes in, which a server sends every two seconds, and only while somebody looks at it.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from corral.cli.tui.link import Link
from corral.cli.tui.yard import Connection
from corral.errors import CorralError, Forbidden, NotFound, ServerNotRunning, Unauthorized

if TYPE_CHECKING:
    from collections.abc import Mapping

    from textual.worker import Worker

    from corral.cli.invocation import Invocation
    from corral.cli.tui.app import Menu
    from corral.domain.operations import Operation

_FIRST = 0.5
_LONGEST = 10.0
"""Seconds between two tries to reach the server: the first pause and the longest; each doubles the one before."""
_TOGETHER = 0.2
"""Seconds in which several reasons to ask for the models are one."""
_WORK_EVERY = 3
_SPEND_EVERY = 5
"""Samples after which operations and spend are asked for again while they are in sight."""
_NEWEST = 50
_BEFORE = 100
_METERED = 16
"""Containers whose figures are followed at once."""


class Live:
    """The connection to one server, and whatever comes from it."""

    def __init__(self, menu: Menu, invocation: Invocation) -> None:
        self._menu = menu
        self._invocation = invocation
        self._link: Link | None = None
        self._now = asyncio.Event()
        self._stale = asyncio.Event()
        self._samples = 0
        self._watched: set[str] = set()
        self._containers: Worker[None] | None = None
        self._meters: dict[str, Worker[None]] = {}

    @property
    def link(self) -> Link:
        """The server to ask.

        Raises:
            ServerNotRunning: there is none at the moment.
        """
        if self._link is None:
            message, hint = self._menu.yard.fault
            raise ServerNotRunning(message or "The menu is not connected yet.", hint or "Start one with: corral serve")
        return self._link

    def try_now(self) -> None:
        """Try to reach the server at once."""
        self._now.set()

    async def close(self) -> None:
        """Close the connections."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def run(self) -> None:
        """Follow the server's events for ever; when they end, try again, at first soon and then more rarely."""
        pause = _FIRST
        while True:
            try:
                self._link = Link.of(self._invocation)
                await self._follow(self._link)
                error = CorralError("The server has stopped.", "Start it again: corral serve")
            except CorralError as caught:
                error = caught
            if self._menu.yard.connection is Connection.CONNECTED:
                pause = _FIRST
            self._lost(error)
            await self.close()
            self._now.clear()
            try:
                async with asyncio.timeout(pause):
                    await self._now.wait()
                pause = _FIRST
            except TimeoutError:
                pause = min(2 * pause, _LONGEST)

    async def models(self) -> None:
        """Ask for the models when something has changed, at most a few times a second; for ever."""
        while True:
            await self._stale.wait()
            await asyncio.sleep(_TOGETHER)
            self._stale.clear()
            link = self._link
            if link is None:
                continue
            try:
                changed = self._menu.yard.set_models(await link.models())
            except CorralError:
                continue  # the events feed tells what is wrong, and the next change asks again
            if changed:
                self._menu.tell("models", "queue")

    def take(self, message: Mapping[str, Any]) -> None:
        """A message of a feed."""
        topics = self._menu.yard.take(message)
        match message.get("type"):
            case "transition" | "decision" | "lost":
                self._stale.set()
            case "sample":
                self._sampled()
            case "snapshot" | "container":
                self._meter()
        self._menu.tell(*topics)

    def attend(self, operation: Operation) -> None:
        """Show an operation, and follow it until it has ended."""
        self._menu.yard.set_operation(operation)
        self._menu.tell("work")
        if not operation.status.ended and operation.id not in self._watched:
            self._watched.add(operation.id)
            self._menu.quietly(partial(self._watch, operation.id))

    async def refresh_operations(self) -> None:
        """Ask for the newest operations; those under way are followed."""
        found = await self.link.operations(_NEWEST)
        changed = self._menu.yard.set_operations(found)
        for operation in found:
            if not operation.status.ended:
                self.attend(operation)
        if changed:
            self._menu.tell("work")

    async def refresh_stats(self) -> None:
        """Ask for the memory of the devices, and the queues."""
        found = await self.link.stats()
        yard = self._menu.yard
        yard.memory, yard.queues = found.get("memory") or {}, found.get("queues") or {}
        yard.counters = found.get("counters") or {}
        self._menu.tell("memory", "queue")

    async def refresh_machine(self, seconds: float) -> None:
        """Ask what the machine has, and for its last figures."""
        found = await self.link.hardware(seconds)
        self._menu.yard.set_history(found.pop("history", None) or {})
        self._menu.yard.machine = found
        self._menu.tell("machine")

    async def refresh_spend(self) -> None:
        """Ask the books for today, and for the budgets, where this key may see them."""
        import time

        link, yard = self.link, self._menu.yard
        midnight = time.time() // 86400 * 86400
        yard.usage = await link.spent(f"{midnight:.0f}")
        try:
            yard.budgets = await link.budgets()
        except Forbidden:
            yard.budgets = None
        self._menu.tell("spend")

    def follow_containers(self) -> None:
        """Follow Docker's events, and what the containers take, until told otherwise."""
        if self._containers is None or self._containers.is_finished:
            self._containers = self._menu.quietly(self._follow_containers)

    def leave_containers(self) -> None:
        """Follow the containers no longer."""
        for worker in (self._containers, *self._meters.values()):
            if worker is not None:
                worker.cancel()
        self._containers = None
        self._meters.clear()

    async def _follow(self, link: Link) -> None:
        """The events of one connection, until they end."""
        yard = self._menu.yard
        yard.url = link.url
        messages = link.runtime_events()
        async with aclosing(messages):
            async for message in messages:
                if message.get("type") == "snapshot":
                    yard.connection, yard.fault = Connection.CONNECTED, ("", "")
                    self._menu.connected()
                    self._menu.tell("link")
                    self._menu.quietly(partial(self._catch_up, link))
                self.take(message)

    async def _catch_up(self, link: Link) -> None:
        """What happened before, and what is under way."""
        yard = self._menu.yard
        known = {(one.get("at"), one.get("model")) for one in yard.happened}
        before = [{"type": "decision", **one} for one in reversed(await link.decisions(_BEFORE))]
        fresh = [one for one in before if (one.get("at"), one.get("model")) not in known]
        yard.happened.extendleft(reversed(fresh))
        self._menu.tell("happened")
        await self.refresh_machine(480)
        await self.refresh_operations()

    def _lost(self, error: CorralError) -> None:
        yard = self._menu.yard
        refused = isinstance(error, Unauthorized | Forbidden)
        yard.connection = Connection.REFUSED if refused else Connection.AWAY
        yard.fault = (error.message, error.hint)
        self.leave_containers()
        self._menu.tell("link")

    def _sampled(self) -> None:
        """Two seconds have passed: ask again for what somebody looks at."""
        self._samples += 1
        here, yard = self._menu.current, self._menu.yard
        if here in ("models", "queue") and any(model.get("loaded") for model in yard.models.values()):
            self._stale.set()
        if here == "queue":
            self._menu.quietly(self.refresh_stats)
        if here in ("models", "work") and self._samples % _WORK_EVERY == 0:
            self._menu.quietly(self.refresh_operations)
            self._menu.tell("work")  # how long ago something was changes without news
        if here == "spend" and self._samples % _SPEND_EVERY == 0:
            self._menu.quietly(self.refresh_spend)

    async def _watch(self, identifier: str) -> None:
        yard = self._menu.yard
        try:
            steps = self.link.watch(identifier)
            async with aclosing(steps):
                async for operation in steps:
                    yard.set_operation(operation)
                    self._menu.tell("work")
                    if operation.status.ended:
                        self._ended(operation)
        finally:
            self._watched.discard(identifier)
        yard.installed = {str(one["name"]): one for one in await self.link.installed()}
        self._stale.set()

    def _ended(self, operation: Operation) -> None:
        what = f"{operation.order.kind.capitalize()} {operation.order.model}".strip()
        if operation.error is not None:
            self._menu.notice.fail(CorralError(f"{what}: {operation.error.message}", operation.error.hint))
        else:
            self._menu.notice.say(f"{what}: {operation.status}.")

    async def _follow_containers(self) -> None:
        yard = self._menu.yard
        try:
            await self.link.docker()
        except NotFound:
            yard.docker = "This server does not know containers: it is older than the menu."
            self._menu.tell("containers")
            return
        except CorralError as error:
            yard.docker = f"{error.message} {error.hint}".strip()
            self._menu.tell("containers")
        messages = self.link.container_events()
        async with aclosing(messages):
            async for message in messages:
                why = yard.docker
                self.take(message)
                if message.get("type") == "snapshot" and not yard.containers:
                    yard.docker = why

    def _meter(self) -> None:
        """Follow the figures of those that run, and of no others, while the containers are in sight."""
        if self._containers is None:
            return
        up = [name for name, one in sorted(self._menu.yard.containers.items()) if one.get("uptime") is not None]
        for name in self._meters.keys() - set(up):
            self._meters.pop(name).cancel()
        for name in up[:_METERED]:
            if name not in self._meters or self._meters[name].is_finished:
                self._meters[name] = self._menu.quietly(partial(self._usages, name))

    async def _usages(self, name: str) -> None:
        figures = self.link.container_stats(name)
        async with aclosing(figures):
            async for usage in figures:
                self._menu.yard.set_usage_of(name, usage)
                self._menu.tell("containers")
