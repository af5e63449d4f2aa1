"""What OpenAPI says of the workspace: every route has examples that are right, and shapes are what is answered."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from corral.app import Corral
from corral.config import load
from corral.domain.workspace import (
    Artifact,
    Context,
    ContextKind,
    Edition,
    Hit,
    Pipeline,
    Project,
    Run,
    RunBrief,
    Step,
)
from corral.gateway.api import workspace_requests, workspace_shapes, workspace_views
from corral.gateway.api.application import create
from corral.workspace.described import describe

OWN = tuple(f"/api/v1/{many}" for many in ("projects", "contexts", "pipelines", "runs", "artifacts", "workspace"))


def models(module: Any) -> list[type[BaseModel]]:
    """The shapes that a module has of its own."""
    found = [each for _, each in inspect.getmembers(module, inspect.isclass) if issubclass(each, BaseModel)]
    return [each for each in found if each.__module__ == module.__name__]


def examples(shape: type[BaseModel]) -> list[Any]:
    """Those that a shape has itself, and not of its base."""
    more = shape.__dict__.get("model_config", {}).get("json_schema_extra")
    own = "model_config" in vars(shape) and isinstance(more, dict)
    return list(more["examples"]) if own and "examples" in more else []


SHAPES = [*models(workspace_shapes), *models(workspace_views), *models(workspace_requests)]


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if examples(shape)], ids=lambda shape: shape.__name__)
def test_an_example_is_what_the_shape_says(shape: type[BaseModel]) -> None:
    for example in examples(shape):
        read = shape.model_validate(example)
        assert set(example) <= set(shape.model_fields)
        assert read.model_dump(mode="json", exclude_unset=True) == example


@dataclass(frozen=True)
class Pair:
    shape: type[BaseModel]
    entry: Any


@pytest.mark.parametrize(
    "pair",
    [
        Pair(workspace_shapes.ProjectEntry, Project(id="p", name="web")),
        Pair(workspace_shapes.ContextEntry, Context(id="c", project="p", kind=ContextKind.FILE, name="x")),
        Pair(workspace_shapes.PipelineEntry, Pipeline(id="l", name="x", source="")),
        Pair(workspace_shapes.RunEntry, Run(id="r", project="p", name="x", source="")),
        Pair(workspace_shapes.RunBriefly, RunBrief(id="r", project="p", name="x")),
        Pair(workspace_shapes.RunStep, Step(run="r", key="a", name="a")),
        Pair(workspace_shapes.ArtifactEntry, Artifact(id="a", project="p", name="x", kind="text")),
        Pair(workspace_shapes.ArtifactEdition, Edition(artifact="a", number=1, digest="", size=0, created_at=0.0)),
        Pair(workspace_views.SearchHit, Hit("run", "r", None, "", "")),
    ],
    ids=lambda pair: pair.shape.__name__,
)
def test_a_shape_has_the_fields_that_are_answered(pair: Pair) -> None:
    described = describe(pair.entry)

    assert set(described) == set(pair.shape.model_fields)
    pair.shape.model_validate(described)


async def test_every_route_has_examples(tmp_path: Path) -> None:
    corral = Corral(load({"HOME": str(tmp_path)}, cwd=tmp_path), env={})
    document = await asyncio.to_thread(create(corral).openapi)
    await corral.close()
    routes = {path: verbs for path, verbs in document["paths"].items() if path.startswith(OWN)}

    assert sum(len(verbs) for verbs in routes.values()) > 25
    for path, verbs in routes.items():
        for verb, said in verbs.items():
            if "application/json" in said.get("requestBody", {}).get("content", {}):
                name, shown = _of_body(document, said)
                assert shown, f"{verb} {path}: its body"
                for example in shown:
                    getattr(workspace_requests, name).model_validate(example)
            fine = next(answer for status, answer in said["responses"].items() if status.startswith("2"))
            assert fine["content"], f"{verb} {path}"
            answered = fine["content"].get("application/json")
            assert answered is None or _has_example(document, answered["schema"]), f"{verb} {path}: its answer"
            assert said["description"], f"{verb} {path}"


def _of_body(document: Any, said: dict[str, Any]) -> tuple[str, list[Any]]:
    """The shape of a route's body by name, and its examples: those that are seen without a look into `anyOf`."""
    schema = said["requestBody"]["content"]["application/json"]["schema"]
    name = next(each["$ref"] for each in (schema, *schema.get("anyOf", ())) if "$ref" in each).rpartition("/")[2]
    shown = document["components"]["schemas"][name] if "$ref" in schema else schema
    return name, shown.get("examples", [])


def _has_example(document: Any, schema: dict[str, Any]) -> bool:
    if "$ref" in schema:
        return _has_example(document, document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    return "examples" in schema or any(_has_example(document, each) for each in schema.get("anyOf", ()))
