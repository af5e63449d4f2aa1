"""The seams of Corral: what a runtime, an engine's session and a source must do.

A runtime's only job is to make an endpoint exist and to take it away again; everything else about a request is done
once, elsewhere, for all runtimes. A plugin is one file in `runtimes/` or `sources/` (or an entry point) ending in
`plugin = …`; its constructor names the ports it needs, and `app` passes them by name: `clock`, `settings`,
`processes`, ….
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from corral.domain.memory import Demand, Placement
from corral.domain.models import Capability, Installed, Listing, ModelRef, RemoteFile, Revision


@dataclass(frozen=True, slots=True)
class Progress:
    """How far long work is.

    `done` and `total` are bytes of the whole work, over all of its files, in the phases `download`, `check` and
    `upload`; `total` is None when unknown. `done` never goes backwards within one phase of one piece of work. `detail`
    says what it is at now, such as a file's name.
    """

    phase: str
    done: int = 0
    total: int | None = None
    detail: str = ""


Report = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """A report that nobody reads."""


class Clock(Protocol):
    """Time, passed in so that decisions can be tested by hand."""

    def now(self) -> float:
        """Seconds on a clock that never goes backwards; only differences mean anything."""
        ...

    def wall(self) -> float:
        """Unix seconds."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address that speaks a dialect: all the relay needs to know of an engine.

    `url` has no trailing slash and ends where the dialect's own paths begin (`http://127.0.0.1:4711/v1`). `headers`
    carry the credentials and are never shown. `model` is the engine's own name for what it serves; None passes the
    client's name. `adapt`, where an engine needs it, changes a parsed request body in place into what this engine
    understands and says whether it did; `path` is the dialect's path (`/chat/completions`). `speaks` names forms, such
    as `openai.responses`, that it understands beside the common ones of its dialect. `profile` says how it differs from
    its dialect's common form: a `dialects.form.Profile`. `provider` is whose prices hold, as the price list calls it.
    `query` is put behind every path, after a `?`: some vendors want their version there.
    """

    url: str
    dialect: str = "openai"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    model: str | None = None
    adapt: Callable[[str, dict[str, Any]], bool] | None = None
    speaks: frozenset[str] = frozenset()
    profile: Any = None
    provider: str | None = None
    query: str = ""


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a runtime can run here: its version and devices, or the reason why not and what to type.

    No `devices` are: unknown. `preferred` is False for one that can run here but not at its best, such as on a
    processor what was made for GPUs: it comes after the others.
    """

    usable: bool
    version: str | None = None
    devices: tuple[str, ...] = ()
    reason: str = ""
    hint: str = ""
    preferred: bool = True


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes an engine takes on each device, as measured (`{"cpu": 253072000}`).

    A device not listed is unknown, not zero.
    """

    devices: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """Everything a runtime needs to start an engine.

    `model` is the name clients ask for. `files` maps a role (`model`, `mmproj`, …) to a path on disk. `options` is an
    instance of the runtime's `options`. `placement` is where the scheduler has set memory aside for it, and how much;
    None where nobody counts. Times in seconds.
    """

    model: str
    options: Any
    files: Mapping[str, Path] = field(default_factory=dict)
    revision: Revision | None = None
    load_timeout: float = 120.0
    placement: Placement | None = None


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """What an engine said of itself when it became ready; None is unknown.

    `context` in tokens, for one slot. `device` is `cpu`, `cuda:0`, … or `remote` for an engine that is no process of
    ours. `notes` are remarks for whoever asks how it runs, such as an option it could not follow. `sleeps`: the session
    is a Sleeper. `counts`: it is a Counter.
    """

    context: int | None = None
    slots: int | None = None
    device: str | None = None
    capabilities: frozenset[Capability] | None = None
    notes: tuple[str, ...] = ()
    sleeps: bool = False
    counts: bool = False


@runtime_checkable
class Session(Protocol):
    """One running engine."""

    @property
    def endpoint(self) -> Endpoint:
        """Where it answers."""
        ...

    @property
    def facts(self) -> SessionFacts:
        """What it said of itself."""
        ...

    async def healthy(self) -> bool:
        """Whether it would answer now. Never raises."""
        ...

    async def footprint(self) -> Footprint:
        """Measured now."""
        ...

    def processes(self) -> Sequence[int]:
        """Ids of the processes it is made of, some of which may be gone; empty for one that is no process of ours."""
        ...

    async def ended(self) -> str:
        """Wait until the engine is gone for whatever reason, and return that reason. A remote engine never ends."""
        ...

    def log(self) -> Sequence[str]:
        """The last lines of the engine's output, oldest first."""
        ...

    async def stop(self, grace: float) -> None:
        """End it: politely, then after `grace` seconds firmly. Idempotent; afterwards no process of it is left."""
        ...


@runtime_checkable
class Sleeper(Protocol):
    """A session that can give back most of its memory and stay: `facts.sleeps` says whether this one can."""

    async def sleep(self) -> None:
        """Give back what can be given back; it answers nothing until `wake`.

        Raises:
            EngineError: it could not; it is as it was, or has ended.
        """
        ...

    async def wake(self) -> None:
        """Take the memory again and answer.

        Raises:
            EngineError: it could not; it is asleep still, or has ended.
        """
        ...


@runtime_checkable
class Counter(Protocol):
    """A session that can say how long a prompt is: `facts.counts` says whether this one can."""

    async def count(self, path: str, document: Mapping[str, Any]) -> int | None:
        """Tokens that the engine makes of the prompt of a request, its template included; None where it cannot tell.

        `path` and `document` are as the engine would be asked to answer it.

        Raises:
            UpstreamError: the engine does not answer.
        """
        ...


@runtime_checkable
class Runtime(Protocol):
    """What can run a revision, or reach a vendor.

    `kind` is the file's stem. `options` is a frozen dataclass; `formats` names the file formats it runs and is empty
    when it needs no files; one that can do with files all the same may say which in `accepts`. `preference`: of several
    that run the same files the highest is chosen; 0 is chosen by nobody but the user. One whose engines need a key may
    have `secrets(options)`: the variables of the environment of which one must hold it.
    """

    kind: str
    options: type[Any]
    formats: frozenset[str]
    preference: int
    capabilities: frozenset[Capability]

    async def probe(self) -> Availability:
        """Whether it can be used here. Cheap, and never raises."""
        ...

    def demand(self, spec: LaunchSpec) -> Demand | None:
        """What an engine started so will want of memory; None for one that takes none here. Pure and quick."""
        ...

    async def start(self, spec: LaunchSpec, report: Report) -> Session:
        """Start an engine and wait until it answers.

        Raises:
            RuntimeUnavailable: it cannot run here.
            OutOfMemory: the memory it was given does not suffice.
            EngineStartFailed: it ended, or said that it cannot load the model.
            EngineTimeout: it was not ready within `spec.load_timeout`.

        When cancelled, or when it raises, no process of it is left.
        """
        ...


class PartFile(Protocol):
    """A file that is being put together beside its final place; owned by one writer, kept when the writer dies.

    `size` is the bytes held so far, already hashed. `scratch` names a file of this writer's own for material that is
    not part of the result, such as an archive; it too survives, and is removed with the part.
    """

    @property
    def size(self) -> int:
        """Bytes held."""
        ...

    def scratch(self, name: str) -> Path:
        """A path for material of this operation, unique to `name`, that survives a kill."""
        ...

    async def append(self, data: bytes) -> None:
        """Write and hash the next bytes.

        Raises:
            DiskFull: there is no room; what was written stays, and can be resumed.
        """
        ...

    async def restart(self) -> None:
        """Throw away what is held."""
        ...

    def digest(self) -> str:
        """SHA-256, in hex, of the bytes held."""
        ...

    async def clone(self, path: Path, report: Report) -> None:
        """Hold the bytes of a local file and only those: shared copy-on-write where the disk can, copied elsewhere.

        Raises:
            OSError: `path` cannot be read.
            DiskFull: there is no room.
        """
        ...


@dataclass(frozen=True, slots=True)
class Query:
    """What to search a source for: words, and at most how many hits. An empty text asks for what is most used."""

    text: str
    limit: int = 20


@dataclass(frozen=True, slots=True)
class Hit:
    """One thing found by a search; unknown is None.

    `size` in bytes of what would be installed. `updated_at` in Unix seconds. `facts` are as a revision's, as far as the
    source tells them without a download (`parameters`, `architecture`, `context_length`).
    """

    ref: ModelRef
    title: str
    size: int | None = None
    licence: str | None = None
    downloads: int | None = None
    likes: int | None = None
    updated_at: float | None = None
    gated: bool = False
    tags: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Source(Protocol):
    """Where revisions come from."""

    scheme: str

    async def resolve(self, ref: ModelRef) -> Listing:
        """What the reference names: files, sizes and digests as far as they are known without fetching.

        Raises:
            SourceNotFound: it has no such thing.
            SourceError: it could not be reached or understood.
        """
        ...

    async def fetch(self, file: RemoteFile, into: PartFile, report: Report) -> None:
        """Append the file's bytes from `into.size` on, verifying every digest the listing names.

        Raises:
            DigestMismatch: the bytes are not the promised ones; nothing of them is kept.
            SourceError: the source failed; what arrived is kept for the next try.
        """
        ...

    async def search(self, query: Query) -> Sequence[Hit]:
        """What matches.

        Raises:
            NotSupported: the source cannot be searched.
        """
        ...


@runtime_checkable
class Mirror(Protocol):
    """A source that can also be asked for bytes by their digest, wherever they were first found."""

    def mirrored(self, base: ModelRef, file: RemoteFile) -> RemoteFile | None:
        """`file` as it would lie under `base`, to be given to `fetch`; None when its digest or size is unknown."""
        ...


@runtime_checkable
class Destination(Protocol):
    """A source that revisions can be put into, so that others install them from there."""

    async def push(self, installed: Installed, files: Mapping[str, Path], to: ModelRef, report: Report) -> ModelRef:
        """Put the revision under `to` and return what to install it by. `files` maps each digest to a path.

        What lies there already is not sent again. A push that was cut short leaves nothing that can be installed.

        Raises:
            SourceError: it cannot be reached, or refuses.
        """
        ...
