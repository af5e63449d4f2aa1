"""Searching and listing providers over HTTP, with a Hugging Face hub on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.api import Client
from support.hub import Hub
from support.models import gguf
from support.servers import corral_server


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    hub = Hub().start()
    told = {
        "downloads": 100,
        "likes": 7,
        "tags": ["gguf", "license:mit"],
        "gguf": {"total": 2000, "context_length": 128},
    }
    hub.repo("google/gemma-2b-it", {"gemma.gguf": gguf(2000)}, told=told)
    hub.repo("someone/tiny-GGUF", {"tiny-Q8_0.gguf": gguf(3000)}, told={**told, "downloads": 50})
    hub.repo("someone/vast", {"model.safetensors": b"x" * 100}, told={"downloads": 1, "tags": ["safetensors"]})
    env = {**hub.env, "HOME": str(tmp_path_factory.mktemp("user"))}
    try:
        with corral_server(tmp_path_factory.mktemp("home"), env=env) as server:
            yield Client(server)
    finally:
        hub.stop()


def test_a_provider_lists_what_it_has(client: Client) -> None:
    answer = client.ask("GET", "/providers?provider=huggingface").json

    assert answer["problems"] == []
    rows = {row["name"]: row for row in answer["models"]}
    gemma = rows["google/gemma-2b-it"]
    assert (gemma["provider"], gemma["status"], gemma["runtime"]) == ("huggingface", "available", "llamacpp")
    assert {"display_name", "size_gb", "capabilities", "ref"} <= set(gemma)
    assert {"supports_system_role", "allowed_roles"} <= set(gemma["capabilities"])
    assert rows["someone/vast"]["runtime"] is None
    assert client.ask("GET", "/providers?provider=hf&limit=1").json["count"] == 1


def test_a_hit_is_installed_by_its_name_and_known_from_then_on(client: Client) -> None:
    before = client.ask("GET", "/search?q=tiny").json["models"]
    (hit,) = [row for row in before if row["name"] == "someone/tiny-GGUF"]
    assert (hit["installed"], hit["downloads"]) == (None, 50)
    assert {"verdict", "reason", "needed", "estimate", "devices"} <= set(hit["fit"])
    body = {"name": "someone/tiny-GGUF:Q8_0", "provider": "huggingface", "runtime": "vllm"}

    ended = client.ended(client.ask("POST", "/registry/install", body).json["operation_id"])

    assert ended["error"] is None
    assert ended["result"]["name"] == "someone/tiny-GGUF:Q8_0"
    model = client.ask("GET", "/someone%2Ftiny-GGUF:Q8_0").json["model"]
    assert (model["provider"], model["runtime"]) == ("huggingface", "llamacpp")
    after = client.ask("GET", "/search?q=tiny").json["models"]
    assert after[0]["installed"] == "someone/tiny-GGUF:Q8_0"
    assert {row["installed"] for row in after} == {"someone/tiny-GGUF:Q8_0"}
    named = client.ask("GET", "/providers?provider=huggingface").json["models"]
    assert [row["status"] for row in named].count("installed") == 1


def test_a_search_has_a_limit_and_finds_nothing_politely(client: Client) -> None:
    assert client.ask("GET", "/search?q=someone&limit=1").json["count"] == 1
    assert client.ask("GET", "/search?q=nothing-of-that-kind&source=huggingface").json["models"] == []
    assert client.ask("GET", "/search?q=a%00b").status == 400
