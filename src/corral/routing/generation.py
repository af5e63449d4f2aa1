"""One generation, whole or as a stream: the engine asked, its answer understood, and another model where that fails.

A model that cannot be had (it is not there, its engine cannot be started or broke, its vendor refuses or is away) is
replaced by the next one that the configuration names for it, as long as nothing of an answer has come. What was asked
before stands in the receipt.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from corral.domain.generation import Reply
from corral.domain.models import Capability
from corral.domain.receipts import Fallback, Receipt
from corral.errors import (
    CorralError,
    EngineError,
    InvalidRequest,
    NotFound,
    UpstreamError,
    UpstreamProtocol,
    UpstreamUnreachable,
)
from corral.kit.identity import request_ids
from corral.kit.sse import Reader
from corral.routing.dispatch import Ask

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

    from corral.domain.generation import GenerationConfig
    from corral.routing.dispatch import Answer, Dispatcher

T = TypeVar("T")

_CHAT = "/chat/completions"
_NEEDS = frozenset((Capability.CHAT,))
_ELSEWHERE = (NotFound, EngineError, UpstreamError)
"""Errors that say of a model that it cannot be had; any other would meet the next model as well."""
_VENDORS_OWN = frozenset({401, 402, 403, 404, 408, 429})
"""Statuses by which a server refuses whoever asks, and not what is asked."""


async def first_of(names: Sequence[str], attempt: Callable[[str, tuple[Fallback, ...]], Awaitable[T]]) -> T:
    """What `attempt` makes of the first of `names` that can be had; it is told of those before.

    Raises:
        CorralError: none of them can be had; the error of the first, which also says why not the others.
    """
    missed: list[Fallback] = []
    first: CorralError | None = None
    for name in names:
        try:
            return await attempt(name, tuple(missed))
        except _ELSEWHERE as error:
            first = first or error
            missed.append(Fallback(name, error.code, error.message))
    if first is None:
        raise ValueError("no name")
    if len(missed) == 1:
        raise first
    rest = " ".join(f"In its place {miss.model!r} was asked: {miss.message}" for miss in missed[1:])
    raise type(first)(f"{first.message} {rest}", first.hint, retry_after=first.retry_after) from first


class Generator:
    """Asks models for text, by way of a dispatcher.

    Args:
        dispatcher: has the engines.
        fallbacks: the models to ask in the place of one that cannot be had.
    """

    def __init__(self, dispatcher: Dispatcher, fallbacks: Callable[[str], Sequence[str]] = lambda _: ()) -> None:
        self._dispatcher = dispatcher
        self._fallbacks = fallbacks
        self._ids = request_ids()

    def names(self, name: str) -> tuple[str, ...]:
        """The models to ask when `name` is asked for, each once."""
        return tuple(dict.fromkeys((name, *self._fallbacks(name))))

    async def whole(self, name: str, config: GenerationConfig, request_id: str | None = None) -> Reply:
        """The whole answer of model `name`, or of one that stands in for it.

        Raises:
            CorralError: none can be had, or the engine refused what was asked.
        """

        async def attempt(model: str, missed: tuple[Fallback, ...]) -> Reply:
            ask = Ask(model, _CHAT, config.body(model, stream=False), needs=_NEEDS, keep_alive=config.keep_alive)
            while True:
                answer = await self._dispatcher.open(ask)
                try:
                    found = document(answer.response.status, await answer.response.read())
                    return _reply(found, self._receipt(ask, answer, missed, request_id))
                except UpstreamUnreachable as error:
                    failure = error
                finally:
                    answer.close()
                await self._dispatcher.recover(ask, answer.engine, failure)

        return await first_of(self.names(name), attempt)

    async def open(
        self, body: Mapping[str, Any], request_id: str | None = None, *, keep_alive: float | None = None
    ) -> Stream:
        """The answer to a chat-completions body with `stream` set, its first chunk there. Whoever has it closes it.

        `keep_alive` as in GenerationConfig.

        Raises:
            CorralError: as `whole`.
        """

        async def attempt(model: str, missed: tuple[Fallback, ...]) -> Stream:
            ask = Ask(model, _CHAT, {**body, "model": model}, needs=_NEEDS, keep_alive=keep_alive)
            while True:
                answer = await self._dispatcher.open(ask)
                stream = Stream(answer, self._dispatcher, self._receipt(ask, answer, missed, request_id))
                try:
                    await stream.begin()
                except UpstreamUnreachable as error:
                    failure = error
                else:
                    return stream
                await self._dispatcher.recover(ask, answer.engine, failure)

        return await first_of(self.names(str(body["model"])), attempt)

    def _receipt(self, ask: Ask, answer: Answer, missed: tuple[Fallback, ...], request_id: str | None) -> Receipt:
        engine = answer.engine
        return Receipt(
            request_id=request_id or next(self._ids),
            model=ask.model,
            runtime=engine.runtime,
            revision=engine.revision,
            engine=engine.id,
            context=engine.session.facts.context,
            wait_ms=ask.wait_ms,
            attempts=ask.attempts,
            ignored=ask.ignored,
            fallbacks=missed,
        )


class Stream:
    """An answer that is coming. `receipt` grows with it, and is whole when the chunks have ended."""

    def __init__(self, answer: Answer, dispatcher: Dispatcher, receipt: Receipt) -> None:
        self.receipt = receipt
        self._answer = answer
        self._dispatcher = dispatcher
        self._coming = _chunks(answer)
        self._first: dict[str, Any] | None = None

    async def begin(self) -> None:
        """Wait for the first chunk, which `chunks` then gives.

        Raises:
            CorralError: the engine refused or failed before it; the stream is closed.
        """
        response, begun = self._answer.response, False
        try:
            if response.status >= 400:
                document(response.status, await response.read())
            self._first = await anext(self._coming, None)
            begun = True
        finally:
            if not begun:
                await self.close()

    async def chunks(self) -> AsyncGenerator[dict[str, Any], None]:
        """The answer's chunks, in OpenAI's form.

        Raises:
            CorralError: the engine failed in mid-answer; EngineDied when it ended.
        """
        if self._first is None:
            return
        first, self._first = self._first, None
        yield self._noted(first)
        try:
            async for chunk in self._coming:
                yield self._noted(chunk)
        except UpstreamUnreachable as error:
            raise await self._dispatcher.explain(self._answer.engine, error) from error

    async def texts(self) -> AsyncGenerator[str, None]:
        """The answer's text, piece by piece; errors as `chunks`."""
        async with aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                for choice in chunk.get("choices") or ():
                    text = (choice.get("delta") or {}).get("content")
                    if text:
                        yield text

    async def close(self) -> None:
        """Have the engine stop if it is still writing. Idempotent."""
        self._answer.close()  # first: whoever is cancelled does not get further than this
        await self._coming.aclose()

    def _noted(self, chunk: dict[str, Any]) -> dict[str, Any]:
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
            self.receipt = replace(self.receipt, prompt_tokens=read, completion_tokens=written)
        for choice in chunk.get("choices") or ():
            if choice.get("finish_reason"):
                self.receipt = replace(self.receipt, finish_reason=choice["finish_reason"])
        return chunk


def document(status: int, body: bytes) -> dict[str, Any]:
    """The engine's JSON answer, or its error as one of ours.

    Raises:
        InvalidRequest: it refuses what is asked.
        UpstreamError: it failed, or refuses who asks; UpstreamProtocol for what is no answer.
    """
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UpstreamProtocol(f"The engine answered {status} with something that is not JSON.") from error
    if not isinstance(found, dict):
        raise UpstreamProtocol(f"The engine answered {status} with JSON that is no object.")
    if status >= 400 or found.get("error"):
        raise _refusal(status, found.get("error"))
    choices = found.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise UpstreamProtocol("The engine's answer holds no choices.")
    return found


def _reply(found: Mapping[str, Any], receipt: Receipt) -> Reply:
    choice = found["choices"][0]
    usage = found.get("usage") or {}
    message = choice.get("message") or {}
    return Reply(
        text=message.get("content") or "",
        tokens=usage.get("completion_tokens") or 0,
        receipt=replace(
            receipt,
            prompt_tokens=usage.get("prompt_tokens"),
            completion_tokens=usage.get("completion_tokens"),
            finish_reason=choice.get("finish_reason"),
        ),
        tool_calls=tuple(message.get("tool_calls") or ()),
    )


def _refusal(status: int, detail: Any) -> CorralError:
    message = detail.get("message") if isinstance(detail, dict) else detail
    text = f"The engine refused: {message}" if message else f"The engine answered {status}."
    if 400 <= status < 500 and status not in _VENDORS_OWN:
        return InvalidRequest(text)
    return UpstreamError(text)


async def _chunks(answer: Answer) -> AsyncGenerator[dict[str, Any], None]:
    reader = Reader()
    async for piece in answer.response:
        for data in reader.feed(piece):
            if data == "[DONE]":
                return
            try:
                chunk = orjson.loads(data)
            except orjson.JSONDecodeError as error:
                raise UpstreamProtocol("The engine sent an event that is not JSON.") from error
            if not isinstance(chunk, dict):
                raise UpstreamProtocol("The engine sent an event that is no object.")
            if chunk.get("error"):
                raise _refusal(500, chunk["error"])
            yield chunk
