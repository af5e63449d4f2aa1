"""Containers: how each stands and what it takes, live; start, stop, restart, update, log, history."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType

from corral.cli.tui.dialogs import Confirm, Page
from corral.cli.tui.listing import Listing
from corral.cli.tui.marks import cell, state_word
from corral.cli.tui.panes.pane import ListPane
from corral.cli.tui.tape import Sheet, field_rows
from corral.cli.tui.texts import clock_text, container_fields, containers_table, why_text

if TYPE_CHECKING:
    from corral.cli.tui.marks import Fields

_DONE = {"start": "is started", "stop": "is stopped", "restart": "is restarted"}


class Containers(ListPane):
    """The containers and what is done to them."""

    NAME = "containers"
    TITLE = "Containers"
    TOPICS = frozenset({"containers", "link"})
    HINTS = (
        ("s", "start"),
        ("x", "stop"),
        ("r", "restart"),
        ("n", "update"),
        ("b", "roll back"),
        ("o", "log"),
        ("h", "history"),
        ("t", "test"),
        ("/", "find"),
    )
    HELP = "Containers of corral.yaml with what they take, told by Docker's own events: nothing is polled."
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "do('start')"),
        Binding("x", "stop"),
        Binding("r", "do('restart')"),
        Binding("n", "update"),
        Binding("b", "roll_back"),
        Binding("o", "log"),
        Binding("h", "history"),
        Binding("t", "test"),
    ]

    def draw(self) -> None:
        """Show the containers as they are now."""
        self.query_one(Listing).show(containers_table(self.yard, time.time()).narrowed(self.wanted))
        self.detail()

    async def entered(self) -> None:
        """Follow Docker's events and what the containers take, for as long as this is in sight."""
        self.menu.live.follow_containers()

    def left(self) -> None:
        """Follow no longer."""
        self.menu.live.leave_containers()

    def on_listing_opened(self, message: Listing.Opened) -> None:
        """All of one."""
        one = self.yard.containers.get(message.key or "")
        if one is not None:
            self.menu.push_screen(Page(str(one["name"]), lambda width: field_rows(container_fields(one), width)))

    def action_do(self, verb: str) -> None:
        """Start or restart."""
        if name := self.query_one(Listing).key:
            self.menu.act(partial(self._do, name, verb), f"{verb.capitalize()}ing {name} …")

    def action_stop(self) -> None:
        """Ask, and stop: others may be using it."""
        if name := self.query_one(Listing).key:

            def answered(yes: bool | None) -> None:
                if yes:
                    self.menu.act(partial(self._do, name, "stop"), f"Stopping {name} …")

            question = f"Stop {name}? It stays down until it is started again; its models cannot be asked meanwhile."
            self.menu.push_screen(Confirm("Stop a container", question, "Yes, stop it"), answered)

    def action_update(self) -> None:
        """Bring image and models to what there is now."""
        if name := self.query_one(Listing).key:
            self.menu.act(partial(self._update, name), f"Beginning the update of {name} …")

    def action_roll_back(self) -> None:
        """Back to the image before."""
        if name := self.query_one(Listing).key:
            self.menu.act(partial(self._do, name, "rollback"), f"Taking {name} back to the image before …")

    def action_log(self) -> None:
        """What it printed."""
        if name := self.query_one(Listing).key:
            self.menu.log_of("container", name)

    def action_history(self) -> None:
        """What happened to it."""
        if name := self.query_one(Listing).key:
            self.menu.act(partial(self._history, name), f"Looking what happened to {name} …")

    def action_test(self) -> None:
        """Ask its models' own API for a word."""
        if name := self.query_one(Listing).key:
            self.menu.act(partial(self._test, name), f"Asking {name} for a word …")

    def detail(self) -> None:
        """Show what is to be known of this one."""
        one = self.yard.containers.get(self.query_one(Listing).key or "")
        fields = [] if one is None else container_fields(one)
        title = str(one["name"]) if one is not None and self.menu.wide else ""
        self.query_one(Sheet).show(lambda width: field_rows(fields, width, title))

    async def _do(self, name: str, verb: str) -> str:
        found = (await self.menu.link().container(name, verb)).get("container") or {}
        self.menu.take({"type": "container", "container": found})
        said, state, why = _DONE.get(verb, "is rolled back"), state_word(found.get("state")), why_text(found)
        how = "" if said == f"is {state}" else f": {state}"
        return f"{name} {said}{how}. {why}".strip()

    async def _update(self, name: str) -> str:
        found = await self.menu.link().container(name, "update")
        if found.get("operation_id"):
            self.menu.attend(await self.menu.link().operation(str(found["operation_id"])))
        return f"{found.get('message') or f'The update of {name} has begun.'} See 5 Work."

    async def _history(self, name: str) -> None:
        lines = await self.menu.link().container_history(name)
        fields: Fields = []
        for one in lines:
            sides = (state_word(one[side]) for side in ("before", "after") if one.get(side))
            change = " to ".join(dict.fromkeys(sides))
            parts = [state_word(one.get("what")), change, str(one.get("reason") or "")]
            fields.append((clock_text(one.get("at")), cell("; ".join(part for part in parts if part))))
        fields = fields or [("", cell("Nothing has happened to it yet."))]
        self.menu.push_screen(Page(f"What happened to {name}", lambda width: field_rows(fields, width)))

    async def _test(self, name: str) -> str:
        health = await self.menu.link().container_health(name)
        if not health.get("healthy"):
            return f"{name} does not answer as it should: {health.get('reason')}"
        said = f", it said: {health['said']}" if health.get("said") else ""
        return f"{name} answers, version {health.get('version') or 'unknown'}{said}"
