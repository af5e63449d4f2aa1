"""The library: short names for models, each pinned to a source and to the digests of its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corral.domain.models import FileEntry, ModelRef, RemoteFile, RemotePart
from corral.errors import DigestMismatch, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class PinnedPart:
    """An archive or piece as the library knows it: `size` in bytes and `sha256` in hex."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """A file as the library knows it, and what is downloaded for it."""

    entry: FileEntry
    parts: tuple[PinnedPart, ...] = ()

    @property
    def offered(self) -> RemoteFile:
        """The file as a source that is held to the pins would offer it."""
        parts = tuple(RemotePart("", part.size, part.sha256) for part in self.parts)
        return RemoteFile(self.entry.name, parts, self.entry.size, self.entry.sha256)

    def pin(self, offered: RemoteFile) -> RemoteFile:
        """What the source offers, held to what is pinned here.

        Raises:
            DigestMismatch: the source offers something else, and says so.
        """
        entry = self.entry
        if len(self.parts) not in {0, len(offered.parts)}:
            raise SourceError(f"{entry.name} came in {len(self.parts)} parts and is offered in {len(offered.parts)}.")
        pairs = [
            (offered.sha256, entry.sha256),
            (offered.size, entry.size),
            *((part.sha256, pinned.sha256) for part, pinned in zip(offered.parts, self.parts, strict=False)),
        ]
        for theirs, ours in pairs:
            if theirs is not None and theirs != ours:
                raise DigestMismatch(
                    f"The source offers another {entry.name} than the library pins: {theirs} instead of {ours}.",
                    "Check which package index this machine asks: pip config list",
                )
        parts = offered.parts
        if self.parts:
            both = zip(parts, self.parts, strict=True)
            parts = tuple(replace(part, size=pinned.size, sha256=pinned.sha256) for part, pinned in both)
        return replace(offered, name=entry.name, parts=parts, size=entry.size, sha256=entry.sha256)


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of the library. `defaults` are launch options, with templates read in."""

    name: str
    description: str
    ref: ModelRef
    version: str
    licence: str
    files: tuple[PinnedFile, ...]
    aliases: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all files, once installed."""
        return sum(file.entry.size for file in self.files)


class Library:
    """Models by short name or alias."""

    def __init__(self, entries: tuple[Entry, ...]) -> None:
        self._entries = entries
        self._by_name = {name: entry for entry in entries for name in (entry.name, *entry.aliases)}

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def names(self) -> list[str]:
        """All short names and aliases."""
        return list(self._by_name)

    def find(self, name: str) -> Entry | None:
        """The model called `name`, ignoring case; None when the library has none."""
        return self._by_name.get(name) or self._by_name.get(name.lower())


@cache
def shipped() -> Library:
    """The library that comes with Corral. Read once; later calls are free."""
    import yaml

    records: dict[str, Any] = yaml.safe_load((_FOLDER / "library.yaml").read_text(encoding="utf-8"))
    return Library(tuple(_entry(name, record) for name, record in records.items()))


def _entry(name: str, record: Mapping[str, Any]) -> Entry:
    return Entry(
        name=name,
        description=record["description"],
        ref=ModelRef.parse(record["ref"]),
        version=str(record["version"]),
        licence=record["licence"],
        files=tuple(
            PinnedFile(
                FileEntry(item["name"], item["size"], item["sha256"], item.get("role", "model")),
                tuple(PinnedPart(**part) for part in item.get("parts", ())),
            )
            for item in record["files"]
        ),
        aliases=tuple(record.get("aliases", ())),
        defaults={key: _default(key, value) for key, value in record.get("defaults", {}).items()},
    )


def _default(key: str, value: Any) -> Any:
    if key == "chat_template" and str(value).endswith(".jinja"):
        return (_FOLDER / "templates" / value).read_text(encoding="utf-8")
    return value
