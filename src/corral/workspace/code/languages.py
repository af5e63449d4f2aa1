"""The languages that artifacts are written in: how each is recognised, and what its own parser says of a file.

Importing this loads no parser: each is loaded when the first file of its language is checked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LARGEST = 1024**2
"""Characters of the largest file that is checked: parsers recover slowly from mistakes in what nobody wrote by hand."""

MOST = 20
"""Problems that are told of one file, at most: what follows the first few is mostly their echo."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A language: its media type, the suffixes of its files (the first is given to new ones), what fences call it.

    `default` names a file of it that nobody named.
    """

    name: str
    media_type: str
    suffixes: tuple[str, ...]
    labels: tuple[str, ...]
    default: str


@dataclass(frozen=True, slots=True)
class Problem:
    """What a parser has against a file. `line` and `column` count from 1, columns in characters."""

    line: int
    column: int
    message: str


_ALL = (
    Kind("tsx", "text/tsx", (".tsx",), ("tsx", "typescriptreact", "react", "react-ts"), "component.tsx"),
    Kind("jsx", "text/jsx", (".jsx",), ("jsx", "javascriptreact", "react-jsx"), "component.jsx"),
    Kind("ts", "text/typescript", (".ts", ".mts", ".cts"), ("ts", "typescript", "mts", "cts"), "module.ts"),
    Kind(
        "js",
        "text/javascript",
        (".js", ".mjs", ".cjs"),
        ("js", "javascript", "mjs", "cjs", "ecmascript", "node"),
        "module.js",
    ),
    Kind("css", "text/css", (".css",), ("css", "postcss"), "styles.css"),
    Kind("html", "text/html", (".html", ".htm", ".xhtml"), ("html", "html5", "htm", "xhtml"), "index.html"),
    Kind("python", "text/x-python", (".py", ".pyi"), ("python", "py", "python3", "py3", "pyi"), "main.py"),
    Kind("json", "application/json", (".json", ".webmanifest"), ("json",), "data.json"),
    Kind("markdown", "text/markdown", (".md", ".markdown", ".mdx"), ("markdown", "md", "mdx"), "document.md"),
    Kind("svg", "image/svg+xml", (".svg",), ("svg",), "image.svg"),
    Kind("diff", "text/x-diff", (".diff", ".patch"), ("diff", "patch", "udiff"), "changes.diff"),
    Kind("text", "text/plain", (".txt", ".text", ".log"), ("text", "txt", "plain", "plaintext"), "text.txt"),
)

KINDS: Mapping[str, Kind] = MappingProxyType({kind.name: kind for kind in _ALL})
"""Every kind by its name. What is in no other language is `text`."""

LABELS: Mapping[str, str] = MappingProxyType({label: kind.name for kind in _ALL for label in kind.labels})
"""The kind that each word after a fence stands for."""

_SUFFIXES = {suffix: kind.name for kind in _ALL for suffix in kind.suffixes}
_ELSEWHERE = """
bash sh shell zsh fish console powershell ps1 bat cmd terminal shell-session shellsession output stdout log
yaml yml toml ini env dotenv properties xml csv tsv json5 jsonc jsonl ndjson sql graphql proto http gitignore
vue svelte astro scss sass less java kotlin swift c cpp c++ h hpp cs csharp go rust rs ruby rb php perl lua r julia
dart scala haskell elixir clojure asm wasm dockerfile makefile cmake nginx regex mermaid latex tex vim pseudocode
ascii tree
"""
_OTHERS = frozenset(_ELSEWHERE.split())

COVERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"tsx": ("jsx", "ts", "js"), "jsx": ("js", "tsx", "ts"), "ts": ("js", "tsx"), "js": ("jsx", "ts")}
)
"""For each kind, the others in which a model may answer when it is asked for that one, the likeliest first."""


def kind_of(name: str, hint: str = "") -> str:
    """The kind of the file `name`; where its suffix says nothing, of what fences call `hint`; else `text`."""
    dot = name.rfind(".")
    found = _SUFFIXES.get(name[dot:].lower()) if dot > name.rfind("/") else None
    return found or LABELS.get(hint.strip().lower(), "text")


def is_label(word: str) -> bool:
    """Whether `word` is one that fences are marked with, of the languages here or of others."""
    word = word.lower()
    return word in LABELS or word in _OTHERS


# No pattern here may run over the same characters from each of many lines: hence blanks, and never any white space.
_STYLE = re.compile(
    r"(?m)^[ \t]*(?:@(?:import|media|keyframes|font-face|tailwind|layer|charset)\b"
    r"|[.#:*]?[\w\-.#:*>+~ \[\]=\"',()]+\{)"
)
_PROPERTY = re.compile(r"(?m)(?:^|[{;])[ \t]*(?:--)?[a-z][a-z-]*[ \t]*:[ \t]*[^;{}\n]+(?:[;}]|$)")
_PYTHON = re.compile(
    r"(?m)^(?:from[ \t]+[\w.]+[ \t]+import[ \t]|import[ \t]+[\w.]+(?:[ \t]+as[ \t]+\w+)?[ \t]*$"
    r"|(?:async[ \t]+)?def[ \t]+\w+\(|class[ \t]+\w+[^{\n]*:[ \t]*$|if __name__ ==|@\w[\w.]*(?:\(.*\))?[ \t]*$)"
)
_SCRIPT = re.compile(
    r"(?m)^(?:import[ \t]+(?:type[ \t]+)?[\w{*\"'].*[\"'];?[ \t]*$"
    r"|export[ \t]+(?:default|const|function|class|abstract|interface|type|async|let|var|\{|\*)"
    r"|(?:async[ \t]+)?function[ \t]*\*?[ \t]*\w+[ \t]*[(<]|(?:const|let|var)[ \t]+[\w{\[].*[=,]"
    r"|class[ \t]+\w+[^:\n]*\{|[\"']use (?:client|strict)[\"'])"
)
_TYPES = re.compile(
    r"(?m)^(?:export[ \t]+)?(?:interface[ \t]+\w+|type[ \t]+\w+(?:<[^>\n]*>)?[ \t]*=|enum[ \t]+\w+[ \t]*\{)"
    r"|\bimport[ \t]+type\b|[\w\])}]\??:[ \t]*(?:string|number|boolean|void|unknown|any|never|React\.\w+)\b"
    r"|\buse(?:State|Ref|Memo|Callback|Reducer)<|\bReact\.FC\b|\)[ \t]*:[ \t]*JSX\."
    r"|\bas[ \t]+(?:const|string|number|any|unknown)\b"
    r"|\b(?:abstract[ \t]+class|(?:private|protected|readonly)[ \t]+\w+|class[ \t]+\w+<|function[ \t]+\w+<)"
)
_ELEMENTS = re.compile(r"(?m)(?:[(,?:&=>{\[;]\s*|\breturn\b\s*|^[ \t]*)<(?:[A-Za-z][\w.]*(?:\s|/?>|$)|>)")
_CLOSED = re.compile(r"</[A-Za-z][\w.]*[ \t]*>|/>|</>")
_HEADING = re.compile(r"(?m)^(?:#{1,6} \S|[-*] \S|\d+\. \S|\|.*\|[ \t]*$)")
_ENDED = re.compile(r"(?m)[;{}][ \t]*$")
_HEAD = 200_000


def guess(content: str) -> str:
    """The kind that `content` looks like; `text` where it looks like none. Of long ones the head decides."""
    start = content[:4096].lstrip()
    if not start:
        return "text"
    return _by_start(start, content) or _by_lines(content[:_HEAD])


def _by_start(start: str, content: str) -> str | None:
    """The kind of what can be told by its first characters."""
    low = start[:512].lower()
    if low.startswith(("<!doctype html", "<html")):
        return "html"
    if low.startswith("<svg") or (low.startswith("<?xml") and "<svg" in low):
        return "svg"
    if start.startswith(("diff --git ", "--- ", "Index: ")) and "\n@@ " in content[:_HEAD]:
        return "diff"
    braced = start[0] in "{[" and content[-4096:].rstrip()[-1:] in ("}", "]")
    return "json" if braced and re.match(r"[{\[]\s*[\"{\[\]}\d\-tfn]", start) else None


def _by_lines(head: str) -> str:
    """The kind by the lines that there are."""
    ended = bool(_ENDED.search(head))
    python = bool(_PYTHON.search(head))
    if (_SCRIPT.search(head) and (ended or not python)) or (_TYPES.search(head) and ended and not python):
        return guess_script(head)
    if python:
        return "python"
    if head.lstrip()[:64].lower().startswith(_PAGES):
        return "html"
    if _STYLE.search(head) and _PROPERTY.search(head):
        return "css"
    return "markdown" if _HEADING.search(head) and "\n" in head else "text"


_PAGES = (
    "<!--", "<head", "<body", "<div", "<main", "<section", "<style", "<script", "<form", "<button", "<table", "<ul",
    "<nav",
)  # fmt: skip


def guess_script(content: str) -> str:
    """Which of the four that a browser's code may be in: with elements or without, with types or without."""
    elements = bool(_ELEMENTS.search(content) and _CLOSED.search(content))
    types = bool(_TYPES.search(content))
    return ("tsx" if types else "jsx") if elements else ("ts" if types else "js")


def check(kind: str, content: str) -> tuple[Problem, ...]:
    """What the parser of `kind` has against `content`, in the order of its lines; at most `MOST`. Nothing is executed.

    A file larger than `LARGEST` has one problem, its size. `text` has none. Blocks for about 0.1 s a megabyte.
    """
    from corral.workspace.code import checks

    if len(content) > LARGEST:
        return (Problem(1, 1, f"too large to be checked: {len(content)} characters, where {LARGEST} are read"),)
    found = checks.CHECKS[kind](content) if kind in checks.CHECKS else ()
    return tuple(sorted(set(found), key=lambda problem: (problem.line, problem.column, problem.message)))[:MOST]
