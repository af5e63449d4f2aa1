"""Engines and queue: what is in memory, who waits, and what was decided and why."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType

from corral.cli.tui.listing import Listing
from corral.cli.tui.panes.pane import Pane
from corral.cli.tui.tape import Sheet
from corral.cli.tui.texts import engines_table, happened_lines, memory_lines

if TYPE_CHECKING:
    from textual.app import ComposeResult


class Queue(Pane):
    """What is in memory, and what happens there."""

    NAME = "queue"
    TITLE = "Queue"
    TOPICS = frozenset({"models", "queue", "memory", "happened", "link"})
    HINTS = (("u", "unload"), ("o", "log"), ("tab", "to the events"), ("/", "find"))
    HELP = "Engines in memory, how busy they are, who waits for room, and each decision with its reason, as it is made."
    BINDINGS: ClassVar[list[BindingType]] = [Binding("u", "unload"), Binding("o", "log")]
    DEFAULT_CSS = """
    Queue Listing { height: 1fr; min-height: 4; }
    Queue #memory { height: auto; max-height: 4; border-top: solid $corral-line; }
    Queue #happened { height: 1fr; border-top: solid $corral-line; }
    """

    def compose(self) -> ComposeResult:
        """Engines above, memory between, events below."""
        yield Listing()
        memory = Sheet(id="memory")
        memory.can_focus = False
        yield memory
        yield Sheet(id="happened")

    def draw(self) -> None:
        """Show how it stands now."""
        yard = self.yard
        self.query_one(Listing).show(engines_table(yard).narrowed(self.wanted))
        memory = self.query_one("#memory", Sheet)
        memory.styles.height = min(len(yard.memory), 3) + 1
        memory.show(lambda width: memory_lines(yard.memory, width))
        self.query_one("#happened", Sheet).show(lambda _: happened_lines(yard.happened), end=True)

    async def entered(self) -> None:
        """What was decided before the menu was opened, and memory as it is now."""
        await self.menu.live.refresh_stats()

    def action_unload(self) -> None:
        """Out of memory."""
        if name := self.query_one(Listing).key:
            self.menu.act(partial(self._unload, name), f"Taking {name} out of memory …")

    def action_log(self) -> None:
        """What its engine printed."""
        if name := self.query_one(Listing).key:
            self.menu.log_of("model", name)

    async def _unload(self, name: str) -> str:
        await self.menu.link().unload(name)
        return f"{name} is no longer in memory."
