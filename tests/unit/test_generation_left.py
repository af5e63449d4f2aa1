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
from corral.errors import BudgetExceeded, CorralError, StoreError
from corral.kit.upstream import Timeouts
from corral.observability.record import Record
from corral.routing.book import Amounts
from corral.routing.breakers import Breakers
from corral.routing.carrying import Carrier
from corral.routing.composing import Composer
from corral.routing.dispatch import Dispatcher
from corral.routing.generation import Generator
from corral.routing.layout import direct
from corral.routing.parts import Parts
from corral.routing.plan import Candidate, Plan
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

    def __init__(self, response: Silent, plan: Plan | None = None) -> None:
        facts = SessionFacts(device="remote")
        session = SimpleNamespace(endpoint=Endpoint("http://vendor"), facts=facts)
        self.engine: Any = SimpleNamespace(
            id="e-1", model="m", runtime="openai", revision=None, remote=True, session=session, target=None
        )
        self.response = response
        self.hold = Held()
        self.noted: list[Record] = []
        self.kept: list[Record] = []
        self.clock = clock = HandClock()
        self.generator = Generator(
            Carrier(
                Parts(
                    dispatcher=Dispatcher(self, self, clock),  # type: ignore[arg-type]
                    composer=Composer(),
                    planner=SimpleNamespace(plan=lambda _: plan or direct("m")),  # type: ignore[arg-type]
                    breakers=Breakers(clock),
                    money=SimpleNamespace(  # type: ignore[arg-type]
                        price=lambda _: PRICE, hold=lambda *_: (self.hold, None), limit=lambda _: 100
                    ),
                    notes=SimpleNamespace(record=self.noted.append, kept=self.kept.append),
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


class Stubborn(Silent):
    """Takes its time to end when it is called off."""

    def __init__(self, kind: bytes) -> None:
        super().__init__(kind)
        self.called_off = asyncio.Event()

    async def __anext__(self) -> bytes:
        try:
            return await super().__anext__()
        except asyncio.CancelledError:
            self.called_off.set()
            await asyncio.get_running_loop().create_future()
            raise


async def test_whoever_leaves_while_the_slower_of_two_ends_has_left_the_quicker_too() -> None:
    slow = Stubborn(b"text/event-stream")
    yard = Yard(slow, Plan("m", (Candidate("m"), Candidate("n")), hedge=1.0))
    asking = asyncio.create_task(streamed(yard.generator))
    await slow.waited_for.wait()
    quick = yard.response = Answering(b"text/event-stream")
    await yard.clock.advance(1.0)
    await slow.called_off.wait()

    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

    assert (slow.closed, quick.closed, yard.uses) == (True, True, 0)
    (record,) = yard.noted
    assert (record.gone, [each.error for each in record.attempts]) == (True, ["hedged", "client_gone"])
    assert sum(cost or 0 for cost in yard.hold.spent) == record.spent
    assert len(yard.hold.spent) == 2


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


class Keeping:
    """Keeps an answer, and knows what had been paid by then."""

    def __init__(self, yard: Yard, error: CorralError | None = None) -> None:
        self.yard = yard
        self.error = error
        self.kept: list[tuple[Record, list[int | None]]] = []
        self.worst: list[int | None] = []

    def allow(self, worst: Amounts, model: str) -> None:
        assert model == "m"
        self.worst.append(worst.nano)
        if isinstance(self.error, BudgetExceeded):
            raise self.error

    def keep(self, record: Record) -> None:
        self.kept.append((record, list(self.yard.hold.spent)))
        if isinstance(self.error, StoreError):
            raise self.error


class Answering(Silent):
    """Says one word, and that this is all."""

    def __init__(self, kind: bytes) -> None:
        super().__init__(kind)
        last = b'{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}'
        self.pieces = [
            b'data: {"choices": [{"index": 0, "delta": {"content": "on"}, "finish_reason": null}]}\n\n',
            b"data: " + last + b"\n\n",
            b'data: {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}}\n\n',
            b"data: [DONE]\n\n",
        ]

    async def __anext__(self) -> bytes:
        if not self.pieces:
            raise StopAsyncIteration
        return self.pieces.pop(0)


async def kept(yard: Yard, keeper: Keeping) -> None:
    stream = await yard.generator.open({"model": "m", "messages": MESSAGES}, keeper=keeper)
    try:
        assert [text async for text in stream.texts()] == ["on"]
    finally:
        await stream.close()


async def test_who_keeps_an_answer_has_it_before_it_is_paid_and_the_books_do_not() -> None:
    yard = Yard(Answering(b"text/event-stream"))
    keeper = Keeping(yard)
    await kept(yard, keeper)
    ((record, paid_by_then),) = keeper.kept
    assert paid_by_then == []
    assert yard.hold.spent == [record.cost] == [5 * 2000 + 8000]
    assert (yard.noted, yard.kept) == ([], [record])
    assert keeper.worst[0] is not None
    assert keeper.worst[0] >= (record.cost or 0)


async def test_what_cannot_be_kept_is_paid_all_the_same_and_told_once() -> None:
    yard = Yard(Answering(b"text/event-stream"))
    keeper = Keeping(yard, StoreError("no room"))
    with pytest.raises(StoreError):
        await kept(yard, keeper)
    assert len(keeper.kept) == len(yard.hold.spent) == 1


async def test_a_call_that_is_not_allowed_is_not_made() -> None:
    yard = Yard(Answering(b"text/event-stream"))
    keeper = Keeping(yard, BudgetExceeded("too dear"))
    with pytest.raises(BudgetExceeded):
        await kept(yard, keeper)
    ((record, _),) = keeper.kept
    assert (record.error, yard.uses, yard.hold.spent) == ("budget_exceeded", 0, [])
    assert len(yard.response.pieces) == 4  # type: ignore[attr-defined]


async def test_who_leaves_an_answer_that_is_kept_is_told_so() -> None:
    yard = Yard(Silent(b"text/event-stream"))
    keeper = Keeping(yard)
    asking = asyncio.create_task(kept(yard, keeper))
    await yard.response.waited_for.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    ((record, paid_by_then),) = keeper.kept
    assert (record.gone, paid_by_then, yard.hold.spent) == (True, [], [record.cost])
