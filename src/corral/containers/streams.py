"""What an engine sends without end, cut into what it is made of: lines that a container printed, and JSON. Pure.

What is kept between two pieces is bounded, however long a line is that never ends.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from corral.containers.specs import moment
from corral.domain.containers import Line

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST = 256 * 1024
"""Bytes of a line after which it is cut in two."""
_OVERLAP = 1.0
"""Seconds by which two streams of a container may be out of order in its log."""

_HEADER = 8
_STDERR = 2


class LogReader:
    """Lines of a container's log, asked for with times, from the bytes that the engine sends.

    Without a terminal each message of the log is a frame: a byte that names the stream, three of nothing, four of
    length, and then a time, a space and the text. A line longer than 16 KiB is several messages, of which only the
    last ends in a newline; each has a time of its own. A container with a terminal has no frames and one stream.
    """

    def __init__(self, *, terminal: bool) -> None:
        self._terminal = terminal
        self._waiting = bytearray()
        self._begun: dict[bool, tuple[float | None, bytearray]] = {}

    def feed(self, data: bytes) -> Iterator[Line]:
        """Every line that these bytes complete."""
        self._waiting += data
        yield from self._lines_of_terminal() if self._terminal else self._lines_of_frames()

    def end(self) -> Iterator[Line]:
        """What was printed last, without a newline after it."""
        if self._terminal and self._waiting:
            yield self._line(bytes(self._waiting), error=False)
            self._waiting.clear()
        for error, (at, text) in self._begun.items():
            yield Line(_text(text), at, error)
        self._begun.clear()

    def _lines_of_terminal(self) -> Iterator[Line]:
        start = 0
        while (end := self._waiting.find(b"\n", start)) >= 0:
            yield self._line(bytes(self._waiting[start:end]), error=False)
            start = end + 1
        del self._waiting[:start]
        if len(self._waiting) > LONGEST:
            yield self._line(bytes(self._waiting), error=False)
            self._waiting.clear()

    def _lines_of_frames(self) -> Iterator[Line]:
        waiting, start = self._waiting, 0
        while len(waiting) - start >= _HEADER:
            length = int.from_bytes(waiting[start + 4 : start + _HEADER], "big")
            end = start + _HEADER + length
            if len(waiting) < end:
                break
            yield from self._message(bytes(waiting[start + _HEADER : end]), error=waiting[start] == _STDERR)
            start = end
        del waiting[:start]

    def _message(self, message: bytes, *, error: bool) -> Iterator[Line]:
        at, text = _timed(message)
        whole = text.endswith(b"\n")
        begun = self._begun.pop(error, None)
        if begun is not None:
            at = begun[0]
            begun[1].extend(text)
            text = bytes(begun[1])
        if whole or len(text) > LONGEST:
            yield Line(_text(text), at, error)
        else:
            self._begun[error] = (at, bytearray(text))

    def _line(self, message: bytes, *, error: bool) -> Line:
        at, text = _timed(message)
        return Line(_text(text), at, error)


class Rest:
    """What of a log, read anew, is new to whoever `had` some of it. It is given it from `since` on."""

    def __init__(self) -> None:
        self._last: Line | None = None
        self._times = 0
        self._later: list[Line] = []

    def had(self, line: Line) -> None:
        """Know of a line that was read."""
        self._times = self._times + 1 if line == self._last else 1
        self._last = line

    @property
    def since(self) -> float | None:
        """Unix seconds from which on to read again; None is as before."""
        return None if self._last is None or self._last.at is None else max(0.0, self._last.at - _OVERLAP)

    def of(self, line: Line) -> Iterator[Line]:
        """The lines that are known to be new by now."""
        if self._times == 0 or self._last is None:
            yield line
        elif line == self._last:
            self._times -= 1
            self._later.clear()
        elif line.at is not None and self._last.at is not None and line.at > self._last.at:
            self._later.append(line)
            if line.at > self._last.at + _OVERLAP:  # what was read last is not kept any more
                self._times = 0
                yield from self.end()

    def end(self) -> Iterator[Line]:
        """The others, now that there is no more."""
        yield from self._later
        self._later.clear()


class JsonReader:
    """JSON objects, one a line, from the bytes that the engine sends.

    Raises:
        ValueError: it is no JSON.
    """

    def __init__(self) -> None:
        self._waiting = bytearray()

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Every object that these bytes complete."""
        self._waiting += data
        *lines, rest = self._waiting.split(b"\n")
        self._waiting = bytearray(rest)
        for line in lines:
            if line.strip():
                yield json.loads(line)


def _timed(message: bytes) -> tuple[float | None, bytes]:
    """The time that a message begins with, and what was printed; a driver that keeps no time gives the text alone."""
    stamp, space, text = message.partition(b" ")
    if not space or not stamp[:4].isdigit():
        return None, message
    try:
        return moment(stamp.decode("ascii", "replace")), text
    except ValueError:
        return None, message


def _text(data: bytes | bytearray) -> str:
    return data.decode("utf-8", "replace").rstrip("\r\n")
