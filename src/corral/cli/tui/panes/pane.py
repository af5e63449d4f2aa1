"""What every screen of the menu has."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.containers import Container
from textual.widget import Widget

from corral.cli.tui.listing import Listing
from corral.cli.tui.tape import Sheet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from corral.cli.tui.app import Menu
    from corral.cli.tui.frame import Hint
    from corral.cli.tui.yard import Yard


class Pane(Container):
    """A screen. It is drawn from the yard when one of its topics changed and it is in sight, and at no other time.

    Attributes:
        NAME, TITLE: its name in the program, and what its tab says.
        TOPICS: what it shows of the yard.
        HINTS: keys that work on it, the most wanted first.
        HELP: what there is to say about it, in a sentence or two.
    """

    NAME: ClassVar[str]
    TITLE: ClassVar[str]
    TOPICS: ClassVar[frozenset[str]] = frozenset()
    HINTS: ClassVar[Sequence[Hint]] = ()
    HELP: ClassVar[str] = ""
    DEFAULT_CSS = """
    Pane { height: 1fr; padding: 0 1; }
    """

    def __init__(self) -> None:
        super().__init__(id=self.NAME)
        self.wanted = ""

    @property
    def menu(self) -> Menu:
        """The application."""
        return cast("Menu", self.app)

    @property
    def yard(self) -> Yard:
        """What is known."""
        return self.menu.yard

    def draw(self) -> None:
        """Show what is known now."""
        raise NotImplementedError

    async def entered(self) -> None:
        """It came into sight, or the server came back: fetch what the feed does not tell. May raise CorralError."""

    def left(self) -> None:
        """It went out of sight."""

    def find(self, text: str) -> None:
        """Show only what has this text in it."""
        self.wanted = text
        self.draw()

    def hints(self) -> Sequence[Hint]:
        """The keys that work where the keys go now."""
        return self.HINTS

    def on_descendant_focus(self) -> None:
        """Say which keys work now."""
        self.menu.hint()

    def first(self) -> Widget:
        """Where keys go when it comes into sight."""
        return next(widget for widget in self.query(Widget) if widget.can_focus)


class ListPane(Pane):
    """A screen with a list, and beside or below it what is to be known of the one that is chosen."""

    def compose(self) -> ComposeResult:
        """The list, and what is to be known of one."""
        with Container(classes="split"):
            listing = Listing()
            listing.add_class("main")
            yield listing
            yield Sheet(classes="detail")

    def on_listing_chosen(self) -> None:
        """Show what is to be known of this one."""
        self.detail()

    def detail(self) -> None:
        """Show what is to be known of the one that is chosen."""
        raise NotImplementedError
