"""What the workspace's routes answer, as OpenAPI tells it. Answers are written without going through these."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from corral.domain.workspace import ContextKind, RunStatus, StepStatus
from corral.gateway.api.workspace_examples import (
    ARTIFACT,
    CONTEXT,
    EDITION,
    KEPT_PIPELINE,
    PROJECT,
    RUN,
    RUN_BRIEFLY,
    STEP,
)


def shown(*examples: dict[str, Any]) -> ConfigDict:
    """The configuration of a shape with examples."""
    return ConfigDict(json_schema_extra={"examples": list(examples)})


def _one(name: str, entry: dict[str, Any]) -> ConfigDict:
    return shown({"success": True, name: entry})


def _many(name: str, entry: dict[str, Any], **more: Any) -> ConfigDict:
    return shown({"success": True, name: [entry], "count": 1, **more})


class WorkspaceEntry(BaseModel):
    """What every entry has. `version` grows with each change and is its ETag. Unix seconds."""

    id: str
    version: int
    created_at: float
    updated_at: float
    archived_at: float | None
    deleted_at: float | None = Field(description="It can be restored until `workspace.retention` has gone by")
    tags: list[str]


class ProjectEntry(WorkspaceEntry):
    """A project. `name` stays: budgets and the books know it by that."""

    model_config = shown(PROJECT)

    name: str
    title: str
    description: str
    settings: dict[str, Any]


class ContextEntry(WorkspaceEntry):
    """A piece of material. `text` is what models are given of it; `digest` and `size` are of a file's bytes."""

    model_config = shown(CONTEXT)

    project: str
    kind: ContextKind
    name: str
    position: int
    text: str
    variables: dict[str, Any]
    digest: str | None
    size: int
    media_type: str
    enabled: bool


class PipelineEntry(WorkspaceEntry):
    """A pipeline. `source` is its YAML; `project` null: it is for every project."""

    model_config = shown(KEPT_PIPELINE)

    name: str
    source: str
    project: str | None
    description: str


class RunBriefly(WorkspaceEntry):
    """One execution as lists have it, without what it was given. US dollars; Unix seconds."""

    model_config = shown(RUN_BRIEFLY)

    project: str
    name: str
    pipeline: str | None
    title: str
    models: dict[str, str] = Field(description="Asked in place of what the pipeline names, by step, or `*`")
    seed: int | None
    budget_usd: float | None
    caller: str = Field(description="The id of who pays")
    status: RunStatus
    operation: str | None
    rerun_of: str | None
    error: dict[str, Any] | None
    started_at: float | None
    ended_at: float | None
    paused_seconds: float = Field(
        description="How long nobody was at it since it began: the time it took is what is left"
    )
    paused_at: float | None = Field(description="Since when nobody is at it, where it has begun and not ended")
    cost_usd: float
    input_tokens: int
    output_tokens: int
    steps_total: int
    steps_done: int


class RunEntry(RunBriefly):
    """One execution, and all it was given. US dollars; Unix seconds."""

    model_config = shown(RUN)

    source: str
    inputs: dict[str, Any]
    material: list[dict[str, Any]] = Field(description="The contexts as they were")
    environment: dict[str, Any]
    reproducible: dict[str, str] = Field(description="By step, why a rerun may differ")


class RunStep(BaseModel):
    """One step of a run as it stands; of one that fans out, one for each item. US dollars; Unix seconds."""

    model_config = shown(STEP)

    run: str
    key: str = Field(description="`name`, or `name[3]`")
    name: str
    index: int | None
    position: int
    status: StepStatus
    attempt: int
    model: str | None
    request_id: str | None
    request: dict[str, Any] | None = Field(description="What was asked, exactly")
    output: str | None
    value: Any = Field(description="The same as JSON, where the step has that for a contract")
    receipt: dict[str, Any] | None
    tries: list[dict[str, Any]]
    reason: str
    error: dict[str, Any] | None
    started_at: float | None
    ended_at: float | None
    paused_seconds: float = Field(description="How long of that nobody was at the run")
    cost_usd: float
    input_tokens: int
    output_tokens: int


class ArtifactEntry(WorkspaceEntry):
    """What came of a run, or was put there by hand. `digest` and `size` are of its newest edition, `number`."""

    model_config = shown(ARTIFACT)

    project: str
    name: str
    kind: str
    media_type: str
    digest: str
    size: int
    number: int
    title: str
    run: str | None
    step: str | None


class ArtifactEdition(BaseModel):
    """One version of an artifact, which never changes. `problems` is what the parser of its language found."""

    model_config = shown(EDITION)

    artifact: str
    number: int
    digest: str
    size: int
    created_at: float
    run: str | None
    step: str | None
    model: str | None
    request_id: str | None
    problems: list[dict[str, Any]]
    note: str


class OneProject(BaseModel):
    """Answer about one project."""

    model_config = _one("project", PROJECT)

    success: bool = True
    project: ProjectEntry


class OneContext(BaseModel):
    """Answer about one context."""

    model_config = _one("context", CONTEXT)

    success: bool = True
    context: ContextEntry


class OnePipeline(BaseModel):
    """Answer about one pipeline."""

    model_config = _one("pipeline", KEPT_PIPELINE)

    success: bool = True
    pipeline: PipelineEntry


class OneRun(BaseModel):
    """Answer about one run."""

    model_config = _one("run", RUN)

    success: bool = True
    run: RunEntry


class OneArtifact(BaseModel):
    """Answer about one artifact."""

    model_config = _one("artifact", ARTIFACT)

    success: bool = True
    artifact: ArtifactEntry


class EntryPage(BaseModel):
    """What every page has. `next` is the `cursor` of the next one, null on the last; `total` is of all, if asked."""

    success: bool = True
    count: int
    total: int | None
    next: str | None


class ManyProjects(EntryPage):
    """A page of projects."""

    model_config = _many("projects", PROJECT, total=None, next=None)

    projects: list[ProjectEntry]


class ManyContexts(EntryPage):
    """A page of contexts."""

    model_config = _many("contexts", CONTEXT, total=None, next=None)

    contexts: list[ContextEntry]


class ManyPipelines(EntryPage):
    """A page of pipelines."""

    model_config = _many("pipelines", KEPT_PIPELINE, total=None, next=None)

    pipelines: list[PipelineEntry]


class ManyRuns(EntryPage):
    """A page of runs, without what they were given: that comes with the run itself."""

    model_config = _many("runs", RUN_BRIEFLY, total=None, next=None)

    runs: list[RunBriefly]


class ManyArtifacts(EntryPage):
    """A page of artifacts."""

    model_config = _many("artifacts", ARTIFACT, total=None, next=None)

    artifacts: list[ArtifactEntry]


class ManySteps(BaseModel):
    """The steps of a run, in their order."""

    model_config = _many("steps", STEP)

    success: bool = True
    steps: list[RunStep]
    count: int


class ManyEditions(BaseModel):
    """The editions of an artifact."""

    model_config = _many("editions", EDITION)

    success: bool = True
    editions: list[ArtifactEdition]
    count: int


class InOrder(BaseModel):
    """The contexts of a project, in their order."""

    model_config = _many("contexts", CONTEXT)

    success: bool = True
    contexts: list[ContextEntry]
    count: int


class Purged(BaseModel):
    """It is gone, and cannot be had back."""

    model_config = shown({"success": True, "id": ARTIFACT["id"]})

    success: bool = True
    id: str


class BulkDone(BaseModel):
    """What became of each: null where it was done, else the error's code. `more`: others fit the filter, too."""

    model_config = shown(
        {
            "success": True,
            "results": {ARTIFACT["id"]: None, "art-000000000000": "entry_missing"},
            "done": 1,
            "failed": 1,
            "more": False,
        }
    )

    success: bool = True
    results: dict[str, str | None]
    done: int
    failed: int
    more: bool
