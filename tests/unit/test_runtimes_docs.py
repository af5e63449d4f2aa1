"""The page on runtimes names every runtime, option and fault there is, and no option that is not."""

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from corral.runtimes.anthropic import AnthropicOptions
from corral.runtimes.command import CommandOptions
from corral.runtimes.fake import FAULTS, FakeOptions
from corral.runtimes.llamacpp import LlamaCppOptions
from corral.runtimes.ollama import OllamaOptions
from corral.runtimes.openai import OpenAIOptions
from corral.runtimes.transformers import TransformersOptions
from corral.runtimes.vllm import VllmOptions

PAGE = (Path(__file__).parents[2] / "docs" / "runtimes.md").read_text(encoding="utf-8")
SECTIONS = dict(part.split("\n", 1) for part in PAGE.split("\n## ")[1:])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llamacpp", LlamaCppOptions),
        ("openai", OpenAIOptions),
        ("anthropic", AnthropicOptions),
        ("transformers", TransformersOptions),
        ("vllm", VllmOptions),
        ("fake", FakeOptions),
        ("command", CommandOptions),
        ("ollama", OllamaOptions),
    ],
)
def test_the_table_holds_the_options(kind, options):
    cells = re.findall(r"^\| (`[^|]*`) \|", SECTIONS[kind], re.MULTILINE)
    named = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(named) == sorted(field.name for field in dataclasses.fields(options))


def test_every_vendor_is_in_the_table():
    folder = Path(__file__).parents[2] / "src" / "corral" / "runtimes"
    known = yaml.safe_load((folder / "_vendors.yaml").read_text(encoding="utf-8"))
    rows = re.findall(r"^\| (\w+) \| `(\w+_\w+)` \|", SECTIONS["openai"], re.MULTILINE)
    assert dict(rows) == {name: row["api_key_env"] for name, row in known.items()}


def test_every_fault_is_named():
    assert {name for name in FAULTS if f"`{name}`" not in SECTIONS["fake"]} == set()
