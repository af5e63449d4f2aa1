"""The form of a component with very many props, in a real Chromium: those are shown that are looked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.browser import opened
from tests.support.previews import Previews, previews


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Previews]:
    with previews(tmp_path_factory.mktemp("props"), {}) as served:
        yield served


def frame(page: Any) -> Any:
    return page.frame_locator(".host iframe:not(.waiting)")


def expect(thing: Any) -> Any:
    from playwright.sync_api import expect as expected

    return expected(thing)


def many(count: int) -> str:
    """A component of so many props, the last of which it shows."""
    said = "".join(
        f"\n  /** Of the {'left' if n % 2 else 'right'} side. */\n  width{n}?: number;" for n in range(count - 2)
    )
    return (
        f"interface P {{{said}\n  /** A hat. */\n  points?: number[];\n  label?: string;\n}}\n"
        'export default function Many({ label = "none" }: P) { return <p>{label}</p>; }\n'
    )


def test_of_many_props_those_are_shown_that_are_looked_for(browser: Any, shown: Previews) -> None:
    with opened(browser) as page:
        page.goto(shown.page(shown.put("Many.tsx", many(200))))
        form, sought = page.get_by_role("form", name="Props"), page.get_by_label("Filter the props")
        fields, told = form.locator(".field:visible"), form.get_by_role("status")
        expect(fields).to_have_count(200)
        expect(told).to_have_text("")

        fields.last.scroll_into_view_if_needed()
        expect(sought).to_be_in_viewport()
        sought.fill("of the")
        expect(told).to_have_text("198 of 200")
        expect(fields.first).to_be_in_viewport()
        sought.fill("LABEL")
        expect(fields).to_have_count(1)
        expect(told).to_have_text("1 of 200")
        form.get_by_label("label").fill("Sheep")
        expect(frame(page).get_by_text("Sheep")).to_be_visible()
        sought.press("Enter")
        expect(frame(page).get_by_text("Sheep")).to_be_visible()

        sought.fill("left 17")  # each word of it, in the name, the type or the comment
        expect(fields).to_have_count(7)
        sought.fill("array hat")
        expect(fields).to_have_count(1)
        form.get_by_label("points").fill("[1, ")
        sought.fill("nowhere")
        expect(fields).to_have_count(0)
        expect(told).to_have_text("None has these words.")
        sought.press("Escape")
        expect(fields).to_have_count(200)
        expect(form.get_by_label("points")).to_have_value("[1, ")  # what was typed of it stays
        expect(form.get_by_label("label")).to_have_value("Sheep")


def test_a_few_props_are_all_shown(browser: Any, shown: Previews) -> None:
    with opened(browser) as page:
        for count, filters in ((12, 0), (13, 1)):
            page.goto(shown.page(shown.put("Few.tsx", many(count))))
            expect(page.get_by_role("form", name="Props").locator(".field")).to_have_count(count)
            expect(page.get_by_label("Filter the props")).to_have_count(filters)
