"""Pages of a project of 10,000 runs and 50,000 artifacts, over the same pages of one of 100 and 100.

    python -m benchmarks.workspace [--rounds N] [--postgresql URL] [--check]

Both projects lie in one database with as much in them as they say; each question fills its page in both. SQLite, and
with `--postgresql` (an empty database), or where PostgreSQL is installed a cluster of this benchmark's own, that too.
Target: at most 3 for every question.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, text

from corral.db.engine import Database
from corral.db.workspace_tables import artifacts, entry_tags, entry_texts, runs, snapshots
from corral.domain.workspace import Page, Project, Query, Run
from corral.kit.clock import SystemClock
from corral.workspace.store import Store
from corral.workspace.words import words_of
from tests.support.database import cluster

if TYPE_CHECKING:
    from sqlalchemy import Table
    from sqlalchemy.ext.asyncio import AsyncConnection

TARGET = 3.0
SIZES = {"small": (100, 100), "large": (10_000, 50_000)}
FULL = 40  # entries of a page
SELDOM = 45
"""Entries with a word, tag or name that is as seldom in the large project as in the small: more than a page."""
TURN = 20  # runs that are written before the artifacts of them are
START = 1_790_000_000.0
TOPICS = ("counter", "chart", "form", "table", "login", "gallery", "editor", "menu")


@dataclass(frozen=True)
class Side:
    """One of the two projects."""

    store: Store
    project: str
    letter: str


def run_rows(side: Side, count: int, source: str, material: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The rows of runs, and by what each is found."""
    for number in range(count):
        at = START + number
        seldom = number * SELDOM // count != (number - 1) * SELDOM // count
        title = f"{TOPICS[number % 8]} number {number}{' quaint' if seldom else ''}"
        row = {
            **dict.fromkeys(
                ("pipeline", "seed", "budget", "operation", "rerun_of", "error", "archived_at", "deleted_at")
            ),
            "id": f"run-{side.letter}{number:011x}",
            "version": 3,
            "created_at": at,
            "updated_at": at,
            "tags": ["seldom"] * seldom + ["often"] * (number % 2),
            "project": side.project,
            "name": TOPICS[number % 8],
            "source": source,
            "title": title,
            "inputs": {"topic": title, "tone": "plain"},
            "material": material,
            "models": {},
            "caller": "local",
            "status": "failed" if seldom else "completed",
            "environment": {"corral": "0.0.0"},
            "reproducible": {},
            "started_at": at,
            "ended_at": at + 1,
            "cost": number * 7919 % 100_003,
            "input_tokens": 900,
            "output_tokens": 150,
            "steps_total": 3,
            "steps_done": 3,
        }
        yield row, title


def artifact_rows(side: Side, count: int, of: int) -> Iterator[tuple[dict[str, Any], str]]:
    """The rows of artifacts, and what is in each."""
    for number in range(count):
        at = START + number
        seldom = number * SELDOM // count != (number - 1) * SELDOM // count
        topic = TOPICS[number % 8]
        body = f"export function {topic.capitalize()}{number}() {{ return <div className='{topic}'>hello</div> }}" * 8
        row = {
            **dict.fromkeys(("archived_at", "deleted_at")),
            "id": f"art-{side.letter}{number:011x}",
            "version": 1,
            "created_at": at,
            "updated_at": at,
            "tags": ["seldom"] * seldom + ["often"] * (number % 2),
            "project": side.project,
            "name": f"src/{topic}/{number:06d}.tsx",
            "kind": "svg" if seldom else "tsx",
            "media_type": "text/plain",
            "digest": f"{number:064x}",
            "size": len(body) + number % 977,
            "number": 1,
            "title": "",
            "run": f"run-{side.letter}{number % of:011x}",
            "step": "code",
        }
        yield row, body + (" quaint" if seldom else "")


async def fill(database: Database, side: Side, counts: tuple[int, int]) -> None:
    """Write the rows of a project, in the form in which the store writes them."""

    async def snapshot(connection: AsyncConnection) -> tuple[str, str]:
        found = (await connection.execute(snapshots.select())).mappings().all()
        by_body = {row["body"][:1]: row["digest"] for row in found}
        return by_body['"'], by_body["["]

    source, material = await database.read(snapshot)
    # In turns, as they come: a run, and what it made.
    made = run_rows(side, counts[0], source, material), artifact_rows(side, counts[1], counts[0])
    for _ in range(0, counts[0], TURN):
        await put(database, runs, "run", side, islice(made[0], TURN))
        await put(database, artifacts, "artifact", side, islice(made[1], TURN * counts[1] // counts[0]))


async def put(
    database: Database, table: Table, kind: str, side: Side, rows: Iterator[tuple[dict[str, Any], str]]
) -> None:
    """Write rows, their tags and their words."""
    while some := [row for row, _ in zip(rows, range(2000), strict=False)]:
        tags = [{"kind": kind, "tag": tag, "entry": row["id"]} for row, _ in some for tag in row["tags"]]
        texts = [
            {
                "entry": row["id"],
                "kind": kind,
                "project": side.project,
                "archived": False,
                "deleted": False,
                "title": row["title"] or row["name"],
                "body": body,
                "words": words_of((row["title"], row["name"], body, *row["tags"]), kind=kind, project=side.project),
            }
            for row, body in some
        ]

        async def work(connection: AsyncConnection, some: Any = some, tags: Any = tags, texts: Any = texts) -> None:
            await connection.execute(insert(table), [row for row, _ in some])
            await connection.execute(insert(entry_tags), tags)
            await connection.execute(insert(entry_texts), texts)

        await database.write(work)


Question = Callable[[Side], Awaitable[Page[Any]]]


def paged(kind: str, **more: Any) -> Question:
    """A question for a page of a kind."""

    async def ask(side: Side) -> Page[Any]:
        page: Page[Any] = await getattr(side.store, kind).page(Query(project=side.project, limit=FULL, **more))
        return page

    return ask


def second(kind: str, **more: Any) -> Question:
    """A question for the page after the middle of a list."""
    cursors: dict[str, str | None] = {}

    async def ask(side: Side) -> Page[Any]:
        if side.letter not in cursors:
            entries = getattr(side.store, kind)
            left = await entries.count(Query(project=side.project, **more)) // 2
            cursor = None
            while left > 0:
                some = Query(project=side.project, limit=min(left, 500), cursor=cursor, **more)
                cursor, left = (await entries.page(some)).next, left - 500
            cursors[side.letter] = cursor
        after = Query(project=side.project, limit=FULL, cursor=cursors[side.letter], **more)
        page: Page[Any] = await getattr(side.store, kind).page(after)
        return page

    return ask


def searched(words: str, **more: Any) -> Question:
    """A question for what has the words."""

    async def ask(side: Side) -> Page[Any]:
        return await side.store.search(words, project=side.project, limit=FULL, **more)

    return ask


QUESTIONS: dict[str, Question] = {
    "runs": paged("runs"),
    "runs, by cost": paged("runs", sort="-cost"),
    "runs, page after": second("runs"),
    "runs with a status, most": paged("runs", filters={"status": "completed"}),
    "runs with a status, few": paged("runs", filters={"status": "failed"}),
    "runs with a tag, half": paged("runs", tags=("often",)),
    "runs with a tag, few": paged("runs", tags=("seldom",)),
    "runs with a word, all": paged("runs", search="number"),
    "runs with a word, few": paged("runs", search="quaint"),
    "artifacts": paged("artifacts"),
    "artifacts, by name": paged("artifacts", sort="name"),
    "artifacts, page after": second("artifacts"),
    "artifacts of a kind, most": paged("artifacts", filters={"kind": "tsx"}),
    "artifacts of a kind, few": paged("artifacts", filters={"kind": "svg"}),
    "artifacts with a tag, half": paged("artifacts", tags=("often",)),
    "artifacts with a tag, few": paged("artifacts", tags=("seldom",)),
    "artifacts with two words, all": paged("artifacts", search="export hello"),
    "artifacts with a word, few": paged("artifacts", search="quaint"),
    "search, all": searched("hello"),
    "search, few": searched("quaint"),
    "search, kind and two words": searched("hello function", kinds=("artifact",)),
}


async def measure(sides: tuple[Side, Side], rounds: int) -> dict[str, tuple[float, float]]:
    """Milliseconds of each question in the small and the large project: medians of rounds in turns."""
    found: dict[str, tuple[float, float]] = {}
    for name, ask in QUESTIONS.items():
        times: tuple[list[float], list[float]] = ([], [])
        sizes = [len((await ask(side)).items) for side in sides]
        if min(sizes) < FULL:
            raise SystemExit(f"{name}: pages of {sizes}, which are not alike")
        for _ in range(rounds):
            for side, kept in zip(sides, times, strict=True):
                started = time.perf_counter()
                await ask(side)
                kept.append((time.perf_counter() - started) * 1000)
        found[name] = (statistics.median(times[0]), statistics.median(times[1]))
    return found


async def compare(url: str | None, rounds: int) -> bool:
    """Fill a database, ask, print; whether every ratio meets the target."""
    with tempfile.TemporaryDirectory(prefix="corral-workspace-") as folder:
        database = Database(url, Path(folder))
        try:
            store = Store(database, Path(folder), SystemClock(), max_artifact=1 << 20)
            sides = []
            for letter, (name, counts) in zip("ab", SIZES.items(), strict=True):
                project = await store.projects.create(Project(id="", name=name))
                material = [{"id": "ctx-1", "kind": "instructions", "name": "how", "text": "Be brief. " * 500}]
                first = Run(id="", project=project.id, name="first", source="steps: {}\n" * 200, material=material)
                await store.runs.create(first)
                sides.append(Side(store, project.id, letter))
                await fill(database, sides[-1], counts)
            if url is not None:
                await database.write(lambda connection: connection.execute(text("ANALYZE")))
            found = await measure((sides[0], sides[1]), rounds)
        finally:
            await database.close()
    print(f"{'PostgreSQL' if url else 'SQLite'}: {SIZES['large']} over {SIZES['small']}", flush=True)
    good = True
    for name, (small, large) in found.items():
        ratio = large / small
        good &= ratio <= TARGET
        print(f"  {name:<32}{small:7.2f} ms {large:7.2f} ms   {ratio:5.2f}{'' if ratio <= TARGET else '  MISSED'}")
    return good


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and say whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--postgresql", metavar="URL")
    parser.add_argument("--check", action="store_true", help="fail when a target is missed")
    asked = parser.parse_args(arguments)
    good = asyncio.run(compare(None, asked.rounds))
    with ExitStack() as stack:
        url = asked.postgresql or stack.enter_context(cluster()).new()
        good &= asyncio.run(compare(url, asked.rounds))
    return 0 if good or not asked.check else 1


if __name__ == "__main__":
    sys.exit(main())
