"""Jinja as pipelines have it: a sandbox over plain values, in which every value is written as a model reads it best.

Used where templates are checked, in the process that renders them, and for those that are too plain to do any harm.
Nothing here bounds time: see `templates.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from jinja2 import StrictUndefined, TemplateRuntimeError, pass_context
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing

from corral.errors import CorralError

if TYPE_CHECKING:
    from jinja2.environment import Template, TemplateExpression

LONGEST_TEMPLATE: Final = 1 << 16
"""Characters."""
GLOBALS: Final = frozenset({"range", "dict", "cycler", "joiner", "namespace"})
_LEFT_OUT: Final = ("random", "urlize", "xmlattr", "forceescape", "escape", "e", "safe", "striptags", "pprint")
"""Filters of web pages, and one after which no rerun is the same."""
_PIECE: Final = frozenset({"name", "text"})
_LARGEST_BASE: Final = 1 << 64
_LARGEST_EXPONENT: Final = 1000


class Missing(StrictUndefined):
    """What is not there: using it is an error that says so in the words of pipelines."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        if self._undefined_hint:
            return self._undefined_hint
        if self._undefined_obj is missing:
            return f"{self._undefined_name!r} is not defined"
        if self._undefined_obj is None:
            return f"there is no {self._undefined_name!r} in nothing: the step before was skipped, or gave null"
        return f"there is no {self._undefined_name!r} in {_called(self._undefined_obj)}"


class Sandbox(ImmutableSandboxedEnvironment):
    """Values only: what a mapping holds comes before its methods, and nothing of Python can be reached."""

    intercepted_binops = frozenset({"**"})

    def __init__(self) -> None:
        super().__init__(
            undefined=Missing,
            finalize=_written,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            extensions=["jinja2.ext.loopcontrols"],
        )
        self.filters["tojson"] = tojson
        for name in _LEFT_OUT:
            del self.filters[name]
        for name in self.globals.keys() - GLOBALS:
            del self.globals[name]

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`obj.attribute`: of a mapping what it holds by that name, if it does."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """A sum that is let through: no power that would keep a processor busy for ever."""
        if operator == "**" and (abs(left) > _LARGEST_BASE or abs(right) > _LARGEST_EXPONENT):
            raise OverflowError("a power that large is no use")
        return super().call_binop(context, operator, left, right)


def tojson(value: Any, indent: int | None = None) -> str:
    """The value as JSON, for models: no character is written as a number that need not be."""
    return json.dumps(plain(value), ensure_ascii=False, indent=indent)


def plain(value: Any) -> Any:
    """The value as JSON has it; what is no value at all (a method, a macro) is refused.

    Raises:
        TemplateRuntimeError: it is not something that can be written.
        UndefinedError: it is not there.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Undefined):
        str(value)  # raises, and says what is not there
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, bytes):
        return [plain(item) for item in value]
    raise TemplateRuntimeError(f"{_called(value)} cannot be written")


@pass_context
def _written(_context: Context, value: Any) -> Any:
    """A value as text: nothing for null, pieces of material under their names, any other structure as JSON.

    It takes the context only so that nothing is reckoned while a template is compiled.
    """
    if isinstance(value, str | Undefined):
        return value
    if value is None:
        return ""
    if isinstance(value, list) and value and all(map(is_piece, value)):
        return "\n\n".join(f"--- {piece['name']} ---\n{piece['text']}" for piece in value)
    return json.dumps(plain(value), ensure_ascii=False)


def is_piece(value: Any) -> bool:
    """Whether a value is a piece of material: a mapping of a name and a text, and no more."""
    return (
        isinstance(value, Mapping) and value.keys() == _PIECE and all(isinstance(part, str) for part in value.values())
    )


def _called(value: Any) -> str:
    """What a value is, in words."""
    if isinstance(value, bool):
        return "true or false"
    words: tuple[tuple[type[Any] | tuple[type[Any], ...], str], ...] = (
        (str, "a text"),
        ((int, float), "a number"),
        (Mapping, "an object with " + (", ".join(map(str, list(value)[:8])) if isinstance(value, Mapping) else "")),
        ((list, tuple), "a list"),
    )
    return next((said for kind, said in words if isinstance(value, kind)), f"a {type(value).__name__}")


def line_of(error: BaseException) -> int | None:
    """The line of the template at which it was raised; None when that is not known."""
    if (line := getattr(error, "lineno", None)) is not None:
        return int(line)
    found = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in {"<template>", "<unknown>"}:
            found = trace.tb_lineno
        trace = trace.tb_next
    return found


def said(error: BaseException) -> str:
    """What an error says, short and printable."""
    if isinstance(error, CorralError):
        return error.message
    text = "".join(char if char.isprintable() else " " for char in str(error)[:300]).strip()
    named: dict[type[BaseException], str] = {
        RecursionError: "it is nested too deeply",
        MemoryError: "it needs too much memory",
    }
    return named.get(type(error), text or type(error).__name__)


_ENVIRONMENT: Final = Sandbox()


@lru_cache(maxsize=128)
def compiled(source: str) -> Template:
    """The template, compiled once."""
    return _ENVIRONMENT.from_string(source)


@lru_cache(maxsize=128)
def compiled_expression(source: str) -> TemplateExpression:
    """The expression, compiled once; what is not there comes out of it as it is."""
    return _ENVIRONMENT.compile_expression(source, undefined_to_none=False)
