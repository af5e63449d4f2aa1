"""What a model can do, read from its files; what its template takes, found out by rendering it."""

import io
import json

import pytest

from corral.catalog import _rendering, capabilities, formats, gguf, prompting
from corral.catalog.prompting import Template
from corral.domain.models import Capability as Can
from corral.domain.models import FileEntry
from corral.errors import CorruptModel
from support import models, templates

WRITES = {Can.COMPLETION, Can.JSON_SCHEMA}
ALL = ["system", "developer", "user", "assistant", "tool"]

LLAMA2 = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}\
{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}\
{% set system_message = false %}{% endif %}{% for message in loop_messages %}\
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
{% if loop.index0 == 0 and system_message %}{% set content = '<<SYS>>' + system_message + message['content'] %}\
{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}\
{{ '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}\
{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""

GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}\
{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% if message['role'] == 'assistant' %}\
{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}\
{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"""

QWEN = """{%- if tools %}
    {{- '<|im_start|>system\n' }}{%- if messages[0].role == 'system' %}{{- messages[0].content }}{%- endif %}
    {%- for tool in tools %}{{- "\n" }}{{- tool | tojson }}{%- endfor %}{{- "<|im_end|>\n" }}
{%- endif %}
{%- set ns = namespace(last=messages|length - 1) %}
{%- for message in messages %}
    {%- if message.role == "tool" %}
        {{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response>' }}
        {%- continue %}
    {%- endif %}
    {%- if message.role not in ["user", "system", "assistant"] %}{{- raise_exception("no such role") }}{%- endif %}
    {%- generation %}{{- '<|im_start|>' + message.role + '\n' + message.content }}{%- endgeneration %}
    {%- if message.tool_calls %}{%- for call in message.tool_calls %}
        {{- call.function.arguments | tojson(indent=2, ensure_ascii=False) }}{%- endfor %}{%- endif %}
{%- endfor %}
{{- strftime_now("%Y") }}"""

PARTS = """{% for m in messages %}{{ m.role }}: {% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}\
{% elif c.type == 'image' %}<image>{% endif %}{% endfor %}{% endfor %}"""

TEMPLATES = {
    "chatml": (models.CHATML, ALL, False),
    "one that writes any role and no tools": (
        "{% for m in messages %}{{ m.role }}{{ m.content }}{% endfor %}",
        ALL,
        False,
    ),
    "llama 2": (LLAMA2, ["system", "user", "assistant"], False),
    "gemma": (GEMMA, ["user", "assistant"], False),
    "qwen": (QWEN, ["system", "user", "assistant", "tool"], True),
    "parts": (PARTS, ALL, False),
    "parts and tools": (f"{{{{ tools | tojson }}}}{PARTS}", ALL, True),
    "tools must not be there": (
        "{% if tools is defined %}{% for t in tools %}{{ t.function.name }}{% endfor %}{% endif %}" + models.CHATML,
        ALL,
        True,
    ),
    "documents must not be there": (
        "{% if documents is defined %}{{ documents | length }}{% endif %}{{ messages[-1].content }}",
        ["user", "tool"],
        False,
    ),
    "the last message only": ("{{ messages[-1].content }}", ["user", "tool"], False),
    "names the system only to drop it": (
        "{% for m in messages %}{% if m.role != 'system' %}{{ m.content }}{% endif %}{% endfor %}",
        ["developer", "user", "assistant", "tool"],
        False,
    ),
    "speaks of tools and shows none": (
        "{% if tools %}You have tools.{% endif %}{{ messages[0].content }}{{ messages[-1].content }}",
        ["system", "developer", "user", "tool"],
        False,
    ),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_tells_what_chats_can_hold(name):
    text, roles, tools = TEMPLATES[name]
    answer = _rendering.try_out(Template(text).job())
    assert answer == {"roles": roles, "tools": tools, "error": None}


def test_the_template_for_tools_counts_for_tools():
    tools = "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}{{ messages[0].content }}"
    assert _rendering.try_out(Template(models.CHATML, tools).job())["tools"]


def test_special_tokens_are_known():
    text = "{% if bos_token != '<<' %}{{ raise_exception('bos') }}{% endif %}{{ messages[0].content }}"
    assert _rendering.try_out(Template(text, tokens=(("bos_token", "<<"),)).job())["error"] is None
    assert "bos" in _rendering.try_out(Template(text).job())["error"]


def test_lines_are_trimmed_as_the_models_were_taught():
    trial = _rendering.Trial("  {% if true %}\nx\n  {% endif %}\ny", {})
    assert trial.render([]) == "x\ny"
    assert _rendering.Trial("{{ {'b': 'é', 'a': 1} | tojson(sort_keys=true) }}", {}).render([]) == '{"a": 1, "b": "é"}'


QUICKLY_REFUSED = {
    "syntax": "{% if %}",
    "a long range": "{% for i in range(10**9) %}x{% endfor %}",
    "a way out": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "another way out": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "changing what it is given": "{{ messages.append(1) }}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "deep": "{{ " + "(" * 4000 + "1" + ")" * 4000 + " }}",
    "a file": "{% include '/etc/passwd' %}",
    "much": "{% for i in range(9999) %}{{ 'x' * 999 }}{% endfor %}",
    "nothing": "",
    "not what the user says": "hello",
    "an error of its own": "{{ raise_exception('no\nway\x1b[31m') }}",
    "a wrong sum": "{{ 1 / 0 }}",
}


@pytest.mark.parametrize("name", QUICKLY_REFUSED)
def test_a_template_that_takes_nothing_says_why(name):
    answer = _rendering.try_out(Template(QUICKLY_REFUSED[name]).job())
    assert (answer["roles"], answer["tools"]) == ([], False)
    assert answer["error"]
    assert answer["error"].isprintable()
    assert len(answer["error"]) < 300


def header(**changes):
    data = models.gguf(**changes)
    return gguf.parse(io.BytesIO(data), len(data))


def of(header, defaults=None, *, sees=False):
    return capabilities.of_shape(formats.Shape("gguf", (), header=header, sees=sees), defaults or {}, templates.probe)


def test_a_base_model_completes():
    found = of(header(drop=["tokenizer.chat_template"]))
    assert found.capabilities == WRITES
    assert found.facts["has_chat_template"] is False
    assert "allowed_roles" not in found.facts


def test_a_gguf_tells_what_it_is():
    found = of(
        header(
            general__languages=["en", "de", "\x1b[31m"],
            general__sampling__temp=0.25,
            general__sampling__top_k=20,
            general__sampling__top_p="high",
            general__sampling__min_p=float("nan"),
            general__sampling__penalty_repeat=float("inf"),
            general__sampling__mirostat=True,
        )
    )
    assert found.capabilities == WRITES | {Can.CHAT, Can.SYSTEM_ROLE}
    assert found.facts["allowed_roles"] == ALL
    assert found.facts["languages"] == ["en", "de"]
    assert found.facts["sampling"] == {"temperature": 0.25, "top_k": 20}
    assert found.facts["chat_template"] == models.CHATML
    assert found.facts["licence"] == "mit"


def test_a_pinned_template_counts_instead():
    found = of(header(), {"chat_template": QWEN})
    assert Can.TOOLS in found.capabilities
    assert "chat_template" not in found.facts


def test_a_template_that_fails_leaves_a_model_that_completes():
    found = of(header(tokenizer__chat_template="{{ 1 / 0 }}"))
    assert found.capabilities == WRITES
    assert found.facts["allowed_roles"] == []
    assert "division" in found.facts["template_error"]


def test_a_template_for_tools_beside_the_other():
    tools = "{{ tools }}{{ messages[0].content }}"
    changes = {"tokenizer.chat_template.tool_use": tools}
    assert Can.TOOLS in of(header(**changes)).capabilities


def test_a_projector_gives_sight():
    assert Can.VISION in of(header(), sees=True).capabilities
    assert formats.is_projector(header(general__architecture="clip"))
    assert formats.is_projector(header(general__type="mmproj"))
    assert not formats.is_projector(header())


@pytest.mark.parametrize("changes", [{"general__architecture": "bert"}, {"llama__pooling_type": 1}])
def test_encoders_only_embed(changes):
    found = of(header(**changes))
    assert found.capabilities == {Can.EMBEDDINGS}
    assert "allowed_roles" not in found.facts


def test_no_pooling_is_no_encoder():
    assert of(header(llama__pooling_type=0)).capabilities > WRITES


def test_a_template_is_tried_once():
    asked = []

    def probe(template):
        asked.append(template)
        return prompting.Prompting(("user",), tools=True)

    shape = formats.Shape("gguf", (), header=header())
    assert capabilities.of_shape(shape, {}, probe).capabilities == WRITES | {Can.CHAT, Can.TOOLS}
    assert asked == [Template(models.CHATML)]


# Snapshots


@pytest.fixture
def read(tmp_path):
    """What is found in a snapshot of those files."""

    def found(files):
        items = []
        for name, data in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            items.append(formats.inspect(path, FileEntry(name, len(data), "0")))
        return capabilities.of_shape(formats.assemble(items), {}, templates.probe)

    return found


def config(**changes):
    return json.dumps(json.loads(models.snapshot()["config.json"]) | changes).encode()


def test_a_snapshot_tells_what_it_is(read):
    found = read(models.snapshot())
    assert found.capabilities == WRITES | {Can.CHAT, Can.SYSTEM_ROLE}
    assert found.facts == {
        "architecture": "llama",
        "architectures": ["LlamaForCausalLM"],
        "context_length": 2048,
        "embedding_length": 8,
        "block_count": 2,
        "head_count": 4,
        "head_count_kv": 2,
        "vocab_size": 9,
        "parameters": 80,
        "dtypes": {"BF16": 144, "F32": 32},
        "quantization": "BF16",
        "has_chat_template": True,
        "languages": ["en", "de"],
        "licence": "apache-2.0",
        "sampling": {"temperature": 0.6, "top_p": 0.9},
        "allowed_roles": ALL,
        "chat_template": models.CHATML,
    }


@pytest.mark.parametrize(
    ("changes", "able"),
    [
        ({"modules__json": b"[]"}, {Can.EMBEDDINGS}),
        ({"config__json": config(model_type="bert", architectures=["BertModel"])}, {Can.EMBEDDINGS}),
        ({"config__json": config(architectures=["BertForSequenceClassification"])}, set()),
        ({"config__json": config(model_type="whisper", architectures=["WhisperForConditionalGeneration"])}, set()),
        ({"config__json": config(architectures=["LlamaModel"])}, set()),
        ({"config__json": config(architectures=None)}, WRITES | {Can.CHAT, Can.SYSTEM_ROLE}),
        ({"config__json": config(architectures=None), "tokenizer_config__json": None}, set()),
        ({"tokenizer_config__json": None}, WRITES),
        ({"tokenizer_config__json": b"broken {"[::-1]}, WRITES),
        (
            {"config__json": config(architectures=["XForConditionalGeneration"], vision_config={})},
            WRITES | {Can.CHAT, Can.SYSTEM_ROLE, Can.VISION},
        ),
    ],
)
def test_a_snapshot_tells_what_it_can_do(read, changes, able):
    assert read(models.snapshot(**changes)).capabilities == able


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"chat_template__jinja": GEMMA.encode()}, GEMMA),
        (
            {"tokenizer_config__json": b"{}", "chat_template__json": json.dumps({"chat_template": GEMMA}).encode()},
            GEMMA,
        ),
        (
            {
                "tokenizer_config__json": json.dumps(
                    {
                        "chat_template": [
                            {"name": "default", "template": GEMMA},
                            {"name": "tool_use", "template": QWEN},
                            7,
                        ]
                    }
                ).encode()
            },
            GEMMA,
        ),
    ],
)
def test_a_template_may_stand_in_several_places(read, changes, text):
    found = read(models.snapshot(**changes))
    assert found.facts["chat_template"] == text
    assert found.facts["allowed_roles"] == ["user", "assistant"]
    assert (Can.TOOLS in found.capabilities) == ("tool_use" in str(changes))


@pytest.mark.parametrize(
    ("card", "languages", "licence"),
    [
        (b"# no matter", None, None),
        (b"---\nlanguage: fr\nlicense: mit # ours\n---\n", ["fr"], "mit"),
        (b"---\nlanguage: [en, 'zh']\nlicense: other\nlicense_name: llama3.2\n---", ["en", "zh"], "llama3.2"),
        (b'---\r\nlanguage:\r\n  - en\r\n  - "no"\r\ntags:\r\n- x\r\n---\r\n', ["en", "no"], None),
        (b"---\nlanguage: *a\nlicense: [[[[\n---\n", None, None),
        (b"---\nlicense: other\n---\n", None, "other"),
        (b"---\nlanguage:\n---\n", None, None),
    ],
)
def test_a_card_tells_languages_and_licence(read, card, languages, licence):
    facts = read(models.snapshot(README__md=card)).facts
    assert (facts.get("languages"), facts.get("licence")) == (languages, licence)


@pytest.mark.parametrize(
    ("changes", "key", "value"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantization", "gptq-4bit"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization", "fp8"),
        ({"max_position_embeddings": None, "text_config": {"max_position_embeddings": 77}}, "context_length", 77),
        ({"max_position_embeddings": "2048"}, "context_length", None),
        ({"max_position_embeddings": True}, "context_length", None),
        ({"max_position_embeddings": -1, "n_ctx": 5}, "context_length", 5),
        ({"model_type": 7}, "architecture", "unknown"),
    ],
)
def test_only_values_that_can_be_are_taken(read, changes, key, value):
    assert read(models.snapshot(config__json=config(**changes))).facts.get(key) == value


@pytest.mark.parametrize(
    ("text", "sampling"),
    [
        ({"temperature": 0.6, "do_sample": False}, None),
        ({"temperature": "0.6", "top_k": True, "top_p": 1}, {"top_p": 1}),
        ({"repetition_penalty": 1.1, "min_p": 1 << 30}, {"repeat_penalty": 1.1}),
        ([], None),
    ],
)
def test_sampling_is_taken_where_it_is_meant(read, text, sampling):
    data = json.dumps(text).encode()
    assert read(models.snapshot(generation_config__json=data)).facts.get("sampling") == sampling


def test_a_snapshot_without_a_sound_config_is_refused(read):
    with pytest.raises(CorruptModel, match=r"config\.json"):
        read(models.snapshot(config__json=b"{nonsense"))
