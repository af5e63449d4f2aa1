"""A pipeline's YAML read, checked as a whole before anything runs, and its inputs bound. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from corral.errors import InvalidRequest, PipelineInvalid, nearest
from corral.workspace.pipelines.checking import check, knows_models
from corral.workspace.pipelines.located import Broken, Located, compose
from corral.workspace.pipelines.plan import (
    Checked,
    Definition,
    Input,
    InputType,
    Issue,
    Output,
    OutputKind,
    StepPlan,
    Words,
)
from corral.workspace.pipelines.reading import Reader
from corral.workspace.pipelines.shapes import fits
from corral.workspace.soundness import check_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = (
    "Checked",
    "Definition",
    "Input",
    "InputType",
    "Issue",
    "Output",
    "OutputKind",
    "StepPlan",
    "Words",
    "bind",
    "inspect",
    "knows_models",
    "read",
    "typed",
)

_MOST_INPUT: Final = 8 << 20
_TOLD: Final = 20
_ARTICLES: Final = {
    InputType.STRING: "a text",
    InputType.INTEGER: "a whole number",
    InputType.NUMBER: "a number",
    InputType.BOOLEAN: "true or false",
    InputType.LIST: "a list",
    InputType.OBJECT: "an object",
}


def read(source: str) -> Definition:
    """The pipeline that a source says. Takes some milliseconds for each page: call it beside a loop.

    Raises:
        PipelineInvalid: it cannot run as it is written; lists what is wrong, each with its line.
    """
    checked = inspect(source)
    if checked.definition is None:
        raise invalid(checked.issues)
    return checked.definition


def inspect(source: str, *, known: Callable[[str], str | None] | None = None) -> Checked:
    """What is wrong with a source, all of it, in the order of its lines; and what it says, where nothing is.

    `known` is asked of each model that is named: None when it can be asked by that name, else why it cannot, as a
    sentence. Without it models are not looked at. Takes time as `read`.
    """
    located = Located(source)
    try:
        node = compose(source)
    except Broken as error:
        return Checked(None, (error.issue,))
    definition = check(Reader(located).pipeline(node), located, known)
    issues = tuple(sorted(dict.fromkeys(located.issues), key=lambda issue: (issue.line, issue.column)))
    return Checked(None if issues else definition, issues)


def invalid(issues: tuple[Issue, ...]) -> PipelineInvalid:
    """The error that lists the issues; of very many the first."""
    more = len(issues) - _TOLD
    lines = [f"Line {issue.line}, column {issue.column}: {issue.message} {issue.hint}".rstrip() for issue in issues]
    told = "\n".join([*lines[:_TOLD], *([f"… and {more} more."] if more > 0 else [])])
    return PipelineInvalid(told, param="source")


def bind(definition: Definition, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a run: every one that the pipeline has, what is not given being its default or None.

    Raises:
        InvalidRequest: one is missing, unknown, of another type, not among those it may be, or holds what cannot be
            kept; or all are too much.
    """
    for name in inputs:
        if name not in definition.inputs:
            close = nearest(str(name), definition.inputs, 1)
            there = ", ".join(definition.inputs) or "none"
            hint = f"Did you mean {close[0]!r}?" if close else f"There are: {there}."
            raise InvalidRequest(f"The pipeline {definition.name!r} has no input {name!r:.80}.", hint, param="inputs")
    bound = {name: _bound(one, inputs.get(name)) for name, one in definition.inputs.items()}
    size = len(orjson.dumps(bound))
    if size > _MOST_INPUT:
        raise InvalidRequest(
            f"The inputs are over {_MOST_INPUT >> 20} MiB.", "Put files into contexts.", param="inputs"
        )
    return bound


def _bound(one: Input, value: Any) -> Any:
    if value is None:
        if one.required:
            hint = f"It is {_ARTICLES[one.type]}. {one.description}".strip()
            raise InvalidRequest(f"The input {one.name!r} is not given.", hint, param=one.name)
        return one.default
    value = check_json(value, one.name)
    if not fits(value, one.type):
        raise InvalidRequest(
            f"The input {one.name!r} is {value!r:.80}, and must be {_ARTICLES[one.type]}.", param=one.name
        )
    if one.enum and value not in one.enum:
        known = ", ".join(map(str, one.enum))
        raise InvalidRequest(f"The input {one.name!r} is {value!r:.80}.", f"It may be: {known}.", param=one.name)
    return value


def typed(definition: Definition, texts: Mapping[str, str]) -> dict[str, Any]:
    """Inputs as somebody typed them, for `bind`: numbers, true and false by the input's type, a list or object as JSON.

    A text for a list that is no JSON is a list of what stands between its commas.

    Raises:
        InvalidRequest: one cannot be read as its type.
    """
    return {
        name: _typed(definition.inputs[name], text) if name in definition.inputs else text
        for name, text in texts.items()
    }


def _typed(one: Input, text: str) -> Any:
    word = text.strip()
    if one.type is InputType.STRING:
        return text
    if one.type is InputType.BOOLEAN and word.lower() in {"true", "yes", "on", "false", "no", "off"}:
        return word.lower() in {"true", "yes", "on"}
    try:
        value = orjson.loads(word)
    except orjson.JSONDecodeError:
        value = [part.strip() for part in word.split(",")] if one.type is InputType.LIST and word else None
    if value is None or not fits(value, one.type):
        raise InvalidRequest(
            f"The input {one.name!r} is {text!r:.80}, and must be {_ARTICLES[one.type]}.", param=one.name
        )
    return value
