"""Files are found in what models write, however they write it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.domain.workspace import check_path
from corral.workspace.code.extraction import Found, choose, extract
from corral.workspace.code.languages import KINDS

ANSWERS = Path(__file__).parent / "answers"
FOUND: list[dict[str, Any]] = yaml.safe_load((ANSWERS / "found.yaml").read_text())


@pytest.mark.parametrize("case", FOUND, ids=lambda case: f"{case['answer']}-{'-'.join(case.get('wanted', ['all']))}")
def test_what_models_wrote(case: dict[str, Any]) -> None:
    text = (ANSWERS / f"{case['answer']}.md").read_text()
    found = extract(text, wanted=case.get("wanted", ()))
    assert [_told(one) for one in found] == case["found"]


def test_every_answer_has_its_expectation() -> None:
    assert {path.stem for path in ANSWERS.glob("*.md")} == {case["answer"] for case in FOUND}


def _told(found: Found) -> list[Any]:
    lines = found.content.rstrip("\n").split("\n")
    return [found.name, found.kind, found.line, found.complete, lines[0], lines[-1]]


def test_line_ends_marks_and_emoji_of_other_systems() -> None:
    text = "\ufeffHere 👩‍🚀:\r\n\r\n```tsx\r\nexport const A = () => <p>👩‍🚀\u2028é</p>;\r\n```\r\n"
    (found,) = extract(text)
    assert found.content == "export const A = () => <p>👩‍🚀\u2028é</p>;\n"
    assert (found.kind, found.line, found.complete) == ("tsx", 4, True)
    assert extract("```py\rx = 1\r```")[0].content == "x = 1\n"


@pytest.mark.parametrize(
    "text", ["", "\n", "```", "``````", "~~~", "```tsx", "<think>", "'''python", "\ufeff", "\x00", "{"]
)
def test_nothing_is_found_in_nothing(text: str) -> None:
    assert extract(text) == []
    assert extract(text, wanted=tuple(KINDS)) == []


def test_a_wrong_language_is_not_what_is_wanted() -> None:
    text = "```python\nprint(1)\n```\n"
    assert extract(text, wanted=("css",)) == []
    assert [one.kind for one in extract(text)] == ["python"]


def test_a_relative_is_taken_as_what_is_wanted_when_it_reads_as_that() -> None:
    good = "```js\nexport default () => <p>fine</p>;\n```"
    assert [one.kind for one in extract(good, wanted=("tsx",))] == ["tsx"]
    bad = "```js\nexport default () => <p>broken</div>;\n```"
    assert [one.kind for one in extract(bad, wanted=("css",))] == []


def test_files_that_others_import_stay_beside_what_is_wanted() -> None:
    text = """```tsx title="src/App.tsx"
import { x } from './x';
export default () => <p>{x}</p>;
```
```ts title=src/x.ts
export const x = 1;
```"""
    found = extract(text, wanted=("tsx",))
    assert [(one.name, one.kind) for one in found] == [("src/App.tsx", "tsx"), ("src/x.ts", "ts")]


def test_an_end_that_was_seen_outweighs_a_later_beginning() -> None:
    text = "```css title=a.css\na { color: red; }\n```\nOr rather:\n```css title=a.css\na { col"
    (found,) = extract(text)
    assert (found.content, found.complete) == ("a { color: red; }\n", True)


def test_the_likeliest_of_several_is_whole_and_without_mistakes() -> None:
    text = """```tsx
<Usage of="it" />
```
```tsx
export default function A() { return <p>a, which is longer than the other</b>; }
```
```tsx
export default function A() {
  return <p>a</p>;
}
```"""
    chosen = choose(extract(text), "tsx")
    assert chosen is not None
    assert chosen.content.endswith("<p>a</p>;\n}\n")
    assert choose([], "tsx") is None


@pytest.mark.parametrize(
    "above",
    [
        "**File: `src/App.tsx`**",
        "#### App Component (`src/App.tsx`)",
        "src/App.tsx",
        "`src/App.tsx`:",
        "**src/App.tsx** - the main component",
        "1. **Create `src/App.tsx`**:",
        "## 2. src/App.tsx (new)",
        "<!-- file: src/App.tsx -->",
        "// src/App.tsx",
        'Save this as "src/App.tsx":',
        "filename: ./src/App.tsx",
        "Path: src\\App.tsx\n",
    ],
)
def test_names_above_a_fence(above: str) -> None:
    (found,) = extract(f"Text.\n\n{above}\n```tsx\nexport const a = <p/>;\n```\n")
    assert (found.name, found.named) == ("src/App.tsx", True)


@pytest.mark.parametrize(
    "info",
    [
        "tsx src/App.tsx",
        "tsx // src/App.tsx",
        "tsx:src/App.tsx",
        "src/App.tsx",
        "tsx {file=src/App.tsx}",
        "typescript jsx title='src/App.tsx' {1,3}",
        '{.tsx filename="src/App.tsx"}',
        "TSX path: src/App.tsx",
    ],
)
def test_names_in_a_fence(info: str) -> None:
    (found,) = extract(f"```{info}\nexport const a = <p/>;\n```\n")
    assert (found.name, found.kind) == ("src/App.tsx", "tsx")


def test_a_shorter_fence_within_a_longer_one_is_content() -> None:
    (found,) = extract("````text\na\n```\nb\n~~~\nc\n````\nd\n")
    assert found.content == "a\n```\nb\n~~~\nc\n"


def test_what_shows_a_use_is_not_what_was_asked_for() -> None:
    text = "```tsx\nexport const A = () => <p/>;\n```\nUse it:\n```tsx\nconst page = <main><A /><A /><A /></main>;\n```"
    chosen = choose(extract(text), "tsx")
    assert chosen is not None
    assert chosen.line == 2


def test_names_are_distinct_where_models_name_nothing() -> None:
    names = [one.name for one in extract("```css\na{}\n```\n" * 3 + "```css title=styles-2.css\nb{}\n```")]
    assert names == ["styles.css", "styles-3.css", "styles-4.css", "styles-2.css"]


PIECES = st.sampled_from(
    [
        "```",
        "````",
        "~~~",
        "```tsx",
        "```markdown\n",
        '```json {"a": 1}```',
        "'''python",
        "// file: a.tsx",
        "> ",
        "1. ",
        "<!-- file: ../b.html -->",
        "# file: C:\\x.py",
        "**src/X.tsx**",
        "### `a/b.css`",
        'title="X.tsx"',
        "</file>",
        '<file path="x.css">',
        "<think>",
        "</think>",
        "<html>",
        "</html>",
        "<svg",
        "</svg>",
        "{",
        "}",
        "[",
        "]",
        '"',
        "import x from 'y';",
        "export default () => <p/>;",
        "def f(): pass",
        "\r\n",
        "\r",
        "\n",
        "\n\n",
        " ",
        "\t",
        "\ufeff",
        "é",
        "👩‍🚀",
        "\u2028",
        "\x00",
        "a",
        "=== a.ts ===",
        "```diff\n--- a\n+++ b\n@@",
    ]
)


def test_a_line_of_a_quotation_without_its_mark_stays_as_it_is() -> None:
    (found,) = extract("> ```ts\n> export const one = 1;\nexport const two = () => 2;\n> ```\n")
    assert found.content == "export const one = 1;\nexport const two = () => 2;\n"


@given(
    st.lists(PIECES, max_size=40).map("".join), st.sampled_from([(), ("tsx",), ("json", "html", "svg"), tuple(KINDS)])
)
@settings(max_examples=400, deadline=None)
def test_any_text_gives_sound_files(text: str, wanted: tuple[str, ...]) -> None:
    found = extract(text, wanted=wanted)
    assert len({one.name for one in found}) == len(found)
    plain = text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufeff", "")
    for one in found:
        assert check_path(one.name) == one.name
        assert one.kind in KINDS
        assert one.content.strip()
        assert 1 <= one.line <= plain.count("\n") + 1
        for line in one.content.split("\n"):
            assert line.strip() in plain


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["css", "python", "json", "html", "markdown", "tsx", "text"]),
            st.text(st.sampled_from("ab \n`~{}<>/*#\"'=:;.\té👩"), min_size=1, max_size=80),
        ),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=300, deadline=None)
def test_what_is_fenced_well_comes_back_as_it_was(files: list[tuple[str, str]]) -> None:
    text, expected = "", []
    for number, (label, content) in enumerate(files):
        content = "x" + re.sub(r"[ \t]+(?=\n|$)", "", content).rstrip() + "y"  # noqa: PLW2901
        longest = max((len(run) for run in re.findall("`+", content)), default=2)
        fence = "`" * max(longest + 1, 3)
        text += f"The next:\n\n{fence}{label} title=file{number}.txt\n{content}\n{fence}\n\n"
        expected.append((f"file{number}.txt", content + "\n", True))
    assert [(one.name, one.content, one.complete) for one in extract(text)] == expected


@pytest.mark.parametrize(
    "piece",
    [
        "```tsx\n",
        "```tsx\nconst a = 1;\n```\n",
        "```\n",
        '{"',
        "[",
        '[1,"',
        "// file: a.tsx\nx\n",
        "\n",
        "class a\n",
        "<?xml <svg",
    ],
)
def test_beginnings_without_an_end_take_linear_time(piece: str) -> None:
    text = piece * (300_000 // len(piece))
    extract(text, wanted=("tsx", "json", "svg"))
    extract(text)


def test_a_file_of_ten_megabytes_comes_out_whole() -> None:
    row = '  { "name": "Ada 👩‍🚀", "size": 12345 },\n'
    body = "[\n" + row * (10_000_000 // len(row)) + "  {}\n]"
    (found,) = extract(f"Here:\n\n```json\n{body}\n```\n", wanted=("json",))
    assert found.content == body + "\n"
