"""What a JavaScript or TypeScript module imports and exports, and the same module as part of a single file. Pure.

Offsets are of the source's UTF-8 bytes, as the parser gives them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from corral.errors import InvalidRequest
from corral.workspace.code.languages import LARGEST
from corral.workspace.code.trees import parse, walk, words
from corral.workspace.exports.exported import reached

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tree_sitter import Node

SUFFIXES = (".tsx", ".jsx", ".ts", ".js", ".mjs", ".css", ".json", ".svg")
"""What an import may leave out of a file's name, or name, in the order in which bundlers look."""

SCRIPTS = frozenset({"tsx", "jsx", "ts", "js"})

_REACT = frozenset(
    {"Fragment", "StrictMode", "Suspense", "createContext", "forwardRef", "lazy", "memo", "startTransition"}
    | {"useActionState", "useCallback", "useContext", "useDebugValue", "useDeferredValue", "useEffect", "useId"}
    | {"useImperativeHandle", "useInsertionEffect", "useLayoutEffect", "useMemo", "useOptimistic", "useReducer"}
    | {"useRef", "useState", "useSyncExternalStore", "useTransition"}
)
OURS = frozenset({"react", "react-dom", "react-dom/client", "react/jsx-runtime", "react/jsx-dev-runtime", "framer"})
"""The packages that Corral's own pages hold, and so what they show may import."""

_BINDERS = frozenset({"import_clause", "namespace_import", "object_pattern", "array_pattern", "rest_pattern"})
_BINDING = {"pair_pattern": ("value",), "assignment_pattern": ("left",), "object_assignment_pattern": ("left",)}
_NAMED = frozenset({"identifier", "type_identifier", "shorthand_property_identifier_pattern"})


@dataclass(frozen=True, slots=True)
class Import:
    """One place that brings in another module: `specifier` is its name, `start` and `end` the whole statement.

    `names` are the local names it gives; an import for its effect alone, such as of a style sheet, gives none.
    `exported` where it is `export … from`; `dynamic` where it is `import(…)` or `require(…)`.
    """

    specifier: str
    start: int
    end: int
    names: tuple[str, ...] = ()
    exported: bool = False
    dynamic: bool = False

    @property
    def relative(self) -> bool:
        """Whether it names a file beside the module and not a package."""
        return self.specifier.startswith((".", "/", "@/"))


@dataclass(frozen=True, slots=True)
class Enclosed:
    """A module that exports nothing any more. `name` is what its default export, or component, is called inside.

    `place` is where the function declaration of that name begins, and `doc` the place behind the text of the JSDoc
    comment right above it; None where there is none.
    """

    source: str
    name: str
    place: int | None
    doc: int | None


def imports(source: str, kind: str) -> tuple[Import, ...]:
    """Everything that the module brings in, in its order; nothing for what is no script."""
    if kind not in SCRIPTS:
        return ()
    return tuple(_imports(_tree(source, kind)))


def exports(source: str, kind: str) -> tuple[bool, frozenset[str]]:
    """Whether the module has a default export, and the names that it exports beside it."""
    default, named = False, set[str]()
    for node in _tree(source, kind).children:
        if node.type != "export_statement":
            continue
        own = any(child.type == "default" for child in node.children)
        default |= own
        declared = node.child_by_field_name("declaration")
        if declared is not None and not own:
            named |= {_field(item, "name") for item in (declared, *declared.named_children)}
        for clause in node.named_children:
            named |= {_field(item, "alias") or _field(item, "name") for item in clause.named_children}
    return default or "default" in named, frozenset(named - {"default", ""})


def package(specifier: str) -> str:
    """The package that an import's name belongs to: `react` for `react/jsx-runtime`."""
    parts = specifier.split("/")
    return "/".join(parts[:2]) if specifier.startswith("@") else parts[0]


def resolve(specifier: str, importer: str, names: Sequence[str] | Mapping[str, object]) -> str | None:
    """The one of `names` that a relative import in the file `importer` means; None when it is not among them."""
    path = reached(specifier, importer)
    tried = [path, *(path + suffix for suffix in SUFFIXES), *(f"{path}/index{suffix}" for suffix in SUFFIXES)]
    # Sources in TypeScript may import what their compilation would be called.
    if path.endswith((".js", ".jsx")):
        tried += [path.rpartition(".")[0] + suffix for suffix in (".tsx", ".ts")]
    return next((name for name in tried if path and name in names), None)


def check_whole(files: Mapping[str, str], kinds: Mapping[str, str]) -> None:
    """Refuse files that import others which are not among them. `kinds` says of each which language it is in.

    Raises:
        InvalidRequest: one does; names both.
    """
    for path, text in files.items():
        for item in imports(text, kinds[path]):
            if item.relative and resolve(item.specifier, path, files) is None:
                raise InvalidRequest(
                    f"{path} imports {item.specifier}, which is not among the run's artifacts.",
                    "Add it, or take the import out.",
                )


def completed(source: str, kind: str) -> str:
    """The module with the imports from React that it uses and does not have, as models often leave them out."""
    if kind not in SCRIPTS:
        return source
    root = _tree(source, kind)
    # What is bound anywhere in the module is left alone: a name too many imported would clash.
    bound = set(_bound(root))
    spoken = {words(node) for node in walk(root) if node.type == "identifier"}
    lines = []
    if "React" in spoken - bound:
        lines.append('import * as React from "react"\n')
    if names := sorted((spoken & _REACT) - bound):
        lines.append(f'import {{ {", ".join(names)} }} from "react"\n')
    return "".join(lines) + source


def enclose(source: str, kind: str, name: str) -> Enclosed:
    """The module without its exports. `name` is that of its component, taken where the default export has none.

    Raises:
        InvalidRequest: it has no default export and nothing called `name`.
    """
    data, edits, default = source.encode(), list[tuple[int, int, bytes]](), ""
    root = _tree(source, kind)
    unnamed, taken = name, set(_bound(root))
    while unnamed in taken:
        unnamed += "_"
    for node in root.children:
        if node.type == "export_statement":
            edit, local = _unexport(node, unnamed)
            edits.append(edit)
            default = local or default
    for start, end, given in reversed(edits):
        data = data[:start] + given + data[end:]
    text, local = data.decode(), default or name
    root = _tree(text, kind)
    if local not in _bound(root):
        raise InvalidRequest(
            f"There is no component called {local} in it.", "Export the component: export default function NAME() {…}"
        )
    for node in root.children:
        if node.type == "function_declaration" and _field(node, "name") == local:
            above = node.prev_sibling
            doc = above is not None and above.type == "comment" and words(above).startswith("/**")
            close = above is not None and above.end_point.row + 1 >= node.start_point.row
            return Enclosed(text, local, node.start_byte, above.end_byte - 2 if above and doc and close else None)
    return Enclosed(text, local, None, None)


def bound(source: str, kind: str) -> frozenset[str]:
    """Every name that the module declares or imports, at whatever depth."""
    return frozenset(_bound(_tree(source, kind)))


def without(source: str, drop: Sequence[Import]) -> str:
    """The module without those imports of it."""
    data = source.encode()
    for item in sorted(drop, key=lambda item: -item.start):
        end = item.end
        while data[end : end + 1] in (b";", b" "):
            end += 1
        data = data[: item.start] + data[end + (data[end : end + 1] == b"\n") :]
    return data.decode()


def _tree(source: str, kind: str) -> Node:
    """The tree of the source. TypeScript's grammar reads JavaScript too; only `<T>x` casts are in the way of JSX.

    Raises:
        InvalidRequest: it is larger than what is read.
    """
    if len(source) > LARGEST:
        raise InvalidRequest(f"The module has {len(source)} characters, where {LARGEST} are read.", "Cut it up.")
    tree = parse("ts" if kind == "ts" else "tsx", source.encode())
    if tree is None:
        raise InvalidRequest("The module cannot be read: more of it is left open than code leaves.", "Mend it first.")
    return tree.root_node


def _field(node: Node, name: str) -> str:
    return words(node.child_by_field_name(name))


def _each(root: Node) -> Iterator[tuple[Node, Node]]:
    """Every node below `root` with the node it is in, in the order of the source. To ask a node costs its depth."""
    stack = [(child, root) for child in reversed(root.children)]
    while stack:
        node, parent = stack.pop()
        yield node, parent
        stack.extend((child, node) for child in reversed(node.children))


def _imports(root: Node) -> Iterator[Import]:
    for node in walk(root):
        if node.type in ("import_statement", "export_statement"):
            source = node.child_by_field_name("source")
            if source is not None:
                names = tuple(_bound(node)) if node.type == "import_statement" else ()
                exported = node.type == "export_statement"
                yield Import(words(source)[1:-1], node.start_byte, node.end_byte, names, exported)
        elif node.type == "call_expression":
            asked, arguments = node.child_by_field_name("function"), node.child_by_field_name("arguments")
            if arguments is not None and words(asked) in ("import", "require"):
                given = [child for child in arguments.named_children if child.type == "string"]
                if len(given) == 1:
                    yield Import(words(given[0])[1:-1], node.start_byte, node.end_byte, dynamic=True)


def _bound(root: Node) -> Iterator[str]:
    """Names that are declared or imported below `root`."""
    for node, parent in _each(root):
        if node.type in _NAMED and _binds(node, parent):
            yield words(node)


def _binds(node: Node, parent: Node) -> bool:
    """Whether the name `node` is one that `parent` declares or imports."""
    if parent.type in _BINDERS:
        return True
    if parent.type == "import_specifier":
        return node == (parent.child_by_field_name("alias") or parent.child_by_field_name("name"))
    if parent.type.startswith("jsx_") or parent.type in ("export_specifier", "pair"):
        return False
    fields = _BINDING.get(parent.type, ("name", "pattern", "parameter"))
    return any(parent.child_by_field_name(field) == node for field in fields)


def _unexport(node: Node, name: str) -> tuple[tuple[int, int, bytes], str]:
    """What to put in place of an export so that nothing is exported; and the local name of a default among it.

    `name` is for a default that has none.
    """
    declared, value = node.child_by_field_name("declaration"), node.child_by_field_name("value")
    default = any(child.type == "default" for child in node.children)
    source = node.child_by_field_name("source")
    if source is not None:
        if words(source)[1:-1].startswith((".", "/")):
            raise InvalidRequest(
                f"{words(source)} is exported from it, which a single file cannot do.", "Export it as a Vite project."
            )
        return (node.start_byte, node.end_byte, b""), ""
    if declared is not None:
        return (node.start_byte, declared.start_byte, b""), _field(declared, "name") if default else ""
    if value is not None and value.type == "identifier":
        return (node.start_byte, node.end_byte, b""), words(value)
    if value is not None:
        own = _field(value, "name") or name
        return (node.start_byte, value.start_byte, f"const {own} = ".encode()), own
    local = ""
    for item in (child for clause in node.named_children for child in clause.named_children):
        if item.type == "export_specifier" and _field(item, "alias") == "default":
            local = _field(item, "name")
    if not local and (match := re.match(rb"export\s*=\s*([\w$]+)", node.text or b"")):
        local = match[1].decode()
    return (node.start_byte, node.end_byte, b""), local
