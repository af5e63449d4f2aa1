"""Records on disk: a manifest for a revision, a record for a name that stands for it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

import orjson

from corral.catalog import history
from corral.domain.models import Capability, FileEntry, Revision
from corral.errors import StoreError
from corral.kit.disk import sync_folder, translate, translated, write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from corral.catalog.history import Record

_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")
_LONGEST: Final = 200
_FORMAT: Final = 1
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_FIELDS: Final = tuple(item.name for item in fields(Revision))
CAPABILITIES: Final = {item.value: item for item in Capability}


def encode(name: str) -> str:
    """`name` as the stem of a file: readable, distinct also where upper and lower case are not, never too long."""
    if len(name) <= _LONGEST:
        text = "".join(char if char in _PLAIN else f"%{ord(char):02X}" for char in name)
        if len(text) <= _LONGEST:
            return text
    else:
        text = re.sub(r"[^a-z0-9\-_.]", "%", name[:100])
    return f"{text[:100]}~{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()}"


def decode(stem: str) -> str:
    """The name that `encode` wrote as `stem`; the stem itself where the name was too long to be kept in it."""
    return stem if "~" in stem else re.sub(r"%([0-9A-F]{2})", lambda match: chr(int(match[1], 16)), stem)


class Recorded(Revision):
    """A revision as a record tells it: its id was worked out when it was written, and held against its content."""

    __slots__ = ("_known",)
    _known: str

    @classmethod
    def built(cls, known: str, *values: Any) -> Recorded:
        """The revision with those fields, whose id is `known`."""
        recorded = cls(*values)
        object.__setattr__(recorded, "_known", known)
        return recorded

    @classmethod
    def under(cls, known: str, revision: Revision, **changes: Any) -> Recorded:
        """`revision`, whose id is `known`, with changes to what the id does not depend on."""
        return cls.built(known, *(changes.get(name, getattr(revision, name)) for name in _FIELDS))

    @property
    def id(self) -> str:
        """As `Revision.id`."""
        # One that `dataclasses.replace` made may consist of something else.
        return getattr(self, "_known", None) or Revision(*(getattr(self, name) for name in _FIELDS)).id

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Revision):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in _FIELDS)

    __hash__ = None  # type: ignore[assignment]  # as unhashable as any revision, whose facts are a mapping


class Facts(Mapping[str, Any]):
    """A mapping of which the long texts are read only when they are asked for."""

    __slots__ = ("_left", "_load", "_short")

    def __init__(self, short: Mapping[str, Any], left: frozenset[str], load: Callable[[], Mapping[str, Any]]) -> None:
        self._short = short
        self._left = left
        self._load = load

    def __getitem__(self, key: str) -> Any:
        return self._load()[key] if key in self._left else self._short[key]

    def __iter__(self) -> Iterator[str]:
        yield from self._short
        yield from self._left

    def __len__(self) -> int:
        return len(self._short) + len(self._left)

    def __contains__(self, key: object) -> bool:
        return key in self._short or key in self._left

    def __repr__(self) -> str:
        return repr({**self._short, **dict.fromkeys(self._left, "…")})

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return dict(self)

    def but(self, changes: Mapping[str, Any]) -> Facts:
        """The same with `changes`, and nothing read for it."""
        return Facts({**self._short, **changes}, self._left - changes.keys(), self._load)


def dump(revision: Revision) -> bytes:
    """The manifest of a revision."""
    return orjson.dumps(
        {
            "corral": _FORMAT,
            "id": revision.id,
            "source": revision.source,
            "format": revision.format,
            "version": revision.version,
            "licence": revision.licence,
            "files": [
                {"name": file.name, "size": file.size, "sha256": file.sha256, "role": file.role}
                for file in revision.files
            ],
            "capabilities": sorted(revision.capabilities),
            "facts": dict(revision.facts),
            "defaults": dict(revision.defaults),
        },
        option=orjson.OPT_INDENT_2,
    )


def load(data: bytes, where: Path) -> Recorded:
    """The revision that the manifest `data`, found at `where`, describes.

    Raises:
        StoreError: it is damaged, or names a file that would leave the store.
    """
    try:
        record: dict[str, Any] = orjson.loads(data)
        revision = Revision(
            source=str(record["source"]),
            format=str(record["format"]),
            files=tuple(_file(item) for item in record["files"]),
            version=str(record["version"]),
            licence=record["licence"],
            # One that a newer Corral wrote is passed over.
            capabilities=frozenset(CAPABILITIES[item] for item in record["capabilities"] if item in CAPABILITIES),
            facts=dict(record["facts"]),
            defaults=dict(record["defaults"]),
        )
        known = revision.id
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(where) from error
    if known != record.get("id") or known != where.stem:
        raise _damaged(where)
    return Recorded.under(known, revision)


def _file(item: Mapping[str, Any]) -> FileEntry:
    name, sha256 = str(item["name"]), str(item["sha256"])
    if "\0" in name or not _HEX.fullmatch(sha256) or any(part in {"", ".", ".."} for part in name.split("/")):
        raise ValueError("no name or digest of a file")
    return FileEntry(name, int(item["size"]), sha256, str(item["role"]))


class Manifests:
    """The records under `root`. Writing and removing are for the holder of the store's lock. Blocks."""

    def __init__(self, root: Path) -> None:
        self.manifests = root / "manifests"
        self.names = root / "names"

    def record(self, stem: str) -> Record:
        """What the record `stem` of `names/` says.

        Raises:
            FileNotFoundError: there is none.
            StoreError: it is damaged.
        """
        path = self.names / f"{stem}.json"
        try:
            record = history.parse(_bytes(path))
        except (ValueError, KeyError, TypeError, StopIteration) as error:
            raise _damaged(path) from error
        if stem != encode(record.name):
            raise _damaged(path)
        return record

    def revision(self, known: str) -> Recorded:
        """The revision with that id.

        Raises:
            StoreError: its manifest is damaged, or gone.
        """
        path = self.path(known)
        try:
            return load(_bytes(path), path)
        except FileNotFoundError as error:
            raise _damaged(path) from error

    def path(self, known: str) -> Path:
        """Where the manifest of the revision with that id lies or would lie."""
        return self.manifests / f"{known}.json"

    def write(self, record: Record, revision: Revision | None = None) -> None:
        """Record the revision, where one is given, then let the name stand for what the record says."""
        if revision is not None:
            path = self.path(revision.id)
            with translated("writing", path):
                write_whole(path, dump(revision))
        path = self.names / f"{encode(record.name)}.json"
        with translated("writing", path):
            write_whole(path, history.dump(record))

    def forget(self, name: str) -> None:
        """Let `name` stand for nothing. What its record said is kept aside until the removal is `done`."""
        path = self.names / f"{encode(name)}.json"
        with translated("removing", path), suppress(FileNotFoundError):
            path.replace(self._aside(name))
            sync_folder(self.names)

    def going(self, name: str) -> bool:
        """Whether a removal of `name` was begun and is not done."""
        return self._aside(name).exists()

    def went(self, name: str) -> Record | None:
        """What the record said of a `name` that is `going`; None when that cannot be read."""
        with suppress(OSError, ValueError, KeyError, TypeError, StopIteration):
            return history.parse(self._aside(name).read_bytes())
        return None

    def done(self, name: str) -> None:
        """Note that of the removed `name` nothing is left."""
        path = self._aside(name)
        with translated("removing", path):
            path.unlink(missing_ok=True)

    def drop(self, ids: set[str]) -> None:
        """Remove the manifests of those revisions, where they are there."""
        for known in ids:
            path = self.path(known)
            with translated("removing", path):
                path.unlink(missing_ok=True)

    def all(self) -> set[str]:
        """The stems of all manifests."""
        try:
            return {path.stem for path in self.manifests.iterdir() if path.suffix == ".json"}
        except (FileNotFoundError, NotADirectoryError):
            return set()
        except OSError as error:
            raise translate(error, "reading", self.manifests) from error

    def _aside(self, name: str) -> Path:
        return self.names / f"{encode(name)}.gone"


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise translate(error, "reading", path) from error


def _damaged(path: Path) -> StoreError:
    return StoreError(f"The store's record {path} is damaged.", "Remove the model and pull it again: corral rm NAME")
