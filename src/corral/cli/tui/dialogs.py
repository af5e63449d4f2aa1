"""Questions, choices and texts that lie over a screen until they are answered or left with Esc."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from corral.cli.table import Cell
from corral.cli.tui.frame import content_of
from corral.cli.tui.listing import Listing
from corral.cli.tui.tape import Sheet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from textual.app import ComposeResult

    from corral.cli.tui.marks import Row, Table

_FRAME = """
    align: center middle;
    background: $background 60%;
"""
_BOX = """
    border: round $accent;
    border-title-color: $accent;
    border-title-style: bold;
    background: $background;
    padding: 1 2;
"""


class Confirm(ModalScreen[bool]):
    """A question of yes or no; no is what Enter and Esc mean until somebody chooses yes."""

    DEFAULT_CSS = f"""
    Confirm {{ {_FRAME} }}
    Confirm > Vertical {{ {_BOX} width: 64; max-width: 90%; height: auto; }}
    Confirm Horizontal {{ height: 1; margin-top: 1; }}
    Confirm Button {{ margin-right: 2; }}
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)"),
        Binding("n,escape,q", "answer(False)"),
        Binding("left,right", "app.focus_next"),
    ]

    def __init__(self, title: str, question: str, yes: str) -> None:
        super().__init__()
        self._title = title
        self._question = question
        self._yes = yes

    def compose(self) -> ComposeResult:
        """The question and two answers."""
        with Vertical() as box:
            box.border_title = self._title
            yield Static(self._question, markup=False)
            with Horizontal():
                yield Button("n  No, leave it", id="no", compact=True)
                yield Button(f"y  {self._yes}", id="yes", compact=True)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Answer with the button."""
        self.dismiss(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        """Answer with the key."""
        self.dismiss(yes)


class Ask(ModalScreen[str]):
    """A question that is answered in words; empty when it was left."""

    DEFAULT_CSS = f"""
    Ask {{ {_FRAME} }}
    Ask > Vertical {{ {_BOX} width: 72; max-width: 94%; height: auto; }}
    Ask Input {{ margin: 1 0; border: none; background: $panel; height: 1; padding: 0 1; }}
    Ask .note {{ color: $corral-quiet; }}
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave")]

    def __init__(self, title: str, question: str, note: str = "", given: str = "") -> None:
        super().__init__()
        self._title = title
        self._question = question
        self._note = note
        self._given = given

    def compose(self) -> ComposeResult:
        """The question, a line to type in, and what may be typed."""
        with Vertical() as box:
            box.border_title = self._title
            box.border_subtitle = "Enter does it, Esc leaves"
            yield Static(self._question, markup=False)
            typed = Input(self._given, compact=True)
            typed.cursor_blink = False
            yield typed
            if self._note:
                yield Static(self._note, classes="note", markup=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Answer, when there is something to answer."""
        if event.value.strip():
            self.dismiss(event.value.strip())

    def action_leave(self) -> None:
        """Answer nothing."""
        self.dismiss("")


class Choose(ModalScreen[str]):
    """One row out of a table; empty when it was left. Typing a letter does nothing: arrows and Enter choose."""

    DEFAULT_CSS = f"""
    Choose {{ {_FRAME} }}
    Choose > Vertical {{ {_BOX} width: 72; max-width: 94%; height: auto; max-height: 90%; }}
    Choose Listing {{ height: auto; min-height: 4; max-height: 16; }}
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "leave")]

    def __init__(self, title: str, table: Table, chosen: str = "") -> None:
        super().__init__()
        self._title = title
        self._table = table
        self._chosen = chosen

    def compose(self) -> ComposeResult:
        """The table."""
        with Vertical() as box:
            box.border_title = self._title
            box.border_subtitle = "Enter takes it, Esc leaves"
            yield Listing()

    def on_mount(self) -> None:
        """Show the rows."""
        listing = self.query_one(Listing)
        listing.show(self._table)
        listing.choose(self._chosen)
        listing.focus()

    def on_listing_opened(self, message: Listing.Opened) -> None:
        """Take the row."""
        self.dismiss(message.key or "")

    def action_leave(self) -> None:
        """Take none."""
        self.dismiss("")


class Page(ModalScreen[None]):
    """A text to read: help, a receipt, an explanation."""

    DEFAULT_CSS = f"""
    Page {{ {_FRAME} }}
    Page > Vertical {{ {_BOX} width: 90%; max-width: 110; height: 90%; max-height: 40; }}
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,enter,question_mark", "leave")]

    def __init__(self, title: str, draw: Callable[[int], Sequence[Row]]) -> None:
        super().__init__()
        self._title = title
        self._draw = draw

    def compose(self) -> ComposeResult:
        """The text."""
        with Vertical() as box:
            box.border_title = self._title
            box.border_subtitle = "arrows scroll, Esc leaves"
            yield Sheet()

    def on_mount(self) -> None:
        """Show it."""
        sheet = self.query_one(Sheet)
        sheet.show(self._draw)
        sheet.focus()

    def action_leave(self) -> None:
        """Close it."""
        self.dismiss()


def small(width: int, height: int, least: tuple[int, int]) -> str:
    """What is said where the terminal is too small."""
    wide, high = least
    return (
        f"This terminal has {width} columns and {height} rows; the menu needs {wide} and {high}.\n"
        "Make it larger, or press q and type: corral ui --plain"
    )


def lines_of(rows: Sequence[Row]) -> object:
    """Lines in pieces as one text for a `Static`."""
    return content_of(tuple(piece for row in rows for piece in (*row, Cell("\n"))))
