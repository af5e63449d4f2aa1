"""Gemini's own kind of schema, a subset of OpenAPI's, to and from JSON schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from corral.dialects._gemini_reading import camel

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEPTH = 64
"""Levels of a schema that are followed; a deeper one is cut to what it is a part of."""
_DIGITS = 19
"""A number of fewer fits into 64 bits."""
_SAME = frozenset({"title", "description", "default", "required", "minimum", "maximum", "pattern"})
_COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
_FORMATS = frozenset({"float", "double", "int32", "int64", "enum", "date-time"})
"""What Gemini takes for `format`; it refuses a schema with another."""
_RENAMED = {"defs": "$defs", "ref": "$ref"}
_NAMED = frozenset({"properties", "$defs"})
_LISTED = frozenset({"anyOf", "prefixItems"})
_SINGLE = frozenset({"items", "additionalProperties"})
_APART = frozenset({"nullable", "propertyOrdering"})
_NOTHING_LOST = frozenset({"$schema", "$id", "$comment", "$defs", "definitions", "examples", "deprecated"})
"""Keywords that bind nobody."""


def from_gemini(schema: Any, depth: int = 0) -> Any:
    """The JSON schema that says what Gemini's `schema` says. What is no object comes back as it is."""
    if type(schema) is not dict or depth > _DEPTH:
        return schema
    out: dict[str, Any] = {}
    for key, value in camel(schema).items():
        name = _RENAMED.get(key, key)
        if key == "type" and type(value) is str:
            if value != "TYPE_UNSPECIFIED":
                out[key] = value.lower()
        elif name in _NAMED and type(value) is dict:
            out[name] = {each: from_gemini(inner, depth + 1) for each, inner in value.items()}
        elif key in _LISTED and type(value) is list:
            out[key] = [from_gemini(each, depth + 1) for each in value]
        elif key in _SINGLE:
            out[key] = from_gemini(value, depth + 1)
        elif key == "example":
            out["examples"] = [value]
        elif key not in _APART:
            # Counts are 64 bits wide, which Google's JSON writes as texts.
            said = key in _COUNTS and type(value) is str and value.isdecimal() and len(value) < _DIGITS
            out[name] = int(value) if said else value
    return _nullable(out) if schema.get("nullable") is True else out


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    kind = schema.get("type")
    if type(kind) is str:
        schema["type"] = [kind, "null"]
        if type(schema.get("enum")) is list and None not in schema["enum"]:
            schema["enum"] = [*schema["enum"], None]
    elif type(schema.get("anyOf")) is list:
        schema["anyOf"] = [*schema["anyOf"], {"type": "null"}]
    return schema


def to_gemini(schema: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Gemini's schema for a JSON schema, and whether it demands less. Definitions are written out where they are used.

    One that refers to itself is an object of any kind where it comes round again.
    """
    conversion = _Conversion(schema)
    return conversion.of(schema, 0), conversion.lost


class _Conversion:
    """One schema on its way; `lost` turns true when something could not be said."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self.lost = False
        self._root = root
        self._within: list[str] = []

    def of(self, schema: Any, depth: int) -> dict[str, Any]:
        """Gemini's form of a schema that stands `depth` levels below the root."""
        if not isinstance(schema, dict):
            self.lost |= schema is not True
            return {}
        if depth > _DEPTH:
            self.lost = True
            return {}
        reference = schema.get("$ref")
        if isinstance(reference, str):
            return self._referred(reference, schema, depth)
        out: dict[str, Any] = {}
        for key, value in schema.items():
            self._say(out, key, value, depth)
        return out

    def _referred(self, reference: str, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        found: Any = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            name = step.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, dict) else None
        if found is None or reference in self._within:
            self.lost = True
            return {"type": "OBJECT"}
        self._within.append(reference)
        out = self.of(found, depth + 1)
        self._within.pop()
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return out | self.of(beside, depth + 1) if beside else out

    def _say(self, out: dict[str, Any], key: str, value: Any, depth: int) -> None:
        if key == "properties" and isinstance(value, dict):
            out[key] = {name: self.of(each, depth + 1) for name, each in value.items()}
            if len(value) > 1:
                # Without it the fields come by their names' order, and not as they were meant.
                out["propertyOrdering"] = list(value)
        elif key == "items":
            out[key] = self.of(value, depth + 1)
        elif key in {"anyOf", "oneOf"} and isinstance(value, list):
            self._any(out, value, depth)
        elif key == "allOf" and isinstance(value, list):
            for each in value:
                _merge(out, self.of(each, depth + 1))
        else:
            self._bound(out, key, value)

    def _bound(self, out: dict[str, Any], key: str, value: Any) -> None:
        if key == "type":
            self._type(out, value)
        elif key == "const":
            self._enum(out, [value])
        elif key == "enum" and isinstance(value, list):
            self._enum(out, value)
        elif key in _SAME or key in _COUNTS or (key == "format" and value in _FORMATS):
            out[key] = value
        elif key == "additionalProperties":
            # An object of named fields is closed there anyway; one of free fields cannot be told what they are.
            self.lost |= isinstance(value, dict) and bool(value)
        else:
            self.lost |= key not in _NOTHING_LOST

    def _type(self, out: dict[str, Any], value: Any) -> None:
        kinds = [each.upper() for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)]
        if "NULL" in kinds and len(kinds) > 1:
            out["nullable"] = True
            kinds.remove("NULL")
        if len(kinds) == 1:
            out["type"] = kinds[0]
        elif kinds:
            out["anyOf"] = [{"type": kind} for kind in kinds]

    def _any(self, out: dict[str, Any], options: list[Any], depth: int) -> None:
        kept = [each for each in options if not (isinstance(each, dict) and each.get("type") == "null")]
        if len(kept) < len(options):
            out["nullable"] = True
        if len(kept) == 1:
            _merge(out, self.of(kept[0], depth + 1))
        else:
            out["anyOf"] = [self.of(each, depth + 1) for each in kept]

    def _enum(self, out: dict[str, Any], values: list[Any]) -> None:
        said = [each for each in values if each is not None]
        if len(said) < len(values):
            out["nullable"] = True
        if all(isinstance(each, str) for each in said):
            out["enum"] = said
            out.setdefault("type", "STRING")
        else:
            self.lost = True  # only texts can be enumerated there


def _merge(out: dict[str, Any], other: dict[str, Any]) -> None:
    for key, value in other.items():
        if key == "properties" and key in out:
            out[key] = {**out[key], **value}
        elif key in {"required", "propertyOrdering"} and key in out:
            out[key] = [*out[key], *(each for each in value if each not in out[key])]
        else:
            out[key] = value
