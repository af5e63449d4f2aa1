"""Runs over HTTP: begun, watched by events and WebSocket, stopped and gone on with, done again, compared."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.support.servers import Server, corral_server
from tests.support.studio import API, ONE_STEP, Studio

CONFIG = """
models:
  robot: {runtime: fake, options: {reply: hi there}}
  other: {runtime: fake, options: {reply: good day}}
  slow: {runtime: fake, options: {reply: one two three, hold_after: 1}}
  coder:
    runtime: fake
    options: {reply: "Here it is:\\n```css\\nmain { color: teal }\\n```\\n"}
"""
TWO_STEPS = """
name: styled
inputs:
  topic: {type: string, required: true}
steps:
  idea: {model: robot, prompt: "Colours for {{ inputs.topic }}"}
  style: {model: coder, prompt: "CSS for {{ steps.idea.output }}", output: {code: css}}
"""
HELD = """
name: held
steps:
  first: {model: robot, prompt: "Hello"}
  second: {model: slow, prompt: "After {{ steps.first.output }}"}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with corral_server(tmp_path_factory.mktemp("home"), CONFIG) as running:
        yield running


@pytest.fixture(scope="module")
def studio(server: Server) -> Studio:
    asked = Studio(server)
    asked.project("web")
    return asked


def begun(studio: Studio, source: str = TWO_STEPS, **more: Any) -> dict[str, Any]:
    """A run that has just begun."""
    reply = studio.do("POST", "/runs", {"project": "web", "source": source, **more})
    assert reply.status == 201, reply.body
    run = dict(reply.json["run"])
    assert reply.headers["location"] == f"{API}/runs/{run['id']}"
    return run


def talking(studio: Studio, run: str) -> ClientConnection:
    return connect(studio.server.url.replace("http:", "ws:") + f"{API}/runs/{run}/ws", proxy=None)


def until(messages: Iterator[tuple[str, dict[str, Any]]], status: str, step: str) -> None:
    """Listen until that step stands so."""
    for _, message in messages:
        steps = message["steps"] if message["type"] == "snapshot" else [message.get("step")]
        if any(isinstance(each, dict) and (each["name"], each["status"]) == (step, status) for each in steps):
            return
    raise AssertionError(f"{step} never was {status}")


def test_from_a_pipeline_to_its_artifacts(studio: Studio) -> None:
    made = studio.post("/pipelines", {"source": TWO_STEPS, "tags": ["css"]})["pipeline"]
    assert made["name"] == "styled"
    studio.post("/contexts", {"project": "web", "kind": "instructions", "name": "style", "text": "Be brief."})

    asked = {"project": "web", "inputs": {"topic": "bees"}, "budget_usd": 0.25, "seed": 7, "title": "t", "tags": ["a"]}
    begun = studio.post(f"/pipelines/{made['name']}/runs", asked)["run"]

    assert (begun["pipeline"], begun["budget_usd"], begun["seed"], begun["title"]) == (made["id"], 0.25, 7, "t")
    assert [each["text"] for each in begun["material"]] == ["Be brief."]
    run = studio.finished(begun["id"])
    assert (run["status"], run["steps_done"], run["steps_total"]) == ("completed", 2, 2), run["error"]
    steps = studio.get(f"/runs/{run['id']}/steps")["steps"]
    assert [(each["key"], each["status"], each["model"]) for each in steps] == [
        ("idea", "completed", "robot"),
        ("style", "completed", "coder"),
    ]
    assert steps[0]["output"] == "hi there"
    assert "bees" in json.dumps(steps[0]["request"])
    (artifact,) = studio.get(f"/artifacts?run={run['id']}")["artifacts"]
    assert (artifact["kind"], artifact["step"]) == ("css", "style")
    assert studio.do("GET", f"/artifacts/{artifact['id']}/content").body == b"main { color: teal }\n"
    (briefly,) = studio.get("/runs?status=completed&pipeline=" + made["id"])["runs"]
    given = {"source", "inputs", "material", "environment", "reproducible"}
    assert briefly == {name: value for name, value in run.items() if name not in given}
    assert studio.get("/runs?status=failed")["count"] == 0


def test_events_tell_it_from_how_it_stands_to_its_end(studio: Studio) -> None:
    run = begun(studio, inputs={"topic": "bees"})

    told = list(studio.messages(run["id"]))

    kinds = [message["type"] for _, message in told]
    assert kinds[0] == "snapshot"
    assert kinds[-1] == "end"
    assert kinds.count("end") == 1
    assert told[0][1]["run"]["id"] == run["id"]
    assert {each["key"] for each in told[0][1]["steps"]} == {"idea", "style"}
    assert told[-1][1]["status"] == "completed"
    assert all(isinstance(message["at"], float) for _, message in told)
    last = told[-1][0]
    assert last
    again = list(studio.messages(run["id"]))
    assert [message["type"] for _, message in again] == ["snapshot", "end"]
    assert [each["status"] for each in again[0][1]["steps"]] == ["completed", "completed"]
    assert len(again[0][1]["artifacts"]) == 1
    assert studio.do("GET", f"/runs/{run['id']}/events", headers={"last-event-id": last}).status == 204


def test_a_websocket_tells_the_same(studio: Studio) -> None:
    run = begun(studio, inputs={"topic": "bees"})

    with talking(studio, run["id"]) as socket:
        told = [json.loads(text) for text in socket]

    assert (told[0]["type"], told[-1]["type"], told[-1]["status"]) == ("snapshot", "end", "completed")
    assert socket.close_code == 1000
    finished = [
        each["step"]["key"] for each in told if each["type"] == "step" and each["step"]["status"] == "completed"
    ]
    already = [each["key"] for each in told[0]["steps"] if each["status"] == "completed"]
    assert sorted({*finished, *already}) == ["idea", "style"]


def test_many_listen_and_leave(studio: Studio) -> None:
    run = begun(studio, HELD)
    until(studio.messages(run["id"]), "running", "second")

    for _ in range(5):
        with talking(studio, run["id"]) as socket:
            assert json.loads(socket.recv(timeout=20))["type"] == "snapshot"
        with studio.open("GET", f"/runs/{run['id']}/events", base=API) as response:
            assert response.readline()

    assert studio.post(f"/runs/{run['id']}/cancel")["run"]["id"] == run["id"]
    assert studio.finished(run["id"])["status"] == "cancelled"


def test_stopped_and_gone_on_with(studio: Studio) -> None:
    run = begun(studio, HELD)
    path = f"/runs/{run['id']}"
    until(studio.messages(run["id"]), "running", "second")

    assert studio.post(f"{path}/pause")["run"]["status"] == "paused"
    assert studio.do("POST", f"{path}/pause").code == "conflict"
    assert studio.post(f"{path}/resume")["run"]["status"] in ("queued", "running")
    until(studio.messages(run["id"]), "running", "second")
    assert studio.do("POST", f"{path}/resume").code == "conflict"
    studio.post(f"{path}/cancel")
    assert studio.finished(run["id"])["status"] == "cancelled"
    assert studio.do("POST", f"{path}/cancel").code == "conflict"
    steps = {each["key"]: each for each in studio.get(f"{path}/steps")["steps"]}
    assert (steps["first"]["status"], steps["first"]["output"]) == ("completed", "hi there")


def test_what_is_under_way_is_not_thrown_away(studio: Studio) -> None:
    run = begun(studio, HELD)
    until(studio.messages(run["id"]), "running", "second")

    assert studio.do("POST", f"/runs/{run['id']}/purge").code == "conflict"
    assert studio.do("DELETE", "/projects/web").code == "conflict"
    studio.post(f"/runs/{run['id']}/cancel")
    studio.finished(run["id"])


def test_done_again_with_another_model_and_compared(studio: Studio) -> None:
    first = studio.finished(begun(studio, inputs={"topic": "bees"}, seed=3)["id"])

    again = studio.do("POST", f"/runs/{first['id']}/rerun", {"models": {"idea": "other"}, "title": "other"})

    assert again.status == 201, again.body
    second = studio.finished(again.json["run"]["id"])
    assert (second["rerun_of"], second["models"], second["seed"], second["title"]) == (
        first["id"],
        {"idea": "other"},
        3,
        "other",
    )
    steps = {each["key"]: each for each in studio.get(f"/runs/{second['id']}/steps")["steps"]}
    assert (steps["idea"]["model"], steps["idea"]["output"]) == ("other", "good day")
    same = studio.post(f"/runs/{first['id']}/rerun")["run"]
    assert studio.finished(same["id"])["inputs"] == first["inputs"]
    assert studio.get(f"/runs/{first['id']}/compare/{second['id']}")["comparison"]
    assert studio.do("POST", f"/runs/{first['id']}/rerun", {"models": {"nobody": "robot"}}).code == "invalid_request"


def test_an_artifact_is_mended_by_a_model(studio: Studio) -> None:
    artifact = studio.artifact("web", "src/broken.css", "main { color: }}\n")

    run = studio.do("POST", f"/artifacts/{artifact['id']}/repair", {"error": "It has a } too many", "model": "coder"})

    assert run.status == 201, run.body
    assert studio.finished(run.json["run"]["id"])["status"] == "completed"
    mended = studio.get(f"/artifacts/{artifact['id']}")["artifact"]
    assert mended["number"] == 2
    assert studio.do("GET", f"/artifacts/{artifact['id']}/content").body == b"main { color: teal }\n"
    editions = sorted(studio.get(f"/artifacts/{artifact['id']}/editions")["editions"], key=lambda each: each["number"])
    assert (editions[1]["run"], editions[1]["model"]) == (run.json["run"]["id"], "coder")
    assert studio.do("POST", f"/artifacts/{artifact['id']}/repair", {"error": ""}).code == "invalid_request"


def test_a_run_keeps_what_it_was_given(studio: Studio) -> None:
    pipeline = studio.post("/pipelines", {"source": ONE_STEP, "name": "kept"})["pipeline"]
    run = studio.post(f"/pipelines/{pipeline['id']}/runs", {"project": "web", "inputs": {"topic": "x"}})["run"]
    studio.finished(run["id"])

    changed = ONE_STEP.replace("Say hello", "Shout")
    assert studio.do("PATCH", f"/pipelines/{pipeline['id']}", {"source": changed}).status == 200
    studio.post(f"/pipelines/{pipeline['id']}/purge")

    assert studio.get(f"/runs/{run['id']}")["run"]["source"] == ONE_STEP
    again = studio.finished(studio.post(f"/runs/{run['id']}/rerun")["run"]["id"])
    assert again["status"] == "completed"


def test_all_that_is_wrong_with_a_pipeline(studio: Studio) -> None:
    source = ONE_STEP.replace("robot", "nobody").replace("inputs.topic", "inputs.topc")

    checked = studio.post("/pipelines/validate", {"source": source})
    fine = studio.post("/pipelines/validate", {"source": ONE_STEP})

    assert checked["valid"] is False
    assert {issue["line"] for issue in checked["issues"]} == {7, 8}
    assert (fine["valid"], fine["issues"], fine["steps"]) == (True, [], ["hello"])
    assert fine["inputs"]["topic"]["required"] is True
    kept = studio.do("POST", "/pipelines", {"source": source, "name": "wrong"})
    assert (kept.status, kept.code) == (400, "pipeline_invalid")
    assert "8" in kept.json["error"]["message"]
    refused = studio.do("POST", "/runs", {"project": "web", "source": source, "inputs": {"topic": "x"}})
    assert refused.code == "pipeline_invalid"


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"source": ONE_STEP, "pipeline": "greet"},
        {"pipeline": "nobody-made-it"},
        {"source": ONE_STEP},
        {"source": ONE_STEP, "inputs": {"topic": 7}},
        {"source": ONE_STEP, "inputs": {"topic": "x", "colour": "red"}},
        {"source": ONE_STEP, "inputs": {"topic": "x"}, "models": {"nobody": "robot"}},
        {"source": ONE_STEP, "inputs": {"topic": "x"}, "models": {"*": "nobody"}},
        {"source": ONE_STEP.replace("robot", "nobody"), "inputs": {"topic": "x"}},
        {"source": ONE_STEP, "inputs": {"topic": "x"}, "budget_usd": -1},
        {"source": ONE_STEP, "inputs": {"topic": "x"}, "seed": -1},
        {"source": "", "inputs": {}},
        {"source": "steps: [", "inputs": {}},
        {"source": "a: &a [*a, *a]", "inputs": {}},
        {"source": "name: x\nsteps: {a: {model: robot, prompt: '{{ steps.a.output }}'}}", "inputs": {}},
        {"source": ONE_STEP, "inputs": {"topic": "x"}, "project": "nowhere"},
        {"source": ONE_STEP, "inputs": {"topic": "x"}, "speed": "high"},
    ],
)
def test_what_cannot_be_run(studio: Studio, wrong: dict[str, Any]) -> None:
    before = studio.get("/runs?total=true&archived=any")["total"]

    refused = studio.do("POST", "/runs", {"project": "web", **wrong})

    assert refused.status in (400, 404), (refused.status, refused.body)
    assert refused.json["error"]["message"]
    assert studio.get("/runs?total=true&archived=any")["total"] == before
