"""Several who write at once, and steps that are written down exactly once; on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from corral.domain.workspace import Artifact, Query, RunStatus, StepStatus
from corral.errors import Conflict, CorralError, InvalidName, Stale
from tests.support import workspaces
from tests.support.database import Cluster
from tests.support.workspaces import Place, artifact, completed, context, made, project, run


@pytest.fixture(scope="module", params=workspaces.KINDS)
def running(request: pytest.FixtureRequest) -> Iterator[Cluster | None]:
    yield from workspaces.clusters(request.param)


@pytest.fixture
async def place(running: Cluster | None, tmp_path: Path) -> AsyncIterator[Place]:
    async with workspaces.opened(running, tmp_path) as place:
        await place.store.projects.create(project())
        yield place


async def test_of_two_who_change_what_both_have_seen_one_is_told(place: Place) -> None:
    entry = await place.store.artifacts.create(artifact(), b"")
    async with place.another() as other:
        writers = [
            (place.store, other)[number % 2].artifacts.change(entry.id, {"title": f"t{number}"}, version=1)
            for number in range(8)
        ]
        done = await asyncio.gather(*writers, return_exceptions=True)

    stale = [each for each in done if isinstance(each, Stale)]
    (won,) = [each for each in done if isinstance(each, Artifact)]
    assert len(stale) == 7
    assert await place.store.artifacts.get(entry.id) == won
    assert won.version == 2


async def test_of_those_who_change_without_looking_none_is_lost(place: Place) -> None:
    entry = await place.store.artifacts.create(artifact(), b"")
    async with place.another() as other:
        stores = (place.store, other)
        await asyncio.gather(
            *(stores[n % 2].artifacts.edit(entry.id, f"{n}".encode()) for n in range(6)),
            *(stores[n % 2].artifacts.change(entry.id, {"title": f"t{n}"}) for n in range(6)),
        )

    kept = await place.store.artifacts.get(entry.id)
    assert (kept.version, kept.number) == (13, 7)
    editions = await place.store.artifacts.editions(entry.id)
    assert [each.number for each in editions] == [1, 2, 3, 4, 5, 6, 7]
    assert editions[-1].digest == kept.digest


async def test_one_of_those_who_want_a_name_gets_it(place: Place) -> None:
    async with place.another() as other:
        stores = (place.store, other)
        tries = (stores[number % 2].projects.create(project("beta")) for number in range(6))
        done = await asyncio.gather(*tries, return_exceptions=True)

    assert sorted(type(each).__name__ for each in done) == ["Conflict"] * 5 + ["Project"]
    assert await place.store.projects.count(Query()) == 2


async def test_who_reorders_and_who_changes_wait_for_each_other(place: Place) -> None:
    contexts = [await place.store.contexts.create(context(name=f"c{number}")) for number in range(5)]
    ids = [each.id for each in contexts]
    async with place.another() as other:
        await asyncio.gather(
            place.store.contexts.reorder("atlas", ids[::-1]),
            other.contexts.reorder("atlas", ids[2:]),
            *(other.contexts.change(each, {"text": "new"}) for each in ids),
        )

    listed = (await place.store.contexts.page(Query(sort="position"))).items
    assert [each.position for each in listed] == [1, 2, 3, 4, 5]
    assert {each.text for each in listed} == {"new"}


async def test_a_step_is_committed_once_whoever_tries(place: Place) -> None:
    entry = await place.store.runs.create(run(status=RunStatus.RUNNING))
    paid: list[str] = []

    async def pay(_connection: object) -> None:
        paid.append("once")

    async with place.another() as other:
        tries = [
            (place.store, other)[number % 2].runs.commit(completed(entry.id), [made(), made("b.css", b"two")], pay)
            for number in range(6)
        ]
        done = await asyncio.gather(*tries)

    assert len({tuple(each.id for each in found) for found in map(_by_name, done)}) == 1
    assert paid == ["once"]
    assert [each.name for each in await place.store.artifacts.of_run(entry.id)] == ["b.css", "src/App.tsx"]
    kept = await place.store.runs.get(entry.id)
    assert (kept.cost, kept.input_tokens, kept.output_tokens) == (7, 3, 2)
    assert (kept.steps_done, kept.steps_total) == (1, 1)


def _by_name(found: list[Artifact]) -> list[Artifact]:
    return sorted(found, key=lambda each: each.name)


async def test_steps_that_end_together_are_all_in_the_sum(place: Place) -> None:
    entry = await place.store.runs.create(run())
    async with place.another() as other:
        stores = (place.store, other)
        ends = (stores[n % 2].runs.commit(completed(entry.id, f"s[{n}]", index=n), [made()]) for n in range(8))
        await asyncio.gather(*ends)

    kept = await place.store.runs.get(entry.id)
    assert (kept.cost, kept.input_tokens, kept.steps_done) == (56, 24, 8)
    assert len(await place.store.artifacts.of_run(entry.id)) == 8


async def test_what_also_writes_is_in_the_same_transaction(place: Place) -> None:
    entry = await place.store.runs.create(run())

    async def mark(connection: Any) -> None:
        await connection.execute(text("UPDATE projects SET description = 'paid'"))

    async def fail(connection: Any) -> None:
        await mark(connection)
        raise LookupError("midway")

    with pytest.raises(LookupError):
        await place.store.runs.commit(completed(entry.id), [made()], fail)
    assert await place.store.runs.steps(entry.id) == []
    assert await place.store.artifacts.of_run(entry.id) == []
    assert (await place.store.projects.get("atlas")).description == ""
    await place.store.runs.commit(completed(entry.id), [made()], mark)
    assert (await place.store.projects.get("atlas")).description == "paid"


async def test_a_failed_step_may_be_done_again(place: Place) -> None:
    entry = await place.store.runs.create(run())
    failed = completed(entry.id, status=StepStatus.FAILED, error={"code": "timeout"}, cost=2)
    assert await place.store.runs.commit(failed) == []
    assert (await place.store.runs.get(entry.id)).cost == 2
    await place.store.runs.commit(completed(entry.id, cost=9), [made()])

    (step,) = await place.store.runs.steps(entry.id)
    assert (step.status, step.error) == (StepStatus.COMPLETED, None)
    assert (await place.store.runs.get(entry.id)).cost == 9


async def test_what_a_repair_made_is_an_edition(place: Place) -> None:
    store = place.store
    first = await store.runs.create(run())
    (broken,) = await store.runs.commit(completed(first.id), [made(content=b"broken", problems=({"line": 1},))])
    repair = await store.runs.create(run(name="repair"))
    (repaired,) = await store.runs.commit(
        completed(repair.id, "repair", model="m", request_id="r-1"), [made(content=b"whole", edition_of=broken.id)]
    )

    assert (repaired.id, repaired.number, repaired.run) == (broken.id, 2, first.id)
    assert [each.id for each in await store.artifacts.of_run(repair.id)] == [broken.id]
    one, two = await store.artifacts.editions(broken.id)
    assert (one.problems, two.run, two.step, two.model) == (({"line": 1},), repair.id, "repair", "m")
    (alone,) = await store.runs.commit(completed(repair.id, "other"), [made(edition_of="art-000000000000")])
    assert (alone.number, alone.run) == (1, repair.id)  # of what is gone it is no edition, and is kept all the same


async def test_files_that_a_model_calls_the_same_have_names_of_their_own(place: Place) -> None:
    entry = await place.store.runs.create(run())
    several = [made("src/App.tsx", b"1"), made("src/App.tsx", b"2"), made("src/App.tsx", b"3"), made("README", b"4")]
    found = await place.store.runs.commit(completed(entry.id), [*several, made("README", b"5")])

    assert [each.name for each in found] == ["src/App.tsx", "src/App-2.tsx", "src/App-3.tsx", "README", "README-2"]
    long = [f"src/{'x' * 192}{suffix}" for suffix in (".tsx", ".tsx", ".tsx")]
    assert len(long[0]) <= 200
    found = await place.store.runs.commit(completed(entry.id, "long"), [made(each) for each in long])
    assert [(each.name[-6:], len(each.name) <= 200) for each in found] == [
        ("xx.tsx", True),
        ("-2.tsx", True),
        ("-3.tsx", True),
    ]
    for name in ("../up", "/root", "a//b", "", ".", "a\0b", "x" * 201):
        with pytest.raises(InvalidName):
            await place.store.runs.commit(completed(entry.id, "bad"), [made(name)])


async def test_a_project_that_goes_takes_what_comes_at_that_moment(place: Place) -> None:
    """Either it came before, and went with the project, or it is refused: nothing stays without its project."""
    async with place.another() as other:
        creating = (other.artifacts.create(artifact(f"{number}.tsx"), b"") for number in range(10))
        done = await asyncio.gather(place.store.projects.purge("atlas"), *creating, return_exceptions=True)

    assert not [each for each in done if isinstance(each, BaseException) and not isinstance(each, CorralError)]
    assert await place.store.artifacts.count(Query(archived=None)) == 0
    assert await place.store.artifacts.count(Query(archived=None, deleted=True)) == 0


async def test_what_a_model_wrote_is_kept_however_odd(place: Place) -> None:
    entry = await place.store.runs.create(run())
    odd = "nul \0 half \ud800 bear 🐻"
    step = completed(
        entry.id, output=odd, value={"a": [odd]}, request={"messages": [odd]}, reason=odd, tries=[{"error": odd}]
    )
    (part,) = await place.store.runs.commit(step, [replace(made(), title=odd + "\n" * 300, problems=({"m": odd},))])

    (kept,) = await place.store.runs.steps(entry.id)
    mended = "nul \ufffd half \ufffd bear 🐻"
    assert (kept.output, kept.value, kept.reason, kept.tries) == (mended, {"a": [mended]}, mended, ({"error": mended},))
    assert part.title == mended
    with pytest.raises(CorralError) as caught:
        await place.store.contexts.create(context(odd))
    assert "U+0000" in str(caught.value)


async def test_two_who_restore_and_create_a_name_do_not_both_win(place: Place) -> None:
    gone = await place.store.projects.delete("atlas")
    async with place.another() as other:
        done = await asyncio.gather(
            place.store.projects.restore(gone.id), other.projects.create(project()), return_exceptions=True
        )
    assert [isinstance(each, Conflict) for each in done].count(True) == 1
    assert await place.store.projects.count(Query()) == 1
