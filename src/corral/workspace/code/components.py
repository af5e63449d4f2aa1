"""The React component in a file: its name, how it is exported, and the props that it takes.

Props come from wherever the file tells them, the first to say something wins: types (`({a}: Props)`, `React.FC<Props>`,
`forwardRef<E, Props>`), PropTypes, the comment above (`@param {string} props.a`), and names and defaults that are
taken apart in the parameter or in the first lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from corral.workspace.code import signatures, trees
from corral.workspace.code.literals import NotLiteral, key, value
from corral.workspace.code.signatures import Prop, Types, is_colour
from corral.workspace.code.trees import words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tree_sitter import Node

_FUNCTIONS = frozenset(
    {"function_declaration", "function_expression", "arrow_function", "generator_function_declaration"}
)
_CLASSES = frozenset({"class_declaration", "class"})
_WRAPPERS = frozenset(["memo", "forwardRef", "observer", "withRef"])
_COMPONENT_TYPES = frozenset(
    ["FC", "FunctionComponent", "VFC", "VoidFunctionComponent", "ComponentType", "MemoExoticComponent"]
)
_JSX = frozenset({"jsx_element", "jsx_self_closing_element", "jsx_fragment"})
_FLAG = re.compile(
    r"(?:is|has|show|hide|can|should|with)[A-Z]|(?:disabled|checked|open|loading|visible|active|selected|expanded|dark)$"
)
_EVENT = re.compile(r"on[A-Z]|(?:set|handle|render)[A-Z]|(?:callback|handler)$")
_PARAM = re.compile(
    r"@param[ \t]+(?:\{(?P<type>[^}\n]*)\}[ \t]+)?\[?\w+\.(?P<name>\w+)(?:=(?:\[[^\]\n]*\]|[^\[\]\n])*)?\]?"
    r"[ \t]*(?:-[ \t]*)?(?P<doc>[^\n]*)"
)
_PROP_TYPES = {
    "string": "string", "number": "number", "bool": "boolean", "func": "function", "node": "node", "element": "node",
    "elementType": "node", "object": "object", "shape": "object", "exact": "object", "objectOf": "object",
    "array": "array", "arrayOf": "array",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Component:
    """A component. `exported` is `default`, `named`, or empty for one that is not; `imports` are modules."""

    name: str
    exported: str
    props: tuple[Prop, ...] = ()
    imports: tuple[str, ...] = ()
    doc: str = ""


class _Candidate(NamedTuple):
    """What may be a component: the function or class in `node`, `typed` where a variable or wrapper tells the props."""

    name: str
    node: Node
    typed: Node | None
    doc: str


def analyse(content: str, kind: str) -> Component | None:
    """The component of a file: what it exports by default, else the first it exports, else the last there is.

    None for a file without one, of another kind than tsx, jsx, ts and js, or that cannot be read at all; a file with
    mistakes is read as far as it goes. Blocks for about 0.1 s a megabyte.
    """
    if kind not in {"tsx", "jsx", "ts", "js"}:
        return None
    tree = trees.parse("tsx", content.encode("utf-8", "replace"))
    if tree is None:
        return None
    return _Module(tree.root_node).component()


def _type_arguments(node: Node | None) -> list[Node]:
    return signatures.arguments(node) if node is not None else []


class _Module:
    """The statements of one file, by what they declare."""

    def __init__(self, root: Node) -> None:
        self.candidates: dict[str, _Candidate] = {}
        self.default: str | None = None
        self.exports: list[str] = []
        self.imports: dict[str, None] = {}
        self.statics: dict[tuple[str, str], Node] = {}
        named: dict[str, Node] = {}
        constants: dict[str, Node] = {}
        self.types = Types(named, constants)
        comment: Node | None = None
        for statement in root.children:
            if statement.type == "comment":
                comment = statement
                continue
            near = comment is not None and statement.start_point.row - comment.end_point.row <= 1
            doc = signatures.plain(words(comment)) if near else ""
            comment = None
            if statement.type == "export_statement":
                self._export(statement, doc, named, constants)
            else:
                self._statement(statement, doc, named, constants)

    def _statement(self, node: Node, doc: str, named: dict[str, Node], constants: dict[str, Node]) -> list[str]:
        """Keep what a statement declares; the names of it that may be components."""
        name = node.child_by_field_name("name")
        if node.type in {"interface_declaration", "type_alias_declaration", "enum_declaration"} and name is not None:
            named[words(name)] = node
        elif (node.type in _FUNCTIONS or node.type in _CLASSES) and name is not None:
            return self._candidate(words(name), node, None, doc)
        elif node.type in {"lexical_declaration", "variable_declaration"}:
            return [one for item in node.named_children for one in self._variable(item, doc, constants)]
        elif node.type == "import_statement":
            source = node.child_by_field_name("source")
            if source is not None:
                self.imports[key(source)] = None
        elif node.type == "expression_statement":
            self._assignment(node)
        return []

    def _variable(self, node: Node, doc: str, constants: dict[str, Node]) -> list[str]:
        name, given = node.child_by_field_name("name"), node.child_by_field_name("value")
        if node.type != "variable_declarator" or name is None or given is None or name.type != "identifier":
            return []
        constants[words(name)] = given
        annotation = node.child_by_field_name("type")
        typed = annotation.named_children[0] if annotation is not None and annotation.named_children else None
        given_types = []
        if typed is not None and words(typed.child_by_field_name("name")).rpartition(".")[2] in _COMPONENT_TYPES:
            given_types = _type_arguments(typed)
        return self._candidate(words(name), given, given_types[0] if given_types else None, doc)

    def _candidate(self, name: str, node: Node, typed: Node | None, doc: str) -> list[str]:
        inner, wrapped = self._unwrapped(node)
        typed = typed if typed is not None else wrapped
        if inner.type == "identifier":
            had = self.candidates.get(words(inner))
            if had is None:
                return []
            self.candidates[name] = _Candidate(
                name, had.node, typed if typed is not None else had.typed, doc or had.doc
            )
            return [name]
        if inner.type not in _FUNCTIONS and inner.type not in _CLASSES:
            return []
        self.candidates[name] = _Candidate(name, inner, typed, doc)
        return [name]

    def _unwrapped(self, node: Node) -> tuple[Node, Node | None]:
        """The function within `memo(…)`, `forwardRef<E, P>(…)` and the like, and the props that they are told."""
        typed: Node | None = None
        for _ in range(5):
            if (
                node.type in {"parenthesized_expression", "as_expression", "satisfies_expression"}
                and node.named_children
            ):
                node = node.named_children[0]
                continue
            called = (
                words(node.child_by_field_name("function")).rpartition(".")[2] if node.type == "call_expression" else ""
            )
            given = node.child_by_field_name("arguments")
            if called not in _WRAPPERS or given is None or not given.named_children:
                break
            told = _type_arguments(node)
            typed = typed or (told[-1] if told and (called != "forwardRef" or len(told) > 1) else None)
            node = given.named_children[0]
        return node, typed

    def _assignment(self, statement: Node) -> None:
        node = statement.named_children[0] if statement.named_children else statement
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        if node.type == "assignment_expression" and left is not None and right is not None:
            owner, _, name = words(left).partition(".")
            if name in {"propTypes", "defaultProps"}:
                self.statics[owner, name] = right

    def _export(self, node: Node, doc: str, named: dict[str, Node], constants: dict[str, Node]) -> None:
        default = any(child.type == "default" for child in node.children)
        declared, given = node.child_by_field_name("declaration"), node.child_by_field_name("value")
        if declared is not None:
            found = self._statement(declared, doc, named, constants)
            self.exports.extend(found)
            if default and found:
                self.default = found[0]
        elif given is not None and default:
            self._export_value(given, doc)
        for clause in node.named_children:
            for item in clause.named_children if clause.type == "export_clause" else ():
                name, alias = words(item.child_by_field_name("name")), words(item.child_by_field_name("alias"))
                self.exports.append(name)
                if alias == "default":
                    self.default = name

    def _export_value(self, given: Node, doc: str) -> None:
        inner, _ = self._unwrapped(given)
        if given.type == "identifier":
            self.default = words(given)
            return
        own = words(inner.child_by_field_name("name")) if inner.type != "identifier" else words(inner)
        name = own or "Component"
        if self._candidate(name, given, None, doc):
            self.default = name

    def component(self) -> Component | None:
        """The component of the file; None when it has none."""
        chosen, exported = self._chosen()
        if chosen is None:
            return None
        props = tuple(self._props(chosen).values())
        return Component(chosen.name, exported, props, tuple(self.imports), _first(chosen.doc))

    def _chosen(self) -> tuple[_Candidate | None, str]:
        default = self.candidates.get(self.default or "")
        if default is not None:
            return default, "default"
        fitting = [one for one in self.candidates.values() if one.name[:1].isupper() and _renders(one.node)]
        for one in fitting:
            if one.name in self.exports:
                return one, "named"
        return (fitting[-1], "") if fitting else (None, "")

    def _props(self, chosen: _Candidate) -> dict[str, Prop]:
        if chosen.node.type in _CLASSES:
            return self._class_props(chosen)
        parameter = _parameter(chosen.node)
        pattern = parameter.child_by_field_name("pattern") if parameter is not None else None
        pattern = pattern if pattern is not None else parameter
        annotation = parameter.child_by_field_name("type") if parameter is not None else None
        typed = signatures.read(annotation, self.types) or signatures.read(chosen.typed, self.types)
        taken = dict(_taken(pattern, chosen.node)) if pattern is not None else {}
        return self._joined(chosen, typed, taken)

    def _class_props(self, chosen: _Candidate) -> dict[str, Prop]:
        typed: dict[str, Prop] = {}
        for node in chosen.node.children:
            if node.type == "class_heritage":
                clause = node.named_children[0] if node.named_children else node
                told = _type_arguments(clause)
                typed = signatures.read(told[0], self.types) if told else {}
        body = chosen.node.child_by_field_name("body")
        for field in body.named_children if body is not None else ():
            name, given = field.child_by_field_name("name"), field.child_by_field_name("value")
            if field.type == "public_field_definition" and name is not None and given is not None:
                self.statics.setdefault((chosen.name, words(name)), given)
        return self._joined(chosen, typed, {})

    def _joined(self, chosen: _Candidate, typed: dict[str, Prop], taken: Mapping[str, Node | None]) -> dict[str, Prop]:
        props = dict(typed)
        for more in (self._prop_types(chosen.name), _documented(chosen.doc), {name: Prop(name) for name in taken}):
            for name, prop in more.items():
                had = props.get(name)
                if had is None:
                    props[name] = prop
                elif had.type == "unknown" and prop.type != "unknown":
                    props[name] = replace(prop, required=had.required, doc=had.doc or prop.doc)
        defaults = {**self._defaults(chosen.name), **{name: node for name, node in taken.items() if node is not None}}
        for name, prop in props.items():
            props[name] = _settled(prop, defaults.get(name))
        props.pop("key", None)
        props.pop("ref", None)
        return props

    def _defaults(self, name: str) -> dict[str, Node]:
        return dict(_entries(self.statics.get((name, "defaultProps"))))

    def _prop_types(self, name: str) -> dict[str, Prop]:
        return {prop: _prop_type(prop, node) for prop, node in _entries(self.statics.get((name, "propTypes")))}


def _first(doc: str) -> str:
    return doc.split("@", 1)[0].strip()


def _renders(node: Node) -> bool:
    """Whether a function or class has elements in it, or makes them by hand."""
    return any(
        inner.type in _JSX
        or (inner.type == "call_expression" and words(inner.child_by_field_name("function")).endswith("createElement"))
        for inner in trees.walk(node)
    )


def _parameter(node: Node) -> Node | None:
    single = node.child_by_field_name("parameter")
    if single is not None:
        return single
    several = node.child_by_field_name("parameters")
    return next((one for one in several.named_children if one.type != "comment"), None) if several is not None else None


def _taken(pattern: Node, function: Node) -> Iterator[tuple[str, Node | None]]:
    """The names that are taken from the props, each with its default: in the parameter, or in the body."""
    if pattern.type in {"object_pattern", "assignment_pattern"}:
        left = pattern.child_by_field_name("left") if pattern.type == "assignment_pattern" else pattern
        yield from _pattern(left)
        return
    name = words(pattern)
    body = function.child_by_field_name("body")
    for node in trees.walk(body) if body is not None else ():
        if node.type == "variable_declarator" and words(node.child_by_field_name("value")) == name:
            yield from _pattern(node.child_by_field_name("name"))
        elif node.type == "member_expression" and words(node.child_by_field_name("object")) == name:
            yield words(node.child_by_field_name("property")), None


def _pattern(pattern: Node | None) -> Iterator[tuple[str, Node | None]]:
    for child in pattern.named_children if pattern is not None and pattern.type == "object_pattern" else ():
        if child.type == "shorthand_property_identifier_pattern":
            yield words(child), None
        elif child.type == "object_assignment_pattern":
            yield words(child.child_by_field_name("left")), child.child_by_field_name("right")
        elif child.type == "pair_pattern":
            name, inner = child.child_by_field_name("key"), child.child_by_field_name("value")
            if name is not None:
                has = inner is not None and inner.type == "assignment_pattern"
                yield key(name), inner.child_by_field_name("right") if has and inner is not None else None


def _entries(node: Node | None) -> Iterator[tuple[str, Node]]:
    for pair in node.named_children if node is not None and node.type == "object" else ():
        name, given = pair.child_by_field_name("key"), pair.child_by_field_name("value")
        if pair.type == "pair" and name is not None and given is not None:
            yield key(name), given
        elif pair.type == "method_definition" and (name := pair.child_by_field_name("name")) is not None:
            yield key(name), pair


def _prop_type(name: str, node: Node) -> Prop:
    """A prop by what PropTypes says of it."""
    required = node.type == "member_expression" and words(node.child_by_field_name("property")) == "isRequired"
    inner = node.child_by_field_name("object") if required else node
    call = inner is not None and inner.type == "call_expression"
    word = words(inner.child_by_field_name("function") if call and inner is not None else inner).rpartition(".")[2]
    if word == "oneOf" and inner is not None and (given := inner.child_by_field_name("arguments")) is not None:
        try:
            options = value(given.named_children[0]) if given.named_children else []
        except NotLiteral:
            options = []
        if isinstance(options, list) and options:
            return Prop(name, "enum", required, None, tuple(options))
    kind = _PROP_TYPES.get(word, "unknown")
    return Prop(name, "color" if kind == "string" and is_colour(name) else kind, required)


def _documented(doc: str) -> dict[str, Prop]:
    """Props by the `@param` lines of a comment."""
    props = {}
    for match in _PARAM.finditer(doc):
        said = (match["type"] or "").strip().rstrip("=?").lower()
        kind = {
            "string": "string",
            "number": "number",
            "boolean": "boolean",
            "bool": "boolean",
            "function": "function",
            "object": "object",
        }.get(said)
        if kind is None:
            kind = (
                "array"
                if said.endswith("[]") or said.startswith("array")
                else "node"
                if "node" in said or "element" in said
                else "unknown"
            )
        kind = "function" if "=>" in said or said.startswith("function") else kind
        props[match["name"]] = Prop(match["name"], kind, False, None, (), match["doc"].strip())
    return props


def _settled(prop: Prop, default: Node | None) -> Prop:
    """The prop with its default, and of one whose type nothing told, what its default and its name suggest."""
    kind, given = prop.type, None
    if default is not None:
        try:
            given = value(default)
        except NotLiteral:
            if kind == "unknown" and default.type in _FUNCTIONS | {"method_definition"}:
                kind = "function"
            elif kind == "unknown" and default.type in _JSX:
                kind = "node"
    if kind == "unknown":
        kind = _suggested(prop.name, given)
    if kind == "string" and is_colour(prop.name, given):
        kind = "color"
    required = prop.required and default is None
    return replace(prop, type=kind, default=given, required=required)


def _suggested(name: str, given: Any) -> str:
    for kind, of in (("boolean", bool), ("number", int | float), ("string", str), ("array", list), ("object", dict)):
        if isinstance(given, of):
            return kind
    if _EVENT.match(name):
        return "function"
    if name in {"children", "icon"}:
        return "node"
    return "boolean" if _FLAG.match(name) else "unknown"
