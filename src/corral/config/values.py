"""How each kind of setting is read: a function from what was written to a value, or a ValueError that says why not."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?$")
_PARTS = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?$", re.IGNORECASE)
_SECONDS = {"ms": 0.001, "s": 1, None: 1, "m": 60, "h": 3600, "d": 86400}
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


def duration(value: Any) -> float:
    """Seconds, from a number or a text such as `90`, `1.5s`, `1h30m`; `never` and what is negative is infinity."""
    if value == "never":
        return float("inf")
    if isinstance(value, bool):
        raise TypeError("not a duration")
    if isinstance(value, int | float):
        return float(value) if value >= 0 else float("inf")
    text = str(value).strip()
    if text.startswith("-"):
        return duration(text[1:]) + float("inf")
    if _PARTS.fullmatch(text):
        return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    match = _DURATION.match(text)
    if match is None:
        raise ValueError("not a duration such as 90, 30s, 5m, 2h or never")
    return float(match[1]) * _SECONDS[match[2]]


def size(value: Any) -> int:
    """Bytes, from a number or a text such as `64MiB`, `50GB`."""
    if isinstance(value, bool):
        raise TypeError("not a size")
    match = _SIZE.match(str(value).strip())
    if match is None:
        raise ValueError("not a size such as 1048576, 64MiB or 50GB")
    unit = (match[2] or "").lower()
    base = 1024 if unit.endswith("i") else 1000
    return int(float(match[1]) * (base ** _POWERS[unit[0]] if unit else 1))


def port(value: Any) -> int:
    """A TCP port from 0 to 65535."""
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,5}", str(value)) or int(value) > 65535:
        raise ValueError("not a port from 0 to 65535")
    return int(value)


def whole(value: Any) -> int:
    """A whole number of at least 1."""
    if isinstance(value, bool) or not re.fullmatch(r"0*[1-9][0-9]*", str(value)):
        raise ValueError("not a whole number of at least 1")
    return int(value)


def count(value: Any) -> int:
    """A whole number of at least 0."""
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]+", str(value)):
        raise ValueError("not a whole number of at least 0")
    return int(value)


def integer(value: Any) -> int:
    """A whole number."""
    if isinstance(value, bool) or not re.fullmatch(r"-?[0-9]+", str(value)):
        raise ValueError("not a whole number")
    return int(value)


def amount(value: Any) -> float:
    """A number that is not negative, such as a price."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError("not a number")
    found = float(value)
    if not 0 <= found < float("inf"):
        raise ValueError("not a number of at least 0")
    return found


def choice(*known: str) -> Callable[[Any], str]:
    """One of a few words."""

    def read(value: Any) -> str:
        if value not in known:
            raise ValueError(f"not one of {', '.join(known)}")
        return str(value)

    return read


def text(value: Any) -> str:
    """A text that is not empty."""
    if not isinstance(value, str):
        raise TypeError("not a text")
    if not value:
        raise ValueError("it is empty")
    return value


def names(value: Any) -> tuple[str, ...]:
    """Several texts: a list, or one text with commas between them."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(text(part) for part in value)


def flag(value: Any) -> bool:
    """True or false, as people write it."""
    known = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    try:
        return known[str(value).lower()]
    except KeyError:
        raise ValueError("not true or false") from None


def level(value: Any) -> str:
    """A level of the log."""
    found = str(value).lower()
    if found not in ("debug", "info", "warning", "error"):
        raise ValueError("not one of debug, info, warning, error")
    return found


def paths(value: Any) -> tuple[Path, ...]:
    """Several paths, written as `names` are."""
    return tuple(path(item) for item in names(value))


def sizes(value: Any) -> dict[str, int]:
    """Sizes by name: a mapping, or a text such as `hf=20GB,ollama=10GB`."""
    return _by_name(value, size, "cpu: 12GB")


def amounts(value: Any) -> dict[str, float]:
    """Numbers by name, written as `sizes` are."""
    return _by_name(value, amount, "smollm2: 2")


def counts(value: Any) -> dict[str, int]:
    """Whole numbers of at least 1 by name, written as `sizes` are."""
    return _by_name(value, whole, "smollm2: 2")


def _by_name(value: Any, read: Callable[[Any], T], example: str) -> dict[str, T]:
    if isinstance(value, str):
        pairs = [part.partition("=") for part in names(value)]
        if not all(sign for _, sign, _ in pairs):
            raise ValueError(
                f"it does not say of what; write a name to each, such as {{{example}}} or {example.replace(': ', '=')}"
            )
        return {name.strip(): read(found) for name, _, found in pairs}
    if not isinstance(value, Mapping):
        raise TypeError(f"not by name, such as {{{example}}}")
    return {text(name): read(found) for name, found in value.items()}


def path(value: Any) -> Path:
    """A path, with the home of whoever runs this for `~`."""
    try:
        return Path(text(str(value) if isinstance(value, Path) else value)).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{error}") from error
