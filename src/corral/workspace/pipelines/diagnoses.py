"""What the words of YAML's and of Jinja's own parsers mean to whoever wrote a pipeline. Pure.

A parser says which of its rules came to an end; a person wants to know which sign is missing. What is not known here is
told in the parser's words.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from corral.errors import nearest

if TYPE_CHECKING:
    from collections.abc import Callable

QUOTES: Final = "A text with {{ }} or a colon in it needs quotes around it."
_TAGS: Final = (
    "if",
    "elif",
    "else",
    "endif",
    "for",
    "endfor",
    "set",
    "endset",
    "macro",
    "endmacro",
    "filter",
    "raw",
    "with",
)


class Diagnosis(NamedTuple):
    """What is wrong, what to type next, and where it is better pointed at: where the parser's mark or context is."""

    message: str
    hint: str = ""
    at_context: bool = False


def of_yaml(problem: str, line: str, column: int, above: str = "") -> Diagnosis:
    """What is wrong with the YAML: the parser points into `line`, at `column` from 0, and `above` is the one before."""
    before = line[:column]
    for pattern, told in _YAML:
        if (found := pattern.search(problem)) is not None:
            return told(found)
    if problem.startswith("mapping values are not allowed"):
        if ": " in before:
            return Diagnosis("A colon stands within a text.", QUOTES)
        if above.strip() and ":" not in above:
            return Diagnosis("The line above has no colon.", "Write `name: value`.")
        return Diagnosis("The line is indented like a part of the text above it.", "Begin it below the key above.")
    if problem.startswith("expected <block end>") and "<scalar>" not in problem:
        return Diagnosis("The line is indented unlike those it belongs to.", "Begin it below the key above.")
    if problem.startswith("expected <block end>"):
        if "}}" in before:
            return Diagnosis(
                "A text that begins with {{ needs quotes.", "Put them around all of it, or write it below |."
            )
        return Diagnosis("There is more after the text in quotes.", "Put quotes around all of it.")
    return Diagnosis(f"It is not YAML: {problem}.", QUOTES if "{" in line or ": " in line else "")


_YAML: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Diagnosis]], ...]] = (
    (
        re.compile("^found unexpected end of stream"),
        lambda _: Diagnosis("A quote is never closed.", "Close it with the sign that it begins with.", at_context=True),
    ),
    (
        re.compile("^could not find expected ':'"),
        lambda _: Diagnosis(
            "The line is no `name: value`.", "Write a colon after the name; a text of several lines stands below `|`.",
            at_context=True,
        ),
    ),
    (
        re.compile(r"^expected ',' or '([\]}])', but got '<stream end>'"),
        lambda found: Diagnosis(
            f"What begins with {'[' if found[1] == ']' else '{'} is never closed.", f"Write {found[1]} at its end.",
            at_context=True,
        ),
    ),
    (
        re.compile(r"^expected ',' or '([\]}])'"),
        lambda found: Diagnosis(
            f"A comma or {found[1]} is missing.", "A text with a sign of : , [ ] { } in it needs quotes around it."
        ),
    ),
    (
        re.compile(r"^found character '(.+)' that cannot start any token"),
        lambda found: Diagnosis(f"A text cannot begin with {found[1]} there.", "Put quotes around it."),
    ),
    (
        re.compile("^expected alphabetic or numeric character"),
        lambda _: Diagnosis("A text cannot begin with * or & there.", "Put quotes around it."),
    ),
    (
        re.compile("^found undefined alias"),
        lambda _: Diagnosis("What begins with * stands for an anchor, and there is none.", "Put quotes around a text."),
    ),
)  # fmt: skip


def of_template(said: str, *, is_expression: bool = False) -> Diagnosis:
    """What is wrong with a template, by what Jinja says of it."""
    for pattern, told in _JINJA:
        if (found := pattern.search(said)) is not None:
            return told(found)
    if is_expression and said.startswith("unexpected end of template"):
        return Diagnosis("`{{` is never closed", "Write }} at its end, or no braces.")
    return Diagnosis(said)


def _unknown_tag(found: re.Match[str]) -> Diagnosis:
    tag, opened = found[1], found[2]
    if opened:
        return Diagnosis(f"{tag!r} closes nothing here: `{{% {opened} %}}` is open", f"Write {{% end{opened} %}}.")
    if tag.startswith("end"):
        return Diagnosis(f"{tag!r} closes nothing", f"Open it before with {{% {tag[3:]} … %}}, or leave it out.")
    close = nearest(tag, _TAGS, 1)
    hint = f"Did you mean {close[0]!r}?" if close else "There are: if, for, set, macro, filter, raw, with."
    return Diagnosis(f"there is no tag {tag!r}", hint)


def _stray(found: re.Match[str]) -> Diagnosis:
    sign = found[1]
    if sign in {"'", '"'}:
        return Diagnosis("a quote is never closed")
    hint = {"&": "Write `and`.", "!": "Write `not`, or `!=`.", "?": "Write `a if b else c`."}.get(sign, "")
    return Diagnosis(f"{sign!r} means nothing here", hint)


def _not_closed(found: re.Match[str]) -> Diagnosis:
    if found[1] == "print statement":
        return Diagnosis(
            f"`{{{{` is not closed before {found[2]!r}", "Write }} before it, or an operator such as | or ~."
        )
    if found[2] == "=":
        return Diagnosis("'=' compares nothing", "Write ==.")
    return Diagnosis(f"`{{%` is not closed before {found[2]!r}", "Write %} before it, or an operator such as `and`.")


_JINJA: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Diagnosis]], ...]] = (
    (
        re.compile(r"^Unexpected end of template.*needs to be closed is '(\w+)'"),
        lambda found: Diagnosis(f"`{{% {found[1]} %}}` is never closed", f"Write {{% end{found[1]} %}} after it."),
    ),
    (re.compile(r"^Encountered unknown tag '(\w+)'(?:.*needs to be closed is '(\w+)')?"), _unknown_tag),
    (re.compile(r"^expected token 'end of (print statement|statement block)', got '(.+)'"), _not_closed),
    (
        re.compile("^unexpected end of template, expected 'end of print statement'"),
        lambda _: Diagnosis("`{{` is never closed", "Write }} at its end."),
    ),
    (
        re.compile("^unexpected end of template, expected 'end of statement block'"),
        lambda _: Diagnosis("`{%` is never closed", "Write %} at its end."),
    ),
    (re.compile("^Missing end of comment tag"), lambda _: Diagnosis("`{#` is never closed", "Write #} at its end.")),
    (
        re.compile("^unexpected '}'"),
        lambda _: Diagnosis("a single } closes nothing", "{{ is closed by }}, and {% by %}."),
    ),
    (
        re.compile("^[Uu]nexpected 'end of (?:print|statement|template)|^Expected an expression, got 'end of"),
        lambda _: Diagnosis("the expression ends too early"),
    ),
    (re.compile("^unexpected char ['\"](.)['\"]"), _stray),
    (re.compile("^expected name or number"), lambda _: Diagnosis("a name is missing after the dot")),
)


UNCLOSED: Final = re.compile(r"needs to be closed is '(\w+)'")
"""Finds in Jinja's words which block nothing closes."""
