"""How far keys reach into the workspace: within their projects, and no further, by whatever route."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.servers import corral_server
from tests.support.studio import ONE_STEP, Studio

BOSS = "the-servers-own-key"
CONFIG = """
models:
  robot: {runtime: fake, options: {reply: hi}}
  giant: {runtime: fake}
"""


@dataclass
class House:
    """A server with two projects, `red` and `blue`, and a key for `red` alone."""

    boss: Studio
    red: Studio
    free: Studio
    mine: dict[str, str]
    theirs: dict[str, str]
    shared: str


def filled(boss: Studio, project: str) -> dict[str, str]:
    """An entry of each kind in a new project, by what many are called."""
    found = {"projects": boss.project(project)["id"]}
    context = {"project": project, "kind": "instructions", "name": "style", "text": "secretword"}
    found["contexts"] = boss.post("/contexts", context)["context"]["id"]
    found["pipelines"] = boss.post("/pipelines", {"project": project, "source": ONE_STEP})["pipeline"]["id"]
    run = boss.post("/runs", {"project": project, "source": ONE_STEP, "inputs": {"topic": "bees"}})["run"]["id"]
    found["runs"] = boss.finished(run)["id"]
    found["artifacts"] = boss.artifact(project, "a.txt", "secretword")["id"]
    return found


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    home: Path = tmp_path_factory.mktemp("home")
    with corral_server(home, CONFIG, env={"CORRAL_API_KEY": BOSS}) as server:
        boss = Studio(server, BOSS)
        mine, theirs = filled(boss, "red"), filled(boss, "blue")
        shared = boss.post("/pipelines", {"source": ONE_STEP, "name": "shared"})["pipeline"]["id"]

        def key(name: str, **more: Any) -> Studio:
            return Studio(server, boss.post("/keys", {"name": name, **more})["secret"])

        yield House(boss, key("red", projects=["red", "green"]), key("free"), mine, theirs, shared)


RESOURCES = ("projects", "contexts", "pipelines", "runs", "artifacts")


@pytest.mark.parametrize("many", RESOURCES)
def test_what_is_not_its_own_is_not_there(house: House, many: str) -> None:
    theirs = f"/{many}/{house.theirs[many]}"

    assert house.red.do("GET", f"/{many}/{house.mine[many]}").status == 200
    for method, path, body in (
        ("GET", theirs, None),
        ("GET", f"{theirs}?deleted=true", None),
        ("PATCH", theirs, {"tags": ["mine"]}),
        ("DELETE", theirs, None),
        ("POST", f"{theirs}/archive", None),
        ("POST", f"{theirs}/restore", None),
    ):
        refused = house.red.do(method, path, body)
        assert (refused.status, refused.code) == (404, "entry_missing"), (method, path, refused.body)
    listed = [each["id"] for each in house.red.get(f"/{many}?archived=any&total=true")[many]]
    assert house.mine[many] in listed
    assert house.theirs[many] not in listed
    assert house.red.do("GET", f"/{many}?project=blue").code == "entry_missing"
    done = house.red.post(f"/{many}/bulk", {"action": "archive", "ids": [house.theirs[many]]})
    assert done["results"] == {house.theirs[many]: "entry_missing"}
    tagged = house.red.post(f"/{many}/bulk", {"action": "tag", "filter": {}, "add": ["seen"]})
    assert house.mine[many] in tagged["results"]
    assert not {house.theirs[many], house.shared} & set(tagged["results"])
    assert house.boss.get(f"/{many}/{house.theirs[many]}")[many.removesuffix("s")]["tags"] == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/artifacts/{artifacts}/content"),
        ("PUT", "/artifacts/{artifacts}/content"),
        ("GET", "/artifacts/{artifacts}/editions"),
        ("GET", "/artifacts/{artifacts}/preview"),
        ("GET", "/artifacts/{artifacts}/export"),
        ("GET", "/contexts/{contexts}/content"),
        ("GET", "/runs/{runs}/steps"),
        ("GET", "/runs/{runs}/events"),
        ("POST", "/runs/{runs}/cancel"),
        ("POST", "/runs/{runs}/rerun"),
        ("POST", "/artifacts/{artifacts}/duplicate"),
    ],
)
def test_nor_by_another_way(house: House, method: str, path: str) -> None:
    refused = house.red.do(method, path.format(**house.theirs))

    assert (refused.status, refused.code) == (404, "entry_missing")


def test_nor_beside_its_own(house: House) -> None:
    mine, theirs = house.mine, house.theirs

    for path in (
        f"/artifacts/{mine['artifacts']}/diff/{theirs['artifacts']}",
        f"/artifacts/{theirs['artifacts']}/diff/{mine['artifacts']}",
        f"/runs/{mine['runs']}/compare/{theirs['runs']}",
    ):
        assert house.red.do("GET", path).code == "entry_missing", path
    for path, body in (
        (f"/artifacts/{mine['artifacts']}/move", {"project": "blue"}),
        (f"/artifacts/{mine['artifacts']}/duplicate", {"project": "blue"}),
        ("/runs", {"project": "blue", "source": ONE_STEP, "inputs": {"topic": "x"}}),
        ("/runs", {"project": "red", "pipeline": theirs["pipelines"], "inputs": {"topic": "x"}}),
        ("/artifacts", {"project": "blue", "name": "x.txt", "text": "x"}),
        ("/contexts", {"project": "blue", "kind": "instructions", "name": "x"}),
        ("/contexts/reorder", {"project": "blue", "ids": []}),
        ("/pipelines", {"project": "blue", "source": ONE_STEP, "name": "x"}),
    ):
        assert house.red.do("POST", path, body).code == "entry_missing", (path, body)


def test_a_search_finds_its_own(house: House) -> None:
    own = {house.mine[many] for many in RESOURCES}

    found = {hit["id"] for hit in house.red.get("/workspace/search?q=secretword")["hits"]}

    assert found
    assert found <= own
    everything = {hit["id"] for hit in house.boss.get("/workspace/search?q=secretword")["hits"]}
    assert house.theirs["artifacts"] in everything
    assert {hit["id"] for hit in house.free.get("/workspace/search?q=secretword")["hits"]} == everything


def test_projects_that_it_may_make(house: House) -> None:
    refused = house.red.do("POST", "/projects", {"name": "yellow"})
    assert (refused.status, refused.code) == (403, "forbidden")
    assert house.red.do("POST", f"/projects/{house.mine['projects']}/duplicate", {"name": "yellow"}).status == 403
    assert house.red.do("POST", f"/projects/{house.mine['projects']}/duplicate").status == 403
    made = house.red.post("/projects", {"name": "green"})["project"]
    assert house.red.get(f"/projects/{made['name']}")["project"]["id"] == made["id"]


def test_pipelines_for_all_are_run_and_not_changed(house: House) -> None:
    listed = [each["id"] for each in house.red.get("/pipelines")["pipelines"]]
    assert house.shared in listed
    run = house.red.post(f"/pipelines/{house.shared}/runs", {"project": "red", "inputs": {"topic": "bees"}})["run"]
    assert house.red.finished(run["id"])["status"] == "completed"
    for method, path, body in (
        ("PATCH", "", {"tags": ["x"]}),
        ("DELETE", "", None),
        ("POST", "/archive", None),
        ("POST", "/move", {"project": "red"}),
        ("POST", "/duplicate", None),
    ):
        assert house.red.do(method, f"/pipelines/{house.shared}{path}", body).code == "forbidden", (method, path)
    assert house.red.do("POST", "/pipelines", {"source": ONE_STEP, "name": "mine"}).code == "forbidden"
    copied = house.red.do("POST", f"/pipelines/{house.shared}/duplicate", {"project": "red", "name": "own"})
    assert copied.status == 201, copied.body


def test_models_that_it_may_not_use(house: House) -> None:
    secret = house.boss.post("/keys", {"name": "small", "models": ["rob*"], "projects": ["red"]})["secret"]
    small = Studio(house.boss.server, secret)
    other = ONE_STEP.replace("robot", "giant")

    checked = small.post("/pipelines/validate", {"source": other})
    assert checked["valid"] is False
    assert "may not be used" in checked["issues"][0]["message"]
    assert house.boss.post("/pipelines/validate", {"source": other})["valid"] is True
    begun = {"project": "red", "inputs": {"topic": "x"}}
    assert small.do("POST", "/runs", {**begun, "source": other}).code == "pipeline_invalid"
    assert small.do("POST", "/runs", {**begun, "source": ONE_STEP, "models": {"*": "giant"}}).code == "invalid_request"
    run = small.post("/runs", {**begun, "source": other, "models": {"hello": "robot"}})["run"]
    ended = small.finished(run["id"])
    assert (ended["status"], ended["caller"][:4]) == ("completed", "key-")


def test_what_takes_a_key_that_manages(house: House) -> None:
    art = house.boss.artifact("red", "gone.txt", "x")["id"]

    for key in (house.red, house.free):
        for method, path, body in (
            ("POST", f"/artifacts/{art}/purge", None),
            ("POST", "/artifacts/bulk", {"action": "purge", "ids": [art]}),
            ("POST", "/projects/bulk", {"action": "purge", "filter": {}}),
            ("GET", "/projects/red/export", None),
            ("POST", "/projects/import", None),
        ):
            refused = key.do(method, path, body)
            assert (refused.status, refused.code) == (403, "forbidden"), (method, path)
    assert house.free.do("GET", f"/artifacts/{art}").status == 200
    assert house.boss.do("POST", f"/artifacts/{art}/purge").status == 200


def test_a_websocket_is_bounded_likewise(house: House) -> None:
    def talk(studio: Studio, run: str) -> Any:
        url = studio.server.url.replace("http:", "ws:") + f"/api/v1/runs/{run}/ws"
        return connect(url, proxy=None, additional_headers=studio._headers)

    with talk(house.red, house.mine["runs"]) as socket:
        assert '"snapshot"' in str(socket.recv(timeout=20))
    for run in (house.theirs["runs"], "run-000000000000", "x" * 300):
        with pytest.raises(InvalidStatus) as refused:
            talk(house.red, run)
        assert refused.value.response.status_code == 404
        assert b"entry_missing" in (refused.value.response.body or b"")


def test_without_a_key_nothing(house: House) -> None:
    nobody = Studio(house.boss.server)

    for path in ("/projects", "/runs", "/workspace/search?q=x", f"/artifacts/{house.mine['artifacts']}/content"):
        assert nobody.do("GET", path).status == 401


SHAKY = """
name: shaky
steps:
  hello: {model: robot, prompt: hi, timeout: 1ms, retries: 0}
"""


def test_nobody_goes_on_with_a_run_that_another_pays_for(house: House) -> None:
    run = house.boss.post("/runs", {"project": "red", "source": SHAKY})["run"]["id"]
    assert house.boss.finished(run)["status"] == "failed"

    for key in (house.red, house.free):
        refused = key.do("POST", f"/runs/{run}/resume")
        assert (refused.status, refused.code) == (403, "forbidden"), refused.body
        again = key.post(f"/runs/{run}/rerun")["run"]
        assert again["caller"] not in ("local", "server")
        assert key.finished(again["id"])["caller"] == again["caller"]
        assert key.do("POST", f"/runs/{again['id']}/resume").status == 200  # its own
    assert house.boss.do("POST", f"/runs/{run}/resume").status == 200


def test_a_name_is_told_apart_among_what_a_key_may_see(house: House) -> None:
    for project in ("north", "south", "east", "west"):
        house.boss.project(project)
    made = {
        project: house.boss.post("/pipelines", {"project": project, "source": ONE_STEP, "name": "pair"})["pipeline"][
            "id"
        ]
        for project in ("north", "south")
    }

    def found(key: Studio) -> tuple[int, Any]:
        reply = key.do("GET", "/pipelines/pair")
        return reply.status, reply.json["pipeline"]["id"] if reply.status == 200 else reply.code

    def begun(key: Studio, project: str) -> tuple[int, Any]:
        reply = key.do("POST", "/runs", {"project": project, "pipeline": "pair", "inputs": {"topic": "bees"}})
        return reply.status, reply.json["run"]["pipeline"] if reply.status == 201 else reply.code

    def bounded(*projects: str) -> Studio:
        made = house.boss.post("/keys", {"name": "-".join(projects), "projects": projects})
        return Studio(house.boss.server, made["secret"])

    beyond, one, both = bounded("east"), bounded("north", "east"), bounded("north", "south", "west")
    nothing, several = (404, "entry_missing"), (409, "conflict")

    assert (found(beyond), begun(beyond, "east")) == (nothing, nothing)
    assert (found(one), begun(one, "north")) == ((200, made["north"]), (201, made["north"]))
    assert begun(one, "east") == (201, made["north"]), "the only one that it may see"
    assert (found(both), begun(both, "south"), begun(both, "west")) == (several, (201, made["south"]), several)
    assert (found(house.boss), begun(house.boss, "east")) == (several, several)

    of_all = house.boss.post("/pipelines", {"source": ONE_STEP, "name": "pair"})["pipeline"]["id"]
    assert (found(beyond), begun(beyond, "east")) == ((200, of_all), (201, of_all))
    assert (found(one), begun(one, "north"), begun(one, "east")) == (
        (200, made["north"]),
        (201, made["north"]),
        (201, of_all),
    )
    assert found(both) == several


@pytest.mark.parametrize("many", RESOURCES)
def test_what_is_out_of_reach_is_told_as_what_is_not_there(house: House, many: str) -> None:
    theirs = house.theirs[many]
    nobody = f"{theirs.partition('-')[0]}-000000000000"

    told = [house.red.do("GET", f"/{many}/{key}").body.decode().replace(key, "KEY") for key in (theirs, nobody)]

    assert told[0] == told[1]


def test_a_name_leads_no_bulk_to_another_project(house: House) -> None:
    mine = house.boss.post("/pipelines", {"project": "red", "source": ONE_STEP, "name": "twice"})["pipeline"]["id"]
    theirs = house.boss.post("/pipelines", {"project": "blue", "source": ONE_STEP, "name": "twice"})["pipeline"]["id"]
    assert house.red.do("DELETE", f"/pipelines/{mine}").status == 200

    done = house.red.post("/pipelines/bulk", {"action": "delete", "ids": ["twice"]})

    assert house.boss.do("GET", f"/pipelines/{theirs}").status == 200, done
    assert done["failed"] == 1, done
