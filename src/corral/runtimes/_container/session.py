"""The session of an engine that is a container: its log is followed, and with the log's end comes its own."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from corral.domain.ports import Endpoint, Footprint, SessionFacts
from corral.errors import ContainerError, ContainerNotFound, CorralError
from corral.kit import loopback
from corral.kit.process import LogRing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from corral.domain.containers import ContainerEngine, Seen
    from corral.domain.ports import Clock

_HEALTH_TIMEOUT = 2.0
_LINES = 500
_AGAIN = 1.0
"""Seconds until the Docker engine is asked again that has not answered."""
_KILLED, _KILLED_LOOKS = 128 + 9, 5

log = logging.getLogger(__name__)


class Watched:
    """A container that was started: the last of its log, and its end. Only `close` takes it away."""

    def __init__(self, engine: ContainerEngine, container: str, clock: Clock) -> None:
        self.engine = engine
        self.container = container
        self.last: Seen | None = None
        self._clock = clock
        self._ring = LogRing()
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._following = asyncio.create_task(self._follow(), name=f"log of {container[:12]}")
        self._closing: asyncio.Task[None] | None = None

    @property
    def gone(self) -> bool:
        """Whether it has ended."""
        return self._ended.done()

    def log(self) -> Sequence[str]:
        """The last lines of its output, oldest first."""
        return self._ring.lines()

    async def ended(self) -> str:
        """Wait until it has ended, and return why."""
        return await asyncio.shield(self._ended)

    async def close(self, grace: float) -> None:
        """End it and remove it, whoever waits being told that it was stopped. Idempotent, and done to the end."""
        if self._closing is None:
            if not self._ended.done():
                self._ended.set_result("was stopped")
            self._closing = asyncio.create_task(self._close(grace))
        await asyncio.shield(self._closing)

    async def _close(self, grace: float) -> None:
        self._following.cancel()
        await asyncio.wait([self._following])
        try:
            if grace > 0:
                await self.engine.stop(self.container, grace)
            await self.engine.remove(self.container, force=True)
        except ContainerNotFound:
            return
        except ContainerError as error:
            log.warning("the container %s stays until the next start: %s", self.container[:12], error.message)

    async def _follow(self) -> None:
        """Read its log to its end, and then find out why it ended."""
        lines = _LINES
        while not self._ended.done():
            try:
                async for line in self.engine.logs(self.container, lines=lines, follow=True):
                    self._ring.feed(line.text.encode(errors="replace") + b"\n")
                self.last = await self._seen()
            except ContainerNotFound:
                self._end("its container was removed")
                return
            except ContainerError:  # the Docker engine is away; the container need not be
                await self._clock.sleep(_AGAIN)
                lines = 0
                continue
            if not (self.last.running or self.last.created_only):
                self._end(why(self.last))
                return
            await self._clock.sleep(_AGAIN / 10)
            lines = 0

    async def _seen(self) -> Seen:
        """How it is. That the kernel killed it for its memory Docker may hear a moment after it was killed."""
        seen = await self.engine.inspect(self.container)
        for _ in range(_KILLED_LOOKS):
            if seen.running or seen.exit_code != _KILLED or seen.oom_killed:
                break
            await self._clock.sleep(_AGAIN / 10)
            seen = await self.engine.inspect(self.container)
        return seen

    def _end(self, reason: str) -> None:
        if not self._ended.done():
            self._ended.set_result(reason)


def why(seen: Seen) -> str:
    """The reason of a container's end, in words."""
    if seen.oom_killed:
        return "was killed: it took more memory than it may"
    if seen.error:
        return f"could not be started: {' '.join(seen.error.split())[:300]}"
    code = seen.exit_code
    if code is None:
        return "ended"
    if code > 128:
        return f"was ended by signal {code - 128}"
    return f"ended with code {code}"


class ContainerSession:
    """One engine in a container. `gpu` is the device it computes on, None for the processor."""

    def __init__(self, watched: Watched, endpoint: Endpoint, facts: SessionFacts, health: str, gpu: str | None) -> None:
        self._watched = watched
        self.endpoint: Final = endpoint
        self.facts: Final = facts
        self._health = health
        self._gpu = gpu

    async def healthy(self) -> bool:
        """Whether it would answer now."""
        return not self._watched.gone and await answers(self._health, self.endpoint)

    async def footprint(self) -> Footprint:
        """Memory of the container as the Docker engine counts it, and of its GPU where that can be told."""
        if self._watched.gone:
            return Footprint()
        try:
            usage = await self._watched.engine.usage(self._watched.container)
        except CorralError:
            return Footprint()
        if usage is None:
            return Footprint()
        found = {"cpu": usage.memory, **({self._gpu: usage.gpu_memory} if self._gpu else {})}
        return Footprint({device: size for device, size in found.items() if size})

    def processes(self) -> Sequence[int]:
        """None of them is ours: they are the Docker engine's."""
        return ()

    async def ended(self) -> str:
        """Wait until it is gone, and return why."""
        return await self._watched.ended()

    def log(self) -> Sequence[str]:
        """The last lines of its output."""
        return self._watched.log()

    async def stop(self, grace: float) -> None:
        """End it, and remove its container."""
        await self._watched.close(grace)


async def answers(health: str, endpoint: Endpoint) -> bool:
    """Whether what lies at `health` is answered with 2xx."""
    try:
        status, _ = await loopback.get(health, endpoint.headers, _HEALTH_TIMEOUT)
    except CorralError:
        return False
    return 200 <= status < 300
