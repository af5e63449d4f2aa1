"""What a real parser of each language says of a file: where it stumbles, in lines and characters from 1.

    tsx, jsx, ts, js, css, html    tree-sitter's grammars; of HTML also the scripts and styles in it
    python                         Python's own
    json                           Python's own, without NaN and Infinity
    svg                            expat, without entities and document types
    markdown                       markdown-it
    diff                           `corral.workspace.code.diffs`

Nothing is executed or fetched.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from bisect import bisect_right
from itertools import islice
from typing import TYPE_CHECKING

from corral.workspace.code import diffs, trees
from corral.workspace.code.languages import MOST, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tree_sitter import Node

_FILE = "<artifact>"
_NEVER_EMPTY = frozenset(["tsx", "jsx", "ts", "js", "css", "html", "python", "svg"])
_CLOSERS = {"{": "}", "(": ")", "[": "]", "${": "}"}
_VOID = frozenset(
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"]
)
_OPTIONAL = frozenset(
    [
        "html",
        "head",
        "body",
        "p",
        "li",
        "dt",
        "dd",
        "option",
        "optgroup",
        "tr",
        "td",
        "th",
        "thead",
        "tbody",
        "tfoot",
        "colgroup",
        "caption",
        "rt",
        "rp",
    ]
)


class Text:
    """A file with its lines, which says where a byte of it is."""

    def __init__(self, content: str) -> None:
        self.bytes = content.encode("utf-8", "replace")
        self._starts = [0, *(match.end() for match in re.finditer(b"\n", self.bytes))]

    def problem(self, byte: int, message: str) -> Problem:
        """A problem at that byte."""
        line = bisect_right(self._starts, byte)
        before = self.bytes[self._starts[line - 1] : byte]
        return Problem(line, len(before.decode(errors="replace")) + 1, message)


def _quoted(node: Node, most: int = 40) -> str:
    text = " ".join(trees.words(node)[: 4 * most].split())
    return f"`{text[:most]}…`" if len(text) > most else f"`{text}`"


def _faults(text: Text, root: Node) -> Iterator[Problem]:
    for node in islice(trees.faults(root), MOST):
        if node.is_missing:
            yield text.problem(node.start_byte, f"`{node.type}` is missing here")
        else:
            unclosed = _unclosed(node)
            if unclosed is not None:
                yield text.problem(unclosed.start_byte, f"{_quoted(unclosed)} is never closed")
            yield text.problem(node.start_byte, f"this cannot be read: {_quoted(node)}")


def _unclosed(root: Node) -> Node | None:
    """The innermost bracket inside of a mistake that nothing closes."""
    stack: list[Node] = []
    for node in trees.walk(root):
        if node.child_count or node.is_missing:
            continue
        if node.type in _CLOSERS:
            stack.append(node)
        elif stack and node.type == _CLOSERS[stack[-1].type]:
            stack.pop()
    return stack[-1] if stack else None


def _elements(text: Text, root: Node) -> Iterator[Problem]:
    for node in trees.walk(root):
        if node.type != "jsx_element":
            continue
        opened, closed = node.child_by_field_name("open_tag"), node.child_by_field_name("close_tag")
        if opened is None or closed is None:
            continue
        first, last = (trees.words(tag.child_by_field_name("name")) for tag in (opened, closed))
        if first != last:
            line = opened.start_point.row + 1
            yield text.problem(closed.start_byte, f"`</{last}>` closes `<{first}>` of line {line}")


def _bindings(text: Text, root: Node) -> Iterator[Problem]:
    """Names that a module declares twice: compilers refuse what the grammar allows."""
    seen: dict[str, int] = {}
    for statement in root.children:
        inner = statement.child_by_field_name("declaration") if statement.type == "export_statement" else statement
        if inner is None:
            continue
        for name in _declared(inner):
            word = trees.words(name)
            if word in seen:
                yield text.problem(name.start_byte, f"`{word}` is declared already, in line {seen[word]}")
            seen.setdefault(word, name.start_point.row + 1)


def _declared(statement: Node) -> Iterator[Node]:
    if statement.type in {"class_declaration", "function_declaration", "generator_function_declaration"}:
        name = statement.child_by_field_name("name")
        if name is not None:
            yield name
    elif statement.type == "lexical_declaration":
        for item in statement.named_children:
            name = item.child_by_field_name("name") if item.type == "variable_declarator" else None
            if name is not None and name.type == "identifier":
                yield name
    elif statement.type == "import_statement":
        for node in trees.walk(statement):
            name = node.child_by_field_name("alias") or node.child_by_field_name("name")
            if node.type == "import_specifier" and name is not None:
                yield name
            elif node.type == "identifier" and node.parent is not None and node.parent.type in _IMPORTED:
                yield node


_IMPORTED = frozenset({"import_clause", "namespace_import"})


def _script(kind: str) -> Callable[[str], Iterator[Problem]]:
    def checked(content: str) -> Iterator[Problem]:
        text = Text(content)
        tree = trees.parse(kind, text.bytes)
        if tree is None:
            yield Problem(1, 1, "there are too many mistakes to read this")
            return
        yield from _faults(text, tree.root_node)
        if kind in {"tsx", "jsx", "js"}:
            yield from _elements(text, tree.root_node)
        yield from _bindings(text, tree.root_node)

    return checked


def _css(content: str) -> Iterator[Problem]:
    text = Text(content)
    tree = trees.parse("css", text.bytes)
    if tree is None:
        yield Problem(1, 1, "there are too many mistakes to read this")
        return
    yield from _faults(text, tree.root_node)


def _html(content: str) -> Iterator[Problem]:
    text = Text(content)
    tree = trees.parse("html", text.bytes)
    if tree is None:
        yield Problem(1, 1, "there are too many mistakes to read this")
        return
    yield from _faults(text, tree.root_node)
    for node in trees.walk(tree.root_node):
        if node.type == "erroneous_end_tag":
            yield text.problem(node.start_byte, f"{_quoted(node)} closes nothing that is open")
        elif node.type in {"element", "script_element", "style_element"}:
            yield from _element(text, node)


def _element(text: Text, node: Node) -> Iterator[Problem]:
    start = next((child for child in node.children if child.type == "start_tag"), None)
    if start is None:
        return
    name = next((trees.words(child) for child in start.children if child.type == "tag_name"), "").lower()
    if node.children[-1].type != "end_tag" and name not in _VOID | _OPTIONAL:
        yield text.problem(node.start_byte, f"`<{name}>` is never closed")
    raw = next((child for child in node.children if child.type == "raw_text"), None)
    if raw is None:
        return
    kind = "css" if name == "style" else _script_kind(trees.words(start))
    if kind is not None:
        row, column = raw.start_point.row, text.problem(raw.start_byte, "").column - 1
        for found in CHECKS[kind](trees.words(raw)):
            first = column if found.line == 1 else 0
            yield Problem(found.line + row, found.column + first, found.message)


def _script_kind(tag: str) -> str | None:
    """The language of a script by its opening tag; None for one that browsers do not run."""
    match = re.search(r"""\btype\s*=\s*["']?([^"'\s>]+)""", tag, re.IGNORECASE)
    named = match[1].lower() if match else "module"
    if named in {"module", "text/javascript", "application/javascript"}:
        return "js"
    if named in {"text/babel", "text/jsx"}:
        return "jsx"
    return "json" if named in {"application/json", "application/ld+json", "importmap"} else None


def _python(content: str) -> Iterator[Problem]:
    # A wrong escape is a warning of the file that is read, not of Corral; the filter fits that file's name only.
    warnings.filterwarnings("ignore", module=re.escape(_FILE))
    try:
        ast.parse(content, _FILE)
    except SyntaxError as error:
        yield Problem(error.lineno or 1, max(error.offset or 1, 1), error.msg)
    except ValueError as error:
        yield Problem(1, 1, str(error))
    except (RecursionError, MemoryError):
        yield Problem(1, 1, "this is nested too deeply to be read")


class _NotJson(ValueError):
    """A word that Python reads as a number and JSON does not know."""


def _refuse(word: str) -> None:
    raise _NotJson(word)


def _json(content: str) -> Iterator[Problem]:
    try:
        json.loads(content, parse_constant=_refuse, parse_int=float)
    except json.JSONDecodeError as error:
        yield Problem(error.lineno, error.colno, error.msg)
    except _NotJson as error:
        at = max(content.find(str(error)), 0)
        line = content.count("\n", 0, at) + 1
        yield Problem(line, at - content.rfind("\n", 0, at), f"`{error}` is no JSON")
    except RecursionError:
        yield Problem(1, 1, "this is nested too deeply to be read")


def _svg(content: str) -> Iterator[Problem]:
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        root = fromstring(content.encode("utf-8", "replace"), forbid_dtd=True)
    except ParseError as error:
        line, column = error.position
        yield Problem(line, column + 1, str(error).split(":", 1)[0])
    except DefusedXmlException:
        yield Problem(1, 1, "document types and entities are refused in SVG")
    except (ValueError, LookupError) as error:
        yield Problem(1, 1, f"not XML in UTF-8: {error}")
    else:
        if root.tag not in {"svg", "{http://www.w3.org/2000/svg}svg"}:
            yield Problem(1, 1, "the outermost element is not `<svg>`")
        elif root.tag == "svg":
            yield Problem(1, 1, '`<svg>` lacks xmlns="http://www.w3.org/2000/svg"')


def _markdown(content: str) -> Iterator[Problem]:
    from markdown_it import MarkdownIt

    lines = content.split("\n")
    for token in MarkdownIt("commonmark").disable("inline").parse(content):
        if token.type != "fence" or token.map is None:
            continue
        first, after = token.map
        last = lines[after - 1].strip() if 0 < after <= len(lines) else ""
        if after - first < 2 or not last.startswith(token.markup) or last.strip(token.markup[0]):
            yield Problem(first + 1, 1, f"the fence {token.markup} is never closed")


def _diff(content: str) -> Iterator[Problem]:
    try:
        changes = diffs.read(content)
    except diffs.DiffInvalid as error:
        yield Problem(error.line, 1, error.message)
    else:
        if not changes:
            yield Problem(1, 1, "there is no change in this")


def _filled(kind: str, checked: Callable[[str], Iterator[Problem]]) -> Callable[[str], Iterator[Problem]]:
    def told(content: str) -> Iterator[Problem]:
        if kind in _NEVER_EMPTY and not content.strip():
            yield Problem(1, 1, "the file is empty")
        else:
            yield from checked(content)

    return told


CHECKS: Mapping[str, Callable[[str], Iterator[Problem]]] = {
    kind: _filled(kind, checked)
    for kind, checked in {
        "tsx": _script("tsx"),
        "jsx": _script("jsx"),
        "ts": _script("ts"),
        "js": _script("js"),
        "css": _css,
        "html": _html,
        "python": _python,
        "json": _json,
        "svg": _svg,
        "markdown": _markdown,
        "diff": _diff,
    }.items()
}
"""What reads a file of each kind. Of `text` there is nothing to say."""
