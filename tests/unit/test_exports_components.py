"""Components for Framer, for Vite and for a page of their own."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from corral.errors import InvalidRequest, NotSupported, UiMissing
from corral.workspace.code.components import Component, analyse
from corral.workspace.code.languages import check
from corral.workspace.code.signatures import Prop
from corral.workspace.exports import vite
from corral.workspace.exports.exported import Material
from corral.workspace.exports.framer import code_component, control_of, title
from corral.workspace.exports.page import SCRIPT, page
from tests.support.components import ALL, COUNTER, COUNTER_CSS, material


@pytest.mark.parametrize(
    ("prop", "control"),
    [
        (Prop("label", "string", required=True), {"type": "String", "defaultValue": "Label"}),
        (Prop("label", "string"), {"type": "String", "optional": True}),
        (Prop("text", "string", default="a\nb"), {"type": "String", "defaultValue": "a\nb", "displayTextArea": True}),
        (Prop("n", "number", default=3), {"type": "Number", "defaultValue": 3}),
        (Prop("n", "number", default=0.25), {"type": "Number", "defaultValue": 0.25, "step": 0.01}),
        (Prop("n", "number", required=True), {"type": "Number", "defaultValue": 0}),
        (Prop("n", "number", default="3"), {"type": "Number", "optional": True}),
        (Prop("on", "boolean"), {"type": "Boolean", "defaultValue": False}),
        (Prop("on", "boolean", default=True), {"type": "Boolean", "defaultValue": True}),
        (
            Prop("tone", "enum", options=("light", "very-dark")),
            {
                "type": "Enum",
                "options": ["light", "very-dark"],
                "optionTitles": ["Light", "Very Dark"],
                "defaultValue": "light",
            },
        ),
        (Prop("c", "color", default="tomato"), {"type": "Color", "defaultValue": "tomato"}),
        (Prop("c", "color"), {"type": "Color", "optional": True}),
        (Prop("onDone", "function"), {"type": "EventHandler"}),
        (Prop("format", "function"), None),
        (Prop("icon", "node"), {"type": "Slot"}),
        (Prop("l", "array", default=["a"]), {"type": "Array", "control": {"type": "String"}, "defaultValue": ["a"]}),
        (Prop("l", "array", default=[1, "a"]), None),
        (Prop("l", "array", default=[[1]]), None),
        (Prop("l", "array", default=[]), None),
        (Prop("l", "array"), None),
        (
            Prop("o", "object", default={"inkColor": "#fff", "list": []}),
            {
                "type": "Object",
                "controls": {"inkColor": {"type": "Color", "title": "Ink Color", "defaultValue": "#fff"}},
                "defaultValue": {"inkColor": "#fff", "list": []},
            },
        ),
        (Prop("o", "object", default={}), None),
        (Prop("o", "unknown"), None),
        (Prop("o", "unknown", default=2), {"type": "Number", "defaultValue": 2}),
    ],
)
def test_a_prop_has_the_control_of_its_type(prop: Prop, control: dict[str, object] | None) -> None:
    found = control_of(prop)

    assert (None if found is None else dict(found)) == (control and {**control, "title": title(prop.name)})


def test_titles_and_descriptions() -> None:
    assert [title(name) for name in ("maxCount", "on_change", "URL", "x2Value", "$")] == [
        "Max Count",
        "On Change",
        "URL",
        "X2 Value",
        "$",
    ]
    found = control_of(Prop("a", "string", doc="Says\n  it."))
    assert found is not None
    assert found["description"] == "Says it."


@pytest.mark.parametrize("name", ALL)
def test_a_code_component_is_one_module_with_one_annotated_default_export(name: str) -> None:
    made, component = ALL[name]()

    exported = code_component(made, component)

    source = exported.content.decode()
    assert check("tsx", source) == ()
    again = analyse(source, "tsx")
    assert again is not None
    assert again.exported == "default"
    assert source.count("export ") == 1
    head, _, tail = source.partition("export default function ")
    assert tail, source
    comment = head.rstrip()[head.rstrip().rindex("/**") :]
    assert comment.endswith("*/")
    assert "@framerSupportedLayoutWidth any" in comment
    assert "@framerSupportedLayoutHeight" in comment
    assert f"addPropertyControls({tail[: tail.index('(')]}, {{" in source
    assert (exported.name, exported.media_type) == (f"{made.stem}.tsx", "text/tsx")
    assert 'css"' not in source


def test_a_comment_of_the_component_takes_the_annotations_in() -> None:
    made, component = material("a.tsx", COUNTER.replace('import "./Counter.css"\n', ""))

    source = code_component(made, component).content.decode()

    assert (
        "/**\n * Counts what is clicked.\n"
        " * @framerSupportedLayoutWidth any\n * @framerSupportedLayoutHeight auto\n */\n"
        "export default function Counter({\n"
    ) in source
    assert 'title: "Label",\n        description: "What it counts.",\n        defaultValue: "Label",\n' in source


def test_style_sheets_become_a_part_of_it() -> None:
    made, component = ALL["counter"]()
    loose = replace(made, files={**made.files, "x.css": "p { top: 0 }"}, sheets=("x.css",))

    source = code_component(loose, component).content.decode()

    written = json.loads(source.split("const framerStyles = ", 1)[1].split("\n", 1)[0])
    assert written == "p { top: 0 }\n" + COUNTER_CSS.replace("</style>", "<\\/style>")
    assert "<style dangerouslySetInnerHTML={{ __html: framerStyles }} />" in source
    assert 'FramerCounter.displayName = "Counter"' in source


def test_a_component_that_takes_style_fills_what_it_is_given() -> None:
    made, component = ALL["form"]()
    source = code_component(made, component).content.decode()

    assert "@framerSupportedLayoutHeight any\n * @framerIntrinsicWidth 400" in source
    assert "    style: {" not in source


def test_names_that_are_taken_are_not_taken_twice() -> None:
    source = (
        "const FramerA = 1, FramerProps = 2, ControlType = 3, framerStyles = 4\n"
        "const A = ({ n = 1 }) => <p>{n}</p>\nexport default A"
    )
    made, component = material("A.jsx", source, A_css="p {}")
    exported = code_component(replace(made, sheets=("A.css",)), component).content.decode()

    assert "export default function FramerA_(props: FramerProps_<typeof A>)" in exported
    assert "ControlType as ControlType_" in exported
    assert "const framerStyles_ = " in exported
    assert check("tsx", exported) == ()


def test_what_has_no_control_is_said() -> None:
    made, component = ALL["chart"]()
    exported = code_component(made, component)

    assert exported.notes == ("The prop format has no control in Framer.",)
    assert "// Without a control, since Framer has none for it: format (function)" in exported.content.decode()
    other = Material("A.tsx", "tsx", "", {"A.tsx": 'import { x } from "d3-scale/y"\nexport default function A() {}'})
    assert code_component(other, Component("A", "default")).notes == (
        "Framer itself does not offer the package d3-scale.",
    )


def test_what_is_one_for_framer_already_stays_as_it_is() -> None:
    source = 'import { addPropertyControls } from "framer"\nexport default function A() {}\naddPropertyControls(A, {})'
    made = code_component(Material("A.tsx", "tsx", "", {"A.tsx": source}), Component("A", "default"))

    assert made.content.decode() == source


@pytest.mark.parametrize("specifier", ["./Part", "./gone.css", "./Counter.module.css"])
def test_what_one_file_cannot_hold_is_refused(specifier: str) -> None:
    source = f'import x from "{specifier}"\nexport default function A() {{}}'
    files = {"A.tsx": source, "Part.tsx": "export default 1", "Counter.module.css": ""}

    with pytest.raises(InvalidRequest, match=specifier.replace(".", r"\.")):
        code_component(Material("A.tsx", "tsx", "", files), Component("A", "default"))


@pytest.mark.parametrize("name", ALL)
def test_a_vite_project_holds_what_it_needs_in_exact_versions(name: str) -> None:
    made, component = ALL[name]()

    exported = vite.project(made, component)

    with zipfile.ZipFile(io.BytesIO(exported.content)) as archive:
        files = {path: archive.read(path).decode() for path in archive.namelist()}
    folder = f"{name}/"
    described = json.loads(files[folder + "package.json"])
    assert described["name"] == name
    assert described["dependencies"] == {key: vite.VERSIONS[key] for key in ("react", "react-dom")}
    versions = {**described["dependencies"], **described["devDependencies"]}
    assert all(version[0].isdigit() for version in versions.values())
    assert all(path.startswith(folder) for path in files)
    main = next(path for path in files if "/src/main." in path)
    assert f'src="./{main.removeprefix(folder)}"' in files[folder + "index.html"]
    assert exported == vite.project(made, component)
    assert (exported.name, exported.media_type, exported.notes) == (f"{name}.zip", "application/zip", ())


def test_props_that_must_be_given_are_given() -> None:
    made, component = ALL["counter"]()
    assert '"label": "Label",\n' in vite.tree(made, component)[0]["src/main.tsx"]
    made, component = ALL["form"]()
    assert '"onSubmit": () => undefined,\n' in vite.tree(made, component)[0]["src/main.tsx"]
    assert vite.given(None) == ({}, [])
    props = (Prop("a", "array", required=True), Prop("o", "object", required=True), Prop("i", "node", required=True))
    assert vite.given(Component("A", "", (*props, Prop("u", required=True), Prop("key", required=True)))) == (
        {"a": [], "o": {}, "i": "I"},
        [],
    )


def test_files_keep_their_places_and_those_of_corral_make_way() -> None:
    files = {"src/main.tsx": 'import { x } from "../x"\nconst A = () => <p>{x}</p>', "x.ts": "export const x = 1"}
    component = analyse(files["src/main.tsx"], "tsx")
    found, _ = vite.tree(Material("src/main.tsx", "tsx", "", files), component)

    assert found["src/src/main.tsx"].endswith("\n\nexport default A\n")
    assert found["src/x.ts"] == "export const x = 1"
    assert 'import Component from "./src/main"' in found["src/main.tsx"]
    alone = {"src/main.tsx": "const x = 1, A = () => <p>{x}</p>"}
    plain, _ = vite.tree(Material("src/main.tsx", "tsx", "", alone), component)
    assert 'import Component from "./main"' in plain["src/start.tsx"]


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    source = 'import "./gone.css"\nexport default function A() { return <p/> }'
    (tmp_path / SCRIPT).write_text("1")
    for work in (vite.project, lambda made, component: page(made, component, tmp_path)):
        with pytest.raises(InvalidRequest, match=r"A\.tsx imports \./gone\.css, which is not"):
            work(Material("A.tsx", "tsx", "", {"A.tsx": source}), analyse(source, "tsx"))


def test_packages_that_corral_does_not_know_are_named() -> None:
    source = 'import { x } from "d3-scale/y"\nexport default function A() { return <p/> }'
    files, notes = vite.tree(Material("A.tsx", "tsx", "", {"A.tsx": source}), analyse(source, "tsx"))

    assert json.loads(files["package.json"])["dependencies"]["d3-scale"] == "*"
    assert notes == ("The version of d3-scale is left open: Corral knows none.",)


PAGE = (
    '<html><head><link rel="stylesheet" href="css/a.css"><script src="b.js" defer></script>'
    '<script type="module" src="c.js"></script><script src="https://e.org/x.js"></script></head>'
    '<body><img src="gone.svg"></body></html>'
)
FILES = {"index.html": PAGE, "css/a.css": "p {}", "b.js": "var b = 1", "c.js": 'import "./d"', "d.ts": "export {}"}


def test_a_page_is_a_project_too() -> None:
    files, notes = vite.tree(Material("index.html", "html", "Page", FILES), None)

    assert {"css/a.css", "public/b.js", "c.js", "d.ts"} <= files.keys()
    assert 'href="./css/a.css"' in files["index.html"]
    assert "react" not in files["package.json"]
    assert notes == ("https://e.org/x.js needs the network.", "gone.svg is not among the run's artifacts.")


@pytest.mark.parametrize("kind", ["python", "json", "markdown", "svg", "css", "text"])
def test_what_is_no_component_is_no_project(kind: str) -> None:
    with pytest.raises(NotSupported):
        vite.project(Material("a", kind, "", {"a": ""}), None)


def test_a_page_of_its_own_holds_its_files() -> None:
    files = {**FILES, "c.js": "export {}"}
    made = page(Material("index.html", "html", "", files), None)
    text = made.content.decode()

    assert 'href="data:text/css;base64,cCB7fQ=="' in text
    assert 'src="data:text/javascript;base64,' in text
    assert (made.name, made.notes) == (
        "index.html",
        ("https://e.org/x.js needs the network.", "gone.svg is not among the run's artifacts."),
    )
    with pytest.raises(NotSupported, match="Vite"):
        page(Material("index.html", "html", "", FILES), None)


HOSTILE = "</script><!--<script></style><script>alert(1)</script>"


@pytest.mark.parametrize("kind", ["python", "json", "markdown", "svg", "css", "text", "diff", "tsx"])
def test_nothing_on_a_page_of_its_own_gets_out_of_its_place(kind: str, tmp_path: Path) -> None:
    (tmp_path / SCRIPT).write_text('var a = "</script><!-- <script>"')
    source = f"const a = `{HOSTILE}`\nexport default () => <p/>" if kind == "tsx" else f"# {HOSTILE}\n"
    given = Material(f"a.{kind}", kind, HOSTILE, {f"a.{kind}": source})

    text = page(given, None, tmp_path).content.decode()

    assert "<script>alert" not in text
    assert text.count("<!--") == 0
    assert text.count("</script") == (2 if kind == "tsx" else 0)
    assert "default-src 'none'" in text


def test_a_components_page_needs_what_is_built(tmp_path: Path) -> None:
    made, component = ALL["counter"]()
    with pytest.raises(UiMissing, match="make web"):
        page(made, component, tmp_path)
    (tmp_path / SCRIPT).write_text("1")
    other = Material("a.tsx", "tsx", "", {"a.tsx": 'import "d3"\nexport default () => <p/>'})
    with pytest.raises(NotSupported, match="d3"):
        page(other, None, tmp_path)
