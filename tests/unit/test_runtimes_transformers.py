"""The decisions of the transformers runtime: options, memory, what the engine is told, facts and diagnoses."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from corral.domain.memory import Placement
from corral.domain.models import Capability, FileEntry, Revision
from corral.domain.options import parse_options
from corral.domain.ports import Availability, LaunchSpec
from corral.errors import EngineStartFailed, InvalidRequest, OutOfMemory, RuntimeUnavailable
from corral.kit import environments
from corral.runtimes.transformers import (
    Transformers,
    TransformersOptions,
    asking,
    child_environment,
    diagnose,
    launch_data,
    read_facts,
    slot_context,
    weight_factor,
)

SMOLLM2 = {
    "context_length": 8192,
    "parameters": 134515008,
    "dtypes": {"BF16": 269030016},
    "vocab_size": 49152,
    "embedding_length": 576,
}
SAID = {
    "device": "cpu",
    "dtype": "bfloat16",
    "attention": "sdpa",
    "context": 2048,
    "slots": 4,
    "batched": True,
    "modality": "LLM",
    "chat": True,
    "system": True,
    "tools": False,
    "generation": {"eos_token_id": 2},
    "library": "5.23.0",
}
HERE = Availability(usable=True, version="5.23.0", devices=("cpu",))


def snapshot(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").touch()
    return folder


def spec(folder=Path("/nowhere"), capabilities=(), facts=SMOLLM2, **options):
    files = (FileEntry("model.safetensors", 1, "00"),)
    revision = Revision("file:x", "safetensors", files, capabilities=frozenset(capabilities), facts=facts)
    return LaunchSpec("m", TransformersOptions(**options), {"model": folder}, revision)


@pytest.mark.parametrize(
    "values",
    [
        {"context": 0},
        {"slots": 0},
        {"block": 3},
        {"blocks": 0},
        {"batch_tokens": 3},
        {"threads": 0},
        {"max_tokens": 0},
        {"temperature": -0.1},
        {"seed": -1},
        {"device": "tpu"},
        {"device": "cuda:x"},
        {"dtype": "int8"},
        {"quantization": "8bit"},
        {"attention": "paged"},
        {"extra": {"num_beams": 4}},
        {"typical_p": 0.9},
        {"stop": "text"},
    ],
)
def test_a_bad_option_is_refused_by_name(values):
    with pytest.raises(InvalidRequest) as caught:
        parse_options(TransformersOptions, values, "transformers")
    assert caught.value.param == next(iter(values))


def test_what_only_one_way_of_answering_follows_is_refused_in_the_other():
    assert TransformersOptions(batching=False, extra={"num_beams": 4}, typical_p=0.9).extra == {"num_beams": 4}
    with pytest.raises(InvalidRequest, match="presence_penalty"):
        TransformersOptions(compile=True, presence_penalty=0.5)


@pytest.mark.parametrize(
    ("asked", "trained", "context"), [(None, None, 4096), (None, 2048, 2048), (None, 8192, 4096), (9000, 8192, 8192)]
)
def test_the_context_is_what_was_asked_within_what_was_trained(asked, trained, context):
    facts = {} if trained is None else {"context_length": trained}

    assert slot_context(TransformersOptions(context=asked), spec(facts=facts)) == context


@pytest.mark.parametrize(
    ("options", "facts", "factor"),
    [
        ({"dtype": "bfloat16"}, SMOLLM2, 1.0),
        ({"dtype": "float32"}, SMOLLM2, 2.0),
        ({"dtype": "float16"}, {**SMOLLM2, "dtypes": {"F32": 538060032}}, 0.5),
        ({"dtype": "float32"}, {}, 1.0),
        ({"dtype": "float32"}, {**SMOLLM2, "dtypes": {"I32": 60000000, "F16": 50000000}}, 1.0),
    ],
)
def test_weights_take_what_their_number_format_takes(options, facts, factor):
    found = weight_factor(TransformersOptions(**options), options["dtype"], facts)

    assert found == pytest.approx(factor, rel=0.001)


def test_quantised_weights_take_less_and_embeddings_stay():
    rows = 49152 * 576
    whole = SMOLLM2["parameters"]
    eight = weight_factor(TransformersOptions(quantization="int8"), "bfloat16", SMOLLM2)
    four = weight_factor(TransformersOptions(quantization="4bit"), "bfloat16", SMOLLM2)

    assert eight == pytest.approx((rows * 2 + (whole - rows) * 1.03) / (whole * 2), rel=0.001)
    assert four < eight < 1


def test_it_asks_for_the_context_of_every_slot(tmp_path):
    runtime = Transformers({}, tmp_path)

    found = runtime.demand(spec(context=2048, slots=3, dtype="float32", device="cpu"))
    assert (found.context, found.slots, found.keys, found.values) == (2048, 3, "f32", "f32")
    assert (found.device, found.overhead, found.weights) == ("cpu", 0, pytest.approx(2.0, rel=0.001))
    assert runtime.demand(spec(batching=False)).slots == 1
    assert runtime.demand(spec(slots=2, block=16, blocks=100)).context == 800
    on_gpu = runtime.demand(spec(device="cuda:1"))
    assert (on_gpu.device, on_gpu.keys) == ("cuda:1", "bf16")
    assert on_gpu.overhead > 0
    assert on_gpu.process > found.process
    assert runtime.demand(spec(device="mps")).keys == "f16"


def test_the_engine_is_told_all_it_needs(tmp_path):
    told = launch_data(spec(snapshot(tmp_path), context=512, slots=2, quantization="4bit"), "key")

    assert told["folder"] == str(tmp_path)
    assert (told["name"], told["key"], told["context"]) == ("m", "key", 512)
    assert told["batching"] == {"slots": 2, "block": 32, "blocks": None, "tokens": 512}
    assert (told["quantization"], told["device"]) == ("bnb-4bit", "auto")
    assert told["trust_remote_code"] is False
    assert json.loads(json.dumps(told)) == told
    assert launch_data(spec(tmp_path, compile=True), "key")["batching"] is None


def test_the_device_is_the_users_and_else_the_schedulers(tmp_path):
    placed = replace(spec(snapshot(tmp_path)), placement=Placement({"cuda:1": 5, "cpu": 5}))

    assert launch_data(placed, "key")["device"] == "cuda:1"
    assert launch_data(replace(placed, options=TransformersOptions(device="cpu")), "key")["device"] == "cpu"


def test_only_safetensors_are_opened(tmp_path):
    with pytest.raises(EngineStartFailed, match="no snapshot"):
        launch_data(spec(tmp_path), "key")
    (snapshot(tmp_path) / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(EngineStartFailed, match="no weights in the format safetensors"):
        launch_data(spec(tmp_path), "key")


def test_a_chat_template_is_a_text_or_a_path(tmp_path):
    snapshot(tmp_path)
    (tmp_path / "t.jinja").write_text("{{ x }}")

    assert launch_data(spec(tmp_path, chat_template="{{ y }}"), "k")["chat_template"] == "{{ y }}"
    assert launch_data(spec(tmp_path, chat_template=str(tmp_path / "t.jinja")), "k")["chat_template"] == "{{ x }}"
    with pytest.raises(InvalidRequest) as caught:
        launch_data(spec(tmp_path, chat_template="none.jinja"), "k")
    assert caught.value.param == "chat_template"


def test_the_engine_asks_no_hub_and_sees_no_secret(tmp_path):
    env = {
        "HF_TOKEN": "t",
        "HF_HOME": "/mine",
        "PYTHONPATH": "/x",
        "VIRTUAL_ENV": "/v",
        "PATH": "/bin",
        "A_API_KEY": "k",
    }

    found = child_environment(env, tmp_path)
    assert {name: found[name] for name in ("HF_HOME", "HF_HUB_OFFLINE", "PATH")} == {
        "HF_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        "PATH": "/bin",
    }
    assert not {"HF_TOKEN", "VIRTUAL_ENV", "A_API_KEY"} & found.keys()
    assert found["PYTHONPATH"] != "/x"


def test_facts_are_what_the_engine_said():
    found = read_facts(SAID, spec(), HERE)

    assert (found.context, found.slots, found.device) == (2048, 4, "cpu")
    assert found.capabilities == {Capability.CHAT, Capability.COMPLETION, Capability.SYSTEM_ROLE}
    assert found.notes == ("computes in bfloat16, attention sdpa",)


def test_capabilities_are_those_of_the_template_and_the_model():
    able = read_facts({**SAID, "tools": True, "modality": "VLM"}, spec(), HERE).capabilities
    assert able >= {Capability.TOOLS, Capability.VISION}
    assert Capability.JSON_SCHEMA not in able

    assert read_facts({**SAID, "chat": False}, spec(), HERE).capabilities == {Capability.COMPLETION}
    base = read_facts(SAID, spec(capabilities={Capability.COMPLETION}), HERE).capabilities
    assert base == {Capability.COMPLETION}
    given = spec(capabilities={Capability.COMPLETION}, chat_template="{{ x }}")
    assert Capability.CHAT in read_facts(SAID, given, HERE).capabilities
    assert read_facts(SAID, spec(capabilities={Capability.EMBEDDINGS}), HERE).capabilities == frozenset()


def test_what_is_not_as_was_asked_is_said():
    notes = read_facts({**SAID, "batched": False, "system": False}, spec(quantization="int8"), HERE).notes

    assert any("one after the other" in note for note in notes)
    assert any("quantised to int8" in note for note in notes)
    assert any("no place for a system message" in note for note in notes)


def test_requests_are_put_as_the_engine_and_the_options_say():
    options = TransformersOptions(batching=False, temperature=0.5, max_tokens=9, stop=("x",), extra={"num_beams": 2})

    found = asking({**SAID, "batched": False, "system": False}, options)
    assert found.model == {"eos_token_id": 2, "num_beams": 2}
    assert found.defaults == {"temperature": 0.5}
    assert (found.system, found.batched, found.max_tokens, found.stop) == (False, False, 9, ("x",))


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (
            "ValueError: The checkpoint has model type `x` but Transformers does not recognize this architecture. This",
            "does not know this kind",
        ),
        ("AttributeError: module transformers has no attribute 'FooForCausalLM'", "does not know this kind"),
        (
            "ValueError: Loading . requires you to execute code; set the option `trust_remote_code=True`",
            "trust_remote_code: true",
        ),
        ("AssertionError: Torch not compiled with CUDA enabled", "device: cpu"),
        ("safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooLarge", "corral pull"),
        ("ModuleNotFoundError: No module named 'sentencepiece'", "corral runtimes install transformers"),
        ("corral: this version of transformers lacks a part of its server: no x", "corral runtimes install"),
        ("ImportError: FlashAttention2 has been toggled on, but it cannot be used", "attention: sdpa"),
        ("KeyError: 'surprise'", "log may say more"),
    ],
)
def test_the_exception_that_ended_it_is_told_with_what_to_do(line, hint):
    error = diagnose("The engine of 'm'", "exited with code 1", ["Traceback (most recent call last):", "  x", line])

    assert line.split(": ", 1)[1][:40].rstrip(".") in error.message
    assert hint in error.hint
    assert not isinstance(error, OutOfMemory)


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        ("exited with code 1", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"),
        ("exited with code 1", "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory"),
        ("was killed by SIGKILL, perhaps by the system for want of memory", "Loading weights"),
        ("exited with code 1", "MemoryError: Memory footprint 5 is more than available memory 4"),
    ],
)
def test_want_of_memory_is_an_error_of_its_own(reason, line):
    assert isinstance(diagnose("The engine of 'm'", reason, [line]), OutOfMemory)


def test_an_engine_that_said_nothing_is_told_of_too():
    assert "printed nothing" in diagnose("The engine of 'm'", "exited with code 1", []).message


def environment(home: Path, *packages: str) -> Path:
    """An environment as `corral runtimes install` makes it, without anything in it."""
    folder = environments.folder("transformers", home)
    (folder / "bin").mkdir(parents=True)
    for name in ("python", "transformers"):
        (folder / "bin" / name).write_text("")
        (folder / "bin" / name).chmod(0o755)
    for package in packages:
        (folder / "lib" / "python3.11" / "site-packages" / f"{package}.dist-info").mkdir(parents=True)
    return folder


WHOLE = ("torch-2.13.0+cpu", "uvicorn-1", "fastapi-1", "openai-1")


async def test_without_the_library_it_says_what_to_type(tmp_path):
    found = await Transformers({"PATH": ""}, tmp_path).probe()

    assert not found.usable
    assert found.hint == "Type: corral runtimes install transformers"
    with pytest.raises(RuntimeUnavailable, match="not installed"):
        await Transformers({"PATH": ""}, tmp_path).start(spec(), lambda _: None)


async def test_a_library_that_it_knows_is_usable(tmp_path):
    environment(tmp_path, "transformers-5.23.0", *WHOLE)

    found = await Transformers({"PATH": ""}, tmp_path).probe()
    assert found.usable
    assert found.version == "5.23.0"
    assert "cpu" in found.devices


@pytest.mark.parametrize(
    ("packages", "reason"),
    [
        ((), "no program of a Python environment"),
        (("transformers-4.57.1", *WHOLE), "needs 5.23 or newer"),
        (("transformers-5.23.0", "torch-2.13.0"), "uvicorn"),
    ],
)
async def test_another_library_is_not_and_says_why(tmp_path, packages, reason):
    environment(tmp_path, *packages)
    runtime = Transformers({"PATH": ""}, tmp_path)

    assert reason in (await runtime.probe()).reason
    with pytest.raises(RuntimeUnavailable, match=reason):
        await runtime.start(spec(), lambda _: None)


async def test_quantising_without_what_does_it_is_refused(tmp_path):
    environment(tmp_path, "transformers-5.23.0", *WHOLE)

    with pytest.raises(RuntimeUnavailable, match="bitsandbytes"):
        await Transformers({"PATH": ""}, tmp_path).start(spec(quantization="int8"), lambda _: None)
