"""What `corral projects` and `artifacts` make of entries: tables, words, files that are never written over."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from corral.cli.output import Mode, Output
from corral.cli.projects import query
from corral.cli.table import cells
from corral.cli.workspace_files import below, content_of, text_of, whole, written
from corral.cli.workspace_hands import _asked
from corral.cli.workspace_words import about, listed, state, told
from corral.domain.workspace import Artifact, Context, ContextKind, Entry, Pipeline, Project, Run
from corral.errors import Conflict, InvalidName, InvalidRequest, NoPermission
from corral.workspace.described import describe

LONG = "a name that goes on and on \x1b[31m" * 4
ENTRIES: dict[str, Entry] = {
    "projects": Project(id="prj-0123456789ab", name="shop", title=LONG, tags=("web",)),
    "contexts": Context(id="ctx-0123456789ab", project="prj-0123456789ab", kind=ContextKind.FILE, name=LONG),
    "pipelines": Pipeline(id="pip-0123456789ab", name="page", source="", description=LONG),
    "runs": Run(id="run-0123456789ab", project="prj-0123456789ab", name="page", source="", title=LONG),
    "artifacts": Artifact(id="art-0123456789ab", project="prj-0123456789ab", name=LONG, kind="tsx"),
}


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def page(kind: str, **more: Any) -> dict[str, Any]:
    return {"items": [describe(ENTRIES[kind])], "next": None, "total": None, **more}


@pytest.mark.parametrize("kind", ENTRIES)
@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_table_is_as_wide_as_the_terminal(kind: str, width: int) -> None:
    stdout = Terminal()
    env = {"COLUMNS": str(width), "NO_COLOR": "1"}
    listed(Output(stdout=stdout, stderr=io.StringIO(), env=env), kind, page(kind), "nothing")

    assert max(map(cells, stdout.getvalue().splitlines())) <= width
    assert "\x1b" not in stdout.getvalue()
    assert len(stdout.getvalue().splitlines()) == 2


@pytest.mark.parametrize(("kind", "name"), [("projects", "shop"), ("pipelines", "page"), ("runs", "run-0123456789ab")])
def test_programs_are_told_by_what_it_is_asked_for(kind: str, name: str) -> None:
    quiet, both = io.StringIO(), io.StringIO()
    listed(Output(Mode.QUIET, stdout=quiet), kind, page(kind), "nothing")
    listed(Output(Mode.JSON, stdout=both), kind, page(kind, next="more"), "nothing")

    assert quiet.getvalue() == f"{name}\n"
    found = json.loads(both.getvalue())
    assert (found["count"], found["next"], found[kind][0]["id"]) == (1, "more", ENTRIES[kind].id)


def test_an_empty_list_says_what_to_type() -> None:
    stdout = io.StringIO()
    listed(Output(stdout=stdout), "projects", {"items": []}, "There is none: corral projects create NAME")

    assert stdout.getvalue() == "There is none: corral projects create NAME\n"


def test_what_was_done_is_said_by_name_and_id() -> None:
    stdout = io.StringIO()
    artifact = describe(Artifact(id="art-0123456789ab", project="p", name="src/Counter.tsx", kind="tsx"))
    told(Output(stdout=stdout), "artifacts", artifact, "kept")

    assert stdout.getvalue() == "Artifact src/Counter.tsx (art-0123456789ab) is kept.\n"
    assert str(state({"deleted_at": 1.0, "archived_at": 1.0})) == "removed"
    assert ("title", "x") not in about(describe(ENTRIES["runs"]), "seed")


def test_a_list_is_asked_over_http_as_it_is_here() -> None:
    asked = query(["web", "new"], "bees", removed=True, limit=5, run="run-1", project=None)

    assert asked == {
        "limit": 5,
        "run": "run-1",
        "tags": ("web", "new"),
        "search": "bees",
        "deleted": True,
        "archived": None,
    }
    assert _asked(asked) == {
        "limit": 5,
        "run": "run-1",
        "tag": ("web", "new"),
        "q": "bees",
        "deleted": "true",
        "archived": "any",
    }


async def test_no_file_is_written_over_and_none_is_left_half(tmp_path: Path) -> None:
    file = tmp_path / "site" / "page.html"
    assert await written(file, whole(b"one")) == (file, 3)
    with pytest.raises(Conflict):
        await written(file, whole(b"two"))
    assert file.read_bytes() == b"one"
    await written(file, whole(b"two"), force=True)
    assert file.read_bytes() == b"two"

    async def breaks() -> AsyncIterator[bytes]:
        yield b"half"
        raise InvalidRequest("broken off")

    with pytest.raises(InvalidRequest):
        await written(tmp_path / "half", breaks())
    with pytest.raises(Conflict, match="is a folder"):
        await written(tmp_path / "site", whole(b""), force=True)
    with pytest.raises(NoPermission):
        await written(file / "below", whole(b""))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["page.html", "site"]


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "a//b", "", "a\nb", "a/./b", "..\\x"])
def test_a_name_leads_nowhere_else(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidName):
        below(tmp_path, name)


def test_what_is_no_file_or_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(b"\xff\xfe\x00")

    with content_of(str(tmp_path / "picture")) as content:
        assert (content.size, content.read()) == (3, b"\xff\xfe\x00")
    for name in ("picture", "none", "."):
        with pytest.raises(InvalidRequest):
            text_of(str(tmp_path / name))


async def test_a_file_is_read_while_it_is_sent_and_again_from_its_beginning(tmp_path: Path) -> None:
    file, given = tmp_path / "large", bytes(range(256)) * 4096
    file.write_bytes(given)

    with content_of(str(file)) as content:
        assert content.size == len(given)
        for _ in range(2):
            pieces = [piece async for piece in content.pieces()]
            assert b"".join(pieces) == given
            assert max(map(len, pieces)) < len(given) / 2
