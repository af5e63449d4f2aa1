"""Where answers come from: the running server, or engines of this very process."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from corral.cli.chat.conversation import Answer
    from corral.cli.server import Server
    from corral.manager import ModelManager


class Talker(Protocol):
    """Somebody who answers. Every method raises CorralError."""

    def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks of the answer to a chat-completions body. Leaving early, or cancelling, stops the model."""
        ...

    async def describe(self, model: str) -> Mapping[str, Any]:
        """What is known of a model; ModelNotFound when nothing is."""
        ...

    async def models(self) -> list[str]:
        """The models that can be asked."""
        ...

    async def close(self) -> None:
        """Let go of what was opened for talking."""
        ...


class ServerTalker:
    """Answers from a running server, which keeps its models when the talk is over."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """As the port says."""
        return self._server.stream(body)

    async def describe(self, model: str) -> Mapping[str, Any]:
        """As the port says."""
        return await self._server.model(model)

    async def models(self) -> list[str]:
        """As the port says."""
        return [str(model["name"]) for model in await self._server.models()]

    async def close(self) -> None:
        """Close the connections."""
        await self._server.close()


class LocalTalker:
    """Answers from engines of this process, which are stopped when the talk is over."""

    def __init__(self, manager: ModelManager) -> None:
        self._manager = manager

    def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """As the port says."""
        return self._manager.stream(body)

    async def describe(self, model: str) -> Mapping[str, Any]:
        """As the port says."""
        definition = self._manager.corral.definition(model)
        revision = definition.installed.revision if definition.installed else None
        known = {"name": model, "runtime": definition.runtime}
        if revision is None:
            return known
        return {**known, "revision": revision.id, "size": revision.size, "capabilities": sorted(revision.capabilities)}

    async def models(self) -> list[str]:
        """As the port says."""
        return self._manager.models()

    async def close(self) -> None:
        """Stop the engines."""
        await self._manager.close()


async def listen(
    talker: Talker,
    body: Mapping[str, Any],
    answer: Answer,
    hear: Callable[[str, str], None],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Take the whole answer to `body` into `answer`, telling `hear` each piece of reasoning and text as it comes.

    When it fails or is cancelled, what came before is in `answer`, and the model has been stopped.
    """
    answer.asked_at = clock()
    chunks = talker.stream(body)
    async with aclosing(chunks):
        async for chunk in chunks:
            thought, said = answer.take(chunk, clock())
            if thought or said:
                hear(thought, said)
