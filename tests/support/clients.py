"""The official clients of one server.

    with Clients(server.url) as clients:
        said = clients.ask(Chat, Ask("smollm2", "Hello."), stream=True)

Synchronous and asynchronous clients are asked with the same parameters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

import anthropic
import ollama
import openai
from google import genai
from google.genai import types

from tests.support.tongues_openai import Tongue
from tests.support.wishes import Ask, Said


def vectors(client: str, clients: Clients, model: str, texts: list[str], *, sync: bool) -> list[list[float]]:
    """The vectors of `texts`, by that client."""
    calls: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
        "openai": (
            lambda c: c.embeddings.create(model=model, input=texts),
            lambda answer: [each.embedding for each in answer.data],
        ),
        "google": (
            lambda c: c.models.embed_content(model=model, contents=texts),
            lambda answer: [each.values for each in answer.embeddings],
        ),
        "ollama": (
            lambda c: c.embed(model=model, input=texts),
            lambda answer: [list(each) for each in answer.embeddings],
        ),
    }
    call, read = calls[client]
    return list(read(clients.called(client, call, sync=sync)))


class Clients:
    """The clients of one server, kept open; the asynchronous ones in a loop of their own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._made: dict[tuple[str, bool], Any] = {}
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for (name, sync), client in self._made.items():
            if name in ("openai", "anthropic"):
                if sync:
                    client.close()
                else:
                    self._runner.run(client.close())
        self._runner.close()

    def ask(self, tongue: type[Tongue], ask: Ask, *, stream: bool, sync: bool = True) -> Said:
        """What the answer says."""
        answer = self.called(tongue.client, lambda client: tongue.call(client, ask, stream=stream), sync=sync)
        return tongue.pieces(answer) if stream else tongue.whole(answer)

    def called(self, client: str, call: Callable[[Any], Any], *, sync: bool) -> Any:
        """What `call` gives back; of a stream, the list of what came."""
        made = self._client(client, sync=sync)
        if sync:
            answer = call(made)
            return list(answer) if _streams(answer, "__next__") else answer

        async def awaited() -> Any:
            answer = await call(made)
            return [each async for each in answer] if _streams(answer, "__anext__") else answer

        return self._runner.run(awaited())

    def _client(self, name: str, *, sync: bool) -> Any:
        if (name, sync) not in self._made:
            self._made[name, sync] = self._make(name, sync=sync)
        return self._made[name, sync]

    def _make(self, name: str, *, sync: bool) -> Any:
        rest: dict[str, Any] = {"api_key": "none", "max_retries": 0, "timeout": 60}
        if name == "openai":
            return (openai.OpenAI if sync else openai.AsyncOpenAI)(base_url=self._url + "/v1", **rest)
        if name == "anthropic":
            return (anthropic.Anthropic if sync else anthropic.AsyncAnthropic)(base_url=self._url, **rest)
        if name == "ollama":
            return (ollama.Client if sync else ollama.AsyncClient)(self._url, timeout=60)
        options = types.HttpOptions(base_url=self._url, timeout=60_000)
        client = genai.Client(api_key="none", http_options=options)
        self._made["google root", True] = client
        return client if sync else client.aio


def _streams(answer: Any, method: str) -> bool:
    return hasattr(type(answer), method)
