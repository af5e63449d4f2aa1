"""The runtime vllm, as far as it starts nothing: options, command, environment, sizes, and what failures mean."""

import json
import os
from pathlib import Path

import pytest

from corral.domain.memory import Placement
from corral.domain.models import Capability, Revision
from corral.domain.options import parse_options
from corral.domain.ports import LaunchSpec
from corral.errors import EngineStartFailed, InvalidRequest, NotSupported, OutOfMemory, RuntimeUnavailable
from corral.kit import leftovers
from corral.runtimes._vllm import command, sizes
from corral.runtimes._vllm.command import Build
from corral.runtimes._vllm.options import VllmOptions
from corral.runtimes._vllm.trouble import diagnose
from corral.runtimes.vllm import Vllm, read_facts
from tests.support.vllm import built, snapshot

CPU = Build(Path("/env/bin/vllm"), "0.32.0+cpu", named=False)
GPU = Build(Path("/env/bin/vllm"), "0.33.0")
SMOLLM2 = {
    "block_count": 30,
    "head_count": 9,
    "head_count_kv": 3,
    "embedding_length": 576,
    "context_length": 8192,
    "quantization": "BF16",
}
TOKEN = 30 * 3 * 64 * 2 * 2
MIB = 1024**2


def spec(placement=None, facts=SMOLLM2, files=None, able=frozenset(), **options):
    revision = Revision("hf:x", "safetensors", (), capabilities=frozenset(able), facts=facts)
    given = {"model": Path("/models/smollm2")} if files is None else files
    return LaunchSpec("m", parse_options(VllmOptions, options, "vllm"), given, revision, placement=placement)


def flags(words):
    """The value of each flag; True for one without."""
    found = {}
    for index, word in enumerate(words):
        if word.startswith("--"):
            after = words[index + 1 : index + 2]
            found[word] = after[0] if after and not after[0].startswith("--") else True
    return found


def argued(build=CPU, facts=SMOLLM2, **options):
    return flags(command.arguments(build, spec(**options), Path("/own"), facts))


# The command


def test_what_is_always_said():
    words = command.arguments(CPU, spec(context=2048), Path("/own"), SMOLLM2)
    assert words[:3] == ("/env/bin/vllm", "serve", "/models/smollm2")
    said = flags(words)
    assert said["--host"] == "127.0.0.1"
    assert said["--port"] == "{port}"
    assert said["--served-model-name"] == "m"
    assert said["--max-model-len"] == "2048"
    assert said["--max-num-seqs"] == "4"
    assert said["--kv-cache-memory-bytes"] == str((16 * 4 + 2) * 128 * TOKEN)
    assert "--trust-remote-code" not in said
    assert not any("key" in word for word in words)


@pytest.mark.parametrize(
    ("option", "value", "flag", "said"),
    [
        ("slots", 9, "--max-num-seqs", "9"),
        ("dtype", "float16", "--dtype", "float16"),
        ("quantization", "fp8", "--quantization", "fp8"),
        ("cache_type", "fp8_e5m2", "--kv-cache-dtype", "fp8_e5m2"),
        ("tensor_parallel", 2, "--tensor-parallel-size", "2"),
        ("pipeline_parallel", 3, "--pipeline-parallel-size", "3"),
        ("prefix_caching", False, "--no-enable-prefix-caching", True),
        ("prefix_caching", True, "--enable-prefix-caching", True),
        ("chat_template", "{{ x }}", "--chat-template", "/own/chat_template.jinja"),
        ("tool_parser", "hermes", "--tool-call-parser", "hermes"),
        ("tool_parser", "hermes", "--enable-auto-tool-choice", True),
        ("reasoning_parser", "qwen3", "--reasoning-parser", "qwen3"),
        ("trust_remote_code", True, "--trust-remote-code", True),
        ("cache_mib", 512, "--kv-cache-memory-bytes", str(512 * MIB)),
        ("args", ["--seed", "7"], "--seed", "7"),
    ],
)
def test_an_option_becomes_a_flag(option, value, flag, said):
    assert argued(**{option: value})[flag] == said


def test_a_context_is_never_longer_than_trained():
    assert argued(context=100_000)["--max-model-len"] == "8192"
    assert argued(facts={}, context=100_000)["--max-model-len"] == "100000"


def test_it_compiles_on_a_gpu_only_unless_told():
    assert "--enforce-eager" in argued(CPU)
    assert "--enforce-eager" not in argued(GPU)
    assert "--enforce-eager" in argued(GPU, eager=True)
    assert "--enforce-eager" not in argued(CPU, eager=False)


def test_a_gpu_is_not_filled_and_may_sleep():
    said = argued(GPU, sleep=True)
    assert said["--gpu-memory-utilization"] == "0.01"
    assert said["--enable-sleep-mode"] is True
    assert "--enable-sleep-mode" not in argued(GPU)
    assert "--gpu-memory-utilization" not in argued(CPU)


def test_the_context_is_shared_out_over_gpus():
    alone = int(argued(GPU)["--kv-cache-memory-bytes"])
    assert int(argued(GPU, tensor_parallel=2)["--kv-cache-memory-bytes"]) == alone // 2
    assert argued(GPU, tensor_parallel=2, cache_mib=100)["--kv-cache-memory-bytes"] == str(100 * MIB)


@pytest.mark.parametrize(("rank", "room"), [(4, "8"), (8, "8"), (64, "64"), (100, "128"), (None, "16")])
def test_an_adapter_answers_under_the_models_name(tmp_path, rank, room):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": rank}))
    said = argued(lora=str(tmp_path))
    assert said["--served-model-name"] == "m-base"
    assert json.loads(said["--lora-modules"]) == {"name": "m", "path": str(tmp_path)}
    assert said["--max-lora-rank"] == room


# Options


@pytest.mark.parametrize(
    "word",
    [
        *("--host", "--api-key=x", "--api_key", "--por", "--served-model-name", "--kv-cache-memory-bytes", "-q"),
        *("-tp=2", "--trust-remote-code", "--config", "--ssl-keyfile", "--gpu-memory-utilization", "--"),
    ],
)
def test_an_argument_that_is_corrals_own_is_refused(word):
    with pytest.raises(InvalidRequest, match="which Corral sets itself") as caught:
        spec(args=[word])
    assert caught.value.param == "args"


@pytest.mark.parametrize("word", ["--max-num-batched-tokens=512", "--seed", "7", "-O3", "--compilation-config.mode=3"])
def test_other_arguments_are_passed(word):
    assert spec(args=[word]).options.args == (word,)


@pytest.mark.parametrize("name", ["context", "slots", "cache_mib", "tensor_parallel", "pipeline_parallel"])
def test_numbers_are_at_least_one(name):
    with pytest.raises(InvalidRequest, match="at least 1, not 0"):
        spec(**{name: 0})


def test_a_processor_does_not_sleep():
    with pytest.raises(NotSupported, match="needs a GPU"):
        spec(sleep=True, device="cpu")
    with pytest.raises(RuntimeUnavailable, match="made for processors, cannot"):
        command.check(CPU, spec(sleep=True, files={"model": Path.cwd()}))


def test_a_gpu_that_this_build_cannot_use_is_refused_and_not_replaced():
    with pytest.raises(RuntimeUnavailable, match=r"is to run on cuda, and vLLM .* is made for processors"):
        command.check(CPU, spec(device="cuda", files={"model": Path.cwd()}))
    command.check(GPU, spec(device="cuda", files={"model": Path.cwd()}))
    command.check(CPU, spec(device="cpu", files={"model": Path.cwd()}))


@pytest.mark.parametrize("files", [{}, {"model": Path("/no/such/folder")}])
def test_without_files_nothing_is_started(files):
    with pytest.raises(EngineStartFailed, match="no folder of files"):
        command.check(CPU, spec(files=files))


# The environment


def surroundings(build=CPU, env=None, **options):
    placement = options.pop("placement", None)
    places = (Path("/own"), Path("/opt/engines/vllm"))
    return command.environment(env or {}, build, spec(placement, **options), places, "the-key")


def test_the_key_goes_by_the_environment_and_nothing_goes_out():
    found = surroundings(env={"PATH": "/bin", "OPENAI_API_KEY": "x", "HF_TOKEN": "y", "VLLM_API_KEY": "theirs"})
    assert found["VLLM_API_KEY"] == "the-key"
    assert found["HF_HUB_OFFLINE"] == found["VLLM_NO_USAGE_STATS"] == found["DO_NOT_TRACK"] == "1"
    assert found["VLLM_HOST_IP"] == "127.0.0.1"
    assert found["PATH"] == "/bin"
    assert not {"OPENAI_API_KEY", "HF_TOKEN"} & set(found)


def test_what_vllm_keeps_is_in_the_home_and_what_it_leaves_in_its_own_folder():
    found = surroundings()
    kept = [name for name, value in found.items() if value.startswith("/opt/engines/vllm")]
    assert {"VLLM_CACHE_ROOT", "VLLM_CONFIG_ROOT", "HF_HOME", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR"} <= set(kept)
    assert found["TMPDIR"] == found["VLLM_RPC_BASE_PATH"] == "/own"


def test_what_others_mean_for_their_own_vllm_or_python_does_not_reach_it():
    env = {
        "VLLM_CPU_KVCACHE_SPACE": "40",
        "VLLM_SERVER_DEV_MODE": "1",
        "PYTHONPATH": "/theirs",
        "VLLM_LOGGING_LEVEL": "DEBUG",
    }
    found = surroundings(GPU, env)
    assert found["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert not set(env) & set(found) - {"VLLM_LOGGING_LEVEL"}


def test_only_a_build_with_another_name_is_given_one():
    assert surroundings(CPU)["PYTHONPATH"] == "/own/names"
    assert "PYTHONPATH" not in surroundings(GPU)


def test_sleep_opens_the_paths_for_it():
    assert surroundings(GPU, sleep=True)["VLLM_SERVER_DEV_MODE"] == "1"
    assert "VLLM_SERVER_DEV_MODE" not in surroundings(GPU)


def test_it_sees_only_the_gpus_it_was_placed_on():
    found = surroundings(GPU, placement=Placement({"cuda:2": 5, "cuda:3": 5, "cpu": 1}))
    assert found["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert found["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert "CUDA_VISIBLE_DEVICES" not in surroundings(GPU, placement=Placement({"cpu": 1}))


# Its own folder


def test_the_folder_holds_what_the_command_names(tmp_path):
    template = tmp_path / "t.jinja"
    template.write_text("{{ messages }}")
    folder = command.prepare(CPU, spec(chat_template=str(template)), owner=7)
    try:
        assert (folder / "chat_template.jinja").read_text() == "{{ messages }}"
        assert (
            "Name: vllm\nVersion: 0.32.0+cpu"
            in (folder / "names" / "vllm-0.32.0+cpu.dist-info" / "METADATA").read_text()
        )
        assert folder.stat().st_mode & 0o077 == 0
        assert len(str(folder)) + len("/1f6c1d0e-0000-4000-8000-000000000000") < 100  # the longest name of a socket
    finally:
        leftovers.remove((), str(folder))


@pytest.mark.parametrize("option", [{"chat_template": "/no/such.jinja"}, {"lora": "/no/such"}])
def test_files_that_are_not_there_are_named(option):
    with pytest.raises(InvalidRequest, match="/no/such") as caught:
        command.prepare(CPU, spec(**option), owner=7)
    assert caught.value.param == next(iter(option))


def test_folders_of_those_who_are_gone_are_swept(tmp_path):
    for name, owner in [("corral-vllm-a", str(os.getpid())), ("corral-vllm-b", str(2**22 + 1)), ("corral-vllm-c", "?")]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "owner").write_text(owner)
    (tmp_path / "other").mkdir()
    command.sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corral-vllm-a", "corral-vllm-c", "other"]


# Sizes


def test_the_context_is_reckoned_in_whole_blocks():
    wanted = sizes.demand(spec(context=1000, slots=2).options, SMOLLM2, on_processor=True)
    assert wanted.cache == (8 * 2 + 2) * 128 * TOKEN
    assert wanted.context == 1000
    assert wanted.process == sizes.PROCESS
    assert wanted.device == "cpu"
    assert wanted.overhead == 0


def test_on_a_gpu_the_processes_stay_beside_it():
    wanted = sizes.demand(spec(tensor_parallel=2, device="cuda").options, SMOLLM2, on_processor=False)
    assert wanted.overhead == sizes.OVERHEAD
    assert wanted.parallel == 2
    assert wanted.device == "cuda"
    assert wanted.process == sizes.PROCESS_BESIDE_GPU + sizes.WORKER


@pytest.mark.parametrize(
    ("options", "stored", "factor"),
    [
        ({}, "BF16", 1.0),
        ({}, "F32", 0.5),
        ({"dtype": "float32"}, "F16", 2.0),
        ({"quantization": "fp8"}, "BF16", 0.55),
        ({"quantization": "who-knows"}, "BF16", 1.0),
        ({"dtype": "float32"}, "awq-4bit", 1.0),
    ],
)
def test_weights_are_counted_as_they_are_loaded(options, stored, factor):
    facts = {**SMOLLM2, "quantization": stored}
    assert sizes.demand(spec(**options).options, facts, on_processor=True).weights == pytest.approx(factor)


@pytest.mark.parametrize(
    ("options", "facts", "factor"),
    [
        ({"cache_type": "fp8"}, {}, 0.5),
        ({"dtype": "float32"}, {}, 2.0),
        ({"dtype": "float32", "cache_type": "bfloat16"}, {}, 1.0),
        ({}, {"head_count_kv": [1, 3, 2]}, 1.0),
        ({}, {"key_length": 128}, 2.0),
        ({}, {"head_count_kv": None}, 3.0),
    ],
)
def test_a_token_takes_what_its_numbers_do(options, facts, factor):
    plain = sizes.cache(spec().options, SMOLLM2)
    assert sizes.cache(spec(**options).options, SMOLLM2 | facts) == plain * factor


def test_of_an_unknown_model_something_is_assumed():
    assert sizes.cache(spec().options, {}) == 1024 * MIB


def test_what_no_revision_tells_the_models_own_configuration_does(tmp_path):
    folder = snapshot(tmp_path / "s")
    found = command.facts(spec(facts={}, files={"model": folder}))
    assert sizes.cache(spec().options, found) == sizes.cache(spec().options, SMOLLM2)
    (folder / "config.json").write_text(json.dumps({"text_config": {"num_hidden_layers": 2}}))
    assert command.facts(spec(facts={}, files={"model": folder})) == {"block_count": 2}
    (folder / "config.json").write_text("[")
    assert command.facts(spec(facts={}, files={"model": folder})) == {}
    assert command.facts(spec(files={"model": folder})) == SMOLLM2


# What is there


async def test_a_build_for_processors_is_found_and_named(tmp_path):
    built(tmp_path / "environments" / "vllm")
    runtime = Vllm({}, tmp_path)
    found = await runtime.probe()
    assert (found.usable, found.version, found.devices, found.preferred) == (True, "0.32.0+cpu", ("cpu",), False)
    assert runtime.demand(spec()).device == "cpu"


async def test_one_that_names_itself_is_taken_at_its_word(tmp_path):
    built(tmp_path / "environments" / "vllm", "vllm", "0.32.0+cpu")
    assert command.find(tmp_path, {}) == Build(tmp_path / "environments/vllm/bin/vllm", "0.32.0+cpu", named=True)


async def test_without_it_the_probe_says_what_to_type(tmp_path):
    found = await Vllm({}, tmp_path).probe()
    assert not found.usable
    assert "corral runtimes install vllm" in found.hint


async def test_a_program_of_no_environment_is_not_taken(tmp_path):
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    found = await Vllm({"PATH": str(program.parent)}, tmp_path).probe()
    assert not found.usable
    assert str(program) in found.reason


# What an engine tells


def told(build=CPU, placement=None, able=(), **options):
    return read_facts([{"id": "m", "max_model_len": 2048}], build, spec(placement, able=able, **options))


def test_a_processor_in_place_of_a_gpu_is_said():
    found = told(placement=Placement({"cuda:0": 1}))
    assert found.device == "cpu"
    assert "does not use cuda:0" in found.notes[0]
    assert told(GPU, Placement({"cuda:1": 1})).device == "cuda:1"
    assert told(GPU).notes == ()


def test_tools_need_a_parser():
    able = {Capability.CHAT, Capability.COMPLETION, Capability.TOOLS}
    without = told(able=able)
    assert Capability.TOOLS not in without.capabilities
    assert "tool_parser" in without.notes[0]
    with_ = told(able=able, tool_parser="hermes")
    assert with_.capabilities == able | {Capability.JSON_SCHEMA}
    assert with_.notes == ()


def test_what_it_can_do_is_what_the_model_can():
    assert told(able={Capability.EMBEDDINGS}).capabilities == {Capability.EMBEDDINGS}
    assert Capability.CHAT in told().capabilities
    assert Capability.CHAT not in told(able={Capability.COMPLETION}).capabilities
    assert Capability.CHAT in told(able={Capability.COMPLETION}, chat_template="{{ x }}").capabilities


def test_it_sleeps_on_a_gpu_when_asked_to():
    assert told(GPU, sleep=True).sleeps
    assert not told(GPU).sleeps


# Failures: the lines are vLLM's own

CORE = "(EngineCore pid=619) ERROR 11-21 16:53:45 [core.py:1510] "
TOO_LONG = (
    f"{CORE}ValueError: To serve at least one request with the model's max seq len (2048), 0.05 GiB KV cache is "
    "needed, which is larger than the available KV cache memory (0.0 GiB). Based on the available memory, the "
    "estimated maximum model length is 128."
)
UNKNOWN = (
    "  Value error, The checkpoint you are trying to load has model type `nosuch` but Transformers does not recognize "
    "this architecture."
)
WRAPPED = [
    f"{CORE}Exception: WorkerProc initialization failed due to an exception in a background process.",
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
]


@pytest.mark.parametrize(
    ("log", "kind", "said", "hint"),
    [
        (
            [f"{CORE}ValueError: No available memory for the cache blocks. Try increasing it.", *WRAPPED],
            OutOfMemory,
            "No available memory for the cache blocks",
            "smaller context",
        ),
        (
            [
                TOO_LONG,
            ],
            OutOfMemory,
            "To serve at least one request",
            "context 128",
        ),
        (
            ["(Worker pid=1) ERROR 11-21 16:53:45 [w.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried 2.0 GiB"],
            OutOfMemory,
            "OutOfMemoryError: CUDA out of memory",
            "fewer slots",
        ),
        (
            [
                "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig",
                UNKNOWN,
            ],
            EngineStartFailed,
            "model type `nosuch`",
            "does not know the model's architecture",
        ),
        (
            ["vllm serve: error: argument --dtype: invalid choice: 'nosuch' (choose from 'auto')"],
            EngineStartFailed,
            "argument --dtype: invalid choice",
            "option args",
        ),
        (
            ["ImportError: libnuma.so.1: cannot open shared object file: No such file or directory"],
            EngineStartFailed,
            "libnuma.so.1",
            "corral runtimes install vllm",
        ),
        (
            ["safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata"],
            EngineStartFailed,
            "SafetensorError",
            "damaged",
        ),
        (["nothing that anybody knows"], EngineStartFailed, "nothing that anybody knows", "Its log"),
        ([], EngineStartFailed, "it printed nothing", "Its log"),
    ],
)
def test_a_failure_is_told_by_the_line_that_decides(log, kind, said, hint):
    error = diagnose("The engine of 'm'", "exited with code 1", log)
    assert type(error) is kind
    assert error.message.startswith("The engine of 'm' exited with code 1: ")
    assert said in error.message
    assert "WorkerProc" not in error.message
    assert hint in error.hint


def test_a_kill_without_a_word_is_about_memory():
    reason = "was killed by SIGKILL, perhaps by the system for want of memory"
    assert type(diagnose("It", reason, ["loading"])) is OutOfMemory


def test_long_words_are_cut():
    assert len(diagnose("It", "exited", ["ValueError: " + "x" * 5000]).message) < 500
