"""A run at work: what is ready is begun, in the order that swaps models least, and what it came to is taken up.

    open      a step whose needs have ended: its condition, its list, its templates
    begin     as many pieces as there is room for
    take up   the outcome: results for the steps after it, the database behind its back

What was done before a kill is in the rows and in the journal, and is not done again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import AsyncConnection

from corral.config.workspace import WorkspaceSettings
from corral.domain.ports import Clock
from corral.domain.workspace import Artifact, Run, Step, StepStatus
from corral.errors import CorralError, InvalidRequest
from corral.workspace.pipelines import pauses
from corral.workspace.pipelines.commits import Commits, Entry
from corral.workspace.pipelines.ordering import Task, choose
from corral.workspace.pipelines.plan import Definition, StepPlan
from corral.workspace.pipelines.scoping import SKIPPED, Result, base_scope, gathered
from corral.workspace.pipelines.spending import Allowance
from corral.workspace.pipelines.templates import Templates
from corral.workspace.pipelines.working import (
    Failed,
    Outcome,
    Piece,
    Worker,
    assembled,
    failed_before,
    made_of,
    uncounted,
)
from corral.workspace.store import Store

if TYPE_CHECKING:
    from corral.workspace.pipelines.asking import Asker

_MOST_ITEMS = 1000
"""Items of one fan-out."""
_DONE = frozenset({StepStatus.COMPLETED, StepStatus.SKIPPED})
_LAST_WORDS = 5.0
"""Seconds for which a run that is stopped waits for the database; the journal has the rest."""


def waiting(definition: Definition) -> list[Step]:
    """The steps of a run that has not begun."""
    return [Step(run="", key=plan.name, name=plan.name, position=at) for at, plan in enumerate(definition.steps)]


@dataclass(frozen=True, slots=True, eq=False)
class Tools:
    """What a run is done with.

    `places` says of models which can be asked at once, and which have room in memory beside those. `told` is given what
    happens, `advanced` is called when something is done, and `advance` in the transaction that says so.
    """

    store: Store
    templates: Templates
    settings: WorkspaceSettings
    clock: Clock
    places: Callable[[Collection[str]], Awaitable[tuple[Collection[str], Collection[str]]]]
    told: Callable[[dict[str, Any]], None]
    advance: Callable[[AsyncConnection], Awaitable[None]]
    advanced: Callable[[], None]


@dataclass(slots=True)
class _Fan:
    """A step at work: one piece, or one for each item of its list."""

    plan: StepPlan
    allowance: Allowance
    results: list[Result | None]
    fans_out: bool
    at_work: int = 0

    @property
    def done(self) -> bool:
        return all(each is not None for each in self.results)


class Execution:
    """One run, from where it is to its end. `go` is called once.

    `steps` are its steps as they stand, by key; `failure` is why it has failed, with the step's key: it may have before
    it was killed. `rest` is from when to when nobody was at it before.
    """

    def __init__(
        self,
        tools: Tools,
        asker: Asker,
        run: Run,
        definition: Definition,
        steps: dict[str, Step],
        rest: pauses.Rest | None = None,
    ) -> None:
        self.tools = tools
        self.asker = asker
        self.run = run
        self.definition = definition
        self.steps = steps
        self.failure = next(map(_failure, filter(_has_failed, steps.values())), None)
        self._rest = rest
        self._rested = {key: step.paused_seconds for key, step in steps.items()}
        self._again: dict[str, float] = {}
        self._fans: dict[str, _Fan] = {}
        self._settled: set[str] = set()
        self._results: dict[str, Result] = {}
        self._ready: list[Piece] = []
        self._tasks: dict[asyncio.Task[Outcome], Piece] = {}
        self._scope = base_scope(run)
        self._last: str | None = None
        self._worker = Worker(run, asker, tools.templates, tools.settings, self._heard)
        self._commits = Commits(tools.store, tools.clock, tools.advance, self._committed)
        self._allowance = Allowance("This run", run.budget, self._spent())
        self._needed = {name for plan in definition.steps for name in plan.needs}

    async def go(self) -> None:
        """Do what is left of it; `failure` says whether it failed.

        Raises:
            DatabaseError, StoreError: it cannot go on now.
        """
        self._commits.start()
        try:
            await self._work()
            await self._commits.drain()
        finally:
            await self._leave()

    async def _work(self) -> None:
        while True:
            for plan in self.definition.steps:
                if self.failure is None and plan.name not in self._fans and self._settled.issuperset(plan.needs):
                    await self._open(plan)
            await self._begin()
            if not self._tasks:
                return
            writer = self._commits.task
            waited: set[asyncio.Task[Any]] = {*self._tasks} if writer is None else {*self._tasks, writer}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if writer is not None and writer.done():
                writer.result()
            for task in [task for task in self._tasks if task.done()]:
                self._take_up(self._tasks.pop(task), task)

    async def _leave(self) -> None:
        """End what is at work, and write what is done; whoever goes on finds the rest in the journal."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._rest_on()
        with suppress(TimeoutError, CorralError):
            async with asyncio.timeout(_LAST_WORDS):
                await self._commits.drain(begun=True)
        await self._commits.stop()
        self.asker.journal.close()

    # Opening

    async def _open(self, plan: StepPlan) -> None:
        """Find out what is to be done of a step whose needs have ended."""
        step = self.steps[plan.name]
        whole = Allowance(f"The step {plan.name!r}", plan.budget, self._spent_on(plan.name))
        if step.status is StepStatus.SKIPPED:
            self._skip(plan, step, whole, known=True)
            return
        try:
            if step.status is not StepStatus.COMPLETED and not await self._wanted(plan):
                self._skip(plan, step, whole, known=False)
                return
            if plan.model is None and plan.assemble is not None:
                self._assemble(plan, step, whole)
            elif plan.for_each is None:
                self._fans[plan.name] = _Fan(plan, whole, [None], fans_out=False)
                await self._prepare(plan, step, self._scope_of(plan))
            else:
                await self._fan_out(plan, step, whole)
        except InvalidRequest as error:
            self._fail(failed_before(self.steps[plan.name], error, self.tools.clock.wall()), ())

    async def _wanted(self, plan: StepPlan) -> bool:
        return plan.when is None or bool(await self.tools.templates.evaluate(plan.when, self._scope))

    async def _fan_out(self, plan: StepPlan, step: Step, whole: Allowance) -> None:
        items = await self.tools.templates.evaluate(plan.for_each, self._scope)
        if not isinstance(items, list | tuple):
            raise InvalidRequest(
                f"for_each of {plan.name!r} comes to {type(items).__name__}, and not to a list.",
                "Name a list, such as {{ steps.NAME.value.sections }}.",
            )
        if len(items) > _MOST_ITEMS:
            raise InvalidRequest(
                f"for_each of {plan.name!r} comes to {len(items)} items; at most {_MOST_ITEMS} are done.",
                "Cut the list.",
            )
        self._fans[plan.name] = _Fan(plan, whole, [None] * len(items), fans_out=True)
        new = []
        for index in range(len(items)):
            key = f"{plan.name}[{index}]"
            if key not in self.steps:
                self.steps[key] = Step(run=self.run.id, key=key, name=plan.name, index=index, position=step.position)
                new.append(self.steps[key])
        if new:
            self._commits.plan(self.run.id, new)
        if step.status not in _DONE:
            now = self._now()
            self._again.setdefault(step.key, now)
            began = replace(step, status=StepStatus.RUNNING, started_at=step.started_at or now)
            self._standing(self._timed(began))
        scope = self._scope_of(plan)
        for index, item in enumerate(items):
            key = f"{plan.name}[{index}]"
            await self._prepare(plan, self.steps[key], {**scope, "item": item, "index": index})
        self._settle(plan.name)

    async def _prepare(self, plan: StepPlan, step: Step, scope: dict[str, Any]) -> None:
        """Have a piece ready to begin; one that is done is taken up as it is."""
        if step.status is StepStatus.COMPLETED:
            self._arrived(step, await self._worker.recall(plan, step))
            return
        self._ready.append(await self._worker.prepare(plan, step, scope, last=plan.name not in self._needed))

    def _scope_of(self, plan: StepPlan) -> dict[str, Any]:
        if plan.assemble is None:
            return self._scope
        parts = [
            {"name": name, "text": self._results[name].output or ""}
            for name in plan.assemble
            if not self._results[name].skipped
        ]
        return {**self._scope, "parts": parts}

    def _assemble(self, plan: StepPlan, step: Step, whole: Allowance) -> None:
        """Do a step without a model: it costs nothing, and is done anew where it was done before."""
        self._fans[plan.name] = _Fan(plan, whole, [None], fans_out=False)
        result = assembled(plan, self._results)
        if step.status is not StepStatus.COMPLETED:
            now = self._now()
            step = replace(
                step, status=StepStatus.COMPLETED, output=result.output, started_at=step.started_at or now, ended_at=now
            )
            made = made_of(plan, step, result) if plan.name not in self._needed else ()
            self._standing(step, Entry(step, made, done=True))
        self._arrived(step, result)

    def _skip(self, plan: StepPlan, step: Step, whole: Allowance, *, known: bool) -> None:
        self._fans[plan.name] = _Fan(plan, whole, [SKIPPED], fans_out=False)
        if not known:
            now = self._now()
            step = replace(step, status=StepStatus.SKIPPED, reason="its condition is not met", ended_at=now)
            self._standing(step, Entry(step, done=True))
        self._settle(plan.name)

    # Beginning

    async def _begin(self) -> None:
        """Begin as many pieces as there is room for, and as models are at hand."""
        room = self.tools.settings.parallel - len(self._tasks)
        if self.failure is not None or room <= 0 or not self._ready:
            return
        able = {piece.step.key: piece for piece in self._within_width()}
        at_hand, beside = await self.tools.places({piece.model for piece in able.values()})
        ready = [Task(key, piece.model) for key, piece in able.items()]
        running = [Task(piece.step.key, piece.model) for piece in self._tasks.values()]
        for chosen in choose(
            ready, running, at_hand, self._last, room, ahead=self._ahead(), beside=beside.__contains__
        ):
            piece = able[chosen.key]
            fan = self._fans[piece.plan.name]
            self._ready.remove(piece)
            fan.at_work += 1
            self._last = piece.model
            task = asyncio.ensure_future(self._worker.do(piece, (self._allowance, fan.allowance)))
            self._tasks[task] = piece

    def _within_width(self) -> list[Piece]:
        """What may begin as far as the widths of its steps go."""
        left = {name: (fan.plan.width or len(self._ready)) - fan.at_work for name, fan in self._fans.items()}
        found = []
        for piece in self._ready:
            if left[piece.plan.name] > 0:
                left[piece.plan.name] -= 1
                found.append(piece)
        return found

    def _ahead(self) -> list[Task]:
        """What waits for other steps, as far as it is known by now."""
        keys: dict[str, list[str]] = {}
        for piece in (*self._ready, *self._tasks.values()):
            keys.setdefault(piece.plan.name, []).append(piece.step.key)
        found = []
        for plan in self.definition.steps:
            if plan.name not in self._fans:
                needs = [key for name in plan.needs for key in keys.get(name, [name])]
                own = self.run.models.get(plan.name) or self.run.models.get("*")
                found.append(Task(plan.name, own or plan.model, tuple(needs)))
        return found

    # Taking up

    def _take_up(self, piece: Piece, task: asyncio.Task[Outcome]) -> None:
        self._fans[piece.plan.name].at_work -= 1
        error = task.exception()
        if isinstance(error, Failed):
            self._fail(error.step, error.answers)
            return
        outcome = task.result()
        step = self._timed(outcome.step)
        self._standing(step, Entry(step, outcome.made, outcome.answers, done=True))
        self._arrived(step, outcome.result)

    def _fail(self, step: Step, answers: Sequence[Any]) -> None:
        step = self._timed(step)
        self.failure = self.failure or _failure(step)
        self._standing(step, Entry(step, (), tuple(answers), done=True))

    def _arrived(self, step: Step, result: Result) -> None:
        self._fans[step.name].results[step.index or 0] = result
        self._settle(step.name)

    def _settle(self, name: str) -> None:
        """Have the steps after it see what a step came to, once all of it is there."""
        fan = self._fans[name]
        if name in self._settled or not fan.done:
            return
        results = [each for each in fan.results if each is not None]
        self._settled.add(name)
        if not fan.fans_out:
            self._results[name] = results[0]
            self._scope["steps"][name] = {**results[0].seen(), "items": []}
            return
        whole, items = gathered(results)
        self._results[name] = whole
        self._scope["steps"][name] = {**whole.seen(), "items": items}
        step = self.steps[name]
        if step.status is not StepStatus.COMPLETED:
            step = self._timed(replace(step, status=StepStatus.COMPLETED, ended_at=self._now()))
            self._standing(step, Entry(step, done=True))

    # Telling

    def _standing(self, step: Step, entry: Entry | None = None) -> None:
        """A step stands so from now on."""
        self.steps[step.key] = step
        self._commits.put(entry or Entry(step))
        if entry is None:
            self.tools.told({"type": "step", "step": step})
        else:
            self.tools.advanced()

    def _heard(self, message: dict[str, Any]) -> None:
        if message["type"] == "begun":
            step = message["step"]
            before, now = self.steps[step.key], self._now()
            self._again.setdefault(step.key, now)
            self._standing(self._timed(replace(step, started_at=before.started_at or now)))
        else:
            self.tools.told(message)

    def _committed(self, step: Step, artifacts: Sequence[Artifact]) -> None:
        if step.status is StepStatus.RUNNING:
            return
        self.tools.told({"type": "committed", "step": step, "artifacts": artifacts})

    # Reckoning

    def _spent(self) -> int:
        """What has been paid by now."""
        return sum(self._spent_on(plan.name) for plan in self.definition.steps)

    def _spent_on(self, name: str) -> int:
        answers = self.asker.journal.answers
        spent = 0
        for step in self.steps.values():
            if step.name == name:
                spent += step.cost
                if step.status not in _DONE:
                    spent += sum(each.cost for each in uncounted(step, answers.get(step.key, ())))
        return spent

    def _timed(self, step: Step) -> Step:
        """A step with how long it rested; one that was begun before rests until it is begun again."""
        rest = self._rest and (self._rest[0], self._again.get(step.key, self._rest[1]))
        return replace(step, paused_seconds=pauses.of_step(step, self._rested.get(step.key, 0.0), rest))

    def _rest_on(self) -> None:
        """Have it written of those that were begun before, and not again, how long they have rested by now."""
        for key, step in self.steps.items():
            begun = step.started_at is not None and step.ended_at is None
            if self._rest is not None and begun and key not in self._again:
                self._again[key] = self._now()
                self._commits.put(Entry(self._timed(step)))

    def _now(self) -> float:
        return self.tools.clock.wall()


def _has_failed(step: Step) -> bool:
    return step.status is StepStatus.FAILED


def _failure(step: Step) -> dict[str, Any]:
    return {"step": step.key, **(step.error or {})}
