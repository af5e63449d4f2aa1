"""What the runtime's routes take and answer, as OpenAPI tells it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from corral.domain.states import State


class Placed(BaseModel):
    """Where an engine is put: bytes by device, the first of which it computes on; `layers` on the GPU, null is all."""

    device: str
    devices: dict[str, int]
    layers: int | None = None
    said: str = ""
    source: str = Field(description="Where the bytes come from: `estimated`, `measured` or `guessed`")


class ModelState(BaseModel):
    """A model and its engine. Unknown is null. Bytes, seconds; `loaded_at`, `until` and `since` in Unix seconds."""

    name: str
    state: State
    reason: str = ""
    registered: bool = Field(False, description="It was registered over HTTP or from Python")
    loaded: bool = Field(False, description="There is an engine of it")
    model_type: str = "llm"
    runtime: str | None = None
    engine: str | None = None
    revision: str | None = None
    source: str | None = None
    format: str | None = None
    size: int | None = None
    capabilities: list[str] = []
    context: int | None = None
    slots: int | None = None
    device: str | None = None
    notes: list[str] = Field([], description="Remarks of the engine on how it runs")
    in_flight: int = 0
    served: int = 0
    waiting: int = Field(0, description="Requests that wait for it")
    since: float | None = Field(None, description="Since when the oldest of them waits")
    priority: int = 0
    footprint: dict[str, int] | None = Field(None, description="Measured, by device")
    peak: dict[str, int] | None = Field(None, description="The most that was ever measured")
    estimated: dict[str, int] | None = Field(None, description="What it was, or would be, given before it is measured")
    held: dict[str, int] | None = Field(None, description="What counts as taken")
    placement: Placed | None = None
    loaded_at: float | None = None
    load_seconds: float | None = None
    idle_seconds: float | None = Field(None, description="For how long nobody has used it")
    idle_left: float | None = None
    until: float | None = Field(None, description="When it leaves if nobody uses it; null while it is busy, or never")
    fallback: list[str] = Field([], description="The models asked in its place when it cannot be had")


class OneModel(BaseModel):
    """Answer about one model."""

    success: bool = True
    model: ModelState


class ManyModels(BaseModel):
    """Answer about all models."""

    success: bool = True
    models: list[ModelState]
    count: int


class Registered(BaseModel):
    """Answer to a registration."""

    success: bool = True
    message: str
    model: ModelState


class Done(BaseModel):
    """Answer that something was done."""

    success: bool = True
    message: str


class Registration(BaseModel):
    """A model to register under a name."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_id: str = Field(
        min_length=1, max_length=500, description="An installed name, a reference, or what a vendor calls it"
    )
    model_name: str = Field(min_length=1, max_length=200, description="What it is to be called")
    model_type: str = Field("llm", max_length=60)
    runtime_type: str | None = Field(None, description="A runtime's name; null lets the files say")
    quantization: str | None = Field(None, description="How weights are made smaller when they are loaded")
    device_type: str = Field("auto", description="`auto`, `cpu`, `cuda`, `cuda:1`, `mps`, …")
    options: dict[str, bool | int | float | str] = Field({}, description="Of the runtime: numbers and choices only")
    fallback: list[str] = Field([], max_length=20, description="Models asked in its place when it cannot be had")


class Generation(BaseModel):
    """What to ask a model for. Null leaves a value to its engine."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_name: str = Field(min_length=1, max_length=200)
    prompt: str = ""
    system: str | None = None
    messages: list[dict[str, Any]] = Field([], description="A conversation that `prompt`, if any, goes on with")
    max_tokens: int | None = Field(1024, ge=1)
    temperature: float | None = Field(0.7, ge=0)
    top_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = None
    stop: str | list[str] = []
    stream: bool = False
    keep_alive: str | float | None = Field(None, description="How long it may be unused afterwards: `10m`, 0, `never`")


class MissedModel(BaseModel):
    """A model that was asked before the one that answered, and why it could not be had."""

    model: str
    code: str
    message: str


class ReceiptShape(BaseModel):
    """The facts of one answer. Unknown is null."""

    request_id: str
    model: str
    runtime: str
    revision: str | None
    engine: str | None
    context: int | None
    wait_ms: float
    attempts: int
    prompt_tokens: int | None
    completion_tokens: int | None
    finish_reason: str | None
    ignored: list[str]
    fallbacks: list[MissedModel]


class Generated(BaseModel):
    """A whole answer. `model` is the one that answered, `tokens` what it wrote."""

    success: bool = True
    text: str
    tokens: int
    model: str
    finish_reason: str | None
    receipt: ReceiptShape


class LogLines(BaseModel):
    """The end of an engine's output, oldest line first."""

    success: bool = True
    lines: list[str]


class Problem(BaseModel):
    """What is not as it should be: a `model`, a `device` or the `configuration`."""

    kind: str
    name: str
    reason: str


class Health(BaseModel):
    """How the yard stands."""

    success: bool = True
    status: str = Field(description="`ok`, or `degraded` when there are problems")
    models: dict[str, int] = Field(description="How many models are in each state")
    problems: list[Problem]


class DeviceMemory(BaseModel):
    """Memory of one device, in bytes: what engines may take, what they hold, and the rest. Null is without limit."""

    capacity: int | None
    held: int
    free: int | None


class EngineState(BaseModel):
    """An engine, in short."""

    engine: str
    model: str
    runtime: str
    device: str | None
    state: State
    in_flight: int
    slots: int | None
    served: int
    footprint: dict[str, int] | None


class Stats(BaseModel):
    """What is used of this machine, by whom, and what has happened since the server started."""

    success: bool = True
    machine: dict[str, Any] = Field(description="Processor, memory, disk and GPUs now; null is unknown")
    memory: dict[str, DeviceMemory]
    engines: list[EngineState]
    queues: dict[str, int] = Field(description="How many requests wait for each model")
    counters: dict[str, int]
    uptime_seconds: float


class Explained(BaseModel):
    """What would happen to a request for a model now, and why."""

    success: bool = True
    model: str
    explanation: dict[str, Any]


class Decisions(BaseModel):
    """What was decided and done last, newest first. `at` in Unix seconds."""

    success: bool = True
    decisions: list[dict[str, Any]]
    count: int
