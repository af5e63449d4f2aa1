"""The meter of bytes that are relayed untouched: three searches in a chunk, and no parsing before somebody asks.

Inside a JSON string the quotes of a key would be escaped, so what a model writes cannot be mistaken for one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from corral.dialects.form import Fault
from corral.domain.money import Usage

_DECODER = json.JSONDecoder()
_LONGEST = 64 * 1024
"""Bytes of a usage or an error that are looked at."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Where a form says what, and how to read it.

    `usage` is the key whose value is an object; `read_usage` gets those of the first and of the last chunk that had
    one, in the order of the stream, and after them `{beside: …}`, the object under the key `beside` in the last one.
    `stop` is the key whose value is a string; `read_stop` gets the last one and gives a canonical Stop. `read_fault`
    gets the first value of the key `error` that is an object or a string.
    """

    usage: str
    stop: str
    read_usage: Callable[[Sequence[Mapping[str, Any]]], Usage | None]
    read_stop: Callable[[str], str | None]
    read_fault: Callable[[Any], Fault]
    error: str = "error"
    beside: str = ""
    usage_key: bytes = field(init=False)
    stop_key: bytes = field(init=False)
    error_key: bytes = field(init=False)
    usage_at: re.Pattern[bytes] = field(init=False)
    stop_at: re.Pattern[bytes] = field(init=False)
    error_at: re.Pattern[bytes] = field(init=False)
    beside_at: re.Pattern[bytes] = field(init=False)

    def __post_init__(self) -> None:
        for name, key, value in (
            ("usage", self.usage, rb"(?=\{)"),
            ("stop", self.stop, rb'"([^"\\]+)"'),
            ("error", self.error, rb'(?=[{"])'),
            ("beside", self.beside, rb"(?=\{)"),
        ):
            quoted = b'"' + key.encode() + b'"'
            if name != "beside":
                object.__setattr__(self, f"{name}_key", quoted)
            object.__setattr__(self, f"{name}_at", re.compile(re.escape(quoted) + rb"\s*:\s*" + value))


class Meter:
    """What an answer says of itself, found in its bytes as they pass. See the protocol in `form.py`."""

    __slots__ = ("_error", "_first", "_keys", "_last", "_read", "_stop", "_taken", "_usage_from", "_why")

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._first: bytes | None = None
        self._last: bytes | None = None
        self._usage_from = 0
        self._stop: re.Match[bytes] | None = None
        self._read: re.Match[bytes] | None = None
        self._why: str | None = None
        self._error: bytes | None = None
        self._taken: Mapping[str, Any] | None = None

    def take(self, document: Mapping[str, Any]) -> None:
        """A whole answer that has been parsed already, in place of `feed`."""
        self._taken = document

    def feed(self, chunk: bytes) -> None:
        """Look at whole events, whole lines, or a whole answer. Keeps at most references."""
        keys = self._keys
        if (at := chunk.find(keys.usage_key)) >= 0 and (found := _said(chunk, at, keys.usage_key, keys.usage_at)):
            if self._first is None:
                self._first = chunk
            self._last, self._usage_from = chunk, found.end()
        if (at := chunk.find(keys.stop_key)) >= 0 and (found := _said(chunk, at, keys.stop_key, keys.stop_at)):
            self._stop = found
        if self._error is None and (at := chunk.find(keys.error_key)) >= 0 and keys.error_at.search(chunk, at):
            # A call's arguments, or what a client had noted beside its request, may have a field of that name.
            self._error = chunk if _reported(chunk, keys.error) is not None else None

    @property
    def usage(self) -> Usage | None:
        """What it used; None when it did not say."""
        keys = self._keys
        if self._taken is not None:
            said = self._taken.get(keys.usage)
            if type(said) is not dict:
                return None
            beside = self._taken.get(keys.beside) if keys.beside else None
            return keys.read_usage((said,) if beside is None else (said, {keys.beside: beside}))
        last = self._last
        if last is None:
            return None
        if self._first is last and (not self._keys.beside or self._keys.beside.encode() not in last):
            only = _flat(last, self._usage_from, self._keys.usage_key)
            if only is not None:
                return self._keys.read_usage((only,))
        pattern = self._keys.usage_at
        chunks = [last] if self._first is last else [self._first, last]
        found = [value for chunk in chunks if chunk is not None for value in _values(chunk, pattern)]
        objects = [value for value in found if isinstance(value, dict)]
        if self._keys.beside:
            objects += [{self._keys.beside: value} for value in _values(last, self._keys.beside_at)]
        return self._keys.read_usage(objects) if objects else None

    @property
    def stop(self) -> str | None:
        """Why it stopped, as a canonical Stop; None when it did not say."""
        if self._taken is not None:
            if self._why is None:
                word = _reason(self._taken, self._keys.stop)
                self._why = None if word is None else self._keys.read_stop(word)
            return self._why
        first = self._stop
        if first is None or first is self._read:
            return self._why
        said = first[1]
        if first.string.find(self._keys.stop_key, first.end()) >= 0:  # of several in one piece the last counts
            *_, said = self._keys.stop_at.findall(first.string)
        self._read, self._why = first, self._keys.read_stop(str(said, "utf-8", "replace"))
        return self._why

    @property
    def failed(self) -> Fault | None:
        """The error that the answer or the stream itself reported, if any."""
        if self._taken is not None:
            error = self._taken.get(self._keys.error)
            return self._keys.read_fault(error) if error and isinstance(error, dict | str) else None
        if self._error is None:
            return None
        return self._keys.read_fault(_reported(self._error, self._keys.error))


def _reason(document: Mapping[str, Any], key: str) -> str | None:
    """The reason to end in a whole answer: its own, or that of the last of its choices that has one."""
    found = document.get(key)
    if type(found) is str:
        return found or None
    choices = document.get("choices")
    if type(choices) is list:
        for choice in reversed(choices):
            if type(choice) is dict and type(found := choice.get(key)) is str and found:
                return found
    return None


def _reported(chunk: bytes, key: str) -> Any:
    """The error at the top of a document in `chunk`, or of the response in it; None where there is none.

    Bytes that cannot be read are an error without words.
    """
    lines = [line[5:] for line in chunk.splitlines() if line.startswith(b"data:")]
    for content in lines or [chunk]:
        if key.encode() not in content:
            continue
        try:
            document = orjson.loads(content.strip().strip(b",[]") or b"{}")
        except orjson.JSONDecodeError:
            return {}
        for each in (document, document.get("response")) if type(document) is dict else ():
            if type(each) is dict and isinstance(found := each.get(key), dict | str) and found:
                return found
    return None


def _said(chunk: bytes, at: int, key: bytes, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
    """The first value of `key` at `at` or behind it."""
    # Most engines write these keys with null into every chunk, so that finding one means little.
    if chunk.startswith(b":null", at + len(key)) and chunk.rfind(key) == at:
        return None
    return pattern.search(chunk, at)


def _flat(chunk: bytes, start: int, key: bytes) -> dict[str, Any] | None:
    """The object at `start`, when it holds no other and is the only one of its key: as most do, and quickly read."""
    end = chunk.find(b"}", start) + 1
    if not end or chunk.find(b"{", start + 1, end) >= 0 or chunk.find(key, end) >= 0:
        return None
    try:
        found = orjson.loads(chunk[start:end])
    except orjson.JSONDecodeError:
        return None
    return found if type(found) is dict else None


def _values(chunk: bytes, pattern: re.Pattern[bytes]) -> list[Any]:
    """The JSON values behind each place of `pattern`; what cannot be read is left out."""
    found = []
    for key in pattern.finditer(chunk):
        try:
            value, _ = _DECODER.raw_decode(chunk[key.end() : key.end() + _LONGEST].decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            continue
        found.append(value)
    return found
