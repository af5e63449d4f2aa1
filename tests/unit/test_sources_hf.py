"""What Hugging Face references mean, and what is read from the environment: no sockets, no library."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from corral.errors import AddressRefused, ConfigError, LoginRequired, SourceError, SourceNotFound
from corral.kit.web import Access
from corral.sources._hf_hub import Hub
from corral.sources._hf_select import PREFERRED, Entry, Wanted, choose, label
from tests.docs.pages import read

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def entries(*names: str, size: int = 1000) -> list[Entry]:
    """Files with those names; `name=size` says another size."""
    pairs = (name.partition("=") for name in names)
    return [Entry(name, int(told) if told else size) for name, _, told in pairs]


def chosen(reference: str, *names: str) -> list[str]:
    return [entry.path for entry in choose(Wanted.parse(reference), entries(*names)).files]


def unasked(*names: str) -> str | None:
    return choose(Wanted.parse("o/r"), entries(*names)).chosen


@pytest.mark.parametrize(
    ("text", "repo", "revision", "quantization", "pattern"),
    [
        ("owner/repo", "owner/repo", None, None, None),
        ("gpt2", "gpt2", None, None, None),
        ("o/r:Q4_K_M", "o/r", None, "Q4_K_M", None),
        ("o/r@v1.0", "o/r", "v1.0", None, None),
        ("o/r@v1:q8_0", "o/r", "v1", "q8_0", None),
        (f"o/r@{COMMIT}/f.gguf", "o/r", COMMIT, None, "f.gguf"),
        ("o/r@refs/pr/3/a/f.gguf", "o/r", "refs/pr/3", None, "a/f.gguf"),
        ("o/r@feature%2Fx:Q2_K", "o/r", "feature/x", "Q2_K", None),
        ("o/r/deep/er/f.gguf", "o/r", None, None, "deep/er/f.gguf"),
        ("o/r/part-*.gguf", "o/r", None, None, "part-*.gguf"),
        ("hf.co/o/r:Q4_0", "o/r", None, "Q4_0", None),
        ("huggingface.co/o/r", "o/r", None, None, None),
        ("https://huggingface.co/o/r/", "o/r", None, None, None),
        ("https://huggingface.co/o/r/blob/main/f%20g.gguf?download=true", "o/r", "main", None, "f g.gguf"),
        ("https://hf.co/o/r/resolve/refs/pr/1/f.gguf", "o/r", "refs/pr/1", None, "f.gguf"),
        ("https://huggingface.co/o/r/tree/v2", "o/r", "v2", None, None),
    ],
)
def test_references_are_taken_apart(
    text: str, repo: str, revision: str | None, quantization: str | None, pattern: str | None
) -> None:
    wanted = Wanted.parse(text)
    assert wanted == Wanted(repo, revision, quantization, pattern)
    assert Wanted.parse(str(wanted)) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "a b",
        "../..",
        "o/..",
        "o/r/../x.gguf",
        "o/r@..",
        "o/r@a%2F..%2Fb",
        "o/r@%0a",
        "o--x/r",
        "o/r:",
        "o/r:a/b",
        "o/r/a\nb",
        "o/r/a\0b",
        "ö/r",
        "o/" + "r" * 97,
        "o/r/" + "f" * 10_000,
        "https://huggingface.co/",
    ],
)
def test_what_can_name_nothing_is_not_found(text: str) -> None:
    with pytest.raises(SourceNotFound) as caught:
        Wanted.parse(text)
    assert "hf:OWNER/REPO" in caught.value.hint
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1"),
        ("Llama-3.2-1B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("llama-3.2-1b-instruct-q4_k_m.gguf", "Q4_K_M"),
        ("gemma-3-4b-it-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("Model.i1-IQ2_XXS.gguf", "IQ2_XXS"),
        ("Model-IQ4_NL-00001-of-00002", "IQ4_NL"),
        ("model-bf16.gguf", "BF16"),
        ("model-fp16.gguf", "F16"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("Model-TQ1_0.gguf", "TQ1_0"),
        ("Q4_K_M/model-00001-of-00002", "Q4_K_M"),
        ("Q8_0/model-Q4_0.gguf", "Q4_0"),
        ("Q4_0_to_Q8_0.gguf", "Q8_0"),
        ("ggml-model.gguf", None),
        ("IQ-test.gguf", None),
        ("Qwen2.5-7B.gguf", None),
    ],
)
def test_the_quantisation_is_read_from_the_name(path: str, told: str | None) -> None:
    assert label(path) == told


def test_the_only_model_is_taken_whatever_it_is() -> None:
    assert chosen("o/r", "README.md", "odd.gguf", ".gitattributes") == ["odd.gguf"]
    assert unasked("m-Q2_K.gguf") == "Q2_K"


def test_unasked_the_preferred_quantisation_is_taken_and_said() -> None:
    there = [f"m-{name}.gguf" for name in ("F32", "Q8_0", "Q4_K_M", "Q2_K")]
    assert chosen("o/r", *there) == ["m-Q4_K_M.gguf"]
    assert unasked(*there) == "Q4_K_M"
    assert unasked(*there[:2]) == "Q8_0"
    assert unasked("m-Q2_K.gguf=10", "m-IQ1_S.gguf=5", "m-F16.gguf=99") == "F16"
    assert unasked("m-Q2_K.gguf=10", "m-IQ1_S.gguf=5") == "IQ1_S"


def test_each_preferred_quantisation_is_read_from_a_name() -> None:
    assert [label(f"m-{name}.gguf") for name in PREFERRED] == list(PREFERRED)


@pytest.mark.parametrize("asked", ["Q8_0", "q8_0", "Q8-0", "m-Q8_0", "m-Q8_0.gguf"])
def test_a_quantisation_is_named_in_any_case(asked: str) -> None:
    assert chosen(f"o/r:{asked}", "m-Q4_K_M.gguf", "m-Q8_0.gguf") == ["m-Q8_0.gguf"]
    assert choose(Wanted.parse(f"o/r:{asked}"), entries("m-Q4_K_M.gguf", "m-Q8_0.gguf")).chosen is None


def test_a_dynamic_quantisation_is_taken_when_there_is_no_plain_one() -> None:
    assert chosen("o/r:Q4_K_XL", "m-UD-Q4_K_XL.gguf", "m-Q8_0.gguf") == ["m-UD-Q4_K_XL.gguf"]
    assert chosen("o/r:UD-Q4_K_XL", "m-UD-Q4_K_XL.gguf", "m-Q4_K_XL.gguf") == ["m-UD-Q4_K_XL.gguf"]
    assert chosen("o/r:Q4_K_XL", "m-UD-Q4_K_XL.gguf", "m-Q4_K_XL.gguf") == ["m-Q4_K_XL.gguf"]


def test_fp16_is_f16_and_latest_is_the_usual() -> None:
    assert chosen("o/r:FP16", "m-f16.gguf", "m-Q4_K_M.gguf") == ["m-f16.gguf"]
    assert chosen("o/r:latest", "m-f16.gguf", "m-Q4_K_M.gguf") == ["m-Q4_K_M.gguf"]


def test_an_unknown_quantisation_names_those_there_are_with_sizes() -> None:
    with pytest.raises(SourceNotFound) as caught:
        chosen("o/r:Q4_K", "m-Q8_0.gguf=2000000", "m-Q4_K_M.gguf=1000000")
    assert caught.value.hint == "There are: Q4_K_M (1.0 MB), Q8_0 (2.0 MB)."


def test_a_quantisation_of_a_repo_without_gguf_is_not_found() -> None:
    with pytest.raises(SourceNotFound, match="no GGUF") as caught:
        chosen("o/r:Q4_K_M", "model.safetensors", "config.json")
    assert "hf:o/r" in caught.value.hint


def test_several_models_of_one_quantisation_are_not_guessed_between() -> None:
    with pytest.raises(SourceNotFound, match="2 models") as caught:
        chosen("o/r:Q8_0", "a-Q8_0.gguf", "b-Q8_0.gguf", "c-Q4_0.gguf")
    assert "hf:o/r/a-Q8_0.gguf" in caught.value.hint


def test_all_pieces_of_a_split_model_are_taken() -> None:
    pieces = [f"Q8_0/m-Q8_0-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    for reference in ("o/r:Q8_0", "o/r/Q8_0/m-Q8_0-00002-of-00003.gguf", "o/r/m-Q8*.gguf"):
        assert chosen(reference, "m-Q4_K_M.gguf", *reversed(pieces)) == pieces


def test_a_split_model_that_lacks_a_piece_is_refused() -> None:
    with pytest.raises(SourceError, match="of the 3 pieces"):
        chosen("o/r", "m-Q8_0-00001-of-00003.gguf", "m-Q8_0-00003-of-00003.gguf")


def test_a_projector_comes_with_the_model() -> None:
    eyes = ["mmproj-m-Q8_0.gguf=5", "mmproj-m-f16.gguf=9", "mmproj-BF16.gguf=7"]
    assert chosen("o/r", "m-Q4_K_M.gguf", *eyes) == ["m-Q4_K_M.gguf", "mmproj-m-f16.gguf"]
    assert chosen("o/r/m-Q4_K_M.gguf", "m-Q4_K_M.gguf", eyes[0], eyes[2]) == ["m-Q4_K_M.gguf", "mmproj-m-Q8_0.gguf"]


def test_the_projector_beside_the_model_is_its_own() -> None:
    there = ["a/m-Q8_0.gguf", "a/mmproj.gguf", "b/mmproj-F16.gguf"]
    assert chosen("o/r", *there) == ["a/m-Q8_0.gguf", "a/mmproj.gguf"]


def test_a_projector_or_an_importance_matrix_alone_is_no_model() -> None:
    with pytest.raises(SourceNotFound):
        chosen("o/r", "mmproj-F16.gguf", "m.imatrix.gguf")


def test_a_file_is_named_exactly_or_by_pattern() -> None:
    there = ["a/m[1]-Q8_0.gguf", "a/m1-Q4_0.gguf", "b/n-Q8_0.gguf"]
    assert chosen("o/r/a/m[1]-Q8_0.gguf", *there) == ["a/m[1]-Q8_0.gguf"]
    assert chosen("o/r/n-*.gguf", *there) == ["b/n-Q8_0.gguf"]
    assert chosen("o/r/a/*", *there) == ["a/m1-Q4_0.gguf"]
    assert choose(Wanted.parse("o/r/a/*"), entries(*there)).chosen == "Q4_0"
    assert choose(Wanted.parse("o/r/b/*"), entries(*there)).chosen is None
    with pytest.raises(SourceNotFound) as caught:
        chosen("o/r/c.gguf", *there)
    assert "a/m1-Q4_0.gguf" in caught.value.hint


SNAPSHOT = [
    "README.md",
    "added_tokens.json",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "model.safetensors",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
]


def test_a_snapshot_has_weights_and_what_belongs_to_them() -> None:
    others = [
        ".gitattributes",
        "LICENSE",
        "flax_model.msgpack",
        "model.fp16.safetensors",
        "modeling_odd.py",
        "onnx/config.json",
        "onnx/model.onnx",
        "original/model.safetensors",
        "pytorch_model.bin",
        "tf_model.h5",
        "tokenizer_odd.py",
        "training_args.bin",
    ]
    assert chosen("o/r", *SNAPSHOT, *others) == SNAPSHOT


def test_a_snapshot_in_shards_comes_with_its_index() -> None:
    shards = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    there = ["config.json", *shards, "model.safetensors.index.json", "consolidated.safetensors"]
    assert chosen("o/r", *there) == ["config.json", *shards, "model.safetensors.index.json"]


def test_a_sentence_model_comes_with_its_modules() -> None:
    there = ["1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors", "config.json"]
    there += ["config_sentence_transformers.json", "model.safetensors", "modules.json", "sentence_bert_config.json"]
    assert chosen("o/r", *there, "2_Dense/pytorch_model.bin", "openvino/model.bin") == there


def test_other_safetensors_are_taken_as_they_are() -> None:
    assert chosen("o/r", "config.json", "weights.safetensors") == ["config.json", "weights.safetensors"]
    assert chosen("o/r", "config.json", "consolidated.safetensors") == ["config.json", "consolidated.safetensors"]
    adapter = ["adapter_config.json", "adapter_model.safetensors"]
    assert chosen("o/r", *adapter, "adapter_model.bin") == adapter


def test_safetensors_beside_gguf_are_had_by_pattern() -> None:
    there = ["config.json", "m-Q8_0.gguf", "model.safetensors"]
    assert chosen("o/r", *there) == ["m-Q8_0.gguf"]
    assert chosen("o/r/*.safetensors", *there) == ["config.json", "model.safetensors"]


def test_pickles_are_listed_only_where_there_is_nothing_else() -> None:
    there = ["config.json", "pytorch_model.bin", "pytorch_model.bin.index.json", "training_args.bin", "optimizer.pt"]
    assert chosen("o/r", *there) == there[:3]
    assert chosen("o/r", "config.json", "weights.pth") == ["config.json", "weights.pth"]


def test_a_repo_without_weights_says_what_it_has() -> None:
    with pytest.raises(SourceNotFound, match="no GGUF or safetensors") as caught:
        chosen("o/r", "model.onnx", "config.json", ".gitattributes")
    assert "json, onnx" in caught.value.hint
    with pytest.raises(SourceNotFound) as caught:
        chosen("o/r")
    assert caught.value.hint == "It has no files."


def test_where_the_hub_is_comes_from_the_environment() -> None:
    assert Hub.read({"HOME": "/none"}) == Hub("https://huggingface.co")
    read = Hub.read({"HF_ENDPOINT": "https://mirror.test/hf/", "HF_TOKEN": " hf_x\n", "HF_HUB_OFFLINE": "ON"})
    assert read == Hub("https://mirror.test/hf", "hf_x", offline=True)
    assert read.logins == {"https://mirror.test": "Bearer hf_x"}
    assert Hub.read({"HOME": "/none", "HF_HUB_OFFLINE": "0"}).logins == {}
    assert "hf_x" not in repr(read)


@pytest.mark.parametrize("address", ["mirror.test", "ftp://mirror.test", "https://", "https://me:secret@mirror.test"])
def test_an_address_that_is_no_hubs_is_refused_without_telling_secrets(address: str) -> None:
    with pytest.raises(ConfigError, match="HF_ENDPOINT") as caught:
        Hub.read({"HF_ENDPOINT": address})
    assert "secret" not in str(caught.value)


def test_the_token_is_where_the_hubs_own_tools_keep_it(tmp_path) -> None:
    places = {
        "a/token": {"HF_HOME": str(tmp_path / "a")},
        "b/huggingface/token": {"XDG_CACHE_HOME": str(tmp_path / "b")},
        "c/.cache/huggingface/token": {"HOME": str(tmp_path / "c")},
        "d/mine": {"HF_TOKEN_PATH": str(tmp_path / "d/mine")},
        "e/mine": {"HOME": str(tmp_path / "e"), "HF_TOKEN_PATH": "~/mine"},
    }
    for name, env in places.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(f"{name.replace('/', '_')}\n")
        assert Hub.read(env).token == name.replace("/", "_")
        assert Hub.read({**env, "HUGGING_FACE_HUB_TOKEN": "old"}).token == "old"
        assert Hub.read({**env, "HUGGING_FACE_HUB_TOKEN": "old", "HF_TOKEN": "new"}).token == "new"
        path.write_text("")
        assert Hub.read(env).token is None


def test_a_token_that_would_break_a_header_is_refused_unseen() -> None:
    with pytest.raises(ConfigError) as caught:
        Hub.read({"HF_TOKEN": "hf_geheim\r\nHost: evil"})
    assert "geheim" not in str(caught.value)


def test_an_unencrypted_hub_is_only_asked_here_or_where_it_is_allowed() -> None:
    for address in ("https://hub.test", "http://localhost:1", "http://127.0.0.7", "http://[::1]:80"):
        Hub(address).require_safe(Access())
    for allowed in ("hub.test", "hub.test:81"):
        Hub("http://hub.test:81").require_safe(Access(private=frozenset({allowed})))
        Hub("http://hub.test:81").require_safe(Access(trusted=frozenset({allowed})))
    for address in ("http://hub.test:82", "http://192.168.1.1", "http://localhost.evil.test"):
        with pytest.raises(AddressRefused, match="not encrypted"):
            Hub(address).require_safe(Access(private=frozenset({"hub.test:81"})))


def test_offline_is_said_plainly() -> None:
    with pytest.raises(SourceError, match="HF_HUB_OFFLINE") as caught:
        Hub(offline=True).require_online()
    assert "unset" in caught.value.hint


def test_a_gated_repo_says_what_to_do() -> None:
    for hub in (Hub(), Hub(token="hf_x")):
        error = hub.gated("meta/llama")
        assert isinstance(error, LoginRequired)
        assert "https://huggingface.co/meta/llama" in error.hint
        assert ("export HF_TOKEN" in error.hint) is (hub.token is None)
        assert "hf_x" not in str(error)


def test_the_documentation_names_the_order() -> None:
    text = read("docs/sources.md").section("hf")
    order = re.search(r"in this order: (.*?)\.", text, re.DOTALL)
    assert order is not None
    assert tuple(re.findall(r"`([^`]+)`", order[1])) == PREFERRED


def test_naming_the_source_does_not_import_the_library() -> None:
    code = "import re, sys, corral.sources.hf; print([m for m in sys.modules if re.match('httpx|huggingface', m)])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
