"""From LiteLLM to Corral: its configuration is imported, and what it describes answers, with the same fallbacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commands import Yard
from tests.support.vendors.anthropic import Anthropic
from tests.support.vendors.openai import OpenAI
from tests.support.vendors.vendor import played

CONFIG = """
model_list:
  - model_name: chat
    litellm_params: {{model: openai/gpt-4o, api_base: "{openai}", api_key: os.environ/FIRST_KEY, weight: 1}}
  - model_name: chat
    litellm_params: {{model: hosted_vllm/gpt-4o, api_base: "{openai}", api_key: os.environ/FIRST_KEY, weight: 1}}
  - model_name: claude
    litellm_params: {{model: anthropic/claude-sonnet-4-5, api_base: "{anthropic}", api_key: sk-in-clear}}
  - model_name: down
    litellm_params: {{model: openai/x, api_base: "http://127.0.0.1:9/v1", api_key: none}}
router_settings:
  num_retries: 0
  fallbacks: [{{down: [claude]}}]
  model_group_alias: {{gpt-4: chat}}
general_settings: {{master_key: sk-in-clear}}
"""


def test_what_litellm_reached_is_reached(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    env = {"FIRST_KEY": OpenAI.key, "ANTHROPIC_API_KEY": Anthropic.key}
    yard = Yard(home, env)
    yard.configure("# mine\nmodels:\n  own: {runtime: fake}\n")
    with played(OpenAI) as openai, played(Anthropic) as anthropic:
        (home / "config.yaml").write_text(CONFIG.format(openai=openai, anthropic=anthropic))
        shown = yard.run("import", "litellm", "config.yaml", "--yes").stdout
        assert "+ route chat: chat-1, chat-2" in shown
        assert "export ANTHROPIC_API_KEY" in shown
        assert "sk-in-clear" not in shown + (home / "corral.yaml").read_text()
        assert (home / "corral.yaml").read_text().startswith("# mine\n")
        assert {"own", "claude", "chat-1"} <= set(yard.run("list", "-q").stdout.split())
        again = yard.json("import", "litellm", "config.yaml")
        assert (again["models"], again["file"]) == ({}, None)
        assert {"claude", "routes.chat", "routing.retries"} <= set(again["configured"])
        with yard.serving():
            assert yard.run("run", "gpt-4", "#say=from_openai").stdout.strip() == "from openai"
            assert yard.run("run", "claude", "#say=from_claude").stdout.strip() == "from claude"
            assert yard.run("run", "down", "#say=from_the_fallback").stdout.strip() == "from the fallback"


@pytest.mark.parametrize("arguments", [["litellm"], ["litellm", "nowhere.yaml"]])
def test_what_cannot_be_imported(tmp_path: Path, arguments: list[str]) -> None:
    done = Yard(tmp_path).run("import", *arguments, code=2)
    assert done.stderr.startswith("error: ")
