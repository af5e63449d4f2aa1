"""What values look like before there are any: enough to say of a path that it leads nowhere. Pure.

A shape is a JSON Schema, or as much of one as is needed; True is anything. What a schema does not say is anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from corral.errors import nearest
from corral.workspace.pipelines.plan import Input, InputType, OutputKind, StepPlan

Shape = Mapping[str, Any] | bool

TEXT: Final[Shape] = {"type": "string"}
PIECE: Final[Shape] = {"type": "object", "properties": {"name": TEXT, "text": TEXT}, "additionalProperties": False}
CONTEXT: Final[Shape] = {
    "type": "object",
    "properties": {
        "instructions": TEXT,
        "files": {"type": "array", "items": PIECE},
        "documents": {"type": "array", "items": PIECE},
        "variables": {"type": "object"},
    },
    "additionalProperties": False,
}
PARTS: Final[Shape] = {"type": "array", "items": PIECE}
RUN: Final[Shape] = {"type": "object", "properties": {"seed": {"type": "integer"}}, "additionalProperties": False}
_TYPES: Final = {
    InputType.STRING: "string",
    InputType.INTEGER: "integer",
    InputType.NUMBER: "number",
    InputType.BOOLEAN: "boolean",
    InputType.LIST: "array",
    InputType.OBJECT: "object",
}
_METHODS: Final = {"string": frozenset(dir(str)), "array": frozenset(dir(list)), "object": frozenset(dir(dict))}
_WORDS: Final = {
    "string": "a text",
    "integer": "a number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "nothing",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a path leads nowhere. `at` is which of its steps does not."""

    at: int
    message: str
    hint: str = ""


def fits(value: Any, kind: InputType) -> bool:
    """Whether a value is of an input's type. A whole number is a number, and true is none."""
    if isinstance(value, bool):
        return kind is InputType.BOOLEAN
    types: dict[InputType, type[Any] | tuple[type[Any], ...]] = {
        InputType.STRING: str,
        InputType.INTEGER: int,
        InputType.NUMBER: (int, float),
        InputType.LIST: list,
        InputType.OBJECT: Mapping,
    }
    return kind in types and isinstance(value, types[kind])


def of_inputs(inputs: Mapping[str, Input]) -> Shape:
    """What `inputs` is."""
    properties = {name: {"type": _TYPES[one.type]} for name, one in inputs.items()}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def of_step(step: StepPlan) -> Shape:
    """What `steps.NAME` is. What it does not have is named in `absent`, with the reason."""
    one: dict[str, Any] = {"output": TEXT, "files": {"type": "array", "items": PIECE}, "skipped": {"type": "boolean"}}
    absent: dict[str, str] = {}
    if step.output.kind is OutputKind.JSON:
        one["value"] = True if step.output.schema is None else step.output.schema
    else:
        absent["value"] = f"its output is {step.output.kind.value}; give it `output: json`"
    if step.for_each is None:
        absent["items"] = "it has no `for_each`"
        return {"type": "object", "properties": one, "additionalProperties": False, "absent": absent}
    item = {"type": "object", "properties": one, "additionalProperties": False, "absent": absent}
    values = {"type": "array", "items": one.get("value", TEXT)}
    properties = {**one, "value": values, "items": {"type": "array", "items": item}}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def follow(shape: Shape, path: Sequence[str | int], named: Callable[[int], str]) -> Shape | Fault:
    """What is found at the end of a path. `named` says in words what is meant by its first steps, by their number."""
    for at, name in enumerate(path):
        shape = _resolved(shape)
        if shape is True or shape is False or not isinstance(shape, Mapping):
            return True
        kind = shape.get("type")
        if not isinstance(kind, str):
            return True
        found = _one(shape, kind, name)
        if isinstance(found, str):
            return Fault(at, f"{named(at)} {found}.", "" if ":" in found else _near(name, shape))
        shape = found
    return _resolved(shape)


def _one(shape: Mapping[str, Any], kind: str, name: str | int) -> Shape | str:
    """What a shape has by a name, or why it has nothing."""
    if isinstance(name, int):
        if kind == "array":
            return _shape(shape.get("items", True))
        return True if kind in {"string", "object"} else f"is {_WORDS.get(kind, kind)}: it has no {name}"
    if kind == "object":
        properties = shape.get("properties")
        if isinstance(properties, Mapping) and name in properties:
            return _shape(properties[name])
        return _beyond(shape, name)
    if name in _METHODS.get(kind, frozenset()):
        return True
    return f"is {_WORDS.get(kind, kind)}: it has no {name!r}"


def _beyond(shape: Mapping[str, Any], name: str) -> Shape | str:
    """What an object has by a name that is none of its properties.

    Models write what their schema names; so nothing else is there, unless the schema says that there may be.
    """
    absent = shape.get("absent", {})
    if name in absent:
        return f"has no {name!r}: {absent[name]}"
    if name in _METHODS["object"] or "patternProperties" in shape:
        return True
    more = shape.get("additionalProperties", not shape.get("properties"))
    return _shape(more) if more is not False else f"has no {name!r}"


def _shape(value: Any) -> Shape:
    return value if isinstance(value, Mapping | bool) else True


def _resolved(shape: Shape) -> Shape:
    """The shape; anything, where a reference or a choice would have to be followed."""
    if isinstance(shape, Mapping) and ("$ref" in shape or any(word in shape for word in ("anyOf", "oneOf", "allOf"))):
        return True
    return shape


def _near(name: str | int, shape: Mapping[str, Any]) -> str:
    properties = [str(one) for one in shape.get("properties", {})]
    close = nearest(str(name), properties, 1)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"There are: {', '.join(properties[:12])}." if properties else ""


def type_of(shape: Shape) -> str | None:
    """The type of a shape in JSON Schema's word; None where it may be any."""
    kind = shape.get("type") if isinstance(shape, Mapping) else None
    return kind if isinstance(kind, str) else None


def in_words(kind: str) -> str:
    """A type of JSON Schema in words."""
    return _WORDS.get(kind, kind)
