"""Lists of the workspace on SQLite and on PostgreSQL: what a page has in it, whatever is asked, in whichever order."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text as sql

from corral.domain.workspace import Artifact, Query, RunBrief, RunStatus
from corral.errors import EntryNotFound, InvalidRequest, UnknownOption
from corral.workspace import listing
from corral.workspace.store import Store
from tests.support import workspaces
from tests.support.database import Cluster
from tests.support.workspaces import Place, artifact, completed, context, made, pipeline, project, run

COUNT = 60
WORDS = ("counter", "chart", "form", "größe")


@pytest.fixture(scope="module", params=workspaces.KINDS)
def running(request: pytest.FixtureRequest) -> Iterator[Cluster | None]:
    yield from workspaces.clusters(request.param)


@pytest.fixture
async def place(running: Cluster | None, tmp_path: Path) -> AsyncIterator[Place]:
    async with workspaces.opened(running, tmp_path) as place:
        await place.store.projects.create(project())
        await place.store.projects.create(project("beta"))
        yield place


@pytest.fixture
def store(place: Place) -> Store:
    return place.store


async def filled(place: Place, chance: random.Random) -> list[tuple[Artifact, str]]:
    """Artifacts of which many are alike in what they are sorted by, and what is in each."""
    found = []
    for number in range(COUNT):
        if chance.random() < 0.5:
            await place.clock.advance(1)
        text = f"{chance.choice(WORDS)} {chance.choice(WORDS)} body{number % 7}"
        entry = artifact(
            f"src/{chance.choice('abÄz')}{number % 5}.tsx",
            of=chance.choice(["atlas", "beta"]),
            kind=chance.choice(["tsx", "css"]),
            tags=tuple(sorted(chance.sample(["x", "y", "z"], chance.randrange(3)))),
        )
        made = await place.store.artifacts.create(entry, text.encode())
        if chance.random() < 0.2:
            made = await place.store.artifacts.archive(made.id)
        if chance.random() < 0.2:
            made = await place.store.artifacts.delete(made.id)
        found.append((made, text))
    return found


def expected(entries: Sequence[tuple[Artifact, str]], query: Query, home: str | None) -> list[Artifact]:
    """What the query asks for, found by looking at every entry."""
    found = []
    for entry, text in entries:
        words = f"{text} {entry.name} {entry.kind}".replace("/", " ").replace(".", " ").split()
        wanted = [
            (entry.deleted_at is not None) == query.deleted,
            query.archived is None or (entry.archived_at is not None) == query.archived,
            home is None or entry.project == home,
            set(query.tags) <= set(entry.tags),
            all(getattr(entry, name) == value for name, value in query.filters.items()),
            all(word in words for word in query.search.split()),
        ]
        if all(wanted):
            found.append(entry)
    name = query.sort.removeprefix("-")
    return sorted(found, key=lambda each: (getattr(each, name), each.id), reverse=query.sort.startswith("-"))


async def walked(place: Place, query: Query, few: int) -> list[Artifact]:
    """All pages, one after the other."""
    found: list[str] = []
    while True:
        asked = query
        rows, following = await place.database.read(
            lambda connection, asked=asked: listing.page(connection, place.store.artifacts.kind, asked, few=few)  # type: ignore[misc]
        )
        assert len(rows) == query.limit or following is None
        found.extend(row["id"] for row in rows)
        if following is None:
            return [await place.store.artifacts.get(each, deleted=True) for each in found]
        query = replace(query, cursor=following)


@pytest.mark.parametrize("few", [0, 3, 400])
async def test_pages_have_what_a_look_at_every_entry_finds(place: Place, few: int) -> None:
    """Whether matches are looked up by their ids, or the order is walked."""
    chance = random.Random(few)
    entries = await filled(place, chance)
    for _ in range(25):
        home = chance.choice([None, "atlas", "beta"])
        query = Query(
            project=home,
            filters=chance.choice([{}, {}, {"kind": "css"}, {"name": "src/b1.tsx"}]),
            tags=chance.choice([(), (), ("x",), ("x", "y")]),
            search=chance.choice(["", "", "counter", "größe form", "body3", "tsx", "absent"]),
            archived=chance.choice([False, True, None]),
            deleted=chance.random() < 0.2,
            sort=chance.choice(["-updated_at", "updated_at", "name", "-name", "size", "-kind"]),
            limit=chance.choice([1, 2, 7, 500]),
        )
        inside = None if home is None else (await place.store.projects.get(home)).id
        wanted = expected(entries, query, inside)

        assert [each.id for each in await walked(place, query, few)] == [each.id for each in wanted], query
        assert await place.store.artifacts.count(query) == len(wanted)
        assert await place.store.artifacts.ids(query, 5) == [each.id for each in wanted][:5]


async def test_a_page_goes_on_where_it_ended_though_others_come_and_go(store: Store) -> None:
    entries = [await store.artifacts.create(artifact(f"{number}.tsx"), b"") for number in range(6)]
    first = await store.artifacts.page(Query(sort="name", limit=3))
    await store.artifacts.create(artifact("00.tsx"), b"")
    await store.artifacts.delete(entries[2].id)
    await store.artifacts.purge(entries[3].id)
    second = await store.artifacts.page(Query(sort="name", limit=3, cursor=first.next))

    assert [each.name for each in second.items] == ["4.tsx", "5.tsx"]
    assert second.next is None


async def test_a_cursor_of_another_list_is_refused(store: Store) -> None:
    for number in range(3):
        await store.artifacts.create(artifact(f"{number}.tsx"), b"")
    cursor = (await store.artifacts.page(Query(sort="name", limit=1))).next
    for query in (Query(sort="-name", cursor=cursor), Query(cursor=cursor), Query(sort="size", cursor=cursor)):
        with pytest.raises(InvalidRequest, match="cursor is none"):
            await store.artifacts.page(query)
    for made_up in ("x", "", "\0", "WyJuYW1lIiwgIlx1MDAwMCIsICJ4Il0", "\ud800"):
        with pytest.raises(InvalidRequest, match="cursor is none"):
            await store.artifacts.page(Query(sort="name", cursor=made_up))
        with pytest.raises(InvalidRequest, match="cursor is none"):
            await store.search("tsx", cursor=made_up)


@pytest.mark.parametrize(
    "query",
    [
        Query(limit=0),
        Query(limit=501),
        Query(sort="digest"),
        Query(sort="id; DROP TABLE artifacts"),
        Query(filters={"nonsense": "x"}),
        Query(filters={"kind": 7}),
        Query(filters={"kind": "a\0"}),
        Query(filters={"kind": ["x"] * 101}),
        Query(filters={"created_after": "yesterday"}),
        Query(filters={"created_after": float("nan")}),
        Query(filters={"created_before": 10**400}),
        Query(tags=("",)),
        Query(search="a\0b"),
        Query(search="\ud800"),
        Query(project="at\0las"),
    ],
)
async def test_what_cannot_be_asked_is_refused(store: Store, query: Query) -> None:
    with pytest.raises(InvalidRequest):
        await store.artifacts.page(query)


async def test_a_filter_that_nobody_knows_names_the_nearest(store: Store) -> None:
    with pytest.raises(UnknownOption, match="'stats' for a list of runs") as caught:
        await store.runs.page(Query(filters={"stats": "failed"}))
    assert "'status'" in caught.value.hint


async def test_a_project_that_is_not_there_has_no_list(store: Store) -> None:
    for name in ("nowhere", "prj-000000000000"):
        with pytest.raises(EntryNotFound):
            await store.artifacts.page(Query(project=name))
        with pytest.raises(EntryNotFound):
            await store.search("x", project=name)


async def test_filters_of_runs(place: Place) -> None:
    store = place.store
    first = await store.runs.create(run(status=RunStatus.FAILED, name="one"))
    await place.clock.advance(10)
    second = await store.runs.create(run(status=RunStatus.COMPLETED, name="two", rerun_of=first.id))

    async def found(**filters: Any) -> list[str]:
        return [each.name for each in (await store.runs.page(Query(filters=filters, sort="name"))).items]

    assert await found(status="failed") == ["one"]
    assert await found(status=["failed", RunStatus.COMPLETED]) == ["one", "two"]
    assert await found(rerun_of=first.id) == ["two"]
    assert await found(rerun_of=None) == ["one"]
    assert await found(created_after=first.created_at) == ["two"]
    assert await found(created_before=second.created_at) == ["one"]
    assert await found(status=[]) == []


async def test_words_find_every_kind_of_entry(store: Store) -> None:
    await store.projects.change("atlas", {"description": "quaint maps"})
    told = await store.contexts.create(context("Be Quaint and brief."))
    shared = await store.pipelines.create(pipeline(description="a quaint page"))
    entry = await store.runs.create(run(inputs={"topic": ["quaint"]}))
    (part,) = await store.runs.commit(completed(entry.id), [made(content=b"export function QuaintMap() {}")])

    hits = (await store.search("quaint")).items
    assert [(hit.kind, hit.id) for hit in hits] == [
        ("artifact", part.id),
        ("run", entry.id),
        ("pipeline", shared.id),
        ("context", told.id),
        ("project", entry.project),
    ]
    assert (hits[0].title, hits[0].excerpt) == ("src/App.tsx", "export function QuaintMap() {}")
    assert (hits[2].project, hits[0].project) == (None, entry.project)
    assert [hit.kind for hit in (await store.search("quaint", kinds=("run", "context"))).items] == ["run", "context"]
    assert [hit.kind for hit in (await store.search("quaint maps")).items] == ["project"]
    assert [hit.kind for hit in (await store.search("quaintm*")).items] == ["artifact"]
    assert len((await store.search("quaint", project="atlas")).items) == 3
    assert (await store.search("quaint", project="beta")).items == ()


async def test_a_search_is_continued(store: Store) -> None:
    entries = [await store.artifacts.create(artifact(f"{number}.tsx"), b"same words") for number in range(5)]
    first = await store.search("same", limit=2)
    second = await store.search("same", limit=2, cursor=first.next)
    third = await store.search("same", limit=2, cursor=second.next)

    found = [hit.id for page in (first, second, third) for hit in page.items]
    assert found == [each.id for each in reversed(entries)]
    assert third.next is None


@pytest.mark.parametrize(
    "text",
    ["'", '"', "\\", "a' | 'b", '" OR "', "NEAR(a b)", "a:b", "^a", "-a", "a AND", "%", "&", "!a", "é" * 5000, "*"],
)
async def test_no_words_break_a_search(store: Store, text: str) -> None:
    await store.artifacts.create(artifact(), f"{text} plain".encode())
    found = await store.search(text)
    assert len(found.items) == (1 if any(letter.isalnum() for letter in text) else 0)
    assert await store.artifacts.count(Query(search=text)) == len(found.items)
    assert len((await store.search("plain")).items) == 1


async def test_a_list_of_runs_reads_nothing_of_what_they_were_given(place: Place) -> None:
    given = {"inputs": {"text": "long"}, "environment": {"corral": "1"}, "material": ({"id": "ctx"},)}
    for number in range(3):
        entry = run(title=f"counter {number}", tags=("x",), status=RunStatus.COMPLETED, **given)
        await place.store.runs.create(replace(entry, source=f"steps: {number}"))
        await place.clock.advance(1)
    whole = (await place.store.runs.page(Query(sort="created_at"))).items
    asked = [Query(), Query(tags=("x",)), Query(search="counter"), Query(filters={"status": "completed"})]
    before = [(await place.store.runs.page(replace(each, sort="created_at"))).items for each in asked]
    assert [each.source for each in whole] == ["steps: 0", "steps: 1", "steps: 2"]
    assert before == [whole] * 4

    async def lose(connection: Any) -> None:
        """Take away what no list needs, so that whoever reads it is told by the database."""
        await connection.execute(sql("DROP TABLE snapshots"))
        for index in ("runs_by_source", "runs_by_material"):
            await connection.execute(sql(f"DROP INDEX {index}"))
        for column in ("source", "material", "inputs", "environment", "reproducible"):
            await connection.execute(sql(f"ALTER TABLE runs DROP COLUMN {column}"))

    await place.database.write(lose)

    briefly = [{each.name: getattr(entry, each.name) for each in fields(RunBrief)} for entry in whole]
    for query in asked:
        first = await place.store.runs.listed(replace(query, sort="created_at", limit=2))
        then = await place.store.runs.listed(replace(query, sort="created_at", cursor=first.next))
        assert [asdict(entry) for entry in (*first.items, *then.items)] == briefly
        assert [len(first.items), len(then.items), then.next] == [2, 1, None]
    assert await place.store.runs.count(Query()) == 3
