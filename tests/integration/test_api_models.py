"""The catalog over HTTP, on a real server: what is installed, its revisions, long work, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.api import Client
from support.docker import until
from support.models import gguf, snapshot
from support.servers import corral_server

CONFIG = """
models:
  robot: {runtime: fake}
  nickname: {source: used}
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    home = tmp_path_factory.mktemp("home")
    with corral_server(home, CONFIG, env={"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": ""}) as server:
        yield Client(server)


def install(client: Client, name: str, data: bytes) -> dict[str, Any]:
    """Install a file under `name`; the operation as it ended."""
    file = client.folder / f"{name.replace('/', '-')}.gguf"
    file.write_bytes(data)
    begun = client.ask("POST", "/registry/install", {"name": name, "source": f"file:{file}"})
    assert begun.status == 200, begun.body
    return client.ended(begun.json["operation_id"])


def test_a_model_is_installed_listed_and_removed(client: Client) -> None:
    ended = install(client, "team/tiny:1b", gguf(3000))

    assert (ended["status"], ended["progress"], ended["error"]) == ("completed", 100.0, None)
    assert ended["result"]["name"] == "team/tiny:1b"
    listed = client.ask("GET", "").json
    assert listed["success"] is True
    (model,) = [item for item in listed["models"] if item["name"] == "team/tiny:1b"]
    assert (model["provider"], model["status"], model["runtime"]) == ("file", "installed", "llamacpp")
    assert model["capabilities"]["supports_system_role"] is True
    removed = client.ask("DELETE", "/registry/team%2Ftiny:1b").json
    assert client.ended(removed["operation_id"])["status"] == "completed"
    assert client.ask("GET", "/team/tiny:1b").status == 404


@pytest.mark.parametrize("path", ["/a/b:c", "/a%2Fb:c", "/a%2fb%3Ac", "/registry/a/b:c"])
def test_a_name_may_hold_slashes(client: Client, path: str) -> None:
    install(client, "a/b:c", gguf(2000))

    found = client.ask("GET", path).json["model"]

    assert found["name"] == "a/b:c"
    assert [file["role"] for file in found["files"]] == ["model"]
    assert found["fit"]["verdict"] == "yes"
    assert "free" in found["fit"]["reason"]


@pytest.mark.parametrize("name", ["search", "operations/x", "team/update"])
def test_a_name_like_a_route_is_reached_beside_it(client: Client, name: str) -> None:
    install(client, name, gguf(2100))

    assert client.ask("GET", f"/registry/{name}").json["model"]["name"] == name
    assert client.ask("GET", f"/{name}/capabilities").json["model_name"] == name


def test_pages_hold_every_model_once(client: Client) -> None:
    for number in range(5):
        install(client, f"paged-{number}", gguf(1000 + number))
    names, after, pages = [], "", 0
    while after is not None:
        page = client.ask("GET", f"?limit=2&after={after}").json
        names += [model["name"] for model in page["models"]]
        assert page["count"] == len(page["models"]) <= 2
        after, pages = page["next"], pages + 1

    assert names == sorted(set(names))
    assert len(names) == page["total"]
    assert pages == -(-len(names) // 2)


def test_what_a_client_has_is_not_sent_again(client: Client) -> None:
    install(client, "tagged", gguf(1500))

    tag = client.settled_tag("")
    again = client.ask("GET", "", headers={"if-none-match": f'"other", W/{tag}'})
    assert (again.status, again.body) == (304, b"")
    assert client.ask("GET", "?limit=1", headers={"if-none-match": tag}).status == 200
    install(client, "tagged-too", gguf(1501))
    assert client.ask("GET", "", headers={"if-none-match": tag}).status == 200


def test_what_is_said_by_hand_counts_and_can_be_taken_back(client: Client) -> None:
    install(client, "corrected", gguf(1600))
    said = {"supports_system_role": False, "max_context_length": 99, "runtime": "llamacpp"}

    told = client.ask("PUT", "/corrected/capabilities", said).json

    assert told["capabilities"]["supports_system_role"] is False
    assert "system" not in told["capabilities"]["allowed_roles"]
    assert told["capabilities"]["max_context_length"] == 99
    assert told["override"]["runtime"] == "llamacpp"
    install(client, "corrected", gguf(1600, seed=1))
    assert client.ask("GET", "/corrected/capabilities").json["capabilities"]["supports_system_role"] is False
    back = client.ask("DELETE", "/corrected/capabilities").json
    assert (back["override"], back["capabilities"]["supports_system_role"]) == ({}, True)


@pytest.mark.parametrize("said", [{"supports_sistem_role": True}, {"supports_system_role": "yes"}, {"runtime": 7}, []])
def test_nonsense_by_hand_is_refused(client: Client, said: Any) -> None:
    install(client, "corrected", gguf(1600))

    reply = client.ask("PUT", "/corrected/capabilities", said)

    assert reply.status == 400
    assert reply.json["success"] is False
    assert client.ask("GET", "/corrected/capabilities").json["override"] == {}


def test_revisions_are_kept_and_gone_back_to(client: Client) -> None:
    first = install(client, "versioned", gguf(1700))["result"]["revision"]
    second = install(client, "versioned", gguf(1700, seed=2))["result"]["revision"]

    history = client.ask("GET", "/versioned/revisions").json
    assert [item["revision"] for item in history["revisions"]] == [second, first]
    assert [item["current"] for item in history["revisions"]] == [True, False]
    back = client.ask("POST", "/versioned/rollback").json
    assert back["model"]["revision"] == first
    none = client.ask("POST", "/versioned/rollback")
    assert (none.status, none.json["error"]["code"]) == (409, "conflict")
    forward = client.ask("POST", "/versioned/rollback", {"to": second[:12]}).json
    assert forward["model"]["revision"] == second


def test_an_update_is_looked_at_and_then_made(client: Client) -> None:
    install(client, "updated", gguf(1800))
    assert client.ask("GET", "/updated/update").json["changed"] is False
    (client.folder / "updated.gguf").write_bytes(gguf(1900))

    change = client.ask("GET", "/updated/update").json
    assert change["changed"] is True
    assert [file["kind"] for file in change["files"]] == ["changed"]
    ended = client.ended(client.ask("POST", "/updated/update").json["operation_id"])
    assert ended["status"] == "completed"
    assert ended["result"]["revision"] != change["current"]


def test_a_pinned_model_is_neither_updated_nor_removed(client: Client) -> None:
    install(client, "pinned", gguf(1850))
    assert client.ask("POST", "/pinned/pin").json["model"]["pinned"] is True

    for method, path in (("POST", "/pinned/update"), ("DELETE", "/registry/pinned")):
        begun = client.ask(method, path)
        code = client.ended(begun.json["operation_id"])["failure"]["code"] if begun.status == 200 else begun.code
        assert code == "model_pinned"
    assert client.ask("DELETE", "/pinned/pin").json["model"]["pinned"] is False
    wanted = ("DELETE /api/v1/models/{name:path}/pin", "/api/v1/models/pinned/pin")

    def noted() -> bool:  # it is written down after the answer
        entries = client.ask("GET", "?limit=9", base="/api/v1/audit").json["entries"]
        return wanted in [(entry["action"], entry["target"]) for entry in entries]

    until(noted)
    assert client.ended(client.ask("DELETE", "/registry/pinned").json["operation_id"])["status"] == "completed"


def test_what_the_configuration_uses_is_removed_by_force_only(client: Client) -> None:
    install(client, "used", gguf(1860))

    refused = client.ask("DELETE", "/registry/used")
    assert (refused.status, refused.code) == (409, "conflict")
    forced = client.ask("DELETE", "/registry/used?force=true").json
    assert client.ended(forced["operation_id"])["status"] == "completed"


def test_a_model_is_verified_and_damage_is_told(client: Client) -> None:
    install(client, "sound", gguf(1870))
    ended = client.ended(client.ask("POST", "/sound/verify").json["operation_id"])
    assert ended["status"] == "completed"

    (file,) = client.ask("GET", "/sound").json["model"]["files"]
    blob = client.folder / ".corral/models/blobs/sha256" / file["sha256"]
    blob.chmod(0o600)
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    blob.chmod(0o444)
    for path, code in (("/sound/verify", "digest_mismatch"), ("/verify", "corrupt_model")):
        ended = client.ended(client.ask("POST", path).json["operation_id"])
        assert ended["failure"]["code"] == code, ended["error"]
        assert ended["error"].startswith(ended["failure"]["message"])
    client.ended(client.ask("DELETE", "/registry/sound").json["operation_id"])


def test_files_move_to_another_disk_and_back(client: Client) -> None:
    install(client, "moving", gguf(1880))
    there = client.folder / "elsewhere"
    there.mkdir(exist_ok=True)

    assert (
        client.ended(client.ask("POST", "/moving/move", {"folder": str(there)}).json["operation_id"])["error"] is None
    )
    assert [path for path in there.rglob("*") if path.is_file()]
    assert client.ended(client.ask("POST", "/moving/move", {"folder": None}).json["operation_id"])["error"] is None
    assert client.ask("POST", "/moving/move", {"folder": "relative"}).status == 400
    shutil.rmtree(there)


def test_what_cannot_take_models_is_not_pushed_to(client: Client) -> None:
    install(client, "pushed", gguf(1890))

    begun = client.ask("POST", "/pushed/push", {"to": "file:/tmp/x"})

    failure = client.ended(begun.json["operation_id"])["failure"] if begun.status == 200 else begun.json["error"]
    assert failure["code"] == "not_supported"


def test_what_takes_what(client: Client) -> None:
    install(client, "one", gguf(2500))
    install(client, "same", gguf(2500))

    room = client.ask("GET", "/df").json

    rows = {row["name"]: row for row in room["models"]}
    assert rows["one"]["shared"] == rows["one"]["size"] > 0
    assert rows["one"]["unique"] == 0
    assert room["quota"] == 50 * 1000**3
    ended = client.ended(client.ask("POST", "/gc", {"dry_run": True}).json["operation_id"])
    assert {"revisions", "blobs", "parts", "bytes", "kept"} <= set(ended["result"])
    assert client.ended(client.ask("POST", "/gc").json["operation_id"])["status"] == "completed"


def test_usage_has_the_fields_of_its_document(client: Client) -> None:
    usage = client.ask("GET", "/usage").json["usage"]

    assert list(usage) == [
        "disk_usage_gb",
        "disk_limit_gb",
        "disk_usage_percent",
        "cpu_usage_percent",
        "memory_total_gb",
        "memory_used_gb",
        "memory_usage_percent",
        "gpu_usage_percent",
        "vram_usage_mb",
        "vram_total_mb",
        "vram_usage_percent",
        "models_count",
    ]
    assert usage["disk_limit_gb"] == 50
    assert 0 <= usage["memory_usage_percent"] <= 100


def test_providers_offer_what_is_installed_and_what_has_a_name(client: Client) -> None:
    install(client, "offered", gguf(2600))

    everything = client.ask("GET", "/providers").json
    assert everything["count"] == len(everything["models"])
    statuses = {model["name"]: model["status"] for model in everything["models"]}
    assert statuses["offered"] == "installed"
    assert statuses["smollm2"] == "available"
    files = client.ask("GET", "/providers?provider=file&limit=1000").json["models"]
    assert {model["provider"] for model in files} == {"file"}
    away = client.ask("GET", "/providers?provider=huggingface").json
    assert away["success"] is True
    assert away["problems"]
    unknown = client.ask("GET", "/providers?provider=nowhere")
    assert unknown.status == 400
    assert "huggingface, ollama" in unknown.json["error"]["hint"]


def test_a_search_finds_what_is_installed_and_says_what_it_could_not_ask(client: Client) -> None:
    install(client, "findable", gguf(2700))

    found = client.ask("GET", "/search?q=findable").json

    assert [model["installed"] for model in found["models"]] == ["findable"]
    assert found["models"][0]["fit"]["verdict"] == "yes"
    assert found["problems"]
    assert client.ask("GET", "/search?q=nothing-like-it&source=huggingface").status == 502
    assert client.ask("GET", "/search?q=x&source=nowhere").status == 400


BAD_NAMES = ["..", "../x", "a/../b", "a b", "a\nb", "a\0b", "x" * 10_000, "é", "/etc/passwd", "a%2F..%2Fb"]


@pytest.mark.parametrize("name", BAD_NAMES, ids=range(len(BAD_NAMES)))
def test_no_name_leaves_the_store(client: Client, name: str) -> None:
    quoted = client.quoted(name)
    for method, path in (
        ("GET", f"/{quoted}/capabilities"),
        ("GET", f"/registry/{quoted}"),
        ("DELETE", f"/registry/{quoted}"),
        ("POST", f"/{quoted}/pin"),
    ):
        reply = client.ask(method, path)
        assert reply.status in (400, 404), (method, path)
        assert reply.json["success"] is False
        assert len(reply.body) < 2000
    for body in ({"name": name, "source": "file:/x.gguf"}, {"name": "x", "alias": name}):
        assert client.ask("POST", "/registry/install", body).status in (400, 404)
    assert client.ask("POST", "/activate", {"name": name}).status == 400


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "no-such-thing-here"}, 404),
        ({"name": "x", "provider": "nowhere"}, 400),
        ({"name": "ftp:x"}, 404),
        ({"name": "a\0b", "provider": "ollama"}, 400),
        ({"name": "x" * 10_000, "provider": "ollama"}, 400),
        ({"provider": "ollama"}, 400),
        ({"name": 7}, 400),
        ([], 400),
    ],
)
def test_an_install_that_cannot_be_is_refused_at_once(client: Client, body: Any, status: int) -> None:
    before = client.ask("GET", "/operations?limit=1").json["operations"]

    reply = client.ask("POST", "/registry/install", body)

    assert reply.status == status, reply.body
    assert reply.json["error"]["message"]
    assert client.ask("GET", "/operations?limit=1").json["operations"] == before


def test_a_huge_body_is_refused_before_it_is_read(client: Client) -> None:
    body = json.dumps({"name": "x" * 2_000_000}).encode()
    assert client.ask("POST", "/registry/install", body).status == 413
    assert client.chunked("POST", "/registry/install", [body[:700_000], body[700_000:]]).status == 413


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "after=%00", "after=" + "x" * 2000])
def test_pages_have_bounds(client: Client, query: str) -> None:
    reply = client.ask("GET", f"?{query}")
    assert (reply.status, reply.json["success"]) == (400, False)


def test_the_openapi_description_tells_the_shapes(client: Client) -> None:
    described = client.ask("GET", "", base="/api/v1/openapi.json").json

    answer = described["paths"]["/api/v1/models"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer == {"$ref": "#/components/schemas/InstalledPage"}


def test_a_model_is_activated_whatever_its_runtime_is_called(client: Client, smollm2: Path) -> None:
    begun = client.ask("POST", "/registry/install", {"name": "real", "source": f"file:{smollm2}", "runtime": "ollama"})
    assert client.ended(begun.json["operation_id"])["status"] == "completed"

    active = client.ask("POST", "/activate", {"name": "real", "runtime": "ollama"}).json

    assert (active["success"], active["model_name"], active["runtime"]) == (True, "real", "llamacpp")
    assert "ollama cannot be used here" in active["message"]
    assert client.ask("POST", "/activate", {"name": "real", "runtime": "fake"}).status == 501
    busy = client.ask("DELETE", "/registry/real")
    assert (busy.status, busy.code) == (409, "model_busy")
    forced = client.ask("DELETE", "/registry/real?force=true")
    assert client.ended(forced.json["operation_id"])["status"] == "completed"


def test_a_model_that_nothing_here_runs_hides_no_other(client: Client) -> None:
    folder = client.folder / "safe"
    folder.mkdir()
    for name, data in snapshot().items():
        (folder / name).write_bytes(data)
    begun = client.ask("POST", "/registry/install", {"name": "safe", "source": f"file:{folder}"})
    assert client.ended(begun.json["operation_id"])["status"] == "completed"
    install(client, "beside", gguf(1000))

    offered = {model["id"] for model in client.ask("GET", "/v1/models", base="").json["data"]}
    states = {model["name"]: model for model in client.ask("GET", "/api/v1/runtime/models", base="").json["models"]}

    assert "beside" in offered
    assert "safe" not in offered
    assert (states["safe"]["runtime"], states["safe"]["format"]) == (None, "safetensors")
    assert "safetensors" in states["safe"]["reason"]
    assert states["beside"]["runtime"] == "llamacpp"
    refused = client.ask("POST", "/api/v1/runtime/models/load?model_name=safe", base="")
    assert (refused.status, refused.json["error"]["code"]) == (501, "runtime_missing")
    removed = client.ask("DELETE", "/registry/safe").json
    assert client.ended(removed["operation_id"])["status"] == "completed"


def test_what_is_pinned_is_refused_at_once(client: Client) -> None:
    install(client, "held", gguf(1100))
    assert client.ask("POST", "/held/pin", {}).status == 200
    for method, path in (("DELETE", "/registry/held"), ("POST", "/held/update")):
        refused = client.ask(method, path)
        assert (refused.status, refused.json["error"]["code"]) == (409, "model_pinned")
    removed = client.ask("DELETE", "/registry/held?force=true").json
    assert client.ended(removed["operation_id"])["status"] == "completed"


def test_nothing_cannot_be_installed(client: Client) -> None:
    refused = client.ask("POST", "/registry/install", {"name": "", "source": ""})
    assert 400 <= refused.status < 500
