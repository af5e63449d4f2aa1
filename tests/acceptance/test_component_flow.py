"""From a prompt to components that run elsewhere: made by a pipeline, seen, touched, repaired, taken away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.support.browser import opened
from tests.support.components import CHART, COUNTER, FORM
from tests.support.node import MODULES, built, checked, node
from tests.support.previews import Previews, previews

__all__ = ["node"]

PIPELINE = """
name: parts
steps:
  counter: {model: counter, prompt: A counter., output: {code: {tsx: Counter.tsx}}}
  form: {model: form, prompt: A form., output: {code: {tsx: Form.tsx}}}
  chart: {model: chart, prompt: A chart., output: {code: {tsx: Chart.tsx}}}
"""


def fenced(source: str) -> str:
    return f"Of course! Here it is:\n\n```tsx\n{source}```\n\nTell me if you want more."


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Previews]:
    counter = COUNTER.replace('import "./Counter.css"\n', "")
    throwing = CHART.replace("return (", "(undefined as any).width\n  return (", 1)
    assert throwing != CHART
    replies = {"counter": counter, "form": FORM, "chart": throwing, "mender": CHART}
    with previews(
        tmp_path_factory.mktemp("flow"), {name: fenced(source) for name, source in replies.items()}
    ) as served:
        yield served


@pytest.fixture(scope="module")
def made(shown: Previews) -> dict[str, str]:
    """The ids of what a run of the pipeline made, by name."""
    shown.ask("POST", "projects", {"name": "parts"})
    run = shown.ask("POST", "runs", {"project": "parts", "source": PIPELINE})["run"]["id"]
    with urlopen(Request(f"{shown.url}/api/v1/runs/{run}/events"), timeout=60) as events:
        told = [json.loads(line[6:]) for line in events if line.startswith(b"data: ")]
    assert told[-1]["type"] == "end"
    assert told[-1]["status"] == "completed", told[-1]
    found = shown.ask("GET", f"artifacts?project=parts&run={run}")["artifacts"]
    return {entry["name"]: entry["id"] for entry in found}


def frame(page: Any) -> Any:
    return page.frame_locator(".host iframe:not(.waiting)")


def expect(thing: Any) -> Any:
    from playwright.sync_api import expect as expected

    return expected(thing)


def test_a_counter_is_touched(browser: Any, shown: Previews, made: dict[str, str]) -> None:
    with opened(browser) as page:
        page.goto(shown.page(made["Counter.tsx"]))
        button = frame(page).get_by_role("button")
        page.get_by_label("label", exact=True).fill("Sheep")
        expect(button).to_have_text("Sheep: 0")
        button.click()
        expect(button).to_have_text("Sheep: 0.5")


def test_a_form_is_touched(browser: Any, shown: Previews, made: dict[str, str]) -> None:
    with opened(browser) as page:
        page.goto(shown.page(made["Form.tsx"]))
        page.get_by_label("title", exact=True).fill("Join")
        expect(frame(page).get_by_role("heading")).to_have_text("Join")
        frame(page).get_by_label("Name").fill("Ada")
        frame(page).get_by_role("button").click()
        expect(frame(page).get_by_label("Name")).to_have_value("Ada")


def test_a_chart_that_throws_is_repaired_and_all_of_them_are_taken_elsewhere(
    browser: Any, shown: Previews, made: dict[str, str], node: str, tmp_path: Path
) -> None:
    with opened(browser) as page:
        page.goto(shown.page(made["Chart.tsx"]))
        expect(page.get_by_role("alert")).to_contain_text("It threw while rendering: TypeError")
        page.get_by_label("Model").fill("mender")
        page.get_by_role("button", name="Ask for a repair").click()
        expect(page.get_by_text("edition 2")).to_be_visible()
        expect(frame(page).locator("rect")).to_have_count(2)
    (tmp_path / "framer").mkdir()
    for name, identity in made.items():
        stem = name.removesuffix(".tsx")
        (tmp_path / "framer" / name).write_bytes(_exported(shown, identity, "framer"))
        dist = built(node, _exported(shown, identity, "vite"), tmp_path / f"vite-{stem}")
        assert (dist / "index.html").is_file()
        page_file = tmp_path / f"{stem}.html"
        page_file.write_bytes(_exported(shown, identity, "html"))
        with opened(browser, offline=True) as page:
            page.goto(page_file.as_uri())
            expect(page.locator("button, rect").first).to_be_visible()
    (tmp_path / "framer" / "node_modules").symlink_to(MODULES)
    checked(node, tmp_path / "framer", strict=True)


def _exported(shown: Previews, identity: str, form: str) -> bytes:
    with urlopen(f"{shown.url}/api/v1/artifacts/{identity}/export?form={form}", timeout=60) as answer:
        return bytes(answer.read())
