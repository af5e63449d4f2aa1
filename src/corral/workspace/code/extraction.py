"""Files found in what a model wrote.

    words of a model ── fences ──┬─ a block each ─ split at `// file: …` ─┬─ named, of a kind
                                 └─ none: `<file path="…">`, bare code ───┘

Names come from the fence (`tsx title="X.tsx"`), from the line above it (`**src/X.tsx**`), or from a comment in the
first line (`// file: src/X.tsx`, which is then left out); they are relative and never climb. Of two files with one
name the later stands, unless it has no end. What was thought (`<think>`) is no answer. Line ends become line feeds.
Nothing here raises for any text, and everything takes time linear in it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from textwrap import dedent
from typing import TYPE_CHECKING

from corral.workspace.code import bare, fences, hints
from corral.workspace.code.languages import COVERS, KINDS, LABELS, check, guess, guess_script, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_WRAPPER = re.compile(
    r"[ \t]*<(file|document|boltAction|artifact|antArtifact|code)\b([^>\n]{0,300})>[ \t]*(?:<!\[CDATA\[)?[ \t]*",
    re.IGNORECASE,
)
_WRAPPED = re.compile(
    r"(?:path|name|file|filePath|filename|title|identifier)\s*=\s*[\"']([^\"'\n]+)[\"']", re.IGNORECASE
)
_TINY = 12
_EXPORT = re.compile(r"(?m)^(?:export\b|module\.exports\b)")


@dataclass(frozen=True, slots=True)
class Found:
    """A file that a model wrote. `line` (from 1) of its words is where `content` begins.

    `complete` says whether its end was seen. `label` is what its fence said, `named` whether the model told its name.
    """

    name: str
    kind: str
    content: str
    line: int
    complete: bool
    label: str = ""
    named: bool = False


def extract(text: str, *, wanted: Sequence[str] = ()) -> list[Found]:
    """The files in `text`, in the order of their beginnings.

    With `wanted` (kinds), only those of these kinds, among them what was marked as a relative of one and reads as it
    (`jsx` where `tsx` is wanted), and relatives with a name beside them; code without any fence is then looked for
    harder. Empty when there is none. Blocks for about 0.2 s a megabyte.
    """
    lines, first = _answer(text)
    found = list(_files(lines, first, wanted))
    if wanted:
        found = _wanted(found, wanted)
    if not found:
        found = list(_unfenced(lines, first, wanted))
    return _distinct(found)


def choose(found: Iterable[Found], kind: str) -> Found | None:
    """The file of `kind` that is most likely the one asked for: whole, without mistakes, named, exporting, the longest.

    What only shows how a component is used exports nothing.
    """
    mine = [one for one in found if one.kind == kind]

    def rank(one: Found) -> tuple[bool, bool, bool, bool, int]:
        return (
            one.complete,
            not check(kind, one.content),
            one.named,
            bool(_EXPORT.search(one.content)),
            len(one.content),
        )

    return max(mine, key=rank, default=None)


def _answer(text: str) -> tuple[list[str], int]:
    """The lines of the answer, without what was thought before, and the number (from 0) of the first of them."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufeff", "")
    skipped = 0
    head = text[:200].lstrip().lower()
    end = text.find("</think>")
    if head.startswith(("<think>", "<thinking>")):
        close = re.search(r"</think(?:ing)?>", text)
        skipped = close.end() if close else len(text)
    elif end >= 0 and "<think>" not in text[:end] and "```" not in text[end : end + 9]:
        skipped = end + len("</think>")
    return text[skipped:].split("\n"), text.count("\n", 0, skipped)


def _files(lines: list[str], offset: int, wanted: Sequence[str]) -> Iterator[Found]:
    low = 0
    for block in _flat(fences.blocks(lines), lines, wanted):
        label, name = hints.read_info(block.info)
        if block.inline is not None:
            if label or len(block.inline) > _TINY:
                yield _found(name, label, [block.inline], block.at + offset, complete=True)
        else:
            content = fences.content(block, lines)
            if name is None:
                above = hints.before(lines, block.at, low)
                name = above if above is not None and hints.fits(above, label) else None
            yield from _split(content, name, label, block.first + offset, block.complete)
        low = block.after + 1


def _flat(found: list[fences.Block], lines: list[str], wanted: Sequence[str]) -> Iterator[fences.Block]:
    """The blocks that are files: of a text that is none of what is wanted, those in it."""
    for block in found:
        inside = block.inner and block.inline is None
        if (inside and block.paper and wanted and "markdown" not in wanted) or (
            inside and not block.info and _only(block, lines)
        ):
            yield from _flat(block.inner, lines, wanted)
        else:
            yield block


def _only(block: fences.Block, lines: list[str]) -> bool:
    """Whether a block has nothing but other blocks in it."""
    at = block.first
    for inner in block.inner:
        if any(line.strip() for line in lines[at : inner.at]):
            return False
        at = inner.after + 1
    return not any(line.strip() for line in lines[at : block.after])


def _split(content: list[str], name: str | None, label: str, line: int, complete: bool) -> Iterator[Found]:
    """The files in one block: several where lines in it say which begins."""
    marks = [(number, mark) for number, text in enumerate(content) if (mark := hints.marker(text))]
    begins = next((number for number, text in enumerate(content) if text.strip()), 0)
    if len({mark for _, mark in marks}) > 1 and (marks[0][0] == begins or name is not None):
        if marks[0][0] > begins:
            yield _found(name, label, content[: marks[0][0]], line, complete=True)
        for index, (number, mark) in enumerate(marks):
            last = index + 1 == len(marks)
            after = len(content) if last else marks[index + 1][0]
            part = content[number + 1 : after]
            yield _found(
                mark, label if hints.fits(mark, label) else "", part, line + number + 1, complete=complete or not last
            )
        return
    said, alone = hints.first_line(content[begins], label) if begins < len(content) else (None, False)
    if said is not None:
        name = name if name is not None and kind_of(name) != "text" and "/" in name and "/" not in said else said
        if alone:
            content, line = content[begins + 1 :], line + begins + 1
    yield _found(name, label, content, line, complete=complete)


def _found(name: str | None, label: str, content: list[str], line: int, *, complete: bool) -> Found:
    skip = next((number for number, text in enumerate(content) if text.strip()), 0)
    kept = content[skip:]
    if kept and kept[0][:1] in (" ", "\t"):
        kept = dedent("\n".join(kept)).split("\n")
    body = "\n".join(kept).rstrip()
    text = body + "\n" if body else ""
    kind = kind_of(name or "", label)
    if not label and name is None:
        kind = guess(text)
    elif kind in ("ts", "js") and name is None:
        found = guess_script(text)
        kind = {"ts": {"tsx": "tsx", "jsx": "tsx"}, "js": {"jsx": "jsx", "tsx": "tsx"}}[kind].get(found, kind)
    elif label in ("xml", "html") and name is None and guess(text) == "svg":
        kind = "svg"
    return Found(name or "", kind, text, line + skip + 1, complete, label, named=name is not None)


def _wanted(found: list[Found], wanted: Sequence[str]) -> list[Found]:
    """The files of the kinds that are wanted; of a kind without any, those that are marked otherwise and read as it.

    A relative of what is wanted that has a name stays as it is: the others may import it.
    """
    for near in (True, False):
        there = {one.kind for one in found}
        missing = wanted if near else [kind for kind in wanted if kind not in there]
        found = [one if one.kind in wanted else _judged(one, missing, near=near) for one in found]
    relatives = {kind for each in wanted for kind in COVERS.get(each, ())}
    kinds = {one.kind for one in found}.intersection(wanted)
    return [one for one in found if one.kind in wanted or (kinds and one.named and one.kind in relatives)]


def _judged(found: Found, wanted: Sequence[str], *, near: bool) -> Found:
    """The file, as one of a wanted kind where it is marked as a relative of it, or as nothing, and reads as one."""
    for kind in wanted:
        covered = COVERS.get(kind, ())[: 1 if near else None]
        unmarked = found.kind == "text" and not found.named and LABELS.get(found.label or "text") == "text"
        fits = found.kind in covered or (unmarked and kind not in ("markdown", "diff", "text"))
        if not fits or not found.content or check(kind, found.content):
            continue
        name = found.name.rpartition(".")[0] + KINDS[kind].suffixes[0] if found.named else ""
        return replace(found, kind=kind, name=name)
    return found


def _unfenced(lines: list[str], offset: int, wanted: Sequence[str]) -> Iterator[Found]:
    """Files that have no fence: between tags, after lines that name them, or plain."""
    named = list(_wrapped(lines, offset)) or list(_marked(lines, offset))
    if named:
        yield from _wanted(named, wanted) if wanted else named
        return
    text = "\n".join(lines)
    for kind in wanted or _plain(text):
        place = bare.find(text, kind)
        if place is not None:
            start, content, complete = place
            line = text.count("\n", 0, start)
            found = _found(None, kind, content.split("\n"), line + offset, complete=complete)
            yield replace(found, kind=kind, label="")


def _plain(text: str) -> tuple[str, ...]:
    """The kind of a text that is code, or has some among its words; none unless its parser is content."""
    looks = guess(text.strip())
    if looks in KINDS and looks not in ("text", "markdown") and not check(looks, text.strip()):
        return (looks,)
    for kind in ("html", "svg", "tsx", "python"):
        place = bare.find(text, kind)
        if place is not None and place[2] and not check(kind, place[1]):
            content = place[1]
            return (guess_script(content),) if kind == "tsx" else (kind,)
    return ()


def _wrapped(lines: list[str], offset: int) -> Iterator[Found]:
    number = 0
    ends: dict[str, list[int]] = {}
    for at, line in enumerate(lines):
        tag = re.fullmatch(r"\s*(?:\]\]>)?\s*</(\w+)>\s*", line) if "</" in line and len(line) < 80 else None
        if tag:
            ends.setdefault(tag[1].lower(), []).append(at)
    for places in ends.values():
        places.reverse()
    while number < len(lines):
        match = _WRAPPER.fullmatch(lines[number])
        path = _WRAPPED.search(match[2]) if match else None
        name = hints.path_in(path[1]) if path else None
        if match and name is not None:
            places = ends.get(match[1].lower(), [])
            while places and places[-1] < number:
                places.pop()
            after = places.pop() if places else len(lines)
            yield _found(name, "", lines[number + 1 : after], number + 1 + offset, complete=after < len(lines))
            number = after
        number += 1


def _marked(lines: list[str], offset: int) -> Iterator[Found]:
    marks = [(number, mark) for number, text in enumerate(lines) if (mark := hints.marker(text))]
    for index, (number, mark) in enumerate(marks):
        after = marks[index + 1][0] if index + 1 < len(marks) else len(lines)
        found = _found(mark, "", lines[number + 1 : after], number + 1 + offset, complete=True)
        if found.content:
            yield found


def _distinct(found: list[Found]) -> list[Found]:
    """The files, each with a name of its own: of the same name the last that has an end."""
    last: dict[str, int] = {}
    for number, one in enumerate(found):
        if one.named and (one.complete or one.name not in last or not found[last[one.name]].complete):
            last[one.name] = number
    kept = [one for number, one in enumerate(found) if one.content and (not one.named or last[one.name] == number)]
    taken = {one.name for one in kept if one.named}
    counts: Counter[str] = Counter()
    result = []
    for one in kept:
        if one.named:
            result.append(one)
            continue
        stem, _, suffix = KINDS[one.kind].default.rpartition(".")
        while True:
            counts[one.kind] += 1
            name = f"{stem}.{suffix}" if counts[one.kind] == 1 else f"{stem}-{counts[one.kind]}.{suffix}"
            if name not in taken:
                break
        result.append(replace(one, name=name))
    return result
