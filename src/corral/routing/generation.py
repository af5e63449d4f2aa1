"""One generation, whole or as a stream, for callers in Python and for whoever wants a text and no dialect.

It goes the way of every request (see `carrying.py`): another candidate is asked where one cannot be had, as long as
nothing of an answer has come, and all of it stands in the receipt.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from corral.dialects.form import form
from corral.domain.callers import LOCAL
from corral.domain.generation import Reply
from corral.domain.models import Capability
from corral.domain.receipts import Fallback
from corral.errors import CorralError, EngineError, NotFound, UpstreamError, UpstreamProtocol
from corral.kit.identity import request_ids
from corral.kit.relay import Outcome
from corral.kit.sse import Splitter, data_of
from corral.observability.record import receipt
from corral.routing.faults import Refused, refused
from corral.routing.order import Order

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

    from corral.domain.callers import Caller
    from corral.domain.generation import GenerationConfig
    from corral.domain.receipts import Receipt
    from corral.observability.record import Record
    from corral.routing.carrying import Carrier, Carrying
    from corral.routing.order import Keeper
    from corral.routing.passage import Passage

T = TypeVar("T")

_NEEDS = frozenset((Capability.CHAT,))
_ELSEWHERE = (NotFound, EngineError, UpstreamError)
"""Errors that say of a model that it cannot be had; any other would meet the next model as well."""


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
    """Asks models for text.

    Args:
        carrier: carries requests out.
    """

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._ids = request_ids()

    async def whole(
        self, name: str, config: GenerationConfig, request_id: str | None = None, caller: Caller = LOCAL
    ) -> Reply:
        """The whole answer of model `name`, or of one that stands in for it.

        Raises:
            CorralError: none can be had, or the engine refused what was asked.
        """
        order = self._order(name, config.body(name, stream=False), request_id, caller)
        order.keep_alive = config.keep_alive
        carrying = self._carrier.begin(order)
        found, record = await _carried(carrying, _whole)
        return _reply(found, receipt(record))

    async def open(
        self,
        body: Mapping[str, Any],
        request_id: str | None = None,
        *,
        keep_alive: float | None = None,
        caller: Caller = LOCAL,
        keeper: Keeper | None = None,
    ) -> Stream:
        """The answer to a chat-completions body with `stream` set, its first chunk there. Whoever has it closes it.

        `keep_alive` as in GenerationConfig. A `keeper` is told what became of it, at the latest when it is closed.

        Raises:
            CorralError: as `whole`.
        """
        order = self._order(str(body["model"]), dict(body), request_id, caller)
        order.stream, order.keep_alive, order.keeper = True, keep_alive, keeper
        return await _carried(self._carrier.begin(order), _begun)

    def _order(self, name: str, document: dict[str, Any], request_id: str | None, caller: Caller) -> Order:
        limit = document.get("max_tokens")
        return Order(
            request_id or next(self._ids),
            form("openai.chat"),
            name,
            document,
            caller=caller,
            strict=caller.strict,
            needs=_NEEDS,
            max_tokens=limit if isinstance(limit, int) else None,
            started=perf_counter(),
        )


async def _carried(carrying: Carrying, asking: Callable[[Carrying], Awaitable[T]]) -> T:
    """What `asking` gives. Whoever leaves before it does is on record.

    Raises:
        CorralError: as `Generator.whole`.
    """
    try:
        return await asking(carrying)
    except Refused as error:
        raise error.error from error
    except asyncio.CancelledError:
        if carrying.settled is None:
            carrying.gone()
        raise


async def _begun(carrying: Carrying) -> Stream:
    """The answer, its first chunk there."""
    while True:
        passage = await carrying.open()
        stream = Stream(carrying, passage)
        try:
            await stream.begin()
        except UpstreamError as error:
            failure = error
        else:
            return stream
        await carrying.failed(passage, failure)


async def _whole(carrying: Carrying) -> tuple[dict[str, Any], Record]:
    """The answer's document, and what is on record of it."""
    while True:
        passage = await carrying.open()
        outcome = Outcome(status=passage.response.status)
        try:
            body = passage.whole(await passage.response.read())
            found = document(body) if passage.document is None else _with_choices(passage.document)
            outcome.bytes, outcome.chunks, outcome.first_byte_at = len(body), 1, passage.first
            return found, carrying.finish(passage, outcome)
        except UpstreamError as error:
            failure = error
        except asyncio.CancelledError:
            outcome.client_gone = True
            carrying.finish(passage, outcome)
            raise
        finally:
            passage.close()
        await carrying.failed(passage, failure)


class Stream:
    """An answer that is coming. Its receipt is whole when the chunks have ended."""

    def __init__(self, carrying: Carrying, passage: Passage) -> None:
        self._carrying = carrying
        self._passage = passage
        self._outcome = Outcome(status=passage.response.status)
        self._coming = self._read()
        self._first: dict[str, Any] | None = None
        self._record: Record | None = None

    @property
    def model(self) -> str:
        """The model that answers."""
        return self._passage.engine.model

    @property
    def receipt(self) -> Receipt:
        """What was done for the answer, as far as it has come."""
        return receipt(self._record or self._carrying.so_far(self._passage))

    async def begin(self) -> None:
        """Wait for the first chunk, which `chunks` then gives.

        Raises:
            CorralError: the engine refused or failed before it; the stream is closed.
        """
        begun = False
        try:
            self._first = await anext(self._coming, None)
            begun = True
        except asyncio.CancelledError:
            self._leave()
            raise
        finally:
            if not begun:
                await self._shut()

    async def chunks(self) -> AsyncGenerator[dict[str, Any], None]:
        """The answer's chunks, in OpenAI's form.

        Raises:
            CorralError: the engine failed in mid-answer; EngineDied when it ended.
        """
        if self._first is None:
            self._finish()
            return
        first, self._first = self._first, None
        yield first
        try:
            async for chunk in self._coming:
                yield chunk
        except UpstreamError as error:
            self._outcome.error = error
            raise await self._carrying.explain(self._passage, error) from error
        self._finish()

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
        await self._shut()
        self._leave()

    async def _shut(self) -> None:
        self._passage.close()  # first: whoever is cancelled does not get further than this
        await self._coming.aclose()

    def _leave(self) -> None:
        """Nobody wants what may still come."""
        self._outcome.client_gone = self._outcome.error is None
        self._finish()

    def _finish(self) -> None:
        if self._record is None:
            self._record = self._carrying.finish(self._passage, self._outcome)

    async def _read(self) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks as they come, metered.

        Raises:
            UpstreamError: it broke, or is not what it should be.
        """
        splitter, passage, outcome = Splitter(), self._passage, self._outcome
        async for piece in passage.response:
            ready = splitter.feed(piece)
            if not ready:
                continue
            ready = passage.passing(ready, first=not outcome.chunks)
            outcome.first_byte_at = outcome.first_byte_at or passage.first
            outcome.bytes += len(ready)
            outcome.chunks += 1
            for data in data_of(ready):
                if data.strip() == b"[DONE]":
                    return
                yield _chunk(data)
        passage.over(None)


def _chunk(data: bytes) -> dict[str, Any]:
    try:
        chunk = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise UpstreamProtocol("The engine sent an event that is not JSON.") from error
    if not isinstance(chunk, dict):
        raise UpstreamProtocol("The engine sent an event that is no object.")
    if chunk.get("error"):
        raise refused(502, form("openai.chat").read_error(502, chunk), "it")
    return chunk


def document(body: bytes) -> dict[str, Any]:
    """The engine's JSON answer.

    Raises:
        UpstreamProtocol: it is none.
    """
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UpstreamProtocol("The engine answered with something that is not JSON.") from error
    return _with_choices(found)


def _with_choices(found: Any) -> dict[str, Any]:
    choices = found.get("choices") if isinstance(found, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise UpstreamProtocol("The engine's answer holds no choices.")
    return found  # type: ignore[no-any-return]  # it is what was looked at


def _reply(found: Mapping[str, Any], told: Receipt) -> Reply:
    choice = found["choices"][0]
    message = choice.get("message") or {}
    return Reply(
        text=message.get("content") or "",
        tokens=told.completion_tokens or 0,
        receipt=told,
        tool_calls=tuple(message.get("tool_calls") or ()),
    )
