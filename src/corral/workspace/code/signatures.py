"""Props as TypeScript tells them: of interfaces, aliases and types written in place, as far as one file says."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from corral.workspace.code.literals import NotLiteral, key, value
from corral.workspace.code.trees import walk, words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tree_sitter import Node

_DEEPEST = 12
_PREDEFINED = {"string": "string", "number": "number", "boolean": "boolean", "object": "object", "bigint": "number"}
_NODES = frozenset(
    [
        "ReactNode",
        "ReactElement",
        "ReactChild",
        "ReactChildren",
        "ReactPortal",
        "Element",
        "ComponentType",
        "ElementType",
        "FC",
        "JSXElementConstructor",
        "ReactText",
    ]
)
_FUNCTIONS = re.compile(r"(?:Handler|Callback|Dispatch|Function|Fn)$")
_ARRAYS = frozenset(["Array", "ReadonlyArray", "Set", "ReadonlySet"])
_OBJECTS = frozenset(
    [
        "Record",
        "Map",
        "ReadonlyMap",
        "CSSProperties",
        "Partial",
        "Required",
        "Readonly",
        "Pick",
        "Omit",
        "Date",
        "RefObject",
        "Ref",
    ]
)
_SAME = frozenset(
    ["Partial", "Required", "Readonly", "PropsWithChildren", "PropsWithRef", "NonNullable", "Pick", "Omit"]
)
_COLOUR = re.compile(r"(?i)colou?r$|^(?:bg|background|fill|stroke|tint)$")
_COLOUR_VALUE = re.compile(
    r"(?i)#(?:[0-9a-f]{3,4}|[0-9a-f]{6}|[0-9a-f]{8})|(?:rgb|hsl|hwb|lab|lch|oklab|oklch)a?\([^()]*\)"
)


@dataclass(frozen=True, slots=True)
class Prop:
    """What a component is given under one name.

    `type` is string, number, boolean, enum, color, array, object, function, node or unknown. `default` is as JSON; None
    where there is none, or one that is computed. `options` are the values of an enum. `doc` is what its comment says.
    """

    name: str
    type: str = "unknown"
    required: bool = False
    default: Any = None
    options: tuple[Any, ...] = ()
    doc: str = ""


class Types(NamedTuple):
    """The types and constants of one file, by name."""

    named: Mapping[str, Node]
    constants: Mapping[str, Node]


def read(node: Node | None, types: Types, depth: int = 0) -> dict[str, Prop]:
    """The members of a type, by name, in their order; empty for one that the file does not tell."""
    if node is None or depth > _DEEPEST:
        return {}
    depth += 1
    if node.type in {"type_annotation", "parenthesized_type", "readonly_type"}:
        return read(_inside(node), types, depth)
    if node.type in {"object_type", "interface_body"}:
        return {prop.name: prop for prop in _members(node, types)}
    if node.type == "interface_declaration":
        return _interface(node, types, depth)
    if node.type == "type_alias_declaration":
        return read(node.child_by_field_name("value"), types, depth)
    if node.type in {"intersection_type", "union_type"}:
        return _joined(node, types, depth)
    if node.type == "generic_type":
        return _generic(node, types, depth)
    return read(types.named.get(words(node)), types, depth)


def _inside(node: Node) -> Node | None:
    return next((child for child in node.named_children if child.type != "comment"), None)


def _interface(node: Node, types: Types, depth: int) -> dict[str, Prop]:
    props: dict[str, Prop] = {}
    for child in node.children:
        if child.type in {"extends_type_clause", "extends_clause"}:
            for base in child.named_children:
                props |= read(base, types, depth)
    return props | read(node.child_by_field_name("body"), types, depth)


def _joined(node: Node, types: Types, depth: int) -> dict[str, Prop]:
    """Members of all parts; of a union those that not all parts have may be missing, and equal names join options."""
    parts = [part for child in node.named_children if (part := read(child, types, depth))]
    props: dict[str, Prop] = {}
    for part in parts:
        for name, prop in part.items():
            had = props.get(name)
            if had is not None and node.type == "union_type" and had.type == prop.type == "enum":
                prop = replace(prop, options=tuple(dict.fromkeys((*had.options, *prop.options))))  # noqa: PLW2901
            props[name] = prop
    if node.type == "union_type":
        return {n: replace(p, required=p.required and all(n in part for part in parts)) for n, p in props.items()}
    return props


def _generic(node: Node, types: Types, depth: int) -> dict[str, Prop]:
    name, given = _last(words(node.child_by_field_name("name"))), arguments(node)
    if name not in _SAME or not given:
        return read(types.named.get(name), types, depth)
    props = read(given[0], types, depth)
    if name == "PropsWithChildren":
        props.setdefault("children", Prop("children", "node"))
    elif name in {"Partial", "Required"}:
        props = {key: replace(prop, required=name == "Required") for key, prop in props.items()}
    elif name in {"Pick", "Omit"} and len(given) > 1:
        chosen = {str(option) for option in Reading(types).options(given[1]) or ()}
        props = {key: prop for key, prop in props.items() if (key in chosen) == (name == "Pick")}
    return props


def arguments(node: Node) -> list[Node]:
    """The types between the angles of a generic type or a call."""
    for child in node.children:
        if child.type == "type_arguments":
            return [inner for inner in child.named_children if inner.type != "comment"]
    return []


def _members(node: Node, types: Types) -> Iterator[Prop]:
    children = node.children
    for place, member in enumerate(children):
        if member.type not in {"property_signature", "method_signature"}:
            continue
        name = member.child_by_field_name("name")
        if name is None or not (word := key(name)):
            continue
        optional = any(child.type == "?" for child in member.children)
        annotation = member.child_by_field_name("type")
        if member.type == "method_signature":
            prop = Prop(word, "function")
        else:
            prop = Reading(types).prop(word, _inside(annotation) if annotation is not None else None)
        yield replace(
            prop, required=prop.required and not optional if annotation else not optional, doc=_doc(children, place)
        )


def _doc(children: list[Node], place: int) -> str:
    """The comments above a member, else the one behind it in its line."""
    above = []
    number = place - 1
    while number >= 0 and children[number].type == "comment":
        comment = children[number]
        before = next((c for c in reversed(children[:number]) if c.type not in {";", ","}), None)
        if (
            before is not None
            and before.end_point.row == comment.start_point.row
            and before.type != "comment"
            and before.is_named
        ):
            break
        above.append(plain(words(comment)))
        number -= 1
    if above:
        return "\n".join(reversed(above)).strip()
    row = children[place].end_point.row
    for child in children[place + 1 : place + 3]:
        if child.type == "comment" and child.start_point.row == row:
            return plain(words(child))
    return ""


def plain(comment: str) -> str:
    """What a comment says, without its marks."""
    if comment.startswith("//"):
        return comment.lstrip("/").strip()
    lines = (line.strip().lstrip("*").strip() for line in comment.removeprefix("/*").removesuffix("*/").split("\n"))
    return "\n".join(line for line in lines if line)


def is_colour(name: str, default: Any = None) -> bool:
    """Whether a text of that name, or with that default, is a colour."""
    return bool(_COLOUR.search(name)) or (isinstance(default, str) and bool(_COLOUR_VALUE.fullmatch(default)))


def _last(name: str) -> str:
    return name.rpartition(".")[2]


class Reading:
    """How types of members are read: with the names of the file at hand."""

    def __init__(self, types: Types) -> None:
        self.types = types

    def prop(self, name: str, node: Node | None) -> Prop:
        """A member of a type. It is required unless its type has `undefined`."""
        if node is None:
            return Prop(name, required=True)
        parts = list(self._parts(node))
        needed = not any(words(part) == "undefined" for part in parts)
        parts = [part for part in parts if words(part) not in {"undefined", "null"}]
        options = self._literals(parts)
        if options and not all(isinstance(option, bool) for option in options):
            return Prop(name, "enum", needed, None, options)
        kinds = {self._kind(part) for part in parts}
        if options or kinds == {"boolean"}:
            return Prop(name, "boolean", needed)
        kind = (
            kinds.pop()
            if len(kinds) == 1
            else "node"
            if "node" in kinds
            else "string"
            if "string" in kinds
            else "unknown"
        )
        return Prop(name, "color" if kind == "string" and is_colour(name) else kind, needed)

    def options(self, node: Node) -> tuple[Any, ...] | None:
        """The values of a type that is a union of literals, or an enum; None for another."""
        return self._literals(list(self._parts(node)))

    def _parts(self, node: Node, depth: int = 0) -> Iterator[Node]:
        """The parts of a union, through the names of the file."""
        if depth > _DEEPEST:
            return
        inner = _inside(node)
        if node.type == "union_type":
            for child in node.named_children:
                yield from self._parts(child, depth + 1)
        elif node.type in {"parenthesized_type", "readonly_type"} and inner is not None:
            yield from self._parts(inner, depth + 1)
        elif node.type == "type_identifier" and (named := self.types.named.get(words(node))) is not None:
            target = named.child_by_field_name("value") if named.type == "type_alias_declaration" else None
            yield from self._parts(target, depth + 1) if target is not None else iter((named,))
        elif node.type == "generic_type" and words(node.child_by_field_name("name")) in {"NonNullable", "Readonly"}:
            for child in arguments(node)[:1]:
                yield from self._parts(child, depth + 1)
        else:
            yield node

    def _literals(self, parts: list[Node]) -> tuple[Any, ...] | None:
        found: list[Any] = []
        for part in parts:
            values = self._values(part)
            if values is None:
                return None
            found.extend(values)
        return tuple(dict.fromkeys(found)) or None

    def _values(self, part: Node) -> list[Any] | None:
        inner = _inside(part)
        if part.type == "enum_declaration":
            return list(_enum(part))
        if part.type == "literal_type" and inner is not None:
            try:
                return [value(inner)]
            except NotLiteral:
                return None
        if part.type in {"lookup_type", "keyof_type", "index_type_query"}:
            return self._of_constant(part)
        return None

    def _of_constant(self, node: Node) -> list[Any] | None:
        """The options of `(typeof X)[number]` and of `keyof typeof X`."""
        name = next(
            (words(_inside(query)) for query in walk(node) if query.type == "type_query" and _inside(query)), ""
        )
        constant = self.types.constants.get(name)
        if constant is None:
            return None
        try:
            known = value(constant)
        except NotLiteral:
            return _keys(constant)
        options = list(known) if isinstance(known, list | dict) else []
        return options if options and all(isinstance(option, str | int | float) for option in options) else None

    def _kind(self, node: Node) -> str:
        word = words(node)
        if node.type == "predefined_type":
            return _PREDEFINED.get(word, "unknown")
        if node.type in {"literal_type", "template_literal_type"}:
            return {"'": "string", '"': "string", "`": "string", "t": "boolean", "f": "boolean"}.get(word[:1], "number")
        if node.type in {"array_type", "tuple_type"}:
            return "array"
        if node.type in {"function_type", "constructor_type"}:
            return "function"
        if node.type in {"object_type", "intersection_type", "interface_declaration", "mapped_type_clause"}:
            return "object"
        if node.type == "enum_declaration":
            return "enum"
        name = _last(words(node.child_by_field_name("name")) if node.type == "generic_type" else word)
        if _FUNCTIONS.search(name):
            return "function"
        known = ((_NODES, "node"), (_ARRAYS, "array"), (_OBJECTS, "object"))
        return next((kind for names, kind in known if name in names), "unknown")


def _keys(node: Node) -> list[Any] | None:
    """The keys of an object, whatever its values are."""
    while node.type in {"as_expression", "satisfies_expression"} and (inner := _inside(node)) is not None:
        node = inner
    if node.type != "object":
        return None
    names = [child.child_by_field_name("key") for child in node.named_children if child.type == "pair"]
    return [key(name) for name in names if name is not None] or None


def _enum(node: Node) -> Iterator[Any]:
    body = node.child_by_field_name("body")
    number = 0
    for child in body.named_children if body is not None else ():
        given = child.child_by_field_name("value") if child.type == "enum_assignment" else None
        if child.type == "comment":
            continue
        try:
            member: Any = value(given) if given is not None else number
        except NotLiteral:
            member = number
        yield member
        number = member + 1 if isinstance(member, int) else number + 1
