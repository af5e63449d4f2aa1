"""Values that are written out in code: read, never evaluated."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from corral.workspace.code.trees import words

if TYPE_CHECKING:
    from tree_sitter import Node

_DEEPEST = 20
_SIMPLE = {"true": True, "false": False, "null": None, "undefined": None}
_ESCAPE = re.compile(r"\\(?:u\{([0-9a-fA-F]{1,6})\}|u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(\r?\n)|(.))", re.DOTALL)
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "0": "\0"}


class NotLiteral(ValueError):
    """What was given is computed, not written out."""


def value(node: Node, depth: int = 0) -> Any:
    """The value of a literal of JavaScript, as JSON would have it; `undefined` and `null` are None.

    Raises:
        NotLiteral: it has to be computed, or is nested too deeply.
    """
    if depth > _DEEPEST:
        raise NotLiteral(node.type)
    if node.type in _SIMPLE or words(node) == "undefined":
        return _SIMPLE[words(node)]
    if node.type == "number":
        return _number(words(node))
    if node.type in {"string", "template_string"}:
        return text(node)
    inner = [child for child in node.named_children if child.type != "comment"]
    if node.type in {"parenthesized_expression", "as_expression", "satisfies_expression"} and inner:
        return value(inner[0], depth + 1)
    if node.type == "unary_expression":
        return _signed(node, depth)
    if node.type == "array":
        return [value(child, depth + 1) for child in inner]
    if node.type == "object":
        return dict(_pair(child, depth) for child in inner)
    raise NotLiteral(node.type)


def text(node: Node) -> str:
    """The text of a string, its escapes resolved.

    Raises:
        NotLiteral: it has parts that are computed.
    """
    if any(child.type == "template_substitution" for child in node.children):
        raise NotLiteral(node.type)
    return _ESCAPE.sub(_resolved, words(node)[1:-1])


def key(node: Node) -> str:
    """The name that a key of an object or a type has; empty for a computed one."""
    if node.type == "computed_property_name":
        return ""
    return text(node) if node.type == "string" else words(node)


def _resolved(match: re.Match[str]) -> str:
    code = match[1] or match[2] or match[3]
    if code:
        number = int(code, 16)
        return chr(number) if number < 0x110000 and not 0xD800 <= number < 0xE000 else "\ufffd"
    return "" if match[4] else _LETTERS.get(match[5], match[5])


def _number(word: str) -> int | float:
    word = word.replace("_", "").rstrip("n")
    try:
        return int(word, 0) if re.fullmatch(r"0[xXoObB]\w+", word) else json.loads(word)
    except ValueError:
        pass
    try:
        return float(word)
    except ValueError as error:
        raise NotLiteral("number") from error


def _signed(node: Node, depth: int) -> int | float:
    argument, sign = node.child_by_field_name("argument"), words(node.child_by_field_name("operator"))
    if argument is None or argument.type != "number" or sign not in {"-", "+"}:
        raise NotLiteral(node.type)
    number: int | float = value(argument, depth + 1)
    return -number if sign == "-" else number


def _pair(node: Node, depth: int) -> tuple[str, Any]:
    name, given = node.child_by_field_name("key"), node.child_by_field_name("value")
    if node.type != "pair" or name is None or given is None:
        raise NotLiteral(node.type)
    return key(name), value(given, depth + 1)
