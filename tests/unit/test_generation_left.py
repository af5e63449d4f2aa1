"""A caller in Python that leaves before the first word: what was held for it is settled, and it is on record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from corral.domain.generation import GenerationConfig
from corral.domain.money import Price, Tier
from corral.domain.ports import Endpoint, SessionFacts
from corral.kit.upstream import Timeouts
from corral.observability.record import Record
from corral.routing.breakers import Breakers
from corral.routing.carrying import Carrier
from corral.routing.composing import Composer
from corral.routing.dispatch import Dispatcher
from corral.routing.generation import Generator
from corral.routing.layout import direct
from corral.routing.parts import Parts
from support.clocks import HandClock

PRICE = Price(tiers=(Tier(input=2_000_000_000, output=8_000_000_000),), source="test")
MESSAGES = [{"role": "user", "content": "x" * 400}]


class Silent:
    """An answer of which no word comes; its head is there, unless it is `headless`."""

    status, framed, whole, content_length = 200, False, False, None

    def __init__(self, kind: bytes, *, headless: bool = False) -> None:
        self.headless = headless
        self.headers = [(b"content-type", kind)]
        self.waited_for = asyncio.Event()
        self.closed = False

    def header(self, name: bytes) -> bytes | None:
        return dict(self.headers).get(name)

    def __aiter__(self) -> Silent:
        return self

    async def __anext__(self) -> bytes:
        self.waited_for.set()
        await asyncio.get_running_loop().create_future()
        return b""

    async def read(self) -> bytes:
        return await anext(self)

    def close(self) -> None:
        self.closed = True


class Held:
    """Money that is held, and what became of it."""

    def __init__(self) -> None:
        self.spent: list[int | None] = []

    def settle(self, amounts: Any) -> None:
        self.spent.append(amounts.nano)

    def release(self) -> None:
        self.spent.append(0)


class Yard:
    """A vendor that answers with `response`; what is held of the caller's budget, and what is noted."""

    def __init__(self, response: Silent) -> None:
        facts = SessionFacts(device="remote")
        session = SimpleNamespace(endpoint=Endpoint("http://vendor"), facts=facts)
        self.engine: Any = SimpleNamespace(
            id="e-1", model="m", runtime="openai", revision=None, remote=True, session=session, target=None
        )
        self.response = response
        self.hold = Held()
        self.noted: list[Record] = []
        clock = HandClock()
        self.generator = Generator(
            Carrier(
                Parts(
                    dispatcher=Dispatcher(self, self, clock),  # type: ignore[arg-type]
                    composer=Composer(),
                    planner=SimpleNamespace(plan=lambda _: direct("m")),  # type: ignore[arg-type]
                    breakers=Breakers(clock),
                    money=SimpleNamespace(price=lambda _: PRICE, hold=lambda *_: (self.hold, None)),  # type: ignore[arg-type]
                    notes=SimpleNamespace(record=self.noted.append),
                    clock=clock,
                    timeouts=Timeouts(),
                )
            )
        )
        self.uses = 0

    def begin(self, _: str) -> Any:
        self.uses += 1
        return self.engine

    def end(self, *_: Any) -> None:
        self.uses -= 1

    async def request(self, *_: Any, **__: Any) -> Silent:
        if self.response.headless:
            await anext(self.response)
        return self.response


async def whole(generator: Generator) -> None:
    await generator.whole("m", GenerationConfig(messages=MESSAGES))


async def streamed(generator: Generator) -> None:
    await generator.open({"model": "m", "messages": MESSAGES})


@pytest.mark.parametrize(("ask", "kind"), [(whole, b"application/json"), (streamed, b"text/event-stream")])
async def test_whoever_leaves_between_the_head_and_the_first_word_is_on_record_and_keeps_nothing_reserved(
    ask: Callable[[Generator], Any], kind: bytes
) -> None:
    yard = Yard(Silent(kind))
    asking = asyncio.create_task(ask(yard.generator))
    await yard.response.waited_for.wait()

    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

    assert yard.response.closed
    assert yard.uses == 0
    (record,) = yard.noted
    assert (record.gone, record.status, record.model, record.error) == (True, 200, "m", None)
    assert yard.hold.spent == [record.cost]  # a vendor has read the prompt


@pytest.mark.parametrize("ask", [whole, streamed])
async def test_whoever_leaves_before_the_head_is_on_record_too(ask: Callable[[Generator], Any]) -> None:
    yard = Yard(Silent(b"", headless=True))
    asking = asyncio.create_task(ask(yard.generator))
    await yard.response.waited_for.wait()

    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

    assert yard.uses == 0
    (record,) = yard.noted
    assert (record.gone, record.status, record.error) == (True, 499, None)
    assert [each.error for each in record.attempts] == ["client_gone"]
    assert yard.hold.spent == [record.spent]
    assert record.spent


async def test_a_stream_that_is_closed_early_was_left() -> None:
    class Talkative(Silent):
        async def __anext__(self) -> bytes:
            return b'data: {"choices": [{"index": 0, "delta": {"content": "on"}, "finish_reason": null}]}\n\n'

    yard = Yard(Talkative(b"text/event-stream"))
    stream = await yard.generator.open({"model": "m", "messages": MESSAGES})
    chunks = stream.chunks()
    await anext(chunks)
    await chunks.aclose()
    await stream.close()

    (record,) = yard.noted
    assert (record.gone, record.error, yard.hold.spent) == (True, None, [record.cost])
