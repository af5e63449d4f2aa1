"""Models that already lie on this machine.

file:./model.gguf   file:/models/model.gguf   file:~/model.gguf     one file
file:./folder                                                        a snapshot, or all pieces of a split GGUF
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from corral.domain.models import Listing, ModelRef, RemoteFile, RemotePart
from corral.errors import NotSupported, SourceError, SourceNotFound
from corral.kit.disk import in_thread
from corral.kit.web import local_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from corral.domain.ports import Hit, PartFile, Query, Report

_MAGIC = b"GGUF"
_ONE = (".gguf", ".safetensors")
_MOST_FILES: Final = 2000
_DEEPEST: Final = 3


class File:
    """Takes a model's bytes into the store: shared copy-on-write where the disk can, copied where it cannot.

    Never a hard link: the original stays the user's, who may edit it in place, while what is installed must not change.
    """

    scheme = "file"

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    async def resolve(self, ref: ModelRef) -> Listing:
        """The file itself, or the files of the folder but for hidden ones.

        The version is made of time stamps, so that what was edited is taken again.

        Raises:
            SourceNotFound: there is no such file or folder.
            SourceError: it cannot be read, is no GGUF file, or has no model in it.
        """
        path = self._path(ref.locator)
        files, version = await in_thread(_list, path)
        return Listing(ModelRef(self.scheme, str(path)), files, version=version)

    async def fetch(self, file: RemoteFile, into: PartFile, report: Report) -> None:
        """Take the bytes as they are now.

        Raises:
            SourceError: the file changed while it was read; nothing is kept.
        """
        path = local_path(file.parts[0].url)
        if path is None or len(file.parts) != 1:
            raise SourceError(f"{file.name} is no local file.")
        before = await in_thread(_examine, path)
        try:
            await into.clone(path, report)
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror}.", "Check the file.") from error
        if await in_thread(_examine, path) != before or into.size != before[0]:
            await into.restart()
            raise SourceError(f"{path} was changed while it was read.", "Try again when nobody writes to it.")

    async def search(self, query: Query) -> Sequence[Hit]:
        """Refused: a disk is searched with other tools."""
        raise NotSupported(f"Local files cannot be searched for {query.text!r}.", "Name the file: file:./model.gguf")

    def _path(self, locator: str) -> Path:
        text = unquote(locator.removeprefix("//localhost").removeprefix("//")) if locator.startswith("//") else locator
        if text == "~" or text.startswith("~/"):
            text = f"{self._env.get('HOME') or Path.home()}{text[1:]}"
        with suppress(OSError, ValueError):
            return Path(text).resolve()
        raise SourceNotFound(f"{text[:200]!r} is not a path.", "Name a file: file:./model.gguf")


def _list(path: Path) -> tuple[tuple[RemoteFile, ...], str]:
    """The files that `path` stands for, and their version."""
    if path.is_dir():
        return _list_folder(path)
    size, changed = _examine(path)
    with path.open("rb") as stream:
        if stream.read(len(_MAGIC)) != _MAGIC:
            raise SourceError(f"{path} is not a GGUF file.", "Only GGUF files and folders with a model are installed.")
    return (_offer(path, path.name, size),), changed


def _list_folder(folder: Path) -> tuple[tuple[RemoteFile, ...], str]:
    files: list[RemoteFile] = []
    stamps: list[tuple[str, int, str]] = []
    for path in _walk(folder, _DEEPEST):
        name = path.relative_to(folder).as_posix()
        size, changed = _examine(path)
        files.append(_offer(path, name, size))
        stamps.append((name, size, changed))
        if len(files) > _MOST_FILES:
            raise SourceError(f"{folder} has more than {_MOST_FILES} files.", "Name the folder of one model.")
    if not any(file.name.lower().endswith(_ONE) for file in files):
        raise SourceError(
            f"{folder} is a folder without a model in it.", "Name a .gguf file, or a folder with .safetensors files."
        )
    version = hashlib.sha256(json.dumps(stamps).encode()).hexdigest()[:16]
    return tuple(files), version


def _walk(folder: Path, deeper: int) -> Iterator[Path]:
    """The files below `folder`, links to files among them, by name."""
    try:
        with os.scandir(folder) as listed:
            entries = sorted((entry for entry in listed if not entry.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise SourceError(f"{folder} cannot be read: {error.strerror}.", "Check its owner and mode.") from error
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), deeper - 1) if deeper else ()
        elif entry.is_file():
            yield Path(entry.path)


def _offer(path: Path, name: str, size: int) -> RemoteFile:
    return RemoteFile(name, (RemotePart(path.as_uri(), size=size, length=size),), size=size)


def _examine(path: Path) -> tuple[int, str]:
    """Size in bytes and time stamp of a file.

    Raises:
        SourceNotFound: there is no such file.
        SourceError: it cannot be read.
    """
    try:
        if not path.exists():
            raise SourceNotFound(f"{path} does not exist.", "Check the path.")
        if not path.is_file():
            raise SourceError(f"{path} is a pipe or device, not a file.", "Name a .gguf file.")
        with path.open("rb"):
            facts = path.stat()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.", "Check the file's owner and mode.") from error
    return facts.st_size, _moment(facts.st_mtime_ns)


def _moment(stamp: int) -> str:
    """A time stamp in nanoseconds as people write it; as it is where no calendar has it."""
    seconds, rest = divmod(stamp, 1_000_000_000)
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09}Z"
    except (ValueError, OverflowError, OSError):
        return f"{stamp} ns"


plugin = File
