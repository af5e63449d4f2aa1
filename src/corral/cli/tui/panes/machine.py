"""The machine: processor, memory, disk and GPUs, each figure beside its course."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corral.cli.tui.figures import machine_lines
from corral.cli.tui.panes.pane import Pane
from corral.cli.tui.tape import Sheet

if TYPE_CHECKING:
    from textual.app import ComposeResult

_BACK = 480.0
"""Seconds of history that are fetched: as many figures as a wide terminal shows."""


class Machine(Pane):
    """What this machine has, and how busy it is."""

    NAME = "machine"
    TITLE = "Machine"
    TOPICS = frozenset({"machine", "link"})
    HINTS = (("↑↓", "scroll"),)
    HELP = (
        "What the machine has and how busy it is, a figure every two seconds. A GPU that vanishes is said to be lost."
    )

    def compose(self) -> ComposeResult:
        """One sheet."""
        yield Sheet()

    def draw(self) -> None:
        """Show the figures as they are now."""
        yard = self.yard
        self.query_one(Sheet).show(lambda width: machine_lines(yard, width) if yard.machine else ())

    async def entered(self) -> None:
        """What the machine has, and its last minutes."""
        await self.menu.live.refresh_machine(_BACK)
