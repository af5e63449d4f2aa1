"""Entries as lines of JSON in an archive, with every field as it is kept: money in nanodollars, times in seconds.

What is read was written by a stranger: a field too many, too few or of another type is refused, and nothing is guessed.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import fields
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import orjson

from corral.errors import CorralError, InvalidRequest
from corral.workspace.soundness import check_json, check_text, check_whole

R = TypeVar("R")

_SCALARS: Mapping[type, tuple[type, ...]] = {str: (str,), bool: (bool,), int: (int,), float: (int, float)}

_LATER: Mapping[str, Any] = {"paused_seconds": 0.0, "paused_at": None}
"""What archives of an older Corral have not, and stands for it."""

LONGEST = 64 * 1024**2
"""Bytes of a line, at most."""


def write(record: Any) -> bytes:
    """A frozen dataclass as a line."""
    return orjson.dumps({each.name: _plain(getattr(record, each.name)) for each in fields(record)}) + b"\n"


def read(line: bytes, record: type[R]) -> R:
    """What `write` wrote of a record of that type.

    Raises:
        InvalidRequest: it is no such record; says why.
    """
    try:
        found = orjson.loads(line)
    except (orjson.JSONDecodeError, RecursionError) as error:
        raise InvalidRequest(f"A {_called(record)} is not JSON: {error}.") from error
    kinds: Mapping[str, Any] = _fields(cast("Any", record))
    if isinstance(found, dict):
        found = {name: _LATER[name] for name in kinds.keys() & _LATER} | found
    if not isinstance(found, dict) or found.keys() != kinds.keys():
        wrong = sorted(found.keys() ^ kinds.keys()) if isinstance(found, dict) else ["it is no object"]
        raise InvalidRequest(f"A {_called(record)} has other fields than it should: {', '.join(wrong)[:200]}.")
    try:
        return record(**{name: _typed(found[name], kind, name) for name, kind in kinds.items()})
    except CorralError as error:
        raise InvalidRequest(f"A {_called(record)} cannot be taken: {error.message}") from error


def _called(record: type[Any]) -> str:
    return record.__name__.lower()


@cache
def _fields(record: Any) -> Mapping[str, Any]:
    hints = get_type_hints(record)
    return {each.name: hints[each.name] for each in fields(record)}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(each) for each in value]
    return value


def _typed(value: Any, kind: Any, name: str) -> Any:
    """The value as the field's type has it."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return None if value is None else _typed(value, inner[0], name)
    if origin in (Sequence, tuple):
        if isinstance(value, list):
            return tuple(_typed(each, inner[0], name) for each in value)
    elif kind is Any or (origin is Mapping and isinstance(value, dict)):
        return check_json(value, name)
    elif isinstance(kind, type) and issubclass(kind, Enum):
        if value in {each.value for each in kind}:
            return kind(value)
    elif kind in _SCALARS and type(value) in _SCALARS[kind]:
        return _scalar(value, kind, name)
    raise InvalidRequest(f"{name} cannot be {str(value)[:40]!r}.")


def _scalar(value: Any, kind: type, name: str) -> Any:
    if kind is str:
        return check_text(value, name, longest=LONGEST)
    return check_whole(value, name) if kind is int else check_json(kind(value), name)
