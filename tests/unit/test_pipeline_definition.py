"""Pipelines read and checked: what is right is read as it is meant, what is wrong is said with its line and column."""

from __future__ import annotations

import re
import time
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.errors import InvalidRequest, PipelineInvalid
from corral.workspace.pipelines.definition import (
    Definition,
    InputType,
    Output,
    OutputKind,
    StepPlan,
    Words,
    bind,
    inspect,
    knows_models,
    read,
    typed,
)

WHOLE = """\
name: page
description: A page in parts.
inputs:
  topic: {type: string, description: What it is about.}
  parts: {type: integer, default: 3}
  tone: {enum: [dry, warm], default: dry}
  model: {default: smollm2}
budget: 0.05
steps:
  code:
    model: "{{ inputs.model }}"
    messages:
      - {role: system, content: You write code.}
      - role: user
        content: |
          {{ item.title }}, number {{ index }}
          {{ context.instructions }}
    parameters: {max_tokens: 400, temperature: 0, stop: [END], seed: 7}
    output: {code: {typescript: "src/{{ item.title }}.ts", css: null}}
    for_each: "{{ steps.plan.value.sections }}"
    width: 4
    retries: 2
    repair: 1
    timeout: 90s
    budget: 0.01
    fallback: [gemma3, auto]
  plan:
    model: smollm2
    prompt: "{{ inputs.topic }} in {{ inputs.parts }} parts, {{ inputs.tone }}. {{ context.variables.style }}"
    output:
      json:
        type: object
        properties:
          sections: {type: array, items: {type: object, properties: {title: {type: string}}}}
        required: [sections]
  shout:
    model: smollm2
    prompt: "{{ steps.plan.output }}"
    when: steps.plan.value.sections | length > 2
  files: {assemble: [plan, code], needs: shout}
"""


def whole() -> Definition:
    return read(WHOLE)


def found(source: str, **more: Any) -> list[str]:
    """The issues of a source, as `line:column message hint`."""
    issues = inspect(dedent(source), **more).issues
    return [f"{one.line}:{one.column} {one.message} {one.hint}".strip() for one in issues]


def step(body: str, rest: str = "") -> str:
    """A pipeline of one step `a`, whose keys begin in line 4, and of what follows."""
    lines = "".join(f"    {line}\n" for line in dedent(body).strip().splitlines())
    return f"name: x\nsteps:\n  a:\n{lines}{rest}"


def test_everything_is_read() -> None:
    code = whole().step("code")
    assert code == StepPlan(
        name="code",
        line=10,
        model="{{ inputs.model }}",
        messages=(
            Words("system", "You write code."),
            Words("user", "{{ item.title }}, number {{ index }}\n{{ context.instructions }}\n"),
        ),
        parameters={"max_tokens": 400, "temperature": 0, "stop": ["END"], "seed": 7},
        output=Output(OutputKind.CODE, None, ("ts", "css"), ("src/{{ item.title }}.ts", None)),
        for_each="{{ steps.plan.value.sections }}",
        width=4,
        needs=("plan",),
        retries=2,
        fallback=("gemma3", "auto"),
        repair=1,
        timeout=90.0,
        budget=10_000_000,
    )
    assert whole().budget == 50_000_000
    assert whole().inputs["parts"].type is InputType.INTEGER
    assert whole().inputs["topic"].required
    assert not whole().inputs["tone"].required


def test_steps_are_in_an_order_in_which_they_can_run_and_otherwise_as_written() -> None:
    assert [one.name for one in whole().steps] == ["plan", "code", "shout", "files"]
    assert whole().step("files").needs == ("code", "plan", "shout")
    assert whole().step("files").assemble == ("plan", "code")
    assert whole().step("shout").needs == ("plan",)


def test_what_is_not_said_is_left_to_the_settings() -> None:
    plan = whole().step("shout")
    assert (plan.width, plan.retries, plan.repair, plan.timeout, plan.budget) == (None,) * 5
    assert plan.output == Output()


def test_a_literal_list_may_be_gone_through() -> None:
    assert read(step('model: "{{ item }}"\nprompt: x\nfor_each: [a, b]')).steps[0].for_each == ("a", "b")


_WRONG = (Path(__file__).parents[1] / "support" / "pipelines_wrong.txt").read_text(encoding="utf-8")
SAID = {name: text for name, _, text in (part.partition("\n") for part in _WRONG.split("=== ")[1:])}
"""Pipelines with a mistake, a tab being →; after `---` what is said of them."""


@pytest.mark.parametrize("name", SAID)
def test_what_is_wrong_is_said_where_it_is(name: str) -> None:
    source, *said = re.split(r"^--- ", SAID[name].replace("→", "\t"), flags=re.MULTILINE)
    issues = found(source)
    assert said
    assert [one.strip() for one in said if one.strip() not in issues] == [], issues


def test_a_folded_text_still_knows_its_words() -> None:
    source = step(
        "model: m\nprompt: >\n  one two\n  three {{ steps.b.output }}\n  {{ steps.b.outpt }}\n",
        "  b: {model: m, prompt: p}\n",
    )
    assert found(source) == ["8:18 `steps.b` has no 'outpt'. Did you mean 'output'?"]


def test_the_second_of_two_like_words_is_meant() -> None:
    body = "model: m\nprompt: |\n  outpt {{ steps.b.output }}\n  and {{ steps.b.outpt }}\n"
    source = step(body, "  b: {model: m, prompt: p}\n")
    assert found(source) == ["7:22 `steps.b` has no 'outpt'. Did you mean 'output'?"]


def test_circles_and_who_waits_behind_them() -> None:
    source = """\
        name: x
        steps:
          a: {model: m, prompt: "{{ steps.c.output }}"}
          b: {model: m, prompt: "{{ steps.a.output }}"}
          c: {model: m, prompt: "{{ steps.b.output }}"}
          d: {model: m, prompt: "{{ steps.d.output }}"}
          e: {model: m, prompt: p, needs: [a]}
          f: {model: m, prompt: p}
        """
    assert found(source) == [
        "3:3 Steps wait for each other: a → b → c → a. Break the circle.",
        "6:3 The step waits for itself. A step sees what came before it.",
        "7:3 The step is never reached: it waits for 'a', which waits for itself. Mend the circle.",
    ]


def test_models_are_asked_about() -> None:
    source = """\
        name: x
        inputs: {who: {enum: [good, worse], default: good}, all: {type: list, default: [good, unheard]}}
        steps:
          a: {model: bad, prompt: p, fallback: [good, bad]}
          b: {model: "{{ inputs.who }}", prompt: p}
          c: {model: "{{ item }}", prompt: p, for_each: [good, worst]}
          d: {model: "{{ inputs.who }}-{{ index }}", prompt: p, for_each: [1]}
          e: {model: "{{ item }}", prompt: p, for_each: "{{ inputs.all }}"}
        """

    def known(name: str) -> str | None:
        return None if name == "good" else f"Model {name!r} does not exist."

    assert found(source, known=known) == [
        "4:14 Model 'bad' does not exist.",
        "4:47 Model 'bad' does not exist.",
        "5:14 Model 'worse' does not exist.",
        "6:14 Model 'worst' does not exist.",
        "8:14 Model 'unheard' does not exist.",
    ]
    assert found(source) == []
    assert not knows_models(read(dedent(source)), known)


@pytest.mark.parametrize("unknown", ["bad", "worse", "worst", "unheard", "good"])
def test_each_model_that_is_asked_counts_where_no_source_is_read(unknown: str) -> None:
    source = """        name: x
        inputs: {who: {enum: [good, worse], default: good}, all: {type: list, default: [good, unheard]}}
        steps:
          a: {model: good, prompt: p, fallback: [good, bad]}
          b: {model: "{{ inputs.who }}", prompt: p}
          c: {model: "{{ item }}", prompt: p, for_each: [good, worst]}
          e: {model: "{{ item }}", prompt: p, for_each: "{{ inputs.all }}"}
        """
    definition = read(dedent(source))
    assert knows_models(definition, lambda _: None)
    assert not knows_models(definition, lambda name: "It is none." if name == unknown else None)


def test_own_variables_of_a_template_are_none_of_ours() -> None:
    source = step(
        """\
        model: m
        prompt: |
          {% set total = namespace(n=0) %}
          {% for item in steps.b.items %}{{ item.whatever }} {{ loop.index }}{% set total.n = total.n + 1 %}{% endfor %}
          {% macro shown(x) %}{{ x.y }}{% endmacro %}{{ shown(total.n) }}
        """,
        "  b: {model: m, prompt: '{{ item }}', for_each: [1, 2]}\n",
    )
    assert found(source) == []


def test_what_may_be_there_is_let_through() -> None:
    source = """\
        name: x
        inputs: {data: {type: object}, list: {type: list}}
        steps:
          a:
            model: m
            prompt: >-
              {{ inputs.data.anything.at_all }} {{ inputs.list[0].x }} {{ inputs.data.items() }}
              {{ steps.b.value.c[0] }} {{ steps.b.value.more }} {{ steps.c.value.x }} {{ steps.b.output.upper() }}
              {{ context.variables.z }} {{ context.files[0].text }} {{ run.seed }}
              {{ steps.b.files }} {{ steps.b.skipped }}
          b:
            model: m
            prompt: p
            output: {json: {type: object, properties: {c: {type: array}}, additionalProperties: true}}
          c: {model: m, prompt: p, output: json}
        """
    assert found(source) == []


BROKEN = {
    "nothing": "",
    "a list": "- a",
    "brackets": "[" * 60_000,
    "braces": "{" * 60_000,
    "dashes": "- " * 30_000,
    "questions": "? " * 30_000,
    "an anchor in itself": "name: &x [*x]",
    "two documents": "name: x\n---\nname: y",
    "a tag": "name: !!python/object/apply:os.system [ls]",
    "a zero": "name: \x00",
    "half a letter": 'name: "\\ud800"',
    "a key that is none": "? [a]\n: b",
    "a number without end": "name: " + "9" * 5000,
    "too long": "name: " + "x" * (1 << 18),
    "infinity": "name: x\nbudget: 1e999\nsteps: {a: {model: m, prompt: p}}",
    "too many": "name: x\nsteps:\n" + "".join(f"  s{n}: {{model: m, prompt: p}}\n" for n in range(201)),
    "a template of brackets": step("model: m\nprompt: '{{ " + "(" * 3000 + " }}'"),
    "a long template": step("model: m\nprompt: '" + "{{ 1 }}" * 10_000 + "'"),
    "a sum that fills the memory": step("model: m\nprompt: '{{ (\"a\" * 10 ** 12).x.__class__ }}'"),
    "a bomb": "a: &a [x,x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(8)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_is_said_soon(name: str) -> None:
    began = time.process_time()
    checked = inspect(BROKEN[name])
    assert time.process_time() - began < 2
    assert checked.definition is None
    assert checked.issues
    assert all(issue.line >= 1 and issue.column >= 1 and issue.message for issue in checked.issues)


def test_a_constant_of_a_template_is_never_reckoned_with() -> None:
    assert found(step("model: m\nprompt: \"{{ 'a' * 10 ** 12 }} {{ 9 ** 9 ** 9 }}\"")) == []


def test_an_anchor_may_be_used_again() -> None:
    steps = "  a: {model: m, prompt: p, parameters: &p {seed: 1}}\n  b: {model: m, prompt: p, parameters: *p}\n"
    source = f"name: x\nsteps:\n{steps}"
    assert read(source).step("b").parameters == {"seed": 1}


def test_reading_raises_with_every_line() -> None:
    with pytest.raises(PipelineInvalid) as raised:
        read(step("modl: m\nprompt: '{{ inputs.x }}'"))
    assert raised.value.message.splitlines() == [
        "Line 4, column 5: Unknown key 'modl' in the step 'a'. Did you mean 'model'?",
        "Line 5, column 24: `inputs` has no 'x'.",
    ]


def test_inputs_are_bound_with_their_defaults() -> None:
    assert bind(whole(), {"topic": "x", "parts": 2}) == {"topic": "x", "parts": 2, "tone": "dry", "model": "smollm2"}


@pytest.mark.parametrize(
    ("given", "said", "param"),
    [
        ({}, "The input 'topic' is not given. It is a text. What it is about.", "topic"),
        ({"topic": 5}, "The input 'topic' is 5, and must be a text.", "topic"),
        ({"topic": "x", "parts": True}, "The input 'parts' is True, and must be a whole number.", "parts"),
        ({"topic": "x", "tone": "loud"}, "The input 'tone' is 'loud'. It may be: dry, warm.", "tone"),
        ({"topik": "x"}, "The pipeline 'page' has no input 'topik'. Did you mean 'topic'?", "inputs"),
        ({"topic": "\ud800"}, "topic has the character U+D800, which no text may have.", "topic"),
        ({"topic": "a\0"}, "topic has the character U+0000, which no text may have.", "topic"),
        ({"topic": "x", "parts": 1 << 64}, "parts has to be a whole number of at most 64 bits.", "parts"),
        ({"topic": "x" * (9 << 20)}, "topic has 9,437,184 characters, and at most 4,000,000 may be.", "topic"),
    ],
)
def test_inputs_that_cannot_be_taken(given: dict[str, Any], said: str, param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        bind(whole(), given)
    assert str(raised.value).startswith(said)
    assert raised.value.param == param


def test_inputs_as_they_are_typed() -> None:
    definition = read(
        "name: x\ninputs: {s: string, i: integer, n: number, b: boolean, l: list, o: object}\n"
        "steps: {a: {model: m, prompt: p}}"
    )
    texts = {"s": "5", "i": "5", "n": "0.5", "b": "yes", "l": "a, b", "o": '{"a": 1}'}
    assert bind(definition, typed(definition, texts)) == {
        "s": "5", "i": 5, "n": 0.5, "b": True, "l": ["a", "b"], "o": {"a": 1}
    }  # fmt: skip
    assert typed(definition, {"l": "[1, 2]"}) == {"l": [1, 2]}
    for name, text in {"i": "5.5", "n": "many", "b": "maybe", "o": "[1]"}.items():
        with pytest.raises(InvalidRequest, match=f"The input '{name}'"):
            typed(definition, {name: text})


# Whatever comes


NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True)


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    """Steps, each with those that it needs: written in any order, and without circles."""
    names = draw(st.lists(NAMES, min_size=1, max_size=8, unique=True))
    needs = {
        name: draw(st.lists(st.sampled_from(names[:at]), unique=True) if at else st.just([]))
        for at, name in enumerate(names)
    }
    return {name: needs[name] for name in draw(st.permutations(names))}


def written(graph: dict[str, list[str]]) -> str:
    """The graph as a pipeline, some of its needs in templates and some by name."""
    steps = {
        name: {
            "model": "m",
            "prompt": " ".join(f"{{{{ steps.{need}.output }}}}" for need in needs[::2]) or "p",
            "needs": needs[1::2],
        }
        for name, needs in graph.items()
    }
    return str(yaml.safe_dump({"name": "x", "steps": steps}, sort_keys=False))


@given(graphs())
def test_any_order_of_steps_is_put_right(graph: dict[str, list[str]]) -> None:
    definition = read(written(graph))
    order = [one.name for one in definition.steps]
    assert sorted(order) == sorted(graph)
    for one in definition.steps:
        assert set(one.needs) == set(graph[one.name])
        assert all(order.index(need) < order.index(one.name) for need in one.needs)


@given(graphs(), st.data())
def test_any_circle_is_found(graph: dict[str, list[str]], data: st.DataObject) -> None:
    order = [one.name for one in read(written(graph)).steps]
    first, last = sorted(data.draw(st.tuples(*[st.sampled_from(range(len(order)))] * 2)))
    chain = order[first : last + 1]
    for one, other in zip([*chain[1:], chain[0]], chain, strict=True):
        graph[one] = [*graph[one], *([other] if other not in graph[one] else [])]
    checked = inspect(written(graph))
    assert checked.definition is None
    assert any(
        "wait for each other" in issue.message or "waits for itself" in issue.message for issue in checked.issues
    )


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(source: str) -> None:
    checked = inspect(source)
    assert (checked.definition is None) == bool(checked.issues)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_pipeline_with_any_fault_is_read_or_refused_with_its_place(data: st.DataObject) -> None:
    lines = WHOLE.splitlines()
    at = data.draw(st.integers(0, len(lines) - 1))
    start = data.draw(st.integers(0, len(lines[at])))
    put = data.draw(
        st.sampled_from(
            ["", "{{", "}}", ":", "- ", "\t", "'", '"', "&a ", "*a", "{%", "x", "0", "[", "null", "é", "\x85", "!!int "]
        )
    )
    lines[at] = lines[at][:start] + put + lines[at][start + data.draw(st.integers(0, 3)) :]
    source = "\n".join(lines)
    checked = inspect(source)
    assert (checked.definition is None) == bool(checked.issues)
    there = len(re.split("\r\n|[\n\r\x85\u2028\u2029]", source))
    assert all(1 <= issue.line <= there for issue in checked.issues)


@given(st.text(alphabet="{}%#'\"()[]|.~ abinputs_\n0123*-+", max_size=80))
@settings(deadline=None)
def test_any_template_is_taken_or_refused(template: str) -> None:
    source = str(yaml.safe_dump({"name": "x", "steps": {"a": {"model": "m", "prompt": template or "p"}}}))
    checked = inspect(source)
    assert (checked.definition is None) == bool(checked.issues)
