"""Runs and their steps, and the one transaction in which a step, what it made and what it cost are written down.

What a run was given, the source of its pipeline and the material, is kept in `snapshots` by its digest: runs of the
same share it. Lists of runs read none of it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from corral.db.workspace_tables import projects, runs, snapshots, steps
from corral.domain.workspace import (
    Artifact,
    Made,
    Page,
    Query,
    Run,
    RunBrief,
    RunStatus,
    Step,
    StepStatus,
    check_path,
)
from corral.errors import Conflict, InvalidRequest, NotSupported
from corral.workspace import listing
from corral.workspace.artifacts import Origin
from corral.workspace.contexts import strings_in
from corral.workspace.kinds import Kind
from corral.workspace.projects import UNDER_WAY
from corral.workspace.rows import Entries
from corral.workspace.soundness import LONGEST_NAME, mended

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from sqlalchemy import RowMapping
    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral.db.engine import Database
    from corral.domain.ports import Clock
    from corral.workspace.artifacts import Artifacts
    from corral.workspace.contents import Contents

_DONE = (StepStatus.COMPLETED.value, StepStatus.SKIPPED.value)
_ENDED = (*_DONE, StepStatus.FAILED.value, StepStatus.CANCELLED.value)
_REOPENED = (StepStatus.FAILED, StepStatus.CANCELLED, StepStatus.RUNNING)
_SUMMED = ("cost", "input_tokens", "output_tokens")
_SNAPSHOTS = ("source", "material")
_BRIEF = tuple(each.name for each in fields(RunBrief))
_UNUSED = 3600.0  # seconds that a snapshot stays though no run names it: one may be about to


class Runs(Entries[Run]):
    """The runs. One that is under way is neither deleted nor moved; none begins in a project that is archived."""

    kind = Kind(
        name="run",
        prefix="run",
        table=runs,
        entry=Run,
        lines=("name", "title", "caller"),
        texts=("source",),
        documents=("inputs", "material", "models", "environment", "reproducible", "error"),
        numbers=("seed", "budget"),
        fixed=frozenset({each.name for each in fields(Run)} - {"title", "tags"}),
        filters={
            "status": str,
            "name": str,
            "pipeline": str,
            "rerun_of": str,
            "caller": str,
            "operation": str,
            "title": str,
        },
        sorts=("updated_at", "created_at", "name", "title", "status", "cost", "input_tokens", "output_tokens"),
    )

    def __init__(self, database: Database, clock: Clock, artifacts: Artifacts, contents: Contents) -> None:
        super().__init__(database, clock)
        self._artifacts = artifacts
        self._contents = contents

    async def begin(self, entry: Run, planned: Sequence[Step]) -> Run:
        """Write down a new run with the steps that it will do: all or nothing.

        Raises:
            Conflict: one with its id is there.
        """

        async def work(connection: AsyncConnection) -> Run:
            made = await self._create(connection, replace(entry, steps_total=len(planned)))
            if planned:
                values = [_values(replace(step, run=made.id)) for step in planned]
                await connection.execute(insert(steps), values)
            return made

        return await self._database.write(work)

    async def listed(self, query: Query) -> Page[RunBrief]:
        """As `page`, without what the runs were given: nothing of that is read."""

        async def work(connection: AsyncConnection) -> Page[RunBrief]:
            rows, following = await listing.page(connection, self.kind, query, names=_BRIEF)
            return Page(tuple(_brief(row) for row in rows), following)

        return await self._database.read(work)

    async def update(self, identifier: str, **columns: Any) -> Run:
        """Write down how the run goes on: any of its fields that says so, such as `status`, `error` or `operation`."""
        for name in columns:
            if name not in _GOING:
                raise InvalidRequest(f"{name!r} of a run does not change as it goes on.", param=name)

        async def work(connection: AsyncConnection) -> Run:
            row = await self._row(connection, identifier, deleted=True, locked=True)
            old = (await self._entries(connection, [row]))[0]
            new = replace(old, **{name: mended(value) if name in _SAID else value for name, value in columns.items()})
            return old if new == old else await self._write(connection, old, new)

        return await self._database.write(work)

    async def take(self, identifier: str, operation: str) -> Run:
        """The run, which that operation does from now on unless another does already: see its `operation`."""

        async def work(connection: AsyncConnection) -> Run:
            row = await self._row(connection, identifier, deleted=True, locked=True)
            old = (await self._entries(connection, [row]))[0]
            return await self._write(connection, old, replace(old, operation=operation)) if not old.operation else old

        return await self._database.write(work)

    async def reopen(self, identifier: str) -> Run:
        """Let a run that failed or was called off wait again, once: what is finished in it stays so.

        Raises:
            Conflict: it has not ended so, or somebody else was faster.
        """

        async def work(connection: AsyncConnection) -> Run:
            row = await self._row(connection, identifier, locked=True)
            if row["status"] not in (RunStatus.FAILED.value, RunStatus.CANCELLED.value):
                raise Conflict(f"The run {row['id']} is {row['status']}: it goes on already, or is done.")
            left = steps.c.status.in_([each.value for each in _REOPENED])
            again = {"status": StepStatus.WAITING.value, "error": None, "reason": "", "ended_at": None}
            await connection.execute(update(steps).where(steps.c.run == row["id"], left).values(**again))
            old = (await self._entries(connection, [row]))[0]
            rests = old.ended_at if old.started_at is not None else None
            new = replace(old, status=RunStatus.QUEUED, error=None, ended_at=None, operation=None, paused_at=rests)
            return await self._write(connection, old, new)

        return await self._database.write(work)

    async def steps(self, run: str) -> list[Step]:
        """The steps of a run as they stand, in their order.

        Raises:
            EntryNotFound: there is no such run.
        """

        async def work(connection: AsyncConnection) -> list[Step]:
            row = await self._row(connection, run, deleted=True)
            order = (steps.c.position, steps.c.index.is_not(None), steps.c.index, steps.c.key)
            wanted = select(steps).where(steps.c.run == row["id"]).order_by(*order)
            return [_step(each) for each in (await connection.execute(wanted)).mappings()]

        return await self._database.read(work)

    async def plan(self, run: str, planned: Sequence[Step]) -> None:
        """Write down steps that will come. Those that are there stay as they are."""

        async def work(connection: AsyncConnection) -> None:
            row = await self._row(connection, run, deleted=True, locked=True)
            if planned:
                values = [_values(replace(step, run=row["id"])) for step in planned]
                await connection.execute(_inserting(connection)(steps).on_conflict_do_nothing(), values)
            await self._sum(connection, row["id"])

        await self._database.write(work)

    async def save(self, step: Step) -> None:
        """Write down a step as it stands. The run's sums follow when the step has ended."""

        async def work(connection: AsyncConnection) -> None:
            await _put(connection, step)
            if step.status.value in _ENDED:
                await self._sum(connection, step.run)

        await self._database.write(work)

    async def commit(
        self,
        step: Step,
        made: Sequence[Made] = (),
        also: Callable[[AsyncConnection], Awaitable[object]] | None = None,
    ) -> list[Artifact]:
        """Write down a step that has ended, what it made, the run's sums, and whatever `also` writes: all or nothing.

        Of a step that is completed already nothing is written, `also` is left alone, and what it made is returned. The
        contents are on disk before.

        Raises:
            EntryNotFound: the run was purged, or an artifact that shall have a new edition.
            BodyTooLarge: one of the contents is.
            InvalidName: one of the names cannot be that of a file.
        """

        async def once(connection: AsyncConnection, new: Sequence[Step]) -> None:
            if new and also is not None:
                await also(connection)

        return (await self.commit_all([(step, made)], once))[0]

    async def commit_all(
        self,
        entries: Sequence[tuple[Step, Sequence[Made]]],
        also: Callable[[AsyncConnection, Sequence[Step]], Awaitable[object]] | None = None,
    ) -> list[list[Artifact]]:
        """As `commit`, of several steps of one run in one transaction; `also` is told which of them are written.

        Those that have not ended may be among them.
        """
        named = [_apart(made) for _, made in entries]
        contents = [each.content for _, made in entries for each in made]
        async with self._contents.kept(contents) as digests:

            async def work(connection: AsyncConnection) -> list[list[Artifact]]:
                run = entries[0][0].run
                row = await self._row(connection, run, deleted=True, locked=True)
                done = await _completed(connection, run, [step.key for step, _ in entries])
                new = [step for step, _ in entries if step.key not in done]
                await _put_all(connection, new)
                left, found = iter(digests), []
                for (step, made), names in zip(entries, named, strict=True):
                    mine = [next(left) for _ in made]
                    if step.key in done:
                        found.append(await self._artifacts.made_by(connection, run, step.key))
                        continue
                    kept = zip(names, made, mine, strict=True)
                    found.append([await self._keep(connection, row, step, *each) for each in kept])
                if any(step.status.value in _ENDED for step in new):
                    await self._sum(connection, run)
                if also is not None:
                    await also(connection, new)
                return found

            return await self._database.write(work)

    async def adopt_steps(self, connection: AsyncConnection, found: Sequence[Step]) -> None:
        """Write down, in a transaction of somebody else, steps as they were elsewhere; their runs are there."""
        if found:
            await connection.execute(insert(steps), [_values(step) for step in found])

    async def forget_snapshots(self) -> int:
        """Remove what runs were given that are gone; returns how much of it there was."""

        async def work(connection: AsyncConnection) -> int:
            unused = [
                ~select(runs.c.id).where(column == snapshots.c.digest).exists()
                for column in (runs.c.source, runs.c.material)
            ]
            old = snapshots.c.used_at < self._clock.wall() - _UNUSED
            return int((await connection.execute(delete(snapshots).where(old, *unused))).rowcount)

        return await self._database.write(work)

    async def _keep(
        self, connection: AsyncConnection, run: RowMapping, step: Step, name: str, made: Made, digest: str
    ) -> Artifact:
        origin = Origin(
            run=step.run,
            step=step.key,
            model=step.model,
            request_id=step.request_id,
            problems=mended(made.problems),
            made_as=name,
        )
        if made.edition_of is not None:
            held = await self._artifacts.held(connection, made.edition_of, run["project"])
            if held is not None:  # or else what was paid for becomes an artifact of its own
                return await self._artifacts.renew(connection, held, digest, made.content, origin)
        title = mended(made.title)[:200]
        entry = Artifact(
            id="",
            project=run["project"],
            name=name,
            kind=made.kind,
            media_type=made.media_type,
            title=" ".join(title.split()),
        )
        return await self._artifacts.add(connection, entry, digest, made.content, origin)

    async def _create(self, connection: AsyncConnection, entry: Run, body: str | None = None) -> Run:
        project = await listing.project_of(connection, entry.project, locked=True)
        archived = select(projects.c.name).where(projects.c.id == project, projects.c.archived_at.is_not(None))
        name = (await connection.execute(archived)).scalar_one_or_none()
        if name is not None:
            raise Conflict(
                f"The project {name!r} is archived: no run begins in it.",
                f"Have it back: corral projects restore {name}",
            )
        return await super()._create(connection, entry, body)

    async def _sum(self, connection: AsyncConnection, run: str) -> None:
        """Let the run say what its steps say together."""
        mine = steps.c.run == run
        whole = [func.coalesce(func.sum(steps.c[name]), 0).label(name) for name in _SUMMED]
        done = func.count().filter(steps.c.status.in_(_DONE)).label("steps_done")
        found = await connection.execute(select(*whole, done, func.count().label("steps_total")).where(mine))
        sums = {name: int(value) for name, value in found.mappings().one().items()}
        version = {"version": runs.c.version + 1, "updated_at": self._clock.wall()}
        await connection.execute(update(runs).where(runs.c.id == run).values(**sums, **version))

    async def _allow(self, connection: AsyncConnection, row: RowMapping, action: str) -> None:
        if row["status"] in UNDER_WAY:
            raise Conflict(
                f"The run {row['id']} is {row['status']}: it cannot be {action}d.",
                f"Let it end, or end it: corral pipeline cancel {row['id']}",
            )

    async def _entries(self, connection: AsyncConnection, rows: Sequence[RowMapping]) -> list[Run]:
        digests = {row[name] for row in rows for name in _SNAPSHOTS}
        wanted = select(snapshots.c.digest, snapshots.c.body).where(snapshots.c.digest.in_(digests))
        found = {row.digest: json.loads(row.body) for row in await connection.execute(wanted)}
        return [self._read({**row, **{name: found[row[name]] for name in _SNAPSHOTS}}) for row in rows]

    def _read(self, row: Mapping[Any, Any]) -> Run:
        return replace(super()._read(row), status=RunStatus(row["status"]), material=tuple(row["material"]))

    async def _born(self, connection: AsyncConnection, entry: Run) -> dict[str, Any]:
        """The row, once the snapshots are there that it names."""
        values, now = super()._values(entry), self._clock.wall()
        for name in _SNAPSHOTS:
            text = json.dumps(values[name])
            values[name] = hashlib.sha256(text.encode()).hexdigest()
            kept = _inserting(connection)(snapshots).values(digest=values[name], body=text, used_at=now)
            named = kept.on_conflict_do_update(index_elements=[snapshots.c.digest], set_={"used_at": now})
            await connection.execute(named)
        return values

    def _values(self, entry: Run) -> dict[str, Any]:
        return {name: value for name, value in super()._values(entry).items() if name not in _SNAPSHOTS}

    def _checked(self, entry: Run) -> Run:
        checked = super()._checked(entry)
        return replace(checked, material=tuple(checked.material))

    def _texts(self, entry: Run) -> tuple[str, str, tuple[str, ...]]:
        return entry.title or entry.name, " ".join(strings_in(entry.inputs)), (entry.name,)

    async def _copied(self, connection: AsyncConnection, entry: Run, name: str | None, project: str | None) -> Run:
        raise NotSupported("A run cannot be duplicated: it is what happened once.", "Run it again: rerun.")

    async def _move(self, connection: AsyncConnection, row: RowMapping, project: str) -> Run:
        moved = await super()._move(connection, row, project)
        await self._artifacts.take_along(connection, moved.id, row["project"], moved.project)
        return moved

    async def _erase(self, connection: AsyncConnection, identifiers: Any) -> None:
        await connection.execute(delete(steps).where(steps.c.run.in_(identifiers)))
        await super()._erase(connection, identifiers)


_GOING = frozenset(
    {"status", "operation", "environment", "reproducible", "error", "started_at", "ended_at", "models", "seed"}
    | {"paused_seconds", "paused_at"}
    | {"budget", "title", *_SUMMED, "steps_total", "steps_done"}
)
_SAID = frozenset({"environment", "reproducible", "error", "title"})
_JSON = ("request", "value", "receipt", "tries", "error")


def _brief(row: RowMapping) -> RunBrief:
    return RunBrief(**{**row, "status": RunStatus(row["status"]), "tags": tuple(row["tags"])})


def _step(row: RowMapping) -> Step:
    return Step(**{**row, "status": StepStatus(row["status"]), "tries": tuple(row["tries"])})


def _values(step: Step) -> dict[str, Any]:
    """The row that a step is. What a model wrote is mended, since nobody can be asked to write it otherwise."""
    found = {each.name: getattr(step, each.name) for each in fields(step)}
    found |= {name: mended(found[name]) for name in (*_JSON, "output", "reason")}
    return {**found, "status": step.status.value}


async def _put(connection: AsyncConnection, step: Step) -> None:
    await _put_all(connection, [step])


async def _put_all(connection: AsyncConnection, some: Sequence[Step]) -> None:
    if not some:
        return
    make = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = make(steps)
    rest = {column.name: statement.excluded[column.name] for column in steps.c if column.name not in ("run", "key")}
    upsert = statement.on_conflict_do_update(index_elements=[steps.c.run, steps.c.key], set_=rest)
    await connection.execute(upsert, [_values(step) for step in some])


async def _completed(connection: AsyncConnection, run: str, keys: Sequence[str]) -> set[str]:
    """Those of the steps that are completed."""
    done = steps.c.status == StepStatus.COMPLETED.value
    wanted = select(steps.c.key).where(steps.c.run == run, steps.c.key.in_(keys), done)
    return set((await connection.execute(wanted)).scalars())


def _apart(made: Sequence[Made]) -> list[str]:
    """The names of what was made, each once: models call two files the same."""
    found: dict[str, None] = {}
    for each in made:
        path, number, name = PurePosixPath(check_path(each.name)), 1, each.name
        while name in found:
            number += 1
            tail = f"-{number}{path.suffix[:20]}"
            room = max(LONGEST_NAME - len(each.name) + len(path.name) - len(tail), 1)
            name = str(path.with_name(f"{path.stem[:room]}{tail}"))
        found[name] = None
    return list(found)


def _inserting(connection: AsyncConnection) -> Any:
    """The `insert` that can say what happens where the row is there, which is no common SQL."""
    return sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
