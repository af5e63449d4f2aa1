"""The menu in lines: what is typed is a word, what is answered is text from top to bottom.

For screen readers, for terminals that cannot move a cursor, and for whoever likes it better.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from corral.cli.chat.conversation import Answer, Conversation
from corral.cli.output import clean, line, time_text
from corral.cli.table import Cell, fold, table_lines
from corral.cli.tui.figures import budgets_table, machine_lines, receipt_line, spent_line, spent_table
from corral.cli.tui.link import Link
from corral.cli.tui.marks import state_word
from corral.cli.tui.texts import (
    containers_table,
    engines_table,
    happened_lines,
    memory_lines,
    models_table,
    why_text,
    work_table,
)
from corral.cli.tui.yard import Yard
from corral.domain.operations import Order
from corral.errors import CorralError, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from corral.cli.invocation import Invocation
    from corral.cli.tui.marks import Row, Table

_DRAWN = dict.fromkeys(map(ord, "▁▂▃▄▅▆▇█▏▎▍▌▋▊▉·"))
"""What is drawn and not said."""
WIDTH = 100
"""Columns of a table, where no terminal says how many there are."""

_WORDS = {
    "models": "the models and how they stand",
    "queue": "what is in memory, who waits, and what was decided last",
    "containers": "the containers",
    "machine": "processor, memory, disk and GPUs",
    "work": "installs and other operations",
    "spend": "what today cost, and the budgets",
    "log MODEL": "the last lines of a model's engine",
    "install WHAT": "install a model",
    "load MODEL": "bring it into memory",
    "unload MODEL": "take it out of memory",
    "update MODEL": "bring it to what its source has now",
    "remove MODEL": "remove it; asks first",
    "test MODEL": "have it say hello",
    "ask MODEL TEXT": "ask it something",
    "start CONTAINER": "start a container; also stop and restart",
    "cancel ID": "call an operation off; also pause and resume",
    "help": "these words",
    "quit": "leave; the server goes on",
}


def converse(invocation: Invocation) -> None:
    """Read words and answer them, until `quit` or the end of what is typed.

    Raises:
        ServerNotRunning: no server answers.
    """
    # The loop's own way with Ctrl-C is to cancel a task, which somebody who waits for a line would never notice.
    before = signal.signal(signal.SIGINT, _interrupt)
    try:
        asyncio.run(_Desk(invocation).run())
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt(number: int, frame: object) -> None:
    del number, frame
    raise KeyboardInterrupt


class _Desk:
    """One conversation in lines."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self._output = invocation.output
        self._yard = Yard()

    async def run(self) -> None:
        """Until the end."""
        link = Link.of(self._invocation)
        self._yard.url = link.url
        try:
            self._yard.set_models(await link.models())
            count = len(self._yard.models)
            self._say(f"Corral at {link.url}: {count} model{'' if count == 1 else 's'}. Type a word, or help.")
            while (typed := self._read()) is not None:
                word, _, rest = typed.strip().partition(" ")
                if word.lower() in ("q", "quit", "exit"):
                    return
                if word:
                    await self._answered(link, word.lower(), rest.strip())
        finally:
            await link.close()

    def _read(self) -> str | None:
        if sys.stdin.isatty():
            sys.stdout.write("corral: ")
            sys.stdout.flush()
        typed = sys.stdin.readline()
        return typed or None

    async def _answered(self, link: Link, word: str, rest: str) -> None:
        try:
            await self._answer(link, word, rest)
        except CorralError as error:
            self._output.fail(error)

    async def _answer(self, link: Link, word: str, rest: str) -> None:
        shown: dict[str, Callable[[Link], Awaitable[None]]] = {
            "models": self._models,
            "queue": self._queue,
            "containers": self._containers,
            "machine": self._machine,
            "work": self._work,
            "spend": self._spend,
        }
        if word in shown:
            await shown[word](link)
        elif word in {"help", "?"}:
            for name, what in _WORDS.items():
                self._say(f"{name}: {what}")
        elif word not in {name.partition(" ")[0] for name in _WORDS} | {"stop", "restart", "pause", "resume"}:
            raise InvalidRequest(f"{line(word)!r} is no word of this menu.", "Type help.")
        elif not rest:
            raise InvalidRequest(f"{word} needs a name.", f"Type it as: {word} NAME")
        else:
            await self._do(link, word, rest)

    async def _do(self, link: Link, word: str, rest: str) -> None:
        match word:
            case "load":
                took = (await link.load(rest)).get("load_seconds")
                self._say(f"{rest} is ready{'' if took is None else f', loaded in {time_text(took)}'}.")
            case "unload":
                await link.unload(rest)
                self._say(f"{rest} is no longer in memory.")
            case "install":
                await self._begun(link, Order("install", rest, {"what": rest}))
            case "update":
                await self._begun(link, Order("update", rest))
            case "remove":
                if self._output.ask(f"Remove {rest}?"):
                    await self._begun(link, Order("remove", rest))
            case _:
                await self._look(link, word, rest)

    async def _look(self, link: Link, word: str, rest: str) -> None:
        match word:
            case "test":
                found = await link.test(rest)
                self._say(f"{found.get('model')} answered with {found.get('tokens')} tokens: {line(found.get('text'))}")
            case "log":
                for text in await link.log(rest):
                    self._say(text)
            case "ask":
                name, _, question = rest.partition(" ")
                await self._ask(link, name, question)
            case "start" | "stop" | "restart":
                found = (await link.container(rest, word)).get("container") or {}
                self._say(f"{rest}: {state_word(found.get('state'))}. {why_text(found)}".strip())
            case _:
                operation = await link.change(rest, word)
                self._say(f"{operation.order.kind} {operation.order.model}: {operation.status}")

    async def _begun(self, link: Link, order: Order) -> None:
        operation = await link.submit(order)
        self._say(f"{operation.order.kind} {operation.order.model}: {operation.status}. How far it is: work")

    async def _ask(self, link: Link, name: str, question: str) -> None:
        if not question:
            raise InvalidRequest("There is no question.", "Type it as: ask MODEL Why is the sky blue?")
        answer, request_id = Answer(), ""
        chunks = link.chat(Conversation(name).ask(question))
        async with aclosing(chunks):
            async for chunk in chunks:
                request_id = chunk.get("request_id") or request_id
                answer.take(chunk, time.monotonic())
        self._say(clean(answer.text))
        self._line(receipt_line(await link.receipt(request_id)))

    async def _models(self, link: Link) -> None:
        self._yard.set_models(await link.models())
        self._yard.installed = {str(one["name"]): one for one in await link.installed()}
        self._table(models_table(self._yard))

    async def _queue(self, link: Link) -> None:
        self._yard.set_models(await link.models())
        stats = await link.stats()
        self._table(engines_table(self._yard))
        for row in memory_lines(stats.get("memory") or {}, 0):
            self._line(row)
        decided: list[dict[str, Any]] = [{"type": "decision", **one} for one in await link.decisions(10)]
        for row in happened_lines(reversed(decided)):
            self._line(row)

    async def _containers(self, link: Link) -> None:
        self._yard.set_containers(await link.containers())
        if not self._yard.containers:
            await link.docker()
        self._table(containers_table(self._yard, time.time()))

    async def _machine(self, link: Link) -> None:
        found = await link.hardware(10)
        self._yard.set_history(found.pop("history", None) or {})
        self._yard.machine = found
        for row in machine_lines(self._yard, 0):
            self._line(row)

    async def _work(self, link: Link) -> None:
        self._yard.set_operations(await link.operations(20))
        self._table(work_table(self._yard, time.time()))

    async def _spend(self, link: Link) -> None:
        self._yard.usage = await link.spent(f"{time.time() // 86400 * 86400:.0f}")
        self._yard.budgets = await link.budgets()
        self._line(spent_line(self._yard.usage))
        self._table(spent_table(self._yard.usage))
        self._table(budgets_table(self._yard))

    def _table(self, table: Table) -> None:
        if not table.rows:
            self._say(table.empty)
            return
        width = self._output.width(sys.stdout) or WIDTH
        rows = [[Cell(" ".join(text.translate(_DRAWN).split()), tone) for text, tone in row] for row in table.rows]
        for text in table_lines(table.columns, rows, width, lambda text, _: text):
            self._say(text)

    def _line(self, row: Row) -> None:
        self._say("".join(piece.text for piece in row))

    def _say(self, text: str) -> None:
        width = self._output.width(sys.stdout)
        for each in text.splitlines() or [""]:
            for folded in [each] if width is None else fold(each.rstrip(), width):
                self._output.say(folded)
