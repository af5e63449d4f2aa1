"""A pipeline as values: what was read from its YAML, checked, in the order of its steps. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class InputType(StrEnum):
    """What an input may be."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    LIST = "list"
    OBJECT = "object"


class OutputKind(StrEnum):
    """What a step must answer."""

    TEXT = "text"
    JSON = "json"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing that is wrong with a pipeline.

    `line` and `column` are of its source, from 1; `place` is where in its tree, such as `steps.code.prompt`.
    """

    line: int
    column: int
    place: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.message} {self.hint}".rstrip()


@dataclass(frozen=True, slots=True)
class Input:
    """What a run is given by that name; None when it is not given, need not be and has no default."""

    name: str
    type: InputType = InputType.STRING
    required: bool = True
    default: Any = None
    description: str = ""
    enum: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    """What a step must answer: its contract.

    `schema` is a JSON Schema, of JSON only; None takes any JSON. `languages` are the kinds of code that the answer must
    hold, one file at least of each (see `corral.workspace.code.languages`), `names` what those files shall be called,
    in the same order: templates, or None where the answer or the step's name says it.
    """

    kind: OutputKind = OutputKind.TEXT
    schema: Mapping[str, Any] | bool | None = None
    languages: tuple[str, ...] = ()
    names: tuple[str | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Words:
    """One message to a model. `content` is a template."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step. `system`, `prompt`, `model` and what is in `messages` are templates.

    `model` None is an assembler without a model. `when` and `for_each` are for `Templates.evaluate`; None: always, and
    once. `needs` are all steps that must have ended before, whether they are named there or by a template or in
    `assemble`, in the order of the pipeline. `assemble` None is no assembler. What is None of `width`, `repair`,
    `timeout` (seconds) and `retries` is as configured. `budget` in nanodollars.
    """

    name: str
    line: int = 1
    model: str | None = None
    system: str | None = None
    prompt: str | None = None
    messages: tuple[Words, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    output: Output = field(default_factory=Output)
    when: str | bool | None = None
    for_each: str | tuple[Any, ...] | None = None
    width: int | None = None
    needs: tuple[str, ...] = ()
    assemble: tuple[str, ...] | None = None
    retries: int | None = None
    fallback: tuple[str, ...] = ()
    repair: int | None = None
    timeout: float | None = None
    budget: int | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class Definition:
    """A whole pipeline. `steps` are in an order in which they can be run; `budget` in nanodollars a run."""

    name: str
    description: str = ""
    inputs: Mapping[str, Input] = field(default_factory=dict)
    steps: tuple[StepPlan, ...] = ()
    budget: int | None = None

    def step(self, name: str) -> StepPlan:
        """The step of that name, which must be one of its own."""
        return next(step for step in self.steps if step.name == name)


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found in a source: every issue, in the order of its lines; the definition only where there is none."""

    definition: Definition | None
    issues: tuple[Issue, ...] = ()
