"""The terminal menu: its frame, its screens, and what happens between them.

Nothing blocks: whatever is asked of the server is asked by a worker, and a screen is drawn only when something that it
shows has changed.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.widgets import ContentSwitcher, Input, Static

from corral.cli.table import Cell
from corral.cli.tui import themes
from corral.cli.tui.dialogs import Page, small
from corral.cli.tui.frame import Finder, Head, Hints, Notice, Tabs
from corral.cli.tui.live import Live
from corral.cli.tui.marks import Row, cell
from corral.cli.tui.panes.chat import Chat
from corral.cli.tui.panes.containers import Containers
from corral.cli.tui.panes.logs import Logs
from corral.cli.tui.panes.machine import Machine
from corral.cli.tui.panes.models import Models
from corral.cli.tui.panes.pane import Pane
from corral.cli.tui.panes.queue import Queue
from corral.cli.tui.panes.spend import Spend
from corral.cli.tui.panes.work import Work
from corral.cli.tui.tape import field_rows, text_rows
from corral.cli.tui.yard import Connection, Yard
from corral.errors import CorralError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from textual.app import ComposeResult
    from textual.events import Resize
    from textual.screen import Screen
    from textual.timer import Timer
    from textual.worker import Worker

    from corral.cli.invocation import Invocation
    from corral.cli.tui.link import Link
    from corral.domain.operations import Operation

    T = TypeVar("T")
    Doing = Callable[[], Coroutine[Any, Any, T]]

PANES: tuple[type[Pane], ...] = (Models, Queue, Containers, Machine, Work, Spend, Logs, Chat)
"""The screens, in the order of their keys."""
LEAST = (60, 16)
"""Columns and rows that the menu needs."""
FRAME = 0.05
"""Seconds in which several changes are drawn once."""
_SAID = 12.0
"""Seconds for which a message stays; an error stays until something else is said or Esc is pressed."""

_KEYS = (
    ("1 … 8", "the screens; so do ← and →"),
    ("↑ ↓", "choose a row, or scroll; PgUp, PgDn, Home and End, too"),
    ("Enter", "open what is chosen"),
    ("Tab", "to the next part of a screen"),
    ("/", "show only what has a text in it; Esc shows all again"),
    (":", "every command by name; Ctrl-P, too"),
    ("T", "the next theme: dark, light, high contrast"),
    ("Ctrl-R", "try to reach the server now"),
    ("?", "this help"),
    ("q", "quit; the server and its work go on"),
)


class Menu(App[None]):
    """`corral ui`.

    Args:
        invocation: which server is asked.
        theme: a name of `themes.NAMES`.
    """

    TITLE = "Corral"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"go('{pane.NAME}')", pane.TITLE) for number, pane in enumerate(PANES, 1)),
        Binding("q,ctrl+c", "quit", "Quit"),
        Binding("question_mark,f1", "help", "Help"),
        Binding("slash", "find", "Find"),
        Binding("colon", "command_palette", "Commands"),
        Binding("T", "next_theme", "Theme"),
        Binding("ctrl+r", "try_now", "Try now"),
        Binding("escape", "calm", "Show all"),
        Binding("left", "step(-1)", show=False),
        Binding("right", "step(1)", show=False),
    ]
    CSS = """
    Screen { color: $foreground; }
    #_default { background: $background; }
    * {
        scrollbar-background: $background; scrollbar-background-hover: $background;
        scrollbar-background-active: $background; scrollbar-corner-color: $background;
        scrollbar-color: $corral-line; scrollbar-color-hover: $corral-quiet; scrollbar-color-active: $accent;
    }
    Pane .split { height: 1fr; }
    Pane .split > .main { height: 1fr; }
    Pane .detail { height: 8; border-top: solid $corral-line; }
    .-tall Pane .detail { height: 14; }
    .-wide Pane .split { layout: horizontal; }
    .-wide Pane .split > .main { width: 3fr; }
    .-wide Pane .split > .detail {
        width: 2fr; height: 1fr; border-top: none; border-left: solid $corral-line; padding: 0 0 0 1; margin: 0 0 0 1;
    }
    ContentSwitcher { height: 1fr; }
    #away { height: auto; padding: 0 2; color: $foreground; display: none; }
    .-away #away { display: block; }
    .-never #away { height: 1fr; content-align: center middle; text-align: center; }
    .-never ContentSwitcher { display: none; }
    #small { display: none; height: 1fr; content-align: center middle; text-align: center; }
    .-small #small { display: block; }
    .-small Head, .-small Tabs, .-small ContentSwitcher, .-small Hints, .-small Notice, .-small #away { display: none; }
    Button { background: $panel; }
    Button:focus { background: $corral-cursor; color: $corral-cursor-text; text-style: bold; }
    """

    def __init__(self, invocation: Invocation, theme: str = "dark") -> None:
        super().__init__()
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (130, "-wide")]
        self.VERTICAL_BREAKPOINTS = [(0, "-low"), (36, "-tall")]
        self.yard = Yard()
        self.live = Live(self, invocation)
        self.notice = Notice()
        self.current = PANES[0].NAME
        self._topics: set[str] = set()
        self._drawing: Timer | None = None
        self._hushing: Timer | None = None
        self._was_connected = False
        self._theme_name = themes.NAMES[theme]
        self.animation_level = "none"

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """What the style sheets name, also where a theme is not ours."""
        return themes.VARIABLES

    def compose(self) -> ComposeResult:
        """The frame around the screens."""
        yield Head()
        yield Tabs()
        yield Static(id="away")
        with ContentSwitcher(initial=self.current):
            for pane in PANES:
                yield pane()
        yield Finder()
        yield self.notice
        yield Hints()
        yield Static(id="small")

    def on_mount(self) -> None:
        """Begin to follow the server."""
        for theme in themes.THEMES:
            self.register_theme(theme)
        self.theme = self._theme_name
        self.quietly(self.live.run)
        self.quietly(self.live.models)
        self._dress()
        self.pane.first().focus()

    async def on_unmount(self) -> None:
        """Close the connections."""
        await self.live.close()

    def on_resize(self, event: Resize) -> None:
        """Say so when there is too little room."""
        width, height = event.size
        tight = width < LEAST[0] or height < LEAST[1]
        self.screen_stack[0].set_class(tight, "-small")
        self.screen_stack[0].query_one("#small", Static).update(small(width, height, LEAST))
        self.call_after_refresh(self._dress)

    @property
    def pane(self) -> Pane:
        """The screen in sight."""
        return self.screen_stack[0].query_one(f"#{self.current}", Pane)

    @property
    def wide(self) -> bool:
        """Whether lists and details stand side by side."""
        return self.screen_stack[0].has_class("-wide")

    def link(self) -> Link:
        """The server to ask.

        Raises:
            ServerNotRunning: there is none at the moment.
        """
        return self.live.link

    def tell(self, *topics: str) -> None:
        """Something changed: what shows it is drawn, together with what else changes in the same moment."""
        self._topics.update(topics)
        if topics and self._drawing is None and self.is_running:
            self._drawing = self.set_timer(FRAME, self._draw)

    def connected(self) -> None:
        """The server came, or came back: the screen in sight fetches what the feed does not tell."""
        self._was_connected = True
        if self.notice.said.startswith("error: "):
            self.notice.clear()
        self.attempt(self.pane.entered)

    def act(self, work: Doing[str | None], doing: str) -> None:
        """Do something that somebody asked for, and say how it went."""
        self.notice.wait(doing)

        async def done() -> None:
            said = await work()
            if said is None:
                self.notice.clear()
            else:
                self.notice.say(said)
                self._hush()

        self.attempt(done)

    def attempt(self, work: Doing[None], broke: Callable[[str], None] | None = None) -> Worker[None]:
        """Do something beside everything else; an error is shown, and told to `broke`."""

        async def guarded() -> None:
            try:
                await work()
            except CorralError as error:
                self.notice.fail(error)
                if broke is not None:
                    broke(error.message)

        return self.run_worker(guarded)

    def quietly(self, work: Doing[None]) -> Worker[None]:
        """Do something that nobody asked for: an error is no message, for the events feed tells what is wrong."""

        async def guarded() -> None:
            try:
                await work()
            except CorralError as error:
                self.log.warning(str(error))

        return self.run_worker(guarded)

    def take(self, message: Mapping[str, Any]) -> None:
        """What a feed tells, or an answer that says the same."""
        self.live.take(message)

    def attend(self, operation: Operation) -> None:
        """Show an operation and follow it."""
        self.live.attend(operation)

    def chat_with(self, name: str) -> None:
        """To the chat, with that model."""
        self.query_one(Chat).talk_to(name)
        self.action_go(Chat.NAME)

    def log_of(self, kind: str, name: str) -> None:
        """To the logs, with that one."""
        self.query_one(Logs).open(kind, name)
        self.action_go(Logs.NAME)

    def install(self) -> None:
        """Ask what to install."""
        self.query_one(Models).action_install()

    def action_go(self, name: str) -> None:
        """Show a screen."""
        if len(self.screen_stack) > 1:
            return
        if name != self.current:
            self.pane.left()
            self.current = name
            self.query_one(ContentSwitcher).current = name
        self._unfind()
        self._dress()
        self.pane.draw()
        self.pane.first().focus()
        if self.yard.connection is Connection.CONNECTED:
            self.attempt(self.pane.entered)

    def action_step(self, by: int) -> None:
        """The next screen, or the one before."""
        names = [pane.NAME for pane in PANES]
        self.action_go(names[(names.index(self.current) + by) % len(names)])

    def action_find(self) -> None:
        """Type what to look for."""
        if len(self.screen_stack) == 1:
            finder = self.query_one(Finder)
            finder.display = True
            finder.value = self.pane.wanted
            finder.focus()
            self.call_after_refresh(self.hint)

    def action_calm(self) -> None:
        """Show everything again, and say nothing."""
        self._unfind()
        self.notice.clear()
        if self.screen.focused is None or isinstance(self.screen.focused, Input):
            self.pane.first().focus()
        self.call_after_refresh(self.hint)

    def action_try_now(self) -> None:
        """Try to reach the server."""
        self.live.try_now()

    def action_next_theme(self) -> None:
        """The next of our themes."""
        names = list(themes.NAMES.values())
        place = names.index(self.theme) + 1 if self.theme in names else 0
        self.theme = names[place % len(names)]
        self.notice.say(f"Theme: {self.theme.removeprefix('corral-')}.")
        self._hush()

    def action_help(self) -> None:
        """All keys."""
        if len(self.screen_stack) == 1:
            self.push_screen(Page("Help", self._help))

    def on_input_changed(self, event: Input.Changed) -> None:
        """Look for what was typed so far."""
        if isinstance(event.input, Finder) and event.input.display:
            self.pane.find(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Keep what was looked for."""
        if isinstance(event.input, Finder):
            event.input.display = False
            self.pane.first().focus()
            self._dress()

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """What the command palette offers."""
        del screen
        for number, pane in enumerate(PANES, 1):
            yield SystemCommand(f"{pane.TITLE}", f"{number}: {pane.HELP}", partial(self.action_go, pane.NAME))
        yield SystemCommand("Install a model", "Ask what, and install it", self.install)
        for name, theme in themes.NAMES.items():
            yield SystemCommand(f"Theme: {name}", "How the menu looks", partial(setattr, self, "theme", theme))
        yield SystemCommand("Try now", "Try to reach the server", self.action_try_now)
        yield SystemCommand("Help", "All keys", self.action_help)
        yield SystemCommand("Quit", "The server and its work go on", self.exit)

    def _draw(self) -> None:
        self._drawing = None
        topics, self._topics = self._topics, set()
        if not self.screen_stack:
            return  # it has just been left
        base = self.screen_stack[0]
        if topics & {"link", "machine"}:
            base.query_one(Head).tell(self.yard)
        if "link" in topics:
            self._tell_away()
        if topics & self.pane.TOPICS:
            self.pane.draw()

    def _dress(self) -> None:
        """Draw the frame."""
        base = self.screen_stack[0]
        titles = [(str(number), pane.NAME, pane.TITLE) for number, pane in enumerate(PANES, 1)]
        base.query_one(Head).tell(self.yard)
        base.query_one(Tabs).tell(titles, self.current)
        self.hint()

    def hint(self) -> None:
        """Say which keys work here."""
        finding = self.query_one(Finder).display
        hints = (("enter", "keep"), ("esc", "show all")) if finding else self.pane.hints()
        self.screen_stack[0].query_one(Hints).tell(hints, typing=isinstance(self.focused, Input))

    def _tell_away(self) -> None:
        """Say that no server answers: in place of everything before the first did, above it afterwards."""
        base, yard = self.screen_stack[0], self.yard
        away = base.query_one("#away", Static)
        missing = yard.connection in (Connection.AWAY, Connection.REFUSED)
        message, hint = yard.fault
        later = "What is shown is as it was." if self._was_connected else "q quits."
        away.update(f"{message}\n{hint}\nThe menu tries again by itself; Ctrl-R tries now. {later}")
        base.set_class(missing, "-away")
        base.set_class(missing and not self._was_connected, "-never")

    def _unfind(self) -> None:
        finder = self.query_one(Finder)
        finder.display = False
        if self.pane.wanted:
            self.pane.find("")

    def _hush(self) -> None:
        """Take a message back after a while."""
        if self._hushing is not None:
            self._hushing.stop()
        said = self.notice.said
        self._hushing = self.set_timer(_SAID, lambda: self.notice.clear() if self.notice.said == said else None)

    def _help(self, width: int) -> list[Row]:
        rows = field_rows([(key, cell(what)) for key, what in _KEYS], width, "Everywhere")
        for number, pane in enumerate(PANES, 1):
            rows += [(), (Cell(f"{number} {pane.TITLE}", "title"),), *text_rows(pane.HELP, width)]
            rows += field_rows([(key, cell(what)) for key, what in pane.HINTS if key != "/"], width)
        return rows
