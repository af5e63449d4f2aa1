"""Artifacts with what lies beside them: previews, exports and differences over a real store."""

from __future__ import annotations

import io
import zipfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from corral.app.showing import Showing
from corral.db.engine import Database
from corral.domain.workspace import FORMS, Artifact, Made, Project, Run, Step, StepStatus
from corral.errors import EntryNotFound, InvalidRequest, NotSupported, UiMissing
from corral.kit.clock import SystemClock
from corral.workspace.code.languages import KINDS, kind_of
from corral.workspace.store import Store
from tests.support.components import COUNTER, COUNTER_CSS, PLAIN


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    database = Database(None, tmp_path)
    yield Store(database, tmp_path, SystemClock(), max_artifact=1 << 23)
    await database.close()


@pytest.fixture
async def project(store: Store) -> Project:
    return await store.projects.create(Project(id="", name="garden"))


async def _ran(store: Store, project: Project, **steps: dict[str, str]) -> dict[str, Artifact]:
    """What a run made whose steps made these files, by name."""
    run = await store.runs.create(Run(id="", project=project.id, name="p", source="name: p\n"))
    found: dict[str, Artifact] = {}
    for step, files in steps.items():
        made = [
            Made(name, kind_of(name), KINDS[kind_of(name)].media_type, text.encode()) for name, text in files.items()
        ]
        done = Step(run=run.id, key=step, name=step, status=StepStatus.COMPLETED, model="m")
        found |= {each.name: each for each in await store.runs.commit(done, made)}
    return found


async def test_a_preview_has_what_the_component_needs_and_no_more(store: Store, project: Project) -> None:
    made = await _ran(
        store,
        project,
        code={
            "src/Counter.tsx": COUNTER.replace("./Counter.css", "./styles/deep"),
            "src/styles/deep.css": COUNTER_CSS,
            "README.md": "# Read me",
            "other.tsx": "export default () => <p/>",
        },
    )
    await _ran(store, project, code={"src/styles/deep.css": "p { color: blue }"})  # that of another run

    shown = await Showing(store).preview(made["src/Counter.tsx"].id)

    assert shown["artifact"]["id"] == made["src/Counter.tsx"].id
    assert (shown["kind"], shown["component"], shown["problems"], shown["sheets"]) == ("tsx", "Counter", [], [])
    assert shown["files"] == [{"name": "src/styles/deep.css", "kind": "css", "content": COUNTER_CSS}]
    assert {
        "name": "tone",
        "type": "enum",
        "required": False,
        "default": "dark",
        "options": ("light", "dark"),
    }.items() <= (next(prop for prop in shown["props"] if prop["name"] == "tone").items())


async def test_imports_that_lead_nowhere_mean_the_only_file_of_that_name(store: Store, project: Project) -> None:
    made = await _ran(
        store,
        project,
        code={
            "a.tsx": 'import { b } from "./lib/b"\nimport "./css/styles"\nexport default () => <p>{b}</p>',
            "src/b.ts": "export const b = 1",
            "styles.css": "p {}",
        },
    )
    showing = Showing(store)

    shown = await showing.preview(made["a.tsx"].id)
    assert [file["name"] for file in shown["files"]] == ["lib/b.ts", "css/styles.css"]
    assert shown["sheets"] == []

    with zipfile.ZipFile(io.BytesIO((await showing.export(made["a.tsx"].id, "vite")).content)) as archive:
        assert "a/src/lib/b.ts" in archive.namelist()


async def test_style_sheets_that_nothing_imports_belong_to_the_step_or_the_name(store: Store, project: Project) -> None:
    made = await _ran(
        store,
        project,
        one={"A.tsx": "export default () => <p/>", "a-style.css": "p { top: 1 }"},
        two={"B.tsx": "export default () => <p/>"},
        three={"b.css": "p { top: 2 }", "c.css": "p { top: 3 }"},
    )
    showing = Showing(store)

    assert (await showing.preview(made["A.tsx"].id))["sheets"] == ["a-style.css"]
    assert (await showing.preview(made["B.tsx"].id))["sheets"] == ["b.css"]
    assert "top: 2" in (await showing.export(made["B.tsx"].id, "framer")).content.decode()
    alone = await _ran(store, project, one={"C.tsx": "export default () => <p/>"}, two={"x.css": "p { top: 4 }"})
    assert (await showing.preview(alone["C.tsx"].id))["sheets"] == ["x.css"]


async def test_of_very_many_siblings_the_newest_are_looked_at(store: Store, project: Project) -> None:
    old = {f"old{number}.txt": "old" for number in range(500)}
    made = await _ran(store, project, old=old, code={"Counter.tsx": COUNTER, "Counter.css": COUNTER_CSS})

    shown = await Showing(store).preview(made["Counter.tsx"].id)

    assert [each["name"] for each in shown["files"]] == ["Counter.css"]


async def test_an_edition_is_shown_as_it_was(store: Store, project: Project) -> None:
    made = await _ran(store, project, one={"A.jsx": PLAIN})
    await store.artifacts.edit(made["A.jsx"].id, b"export default function A( { return }")
    showing = Showing(store)

    old, new = await showing.preview(made["A.jsx"].id, 1), await showing.preview(made["A.jsx"].id)
    assert (old["source"], old["component"], old["problems"]) == (PLAIN, "Badge", [])
    assert new["problems"][0]["line"] == 1
    assert (await showing.export(made["A.jsx"].id, "plain", 1)).content == PLAIN.encode()
    with pytest.raises(EntryNotFound):
        await showing.preview(made["A.jsx"].id, 3)
    with pytest.raises(EntryNotFound):
        await showing.export("art-000000000000")


@pytest.mark.parametrize("source", ["", "f(" * 30_000, "<" * 60_000, "a" * 4_200_000, "import", "\ufeff<p>"])
@pytest.mark.parametrize("name", ["a.tsx", "a.html", "a.md", "a.py", "a.svg", "a.json", "a.txt"])
async def test_what_cannot_be_read_can_be_looked_at(store: Store, project: Project, name: str, source: str) -> None:
    made = await _ran(store, project, one={name: source})

    shown = await Showing(store).preview(made[name].id)

    assert shown["source"] == source
    assert shown["component"] is None


async def test_every_form_of_every_kind_is_made_or_refused_with_a_reason(store: Store, project: Project) -> None:
    sources = {"html": "<p>x</p>", "json": "{}", "svg": "<svg xmlns='http://www.w3.org/2000/svg'/>"}
    files = {f"x{kind.suffixes[0]}": sources.get(name, "x = 1") for name, kind in KINDS.items()}
    made = await _ran(store, project, one=files | {"c.tsx": "export default () => <p/>"})
    showing, done = Showing(store), []
    for artifact in made.values():
        for form in FORMS:
            with suppress(NotSupported, UiMissing):
                assert (await showing.export(artifact.id, form)).content
                done.append((artifact.kind, form))
    assert {kind for kind, form in done if form == "plain"} == set(KINDS)
    assert {kind for kind, form in done if form == "framer"} == {"tsx"}
    assert {kind for kind, form in done if form == "vite"} == {"tsx", "jsx", "ts", "js", "html"}
    assert {kind for kind, form in done if form == "html"} >= set(KINDS) - {"tsx", "jsx", "ts", "js"}
    with pytest.raises(InvalidRequest, match="poster"):
        await showing.export(made["c.tsx"].id, "poster")


async def test_bytes_are_exported_as_they_are_and_in_no_other_form(store: Store, project: Project) -> None:
    entry = Artifact(id="", project=project.id, name="deep/a.bin", kind="text", media_type="application/octet-stream")
    kept, showing = await store.artifacts.create(entry, b"\xff\x00"), Showing(store)

    plain = await showing.export(kept.id)
    assert (plain.name, plain.media_type, plain.content) == ("a.bin", "application/octet-stream", b"\xff\x00")
    for work in (showing.preview(kept.id), showing.export(kept.id, "html"), showing.diff(kept.id, kept.id)):
        with pytest.raises(NotSupported):
            await work


async def test_two_artifacts_are_compared(store: Store, project: Project) -> None:
    made = await _ran(store, project, one={"a.txt": "one\ntwo\n", "b.txt": "one\nthree\n"})

    found = await Showing(store).diff(made["a.txt"].id, made["b.txt"].id)

    assert (found["a"]["name"], found["b"]["name"], found["added"], found["removed"]) == ("a.txt", "b.txt", 1, 1)
    assert "-two\n+three\n" in found["unified"]


async def test_artifacts_that_were_put_there_by_hand_stand_beside_each_other(store: Store, project: Project) -> None:
    for name, text in {"A.tsx": 'import "./A.css"\nexport default () => <p/>', "A.css": "p {}"}.items():
        kept = await store.artifacts.create(
            Artifact(id="", project=project.id, name=name, kind=kind_of(name)), text.encode()
        )
        if name == "A.tsx":
            component = kept

    assert [file["name"] for file in (await Showing(store).preview(component.id))["files"]] == ["A.css"]
