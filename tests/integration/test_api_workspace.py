"""The workspace over HTTP: each resource from its making to its end, in lists, in bulk, and with two writers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.database import address
from tests.support.servers import Server, corral_server
from tests.support.studio import ONE_STEP, Studio

CONFIG = "models:\n  robot: {runtime: fake, options: {reply: hi}}\n"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with (
        address(request.param) as url,
        corral_server(
            tmp_path_factory.mktemp("home"), CONFIG, env={"CORRAL_DATABASE_URL": url} if url else {}
        ) as running,
    ):
        yield running


@pytest.fixture
def studio(server: Server) -> Studio:
    return Studio(server)


def made(studio: Studio, many: str, number: int = 0, project: str = "web") -> dict[str, Any]:
    """An entry of that kind, in a project that is there from then on."""
    if studio.do("GET", f"/projects/{project}").status == 404:
        studio.project(project)
    name = f"{many}-{number}-{project}"
    wanted: dict[str, dict[str, Any]] = {
        "projects": {"name": name},
        "contexts": {"project": project, "kind": "instructions", "name": name, "text": f"Be brief, {number}."},
        "pipelines": {"project": project, "name": name, "source": ONE_STEP},
        "runs": {"project": project, "source": ONE_STEP, "inputs": {"topic": "bees"}, "title": name},
        "artifacts": {"project": project, "name": f"src/{name}.txt", "text": "one\n"},
    }
    entry = dict(studio.post(f"/{many}", {**wanted[many], "tags": ["fresh", name]})[many.removesuffix("s")])
    return studio.finished(entry["id"]) if many == "runs" else entry


RESOURCES = ("projects", "contexts", "pipelines", "runs", "artifacts")


@pytest.mark.parametrize("many", RESOURCES)
def test_from_its_making_to_its_end(studio: Studio, many: str) -> None:
    one = many.removesuffix("s")
    entry = made(studio, many, project=f"cycle-{many}")
    path = f"/{many}/{entry['id']}"
    tag = f'"{entry["version"]}"'

    shown = studio.do("GET", path)
    assert (shown.status, shown.headers["etag"], shown.json[one]["id"]) == (200, tag, entry["id"])
    assert studio.do("GET", path, headers={"if-none-match": tag}).status == 304

    change = {"title": "Better"} if many not in ("contexts", "pipelines") else {"tags": ["better"]}
    changed = studio.do("PATCH", path, change, {"if-match": tag})
    assert changed.status == 200, changed.body
    assert changed.json[one]["version"] > entry["version"]
    assert changed.headers["etag"] == f'"{changed.json[one]["version"]}"'
    assert studio.do("GET", path, headers={"if-none-match": tag}).status == 200
    late = studio.do("PATCH", path, change, {"if-match": tag})
    assert (late.status, late.code) == (412, "stale")

    def listed(query: str) -> bool:
        return entry["id"] in [each["id"] for each in studio.get(f"/{many}?{query}")[many]]

    own = f"tag={changed.json[one]['tags'][-1]}"
    assert listed(own)
    assert not listed("tag=nobody-has-it")
    assert studio.post(f"{path}/archive")[one]["archived_at"] > 0
    assert (listed(own), listed(f"{own}&archived=true"), listed(f"{own}&archived=any")) == (False, True, True)
    assert studio.post(f"{path}/restore")[one]["archived_at"] is None

    thrown = studio.do("DELETE", path)
    assert thrown.status == 200
    assert thrown.json[one]["deleted_at"] > 0
    assert studio.do("GET", path).code == "entry_missing"
    assert studio.get(f"{path}?deleted=true")[one]["id"] == entry["id"]
    assert (listed(own), listed(f"{own}&deleted=true")) == (False, True)
    assert studio.post(f"{path}/restore")[one]["deleted_at"] is None
    assert listed(own)

    assert studio.post(f"{path}/purge") == {"success": True, "id": entry["id"]}
    assert studio.do("GET", f"{path}?deleted=true").status == 404
    assert not listed(f"{own}&deleted=true")


@pytest.mark.parametrize("many", RESOURCES)
def test_a_change_that_is_none_is_refused(studio: Studio, many: str) -> None:
    path = f"/{many}/{made(studio, many, project=f'none-{many}')['id']}"

    assert studio.do("PATCH", path, {}).code == "invalid_request"
    assert studio.do("PATCH", path, {"id": "prj-000000000000"}).code == "invalid_request"
    assert studio.do("PATCH", path, {"tags": ["x"]}, {"if-match": "yesterday"}).code == "invalid_request"


@pytest.mark.parametrize("many", ["contexts", "pipelines", "artifacts"])
def test_copied_and_moved(studio: Studio, many: str) -> None:
    one = many.removesuffix("s")
    entry = made(studio, many, project=f"from-{many}")
    there = studio.project(f"to-{many}")

    copied = studio.do("POST", f"/{many}/{entry['id']}/duplicate", {"project": there["name"]})
    assert copied.status == 201, copied.body
    copy = copied.json[one]
    assert copied.headers["location"] == f"/api/v1/{many}/{copy['id']}"
    assert copy["id"] != entry["id"]
    assert copy["project"] == there["id"]
    beside = studio.post(f"/{many}/{entry['id']}/duplicate")[one]
    assert beside["project"] == entry["project"]

    moved = studio.do("POST", f"/{many}/{entry['id']}/move", {"project": there["id"]})
    assert moved.status in (200, 409), moved.body  # a pipeline of that name is there now
    if moved.status == 200:
        assert moved.json[one]["project"] == there["id"]
    assert studio.do("POST", f"/{many}/{entry['id']}/move", {"project": "nowhere"}).status == 404


def test_a_run_is_moved_and_not_copied(studio: Studio) -> None:
    run = made(studio, "runs", project="from-runs")
    there = studio.project("to-runs")

    assert studio.post(f"/runs/{run['id']}/move", {"project": "to-runs"})["run"]["project"] == there["id"]
    assert studio.do("POST", f"/runs/{run['id']}/duplicate").status == 404


def test_a_project_is_copied_with_what_it_is_made_of(studio: Studio) -> None:
    project = studio.project("original", tags=["a"])
    made(studio, "contexts", project="original")
    made(studio, "pipelines", project="original")
    made(studio, "artifacts", project="original")

    copy = studio.post("/projects/original/duplicate", {"name": "copied"})["project"]

    assert copy["name"] == "copied"
    assert copy["id"] != project["id"]
    assert [studio.get(f"/{many}?project=copied&total=true")["total"] for many in ("contexts", "artifacts")] == [1, 0]
    assert studio.post("/projects/original/duplicate")["project"]["name"] not in ("original", "copied")
    assert studio.do("POST", "/projects/original/duplicate", {"name": "copied"}).code == "conflict"


def test_lists_in_pages_and_by_what_they_are_asked(studio: Studio) -> None:
    studio.project("paged")
    ids = [studio.artifact("paged", f"src/p{number}.txt", f"word{number} common\n")["id"] for number in range(5)]

    seen: list[str] = []
    path: str | None = "/artifacts?project=paged&sort=name&limit=2&total=true"
    cursor = ""
    while path:
        page = studio.get(path + cursor)
        assert page["total"] == 5
        seen += [each["id"] for each in page["artifacts"]]
        cursor = f"&cursor={page['next']}"
        path = path if page["next"] else None
    assert seen == ids
    assert [each["id"] for each in studio.get("/artifacts?project=paged&q=word3")["artifacts"]] == [ids[3]]
    assert studio.get("/artifacts?project=paged&kind=css")["count"] == 0
    assert studio.get("/artifacts?project=paged&name=src/p1.txt")["count"] == 1

    again = studio.do("GET", "/artifacts?project=paged")
    unchanged = studio.do("GET", "/artifacts?project=paged", headers={"if-none-match": again.headers["etag"]})
    assert unchanged.status == 304
    studio.artifact("paged", "src/new.txt")
    changed = studio.do("GET", "/artifacts?project=paged", headers={"if-none-match": again.headers["etag"]})
    assert changed.status == 200


def test_many_at_once(studio: Studio) -> None:
    studio.project("bulk")
    ids = [studio.artifact("bulk", f"b{number}.txt", tags=["draft"])["id"] for number in range(4)]

    done = studio.post("/artifacts/bulk", {"action": "archive", "ids": [ids[0], "art-000000000000", ids[0]]})
    assert done["results"] == {ids[0]: None, "art-000000000000": "entry_missing"}
    assert (done["done"], done["failed"], done["more"]) == (1, 1, False)

    tagged = studio.post("/artifacts/bulk", {"action": "tag", "filter": {"project": "bulk"}, "add": ["kept"]})
    assert sorted(tagged["results"]) == sorted(ids[1:])
    assert studio.get(f"/artifacts/{ids[1]}")["artifact"]["tags"] == ["draft", "kept"]
    assert studio.get(f"/artifacts/{ids[0]}")["artifact"]["tags"] == ["draft"]

    everything = {"project": "bulk", "archived": None}
    assert studio.post("/artifacts/bulk", {"action": "delete", "filter": everything})["done"] == 4
    assert studio.get("/artifacts?project=bulk&archived=any")["count"] == 0
    thrown = {**everything, "deleted": True}
    assert studio.post("/artifacts/bulk", {"action": "restore", "filter": {**thrown, "tags": ["kept"]}})["done"] == 3
    assert studio.post("/artifacts/bulk", {"action": "purge", "filter": thrown})["done"] == 1
    assert studio.get("/artifacts?project=bulk&deleted=true&archived=any")["count"] == 0
    for wrong in (
        {"action": "delete"},
        {"action": "delete", "ids": [], "filter": {}},
        {"action": "tag", "ids": ids},
        {"action": "delete", "ids": ids, "add": ["x"]},
        {"action": "explode", "ids": ids},
        {"action": "delete", "filter": {"project": "bulk", "colour": "red"}},
    ):
        assert studio.do("POST", "/artifacts/bulk", wrong).status == 400, wrong


@pytest.mark.parametrize("many", RESOURCES)
def test_of_two_writers_one_wins(server: Server, studio: Studio, many: str) -> None:
    one = many.removesuffix("s")
    entry = made(studio, many, project=f"race-{many}")
    path = f"/{many}/{entry['id']}"
    answers: list[tuple[int, str]] = []
    ready = threading.Barrier(6)

    def write(number: int) -> None:
        own = Studio(server)
        ready.wait()
        reply = own.do("PATCH", path, {"tags": [f"w{number}"]}, {"if-match": f'"{entry["version"]}"'})
        answers.append((reply.status, reply.json[one]["tags"][0] if reply.status == 200 else reply.code))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    won = [tag for status, tag in answers if status == 200]
    assert len(won) == 1, answers
    assert [answer for answer in answers if answer[0] != 200] == [(412, "stale")] * 5
    assert studio.get(path)[one]["tags"] == won


def test_contexts_have_an_order(studio: Studio) -> None:
    project = studio.project("ordered")
    names = ("first", "second", "third")
    ids = [
        studio.post("/contexts", {"project": "ordered", "kind": "instructions", "name": name})["context"]["id"]
        for name in names
    ]
    assert [each["name"] for each in studio.get("/contexts?project=ordered&sort=position")["contexts"]] == list(names)

    turned = studio.post("/contexts/reorder", {"project": project["id"], "ids": ids[::-1]})

    assert [each["id"] for each in turned["contexts"]] == ids[::-1]
    assert [each["id"] for each in studio.get("/contexts?project=ordered&sort=position")["contexts"]] == ids[::-1]
    assert studio.do("POST", "/contexts/reorder", {"project": "ordered", "ids": ["ctx-000000000000"]}).status in (
        400,
        404,
    )


def test_what_a_context_may_have(studio: Studio) -> None:
    studio.project("kinds")

    def create(**given: Any) -> Any:
        return studio.do("POST", "/contexts", {"project": "kinds", "name": "x", **given})

    variables = create(kind="variables", variables={"colour": "#0a5", "sizes": [1, 2.5, None]})
    assert variables.json["context"]["variables"] == {"colour": "#0a5", "sizes": [1, 2.5, None]}
    assert create(kind="variables", text="no").code == "invalid_request"
    assert create(kind="instructions", variables={"a": 1}).code == "invalid_request"
    assert create(kind="poem").code == "invalid_request"
    off = studio.do("PATCH", f"/contexts/{variables.json['context']['id']}", {"enabled": False})
    assert off.json["context"]["enabled"] is False
    assert studio.get("/contexts?project=kinds&enabled=false")["count"] == 1
    assert studio.get("/contexts?project=kinds&enabled=true")["count"] == 0


def test_whatever_has_these_words(studio: Studio) -> None:
    project = studio.project("hives", description="All about zeppelins")
    artifact = studio.artifact("hives", "notes.md", "# Notes\n\nZeppelins fly quietly.\n")
    studio.project("elsewhere")
    studio.artifact("elsewhere", "other.md", "zeppelins, too\n")

    hits = studio.get("/workspace/search?q=zeppelins&project=hives")["hits"]
    assert {hit["id"] for hit in hits} >= {artifact["id"]}
    assert {hit["project"] for hit in hits} <= {project["id"], None}
    assert studio.get("/workspace/search?q=zeppelins&kind=project")["hits"][0]["id"] == project["id"]
    first = studio.get("/workspace/search?q=zeppelins&limit=1")
    second = studio.get(f"/workspace/search?q=zeppelins&limit=1&cursor={first['next']}")
    assert first["hits"][0]["id"] != second["hits"][0]["id"]
    assert studio.get("/workspace/search?q=nobodywrotethis")["hits"] == []
    assert studio.do("GET", "/workspace/search?q=zeppelins&kind=poem").code == "invalid_request"
    assert studio.do("GET", "/workspace/search").code == "invalid_request"
    assert studio.do("GET", "/workspace/search?q=zeppelins&project=nowhere").code == "entry_missing"
