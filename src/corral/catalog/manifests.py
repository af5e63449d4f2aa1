"""What is installed, as records on disk: a manifest for a revision, a name that stands for it."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, Final

import orjson

from corral.domain.models import Capability, FileEntry, Installed, Revision
from corral.errors import StoreError
from corral.kit.disk import sync_folder, translate, translated, write_whole

if TYPE_CHECKING:
    from pathlib import Path

_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")
_LONGEST: Final = 200
_FORMAT: Final = 1


def encode(name: str) -> str:
    """`name` as the stem of a file: readable, distinct also where upper and lower case are not, never too long."""
    text = "".join(char if char in _PLAIN else f"%{ord(char):02X}" for char in name)
    if len(text) <= _LONGEST:
        return text
    return f"{text[:100]}~{hashlib.sha256(name.encode()).hexdigest()}"


def decode(stem: str) -> str:
    """The name that `encode` wrote as `stem`; the stem itself where the name was too long to be kept in it."""
    return stem if "~" in stem else re.sub(r"%([0-9A-F]{2})", lambda match: chr(int(match[1], 16)), stem)


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


def load(data: bytes, where: Path) -> Revision:
    """The revision that the manifest `data`, found at `where`, describes.

    Raises:
        StoreError: it is damaged.
    """
    try:
        record: dict[str, Any] = orjson.loads(data)
        known = {item.value for item in Capability}
        revision = Revision(
            source=str(record["source"]),
            format=str(record["format"]),
            files=tuple(
                FileEntry(str(item["name"]), int(item["size"]), str(item["sha256"]), str(item["role"]))
                for item in record["files"]
            ),
            version=str(record["version"]),
            licence=record["licence"],
            # One that a newer Corral wrote is passed over.
            capabilities=frozenset(Capability(item) for item in record["capabilities"] if item in known),
            facts=dict(record["facts"]),
            defaults=dict(record["defaults"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(where) from error
    if revision.id != record.get("id"):
        raise _damaged(where)
    return revision


class Manifests:
    """The records under `root`. Writing and removing are for the holder of the store's lock. Blocks."""

    def __init__(self, root: Path) -> None:
        self._manifests = root / "manifests"
        self.names = root / "names"

    def changed_at(self) -> int | None:
        """When a name was last written or removed, in nanoseconds as the file system tells; None when there is none."""
        try:
            return self.names.stat().st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise translate(error, "reading", self.names) from error

    def read(self) -> tuple[dict[str, Installed], dict[str, StoreError]]:
        """Everything installed by name, and what is wrong with the records that cannot be read, by name."""
        found: dict[str, Installed] = {}
        broken: dict[str, StoreError] = {}
        with translated("reading", self.names):
            paths = sorted(self.names.glob("*.json")) if self.names.is_dir() else []
        for path in paths:
            try:
                installed = self._read_name(path)
            except StoreError as error:
                broken[path.stem] = error
            except FileNotFoundError:
                continue  # removed while we looked
            else:
                found[installed.name] = installed
        return found, broken

    def write(self, installed: Installed) -> None:
        """Record the revision, then let its name stand for it."""
        revision = installed.revision
        record = {
            "corral": _FORMAT,
            "name": installed.name,
            "revision": revision.id,
            "installed_at": installed.installed_at,
        }
        path = self._manifests / f"{revision.id}.json"
        with translated("writing", path):
            write_whole(path, dump(revision))
        path = self._name_path(installed.name)
        with translated("writing", path):
            write_whole(path, orjson.dumps(record))

    def forget(self, name: str) -> None:
        """Let `name` stand for nothing."""
        path = self._name_path(name)
        with translated("removing", path):
            path.unlink(missing_ok=True)
            sync_folder(self.names)

    def sweep(self) -> set[str] | None:
        """Remove the manifests that no name stands for; the digests of all blobs that the others need.

        None, and nothing is removed, when a record is damaged: what it needs cannot be known.
        """
        found, broken = self.read()
        if broken:
            return None
        live = {installed.revision.id for installed in found.values()}
        if self._manifests.is_dir():
            with translated("removing from", self._manifests):
                for path in list(self._manifests.glob("*.json")):
                    if path.stem not in live:
                        path.unlink()
        return {file.sha256 for installed in found.values() for file in installed.revision.files}

    def _name_path(self, name: str) -> Path:
        return self.names / f"{encode(name)}.json"

    def _read_name(self, path: Path) -> Installed:
        try:
            record = orjson.loads(_bytes(path))
            name, revision = str(record["name"]), str(record["revision"])
            installed_at = float(record["installed_at"])
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(path) from error
        if path.stem != encode(name) or not revision.isalnum():
            raise _damaged(path)
        manifest = self._manifests / f"{revision}.json"
        try:
            return Installed(name, load(_bytes(manifest), manifest), installed_at)
        except FileNotFoundError as error:
            if not path.exists():
                raise
            raise _damaged(manifest) from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise translate(error, "reading", path) from error


def _damaged(path: Path) -> StoreError:
    return StoreError(f"The store's record {path} is damaged.", "Remove the model and pull it again: corral rm NAME")
