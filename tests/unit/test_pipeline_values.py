"""What templates of a run see, why a rerun may differ, and how an artifact is mended."""

from __future__ import annotations

from typing import Any

import pytest

from corral.domain.workspace import Artifact, Run, Step, StepStatus
from corral.errors import InvalidRequest
from corral.workspace.pipelines.definition import read
from corral.workspace.pipelines.repairing import repair_run
from corral.workspace.pipelines.reproducing import reasons
from corral.workspace.pipelines.scoping import File, Result, base_scope, gathered

PLAN = read("name: x\nsteps: {one: {model: m, prompt: hi}}")


def step(receipt: dict[str, Any], **more: Any) -> Step:
    said = {"request": {"model": "m", "parameters": {"seed": 1}}, "status": StepStatus.COMPLETED, "model": "m"}
    known = {"model": "m", "revision": "r1", "device": "cpu"}
    return Step(**{"run": "run-1", "key": "one", "name": "one", **said, "receipt": known | receipt, **more})


@pytest.mark.parametrize(
    ("receipt", "more", "said"),
    [
        ({}, {}, None),
        ({"revision": None}, {}, "which revision"),
        ({"device": "remote"}, {}, "vendor"),
        ({"model": "n"}, {}, "chose n"),
        ({"fallbacks": [{"model": "m"}], "model": "n"}, {}, "n stood in"),
        ({"ignored": ["seed"]}, {}, "takes no seed"),
        ({}, {"request": {"model": "m", "parameters": {}}}, "no seed"),
        ({}, {"request": {"model": "m", "parameters": {"temperature": 0}}}, None),
        ({}, {"tries": [{"error": {"code": "engine_died"}}]}, "after an error"),
        ({"revision": None}, {"status": StepStatus.SKIPPED}, None),
    ],
)
def test_why_a_rerun_may_differ(receipt: dict[str, Any], more: dict[str, Any], said: str | None) -> None:
    found = reasons(PLAN, [step(receipt, **more)])
    assert found == {} if said is None else said in found["one"]


def test_what_templates_see_of_material() -> None:
    material = [
        {"id": "ctx-1", "kind": "instructions", "name": "a", "text": "be kind", "variables": {}},
        {"id": "ctx-2", "kind": "file", "name": "b.txt", "text": "B", "variables": {}},
        {"id": "ctx-3", "kind": "document", "name": "c.pdf", "text": "C", "variables": {}},
        {"id": "ctx-4", "kind": "variables", "name": "d", "text": "", "variables": {"x": 1}},
        {"id": "ctx-5", "kind": "instructions", "name": "e", "text": "be brief", "variables": {}},
    ]
    run = Run(id="run-1", project="prj-1", name="x", source="", inputs={"t": 1}, material=material, seed=3)
    scope = base_scope(run)
    assert scope["inputs"] == {"t": 1}
    assert scope["run"] == {"seed": 3}
    assert scope["context"]["instructions"] == "be kind\n\nbe brief"
    assert scope["context"]["files"] == [{"name": "b.txt", "text": "B"}, {"name": "c.pdf", "text": "C"}]
    assert scope["context"]["variables"] == {"x": 1}


def test_what_a_fan_out_comes_to() -> None:
    file = File("a.css", "css", "a {}")
    whole, items = gathered([Result("one", {"a": 1}), Result("two", None, (file,))])
    assert (whole.output, whole.value, whole.files) == ("one\n\ntwo", [{"a": 1}, None], (file,))
    assert [item["index"] for item in items] == [0, 1]
    assert items[1]["files"] == [{"name": "a.css", "kind": "css", "content": "a {}"}]
    assert gathered([Result("one")])[0].value is None
    assert gathered([])[0] == Result("", None, ())


def test_an_artifact_is_mended_by_a_pipeline_that_can_run() -> None:
    artifact = Artifact(id="art-1", project="prj-1", name="A.tsx", kind="tsx")
    source, inputs = repair_run(artifact, b"{{ not a template }}", "it broke", "auto")
    plan = read(source)
    assert plan.steps[0].output.languages == ("tsx",)
    assert inputs["content"] == "{{ not a template }}"
    for bad in (
        lambda: repair_run(artifact, b"x", "  ", "auto"),
        lambda: repair_run(artifact, b"\xff", "it", "auto"),
        lambda: repair_run(artifact, b"x" * 200_001, "it", "auto"),
        lambda: repair_run(Artifact(id="a", project="p", name="a.png", kind="image"), b"x", "it", "auto"),
    ):
        with pytest.raises(InvalidRequest):
            bad()
