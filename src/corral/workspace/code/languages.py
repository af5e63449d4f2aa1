"""The languages that artifacts are written in: how each is recognised, and what its own parser says of a file.

Importing this loads no parser: each is loaded when the first file of its language is checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

LARGEST = 4 * 1024**2
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
_OTHERS = frozenset(
    "bash sh shell zsh fish console powershell ps1 bat cmd yaml yml toml ini env dotenv sql xml vue svelte astro scss sass less"
    " java kotlin swift c cpp c++ h hpp cs csharp go rust rs ruby rb php perl lua r julia dart scala haskell elixir clojure"
    " dockerfile makefile cmake nginx graphql proto http regex mermaid latex tex csv tsv jsonc json5 jsonl ndjson vim asm wasm"
    " output stdout log terminal shell-session shellsession pseudocode ascii tree gitignore properties".split()
)

COVERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"tsx": ("jsx", "ts", "js"), "jsx": ("js", "tsx", "ts"), "ts": ("js", "tsx"), "js": ("jsx", "ts")}
)
"""For each kind, the others in which a model may answer when it is asked for that one, the likeliest first."""


def kind_of(name: str, hint: str = "") -> str:
    """The kind of the file `name`; where its suffix says nothing, of what is called `hint` (a fence's word); else `text`."""
    dot = name.rfind(".")
    found = _SUFFIXES.get(name[dot:].lower()) if dot > name.rfind("/") else None
    return found or LABELS.get(hint.strip().lower(), "text")


def is_label(word: str) -> bool:
    """Whether `word` is one that fences are marked with, of the languages here or of others."""
    word = word.lower()
    return word in LABELS or word in _OTHERS


_STYLE = re.compile(
    r"(?m)^\s*(?:@(?:import|media|keyframes|font-face|tailwind|layer|charset)\b|[.#:*]?[\w\-.#:*>+~ \[\]=\"',()]+\{\s*$)"
)
_PROPERTY = re.compile(r"(?m)^\s*(?:--)?[a-z][a-z-]*\s*:\s*[^;{}\n]+;\s*$")
_PYTHON = re.compile(
    r"(?m)^(?:from\s+[\w.]+\s+import\s+|import\s+[\w.]+(?:\s+as\s+\w+)?\s*$|(?:async\s+)?def\s+\w+\(.*|class\s+\w+[^{]*:\s*$|if __name__ ==|@\w[\w.]*(?:\(.*\))?\s*$)"
)
_SCRIPT = re.compile(
    r"(?m)^(?:import\s+(?:type\s+)?[\w{*\"'].*(?:from\s*)?[\"'];?\s*$|export\s+(?:default|const|function|class|interface|type|async|let|var|\{|\*)"
    r"|(?:async\s+)?function\s*\*?\s*\w+\s*[(<]|(?:const|let|var)\s+[\w{\[].*[=,]|class\s+\w+[^:\n]*\{|[\"']use (?:client|strict)[\"'])"
)
_TYPES = re.compile(
    r"(?m)^(?:export\s+)?(?:interface\s+\w+|type\s+\w+(?:<[^>\n]*>)?\s*=|enum\s+\w+\s*\{)|\bimport\s+type\b|[\w\])}]\??:\s*"
    r"(?:string|number|boolean|void|unknown|any|never|React\.\w+)\b|\buse(?:State|Ref|Memo|Callback|Reducer)<|\bReact\.FC\b|\)\s*:\s*JSX\."
    r"|\bas\s+(?:const|string|number|any|unknown)\b"
)
_ELEMENTS = re.compile(r"(?:[(,?:&=>{\[;]|\breturn\b|^)\s*<(?:[A-Za-z][\w.]*(?:\s|/?>|$)|>)", re.MULTILINE)
_CLOSED = re.compile(r"</[A-Za-z][\w.]*\s*>|/>|</>")
_HEADING = re.compile(r"(?m)^(?:#{1,6} \S|[-*] \S|\d+\. \S|\|.*\|\s*$)")


def guess(content: str) -> str:
    """The kind that `content` looks like, by its own look; `text` where it looks like none. Takes time linear in it."""
    start = content.lstrip()[:512]
    low = start.lower()
    if low.startswith(("<!doctype html", "<html")):
        return "html"
    if low.startswith("<svg") or (low.startswith("<?xml") and "<svg" in low):
        return "svg"
    if start.startswith(("diff --git ", "--- a/", "--- ", "Index: ")) and "\n@@ " in content:
        return "diff"
    if (
        start[:1] in ("{", "[")
        and content.rstrip()[-1:] in ("}", "]")
        and re.match(r"[{\[]\s*[\"{\[\]}\d\-tfn]", start)
    ):
        return "json"
    head = content[:200_000]
    if _SCRIPT.search(head) and not (_PYTHON.search(head) and not re.search(r"[;{]\s*$", head, re.MULTILINE)):
        return guess_script(head)
    if _PYTHON.search(head):
        return "python"
    if _TYPES.search(head) and re.search(r"[;{]\s*$", head, re.MULTILINE):
        return guess_script(head)
    if low.startswith(("<!--", "<head", "<body", "<div", "<main", "<section", "<style", "<script", "<form", "<button")):
        return "html"
    if _STYLE.search(head) and _PROPERTY.search(head):
        return "css"
    return "markdown" if _HEADING.search(head) and "\n" in head else "text"


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
