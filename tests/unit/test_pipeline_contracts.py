"""Answers against contracts: found in words, checked, and what is wrong said so that a model can mend it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.workspace.pipelines.contracts import LONGEST_JSON, body_of, meet
from corral.workspace.pipelines.plan import Output, OutputKind
from corral.workspace.pipelines.schemas import fault_of

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
JSON = Output(OutputKind.JSON, SCHEMA)
ANY = Output(OutputKind.JSON)
CODE = Output(OutputKind.CODE, None, ("tsx", "css"), (None, None))
UNREAD = "The JSON of the answer cannot be read: "
COUNTER = "export default function Counter() {\n  return <p className='a'>1</p>\n}"
BOTH = f"Here it is:\n\n```tsx\n{COUNTER}\n```\n\nand\n\n```css\n.a {{ color: red }}\n```\n"


@pytest.mark.parametrize("kind", OutputKind)
@pytest.mark.parametrize("text", ["", " \n\t"])
def test_nothing_is_no_answer(kind: OutputKind, text: str) -> None:
    met = meet(Output(kind, None, ("tsx",) if kind is OutputKind.CODE else ()), text)
    assert met.problems == ("The answer is empty.",)
    assert not met.complete


def test_any_words_are_a_text() -> None:
    assert meet(Output(), "hello").problems == ()


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}',
        '\n\n{"a": 1}\n',
        'Sure!\n```json\n{"a": 1}\n```\nAnything else?',
        '```\n{"a": 1}\n```',
        'The answer is {"a": 1}, as you asked.',
        '<think>{"a": 5} or so</think>\n{"a": 1}',
        '```json\n{"a": 1}',
    ],
)
def test_json_is_found_in_words(text: str) -> None:
    met = meet(JSON, text)
    assert met.value == {"a": 1}
    assert met.problems == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("I cannot do that.", "There is no JSON in the answer."),
        ('{"a": 1, b}', f"{UNREAD}Expecting property name enclosed in double quotes, at line 1"),
        ('{"a": NaN}', f"{UNREAD}NaN is no JSON."),
        ('{"a": 1, "b": 1e999}', f"{UNREAD}1e999 is too large a number."),
        ('{"a": 123456789012345678901234567890}', f"{UNREAD}a number is too large"),
        ('{"a": 1, "b": "\\ud800"}', f"{UNREAD}a number is too large, or a text is broken."),
        ('{"a": 1, "b": "\\u0000"}', f"{UNREAD}a text has a character that cannot be kept."),
        ("[" * 50_000, f"{UNREAD}it is nested too deeply."),
        ('{"a":' * 60 + "1" + "}" * 60, f"{UNREAD}it is nested too deeply."),
        ('{"b": 1}', 'In the JSON, at its top: "a" is a required property.'),
        ('{"a": "one"}', 'In the JSON, at `a`: "one" is not of type "integer".'),
        ('{"a": 1, "b": "' + "x" * LONGEST_JSON + '"}', "The answer is longer than 1,048,576 characters."),
    ],
)  # fmt: skip
def test_json_that_is_none_or_another(text: str, said: str) -> None:
    met = meet(JSON, text)
    assert met.problems[0].startswith(said)
    assert met.value is None
    assert not met.complete


def test_a_text_of_several_lines_is_one() -> None:
    assert meet(ANY, '{"a": "one\n\ttwo"}').value == {"a": "one\n\ttwo"}
    assert meet(ANY, '{"a": "one\0"}').problems == (f"{UNREAD}a text has a character that cannot be kept.",)


def test_without_a_schema_any_json_will_do() -> None:
    assert meet(ANY, "[1, 2]").value == [1, 2]
    assert meet(ANY, "true").value is True


def test_few_mistakes_are_told_and_long_values_are_cut() -> None:
    met = meet(Output(OutputKind.JSON, {"items": {"type": "integer"}}), json.dumps(["x" * 10_000] * 50))
    assert len(met.problems) == 5
    assert all(len(problem) < 400 for problem in met.problems)


def test_a_large_value_against_a_large_schema_takes_no_time() -> None:
    schema = {"items": {"anyOf": [{"const": number} for number in range(900)]}}
    assert fault_of(schema) == ""
    began = time.process_time()
    met = meet(Output(OutputKind.JSON, schema), json.dumps(["x"] * 20_000))
    assert time.process_time() - began < 3
    assert len(met.problems) == 1


def chain(length: int, times: int) -> dict[str, Any]:
    """A schema whose parts each refer to the next, so often."""
    parts: dict[str, Any] = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * times} for n in range(length)}
    return {"$defs": parts | {f"d{length}": {}}}


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"$ref": "#"}, "'#' refers to what holds it"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "'#/$defs/"),
        ({"items": {"$ref": "http://127.0.0.1:1/x"}}, "'http://127.0.0.1:1/x' is not in it"),
        ({"items": {"$ref": "#/$defs/x"}}, "there is no '#/$defs/x' in it"),
        ({"unevaluatedProperties": False}, "`unevaluatedProperties` is not taken"),
        ({"pattern": "(a{1,1000}){1,1000}"}, '"(a{1,1000}){1,1000}" is not a "regex", at pattern'),
        ({"required": "a"}, '"a" is not of type "array", at required'),
        ({"enum": list(range(3000))}, "it has more than 2,000 parts"),
        ({"title": "x" * (1 << 16)}, "it is longer than 65,536 characters"),
        (chain(40, 2), "it has more than 2,000 parts"),
        (chain(100, 1), "it refers too deeply"),
    ],
)  # fmt: skip
def test_schemas_that_are_not_taken(schema: dict[str, Any], said: str) -> None:
    assert fault_of(schema).startswith(said)


def test_schemas_that_are() -> None:
    assert fault_of(True) == ""
    assert fault_of(SCHEMA) == ""
    assert fault_of({"$defs": {"part": SCHEMA}, "items": {"$ref": "#/$defs/part"}, "type": "array"}) == ""


def test_engines_are_told_of_a_schema() -> None:
    told = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    assert body_of(JSON) == {"response_format": told}
    assert body_of(ANY) == body_of(CODE) == body_of(Output()) == {}


def test_code_of_every_language_is_found_and_named_after_the_step() -> None:
    met = meet(CODE, BOTH, names=(None, None), step="page")
    assert [(file.name, file.kind) for file in met.files] == [("page.tsx", "tsx"), ("page.css", "css")]
    assert met.files[0].content == COUNTER + "\n"
    assert met.problems == ()
    assert met.complete


def test_the_model_s_own_names_are_kept_and_the_contract_s_come_first() -> None:
    text = BOTH.replace("```tsx", '```tsx title="src/Mine.tsx"')
    assert [file.name for file in meet(CODE, text, step="page").files] == ["src/Mine.tsx", "page.css"]
    assert [file.name for file in meet(CODE, text, names=("Ours.tsx", "ours.css")).files] == ["Ours.tsx", "ours.css"]


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("My counter", "My-counter.tsx"),
        ("../../etc/passwd", "etc/passwd.tsx"),
        ("/abs/x.tsx", "abs/x.tsx"),
        ("a\x00b\nc.tsx", "a-b-c.tsx"),
        ("...", "page.tsx"),
        ("x" * 500, "x" * 120 + ".tsx"),
    ],
)
def test_a_name_that_a_template_made_is_one_that_a_file_can_have(name: str, called: str) -> None:
    assert meet(CODE, BOTH, names=(name, None), step="page").files[0].name == called


def test_two_files_never_have_one_name() -> None:
    text = f"```tsx\n{COUNTER}\n```\n```tsx\n{COUNTER.replace('Counter', 'Other')}\n```\n```css\n.a{{}}\n```"
    names = [file.name for file in meet(CODE, text, names=("page.tsx", None), step="page").files]
    assert len(set(names)) == len(names) == 3


@pytest.mark.parametrize(
    ("text", "said", "complete"),
    [
        (f"```tsx\n{COUNTER}\n```", ["There is no css in the answer; put it into a block"], False),
        ("```python\nprint(1)\n```", ["There is no tsx", "There is no css", "What there is, is python."], False),
        (BOTH.replace("</p>", ""), ["`page.tsx`, line "], True),
        (BOTH.partition("color")[0], ["`page.css` has no end: the answer stops", "`page.css`, line 1: "], True),
        ("I am sorry.", ["There is no tsx", "There is no css"], False),
    ],
)  # fmt: skip
def test_code_that_is_not_what_was_asked_for(text: str, said: list[str], complete: bool) -> None:
    met = meet(CODE, text, step="page")
    for one in said:
        assert any(problem.startswith(one) for problem in met.problems), met.problems
    assert met.complete is complete


@given(st.text(max_size=300) | st.text(alphabet='{}[]":,`jsontx\n 0<>/', max_size=120))
def test_any_answer_is_met_by_any_contract(text: str) -> None:
    for output in (Output(), ANY, JSON, CODE):
        met = meet(output, text, names=(None,) * len(output.languages), step="a")
        if output.kind is OutputKind.JSON and not met.problems:
            assert json.loads(json.dumps(met.value)) == met.value
        if output.kind is OutputKind.CODE:
            assert met.complete == ({"tsx", "css"} <= {file.kind for file in met.files})
        assert bool(text.strip()) or met.problems


KEPT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | KEPT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEPT, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_any_value_is_found_in_a_block(value: Any) -> None:
    met = meet(ANY, f"Here:\n```json\n{json.dumps(value, indent=1)}\n```\nDone.")
    if isinstance(value, dict | list) and value:
        assert met.value == value
