"""A shared catalog in a bucket: where its records lie, and what is in them.

    PATH/blobs/sha256/HEX                a file of a revision, by its digest
    PATH/manifests/REVISION.json         what a revision consists of, and what it can do
    PATH/names/NAME.json                 the revision that a name stands for

Laid out as a store is, and written in this order, so that what is named is whole. A record must be what its identifier,
a digest over what a revision consists of, says. That makes it the one that was pushed, and whoever may push is not
believed either: of launch options and facts only those are taken that a stranger may give.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import orjson

from corral.domain.models import Capability, FileEntry, Revision, check_name
from corral.errors import CorruptModel, InvalidName, NotSupported, SourceNotFound
from corral.kit import advice
from corral.kit.disk import in_thread

if TYPE_CHECKING:
    from corral.kit.objects import Objects, Spot

_FORMAT: Final = 1
_MOST_RECORD = 1 << 20
_MOST_VALUES = 50_000
_MOST_FILES = 2000
_LONGEST = 1000
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def blob(base: Spot, digest: str) -> Spot:
    """Where the file with that SHA-256 lies."""
    return base / f"blobs/sha256/{digest}"


def names(base: Spot) -> Spot:
    """Below it lie the names."""
    return base / "names"


def check(name: str, revision: Revision) -> None:
    """Let a revision pass whose record will be read again. Blocks a little.

    Raises:
        NotSupported: it has more files, or is said more of, than anybody believes.
    """
    data = _dump(revision)
    try:
        if len(data) <= _MOST_RECORD and _load(data).id == revision.id:
            return
    except ValueError:
        pass
    raise NotSupported(
        f"{name} cannot be shared: what it consists of is too much for a record.",
        f"There may be {_MOST_FILES} files, and {_MOST_RECORD >> 20} MiB about them.",
    )


async def add(objects: Objects, base: Spot, name: str, revision: Revision, now: float) -> None:
    """Let `name` stand for the revision, whose files are there and which was checked. `now` is Unix seconds."""
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
        record = advice.bounded(data, _MOST_VALUES)
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


@dataclass(frozen=True, slots=True)
class Shared:
    """A revision as a shared catalog has it, sifted; `id` is what it is called there.

    `ignored` names the launch options that came with it and were not taken, with the reasons.
    """

    id: str
    revision: Revision
    ignored: Mapping[str, str]


async def manifest(objects: Objects, base: Spot, revision_id: str) -> Shared:
    """The revision, when its record is what its identifier says.

    Raises:
        SourceNotFound: there is no such revision.
        CorruptModel: its record is damaged, or no revision has such a one.
        SourceError: it is too large.
    """
    spot = base / f"manifests/{revision_id}.json"
    data = await objects.read(spot, _MOST_RECORD)
    try:
        revision = await in_thread(_load, data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(spot) from error
    if revision.id != revision_id:
        raise _damaged(spot)
    defaults, ignored = advice.sifted(revision.defaults)
    return Shared(revision_id, replace(revision, defaults=defaults, facts=advice.plain(revision.facts)), ignored)


def _load(data: bytes) -> Revision:
    """The revision that the record says, with options and facts as they are there. Blocks a little.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it says none.
    """
    record: dict[str, Any] = advice.bounded(data, _MOST_VALUES)
    known = {item.value for item in Capability}
    files = tuple(_entry(item) for item in record["files"])
    if len(files) > _MOST_FILES:
        raise ValueError
    return Revision(
        source=_short(record["source"]),
        format=_short(record["format"]),
        files=files,
        version=_short(record["version"]),
        licence=None if record["licence"] is None else _short(record["licence"]),
        capabilities=frozenset(Capability(item) for item in record["capabilities"] if item in known),
        facts=dict(record["facts"]),
        defaults=dict(record["defaults"]),
    )


def _short(text: object) -> str:
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise ValueError
    return text


def _entry(item: Mapping[str, Any]) -> FileEntry:
    entry = FileEntry(_short(item["name"]), int(item["size"]), str(item["sha256"]), _short(item["role"]))
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
            "facts": advice.plain(revision.facts),
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
