"""References, manifests and small layers of Ollama's models, and models in an Ollama's folder: no network."""

import json
import os

import pytest

from corral.config import load
from corral.domain.models import ModelRef
from corral.domain.options import parse_options
from corral.domain.ports import Query, silent
from corral.errors import DigestMismatch, NotSupported, SourceError, SourceNotFound
from corral.kit.clock import SystemClock
from corral.kit.oci import MOST_LAYERS, MOST_MANIFEST, read_manifest
from corral.kit.ollama_store import Name, OllamaStore
from corral.kit.part import Part
from corral.runtimes.llamacpp import LlamaCppOptions
from corral.sources._ollama import layers
from corral.sources.ollama import Ollama
from support import models, oci

HEX = "0" * 64
TEMPLATE = "<{{ .Prompt }}>{{ .Response }}."


def source(home, **env):
    told = {**models.only("file:///nowhere"), "HOME": str(home), **env}
    return Ollama(SystemClock(), told, load(told))


@pytest.mark.parametrize(
    ("text", "host", "repository", "tag", "written"),
    [
        ("llama3.2:1b", "registry.ollama.ai", "library/llama3.2", "1b", "llama3.2:1b"),
        ("llama3.2", "registry.ollama.ai", "library/llama3.2", "latest", "llama3.2"),
        ("me/model:tag", "registry.ollama.ai", "me/model", "tag", "me/model:tag"),
        ("localhost:5000/m", "localhost:5000", "library/m", "latest", "localhost:5000/library/m"),
        ("localhost/m:1", "localhost", "library/m", "1", "localhost/library/m:1"),
        ("box:5000/a/m:1", "box:5000", "a/m", "1", "box:5000/a/m:1"),
        ("[::1]:5000/a/m:1", "[::1]:5000", "a/m", "1", "[::1]:5000/a/m:1"),
        ("hf.co/You/Model-GGUF:Q4_K_M", "hf.co", "You/Model-GGUF", "Q4_K_M", "hf.co/You/Model-GGUF:Q4_K_M"),
        ("a.example/b/c/d:e", "a.example", "b/c/d", "e", "a.example/b/c/d:e"),
        (f"m@sha256:{HEX}", "registry.ollama.ai", "library/m", "latest", f"m@sha256:{HEX}"),
    ],
)
def test_names(text, host, repository, tag, written):
    name = Name.parse(text)
    assert (name.host, name.repository, name.tag, str(name)) == (host, repository, tag, written)
    assert Name.parse(str(name)) == name


@pytest.mark.parametrize(
    "text",
    [
        *("", "a b", "../x", "a/../b", "a:b:c", "a//b", "/a", "a/", "a:", "x\n", "x\0", "a@sha256:00", "ä", ".x"),
        *("x" * 500, "host:99999999/a/b", "a:../../etc/passwd", "a@sha1:" + HEX, "https://x"),
    ],
)
def test_what_is_no_name(text):
    assert Name.parse(text) is None


@pytest.mark.parametrize(
    "locator", ["no such name", "/folder", "/folder#", "/fol\0der#m", "http://llama3.2", "ftp://host/a/b", "x" * 9000]
)
async def test_a_reference_that_names_nothing_is_refused(locator, tmp_path):
    with pytest.raises(SourceNotFound) as caught:
        await source(tmp_path).resolve(ModelRef("ollama", locator))
    assert "HOST/NAMESPACE/NAME:TAG" in caught.value.hint
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    "locator",
    [
        "https://me:hunter@h.test/a b",
        "HTTPS://me:hunter@h.test/a?t=hunter",
        "me:hunter@h.test/a/m:1",
        "http://u:hunter@x",
    ],
)
async def test_no_login_in_a_message(locator, tmp_path):
    with pytest.raises(SourceNotFound) as caught:
        await source(tmp_path).resolve(ModelRef("ollama", locator))
    assert "hunter" not in str(caught.value)


LAYER = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{HEX}", "size": 5}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"<html>Sign in</html>", "a web page"),
        (b"", "it begins with b''"),
        (b"[]", "is no manifest"),
        (b"[" * 100_000, "is no manifest"),
        (b'"' + b"x" * MOST_MANIFEST + b'"', "over 4 MiB"),
        ({}, "without layers"),
        ({"layers": {}}, "without layers"),
        ({"manifests": []}, "list of container images"),
        ({"layers": [LAYER] * (MOST_LAYERS + 1)}, f"{MOST_LAYERS + 1} layers"),
        ({"layers": ["x"]}, "by nothing"),
        ({"layers": [LAYER | {"digest": "sha256:../../../etc/passwd"}]}, "etc/passwd"),
        ({"layers": [LAYER | {"digest": f"sha256:{'A' * 64}"}]}, "no SHA-256"),
        ({"layers": [LAYER | {"digest": f"sha512:{HEX}"}]}, "no SHA-256"),
        ({"layers": [LAYER | {"digest": 7}]}, "no SHA-256"),
        ({"layers": [LAYER | {"size": -1}]}, "-1 bytes"),
        ({"layers": [LAYER | {"size": 1 << 60}]}, "bytes"),
        ({"layers": [LAYER | {"size": True}]}, "True bytes"),
        ({"layers": [LAYER | {"size": 1.5}]}, "1.5 bytes"),
        ({"layers": [LAYER | {"mediaType": "a\nb"}]}, "kind"),
        ({"layers": [LAYER | {"mediaType": None}]}, "kind nothing"),
        ({"layers": [], "config": {"digest": "x"}}, "no SHA-256"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(data, why):
    with pytest.raises(SourceError) as caught:
        read_manifest(data if isinstance(data, bytes) else json.dumps(data).encode(), "The manifest")
    assert why in caught.value.message
    assert caught.value.hint
    assert len(caught.value.message) < 300


def test_parameters_are_options_of_llamacpp():
    said = {
        "num_ctx": 2048,
        "num_predict": -1,
        "num_keep": 4,
        "stop": ["a", "b"],
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 3,
        "min_p": 0.1,
        "typical_p": 0.9,
        "repeat_penalty": 1.1,
        "repeat_last_n": -1,
        "presence_penalty": -0.5,
        "frequency_penalty": 1,
        "mirostat": 2,
        "mirostat_tau": 4.0,
        "mirostat_eta": 0.2,
        "seed": 42,
    }
    found = layers.parameters(json.dumps(said).encode(), "x")
    options = parse_options(LlamaCppOptions, found.options, "llamacpp")
    assert (options.context, options.max_tokens, options.keep, options.stop) == (2048, -1, 4, ("a", "b"))
    assert (options.temperature, options.mirostat, options.seed, options.presence_penalty) == (0.0, 2, 42, -0.5)
    assert len(found.options) == len(said)
    assert not found.ignored
    assert layers.parameters(b'{"stop": "x"}', "x").options == {"stop": ["x"]}


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("num_gpu", 99, "99: it is about the machine"),
        ("tfs_z", 1.0, "nothing here does that"),
        ("temperature", -1, "no such value"),
        ("temperature", "hot", "'hot': no such value"),
        ("temperature", 1e300, "no such value"),
        ("top_k", True, "no such value"),
        ("top_p", True, "no such value"),
        ("num_ctx", 0, "no such value"),
        ("seed", -1, "no such value"),
        ("mirostat", 3, "no such value"),
        ("stop", [""], "no such value"),
        ("stop", [1], "no such value"),
        ("stop", ["x"] * 65, "no such value"),
    ],
)
def test_a_parameter_that_cannot_be_honoured_is_said(name, value, why):
    found = layers.parameters(json.dumps({name: value}).encode(), "x")
    assert not found.options
    assert why in found.ignored[name]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("\n\n      Apache License\n  Version 2.0, January 2004\n", "Apache-2.0"),
        ("MIT License\n\nCopyright", "MIT"),
        ("MIT", "MIT"),
        ("apache-2.0", "Apache-2.0"),
        ("LLAMA 3.2 COMMUNITY LICENSE AGREEMENT\nLlama 3.2 Version Release Date: x", "llama3.2"),
        ("META LLAMA 3 COMMUNITY LICENSE AGREEMENT\n", "llama3"),
        ("Gemma Terms of Use \n\nLast modified", "gemma"),
        ("BSD 3-Clause License", "BSD-3-Clause"),
        ("Tongyi Qianwen LICENSE AGREEMENT\n\nmore", "Tongyi Qianwen LICENSE AGREEMENT"),
        ("x" * 200, "x" * 80),
        (" \n ", None),
    ],
)
def test_licences(text, name):
    assert layers.licence([text]) == name


def test_of_several_licences_the_first_counts_and_all_are_kept():
    assert layers.licence(["", "MIT", "Apache License"]) == "MIT"
    assert layers.licence_text([" a ", "b"]) == "a\n\nb"
    assert layers.licence_text(["x" * 50_000]).endswith("x\n…")


async def listed(folder, made, ref="tiny:1b", **env):
    made.store(folder, "library/tiny", "1b")
    return await source(folder, **env).resolve(ModelRef("ollama", f"{folder}#{ref}"))


async def test_a_model_of_this_machine_s_ollama(tmp_path):
    data, eyes = models.gguf(seed=1), models.gguf(seed=2)
    made = oci.image(
        data,
        projector=eyes,
        template=TEMPLATE,
        params={"stop": ["."], "num_gpu": 1},
        system="Be kind.",
        license="MIT License\n…",
        messages=[{"role": "user", "content": "Hi"}],
        embed=b"x",
    )
    listing = await listed(tmp_path, made)
    assert str(listing.ref) == "ollama:tiny:1b"
    assert listing.version == made.digest
    assert [(file.name, file.size, file.sha256) for file in listing.files] == [
        ("tiny.gguf", len(data), models.sha256(data)),
        ("tiny-mmproj.gguf", len(eyes), models.sha256(eyes)),
    ]
    assert (listing.licence, listing.homepage) == ("MIT", "https://ollama.com/library/tiny")
    assert listing.defaults["stop"] == ["."]
    assert listing.defaults["system"] == listing.facts["system"] == "Be kind."
    assert "turn" in listing.defaults["chat_template"]
    assert listing.facts["ignored_layers"] == ["embed"]
    assert listing.defaults["opening"] == [{"role": "user", "content": "Hi"}]
    assert list(listing.facts["ignored_params"]) == ["num_gpu"]
    assert listing.facts["licence_text"] == "MIT License\n…"
    assert listing.facts["read_from"] == str(tmp_path)
    parse_options(LlamaCppOptions, listing.defaults, "llamacpp")
    json.dumps([dict(listing.defaults), dict(listing.facts)])

    part = await Part.open(tmp_path / "a.part", SystemClock())
    try:
        await source(tmp_path).fetch(listing.files[0], part, silent)
        assert part.path.read_bytes() == data
    finally:
        part.close()


async def test_what_an_update_asks_is_the_name_as_it_was_written(tmp_path):
    made = oci.image(models.gguf())
    made.store(tmp_path, "a/tiny", "1b", "hf.co")
    listing = await source(tmp_path).resolve(ModelRef("ollama", f"{tmp_path}#hf.co/a/tiny:1b"))
    assert (str(listing.ref), listing.homepage) == ("ollama:hf.co/a/tiny:1b", "https://huggingface.co/a/tiny")
    made.store(tmp_path, "a/tiny", "1b", "box.example")
    listing = await source(tmp_path).resolve(ModelRef("ollama", f"{tmp_path}#box.example/a/tiny:1b"))
    assert listing.homepage is None


async def test_a_version_may_be_named(tmp_path):
    made = oci.image(models.gguf())
    assert (await listed(tmp_path, made, f"tiny:1b@{made.digest}")).version == made.digest
    with pytest.raises(SourceNotFound, match="another version"):
        await listed(tmp_path, made, f"tiny:1b@sha256:{HEX}")


@pytest.mark.parametrize(
    ("template", "config", "why"),
    [
        ("{{ .Prompt }}", None, "as it comes"),
        ("{{ .Wonder }}", None, "`.Wonder`"),
        (TEMPLATE, {"renderer": "qwen3-vl"}, "by code ('qwen3-vl')"),
    ],
)
async def test_a_template_that_is_not_used_is_said(tmp_path, template, config, why):
    listing = await listed(tmp_path, oci.image(models.gguf(), template=template, config=config))
    assert "chat_template" not in listing.defaults
    assert why in listing.facts["template_ignored"]


@pytest.mark.parametrize(
    "said", [b"{", b"{}", ["x"], [{"role": "tool", "content": "x"}], [{"role": "user"}], [{"role": "user"}] * 101]
)
async def test_an_opening_that_cannot_be_said_is_left_out(tmp_path, said):
    listing = await listed(tmp_path, oci.image(models.gguf(), messages=said))
    assert "opening" not in listing.defaults
    assert listing.facts["ignored_layers"] == ["messages"]


async def test_of_several_templates_the_last_counts(tmp_path):
    made = oci.image(models.gguf(), ("template", b"{{ .Wonder }}"), ("template", TEMPLATE.encode()), ("system", b" "))
    listing = await listed(tmp_path, made)
    assert "chat_template" in listing.defaults
    assert "system" not in listing.defaults
    assert "template_ignored" not in listing.facts


async def test_licences_without_end_are_not_read_without_end(tmp_path):
    texts = [("license", f"licence {number}".encode()) for number in range(10)]
    listing = await listed(tmp_path, oci.image(models.gguf(), *texts))
    assert listing.facts["licence_text"].count("licence") == 8
    assert listing.facts["ignored_layers"] == ["license"]


async def test_what_is_ignored_is_told_in_bounds(tmp_path):
    strange = [(f"kind-{number}", b"x") for number in range(500)]
    made = oci.image(models.gguf(), *strange, params={f"param-{number}": 1 for number in range(500)})
    listing = await listed(tmp_path, made)
    assert len(listing.facts["ignored_layers"]) == len(listing.facts["ignored_params"]) == 50


@pytest.mark.parametrize(
    ("made", "kind", "why"),
    [
        (oci.image(models.gguf(), adapter=b"x"), NotSupported, "adapter"),
        (oci.image(config={"remote_host": "https://ollama.com", "remote_model": "big"}), NotSupported, "cloud"),
        (oci.image(None, ("tensor", b"x"), config={"model_format": "safetensors"}), NotSupported, "'safetensors'"),
        (oci.image(models.gguf(), ("model", models.gguf(seed=9))), NotSupported, "several files"),
        (oci.image(None, ("application/vnd.docker.image.rootfs.diff.tar.gzip", b"x")), SourceError, "rootfs"),
        (oci.image(), SourceError, "no layers"),
        (oci.image(models.gguf(), params=b"[]"), SourceError, "no JSON object"),
        (oci.image(models.gguf(), params=b"{"), SourceError, "no JSON object"),
        (oci.image(models.gguf(), template=b"x" * (1 << 20) + b"x"), SourceError, "over the 1048576 allowed"),
    ],
)
async def test_what_cannot_be_run_is_refused(tmp_path, made, kind, why):
    with pytest.raises(kind, match=why) as caught:
        await listed(tmp_path, made)
    assert caught.value.code == kind.code


async def test_a_model_that_is_not_whole_is_not_taken(tmp_path):
    made = oci.image(models.gguf())
    made.store(tmp_path, "library/tiny", "1b")
    (tmp_path / "blobs" / f"sha256-{models.sha256(models.gguf())}").write_bytes(b"short")
    with pytest.raises(SourceNotFound, match="missing"):
        await source(tmp_path).resolve(ModelRef("ollama", f"{tmp_path}#tiny:1b"))
    with pytest.raises(SourceNotFound, match="has no model tiny:7b"):
        await source(tmp_path).resolve(ModelRef("ollama", f"{tmp_path}#tiny:7b"))


async def test_a_blob_that_was_changed_is_not_taken(tmp_path):
    data = models.gguf()
    listing = await listed(tmp_path, oci.image(data))
    (tmp_path / "blobs" / f"sha256-{models.sha256(data)}").write_bytes(data[:-1] + b"!")
    part = await Part.open(tmp_path / "a.part", SystemClock())
    try:
        with pytest.raises(DigestMismatch):
            await source(tmp_path).fetch(listing.files[0], part, silent)
        assert part.size == 0
    finally:
        part.close()


async def test_the_registry_has_no_search(tmp_path):
    with pytest.raises(NotSupported) as caught:
        await source(tmp_path).search(Query("llama"))
    assert "ollama.com/library" in caught.value.hint


def test_where_ollama_keeps_its_models(tmp_path):
    home, named = tmp_path / "home", tmp_path / "named"
    assert OllamaStore.found({"OLLAMA_MODELS": str(named)}) is None
    oci.image(b"x").store(home / ".ollama" / "models", "library/a", "1")
    oci.image(b"x").store(named, "library/a", "1")
    assert OllamaStore.found({"HOME": str(home)}) == OllamaStore(home / ".ollama" / "models")
    assert OllamaStore.found({"HOME": str(home), "OLLAMA_MODELS": str(named)}) == OllamaStore(named)


def test_the_names_in_a_folder(tmp_path):
    for name, tag, host in [
        ("library/b", "1", "registry.ollama.ai"),
        ("me/a", "latest", "hf.co"),
        ("library/a", "2", "x.y"),
    ]:
        oci.image(b"x").store(tmp_path, name, tag, host)
    (tmp_path / "manifests" / "stray").write_text("")
    (tmp_path / "manifests" / "hf.co" / "me" / "a" / "not a tag").write_text("")
    assert [str(name) for name in OllamaStore(tmp_path).names()] == ["hf.co/me/a", "b:1", "x.y/library/a:2"]
    with pytest.raises(SourceError, match="no manifests"):
        list(OllamaStore(tmp_path / "none").names())


def test_a_folder_that_cannot_be_read_is_said(tmp_path):
    far = tmp_path / ("x" * 300)
    with pytest.raises(SourceError, match="cannot be read"):
        list(OllamaStore(far).names())
    with pytest.raises(SourceError, match="cannot be read"):
        OllamaStore(far).manifest(Name("tiny"))
    os.mkfifo(oci.image(b"x").store(tmp_path, "library/a", "1") / "manifests/registry.ollama.ai/library/pipe")
    (tmp_path / "manifests/registry.ollama.ai/library/tiny").mkdir()
    os.mkfifo(tmp_path / "manifests/registry.ollama.ai/library/tiny/latest")
    with pytest.raises(SourceError, match="is no file"):
        OllamaStore(tmp_path).manifest(Name("tiny"))
    assert OllamaStore(far).blob(read_manifest(oci.image(b"x").manifest, "x").layers[0]) is None
    assert OllamaStore.found({"OLLAMA_MODELS": str(far)}) is None


async def test_a_small_layer_that_was_changed_is_not_taken(tmp_path):
    folder = oci.image(models.gguf(), license="MIT").store(tmp_path, "library/tiny", "1b")
    blob = folder / "blobs" / f"sha256-{models.sha256(b'MIT')}"
    blob.write_bytes(b"GPL")
    with pytest.raises(DigestMismatch):
        await source(tmp_path).resolve(ModelRef("ollama", f"{tmp_path}#tiny:1b"))
