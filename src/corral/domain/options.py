"""Options as people write them, made into the frozen values that runtimes declare."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from corral.errors import InvalidRequest, UnknownOption

T = TypeVar("T")

_NOUNS = {
    type(None): "null",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
}


class _MismatchError(Exception):
    """The value is not of the type."""


def parse_options(options: type[T], values: Mapping[str, Any], where: str) -> T:
    """The `options` dataclass made of `values`, whose keys are its field names; `where` names the owner in errors.

    Values are taken as YAML and JSON give them: a list becomes a tuple, a whole number passes as a number, and nothing
    else is converted. Field types may be None, bool, int, float, str, Path, Any, Literal, `tuple[X, ...]`,
    `Mapping[str, X]` and unions of these.

    Raises:
        UnknownOption: a key that is no field; names the nearest one.
        InvalidRequest: a value of the wrong type, a field that is missing, or what the dataclass itself refuses.
    """
    fields = {field.name: field for field in dataclasses.fields(_as_dataclass(options)) if field.init}
    for name in values:
        if name not in fields:
            raise UnknownOption.among(str(name), fields, where)
    hints = get_type_hints(options)
    given: dict[str, Any] = {}
    for name, value in values.items():
        try:
            given[name] = _convert(value, hints[name])
        except _MismatchError:
            raise InvalidRequest(
                f"Option {name!r} for {where} must be {describe(hints[name])}, not {value!r:.80}.", param=name
            ) from None
    for name, field in fields.items():
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and name not in given:
            raise InvalidRequest(
                f"Option {name!r} for {where} is missing.", f"Give it {describe(hints[name])}.", param=name
            )
    return options(**given)


def describe(hint: object) -> str:
    """A type in the words of a person who writes configuration."""
    if hint in _NOUNS:
        return _NOUNS[hint]
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(str(item) for item in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(item) for item in inner)
    if origin is tuple:
        return f"a list, each item {describe(inner[0])}"
    if origin is Mapping:
        return f"a mapping of names, each to {describe(inner[1])}"
    return "a value"


def _as_dataclass(options: type[Any]) -> type[Any]:
    if not dataclasses.is_dataclass(options):
        raise TypeError(f"{options.__name__} is not a dataclass")
    return options


def _convert(value: object, hint: object) -> object:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _first_that_fits(value, inner)
    if origin is Literal:
        matches = any(value == item and type(value) is type(item) for item in inner)
        return value if matches else _refuse()
    if origin is tuple:
        items = value if isinstance(value, (list, tuple)) else _refuse()
        return tuple(_convert(item, inner[0]) for item in items)
    if origin is Mapping:
        pairs = value if isinstance(value, Mapping) else _refuse()
        return {_convert(key, inner[0]): _convert(item, inner[1]) for key, item in pairs.items()}
    return _convert_simple(value, hint)


def _convert_simple(value: object, hint: object) -> object:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str) and value:
        return Path(value)
    if isinstance(value, bool) and hint is not bool:
        return _refuse()
    return value if isinstance(hint, type) and isinstance(value, hint) else _refuse()


def _first_that_fits(value: object, hints: tuple[object, ...]) -> object:
    for hint in hints:
        try:
            return _convert(value, hint)
        except _MismatchError:
            continue
    return _refuse()


def _refuse() -> NoReturn:
    raise _MismatchError
