"""One database, reached asynchronously: `corral.db` in the home (SQLite, WAL), or PostgreSQL.

Its library is imported when the database is opened: it is a third of the memory of a server that has none yet.

Work on it is a function of a connection. It runs in one transaction, and once begun it is brought to its end even when
whoever waits for it is cancelled: no driver is left with half a statement. Time limits bound that.

PostgreSQL gives a transaction up when it and another wait for each other (40P01), or when the two cannot have happened
one after the other (40001), and expects that it is tried again. That is done here, for all of Corral and nowhere else.
So work may be called more than once, each time on a database in which it has done nothing yet; it keeps nothing of
what it has seen but in what it returns.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from corral.errors import ConfigError, DatabaseError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
    from pathlib import Path

    from sqlalchemy import Connection
    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds to wait for a lock that another process holds, for a connection, or for an answer of PostgreSQL."""

TRIES = 6
"""How often a transaction is tried that PostgreSQL gives up because of others."""

_GIVEN_UP = frozenset({"40P01", "40001"})
_PAUSE = 0.02
"""Seconds before the second try, at most; each time twice as long, and by chance less: those that met do so no more."""
_LOCK_PAUSE = 0.05


class Database:
    """The database at `url`, or `corral.db` in `home`; opened, and brought up to date, at the first use.

    Safe to be used by many tasks of one loop, and by many processes.

    Args:
        url: `postgresql://…` as libpq reads it, with all of its options; None is SQLite.
        home: Corral's folder.
        patience: seconds to wait for others.

    Raises:
        ConfigError: no database can be meant by `url`, or its driver is not installed.
    """

    def __init__(self, url: str | None, home: Path, *, patience: float = PATIENCE) -> None:
        self.file = None if url else home / "corral.db"
        self._url = _parsed(url) if url else None
        self._patience = patience
        self._make = partial(self._postgresql, url, _asyncpg()) if url else partial(self._sqlite, home / "corral.db")
        self._engine: AsyncEngine | None = None
        self._inode: int | None = None
        self._opening = asyncio.Lock()

    @property
    def place(self) -> str:
        """Where it is, in words that hold no secret."""
        return f"The database {self.file or _shown(self._url)}"

    async def read(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """What `work`, which writes nothing, returns. It may be called again, as for `write`.

        Raises:
            DatabaseError: the database cannot be reached, read or brought up to date.
        """
        return await self._tried(await self._opened(), work, reading=True)

    async def write(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """What `work` returns, once what it wrote is committed; when it raises, nothing is written.

        Where PostgreSQL gives it up because of others, it is called again, `TRIES` times in all: it has no effect but
        on its connection.

        Raises:
            DatabaseError: as `read`; when another process keeps it locked; when it was given up each time.
        """
        return await self._tried(await self._opened(), work, reading=False)

    def stamp(self) -> object | None:
        """Something that is different once anybody has written; None where that cannot be told without asking."""
        if self.file is None:
            return None
        found = []
        for path in (self.file, self.file.with_name(self.file.name + "-wal")):
            with suppress(OSError):
                status = path.stat()
                found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        return tuple(found)

    async def close(self) -> None:
        """Close every connection. It opens again when it is used again."""
        async with self._opening:
            engine, self._engine = self._engine, None
            if engine is not None:
                await _to_the_end(engine.dispose())

    async def _opened(self) -> AsyncEngine:
        if self._engine is None:
            async with self._opening:
                if self._engine is None:
                    self._engine = await self._open()
                    self._inode = self._lies()
        elif self.file is not None and self._lies() != self._inode:
            # What is written to a file without a name is lost, and nobody would know.
            raise DatabaseError(
                f"{self.place} was removed or replaced while it was open.", "Start Corral again; it makes a new one."
            )
        return self._engine

    def _lies(self) -> int | None:
        """The file that lies in its place, by inode."""
        try:
            return None if self.file is None else self.file.stat().st_ino
        except OSError:
            return None

    async def _open(self) -> AsyncEngine:
        with self._translated():
            if self.file is not None:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(self.file, os.O_RDWR | os.O_CREAT, 0o600))  # addresses in it may hold secrets
            engine = self._make()
        try:
            await _to_the_end(self._prepare(engine))
        except BaseException:
            await engine.dispose()
            raise
        return engine

    async def _prepare(self, engine: AsyncEngine) -> None:
        from corral.db.migrations import HEAD, migrate, stored

        have = await self._tried(engine, lambda connection: connection.run_sync(stored), reading=True)
        if have == HEAD:
            return
        async with self._alone():
            if self.file is not None and have is None:
                await self._keep_a_log(engine)
            await self._tried(engine, lambda c: c.run_sync(migrate, self.place), reading=False)

    async def _keep_a_log(self, engine: AsyncEngine) -> None:
        """Write-ahead: readers and one writer do not wait for each other. The file remembers that it is so."""
        with self._translated():
            async with engine.connect() as connection:
                raw = (await connection.get_raw_connection()).driver_connection
                async with raw.execute("PRAGMA journal_mode = WAL"):  # type: ignore[union-attr]  # it is aiosqlite's
                    pass

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Keep other processes from changing the tables of the SQLite file meanwhile."""
        if self.file is None:
            yield
            return
        with self._translated():
            descriptor = os.open(self.file.with_name(self.file.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while True:
                with suppress(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                await asyncio.sleep(_LOCK_PAUSE)
            yield
        finally:
            os.close(descriptor)

    async def _tried(self, engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[T]], *, reading: bool) -> T:
        """A transaction that is tried again when others were in its way. Cancelled between two, nothing is written."""
        for number in range(TRIES - 1):
            try:
                return await _to_the_end(self._transact(engine, work, reading=reading))
            except DatabaseError as error:
                if not _given_up(error.__cause__):
                    raise
            await asyncio.sleep(_PAUSE * 2**number * random.random())  # noqa: S311  # nobody gains by guessing it
        return await _to_the_end(self._transact(engine, work, reading=reading))

    async def _transact(
        self, engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[T]], *, reading: bool
    ) -> T:
        with self._translated():
            async with engine.connect() as connection:
                await connection.execution_options(reading=reading)
                async with connection.begin():
                    return await work(connection)

    def _sqlite(self, file: Path) -> AsyncEngine:
        from sqlalchemy import event
        from sqlalchemy.engine import make_url
        from sqlalchemy.ext.asyncio import create_async_engine

        engine = create_async_engine(
            make_url("sqlite+aiosqlite://").set(database=str(file)),
            connect_args={"timeout": self._patience},
            pool_size=2,
            max_overflow=0,
            hide_parameters=True,
        )
        event.listen(engine.sync_engine, "connect", _set_up)
        event.listen(engine.sync_engine, "begin", _begin)
        return engine

    def _postgresql(self, url: str, connect: Callable[..., Awaitable[Any]]) -> AsyncEngine:
        from sqlalchemy.ext.asyncio import create_async_engine

        limits = {"timeout": self._patience, "command_timeout": self._patience}

        async def connection() -> Any:
            try:
                return await connect(url, server_settings={"application_name": "corral"}, **limits)
            except ValueError as error:  # asyncpg reads the address only now
                why = _without_secrets(str(error), self._url)
                raise ConfigError(f"database.url cannot be used: {why}.", "Write it as libpq reads it.") from None

        return create_async_engine(
            "postgresql+asyncpg://",
            async_creator=connection,
            pool_size=3,
            max_overflow=2,
            pool_timeout=self._patience,
            pool_pre_ping=True,
            hide_parameters=True,
        )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> DatabaseError:
        why = _without_secrets(str(getattr(error, "orig", None) or error), self._url)
        if isinstance(error, TimeoutError):
            why = why or "no answer in time"
        if _given_up(error):
            return DatabaseError(
                f"{self.place} gave this up {TRIES} times, since others change the same: nothing of it is done.",
                "Try again.",
            )
        if self.file is None:
            return DatabaseError(f"{self.place} failed: {why}.", "Check database.url, and that PostgreSQL runs there.")
        if "locked" in why or "busy" in why:
            return DatabaseError(
                f"{self.place} is locked: another process has been writing for {self._patience:g} s.",
                "Try again, or look for a process that hangs.",
            )
        return DatabaseError(f"{self.place} failed: {why}.", "Check the disk and who owns the folder.")


def _set_up(connection: Any, _record: object) -> None:
    """Make a new SQLite connection ours: transactions begin where we say, references count."""
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


def _begin(connection: Connection) -> None:
    """Begin as a writer where something is to be written: who reads first and then writes could meet another writer."""
    reading = connection.get_execution_options().get("reading")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _given_up(error: BaseException | None) -> bool:
    """Whether the database gave a transaction up because of others, so that it may do it the next time."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) in _GIVEN_UP


async def _to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` in a task of its own; when cancelled, wait for its end first."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise


def _parsed(url: str) -> URL:
    """The parts of an address of PostgreSQL."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or parsed.drivername not in {"postgresql", "postgres"}:
        raise ConfigError(
            "database.url is no address of PostgreSQL.",
            "Write it as postgresql://USER:PASSWORD@HOST:5432/DATABASE, or leave it out to use SQLite.",
        )
    return parsed


def _shown(url: URL | None) -> str:
    if url is None:
        return ""
    from sqlalchemy.engine import URL

    host = {"host": url.query["host"]} if "host" in url.query else {}
    bare = URL.create(url.drivername, url.username, None, url.host, url.port, url.database, host)
    return bare.render_as_string()


def _without_secrets(text: str, url: URL | None) -> str:
    secrets = () if url is None else (url.password, url.query.get("password"), url.query.get("passfile"))
    for secret in secrets:
        if isinstance(secret, str) and secret:
            text = text.replace(secret, "…")
    return text.strip().rstrip(".")


def _asyncpg() -> Callable[..., Awaitable[Any]]:
    try:
        from asyncpg import connect
    except ImportError as error:
        raise ConfigError(
            "database.url names PostgreSQL, and its driver asyncpg is not installed.",
            "Install it with: pip install 'corral[postgres]'",
        ) from error
    return connect  # type: ignore[no-any-return]
