"""Links within the documentation lead somewhere."""

from __future__ import annotations

import pytest

from tests.docs import pages

PAGES = pages.everything()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.path.relative_to(pages.ROOT)))
def test_links_resolve(page: pages.Page) -> None:
    for link in page.links:
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, fragment = link.partition("#")
        target = (page.path.parent / name).resolve() if name else page.path
        assert target.exists(), f"{link} leads nowhere"
        if fragment:
            headings = pages.read(str(target.relative_to(pages.ROOT))).headings
            assert fragment in {pages.anchor(heading) for heading in headings}, f"{link} names no heading"


def test_every_page_can_be_reached_from_the_index() -> None:
    """docs/index.md is the way in: whatever it does not lead to, directly or further on, nobody finds."""
    start = pages.ROOT / "docs" / "index.md"
    reached, rest = set(), [start]
    while rest:
        path = rest.pop()
        if path in reached or path.suffix != ".md" or not path.exists():
            continue
        reached.add(path)
        page = pages.read(str(path.relative_to(pages.ROOT)))
        links = (link.partition("#")[0] for link in page.links if "://" not in link)
        rest.extend((path.parent / link).resolve() for link in links if link)

    assert {page.path for page in PAGES if (pages.ROOT / "docs") in page.path.parents} <= reached


def test_the_changelog_has_a_place_for_what_comes_next() -> None:
    headings = pages.read("CHANGELOG.md").headings

    assert headings[:2] == ["Changelog", "Unreleased"]
