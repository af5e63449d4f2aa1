"""Code that a model wrote without any fence, among its words or alone. Takes time linear in the text."""

from __future__ import annotations

import json
import re

from corral.workspace.code.languages import check, guess

_PAGE = re.compile(r"<!doctype\s+html|<html[\s>]", re.IGNORECASE)
_STARTS = {
    "script": re.compile(
        r"(?:import\s+(?:type\s+)?[\w{*\"'].*[\"'];?\s*$|export\s|(?:async\s+)?function\b|(?:const|let|var)\s+[\w{\[]|class\s+\w"
        r"|interface\s+\w|type\s+\w+\s*[=<]|enum\s+\w|[\"']use (?:client|strict)[\"']|/\*\*|//)"
    ),
    "python": re.compile(
        r"(?:from\s+[\w.]+\s+import\s|import\s+[\w.]+(?:\s+as\s+\w+)?(?:\s*,.*)?\s*$|(?:async\s+)?def\s+\w|class\s+\w+.*:\s*$|@\w|#!|\"\"\""
        r"|[A-Za-z_]\w*\s*(?::\s*\w+\s*)?=\s|if __name__|print\()"
    ),
    "css": re.compile(r"(?:@[a-z-]+\b|[.#:*&]?[\w\-.#:*>+~ \[\]=\"',()]+\{|/\*)"),
    "markdown": re.compile(r"#{1,6} \S"),
}
_ENDS = {
    "script": re.compile(r".*[;})\]>,`]\s*$|\s*//.*|\s*\*/\s*$"),
    "python": re.compile(r"\s+\S.*|.*[)\]}:\"']\s*$|[A-Za-z_][\w.]*\s*=\s*.*|#.*|@.*"),
    "css": re.compile(r".*\}\s*$|.*;\s*$|.*\*/\s*$"),
}
_TRIES = 4
_BEGINNINGS = 1_000
"""Mistaken beginnings, at most: for each the decoder counts the lines before it."""


def find(text: str, kind: str) -> tuple[int, str, bool] | None:
    """The part of `text` that is of `kind`: the character where it begins, itself, and whether its end was seen."""
    if kind == "html":
        return _page(text)
    if kind == "svg":
        return _between(text, re.compile(r"(?:<\?xml[^>]{0,200}\?>\s{0,20})?<svg[\s>]", re.IGNORECASE), "svg")
    if kind == "json":
        return _json(text)
    if kind in ("text", "diff"):
        return None
    return _lines(text, kind)


def _page(text: str) -> tuple[int, str, bool] | None:
    whole = _between(text, _PAGE, "html")
    if whole is not None:
        return whole
    match = re.search(
        r"(?m)^<(?:head|body|div|main|section|article|form|table|style|script|nav|header|ul|button|p|h[1-6])[\s>]", text
    )
    end = text.rfind(">")
    if match is None or end < match.start():
        return None
    line = text.find("\n", end)
    tail = text[end + 1 : line if line >= 0 else len(text)]
    content = text[match.start() : end + 1] + (tail if tail.strip() else "")
    return match.start(), content, True


def _between(text: str, first: re.Pattern[str], tag: str) -> tuple[int, str, bool] | None:
    match = first.search(text)
    if match is None:
        return None
    end = max((close.end() for close in re.finditer(f"</{tag}>", text, re.IGNORECASE)), default=-1)
    if end < match.start():
        return match.start(), text[match.start() :].rstrip(), False
    return match.start(), text[match.start() : end], True


def _json(text: str) -> tuple[int, str, bool] | None:
    """The longest object or list in the text. Mistaken beginnings are looked at until they cost as much as the text."""
    decoder = json.JSONDecoder(parse_int=float)
    best: tuple[int, str, bool] | None = None
    left = 4 * len(text) + 10_000
    at = tries = 0
    while left > 0 and tries < _BEGINNINGS:
        match = _BEGINS.search(text, at)
        if match is None:
            break
        start = match.start()
        tries += 1
        try:
            _, end = decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            # Of a string without an end the decoder tells the beginning, but it has read all that follows.
            left -= (len(text) if error.msg.startswith("Unterminated") else error.pos) - start + 1
            at = start + 1
        except RecursionError:
            left -= 5_000
            at = start + 1
        else:
            left -= end - start
            if best is None or end - start > len(best[1]):
                best = (start, text[start:end], True)
            at, tries = end, tries - 1
    if best is not None and (len(best[1]) > 2 or text.strip() == best[1]):
        return best
    start = text.find("{")
    line = text.rfind("\n", 0, start) + 1
    if start >= 0 and not text[line:start].strip() and re.match(r"\{\s*\"[^\"\n]*\"\s*:", text[start : start + 500]):
        end = text.rfind("}")
        return start, text[start : end + 1] if end > start else text[start:].rstrip(), end > start
    return None


_BEGINS = re.compile(r"\{(?=\s*[\"}])|\[(?=\s*[\[{\"\]\d\-tfn])")


def _lines(text: str, kind: str) -> tuple[int, str, bool] | None:
    """The lines from the first that looks like code to the last, or to the last with which the parser is content."""
    family = kind if kind in _STARTS else "script"
    lines = text.split("\n")
    first = next((number for number, line in enumerate(lines) if _STARTS[family].match(line)), None)
    if first is None:
        return None
    start = sum(len(line) + 1 for line in lines[:first])
    whole = "\n".join(lines[first:]).rstrip()
    if kind == "markdown":
        return start, whole, True
    if not check(kind, whole):
        return (start, whole, True) if _like(whole, family) else None
    ends = [
        number for number in range(first, len(lines)) if lines[number].strip() and _ENDS[family].match(lines[number])
    ]
    gaps = [number for number in ends if number + 1 >= len(lines) or not lines[number + 1].strip()]
    for last in [*reversed(ends[-1:]), *reversed(gaps[-_TRIES:])]:
        part = "\n".join(lines[first : last + 1])
        if not check(kind, part):
            return (start, part, True) if _like(part, family) else None
    if not _like(whole, family):
        return None
    end = ends[-1] + 1 if ends else len(lines)
    return start, "\n".join(lines[first:end]), False


def _like(content: str, family: str) -> bool:
    found = guess(content)
    return found in ("tsx", "jsx", "ts", "js") if family == "script" else found == family
