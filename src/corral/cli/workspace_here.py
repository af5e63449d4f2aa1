"""The workspace of this home, asked by this process; what models answer is done by engines of this process."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

from corral.cli.server import File
from corral.cli.workspace_files import whole
from corral.domain.money import NANO
from corral.kit.disk import in_thread
from corral.studio import Workspace
from corral.workspace.described import describe, findings
from corral.workspace.pipelines.order import RunOrder

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from pathlib import Path

    from corral.cli.invocation import Invocation
    from corral.cli.workspace_files import Content
    from corral.studio.kept import Kept

Found = dict[str, Any]


class Here:
    """As `corral.cli.workspace_hands.Hands`."""

    def __init__(self, given: Invocation) -> None:
        self._all = Workspace(settings=given.settings(), env=given.env)
        self._parts = self._all.corral.workspace

    async def page(self, kind: str, asked: Mapping[str, Any]) -> Found:
        """Some entries."""
        page = await self._kept(kind).page(**asked)
        return {"items": [describe(item) for item in page.items], "next": page.next, "total": page.total}

    async def get(self, kind: str, which: str, *, deleted: bool = False) -> Found:
        """One."""
        return describe(await self._kept(kind).get(which, deleted=deleted))

    async def create(self, kind: str, fields: Mapping[str, Any]) -> Found:
        """A new one."""
        given = _tupled(fields)
        match kind:
            case "projects":
                made: Any = await self._all.projects.create(**given)
            case "contexts":
                made = await self._all.contexts.create(given.pop("project"), given.pop("kind"), **given)
            case _:
                made = await self._all.pipelines.create(given.pop("source"), **given)
        return describe(made)

    async def change(self, kind: str, which: str, fields: Mapping[str, Any]) -> Found:
        """One with other fields."""
        return describe(await self._kept(kind).change(which, **_tupled(fields)))

    async def do(self, kind: str, verb: str, which: str, **more: Any) -> Found:
        """Do it."""
        return describe(await getattr(self._kept(kind), {"delete": "remove"}.get(verb, verb))(which, **more))

    async def reorder(self, project: str, ids: Sequence[str]) -> list[Found]:
        """In that order."""
        return [describe(each) for each in await self._all.contexts.reorder(project, ids)]

    async def put(self, kind: str, which: str, content: Content, media_type: str) -> Found:
        """With another content."""
        read = await self._read(content)
        if kind == "contexts":
            return describe(await self._all.contexts.put(which, read, media_type=media_type))
        return describe(await self._all.artifacts.edit(which, read))

    async def add(self, project: str, name: str, content: Content, kind: str | None) -> Found:
        """Keep a file."""
        return describe(await self._all.artifacts.put(project, name, await self._read(content), kind=kind))

    async def content(self, kind: str, which: str, edition: int | None = None) -> AsyncGenerator[bytes, None]:
        """Its bytes."""
        if kind == "contexts":
            yield await self._all.contexts.content(which)
        else:
            yield await self._all.artifacts.content(which, edition)

    async def editions(self, which: str) -> list[Found]:
        """Its editions."""
        return [describe(each) for each in await self._all.artifacts.editions(which)]

    @asynccontextmanager
    async def exported(self, which: str, form: str) -> AsyncGenerator[File, None]:
        """In a form."""
        exported = await self._all.artifacts.export(which, form)
        yield File(exported.name, whole(exported.content), exported.notes)

    async def difference(self, one: str, other: str) -> Found:
        """How they differ."""
        return dict(await self._all.artifacts.diff(one, other))

    async def search(self, text: str, project: str | None, kinds: Sequence[str], limit: int) -> list[Found]:
        """Where words are."""
        return [describe(hit) for hit in await self._all.search(text, project=project, kinds=kinds, limit=limit)]

    async def pack(self, project: str) -> AsyncGenerator[bytes, None]:
        """As an archive."""
        from corral.workspace.exports.archive import export_project

        found = await self._all.projects.get(project)
        async for piece in export_project(self._parts.store, found.id):
            yield piece

    async def unpack(self, file: Path, name: str | None) -> Found:
        """What an archive holds."""
        return describe(await self._all.load(file, name=name))

    async def validate(self, source: str) -> Found:
        """Whether it can run."""
        return findings(await self._parts.validate(source))

    async def start(self, wish: Mapping[str, Any]) -> Found:
        """Queue it."""
        given = _tupled(wish)
        budget = given.pop("budget_usd", None)
        order = RunOrder(budget=None if budget is None else round(budget * NANO), **given)
        return describe(await self._parts.start(order))

    async def rerun(self, run: str, wish: Mapping[str, Any]) -> Found:
        """Queue another."""
        return describe(await self._parts.rerun(run, **wish))

    async def repair(self, artifact: str, error: str, model: str | None) -> Found:
        """Queue it."""
        return describe(await self._parts.repair(artifact, error, model=model))

    async def steer(self, run: str, verb: str) -> Found:
        """Do it."""
        return describe(await getattr(self._parts, verb)(run))

    async def perform(self, run: str) -> None:
        """Do the run."""
        await self._all.perform(run)

    async def watch(self, run: str) -> AsyncGenerator[Found, None]:
        """Its messages."""
        async with aclosing(self._all.watch(run)) as messages:
            async for message in messages:
                yield message

    async def steps(self, run: str) -> list[Found]:
        """Its steps."""
        return [describe(step) for step in await self._parts.store.runs.steps(run)]

    async def compare(self, one: str, other: str) -> Found:
        """Side by side."""
        return await self._all.compare(one, other)

    async def close(self) -> None:
        """Stop the engines of this process."""
        await asyncio.shield(self._all.close())

    async def _read(self, content: Content) -> bytes:
        """All of it, where that may be kept.

        Raises:
            BodyTooLarge: it is more than `workspace.max_artifact`.
        """
        self._parts.store.contents.check(content.size)
        return await in_thread(content.read)

    def _kept(self, kind: str) -> Kept[Any, Any]:
        found: Kept[Any, Any] = getattr(self._all, kind)
        return found


def _tupled(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields as entries have them."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
