"""Lines of an archive and its zip: what is written is read, what is not so is refused."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.domain.workspace import Artifact, Context, ContextKind, Edition, Pipeline, Project, Run, RunStatus, Step
from corral.errors import BodyTooLarge, InvalidRequest
from corral.workspace.exports import records
from corral.workspace.exports.survey import is_member
from corral.workspace.exports.zips import Poured, Suspect

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
WHOLE = st.integers(-(2**63), 2**63 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | WHOLE | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=3)
TIME = st.floats(0, 1e12)


@given(TEXT, TEXT, OBJECT, st.lists(OBJECT, max_size=2), WHOLE, st.none() | WHOLE, st.sampled_from(RunStatus), TIME)
def test_a_run_is_read_as_it_was_written(
    name: str, title: str, inputs: Any, material: Any, cost: int, seed: int | None, status: RunStatus, at: float
) -> None:
    run = Run(
        id="run-1", project="p", name=name, source=title, inputs=inputs, material=tuple(material), cost=cost, seed=seed,
        status=status, created_at=at, tags=(name, title), error=inputs or None,
    )  # fmt: skip

    assert records.read(records.write(run), Run) == run


@given(JSON, st.lists(OBJECT, max_size=2), TEXT)
def test_a_step_is_read_as_it_was_written(value: Any, tries: Any, output: str) -> None:
    step = Step(run="r", key="k[1]", name="k", index=1, value=value, tries=tuple(tries), output=output)

    assert records.read(records.write(step), Step) == step


def test_other_records_are_read_as_they_were_written() -> None:
    for record in (
        Project(id="prj-1", name="a", settings={"x": [1]}, tags=("t",), archived_at=1.5),
        Context(id="ctx-1", project="prj-1", kind=ContextKind.FILE, name="f", digest="0" * 64, enabled=False),
        Pipeline(id="pip-1", name="p", source="name: p\n"),
        Artifact(id="art-1", project="prj-1", name="a.tsx", kind="tsx"),
        Edition(artifact="art-1", number=1, digest="0" * 64, size=1, created_at=1.5, problems=({"line": 1},)),
    ):
        assert records.read(records.write(record), type(record)) == record


LINE = records.write(Project(id="prj-1", name="a"))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        LINE[:-3],
        LINE.replace(b'"version":1', b'"version":true'),
        LINE.replace(b'"version":1', b'"version":1.0'),
        LINE.replace(b'"version":1', b'"version":9223372036854775808'),
        LINE.replace(b'"version":1', b'"version":null'),
        LINE.replace(b'"name":"a"', b'"name":1'),
        LINE.replace(b'"name":"a"', b'"name":"\\ud800"'),
        LINE.replace(b'"name":"a"', b'"name":"a","more":1'),
        LINE.replace(b'"tags":[]', b'"tags":[1]'),
        LINE.replace(b'"tags":[]', b'"tags":{}'),
        LINE.replace(b'"settings":{}', b'"settings":[]'),
        LINE.replace(b'"settings":{}', b'"settings":{"a":' + b"[" * 900 + b"]" * 900 + b"}"),
        LINE.replace(b'"settings":{}', b'"settings":{"a":' + b"[" * 9000 + b"]" * 9000 + b"}"),
        LINE.replace(b'"created_at":0.0', b'"created_at":"0"'),
        LINE.replace(b'"created_at":0.0', b'"created_at":1e999'),
    ],
)
def test_what_is_no_such_record_is_refused(line: bytes) -> None:
    assert line != LINE
    with pytest.raises(InvalidRequest):
        records.read(line, Project)


def _zip(*members: tuple[str, bytes]) -> bytes:
    poured, made = Poured(), bytearray()
    for name, data in members:
        poured.begin(name)
        for begin in range(0, len(data), 1000):
            poured.write(data[begin : begin + 1000])
            made += poured.taken()
        poured.end()
    poured.close()
    return bytes(made + poured.taken())


def _suspect(data: bytes, largest: int = 1 << 20) -> Suspect:
    return Suspect(io.BytesIO(data), is_member, largest)


@given(
    st.binary(max_size=5000), st.lists(st.binary(max_size=50).map(lambda line: line.replace(b"\n", b"")), max_size=9)
)
def test_a_zip_that_is_poured_is_read_again(data: bytes, lines: list[bytes]) -> None:
    name = f"contents/{'0' * 64}"
    made = _zip((name, data), ("entries/runs.jsonl", b"".join(line + b"\n" for line in lines)))

    found = _suspect(made)
    assert found.read(name, 5000) == data
    assert list(found.lines("entries/runs.jsonl", 100)) == lines
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        assert archive.testzip() is None


def test_bounds_of_members_and_lines() -> None:
    made = _zip(("manifest.json", b"x" * 2000), ("entries/runs.jsonl", b"y" * 500 + b"\n" + b"z" * 400_000 + b"\n"))

    with pytest.raises(InvalidRequest, match="larger than"):
        _suspect(made).read("manifest.json", 1999)
    with pytest.raises(InvalidRequest, match="line of more"):
        list(_suspect(made).lines("entries/runs.jsonl", 100))
    with pytest.raises(InvalidRequest, match="There is no entries/steps"):
        _suspect(made).read("entries/steps.jsonl", 1)
    with pytest.raises(BodyTooLarge):
        _suspect(made, 400_000)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "contents",
        "contents/",
        f"contents/{'0' * 63}",
        f"contents/{'A' * 64}",
        f"contents/{'0' * 64}/",
        f"/contents/{'0' * 64}",
        f"contents/../contents/{'0' * 64}",
        f"contents/{'0' * 64}\n",
        "Manifest.json",
        "manifest.jsonX",
    ],
)
def test_names_that_no_archive_has(name: str) -> None:
    assert not is_member(name)
    with pytest.raises(InvalidRequest, match="has no"):
        _suspect(_zip((name, b"x")))


def test_a_name_with_a_zero_byte_is_not_taken_for_what_stands_before_it() -> None:
    made = _zip(("manifest.jsonX.exe", b"x")).replace(b"jsonX", b"json\0")

    with pytest.raises(InvalidRequest, match="has no"):
        _suspect(made)


@given(st.binary(max_size=300))
def test_any_bytes_are_no_zip(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        _suspect(data)


@given(st.data())
def test_a_zip_with_turned_bytes_never_gives_other_ones(data: st.DataObject) -> None:
    """Every member is as it was, or is refused."""
    name, content = f"contents/{'0' * 64}", b"abc" * 50
    made = bytearray(_zip((name, content), ("manifest.json", b"{}")))
    for _ in range(data.draw(st.integers(1, 3))):
        made[data.draw(st.integers(0, len(made) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = _suspect(bytes(made))
        read = found.read(name, 1000)
    except (InvalidRequest, BodyTooLarge):
        return
    assert read == content
