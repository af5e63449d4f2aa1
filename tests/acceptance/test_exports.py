"""What is exported works where it is taken: Framer's published types, a real Vite, a real Chromium without network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from corral.workspace.code.components import analyse
from corral.workspace.exports.exported import Material
from corral.workspace.exports.framer import code_component
from corral.workspace.exports.page import ASSETS, SCRIPT, page
from corral.workspace.exports.vite import VERSIONS, project
from tests.support.browser import opened
from tests.support.components import ALL
from tests.support.node import MODULES, built, checked, node

__all__ = ["node"]


@pytest.mark.parametrize("name", ALL)
def test_framer_files_are_of_framers_published_types(node: str, name: str, tmp_path: Path) -> None:
    made, component = ALL[name]()
    exported = code_component(made, component)
    (tmp_path / exported.name).write_bytes(exported.content)
    (tmp_path / "node_modules").symlink_to(MODULES)

    checked(node, tmp_path, strict=made.kind == "tsx")  # JavaScript says no types; Framer's editor does not ask for any


def test_a_control_of_another_type_is_refused_by_them(node: str, tmp_path: Path) -> None:
    """The check above can fail."""
    made, component = ALL["counter"]()
    source = code_component(made, component).content.decode()
    for wrong in ("ControlType.Strin,", 'ControlType.Number, defaultValue: "x",'):
        (tmp_path / "Counter.tsx").write_text(source.replace("ControlType.String,", wrong, 1))
        (tmp_path / "node_modules").unlink(missing_ok=True)
        (tmp_path / "node_modules").symlink_to(MODULES)
        with pytest.raises(AssertionError, match=r"Counter\.tsx"):
            checked(node, tmp_path, strict=True)


def test_projects_are_built_with_what_corrals_own_pages_are_built_with() -> None:
    if not MODULES.is_dir():
        pytest.skip("the packages of web/ are not installed: make web")
    have = {name: json.loads((MODULES / name / "package.json").read_text())["version"] for name in VERSIONS}

    assert have == VERSIONS


def _works(page: Any, name: str) -> None:
    """The component is there, in its styles, and answers to clicks."""
    if name == "counter":
        button = page.locator("button")
        assert button.inner_text() == "Label: 0"
        button.click()
        button.click()
        assert button.inner_text() == "Label: 1"
        assert button.evaluate("it => getComputedStyle(it).padding") == "7px"
    elif name == "form":
        page.locator("input").first.fill("Ada")
        page.locator("button").click()
        assert page.locator("input").first.input_value() == "Ada"
        assert page.locator("h2").inner_text() == "Sign up"
    elif name == "chart":
        assert page.locator("rect").count() == 2
    else:
        page.locator("span").click()
        page.locator("span").wait_for(state="detached")


@pytest.mark.parametrize("name", ALL)
def test_vite_projects_are_built_and_work(node: str, browser: Any, name: str, tmp_path: Path) -> None:
    made, component = ALL[name]()
    dist = built(node, project(made, component).content, tmp_path)

    # Modules are not read from files by browsers: what was built is put where a server would have it.
    def serve(route: Any) -> None:
        path = dist / route.request.url.removeprefix("http://built.test/x/")
        route.fulfill(path=str(path if path.is_file() else dist / "index.html"))

    with opened(browser) as shown:
        shown.route("**/*", serve)
        shown.goto("http://built.test/x/index.html")
        _works(shown, name)


@pytest.mark.parametrize("lead", ["", "src/"])
def test_what_is_imported_from_the_projects_home_is_found(node: str, lead: str, tmp_path: Path) -> None:
    source = 'import { said } from "@/lib/words"\nexport default function A() { return <p>{said}</p> }'
    files = {f"{lead}A.tsx": source, "src/lib/words.ts": "export const said: string = 'found it'"}
    component = analyse(source, "tsx")
    dist = built(node, project(Material(f"{lead}A.tsx", "tsx", "", files), component).content, tmp_path)

    assert any("found it" in path.read_text() for path in (dist / "assets").iterdir())


def test_a_page_isbuilt(node: str, tmp_path: Path) -> None:
    files = {
        "index.html": '<html><head><link rel="stylesheet" href="a.css"><script src="b.js"></script>'
        '<script type="module" src="c.ts"></script></head><body><p>Hi</p></body></html>',
        "a.css": "p { color: red }",
        "b.js": "var classic = 1",
        "c.ts": "const said: string = 'module'\nconsole.log(said)",
    }
    dist = built(node, project(Material("index.html", "html", "", files), None).content, tmp_path)

    assert (dist / "b.js").read_text() == "var classic = 1"
    bundled = "".join(path.read_text() for path in (dist / "assets").iterdir())
    assert "color:red" in bundled
    assert "module" in bundled


@pytest.mark.parametrize("name", ALL)
def test_a_single_page_works_from_a_file_without_network(browser: Any, name: str, tmp_path: Path) -> None:
    if not (ASSETS / SCRIPT).is_file():
        pytest.skip("Corral's pages are not built: make web")
    made, component = ALL[name]()
    exported = page(made, component)
    (tmp_path / exported.name).write_bytes(exported.content)
    asked: list[str] = []

    with opened(browser, offline=True) as shown:
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto((tmp_path / exported.name).as_uri())
        _works(shown, name)

    assert asked == [(tmp_path / exported.name).as_uri()]


def test_what_goes_wrong_on_a_single_page_is_said_and_nothing_gets_out(browser: Any, tmp_path: Path) -> None:
    if not (ASSETS / SCRIPT).is_file():
        pytest.skip("Corral's pages are not built: make web")
    sources = {
        "throws": "export default function A() { throw new Error('as it should') }",
        "broken": "export default function A() { return <p> }",
        "endless": "export default function A() { while (true) {} }",
        "fetches": "export default function A() { const [s, set] = React.useState('asking'); React.useEffect(() => {"
        " fetch('http://127.0.0.1:9/').catch((e) => set('refused')) }, []); return <p role='alert'>{s}</p> }",
    }
    told = {"throws": "as it should", "broken": "a.tsx:1", "endless": "loop", "fetches": "refused"}
    for name, source in sources.items():
        exported = page(Material("a.tsx", "tsx", "", {"a.tsx": source}), None)
        (tmp_path / "a.html").write_bytes(exported.content)
        with opened(browser) as shown:
            shown.goto((tmp_path / "a.html").as_uri())
            shown.locator("[role=alert]", has_text=told[name]).wait_for()
