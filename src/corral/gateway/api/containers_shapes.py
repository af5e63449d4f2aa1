"""What the containers' routes take and answer, as OpenAPI tells it. Answers are written without going through these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Body
from pydantic import BaseModel, ConfigDict, Field

from corral.domain.standings import ContainerState, Step

Orphans = Literal["report", "remove", "adopt"]


class ContainerModel(BaseModel):
    """A model that a container's server has. Bytes; null is unknown."""

    name: str
    digest: str | None = Field(description="As its server tells it")
    size: int | None
    loaded: bool
    in_gpu: int | None = Field(description="Bytes of it in the memory of GPUs")


class Container(BaseModel):
    """A container: what is wanted of it, and how it stands. Bytes; seconds; times in Unix seconds; null is unknown."""

    name: str = Field(description="As the configuration calls it")
    container: str = Field(description="Its name on the Docker engine")
    kind: str = Field(description="ollama, llamacpp, vllm, or openai for anything that speaks that dialect")
    state: ContainerState
    status: Literal["active", "inactive"] = Field(description="Whether its models can be asked")
    purpose: str
    reason: str = Field(description="Why it is in this state, where that is not plain")
    since: float | None = Field(description="When it came into this state")
    wanted: bool = Field(description="Whether it shall run")
    id: str | None
    image: str
    image_id: str | None
    drift: list[str] = Field(description="What differs from the configuration, in words")
    url: str | None = Field(description="Where its models' API is")
    port: int | None
    gpus: list[str]
    memory_limit: int | None
    cpu_limit: float | None
    models: list[ContainerModel]
    missing: list[str] = Field(description="Models that it should have, and has not")
    version: str | None = Field(description="Of the server in it")
    exit_code: int | None
    restarts: int = Field(description="Starts by Corral since it last was well for a while")
    started_at: float | None
    finished_at: float | None
    checked_at: float | None = Field(description="When its models' API was last asked")
    previous: str | None = Field(description="The image that a rollback goes back to")
    uptime: float | None


class OneContainer(BaseModel):
    """Answer about one container."""

    success: bool = True
    container: Container


class ManyContainers(BaseModel):
    """Containers by name: those of the configuration, and orphans."""

    success: bool = True
    containers: list[Container]
    count: int


class PlannedStep(BaseModel):
    """One step towards the configuration. A `blocked` one is not done: `reason` says what is in the way."""

    step: Step
    name: str
    reason: str
    container: str


class ContainerPlan(BaseModel):
    """What `up` or `down` would do, in that order. `changes` is whether anything would be done."""

    success: bool = True
    plan: list[PlannedStep]
    changes: bool


class DockerEngine(BaseModel):
    """A Docker engine: what it is and what it can. `runtimes` has `nvidia` with the container toolkit. Bytes."""

    address: str
    version: str
    api: str
    system: str
    runtimes: list[str]
    cdi: bool = Field(description="Whether it gives devices to containers by CDI")
    rootless: bool
    cgroup: str
    root: str
    cpus: int | None
    memory: int | None
    warnings: list[str]


class OneEngine(BaseModel):
    """Answer about the Docker engine."""

    success: bool = True
    engine: DockerEngine


class StackAnswer(BaseModel):
    """The whole stack: the engine or why there is none, counts by state, what all containers take together, GPUs."""

    success: bool = True
    stack: dict[str, Any]


class ContainerUsage(BaseModel):
    """What a container takes at one time. Bytes; `cpu` in processors; null is unknown."""

    at: float
    cpu: float | None = Field(description="1.5 is one processor and a half")
    memory: int | None
    memory_limit: int | None
    received: int | None
    sent: int | None
    read: int | None
    written: int | None
    pids: int | None
    throttled: float | None = Field(description="Part of its periods, 0 to 1, in which its limit held it back")
    gpu_memory: int | None
    gpu_temperature: float | None = Field(description="Degrees Celsius")
    gpu_utilization: float | None = Field(description="Percent")


class UsageOfContainer(BaseModel):
    """What it takes now; `usage` is null while it does not run."""

    success: bool = True
    name: str
    usage: ContainerUsage | None


class LogLine(BaseModel):
    """A line that a container printed."""

    text: str
    at: float | None
    error: bool = Field(description="Whether it is of its standard error")


class ContainerLog(BaseModel):
    """The last lines that a container printed, oldest first."""

    success: bool = True
    name: str
    lines: list[LogLine]


class ContainerHealth(BaseModel):
    """What asking the models' own API has shown. `latency` in seconds."""

    healthy: bool
    at: float
    version: str | None
    models: list[ContainerModel]
    missing: list[str]
    latency: float | None
    said: str | None = Field(description="What a generation of one token gave")
    reason: str = Field(description="What is wrong; empty where nothing is")


class HealthOfContainer(BaseModel):
    """Answer about a container's health. An unhealthy one is an answer like any other."""

    success: bool = True
    name: str
    health: ContainerHealth


class HistoryLine(BaseModel):
    """Something that happened to a container. `before` and `after` are states."""

    at: float
    name: str
    what: str = Field(description="An event of the Docker engine, or what Corral did")
    before: str | None
    after: str | None
    reason: str
    detail: dict[str, Any]


class HistoryOfContainer(BaseModel):
    """What happened to it, newest first."""

    success: bool = True
    name: str
    history: list[HistoryLine]
    count: int


class VersionsOfContainer(BaseModel):
    """The images and models that it has had, newest first."""

    success: bool = True
    name: str
    versions: list[dict[str, Any]]
    count: int


class ModelsInContainer(BaseModel):
    """The models that a container's server has."""

    success: bool = True
    name: str
    models: list[ContainerModel]
    count: int


class Trial(BaseModel):
    """What asking a model for one token has shown. Seconds; null is unknown."""

    model: str
    ok: bool
    seconds: float
    said: str | None = Field(description="Null for a vector")
    load: float | None = Field(description="The part in which it was loaded")
    tokens: int | None
    reason: str


class TrialInContainer(BaseModel):
    """What a model in a container answered. One that does not answer is an answer like any other."""

    success: bool = True
    name: str
    trial: Trial


class ContainerEntry(BaseModel):
    """What a container would be in the configuration, under `containers`. Nothing has been written."""

    success: bool = True
    name: str
    entry: dict[str, Any]
    secrets: list[str] = Field(description="Variables to set for Corral before; their values are not told")


class ContainerDone(BaseModel):
    """Answer that something was done."""

    success: bool = True
    message: str


class ComposeText(BaseModel):
    """The containers of the configuration as a compose file. Secrets stay names of variables."""

    success: bool = True
    compose: str


class LeftOut(BaseModel):
    """A key of a compose file that is not taken over, or not whole, and why. `service` is empty for the file's own."""

    service: str
    key: str
    reason: str


class ComposeRead(BaseModel):
    """What a compose file would be in the configuration. Nothing has been written."""

    success: bool = True
    project: str
    containers: dict[str, dict[str, Any]] = Field(description="Entries under `containers`, by name")
    unsupported: list[LeftOut]


class ComposeGiven(BaseModel):
    """A compose file's text. Files that it names are not opened, and no variable of the server's is filled in."""

    model_config = ConfigDict(extra="forbid")

    compose: str = Field(max_length=500_000)
    folder: str = Field(
        default="/", max_length=1000, description="Where it lies: relative paths are below, and it names the project"
    )
    variables: dict[str, str] = Field(default={}, description="Those that the file refers to")


class UpRequest(BaseModel):
    """Which containers shall be as the configuration says; none named are all."""

    model_config = ConfigDict(extra="forbid")

    names: list[str] = Field(default=[], max_length=1000)
    orphans: Orphans | None = Field(
        default=None, description="What becomes of orphans; null is as `docker.orphans` says"
    )
    recreate: bool = Field(default=False, description="Make them anew, also where nothing differs")
    wait: bool = Field(default=True, description="Answer when they are healthy")
    pull: bool = Field(default=True, description="Fetch images and models that are not here")


class NamesRequest(BaseModel):
    """Which containers; none named are all."""

    model_config = ConfigDict(extra="forbid")

    names: list[str] = Field(default=[], max_length=1000)


class WaitRequest(BaseModel):
    """Whether to wait until the container is healthy."""

    model_config = ConfigDict(extra="forbid")

    wait: bool = True


class UpdateRequest(BaseModel):
    """Which containers, and what of them; none named are all."""

    model_config = ConfigDict(extra="forbid")

    names: list[str] = Field(default=[], max_length=1000)
    image: bool = True
    models: bool = True


class UpdateOneRequest(BaseModel):
    """What of the container is brought to what there is now."""

    model_config = ConfigDict(extra="forbid")

    image: bool = True
    models: bool = True


class RollbackRequest(BaseModel):
    """What goes back: the image, or one of the models in it."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(default=None, min_length=1, max_length=500)


class PullRequest(BaseModel):
    """A model to fetch, by the name that the container's server knows it by."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1, max_length=500)


Up = Annotated[UpRequest | None, Body()]
Names = Annotated[NamesRequest | None, Body()]
Wait = Annotated[WaitRequest | None, Body()]
UpdateAll = Annotated[UpdateRequest | None, Body()]
UpdateOne = Annotated[UpdateOneRequest | None, Body()]
Rollback = Annotated[RollbackRequest | None, Body()]
