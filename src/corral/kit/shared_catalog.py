"""A shared catalog in a bucket: where its records lie, and what is in them.

    PATH/blobs/sha256/HEX                a file of a revision, by its digest
    PATH/manifests/REVISION.json         what a revision consists of, and what it can do
    PATH/names/NAME.json                 the revision that a name stands for

Laid out as a store is, and written in this order, so that what is named is whole. Nothing read from it is believed
beyond what its identifier, a digest over what a revision consists of, vouches for.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, Final

import orjson

from corral.domain.models import Capability, FileEntry, Revision, check_name
from corral.errors import CorruptModel, InvalidName, SourceNotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.kit.objects import Objects, Spot

_FORMAT: Final = 1
_MOST_RECORD = 16 << 20
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def blob(base: Spot, digest: str) -> Spot:
    """Where the file with that SHA-256 lies."""
    return base / f"blobs/sha256/{digest}"


def names(base: Spot) -> Spot:
    """Below it lie the names."""
    return base / "names"


async def add(objects: Objects, base: Spot, name: str, revision: Revision, now: float) -> None:
    """Let `name` stand for the revision, whose files are there. `now` is Unix seconds."""
    await objects.write(base / f"manifests/{revision.id}.json", _dump(revision))
    record = {"corral": _FORMAT, "name": name, "revision": revision.id, "pushed_at": now}
    await objects.write(_place(base, name), orjson.dumps(record))


async def current(objects: Objects, base: Spot, name: str) -> str:
    """The identifier of the revision that `name` stands for.

    Raises:
        SourceNotFound: there is no such name.
        CorruptModel: its record is damaged.
    """
    try:
        return (await named(objects, _place(base, name)))[1]
    except SourceNotFound as error:
        raise SourceNotFound(
            f"{base} has no model called {name}.", f"See what it has: corral search --source bucket {base}"
        ) from error


async def named(objects: Objects, spot: Spot) -> tuple[str, str, float | None]:
    """Name, revision and time (Unix seconds) of the name's record at `spot`.

    Raises:
        SourceNotFound: nothing lies there.
        CorruptModel: it is damaged.
    """
    data = await objects.read(spot, _MOST_RECORD)
    try:
        record = orjson.loads(data)
        name, revision, pushed_at = check_name(str(record["name"])), str(record["revision"]), record.get("pushed_at")
    except (ValueError, KeyError, TypeError, AttributeError, InvalidName) as error:
        raise _damaged(spot) from error
    if spot.key.rpartition("/")[2] != f"{_encode(name)}.json" or not _DIGEST.fullmatch(revision):
        raise _damaged(spot)
    return name, revision, float(pushed_at) if isinstance(pushed_at, int | float) else None


async def whole(objects: Objects, base: Spot, beginning: str) -> str:
    """The identifier of the one revision that begins so.

    Raises:
        SourceNotFound: there is none, or several.
    """
    if len(beginning) == 64:
        return beginning
    there = [item.spot.key.rpartition("/")[2].removesuffix(".json") for item in await objects.under(base / "manifests")]
    found = [name for name in there if name.startswith(beginning)]
    if len(found) != 1:
        what = "no revision" if not found else f"{len(found)} revisions"
        raise SourceNotFound(f"{base} has {what} that begin with {beginning}.", "Give more of the identifier.")
    return found[0]


async def manifest(objects: Objects, base: Spot, revision_id: str) -> Revision:
    """The revision, when its record is what its identifier says.

    Raises:
        SourceNotFound: there is no such revision.
        CorruptModel: its record is damaged.
    """
    spot = base / f"manifests/{revision_id}.json"
    data = await objects.read(spot, _MOST_RECORD)
    try:
        record: dict[str, Any] = orjson.loads(data)
        known = {item.value for item in Capability}
        revision = Revision(
            source=str(record["source"]),
            format=str(record["format"]),
            files=tuple(_entry(item) for item in record["files"]),
            version=str(record["version"]),
            licence=None if record["licence"] is None else str(record["licence"]),
            capabilities=frozenset(Capability(item) for item in record["capabilities"] if item in known),
            facts=dict(record["facts"]),
            defaults=dict(record["defaults"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(spot) from error
    if revision.id != revision_id:
        raise _damaged(spot)
    return revision


def _entry(item: Mapping[str, Any]) -> FileEntry:
    entry = FileEntry(str(item["name"]), int(item["size"]), str(item["sha256"]), str(item["role"]))
    if entry.size < 0 or not _DIGEST.fullmatch(entry.sha256):
        raise ValueError
    return entry


def _dump(revision: Revision) -> bytes:
    return orjson.dumps(
        {
            "corral": _FORMAT,
            "id": revision.id,
            "source": revision.source,
            "format": revision.format,
            "version": revision.version,
            "licence": revision.licence,
            "files": [{"name": f.name, "size": f.size, "sha256": f.sha256, "role": f.role} for f in revision.files],
            "capabilities": sorted(revision.capabilities),
            "facts": dict(revision.facts),
            "defaults": dict(revision.defaults),
        },
        option=orjson.OPT_INDENT_2,
    )


def _encode(name: str) -> str:
    """`name` as the last piece of a key, as the store's own records are called."""
    text = "".join(char if char in _PLAIN else f"%{ord(char):02X}" for char in name)
    return text if len(text) <= 200 else f"{text[:100]}~{hashlib.sha256(name.encode()).hexdigest()}"


def _place(base: Spot, name: str) -> Spot:
    return names(base) / f"{_encode(name)}.json"


def _damaged(spot: Spot) -> CorruptModel:
    return CorruptModel(f"The record {spot} is damaged.", "Push the model again: corral push NAME ADDRESS")
