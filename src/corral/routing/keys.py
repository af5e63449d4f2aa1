"""Keys of clients: found in memory by what they hash to, kept in the database, which other processes change, too.

A key is `ck-` and 43 characters, 256 random bits. It is shown once. What is kept is its SHA-256: a number that random
needs no slow hash, and a look into a dict of such digests tells whoever measures it nothing that leads to a key.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from corral.domain.keys import Key, KeyState, KeyWish
from corral.errors import CorralError, DatabaseError, InvalidRequest, KeyNotFound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from corral.db.engine import Database
    from corral.domain.callers import Caller
    from corral.domain.ports import Clock
    from corral.routing.audit import Actor
    from corral.routing.key_rows import Book, Row

T = TypeVar("T")

PREFIX = b"ck-"
PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What a project may be called."""

GRACE = 24 * 3600.0
"""Seconds for which a key still counts after it was rotated, where nobody says."""

_SHOWN = 9
_LOOK_EVERY = 1.0
_LOOK_AGAIN = 0.25
"""Least seconds between two looks that unknown keys cause."""
_WRITE_EVERY = 10.0
"""Seconds between two writes of when keys were last used."""
_LARGEST = 2**53
_LONGEST_MODEL = 200

_log = logging.getLogger("corral.keys")


class Keys:
    """The keys of one database.

    `find`, `why`, `exist` and `live` look into memory, which `refresh` and, while it runs, `run` keep up to date. Every
    change is written together with its entry in the audit log, by whose numbers other processes notice it.

    Args:
        database: where they are kept; not opened before it is needed.
        clock: time.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._callers: dict[bytes, tuple[Caller, float | None]] = {}
        self._keys: dict[str, Key] = {}
        self._by_id: dict[str, Caller] = {}
        self._used: set[str] = set()
        self._stamp: object | None = None
        self._version: int | None = None
        self._looked = float("-inf")
        self._looking = asyncio.Lock()
        self.problem: DatabaseError | None = None
        """Why nothing is known of keys yet, though a database is there."""

    @property
    def exist(self) -> bool:
        """Whether there is any key, valid or not."""
        return bool(self._keys)

    @property
    def live(self) -> bool:
        """Whether anybody has a key that is valid now."""
        now = self._clock.wall()
        return any(key.state(now) is KeyState.LIVE for key in self._keys.values())

    def find(self, key: bytes) -> Caller | None:
        """Whose key that is; None where it is nobody's, expired or revoked. The same object until the key changes."""
        found = self._callers.get(hashlib.sha256(key).digest())
        if found is None:
            return None
        caller, until = found
        if until is not None and self._clock.wall() >= until:
            return None
        self._used.add(caller.id)
        return caller

    def holder(self, identifier: str) -> Caller | None:
        """Who has the key of that id, for work that goes on without it; None where it is gone, expired or revoked."""
        key = self._keys.get(identifier)
        live = key is not None and key.state(self._clock.wall()) is KeyState.LIVE
        return self._by_id.get(identifier) if live else None

    def why(self, key: bytes) -> str:
        """Why `find` does not find it, for whoever has it."""
        found = self._callers.get(hashlib.sha256(key).digest())
        return "The key is not valid." if found is None else "The key has expired."

    async def refresh(self) -> None:
        """Read the keys, if they may have changed since they were read last.

        Raises:
            DatabaseError: they cannot be read; what was known stays.
        """
        async with self._looking:
            await self._look()

    async def look_again(self) -> None:
        """As `refresh`, for a key that is unknown: at most once in a quarter of a second, others wait for that one."""
        async with self._looking:
            if self._clock.now() - self._looked >= _LOOK_AGAIN:
                await self._look()

    async def run(self) -> None:
        """Look for changes of other processes, and write down when keys were used, until cancelled."""
        written = self._clock.now()
        failed = False
        try:
            while True:
                await self._clock.sleep(_LOOK_EVERY)
                try:
                    await self.refresh()
                    if self._clock.now() - written >= _WRITE_EVERY:
                        written = self._clock.now()
                        await self.flush()
                    failed = False
                except CorralError as error:
                    if not failed:
                        _log.warning("keys are as they were last known: %s", error)
                    failed = True
        finally:
            await self._last_words()

    async def _last_words(self) -> None:
        try:
            await self.flush()
        except CorralError as error:
            _log.warning("when keys were used last is not written down: %s", error)

    async def flush(self) -> None:
        """Write down which keys were used since the last time.

        Raises:
            DatabaseError: they stay to be written.
        """
        used = self._used & self._keys.keys()
        self._used = set()
        if not used:
            return
        try:
            await self._book().use(used, self._clock.wall())
        except BaseException:
            self._used |= used
            raise

    async def all(self) -> list[Key]:
        """Every key as the database has it, oldest first."""
        return [row.key for row in await self._book().all()] if self._there() else []

    async def get(self, what: str) -> Key:
        """The key that `what` means: an id, the beginning of one, or the name of one that is not revoked.

        Raises:
            KeyNotFound: there is none, or several.
        """
        return _meant(what, await self.all())

    async def create(self, wish: KeyWish, actor: Actor) -> tuple[Key, str]:
        """Make a key; it, and what the client is to be given, which nothing can show again.

        Raises:
            InvalidRequest: it cannot be as it is wished.
        """
        now = self._clock.wall()
        check(wish, now)
        secret = _new()
        key = Key(f"key-{secrets.token_hex(6)}", wish, secret[:_SHOWN], now)
        await self._changed(lambda book: book.add(key, _digest(secret), actor))
        return key, secret

    async def change(self, what: str, changes: Mapping[str, Any], actor: Actor) -> Key:
        """Make a key other than it was: `changes` are fields of its `KeyWish`.

        Raises:
            KeyNotFound: there is none.
            InvalidRequest: it cannot be so.
        """
        from dataclasses import replace

        key = await self.get(what)
        wish = replace(key.wish, **changes)
        check(wish, self._clock.wall() if "expires_at" in changes else 0.0)
        return await self._changed(lambda book: book.change(key.id, wish, sorted(changes), actor, self._clock.wall()))

    async def rotate(self, what: str, actor: Actor, grace: float = GRACE) -> tuple[Key, str]:
        """Give a key's client another in its place: name, budgets and limits stay. The old one counts `grace` seconds.

        Raises:
            KeyNotFound: there is none, or it is revoked.
            InvalidRequest: `grace` is no length of time.
        """
        if not 0 <= grace <= _LARGEST:
            raise InvalidRequest("The time for which the old key still counts must not be negative.", param="grace")
        key = await self.get(what)
        secret, now = _new(), self._clock.wall()
        if key.revoked_at is None:
            key = await self._changed(
                lambda book: book.rotate(key.id, _digest(secret), secret[:_SHOWN], now, now + grace, actor)
            )
        if key.revoked_at is not None:  # before, or since it was read: what was made opens nothing
            raise KeyNotFound(f"The key {key.wish.name!r} is revoked.", "Make another: corral keys create NAME")
        return key, secret

    async def revoke(self, what: str, actor: Actor) -> Key:
        """Let a key open nothing any more; what it used stays in the books. One that is revoked stays so.

        Raises:
            KeyNotFound: there is none.
        """
        key = await self.get(what)
        return await self._changed(lambda book: book.revoke(key.id, self._clock.wall(), actor))

    async def delete(self, what: str, actor: Actor) -> Key:
        """Forget a key.

        Raises:
            KeyNotFound: there is none.
        """
        key = await self.get(what)
        await self._changed(lambda book: book.delete(key.id, self._clock.wall(), actor))
        return key

    async def _changed(self, work: Callable[[Book], Awaitable[T]]) -> T:
        """Do it, and know of it at once."""
        result = await work(self._book())
        try:
            await self.refresh()
        except DatabaseError as error:  # it is done, and a secret that was made must reach whoever asked for it
            _log.warning("keys are as they were last known: %s", error)
        return result

    async def _look(self) -> None:
        self._looked = self._clock.now()
        if not self._there():
            return
        stamp = self._database.stamp()
        if stamp is not None and stamp == self._stamp and self._version is not None:
            return
        try:
            version, rows = await self._book().since(self._version)
        except DatabaseError as error:
            if self._version is None:
                self.problem = error
            raise
        self.problem = None
        # The stamp was taken first: what is written meanwhile is seen the next time.
        self._version, self._stamp = version, stamp
        if rows is not None:
            self._take(rows)

    def _take(self, rows: list[Row]) -> None:
        callers: dict[bytes, tuple[Caller, float | None]] = {}
        by_id = {}
        for row in rows:
            key, before = row.key, self._keys.get(row.key.id)
            same = before is not None and before.wish == key.wish
            by_id[key.id] = caller = self._by_id[key.id] if same else key.caller()
            if key.revoked_at is not None:
                continue
            callers[bytes.fromhex(row.hash)] = (caller, caller.expires_at)
            if row.previous is not None and key.previous_until is not None:
                ends = [end for end in (key.previous_until, caller.expires_at) if end is not None]
                callers[bytes.fromhex(row.previous)] = (caller, min(ends))
        self._callers, self._by_id, self._keys = callers, by_id, {row.key.id: row.key for row in rows}

    def _there(self) -> bool:
        """Whether there is a database: to look for keys is no reason to make one."""
        return self._database.file is None or self._database.file.exists()

    def _book(self) -> Book:
        from corral.routing.key_rows import Book

        return Book(self._database)


def may_use(caller: Caller, model: str) -> bool:
    """Whether the caller may ask for that model. Quick: what was asked once is remembered."""
    patterns = caller.models
    if not patterns:
        return True
    if len(model) > _LONGEST_MODEL:
        return _matches.__wrapped__(patterns, model)  # what a client made up is not worth the memory
    return _matches(patterns, model)


def seen_by(caller: Caller) -> Callable[[str], bool] | None:
    """Says of a model whether the caller may know of it; None where it may know of all."""
    return (lambda model: may_use(caller, model)) if caller.models else None


@lru_cache(4096)
def _matches(patterns: tuple[str, ...], model: str) -> bool:
    return any(fnmatchcase(model, pattern) for pattern in patterns)


def check(wish: KeyWish, now: float) -> None:
    """Refuse what cannot be kept or would mean nothing.

    Raises:
        InvalidRequest: says what, and how it is to be.
    """
    if not wish.name.isprintable() or not 0 < len(wish.name.strip()) <= 100:
        raise InvalidRequest("A key's name must be printable, and have 1 to 100 characters.", param="name")
    if len(wish.models) > 100 or not all(p.isprintable() and 0 < len(p) <= _LONGEST_MODEL for p in wish.models):
        raise InvalidRequest(
            "A key has at most 100 patterns of models, printable, of 1 to 200 characters each.", param="models"
        )
    if len(wish.projects) > 100 or not all(map(PROJECT.fullmatch, wish.projects)):
        raise InvalidRequest(
            "A project's name has letters, digits, `.`, `_` and `-`, at most 100 of them, and a key at most 100 names.",
            param="projects",
        )
    for what in ("requests", "tokens", "parallel"):
        value = getattr(wish, what)
        if value is not None and not 0 < value <= _LARGEST:
            raise InvalidRequest(f"{what} must be at least 1.", "Leave it out for no limit.", param=what)
    if wish.expires_at is not None and not now < wish.expires_at <= _LARGEST:
        raise InvalidRequest("A key must expire in the future.", param="expires_at")


def _meant(what: str, known: list[Key]) -> Key:
    named = [key for key in known if key.wish.name == what]
    begun = [key for key in known if len(what) > len("key-") and key.id.startswith(what)]
    choices = (
        [key for key in known if key.id == what],
        [key for key in named if key.revoked_at is None],
        named,
        begun,
    )
    found = next((choice for choice in choices if choice), [])
    if len(found) == 1:
        return found[0]
    if found:
        ids = f"{found[0].id}, {found[1].id}{', …' if len(found) > 2 else ''}"
        raise KeyNotFound(f"{len(found)} keys are meant by {what[:100]!r}.", f"Name one by its id: {ids}")
    raise KeyNotFound(f"There is no key {what[:100]!r}.", "See them: corral keys list")


def _new() -> str:
    return PREFIX.decode() + secrets.token_urlsafe(32)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
