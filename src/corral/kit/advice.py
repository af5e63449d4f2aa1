"""What a stranger may say of a model, sifted: launch options on how it talks, and facts to show.

Nothing here names a file, takes memory or says anything of the machine; what it may say has a kind and a bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import orjson

_MOST_STOPS: Final = 64
_LONGEST_STOP: Final = 1000
_MOST_MESSAGES: Final = 100
_LONGEST_TEXT: Final = 1 << 18
"""Characters of a template, a system message, or all messages of an opening. Templates in use have some 20,000."""

_ROLES: Final = ("user", "assistant")
_MOST_FACTS: Final = 64
_MOST_ITEMS: Final = 100
_LONGEST_FACT: Final = 1000
_LONGEST_LICENCE: Final = 32_000
_MOST_IGNORED: Final = 50
_DEEPEST: Final = 16

Fits = Callable[[object], bool]


def bounded(data: bytes, most: int) -> Any:
    """What the JSON `data` holds: at most `most` values, or there are commas and brackets in its texts instead.

    Two bytes of JSON can take sixty of memory: what a stranger wrote is counted before it is parsed.

    Raises:
        ValueError: it holds more, is nested deeply, or is no JSON.
    """
    if data.count(b",") + data.count(b"[") + data.count(b"{") > most:
        raise ValueError(f"over {most} values")
    content = orjson.loads(data)
    if not _is_shallow(content, _DEEPEST):
        raise ValueError(f"nested over {_DEEPEST} deep")
    return content


def _is_shallow(content: object, most: int) -> bool:
    if not isinstance(content, dict | list):
        return True
    inside = content.values() if isinstance(content, dict) else content
    return most > 0 and all(_is_shallow(item, most - 1) for item in inside)


def _whole(least: int, most: int = 2**31 - 1) -> Fits:
    """Whether a value is a whole number between these, both included."""
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _number(least: float) -> Fits:
    """Whether a value is a finite number from `least` to a million."""

    def fits(value: object) -> bool:
        return _is_number(value) and least <= cast("float", value) <= 1e6

    return fits


def _stops(value: object) -> bool:
    """Whether it is a list of texts that may end an answer."""
    items = cast("list[object]", value) if isinstance(value, list) else []
    sound = all(_is_text(item, _LONGEST_STOP) and item for item in items)
    return isinstance(value, list) and len(items) <= _MOST_STOPS and sound


def _template(value: object) -> bool:
    """Whether it is a template itself, and not a path, which a runtime would read a file by."""
    return _is_text(value, _LONGEST_TEXT) and "{" in cast("str", value)


def _opening(value: object) -> bool:
    """Whether it is a list of messages that a conversation may begin with."""
    if not isinstance(value, list) or not 0 < len(value) <= _MOST_MESSAGES:
        return False
    for item in cast("list[object]", value):
        if not isinstance(item, dict) or set(item) != {"role", "content"}:
            return False
        if item["role"] not in _ROLES or not isinstance(item["content"], str):
            return False
    return sum(len(item["content"]) for item in value) <= _LONGEST_TEXT


OPTIONS: Final[Mapping[str, Fits]] = {
    "chat_template": _template,
    "system": lambda value: _is_text(value, _LONGEST_TEXT),
    "opening": _opening,
    "stop": _stops,
    "context": _whole(1),
    "max_tokens": _whole(-1),
    "keep": _whole(-1),
    "temperature": _number(0),
    "top_p": _number(0),
    "top_k": _whole(-1),
    "min_p": _number(0),
    "typical_p": _number(0),
    "repeat_penalty": _number(0),
    "repeat_last_n": _whole(-1),
    "presence_penalty": _number(-1e6),
    "frequency_penalty": _number(-1e6),
    "mirostat": _whole(0, 2),
    "mirostat_tau": _number(0),
    "mirostat_eta": _number(0),
    "seed": _whole(0, 2**32 - 1),
}
"""The launch options that a stranger may give, by their names, and what each may be."""


def sifted(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Those of the launch options that may be taken from a stranger; and the others, with the reason."""
    good: dict[str, Any] = {}
    ignored: dict[str, str] = {}
    for name, value in options.items():
        fits = OPTIONS.get(name)
        if fits is not None and fits(value):
            good[name] = value
        elif len(ignored) < _MOST_IGNORED:
            why = "it is not for others to say" if fits is None else "no such value can be set"
            ignored[name[:100]] = f"{value!r:.80}: {why}"
    return good, ignored


def plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the facts that are short and plain: texts, numbers, yes or no, and lists of them."""
    good: dict[str, Any] = {}
    for name, value in facts.items():
        most = _LONGEST_LICENCE if name == "licence_text" else _LONGEST_FACT
        if len(good) < _MOST_FACTS and len(name) <= 100 and _is_plain(value, most):
            good[name] = value
    return good


def _is_plain(value: object, most: int) -> bool:
    if isinstance(value, list):
        items = cast("list[object]", value)
        return len(items) <= _MOST_ITEMS and all(not isinstance(item, list) and _is_plain(item, 100) for item in items)
    return isinstance(value, bool) or _is_number(value) or _is_text(value, most)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value: object, most: int) -> bool:
    return isinstance(value, str) and len(value) <= most
