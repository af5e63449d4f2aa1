"""What the workspace's store decides without a database: words, cursors, what may be written down, JSON."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.domain.workspace import Context, ContextKind, Edition, Hit, Run, Step
from corral.errors import InvalidRequest
from corral.workspace.cursors import Cursor, pack, unpack
from corral.workspace.described import describe
from corral.workspace.soundness import check_json, check_line, check_tags, check_text, check_whole, mended, sound
from corral.workspace.words import Word, asked, excerpt, words_of

ODD = st.text(alphabet=st.characters(exclude_categories=()), max_size=40)


def words(text: str) -> set[str]:
    """The words of a text without the marks of its entry."""
    return {word for word in words_of([text], kind="run", project="").split(" ") if word and word[0] != "\ue001"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Größe straße ÉTÉ", {"grosse", "strasse", "ete"}),
        ("CounterButton", {"counterbutton", "counter", "button"}),
        ("parseHTML5File", {"parsehtml5file", "parse", "html", "5", "file"}),
        ("snake_case src/App.tsx", {"snake", "case", "src", "app", "tsx"}),
        ("数据 x", {"数", "据", "x"}),
        ("٣ ² ﬁle", {"٣", "2", "file"}),
        ("-- '\"* \\ ☃", set()),
        ("", set()),
    ],
)
def test_a_text_is_cut_into_words(text: str, found: set[str]) -> None:
    assert words(text) == found


def test_what_is_asked_is_cut_as_what_is_there() -> None:
    assert asked("Count* Größe") == (Word("count", begins=True), Word("grosse"))
    assert asked("數據*") == (Word("數"), Word("據", begins=True))
    assert asked("a a A") == (Word("a"),)
    assert len(asked(" ".join(f"w{number}" for number in range(99)))) == 16
    assert asked("*** ' OR 1=1") == (Word("or"), Word("1"))


@given(ODD)
def test_every_word_of_a_text_is_found_by_itself_and_harms_no_query(text: str) -> None:
    found = words_of([text], kind="artifact", project="prj-0123456789ab")
    for word in asked(text):
        assert f" {word.text}{'' if word.begins else ' '}" in found
        assert word.text.isalnum()
        assert len(word.text) <= 64


def test_long_texts_have_bounded_words() -> None:
    assert max(map(len, words("x" * 10_000))) == 64
    assert len(words_of(["word " * 1_000_000], kind="run", project="")) < 100


def test_an_excerpt_has_the_word_in_it() -> None:
    body = "start " * 100 + "the needle\nis here " + "end " * 100
    assert "the needle is here" in excerpt(body, [Word("missing"), Word("needle")])
    assert excerpt(body, [Word("needle")]).startswith("…")
    assert excerpt("short\n text", [Word("absent")]) == "short text"
    assert len(excerpt("x" * 1000, [])) < 210


@pytest.mark.parametrize(
    ("value", "kind"), [("name with ünïcode \u00a0", str), (1_700_000_000.123456, float), (0.0, float), (-5, int)]
)
def test_a_cursor_comes_back_as_it_was(value: Any, kind: type) -> None:
    cursor = Cursor("-updated_at", value, "art-0123456789ab")
    assert unpack(pack(cursor), "-updated_at", kind) == cursor


def written(value: Any) -> str:
    """A cursor that somebody wrote himself."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "é",
        "\ud800",
        "A" * 100_000,
        written([]),
        written({"sort": "s"}),
        written(["s", 1.0]),
        written(["other", 1.0, "id"]),
        written(["s", "1.0", "id"]),
        written(["s", True, "id"]),
        written(["s", None, "id"]),
        written(["s", math.inf, "id"]),
        written(["s", math.nan, "id"]),
        written(["s", 10**400, "id"]),
        written(["s", 1.0, "i\0d"]),
        written(["s", 1.0, 7]),
        written(["s", 1.0, "x" * 99]),
        base64.urlsafe_b64encode(b"[" * 5000).decode(),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    ],
)
def test_a_cursor_that_somebody_made_up_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        unpack(cursor, "s", float)
    assert caught.value.param == "cursor"


def test_a_cursor_with_a_text_that_no_database_holds_is_refused() -> None:
    for value in ("a\0b", "\ud800"):
        with pytest.raises(InvalidRequest):
            unpack(written(["s", value, "id"]), "s", str)


@given(st.text())
def test_no_text_as_a_cursor_does_more_than_be_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        unpack(text, "s", int)


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "\udfff tail", 7, None, b"bytes"])
def test_what_is_no_text_is_refused(text: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_text(text, "title")
    assert caught.value.param == "title"


def test_lines_and_tags_are_short_and_plain() -> None:
    assert check_line("Ünï 🐻", "title") == "Ünï 🐻"
    for line in ("a\nb", "x" * 201, "\x7f"):
        with pytest.raises(InvalidRequest):
            check_line(line, "title")
    with pytest.raises(InvalidRequest):
        check_line("  ", "name", empty=False)
    assert check_tags([" a", "b", "a "]) == ("a", "b")
    for tags in ("text", [""], ["x" * 201], [7], [str(number) for number in range(51)]):
        with pytest.raises(InvalidRequest):
            check_tags(tags)


def test_numbers_have_64_bits() -> None:
    assert check_whole(-(1 << 63), "seed") == -(1 << 63)
    for value in (1 << 63, True, 1.0, "1"):
        with pytest.raises(InvalidRequest):
            check_whole(value, "seed")


def test_json_is_what_json_has() -> None:
    assert check_json({"a": (1, 2.5, None, True, "x")}, "inputs") == {"a": [1, 2.5, None, True, "x"]}
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    for value in (math.nan, math.inf, {1: "a"}, {"a": {"b\0": 1}}, {"a": "\ud800"}, {"a": {1, 2}}, b"x", deep):
        with pytest.raises(InvalidRequest) as caught:
            check_json(value, "inputs")
        assert caught.value.param == "inputs"


@given(st.recursive(ODD | st.floats() | st.none(), lambda each: st.lists(each) | st.dictionaries(ODD, each)))
def test_what_a_model_wrote_can_be_kept_once_it_is_mended(value: Any) -> None:
    assert check_json(mended(value), "output") == mended(value)


@given(ODD)
def test_what_is_sound_is_left_alone(text: str) -> None:
    assert (mended(text) == text) == sound(text)


def test_entries_are_described_with_words_and_dollars() -> None:
    run = Run(id="run-1", project="prj-1", name="page", source="s", cost=1_500_000_000, material=[{"a": (1,)}])
    found = describe(run)
    assert (found["cost_usd"], found["budget_usd"], found["status"]) == (1.5, None, "queued")
    assert "cost" not in found
    assert "budget" not in found
    assert found["material"] == [{"a": [1]}]
    assert describe(Context(id="c", project="p", kind=ContextKind.FILE, name="f", tags=("a",)))["tags"] == ["a"]
    for each in (
        Step(run="r", key="k", name="k"),
        Edition(artifact="a", number=1, digest="d", size=0, created_at=0.0),
        Hit("run", "r", None, "t", "e"),
    ):
        json.dumps(describe(each))
