"""Logs: what engines and containers print, as fast as they print it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.widgets import Static

from corral.cli.table import Cell, Column
from corral.cli.tui.dialogs import Choose
from corral.cli.tui.frame import content_of
from corral.cli.tui.marks import Table, cell, toned
from corral.cli.tui.panes.pane import Pane
from corral.cli.tui.ring import Ring, fresh_of
from corral.cli.tui.tape import Tape

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.timer import Timer
    from textual.worker import Worker

FRAME = 0.1
"""Seconds between two drawings while lines come in."""
_AGAIN = 2.0
"""Seconds between two looks at an engine's log, which no event tells."""
_LINES = 1000


class Logs(Pane):
    """One log at a time, followed until somebody scrolls up."""

    NAME = "logs"
    TITLE = "Logs"
    TOPICS = frozenset({"link"})
    HINTS = (("s", "choose a log"), ("f", "follow"), ("/", "find"), ("end", "newest"), ("z", "clear"))
    HELP = (
        "What engines and containers print. Scrolling up stops following; End follows again. Long lines: Shift-arrows."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s,enter", "choose"),
        Binding("f", "follow"),
        Binding("z", "clear"),
    ]
    DEFAULT_CSS = """
    Logs Static { height: 2; }
    Logs Tape { height: 1fr; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.source: tuple[str, str] | None = None
        self.ring = Ring()
        self._reading: Worker[None] | None = None
        self._drawing: Timer | None = None
        self._why = ""

    def compose(self) -> ComposeResult:
        """What is read, and its lines."""
        yield Static()
        yield Tape(self.ring)

    def draw(self) -> None:
        """Show the lines that came, and what they are of."""
        tape = self.query_one(Tape)
        tape.changed()
        if self.source is None:
            said = [Cell("No log is chosen. Press s.", "dim")]
        else:
            kind, name = self.source
            follows = "following" if tape.follow else "held: f or End follows"
            shown = len(self.ring.lines)
            count = f"{shown:,} line{'' if shown == 1 else 's'}" + (
                f", {self.ring.gone:,} older are gone" if self.ring.gone else ""
            )
            said = [Cell(f"{kind} "), Cell(name, "title"), Cell(f"  {count}  {follows}", "dim")]
            said += [Cell(f"  with {self.wanted!r}", "accent")] if self.wanted else []
            said += [Cell(f"  {self._why}", "yellow")] if self._why else []
        self.query_one(Static).update(content_of(tuple(said)))

    async def entered(self) -> None:
        """Take the first log there is, where none was chosen; read on."""
        if self.source is None:
            self.source = next(iter(self._sources()), None)
        self._read()

    def left(self) -> None:
        """Read no further."""
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def find(self, text: str) -> None:
        """Show only the lines that have it."""
        self.wanted = self.ring.wanted = text
        self.draw()

    def open(self, kind: str, name: str) -> None:
        """Read this log from now on."""
        if self.source != (kind, name):
            self.ring.clear()
        self.source = (kind, name)

    def put(self, lines: list[str]) -> None:
        """Take lines in; they are drawn together, a few times a second."""
        self.ring.extend(lines)
        if self._drawing is None:
            self._drawing = self.set_timer(FRAME, self._frame)

    def action_choose(self) -> None:
        """Ask which."""
        keys = tuple(f"{kind} {name}" for kind, name in self._sources())
        rows = tuple((cell(kind, "dim"), cell(name), self._state(kind, name)) for kind, name in self._sources())
        empty = "Nothing has a log yet: no model has been in memory, and no container is configured."
        table = Table((Column("OF"), Column("NAME", soft=True), Column("STATE")), keys, rows, empty)

        def chosen(key: str | None) -> None:
            if key:
                kind, _, name = key.partition(" ")
                self.open(kind, name)
                self._read()
                self.draw()

        self.menu.push_screen(Choose("Which log?", table, " ".join(self.source or ())), chosen)

    def action_follow(self) -> None:
        """Follow the end, or no longer."""
        tape = self.query_one(Tape)
        tape.follow = not tape.follow
        if tape.follow:
            tape.scroll_end(animate=False, immediate=True, x_axis=False)
        self.draw()

    def action_clear(self) -> None:
        """Forget the lines that came so far."""
        self.ring.clear()
        self.draw()

    def _frame(self) -> None:
        self._drawing = None
        self.draw()

    def _sources(self) -> list[tuple[str, str]]:
        """What has a log: containers, models in memory, and then all others that may have had an engine."""
        yard = self.yard
        models = sorted(yard.models.values(), key=lambda model: (not model.get("loaded"), str(model["name"])))
        return [
            *(("container", name) for name in sorted(yard.containers)),
            *(("model", str(model["name"])) for model in models),
        ]

    def _state(self, kind: str, name: str) -> Cell:
        known = self.yard.containers if kind == "container" else self.yard.models
        return toned((known.get(name) or {}).get("state"))

    def _read(self) -> None:
        self.left()
        self._why = ""
        if self.source is not None:
            kind, name = self.source
            work = partial(self._container if kind == "container" else self._model, name)
            self._reading = self.menu.attempt(work, self._broke)

    def _broke(self, why: str) -> None:
        self._why = why
        self.draw()

    async def _container(self, name: str) -> None:
        self.ring.clear()
        pieces = self.menu.link().container_lines(name, _LINES)
        async with aclosing(pieces):
            async for lines in pieces:
                self.put(lines)
        self._broke("it has ended")

    async def _model(self, name: str) -> None:
        before: list[str] = []
        self.ring.clear()
        while True:
            now = await self.menu.link().log(name)
            self.put(fresh_of(before, now))
            before = now
            await asyncio.sleep(_AGAIN)
