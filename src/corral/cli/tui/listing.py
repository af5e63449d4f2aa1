"""A table that fits its width, as the commands' tables do, with a row that is chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.strip import Strip

from corral.cli.table import Cell, arranged, cells, cut, fold
from corral.cli.tui.marks import Table
from corral.cli.tui.tape import Lines

if TYPE_CHECKING:
    from rich.style import Style
    from textual import events

    from corral.cli.tui.marks import Row

_GAP = "  "
_NONE = Table(())


class Listing(Lines):
    """Rows under headings that stay; up, down, page, home, end and the mouse choose one.

    The chosen row stays chosen by its key when rows come, go or move.
    """

    class Chosen(Message):
        """Another row is chosen. `key` is None when there is none."""

        def __init__(self, listing: Listing, key: str | None) -> None:
            super().__init__()
            self.listing = listing
            self.key = key

        @property
        def control(self) -> Listing:
            """The table."""
            return self.listing

    class Opened(Chosen):
        """Enter was pressed on the row, or it was clicked when it was chosen already."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"listing--head", "listing--cursor", "listing--away"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown,space", "page(1)", show=False),
        Binding("home", "move(-1000000)", show=False),
        Binding("end", "move(1000000)", show=False),
        Binding("enter", "open", show=False),
    ]
    DEFAULT_CSS = """
    Listing > .listing--head { color: $corral-quiet; }
    Listing > .listing--cursor { background: $corral-cursor; color: $corral-cursor-text; text-style: bold; }
    Listing > .listing--away { background: $panel; }
    """

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 — Textual's name
        super().__init__(id=id)
        self._table = _NONE
        self._kept: list[int] = []
        self._widths: list[int] = []
        self._at = 0
        self._told: str | None = None

    @property
    def key(self) -> str | None:
        """What the chosen row stands for."""
        return self._table.keys[self._at] if self._at < len(self._table.keys) else None

    @property
    def table(self) -> Table:
        """What is shown."""
        return self._table

    def show(self, table: Table) -> None:
        """Show these rows; nothing is drawn when they are the same as before."""
        if table == self._table:
            return
        before = self.key
        self._table = table
        if before in table.keys:
            self._at = table.keys.index(before)
        self._at = max(0, min(self._at, len(table.keys) - 1))
        self._lay()
        self._tell()

    def choose(self, key: str) -> None:
        """Choose the row that stands for this, if there is one."""
        if key in self._table.keys:
            self._go(self._table.keys.index(key))

    def on_resize(self, event: events.Resize) -> None:
        """Fit the columns into the new width."""
        del event
        self._lay()

    def on_focus(self) -> None:
        """Show where it is."""
        self.refresh()

    def on_blur(self) -> None:
        """Show that it is elsewhere."""
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        """Choose the row that was clicked; open it when it was chosen already."""
        place = event.y + self.scroll_offset.y - 1
        if event.y < 1 or not 0 <= place < len(self._table.keys):
            return
        if place == self._at:
            self.action_open()
        self._go(place)

    def action_move(self, by: int) -> None:
        """Choose a row so far away."""
        self._go(self._at + by)

    def action_page(self, by: int) -> None:
        """Choose a row a page away."""
        self._go(self._at + by * max(self.size.height - 2, 1))

    def action_open(self) -> None:
        """Open the chosen row."""
        if self.key is not None:
            self.post_message(self.Opened(self, self.key))

    def row(self, index: int) -> Row:
        """The cells of a row, placed in their columns."""
        if not 0 <= index < len(self._table.rows):
            return ()
        return self._placed(self._table.rows[index])

    @property
    def text(self) -> str:
        """All of it, as a person would read it."""
        heads = self._placed(tuple(Cell(column.title) for column in self._table.columns))
        rows = [heads, *(self.row(place) for place in range(len(self._table.rows)))]
        lines = ["".join(piece.text for piece in row).rstrip() for row in rows]
        return "\n".join(lines if self._table.rows else [*lines, "", self._table.empty])

    def render_line(self, y: int) -> Strip:
        """The headings, a row, or why there is none."""
        width = self.scrollable_content_region.width
        style = self.rich_style
        if y == 0:
            head = self.get_component_rich_style("listing--head")
            return self._strip(tuple(Cell(c.title, "") for c in self._table.columns), head, width)
        index = self.scroll_offset.y + y - 1
        if not self._table.rows and y >= 2:
            why = fold(self._table.empty, max(width, 8))
            text = why[y - 2] if y - 2 < len(why) else ""
            return Strip([Segment(text, self.tone("dim"))]).adjust_cell_length(width, style)
        if not 0 <= index < len(self._table.rows):
            return Strip.blank(width, style)
        if index != self._at:
            pieces = self.row(index)
            drawn = [Segment(text, self.tone(tone) if tone else style) for text, tone in pieces]
            return Strip(drawn).adjust_cell_length(width, style)
        if self.has_focus:
            return self._strip(self._table.rows[index], self.get_component_rich_style("listing--cursor"), width)
        away = self.get_component_rich_style("listing--away")
        return self._strip(self._table.rows[index], away, width)

    def _strip(self, row: Row, style: Style, width: int) -> Strip:
        """A row in one style."""
        text = "".join(piece.text for piece in self._placed(row))
        return Strip([Segment(text, style)]).adjust_cell_length(width, style)

    def _placed(self, row: Row) -> Row:
        pieces: list[Cell] = []
        for place, wide in zip(self._kept, self._widths, strict=True):
            text = cut(row[place].text, wide)
            space = " " * (wide - cells(text))
            shown = space + text if self._table.columns[place].right else text + space
            pieces += [Cell(shown, row[place].style), Cell(_GAP)]
        return tuple(pieces[:-1])

    def _lay(self) -> None:
        table, width = self._table, self.scrollable_content_region.width
        if not width or not table.columns:
            return
        heads = [Cell(column.title) for column in table.columns]
        stacks = [list(stack) for stack in zip(heads, *table.rows, strict=True)]
        self._kept, self._widths = arranged(table.columns, stacks, width)
        self.virtual_size = Size(width, len(table.rows) + 1)
        self._reveal()
        self.refresh()

    def _go(self, place: int) -> None:
        place = max(0, min(place, len(self._table.keys) - 1))
        if place != self._at:
            self._at = place
            self._reveal()
            self.refresh()
        self._tell()

    def _reveal(self) -> None:
        """Scroll so that the chosen row is in sight, below the headings."""
        room = self.scrollable_content_region.height - 1
        top = self.scroll_offset.y
        if room > 0 and not top <= self._at < top + room:
            y = self._at if self._at < top else self._at - room + 1
            self.scroll_to(y=y, animate=False, immediate=True, force=True)

    def _tell(self) -> None:
        if self.key != self._told:
            self._told = self.key
            self.post_message(self.Chosen(self, self.key))
