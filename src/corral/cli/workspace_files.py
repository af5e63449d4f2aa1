"""Files that commands of the workspace read and write: never over another, never half."""

from __future__ import annotations

import os
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from corral.domain.workspace import check_path
from corral.errors import Conflict, InvalidRequest, NoPermission

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator

STDIN = "-"


def given_file(file: Path) -> Path:
    """The whole path of a file that is there.

    Raises:
        InvalidRequest: it is not, or is no file.
    """
    place = file.expanduser().absolute()
    if not place.is_file():
        raise InvalidRequest(f"There is no file {file}.", "Name one that is there.")
    return place


def content_of(file: str) -> bytes:
    """The bytes of a file, or of standard input for `-`.

    Raises:
        InvalidRequest: there is no such file, or it cannot be read.
    """
    if file == STDIN:
        return sys.stdin.buffer.read()
    try:
        return given_file(Path(file)).read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be read: {error.strerror}.") from error


def text_of(file: str) -> str:
    """As `content_of`, as text.

    Raises:
        InvalidRequest: it is not text in UTF-8.
    """
    try:
        return content_of(file).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{file} is not text in UTF-8.") from error


async def written(file: Path, pieces: AsyncIterable[bytes], *, force: bool = False) -> tuple[Path, int]:
    """Write `pieces` to `file`, beside it at first; its whole path, and how many bytes that were.

    Raises:
        Conflict: there is such a file, and `force` is not given.
        NoPermission: it cannot be written.
    """
    place = _place(file)
    beside = place.with_name(f".{place.name}.{os.getpid()}.part")
    size = 0
    try:
        _free(place, file, force=force)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("xb") as out:
                async for piece in pieces:
                    size += out.write(piece)
                out.flush()
                os.fsync(out.fileno())
            _free(place, file, force=force)
            beside.replace(place)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise NoPermission(f"{file} cannot be written: {error.strerror}.", "Choose another place.") from error
    return place, size


async def whole(content: bytes) -> AsyncIterator[bytes]:
    """`content` as the only piece."""
    yield content


def _place(file: Path) -> Path:
    return file.expanduser().absolute()


def below(folder: Path, name: str) -> Path:
    """Where a file of that name stands below `folder`: never outside of it.

    Raises:
        InvalidName: the name would lead elsewhere.
    """
    return folder / PurePosixPath(check_path(name))


def _free(place: Path, file: Path, *, force: bool) -> None:
    if place.is_dir():
        raise Conflict(f"{file} is a folder.", "Name a file with -o.")
    if place.exists() and not force:
        raise Conflict(f"There is a file {file}.", "Choose another place, or replace it: --force")
