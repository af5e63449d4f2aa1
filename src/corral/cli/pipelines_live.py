"""A run while it goes on, as each reader wants it: a tree that moves, a few lines, JSON lines, or nothing.

The tree stands on standard error and is wiped away at the end; what is left is for whoever asked to say.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from corral.cli.output import Mode, Output
from corral.cli.pipelines_tree import View, lines, told
from corral.domain.workspace import RunStatus

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from rich.live import Live

Found = dict[str, Any]

_EVERY = 0.25
"""Seconds between two pictures while nothing is heard: times move on."""
_LEAST = 0.08
"""Seconds between two pictures, at least."""
_HEAD = 2
"""Lines of the terminal that are left free below the tree."""
_NARROWEST = 20


class Screen(Protocol):
    """Where a run is shown."""

    def hear(self, message: Found) -> None:
        """Take a message in, and show it when it is news."""
        ...

    def draw(self) -> None:
        """Show how it stands now."""
        ...


@contextmanager
def shown(output: Output, view: View, clock: Callable[[], float] = time.monotonic) -> Iterator[Screen]:
    """A screen for the block's length, as `output` wants it; what is heard is in `view`."""
    if output.mode is Mode.JSON:
        yield JsonLines(output, view)
    elif not output.human:
        yield Silent(view)
    elif output.live:
        with _live(output) as live:
            yield Tree(output, view, live, clock)
    else:
        yield Lines(output, view)


async def follow(messages: AsyncGenerator[Found, None], screen: Screen) -> None:
    """Show the messages of a run until they end, or until it rests."""
    ticking = asyncio.ensure_future(_tick(screen))
    try:
        async with aclosing(messages) as heard:
            async for message in heard:
                screen.hear(message)
                if message.get("run", {}).get("status") == RunStatus.PAUSED:
                    return
    finally:
        ticking.cancel()
        await asyncio.wait([ticking])


async def _tick(screen: Screen) -> None:
    while True:
        await asyncio.sleep(_EVERY)
        screen.draw()


class Silent:
    """Shows nothing."""

    def __init__(self, view: View) -> None:
        self._view = view

    def hear(self, message: Found) -> None:
        """Take it in."""
        self._view.hear(message)

    def draw(self) -> None:
        """Nothing is shown."""


class JsonLines:
    """Each message as a JSON object on a line, as it came."""

    def __init__(self, output: Output, view: View) -> None:
        self._output = output
        self._view = view

    def hear(self, message: Found) -> None:
        """Write it."""
        self._view.hear(message)
        self._output.emit(message)

    def draw(self) -> None:
        """Nothing has been said since the last message."""


class Lines:
    """A line for each change of a step, and for each artifact."""

    def __init__(self, output: Output, view: View) -> None:
        self._output = output
        self._view = view

    def hear(self, message: Found) -> None:
        """Write what is new."""
        for text in told(self._view, message):
            self._output.note(text)
        self._view.hear(message)

    def draw(self) -> None:
        """Nothing has changed since the last message."""


class Tree:
    """The tree, drawn again and again in its place."""

    def __init__(self, output: Output, view: View, live: Live, clock: Callable[[], float]) -> None:
        self._output = output
        self._view = view
        self._live = live
        self._clock = clock
        self._heard = clock()
        self._drawn = float("-inf")

    def hear(self, message: Found) -> None:
        """Take it in; the picture changes at once, unless it has just done so."""
        self._view.hear(message)
        self._heard = self._clock()
        if self._heard - self._drawn >= _LEAST:
            self.draw()

    def draw(self) -> None:
        """Show how it stands now."""
        from rich.text import Text

        self._drawn = self._clock()
        output, console = self._output, self._live.console
        # Room for the ^C of a terminal, which would push the tree out of its lines.
        console.width = max((output.width(output.stderr) or 0) - 3, _NARROWEST)
        now = self._view.at + self._drawn - self._heard
        tree = lines(self._view, now, console.width, lambda text, style: output.paint(text, style, output.stderr))
        room = max(console.height - _HEAD, 3)
        if len(tree) > room:
            tree = [*tree[: room - 1], f"… and {len(tree) - room + 1} more lines"]
        self._live.update(Text.from_ansi("\n".join(tree), no_wrap=True), refresh=True)


@contextmanager
def _live(output: Output) -> Iterator[Live]:
    from rich.live import Live

    live = Live(console=output.console(output.stderr), auto_refresh=False, transient=True)
    with live:
        yield live
