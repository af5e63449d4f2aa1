"""Operations on real SQLite, driven by a clock that tests move."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from corral.db.engine import Database
from corral.domain.operations import Operation, Order
from corral.operations.durable import Limits, Operations, Parts, Settle, Work
from support.clocks import HandClock

T = TypeVar("T")


class Worker:
    """A handler: each model's work goes on until the test lets it end, or says how it fails."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.cleaned: list[str] = []
        self.at_work: dict[str, Work] = {}
        self._ends: dict[str, asyncio.Future[Any]] = {}

    async def __call__(self, operation: Operation, work: Work) -> Any:
        model = operation.order.model
        self.begun.append(model)
        self.at_work[model] = work
        self._ends[model] = asyncio.get_running_loop().create_future()
        try:
            return await self._ends[model]
        finally:
            self.cleaned.append(model)
            del self.at_work[model]

    def end(self, model: str, result: Any = None) -> None:
        self._ends[model].set_result(result)

    def fail(self, model: str, error: BaseException) -> None:
        self._ends[model].set_exception(error)


class Bench:
    """One home. `run` puts it to work; `more` gives a second process's view of it (without being one)."""

    def __init__(self, home: Any, url: str | None = None, **options: Any) -> None:
        self.home = home
        self.url = url
        self.clock = options.pop("clock", None) or HandClock()
        self.worker = Worker()
        self.discarded: list[frozenset[str]] = []
        self.patience = options.pop("patience", 10.0)
        self.options = options
        self._made: list[Operations] = []
        self.operations = self.more()

    def more(self, home: Any = None, settlers: Mapping[str, Settle] | None = None, **options: Any) -> Operations:
        home = home or self.home
        made = Operations(
            Database(self.url, home, patience=self.patience),
            home,
            {"install": self.worker, "verify": self.worker},
            self.clock,
            limits=Limits(**{**self.options, **options}),
            on_cancelled=self._discard,
            settlers=settlers,
        )
        self._made.append(made)
        return made

    async def _discard(self, parts: frozenset[str], keep: Parts) -> None:
        unneeded = parts - await keep()
        if unneeded:
            self.discarded.append(unneeded)

    @asynccontextmanager
    async def run(self, operations: Operations | None = None):
        task = asyncio.create_task((operations or self.operations).run())
        try:
            yield task
        finally:
            task.cancel()
            await self.flow(asyncio.wait([task]))

    def watch(self, identifier: str) -> tuple[list[Operation], asyncio.Task[None]]:
        """What a watcher sees, growing, and the task that watches."""
        seen: list[Operation] = []

        async def note() -> None:
            async for now in self.operations.watch(identifier):
                seen.insert(len(seen), now)

        return seen, asyncio.create_task(note())

    async def order(self, model: str, kind: str = "install", **more: Any) -> Operation:
        lane, host = more.pop("lane", ""), more.pop("host", "")
        return await self.operations.submit(Order(kind, model, more, lane, host))

    async def until(self, condition: Callable[[], Any]) -> None:
        """Let time pass until `condition` holds."""
        async with asyncio.timeout(90):
            while not condition():
                await self.clock.advance(0.1)

    async def a_while(self) -> None:
        """Let time pass, and the database be used meanwhile: enough for whatever should not happen to happen."""
        for _ in range(30):
            await self.clock.advance(0.5)
            await self.operations.page(1)

    async def flow(self, work: Awaitable[T]) -> T:
        """What `work` returns, while time passes."""
        task = asyncio.ensure_future(work)
        await self.until(task.done)
        return task.result()

    async def ended(self, identifier: str, operations: Operations | None = None) -> Operation:
        """The operation when it has ended, while time passes."""

        async def last() -> Operation:
            return [now async for now in (operations or self.operations).watch(identifier)][-1]

        return await self.flow(last())

    async def close(self) -> None:
        for made in self._made:
            await self.flow(made.close())
