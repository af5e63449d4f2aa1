"""What an export gives, and what it is made from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from corral.workspace.code.languages import kind_of


@dataclass(frozen=True, slots=True)
class Exported:
    """A file for whoever asked. `notes` are what they should know of it, a sentence each."""

    name: str
    media_type: str
    content: bytes
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Material:
    """An artifact with what it needs: `path` is its own name, `files` are its and its siblings' contents by name.

    `sheets` are style sheets among the files that nothing imports and that belong to it.
    """

    path: str
    kind: str
    title: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    sheets: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """The artifact's own content."""
        return self.files[self.path]

    def language(self, path: str) -> str:
        """The kind of one of the files."""
        return self.kind if path == self.path else kind_of(path)

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of each of the files."""
        return {path: self.language(path) for path in self.files}

    @property
    def stem(self) -> str:
        """Its file's name without folders and suffix."""
        return self.path.rpartition("/")[2].partition(".")[0]


def reached(address: str, importer: str) -> str:
    """The path that a relative address in the file `importer` leads to; empty where it leads out of its folder.

    `@/` is the folder `src`, as projects of many templates have it.
    """
    path = re.sub(r"\A@/", "/src/", re.split(r"[?#]", address, maxsplit=1)[0])
    parts = [] if path.startswith("/") else importer.split("/")[:-1]
    for part in path.split("/"):
        if part == ".." and not parts:
            return ""
        if part == "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)
