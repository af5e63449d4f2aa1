"""What a configuration of LiteLLM's proxy becomes, setting by setting."""

import json

import pytest
import yaml

from corral.catalog import _litellm_models
from corral.catalog.litellm import plan_litellm
from corral.cli.configuring import added
from corral.config import load
from corral.domain.options import parse_options
from corral.errors import ConfigError
from corral.routing import layout
from corral.runtimes.anthropic import AnthropicOptions
from corral.runtimes.gemini import GeminiOptions
from corral.runtimes.ollama import OllamaOptions
from corral.runtimes.openai import OpenAIOptions

OPTIONS = {"openai": OpenAIOptions, "anthropic": AnthropicOptions, "gemini": GeminiOptions, "ollama": OllamaOptions}
TEAM = """
model_list:
  - model_name: chat
    litellm_params:
      model: azure/big-eu
      api_base: https://eu.example.com/
      api_key: os.environ/AZURE_EU
      api_version: "2024-10-21"
      rpm: 600
  - model_name: chat
    litellm_params: {model: openai/gpt-4o, api_key: sk-very-secret, rpm: 200, timeout: 30, max_parallel_requests: 8}
    model_info: {input_cost_per_token: 2e-6, output_cost_per_token: 0.000008, mode: chat, supports_vision: true}
  - model_name: claude
    litellm_params:
      model: anthropic/claude-sonnet-4-5
      api_key: os.environ/ANTHROPIC_API_KEY
      max_tokens: 2000
      extra_headers: {Authorization: Bearer very-secret, x-team: blue}
  - model_name: flash
    litellm_params: {model: gemini/gemini-2.5-flash, temperature: 0.1}
    model_info: {max_input_tokens: 100000, access_groups: [beta]}
  - model_name: house
    litellm_params: {model: ollama_chat/llama3.2, api_base: os.environ/OLLAMA_AT, seed: 7, max_parallel_requests: 2}
  - model_name: cluster
    litellm_params:
      model: hosted_vllm/org/model
      api_base: http://127.0.0.1:8000/v1
      api_key: none
      temperature: 0.2
      extra_body: {top_k: 5, secret_word: very-secret}
      additional_drop_params: [seed]
  - {model_name: fire, litellm_params: {model: fireworks_ai/some-model}}
  - {model_name: bare, litellm_params: {model: gpt-4o-mini, litellm_credential_name: main}}
  - {model_name: cloud, litellm_params: {model: vertex_ai/gemini-2.5-pro, vertex_credentials: very-secret}}
  - {model_name: rock, litellm_params: {model: bedrock/claude, aws_secret_access_key: very-secret}}
  - {model_name: "openai/*", litellm_params: {model: "openai/*"}}
  - {model_name: lost, litellm_params: {model: hosted_vllm/x}}
  - {model_name: gone, litellm_params: {model: openai/x, api_base: os.environ/NOWHERE}}
  - {model_name: "a b", litellm_params: {model: openai/x}}
  - {litellm_params: {model: openai/x}}
credential_list:
  - {credential_name: main, credential_values: {api_key: os.environ/MAIN_KEY, api_base: "https://proxy.example.com/v1"}}
router_settings:
  routing_strategy: simple-shuffle
  num_retries: 2
  cooldown_time: 60
  allowed_fails: 3
  fallbacks: [{chat: [claude, flash]}, {claude: [chat]}, {nobody: [chat]}]
  model_group_alias: {gpt-4: chat, sonnet: {model: claude, hidden: true}, odd: nobody}
  redis_password: very-secret
litellm_settings:
  drop_params: true
  request_timeout: 120
  context_window_fallbacks: [{house: [flash]}]
  success_callback: [langfuse]
  cache: true
general_settings: {master_key: sk-very-secret, database_url: "postgresql://u:very-secret@h/d"}
environment_variables: {SOMETHING: very-secret}
"""
ENV = {"OLLAMA_AT": "http://127.0.0.1:11434", "AZURE_EU": "very-secret", "MAIN_KEY": "very-secret"}


@pytest.fixture
def planned(tmp_path):
    def plan(text, env=ENV):
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return plan_litellm(path, env)

    return plan


def one(planned, params, **more):
    plan = planned(yaml.safe_dump({"model_list": [{"model_name": "m", "litellm_params": params}], **more}))
    return plan, plan.models.get("m")


def test_a_teams_file(planned):
    plan = planned(TEAM)
    assert plan.models["chat-1"]["options"] == {
        "vendor": "azure",
        "base_url": "https://eu.example.com/openai/deployments/big-eu",
        "api_version": "2024-10-21",
        "api_key_env": "AZURE_EU",
        "upstream_model": "big-eu",
    }
    assert plan.models["chat-2"]["options"] == {
        "vendor": "openai",
        "api_key_env": "OPENAI_API_KEY",
        "upstream_model": "gpt-4o",
    }
    assert plan.models["claude"] == {
        "runtime": "anthropic",
        "options": {
            "upstream_model": "claude-sonnet-4-5",
            "api_key_env": "ANTHROPIC_API_KEY",
            "max_output": 2000,
            "headers": {"x-team": "blue"},
        },
        "fallback": ["chat-1", "chat-2"],
        "aliases": ["sonnet"],
    }
    assert plan.models["flash"]["options"] == {
        "upstream_model": "gemini-2.5-flash",
        "api_key_env": "GEMINI_API_KEY",
        "context": 100000,
    }
    assert plan.models["house"] == {
        "runtime": "ollama",
        "options": {"model": "llama3.2", "base_url": "http://127.0.0.1:11434", "parameters": {"seed": 7}},
        "concurrency": 2,
        "fallback": ["flash"],
    }
    assert plan.models["cluster"]["options"] == {
        "upstream_model": "org/model",
        "base_url": "http://127.0.0.1:8000/v1",
        "extra": {"temperature": 0.2, "top_k": 5},
        "drop": ["seed"],
    }
    assert plan.models["fire"]["options"]["upstream_model"] == "accounts/fireworks/models/some-model"
    assert plan.models["bare"]["options"] == {
        "upstream_model": "gpt-4o-mini",
        "base_url": "https://proxy.example.com/v1",
        "api_key_env": "MAIN_KEY",
    }
    assert plan.routes == {
        "chat": {
            "models": ["chat-1", "chat-2", "claude", "flash"],
            "policy": "weighted",
            "weights": {"chat-1": 600, "chat-2": 200, "claude": 0, "flash": 0},
            "limits": {"chat-2": 8},
            "first_byte_timeout": 30,
        },
        "gpt-4": {"models": ["chat"]},
    }
    assert plan.prices == {"chat-2": {"input": 2.0, "output": 8.0}}
    assert plan.sections == {
        "routing": {"retries": 2, "breaker_failures": 3, "breaker_pause": 60},
        "upstream": {"first_byte_timeout": 120},
    }


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("chat-1", "`rpm`"),
        ("chat-2", "export OPENAI_API_KEY"),
        ("claude", "Authorization"),
        ("flash", "temperature"),
        ("flash", "access_groups"),
        ("cluster", "secret_word"),
        ("cloud", "service account"),
        ("rock", "no runtime"),
        ("openai/*", "a name each"),
        ("lost", "no `api_base`"),
        ("gone", "NOWHERE"),
        ("a b", "cannot name a model"),
        ("model_list[15]", "no `model_name`"),
        ("fallbacks", "'nobody'"),
        ("odd", "'nobody'"),
        ("sonnet", "`hidden`"),
        ("allowed_fails", "in a row"),
        ("redis_password", "share their database"),
        ("success_callback", "OpenTelemetry"),
        ("cache", "no answers"),
        ("master_key", "CORRAL_API_KEY"),
        ("database_url", "corral keys create"),
        ("environment_variables", "secrets"),
    ],
)
def test_what_is_left_out_is_said(planned, name, why):
    plan = planned(TEAM)
    assert any(what == name and why in reason for what, reason in plan.skipped), plan.skipped


def test_no_secret_is_repeated_anywhere(planned):
    assert "very-secret" not in repr(planned(TEAM))


def test_what_is_planned_is_a_configuration_whose_options_and_routes_hold(planned, tmp_path):
    plan = planned(TEAM)
    text = "# mine\n"
    for section in ("models", "routes", "prices"):
        text = added(text, getattr(plan, section), "x", section)
    for section, values in plan.sections.items():
        text = added(text, values, "x", section)
    (tmp_path / "corral.yaml").write_text(text)
    settings = load({"HOME": str(tmp_path)}, None, tmp_path / "corral.yaml")
    assert settings.routing.retries == 2
    assert settings.prices["chat-2"].output == 8
    for model in settings.models.values():
        parse_options(OPTIONS[model.runtime], model.options, model.runtime)
    laid = layout.lay(settings.routes, settings.models)
    assert [leg.model for leg in laid["gpt-4"].legs] == ["chat-1", "chat-2", "claude", "flash"]


def test_every_vendor_and_server_is_one_of_ours(planned):
    for provider in _litellm_models._VENDORS:
        _, entry = one(planned, {"model": f"{provider}/x"})
        options = parse_options(OpenAIOptions, entry["options"], "openai").filled()
        assert options.base_url.startswith("https://")
        assert options.api_key_env
    for provider in _litellm_models._SERVERS:
        _, entry = one(planned, {"model": f"{provider}/x", "api_base": "http://127.0.0.1:1/v1"})
        assert entry["options"] == {"upstream_model": "x", "base_url": "http://127.0.0.1:1/v1"}


@pytest.mark.parametrize(
    ("strategy", "policy"),
    [("least-busy", "least_busy"), ("latency-based-routing", "fastest"), ("cost-based-routing", "cheapest"),
     ("usage-based-routing-v2", "weighted")],
)  # fmt: skip
def test_strategies(planned, strategy, policy):
    rows = [{"model_name": "m", "litellm_params": {"model": f"groq/{name}"}} for name in "ab"]
    rows.append({"model_name": "spare", "litellm_params": {"model": "groq/c"}})
    router = {"routing_strategy": strategy, "fallbacks": [{"m": ["spare"]}]}
    plan = planned(yaml.safe_dump({"model_list": rows, "router_settings": router}))
    assert plan.routes["m"]["policy"] == policy
    told = dict(plan.skipped)
    if policy == "weighted":
        assert plan.routes["m"]["weights"] == {"spare": 0}
        assert strategy in told["routing_strategy"]
    else:
        assert plan.routes["m"]["models"] == ["m-1", "m-2"]
        assert "spare" in told["m"]


def test_order_is_order(planned):
    rows = [{"model_name": "m", "litellm_params": {"model": f"groq/{n}", "order": n}} for n in (3, 1, 2)]
    rows.append({"model_name": "m-1", "litellm_params": {"model": "groq/other"}})
    plan = planned(yaml.safe_dump({"model_list": rows, "litellm_settings": {"default_fallbacks": ["m-1"]}}))
    assert plan.routes["m"] == {"models": ["m-2", "m-3", "m-1x", "m-1"], "policy": "ordered"}
    assert plan.models["m-1"]["options"]["upstream_model"] == "other"


def test_a_time_out_of_its_own_makes_a_route(planned):
    plan, _ = one(planned, {"model": "groq/x", "timeout": 5, "max_retries": 0})
    assert plan.routes == {"m": {"models": ["m"], "first_byte_timeout": 5, "retries": 0}}


@pytest.mark.parametrize(
    ("base", "version", "url", "sent"),
    [
        ("https://r.example.com", None, "https://r.example.com/openai/v1", None),
        ("https://r.example.com/openai/v1/", "preview", "https://r.example.com/openai/v1", None),
        ("https://r.example.com", "2025-01-01", "https://r.example.com/openai/deployments/x", "2025-01-01"),
    ],
)
def test_azures_two_addresses(planned, base, version, url, sent):
    _, entry = one(planned, {"model": "azure/x", "api_base": base, "api_version": version})
    assert (entry["options"]["base_url"], entry["options"].get("api_version")) == (url, sent)


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "not YAML"), ("a: 1", "no list `model_list`"), ("model_list: {}", "no list"), ("", "no list")],
)
def test_what_is_no_configuration(planned, text, says):
    with pytest.raises(ConfigError, match=says):
        planned(text)


@pytest.mark.parametrize(
    "value", ["null", "1", "text", "[1, {a: 2}]", "{a: [b]}", "true", "-1", ".nan", "os.environ/X"]
)
def test_whatever_stands_there_it_is_planned_or_refused_with_a_reason(planned, value):
    params = ["api_key", "api_base", "api_version", "organization", "rpm", "weight", "order", "timeout", "max_tokens"]
    params += ["headers", "extra_body", "additional_drop_params", "litellm_credential_name", "custom_llm_provider"]
    for key in params:
        given = f"model: groq/x, {key}: {value}"
        plan = planned(f"model_list: [{{model_name: m, litellm_params: {{{given}}}}}]")
        assert plan.models or plan.skipped
        json.dumps([plan.models, plan.routes, plan.prices, plan.sections], allow_nan=False)
    whole = "model_list: [{model_name: m, litellm_params: {model: groq/x}}]"
    for section in ("router_settings", "litellm_settings"):
        assert planned(f"{whole}\n{section}: {value}").models
        for key in ("fallbacks", "default_fallbacks", "model_group_alias", "num_retries", "routing_strategy"):
            plan = planned(f"{whole}\n{section}: {{{key}: {value}}}")
            json.dumps([plan.models, plan.routes, plan.prices, plan.sections], allow_nan=False)
    for key in ("model_info", "litellm_params", "model_name"):
        item = {"model_name": "m", "litellm_params": {"model": "groq/x"}, key: yaml.safe_load(value)}
        plan = planned(yaml.safe_dump({"model_list": [item]}))
        assert plan.models or plan.skipped
    assert planned(f"{whole}\ncredential_list: {value}\ngeneral_settings: {value}").models
