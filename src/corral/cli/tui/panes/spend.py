"""Spend: what was used today and what it cost, and the budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.widgets import Static

from corral.cli.tui.figures import budgets_table, spent_line, spent_table
from corral.cli.tui.frame import content_of
from corral.cli.tui.listing import Listing
from corral.cli.tui.panes.pane import Pane

if TYPE_CHECKING:
    from textual.app import ComposeResult


class Spend(Pane):
    """Today's usage and the budgets."""

    NAME = "spend"
    TITLE = "Spend"
    TOPICS = frozenset({"spend", "link"})
    HINTS = (("tab", "to the budgets"), ("/", "find"))
    HELP = "What was used since midnight (UTC) and what it cost, and how much of each budget is gone."
    DEFAULT_CSS = """
    Spend Static { height: 2; }
    Spend Listing { height: 1fr; }
    Spend #budgets { border-top: solid $corral-line; }
    """

    def compose(self) -> ComposeResult:
        """One line for all, a table by model, a table of budgets."""
        yield Static()
        yield Listing(id="spent")
        yield Listing(id="budgets")

    def draw(self) -> None:
        """Show what is known now."""
        yard = self.yard
        self.query_one(Static).update(content_of(spent_line(yard.usage)))
        self.query_one("#spent", Listing).show(spent_table(yard.usage).narrowed(self.wanted))
        self.query_one("#budgets", Listing).show(budgets_table(yard).narrowed(self.wanted))

    async def entered(self) -> None:
        """Ask the books."""
        await self.menu.live.refresh_spend()
