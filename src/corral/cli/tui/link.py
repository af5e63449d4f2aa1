"""What the menu asks of the server, beyond what the commands ask."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from corral.cli.server import Server
from corral.domain.operations import Order
from corral.errors import ServerNotRunning, UpstreamError
from corral.kit.sse import Reader

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

_RUNTIME = "/api/v1/runtime"
_CONTAINERS = "/api/v1/containers"
_CATALOG = "/api/v1/models"

SILENCE = 60.0
"""Seconds without a byte; a stream has a sign of life every fifteen."""


class Link(Server):
    """The server, as the menu asks it. Raises what `Server` raises."""

    async def installed(self) -> list[dict[str, Any]]:
        """Every installed model, page by page."""
        found: list[dict[str, Any]] = []
        after: str | None = None
        while True:
            query = urlencode({"limit": "500"} | ({"after": after} if after else {}))
            page = await self.question(f"{_CATALOG}?{query}", "models")
            found += page["models"]
            after = page.get("next")
            if not after:
                return found

    async def stats(self) -> dict[str, Any]:
        """Machine, memory of each device, engines, queues and counters."""
        return await self.question(f"{_RUNTIME}/stats", "machine")

    async def hardware(self, seconds: float) -> dict[str, Any]:
        """The machine now, and the `history` of the last seconds in columns."""
        return await self.question(f"{_RUNTIME}/hardware?history={seconds:g}", "cpu")

    async def decisions(self, limit: int) -> list[dict[str, Any]]:
        """What was decided last, newest first."""
        found = await self.question(f"{_RUNTIME}/decisions?limit={limit}", "decisions")
        return list(found["decisions"])

    async def spent(self, since: str, by: str = "model") -> dict[str, Any]:
        """What was used and what it cost since then."""
        return await self.question(f"/api/v1/usage?{urlencode({'from': since, 'by': by})}", "usage")

    async def budgets(self) -> list[dict[str, Any]]:
        """Every budget in its present period."""
        return list((await self.question("/api/v1/budgets", "budgets"))["budgets"])

    async def receipt(self, request_id: str) -> dict[str, Any]:
        """What was done for one answer."""
        found = await self.question(f"/api/v1/receipts/{quote(request_id, safe='')}", "receipt")
        return dict(found["receipt"])

    async def test(self, name: str) -> dict[str, Any]:
        """A few tokens of a model: `text`, `tokens`, `model`, `receipt`."""
        asked = {"model_name": name, "prompt": "Say hello.", "max_tokens": 8, "temperature": 0}
        return await self.tell("POST", f"{_RUNTIME}/generate", "text", asked)

    async def install(self, what: str) -> str:
        """Begin to install a model; the operation's id."""
        return (await self.submit(Order("install", what, {"what": what}))).id

    async def chat(self, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """First `{"request_id"}`, then the chunks that answer a chat-completions body. Leaving cancels the answer."""
        response = await self._ask("POST", "/v1/chat/completions", body)
        try:
            if response.status >= 400:
                raise self._refusal(await self._document(response))
            yield {"request_id": (response.header(b"x-request-id") or b"").decode("latin-1")}
            async for data in self._events(response):
                if data == "[DONE]":
                    return
                chunk = self._parse(data)
                if "error" in chunk:
                    raise self._refusal(chunk)
                yield chunk
        finally:
            response.close()

    async def containers(self) -> list[dict[str, Any]]:
        """Every container, as `domain.standings.describe` has it."""
        return list((await self.question(_CONTAINERS, "containers"))["containers"])

    async def container(self, name: str, verb: str) -> dict[str, Any]:
        """Start, stop, restart or update a container: what the server says of it."""
        field = "operation_id" if verb == "update" else "container"
        return await self.tell("POST", f"{_CONTAINERS}/{quote(name, safe='')}/{verb}", field)

    async def container_history(self, name: str, limit: int = 50) -> list[dict[str, Any]]:
        """What happened to a container, newest first."""
        path = f"{_CONTAINERS}/{quote(name, safe='')}/history?limit={limit}"
        return list((await self.question(path, "history"))["history"])

    async def container_health(self, name: str) -> dict[str, Any]:
        """Whether the models' own API of a container answers, and what it says to one short question."""
        path = f"{_CONTAINERS}/{quote(name, safe='')}/health?generate=true"
        return dict((await self.question(path, "health"))["health"])

    async def docker(self) -> dict[str, Any]:
        """The Docker engine; raises what is wrong with it."""
        return dict((await self.question(f"{_CONTAINERS}/engine", "engine"))["engine"])

    def container_stats(self, name: str) -> AsyncGenerator[dict[str, Any], None]:
        """What a container takes, again and again."""
        return self.told(f"{_CONTAINERS}/{quote(name, safe='')}/stats?stream=true")

    def container_events(self) -> AsyncGenerator[dict[str, Any], None]:
        """How all containers stand, and then each change."""
        return self.told(f"{_CONTAINERS}/events")

    def container_lines(self, name: str, lines: int) -> AsyncGenerator[list[str], None]:
        """A container's last lines, and those that follow: all that came at once together."""
        query = urlencode({"lines": lines, "follow": "true"})
        return self.lines(f"{_CONTAINERS}/{quote(name, safe='')}/logs?{query}")

    def runtime_events(self) -> AsyncGenerator[dict[str, Any], None]:
        """How it stands in memory, and then each change."""
        return self.told(f"{_RUNTIME}/events")

    async def told(self, path: str) -> AsyncGenerator[dict[str, Any], None]:
        """The events of a path, each an object, until the server ends them; one that is an error is raised."""
        pieces = self.pieces(path)
        async with aclosing(pieces):
            async for piece in pieces:
                for data in piece:
                    content = self._parse(data)
                    if content.get("success") is False:
                        raise self._refusal(content)
                    yield content

    async def lines(self, path: str) -> AsyncGenerator[list[str], None]:
        """The lines of a log that comes as events; all that came in one piece together."""
        pieces = self.pieces(path)
        async with aclosing(pieces):
            async for piece in pieces:
                if piece:
                    yield [self._text(data) for data in piece]

    async def pieces(self, path: str) -> AsyncGenerator[list[str], None]:
        """The data of a path's events, those of one piece together, until the server ends them.

        A server that sends nothing for `SILENCE` seconds, not even a sign of life, counts as gone.
        """
        response = await self._ask("GET", path)
        reader = Reader()
        try:
            if response.status >= 400:
                raise self._refusal(await self._document(response))
            while True:
                async with asyncio.timeout(SILENCE):
                    chunk = await anext(response, None)
                if chunk is None:
                    return
                yield list(reader.feed(chunk))
                await asyncio.sleep(0)  # what has come already is handed out without a pause: keys would wait for it
        except (UpstreamError, TimeoutError) as error:
            raise ServerNotRunning(
                f"The server at {self.url} went away: {str(error) or 'nothing came from it.'}", "Start it: corral serve"
            ) from error
        finally:
            response.close()

    def _text(self, data: str) -> str:
        """A line of a log out of an event; an event that is an error is raised."""
        content = self._parse(data)
        if content.get("success") is False:
            raise self._refusal(content)
        return str(content.get("text", data))
