"""What stands around every screen: head, tabs, filter, message and hints."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.content import Content
from textual.widgets import Input, Static

from corral.cli.output import clean, line
from corral.cli.table import Cell, cells
from corral.cli.tui.figures import head_text
from corral.cli.tui.themes import TONES
from corral.cli.tui.yard import Connection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from corral.cli.tui.marks import Row
    from corral.cli.tui.yard import Yard
    from corral.errors import CorralError

Hint = tuple[str, str]
"""A key and what it does, in a word."""

_WORDS = {
    Connection.CONNECTING: ("connecting", "yellow"),
    Connection.CONNECTED: ("connected", "green"),
    Connection.AWAY: ("no server", "red"),
    Connection.REFUSED: ("refused", "red"),
}


def content_of(row: Row) -> Content:
    """A line in pieces, as Textual shows it."""
    return Content.assemble(*((text, TONES.get(tone, "")) for text, tone in row))


class Head(Static):
    """The name, the server, how it is connected, and the machine in a few words."""

    DEFAULT_CSS = "Head { height: 1; padding: 0 1; background: $panel; }"

    def tell(self, yard: Yard) -> None:
        """Show how it stands now."""
        word, tone = _WORDS[yard.connection]
        left: Row = (
            Cell("Corral", "title"),
            Cell(f"  {line(yard.url)}  ", "dim"),
            Cell(word, tone),
        )
        room = self.content_size.width - sum(cells(piece.text) for piece in left)
        right = head_text(yard, room - 2)
        self.update(content_of((*left, Cell(" " * max(room - len(right), 0)), Cell(right, "dim"))))


class Tabs(Static):
    """The screens by number; a click goes there."""

    auto_links = False
    DEFAULT_CSS = "Tabs { height: 2; padding: 0 1; border-bottom: solid $corral-line; }"

    def tell(self, titles: Sequence[tuple[str, str, str]], current: str) -> None:
        """Show the screens, each by key, name and title."""
        parts: list[Content] = []
        for key, name, title in titles:
            if name == current:
                tab = Content.assemble((f" {key} {title} ", "bold $corral-cursor-text on $corral-cursor"))
            else:
                tab = Content.assemble((f" {key}", "$corral-quiet"), (f" {title} ", "$foreground"))
            parts.append(tab.stylize(f"@click=app.go('{name}')"))
        self.update(Content("").join(parts))


class Hints(Static):
    """The keys that work here, as many as fit; `?` shows all. A click is the key."""

    auto_links = False
    DEFAULT_CSS = "Hints { height: 1; padding: 0 1; background: $panel; }"
    _ALWAYS: ClassVar[Sequence[Hint]] = (("?", "help"), ("q", "quit"))
    _IN_A_BOX: ClassVar[Sequence[Hint]] = (("F1", "help"), ("ctrl+q", "quit"))

    def __init__(self) -> None:
        super().__init__()
        self._hints: Sequence[Hint] = ()
        self._always = self._ALWAYS

    def tell(self, hints: Sequence[Hint], *, typing: bool = False) -> None:
        """Show these. While somebody is `typing`, letters are no keys."""
        self._hints = hints
        self._always = self._IN_A_BOX if typing else self._ALWAYS
        room = self.content_size.width
        room -= sum(len(key) + len(word) + 3 for key, word in self._always)
        shown: list[Hint] = []
        for key, word in hints:
            room -= len(key) + len(word) + 3
            if room < 0:
                break
            shown.append((key, word))
        self.update(Content("  ").join([_hint(*hint) for hint in (*shown, *self._always)]))

    def on_resize(self) -> None:
        """Show as many as fit now."""
        self.tell(self._hints, typing=self._always is self._IN_A_BOX)


_KEYS = {
    "?": "question_mark",
    "/": "slash",
    "esc": "escape",
    "↑↓": "down",
    "F1": "f1",
    "space": "space",
    "enter": "enter",
}


def _hint(key: str, word: str) -> Content:
    made = Content.assemble((key, "bold $accent"), (f" {word}", "$corral-quiet"))
    return made.stylize(f"@click=app.simulate_key('{_KEYS.get(key, key)}')")


class Notice(Static):
    """What was done, or why not and what to do next; in words first, in colour second."""

    DEFAULT_CSS = """
    Notice { height: auto; max-height: 6; padding: 0 1; display: none; }
    Notice.-shown { display: block; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.said = ""

    def say(self, text: str) -> None:
        """A line about what was done."""
        self._show(Content.assemble((line(text), "$foreground")))

    def wait(self, text: str) -> None:
        """A line about what is under way."""
        self._show(Content.assemble((line(text), "$corral-quiet")))

    def fail(self, error: CorralError) -> None:
        """What went wrong and what to do next."""
        parts: list[str | tuple[str, str]] = [("error: ", "bold $error"), clean(error.message).strip()]
        if error.hint:
            parts += [("\nhint: ", "bold $corral-info"), clean(error.hint).strip()]
        self._show(Content.assemble(*parts))

    def clear(self) -> None:
        """Say nothing."""
        self.said = ""
        self.remove_class("-shown")

    def _show(self, content: Content) -> None:
        self.said = content.plain
        self.update(content)
        self.add_class("-shown")


class Finder(Input):
    """The line in which a text to look for is typed: Enter keeps it, Esc shows all again."""

    DEFAULT_CSS = "Finder { display: none; height: 1; border: none; padding: 0 1; background: $panel; }"

    def __init__(self) -> None:
        super().__init__(placeholder="show only what has this text in it; Enter keeps it, Esc shows all", compact=True)
        self.cursor_blink = False
