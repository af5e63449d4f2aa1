"""Go's text/template, parsed as far as chat templates use it. Pure.

    text {{ pipeline }} {{- if … }} … {{ else if … }} … {{ end }} {{ range $i, $m := .Messages }} … {{ with … }} …

`{{-` and `-}}` take the white space beside them away. A pipeline is a call written without commas (`eq .Role "user"`);
`a | f b` is `f b a`. Everything else of the language is refused by name: `Untranslatable`.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_TEXT = 128 << 10
_DEEPEST = 40
_SPACE = " \t\r\n"
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)|(?P<comment>/\*.*?\*/)|(?P<string>"(?:\\.|[^"\\\n])*"|`[^`]*`)|(?P<number>-?\d+(?:\.\d+)?)
    |(?P<variable>\$\w*)|(?P<field>\.[A-Za-z_]\w*)|(?P<dot>\.)|(?P<word>[A-Za-z_]\w*)|(?P<mark>:=|[=|(),])""",
    re.ASCII | re.VERBOSE | re.DOTALL,
)


class Untranslatable(Exception):
    """The template says something that has no counterpart; the message says what."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A text, a number, true, false or nil."""

    value: str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Variable:
    """`$name`; the empty name is `$`, the data the template was given."""

    name: str


@dataclass(frozen=True, slots=True)
class Dot:
    """`.`."""


@dataclass(frozen=True, slots=True)
class Field:
    """`base.Name`."""

    base: Expression
    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """`function arguments…`."""

    function: str
    arguments: tuple[Expression, ...]


Expression: TypeAlias = Literal | Variable | Dot | Field | Call


@dataclass(frozen=True, slots=True)
class Text:
    """What stands between actions."""

    text: str


@dataclass(frozen=True, slots=True)
class Print:
    """`{{ value }}`."""

    value: Expression


@dataclass(frozen=True, slots=True)
class Assign:
    """`{{ $name := value }}`, which declares, or `{{ $name = value }}`."""

    name: str
    value: Expression
    declares: bool


@dataclass(frozen=True, slots=True)
class Block:
    """`{{ kind names := value }} body {{ else }} otherwise {{ end }}`, the kind being if, range or with."""

    kind: str
    names: tuple[str, ...]
    value: Expression
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Jump:
    """`{{ break }}` or `{{ continue }}`."""

    word: str


Node: TypeAlias = Text | Print | Assign | Block | Jump


def parse(text: str) -> tuple[Node, ...]:
    """The template as a tree.

    Raises:
        Untranslatable: it is none, or uses what is not understood here.
    """
    if len(text) > MOST_TEXT:
        raise Untranslatable(f"it is over {MOST_TEXT >> 10} KiB long")
    reader = _Reader(list(_pieces(text)))
    nodes, closer = reader.nodes(0)
    if closer is not None:
        raise Untranslatable("it has an {{ end }} or {{ else }} too many")
    return nodes


def walk(node: object) -> Iterator[object]:
    """The node or expression and everything in it, in the order in which it is written."""
    yield node
    if isinstance(node, tuple):
        for item in node:
            yield from walk(item)
    elif isinstance(node, Field | Call | Print | Assign | Block):
        for item in fields(node):
            value = getattr(node, item.name)
            if not isinstance(value, str | bool):
                yield from walk(value)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    glued: bool = False
    """Nothing stands between it and the token before."""


def _pieces(text: str) -> Iterator[str | list[_Token]]:
    """Texts, trimmed as the actions beside them say, and the tokens of actions."""
    at, trims = 0, False
    while True:
        begin = text.find("{{", at)
        plain = text[at:] if begin < 0 else text[at:begin]
        plain = plain.lstrip(_SPACE) if trims else plain
        if begin < 0:
            yield plain
            return
        at = begin + 2
        if text.startswith("-", at) and text[at + 1 : at + 2] in tuple(_SPACE):
            plain = plain.rstrip(_SPACE)
            at += 1
        yield plain
        tokens, at, trims = _action(text, at)
        yield tokens


def _action(text: str, at: int) -> tuple[list[_Token], int, bool]:
    """The tokens of the action that begins at `at`, where it ends, and whether it trims what follows."""
    tokens: list[_Token] = []
    glued = False
    while True:
        for end, trims in (("}}", False), ("-}}", True)):
            if text.startswith(end, at):
                return tokens, at + len(end), trims
        match = _TOKEN.match(text, at)
        if match is None:
            raise Untranslatable(f"it cannot be read from {text[at : at + 20]!r} on")
        at = match.end()
        if match.lastgroup in {"space", "comment"}:
            glued = False
            continue
        tokens.append(_Token(str(match.lastgroup), match[0], glued))
        glued = True


@dataclass
class _Reader:
    pieces: list[str | list[_Token]]
    at: int = field(default=0)

    def nodes(self, depth: int) -> tuple[tuple[Node, ...], list[_Token] | None]:
        """What comes until the block ends, and the action that ends it; None at the end of the text."""
        if depth > _DEEPEST:
            raise Untranslatable("its blocks are nested too deeply")
        found: list[Node] = []
        while self.at < len(self.pieces):
            piece = self.pieces[self.at]
            self.at += 1
            if isinstance(piece, str):
                found += [Text(piece)] if piece else []
                continue
            word = piece[0].text if piece and piece[0].kind == "word" else ""
            if word in {"end", "else"}:
                return tuple(found), piece
            if word in {"if", "range", "with"}:
                found.append(self.block(word, piece[1:], depth))
            elif word in {"break", "continue"} and len(piece) == 1:
                found.append(Jump(word))
            elif word in {"define", "template", "block", "break", "continue"}:
                raise Untranslatable(f"it uses {{{{ {word} }}}}")
            elif piece:
                found.append(_statement(piece))
        return tuple(found), None

    def block(self, kind: str, head: list[_Token], depth: int) -> Block:
        names, value = _head(head)
        body, closer = self.nodes(depth + 1)
        otherwise: tuple[Node, ...] = ()
        if closer is not None and closer[0].text == "else":
            rest = closer[1:]
            if rest and rest[0].text in {"if", "with"}:
                otherwise = (self.block(rest[0].text, rest[1:], depth + 1),)
                return Block(kind, names, value, body, otherwise)  # they share one {{ end }}
            otherwise, closer = self.nodes(depth + 1)
        if closer is None or closer[0].text != "end":
            raise Untranslatable(f"a {{{{ {kind} }}}} has no {{{{ end }}}}")
        return Block(kind, names, value, body, otherwise)


def _statement(tokens: list[_Token]) -> Node:
    names, value = _head(tokens)
    if not names:
        return Print(value)
    if len(names) > 1:
        raise Untranslatable("it declares two variables at once")
    return Assign(names[0], value, any(token.text == ":=" for token in tokens))


def _head(tokens: list[_Token]) -> tuple[tuple[str, ...], Expression]:
    """`$i, $m := pipeline`: the names, if any, and the pipeline."""
    signs = [number for number, token in enumerate(tokens[:4]) if token.text in {":=", "="}]
    if not signs:
        return (), _pipeline(tokens)
    names = [token for token in tokens[: signs[0]] if token.text != ","]
    if not names or any(token.kind != "variable" for token in names):
        raise Untranslatable("it sets something that is no variable")
    return tuple(token.text[1:] for token in names), _pipeline(tokens[signs[0] + 1 :])


def _pipeline(tokens: list[_Token]) -> Expression:
    parser = _Expressions(tokens)
    value = parser.pipeline(0)
    if parser.at != len(tokens):
        raise Untranslatable(f"it has a {parser.tokens[parser.at].text!r} where none can be")
    return value


@dataclass
class _Expressions:
    tokens: list[_Token]
    at: int = 0

    def pipeline(self, depth: int) -> Expression:
        value = self.command(depth, None)
        while self.peek() == "|":
            self.at += 1
            depth = self.deeper(depth)
            value = self.command(depth, value)
        return value

    def command(self, depth: int, piped: Expression | None) -> Expression:
        function = None
        token = self.tokens[self.at] if self.at < len(self.tokens) else None
        if token is not None and token.kind == "word" and token.text not in {"true", "false", "nil"}:
            function = token.text
            self.at += 1
        operands: list[Expression] = []
        while self.at < len(self.tokens) and self.peek() not in {")", "|"}:
            operands.append(self.operand(depth))
        if function is not None:
            return Call(function, (*operands, piped) if piped is not None else tuple(operands))
        if len(operands) != 1 or piped is not None:
            raise Untranslatable("an expression is no value and no call")
        return operands[0]

    def operand(self, depth: int) -> Expression:
        token = self.tokens[self.at]
        self.at += 1
        value: Expression
        if token.text == "(":
            value = self.pipeline(self.deeper(depth))
            if self.peek() != ")":
                raise Untranslatable("a parenthesis is not closed")
            self.at += 1
        elif token.kind == "field":
            value = Field(Dot(), token.text[1:])
        elif token.kind == "variable":
            value = Variable(token.text[1:])
        elif token.kind == "dot":
            return Dot()
        elif token.kind == "word" and token.text not in {"true", "false", "nil"}:
            return Call(token.text, ())
        else:
            return Literal(_literal(token))
        while self.at < len(self.tokens) and self.tokens[self.at].kind == "field" and self.tokens[self.at].glued:
            value = Field(value, self.tokens[self.at].text[1:])
            depth = self.deeper(depth)
            self.at += 1
        return value

    def deeper(self, depth: int) -> int:
        if depth >= _DEEPEST:
            raise Untranslatable("its expressions are nested too deeply")
        return depth + 1

    def peek(self) -> str:
        return self.tokens[self.at].text if self.at < len(self.tokens) else ""


def _literal(token: _Token) -> str | int | float | bool | None:
    if token.kind == "word":
        return {"true": True, "false": False, "nil": None}[token.text]
    if token.text.startswith("`"):
        return token.text[1:-1]
    try:
        value = ast.literal_eval(token.text)
    except (ValueError, SyntaxError) as error:
        raise Untranslatable(f"{token.text[:20]} cannot be read") from error
    if not isinstance(value, str | int | float):
        raise Untranslatable(f"{token.text[:20]} cannot be read")
    return value
