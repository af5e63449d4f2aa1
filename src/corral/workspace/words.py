"""The words of a text, cut the same way for every database: what is looked for and what is found are cut alike.

A word is letters and digits, without case and accents. `CounterButton` is found as itself, as `counter` and as
`button`; of scripts that put no space between words every character is one.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

TEXT = 60_000
"""Characters of a text whose words are looked for. What comes after them is not found."""
WIDTH = 200
"""Characters of an excerpt, about."""

_LONGEST = 64
_RUN = re.compile(r"[^\W_]+")
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_ALONE = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_ASKED = re.compile(r"[^\W_]+\*?")
_MOST_ASKED = 16
_PROJECT, _KIND = "\ue000", "\ue001"
MARKS = frozenset({_PROJECT, _KIND})
"""With one of these private characters, which no word has, begin marks: words that nobody can type."""


class Word(NamedTuple):
    """A word that is asked for; with `begins`, any that begins so."""

    text: str
    begins: bool = False


def words_of(texts: Iterable[str], *, kind: str, project: str) -> str:
    """The words in any of the texts and the marks of the entry, each once, with a space before and after each."""
    found = {mark_of_kind(kind): None}
    if project:
        found[mark_of_project(project)] = None
    for text in texts:
        for run in _RUN.findall(text[:TEXT]):
            for word in _cut(run):
                found[word] = None
    return f" {' '.join(found)} "


def asked(text: str) -> tuple[Word, ...]:
    """What somebody looks for: all of these words. `count*` is any word that begins with `count`."""
    found: dict[Word, None] = {}
    for run in _ASKED.findall(text[:TEXT]):
        plain = _plain(run.rstrip("*"))
        single = _split(plain)
        for each in single:
            found[Word(each[:_LONGEST], run.endswith("*") and each is single[-1])] = None
    return tuple(found)[:_MOST_ASKED]


def mark_of_project(project: str) -> str:
    """The word that every entry of the project has; `project` is its id."""
    return _PROJECT + project.rpartition("-")[2]


def mark_of_kind(kind: str) -> str:
    """The word that every entry of the kind has."""
    return _KIND + kind


def unmarked(mark: str) -> str:
    """What was marked: a kind, or a project's id."""
    return mark[1:] if mark[0] == _KIND else f"prj-{mark[1:]}"


def excerpt(body: str, words: Iterable[Word]) -> str:
    """A piece of the text with one of the words in it, or its beginning, in one line."""
    at = -1
    for word in words:
        found = re.search(rf"(?<![^\W_]){re.escape(word.text)}", body, re.IGNORECASE) or re.search(
            re.escape(word.text), body, re.IGNORECASE
        )
        if found is not None:
            at = found.start()
            break
    begin = max(0, at - WIDTH // 3) if at > WIDTH // 2 else 0
    piece = " ".join(body[begin : begin + WIDTH].split())
    return f"{'…' if begin else ''}{piece}{'…' if begin + WIDTH < len(body) else ''}"


def _cut(run: str) -> Iterable[str]:
    whole = _plain(run)
    yield from (each[:_LONGEST] for each in _split(whole))
    if run.isascii() and not run.isdigit():
        parts = _PARTS.findall(run)
        if len(parts) > 1:
            yield from (part.lower()[:_LONGEST] for part in parts)


def _plain(run: str) -> str:
    if run.isascii():
        return run.lower()
    apart = unicodedata.normalize("NFKD", run.casefold())
    return "".join(letter for letter in apart if letter.isalnum())


def _split(word: str) -> list[str]:
    if word.isascii() or not _ALONE.search(word):
        return [word] if word else []
    return [each for each in re.split(f"({_ALONE.pattern})", word) if each]
