"""Lines on the screen: a sheet that is drawn for its width, and a tape of log lines that a flood does not freeze.

Only what is visible is ever drawn, whatever comes in; a frame is drawn once however many lines came since the last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from corral.cli.table import Cell, cells, fold

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.style import Style
    from textual import events

    from corral.cli.tui.marks import Fields, Row
    from corral.cli.tui.ring import Ring

TONES = ("green", "yellow", "red", "cyan", "dim", "bold", "accent", "title")
_GAP = 2


def field_rows(fields: Fields, width: int, title: str = "") -> list[Row]:
    """Names beside values, as lines of at most `width` cells; a long value goes on below itself."""
    rows: list[Row] = [(Cell(title, "title"),), ()] if title else []
    left = max((cells(name) for name, _ in fields), default=0)
    room = max(width - left - _GAP, 8)
    for name, value in fields:
        for index, text in enumerate(fold(value.text, room)):
            head = "" if index else name
            rows.append((Cell(head + " " * (left + _GAP - cells(head)), "dim"), Cell(text, value.style)))
    return rows


def text_rows(text: str, width: int, tone: str = "") -> list[Row]:
    """A text of several lines, folded to `width` cells."""
    return [(Cell(row, tone),) for line in text.split("\n") for row in fold(line, max(width, 8))]


class Lines(ScrollView, can_focus=True):
    """Something that draws one line at a time; the tones of its pieces come from the theme."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"tone--{name}" for name in TONES}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "app.step(-1)", show=False),
        Binding("right", "app.step(1)", show=False),
        Binding("shift+left", "scroll_left", show=False),
        Binding("shift+right", "scroll_right", show=False),
        Binding("k", "scroll_up", show=False),
        Binding("j", "scroll_down", show=False),
        Binding("space", "page_down", show=False),
    ]
    DEFAULT_CSS = """
    Lines { scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0; overflow-x: auto; }
    Lines > .tone--green { color: $success; }
    Lines > .tone--yellow { color: $warning; }
    Lines > .tone--red { color: $error; text-style: bold; }
    Lines > .tone--cyan { color: $corral-info; }
    Lines > .tone--dim { color: $corral-quiet; }
    Lines > .tone--bold { text-style: bold; }
    Lines > .tone--accent { color: $accent; }
    Lines > .tone--title { color: $accent; text-style: bold; }
    """

    def row(self, index: int) -> Row:
        """The line at that place; empty beyond the last."""
        raise NotImplementedError

    def tone(self, name: str) -> Style:
        """How a tone looks now."""
        return self.get_component_rich_style(f"tone--{name}") if name in TONES else self.rich_style

    def render_line(self, y: int) -> Strip:
        """The line of the screen at `y`."""
        x, top = self.scroll_offset
        width = self.scrollable_content_region.width
        style = self.rich_style
        pieces = self.row(top + y)
        if not pieces:
            return Strip.blank(width, style)
        strip = Strip([Segment(text, self.tone(tone) if tone else style) for text, tone in pieces])
        return strip.crop_extend(x, x + width, style)

    def action_page_down(self) -> None:
        """A page further."""
        self.scroll_page_down(animate=False)


class Sheet(Lines):
    """Lines that are worked out for the width there is, and again when that changes."""

    def __init__(self, name: str | None = None, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002 — Textual's name
        super().__init__(name=name, id=id, classes=classes)
        self._draw: Callable[[int], Sequence[Row]] = lambda _: ()
        self._rows: Sequence[Row] = ()
        self._end = False

    def show(self, draw: Callable[[int], Sequence[Row]], *, end: bool = False) -> None:
        """Show what `draw` makes of a width. With `end`, the last line stays in sight unless somebody scrolled up."""
        self._draw = draw
        self._end = end
        self._lay()

    def on_resize(self, event: events.Resize) -> None:
        """Work the lines out again."""
        del event
        self._lay()

    def row(self, index: int) -> Row:
        """As the base says."""
        return self._rows[index] if 0 <= index < len(self._rows) else ()

    @property
    def text(self) -> str:
        """All lines, as a person would read them."""
        return "\n".join("".join(piece.text for piece in row).rstrip() for row in self._rows)

    def _lay(self) -> None:
        width = self.scrollable_content_region.width
        if not width:
            return
        at_end = self.scroll_offset.y >= self.max_scroll_y
        rows = list(self._draw(width))
        if rows == self._rows:
            return
        self._rows = rows
        wide = max((sum(cells(piece.text) for piece in row) for row in rows), default=0)
        self.virtual_size = Size(max(wide, 1), len(rows))
        if self._end and at_end:
            self.scroll_end(animate=False, immediate=True, x_axis=False)
        self.refresh()


class Tape(Lines):
    """The lines of a `Ring`; call `changed` after putting lines in. `follow` keeps the last line in sight."""

    def __init__(self, ring: Ring, *, id: str | None = None) -> None:  # noqa: A002 — Textual's name
        super().__init__(id=id)
        self.ring = ring
        self.follow = True
        self._seen = -1
        self._gone = 0
        self._wide = 1

    def row(self, index: int) -> Row:
        """As the base says."""
        lines = self.ring.lines
        return (Cell(lines[index]),) if 0 <= index < len(lines) else ()

    def changed(self) -> None:
        """Draw what is new, once a frame. Somebody who reads further up goes on reading the same lines."""
        ring = self.ring
        if ring.version == self._seen:
            return
        self._seen = ring.version
        gone, self._gone = max(0, ring.gone - self._gone), ring.gone
        lines = ring.lines
        tail = (lines[place] for place in range(max(0, len(lines) - 200), len(lines)))
        self._wide = max([self._wide, *(cells(line) for line in tail)]) if lines else 1
        self.virtual_size = Size(self._wide, len(lines))
        if self.follow:
            self.scroll_end(animate=False, immediate=True, x_axis=False)
        elif gone and not ring.wanted:
            self.scroll_to(y=max(0, self.scroll_offset.y - gone), animate=False, immediate=True)
        self.refresh()

    def action_scroll_up(self) -> None:
        """Somebody wants to read: lines that come in meanwhile do not draw the end back into sight."""
        self._stay()
        super().action_scroll_up()

    def action_page_up(self) -> None:
        """As `action_scroll_up`, by a page."""
        self._stay()
        super().action_page_up()

    def action_scroll_home(self) -> None:
        """As `action_scroll_up`, to the oldest line."""
        self._stay()
        super().action_scroll_home()

    def action_scroll_end(self) -> None:
        """Follow the end again, at once: lines that come in meanwhile would cut a slow way there short."""
        self.follow = True
        self.scroll_end(animate=False, immediate=True, x_axis=False)

    def _stay(self) -> None:
        self.follow = self.follow and not self.max_scroll_y

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Somebody who scrolls up wants to read: the end is followed again once it is reached."""
        super().watch_scroll_y(old_value, new_value)
        if new_value < old_value and new_value < self.max_scroll_y:
            self.follow = False
        elif new_value >= self.max_scroll_y:
            self.follow = True
