"""What modules import and export, and what a page refers to."""

from __future__ import annotations

import pytest

from corral.errors import InvalidRequest
from corral.workspace.exports import html, modules
from corral.workspace.exports.exported import reached

SOURCE = """import React, { useState as state } from "react"
import "./a.css"
import type { T } from "./types"
import * as all from '@scope/pack/deep'
const later = import("./later")
const old = require("./old")
const not = import(later + "x")
export * from "./every"
export { one, two as three } from "./some"
"""


def test_imports_of_every_kind() -> None:
    found = modules.imports(SOURCE, "tsx")

    assert [(item.specifier, item.names, item.exported, item.dynamic) for item in found] == [
        ("react", ("React", "state"), False, False),
        ("./a.css", (), False, False),
        ("./types", ("T",), False, False),
        ("@scope/pack/deep", ("all",), False, False),
        ("./later", (), False, True),
        ("./old", (), False, True),
        ("./every", (), True, False),
        ("./some", (), True, False),
    ]
    assert [item.relative for item in found] == [False, True, True, False, True, True, True, True]
    assert [modules.package(item.specifier) for item in found if not item.relative] == ["react", "@scope/pack"]
    assert modules.imports("a { color: red }", "css") == ()
    assert modules.without(SOURCE, [found[1]]) == SOURCE.replace('import "./a.css"\n', "")


@pytest.mark.parametrize(
    ("address", "importer", "found"),
    [
        ("./b", "src/a.tsx", "src/b"),
        ("../b.css", "src/a.tsx", "b.css"),
        ("../../b", "src/a.tsx", ""),
        ("/x/y?raw#z", "src/a.tsx", "x/y"),
        ("./b/../c", "a.tsx", "c"),
        (".", "src/a.tsx", "src"),
        ("@/b/c", "x/a.tsx", "src/b/c"),
        ("@scope/b", "x/a.tsx", "x/@scope/b"),
    ],
)
def test_where_an_address_leads(address: str, importer: str, found: str) -> None:
    assert reached(address, importer) == found


@pytest.mark.parametrize(
    ("specifier", "found"),
    [
        ("./b", "src/b.ts"),
        ("./b.js", "src/b.ts"),
        ("./c", "src/c/index.tsx"),
        ("./d.css", "src/d.css"),
        ("../e.json", "e.json"),
        ("./f", None),
        ("../../b", None),
    ],
)
def test_which_file_an_import_means(specifier: str, found: str | None) -> None:
    names = ["src/a.tsx", "src/b.ts", "src/c/index.tsx", "src/d.css", "e.json"]

    assert modules.resolve(specifier, "src/a.tsx", names) == found


@pytest.mark.parametrize(
    ("source", "default", "named"),
    [
        ("export default function A() {}", True, set()),
        ("const A = 1\nexport default A", True, set()),
        ("const A = 1\nexport { A as default, A as B }", True, {"B"}),
        ("export const A = () => { const inner = 1; return inner }, B = 2", False, {"A", "B"}),
        ("export class A {}\nexport function B() { const C = 1 }\nexport type D = 1", False, {"A", "B", "D"}),
        ("const A = 1", False, set()),
    ],
)
def test_exports(source: str, default: bool, named: set[str]) -> None:
    assert modules.exports(source, "tsx") == (default, named)


@pytest.mark.parametrize(
    ("source", "enclosed", "name"),
    [
        ("export default function A() {}", "function A() {}", "A"),
        ("export default function () {}", "const X = function () {}", "X"),
        ("export default () => <p/>", "const X = () => <p/>", "X"),
        ("export default class extends B {}", "const X = class extends B {}", "X"),
        ("const A = 1\nexport default A", "const A = 1\n", "A"),
        ("const A = 1\nexport { A as default }", "const A = 1\n", "A"),
        ("const A = 1\nexport default memo(A)", "const A = 1\nconst X = memo(A)", "X"),
        ("export const X = 1, B = 2", "const X = 1, B = 2", "X"),
        ("export interface P {}\nexport type Q = P\nconst X = 1", "interface P {}\ntype Q = P\nconst X = 1", "X"),
        ("const X = 1\nexport { y } from 'pack'", "const X = 1\n", "X"),
        ("const X = 1\nexport = X", "const X = 1\n", "X"),
        # A name that is taken is not taken twice.
        ("const X = 1\nexport default () => X", "const X = 1\nconst X_ = () => X", "X_"),
    ],
)
def test_a_module_that_exports_nothing_any_more(source: str, enclosed: str, name: str) -> None:
    found = modules.enclose(source, "tsx", "X")

    assert (found.source, found.name) == (enclosed, name)


def test_where_a_component_is_declared_and_described() -> None:
    found = modules.enclose("// ü\n/** Says. */\nexport default function A() {}\n", "tsx", "A")
    data = found.source.encode()

    assert data[found.place :].startswith(b"function A")
    assert found.doc is not None
    assert data[found.doc :].startswith(b"*/\nfunction")
    assert modules.enclose("/** Of another. */\n\nfunction A() {}", "tsx", "A").doc is None
    assert modules.enclose("// Says.\nfunction A() {}", "tsx", "A").doc is None
    assert modules.enclose("const A = () => 1", "tsx", "A").place is None


@pytest.mark.parametrize("source", ["const B = 1", "export * from './b'\nconst A = 1"])
def test_what_cannot_be_one_file(source: str) -> None:
    with pytest.raises(InvalidRequest):
        modules.enclose(source, "tsx", "A")


def test_what_models_leave_out_is_brought_in() -> None:
    made = modules.completed("function A() { const [n, set] = useState(React.version); useEffect(() => {}) }", "jsx")

    assert made.startswith('import * as React from "react"\nimport { useEffect, useState } from "react"\nfunction')
    for source in (
        'import { useState } from "react"\nuseState(1)',
        'import React from "react"\nReact.useState(1)',
        "const useState = () => 1\nuseState()",
        "const { useState } = given\nuseState()",
        "function A({ memo }) { return memo }",
        'const text = "useState React"',
    ):
        assert modules.completed(source, "jsx") == source


@pytest.mark.parametrize(
    "source", ["", "<<<<", "import", "export default", "export {", "\0", "import {a from 'b", "é" * 9]
)
def test_what_is_no_module_says_nothing(source: str) -> None:
    assert all(item.specifier != "b" or item.start == 0 for item in modules.imports(source, "tsx"))
    assert isinstance(modules.completed(source, "tsx"), str)
    with pytest.raises(InvalidRequest):
        modules.enclose(source, "tsx", "A")


def test_deep_and_long_modules_end() -> None:
    with pytest.raises(InvalidRequest, match="left open"):
        modules.imports("f(" * 20_000 + ")" * 20_000, "js")
    with pytest.raises(InvalidRequest, match="characters"):
        modules.imports("x" * 5_000_000, "js")


PAGE = """<!doctype html><link rel=stylesheet href="css/a.css"><link rel="icon" href="i.svg">
<script src='b.js?v=1' defer></script><SCRIPT TYPE="module" SRC=c.js></SCRIPT><script>var x = '<img src="no">'</script>
<img src="d&amp;e.svg"><img src="https://e.org/f.png"><a href="g.html">g</a><img src="data:image/png;base64,x"><img>"""


def test_what_a_page_refers_to() -> None:
    found = html.references(PAGE)

    assert [(item.tag, item.address, item.local, item.remote, item.module) for item in found] == [
        ("link", "css/a.css", True, False, False),
        ("script", "b.js?v=1", True, False, False),
        ("script", "c.js", True, False, True),
        ("img", "d&e.svg", True, False, False),
        ("img", "https://e.org/f.png", False, True, False),
        ("img", "data:image/png;base64,x", False, False, False),
    ]
    assert html.resolve(found[1], "web/index.html", ["web/b.js"]) == "web/b.js"
    made = html.rewritten(PAGE, {found[0]: "A", found[2]: 'say "é"'})
    assert 'href="A"' in made
    assert 'SRC="say &quot;é&quot;"' in made
    assert made.replace('"A"', '"css/a.css"').replace('"say &quot;é&quot;"', "c.js") == PAGE
