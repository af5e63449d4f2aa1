"""Where a page ends, as a client is handed it: unreadable to it, and taken back only as it was given."""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import Any, NamedTuple

from corral.errors import InvalidRequest
from corral.workspace.soundness import sound

_LONGEST = 8000
_WHOLE = 1 << 63


class Cursor(NamedTuple):
    """The last entry of a page: what it was sorted by, and its id, which tells those apart that are equal in that."""

    sort: str
    value: str | int | float
    id: str


def pack(cursor: Cursor) -> str:
    """The cursor as letters that an address may have."""
    return base64.urlsafe_b64encode(json.dumps(cursor).encode()).decode().rstrip("=")


def unpack(text: str, sort: str, kind: type) -> Cursor:
    """What `pack` made of a cursor of a list sorted by `sort`, whose values are of the `kind` str, int or float.

    Raises:
        InvalidRequest: it is no cursor, or that of a list that was sorted otherwise.
    """
    try:
        found = json.loads(base64.urlsafe_b64decode(text[:_LONGEST].encode("ascii") + b"=="))
    except (ValueError, binascii.Error, RecursionError) as error:
        raise _refusal() from error
    if not isinstance(found, list) or len(found) != 3 or found[0] != sort or not _is_id(found[2]):
        raise _refusal()
    return Cursor(sort, _value(found[1], kind), found[2])


def _value(value: Any, kind: type) -> str | int | float:
    if kind is str and isinstance(value, str) and sound(value):
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool) and -_WHOLE <= value < _WHOLE
    if kind is float and number and math.isfinite(value):
        return float(value)
    if kind is int and number and isinstance(value, int):
        return value
    raise _refusal()


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 40 and value.isascii() and value.isprintable()


def _refusal() -> InvalidRequest:
    return InvalidRequest(
        "cursor is none that this list has given.", "Ask for the list without a cursor.", param="cursor"
    )
