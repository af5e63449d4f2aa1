"""One try of a step: the model is asked, what it says is passed on, and what became of it is in the journal.

The journal has it before it is paid (see `routing.order.Keeper`); a try that it knows is not made again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

from corral.domain.callers import Caller
from corral.domain.ports import Clock
from corral.errors import CorralError, EngineTimeout, RateLimited, StoreError
from corral.observability import sums
from corral.observability.record import described
from corral.routing.generation import Generator
from corral.workspace.pipelines.journal import Answer, Journal
from corral.workspace.pipelines.spending import Allowance, hold
from corral.workspace.pipelines.tries import PASSING

if TYPE_CHECKING:
    from corral.observability.record import Record
    from corral.routing.book import Amounts

_LONGEST_WAIT = 60.0
_REFUSALS = frozenset(range(400, 500)) - {408, 409, 425, 429}
"""Statuses of an answer that would be the same the next time."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked in one try. `id` is its request id; `most` is how many seconds it may take."""

    step: str
    attempt: int
    id: str
    model: str
    messages: Sequence[Mapping[str, Any]]
    parameters: Mapping[str, Any]
    most: float


@dataclass(frozen=True, slots=True, eq=False)
class Asker:
    """Asks models for one run.

    `caller` pays, and counts for the run's project. `enter` and `leave` are the limits of its key. `bound` is how many
    tokens may be written where a budget must hold and nobody says.
    """

    generator: Generator
    journal: Journal
    caller: Caller
    clock: Clock
    enter: Callable[[Caller], None]
    leave: Callable[[Caller], None]
    bound: Callable[[], int]

    async def ask(self, request: Request, allowances: Sequence[Allowance], heard: Callable[[str], None]) -> Answer:
        """What becomes of a try; `heard` is given what the model says as it does.

        Cancelled, the journal knows that the try was left, where the model was asked by then.

        Raises:
            StoreError: the journal cannot be written; nobody was asked.
        """
        self.journal.ready()
        keeper = _Keeper(self, request, allowances)
        error: CorralError | None = None
        try:
            async with asyncio.timeout(request.most) as keeper.deadline:
                await self._let_in()
                try:
                    await self._listen(request, keeper, heard)
                finally:
                    self.leave(self.caller)
        except TimeoutError:
            error = _late(request)
        except CorralError as failure:
            error = failure
        finally:
            keeper.close()
        return keeper.answer or keeper.note(error or _late(request))

    async def _let_in(self) -> None:
        """Wait until the limits of the key let another request in."""
        while True:
            try:
                self.enter(self.caller)
            except RateLimited as error:
                await self.clock.sleep(min(max(error.retry_after or 1.0, 0.05), _LONGEST_WAIT))
            else:
                return

    async def _listen(self, request: Request, keeper: _Keeper, heard: Callable[[str], None]) -> None:
        body: dict[str, Any] = {"model": request.model, "messages": list(request.messages), **request.parameters}
        if "max_tokens" not in body and any(each.limit is not None for each in keeper.allowances):
            body["max_tokens"] = self.bound()
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        stream = await self.generator.open(body, request.id, caller=self.caller, keeper=keeper)
        try:
            async for text in stream.texts():
                keeper.texts.append(text)
                heard(text)
        finally:
            await stream.close()


@dataclass(slots=True, eq=False)
class _Keeper:
    """Writes what becomes of one try into the journal."""

    asker: Asker
    request: Request
    allowances: Sequence[Allowance]
    texts: list[str] = field(default_factory=list)
    deadline: asyncio.Timeout | None = None
    answer: Answer | None = None
    started: float = field(default_factory=perf_counter)

    def allow(self, worst: Amounts, model: str) -> None:
        """See `routing.order.Keeper`."""
        hold(self.allowances, self.request.id, worst.nano, model)

    def keep(self, record: Record) -> None:
        """See `routing.order.Keeper`."""
        late = self.deadline is not None and self.deadline.expired()
        error = None
        if record.gone and late:
            error = told(_late(self.request))
        elif record.error is not None:
            error = {"code": record.error, "message": record.message, "hint": ""}
        used, spent = sums.tokens(record.usage), record.spent or 0
        for each in self.allowances:
            each.settle(self.request.id, spent)
        self._write(
            Answer(
                **self._head(),
                text="".join(self.texts),
                error=error,
                passing=error is not None and error["code"] in PASSING and (late or record.status not in _REFUSALS),
                left=record.gone and not late,
                receipt=described(record),
                rows=sums.rows(record),
                hours=[(list(place), values) for place, values in _added(record).items()],
                cost=spent,
                input_tokens=used[0] + sum(sums.tokens(each.usage)[0] for each in record.attempts if each.billed),
                output_tokens=used[1] + sum(sums.tokens(each.usage)[1] for each in record.attempts if each.billed),
            )
        )

    def note(self, error: CorralError) -> Answer:
        """A try that came to nothing before anybody was asked."""
        answer = Answer(**self._head(), error=told(error), passing=error.code in PASSING)
        self._write(answer)
        return answer

    def close(self) -> None:
        """Nothing is held for it any more."""
        if self.answer is None:
            for each in self.allowances:
                each.settle(self.request.id, 0)

    def _head(self) -> dict[str, Any]:
        request = self.request
        return {
            "step": request.step,
            "attempt": request.attempt,
            "request_id": request.id,
            "model": request.model,
            "seconds": perf_counter() - self.started,
            "at": self.asker.clock.wall(),
        }

    def _write(self, answer: Answer) -> None:
        journal = self.asker.journal
        try:
            journal.write(answer)
        except StoreError:  # it is paid all the same, and what comes of it can be kept elsewhere
            journal.hold(answer)
        self.answer = answer


def _added(record: Record) -> sums.Sums:
    found: sums.Sums = {}
    sums.add(found, record)
    return found


def _late(request: Request) -> EngineTimeout:
    return EngineTimeout(
        f"The step {request.step} got no whole answer of {request.model!r} within {request.most:g} s.",
        "Give it more time: timeout, in the step.",
    )


def told(error: CorralError) -> dict[str, str]:
    """An error as steps and runs tell of it."""
    return {"code": error.code, "message": error.message, "hint": error.hint}
