"""Runs at work in this process: who pays, what happens, and what becomes of a run when its operation stops."""

from __future__ import annotations

import asyncio
import platform
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from corral import __version__
from corral.domain.callers import LOCAL, SERVER
from corral.domain.money import NANO
from corral.domain.operations import OperationStatus
from corral.domain.ports import Progress
from corral.domain.workspace import Run, RunBrief, RunStatus, Step, StepStatus
from corral.errors import (
    Conflict,
    CorralError,
    DatabaseError,
    EntryNotFound,
    Forbidden,
    OperationNotFound,
    StepFailed,
    StoreError,
    Unauthorized,
)
from corral.kit.disk import in_thread
from corral.operations.durable import Halted
from corral.operations.rows import advance
from corral.routing.generation import Generator
from corral.workspace.described import describe
from corral.workspace.pipelines import pauses
from corral.workspace.pipelines.asking import Asker
from corral.workspace.pipelines.commits import book
from corral.workspace.pipelines.definition import read
from corral.workspace.pipelines.events import Feeds
from corral.workspace.pipelines.executing import Execution, Tools, waiting
from corral.workspace.pipelines.journal import Answer, Journal, folder
from corral.workspace.pipelines.reproducing import reasons
from corral.workspace.pipelines.templates import Templates

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Mapping

    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral.app.corral import Corral
    from corral.domain.callers import Caller
    from corral.domain.operations import Failure, Operation
    from corral.operations.durable import Work
    from corral.workspace.comparing import RunView
    from corral.workspace.pipelines.plan import Definition

_POLL = 1.0
"""Seconds between two looks at a run that another process is at."""
_OVER = frozenset(StepStatus) - {StepStatus.WAITING, StepStatus.RUNNING}
_ENTERS = frozenset({"answers now", "loads"})
_OWN: Mapping[str, Caller] = {LOCAL.id: LOCAL, SERVER.id: SERVER}
_STANDS = {
    OperationStatus.PENDING: RunStatus.QUEUED,
    OperationStatus.PAUSED: RunStatus.PAUSED,
    OperationStatus.CANCELLED: RunStatus.CANCELLED,
    OperationStatus.FAILED: RunStatus.FAILED,
}


_read = lru_cache(maxsize=64)(read)


async def definition_of(source: str) -> Definition:
    """The pipeline that a source is; of one that was read lately at once.

    Raises:
        PipelineInvalid: it is none; every reason, with its line.
    """
    return await asyncio.to_thread(_read, source)


class Runs:
    """The runs of one `Corral`. Creating it does no I/O."""

    def __init__(self, corral: Corral) -> None:
        self._corral = corral
        self._feeds = Feeds()
        self._templates = Templates()
        self._generator = Generator(corral.carrier)
        self._at_work: dict[str, Execution] = {}
        self._owing: dict[str, Journal] = {}
        self._left: dict[str, float] = {}
        self._stopped: dict[str, CorralError] = {}

    # What an operation does

    async def carry_out(self, operation: Operation, work: Work) -> Mapping[str, Any]:
        """Do the run of an operation, from where it is to its end.

        Raises:
            StepFailed: a step of it has failed; the run says which.
            Halted: there is no room, or no database. What was answered is not lost, so the run has not failed.
        """
        run_id = str(operation.order.params["run"])
        self._stopped.pop(run_id, None)
        try:
            return await self._go_on(run_id, operation, work)
        except (DatabaseError, StoreError) as error:
            self._stopped[run_id] = error
            raise Halted(error.message) from error

    async def _go_on(self, run_id: str, operation: Operation, work: Work) -> Mapping[str, Any]:
        store = self._corral.workspace.store
        run = await store.runs.take(run_id, operation.id)
        if run.status.ended or run.operation != operation.id:  # ordered twice, it is done once
            if run.status is RunStatus.FAILED and run.operation == operation.id:
                raise _failed(run.error or {})
            return _result(run)
        caller = await self._payer(run)
        journal = await self._loaded(run)
        rest = await self._rest(run)
        run = await store.runs.update(
            run.id,
            status=RunStatus.RUNNING,
            error=None,
            started_at=run.started_at or self._corral.clock.wall(),
            environment={**run.environment, "corral": __version__, "python": platform.python_version()},
            paused_seconds=pauses.of_run(run, rest),
            paused_at=None,
        )
        self._left[run.id] = self._corral.clock.wall()
        self._tell_of(run.id, "run", describe(run))
        execution = await self._execution(run, caller, journal, operation, work, rest)
        self._at_work[run.id] = execution
        try:
            await execution.go()
        finally:
            del self._at_work[run.id]
            self._left[run.id] = self._corral.clock.wall()
            if journal.owing:
                self._owing[run.id] = journal
        run = await self._ended(execution)
        if execution.failure is not None:
            raise _failed(execution.failure)
        return _result(run)

    async def _execution(
        self, run: Run, caller: Caller, journal: Journal, operation: Operation, work: Work, rest: pauses.Rest | None
    ) -> Execution:
        corral = self._corral
        store, limits = corral.workspace.store, corral.traffic.limits

        async def progress(connection: AsyncConnection) -> None:
            if operation.attempts > 1:
                await advance(connection, operation.id)

        tools = Tools(
            store=store,
            templates=self._templates,
            settings=corral.settings.workspace,
            clock=corral.clock,
            places=self._places,
            told=lambda message: self._happened(run.id, message, work),
            advance=progress,
            advanced=work.advanced,
        )
        asker = Asker(
            self._generator,
            journal,
            caller,
            corral.clock,
            self._enter,
            limits.leave,
            lambda: corral.settings.ledger.max_tokens,
        )
        definition = await definition_of(run.source)
        steps = {step.key: step for step in await store.runs.steps(run.id)}
        unknown = [replace(step, run=run.id) for step in waiting(definition) if step.key not in steps]
        if unknown:  # whoever made the run died before it wrote them down
            await store.runs.plan(run.id, unknown)
            steps |= {step.key: step for step in unknown}
        return Execution(tools, asker, run, definition, steps, rest)

    async def _ended(self, execution: Execution) -> Run:
        """Write the end of a run down whose work is done, once its journal, all of which is written, is forgotten."""
        corral, run = self._corral, execution.run
        store, failed = corral.workspace.store, execution.failure is not None
        steps = list(execution.steps.values())
        if failed:
            await self._close_books(run)
            await self._leave_out(run.id, f"{(execution.failure or {})['step']} failed", StepStatus.CANCELLED)
        await self._forget(execution.asker.journal, run)
        run = await store.runs.update(
            run.id,
            status=RunStatus.FAILED if failed else RunStatus.COMPLETED,
            error=execution.failure,
            ended_at=corral.clock.wall(),
            environment={**run.environment, "runtimes": await self._versions(steps)},
            reproducible=reasons(execution.definition, steps),
        )
        self._left.pop(run.id, None)
        self._tell_of(run.id, "run", describe(run))
        self._tell(run.id, {"type": "end", "status": run.status.value})
        return run

    async def settle(self, operation: Operation) -> None:
        """Bring a run in step with its operation, which waits or has ended, and whose lease the caller holds."""
        status = _STANDS.get(operation.status)
        if status is None:
            return
        store = self._corral.workspace.store
        try:
            run = await store.runs.get(str(operation.order.params["run"]), deleted=True)
        except EntryNotFound:
            return
        if (
            run.status.ended
            or run.status is status
            or run.id in self._at_work
            or run.operation not in (None, operation.id)
        ):
            return
        over = status in {RunStatus.CANCELLED, RunStatus.FAILED}
        left = StepStatus.CANCELLED if over else StepStatus.WAITING
        rest = await self._rest(run)
        if over:
            await self._close_books(run, rest)
        await self._leave_out(run.id, f"the run was {status}" if over else "", left, rest if over else None)
        if over:  # before it says that it has ended: from then on it may go on, with a journal of its own
            await self._forget(self._journal(run), run)
        values: dict[str, Any] = {"paused_at": None if over or rest is None else rest[0]}
        if over:
            now = self._corral.clock.wall() if rest is None else rest[1]
            values |= {"ended_at": now, "paused_seconds": pauses.of_run(run, rest)}
        run = await store.runs.update(run.id, status=status, error=self._why(run.id, operation), **values)
        self._stopped.pop(run.id, None)
        self._left.pop(run.id, None)
        self._tell_of(run.id, "run", describe(run))
        if over:
            self._tell(run.id, {"type": "end", "status": run.status.value})

    def _why(self, run_id: str, operation: Operation) -> dict[str, Any] | None:
        """Why a run has failed, or is paused though nobody asked for that."""
        error: Failure | CorralError | None = None
        if operation.status is OperationStatus.FAILED:
            error = operation.error
        elif operation.status is OperationStatus.PAUSED:
            error = self._stopped.get(run_id)
        return None if error is None else {"code": error.code, "message": error.message, "hint": error.hint}

    async def reconcile(self, run: RunBrief | Run) -> None:
        """Have a run stand as its operation does, where it does not and nobody is at it."""
        if run.operation is None or run.status.ended or run.id in self._at_work:
            return
        operations = self._corral.catalog.operations
        with suppress(OperationNotFound):
            operation = await operations.get(run.operation)
            # Only under its lease: by the time that it is read, somebody may have it go on, or be at it.
            if _STANDS.get(operation.status, run.status) is not run.status:
                await operations.tell_again(run.operation)

    async def _rest(self, run: Run) -> pauses.Rest | None:
        """From when until now nobody was at a run; None where it has not begun."""
        if run.started_at is None:
            return None
        now, since = self._corral.clock.wall(), self._left.get(run.id) if run.paused_at is None else run.paused_at
        if since is None:
            answers: list[Answer] = []
            with suppress(StoreError):  # whoever goes on with it says so
                journal = await self._loaded(run)
                answers = [answer for each in journal.answers.values() for answer in each]
            since = pauses.last_seen(run, await self._corral.workspace.store.runs.steps(run.id), answers)
        return min(since, now), now

    async def _close_books(self, run: Run, rest: pauses.Rest | None = None) -> None:
        """Write down what was answered for steps that will not be completed: it is paid all the same."""
        store, journal = self._corral.workspace.store, await self._loaded(run)
        steps = {step.key: step for step in await store.runs.steps(run.id)}
        now = self._corral.clock.wall() if rest is None else rest[1]
        for key, answers in journal.answers.items():
            step = steps.get(key) or Step(run=run.id, key=key, name=key.partition("[")[0])
            if step.status in _OVER:
                continue
            last = answers[-1]
            ended = replace(
                step,
                status=StepStatus.CANCELLED,
                attempt=last.attempt,
                request_id=last.request_id,
                cost=step.cost + sum(each.cost for each in answers),
                input_tokens=step.input_tokens + sum(each.input_tokens for each in answers),
                output_tokens=step.output_tokens + sum(each.output_tokens for each in answers),
                paused_seconds=pauses.of_step(step, step.paused_seconds, rest),
                ended_at=now,
            )
            await store.runs.commit(ended, (), partial(book, answers=answers))

    async def sweep(self) -> None:
        """Remove the journals of runs that are gone."""
        journals = folder(self._corral.settings.home)
        for path in await in_thread(lambda: sorted(journals.glob("*.journal"))):
            try:
                await self._corral.workspace.store.runs.get(path.stem, deleted=True)
            except EntryNotFound:
                await in_thread(Journal(path).remove)

    async def _leave_out(self, run_id: str, reason: str, status: StepStatus, rest: pauses.Rest | None = None) -> None:
        """Have the steps that nobody is at, and that are not done, stand so; with them ends a `rest` of the run."""
        store = self._corral.workspace.store
        for step in await store.runs.steps(run_id):
            if step.status in {StepStatus.WAITING, StepStatus.RUNNING} and step.status is not status:
                paused = pauses.of_step(step, step.paused_seconds, rest)
                await store.runs.save(replace(step, status=status, reason=reason, paused_seconds=paused))

    # Who looks on

    async def watch(self, run_id: str) -> AsyncGenerator[dict[str, Any], None]:
        """What happens in a run, from a snapshot to its end; also where another process is at it.

        Raises:
            EntryNotFound: there is none.
        """
        listener = self._feeds.join(run_id)
        try:
            shown = await self._snapshot(run_id)
            yield shown
            status = shown["run"]["status"]
            while not RunStatus(status).ended:
                messages = await listener.wait(_POLL)
                if not messages and run_id not in self._at_work:
                    fresh = await self._snapshot(run_id)
                    messages, shown = _differences(shown, fresh), fresh
                for message in messages:
                    yield message
                    if message["type"] == "end":
                        return
                    if message["type"] == "run":
                        status = message["run"]["status"]
            yield {"type": "end", "at": self._corral.clock.wall(), "status": str(status)}
        finally:
            self._feeds.leave(run_id, listener)

    async def _snapshot(self, run_id: str) -> dict[str, Any]:
        store = self._corral.workspace.store
        run = await store.runs.get(run_id)
        steps = {step.key: step for step in await store.runs.steps(run_id)}
        execution = self._at_work.get(run_id)
        if execution is not None:
            steps |= {key: step for key, step in execution.steps.items() if step.status is StepStatus.RUNNING}
        artifacts = await store.artifacts.of_run(run_id)
        return {
            "type": "snapshot",
            "at": self._corral.clock.wall(),
            "run": describe(run),
            "steps": [describe(step) for step in steps.values()],
            "artifacts": [describe(artifact) for artifact in artifacts],
        }

    def _happened(self, run_id: str, message: dict[str, Any], work: Work) -> None:
        """Tell of what an execution tells."""
        execution = self._at_work.get(run_id)
        match message["type"]:
            case "committed":
                self._tell_of(run_id, "step", describe(message["step"]))
                for artifact in message["artifacts"]:
                    self._tell_of(run_id, "artifact", describe(artifact))
                if execution is not None:
                    self._tell_cost(run_id, execution)
                    done = sum(step.ended_at is not None for step in execution.steps.values())
                    work.report(Progress("steps", done, len(execution.steps)))
            case "step" if self._feeds.heard(run_id):
                self._tell_of(run_id, "step", describe(message["step"]))
            case _ if self._feeds.heard(run_id):
                self._tell(run_id, message)

    def _tell_cost(self, run_id: str, execution: Execution) -> None:
        steps = execution.steps.values()
        message = {
            "type": "cost",
            "cost_usd": sum(step.cost for step in steps) / NANO,
            "input_tokens": sum(step.input_tokens for step in steps),
            "output_tokens": sum(step.output_tokens for step in steps),
        }
        self._tell(run_id, message)

    def _tell_of(self, run_id: str, kind: str, content: dict[str, Any]) -> None:
        self._tell(run_id, {"type": kind, kind: content})

    def _tell(self, run_id: str, message: dict[str, Any]) -> None:
        self._feeds.tell(run_id, {**message, "at": self._corral.clock.wall()})

    async def view(self, run_id: str) -> RunView:
        """A run with all that came of it, to be compared: its own editions, whatever was made of them afterwards."""
        from corral.workspace.comparing import RunView

        store = self._corral.workspace.store
        run, steps = await store.runs.get(run_id), await store.runs.steps(run_id)
        made = []
        for artifact in await store.artifacts.of_run(run_id):
            own = [each for each in await store.artifacts.editions(artifact.id) if each.run == run_id][-1:]
            shown = replace(artifact, digest=own[0].digest, size=own[0].size, number=own[0].number) if own else artifact
            made.append(shown)
        return RunView(run, tuple(steps), tuple(made))

    async def close(self) -> None:
        """End what renders templates."""
        await self._templates.aclose()

    # What a run is done with

    async def _payer(self, run: Run) -> Caller:
        """Who pays for a run, by the budgets as they are now, and for its project.

        Raises:
            Unauthorized: the key that started it is gone.
            Forbidden: it is not for the run's project.
            Conflict: the project is deleted.
        """
        caller = _OWN.get(run.caller)
        if caller is None:
            await self._corral.keys.refresh()
            caller = self._holder(run.caller)
        project = await self._corral.workspace.store.projects.get(run.project, deleted=True)
        if project.deleted_at is not None:
            raise Conflict(f"The project {project.name!r} of the run is deleted.", "Restore it first.")
        if caller.projects and project.name not in caller.projects:  # by now: one of the two was changed, or moved
            raise Forbidden(
                f"The key {caller.name!r} that started the run is not for the project {project.name!r}.",
                "Run it again with another.",
            )
        return replace(caller, project=project.name)

    def _holder(self, key: str) -> Caller:
        """Who has the key that started a run.

        Raises:
            Unauthorized: nobody any more.
        """
        caller = self._corral.keys.holder(key)
        if caller is None:
            raise Unauthorized(
                f"The key {key} that started the run is revoked or has expired.", "Run it again with another."
            )
        return caller

    def _enter(self, caller: Caller) -> None:
        """Let a request of a run in, as the limits of its key allow; a key that is gone meanwhile pays for no more.

        Raises:
            Unauthorized: it is gone.
            RateLimited: not now.
        """
        if caller.id not in _OWN:
            self._holder(caller.id)
        self._corral.traffic.limits.enter(caller)

    async def _places(self, models: Collection[str]) -> tuple[Collection[str], Collection[str]]:
        """Which models can be asked at once, and which could be loaded with nobody having to leave memory."""
        corral, at_hand, beside = self._corral, set(), set()
        for name in models:
            own = corral.canonical(name)
            engine, _ = corral.supervisor.outlook(own)
            if engine is not None or own in corral.settings.routes or not corral.routes.known(own).local:
                at_hand.add(name)  # a route asks who is there, and a vendor is
                continue
            with suppress(CorralError):  # whoever asks it is told why it cannot be had
                found = await corral.supervisor.explain(own)
                if found.verdict in _ENTERS and not any(each.chosen for each in found.candidates):
                    beside.add(name)
        return at_hand, beside

    def _journal(self, run: Run) -> Journal:
        return Journal(folder(self._corral.settings.home) / f"{run.id}.journal")

    async def _loaded(self, run: Run) -> Journal:
        """The journal of a run, with what it holds that could not be written."""
        journal = self._owing.get(run.id) or self._journal(run)
        await in_thread(journal.load)  # another process may have been at it since, and have written more
        return journal

    async def _forget(self, journal: Journal, run: Run) -> None:
        """Remove a journal all of which is written down elsewhere."""
        await in_thread(journal.remove)
        self._owing.pop(run.id, None)

    async def _versions(self, steps: list[Step]) -> dict[str, str]:
        """The versions of the runtimes that answered."""
        found: dict[str, str] = {}
        for kind in sorted({str((step.receipt or {}).get("runtime") or "") for step in steps} - {""}):
            with suppress(CorralError):
                found[kind] = (await self._corral.choices.availability(kind)).version or ""
        return found


def _differences(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    """What has happened between two snapshots, as it would have been told."""
    at, found = after["at"], []
    known = {step["key"]: step for step in before["steps"]}
    found += [{"type": "step", "at": at, "step": step} for step in after["steps"] if known.get(step["key"]) != step]
    there = {artifact["id"]: artifact for artifact in before["artifacts"]}
    found += [
        {"type": "artifact", "at": at, "artifact": each} for each in after["artifacts"] if there.get(each["id"]) != each
    ]
    run = after["run"]
    if run != before["run"]:
        costs = {name: run[name] for name in ("cost_usd", "input_tokens", "output_tokens")}
        found.append({"type": "cost", "at": at, **costs})
        found.append({"type": "run", "at": at, "run": run})
    return found


def _failed(error: Mapping[str, Any]) -> StepFailed:
    """Why the operation of a run has failed that failed so."""
    step, message = error.get("step"), str(error.get("message", ""))
    return StepFailed(message if step is None else f"{step}: {message}", str(error.get("hint", "")))


def _result(run: Run) -> dict[str, Any]:
    return {"run": run.id, "status": run.status.value, "cost_usd": run.cost / NANO}
