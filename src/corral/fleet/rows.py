"""What is written down of containers: how each stands, its models, its versions, what happened to it.

    note ─▶ waiting ─▶ one transaction: containers, container_models, container_history

Noting never waits, so that a slow database holds up no event; a container's row and the line of history that belongs to
it are written in one transaction. Of a row only the last word is kept while it waits; lines of history are bounded, and
what is given up of them is said.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from corral.domain.standings import ContainerState, Happening, ModelInside, Standing
from corral.errors import CorralError
from corral.kit.disk import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import RowMapping, Table
    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral.db.engine import Database
    from corral.domain.ports import Clock

KEPT = 1000
"""Lines of history that are kept of each container."""

_MOST_WAITING = 10_000
_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds between two tries to write, each time it fails again."""
_PRUNE_EVERY = 600.0
_LONGEST = 2000
"""Characters of a reason that are kept."""

_log = logging.getLogger("corral.containers")


@dataclass(frozen=True, slots=True)
class _Version:
    """That an image, or a `model` in a container, was changed; or with `failed` that it was tried."""

    name: str
    version: str
    reference: str
    model: str | None
    failed: str | None
    at: float


class Rows:
    """The rows of one Corral. Creating it does no I/O; `run` writes, and `flush` writes what is left.

    Args:
        database: where they are; opened when first needed.
        yard: tells whose they are; blocks for a small file.
        clock: time.
    """

    def __init__(self, database: Database, yard: Callable[[], str], clock: Clock) -> None:
        self._database = database
        self._yard = yard
        self._clock = clock
        self._whose = ""
        self._waiting: dict[str, Standing | None] = {}
        self._specs: dict[str, str | None] = {}
        self._lines: deque[Happening] = deque()
        self._versions: list[_Version] = []
        self._lost = 0
        self._there = asyncio.Event()
        self._writing = asyncio.Lock()

    async def yard(self) -> str:
        """Whose rows these are.

        Raises:
            StoreError: the home has no name, and none can be made.
        """
        if not self._whose:
            self._whose = await in_thread(self._yard)
        return self._whose

    @property
    def waiting(self) -> int:
        """Rows and lines that are not written down yet."""
        return len(self._waiting) + len(self._lines) + len(self._versions)

    async def load(self) -> dict[str, Standing]:
        """How each stood when it was last written down, by name.

        Raises:
            DatabaseError: they cannot be read.
        """
        from sqlalchemy import select

        from corral.db.tables import container_models, containers

        yard = await self.yard()

        async def work(connection: AsyncConnection) -> dict[str, Standing]:
            inside: dict[str, list[ModelInside]] = {}
            for row in (await connection.execute(select(container_models).filter_by(yard=yard))).mappings():
                model = ModelInside(row["name"], row["digest"], row["size"], row["loaded"])
                inside.setdefault(row["container"], []).append(model)
            rows = (await connection.execute(select(containers).filter_by(yard=yard))).mappings()
            return {row["name"]: _standing(row, inside.get(row["name"], ())) for row in rows}

        return await self._database.read(work)

    def note(self, standing: Standing, spec: str | None, line: Happening | None = None) -> None:
        """How it stands now, what it was made from, and what made it so. Never waits."""
        self._waiting[standing.name] = standing
        self._specs[standing.name] = spec
        self.tell(line)

    def forget(self, name: str, line: Happening | None = None) -> None:
        """It is neither configured nor there any more: its row goes, its history stays. Never waits."""
        self._waiting[name] = None
        self.tell(line)

    def tell(self, line: Happening | None) -> None:
        """Write a line of history. Never waits."""
        if line is not None:
            if len(self._lines) >= _MOST_WAITING:
                self._lines.popleft()
                self._lost += 1
            self._lines.append(line)
        self._there.set()

    async def run(self) -> None:
        """Write what is noted as it comes, until cancelled; a database that fails is tried again."""
        failures, prune_at = 0, self._clock.now() + _PRUNE_EVERY
        while True:
            await self._there.wait()
            try:
                await self.flush()
                if self._clock.now() >= prune_at:
                    prune_at = self._clock.now() + _PRUNE_EVERY
                    await self.prune()
                failures = 0
            except CorralError as error:
                if not failures:
                    _log.warning("what happens to containers is not written down for now: %s", error)
                await self._clock.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])
                failures += 1

    async def flush(self) -> None:
        """Write everything that is noted.

        Raises:
            DatabaseError: it cannot be written; it waits for the next time.
        """
        async with self._writing:
            self._there.clear()
            if not self.waiting:
                return
            rows, lines, versions = dict(self._waiting), list(self._lines), list(self._versions)
            try:
                yard = await self.yard()
                await self._database.write(lambda connection: self._write(connection, yard, rows, lines, versions))
            except BaseException:
                self._there.set()
                raise
            for name, standing in rows.items():
                if self._waiting.get(name) is standing:
                    del self._waiting[name]
            del self._versions[: len(versions)]
            for line in lines:
                if self._lines and self._lines[0] is line:  # else it was given up meanwhile
                    self._lines.popleft()
            if self._lost:
                _log.warning("%d lines of the containers' history were given up", self._lost)
                self._lost = 0

    async def history(self, name: str, limit: int) -> list[Happening]:
        """The last `limit` things that happened to it, newest first.

        Raises:
            DatabaseError: they cannot be read.
        """
        from sqlalchemy import select

        from corral.db.tables import container_history as table

        yard = await self.yard()
        query = select(table).filter_by(yard=yard, container=name).order_by(table.c.number.desc()).limit(limit)

        async def work(connection: AsyncConnection) -> list[Happening]:
            return [_happening(row) for row in (await connection.execute(query)).mappings()]

        waiting = [line for line in reversed(self._lines) if line.name == name]
        return [*waiting, *await self._database.read(work)][:limit]

    async def versions(self, name: str) -> list[dict[str, Any]]:
        """The versions of its image (`model` None) and of its models, newest first.

        Raises:
            DatabaseError: they cannot be read.
        """
        from sqlalchemy import select

        from corral.db.tables import container_versions as table

        columns = (table.c.model, table.c.version, table.c.reference, table.c.status, table.c.reason, table.c.at)
        yard = await self.yard()
        query = select(*columns).filter_by(yard=yard, container=name).order_by(table.c.number.desc()).limit(KEPT)

        async def work(connection: AsyncConnection) -> list[dict[str, Any]]:
            rows = (await connection.execute(query)).mappings()
            return [{str(column): value for column, value in row.items()} for row in rows]

        return await self._database.read(work)

    def version(
        self, name: str, version: str, reference: str, *, model: str | None = None, failed: str | None = None
    ) -> None:
        """From now on its image, or `model` in it, is `version`; or with `failed` it was tried and undone, and why.

        Nothing is written where that is the current one already. Never waits.
        """
        self._versions.append(_Version(name, version, reference, model, failed, self._clock.wall()))
        self._there.set()

    async def prune(self) -> None:
        """Forget all but the last lines of each container's history.

        Raises:
            DatabaseError: they cannot be deleted.
        """
        from sqlalchemy import delete, func, select

        from corral.db.tables import container_history as table

        yard = await self.yard()
        counts = select(table.c.container).filter_by(yard=yard).group_by(table.c.container).having(func.count() > KEPT)

        async def work(connection: AsyncConnection) -> None:
            for name in (await connection.scalars(counts)).all():
                mine = (table.c.yard == yard, table.c.container == name)
                numbers = select(table.c.number).where(*mine).order_by(table.c.number.desc())
                last = await connection.scalar(numbers.offset(KEPT).limit(1))
                if last is not None:
                    await connection.execute(delete(table).where(*mine, table.c.number <= last))

        await self._database.write(work)

    async def _write(
        self,
        connection: AsyncConnection,
        yard: str,
        rows: Mapping[str, Standing | None],
        lines: Sequence[Happening],
        versions: Sequence[_Version],
    ) -> None:
        from sqlalchemy import delete

        from corral.db.tables import container_history, container_models, containers

        now = self._clock.wall()
        for name, standing in sorted(rows.items()):
            await connection.execute(
                delete(container_models).where(container_models.c.yard == yard, container_models.c.container == name)
            )
            if standing is None:
                await connection.execute(delete(containers).where(containers.c.yard == yard, containers.c.name == name))
                continue
            await _put(connection, containers, _row(standing, self._specs.get(name), now) | {"yard": yard})
            models = [
                {"yard": yard, "container": name, **_inside(model), "last_updated": now}
                for model in {model.name[:200]: model for model in standing.models}.values()
            ]
            if models:
                await connection.execute(_dialect(connection).insert(container_models).on_conflict_do_nothing(), models)
        for version in versions:
            await _change(connection, yard, version)
        if lines:
            await connection.execute(container_history.insert(), [{"yard": yard, **_line(line)} for line in lines])


async def _put(connection: AsyncConnection, table: Table, values: Mapping[str, Any]) -> None:
    """Add a row, or replace the one of its key; when it was first made stays."""
    key = [column.name for column in table.primary_key]
    changed = {name: value for name, value in values.items() if name not in (*key, "created_at")}
    await connection.execute(
        _dialect(connection).insert(table).values(values).on_conflict_do_update(index_elements=key, set_=changed)
    )


async def _change(connection: AsyncConnection, yard: str, change: _Version) -> None:
    """Write a version down, unless it is the current one."""
    from sqlalchemy import select, update

    from corral.db.tables import container_versions as table

    whose = (table.c.yard == yard, table.c.container == change.name, table.c.model.is_not_distinct_from(change.model))
    current = (*whose, table.c.status == "current")
    if change.failed is None:
        if await connection.scalar(select(table.c.version).where(*current)) == change.version:
            return
        await connection.execute(update(table).where(*current).values(status="previous"))
    values = {"yard": yard, "container": change.name, "model": change.model, "version": change.version}
    status, reason = ("current", "") if change.failed is None else ("failed", _storable(change.failed))
    how = {"reference": change.reference, "status": status, "reason": reason, "at": change.at}
    await connection.execute(table.insert().values(**values, **how))


def _dialect(connection: AsyncConnection) -> Any:
    from sqlalchemy.dialects import postgresql, sqlite

    return postgresql if connection.dialect.name == "postgresql" else sqlite


def _row(standing: Standing, spec: str | None, now: float) -> dict[str, Any]:
    return {
        "name": standing.name,
        "container_name": standing.container,
        "container_id": standing.id,
        "kind": standing.kind,
        "purpose": standing.purpose,
        "port": standing.port,
        "image": standing.image,
        "image_id": standing.image_id,
        "installed_version": standing.version,
        "spec": spec,
        "status": "active" if standing.state.active else "inactive",
        "state": str(standing.state),
        "reason": _storable(standing.reason),
        "wanted": standing.wanted,
        "exit_code": standing.exit_code,
        "restarts": standing.restarts,
        "since": standing.since,
        "started_at": standing.started_at,
        "finished_at": standing.finished_at,
        "checked_at": standing.checked_at,
        "previous": standing.previous,
        "created_at": now,
        "last_updated": now,
    }


def _standing(row: RowMapping, models: Iterable[ModelInside]) -> Standing:
    return Standing(
        name=row["name"],
        container=row["container_name"],
        kind=row["kind"],
        state=ContainerState(row["state"]),
        purpose=row["purpose"],
        reason=row["reason"],
        since=row["since"],
        wanted=row["wanted"],
        id=row["container_id"],
        image=row["image"],
        image_id=row["image_id"],
        port=row["port"],
        models=tuple(sorted(models, key=lambda model: model.name)),
        version=row["installed_version"],
        exit_code=row["exit_code"],
        restarts=row["restarts"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        checked_at=row["checked_at"],
        previous=row["previous"],
    )


def _inside(model: ModelInside) -> dict[str, Any]:
    return {"name": model.name[:200], "digest": model.digest, "size": model.size, "loaded": model.loaded}


def _line(line: Happening) -> dict[str, Any]:
    return {
        "container": line.name,
        "at": line.at,
        "what": line.what[:40],
        "before": line.before,
        "after": line.after,
        "reason": _storable(line.reason),
        "detail": dict(line.detail) or None,
    }


def _happening(row: RowMapping) -> Happening:
    return Happening(
        row["at"], row["container"], row["what"], row["before"], row["after"], row["reason"], row["detail"] or {}
    )


def _storable(text: str) -> str:
    """`text` as every database takes it: bounded, and without what PostgreSQL refuses in a text."""
    return text[:_LONGEST].replace("\0", "").encode("utf-8", "replace").decode()
