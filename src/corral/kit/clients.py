"""Clients that go away while they are answered: noticed without a task or a timer for each request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

    from corral.kit.relay import Receive

NOTICE = 0.05
"""Seconds that a request may take before anyone listens for its client going away; most answers are faster."""


class Clients:
    """Notices clients that go away, without a task or a timer for each request.

    A request that is done within `NOTICE` costs an entry in a set. One timer, shared by all and running only while
    there are requests, starts a listener for each that takes longer. Belongs to one loop.
    """

    __slots__ = ("_due", "_fresh", "_loop", "_period", "_timer")

    def __init__(self, period: float = NOTICE) -> None:
        self._period = period
        self._fresh: set[Client] = set()
        self._due: set[Client] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self, receive: Receive) -> Client:
        """A context for the calling task. When the client goes away within it, the task is cancelled out of it.

        The context swallows that cancellation, and no other; `gone` then is true. To be entered when the request's
        body has been read, and left as soon as the answer is sent: nothing may be awaited in it after that.
        """
        # Asking which loop runs is a system call for each request before Python 3.12: one in twenty of the gateway's.
        loop = self._loop = self._loop or asyncio.get_running_loop()
        if self._timer is None:
            self._timer = loop.call_later(self._period, self._tick)
        client = Client(receive, self._fresh, asyncio.current_task(loop))
        self._fresh.add(client)
        return client

    def _tick(self) -> None:
        due, self._due, self._fresh = self._due, self._fresh, set()
        for client in due:
            client.listen()
        again = self._due
        self._timer = self._loop.call_later(self._period, self._tick) if again and self._loop is not None else None


class Client:
    """The client of one request; see `Clients.watch`."""

    __slots__ = ("_home", "_listener", "_receive", "_task", "gone")

    def __init__(self, receive: Receive, home: set[Client], task: asyncio.Task[Any] | None) -> None:
        self.gone = False
        self._receive = receive
        self._home = home
        self._listener: asyncio.Task[None] | None = None
        self._task = task

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._home.discard(self)
        if self._listener is not None:
            self._listener.cancel()
        if self.gone and self._task is not None and kind is asyncio.CancelledError:
            return self._task.uncancel() == 0
        return False

    def listen(self) -> None:
        """Begin to listen; called by the timer."""
        self._listener = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        if self._task is not None:
            self._task.cancel()
