"""`manifest.json`: the document's form, field for field, always as it is now."""

import json
from datetime import datetime

import pytest

from corral.catalog import published
from corral.domain.models import Capability, FileEntry, Installed, Revision
from corral.errors import StoreError
from support.stores import EYES, VERSIONS, Store, digest

FIELDS = ["name", "provider", "display_name", "size_gb", "status", "capabilities", "local_path", "sha256",
          "installed_at", "runtime"]  # fmt: skip
ABLE = ["supports_system_role", "supports_function_calling", "allowed_roles", "prompt_template", "max_context_length",
        "quantization"]  # fmt: skip


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def read(store):
    return json.loads((store._blobs.root / "manifest.json").read_bytes())


async def test_the_document_has_its_fields(store):
    await store.through("m", 0)
    content = read(store)
    assert list(content) == ["models", "updated_at"]
    (row,) = content["models"]
    assert list(row) == FIELDS
    assert list(row["capabilities"]) == ABLE
    assert (row["name"], row["provider"], row["display_name"], row["status"]) == ("m", "memory", "Tiny", "installed")
    assert (row["sha256"], row["runtime"], row["size_gb"]) == (digest(0), "llamacpp", 0.0)
    assert row["local_path"] == str(store.path(store.get("m").revision.files[0]))
    assert row["capabilities"]["supports_system_role"] is True
    assert {"system", "user", "assistant"} <= set(row["capabilities"]["allowed_roles"])
    assert row["capabilities"]["max_context_length"] == 128
    assert datetime.fromisoformat(row["installed_at"]).timestamp() == int(store.get("m").installed_at)
    assert datetime.fromisoformat(content["updated_at"])


async def test_it_follows_every_change(store):
    def names():
        return [row["name"] for row in read(store)["models"]]

    await store.through("m", 0, 1)
    await store.through("a", 2)
    assert names() == ["a", "m"]
    await store.rollback("m")
    assert read(store)["models"][1]["sha256"] == digest(0)
    await store.set_override("m", {"runtime": "vllm", "context_length": 7, "capabilities": {"supports_tools": True}})
    row = read(store)["models"][1]
    assert (row["runtime"], row["capabilities"]["max_context_length"]) == ("vllm", 7)
    assert row["capabilities"]["supports_function_calling"] is True
    await store.set_override("m", None)
    assert read(store)["models"][1]["runtime"] == "llamacpp"
    await Store(store._blobs.root).remove("a")
    assert names() == ["m"]
    await store.remove("m")
    assert read(store)["models"] == []


async def test_it_is_never_read_back(store):
    await store.through("m", 0)
    (store._blobs.root / "manifest.json").write_text('{"models": [{"name": "evil"}]}')
    assert Store(store._blobs.root).names() == ["m"]
    await store.gc()
    assert [row["name"] for row in read(store)["models"]] == ["m"]


async def test_a_model_of_several_files_has_one_digest(store):
    store.offer("pair", 0, {"one.gguf": VERSIONS[0], "mmproj.gguf": EYES})
    await store.install("memory:pair")
    assert read(store)["models"][0]["sha256"] == digest(0)


@pytest.mark.parametrize(
    ("source", "provider"),
    [
        ("hf:a/b", "huggingface"), ("ollama:llama3:latest", "ollama"), ("pypi:x==1", "pypi"), ("file:/x", "file"),
        ("https://example.org/x.gguf", "url"), ("s3://bucket/x", "bucket"), ("az://bucket/x", "bucket"),
    ],
)  # fmt: skip
def test_sources_have_the_documents_names(source, provider):
    assert published.provider(source) == provider


@pytest.mark.parametrize(
    ("facts", "title"),
    [({"title": " Big "}, "Big"), ({"name": "Tiny"}, "Tiny"), ({}, "Llama 3 Latest"), ({"name": 5}, "Llama 3 Latest")],
)
def test_a_model_has_a_name_for_people(facts, title):
    revision = Revision("hf:a", "gguf", (), facts=facts)
    assert published.title(Installed("org/llama-3:latest", revision, 1.0)) == title


def test_what_is_unknown_is_null_and_what_the_files_say_counts():
    files = (FileEntry("a", 10**9, "0" * 64), FileEntry("b", 5 * 10**8, "1" * 64))
    revision = Revision("hf:a", "strange", files, facts={"allowed_roles": ["user"]}, defaults={"chat_template": "T"})
    row = json.loads(published.row(Installed("m", revision, 1e300), None, None))
    assert (row["sha256"], row["local_path"], row["runtime"], row["size_gb"]) == (None, None, None, 1.5)
    assert row["capabilities"]["allowed_roles"] == ["user"]
    assert row["capabilities"]["prompt_template"] == "T"
    assert row["installed_at"] == "1970-01-01T00:00:00+00:00"
    plain = published.capabilities(Revision("hf:a", "gguf", (), capabilities=frozenset({Capability.CHAT})))
    assert plain == dict(zip(ABLE, [False, False, ["user", "assistant"], None, None, None], strict=True))


def test_a_template_that_is_gone_is_null():
    from corral.catalog.manifests import Facts

    def gone():
        raise StoreError("gone")

    revision = Revision("hf:a", "gguf", (), facts=Facts({}, frozenset({"chat_template"}), gone))
    assert published.capabilities(revision)["prompt_template"] is None


async def test_a_place_that_cannot_be_written_fails_no_install(store):
    (store._blobs.root / "manifest.json").mkdir(parents=True)
    await store.through("m", 0)
    assert store.names() == ["m"]
