"""What a template or expression names and does, found without running it. Pure.

Nothing is compiled here: Jinja reckons with constants while it compiles, and a constant may be a bomb.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from jinja2 import TemplateSyntaxError, nodes
from jinja2.parser import Parser

from corral.errors import nearest
from corral.workspace.pipelines.diagnoses import UNCLOSED, of_template
from corral.workspace.pipelines.sandbox import GLOBALS, LONGEST_TEMPLATE, Sandbox, said

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOTS: Final = ("inputs", "context", "steps", "parts", "item", "index", "run")
"""What a template is given, as far as its step has it."""
_SHADOWED: Final = frozenset({"item", "index"})
"""Roots that a loop of a template's own may use for its variables."""
_OF_JINJA: Final = frozenset({"loop", "varargs", "kwargs", "caller", "self"})
_PLAIN: Final = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Getattr, nodes.Getitem, nodes.Const),
    *(nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Test, nodes.CondExpr, nodes.If),
    *(nodes.Filter, nodes.List, nodes.Tuple),
)
_PLAIN_FILTERS: Final = frozenset({"default", "d", "tojson", "length", "count"})
_PLAIN_TESTS: Final = frozenset({"defined", "undefined", "none", "string", "number", "mapping", "boolean", "in"})
_PLAIN_NODES: Final = 300
_KEPT: Final = {"steps": 3, "inputs": 2, "context": 2, "run": 2}
"""How much of a path by each root cuts what a template is given down to what it names; of others the root."""
_ENVIRONMENT: Final = Sandbox()
_LONE: Final = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends, nodes.Block)


@dataclass(frozen=True, slots=True)
class Reference:
    """A path from one of `ROOTS`, as far as it is written out: `("steps", "analysis", "value", 0)`."""

    path: tuple[str | int, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a template cannot be used. `word` is what stands there in its text, where that is known."""

    message: str
    line: int = 1
    word: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Syntax:
    """What was found. `plain`: it does no more work than it has letters, and what it is given has.

    `lone` is the path that the whole expression is, where it is nothing else; `constant` holds its value where nothing
    is named in it and nothing is done.
    """

    references: tuple[Reference, ...] = ()
    problems: tuple[Problem, ...] = ()
    plain: bool = False
    lone: tuple[str | int, ...] | None = None
    constant: tuple[Any, ...] = ()

    def picked(self, scope: Mapping[str, Any]) -> dict[str, Any]:
        """What the template names of `scope`, and little else."""
        found: dict[str, Any] = {}
        paths = {reference.path[: _KEPT.get(str(reference.path[0]), 1)] for reference in self.references}
        for path in sorted(paths, key=len):
            _pick(found, scope, path)
        return found


def _pick(into: dict[str, Any], scope: Mapping[str, Any], path: tuple[str | int, ...]) -> None:
    for at, name in enumerate(path):
        if not isinstance(name, str) or name not in scope:
            return
        value = scope[name]
        if name in into and into[name] is value:
            return  # all of it is there already
        if at == len(path) - 1 or not isinstance(value, Mapping) or not isinstance(path[at + 1], str):
            into[name] = value
            return
        into = into.setdefault(name, {})
        scope = value


def expression_of(text: str) -> str:
    """An expression without the braces that may stand around it."""
    inner = text.strip()
    if inner.startswith("{{") and inner.endswith("}}") and len(inner) > 4:
        inner = inner[2:-2].removeprefix("-").removesuffix("-").strip()
    return inner


@lru_cache(maxsize=128)
def parse(source: str, *, is_expression: bool = False) -> Syntax:
    """What a template, or an expression without braces, names and does; with every problem that can be seen."""
    if len(source) > LONGEST_TEMPLATE:
        return Syntax(problems=(Problem(f"it is longer than {LONGEST_TEMPLATE:,} characters", hint="Use a file."),))
    try:
        tree = _expression_tree(source) if is_expression else _ENVIRONMENT.parse(source)
    except TemplateSyntaxError as error:
        return Syntax(problems=(_misspelt(error, source, is_expression=is_expression),))
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        return Syntax(problems=(Problem(said(error)),))
    try:
        return _studied(tree)
    except RecursionError as error:
        return Syntax(problems=(Problem(said(error)),))


def _expression_tree(source: str) -> nodes.Template:
    parser = Parser(_ENVIRONMENT, source, state="variable")
    expression = parser.parse_expression()
    if not parser.stream.eos:
        parser.fail("there is something after the expression", parser.stream.current.lineno)
    return nodes.Template([nodes.Output([expression], lineno=1)], lineno=1)


def _misspelt(error: TemplateSyntaxError, source: str, *, is_expression: bool) -> Problem:
    """What Jinja means; of a block that nothing closes where it is opened last, as far as that can be told."""
    line, said_so = error.lineno, str(error.message or "it is no template").rstrip(".")
    lines = source.splitlines()
    if (tag := UNCLOSED.search(said_so)) is not None and said_so.startswith("Unexpected end"):
        opening = re.compile(r"\{%[-+]?\s*" + re.escape(tag[1]) + r"\b")
        line = max((number for number, text in enumerate(lines, 1) if opening.search(text)), default=line)
    at = lines[line - 1] if line <= len(lines) else ""
    word = next((sign for sign in ("{%", "{{", "{#") if sign in at), at.strip())
    found = of_template(said_so, is_expression=is_expression)
    return Problem(found.message, line, word, found.hint)


def _studied(tree: nodes.Template) -> Syntax:
    own = {name.name for name in tree.find_all(nodes.Name) if name.ctx in {"store", "param"}}
    own |= {macro.name for macro in tree.find_all(nodes.Macro)}
    found = list(_references(tree, own))
    problems = [*_refused(tree, own), *_unnamed(found, own)]
    lone, constant = _whole(tree)
    return Syntax(
        tuple(found_one for found_one in found if found_one.path[0] in ROOTS),
        tuple(sorted(problems, key=lambda problem: problem.line)),
        _is_plain(tree),
        lone,
        constant,
    )


def _references(node: nodes.Node, own: set[str]) -> Iterator[Reference]:
    """The paths in a tree, longest first where one is within another; variables of its own are none."""
    if isinstance(node, nodes.Getattr | nodes.Getitem | nodes.Name):
        path, within = _path(node)
        if path is not None and not (path[0] in own and path[0] in {*_SHADOWED, *own} - (set(ROOTS) - _SHADOWED)):
            yield Reference(path, node.lineno)
        for one in within:
            yield from _references(one, own)
        return
    for child in node.iter_child_nodes():
        yield from _references(child, own)


def _path(node: nodes.Node) -> tuple[tuple[str | int, ...] | None, list[nodes.Node]]:
    """The path that begins at a name that is read, and what else stands in it: subscripts, or what is no name."""
    steps: list[str | int] = []
    within: list[nodes.Node] = []
    while not isinstance(node, nodes.Name):
        if isinstance(node, nodes.Getattr):
            steps.append(node.attr)
        elif isinstance(node, nodes.Getitem):
            if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str | int):
                steps.append(node.arg.value)
            else:
                within.append(node.arg)
                steps.clear()
        else:
            return None, [*within, node]
        node = node.node
    if node.ctx != "load":
        return None, within
    return (node.name, *reversed(steps)), within


def _refused(tree: nodes.Template, own: set[str]) -> Iterator[Problem]:
    for lone in tree.find_all(_LONE):
        yield Problem("a template stands alone: it takes no other in", lone.lineno, "{%", "Write its text out.")
    for named in tree.find_all((nodes.Getattr, nodes.Getitem)):
        word = named.attr if isinstance(named, nodes.Getattr) else getattr(getattr(named, "arg", None), "value", None)
        if isinstance(word, str) and word.startswith("_"):
            yield Problem(f"{word!r} cannot be reached: templates see values only", named.lineno, word)
    for kind, known, what in ((nodes.Filter, _ENVIRONMENT.filters, "filter"), (nodes.Test, _ENVIRONMENT.tests, "test")):
        for used in tree.find_all(kind):
            if used.name not in known:
                yield Problem(f"there is no {what} {used.name!r}", used.lineno, used.name, meant(used.name, known))
    for name in sorted(own & (set(ROOTS) - _SHADOWED)):
        line = next(one.lineno for one in tree.find_all(nodes.Name) if one.name == name and one.ctx != "load")
        yield Problem(f"{name!r} is what the template is given, and cannot be set", line, name, "Use another name.")


def _unnamed(found: list[Reference], own: set[str]) -> Iterator[Problem]:
    known = {*ROOTS, *GLOBALS, *_OF_JINJA, *own}
    for reference in found:
        root = str(reference.path[0])
        if root not in known:
            hint = meant(root, known - _OF_JINJA)
            yield Problem(f"{root!r} is not defined", reference.line, root, hint or f"There are: {', '.join(ROOTS)}.")


def meant(word: str, known: Any) -> str:
    """`Did you mean …?` with the nearest of the known words; empty when none is near."""
    close = nearest(word, known, 1)
    return f"Did you mean {close[0]!r}?" if close else ""


def _is_plain(tree: nodes.Template) -> bool:
    """Whether every part of a tree is looked at once at most, and none makes much of little."""
    for count, node in enumerate(tree.find_all(nodes.Node), 1):
        sound = isinstance(node, _PLAIN) and count <= _PLAIN_NODES
        if isinstance(node, nodes.Filter):
            sound = sound and node.name in _PLAIN_FILTERS and next(node.find_all(nodes.Filter), None) is None
        if isinstance(node, nodes.Test):
            sound = sound and node.name in _PLAIN_TESTS
        if isinstance(node, nodes.Name) and node.name not in ROOTS:
            sound = False
        if not sound:
            return False
    return True


def _whole(tree: nodes.Template) -> tuple[tuple[str | int, ...] | None, tuple[Any, ...]]:
    """The path, or the constant, that a tree is as a whole."""
    if len(tree.body) != 1 or not isinstance(tree.body[0], nodes.Output) or len(tree.body[0].nodes) != 1:
        return None, ()
    only = tree.body[0].nodes[0]
    if isinstance(only, nodes.Const):
        return None, (only.value,)
    if isinstance(only, nodes.Getattr | nodes.Getitem | nodes.Name):
        path, within = _path(only)
        return (path if not within else None), ()
    return None, ()
