"""A whole project as one zip, and a zip as a project again. What is in it is drawn in `survey.py`.

Both ways are streams: of what is sent only a piece is in memory, and of what is read one content, or one batch of
entries. An import has three parts. All of the archive is looked through; its contents are put on disk, where equal ones
are already; and its entries are written in one transaction. Whatever happens before the end of that, nothing of it is
seen, and contents that nothing names go with the next sweep.
"""

from __future__ import annotations

import hashlib
import secrets
from contextlib import aclosing, suppress
from dataclasses import replace
from itertools import islice
from typing import IO, TYPE_CHECKING, Any

import orjson
from sqlalchemy import select

import corral
from corral.domain.workspace import (
    Artifact,
    Edition,
    Entry,
    Project,
    Query,
    Run,
    RunStatus,
    Step,
    StepStatus,
    check_project,
)
from corral.errors import Conflict, EntryNotFound
from corral.kit.disk import in_thread
from corral.workspace.artifacts import text_of
from corral.workspace.exports import records
from corral.workspace.exports.survey import (
    FORMAT,
    MANIFEST,
    RECORDS,
    VERSION,
    Survey,
    content,
    entries,
    is_member,
    place,
    survey,
)
from corral.workspace.exports.zips import PIECE, Poured, Suspect

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral.workspace.rows import Entries
    from corral.workspace.store import Store

LARGEST = 1024**3
"""Bytes that an archive may unpack to, unless another number is given: that of `workspace.max_import` as it comes."""

_PAGE = 200
_BATCH = 500
_TRIES = 3
_STOPPED = {"code": "imported", "message": "It was under way when its project was exported.", "hint": ""}


async def export_project(store: Store, identifier: str) -> AsyncGenerator[bytes, None]:
    """The zip of the project with that id or name, piece by piece; what is deleted is not in it.

    What is changed meanwhile is in it as it was before or after; what is purged meanwhile is in it.

    Raises:
        EntryNotFound: there is no such project.
        StoreError: a content cannot be read. The zip ends there, and is none.
    """
    project = await store.projects.get(identifier)
    poured = Poured()
    async with store.contents.undisturbed(), aclosing(_pieces(store, project, poured)) as pieces:
        try:
            async for piece in pieces:
                yield piece
        finally:
            poured.end()  # who has enough of it leaves in the middle of a member


async def _pieces(store: Store, project: Project, poured: Poured) -> AsyncGenerator[bytes, None]:
    manifest = _Manifest(project)
    with store.contents.scratch() as editions:
        for kind in RECORDS:
            poured.begin(place(kind))
            async for batch in _batches(store, project, kind, manifest.runs):
                whole = batch if kind != "artifacts" else await _with_editions(store, batch, manifest, editions)
                await in_thread(manifest.write, poured.write, kind, whole)
                yield poured.taken()
            if kind == "editions":
                await in_thread(editions.seek, 0)
                while lines := await in_thread(editions.read, PIECE):
                    await in_thread(poured.write, lines)
                    yield poured.taken()
            poured.end()
    for digest, size in sorted(manifest.contents.items()):
        data = await store.contents.read(digest)
        poured.begin(f"contents/{digest}")
        for begin in range(0, size, PIECE):
            await in_thread(poured.write, data[begin : begin + PIECE])
            yield poured.taken()
        poured.end()
    poured.begin(MANIFEST)
    poured.write(manifest.text(store.clock.wall()))
    poured.end()
    poured.close()
    yield poured.taken()


async def import_project(store: Store, file: IO[bytes], *, name: str | None = None, largest: int = LARGEST) -> Project:
    """Make a project of the zip in `file`, which can be sought in. It is called `name`, or as it was.

    Its entries keep their ids where these are free here; otherwise they have new ones, and so has what names them. Runs
    that were under way are called off.

    Args:
        largest: bytes that it may unpack to.

    Raises:
        InvalidRequest: it is no archive of a project, or is damaged; says where.
        BodyTooLarge: it unpacks to more than `largest`, or one of its contents is larger than contents may be.
        Conflict: there is a project of that name.
    """
    archive = await in_thread(Suspect, file, is_member, largest)
    found = await in_thread(survey, archive)
    project = replace(found.project, name=check_project(name or found.project.name))
    for size in found.contents.values():
        store.contents.check(size)
    async with store.contents.undisturbed():
        for digest, size in found.contents.items():
            data = await in_thread(content, archive, digest, size)
            async with store.contents.kept([data]):
                pass  # it stays, since nobody sweeps now

        async def work(connection: AsyncConnection) -> Project:
            names = _Names(project, found, await _new_ids(store, connection, found))
            for kind in RECORDS:
                await _write(store, connection, archive, kind, names)
            made: Project = names.taken(project)
            return made

        for _ in range(_TRIES - 1):
            with suppress(Conflict):  # the same archive may be brought in beside us: its ids are taken then
                return await store.write(work)
        return await store.write(work)


class _Manifest:
    """What is written into an archive, while it is."""

    def __init__(self, project: Project) -> None:
        self.contents: dict[str, int] = {}
        self.runs: list[str] = []
        self._project = project
        self._digests = {kind: hashlib.sha256() for kind in RECORDS}
        self._counts = dict.fromkeys(RECORDS, 0)

    def write(self, write: Callable[[bytes], object], kind: str, batch: Sequence[Any]) -> None:
        """Write entries of a kind."""
        if kind == "runs":
            self.runs += [run.id for run in batch]
        for entry in batch:
            line = records.write(entry)
            self._digests[kind].update(line)
            self._counts[kind] += 1
            write(line)
            digest = getattr(entry, "digest", None)
            if digest:
                self.contents[digest] = entry.size

    def text(self, now: float) -> bytes:
        """The manifest of what was written."""
        lines = {
            kind: {"count": self._counts[kind], "sha256": digest.hexdigest()} for kind, digest in self._digests.items()
        }
        return orjson.dumps(
            {
                "format": FORMAT,
                "version": VERSION,
                "made_by": f"corral {corral.__version__}",
                "exported_at": now,
                "project": {"id": self._project.id, "name": self._project.name},
                "entries": lines,
                "contents": self.contents,
            },
            option=orjson.OPT_INDENT_2,
        )


async def _with_editions(
    store: Store, batch: Sequence[Artifact], manifest: _Manifest, file: IO[bytes]
) -> Sequence[Artifact]:
    """Those of the artifacts that are there, as they stand; `file` is given the editions that they have as such.

    Read here, and not once all artifacts are written: by then they may have others, or be gone.
    """
    there = []
    for artifact in batch:
        with suppress(EntryNotFound):
            found = await store.artifacts.editions(artifact.id, deleted=True)
            own = [edition for edition in found if edition.number <= artifact.number]
            if len(own) == artifact.number:  # or it was purged between the two statements that read them
                await in_thread(manifest.write, file.write, "editions", own)
                there.append(artifact)
    return there


async def _batches(store: Store, project: Project, kind: str, runs: Sequence[str]) -> AsyncIterator[Sequence[Any]]:
    """The entries of a kind in a project, some at a time; steps of `runs`, editions not at all."""
    if kind == "project":
        yield [project]
    elif kind == "steps":
        for run in runs:
            with suppress(EntryNotFound):  # purged meanwhile
                yield await store.runs.steps(run)
    elif kind != "editions":
        cursor = None
        while True:
            query = Query(project=project.id, archived=None, sort="created_at", limit=_PAGE, cursor=cursor)
            page = await _kept(store, kind).page(query)
            yield page.items
            if (cursor := page.next) is None:
                return


def _kept(store: Store, kind: str) -> Entries[Any]:
    """Where the entries of a kind are kept."""
    found: dict[str, Entries[Any]] = {
        "project": store.projects,
        "contexts": store.contexts,
        "pipelines": store.pipelines,
        "runs": store.runs,
        "artifacts": store.artifacts,
    }
    return found[kind]


class _Names:
    """What entries are called here: by their own ids where those are free, else by new ones.

    `ids` has the new ones by the old; None for a run that artifacts came of, which is not in the archive and whose id
    another has here.
    """

    def __init__(self, project: Project, found: Survey, ids: Mapping[str, str | None]) -> None:
        self._project, self._found, self._ids = project, found, ids

    def taken(self, entry: Any) -> Any:
        """The entry as it is here."""
        made = replace(entry, id=self._of(entry.id)) if isinstance(entry, Entry) else entry
        if hasattr(entry, "project"):
            made = replace(made, project=self._of(entry.project))
        if isinstance(made, Project):
            return replace(made, name=self._project.name)
        if isinstance(made, Run):
            return self._run(made)
        if isinstance(made, Step):
            status = StepStatus.CANCELLED if made.status is StepStatus.RUNNING else made.status
            return replace(made, run=self._of(made.run), status=status)
        if isinstance(made, Artifact):
            return replace(made, run=self._of(made.run))
        if isinstance(made, Edition):
            return replace(made, artifact=self._of(made.artifact), run=self._of(made.run))
        return made

    def _run(self, run: Run) -> Run:
        """A run; no operation here does it, so that one which was under way has been called off."""
        material = tuple({**each, "id": self._of(each.get("id"))} if "id" in each else each for each in run.material)
        more: dict[str, Any] = {}
        if not run.status.ended:
            more = {"status": RunStatus.CANCELLED, "error": _STOPPED, "ended_at": run.paused_at, "paused_at": None}
        named = {"pipeline": self._of(run.pipeline), "rerun_of": self._of(run.rerun_of), "operation": None}
        return replace(run, material=material, **named, **more)

    def _of(self, identifier: Any) -> Any:
        return self._ids.get(identifier, identifier) if isinstance(identifier, str) else identifier


async def _new_ids(store: Store, connection: AsyncConnection, found: Survey) -> dict[str, str | None]:
    """A new id for each that is taken here; None for that of a run which is another one here."""
    new: dict[str, str | None] = {}
    for kind, ids in found.ids.items():
        entries_of = _kept(store, kind)
        for identifier in await _taken(connection, entries_of, ids):
            new[identifier] = f"{entries_of.kind.prefix}-{secrets.token_hex(6)}"
    return new | dict.fromkeys(await _taken(connection, store.runs, found.runs_named))


async def _taken(connection: AsyncConnection, kept: Entries[Any], ids: Collection[str]) -> list[str]:
    """Those of the ids that entries have here, deleted ones too."""
    column, asked, taken = kept.kind.table.c.id, sorted(ids), list[str]()
    for begin in range(0, len(asked), _BATCH):
        rows = await connection.execute(select(column).where(column.in_(asked[begin : begin + _BATCH])))
        taken += rows.scalars()
    return taken


async def _write(store: Store, connection: AsyncConnection, archive: Suspect, kind: str, names: _Names) -> None:
    """Write down the entries of a kind, some at a time."""
    lines = entries(archive, kind)
    while batch := await in_thread(_batch, lines, names):
        if kind == "steps":
            await store.runs.adopt_steps(connection, batch)
        elif kind == "editions":
            await store.artifacts.adopt_editions(connection, batch)
        else:
            bodies = await in_thread(_bodies, archive, batch) if kind == "artifacts" else {}
            await _kept(store, kind).adopt(connection, batch, bodies)


def _batch(lines: Iterator[Any], names: _Names) -> list[Any]:
    return [names.taken(entry) for entry in islice(lines, _BATCH)]


def _bodies(archive: Suspect, artifacts: Sequence[Artifact]) -> dict[str, str]:
    """By what the artifacts are found: the beginning of what is in them."""
    return {each.id: text_of(content(archive, each.digest, each.size)) for each in artifacts}
