"""Server-sent events, as far as a relay and a Python caller need them. Pure: bytes in, bytes or values out."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

HOLD_LIMIT = 1024 * 1024
"""Bytes of one unfinished event that are held back before they are passed on as they are."""

_LINE_END = re.compile(rb"\r\n|\n|\r")
_LONGEST = 64 * 1024
_USAGE = re.compile(rb'"usage"\s*:\s*(?=\{)')
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"([^"\\]*)"')
_DECODER = json.JSONDecoder()


class Splitter:
    """Cuts a stream after its last whole event, wherever the pieces of it were cut.

    `torn` turns true when an event over the limit was passed on unfinished; it is false again after the next boundary.
    `end` is what an event ends with.
    """

    __slots__ = ("_held", "_limit", "torn")
    end = b"\n\n"

    def __init__(self, limit: int = HOLD_LIMIT) -> None:
        self.torn = False
        self._held = bytearray()
        self._limit = limit

    def feed(self, chunk: bytes) -> bytes:
        """What may be passed on now: all up to the last boundary. A chunk that ends at one comes back uncopied."""
        held = self._held
        if not held:
            if chunk.endswith((b"\n\n", b"\n\r\n")):
                self.torn = False
                return chunk
            cut = boundary(chunk)
            ready, rest = chunk[:cut], chunk[cut:]
        else:
            start = max(len(held) - 3, 0)
            held += chunk
            cut = boundary(held, start)
            if not cut and len(held) <= self._limit:
                return b""
            ready, rest = bytes(held[:cut]), bytes(held[cut:])
            held.clear()
        if cut:
            self.torn = False
        if len(rest) > self._limit:
            self.torn = True
            return ready + rest
        held += rest
        return ready

    def flush(self) -> bytes:
        """What is held back, and no longer; for a stream that ended well without a last boundary."""
        rest = bytes(self._held)
        self._held.clear()
        return rest


class Lines:
    """Cuts a stream of lines, as Splitter cuts one of events: what is passed on are whole lines."""

    __slots__ = ("_held", "_limit", "torn")
    end = b"\n"

    def __init__(self, limit: int = HOLD_LIMIT) -> None:
        self.torn = False
        self._held = bytearray()
        self._limit = limit

    def feed(self, chunk: bytes) -> bytes:
        """What may be passed on now: all up to the last line end."""
        held = self._held
        if not held and chunk.endswith(b"\n"):
            self.torn = False
            return chunk
        held += chunk
        cut = held.rfind(b"\n") + 1
        if not cut and len(held) <= self._limit:
            return b""
        self.torn = not cut
        cut = cut or len(held)
        ready = bytes(held[:cut])
        del held[:cut]
        return ready

    def flush(self) -> bytes:
        """What is held back, and no longer; for a stream whose last line has no end."""
        rest = bytes(self._held)
        self._held.clear()
        return rest


class Whole:
    """Cuts nothing: each piece is whole already."""

    __slots__ = ()
    end = b""
    torn = False

    def feed(self, chunk: bytes) -> bytes:
        """The piece."""
        return chunk

    def flush(self) -> bytes:
        """Nothing."""
        return b""


def boundary(data: bytes | bytearray, start: int = 0) -> int:
    r"""The index just after the last blank line at or behind `start`, or 0; lines end in \n, \r\n or \r."""
    last = 0
    for blank in (b"\n\n", b"\n\r\n", b"\r\r"):
        at = data.rfind(blank, start)
        if at >= 0:
            last = max(last, at + len(blank))
    return last


class Reader:
    """Parses a stream into the `data` of its events, for callers in Python."""

    __slots__ = ("_splitter",)

    def __init__(self) -> None:
        self._splitter = Splitter()

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The data of each event that became whole with this chunk."""
        return events(self._splitter.feed(chunk))


def events(data: bytes) -> Iterator[str]:
    """The data of each whole event: its data lines, joined by line feeds. Comments and other fields are skipped."""
    return (found.decode("utf-8", "replace") for found in data_of(data))


def data_of(data: bytes) -> Iterator[bytes]:
    """As `events`, undecoded."""
    lines: list[bytes] = []
    for line in data.split(b"\n") if b"\r" not in data else _LINE_END.split(data):
        if line.startswith(b"data:"):
            value = line[5:]
            lines.append(value[1:] if value.startswith(b" ") else value)
        elif line == b"data":
            lines.append(b"")
        elif not line and lines:
            yield b"\n".join(lines) if len(lines) > 1 else lines[0]
            lines.clear()


class Meter:
    """Finds what an answer says of itself: its last `usage` and `finish_reason`, in OpenAI's form.

    `feed` costs two searches in a chunk and keeps at most a reference to it; the parsing is done when the values are
    asked for. A chunk must not cut an event in two. Inside a JSON string the quotes of these keys would be escaped, so
    what the model writes cannot be mistaken for them.
    """

    __slots__ = ("_finish", "_usage")

    def __init__(self) -> None:
        self._usage: bytes | None = None
        self._finish: bytes | None = None

    def feed(self, chunk: bytes) -> None:
        """Look at bytes on their way past: whole events, or a whole JSON answer."""
        # OpenAI writes "usage":null into every chunk but the last, and "finish_reason":null into most.
        at = chunk.find(b'"usage"')
        if at >= 0 and _USAGE.search(chunk, at):
            self._usage = chunk
        at = chunk.find(b'"finish_reason"')
        if at >= 0 and _FINISH.search(chunk, at):
            self._finish = chunk

    @property
    def usage(self) -> dict[str, Any] | None:
        """The last usage object seen; None when there is none, or it cannot be parsed."""
        data = self._usage
        if data is None:
            return None
        *_, key = _USAGE.finditer(data)
        try:
            value, _ = _DECODER.raw_decode(data[key.end() : key.end() + _LONGEST].decode("utf-8", "replace"))
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    @property
    def finish_reason(self) -> str | None:
        """The last reason seen for why the model stopped."""
        if self._finish is None:
            return None
        return str(_FINISH.findall(self._finish)[-1], "utf-8", "replace")
