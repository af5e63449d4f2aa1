"""docs/import.md says what is done: its example is planned as it is shown, and its vendors are all there are."""

import json
import re
from pathlib import Path

import yaml

from corral.catalog import _litellm_models, imports
from corral.catalog.litellm import plan_litellm
from corral.fleet.compose import read_compose

PAGE = (Path(__file__).parents[2] / "docs" / "import.md").read_text()


def block(kind):
    return re.search(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)[1]


def test_the_example_is_planned_as_it_is_shown(tmp_path):
    path = tmp_path / "models.json"
    path.write_text(block("json"))
    plan = imports.plan_models_json(path)
    assert json.loads(json.dumps(plan.models)) == yaml.safe_load(block("yaml"))["models"]
    assert plan.skipped == ()


def test_the_example_of_litellm_is_planned_as_it_is_shown(tmp_path):
    given, shown = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[-2:]
    path = tmp_path / "config.yaml"
    path.write_text(given)
    plan = plan_litellm(path, {})
    planned = {"models": plan.models, "routes": plan.routes, **plan.sections}
    assert json.loads(json.dumps(planned)) == yaml.safe_load(shown)
    assert plan.skipped == ()


def test_the_vendors_of_litellm_are_the_documented_ones():
    row = next(line for line in PAGE.splitlines() if line.startswith("| model: openai"))
    documented = row.split("|")[1].removeprefix(" model: ").strip().split(", ")
    assert documented == [name for name in _litellm_models._VENDORS if name != "text-completion-openai"]


def test_the_vendors_are_the_documented_ones():
    row = next(line for line in PAGE.splitlines() if line.startswith("| `model_type`"))
    assert re.findall(r"`(\w+)`", row)[1:] == sorted(imports._VENDORS)


def test_every_field_is_documented():
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == imports._KNOWN


def test_the_example_of_compose_is_read_as_it_is_shown():
    section = PAGE.partition("## A compose file")[2].partition("\n## ")[0]
    given, shown = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    found = read_compose(given, {})
    assert json.loads(json.dumps(found.entries)) == yaml.safe_load(shown)["containers"]
    assert found.unsupported == ()
