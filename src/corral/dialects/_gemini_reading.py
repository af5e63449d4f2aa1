"""What Google's JSON lets a client write: both spellings of a name, one thing for a list of one, numbers in quotes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from corral.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

_LARGEST = 2**53
"""Beyond it a float is no longer every whole number."""
_AFTER_UNDERSCORE = re.compile(r"_([a-z0-9])")


def camel(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The object with its names as Google spells them: `top_p` is `topP`. What it holds is left alone."""
    for key in document:
        if "_" in key:
            return {_AFTER_UNDERSCORE.sub(_upper, name): value for name, value in document.items()}
    return document


def _upper(found: re.Match[str]) -> str:
    return found[1].upper()


def an_object(value: Any, where: str) -> Mapping[str, Any]:
    """`value`, an object, with its names as Google spells them.

    Raises:
        InvalidRequest: it is none; names `where`.
    """
    if type(value) is not dict:
        raise refusal(where, "an object")
    return camel(value)


def a_list(value: Any, where: str) -> list[Any]:
    """`value`, a list, or a list of this one object; None is an empty one.

    Raises:
        InvalidRequest: it is neither.
    """
    if type(value) is list:
        return value
    if value is None:
        return []
    if type(value) is dict:
        return [value]
    raise refusal(where, "an array")


def a_text(value: Any, where: str) -> str:
    """`value`, a string.

    Raises:
        InvalidRequest: it is none.
    """
    if type(value) is not str:
        raise refusal(where, "a string")
    return value


def a_bool(value: Any, where: str) -> bool | None:
    """`value`, true, false or null.

    Raises:
        InvalidRequest: it is none.
    """
    if value is None or type(value) is bool:
        return value
    raise refusal(where, "true or false")


def a_number(value: Any, where: str) -> float | None:
    """`value`, a number, which may stand in quotes, or null.

    Raises:
        InvalidRequest: it is none, or not finite.
    """
    if value is None or type(value) is float or type(value) is int:
        return value
    if type(value) is str:
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if abs(number) < float("inf"):
            return number
    raise refusal(where, "a number")


def a_whole(value: Any, where: str) -> int | None:
    """`value`, a whole number, which may stand in quotes, or null.

    Raises:
        InvalidRequest: it is none.
    """
    if value is None or type(value) is int:
        return value
    if type(value) is str:
        # Longer ones would take long to read, and are none that fit.
        value = int(value) if len(value) < 20 and value.removeprefix("-").isdecimal() else None
    elif type(value) is float:
        value = int(value) if value.is_integer() and abs(value) < _LARGEST else None
    if type(value) is not int:
        raise refusal(where, "a whole number")
    return value


def refusal(where: str, what: str) -> InvalidRequest:
    """The error for a field that is not `what` it must be."""
    return InvalidRequest(f"`{where}` must be {what}.", param=where)
