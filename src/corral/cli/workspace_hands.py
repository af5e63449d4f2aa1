"""Who does what is asked of the workspace: the server that runs, or this process. Both answer in the same words.

A kind of entries is called by its many: `projects`, `contexts`, `pipelines`, `runs`, `artifacts`. Entries are described
as `corral.workspace.described.describe` does; the messages of a run are those of every surface.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import quote, urlencode

from corral.cli.workspace_files import content_of
from corral.cli.workspace_words import ONE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from corral.cli.invocation import Invocation
    from corral.cli.server import File, Server
    from corral.cli.workspace_files import Content

T = TypeVar("T")
Found = dict[str, Any]

_BASE = "/api/v1"
_PAGE = 200


class Hands(Protocol):
    """What can be asked of the workspace.

    Raises (every method):
        CorralError: it cannot be had, or not be done.
    """

    async def page(self, kind: str, asked: Mapping[str, Any]) -> Found:
        """Some entries: `items`, `next`, `total`. `asked` are fields of `Query`, and filters beside them."""
        ...

    async def get(self, kind: str, which: str, *, deleted: bool = False) -> Found:
        """One entry, by id; a project and a pipeline by name, too."""
        ...

    async def create(self, kind: str, fields: Mapping[str, Any]) -> Found:
        """A new entry."""
        ...

    async def change(self, kind: str, which: str, fields: Mapping[str, Any]) -> Found:
        """An entry with other fields."""
        ...

    async def do(self, kind: str, verb: str, which: str, **more: Any) -> Found:
        """`archive`, `restore`, `delete`, `purge`, `duplicate` or `move` an entry; how it is then, or was last."""
        ...

    async def reorder(self, project: str, ids: Sequence[str]) -> list[Found]:
        """The contexts of a project, in that order."""
        ...

    async def put(self, kind: str, which: str, content: Content, media_type: str) -> Found:
        """A context or an artifact with another content."""
        ...

    async def add(self, project: str, name: str, content: Content, kind: str | None) -> Found:
        """An artifact of that name; another edition, where the project has one."""
        ...

    def content(self, kind: str, which: str, edition: int | None = None) -> AsyncGenerator[bytes, None]:
        """The bytes of a context or an artifact, as they come."""
        ...

    async def editions(self, which: str) -> list[Found]:
        """The editions of an artifact."""
        ...

    def exported(self, which: str, form: str) -> AbstractAsyncContextManager[File]:
        """An artifact in a form, which comes within the block."""
        ...

    async def difference(self, one: str, other: str) -> Found:
        """How two artifacts differ."""
        ...

    async def search(self, text: str, project: str | None, kinds: Sequence[str], limit: int) -> list[Found]:
        """Where words are."""
        ...

    def pack(self, project: str) -> AsyncGenerator[bytes, None]:
        """A whole project as an archive."""
        ...

    async def unpack(self, file: Path, name: str | None) -> Found:
        """The project that an archive holds."""
        ...

    async def validate(self, source: str) -> Found:
        """Whether a pipeline can run: `valid`, `name`, `steps`, `inputs`, `issues`."""
        ...

    async def start(self, wish: Mapping[str, Any]) -> Found:
        """A run of a pipeline, queued."""
        ...

    async def rerun(self, run: str, wish: Mapping[str, Any]) -> Found:
        """Another run of the same, queued."""
        ...

    async def repair(self, artifact: str, error: str, model: str | None) -> Found:
        """A run that mends an artifact, queued."""
        ...

    async def steer(self, run: str, verb: str) -> Found:
        """`cancel`, `pause` or `resume` a run."""
        ...

    async def perform(self, run: str) -> None:
        """See a run through, where nobody else does; a server's run goes on by itself."""
        ...

    def watch(self, run: str) -> AsyncGenerator[Found, None]:
        """The messages of a run, from how it stands to its end."""
        ...

    async def steps(self, run: str) -> list[Found]:
        """The steps of a run."""
        ...

    async def compare(self, one: str, other: str) -> Found:
        """Two runs side by side."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class There:
    """The server that runs."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def page(self, kind: str, asked: Mapping[str, Any]) -> Found:
        """Some entries."""
        found = await self._server.question(f"{_BASE}/{kind}?{urlencode(_asked(asked), doseq=True)}", kind)
        return {"items": list(found[kind]), "next": found.get("next"), "total": found.get("total")}

    async def get(self, kind: str, which: str, *, deleted: bool = False) -> Found:
        """One."""
        path = _path(kind, which) + ("?deleted=true" if deleted else "")
        return dict((await self._server.question(path, ONE[kind]))[ONE[kind]])

    async def create(self, kind: str, fields: Mapping[str, Any]) -> Found:
        """A new one."""
        return await self._one("POST", f"{_BASE}/{kind}", kind, fields)

    async def change(self, kind: str, which: str, fields: Mapping[str, Any]) -> Found:
        """One with other fields."""
        return await self._one("PATCH", _path(kind, which), kind, fields)

    async def do(self, kind: str, verb: str, which: str, **more: Any) -> Found:
        """Do it."""
        if verb == "delete":
            return await self._one("DELETE", _path(kind, which), kind)
        if verb == "purge":
            before = await self.get(kind, which, deleted=True)
            await self._server.tell("POST", f"{_path(kind, which)}/purge", "id")
            return before
        return await self._one("POST", f"{_path(kind, which)}/{verb}", kind, more or None)

    async def reorder(self, project: str, ids: Sequence[str]) -> list[Found]:
        """In that order."""
        wish = {"project": project, "ids": list(ids)}
        return list((await self._server.tell("POST", f"{_BASE}/contexts/reorder", "contexts", wish))["contexts"])

    async def put(self, kind: str, which: str, content: Content, media_type: str) -> Found:
        """With another content."""
        path = f"{_path(kind, which)}/content"
        return dict((await self._server.send("PUT", path, ONE[kind], content, media_type))[ONE[kind]])

    async def add(self, project: str, name: str, content: Content, kind: str | None) -> Found:
        """Keep a file."""
        same = (await self.page("artifacts", {"project": project, "name": name, "limit": 1}))["items"]
        if same:
            return await self.put("artifacts", same[0]["id"], content, "application/octet-stream")
        query = urlencode({"project": project, "name": name} | ({} if kind is None else {"kind": kind}))
        found = await self._server.send("POST", f"{_BASE}/artifacts/content?{query}", "artifact", content)
        return dict(found["artifact"])

    def content(self, kind: str, which: str, edition: int | None = None) -> AsyncGenerator[bytes, None]:
        """Its bytes."""
        query = "" if edition is None else f"?edition={edition}"
        return self._server.poured(f"{_path(kind, which)}/content{query}")

    async def editions(self, which: str) -> list[Found]:
        """Its editions."""
        return list((await self._server.question(f"{_path('artifacts', which)}/editions", "editions"))["editions"])

    def exported(self, which: str, form: str) -> AbstractAsyncContextManager[File]:
        """In a form."""
        return self._server.file(f"{_path('artifacts', which)}/export?{urlencode({'form': form})}")

    async def difference(self, one: str, other: str) -> Found:
        """How they differ."""
        path = f"{_path('artifacts', one)}/diff/{quote(other, safe='')}"
        return dict((await self._server.question(path, "diff"))["diff"])

    async def search(self, text: str, project: str | None, kinds: Sequence[str], limit: int) -> list[Found]:
        """Where words are."""
        asked = [("q", text), ("limit", limit), *(("kind", kind) for kind in kinds)]
        asked += [] if project is None else [("project", project)]
        return list((await self._server.question(f"{_BASE}/workspace/search?{urlencode(asked)}", "hits"))["hits"])

    def pack(self, project: str) -> AsyncGenerator[bytes, None]:
        """As an archive."""
        return self._server.poured(f"{_path('projects', project)}/export")

    async def unpack(self, file: Path, name: str | None) -> Found:
        """What an archive holds."""
        query = "" if name is None else f"?{urlencode({'name': name})}"
        path = f"{_BASE}/projects/import{query}"
        with content_of(str(file)) as content:
            return dict((await self._server.send("POST", path, "project", content, "application/zip"))["project"])

    async def validate(self, source: str) -> Found:
        """Whether it can run."""
        found = await self._server.tell("POST", f"{_BASE}/pipelines/validate", "valid", {"source": source})
        return {name: value for name, value in found.items() if name != "success"}

    async def start(self, wish: Mapping[str, Any]) -> Found:
        """Queue it."""
        return await self._one("POST", f"{_BASE}/runs", "runs", wish)

    async def rerun(self, run: str, wish: Mapping[str, Any]) -> Found:
        """Queue another."""
        return await self._one("POST", f"{_path('runs', run)}/rerun", "runs", wish)

    async def repair(self, artifact: str, error: str, model: str | None) -> Found:
        """Queue it."""
        wish = {"error": error} | ({} if model is None else {"model": model})
        return await self._one("POST", f"{_path('artifacts', artifact)}/repair", "runs", wish)

    async def steer(self, run: str, verb: str) -> Found:
        """Do it."""
        return await self._one("POST", f"{_path('runs', run)}/{verb}", "runs")

    async def perform(self, run: str) -> None:
        """The server does it."""

    async def watch(self, run: str) -> AsyncGenerator[Found, None]:
        """Its messages."""
        async with aclosing(self._server.told(f"{_path('runs', run)}/events")) as told:
            async for message in told:
                yield message
                if message.get("type") == "end":
                    return

    async def steps(self, run: str) -> list[Found]:
        """Its steps."""
        return list((await self._server.question(f"{_path('runs', run)}/steps", "steps"))["steps"])

    async def compare(self, one: str, other: str) -> Found:
        """Side by side."""
        path = f"{_path('runs', one)}/compare/{quote(other, safe='')}"
        return dict((await self._server.question(path, "comparison"))["comparison"])

    async def close(self) -> None:
        """Hang up."""
        await self._server.close()

    async def _one(self, method: str, path: str, kind: str, body: Mapping[str, Any] | None = None) -> Found:
        return dict((await self._server.tell(method, path, ONE[kind], body))[ONE[kind]])


_SPELLED = {"tags": "tag", "search": "q"}
"""What fields of a `Query` are called in an address."""


def _asked(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What a list is asked for, as its address has it."""
    found = {}
    for name, value in asked.items():
        word = "any" if name == "archived" and value is None else value
        found[_SPELLED.get(name, name)] = str(word).lower() if isinstance(word, bool) else word
    return found


def _path(kind: str, which: str) -> str:
    return f"{_BASE}/{kind}/{quote(which, safe='')}"


async def every(workers: Hands, kind: str, asked: Mapping[str, Any]) -> list[Found]:
    """All entries that fit, page by page."""
    found: list[Found] = []
    cursor: str | None = None
    while True:
        page = await workers.page(kind, {**asked, "limit": _PAGE} | ({} if cursor is None else {"cursor": cursor}))
        found += page["items"]
        cursor = page["next"]
        if cursor is None:
            return found


def hands(given: Invocation) -> Hands:
    """The server that runs, or this process."""
    if given.running() is not None:
        from corral.cli.server import Server

        return There(Server.of(given))
    from corral.cli.workspace_here import Here

    return Here(given)


def ask(given: Invocation, question: Callable[[Hands], Awaitable[T]]) -> T:
    """Put a question to whoever can answer it, and wait for the answer.

    Raises:
        CorralError: what was answered.
    """

    async def talk() -> T:
        workers = hands(given)
        try:
            return await question(workers)
        finally:
            await workers.close()

    return asyncio.run(talk())
