"""What commands say, in three ways: for a person, as JSON, or only what was asked for.

    human   tables and lines on standard output; progress, notes and errors on standard error
    json    one object on standard output; errors and warnings as one object each on standard error
    quiet   names and answers only, one a line; errors as for a person

Text that others wrote (models, servers, file names) goes through `clean` before it reaches a terminal, so that it
cannot drive one. Colour appears only on a terminal and never with NO_COLOR.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from math import isinf
from typing import TYPE_CHECKING, Any, TextIO

import orjson

from corral.cli.table import Cell, Column, field_lines, table_lines
from corral.errors import (
    AddressInUse,
    ConfigError,
    Conflict,
    CorralError,
    InvalidRequest,
    NotFound,
    ServerNotRunning,
    ServerRunning,
    StoreError,
    UnsafeBind,
)

if TYPE_CHECKING:
    from rich.console import Console

EXITS: tuple[tuple[type[CorralError], int], ...] = (
    (InvalidRequest, 2),
    (ConfigError, 2),
    (UnsafeBind, 2),
    (NotFound, 3),
    (ServerNotRunning, 4),
    (Conflict, 5),
    (ServerRunning, 5),
    (AddressInUse, 5),
    (StoreError, 6),
)
"""The exit code of each kind of error; 1 of any other. The whole table, with 0, 130 and 141, is in docs/cli.md."""

FAILED = 1
USAGE = 2
INTERRUPTED = 130
NO_READER = 141
_USUAL_WIDTH = 80
_PLAIN = frozenset({str, int, bool, type(None)})
"""What JSON holds as it is."""

_TURNS = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""They turn the direction of what follows, so that a name reads as another."""
_CONTROLS = {code: None for code in (*range(0x20), *range(0x7F, 0xA0), *_TURNS) if chr(code) not in "\n\t"}
_STYLES = {"bold": "1", "dim": "2", "red": "1;31", "green": "32", "yellow": "33", "cyan": "36"}
_STATES = {
    "ready": "green",
    "ok": "green",
    "queued": "yellow",
    "loading": "yellow",
    "sleeping": "cyan",
    "stopping": "yellow",
    "warn": "yellow",
    "failed": "red",
    "fail": "red",
    "cold": "dim",
}
_FITS = {"yes": "green", "tight": "yellow", "no": "red"}


class Mode(StrEnum):
    """How results are written."""

    HUMAN = "human"
    JSON = "json"
    QUIET = "quiet"


def exit_code(error: CorralError) -> int:
    """The exit code that says what kind of failure `error` is."""
    return next((code for kind, code in EXITS if isinstance(error, kind)), FAILED)


def clean(text: str) -> str:
    """`text` without control characters other than line feeds and tabs: safe to print on a terminal, piece by piece."""
    return text.translate(_CONTROLS)


def line(value: object) -> str:
    """A value as one line that is safe on a terminal."""
    return " ".join(clean(str(value)).split())


def size_text(count: float | None) -> str:
    """Bytes for a person, in decimal units and three digits: `98.2 MB`; a dash when unknown."""
    if count is None:
        return "-"
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB" if amount < 1000 else f"{amount:.0f} TB"


def time_text(seconds: float | None) -> str:
    """A length of time for a person, in its two largest units: `4m 12s`; a dash when unknown, `never` when endless."""
    if seconds is None:
        return "-"
    seconds = max(seconds, 0)  # where the clock was set back meanwhile
    if isinf(seconds):
        return "never"
    if 0 < seconds < 0.9995:
        return f"{seconds * 1000:.3g}ms"
    if seconds < 10:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    whole = round(seconds)
    units = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
    for index, (length, name) in enumerate(units):
        if whole >= length:
            smaller = units[index + 1] if index + 1 < len(units) else None
            rest = (whole % length) // smaller[0] if smaller else 0
            return f"{whole // length}{name} {rest}{smaller[1]}" if smaller and rest else f"{whole // length}{name}"
    return "0s"


def plain(value: Any) -> Any:
    """A value as JSON can hold it: paths and enums as text, sets sorted, endless times as `never`."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, float) and isinf(value):
        return "never"
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): item if type(item) in _PLAIN else plain(item) for key, item in value.items()}
    if isinstance(value, frozenset | set):
        return sorted(str(item) for item in value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value)


@dataclass(frozen=True, slots=True)
class Painted:
    """A table's cell in a style."""

    value: object
    style: str

    def __str__(self) -> str:
        return str(self.value)


def painted_fit(verdict: object) -> Painted:
    """Whether a model fits, in its colour; a dash when it is not known."""
    return Painted(verdict or "-", _FITS.get(str(verdict), ""))


def painted_state(state: str) -> Painted:
    """A model's state or a check's result, in the colour that it has everywhere."""
    return Painted(state, _STATES.get(state, ""))


class Output:
    """Where a command's results, notes and errors go.

    Args:
        mode: who reads.
        stdout, stderr: the streams; the process's own when None.
        env: the environment, for NO_COLOR and TERM.
    """

    def __init__(
        self,
        mode: Mode = Mode.HUMAN,
        *,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.mode = mode
        self.stdout = stdout or sys.stdout
        self.stderr = stderr or sys.stderr
        self._env = os.environ if env is None else env

    @property
    def human(self) -> bool:
        """Whether a person reads."""
        return self.mode is Mode.HUMAN

    @property
    def live(self) -> bool:
        """Whether progress can move: a person reads, and standard error is a terminal that can."""
        return self.human and self.stderr.isatty() and self._env.get("TERM") != "dumb"

    def result(
        self, data: Mapping[str, Any], human: Callable[[], None] = lambda: None, quiet: Sequence[object] = ()
    ) -> None:
        """The outcome: `data` as JSON, or what `human` prints, or each of `quiet` on a line."""
        match self.mode:
            case Mode.JSON:
                self.emit(data)
            case Mode.QUIET:
                for item in quiet:
                    self._write(self.stdout, clean(str(item)) + "\n")
            case Mode.HUMAN:
                human()
        self.stdout.flush()

    def emit(self, data: Mapping[str, Any]) -> None:
        """One JSON object on standard output: indented on a terminal, else on one line."""
        content = plain(data)
        if self.stdout.isatty():
            text = json.dumps(content, indent=2)
        else:
            try:
                text = orjson.dumps(content).decode()
            except TypeError:  # half a character, or a number beyond 64 bits
                text = json.dumps(content)
        self._write(self.stdout, text + "\n")
        self.stdout.flush()

    def say(self, text: str = "", style: str = "") -> None:
        """A line for a person."""
        if self.human:
            self._write(self.stdout, self.paint(clean(text), style, self.stdout) + "\n")

    def note(self, text: str) -> None:
        """A line for a person that is not the result: it goes to standard error."""
        if self.human:
            self._write(self.stderr, self.paint(clean(text), "dim", self.stderr) + "\n")
            self.stderr.flush()

    def warn(self, text: str) -> None:
        """Something that may not be as meant, on standard error; not with `--quiet`."""
        if self.mode is Mode.JSON:
            self._write(self.stderr, json.dumps({"warning": {"message": text}}) + "\n")
            self.stderr.flush()
        elif self.human:
            self._write(self.stderr, f"{self.paint('warning:', 'yellow', self.stderr)} {clean(text)}\n")
            self.stderr.flush()

    def fail(self, error: CorralError) -> None:
        """What went wrong and what to type next, on standard error."""
        if self.mode is Mode.JSON:
            content = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
            self._write(self.stderr, json.dumps(content) + "\n")
        else:
            self._write(self.stderr, f"{self.paint('error:', 'red', self.stderr)} {clean(error.message).rstrip()}\n")
            if error.hint:
                self._write(self.stderr, f"{self.paint('hint:', 'cyan', self.stderr)} {clean(error.hint)}\n")
        self.stderr.flush()

    def piece(self, text: str, style: str = "") -> None:
        """A piece of an answer, at once and without a line end."""
        self._write(self.stdout, self.paint(clean(text), style, self.stdout))
        self.stdout.flush()

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[object]]) -> None:
        """Rows under headings. On a terminal they fit its width; elsewhere nothing is shortened."""
        self.drawn(self._table(columns, rows))

    def lines(self, columns: Sequence[Column], rows: Sequence[Sequence[object]]) -> list[str]:
        """The lines that `table` would write, for whoever writes them in another way."""
        return list(self._table(columns, rows))

    def drawn(self, lines: Iterable[str]) -> None:
        """Lines that are clean and in their colours already, such as those of a tree."""
        self._write(self.stdout, "".join(f"{text}\n" for text in lines))

    def fields(self, pairs: Sequence[tuple[str, object]]) -> None:
        """Names and values under each other; a long value goes on below itself."""
        shown = [(line(name), _cell(value)) for name, value in pairs]
        self.drawn(field_lines(shown, self.width(self.stdout), self._painter()))

    def width(self, stream: TextIO) -> int | None:
        """The cells that a line of `stream` has; None where it is no terminal."""
        if not stream.isatty():
            return None
        told = self._env.get("COLUMNS", "")
        if told.isascii() and told.isdigit() and int(told) > 0:
            return int(told)
        try:
            return os.get_terminal_size(stream.fileno()).columns or _USUAL_WIDTH
        except (OSError, ValueError):
            return _USUAL_WIDTH

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """Show that something is under way, on a terminal, and wipe it away at the end of the block."""
        if not self.live:
            yield
            return
        from rich.text import Text

        with self.console(self.stderr).status(Text(line(text), style="dim")):
            yield

    def ask(self, question: str) -> bool:
        """Ask a person yes or no, on standard error; no is the default.

        Raises:
            InvalidRequest: nobody is there to answer.
        """
        if not sys.stdin.isatty() or self.mode is not Mode.HUMAN:
            raise InvalidRequest("This needs a yes, and nobody is there to ask.", "Say it with --yes.")
        self._write(self.stderr, f"{line(question)} [y/N] ")
        self.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def console(self, stream: TextIO) -> Console:
        """Rich's console on one of the two streams; as wide as it likes where there is no terminal."""
        from rich.console import Console

        return Console(
            file=stream,
            width=self.width(stream) or 10_000,
            color_system="auto" if self.coloured(stream) else None,
            highlight=False,
            markup=False,
            emoji=False,
        )

    def coloured(self, stream: TextIO) -> bool:
        """Whether `stream` shows colour."""
        return stream.isatty() and not self._env.get("NO_COLOR") and self._env.get("TERM") != "dumb"

    def paint(self, text: str, style: str, stream: TextIO) -> str:
        """`text` in a style where `stream` shows colour."""
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if style and text and self.coloured(stream) else text

    def _painter(self) -> Callable[[str, str], str]:
        if not self.coloured(self.stdout):
            return lambda text, _: text
        return lambda text, style: self.paint(text, style, self.stdout)

    def _table(self, columns: Sequence[Column], rows: Sequence[Sequence[object]]) -> Iterator[str]:
        shown = [[_cell(value) for value in row] for row in rows]
        return table_lines(columns, shown, self.width(self.stdout), self._painter())

    @staticmethod
    def _write(stream: TextIO, text: str) -> None:
        encoding = stream.encoding or "utf-8"
        stream.write(text.encode(encoding, "replace").decode(encoding))


def _cell(value: object) -> Cell:
    if type(value) is str:
        return Cell(value if value.isprintable() else line(value))
    return Cell(line(value), value.style if isinstance(value, Painted) else "")
