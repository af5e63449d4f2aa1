"""`Workspace`: projects, pipelines and artifacts from Python, in this process's loop and without a server.

Workspace
    .projects .contexts .pipelines .runs .artifacts     what is kept, each with its verbs (see kept.py)
    run, rerun, resume, pause, cancel                   pipelines, run
    watch, compare, search, export, load                what came of them
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from corral.app.hosted import Hosted
from corral.domain.money import NANO
from corral.domain.workspace import Artifact, Hit, Pipeline, Project, Run, RunBrief, RunStatus, Step
from corral.errors import Conflict
from corral.studio.kept import Artifacts, Contexts, Pipelines, Projects, Runs, given_models, source_of
from corral.workspace.pipelines.order import RunOrder

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from pathlib import Path

    from corral.config import Settings

    Heard = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run. `steps` are by key: `name`, or `name[3]` of one that fans out."""

    run: Run
    steps: Mapping[str, Step] = field(default_factory=dict)
    artifacts: tuple[Artifact, ...] = ()

    @property
    def id(self) -> str:
        """The run's id."""
        return self.run.id

    @property
    def status(self) -> RunStatus:
        """Where the run stands."""
        return self.run.status

    @property
    def cost_usd(self) -> float:
        """What it cost, in US dollars."""
        return self.run.cost / NANO

    def output(self, step: str) -> str:
        """What a step answered; of one that fans out, its answers one below the other.

        Raises:
            KeyError: there is no such step, or it has no answer.
        """
        found = [each.output for each in self.steps.values() if step in (each.key, each.name) and each.output]
        if not found:
            raise KeyError(step)
        return "\n\n".join(found)

    def artifact(self, name: str) -> Artifact:
        """The artifact of that name.

        Raises:
            KeyError: the run made none.
        """
        found = next((each for each in self.artifacts if each.name == name), None)
        if found is None:
            raise KeyError(name)
        return found


class Workspace(Hosted):
    """Projects, pipelines and artifacts of this machine; what models answer is done by engines of this process.

    Everything is written down in the same place as a server's: a run that is under way when the program ends goes on
    when the next one, or a server, resumes it. Several programs and a server may use it at once.

    Use it as an `async with` block, or `close` it; all calls belong to one event loop.

    Args:
        config: a configuration file instead of the usual places.
        settings: a configuration that has been read already.
        flags: dotted keys that win over file and environment, such as `{"home": "./work"}`.
        env: the environment; the process's own when None.
    """

    def __init__(
        self,
        config: str | Path | None = None,
        *,
        settings: Settings | None = None,
        flags: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(config, settings=settings, flags=flags, env=env)
        self._workspace = self.corral.workspace
        self.projects = Projects(self._workspace)
        self.contexts = Contexts(self._workspace)
        self.pipelines = Pipelines(self._workspace)
        self.runs = Runs(self._workspace)
        self.artifacts = Artifacts(self._workspace)

    async def run(  # noqa: PLR0913  # what a run can be given
        self,
        pipeline: str | Path | Pipeline,
        *,
        project: str | Project | None = None,
        inputs: Mapping[str, Any] | None = None,
        models: str | Mapping[str, str] | None = None,
        budget: float | None = None,
        seed: int | None = None,
        title: str = "",
        tags: Sequence[str] = (),
        heard: Heard | None = None,
    ) -> Result:
        """Run a pipeline to its end, and return what came of it, whether it was completed or not.

        Args:
            pipeline: a saved one, by name or id; the path of a YAML file; or the YAML itself.
            project: by name or id; None is the pipeline's own.
            models: asked in place of what the pipeline names: one for all steps, or by step.
            budget: the most that it may cost, in US dollars.
            heard: given each message of the run, as it comes (see `watch`).

        Raises:
            PipelineInvalid: it cannot be run; every reason, with its line.
            EntryNotFound, InvalidRequest: the project or an input is missing, or not what it should be.
        """
        run = await self.start(
            pipeline,
            project=project,
            inputs=dict(inputs or {}),
            models=models,
            budget=budget,
            seed=seed,
            title=title,
            tags=tags,
        )
        return await self._through(run.id, heard)

    async def start(self, pipeline: str | Path | Pipeline, *, project: str | Project | None = None, **more: Any) -> Run:
        """Queue a run without waiting for it; `resume` sees it through, and so does a server. `more` as for `run`."""
        budget = more.pop("budget", None)
        more["models"] = given_models(more.pop("models", None))
        more["tags"] = tuple(more.pop("tags", ()))
        nano = None if budget is None else round(budget * NANO)
        return await self._workspace.start(await self._order(pipeline, project, budget=nano, **more))

    async def rerun(
        self,
        run: str | RunBrief | Result,
        *,
        models: str | Mapping[str, str] | None = None,
        inputs: Mapping[str, Any] | None = None,
        seed: int | None = None,
        title: str = "",
        heard: Heard | None = None,
    ) -> Result:
        """Run the same again, with what it was given, but for what is given here; to its end, as `run`."""
        again = await self._workspace.rerun(
            _id(run), models=given_models(models), inputs=inputs, seed=seed, title=title
        )
        return await self._through(again.id, heard)

    async def resume(self, run: str | RunBrief | Result, *, heard: Heard | None = None) -> Result:
        """Go on with a run that was queued, paused, left or failed, where it stopped; to its end, as `run`.

        Raises:
            Conflict: it is completed.
        """
        found = await self._workspace.store.runs.get(_id(run))
        if found.status not in (RunStatus.QUEUED, RunStatus.RUNNING):
            found = await self._workspace.resume(found.id)
        return await self._through(found.id, heard)

    async def pause(self, run: str | RunBrief | Result) -> Run:
        """Let a run rest. Raises Conflict when it has ended."""
        return await self._workspace.pause(_id(run))

    async def cancel(self, run: str | RunBrief | Result) -> Run:
        """Call a run off; what it has made stays. Raises Conflict when it has ended."""
        return await self._workspace.cancel(_id(run))

    async def result(self, run: str | RunBrief | Result) -> Result:
        """What a run has come to so far."""
        store, identifier = self._workspace.store, _id(run)
        found = await store.runs.get(identifier)
        steps = await store.runs.steps(identifier)
        return Result(found, {step.key: step for step in steps}, tuple(await store.artifacts.of_run(identifier)))

    async def watch(self, run: str | RunBrief | Result) -> AsyncGenerator[dict[str, Any], None]:
        """How a run stands, and then each change, until it has ended.

        The messages are those of `GET /api/v1/runs/{id}/events`: `snapshot`, `run`, `step`, `text`, `artifact`, `cost`
        and `end`.
        """
        async with aclosing(self._workspace.watch(_id(run))) as messages:
            async for message in messages:
                yield message

    async def compare(self, one: str | RunBrief | Result, other: str | RunBrief | Result) -> dict[str, Any]:
        """Two runs side by side: answers, costs, times, and how their artifacts differ."""
        return await self._workspace.compare(_id(one), _id(other))

    async def search(
        self, text: str, *, project: str | Project | None = None, kinds: Sequence[str] = (), limit: int = 50
    ) -> list[Hit]:
        """Where these words are: `kinds` are `project`, `context`, `pipeline`, `run`, `artifact`; none are all."""
        where = None if project is None else (await self.projects.get(project)).id
        page = await self._workspace.store.search(text, project=where, kinds=tuple(kinds), limit=limit)
        return list(page.items)

    async def export(self, project: str | Project, file: str | Path) -> Path:
        """Write a whole project into an archive, which must not be there yet; its path.

        Raises:
            Conflict: there is such a file.
        """
        return await self.projects.export(project, file)

    async def load(self, file: str | Path, *, name: str | None = None) -> Project:
        """Make a project of an archive.

        Raises:
            Conflict: there is one of its name; give another.
            InvalidRequest: it is none.
        """
        return await self.projects.load(file, name=name)

    async def perform(self, run: str) -> None:
        """See a run through, here or by looking on where another process does it, until it has ended or is paused."""
        self._begin()
        await self._workspace.perform(run)

    async def _order(self, pipeline: str | Path | Pipeline, project: str | Project | None, **more: Any) -> RunOrder:
        source = await asyncio.to_thread(source_of, pipeline)
        where = None if project is None else (await self.projects.get(project)).id
        kept = None
        if source is None:
            called = pipeline.id if isinstance(pipeline, Pipeline) else str(pipeline)
            kept = await self._workspace.store.pipelines.get(called, project=where)
        if where is None:
            where = None if kept is None else kept.project
        if where is None:
            raise Conflict("A run is in a project, and none is named.", 'Give it: project="shop"')
        return RunOrder(project=where, pipeline=None if kept is None else kept.id, source=source, **more)

    async def _through(self, run: str, heard: Heard | None) -> Result:
        """See a run through, and tell what happens."""
        listening = None if heard is None else asyncio.ensure_future(self._tell(run, heard))
        doing = asyncio.ensure_future(self.perform(run))
        tasks = [task for task in (doing, listening) if task is not None]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return await self.result(run)

    async def _tell(self, run: str, heard: Heard) -> None:
        async for message in self.watch(run):
            heard(message)
            if message.get("run", {}).get("status") == RunStatus.PAUSED:
                return

    def _begin(self) -> None:
        if self._closed:
            raise Conflict("This Workspace is closed.", "Create another.")
        super()._begin()


def _id(run: str | RunBrief | Result) -> str:
    return run if isinstance(run, str) else run.id
