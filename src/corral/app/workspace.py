"""Projects, pipelines and artifacts of one `Corral`: what is kept, and what is done with it.

A run is an operation: it goes on wherever those of this home are done, after whatever happened.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any

from corral.app import ahead
from corral.domain.callers import LOCAL, Scope
from corral.domain.operations import OperationStatus, Order
from corral.domain.ports import Report, silent
from corral.domain.workspace import Query, Run, RunStatus
from corral.errors import Conflict, CorralError, EntryNotFound, Forbidden, InvalidRequest, OperationNotFound
from corral.kit.disk import in_thread
from corral.routing.keys import may_use, seen_by
from corral.routing.plan import Plan
from corral.workspace.pipelines.journal import folder
from corral.workspace.pipelines.order import RunOrder

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from corral.app.corral import Corral
    from corral.app.runs import Runs
    from corral.app.showing import Showing
    from corral.domain.callers import Caller
    from corral.domain.workspace import Project, RunBrief
    from corral.workspace.pipelines.plan import Checked, Definition
    from corral.workspace.store import Store

__all__ = ["KIND", "RunOrder", "Workspace"]

KIND = "pipeline-run"
"""The kind of operation that a run is."""
_SWEEP = 3600.0
"""Seconds between two times that what was deleted long ago is removed."""
_LOOK = 5.0
"""Seconds between two looks whether there is a database, and whether a run was left without an operation."""
_NAME_MODEL = "Name the one that is to mend it (`model`, or --model): see GET /v1/models, or corral list."
_SEEDS = 2**31 - 1
_TOGETHER = 100
"""Runs that are looked at in one go."""

_log = logging.getLogger(__name__)


class Workspace:
    """The workspace of one `Corral`. Creating it does no I/O.

    Raises:
        EntryNotFound: from every method: there is no such entry.
        DatabaseError, StoreError: from every method: the database or the folder cannot be reached.
    """

    def __init__(self, corral: Corral) -> None:
        self._corral = corral

    @cached_property
    def store(self) -> Store:
        """What is kept."""
        from corral.workspace.store import Store

        corral = self._corral
        settings = corral.settings
        return Store(corral.database, settings.home, corral.clock, max_artifact=settings.workspace.max_artifact)

    @cached_property
    def showing(self) -> Showing:
        """Artifacts as they are looked at and taken away."""
        from corral.app.showing import Showing

        return Showing(self.store)

    @cached_property
    def runs(self) -> Runs:
        """Who is at work on runs in this process."""
        from corral.app.runs import Runs

        return Runs(self._corral)

    async def take_in(self, file: IO[bytes], *, name: str | None = None) -> Project:
        """Make a project of the archive in `file`, which can be sought in: see `exports.archive.import_project`.

        Raises:
            InvalidRequest: it is no such archive, or is damaged.
            BodyTooLarge: it unpacks to more than `workspace.max_import`.
            Conflict: there is a project of that name.
        """
        from corral.workspace.exports.archive import import_project

        return await import_project(self.store, file, name=name, largest=self._corral.settings.workspace.max_import)

    async def validate(self, source: str, caller: Caller = LOCAL) -> Checked:
        """What is wrong with a pipeline, all of it; nothing is run. `caller` would run it."""
        from corral.workspace.pipelines.definition import inspect

        return await asyncio.to_thread(inspect, source, known=lambda model: self._known(model, caller))

    async def start(self, order: RunOrder) -> Run:
        """Have a pipeline run: the run as it stands, which is not begun yet. It goes on without whoever started it.

        Raises:
            PipelineInvalid: the pipeline cannot be run; every reason, with its line.
            InvalidRequest: an input is missing or not what it should be, or a model is given for a step that is none.
            Conflict: the project is archived.
        """
        project = await self.store.projects.get(order.project)
        source, pipeline, name = order.source, None, ""
        if source is None:
            if order.pipeline is None:
                raise InvalidRequest("There is nothing to run.", "Name a pipeline, or give its source.")
            kept = await self.store.pipelines.get(order.pipeline)
            source, pipeline, name = kept.source, kept.id, kept.name
        definition = await self._read(source)
        await self._check_models(source, definition, order.models, order.caller)
        material = await self.store.contexts.material(project.id)
        return await self._begin(
            definition,
            Run(
                id="",
                project=project.id,
                name=name or definition.name,
                source=source,
                pipeline=pipeline,
                title=order.title,
                inputs=_bound(definition, order.inputs),
                material=material,
                models=dict(order.models),
                seed=secrets.randbelow(_SEEDS) if order.seed is None else order.seed,
                budget=definition.budget if order.budget is None else order.budget,
                caller=order.caller.id,
                tags=order.tags,
            ),
        )

    async def rerun(
        self,
        run_id: str,
        *,
        models: Mapping[str, str] | None = None,
        inputs: Mapping[str, Any] | None = None,
        seed: int | None = None,
        title: str = "",
        caller: Caller = LOCAL,
    ) -> Run:
        """Run again what a run was, with what it was given, but for what is given here. `inputs` replace single ones.

        Raises:
            InvalidRequest, Conflict: as `start`.
        """
        before = await self.store.runs.get(run_id)
        definition = await self._read(before.source)
        await self._check_models(before.source, definition, {**before.models, **(models or {})}, caller)
        return await self._begin(
            definition,
            Run(
                id="",
                project=before.project,
                name=before.name,
                source=before.source,
                pipeline=before.pipeline,
                title=title or before.title,
                inputs=_bound(definition, {**before.inputs, **(inputs or {})}),
                material=before.material,
                models={**before.models, **(models or {})},
                seed=before.seed if seed is None else seed,
                budget=before.budget,
                caller=caller.id,
                rerun_of=before.id,
                environment={name: value for name, value in before.environment.items() if name == "edition_of"},
                tags=before.tags,
            ),
        )

    async def repair(self, artifact_id: str, error: str, *, model: str | None = None, caller: Caller = LOCAL) -> Run:
        """Have a model mend an artifact that does not work: a run of one step, whose answer becomes a new edition.

        `model` None is the one that wrote its newest edition of those that a model wrote.

        Raises:
            InvalidRequest: the artifact is no code, there is no `error`, or no model that could be asked.
            Conflict: its project is archived.
        """
        from corral.workspace.pipelines.repairing import repair_run

        store = self.store
        artifact = await store.artifacts.get(artifact_id)
        editions = await store.artifacts.editions(artifact_id)
        content = await store.artifacts.content(artifact_id)
        wrote = {each.number: each.model for each in editions if each.model is not None}
        if model is None and not wrote:
            raise InvalidRequest(f"No model wrote {artifact.name}.", _NAME_MODEL, param="model")
        mender = wrote[max(wrote)] if model is None else model
        source, inputs = repair_run(artifact, content, error, mender)
        why = self._known(mender, caller)
        if why is not None:
            raise InvalidRequest(why, _NAME_MODEL, param="model")
        definition = await self._read(source)
        run = Run(
            id="",
            project=artifact.project,
            name=definition.name,
            source=source,
            title=f"Repair of {artifact.name}"[:200],
            inputs=inputs,
            seed=secrets.randbelow(_SEEDS),
            caller=caller.id,
            environment={"edition_of": artifact.id},
        )
        return await self._begin(definition, run)

    async def cancel(self, run_id: str) -> Run:
        """Call a run off; what it has made stays.

        Raises:
            Conflict: it has ended.
        """
        return await self._ask(run_id, "cancel")

    async def pause(self, run_id: str) -> Run:
        """Stop a run where it is; steps under way are begun again when it goes on.

        Raises:
            Conflict: it has ended, or is paused.
        """
        return await self._ask(run_id, "pause")

    async def resume(self, run_id: str, *, caller: Caller = LOCAL) -> Run:
        """Go on with a run that is paused, or that failed or was called off: finished steps are not done again.

        Also in a project that is archived: it is no new run, and what has been paid in it is not lost.

        Raises:
            Conflict: it is at work, or is completed.
            Forbidden: somebody else would pay for what is left of it.
        """
        run = await self._standing(run_id)
        if caller.id != run.caller and not caller.may(Scope.ADMIN):
            raise Forbidden(
                f"The run {run.id} is paid by whoever started it, which was not the key {caller.name!r}.",
                "Run it again, and pay for it: corral pipeline rerun",
            )
        if run.status in {RunStatus.FAILED, RunStatus.CANCELLED}:
            await self._over(run)
            return await self._submit(await self.store.runs.reopen(run.id))
        return await self._ask(run_id, "resume")

    def watch(self, run_id: str) -> AsyncGenerator[dict[str, Any], None]:
        """What happens in a run: a snapshot first, then news, and `end` last. See `workspace/pipelines/events.py`."""
        return self.runs.watch(run_id)

    async def perform(self, run_id: str, report: Report = silent) -> Run:
        """Do a run here, without a server, until it has ended or is paused. When cancelled it is paused."""
        run = await self.store.runs.get(run_id)
        if run.operation is None:
            run = await self._submit(run)
        if run.operation is not None and not run.status.ended:
            try:
                await self._corral.catalog.operations.perform(run.operation, report)
            except OperationNotFound:
                raise _elsewhere(run) from None
        return await self.store.runs.get(run_id)

    async def compare(self, a: str, b: str) -> dict[str, Any]:
        """Two runs side by side: outputs, artifacts, costs and times."""
        from corral.workspace.comparing import compare

        one, two = await self.runs.view(a), await self.runs.view(b)
        return await compare(one, two, lambda artifact: self.store.contents.read(artifact.digest))

    async def keep(self) -> None:
        """Remove what was deleted long ago, and have runs begun that nobody begins, until cancelled.

        Where there is no database, none is made.
        """
        file, clock, journals = self._corral.database.file, self._corral.clock, folder(self._corral.settings.home)
        while file is not None and not file.exists():
            await clock.sleep(_LOOK)
        await ahead.operations()
        swept = -_SWEEP
        while True:
            try:
                await self._tidy()
                if clock.now() - swept >= _SWEEP:
                    swept = clock.now()
                    await self.store.sweep(clock.wall(), self._corral.settings.workspace.retention)
                    if await in_thread(journals.is_dir):  # else nothing that does runs is needed in memory
                        await self.runs.sweep()
            except CorralError as error:
                _log.warning("the workspace is not tidied up: %s", error)
            await clock.sleep(_LOOK * 12)

    async def close(self) -> None:
        """End what is at work for runs in this process."""
        if "runs" in self.__dict__:
            await self.runs.close()

    async def _tidy(self) -> None:
        """Bring runs in step with their operations, where a process died between the two."""
        begun = self._corral.clock.wall()
        for status in (RunStatus.QUEUED, RunStatus.RUNNING):
            # One that has changed since has somebody at it; so what is walked along stays as it is.
            filters = {"status": status, "updated_before": begun}
            asked = Query(filters=filters, archived=None, sort="updated_at", limit=_TOGETHER)
            while True:
                page = await self.store.runs.listed(asked)
                for run in page.items:
                    with suppress(EntryNotFound):  # it was removed meanwhile
                        await self._in_step(run)
                if page.next is None:
                    break
                asked = replace(asked, cursor=page.next)

    async def _in_step(self, run: RunBrief) -> None:
        if run.operation is not None:
            await self.runs.reconcile(run)
        elif self._corral.clock.wall() - run.created_at > _LOOK:
            await self._submit(run)

    async def _read(self, source: str) -> Definition:
        from corral.app.runs import definition_of

        return await definition_of(source)

    async def _begin(self, definition: Definition, run: Run) -> Run:
        """Write a run and its waiting steps down, and have it done: the one way in which a run begins."""
        from corral.workspace.pipelines.executing import waiting

        unknown = [name for name in run.models if name != "*" and name not in {s.name for s in definition.steps}]
        if unknown:
            raise InvalidRequest(
                f"A model is given for {unknown[0]!r}, which is no step of this pipeline.",
                f"Steps: {', '.join(step.name for step in definition.steps)}.",
                param="models",
            )
        return await self._submit(await self.store.runs.begin(run, waiting(definition)))

    async def _submit(self, run: RunBrief) -> Run:
        await ahead.operations()
        order = Order(KIND, run.name, {"run": run.id}, host=KIND)
        operation = await self._corral.catalog.operations.submit(order)
        return await self.store.runs.take(run.id, operation.id)

    async def _standing(self, run_id: str) -> Run:
        """The run, as its operation stands: of one that has ended the run may not have been told."""
        await self.runs.reconcile(await self.store.runs.get(run_id))
        return await self.store.runs.get(run_id)

    async def _ask(self, run_id: str, what: str) -> Run:
        run = await self._standing(run_id)
        if run.operation is None:
            run = await self._submit(run)
        if run.operation is None or run.status.ended:
            raise Conflict(
                f"The run {run.id} has ended: {run.status}.", f"Run it again: corral pipeline rerun {run.id}"
            )
        operations = self._corral.catalog.operations
        try:
            await getattr(operations, what)(run.operation)
        except OperationNotFound:
            raise _elsewhere(run) from None
        return await self._standing(run_id)

    async def _over(self, run: Run) -> None:
        """Wait until the operation of a run that has ended has so too, which takes a moment longer."""
        if run.operation is None:
            return
        with suppress(OperationNotFound):
            async for operation in self._corral.catalog.operations.watch(run.operation):
                if operation.status is OperationStatus.PAUSED:
                    return  # who called it off died before that was written; it goes on with what waits again

    async def _check_models(
        self, source: str, definition: Definition, models: Mapping[str, str], caller: Caller
    ) -> None:
        """Refuse a pipeline of whose models one cannot be asked; those of `models` are asked in place of its own."""
        from corral.workspace.pipelines.definition import invalid, knows_models

        for step, model in models.items():
            why = self._known(model, caller)
            if why is not None:
                hint = f"Name another for {step!r}" if step != "*" else "Name another"
                raise InvalidRequest(why, f"{hint}: see GET /v1/models, or corral list.", param="models")
        if "*" in models or knows_models(definition, lambda model: self._known(model, caller)):
            return
        replaced = tuple(f"steps.{step}." for step in models)
        issues = [each for each in (await self.validate(source, caller)).issues if not each.place.startswith(replaced)]
        if issues:
            raise invalid(tuple(issues))

    def _known(self, model: str, caller: Caller) -> str | None:
        """Why a model cannot be asked by that caller; None where it can, as far as that is known."""
        corral = self._corral
        try:
            if isinstance(corral.routes.find(model), Plan):  # it is one model, and no route
                if not may_use(caller, corral.canonical(model)):
                    return f"The key {caller.name!r} may not be used for {model[:100]!r}."
                corral.definition(model, seen_by(caller))
        except CorralError as error:
            return str(error)
        return None


def _elsewhere(run: Run) -> Conflict:
    return Conflict(
        f"The run {run.id} is another machine's, which shares the database: what was answered for it lies there.",
        f"Ask there, or start a server with that home. To do all of it here: corral pipeline rerun {run.id}",
    )


def _bound(definition: Definition, inputs: Mapping[str, Any]) -> dict[str, Any]:
    from corral.workspace.pipelines.definition import bind

    return bind(definition, inputs)
