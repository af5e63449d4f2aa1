"""Syntax trees of the languages of browsers, made by their tree-sitter grammars.

Every walk here is a loop, not a recursion: trees of what models write may be deep. A parse that recovers from mistake
after mistake is given up by count, not by clock, so that the same text always has the same outcome.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tree_sitter import Language, Node, Tree

_GRAMMARS = {
    "tsx": ("tree_sitter_typescript", "language_tsx"),
    "ts": ("tree_sitter_typescript", "language_typescript"),
    "jsx": ("tree_sitter_javascript", "language"),
    "js": ("tree_sitter_javascript", "language"),
    "css": ("tree_sitter_css", "language"),
    "html": ("tree_sitter_html", "language"),
}


_OPEN = 500
_LEAST = 10_000
_PART = 65536


@cache
def _language(kind: str) -> Language:
    from tree_sitter import Language

    module, function = _GRAMMARS[kind]
    return Language(getattr(import_module(module), function)())


def parse(kind: str, content: bytes) -> Tree | None:
    """The tree of `content` (UTF-8) in one of the six grammars; mistakes are nodes of it. Blocks.

    None when it cannot be read within the bounds of this module: a thing of brackets, not a file.
    """
    from tree_sitter import Parser

    # Each `<` may begin an element, a list of types or a comparison. Where many are left open the parser keeps all
    # readings at once, and its memory grows with their square: 20,000 of them took more than 6 GB.
    if kind not in {"css", "html"} and content.count(b"<") - content.count(b">") > _OPEN:
        return None
    asked = 0
    most = _LEAST + len(content) // 4

    def over(_at: int, _mistaken: bool) -> bool:
        nonlocal asked
        asked += 1
        return asked > most

    def part(at: int, _point: object) -> bytes:
        return content[at : at + _PART]

    try:
        return Parser(_language(kind)).parse(part, progress_callback=over)
    except ValueError:
        return None


def walk(root: Node) -> Iterator[Node]:
    """Every node below and including `root`, parents first, in the order of the text."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(node.children))


def faults(root: Node) -> Iterator[Node]:
    """The nodes where the parser found something else than it expected, or nothing; not what is inside of those."""
    stack = [root]
    while stack:
        node = stack.pop()
        if node.is_error or node.is_missing:
            yield node
        elif node.has_error:
            stack.extend(reversed(node.children))


def words(node: Node | None) -> str:
    """The text of a node; empty for none."""
    return (node.text or b"").decode(errors="replace") if node is not None else ""
