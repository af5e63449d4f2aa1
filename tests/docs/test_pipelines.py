"""docs/pipelines.md says every key, parameter, contract and bound there is; its pipeline and the examples can run."""

from __future__ import annotations

import inspect
import re

import pytest

from corral.workspace.code.languages import KINDS
from corral.workspace.pipelines import contracts, executing, located, reading, sandbox, schemas, shapes, syntax
from corral.workspace.pipelines.definition import InputType, StepPlan, read
from corral.workspace.pipelines.definition import inspect as checked
from corral.workspace.pipelines.templates import Templates
from corral.workspace.pipelines.tries import RETRIES
from tests.docs import pages

PAGE = pages.read("docs/pipelines.md")
EXAMPLES = sorted((pages.ROOT / "examples" / "pipelines").glob("*.yaml"))


def told(heading: str, first: str) -> list[str]:
    """The codes in the first column of the table below a heading whose first row's cell is `first`."""
    rows = re.findall(r"^\| (`[^|]*`(?:, `[^|]*`)*) \|", PAGE.section(heading), re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    return names[names.index(first) :]


def test_every_key_of_the_whole_and_of_inputs() -> None:
    assert tuple(told("The whole", "name")) == reading.PIPELINE_KEYS
    assert tuple(told("An input", "type")) == reading.INPUT_KEYS


def test_every_key_of_a_step_and_of_a_message() -> None:
    assert tuple(told("A step", "model")) == (*reading.STEP_KEYS, *reading.MESSAGE_KEYS)
    assert set(reading.STEP_KEYS) == {field for field in StepPlan.__slots__ if field not in {"name", "line"}}


def test_every_word_of_a_key() -> None:
    for word in (*InputType, *reading.ROLES, *reading.EFFORTS):
        assert f"`{word}`" in PAGE.text


def test_every_parameter_and_its_bounds() -> None:
    assert told("Parameters", "max_tokens") == list(reading.PARAMETERS)
    for name, said in re.findall(r"^\| `(\w+)` \| From (.+)\. \|$", PAGE.section("Parameters"), re.MULTILINE):
        _, least, most = reading.PARAMETERS[name]
        bounds = [float(number) for number in said.split(" to ")]
        assert bounds == [least, most][: len(bounds)], name


def test_every_contract_is_one() -> None:
    for contract in told("What a step answers", "text"):
        sound = contract.replace(", …", "")
        step = f"  a:\n    model: m\n    prompt: p\n    output: {sound if ': ' not in sound else '{' + sound + '}'}\n"
        assert [str(issue) for issue in checked(f"name: x\nsteps:\n{step}").issues] == []


def test_every_language() -> None:
    (line,) = re.findall(r"^Languages are (.*?)\. ", PAGE.text, re.MULTILINE)
    assert re.findall(r"`(\w+)`", line) == list(KINDS)


def test_every_name_that_templates_see() -> None:
    names = told("What templates see", "inputs.NAME")
    assert {name.split(".")[0] for name in names} == set(syntax.ROOTS)
    (step,) = read("name: x\nsteps: {a: {model: m, prompt: p, for_each: [1], output: json}}").steps
    of_step = shapes.of_step(step)
    assert not isinstance(of_step, bool)
    assert {name.split(".")[2] for name in names if name.startswith("steps.")} == set(of_step["properties"])
    context = {name.split(".")[1] for name in re.findall(r"`(context\.\w+)", PAGE.section("What templates see"))}
    assert not isinstance(shapes.CONTEXT, bool)
    assert {name.removeprefix("context.") for name in context} == set(shapes.CONTEXT["properties"])


def test_every_bound() -> None:
    bounds = {row[0].replace("`", ""): float(row[1].replace(",", "")) for row in PAGE.table("Bounds")}
    of_templates = {name: one.default for name, one in inspect.signature(Templates).parameters.items()}
    assert bounds == {
        "characters of a pipeline": located.LONGEST_SOURCE,
        "characters of a template": sandbox.LONGEST_TEMPLATE,
        "steps": reading.MOST_STEPS,
        "inputs": reading.MOST_INPUTS,
        "items of one for_each": executing._MOST_ITEMS,
        "width": reading.MOST_WIDTH,
        "retries": reading.MOST_RETRIES,
        "repair": reading.MOST_REPAIRS,
        "seconds of a processor for one template": of_templates["seconds"],
        "characters that one template writes": of_templates["most"],
        "characters of an answer that is JSON": contracts.LONGEST_JSON,
        "parts of a schema, with what it refers to": schemas.MOST_PARTS,
    }
    assert f"that is busy. {RETRIES} otherwise." in PAGE.text


def test_the_pipeline_of_the_page_can_run() -> None:
    (source,) = PAGE.blocks("yaml")
    assert [step.name for step in read(source).steps] == ["analysis", "code", "files"]


@pytest.mark.parametrize("name", [path.name for path in EXAMPLES])
def test_examples_can_run(name: str) -> None:
    source = (pages.ROOT / "examples" / "pipelines" / name).read_text(encoding="utf-8")
    asked: list[str] = []
    assert [str(issue) for issue in checked(source, known=asked.append).issues] == []  # type: ignore[arg-type]
    assert read(source).name == name.removesuffix(".yaml")
    assert set(asked) == {"smollm2"}


def test_there_are_examples() -> None:
    assert [path.stem for path in EXAMPLES] == ["page", "review", "widget"]


def test_the_filters_that_are_left_out_are_said() -> None:
    assert "random" not in sandbox.Sandbox().filters
    assert "the filter `random`" in PAGE.text
