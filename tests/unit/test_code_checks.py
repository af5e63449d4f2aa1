"""Each language is read by a parser of its own, which says where it stumbles."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.workspace.code import trees
from corral.workspace.code.languages import KINDS, LARGEST, MOST, check, guess, kind_of

GOOD = {
    "tsx": """import React, { useState, type FC } from "react";

type Props = { title: string; items?: readonly string[] };

/** A list. */
export const List: FC<Props> = ({ title, items = [] }) => {
  const [open, setOpen] = useState<boolean>(true);
  const shown = items.filter((item) => item.length < 5 && item > "a");
  return (
    <>
      <h1 className="a" onClick={() => setOpen((was) => !was)}>{title} is here, it's &amp; fine</h1>
      {open && <ul>{shown.map((item) => <li key={item}>{item}</li>)}</ul>}
      <style>{`.a { color: ${open ? "red" : "blue"}; }`}</style>
    </>
  );
};

export default List;
""",
    "jsx": "export default function A({ b }) {\n  return <b {...b}>{b?.c ?? 1}</b>;\n}\n",
    "ts": "export abstract class A<T extends object> { private x!: T; get y(): T | undefined { return this.x; } }\n",
    "js": "const a = { b: 1, ...c };\nfor (const d of e) if (d < 2) console.log(`x ${d}`);\n",
    "css": ":root { --a: 1px; }\n"
    "@media (max-width: 40em) { .b:hover > a::before { content: '}'; margin: calc(1px + 2%); } }\n",
    "html": "<!DOCTYPE html>\n<html><head><meta charset=utf-8><style>p { a: b }</style></head><body><p>a<p>b<br>"
    "<ul><li>x<li>y</ul><script>if (1 < 2) { }</script></body></html>\n",
    "python": "async def f(x: int, /, *, y=1) -> None:\n    match x:\n        case [1, *rest]:\n"
    "            print(f'{rest!r}')\n",
    "json": '{"a": [1, -2.5e3, true, null, "é"]}',
    "markdown": "# a\n\n```js\nx\n```\n\n~~~\ny\n~~~\n",
    "svg": '<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"><text>é</text></svg>',
    "diff": "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n",
    "text": "anything {[(",
}

BAD = [
    ("tsx", "const a = <div>x</span>;", 1, 17, "`</span>` closes `<div>` of line 1"),
    ("tsx", "const a = 1;\nfunction b() {\n  return <p>{a</p>;\n}\n", 2, 14, "`{` is never closed"),
    ("tsx", "import A from 'a';\nimport { A } from 'b';\n", 2, 10, "`A` is declared already, in line 1"),
    ("jsx", "const é = ;\n", 1, 9, "this cannot be read: `=`"),
    ("ts", "const x: string = ;", 1, 17, "this cannot be read: `=`"),
    ("js", "function f() { return { a: 1 }", 1, 31, "`}` is missing here"),
    ("css", "a { color: red;", 1, 16, "`}` is missing here"),
    ("html", "<div><span>x</div>", 1, 6, "`<span>` is never closed"),
    ("html", "<p>é</b></p>", 1, 5, "`</b>` closes nothing that is open"),
    ("html", "<p>\n<script>\nlet x = ;</script>", 3, 7, "this cannot be read: `=`"),
    ("html", "<style>a { b: c </style>", 1, 10, "`{` is never closed"),
    ("html", '<script type="application/json">{"a": }</script>', 1, 39, "Expecting value"),
    ("python", "def f():\n  return (1\n", 2, 10, "'(' was never closed"),
    ("python", "x = 1\n\ty = 2", 2, 1, "unexpected indent"),
    ("json", '{"a": 1,\n "b": NaN}', 2, 7, "`NaN` is no JSON"),
    ("json", '{"a": 1,\nb}', 2, 1, None),
    ("markdown", "# a\n\n```js\nx\n", 3, 1, "the fence ``` is never closed"),
    ("svg", '<svg xmlns="http://www.w3.org/2000/svg"><g></svg>', 1, 46, "mismatched tag"),
    ("svg", '<!DOCTYPE a [<!ENTITY b "c">]><svg>&b;</svg>', 1, 1, "document types and entities are refused in SVG"),
    ("svg", "<!DOCTYPE svg><svg/>", 1, 1, "document types and entities are refused in SVG"),
    ("svg", "<svg/>", 1, 1, '`<svg>` lacks xmlns="http://www.w3.org/2000/svg"'),
    ("svg", "<html/>", 1, 1, "the outermost element is not `<svg>`"),
    ("diff", "--- a\n+++ b\n@@\n what?\n!no\n", 5, 1, "this line belongs to no diff: '!no'"),
    ("diff", "nothing", 1, 1, "there is no change in this"),
    ("tsx", " \n", 1, 1, "the file is empty"),
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_file_has_no_problem(kind: str) -> None:
    assert check(kind, GOOD[kind]) == ()


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_file_looks_like_its_kind(kind: str) -> None:
    assert guess(GOOD[kind]) == kind


@pytest.mark.parametrize(("kind", "content", "line", "column", "message"), BAD)
def test_a_mistake_is_told_with_its_place(kind: str, content: str, line: int, column: int, message: str | None) -> None:
    problems = check(kind, content)
    assert (line, column) in [(one.line, one.column) for one in problems], problems
    if message is not None:
        assert (line, column, message) in [(one.line, one.column, one.message) for one in problems]


@pytest.mark.parametrize("kind", ["tsx", "css", "html", "python", "json", "svg"])
def test_half_a_file_is_never_sound(kind: str) -> None:
    content = GOOD[kind].rstrip()
    assert check(kind, content[: len(content) * 3 // 4])


def test_a_wrong_escape_warns_nobody() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check("python", 'x = "\\d"\n') == ()


def test_python_is_read_and_not_run() -> None:
    assert check("python", "import sys\nsys.modules['ran'] = sys\n") == ()
    assert "ran" not in sys.modules


def test_no_parser_is_loaded_before_a_file_is_read() -> None:
    code = """
import sys
from corral.workspace import comparing
from corral.workspace.code import components, diffs, extraction, languages
extraction.extract("words")
heavy = {"tree_sitter", "markdown_it", "defusedxml", "jsonschema_rs"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


NESTED = [
    "a<b,",
    "if(?*!",
    "<T>",
    "f(<T>(",
    "[",
    "{",
    "(",
    "<div>",
    "/*import ",
    "`class /*",
    "<a<a&",
    '"/*',
    "@=>{",
    "a{",
    "+=>",
]


@pytest.mark.parametrize("piece", NESTED)
@pytest.mark.parametrize("kind", ["tsx", "js", "css", "html", "json", "python"])
def test_what_is_nested_as_no_code_is_refused_in_time(kind: str, piece: str) -> None:
    """Without bounds some of these take gigabytes, and minutes."""
    assert len(check(kind, piece * 4000)) <= MOST


@pytest.mark.parametrize("piece", [b"a<b,", b"if(?*!", b"/*import ", b"[", b"<div>"])
def test_what_is_nested_as_no_code_is_not_even_parsed(piece: bytes) -> None:
    assert trees.parse("tsx", piece * 1000) is None
    assert trees.parse("tsx", piece * 100) is not None


def test_a_file_that_is_too_large_is_said_to_be() -> None:
    (problem,) = check("json", "1" * (LARGEST + 1))
    assert problem.message.startswith("too large")


@pytest.mark.parametrize(
    ("name", "hint", "kind"),
    [
        ("src/App.TSX", "", "tsx"), ("a.mjs", "", "js"),
        ("x.py", "css", "python"), ("Makefile", "", "text"),
        ("", "jsx", "jsx"),
        ("", "TypeScript", "ts"), ("", "bash", "text"), ("a.d/readme", "md", "markdown"), ("a.yaml", "", "text"),
    ],
)  # fmt: skip
def test_kinds_by_name_and_by_word(name: str, hint: str, kind: str) -> None:
    assert kind_of(name, hint) == kind


@given(
    st.sampled_from(list(KINDS)), st.text(st.sampled_from("ab1 \n<>/{}()[]\"'`=;:,.*+-#&é👩\x00\ud800"), max_size=60)
)
@settings(max_examples=400, deadline=None)
def test_any_text_is_read_in_any_language(kind: str, content: str) -> None:
    lines = content.split("\n")
    for problem in check(kind, content):
        assert 1 <= problem.line <= len(lines) + 1
        assert problem.column >= 1
        assert problem.message
    assert guess(content) in KINDS
