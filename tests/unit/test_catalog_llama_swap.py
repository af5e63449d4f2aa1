"""What a configuration of llama-swap becomes, item by item."""

import pytest
import yaml

from corral.catalog.llama_swap import plan_llama_swap
from corral.cli.configuring import added
from corral.config import load
from corral.domain.options import parse_options
from corral.errors import ConfigError
from corral.runtimes.command import CommandOptions
from corral.runtimes.openai import OpenAIOptions

REALISTIC = r"""
healthCheckTimeout: 500
logLevel: info
startPort: 10001
globalTTL: 120
macros:
  "latest-llama": >
    /opt/llama.cpp/llama-server
    --port ${PORT}
  "default_ctx": 4096
  "args": "--ctx-size ${default_ctx} --jinja"
  "models": "${env.HOME}/models"
models:
  "qwen2.5-coder":
    macros: { "default_ctx": 16384 }
    cmd: |
      # the macro comes from above
      ${latest-llama} ${args} \
      --model ${models}/qwen 2.gguf
      --alias '${MODEL_ID} #1'
    name: "Qwen"
    aliases: ["gpt-4o-mini", { id: "gpt-4o" }]
    env: ["CUDA_VISIBLE_DEVICES=0,1", "nonsense"]
    checkEndpoint: /custom
    ttl: 60
    useModelName: "qwen/coder"
    concurrencyLimit: 4
    unlisted: true
    filters:
      stripParams: "temperature, top_p, model"
      setParams: { top_k: 20, chat_template_kwargs: { effort: "${default_ctx}" } }
      setParamsByID: {}
  "small": { cmd: "llama-server --port ${PORT} -m small.gguf", ttl: 0, proxy: "http://localhost:${PORT}" }
  "vllm":
    proxy: "http://127.0.0.1:8999"
    cmd: docker run --name vllm --rm -p 8999:8000 image
    cmdStop: docker stop vllm
    checkEndpoint: none
    metadata: { a: 1 }
  "no port": { cmd: "x ${PORT}" }
  "no-port": { cmd: "llama-server -m x.gguf" }
  "undefined": { cmd: "server ${PORT} ${nowhere}" }
  "no-env": { cmd: "server ${PORT} ${env.NOT_THERE}" }
  "https": { cmd: "server", proxy: "https://elsewhere" }
  "quotes": { cmd: "server ${PORT} 'open" }
  "empty": {}
groups:
  big: { swap: true, exclusive: true, members: ["qwen2.5-coder", "gone"] }
  tools: { swap: false, exclusive: false, persistent: true, members: ["small"] }
hooks: { on_startup: { preload: ["small", "absent"] } }
apiKeys: ["sk-secret"]
peers: {}
"""
HOME = {"HOME": "/users/me"}


@pytest.fixture
def planned(tmp_path):
    def plan(text, env=HOME):
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return plan_llama_swap(path, env)

    return plan


def test_a_realistic_file(planned):
    plan = planned(REALISTIC)
    assert plan.models == {
        "qwen2.5-coder": {
            "runtime": "command",
            "options": {
                "cmd": [
                    *("/opt/llama.cpp/llama-server", "--port", "${PORT}", "--ctx-size", "16384", "--jinja"),
                    *("--model", "/users/me/models/qwen", "2.gguf", "--alias", "qwen2.5-coder #1"),
                ],
                "health": "/custom",
                "upstream_model": "qwen/coder",
                "env": {"CUDA_VISIBLE_DEVICES": "0,1"},
                "strip": ["temperature", "top_p"],
                "set": {"top_k": 20, "chat_template_kwargs": {"effort": "16384"}},
            },
            "idle_timeout": 60,
            "concurrency": 4,
            "aliases": ["gpt-4o-mini", "gpt-4o"],
        },
        "small": {
            "runtime": "command",
            "options": {"cmd": ["llama-server", "--port", "${PORT}", "-m", "small.gguf"]},
            "idle_timeout": "never",
            "concurrency": 10,
            "preload": True,
        },
        "vllm": {
            "runtime": "command",
            "options": {
                "cmd": ["docker", "run", "--name", "vllm", "--rm", "-p", "8999:8000", "image"],
                "url": "http://127.0.0.1:8999",
                "health": "none",
                "cmd_stop": ["docker", "stop", "vllm"],
            },
            "idle_timeout": 120,
            "concurrency": 10,
        },
    }
    assert plan.groups == {
        "big": {"members": ["qwen2.5-coder"], "swap": True, "exclusive": True, "persistent": False},
        "tools": {"members": ["small"], "swap": False, "exclusive": False, "persistent": True},
        "llama-swap": {"members": ["vllm"], "swap": True, "exclusive": True, "persistent": False},
    }


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("qwen2.5-coder", "`unlisted`"),
        ("qwen2.5-coder", "`name`"),
        ("qwen2.5-coder", "NAME=value"),
        ("qwen2.5-coder", "setParamsByID"),
        ("vllm", "metadata"),
        ("no port", "cannot name a model"),
        ("no-port", "${PORT}"),
        ("undefined", "${nowhere}"),
        ("no-env", "no NOT_THERE"),
        ("https", "plain HTTP"),
        ("quotes", "No closing quotation"),
        ("empty", "no `cmd`"),
        ("big", "'gone'"),
        ("absent", "preloaded"),
        ("apiKeys", "Corral's own"),
        ("startPort", "anew"),
        ("logLevel", "Not taken over"),
        ("healthCheckTimeout", "load_timeout: 500"),
    ],
)
def test_what_is_left_out_is_said(planned, name, why):
    plan = planned(REALISTIC)
    assert any(what == name and why in reason for what, reason in plan.skipped), plan.skipped
    assert "sk-secret" not in repr(plan)


def test_what_is_planned_is_a_configuration_whose_options_hold(planned, tmp_path):
    plan = planned(REALISTIC)
    text = added(added("# mine\n", plan.models, "x"), plan.groups, "x", "groups")
    (tmp_path / "corral.yaml").write_text(text)
    settings = load({"HOME": str(tmp_path)}, None, tmp_path / "corral.yaml")
    assert settings.models["small"].idle_timeout == float("inf")
    assert settings.models["small"].preload
    assert settings.groups["tools"].persistent
    for model in settings.models.values():
        parse_options(CommandOptions, model.options, "command")


def test_a_proxy_with_a_path_says_where_the_dialect_begins(planned):
    plan = planned("models: {a: {cmd: 'server ${PORT}', proxy: 'http://127.0.0.1:${PORT}/api/'}}")
    assert plan.models["a"]["options"]["base_path"] == "/api/v1"
    assert plan.models["a"]["options"]["url"] == "http://127.0.0.1:${PORT}"


def test_peers_are_models_elsewhere(planned):
    plan = planned(
        """
models: {here: {cmd: 'server ${PORT}'}}
macros: {the_key: "${env.OPENROUTER_API_KEY}"}
peers:
  lan: {proxy: "http://192.0.2.7:8080", models: [there, here]}
  open-router:
    proxy: https://openrouter.example/api/
    apiKey: ${the_key}
    models: [vendor/model]
    filters: {stripParams: "top_k, model", setParams: {transforms: []}, other: 1}
    timeout: 3
  clear: {proxy: "http://192.0.2.8", apiKey: sk-secret, models: [secretive]}
  bad: {proxy: "http://me:sk-secret@192.0.2.8", models: [x]}
""",
        {"OPENROUTER_API_KEY": "sk-secret"},
    )
    assert plan.models["there"] == {
        "runtime": "openai",
        "options": {"base_url": "http://192.0.2.7:8080/v1", "upstream_model": "there"},
    }
    assert plan.models["vendor/model"]["options"] == {
        "base_url": "https://openrouter.example/api/v1",
        "api_key_env": "OPENROUTER_API_KEY",
        "drop": ["top_k"],
        "extra": {"transforms": []},
        "upstream_model": "vendor/model",
    }
    assert plan.models["secretive"]["options"]["api_key_env"] == "CLEAR_API_KEY"
    assert plan.models["here"]["runtime"] == "command"
    assert plan.groups["llama-swap"]["members"] == ["here"], "what is elsewhere takes no memory here"
    said = {(name, reason.split()[0]) for name, reason in plan.skipped}
    assert {("peers.lan", "'here'"), ("peers.clear", "Its"), ("peers.bad", "Its")} <= said
    assert ("peers.open-router", "`setParams`") in said
    assert "sk-secret" not in repr(plan)
    for name in ("there", "vendor/model", "secretive"):
        parse_options(OpenAIOptions, plan.models[name]["options"], "openai")


def test_with_a_matrix_no_group_is_made(planned):
    plan = planned("models: {a: {cmd: 'server ${PORT}'}}\nmatrix: {}")
    assert plan.groups == {}
    assert ("matrix" in dict(plan.skipped)) is True


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "not YAML"), ("a: 1", "no mapping `models`"), ("models: []", "no mapping"), ("", "no mapping")],
)
def test_what_is_no_configuration(planned, text, says):
    with pytest.raises(ConfigError, match=says):
        planned(text)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        plan_llama_swap(tmp_path / "no.yaml", {})


@pytest.mark.parametrize("value", ["null", "1", "text", "[1, {a: 2}]", "{a: [b]}", "true", "-1", "'${PORT}'"])
def test_whatever_stands_there_it_is_planned_or_refused_with_a_reason(planned, value):
    keys = ["cmd", "cmdStop", "proxy", "aliases", "env", "ttl", "checkEndpoint", "useModelName", "filters", "macros"]
    for key in [*keys, "concurrencyLimit", "unlisted"]:
        plan = planned(
            f"models: {{a: {{cmd: 'server ${{PORT}}', {key}: {value}}}}}"
            if key != "cmd"
            else f"models: {{a: {{cmd: {value}}}}}"
        )
        assert plan.models or plan.skipped
    for key in ["groups", "hooks", "macros", "globalTTL", "healthCheckTimeout"]:
        assert planned(f"models: {{a: {{cmd: 'server ${{PORT}}'}}}}\n{key}: {value}").models or True


def test_the_file_need_not_be_a_string_of_models(planned):
    assert planned(yaml.safe_dump({"models": {1: {"cmd": "server ${PORT}"}}})).models.keys() == {"1"}
