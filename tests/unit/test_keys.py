"""Keys of clients: what is found in memory, what is written down, and what other processes change."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import fields
from pathlib import Path

import pytest
from sqlalchemy import select

from corral.db.engine import Database
from corral.db.tables import keys as table
from corral.domain.callers import LOCAL, Caller, Scope
from corral.domain.keys import KeyState, KeyWish, describe
from corral.errors import DatabaseError, InvalidRequest, KeyNotFound
from corral.routing.audit import TERMINAL, Actor, Audit
from corral.routing.keys import Keys, may_use
from tests.support.clocks import HandClock, settle


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(None, tmp_path)
    yield opened
    await opened.close()


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Database]:
    """The same file, as another process has it."""
    opened = Database(None, tmp_path)
    yield opened
    await opened.close()


@pytest.fixture
def keys(database: Database, clock: HandClock) -> Keys:
    return Keys(database, clock)


FULL = KeyWish("ci", Scope.MANAGE, ("smol*",), ("web", "docs"), 60, 1000, 4, True)


async def test_a_key_is_found_and_is_what_was_wished(keys: Keys) -> None:
    key, secret = await keys.create(FULL, TERMINAL)

    caller = keys.find(secret.encode())

    assert caller is not None
    assert (caller.id, caller.name, caller.scope, caller.project) == (key.id, "ci", Scope.MANAGE, "web")
    assert (caller.models, caller.projects) == (("smol*",), ("web", "docs"))
    assert (caller.requests, caller.tokens, caller.parallel, caller.strict) == (60, 1000, 4, True)
    assert secret.startswith("ck-")
    assert len(secret) == 46
    assert key.shown == secret[:9]
    assert keys.find(secret.encode()) is caller
    for wrong in (secret[:-1], secret + "x", secret.upper(), "", "ck-"):
        assert keys.find(wrong.encode()) is None


async def test_the_key_itself_is_nowhere(keys: Keys, tmp_path: Path) -> None:
    _, secret = await keys.create(FULL, TERMINAL)
    _, second = await keys.rotate("ci", TERMINAL)

    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())

    assert hashlib.sha256(second.encode()).hexdigest().encode() in written
    for key in (secret, second):
        assert key.encode() not in written
        assert key[9:].encode() not in written


async def test_no_database_is_made_to_look_for_keys(keys: Keys, tmp_path: Path) -> None:
    await keys.refresh()
    assert await keys.all() == []
    assert not keys.exist
    assert not keys.live
    assert list(tmp_path.iterdir()) == []


async def test_an_expired_key_opens_nothing_but_a_key_still_exists(keys: Keys, clock: HandClock) -> None:
    _, secret = await keys.create(KeyWish("ci", expires_at=clock.wall() + 10), TERMINAL)
    clock.time += 9.5
    assert keys.find(secret.encode()) is not None
    clock.time += 0.5

    assert keys.find(secret.encode()) is None
    assert keys.why(secret.encode()) == "The key has expired."
    assert keys.exist
    assert not keys.live


async def test_a_rotated_key_counts_for_its_grace(keys: Keys, clock: HandClock) -> None:
    made, old = await keys.create(KeyWish("ci"), TERMINAL)
    rotated, new = await keys.rotate("ci", TERMINAL, grace=60)
    before, after = keys.find(old.encode()), keys.find(new.encode())

    assert rotated.id == made.id
    assert before is after is not None
    clock.time += 60
    assert keys.find(old.encode()) is None
    assert keys.find(new.encode()) is after
    _, newest = await keys.rotate("ci", TERMINAL, grace=0)
    assert keys.find(new.encode()) is None
    assert keys.find(newest.encode()) is not None


async def test_a_revoked_key_opens_nothing_in_either_form(keys: Keys, clock: HandClock) -> None:
    _, old = await keys.create(KeyWish("ci"), TERMINAL)
    _, new = await keys.rotate("ci", TERMINAL)
    first = await keys.revoke("ci", TERMINAL)
    clock.time += 5

    assert keys.find(old.encode()) is keys.find(new.encode()) is None
    assert (await keys.revoke("ci", TERMINAL)).revoked_at == first.revoked_at
    with pytest.raises(KeyNotFound, match="revoked"):
        await keys.rotate("ci", TERMINAL)
    assert (await keys.get("ci")).state(clock.wall()) is KeyState.REVOKED
    assert keys.exist


async def test_a_forgotten_key_is_gone(keys: Keys) -> None:
    key, secret = await keys.create(KeyWish("ci"), TERMINAL)
    await keys.delete(key.id, TERMINAL)

    assert keys.find(secret.encode()) is None
    assert not keys.exist
    with pytest.raises(KeyNotFound, match="no key"):
        await keys.get(key.id)


async def test_a_change_holds_at_once_and_for_the_changed_key_only(keys: Keys) -> None:
    _, secret = await keys.create(KeyWish("ci", requests=5), TERMINAL)
    _, still = await keys.create(KeyWish("other"), TERMINAL)
    before, other = keys.find(secret.encode()), keys.find(still.encode())

    await keys.change("ci", {"requests": None, "models": ("gemini-*",)}, TERMINAL)

    after = keys.find(secret.encode())
    assert before is not None
    assert after is not None
    assert (before.requests, after.requests, after.models) == (5, None, ("gemini-*",))
    assert keys.find(still.encode()) is other


async def test_names_may_be_used_again_and_ids_may_be_begun(keys: Keys) -> None:
    first, _ = await keys.create(KeyWish("ci"), TERMINAL)
    await keys.revoke("ci", TERMINAL)
    second, _ = await keys.create(KeyWish("ci"), TERMINAL)

    assert (await keys.get("ci")).id == second.id
    assert (await keys.get(first.id)).id == first.id
    assert (await keys.get(first.id[:12])).id == first.id
    await keys.create(KeyWish("ci"), TERMINAL)
    with pytest.raises(KeyNotFound, match="2 keys are meant"):
        await keys.get("ci")
    with pytest.raises(KeyNotFound, match="no key"):
        await keys.get("key-")


async def test_what_another_process_changes_is_known_within_a_second(
    keys: Keys, other: Database, clock: HandClock
) -> None:
    running = asyncio.ensure_future(keys.run())
    theirs = Keys(other, clock)
    _, secret = await theirs.create(KeyWish("ci"), TERMINAL)
    assert keys.find(secret.encode()) is None

    await seen(clock, lambda: keys.find(secret.encode()) is not None)
    await theirs.revoke("ci", TERMINAL)
    await seen(clock, lambda: keys.find(secret.encode()) is None)
    await theirs.delete("ci", TERMINAL)
    await seen(clock, lambda: not keys.exist)

    running.cancel()
    await asyncio.wait([running])


async def seen(clock: HandClock, true: object) -> None:
    """Let one second pass, and the database answer."""
    assert callable(true)
    await clock.advance(1.0)
    for _ in range(100_000):
        if true():
            return
        await asyncio.sleep(0)
    raise AssertionError("it was not noticed")


async def test_unknown_keys_cause_a_look_each_quarter_of_a_second(
    keys: Keys, other: Database, clock: HandClock
) -> None:
    await Keys(other, clock).create(KeyWish("first"), TERMINAL)
    await keys.look_again()
    _, secret = await Keys(other, clock).create(KeyWish("ci"), TERMINAL)

    await asyncio.gather(*(keys.look_again() for _ in range(20)))
    assert keys.find(secret.encode()) is None
    clock.time += 0.25
    await keys.look_again()
    assert keys.find(secret.encode()) is not None


async def test_when_it_was_used_is_written_in_batches_and_at_the_end(
    keys: Keys, database: Database, clock: HandClock
) -> None:
    key, secret = await keys.create(KeyWish("ci"), TERMINAL)
    running = asyncio.ensure_future(keys.run())
    await settle()
    keys.find(secret.encode())
    assert (await keys.get("ci")).used_at is None

    clock.time += 3
    running.cancel()
    await asyncio.wait([running])

    assert (await keys.get("ci")).used_at == clock.wall()
    assert await keys.flush() is None
    assert (await keys.get(key.id)).used_at == clock.wall()


async def test_keys_that_cannot_be_read_are_a_problem_until_they_can(tmp_path: Path, clock: HandClock) -> None:
    file = tmp_path / "corral.db"
    file.write_bytes(b"this is no database" * 100)
    database = Database(None, tmp_path)
    keys = Keys(database, clock)
    with pytest.raises(DatabaseError):
        await keys.refresh()
    assert keys.problem is not None

    file.unlink()
    await keys.create(KeyWish("ci"), TERMINAL)
    assert keys.problem is None
    await database.close()


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        (KeyWish(""), "name"),
        (KeyWish("  "), "name"),
        (KeyWish("a\nb"), "name"),
        (KeyWish("x" * 101), "name"),
        (KeyWish("\ud800"), "name"),
        (KeyWish("ci", models=("",)), "models"),
        (KeyWish("ci", models=("x" * 201,)), "models"),
        (KeyWish("ci", models=("a",) * 101), "models"),
        (KeyWish("ci", projects=("a b",)), "projects"),
        (KeyWish("ci", projects=("-a",)), "projects"),
        (KeyWish("ci", projects=("a" * 101,)), "projects"),
        (KeyWish("ci", projects=("a\n",)), "projects"),
        (KeyWish("ci", requests=0), "requests"),
        (KeyWish("ci", tokens=-1), "tokens"),
        (KeyWish("ci", parallel=2**63), "parallel"),
        (KeyWish("ci", expires_at=1.0), "expires_at"),
        (KeyWish("ci", expires_at=float("nan")), "expires_at"),
        (KeyWish("ci", expires_at=float("inf")), "expires_at"),
    ],
)
async def test_what_cannot_be_is_refused_and_nothing_is_written(
    keys: Keys, tmp_path: Path, wish: KeyWish, param: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await keys.create(wish, TERMINAL)
    assert caught.value.param == param
    assert list(tmp_path.iterdir()) == []


async def test_each_change_stands_in_the_audit_log_without_a_secret(
    keys: Keys, database: Database, clock: HandClock
) -> None:
    boss = Actor("key-boss", "req-1")
    key, secret = await keys.create(FULL, boss)
    await keys.change("ci", {"tokens": 7}, boss)
    _, second = await keys.rotate("ci", boss, grace=5)
    await keys.revoke("ci", TERMINAL)
    await keys.delete("ci", TERMINAL)

    log = Audit(database, clock)
    entries = await log.page(10)

    did = [(entry.action, entry.actor, entry.request_id) for entry in reversed(entries)]
    assert did == [
        ("keys.create", "key-boss", "req-1"),
        ("keys.change", "key-boss", "req-1"),
        ("keys.rotate", "key-boss", "req-1"),
        ("keys.revoke", "terminal", None),
        ("keys.delete", "terminal", None),
    ]
    assert {entry.target for entry in entries} == {key.id}
    assert entries[3].detail == {"name": "ci", "tokens": 7}
    assert secret[9:] not in repr(entries)
    assert second[9:] not in repr(entries)
    assert [entry.number for entry in await log.page(2, before=entries[1].number)] == [
        entry.number for entry in entries[2:4]
    ]


async def test_the_audit_log_is_bounded_and_its_last_number_stays(database: Database, clock: HandClock) -> None:
    log = Audit(database, clock)
    await log.record(TERMINAL, "a", "x\0y" + "z" * 2000)
    clock.time += 100
    await log.record(TERMINAL, "b", "\ud800")
    clock.time += 5
    assert await log.prune(50) == 1
    assert [entry.action for entry in await log.page(5)] == ["b"]
    clock.time += 1000
    assert await log.prune(50) == 0
    with pytest.raises(InvalidRequest):
        await log.page(5, before=2**70)


async def test_a_description_names_every_field_and_no_digest(keys: Keys, database: Database) -> None:
    key, _ = await keys.create(FULL, TERMINAL)
    found = describe(key, 0.0)

    assert {field.name for field in fields(KeyWish)} < set(found)
    row = await database.read(lambda c: c.execute(select(table.c.hash)))
    assert row.scalar_one() not in repr(found)


def test_models_are_matched_as_patterns() -> None:
    caller = Caller("key-1", "ci", models=("gemini-*", "smollm2", "org/??"))

    asked = ["gemini-2.5-pro", "smollm2", "org/ab", "Gemini-2", "smollm2x", "org/abc", "", "x" * 10_000]
    assert [model for model in asked if may_use(caller, model)] == ["gemini-2.5-pro", "smollm2", "org/ab"]
    assert may_use(LOCAL, "anything")
    assert may_use(Caller("key-2", "all", models=("*",)), "y" * 10_000)
