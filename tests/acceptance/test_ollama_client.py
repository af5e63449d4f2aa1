"""Ollama's own client against a server, sync and async: models listed, shown, pulled, made, copied, removed, asked."""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime

import httpx
import ollama
import pytest

from tests.support import models, oci
from tests.support.servers import corral_server

CONFIG = """
models:
  smollm2: {runtime: llamacpp, options: {context: 512, slots: 1, gpu_layers: 0, embeddings: true}}
  played: {runtime: fake, options: {reply: "Hello there"}}
  elsewhere: {runtime: openai, options: {base_url: "http://127.0.0.1:9/v1", api_key_env: null}}
routes:
  auto: {models: [played]}
"""
TINY = oci.image(
    models.gguf(50_000, seed=3), params={"stop": ["<end>"], "temperature": 0.5}, license="MIT", system="Be brief."
)
PETER = [{"role": "user", "content": "Say hello."}]


@pytest.fixture(scope="module")
def registry():
    there = oci.Background(TINY.files("library/tiny", "1b"))
    yield there
    there.close()


@pytest.fixture
def server(tmp_path, model_store):
    with corral_server(tmp_path, CONFIG) as server:
        yield server


@pytest.fixture(scope="module")
def shared(tmp_path_factory, model_store):
    with corral_server(tmp_path_factory.mktemp("ollama"), CONFIG, models_dir=model_store) as server:
        yield server


@pytest.fixture(scope="module")
def client(shared):
    with ollama.Client(shared.url) as client:
        yield client


@pytest.fixture
async def asked(server):
    async with ollama.AsyncClient(server.url) as client:
        yield client


@pytest.fixture(scope="module")
def http(shared):
    with httpx.Client(base_url=shared.url, timeout=60) as http:
        yield http


def left(model, http):
    """Seconds until the model leaves, by the server's clock."""
    now = parsedate_to_datetime(http.get("/api/version").headers["date"])
    return model.expires_at.timestamp() - now.timestamp()


def lines(answer):
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def test_the_heartbeat_of_its_command_and_the_version(http):
    assert http.head("/").status_code == 200
    version = http.get("/api/version").json()["version"]
    assert tuple(int(part) for part in version.split(".")) > (0, 6, 4)


def test_models_are_listed_with_a_tag(client):
    found = {model.model: model for model in client.list().models}

    assert {"smollm2:latest", "played:latest", "elsewhere:latest", "auto:latest"} <= found.keys()
    assert found["smollm2:latest"].size > 90_000_000
    assert found["smollm2:latest"].details.parameter_size == "134.5M"
    assert found["smollm2:latest"].details.quantization_level == "Q4_1"
    assert all(len(model.digest) == 64 for model in found.values())


def test_the_tag_latest_goes_without_saying(client, http):
    for name in ("smollm2", "smollm2:latest", "auto:latest", "played:latest"):
        said = client.chat(name, PETER, options={"num_predict": 4})
        assert said.message.content, name
    with pytest.raises(ollama.ResponseError) as caught:
        client.chat("smollm2:other", PETER)
    assert caught.value.status_code == 404
    body = {"model": "smollm2:latest", "messages": PETER, "max_tokens": 2}
    assert http.post("/v1/chat/completions", json=body).status_code == 200


def test_a_model_is_shown(client):
    shown = client.show("smollm2")

    assert {"completion", "tools"} <= set(shown.capabilities)
    assert shown.modelinfo["general.architecture"] == "llama"
    assert shown.modelinfo["llama.context_length"] == 8192
    assert "num_ctx" in shown.parameters
    assert shown.modelfile.startswith("FROM smollm2:latest\n")
    assert "{%" in shown.template
    assert client.show("elsewhere").capabilities == ["completion"]
    with pytest.raises(ollama.ResponseError, match="does not exist"):
        client.show("nothing-of-the-kind")


def test_nothing_asked_loads_and_zero_unloads(client, http):
    client.generate("played", keep_alive=0)
    assert "played:latest" not in {model.model for model in client.ps().models}

    loaded = client.generate("played", keep_alive="1h30m")
    (there,) = [model for model in client.ps().models if model.model == "played:latest"]
    assert (loaded.done, loaded.done_reason, loaded.response) == (True, "load", "")
    assert there.context_length == 4096
    assert 5300 < left(there, http) < 5410

    gone = http.post("/api/chat", json={"model": "played", "messages": [], "keep_alive": "0s"}).json()
    assert (gone["done_reason"], gone["message"]["content"]) == ("unload", "")
    assert "played:latest" not in {model.model for model in client.ps().models}


@pytest.mark.parametrize(
    ("said", "least", "most"), [("5m", 290, 310), (7200, 7190, 7210), (-1, 1e9, 1e10), ("-1", 1e9, 1e10)]
)
def test_keep_alive_in_all_shapes(client, http, said, least, most):
    answer = http.post("/api/chat", json={"model": "played", "messages": PETER, "keep_alive": said, "stream": False})
    assert answer.status_code == 200, answer.text
    (there,) = [model for model in client.ps().models if model.model == "played:latest"]
    assert least <= left(there, http) <= most


def test_chat_generate_and_embed(client):
    assert client.generate("played", "hi").response == "Hello there"
    assert "".join(part.response for part in client.generate("played", "hi", stream=True)) == "Hello there"
    assert "".join(part.message.content for part in client.chat("played", PETER, stream=True)) == "Hello there"
    assert len(client.embed("smollm2", ["a", "b"]).embeddings) == 2
    assert len(client.embeddings("smollm2", "a").embedding) == 576


def test_what_is_made_of_a_model_talks_as_it_was_told(server, model_store, tmp_path_factory):
    home = tmp_path_factory.mktemp("made")
    with corral_server(home, CONFIG, models_dir=model_store) as first, ollama.Client(first.url) as client:
        told = [
            part.status
            for part in client.create(
                "mario",
                from_="smollm2",
                system="You are Mario.",
                parameters={"num_ctx": 256, "temperature": 0, "stop": ["!"]},
                messages=[{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Mario"}],
                stream=True,
            )
        ]
        assert told[-1] == "success"
        shown = client.show("mario:latest")
        assert 'SYSTEM """You are Mario."""' in shown.modelfile
        assert "MESSAGE assistant Mario" in shown.modelfile
        assert "temperature" in shown.parameters
        assert shown.details.parent_model == "smollm2:latest"
        client.copy("mario", "luigi")
        assert client.chat("luigi", PETER, options={"num_predict": 4}).message.content
        (there,) = client.ps().models
        assert (there.model, there.context_length) == ("luigi:latest", 256)
        again = client.create("mario", from_="mario", system="You are Mario still.")
        assert again.status == "success"
        with httpx.Client(base_url=first.url) as http:
            noted = [entry["action"] for entry in http.get("/api/v1/audit").json()["entries"]]
        assert {"POST /api/create", "POST /api/copy"} <= set(noted)
        assert "POST /api/show" not in noted
    # They are kept.
    with corral_server(home, CONFIG, models_dir=model_store) as second, ollama.Client(second.url) as client:
        assert "You are Mario still." in client.show("mario").modelfile
        assert "temperature" in client.show("mario").parameters
        for name in ("mario", "luigi:latest"):
            assert client.delete(name).status == "success"
        assert not {"mario:latest", "luigi:latest"} & {model.model for model in client.list().models}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"model": "new", "from_": "smollm2", "quantize": "q4_K_M"}, "quantise"),
        ({"model": "new", "from_": "smollm2", "parameters": {"num_gpu": 3}}, "num_gpu"),
        ({"model": "new", "from_": "smollm2", "adapters": {"a.gguf": "sha256:00"}}, "lora"),
        ({"model": "new", "files": {"a.gguf": "sha256:00"}}, "corral pull file:"),
        ({"model": "new", "from_": "nothing-here"}, "does not exist"),
        ({"model": "new", "from_": "elsewhere"}, "entry of the configuration"),
        ({"model": "smollm2", "from_": "smollm2"}, "stands in the configuration"),
        ({"model": "new", "from_": "smollm2", "template": "{{ range $i := .Nothing }}"}, "template"),
        ({"model": "../up", "from_": "smollm2"}, "cannot name a model"),
    ],
)
def test_what_cannot_be_made_is_refused_in_words(client, asked, said):
    with pytest.raises(ollama.ResponseError, match=said) as caught:
        client.create(**asked)
    assert 400 <= caught.value.status_code < 500
    assert "new:latest" not in {model.model for model in client.list().models}


def test_a_go_template_is_taken(client, shared):
    client.create("gone", from_="smollm2", template="{{ if .System }}S: {{ .System }} {{ end }}U: {{ .Prompt }} A: ")
    try:
        assert client.generate("gone", "hi", options={"num_predict": 3}).response is not None
    finally:
        client.delete("gone")


def test_files_and_pushes_are_refused(client, http, tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(ollama.ResponseError, match="corral pull file:"):
        client.create_blob(tmp_path / "a.gguf")
    assert http.head("/api/blobs/sha256:00").status_code == 404
    with pytest.raises(ollama.ResponseError, match="corral push"):
        client.push("smollm2")
    with pytest.raises(ollama.ResponseError, match="insecure"):
        client.pull("smollm2", insecure=True)


async def test_from_a_registry_and_back(asked, registry):
    client = asked
    name = f"{registry.host}/library/tiny:1b"

    told = [part async for part in await client.pull(name, stream=True)]
    assert [told[0].status, told[-2].status, told[-1].status] == ["pulling manifest", "writing manifest", "success"]
    bars = [part for part in told if part.digest]
    assert bars
    assert len({part.digest for part in bars}) == 1
    assert all(part.completed <= part.total for part in bars)
    assert (await client.pull(name)).status == "success"  # it is there, and is looked after

    (there,) = [model for model in (await client.list()).models if model.model == name]
    assert there.size > 200_000
    shown = await client.show(name)
    assert "Be brief." in shown.modelfile
    assert "MIT" in shown.license
    assert (await client.copy(name, "small")).status == "success"
    with pytest.raises(ollama.ResponseError, match="small"):
        await client.delete(name)  # another is made of it
    await client.delete("small")
    assert (await client.delete(name)).status == "success"
    assert name not in {model.model for model in (await client.list()).models}
    with pytest.raises(ollama.ResponseError) as caught:
        await client.delete(name)
    assert caught.value.status_code == 404


async def test_a_pull_that_fails_says_why(asked, registry):
    client = asked
    name = f"{registry.host}/library/nothing:1b"

    with pytest.raises(ollama.ResponseError, match="nothing") as caught:
        await client.pull(name)
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="nothing"):
        async for _ in await client.pull(name, stream=True):
            pass


def test_the_lines_of_a_pull(server, model_store):
    with httpx.Client(base_url=server.url, timeout=100) as http:
        told = lines(http.post("/api/pull", json={"model": "smollm2:latest"}))
        assert told[0] == {"status": "pulling manifest"}
        assert told[-1] == {"status": "success"}
        whole = http.post("/api/pull", json={"name": "smollm2", "stream": False})
        assert (whole.status_code, whole.json()) == (200, {"status": "success"})


def test_what_a_key_may(tmp_path, model_store):
    with corral_server(tmp_path, CONFIG, models_dir=model_store) as server, httpx.Client(base_url=server.url) as http:
        token = json.loads((server.home / "server.json").read_text().strip())["token"]
        head = {"authorization": f"Bearer {token}"}
        made = http.post(
            "/api/v1/keys", json={"name": "k", "scope": "infer", "models": ["played"]}, headers=head
        ).json()
        head = {"authorization": f"Bearer {made['secret']}"}
        names = [model["name"] for model in http.get("/api/tags", headers=head).json()["models"]]
        assert names == ["played:latest"]
        assert http.post("/api/show", json={"model": "smollm2"}, headers=head).status_code == 404
        assert (
            http.post("/api/chat", json={"model": "played:latest", "messages": PETER}, headers=head).status_code == 200
        )
        refused = http.post("/api/pull", json={"model": "smollm2"}, headers=head)
        assert (refused.status_code, list(refused.json())) == (403, ["error"])
        assert http.get("/api/tags").status_code == 401
