"""Chat: questions to a model, its answers as they come, and the receipt of each."""

from __future__ import annotations

import time
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.widgets import Input, Static

from corral.cli.chat.conversation import Answer, Conversation
from corral.cli.output import clean, line
from corral.cli.table import Cell, Column, cells
from corral.cli.tui.dialogs import Choose, Page
from corral.cli.tui.figures import receipt_fields, receipt_line
from corral.cli.tui.frame import content_of
from corral.cli.tui.marks import Table, cell, toned
from corral.cli.tui.panes.pane import Pane
from corral.cli.tui.tape import Sheet, field_rows, text_rows
from corral.errors import CorralError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from textual.app import ComposeResult
    from textual.timer import Timer
    from textual.widget import Widget
    from textual.worker import Worker

    from corral.cli.tui.frame import Hint
    from corral.cli.tui.marks import Row

_FRAME = 0.05
"""Seconds between two drawings while an answer comes."""
_INDENT = 2


class Chat(Pane):
    """A conversation with one model."""

    NAME = "chat"
    TITLE = "Chat"
    TOPICS = frozenset({"link"})
    HINTS = (
        ("enter", "to the box"),
        ("m", "model"),
        ("s", "stop"),
        ("v", "receipt"),
        ("d", "forget"),
        ("↑↓", "scroll"),
    )
    HELP = (
        "Talk to a model. Enter sends; Esc leaves the box, so that letters are keys again. Each answer has its receipt."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "type"),
        Binding("m", "model"),
        Binding("s", "stop"),
        Binding("v", "receipt"),
        Binding("d", "forget"),
    ]
    DEFAULT_CSS = """
    Chat Static { height: 2; }
    Chat Sheet { height: 1fr; }
    Chat Input { height: 1; border: none; background: $panel; padding: 0 1; margin: 1 0 0 0; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.conversation = Conversation("")
        self.answer: Answer | None = None
        self.receipts: dict[int, dict[str, Any]] = {}
        self._worker: Worker[None] | None = None
        self._drawing: Timer | None = None

    def compose(self) -> ComposeResult:
        """Who answers, what was said, and a line to type in."""
        yield Static()
        yield Sheet()
        typed = Input(placeholder="Ask something; Enter sends, Esc leaves the box", compact=True)
        typed.cursor_blink = False
        yield typed

    def hints(self) -> Sequence[Hint]:
        """In the box, letters are letters."""
        if self.query_one(Input).has_focus:
            return (("enter", "send"), ("esc", "leave the box: then letters are keys"))
        return self.HINTS

    def first(self) -> Widget:
        """The line to type in."""
        return self.query_one(Input)

    def draw(self) -> None:
        """Show what was said so far."""
        name = self.conversation.model
        model = self.yard.models.get(name) or {}
        said: tuple[Cell, ...] = (Cell("to "), Cell(name, "title"), Cell("  "), toned(model.get("state") or "cold"))
        if not name:
            said = (Cell("There is no model to talk to. Install one: 1, then i.", "dim"),)
        elif self.answer is not None:
            said = (*said, Cell("  answering: Esc, then s stops it", "dim"))
        self.query_one(Static).update(content_of(said))
        self.query_one(Sheet).show(self._lines, end=True)

    async def entered(self) -> None:
        """Talk to the first model there is, where none was chosen: one in memory before others."""
        if not self.conversation.model:
            self.talk_to(next(iter(self._models()), ""))

    def talk_to(self, name: str) -> None:
        """Ask this model from now on; what was said stays."""
        self.conversation.model = name
        self.draw()

    def on_key(self, event: object) -> None:
        """Esc in the box gives the letters back to the keys."""
        if getattr(event, "key", "") == "escape" and self.query_one(Input).has_focus:
            self.query_one(Sheet).focus()
            getattr(event, "stop", lambda: None)()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Ask."""
        event.stop()
        text = event.value.strip()
        if not text or self.answer is not None:
            if self.answer is not None:
                self.menu.notice.say("It is still answering. Esc, then s stops it.")
            return
        if not self.conversation.model:
            self.menu.notice.say("There is no model to talk to. Install one on the first screen: Esc, 1, i.")
            return
        event.input.value = ""
        self.answer = Answer(asked_at=time.monotonic())
        body = self.conversation.ask(text)
        self._worker = self.menu.attempt(partial(self._listen, body, self.answer), lambda _: None)
        self.draw()

    def action_type(self) -> None:
        """To the box."""
        self.query_one(Input).focus()

    def action_stop(self) -> None:
        """Stop the answer; what came of it stays."""
        if self._worker is not None and self.answer is not None:
            self._worker.cancel()

    def action_forget(self) -> None:
        """Begin anew."""
        self.action_stop()
        self.conversation.clear()
        self.receipts.clear()
        self.draw()

    def action_model(self) -> None:
        """Ask which model."""
        names = tuple(self._models())
        rows = tuple((cell(name), toned(self.yard.models[name].get("state"))) for name in names)
        table = Table((Column("MODEL", soft=True), Column("STATE")), names, rows, "No model is here yet.")

        def chosen(name: str | None) -> None:
            if name:
                self.talk_to(name)

        self.menu.push_screen(Choose("Talk to which model?", table, self.conversation.model), chosen)

    def action_receipt(self) -> None:
        """All of the last answer's receipt."""
        if not self.receipts:
            self.menu.notice.say("There is no answer yet, and so no receipt.")
            return
        receipt = self.receipts[max(self.receipts)]
        self.menu.push_screen(Page("Receipt", lambda width: field_rows(receipt_fields(receipt), width)))

    def _models(self) -> list[str]:
        models = sorted(self.yard.models.values(), key=lambda one: (one.get("state") != "ready", str(one["name"])))
        return [str(model["name"]) for model in models]

    async def _listen(self, body: dict[str, Any], answer: Answer) -> None:
        link, request_id = self.menu.link(), ""
        try:
            chunks = link.chat(body)
            async with aclosing(chunks):
                async for chunk in chunks:
                    request_id = chunk.get("request_id") or request_id
                    if any(answer.take(chunk, time.monotonic())):
                        self._soon()
        except CorralError as error:
            self.menu.notice.fail(error)
        finally:
            self.conversation.answered(answer)
            self.answer = None
            self._soon()
        if request_id and answer.text:
            self.receipts[len(self.conversation.messages) - 1] = await link.receipt(request_id)
            self._soon()

    def _soon(self) -> None:
        if self._drawing is None and self.is_attached:
            self._drawing = self.set_timer(_FRAME, self._frame)

    def _frame(self) -> None:
        self._drawing = None
        self.draw()

    def _lines(self, width: int) -> list[Row]:
        rows: list[Row] = []
        for place, message in enumerate(self.conversation.messages):
            mine = message["role"] == "user"
            rows += _said("you" if mine else self.conversation.model, message["content"], width, mine=mine)
            if place in self.receipts:
                rows += _noted(receipt_line(self.receipts[place]), width)
            rows.append(())
        if self.answer is not None:
            text = self.answer.text or ("…" if not self.answer.reasoning else f"(thinking) {self.answer.reasoning}")
            rows += _said(self.conversation.model, text, width, mine=False)
        return rows


def _said(who: str, text: str, width: int, *, mine: bool) -> list[Row]:
    rows: list[Row] = [(Cell(line(who), "bold" if mine else "title"),)]
    rows += [(Cell(" " * _INDENT), *row) for row in text_rows(clean(text).expandtabs(4), width - _INDENT)]
    return rows


def _noted(row: Row, width: int) -> list[Row]:
    """A receipt, broken where it does not fit."""
    if sum(cells(piece.text) for piece in row) + _INDENT <= width:
        return [(Cell(" " * _INDENT), *row)]
    tone = "yellow" if any(piece.style == "yellow" for piece in row) else "dim"
    text = "".join(piece.text for piece in row)
    return [(Cell(" " * _INDENT), *each) for each in text_rows(text, width - _INDENT, tone)]
