"""What the workspace's routes answer beside entries: what was looked over, found, shown and compared."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from corral.gateway.api.workspace_examples import ARTIFACT, PAGE, PROJECT, RUN
from corral.gateway.api.workspace_shapes import ArtifactEntry, shown


class PipelineIssue(BaseModel):
    """Something that is wrong with a pipeline, and where. Lines and columns begin at 1."""

    line: int
    column: int
    place: str
    message: str
    hint: str


class PipelineChecked(BaseModel):
    """Whether a pipeline could run, and all that is in the way. An invalid one is an answer like any other."""

    model_config = shown(
        {
            "success": True,
            "valid": False,
            "name": None,
            "steps": [],
            "inputs": {},
            "issues": [
                {
                    "line": 5,
                    "column": 12,
                    "place": "steps.analysis.model",
                    "message": "No model or route is called 'smolm2'.",
                    "hint": "Did you mean 'smollm2'?",
                }
            ],
        }
    )

    success: bool = True
    valid: bool
    name: str | None
    steps: list[str] = Field(description="In the order in which they could run")
    inputs: dict[str, Any]
    issues: list[PipelineIssue]


class SearchHit(BaseModel):
    """An entry in which the words were found, and the place."""

    kind: str = Field(description="project, context, pipeline, run or artifact")
    id: str
    project: str | None
    title: str
    excerpt: str = Field(description="A piece of its text with one of the words in it, or its beginning")


class SearchHits(BaseModel):
    """A page of what was found, the best first. `next` is the `cursor` of the next page; null on the last."""

    model_config = shown(
        {
            "success": True,
            "hits": [
                {
                    "kind": "artifact",
                    "id": ARTIFACT["id"],
                    "project": PROJECT["id"],
                    "title": "src/Counter.tsx",
                    "excerpt": "export function Counter",
                }
            ],
            "count": 1,
            "next": None,
        }
    )

    success: bool = True
    hits: list[SearchHit]
    count: int
    next: str | None


class PreviewContent(BaseModel):
    """An artifact, and what a page needs to show it. `sheets` are the style sheets that nothing imports."""

    artifact: ArtifactEntry
    kind: str
    source: str
    files: list[dict[str, Any]] = Field(description="Of its run, those that it needs: `name`, `kind`, `content`")
    sheets: list[str]
    props: list[dict[str, Any]] = Field(description="What can be set of its component, by `name` and `type`")
    problems: list[dict[str, Any]] = Field(description="What its parser found: `line`, `column`, `message`")
    component: str | None


class ArtifactPreview(BaseModel):
    """What the preview page needs of an artifact."""

    model_config = shown(
        {
            "success": True,
            "preview": {
                "artifact": ARTIFACT,
                "kind": "tsx",
                "source": PAGE,
                "files": [],
                "sheets": [],
                "props": [],
                "problems": [],
                "component": "Counter",
            },
        }
    )

    success: bool = True
    preview: PreviewContent


class TextsDiff(BaseModel):
    """How two texts differ: as a patch, and in rows side by side, each `kind`, `left`, `right`, `skipped`."""

    a: ArtifactEntry
    b: ArtifactEntry
    equal: bool
    added: int = Field(description="Lines")
    removed: int
    unified: str
    rows: list[dict[str, Any]]


class ArtifactsDiff(BaseModel):
    """How the newest editions of two artifacts differ."""

    model_config = shown(
        {
            "success": True,
            "diff": {
                "a": ARTIFACT,
                "b": {**ARTIFACT, "id": "art-5f4e3d2c1b0a"},
                "equal": True,
                "added": 0,
                "removed": 0,
                "unified": "",
                "rows": [],
            },
        }
    )

    success: bool = True
    diff: TextsDiff


class RunsSideBySide(BaseModel):
    """Two runs: `difference` is b less a; `steps` and `artifacts` each `key` or `name`, `equal`, `a`, `b`, `diff`."""

    a: dict[str, Any]
    b: dict[str, Any]
    difference: dict[str, float | None]
    same: dict[str, bool] = Field(description="Whether both were given the same, by what it is")
    changed: dict[str, dict[str, Any]]
    steps: list[dict[str, Any]]
    artifacts: list[dict[str, Any]]
    equal: bool = Field(description="Whether all outputs and artifacts are the same")


class RunsCompared(BaseModel):
    """Two runs side by side: outputs, costs, times, artifacts."""

    model_config = shown(
        {
            "success": True,
            "comparison": {
                "a": {"id": RUN["id"], "status": "completed", "cost_usd": 0.0004, "seconds": 12.0},
                "b": {"id": "run-5f4e3d2c1b0a", "status": "completed", "cost_usd": 0.0, "seconds": 9.5},
                "difference": {"cost_usd": -0.0004, "input_tokens": 0, "output_tokens": 0, "seconds": -2.5},
                "same": {"source": True, "inputs": True, "material": True, "models": False, "seed": True},
                "changed": {"inputs": {}, "models": {"*": [None, "gemma3:270m"]}},
                "steps": [],
                "artifacts": [],
                "equal": False,
            },
        }
    )

    success: bool = True
    comparison: RunsSideBySide
