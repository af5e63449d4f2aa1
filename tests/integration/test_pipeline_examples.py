"""The pipelines of `examples/pipelines`, done from their order to their artifacts by engines that know their part."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from corral.app import Corral
from corral.domain.workspace import RunStatus, StepStatus
from support.pipelines import at_work, done

EXAMPLES = Path(__file__).parents[2] / "examples" / "pipelines"
PLAN = {
    "title": "Seeds",
    "sections": [{"heading": "Bees", "text": "They come."}, {"heading": "Rain", "text": "It falls."}],
}
POINTS = [{"label": "May", "value": 3}]
CODE = """\
Here you are:

```tsx
export default function Page({ title = "Seeds" }: { title?: string }) {
  return <h1>{title}</h1>
}
```

```css
.bar { height: 1em }
```

```python
print("points")
```
"""
REPLIES = {
    "smollm2": "Sure! " + json.dumps(PLAN),
    "pointer": json.dumps(POINTS),
    "coder": CODE,
    "editor": "A page about seeds.",
}


@pytest.fixture
async def corral(tmp_path: Path) -> AsyncIterator[Corral]:
    models = {name: {"runtime": "fake", "options": {"reply": reply}} for name, reply in REPLIES.items()}
    async with at_work(tmp_path, yaml.safe_dump({"models": models})) as made:
        yield made


def source(name: str) -> str:
    return (EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8")


async def made(corral: Corral, run: str) -> dict[str, str]:
    """The artifacts of a run: their contents by their names."""
    artifacts = corral.workspace.store.artifacts
    return {one.name: (await artifacts.content(one.id)).decode() for one in await artifacts.of_run(run)}


def asked(step: Any) -> str:
    return "\n".join(message["content"] for message in step.request["messages"])


async def test_the_page(corral: Corral) -> None:
    inputs = {"topic": "a seed shop", "coder": "coder", "editor": "editor"}
    run, steps = await done(corral, source("page"), inputs)
    assert run.status is RunStatus.COMPLETED, run.error
    assert steps["analysis"].value == PLAN
    assert "1. Bees: They come.\n2. Rain: It falls.\nBegin with" in asked(steps["code"])
    assert "--- analysis ---" in asked(steps["page"])
    assert "export default function Page" in asked(steps["page"])
    assert await made(corral, run.id) == {
        "Page.tsx": CODE.partition("```tsx\n")[2].partition("```")[0],
        "page.md": "A page about seeds.",
    }


async def test_the_widget(corral: Corral) -> None:
    run, steps = await done(corral, source("widget"), {"what": "rain", "coder": "coder"}, models={"shape": "pointer"})
    assert run.status is RunStatus.COMPLETED, run.error
    assert json.dumps(POINTS) in asked(steps["endpoint"])
    assert {"src/Chart.tsx", "src/chart.css", "server/points.py"} <= set(await made(corral, run.id))


async def test_the_widget_without_its_server(corral: Corral) -> None:
    inputs = {"what": "rain", "coder": "coder", "server": False}
    run, steps = await done(corral, source("widget"), inputs, models={"shape": "pointer"})
    assert run.status is RunStatus.COMPLETED, run.error
    assert steps["endpoint"].status is StepStatus.SKIPPED
    assert not any(name.endswith(".py") for name in await made(corral, run.id))


async def test_the_review(corral: Corral) -> None:
    inputs = {"text": "All is well.", "reviewers": ["editor", "coder", "smollm2"]}
    run, steps = await done(corral, source("review"), inputs)
    assert run.status is RunStatus.COMPLETED, run.error
    assert [steps[f"review[{at}]"].model for at in range(3)] == ["editor", "coder", "smollm2"]
    assert "You look at how it is said." in asked(steps["review[1]"])
    assert "3 reviewers were asked" in asked(steps["verdict"])
    assert "Reviewer 1: A page about seeds." in asked(steps["verdict"])
