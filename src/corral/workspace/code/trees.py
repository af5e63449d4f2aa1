"""Syntax trees of the languages of browsers, made by their tree-sitter grammars.

Every walk here is a loop, not a recursion: trees of what models write may be deep. What is nested as no code is, or
keeps the parser recovering for longer than any code does, is given up.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from time import thread_time
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


_DEEPEST = 300
"""Brackets within brackets: code that people read has tens."""
_SECONDS = 1.0
"""Of the processor, once and for each megabyte: code takes a quarter of a second for that, mistakes may take hours."""
_PART = 65536
_BRACKETS = re.compile(rb"[(\[{]|[)\]};]|=>|</|/>|<|>")
_OPENING = frozenset({b"(", b"[", b"{"})
_CLOSING = frozenset({b")", b"]", b"}"})
_ENDING = frozenset({b"</", b"/>"})
_AFTER = frozenset({b">", b"/>"})


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

    if kind == "html":
        deep = content.count(b"<") - content.count(b">") > _DEEPEST
    else:
        deep = content.count(b"/*") - content.count(b"*/") > _DEEPEST or (kind != "css" and _deep(content))
    if deep:
        return None
    end = thread_time() + _SECONDS + len(content) * _SECONDS / 1024**2

    def over(_at: int, _mistaken: bool) -> bool:
        return thread_time() > end

    def part(at: int, _point: object) -> bytes:
        return content[at : at + _PART]

    try:
        return Parser(_language(kind)).parse(part, progress_callback=over)
    except ValueError:
        return None


def _deep(content: bytes) -> bool:
    """Whether brackets, tags and what may be lists of types are nested as in no code.

    Where many are open the parser recovers by trying what each may have been, and its memory grows with their square:
    of 20,000 times `a<b,` it took more than 6 GB.
    """
    angles = [0]
    tags = 0
    for match in _BRACKETS.finditer(content):
        mark = match[0]
        if mark in _OPENING:
            angles.append(0)
        elif mark in _CLOSING:
            if len(angles) > 1:
                angles.pop()
            angles[-1] = 0
        elif mark == b";":
            angles[-1] = 0
        elif mark == b"<":
            angles[-1] += 1
            # `f<T>` is a list of types; `<T>` after anything else is an element.
            tags += not content[match.start() - 1 : match.start()].isalnum()
        else:
            tags = max(tags - (mark in _ENDING), 0)
            angles[-1] = max(angles[-1] - (mark in _AFTER), 0)
        if max(len(angles), angles[-1], tags / 2) > _DEEPEST:
            return True
    return False


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
