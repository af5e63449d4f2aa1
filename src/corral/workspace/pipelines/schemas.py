"""JSON Schemas of contracts: which are taken. Pure.

A schema is a program too: one that refers to itself twice takes for ever over a deep value. So what it refers to must
be in it, and come to an end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import jsonschema_rs

PATTERNS: Final = jsonschema_rs.RegexOptions(size_limit=1 << 20)
"""Patterns that take time in proportion to the text, whatever they are."""
LONGEST_SCHEMA: Final = 1 << 16
"""Characters."""
MOST_PARTS: Final = 2_000
"""Of a schema, with what it refers to put in its place."""
_REFUSED: Final = ("$dynamicRef", "$recursiveRef", "unevaluatedProperties", "unevaluatedItems", "$id")
_DEEPEST: Final = 60
_TYPES: Final = ("object", "array", "string", "number", "integer", "boolean", "null")


class _Unfit(Exception):
    """Why a schema is not taken."""


def fault_of(schema: Mapping[str, Any] | bool) -> str:
    """Why a schema cannot be used; empty when it can."""
    if isinstance(schema, bool):
        return ""
    if len(json.dumps(schema)) > LONGEST_SCHEMA:
        return f"it is longer than {LONGEST_SCHEMA:,} characters"
    try:
        _weigh(schema, schema, (), {})
        jsonschema_rs.meta.validate(dict(schema))
        jsonschema_rs.validator_for(dict(schema), offline=True, pattern_options=PATTERNS)
    except _Unfit as error:
        return str(error)
    except jsonschema_rs.ValidationError as error:
        where = ".".join(map(str, error.instance_path))
        if where.rpartition(".")[2] == "type" and isinstance(error.instance, str):
            return f"{error.instance[:60]!r} is no type, at {where[:80]}; there are: {', '.join(_TYPES)}"
        return f"{error.message[:200].rstrip('.')}{f', at {where[:80]}' if where else ''}"
    except (jsonschema_rs.ReferencingError, ValueError) as error:
        return (str(error).splitlines() or ["it cannot be read"])[0][:200].rstrip(".")
    return ""


def _weigh(part: Any, whole: Mapping[str, Any], way: tuple[str, ...], known: dict[str, int]) -> int:
    """How many parts there are, counted as often as they are referred to. `way` are the references that led here."""
    if len(way) > _DEEPEST:
        raise _Unfit("it refers too deeply")
    weight = 1
    if isinstance(part, Mapping):
        for name in _REFUSED:
            if name in part:
                raise _Unfit(f"`{name}` is not taken")
        if isinstance(reference := part.get("$ref"), str):
            weight += _referred(reference, whole, way, known)
        weight += sum(_weigh(value, whole, way, known) for value in part.values())
    elif isinstance(part, list):
        weight += sum(_weigh(value, whole, way, known) for value in part)
    if weight > MOST_PARTS:
        raise _Unfit(f"it has more than {MOST_PARTS:,} parts, with what it refers to")
    return weight


def _referred(reference: str, whole: Mapping[str, Any], way: tuple[str, ...], known: dict[str, int]) -> int:
    if reference in way or reference == "#":
        raise _Unfit(f"{reference!r} refers to what holds it; say how deep it goes")
    if reference not in known:
        known[reference] = _weigh(_target(reference, whole), whole, (*way, reference), known)
    return known[reference]


def _target(reference: str, whole: Mapping[str, Any]) -> Any:
    """What a reference such as `#/$defs/part` is to."""
    if not reference.startswith("#/"):
        raise _Unfit(f"{reference[:80]!r} is not in it; write it out")
    found: Any = whole
    for part in reference[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping) and name in found:
            found = found[name]
        else:
            raise _Unfit(f"there is no {reference[:80]!r} in it")
    return found
