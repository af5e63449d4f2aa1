"""Work: installs and other operations, with live progress; cancel, pause, resume."""

from __future__ import annotations

import time
from functools import partial
from typing import ClassVar

from textual.binding import Binding, BindingType

from corral.cli.tui.dialogs import Confirm
from corral.cli.tui.listing import Listing
from corral.cli.tui.panes.pane import ListPane
from corral.cli.tui.tape import Sheet, field_rows
from corral.cli.tui.texts import operation_fields, work_table

_PAST = {"cancel": "cancelled", "pause": "paused", "resume": "resumed"}


class Work(ListPane):
    """The operations and what is done to them."""

    NAME = "work"
    TITLE = "Work"
    TOPICS = frozenset({"work", "link"})
    HINTS = (("p", "pause"), ("r", "resume"), ("x", "cancel"), ("i", "install"), ("/", "find"))
    HELP = "Long work: it goes on without the menu, survives a restart of the server, and may be paused."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "change('pause')"),
        Binding("r", "change('resume')"),
        Binding("x,delete", "cancel"),
        Binding("i", "install"),
    ]

    def draw(self) -> None:
        """Show the operations as they are now."""
        self.query_one(Listing).show(work_table(self.yard, time.time()).narrowed(self.wanted))
        self.detail()

    async def entered(self) -> None:
        """The newest operations."""
        await self.menu.live.refresh_operations()

    def action_change(self, verb: str) -> None:
        """Pause or resume."""
        if identifier := self.query_one(Listing).key:
            self.menu.act(partial(self._change, identifier, verb), "Asking the server …")

    def action_cancel(self) -> None:
        """Ask, and call off."""
        one = self.yard.operations.get(self.query_one(Listing).key or "")
        if one is None:
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.menu.act(partial(self._change, one.id, "cancel"), "Asking the server …")

        question = f"Call off: {one.order.kind} {one.order.model}? What has arrived and nobody needs is removed."
        self.menu.push_screen(Confirm("Cancel an operation", question, "Yes, call it off"), answered)

    def action_install(self) -> None:
        """As on the models' screen."""
        self.menu.install()

    async def _change(self, identifier: str, verb: str) -> str:
        operation = await self.menu.link().change(identifier, verb)
        self.menu.attend(operation)
        return f"{operation.order.kind.capitalize()} {operation.order.model} is {_PAST[verb]}."

    def detail(self) -> None:
        """Show what is to be known of this one."""
        one = self.yard.operations.get(self.query_one(Listing).key or "")
        fields = [] if one is None else operation_fields(one)
        title = f"{one.order.kind} {one.order.model}" if one is not None and self.menu.wide else ""
        self.query_one(Sheet).show(lambda width: field_rows(fields, width, title))
