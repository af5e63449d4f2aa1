"""Artifacts, pipelines and files that a person writes: each is looked at by its parser before it is kept."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from corral.domain.workspace import Artifact, Context, Pipeline, check_path, text_in
from corral.errors import InvalidRequest
from corral.workspace.code.languages import KINDS, check, kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.workspace.pipelines.plan import Definition
    from corral.workspace.store import Store


async def add_artifact(
    store: Store, project: str, name: str, content: bytes, *, kind: str | None = None, note: str = "", **more: Any
) -> Artifact:
    """Keep a text as an artifact of the project with that id. `more` are further fields, as title and tags.

    Args:
        kind: its language; None is by its name.
        note: what is said of its first edition.

    Raises:
        InvalidName: it cannot name a file.
        InvalidRequest: there is no such kind, or it is too large.
        NotSupported: it is no text.
    """
    check_path(name)
    known = KINDS.get(kind or kind_of(name))
    if known is None:
        raise InvalidRequest(f"There is no kind {kind!r}.", f"One of: {', '.join(KINDS)}.", param="kind")
    problems = await _problems(known.name, name, content)
    entry = Artifact(id="", project=project, name=name, kind=known.name, media_type=known.media_type, **more)
    return await store.artifacts.create(entry, content, problems=problems, note=note)


async def edit_artifact(
    store: Store, artifact: Artifact, content: bytes, *, version: int | None = None, note: str = ""
) -> Artifact:
    """Give an artifact another edition.

    Raises:
        Stale: it is no longer at `version`.
        InvalidRequest: it is too large.
        NotSupported: it is no text.
    """
    problems = await _problems(artifact.kind, artifact.name, content)
    return await store.artifacts.edit(artifact.id, content, version=version, problems=problems, note=note)


async def put_file(
    store: Store, context: Context, content: bytes, media_type: str, *, version: int | None = None
) -> Context:
    """Give a file or document its bytes, which must be text: models are given nothing else.

    Raises:
        Stale: it is no longer at `version`.
        InvalidRequest: it is of a kind that has no file, or too large.
        NotSupported: it is no text.
    """
    text = text_in(content, context.name, "Give a text, or what was read of it.")
    return await store.contexts.put(context.id, content, media_type, text, version=version)


def new_pipeline(source: str, *, name: str | None = None, **more: Any) -> Pipeline:
    """A pipeline that may be kept, called as its source says unless it is given a name. Blocks for a parser.

    Raises:
        PipelineInvalid: it could never run; says where and why.
    """
    definition = _read(source)
    return Pipeline(
        id="", source=source, **{"name": name or definition.name, "description": definition.description, **more}
    )


def pipeline_changes(changes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Changes of a pipeline that may be made. Blocks for a parser.

    Raises:
        PipelineInvalid: its source could never run; says where and why.
    """
    if "source" in changes:
        _read(changes["source"])
    return changes


def _read(source: str) -> Definition:
    from corral.workspace.pipelines.definition import read  # with templates and schemas, which not every command needs

    return read(source)


async def _problems(kind: str, name: str, content: bytes) -> tuple[Mapping[str, Any], ...]:
    text = text_in(content, name, "Artifacts are files of text.")
    return tuple(asdict(problem) for problem in await asyncio.to_thread(check, kind, text))
