"""What the workspace's routes take. All of it can be kept by any database and written as JSON again."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Body
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

from corral.domain.workspace import ContextKind, RunStatus
from corral.gateway.api.workspace_examples import ARTIFACT, CONTEXT, KEPT_PIPELINE, PIPELINE, PROJECT, RUN
from corral.workspace.soundness import check_json


def _kept(value: Any, info: ValidationInfo) -> Any:
    return check_json(value, info.field_name or "body")


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("not printable")
    return text


_Sound = AfterValidator(_kept)
Text = Annotated[str, _Sound]
Line = Annotated[str, Field(max_length=200), AfterValidator(_printable)]
Tag = Annotated[str, Field(min_length=1, max_length=60), AfterValidator(_printable)]
Tags = Annotated[list[Tag], Field(max_length=50)]
Values = Annotated[dict[str, Any], _Sound]
Id = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_printable)]
Ids = Annotated[list[Id], Field(max_length=1000)]
Dollars = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Position = Annotated[int, Field(ge=0, lt=2**31)]


def _taken(*examples: dict[str, Any]) -> ConfigDict:
    return ConfigDict(extra="forbid", json_schema_extra={"examples": list(examples)})


class Given(BaseModel):
    """What was given of an entry; what is left out stays as it is."""

    def given(self) -> dict[str, Any]:
        """The fields that were given, as the workspace's values have them; null is as left out."""
        found = {name: getattr(self, name) for name in self.model_fields_set}
        return {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in found.items()
            if value is not None
        }


class NewProject(Given):
    """A project to be made. Its `name` stays for ever."""

    model_config = _taken({"name": PROJECT["name"], "title": PROJECT["title"], "tags": ["web"]})

    name: Line
    title: Line = ""
    description: Text = ""
    tags: Tags = []
    settings: Values = {}


class ProjectChange(Given):
    """What is to be different of a project."""

    model_config = _taken({"title": "The website of 2027"})

    title: Line | None = None
    description: Text | None = None
    tags: Tags | None = None
    settings: Values | None = None


class NewContext(Given):
    """A piece of material; without a `position` it is the last. The bytes of a file are sent to its content."""

    model_config = _taken(
        {"project": PROJECT["name"], "kind": "instructions", "name": "style", "text": CONTEXT["text"]},
        {"project": PROJECT["name"], "kind": "variables", "name": "brand", "variables": {"colour": "#0a5"}},
    )

    project: Id
    kind: ContextKind
    name: Annotated[Line, Field(min_length=1)]
    text: Text = ""
    variables: Values = {}
    enabled: bool = True
    position: Position | None = None
    tags: Tags = []


class ContextChange(Given):
    """What is to be different of a context."""

    model_config = _taken({"enabled": False})

    name: Annotated[Line, Field(min_length=1)] | None = None
    text: Text | None = None
    variables: Values | None = None
    enabled: bool | None = None
    position: Position | None = None
    tags: Tags | None = None


class Reorder(BaseModel):
    """The contexts of a project, in the order that they are to have; those that are left out follow."""

    model_config = _taken({"project": PROJECT["name"], "ids": [CONTEXT["id"]]})

    project: Id
    ids: Ids


class NewPipeline(Given):
    """A pipeline to be kept. Without a `name` it has that of its source; without a project it is for every one."""

    model_config = _taken({"source": PIPELINE, "tags": ["web"]})

    source: Text
    name: Annotated[Line, Field(min_length=1)] | None = None
    project: Id | None = None
    description: Text | None = None
    tags: Tags = []


class PipelineChange(Given):
    """What is to be different of a pipeline. Runs that there are keep the source that they began with."""

    model_config = _taken({"source": PIPELINE})

    source: Text | None = None
    name: Annotated[Line, Field(min_length=1)] | None = None
    description: Text | None = None
    tags: Tags | None = None


class PipelineText(BaseModel):
    """A pipeline's YAML."""

    model_config = _taken({"source": PIPELINE})

    source: Text


class PipelineRun(BaseModel):
    """What a pipeline is run with. `models` are asked in place of those it names, by step, or `*` for all."""

    model_config = _taken({"project": PROJECT["name"], "inputs": RUN["inputs"], "budget_usd": 0.05})

    project: Id
    inputs: Values = {}
    models: dict[Line, Line] = {}
    budget_usd: Dollars | None = None
    seed: Seed | None = None
    title: Line = ""
    tags: Tags = []


class NewRun(PipelineRun):
    """A run of a pipeline that is kept, or of a `source` that is not: one of the two."""

    model_config = _taken(
        {"project": PROJECT["name"], "pipeline": KEPT_PIPELINE["name"], "inputs": RUN["inputs"]},
        {"project": PROJECT["name"], "source": PIPELINE, "inputs": RUN["inputs"], "models": {"code": "auto"}},
    )

    pipeline: Id | None = None
    source: Text | None = None


class Rerun(BaseModel):
    """What is to be different in another run of the same; what is left out is as it was."""

    model_config = _taken({"models": {"*": "gemma3:270m"}})

    inputs: Values | None = None
    models: dict[Line, Line] = {}
    seed: Seed | None = None
    title: Line = ""


class RunChange(Given):
    """What can be different of a run: what it is called, not what it did."""

    model_config = _taken({"title": "the good one"})

    title: Line | None = None
    tags: Tags | None = None


class NewArtifact(Given):
    """A text to be kept. Without a `kind` its name decides. What is large is sent to `/content`."""

    model_config = _taken({"project": PROJECT["name"], "name": "src/site.css", "text": "main { color: teal; }\n"})

    project: Id
    name: Line
    text: Text
    kind: Line | None = None
    title: Line = ""
    tags: Tags = []


class ArtifactChange(Given):
    """What is to be different of an artifact beside its content."""

    model_config = _taken({"name": "src/Clicker.tsx", "tags": ["web", "done"]})

    name: Line | None = None
    title: Line | None = None
    tags: Tags | None = None


class Repair(BaseModel):
    """What went wrong with an artifact, for a model to mend; the newest one's by default."""

    model_config = _taken({"error": "ReferenceError: setCount is not defined", "model": "qwen2.5-coder"})

    error: Annotated[Text, Field(min_length=1, max_length=20_000)]
    model: Line | None = None


class DuplicateRequest(BaseModel):
    """What the copy is called, and the project that it is put into."""

    model_config = _taken({"name": "website-2"})

    name: Line | None = None
    project: Id | None = None


class MoveTo(BaseModel):
    """The project that it goes to."""

    model_config = _taken({"project": PROJECT["name"]})

    project: Id


class BulkFilter(BaseModel):
    """Which entries; what is left out does not matter. `deleted`: those that are thrown away."""

    model_config = _taken({"project": PROJECT["name"], "tags": ["draft"]})

    project: Id | None = None
    tags: Tags = []
    q: Line = ""
    archived: bool | None = False
    deleted: bool = False
    kind: Line | None = None
    status: RunStatus | None = None
    run: Id | None = None
    pipeline: Id | None = None


class Bulk(BaseModel):
    """What is done to which entries: those with these `ids`, or all that fit the `filter`. `tag` is for tags."""

    model_config = _taken(
        {"action": "archive", "ids": [ARTIFACT["id"]]},
        {
            "action": "tag",
            "filter": {"project": PROJECT["name"], "tags": ["draft"]},
            "add": ["done"],
            "remove": ["draft"],
        },
    )

    action: Literal["archive", "restore", "delete", "purge", "tag"]
    ids: Ids | None = None
    filter: BulkFilter | None = None
    add: Tags = []
    remove: Tags = []


def _left_out(shape: type[BaseModel]) -> Any:
    """A body that may be left out. Its examples are its own: whoever draws them looks no further than `anyOf`."""
    said: Any = shape.model_config["json_schema_extra"]  # what `_taken` made
    return Body(examples=said["examples"])


Copy = Annotated[DuplicateRequest | None, _left_out(DuplicateRequest)]
Again = Annotated[Rerun | None, _left_out(Rerun)]
