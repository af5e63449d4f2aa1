"""What a vendor's own client library says of a document: a wrong field, or one it does not know, is an error."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

import typing_extensions
from pydantic import BaseModel, TypeAdapter, ValidationError


def parameters(hint: Any, document: dict[str, Any]) -> dict[str, Any]:
    """`document`, once it is known to be what the library would send: of the TypedDict `hint`, without a field more."""
    wrong = _wrong(hint, document, "")
    assert wrong is None, f"the library does not send this: {wrong}"
    return document


def answer(model: Any, document: Any) -> Any:
    """`document` as the library reads it: a `model`, without a field that it does not know."""
    value = TypeAdapter(model).validate_python(document)
    unknown = list(_unknown(value, ""))
    assert not unknown, f"{model} does not know {unknown}"
    return value


def _unknown(value: Any, where: str) -> Iterator[str]:
    if isinstance(value, BaseModel):
        for name in value.model_extra or {}:
            yield f"{where}.{name}"
        for name in type(value).model_fields:
            yield from _unknown(getattr(value, name), f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _unknown(item, where)


def _wrong(hint: Any, value: Any, where: str) -> str | None:
    """What of `value` is not as `hint` says; None when all is."""
    hint = type(None) if hint is None else _bare(hint)
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        complaints = [_wrong(each, value, where) for each in get_args(hint)]
        return None if None in complaints else max((each for each in complaints if each), key=len)
    if origin is Literal:
        return None if value in get_args(hint) else f"{where} is {value!r}"
    if typing_extensions.is_typeddict(hint):
        return _wrong_fields(hint, value, where)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return None if isinstance(value, dict) else f"{where} is {value!r}"
    if isinstance(origin, type) and issubclass(origin, Iterable):
        if not isinstance(value, list | tuple):
            return f"{where} is {value!r}"
        found = (_wrong(get_args(hint)[0], item, f"{where}[{at}]") for at, item in enumerate(value))
        return next((each for each in found if each), None)
    return _wrong_value(hint, value, where)


def _bare(hint: Any) -> Any:
    while True:
        if isinstance(hint, typing_extensions.TypeAliasType):
            hint = hint.__value__
        elif get_origin(hint) in (
            typing.Annotated,
            typing_extensions.Required,
            typing_extensions.NotRequired,
            typing.Required,
            typing.NotRequired,
        ):
            hint = get_args(hint)[0]
        else:
            return hint


@cache
def _fields(hint: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """The fields of a TypedDict with their types, and those that it needs."""
    known = typing_extensions.get_type_hints(hint, include_extras=True)
    # Python does not see what is required in annotations that it has not read yet; the hints say it.
    needed = {name for name, kind in known.items() if get_origin(kind) in (typing_extensions.Required, typing.Required)}
    return known, frozenset(needed | hint.__required_keys__)


def _wrong_fields(hint: Any, value: Any, where: str) -> str | None:
    if not isinstance(value, dict):
        return f"{where} is {value!r}"
    known, needed = _fields(hint)
    for name in needed - value.keys():
        return f"{where}.{name} is missing"
    open_ended = getattr(hint, "__pydantic_config__", {}).get("extra") == "allow"
    for name in value:
        if name not in known:
            if open_ended:
                continue
            return f"{where}.{name} is not known"
        if found := _wrong(known[name], value[name], f"{where}.{name}"):
            return found
    return None


def _wrong_value(hint: Any, value: Any, where: str) -> str | None:
    if hint in (Any, object):
        return None
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        try:
            answer(hint, value)
        except (ValidationError, AssertionError) as error:
            return f"{where}: {error}"
        return None
    fits = isinstance(hint, type) and isinstance(value, (int, float) if hint is float else hint)
    return None if fits and (hint is bool or not isinstance(value, bool)) else f"{where} is {value!r}"
