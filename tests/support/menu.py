"""Somebody who sits before the menu: Textual's pilot, and what is seen."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from corral.cli.invocation import Invocation
from corral.cli.output import Output
from corral.cli.tui.app import Menu
from corral.cli.tui.listing import Listing
from corral.cli.tui.yard import Connection
from tests.support.servers import Server

PATIENCE = 90.0


class Seat:
    """Somebody who sits before the menu."""

    def __init__(self, menu: Menu, pilot: Any) -> None:
        self.menu = menu
        self.pilot = pilot

    async def until(self, so: Callable[[], bool], what: str = "") -> None:
        """Wait until it is so."""
        deadline = time.monotonic() + PATIENCE
        while not so():
            assert time.monotonic() < deadline, f"{what}\n{self.text}\n{self.menu.notice.said}"
            await self.pilot.pause(0.02)

    async def sees(self, *texts: str) -> None:
        """Wait until these are on the screen."""
        await self.until(lambda: all(text in self.text for text in texts), f"not seen: {texts}")

    async def told(self, text: str) -> None:
        """Wait until the line for messages has it."""
        await self.until(lambda: text in self.menu.notice.said, f"not told: {text}")

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def type(self, text: str) -> None:
        await self.pilot.press(*("space" if letter == " " else letter for letter in text))

    @property
    def text(self) -> str:
        """What the screen shows, line by line."""
        screen = self.menu.screen
        strips = screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)

    def listing(self) -> Listing:
        return self.menu.pane.query(Listing).first()


def invited(server: Server) -> Invocation:
    return Invocation(Output(), home=server.home, env=dict(server.env))


@asynccontextmanager
async def seated(server: Server, size: tuple[int, int] = (80, 24), *, theme: str = "dark") -> AsyncIterator[Seat]:
    menu = Menu(invited(server), theme)
    async with menu.run_test(size=size) as pilot:
        seat = Seat(menu, pilot)
        await seat.until(lambda: menu.yard.connection is Connection.CONNECTED)
        await seat.until(lambda: menu.pane.query(Listing).first().table.columns != ())
        yield seat


class Lateness:
    """How long the loop is busy between two looks at it, in its own processor time: so long a key would wait.

    Whatever else the machine does meanwhile does not count. What all tests before have left in memory, which takes the
    garbage collector a second to look through, is not looked through from now on.
    """

    def __init__(self) -> None:
        gc.collect()
        gc.freeze()
        self.worst = 0.0
        self._spent = time.thread_time()
        self._look()

    def _look(self) -> None:
        now = time.thread_time()
        self.worst, self._spent = max(self.worst, now - self._spent), now
        self._handle = asyncio.get_running_loop().call_later(0.01, self._look)

    def end(self) -> None:
        self._handle.cancel()
