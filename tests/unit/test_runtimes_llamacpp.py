"""The decisions of the llama.cpp runtime: options, context, forced tool calls, facts and diagnoses."""

from pathlib import Path

import pytest

from corral.domain.models import Capability, FileEntry, Revision
from corral.domain.options import parse_options
from corral.domain.ports import LaunchSpec
from corral.errors import InvalidRequest, OutOfMemory
from corral.runtimes._llamacpp.conversation import opening_adapter, tool_adapter
from corral.runtimes._llamacpp.devices import Ground
from corral.runtimes._llamacpp.diagnosis import diagnose
from corral.runtimes.llamacpp import LlamaCpp, LlamaCppOptions, _launch_data, read_facts, slot_context

WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
TIME = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}


def spec(options=None, capabilities=(), **facts):
    files = (FileEntry("a.gguf", 1, "00"),)
    revision = Revision("file:a.gguf", "gguf", files, capabilities=frozenset(capabilities), facts=facts)
    return LaunchSpec("m", options or LlamaCppOptions(), {"model": Path("/models/a.gguf")}, revision)


@pytest.mark.parametrize(
    "values",
    [
        {"context": 0},
        {"slots": 0},
        {"threads": -1},
        {"gpu_layers": -1},
        {"batch": 0},
        {"micro_batch": 0},
        {"prompt_cache_mib": -1},
        {"temperature": -0.5},
        {"seed": -1},
        {"mirostat": 3},
        {"stop": "text"},
        {"opening": [{"role": "user"}]},
        {"cache_type_k": "q3"},
        {"pooling": "mean", "embeddings": False},
        {"pooling": "median", "embeddings": True},
        {"rerank": True, "embeddings": True},
        {"rerank": True, "pooling": "mean"},
        {"cache_type_v": "q8_0", "flash_attention": False},
        {"poll": 101},
        {"threads_batch": 0},
        {"context": 1_000_000_000, "slots": 4},
        {"micro_batch": 4096},
        {"device": "the best"},
        {"device": "cuda:"},
        {"gpu_layers": 3, "device": "cpu"},
        {"split_mode": "column"},
        {"tensor_split": [0, 0]},
        {"tensor_split": [1, -1]},
        {"main_gpu": -1},
    ],
)
def test_a_bad_option_is_refused_by_name(values):
    with pytest.raises(InvalidRequest) as caught:
        parse_options(LlamaCppOptions, values, "llamacpp")
    assert caught.value.param == next(iter(values))


@pytest.mark.parametrize(
    ("asked", "trained", "context"),
    [
        (None, None, 4096),
        (None, 2048, 2048),
        (None, 32768, 4096),
        (16384, 32768, 16384),
        (16384, 8192, 8192),
        (512, None, 512),
        (None, 0, 4096),
        (None, "unknown", 4096),
    ],
)
def test_a_slot_never_holds_more_than_the_model_was_trained_for(asked, trained, context):
    options = LlamaCppOptions(context=asked)
    facts = {} if trained is None else {"context_length": trained}
    assert slot_context(options, spec(options, **facts)) == context


def test_a_model_of_unknown_training_gets_what_was_asked():
    assert slot_context(LlamaCppOptions(), LaunchSpec("m", LlamaCppOptions())) == 4096


def test_the_child_is_told_all_it_needs(tmp_path):
    template, adapter, projector = tmp_path / "chat.jinja", tmp_path / "style.gguf", tmp_path / "eyes.gguf"
    template.write_text("{{ messages }}")
    adapter.touch()
    projector.touch()
    options = LlamaCppOptions(chat_template=str(template), lora={str(adapter): 0.5}, mmproj=projector, slots=2)
    data = _launch_data(spec(options, context_length=1024), "key", Ground())
    assert data["chat_template"] == "{{ messages }}"
    assert data["lora"] == {str(adapter): 0.5}
    assert data["mmproj"] == str(projector)
    assert (data["model"], data["context"], data["slots"], data["key"]) == ("/models/a.gguf", 1024, 2, "key")


def test_a_template_may_be_given_as_text():
    assert _launch_data(spec(LlamaCppOptions(chat_template="{{ x }}")), "key", Ground())["chat_template"] == "{{ x }}"
    assert _launch_data(spec(), "key", Ground())["chat_template"] is None


def test_the_installed_projector_is_used(tmp_path):
    projector = tmp_path / "eyes.gguf"
    projector.touch()
    launch = LaunchSpec("m", LlamaCppOptions(), {"model": Path("a"), "mmproj": projector})
    assert _launch_data(launch, "key", Ground())["mmproj"] == str(projector)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        (LlamaCppOptions(chat_template="no/such/file"), "chat_template"),
        (LlamaCppOptions(lora={"no/such/file": 1.0}), "lora"),
        (LlamaCppOptions(mmproj=Path("no/such/file")), "mmproj"),
    ],
)
def test_a_file_that_is_not_there_is_named_before_anything_starts(options, param):
    with pytest.raises(InvalidRequest, match="no/such/file") as caught:
        _launch_data(spec(options), "key", Ground())
    assert caught.value.param == param


def body(choice, **more):
    return {"messages": [], "tools": [TIME, WEATHER], "tool_choice": choice, **more}


def test_a_required_call_opens_with_the_call():
    asked = body("required")
    assert tool_adapter("{% if forced_tool %}")("/chat/completions", asked)
    assert asked["chat_template_kwargs"] == {"forced_tool": True}
    assert asked["tool_choice"] == "required"
    assert asked["parallel_tool_calls"] is False
    assert asked["tools"] == [TIME, WEATHER]


def test_a_named_function_is_the_only_one_on_offer():
    asked = body({"type": "function", "function": {"name": "get_weather"}}, parallel_tool_calls=True)
    assert tool_adapter("forced_tool")("/chat/completions", asked)
    assert asked["tools"] == [WEATHER]
    assert asked["tool_choice"] == "required"
    assert asked["parallel_tool_calls"] is True


def test_a_template_that_does_not_know_the_word_is_not_given_it():
    asked = body("required", chat_template_kwargs={"a": 1})
    assert tool_adapter("{{ messages }}")("/chat/completions", asked)
    assert asked["chat_template_kwargs"] == {"a": 1}


@pytest.mark.parametrize(
    ("given", "sent"), [({}, []), ({"stop": "a"}, ["a"]), ({"stop": ["a", "b"]}, ["a", "b"]), ({"stop": None}, [])]
)
def test_a_single_call_ends_the_answer(given, sent):
    for choice in ("required", "auto"):
        asked = body(choice, parallel_tool_calls=False, **given)
        assert tool_adapter("… </tool_call>")("/chat/completions", asked)
        assert asked["stop"] == [*sent, "</tool_call>"]


def test_many_calls_may_be_asked_for():
    asked = body("required", parallel_tool_calls=True)
    assert tool_adapter("… </tool_call>")("/chat/completions", asked)
    assert "stop" not in asked


def test_the_clients_template_variables_are_kept():
    asked = body("required", chat_template_kwargs={"a": 1})
    tool_adapter("forced_tool")("/chat/completions", asked)
    assert asked["chat_template_kwargs"] == {"a": 1, "forced_tool": True}


@pytest.mark.parametrize("form", [None, "json_object", {"type": "text"}])
def test_a_free_answer_may_think(form):
    asked = {"messages": [], "response_format": form}
    assert not tool_adapter("forced_tool")("/chat/completions", asked)
    assert "reasoning_format" not in asked


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/chat/completions", body("auto")),
        ("/chat/completions", body("none")),
        ("/chat/completions", {"messages": [], "tools": [TIME]}),
        ("/chat/completions", {"messages": [], "tool_choice": "required"}),
        ("/chat/completions", {"messages": [], "tool_choice": "required", "tools": []}),
        ("/chat/completions", {"messages": [], "tool_choice": "required", "tools": "x"}),
        ("/completions", body("required")),
        ("/chat/completions", body("none", parallel_tool_calls=False)),
        ("/chat/completions", body("auto", parallel_tool_calls=True)),
    ],
)
def test_everything_else_passes_untouched(path, asked):
    before = repr(asked)
    assert not tool_adapter("forced_tool </tool_call>")(path, asked)
    assert repr(asked) == before


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"type": "function", "function": {"name": "get_wether"}}, "'get_wether', which is not among the tools"),
        ({"type": "function"}, "names no function"),
        ({"type": "function", "function": {"name": 3}}, "names no function"),
        ({"type": "other", "function": {"name": "get_time"}}, "names no function"),
    ],
)
def test_a_choice_that_cannot_be_met_is_refused(choice, says):
    asked = body(choice)
    asked["tools"].append("not a tool")
    with pytest.raises(InvalidRequest, match=says) as caught:
        tool_adapter("forced_tool")("/chat/completions", asked)
    assert caught.value.param == "tool_choice"


def test_facts_are_what_the_engine_says():
    props = {
        "default_generation_settings": {"n_ctx": 2048},
        "total_slots": 4,
        "modalities": {"vision": True},
        "chat_template_caps": {"supports_tools": True, "supports_tool_calls": True, "supports_system_role": True},
    }
    facts = read_facts(props, "cuda:0", spec(LlamaCppOptions(embeddings=True)))
    assert (facts.context, facts.slots, facts.device) == (2048, 4, "cuda:0")
    assert facts.capabilities == frozenset(Capability) - {Capability.RERANK}


def test_an_engine_that_says_little_is_not_credited_with_more():
    facts = read_facts({"chat_template_caps": {"supports_tools": True}}, "cpu", spec())
    assert (facts.context, facts.slots) == (None, None)
    assert facts.capabilities == {Capability.CHAT, Capability.COMPLETION, Capability.JSON_SCHEMA}


SAYS_ALL = {"chat_template_caps": {"supports_tools": True, "supports_tool_calls": True, "supports_system_role": True}}
WRITES = {Capability.COMPLETION, Capability.JSON_SCHEMA}
TALKS = {Capability.CHAT, Capability.TOOLS, Capability.SYSTEM_ROLE}


@pytest.mark.parametrize(
    ("known", "template", "found"),
    [
        ({Capability.EMBEDDINGS}, None, {Capability.EMBEDDINGS}),
        (WRITES, None, WRITES),
        (WRITES, "{{ mine }}", WRITES | TALKS),
        (WRITES | {Capability.CHAT}, None, WRITES | TALKS),
        ((), None, WRITES | TALKS),
    ],
)
def test_an_engine_is_not_credited_with_what_its_model_cannot_do(known, template, found):
    launch = spec(LlamaCppOptions(chat_template=template), known)
    assert read_facts(SAYS_ALL, "cpu", launch).capabilities == found


@pytest.mark.parametrize(
    ("options", "known", "on"),
    [
        ({}, (), False),
        ({}, {Capability.EMBEDDINGS}, True),
        ({"embeddings": False}, {Capability.EMBEDDINGS}, False),
        ({"embeddings": True}, (), True),
        ({"pooling": "cls"}, (), True),
    ],
)
def test_a_model_made_for_it_embeds_unasked(options, known, on):
    assert _launch_data(spec(LlamaCppOptions(**options), known), "key", Ground())["embeddings"] is on


CORRUPT = [
    "0.00.002 I srv    load_model: loading model '/blobs/ab'",
    "0.00.026 E llama_model_load: error loading model: tensor 'x' data is not within the file bounds, corrupted",
    "0.00.026 E llama_model_load_from_file_impl: failed to load model",
    "0.00.040 E srv    load_model: failed to load model, '/blobs/ab'",
    "0.00.040 E srv          init: exiting due to model loading error",
]


@pytest.mark.parametrize(
    ("reason", "log", "says", "hint"),
    [
        ("failed", CORRUPT, "failed: error loading model: tensor 'x' data", "install it again: corral rm"),
        ("failed", ["0.1 E gguf_init: failed to read key-value pairs"], "key-value pairs", "damaged"),
        ("failed", ["0.1 E gguf_init: invalid magic characters: '8?o?'"], "failed: invalid magic", "damaged"),
        ("failed", ["0.1 E llama: error loading model: unknown model architecture: 'new'"], "'new'", "--upgrade"),
        ("failed", ["0.1 E llama_init: V cache quantization requires flash_attn"], "V cache", "flash_attention"),
        ("failed", ["0.1 E gguf_init: failed to open GGUF file 'm' (Permission denied)"], "denied", "may not read"),
        ("failed", ["0.1 E gguf_init: failed to open GGUF file 'm' (No such file or directory)"], "No such", "is gone"),
        ("failed", ["0.1 E srv: error: Failed to load CLIP model from x"], "CLIP", "option mmproj"),
        ("was ended by SIGILL", [], "it printed nothing", "AVX2"),
        ("exited with code 1", ["Traceback", "ImportError: no"], "Traceback; ImportError: no", "log"),
    ],
)
def test_a_failed_start_names_the_cause_and_the_cure(reason, log, says, hint):
    error = diagnose("The engine of 'm'", reason, log)
    assert says in error.message
    assert hint in error.hint
    assert "/blobs/" not in error.message


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        ("failed", "0.1 E ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 9"),
        (
            "failed",
            "0.1 E llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache",
        ),
        ("failed", "0.1 E alloc_tensor_range: failed to allocate CUDA0 buffer of size 9"),
        ("failed", "0.1 E ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory"),
        ("failed", "0.1 E llama_model_load: error loading model: unable to allocate CUDA0 buffer"),
        ("failed", "0.1 E ggml_vulkan: vk::Device::allocateMemory: ErrorOutOfDeviceMemory"),
        ("failed", "0.1 E warning: failed to mlock 9-byte buffer: Cannot allocate memory"),
        ("was ended by SIGABRT", "terminate called after throwing an instance of 'std::bad_alloc'"),
        ("was killed by SIGKILL, perhaps by the system for want of memory", "loading"),
    ],
)
def test_too_little_memory_is_an_error_of_its_own(reason, line):
    error = diagnose("The engine of 'm'", reason, [line])
    assert isinstance(error, OutOfMemory)
    assert "fewer slots" in error.hint


@pytest.mark.parametrize("line", ["0.1 E llama: the file was allocated to another model", "reallocating nothing"])
def test_other_failures_are_not_taken_for_it(line):
    assert not isinstance(diagnose("The engine of 'm'", "failed", [line]), OutOfMemory)


@pytest.mark.parametrize(
    ("options", "known", "on"),
    [
        ({}, (), False),
        ({}, {Capability.RERANK}, True),
        ({"rerank": False}, {Capability.RERANK}, False),
        ({"embeddings": True}, {Capability.RERANK}, False),
        ({"pooling": "mean"}, {Capability.RERANK}, False),
        ({"rerank": True}, {Capability.EMBEDDINGS}, True),
        ({"pooling": "rank"}, (), True),
    ],
)
def test_a_model_made_for_it_ranks_and_then_does_nothing_else(options, known, on):
    launch = spec(LlamaCppOptions(**options), known)
    assert _launch_data(launch, "key", Ground())["rerank"] is on
    able = read_facts(SAYS_ALL, "cpu", launch).capabilities
    assert (able == {Capability.RERANK}) is on


def test_what_an_engine_wants_counts_all_that_it_is_given(tmp_path):
    adapter = tmp_path / "style.gguf"
    adapter.write_bytes(bytes(1000))
    runtime = LlamaCpp({})
    plain = runtime.demand(spec(LlamaCppOptions(), context_length=2048, embedding_length=576))
    assert (plain.context, plain.slots, plain.layers, plain.device, plain.splits) == (2048, 4, None, None, True)
    more = LlamaCppOptions(lora={str(adapter): 1.0, "no/such": 1.0}, tensor_split=(3.0, 1.0), device="cuda")
    wants = runtime.demand(spec(more, embedding_length=576))
    assert (wants.process - plain.process, wants.parallel, wants.device) == (1000, 2, "cuda")
    vectors = runtime.demand(spec(LlamaCppOptions(embeddings=True), embedding_length=576))
    assert vectors.process - plain.process == (2048 - 512) * 64 * 576
    narrow = runtime.demand(spec(LlamaCppOptions(embeddings=True, micro_batch=512), embedding_length=576))
    assert narrow.process == plain.process
    assert runtime.demand(spec(LlamaCppOptions(gpu_layers=0))).device == "cpu"


@pytest.mark.parametrize("kind", ["json_object", "json_schema"])
def test_an_answer_in_json_does_not_think_where_the_template_brings_the_think_block(kind):
    body = {"response_format": {"type": kind}}
    assert tool_adapter("… forced_tool …")("/chat/completions", body) is True
    assert body["reasoning_format"] == "none"
    asked = {"response_format": {"type": kind}, "reasoning_format": "deepseek"}
    tool_adapter("… forced_tool …")("/chat/completions", asked)
    assert asked["reasoning_format"] == "deepseek"


@pytest.mark.parametrize("body", [{}, {"response_format": {"type": "text"}}, {"response_format": "json"}])
def test_other_answers_are_left_alone(body):
    before = dict(body)
    assert tool_adapter("… forced_tool …")("/chat/completions", body) is False
    assert tool_adapter("plain")("/chat/completions", {"response_format": {"type": "json_object"}}) is False
    assert body == before


def test_the_child_is_told_only_what_is_said_of_sampling():
    data = _launch_data(spec(LlamaCppOptions(temperature=0.0, seed=7, stop=("a",))), "key", Ground())
    assert data["sampling"] == {"temperature": 0.0, "seed": 7}
    assert (data["stop"], data["max_tokens"]) == (("a",), None)


@pytest.mark.parametrize("role", ["system", "developer"])
def test_the_default_system_message_gives_way_to_the_client_s(role):
    asked = {"messages": [{"role": "user", "content": "Hi"}, {"role": role, "content": "Be short."}]}
    before = [*asked["messages"]]
    assert not opening_adapter(tool_adapter(""), "Be kind.")("/chat/completions", asked)
    assert asked["messages"] == before


def test_the_default_system_message_opens_a_conversation_without_one():
    asked = {"messages": [{"role": "user", "content": "Hi"}]}
    assert opening_adapter(tool_adapter(""), "Be kind.")("/chat/completions", asked)
    assert asked["messages"] == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(("path", "messages"), [("/completions", []), ("/chat/completions", "none"), ("/x", None)])
def test_what_is_no_conversation_gets_no_system_message(path, messages):
    asked = {"messages": messages}
    assert not opening_adapter(tool_adapter(""), "Be kind.")(path, asked)
    assert asked == {"messages": messages}


def test_without_a_default_system_message_nothing_is_added():
    adapt = tool_adapter("")
    assert opening_adapter(adapt, None) is adapt


@pytest.mark.parametrize(
    ("system", "said", "roles"),
    [
        ("S", ["user"], ["system", "user", "assistant", "user"]),
        (None, ["user"], ["user", "assistant", "user"]),
        ("S", ["system", "user"], ["system", "user", "assistant", "user"]),
        ("S", ["user", "system"], ["user", "assistant", "user", "system"]),
        ("S", [], ["system", "user", "assistant"]),
    ],
)
def test_the_opening_comes_after_system_messages_and_before_all_else(system, said, roles):
    opening = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    asked = {"messages": [{"role": role, "content": "…"} for role in said]}
    assert opening_adapter(tool_adapter(""), system, opening)("/chat/completions", asked)
    assert [message["role"] for message in asked["messages"]] == roles
