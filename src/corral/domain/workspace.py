"""The workspace: what is worked on, the material, one execution, and what it produced.

    Project ── Context …        instructions, files, documents, variables; in their order
        ├───── Run ── Step …    one execution of a pipeline, with exact inputs
        └───── Artifact ── Edition …    what came of it, each version by its digest
    Pipeline                    of a project, or of all

Every entry has an id, a `version` that grows with each change (its ETag), and three times at which it may have been
changed, put away (`archived_at`) or thrown away (`deleted_at`; it can be had back until its retention ends). Times in
Unix seconds, money in nanodollars.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, Literal, TypeVar, get_args

from corral.errors import InvalidName, NotSupported

T = TypeVar("T")

Form = Literal["plain", "framer", "vite", "html"]
FORMS: tuple[Form, ...] = get_args(Form)
"""In which artifacts can be taken away."""

_PROJECT = re.compile(r"[a-z0-9][a-z0-9_.\-]{0,79}")
_TEXTS = {
    ".md": "text/markdown",
    ".html": "text/html",
    ".css": "text/css",
    ".csv": "text/csv",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
_PATH = re.compile(r"[^\x00-\x1f\x7f\\:*?\"<>|]{1,200}")


class ContextKind(StrEnum):
    """What a piece of material is."""

    INSTRUCTIONS = "instructions"
    FILE = "file"
    DOCUMENT = "document"
    VARIABLES = "variables"


class RunStatus(StrEnum):
    """Where a run stands: queued ⇄ running → completed | failed | cancelled, and queued or running ⇄ paused."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more, unless it is resumed after a failure."""
        return self in {self.COMPLETED, self.FAILED, self.CANCELLED}


class StepStatus(StrEnum):
    """Where a step stands: waiting → running → completed | failed | cancelled, or waiting → skipped."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What every entry of the workspace has. `version` begins at 1."""

    id: str
    version: int = 1
    created_at: float = 0.0
    updated_at: float = 0.0
    archived_at: float | None = None
    deleted_at: float | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Project(Entry):
    """What is worked on. `name` is unique and stays: budgets and the books know the project by it."""

    name: str
    title: str = ""
    description: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context(Entry):
    """A piece of material. `text` is what models are given: of instructions, and of a file or document as read.

    `variables` are of that kind only. `digest` names the bytes of a file or document; `size` is theirs. `position`
    orders the contexts of a project, the smallest first. One that is not `enabled` is given to nobody.
    """

    project: str
    kind: ContextKind
    name: str
    position: int = 0
    text: str = ""
    variables: Mapping[str, Any] = field(default_factory=dict)
    digest: str | None = None
    size: int = 0
    media_type: str = "text/plain"
    enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline(Entry):
    """Steps of several models. `source` is its YAML as it was given; `project` None is one for every project."""

    name: str
    source: str
    project: str | None = None
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunBrief(Entry):
    """A run as lists have it: what it is, where it stands and what it took, without all that it was given.

    `models` is what was to be asked in place of what the pipeline names (by step, or `*` for all), `caller` the id of
    who pays. `operation` does it. `paused_seconds` is how long nobody was at it since it began, without the pause that
    it is in since `paused_at`.
    """

    project: str
    name: str
    pipeline: str | None = None
    title: str = ""
    models: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    budget: int | None = None
    caller: str = "local"
    status: RunStatus = RunStatus.QUEUED
    operation: str | None = None
    rerun_of: str | None = None
    error: Mapping[str, Any] | None = None
    started_at: float | None = None
    ended_at: float | None = None
    paused_seconds: float = 0.0
    paused_at: float | None = None
    cost: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    steps_total: int = 0
    steps_done: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(RunBrief):
    """One execution. What it was given is kept exactly, whatever is changed or deleted afterwards.

    `source` is the pipeline's YAML as it was, `material` the contexts as they were (`{id, kind, name, text, variables,
    digest}`). `environment` says what it ran on: versions of Corral and the runtimes. `reproducible` says of each step
    why a rerun may differ; an empty one would not.
    """

    source: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    material: Sequence[Mapping[str, Any]] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    reproducible: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a run as it stands; of one that fans out, one for each item: `key` is `name`, or `name[3]`.

    `request` is what was asked, exactly: model, messages, parameters, and the digests of template and revision.
    `output` is what was answered, `value` the same as JSON where the step has that for a contract, `receipt` what was
    done for it. `tries` are the attempts before it, each with its receipt or error. `request_id` is that of the try
    that is under way or counted. `paused_seconds` is how long, since it began, nobody was at the run.
    """

    run: str
    key: str
    name: str
    index: int | None = None
    position: int = 0
    status: StepStatus = StepStatus.WAITING
    attempt: int = 0
    model: str | None = None
    request_id: str | None = None
    request: Mapping[str, Any] | None = None
    output: str | None = None
    value: Any = None
    receipt: Mapping[str, Any] | None = None
    tries: Sequence[Mapping[str, Any]] = ()
    reason: str = ""
    error: Mapping[str, Any] | None = None
    started_at: float | None = None
    ended_at: float | None = None
    paused_seconds: float = 0.0
    cost: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact(Entry):
    """What came of a run, or was put there by hand. `name` is a relative path such as `src/Counter.tsx`.

    `kind` is its language (see `corral.workspace.code.languages`), `number` that of its newest edition, whose `digest`
    and `size` (bytes) these are. `run` and `step` say where it first came from.
    """

    project: str
    name: str
    kind: str
    media_type: str = "text/plain"
    digest: str = ""
    size: int = 0
    number: int = 1
    title: str = ""
    run: str | None = None
    step: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Edition:
    """One version of an artifact, which never changes. `problems` is what the parser of its language found."""

    artifact: str
    number: int
    digest: str
    size: int
    created_at: float
    run: str | None = None
    step: str | None = None
    model: str | None = None
    request_id: str | None = None
    problems: Sequence[Mapping[str, Any]] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Made:
    """What a step made: an artifact of that `name`, or with `edition_of` a new edition of the artifact with that id."""

    name: str
    kind: str
    media_type: str
    content: bytes
    title: str = ""
    problems: Sequence[Mapping[str, Any]] = ()
    edition_of: str | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry in which words were found. `kind` is `project`, `context`, `pipeline`, `run` or `artifact`.

    `excerpt` is a piece of its text with one of the words in it, or its beginning; `project` None is of none.
    """

    kind: str
    id: str
    project: str | None
    title: str
    excerpt: str


@dataclass(frozen=True, slots=True)
class Query:
    """What a list is asked for. None does not ask. `search` is looked for in the text of the entries, by words.

    `archived` and `deleted`: False is without those, True is only those. `sort` is a column of the resource, `-` before
    it is downwards. `cursor` is what the page before gave. `within` are the ids of projects beyond which nothing is
    found (of projects: those alone; of pipelines: those of all projects, too); None is everything.
    """

    project: str | None = None
    within: tuple[str, ...] | None = None
    filters: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    search: str = ""
    archived: bool | None = False
    deleted: bool = False
    sort: str = "-updated_at"
    limit: int = 50
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of a list. `next` is the cursor of the page after; None on the last. `total` is of all pages, if asked."""

    items: tuple[T, ...]
    next: str | None = None
    total: int | None = None


def check_project(name: str) -> str:
    """`name` itself, when it may name a project.

    Raises:
        InvalidName: it may not.
    """
    if not _PROJECT.fullmatch(name):
        raise InvalidName(
            f"{name[:100]!r} cannot name a project.",
            "Use at most 80 of: small letters, digits, _ - and . ; the first is a letter or digit.",
            param="name",
        )
    return name


def check_path(name: str) -> str:
    """`name` itself, when it may name an artifact or a file: a relative path that does not climb.

    Raises:
        InvalidName: it may not.
    """
    parts = name.split("/")
    if not _PATH.fullmatch(name) or any(part in ("", ".", "..") or part != part.strip() for part in parts):
        raise InvalidName(
            f"{name[:100]!r} cannot name a file.",
            "Use a relative path such as src/Counter.tsx: at most 200 characters, no '..', no leading '/'.",
            param="name",
        )
    return name


def text_type(name: str) -> str:
    """The media type of a file of text, by how its name ends; plain where that says nothing."""
    return next((kind for end, kind in _TEXTS.items() if name.endswith(end)), "text/plain")


def text_in(content: bytes, name: str, hint: str) -> str:
    """`content` as text. `name` is what it is called where it is none, `hint` what to do then.

    Raises:
        NotSupported: it is no text in UTF-8.
    """
    refused = NotSupported(f"{name!r} is not text in UTF-8.", hint)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise refused from error
    if "\0" in text:
        raise refused
    return text
