"""Components and pages in the preview, in a real Chromium: seen, clicked, given other props, edited, repaired."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from tests.support.browser import opened
from tests.support.previews import Previews, previews

COUNTER = """\
import { useState } from "react";

interface CounterProps {
  /** What is counted. */
  label: string;
  step?: number;
  tone?: "calm" | "loud";
  big?: boolean;
  onChange?: (count: number) => void;
}

export default function Counter({ label, step = 1, tone = "calm", big = false, onChange }: CounterProps) {
  const [count, setCount] = useState(0);
  const add = () => { setCount(count + step); onChange?.(count + step); };
  return (
    <section data-tone={tone} style={{ fontSize: big ? 40 : 16 }}>
      <h3>{label}</h3>
      <button onClick={add}>{label}: {count}</button>
    </section>
  );
}
"""
SIGN_UP = """\
import React, { useState } from "react";

export default function SignUp({ title = "Sign up", onSubmit }: { title?: string; onSubmit?: (v: object) => void }) {
  const [name, setName] = useState("");
  const [sent, setSent] = useState(false);
  if (sent) return <p>Welcome, {name}!</p>;
  return (
    <form onSubmit={(event) => { event.preventDefault(); onSubmit?.({ name }); setSent(true); }}>
      <h3>{title}</h3>
      <label>Name <input required value={name} onChange={(event) => setName(event.target.value)} /></label>
      <button type="submit">Send</button>
    </form>
  );
}
"""
CHART = """\
type Point = { name: string; value: number };

export function Chart({ points = [{ name: "a", value: 3 }, { name: "b", value: 5 }], color = "#336699" }: {
  points?: Point[]; color?: string;
}) {
  const most = Math.max(1, ...points.map((point) => point.value));
  return (
    <svg role="img" aria-label="chart" width={200} height={100}>
      {points.map((point, index) => (
        <rect key={point.name} x={index * 30} y={100 - (100 * point.value) / most} width={20}
          height={(100 * point.value) / most} fill={color} />
      ))}
    </svg>
  );
}
"""
BROKEN = """\
export default function Counter({ label }: { label: string }) {
  const shown: any = undefined;
  return <button>{label}: {shown.count}</button>;
}
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Previews]:
    replies = {"coder": f"Here it is:\n\n```tsx\n{COUNTER}```\n", "talker": "I am sorry."}
    with previews(tmp_path_factory.mktemp("preview"), replies) as served:
        yield served


def frame(page: Any) -> Any:
    return page.frame_locator(".host iframe:not(.waiting)")


def expect(thing: Any) -> Any:
    from playwright.sync_api import expect as expected

    return expected(thing)


def edit(page: Any, source: str) -> None:
    page.get_by_role("tab", name="Code").click()
    page.locator(".cm-content").click()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.insert_text(source)


def test_a_counter_counts_and_reacts_to_its_props(browser: Any, shown: Previews) -> None:
    with opened(browser) as page:
        page.goto(shown.page(shown.put("Counter.tsx", COUNTER)))
        button = frame(page).get_by_role("button")
        expect(button).to_have_text("Label: 0")
        button.click()
        expect(button).to_have_text("Label: 1")

        page.get_by_label("label").fill("Sheep")
        expect(button).to_have_text("Sheep: 1")  # what it has counted stays
        page.get_by_label("step").fill("5")
        button.click()
        expect(button).to_have_text("Sheep: 6")
        page.get_by_label("tone").select_option("loud")
        expect(frame(page).locator("section")).to_have_attribute("data-tone", "loud")
        page.get_by_label("big").check()
        expect(frame(page).locator("section")).to_have_css("font-size", "40px")
        page.get_by_role("button", name="Reset all").click()
        expect(button).to_have_text("Label: 6")

        page.get_by_role("tab", name="Console").click()
        expect(page.get_by_role("log")).to_contain_text("onChange(6)")


def test_a_form_is_filled_in_and_sent_to_nobody(browser: Any, shown: Previews) -> None:
    with opened(browser) as page:
        page.goto(shown.page(shown.put("SignUp.tsx", SIGN_UP)))
        inside = frame(page)
        inside.get_by_role("button", name="Send").click()
        expect(inside.get_by_text("Welcome")).to_have_count(0)  # the browser itself asks for the name
        inside.get_by_label("Name").fill("Ada")
        inside.get_by_role("button", name="Send").click()
        expect(inside.get_by_text("Welcome, Ada!")).to_be_visible()
        page.get_by_role("tab", name="Console").click()
        expect(page.get_by_role("log")).to_contain_text('onSubmit({name: "Ada"})')


def test_a_chart_draws_the_points_that_are_typed(browser: Any, shown: Previews) -> None:
    with opened(browser) as page:
        page.goto(shown.page(shown.put("Chart.tsx", CHART)))
        bars = frame(page).locator("rect")
        expect(bars).to_have_count(2)
        points = page.get_by_label("points")
        points.fill('[{"name": "x", "value": 1}, {"name": "y", "value": 2}, {"name": "z", "value": 3}]')
        expect(bars).to_have_count(3)
        points.fill('[{"name": "x"')
        expect(page.get_by_label("points")).to_have_attribute("aria-invalid", "true")
        expect(bars).to_have_count(3)
        page.get_by_label("color", exact=True).fill("#ff0000")
        expect(bars.first).to_have_attribute("fill", "#ff0000")


def test_code_is_edited_repainted_and_saved_as_an_edition(browser: Any, shown: Previews) -> None:
    identity = shown.put("Counter.tsx", COUNTER)
    with opened(browser) as page:
        page.goto(shown.page(identity))
        expect(frame(page).get_by_role("button")).to_have_text("Label: 0")
        edit(page, COUNTER.replace("{label}: {count}", "{label} = {count}"))
        expect(frame(page).get_by_role("button")).to_have_text("Label = 0")
        edit(page, COUNTER.replace("{label}: {count}", "{label"))
        expect(page.get_by_role("tab", name="Errors (1)")).to_be_visible()
        expect(frame(page).get_by_role("button")).to_have_text("Label = 0")  # the last that could be compiled
        edit(page, COUNTER.replace("{label}: {count}", "{label} → {count}"))
        expect(frame(page).get_by_role("button")).to_have_text("Label → 0")
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.get_by_text("edition 2")).to_be_visible()
    assert "{label} → {count}" in shown.look(identity)["source"]


def test_of_two_who_save_the_second_is_told(browser: Any, shown: Previews) -> None:
    identity = shown.put("Counter.tsx", COUNTER)
    with opened(browser) as page:
        page.goto(shown.page(identity))
        expect(frame(page).get_by_role("button")).to_be_visible()
        shown.edit(identity, COUNTER.replace("Counter(", "Other("))
        edit(page, COUNTER.replace("{label}: {count}", "mine"))
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.get_by_text("It was not saved.")).to_be_visible()
    assert "Other(" in shown.look(identity)["source"]


def test_what_throws_while_rendering_is_shown_and_repaired(browser: Any, shown: Previews) -> None:
    identity = shown.put("Counter.tsx", BROKEN)
    with opened(browser) as page:
        page.goto(shown.page(identity))
        wrong = page.get_by_role("alert")
        expect(wrong).to_contain_text("It threw while rendering: TypeError")
        expect(wrong).to_contain_text("Counter.tsx:3")  # the line in the editor
        page.get_by_label("Model").fill("coder")
        page.get_by_role("button", name="Ask for a repair").click()
        expect(page.get_by_text("edition 2")).to_be_visible()
        button = frame(page).get_by_role("button")
        expect(button).to_have_text("Label: 0")
        button.click()
        expect(button).to_have_text("Label: 1")
        expect(page.get_by_role("alert")).to_have_count(0)
    assert shown.look(identity)["source"].strip() == COUNTER.strip()


def test_a_repair_that_brings_nothing_says_so(browser: Any, shown: Previews) -> None:
    identity = shown.put("Counter.tsx", BROKEN)
    with opened(browser) as page:
        page.goto(shown.page(identity))
        page.get_by_label("Model").fill("talker")
        page.get_by_role("button", name="Ask for a repair").click()
        expect(page.get_by_text("The repair ended as failed.")).to_be_visible()
    assert shown.look(identity)["artifact"]["number"] == 1


def test_other_props_bring_back_what_threw(browser: Any, shown: Previews) -> None:
    source = (
        'export default function Name({ name = "x" }: { name?: string }) { if (name === "bad") throw Error("no"); '
        "return <p>{name}</p> }"
    )
    with opened(browser) as page:
        page.goto(shown.page(shown.put("Name.tsx", source)))
        expect(frame(page).get_by_text("x", exact=True)).to_be_visible()
        page.get_by_label("name", exact=True).fill("bad")
        expect(page.get_by_role("tab", name="Errors (1)")).to_be_visible()
        page.get_by_label("name", exact=True).fill("good")
        expect(frame(page).get_by_text("good")).to_be_visible()
        expect(page.get_by_role("tab", name="Errors", exact=True)).to_be_visible()


def test_two_stand_beside_each_other_with_the_same_props(browser: Any, shown: Previews) -> None:
    first = shown.put("Counter.tsx", COUNTER)
    second = shown.put("Counter.tsx", COUNTER.replace("{label}: {count}", "{count} of {label}"))
    with opened(browser) as page:
        page.goto(shown.page(first, second))
        panes = page.locator("[data-artifact]")
        expect(panes).to_have_count(2)
        one, other = (panes.nth(index).frame_locator("iframe").get_by_role("button") for index in (0, 1))
        expect(one).to_have_text("Label: 0")
        expect(other).to_have_text("0 of Label")
        panes.nth(0).get_by_label("label").fill("Sheep")
        expect(one).to_have_text("Sheep: 0")
        expect(other).to_have_text("0 of Sheep")
        page.get_by_label("Same props for all").uncheck()
        panes.nth(1).get_by_label("label").fill("Goats")
        expect(other).to_have_text("0 of Goats")
        expect(one).to_have_text("Sheep: 0")


SCRIPTED = """\
<!doctype html><body><h1 id=h>old</h1><button onclick='more()'>more</button><script>let n = 1;</script>
<script>function more() { n += 1; h.textContent = 'new ' + n }</script></body>
"""
LATE = """\
<body><button>go</button><p id=p></p><script>
document.addEventListener('DOMContentLoaded', () => { document.querySelector('button').onclick = () => {
  p.innerHTML = '<i onclick="this.id=1">gone</i>'; } })
</script>
"""
REACT = """\
<div id=root></div><script src='https://cdn.example/react@18/react.js'></script><script type='text/babel'>
function App() { const [n, set] = React.useState(0); return <button onClick={() => set(n + 1)}>n = {n}</button> }
ReactDOM.createRoot(document.getElementById('root')).render(<App />)
</script>
"""
PAGES = {"page.html": (SCRIPTED, "new 2"), "late.html": (LATE, "gone"), "react.html": (REACT, "n = 1")}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_html_runs_its_scripts(browser: Any, shown: Previews, name: str) -> None:
    source, after = PAGES[name]
    with opened(browser) as page:
        page.goto(shown.page(shown.put(name, source)))
        frame(page).get_by_role("button").click()
        expect(frame(page).locator("body")).to_contain_text(after)


def test_svg_markdown_and_python_are_shown(browser: Any, shown: Previews) -> None:
    svg = shown.put("i.svg", '<svg xmlns="http://www.w3.org/2000/svg" width="50" height="50"><circle r="9"/></svg>')
    prose = shown.put("notes.md", "# Title\n\n| a | b |\n|---|---|\n| 1 | 2 |\n")
    python = shown.put("app.py", "import os\n\nos.remove('x')  # never run\n")
    with opened(browser) as page:
        page.goto(shown.page(svg, prose, python))
        panes = page.locator("[data-artifact]")
        expect(panes.nth(0).frame_locator("iframe").locator("circle")).to_have_count(1)
        expect(panes.nth(1).frame_locator("iframe").get_by_role("heading", name="Title")).to_be_visible()
        expect(panes.nth(1).frame_locator("iframe").get_by_role("cell", name="2")).to_be_visible()
        expect(panes.nth(2).locator("iframe")).to_have_count(0)
        word = panes.nth(2).locator(".cm-line span").first
        assert word.inner_text() == "import"
        expect(word).to_have_css("color", "rgb(139, 47, 176)")


LOOPS = {
    "while rendering": "for (;;) {}",
    "that catches": "for (;;) { try { while (true) {} } catch {} }",
    "of promises": "(async () => { while (true) await null })();",
}


@pytest.mark.parametrize("kind", LOOPS)
def test_an_endless_loop_is_stopped(browser: Any, shown: Previews, kind: str) -> None:
    with opened(browser) as page:
        page.goto(
            shown.page(shown.put("Loop.tsx", f"export default function Loop() {{ {LOOPS[kind]} return <p>on</p> }}"))
        )
        expect(page.get_by_role("alert")).to_contain_text("A loop was stopped")
        edit(page, "export default function Loop() { return <p>well</p> }")
        expect(frame(page).get_by_text("well")).to_be_visible()


def test_what_cannot_be_stopped_from_within_is_taken_away(browser: Any, shown: Previews) -> None:
    source = 'export default function Hang() { /^(a+)+$/.test("a".repeat(60) + "b"); return <p>on</p> }'
    with opened(browser) as page:
        page.goto(shown.page(shown.put("Hang.tsx", source)))
        expect(page.locator("[data-ended=hung]")).to_have_count(1)
        expect(page.locator("iframe")).to_have_count(0)
        expect(page.get_by_role("alert")).to_contain_text("did not answer")
        edit(page, "export default function Hang() { return <p>well</p> }")
        expect(frame(page).get_by_text("well")).to_be_visible()


def test_whoever_floods_the_page_is_taken_away(browser: Any, shown: Previews) -> None:
    source = (
        "export default function Flood() { setInterval(() => { for (let i = 0; i < 2000; i += 1) "
        'parent.postMessage("x", "*") }, 10); return <p>on</p> }'
    )
    with opened(browser) as page:
        page.goto(shown.page(shown.put("Flood.tsx", source)))
        expect(page.locator("[data-ended=flood]")).to_have_count(1)
        expect(page.get_by_role("tab", name="Errors (1)")).to_be_visible()


REACHES = {
    "parent.document.title": "SecurityError",
    "top.localStorage": "SecurityError",
    "localStorage.getItem('corral.key')": "SecurityError",
    "sessionStorage.length": "SecurityError",
    "indexedDB.open('x')": "SecurityError",
    "document.cookie": "SecurityError",
    "caches.open('x')": "SecurityError",
    "frameElement.remove()": "TypeError",
    "parent.corral": "SecurityError",
    "navigator.serviceWorker.register('x')": "SecurityError",
}


@pytest.mark.parametrize("code", REACHES)
def test_parent_and_storage_are_out_of_reach(browser: Any, shown: Previews, code: str) -> None:
    source = (
        "export default function Reach() { let said = 'nothing'; "
        f"try {{ void ({code}); said = 'reached'; }} catch (error) {{ said = error.name; }} "
        "return <p id='said'>{said}</p> }"
    )
    with opened(browser) as page:
        page.goto(shown.page(shown.put("Reach.tsx", source)))
        page.get_by_role("tab", name="Errors").click()
        said = frame(page).locator("#said")
        expect(said).to_be_visible()
        expect(said).to_have_text(REACHES[code])


def test_a_package_that_is_not_there_is_named(browser: Any, shown: Previews) -> None:
    source = 'import { LineChart } from "recharts";\nexport default function C() { return <LineChart /> }'
    with opened(browser) as page:
        page.goto(shown.page(shown.put("C.tsx", source)))
        expect(page.get_by_role("alert")).to_contain_text("C.tsx imports recharts: a preview has no network")


def test_what_is_too_large_to_compile_is_text_that_can_be_read(browser: Any, shown: Previews) -> None:
    source = COUNTER + "// " + "x" * 2_000_000
    with opened(browser) as page:
        page.goto(shown.page(shown.put("Counter.tsx", source)))
        expect(page.get_by_role("alert")).to_contain_text("larger than two million characters")
        page.get_by_role("tab", name="Code").click()
        expect(page.locator(".cm-line").first).to_contain_text("import")


def test_a_key_is_asked_for_and_kept_for_the_tab(browser: Any, tmp_path: Path) -> None:
    with previews(tmp_path, key="sesame-1234") as shown, opened(browser) as page:
        address = shown.page(shown.put("Counter.tsx", COUNTER))
        page.goto(address)
        page.get_by_label("Key").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_label("Key")).to_be_visible()
        page.get_by_label("Key").fill("sesame-1234")
        page.keyboard.press("Enter")
        expect(frame(page).get_by_role("button")).to_have_text("Label: 0")
        page.reload()
        expect(frame(page).get_by_role("button")).to_have_text("Label: 0")
        assert page.evaluate("[sessionStorage.length, localStorage.length]") == [1, 0]
        with pytest.raises(HTTPError, match="401"):
            Previews(shown.url).ask("GET", "projects")


def test_everything_is_reached_by_keys(browser: Any, shown: Previews) -> None:
    with opened(browser) as page:
        page.goto(shown.page(shown.put("Counter.tsx", COUNTER)))
        expect(frame(page).get_by_role("button")).to_be_visible()
        reached = set()
        for _ in range(20):
            page.keyboard.press("Tab")
            reached.add(
                page.evaluate(
                    "(e => e.labels?.[0]?.firstChild?.textContent || e.getAttribute('title') || e.textContent)"
                    "(document.activeElement)"
                )
            )
        assert {"Dark", "Preview of Counter.tsx", "Props", "label", "step", "tone", "big", "Reset all"} <= reached
        page.get_by_role("tab", name="Props").focus()
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("tab", name="Code")).to_be_focused()
        expect(page.get_by_role("tabpanel", name="Code")).to_be_visible()
        page.keyboard.press("End")
        expect(page.get_by_role("tab", name="Errors")).to_have_attribute("aria-selected", "true")


@pytest.mark.parametrize(("scheme", "colour"), [("light", "rgb(28, 36, 48)"), ("dark", "rgb(228, 232, 238)")])
def test_light_and_dark_are_the_system_s_until_chosen(browser: Any, shown: Previews, scheme: str, colour: str) -> None:
    with opened(browser, color_scheme=scheme) as page:
        page.goto(shown.page(shown.put("Counter.tsx", COUNTER)))
        expect(page.locator("body")).to_have_css("color", colour)
        expect(frame(page).locator("html")).to_have_css("color-scheme", scheme)
        page.get_by_role("button", name="Dark").click()
        expect(page.locator("body")).not_to_have_css("color", colour)
        expect(frame(page).locator("html")).not_to_have_css("color-scheme", scheme)


@pytest.mark.parametrize(
    ("form", "name", "held"),
    [
        ("The file", "Counter.tsx", b"interface CounterProps"),
        ("For Framer", "Counter.tsx", b"addPropertyControls"),
        ("A Vite project", "counter.zip", b"PK"),
        ("One page", "Counter.html", b"<!doctype html>"),
    ],
)
def test_a_component_is_taken_away_in_each_form(
    browser: Any, shown: Previews, form: str, name: str, held: bytes
) -> None:
    with opened(browser) as page:
        page.goto(shown.page(shown.put("Counter.tsx", COUNTER)))
        page.get_by_text("Export", exact=True).press("Enter")
        with page.expect_download() as awaited:
            page.get_by_role("button", name=form).click()
        assert awaited.value.suggested_filename == name
        assert held.lower() in Path(awaited.value.path()).read_bytes().lower()
        expect(page.get_by_text(f"{name} is exported.")).to_be_visible()


def test_what_is_to_be_known_of_an_export_is_told(browser: Any, shown: Previews) -> None:
    with opened(browser) as page:
        source = "export default (p: { of: (n: number) => string }) => <b>{p.of?.(1)}</b>;\n"
        page.goto(shown.page(shown.put("Money.tsx", source)))
        page.get_by_text("Export", exact=True).click()
        with page.expect_download():
            page.get_by_role("button", name="For Framer").click()
        expect(page.get_by_text("The prop of has no control in Framer.")).to_be_visible()


def test_what_is_no_component_has_no_form_for_framer_and_a_refusal_is_told(browser: Any, shown: Previews) -> None:
    with opened(browser) as page:
        artifact = shown.put("notes.md", "# Notes\n")
        page.goto(shown.page(artifact))
        page.get_by_text("Export", exact=True).click()
        assert page.locator(".export button").all_text_contents() == ["The file", "One page"]
        page.keyboard.press("Escape")
        expect(page.locator(".export button").first).to_be_hidden()
        shown.ask("DELETE", f"artifacts/{artifact}")
        page.get_by_text("Export", exact=True).click()
        page.get_by_role("button", name="One page").click()
        expect(page.get_by_text("It was not exported.")).to_be_visible()


def test_an_address_without_an_artifact_offers_those_that_there_are(browser: Any, shown: Previews) -> None:
    one, other = shown.put("First.tsx", COUNTER), shown.put("Second.tsx", COUNTER)
    with opened(browser) as page:
        page.goto(f"{shown.url}/ui/preview.html")
        page.get_by_label("First.tsx beside others").first.check()
        page.get_by_label("Second.tsx beside others").first.check()
        page.get_by_role("link", name="Side by side (2)").click()
        expect(page.locator(".pane")).to_have_count(2)
        assert page.url.endswith(f"?artifact={one}&with={other}")
        page.goto(shown.page("art-000000000000"))
        expect(page.get_by_role("alert")).to_contain_text("There is no artifact")
        page.get_by_role("link", name="See those that there are.").click()
        page.get_by_role("link", name="Second.tsx").first.click()
        expect(page).to_have_title("Second.tsx · Corral")


def test_a_page_of_html_keeps_the_colours_that_it_was_written_for(browser: Any, shown: Previews) -> None:
    with opened(browser, color_scheme="dark") as page:
        page.goto(shown.page(shown.put("page.html", "<body style='color: #333'><h1>Hello</h1></body>")))
        expect(frame(page).locator("h1")).to_have_text("Hello")
        expect(frame(page).locator("html")).to_have_css("color-scheme", "normal")
        page.get_by_role("button", name="Dark").click()
        expect(frame(page).locator("html")).to_have_css("color-scheme", "normal")


def test_long_names_stay_within_a_narrow_page(browser: Any, shown: Previews) -> None:
    prop = "aVeryLongPropertyNameThatNobodyWouldEverTypeByHandButModelsDo"
    source = (
        f"export default function Long({{ {prop} = 'x' }}: {{ {prop}?: string }}) {{ return <p>{{{prop}}}</p>; }}\n"
    )
    with opened(browser, viewport={"width": 390, "height": 844}) as page:
        page.goto(shown.page(shown.put("src/" + "deeply/" * 12 + "Long.tsx", source)))
        expect(page.get_by_label(prop)).to_be_visible()
        for part in ("h2", ".field label", ".field input", ".export"):
            box = page.locator(part).first.bounding_box()
            assert box["x"] + box["width"] <= 390
