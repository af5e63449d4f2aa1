"""docs/http.md lists the routes that the gateway has, and no others."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from pydantic import BaseModel

from corral.app import Corral
from corral.config import load
from corral.gateway.api.application import create
from corral.gateway.api.containers_shapes import Container, ContainerHealth, ContainerUsage, DockerEngine
from corral.gateway.api.keys import ClientKey
from corral.gateway.api.operations import OperationState
from corral.gateway.api.runtime_shapes import ModelState
from corral.gateway.api.services import Service
from corral.gateway.api.shapes import InstalledModel
from corral.gateway.api.workspace_shapes import (
    ArtifactEdition,
    ArtifactEntry,
    ContextEntry,
    PipelineEntry,
    ProjectEntry,
    RunEntry,
    RunStep,
)
from corral.gateway.application import Gateway
from tests.docs import pages

PAGE = pages.read("docs/http.md")


def _documented(*headings: str) -> set[tuple[str, str]]:
    rows = [row for heading in headings for row in PAGE.table(heading)]
    return {(method, path) for method, path in (pages.code(row[0]).split(" ") for row in rows)}


@pytest.fixture
async def corral(tmp_path: Path):
    built = Corral(load({"HOME": str(tmp_path)}, cwd=tmp_path), env={})
    yield built
    await built.close()


async def test_every_route_of_the_gateway(corral: Corral) -> None:
    assert _documented("Routes", "Operations") == set(Gateway(corral).routes)


async def test_every_route_of_the_management(corral: Corral) -> None:
    described = (await asyncio.to_thread(create(corral).openapi))["paths"]

    offered = {(verb.upper(), path) for path, verbs in described.items() for verb in verbs}
    headings = ("Management", "Catalog", "Long work", "Services", "Containers", "Keys")
    workspace = ("Workspace", "Projects", "Contexts", "Pipelines", "Runs", "Artifacts")
    assert _documented(*headings, *workspace) == offered


async def test_every_websocket(corral: Corral) -> None:
    assert [pages.code(row[0]) for row in PAGE.table("WebSockets")] == Gateway(corral).sockets


@pytest.mark.parametrize(
    ("shape", "heading"),
    [
        (ModelState, "Management"),
        (InstalledModel, "Catalog"),
        (OperationState, "Long work"),
        (Service, "Services"),
        (Container, "Containers"),
        (ContainerUsage, "Containers"),
        (ContainerHealth, "Containers"),
        (DockerEngine, "Containers"),
        (ClientKey, "Keys"),
        (ProjectEntry, "Workspace"),
        (ContextEntry, "Workspace"),
        (PipelineEntry, "Workspace"),
        (RunEntry, "Workspace"),
        (RunStep, "Workspace"),
        (ArtifactEntry, "Workspace"),
        (ArtifactEdition, "Workspace"),
    ],
)
def test_every_field_of_a_model(shape: type[BaseModel], heading: str) -> None:
    text = PAGE.section(heading)

    assert [name for name in shape.model_fields if f"`{name}`" not in text] == []
