"""Reading the documentation: tables, fenced blocks and links of a Markdown page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CELL = re.compile(r"(?<!\\)\|")


def code(cell: str) -> str:
    """The text of a cell that is one piece of code."""
    assert cell.startswith("`"), cell
    assert cell.endswith("`"), cell
    return cell.strip("`")


def anchor(heading: str) -> str:
    """The fragment by which a heading is linked to, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@dataclass(frozen=True)
class Page:
    """A page and its text."""

    path: Path
    text: str

    @property
    def headings(self) -> list[str]:
        """All headings, without their marks."""
        return re.findall(r"^#+ (.+)$", _FENCE.sub("", self.text), re.MULTILINE)

    def section(self, heading: str) -> str:
        """The text below `heading`, up to the next heading of any level."""
        found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", self.text, re.MULTILINE | re.DOTALL)
        assert found is not None, f"{self.path} has no heading {heading!r}"
        return found[1]

    def table(self, heading: str) -> list[list[str]]:
        """The rows below the head of the first table of a section, cell by cell."""
        found = re.search(r"^\|[^\n]*\|\n\|[-:| ]+\|\n((?:\|[^\n]*\|\n)*)", self.section(heading), re.MULTILINE)
        assert found is not None, f"{self.path} has no table below {heading!r}"
        return [[cell.strip() for cell in _CELL.split(line[1:-1])] for line in found[1].splitlines()]

    def blocks(self, *languages: str) -> list[str]:
        """The fenced blocks of these languages, in order."""
        return [text for language, text in _FENCE.findall(self.text) if language in languages]

    @property
    def links(self) -> list[str]:
        """Where the page's links go."""
        return _LINK.findall(_FENCE.sub("", self.text))


def read(name: str) -> Page:
    """The page at `name`, relative to the repository."""
    path = ROOT / name
    return Page(path, path.read_text(encoding="utf-8"))


def everything() -> list[Page]:
    """Every page there is."""
    paths = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("examples/*.md")]
    return [read(str(path.relative_to(ROOT))) for path in sorted(paths)]
