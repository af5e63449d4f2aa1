"""Files of the workspace over HTTP: given and taken back, too large, oddly named, and never run by a browser."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import json
import zipfile
from collections.abc import Iterator
from urllib.parse import quote, unquote, urlsplit

import pytest

from tests.support.api import Reply
from tests.support.servers import Server, corral_server
from tests.support.studio import API, Studio

LARGEST = 3 * 1024 * 1024
IMPORTED = 4 * 1024 * 1024
CONFIG = f"workspace: {{max_artifact: {LARGEST}, max_import: {IMPORTED}}}\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with corral_server(tmp_path_factory.mktemp("home"), CONFIG) as running:
        yield running


@pytest.fixture
def studio(server: Server) -> Studio:
    return Studio(server)


@pytest.fixture
def project(studio: Studio, request: pytest.FixtureRequest) -> str:
    name = f"p{abs(hash(request.node.name)) % 10**9}"
    return str(studio.project(name)["name"])


def test_editions_of_a_file(studio: Studio, project: str) -> None:
    first, second = b"export const one = 1;\n", b"export const one = ;\n"
    made = studio.upload("POST", f"/artifacts/content?project={project}&name=src/one.ts&note=by%20hand", first)
    assert made.status == 201, made.body
    artifact = made.json["artifact"]
    path = f"/artifacts/{artifact['id']}"
    assert (artifact["kind"], artifact["size"], artifact["number"]) == ("ts", len(first), 1)
    assert artifact["digest"] == hashlib.sha256(first).hexdigest()

    tag = f'"{artifact["version"]}"'
    edited = studio.upload("PUT", f"{path}/content?note=broken", second, if_match=tag)
    assert (edited.status, edited.json["artifact"]["number"]) == (200, 2), edited.body
    assert studio.upload("PUT", f"{path}/content", first, if_match=tag).code == "stale"

    editions = sorted(studio.get(f"{path}/editions")["editions"], key=lambda each: each["number"])
    assert [each["note"] for each in editions] == ["by hand", "broken"]
    assert editions[0]["problems"] == []
    assert editions[1]["problems"][0]["line"] == 1
    assert studio.do("GET", f"{path}/content").body == second
    old = studio.do("GET", f"{path}/content?edition=1")
    assert (old.body, old.headers["etag"]) == (first, f'"{editions[0]["digest"]}"')
    assert studio.do("GET", f"{path}/content", headers={"if-none-match": old.headers["etag"]}).status == 200
    assert studio.do("GET", f"{path}/content?edition=1", headers={"if-none-match": old.headers["etag"]}).status == 304
    assert studio.do("GET", f"{path}/content?edition=3").code == "entry_missing"
    assert studio.do("GET", f"{path}/content?edition=0").code == "invalid_request"


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("page.html", "<script>alert(1)</script>", "text/html"),
        ("logo.svg", '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "image/svg+xml"),
        ("app.js", "alert(1)", "text/javascript"),
        ("data.json", "{}", "application/json"),
    ],
)
def test_a_browser_runs_nothing_of_it(studio: Studio, project: str, name: str, text: str, kind: str) -> None:
    artifact = studio.artifact(project, name, text)

    assert artifact["media_type"] == kind
    for path in ("content", "export?form=plain"):
        given = studio.do("GET", f"/artifacts/{artifact['id']}/{path}")
        assert given.status == 200, given.body
        assert given.body.decode() == text
        assert given.headers["content-type"] == "text/plain; charset=utf-8"
        assert given.headers["x-content-type-options"] == "nosniff"
        assert given.headers["content-disposition"].startswith(f'attachment; filename="{name}"')
        assert "sandbox" in given.headers["content-security-policy"]


@pytest.mark.parametrize("name", ["src/Grün & blau; x=y.txt", "日本語.md", "a'b%22.txt", "it%0d%0aset-cookie x.txt"])
def test_a_name_cannot_get_out_of_its_header(studio: Studio, project: str, name: str) -> None:
    artifact = studio.artifact(project, name, "x")

    given = studio.do("GET", f"/artifacts/{artifact['id']}/content")

    said = given.headers["content-disposition"]
    assert "set-cookie" not in given.headers
    assert said.isascii()
    plain, _, whole = said.partition("; filename*=UTF-8''")
    assert unquote(whole) == name.rpartition("/")[2]
    assert plain.count('"') == 2
    assert ";" not in plain.partition("; ")[2]


@pytest.mark.parametrize("name", ["../up.txt", "/etc/passwd", "a//b", "a/../b", "c:\\x", "", "x" * 201, "tab\there"])
def test_what_cannot_name_a_file(studio: Studio, project: str, name: str) -> None:
    made = studio.do("POST", "/artifacts", {"project": project, "name": name, "text": "x"})

    assert made.status == 400, made.body


def test_what_is_no_text(studio: Studio, project: str) -> None:
    path = f"/artifacts/content?project={project}&name=a.png"

    assert studio.upload("POST", path, b"\x89PNG\r\n\x1a\n\xff").code == "not_supported"
    assert studio.upload("POST", path, b"nul\x00nul").code == "not_supported"
    assert studio.upload("POST", f"{path}&kind=poem", b"x").code == "invalid_request"
    empty = studio.upload("POST", f"/artifacts/content?project={project}&name=empty.txt", b"")
    assert (empty.status, empty.json["artifact"]["size"]) == (201, 0)


def poured(server: Server, method: str, path: str, size: int, *, declared: bool) -> Reply:
    """The answer to a body of so many bytes, sent as it comes or with its length said before."""
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        pieces = (b"x" * min(65536, size - at) for at in range(0, size, 65536))
        headers = {"content-type": "text/plain"}
        headers |= {"content-length": str(size)} if declared else {"transfer-encoding": "chunked"}
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may be answered before it is all sent
            connection.request(method, API + path, pieces, headers, encode_chunked=not declared)
        return Reply(connection.getresponse())
    finally:
        connection.close()


@pytest.mark.parametrize("declared", [True, False])
def test_only_files_may_be_large(server: Server, studio: Studio, project: str, declared: bool) -> None:
    path = f"/artifacts/content?project={project}&name="

    whole = poured(server, "POST", f"{path}whole.txt", LARGEST, declared=declared)
    assert (whole.status, whole.json["artifact"]["size"]) == (201, LARGEST)
    beyond = poured(server, "POST", f"{path}beyond.txt", LARGEST + 1, declared=declared)
    assert (beyond.status, beyond.code) == (413, "body_too_large")
    content = f"/artifacts/{whole.json['artifact']['id']}/content"
    assert poured(server, "PUT", content, LARGEST + 1, declared=declared).status == 413
    assert poured(server, "POST", "/artifacts", 1024 * 1024 + 1, declared=declared).status == 413
    assert poured(server, "POST", "/projects/import", IMPORTED + 1, declared=declared).status == 413
    assert studio.get(f"/artifacts?project={project}&total=true")["total"] == 1


def test_fifty_megabytes(server: Server, project: str) -> None:
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.putrequest("POST", f"{API}/artifacts/content?project={project}&name=big.txt")
        connection.putheader("content-type", "text/plain")
        connection.putheader("content-length", str(50 * 1024 * 1024))
        connection.endheaders()  # and not a byte of it: what is too large need not be sent
        reply = Reply(connection.getresponse())
    finally:
        connection.close()

    assert (reply.status, reply.code) == (413, "body_too_large")
    assert "workspace.max_artifact" in reply.json["error"]["hint"]


def test_the_bytes_of_a_context(studio: Studio, project: str) -> None:
    made = studio.post("/contexts", {"project": project, "kind": "file", "name": "facts.csv"})["context"]
    path = f"/contexts/{made['id']}"
    assert studio.do("GET", f"{path}/content").status == 404

    put = studio.upload("PUT", f"{path}/content", b"bee,hive\n1,2\n", "text/csv; charset=utf-8")

    assert put.status == 200, put.body
    context = put.json["context"]
    assert (context["text"], context["size"], context["media_type"]) == ("bee,hive\n1,2\n", 13, "text/csv")
    assert context["version"] > made["version"]
    given = studio.do("GET", f"{path}/content")
    assert given.body == b"bee,hive\n1,2\n"
    assert given.headers["content-type"] == "text/plain; charset=utf-8"
    assert studio.upload("PUT", f"{path}/content", b"\xff", if_match=f'"{context["version"]}"').code == "not_supported"
    assert studio.upload("PUT", f"{path}/content", b"late", if_match=f'"{made["version"]}"').code == "stale"
    words = studio.post("/contexts", {"project": project, "kind": "instructions", "name": "style", "text": "Short."})
    assert studio.upload("PUT", f"/contexts/{words['context']['id']}/content", b"x").code == "invalid_request"


COUNTER = """import { useState } from "react";

export default function Counter({ label = "Clicks", start = 0 }: { label?: string; start?: number }) {
  const [count, setCount] = useState(start);
  return <button onClick={() => setCount(count + 1)}>{label}: {count}</button>;
}
"""


def test_seen_exported_and_compared(studio: Studio, project: str) -> None:
    one = studio.artifact(project, "src/Counter.tsx", COUNTER)
    other = studio.artifact(project, "src/Other.tsx", COUNTER.replace("Clicks", "Taps"))

    preview = studio.get(f"/artifacts/{one['id']}/preview")["preview"]
    assert preview["source"] == COUNTER
    assert {prop["name"] for prop in preview["props"]} == {"label", "start"}
    assert studio.get(f"/artifacts/{one['id']}/diff/{other['id']}")["diff"]

    framer = studio.do("GET", f"/artifacts/{one['id']}/export?form=framer")
    assert framer.status == 200, framer.body
    assert b"addPropertyControls" in framer.body
    assert "x-corral-notes" not in framer.headers
    vite = studio.do("GET", f"/artifacts/{one['id']}/export?form=vite")
    assert vite.status == 200, vite.body
    assert vite.headers["content-type"] == "application/octet-stream"
    assert any(name.endswith("package.json") for name in zipfile.ZipFile(io.BytesIO(vite.body)).namelist())
    assert studio.do("GET", f"/artifacts/{one['id']}/export?form=poster").code == "invalid_request"


def test_what_should_be_known_of_an_export_is_told(studio: Studio, project: str) -> None:
    def notes(*props: str) -> list[str]:
        given = "; ".join(f"{prop}: (n: number) => string" for prop in props)
        source = f"export default function Money(props: {{ {given} }}) {{ return <b/> }}\n"
        artifact = studio.artifact(project, f"Money{len(props)}.tsx", source)
        answer = studio.do("GET", f"/artifacts/{artifact['id']}/export?form=framer")
        assert len(answer.headers["x-corral-notes"]) <= 4_000
        return list(json.loads(answer.headers["x-corral-notes"]))

    assert notes("größe") == ["The prop größe has no control in Framer."]
    many = notes(*(f"format{number}" for number in range(200)))
    assert many[0] == "The prop format0 has no control in Framer."
    assert many[-1] == f"There are {200 - len(many) + 1} more."


def test_a_whole_project_goes_elsewhere(studio: Studio, project: str) -> None:
    artifact = studio.artifact(project, "src/a.css", "a { color: red }\n", tags=["kept"])
    studio.post("/contexts", {"project": project, "kind": "instructions", "name": "style", "text": "Short."})

    packed = studio.do("GET", f"/projects/{project}/export")
    assert packed.status == 200
    assert packed.headers["content-type"] == "application/zip"
    assert packed.headers["content-disposition"].startswith(f'attachment; filename="{project}.zip"')
    again = studio.upload("POST", f"/projects/import?name={project}-b", packed.body, "application/zip")
    assert again.status == 201, again.body

    copied = studio.get(f"/artifacts?project={project}-b")["artifacts"]
    assert [(each["name"], each["digest"], each["tags"]) for each in copied] == [
        (artifact["name"], artifact["digest"], ["kept"])
    ]
    assert studio.do("GET", f"/artifacts/{copied[0]['id']}/content").body == b"a { color: red }\n"
    taken = studio.upload("POST", f"/projects/import?name={project}", packed.body, "application/zip")
    assert (taken.status, taken.code) == (409, "conflict")
    for wrong in (b"", b"PK\x03\x04 no archive", packed.body[: len(packed.body) // 2]):
        refused = studio.upload("POST", f"/projects/import?name={project}-c", wrong, "application/zip")
        assert 400 <= refused.status < 500, refused.body
    assert studio.do("GET", f"/projects/{quote(project)}-c").status == 404
