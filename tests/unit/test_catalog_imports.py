"""What would be taken over of an Ollama and of a `config/models.json`."""

import json

import pytest

from corral.catalog.imports import ImportPlan, plan_models_json, plan_ollama
from corral.config import load
from corral.domain.models import ModelRef, check_name
from corral.domain.options import parse_options
from corral.errors import ConfigError, SourceError
from corral.runtimes.llamacpp import LlamaCppOptions
from corral.runtimes.openai import OpenAIOptions
from support import models, oci


@pytest.fixture
def ollama(tmp_path):
    """A folder with two models that can be taken, and some that cannot."""
    folder = tmp_path / "ollama"
    data = models.gguf()
    oci.image(data, template="{{ .Prompt }}").store(folder, "library/tiny", "1b")
    oci.image(data).store(folder, "me/tiny", "latest", "hf.co")
    oci.image(data, adapter=b"x").store(folder, "library/styled", "latest")
    oci.image(config={"remote_host": "x"}).store(folder, "library/cloudy", "latest")
    oci.image(models.gguf(seed=2)).store(folder, "library/half", "latest")
    (folder / "blobs" / f"sha256-{models.sha256(models.gguf(seed=2))}").rename(folder / "blobs" / "sha256-x-partial")
    (folder / "manifests" / "registry.ollama.ai" / "library" / "broken").mkdir()
    (folder / "manifests" / "registry.ollama.ai" / "library" / "broken" / "latest").write_text("<html>")
    return folder


def test_the_models_of_an_ollama(ollama):
    plan = plan_ollama(ollama)
    assert plan.installs == (
        (f"ollama:{ollama}#hf.co/me/tiny", "hf.co/me/tiny"),
        (f"ollama:{ollama}#tiny:1b", "tiny:1b"),
    )
    assert [what for what, _ in plan.skipped] == ["broken", "cloudy", "half", "styled"]
    assert [why.split(":")[0] for _, why in plan.skipped][1:] == [
        "It has no GGUF file",
        "1 of its 1 files are not there whole",
        "It is a model with an adapter on top, which is not supported.",
    ]
    assert "web page" in plan.skipped[0][1]
    assert not plan.models
    for ref, name in plan.installs:
        assert ModelRef.parse(ref).scheme == "ollama"
        assert check_name(name)


def test_a_folder_that_is_no_ollama(tmp_path):
    with pytest.raises(SourceError) as caught:
        plan_ollama(tmp_path)
    assert "OLLAMA_MODELS" in caught.value.hint


def planned(tmp_path, *entries, **more):
    path = tmp_path / "config" / "models.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"models": list(entries), **more}))
    return plan_models_json(path)


def test_the_entry_of_the_first_document(tmp_path):
    entry = {"name": "nuevo-modelo", "model_type": "gemini", "local": False, "api_key_env": "NUEVO_API_KEY"}
    plan = planned(tmp_path, entry | {"context_length": 16384})
    assert plan == ImportPlan(
        models={
            "nuevo-modelo": {
                "runtime": "openai",
                "options": {
                    "base_url": "https://generativelanguage.googleapis.com/v1beta/openai",
                    "api_key_env": "NUEVO_API_KEY",
                    "upstream_model": "nuevo-modelo",
                    "context": 16384,
                },
            }
        }
    )


def test_what_is_planned_is_a_configuration(tmp_path):
    plan = planned(
        tmp_path,
        {"name": "gpt-5", "model_type": "OpenAI", "local": False},
        {"name": "mine", "model_type": "x", "local": False, "base_url": "https://x.example/v1"},
        {"name": "smollm2", "model_type": "llama", "local": True, "context_length": 2048},
        {"name": "file", "path": "a.gguf"},
        {"name": "other", "local": True, "source": "hf:a/b"},
    )
    assert plan.skipped == ()
    assert plan.models["gpt-5"]["options"]["api_key_env"] == "OPENAI_API_KEY"
    assert "api_key_env" not in plan.models["mine"]["options"]
    assert plan.models["smollm2"] == {"source": "smollm2", "runtime": "llamacpp", "options": {"context": 2048}}
    assert plan.models["file"] == {"source": f"file:{tmp_path}/config/a.gguf", "runtime": "llamacpp"}
    assert plan.models["other"]["source"] == "hf:a/b"
    file = tmp_path / "corral.yaml"
    file.write_text(json.dumps({"models": plan.models}))
    assert set(load({"HOME": str(tmp_path)}, file=file).models) == set(plan.models)
    for entry in plan.models.values():
        kind = LlamaCppOptions if entry["runtime"] == "llamacpp" else OpenAIOptions
        assert parse_options(kind, entry.get("options", {}), "x")


@pytest.mark.parametrize(
    ("entry", "what", "why"),
    [
        ("x", "entry 1", "no name"),
        ({}, "entry 1", "no name"),
        ({"name": 7}, "entry 1", "no name"),
        ({"name": "a b", "source": "hf:x"}, "a b", "cannot name a model"),
        ({"name": "../x", "source": "hf:x"}, "../x", "cannot name a model"),
        ({"name": "a", "local": "yes"}, "a", "true or false"),
        ({"name": "a", "local": True}, "a", "names no file"),
        ({"name": "a", "source": "hf:x", "context_length": 0}, "a", "context_length"),
        ({"name": "a", "source": "hf:x", "context_length": True}, "a", "context_length"),
        ({"name": "a", "local": False, "model_type": "nobody"}, "a", "'nobody'"),
        ({"name": "a", "local": False}, "a", "No address"),
        (
            {"name": "a", "local": False, "model_type": "openai", "api_key_env": "sk-Secret"},
            "a",
            "environment variable",
        ),
    ],
)
def test_what_cannot_be_taken_over_is_said(tmp_path, entry, what, why):
    plan = planned(tmp_path, entry)
    assert not plan.models
    assert plan.skipped[0][0] == what
    assert why in plan.skipped[0][1]
    assert "Secret" not in str(plan)


def test_fields_that_nothing_is_done_with_and_names_that_come_twice(tmp_path):
    plan = planned(tmp_path, {"name": "a", "source": "hf:x", "mood": 1}, {"name": "a", "source": "hf:y"})
    assert plan.models == {"a": {"source": "hf:x", "runtime": "llamacpp"}}
    assert plan.skipped == (("a", "Not taken over: mood."), ("a", "Its name is there twice."))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"models": {}}', "[" * 100_000, " " * (2 << 20)])
def test_a_file_that_is_none(tmp_path, text):
    path = tmp_path / "models.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        plan_models_json(path)
    assert str(path) in caught.value.message


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        plan_models_json(tmp_path / "none.json")
