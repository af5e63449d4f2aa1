"""What the catalog's routes take and answer, as OpenAPI tells it. Lists are written without going through these."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class ModelAbilities(BaseModel):
    """What a model can do; null is unknown."""

    supports_system_role: bool | None
    allowed_roles: list[str] | None
    supports_function_calling: bool | None = None
    supports_vision: bool | None = None
    supports_embeddings: bool | None = None
    max_context_length: int | None = None
    quantization: str | None = None


class AllCapabilities(ModelAbilities):
    """All that is known of what a model can do."""

    prompt_template: str | None
    supports_json_schema: bool
    parameters: int | None
    architecture: str | None
    licence: str | None
    languages: list[str]


class InstalledModel(BaseModel):
    """An installed model. `size_gb` in 10^9 bytes, `size` in bytes."""

    name: str
    provider: str
    display_name: str
    size_gb: float
    size: int
    status: str
    runtime: str | None
    capabilities: ModelAbilities
    format: str
    parameters: int | None
    architecture: str | None
    licence: str | None
    revision: str
    version: str
    source: str
    pinned: bool
    installed_at: str


class InstalledPage(BaseModel):
    """A page of installed models, by name. `next` is the `after` of the next page; null on the last.

    `problems` says what is wrong with files in your own folders that would be models, by path.
    """

    success: bool = True
    models: list[InstalledModel]
    count: int
    total: int
    problems: dict[str, str]
    next: str | None


class OfferedModel(BaseModel):
    """A model that is installed, or can be: `ref` is what to install it by."""

    name: str
    provider: str
    display_name: str
    size_gb: float | None
    status: str = Field(description="`installed` or `available`")
    runtime: str | None
    capabilities: ModelAbilities
    size: int | None
    ref: str
    licence: str | None


class OfferedModels(BaseModel):
    """Models that are installed or can be. `problems` says which source could not be asked, and why."""

    success: bool = True
    models: list[OfferedModel]
    count: int
    problems: list[str]


class Fitness(BaseModel):
    """Whether a model fits this machine: `yes`, `tight` or `no`, and why. Bytes."""

    verdict: str | None
    reason: str
    needed: int | None
    estimate: dict[str, Any] | None
    devices: list[dict[str, Any]]


class FoundModel(OfferedModel):
    """A model that a search found. `installed` is the name it has here."""

    fit: Fitness
    installed: str | None
    downloads: int | None
    likes: int | None
    updated_at: float | None
    gated: bool
    tags: list[str]


class FoundModels(BaseModel):
    """What a search found."""

    success: bool = True
    models: list[FoundModel]
    count: int
    problems: list[str]


class ModelFile(BaseModel):
    """A file of a model."""

    name: str
    size: int
    sha256: str
    role: str


class WholeModel(InstalledModel):
    """All of a model: its files, what was read of them, what its user says, and whether it fits."""

    files: list[ModelFile]
    facts: dict[str, Any]
    override: dict[str, Any]
    follows: str
    folder: str | None
    fit: Fitness


class OneWholeModel(BaseModel):
    """Answer about one model."""

    success: bool = True
    model: WholeModel


class OneInstalled(BaseModel):
    """Answer that has changed one model."""

    success: bool = True
    message: str
    model: InstalledModel


class Activated(BaseModel):
    """A model is in memory, run by `runtime`."""

    success: bool = True
    message: str
    model_name: str
    runtime: str


class CapabilitiesOf(BaseModel):
    """What a model can do; `override` is what of that was said by hand."""

    success: bool = True
    model_name: str
    capabilities: AllCapabilities
    override: dict[str, Any]


class PastRevision(BaseModel):
    """A revision that a model was. `here`: its files are, so that a rollback is instant. Unix seconds, bytes."""

    revision: str
    version: str
    source: str
    size: int
    installed_at: float
    current: bool
    here: bool


class Revisions(BaseModel):
    """The revisions of a model, newest first."""

    success: bool = True
    model_name: str
    revisions: list[PastRevision]
    count: int


class ChangedFile(BaseModel):
    """What an update would do to one file."""

    name: str
    kind: str = Field(description="added, removed, changed or same")
    size_before: int | None
    size_after: int | None


class Update(BaseModel):
    """What an update would bring; `download` in bytes."""

    success: bool = True
    model_name: str
    changed: bool
    current: str
    current_version: str
    version: str
    files: list[ChangedFile]
    download: int | None


class Begun(BaseModel):
    """An operation has been ordered: see `/api/v1/models/operations/{operation_id}`."""

    success: bool = True
    operation_id: str
    message: str


class UsageFigures(BaseModel):
    """What is used of this machine. Disk in 10^9 bytes, memory in 2^30, VRAM in 2^20; null is unknown."""

    disk_usage_gb: float | None
    disk_limit_gb: float | None
    disk_usage_percent: float | None
    cpu_usage_percent: float | None
    memory_total_gb: float | None
    memory_used_gb: float | None
    memory_usage_percent: float | None
    gpu_usage_percent: float | None
    vram_usage_mb: float | None
    vram_total_mb: float | None
    vram_usage_percent: float | None
    models_count: int


class UsageAnswer(BaseModel):
    """What is used of this machine."""

    success: bool = True
    usage: UsageFigures


class ModelRoom(BaseModel):
    """What one model takes of the disk, in bytes; removing it frees `unique`."""

    name: str
    size: int
    shared: int
    unique: int
    revisions: int


class StoreRoom(BaseModel):
    """What the store takes, in bytes."""

    success: bool = True
    models: list[ModelRoom]
    blobs: int
    partial: int
    total: int
    quota: int | None
    free: int


class InstallRequest(BaseModel):
    """What to install. `name` as its provider calls it, a short name of the library, or a reference.

    `source` is the reference, when `name` is only what to call it; or `alias` is what to call it.
    """

    name: str = Field(examples=["llama3:latest"])
    provider: str | None = Field(None, examples=["ollama"])
    runtime: str | None = Field(None, examples=["llamacpp"])
    source: str | None = Field(None, examples=["hf:bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M"])
    alias: str | None = None


class ActivateRequest(BaseModel):
    """Which runtime shall run a model."""

    name: str
    runtime: str | None = None


class RevisionRequest(BaseModel):
    """A revision, by its id or the beginning of it."""

    revision: str | None = None
    to: str | None = Field(None, description="The same")


class PushRequest(BaseModel):
    """Where to put a model, as `s3://BUCKET/FOLDER`."""

    to: str


class MoveRequest(BaseModel):
    """The folder on another disk; null brings the files back into the store."""

    folder: str | None = None


class CollectRequest(BaseModel):
    """Whether only to say what would be removed."""

    dry_run: bool = False
