"""Templates: what they write of plain values, what they name, what they cannot reach."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.errors import InvalidRequest
from corral.workspace.pipelines.sandbox import Sandbox
from corral.workspace.pipelines.syntax import parse
from corral.workspace.pipelines.templates import Templates, names

SCOPE: dict[str, Any] = {
    "inputs": {"topic": "a <b> & 'c'", "n": 3, "half": 0.5, "yes": True, "none": None, "empty": [], "list": [1, "x"]},
    "context": {
        "instructions": "Be brief.",
        "files": [{"name": "a.txt", "text": "A\nA"}, {"name": "b.txt", "text": "B"}],
        "variables": {"style": "dry"},
    },
    "steps": {
        "plan": {"output": "{…}", "value": {"items": [1, 2], "keys": "k", "sections": [{"title": "Ä"}]}, "items": None},
        "skipped": {"output": None, "value": None, "files": [], "items": None, "skipped": True},
    },
    "parts": [{"name": "plan", "text": "P"}],
    "item": {"title": "T"},
    "index": 0,
    "run": {"seed": 7},
}


async def rendered(template: str, **more: Any) -> str:
    """What a template writes that needs no process of its own."""
    assert parse(template).plain, template
    return await Templates(**more).render(template, SCOPE)


async def refused(template: str, **more: Any) -> str:
    with pytest.raises(InvalidRequest) as raised:
        await rendered(template, **more)
    return str(raised.value)


@pytest.mark.parametrize(
    ("template", "written"),
    [
        ("no braces\n", "no braces\n"),
        ("{{ inputs.topic }}", "a <b> & 'c'"),
        ("{{ inputs.n }} {{ inputs.half }} {{ inputs.yes }}", "3 0.5 true"),
        ("[{{ inputs.none }}]", "[]"),
        ("{{ inputs.list }} {{ inputs.empty }}", '[1, "x"] []'),
        ("{{ steps.plan.value.sections }}", '[{"title": "Ä"}]'),
        ("{{ steps.plan.value.items }} {{ steps.plan.value.keys }}", "[1, 2] k"),
        ("{{ steps.plan.value['sections'][0].title }}", "Ä"),
        ("{{ context.files }}", "--- a.txt ---\nA\nA\n\n--- b.txt ---\nB"),
        ("{{ parts }}", "--- plan ---\nP"),
        ("{{ context.variables.style }} {{ context.instructions }}", "dry Be brief."),
        ("{{ item.title }} {{ index }} {{ run.seed }}", "T 0 7"),
        ("{{ steps.skipped.output }}|{{ steps.skipped.files }}", "|[]"),
        ("{{ steps.skipped.value.title | default('none') }}", "none"),
        ("{{ inputs.list | tojson }} {{ inputs.list | length }}", '[1, "x"] 2'),
        ("{% if inputs.n > 2 and not inputs.none %}many{% else %}few{% endif %}", "many"),
        ("{{ 'a' if inputs.yes else 'b' }}", "a"),
        ("{# nothing #}x", "x"),
    ],
)
async def test_what_is_written(template: str, written: str) -> None:
    assert await rendered(template) == written


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ inputs.x }}", "There is no 'x' in an object with"),
        ("a\nb {{ steps.plan.value.x }}", "There is no 'x' in an object with items, keys, sections: in line 2 of the"),
        ("{{ steps.plan.output.x }}", "There is no 'x' in a text"),
        ("{{ steps.skipped.value.x }}", "There is no 'x' in nothing: the step before was skipped, or gave null"),
        ("{{ inputs.topic.upper }}", "A builtin_function_or_method cannot be written"),
        ("{{ inputs.list[9] }}", "There is no 9 in a list"),
    ],
)  # fmt: skip
async def test_what_is_not_there_is_said(template: str, said: str) -> None:
    assert (await refused(template)).startswith(said)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ inputs", "`{{` is never closed"),
        ("{{ whoever }}", "'whoever' is not defined: in a template, '{{ whoever }}'. There are: inputs, context"),
        ("{{ ''.__class__ }}", "'__class__' cannot be reached"),
        ("{{ inputs['__class__'] }}", "'__class__' cannot be reached"),
        ("{{ inputs.topic | attr('__class__') | shout }}", "There is no filter 'shout'"),
        ("{% extends 'x' %}", "A template stands alone"),
        ("{{ lipsum() }}", "'lipsum' is not defined"),
        ("{{ 'a' | random }}", "There is no filter 'random'"),
        ("{{ self }}{% set steps = 1 %}", "'steps' is what the template is given"),
    ],
)
async def test_what_cannot_be_is_refused_before_anything_runs(template: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        await Templates().render(template, SCOPE)
    assert str(raised.value).startswith(said)


async def test_what_is_written_is_bounded() -> None:
    assert await rendered("{{ inputs.n }}" * 20, most=20) == "3" * 20
    assert (await refused("{{ inputs.n }}" * 21, most=20)).startswith("A template writes more than 20 characters")
    assert (await refused("x" * 21 + "{{ inputs.n }}", most=20)).startswith("A template writes more than 20 characters")


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("{{ steps.plan.value.sections }}", [{"title": "Ä"}]),
        ("steps.plan.value['items']", [1, 2]),
        ("{{- inputs.n > 2 -}}", True),
        ("inputs.topic == '' or inputs.none is none", True),
        ("'x' in inputs.list", True),
        ("inputs.none", None),
        ("steps.skipped.value.things | default([])", []),
        ("['a', 'b']", ["a", "b"]),
        (("a", 1), ["a", 1]),
        (False, False),
        (None, None),
    ],
)
async def test_what_expressions_come_to(expression: Any, value: Any) -> None:
    assert await Templates().evaluate(expression, SCOPE) == value


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("{{ inputs.n }} {{ inputs.n }}", "There is something after the expression"),
        ("inputs.x", "There is no 'x'"),
        ("inputs.topic.upper", "A builtin_function_or_method cannot be written"),
        ("", "The expression ends too early"),
    ],
)
async def test_expressions_that_come_to_nothing(expression: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        await Templates().evaluate(expression, SCOPE)
    assert said in str(raised.value)


def test_names_are_found_wherever_they_stand() -> None:
    template = """\
        {% if inputs.a %}{% for x in steps.b['value'].list %}{{ x.y ~ item.z }}{% endfor %}{% endif %}
        {{ steps.c.output | default(context.files[0].text, true) }} {{ inputs[run.seed] }} {{ range(3) | list }}
        {% set own = steps.d.items %}{{ own.e }}
    """
    assert names(template) == {
        "inputs.a", "steps.b.value.list", "item.z", "steps.c.output", "context.files.0.text",
        "inputs", "run.seed", "steps.d.items",
    }  # fmt: skip
    assert names("none at all") == frozenset()
    with pytest.raises(InvalidRequest):
        names("{{ ")


@pytest.mark.parametrize(
    "template",
    [
        "{% for x in inputs.list %}{% endfor %}",
        "{{ inputs.topic * 9 }}",
        "{{ inputs.topic ~ inputs.topic }}",
        "{{ inputs.topic | replace('a', 'b') }}",
        "{{ inputs.topic | tojson | tojson }}",
        "{{ inputs.topic.upper() }}",
        "{{ inputs.n + 1 }}",
        "{% set x = 1 %}",
        "{% macro m() %}{% endmacro %}",
        "{{ inputs.list[1:] }}",
        "{{ 'a' is sameas 'b' }}",
        "{{ inputs.n }}" * 200,
    ],
)
def test_what_could_make_much_of_little_is_not_plain(template: str) -> None:
    assert not parse(template).plain


def test_a_template_is_given_what_it_names_and_little_else() -> None:
    given = parse("{{ steps.plan.output }} {{ inputs.n }} {{ inputs.x }} {{ item.title }} {{ context.files }}").picked(
        SCOPE
    )
    assert given == {
        "steps": {"plan": {"output": "{…}"}},
        "inputs": {"n": 3},
        "item": {"title": "T"},
        "context": {"files": SCOPE["context"]["files"]},
    }
    assert parse("{{ inputs[index] }} {{ inputs.n }}").picked(SCOPE)["inputs"] is SCOPE["inputs"]


# Whatever comes


@given(st.text(alphabet="{}%#'\"()[]|.~ abinputs_\n0123*-+,", max_size=60))
@settings(deadline=None)
def test_any_template_is_looked_at(template: str) -> None:
    syntax = parse(template)
    assert all(problem.line >= 1 for problem in syntax.problems)
    parse(template, is_expression=True)


PATHS = st.sampled_from(
    ["inputs.topic", "inputs.n", "inputs.none", "steps.plan.value", "context.files", "steps.skipped"]
)
PIECES = st.one_of(
    PATHS.map(lambda path: f"{{{{ {path} }}}}"),
    PATHS.map(lambda path: f"{{{{ {path} | tojson }}}}"),
    PATHS.map(lambda path: f"{{% if {path} %}}y{{% else %}}n{{% endif %}}"),
    st.text(alphabet="ab \n", max_size=5),
)


@given(st.lists(PIECES, max_size=8).map("".join))
def test_what_is_cut_down_writes_the_same(template: str) -> None:
    """A template that is given only what it names writes what it would with everything."""
    syntax = parse(template)
    written = Sandbox().from_string(template)
    assert written.render(syntax.picked(SCOPE)) == written.render(SCOPE)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)
    )
)
def test_a_structure_is_written_as_json(value: Any) -> None:
    written = Sandbox().from_string("{{ inputs.x }}").render({"inputs": {"x": value}})
    if isinstance(value, list):
        assert json.loads(written) == value
    elif isinstance(value, str):
        assert written == value
