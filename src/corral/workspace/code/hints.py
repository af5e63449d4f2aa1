"""Names of files, as models tell them: beside a fence, in its words, or in the first line of the code."""

from __future__ import annotations

import re
from functools import lru_cache

from corral.domain.workspace import check_path
from corral.errors import InvalidName
from corral.workspace.code.languages import COVERS, LABELS, is_label, kind_of

_LONGEST = 300
_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,10}$")
_PATH = re.compile(r"(?:[\w@.+$()\[\]-]+[/\\])*[\w@.+$()\[\]-]*\.[A-Za-z][A-Za-z0-9]{0,10}")
_ATTRIBUTE = re.compile(
    r"\b(?:title|file|filename|filepath|file_name|path|name|src)\s*[=:]\s*(?:\"([^\"]+)\"|'([^']+)'|([^\s\"'},]+))",
    re.IGNORECASE,
)
_KEY = r"(?:file[ _-]?(?:name|path)?|path|title)\s*[:=]\s*"
_OPENS = re.compile(r"(?://+!?|#+|--|;+|<!--|/\*+|\{/\*)[ \t]*")
_KEYED = re.compile(_KEY, re.IGNORECASE)
_RULE = re.compile(r"(={3,}|-{3,}|\*{3,}|#{3,})[ \t]*(?:file[ \t]*:[ \t]*)?([^\s=*#]+)[ \t]*\1", re.IGNORECASE)
_LEAD = re.compile(r"(?:#{1,6}|[-*+>]|\d+[.)]|step \d+[.:)]?)\s+", re.IGNORECASE)
_NAMED = re.compile(rf"{_KEY}(.+)", re.IGNORECASE)
_SPANS = (re.compile(r"`([^`]+)`"), re.compile(r"\*\*([^*]+)\*\*"), re.compile(r"\"([^\"]+)\""))
_NO_FILES = frozenset(
    [
        "node.js",
        "next.js",
        "react.js",
        "vue.js",
        "three.js",
        "d3.js",
        "express.js",
        "chart.js",
        "asp.net",
        "socket.io",
        "nuxt.js",
        "p5.js",
    ]
)


@lru_cache(1024)
def read_info(info: str) -> tuple[str, str | None]:
    """What a fence says after its marks: the word for the language in small letters, and the name of a file or None."""
    info = info[:_LONGEST]
    attribute = _ATTRIBUTE.search(info)
    name = path_in(next(part for part in attribute.groups() if part)) if attribute else None
    words = [word.strip("{}(),;.\"'") if not _PATH.fullmatch(word) else word for word in info.replace(",", " ").split()]
    label = ""
    for place, word in enumerate(words):
        head, _, tail = word.partition(":")
        if not label and is_label(word):
            label = word.lower()
        elif not label and is_label(head) and tail:
            label, name = head.lower(), name or path_in(tail)
        elif name is None and place < 3 and "=" not in word:
            name = path_in(word)
    if not label and words and name is None and re.fullmatch(r"[\w+#.-]{1,20}", words[0]):
        label = words[0].lower()
    return label, name


def path_in(text: str) -> str | None:
    """The name of a file that `text` is, made relative; None when it is none, or climbs out of its folder."""
    text = text.strip().strip("`*_\"'").strip().rstrip(":").strip("`*_\"'").strip()
    if len(text) > _LONGEST or not _PATH.fullmatch(text) or text.lower() in _NO_FILES:
        return None
    text = text.replace("\\", "/").lstrip("/")
    while text.startswith("./"):
        text = text[2:].lstrip("/")
    if not known_suffix(text):
        return None
    try:
        return check_path(text)
    except InvalidName:
        return None


def known_suffix(name: str) -> bool:
    """Whether the suffix of `name` is one of a language, here or elsewhere."""
    match = _SUFFIX.search(name)
    return match is not None and (
        kind_of(name) != "text" or is_label(match[0][1:]) or match[0].lower() in (".txt", ".cfg")
    )


def fits(name: str, label: str) -> bool:
    """Whether a file called `name` may be what a fence calls `label`; one without a word may be any."""
    if not label or not is_label(label):
        return True
    named, said = kind_of(name), LABELS.get(label)
    if said is None:
        return named == "text"
    return said in ("text", named) or said in COVERS.get(named, ()) or {said, named} <= {"html", "svg", "markdown"}


def _comment(line: str) -> tuple[bool, str] | None:
    """Whether a comment of one line has a word such as `file:`, and what it says after that; None for no comment."""
    line = line.strip()
    match = _OPENS.match(line)
    if match is None or len(line) > _LONGEST:
        return None
    rest = line[match.end() :]
    for end in ("-->", "*/}", "*/"):
        rest = rest.removesuffix(end)
    key = _KEYED.match(rest)
    rest = (rest[key.end() :] if key else rest).strip()
    return (key is not None, rest) if rest else None


def before(lines: list[str], at: int, low: int) -> str | None:
    """The name that the lines just above line `at` give to what begins there; those from `low` on are looked at."""
    seen = 0
    for number in range(at - 1, max(low, at - 5) - 1, -1):
        line = lines[number][:_LONGEST].strip()
        if not line:
            continue
        name = _titled(line) or (_mentioned(line) if seen == 0 else None)
        if name is not None:
            return name
        seen += 1
        if seen == 2:
            break
    return None


def _titled(line: str) -> str | None:
    """The name in a line that is nothing but a name, with or without a word such as `File:` and marks around it."""
    comment = _comment(line)
    name = path_in(comment[1]) if comment else None
    if name is not None:
        return name
    while True:
        shorter = _LEAD.sub("", line, count=1) if _LEAD.match(line) else line
        if shorter == line:
            break
        line = shorter
    plain = line.strip("*_`: ")
    named = _NAMED.match(plain)
    text = named[1] if named else plain
    return path_in(text) or path_in(re.sub(r"\s*\([^()]*\)$|\s+[-–—].*$", "", text))  # noqa: RUF001


def _mentioned(line: str) -> str | None:
    """The only name of a file that a sentence has in marks."""
    names = {name for span in _SPANS for match in span.finditer(line) if (name := path_in(match[1]))}
    return names.pop() if len(names) == 1 else None


def first_line(line: str, label: str) -> tuple[str | None, bool]:
    """The name of a file that a comment in the first line of code says, and whether the line says nothing else."""
    said = _comment(line)
    if said is None:
        return None, False
    keyed, text = said
    name = path_in(text)
    alone = name is not None
    if name is None and keyed:
        name = path_in(text.split()[0])
    return (name, alone) if name is not None and (keyed or fits(name, label)) else (None, False)


def marker(line: str) -> str | None:
    """The name of the file that begins after this line: `// file: a.tsx`, `=== a.tsx ===`. Others are no markers."""
    if len(line) > _LONGEST or "." not in line:
        return None
    said = _comment(line)
    if said is not None and said[0]:
        return path_in(said[1])
    rule = _RULE.fullmatch(line.strip())
    return path_in(rule[2]) if rule else None
