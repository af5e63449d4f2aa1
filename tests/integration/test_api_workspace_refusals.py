"""What the workspace does not take over HTTP: each is refused with a clear 4xx, and the server goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.api import Reply
from tests.support.database import address
from tests.support.servers import Server, corral_server
from tests.support.studio import ONE_STEP, Studio

RESOURCES = ("projects", "contexts", "pipelines", "runs", "artifacts")
NOBODY = {"projects": "prj", "contexts": "ctx", "pipelines": "pip", "runs": "run", "artifacts": "art"}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with address(request.param) as url:
        with corral_server(tmp_path_factory.mktemp("home"), env={"CORRAL_DATABASE_URL": url} if url else {}) as running:
            yield running
        assert "Traceback" not in (running.home.parent / "server.log").read_text()


@pytest.fixture(scope="module")
def studio(server: Server) -> Studio:
    asked = Studio(server)
    asked.project("web")
    return asked


def refused(reply: Reply, status: int = 400, code: str = "invalid_request") -> None:
    assert (reply.status, reply.code) == (status, code), reply.body
    assert reply.json["error"]["message"]


@pytest.mark.parametrize("many", RESOURCES)
@pytest.mark.parametrize(
    "key", ["{none}", "nobody", "%00", "a%0Ab", "%F0%9F%90%9D", "x" * 200, "..%2F..%2Fetc", "%ED%A0%80", "'%20OR%201=1"]
)
def test_what_is_not_there(studio: Studio, many: str, key: str) -> None:
    path = f"/{many}/{key.format(none=NOBODY[many] + '-000000000000')}"

    for method, more, body in (
        ("GET", "", None),
        ("GET", "?deleted=true", None),
        ("PATCH", "", {"tags": []}),
        ("DELETE", "", None),
        ("POST", "/archive", None),
        ("POST", "/restore", None),
        ("POST", "/purge", None),
    ):
        reply = studio.do(method, path + more, body)
        assert reply.status in (400, 404), (method, path, reply.body)
        assert reply.json["error"]["message"]


@pytest.mark.parametrize("many", RESOURCES)
@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=many",
        "sort=password",
        "sort=",
        "sort=-id;drop",
        "cursor=made-up",
        "cursor=W10",
        "cursor=%00",
        "archived=perhaps",
        "deleted=perhaps",
        "tag=" + "x" * 1001,
        "tag=%0A",
        "q=" + "x" * 1001,
        "q=%00",
        "total=2.5",
    ],
)
def test_lists_that_there_are_not(studio: Studio, many: str, query: str) -> None:
    refused(studio.do("GET", f"/{many}?{query}"))


def test_a_cursor_of_another_order(studio: Studio) -> None:
    for number in range(3):
        studio.artifact("web", f"c{number}.txt")
    first = studio.get("/artifacts?sort=name&limit=1")

    refused(studio.do("GET", f"/artifacts?sort=-name&limit=1&cursor={first['next']}"))
    refused(studio.do("GET", f"/artifacts?limit=1&cursor={first['next']}"))


ODD_TEXTS = ["\x00", "\ud800", "a\x00b"]
ODD_VALUES: list[Any] = [
    {"a": "\x00"},
    {"\x00": 1},
    {"a": "\udfff"},
    {"a": [{"b": "\x00"}]},
    {"a": 2**70},
    {"a": -(2**63) - 1},
]


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_texts_that_nothing_can_hold(studio: Studio, text: str) -> None:
    for path, body in (
        ("/projects", {"name": "odd", "title": text}),
        ("/projects", {"name": "odd", "description": text}),
        ("/projects", {"name": "odd", "tags": [text]}),
        ("/projects", {"name": text}),
        ("/contexts", {"project": "web", "kind": "instructions", "name": "x", "text": text}),
        ("/contexts", {"project": text, "kind": "instructions", "name": "x"}),
        ("/artifacts", {"project": "web", "name": "x.txt", "text": text}),
        ("/artifacts", {"project": "web", "name": text, "text": "x"}),
        ("/pipelines", {"source": text}),
        ("/pipelines/validate", {"source": text}),
        ("/runs", {"project": "web", "source": ONE_STEP, "inputs": {"topic": text}}),
        ("/runs", {"project": "web", "source": ONE_STEP, "inputs": {"topic": "x"}, "models": {text: "x"}}),
        ("/artifacts/bulk", {"action": "delete", "ids": [text]}),
        ("/artifacts/bulk", {"action": "delete", "filter": {"q": text}}),
    ):
        reply = studio.do("POST", path, body)
        assert 400 <= reply.status < 500, (path, body, reply.body)


@pytest.mark.parametrize("values", ODD_VALUES)
def test_values_that_nothing_can_hold(studio: Studio, values: Any) -> None:
    refused(studio.do("POST", "/projects", {"name": "odd", "settings": values}))
    refused(studio.do("POST", "/contexts", {"project": "web", "kind": "variables", "name": "x", "variables": values}))
    refused(studio.do("POST", "/runs", {"project": "web", "source": ONE_STEP, "inputs": values}))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b'{"name": "odd", "settings": {"a": NaN}}',
        b'{"name": "odd", "settings": {"a": 1e999}}',
        b'{"name": "odd", "settings": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}",
        b'{"name": "odd", "settings": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"name": "odd", "size": 4}',
        b'{"name": 4}',
        b'{"title": "no name"}',
        b'{"name": "Odd"}',
        b'{"name": "../odd"}',
        b'{"name": "prj-0123456789ab"}',
        b'{"name": ""}',
        b'{"name": "odd", "tags": "web"}',
        b'{"name": "odd", "tags": [""]}',
    ],
)
def test_bodies_that_are_no_project(studio: Studio, body: bytes) -> None:
    reply = studio.do("POST", "/projects", body)

    assert reply.status == 400, reply.body
    assert studio.do("GET", "/projects/odd").status == 404


def test_a_name_is_there_once(studio: Studio) -> None:
    studio.project("once")

    refused(studio.do("POST", "/projects", {"name": "once"}), 409, "conflict")
    studio.do("DELETE", "/projects/once")
    second = studio.project("once")
    refused(studio.do("POST", f"/projects/{gone(studio, 'once')}/restore"), 409, "conflict")
    assert studio.get("/projects/once")["project"]["id"] == second["id"]


def gone(studio: Studio, name: str) -> str:
    (found,) = [each["id"] for each in studio.get("/projects?deleted=true")["projects"] if each["name"] == name]
    return str(found)


def test_what_goes_into_a_project_that_is_away(studio: Studio) -> None:
    studio.project("away")
    studio.artifact("away", "a.txt")
    studio.do("DELETE", "/projects/away")

    for path, body in (
        ("/artifacts", {"project": "away", "name": "x.txt", "text": "x"}),
        ("/contexts", {"project": "away", "kind": "instructions", "name": "x"}),
        ("/runs", {"project": "away", "source": ONE_STEP, "inputs": {"topic": "x"}}),
    ):
        refused(studio.do("POST", path, body), 404, "entry_missing")
    refused(studio.do("GET", "/artifacts?project=away"), 404, "entry_missing")


def test_if_match_is_one_entrys_etag(studio: Studio) -> None:
    artifact = studio.artifact("web", "match.txt")
    path = f"/artifacts/{artifact['id']}"

    for said in ("1", 'W/"1"', '"1", "2"', '"x"', '"0"', '"99999999999999999999"'):
        refused(studio.do("PATCH", path, {"title": "x"}, {"if-match": said}))
    refused(studio.do("PATCH", path, {"title": "x"}, {"if-match": '"7"'}), 412, "stale")
    refused(studio.do("DELETE", path, headers={"if-match": '"7"'}), 412, "stale")
    refused(studio.do("POST", f"{path}/archive", headers={"if-match": '"7"'}), 412, "stale")
    refused(studio.do("POST", f"{path}/purge", headers={"if-match": '"7"'}), 412, "stale")
    assert studio.do("PATCH", path, {"title": "x"}, {"if-match": "*"}).status == 200


def test_methods_that_there_are_not(studio: Studio) -> None:
    for method, path in (
        ("PUT", "/projects/web"),
        ("POST", "/projects/web"),
        ("DELETE", "/projects"),
        ("PATCH", "/runs"),
    ):
        assert studio.do(method, path).status == 405, (method, path)
