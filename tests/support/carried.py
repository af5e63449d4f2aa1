"""A project with one of everything in it, for tests of archives: and what is the same of two projects."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from corral.domain.workspace import (
    Artifact,
    Context,
    ContextKind,
    Made,
    Pipeline,
    Project,
    Query,
    Run,
    RunStatus,
    Step,
    StepStatus,
)
from corral.workspace.exports.archive import export_project
from corral.workspace.store import Store

COUNTER = b'import "./Counter.css"\nexport default function Counter() { return <p>Zebra</p> }\n'
SHEET = b"p { color: red }\n"


async def furnish(store: Store, name: str = "garden") -> Project:
    """Make the project."""
    project = await store.projects.create(
        Project(id="", name=name, title="Garden", settings={"a": [1, {"b": None}]}, tags=("x", "y"))
    )
    await store.contexts.create(
        Context(id="", project=project.id, kind=ContextKind.INSTRUCTIONS, name="how", text="Write it short. Ünïcode 🦄")
    )
    held = await store.contexts.create(
        Context(id="", project=project.id, kind=ContextKind.FILE, name="a.bin", enabled=False, tags=("z",))
    )
    await store.contexts.put(held.id, bytes(range(256)) * 10, "application/octet-stream", "bytes")
    await store.contexts.create(
        Context(id="", project=project.id, kind=ContextKind.VARIABLES, name="v", variables={"n": 1.5, "s": "t"})
    )
    pipeline = await store.pipelines.create(
        Pipeline(id="", name="page", source="name: page\nsteps: {}\n", project=project.id, description="d")
    )
    first = await _run(store, project, pipeline)
    await _run(
        store, project, pipeline, rerun_of=first.id, status=RunStatus.FAILED, error={"code": "e", "message": "m"}
    )
    await _run(store, project, pipeline, status=RunStatus.PAUSED)
    by_hand = replace(_artifact(project), name="note.md", kind="markdown")
    kept = await store.artifacts.create(by_hand, b"# Hello\n", note="by hand", problems=[{"line": 1, "message": "x"}])
    await store.artifacts.edit(kept.id, b"# Hello again\n", note="better")
    await store.artifacts.archive(kept.id)
    gone = await store.artifacts.create(replace(by_hand, name="gone.md"), b"# Gone\n")
    await store.artifacts.delete(gone.id)
    return await store.projects.get(project.id)


def _artifact(project: Project) -> Artifact:
    return Artifact(id="", project=project.id, name="a", kind="text")


async def _run(store: Store, project: Project, pipeline: Pipeline, **more: Any) -> Run:
    run = await store.runs.create(
        Run(
            id="",
            project=project.id,
            name="page",
            source=pipeline.source,
            pipeline=pipeline.id,
            inputs={"topic": "zoo"},
            material=tuple(await store.contexts.material(project.id)),
            models={"*": "smollm2"},
            seed=7,
            budget=50_000_000,
            operation="op-1",
            **{"status": RunStatus.COMPLETED, **more},
        )
    )
    ended = StepStatus.COMPLETED if run.status is RunStatus.COMPLETED else StepStatus.FAILED
    await store.runs.plan(
        run.id, [Step(run=run.id, key="code", name="code"), Step(run=run.id, key="last", name="last")]
    )
    sums = {"cost": 12, "input_tokens": 3, "output_tokens": 4, "started_at": 1.5, "ended_at": 2.5}
    said = {"request": {"messages": []}, "value": {"a": [1]}, "output": "x", "tries": ({"error": "e"},)}
    asked = {"model": "smollm2", "request_id": f"{run.id}:code:1"}
    step = Step(run=run.id, key="code", name="code", status=ended, **sums, **said, **asked)  # type: ignore[arg-type]
    if ended is StepStatus.COMPLETED:
        made = [
            Made("Counter.tsx", "tsx", "text/tsx", COUNTER, "Counter"),
            Made("Counter.css", "css", "text/css", SHEET),
        ]
        await store.runs.commit(step, made)
    else:
        await store.runs.save(step)
        await store.runs.save(Step(run=run.id, key="last", name="last", status=StepStatus.RUNNING))
    return await store.runs.get(run.id)


async def contents(store: Store, project: str) -> dict[str, Any]:
    """All that a project has in it, in an order that does not hang on ids; `bytes` are its contents."""
    home = await store.projects.get(project)
    query = Query(project=home.id, archived=None, sort="created_at", limit=500)
    found: dict[str, Any] = {"project": home}
    found["contexts"] = list((await store.contexts.page(query)).items)
    found["pipelines"] = list((await store.pipelines.page(query)).items)
    found["runs"] = list((await store.runs.page(query)).items)
    found["artifacts"] = list((await store.artifacts.page(query)).items)
    found["steps"] = [await store.runs.steps(run.id) for run in found["runs"]]
    found["editions"] = [await store.artifacts.editions(each.id) for each in found["artifacts"]]
    found["bytes"] = [
        await store.artifacts.content(each.id, edition.number)
        for each, editions in zip(found["artifacts"], found["editions"], strict=True)
        for edition in editions
    ]
    found["material"] = await store.contexts.material(home.id)
    return found


async def packed(store: Store, project: str) -> bytes:
    """The archive of a project."""
    return b"".join([piece async for piece in export_project(store, project)])


def repacked(archive: bytes, change: Callable[[dict[str, bytes]], Mapping[str, bytes]], *, sums: bool = True) -> bytes:
    """The archive with other members; with `sums`, a manifest that is as it was says the right sums of its entries."""
    with zipfile.ZipFile(io.BytesIO(archive)) as read:
        before = {name: read.read(name) for name in read.namelist()}
    members = dict(change(dict(before)))
    if sums and members.get("manifest.json") == before["manifest.json"]:
        manifest = json.loads(members["manifest.json"])
        for name, data in members.items():
            if name.endswith(".jsonl"):
                kind = name.removeprefix("entries/").removesuffix(".jsonl")
                manifest["entries"][kind] = {
                    "count": data.count(b"\n"),
                    "sha256": hashlib.sha256(data).hexdigest(),
                }
        members["manifest.json"] = json.dumps(manifest).encode()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as write:
        for name, data in members.items():
            write.writestr(name, data)
    return made.getvalue()
