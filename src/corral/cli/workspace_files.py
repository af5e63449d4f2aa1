"""Files that commands of the workspace read and write: never over another, never half."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from corral.domain.workspace import check_path
from corral.errors import Conflict, DiskFull, InvalidRequest, NoPermission
from corral.kit.disk import in_thread, pour, translate

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterator

STDIN = "-"
_PIECE = 256 * 1024


def given_file(file: Path) -> Path:
    """The whole path of a file that is there.

    Raises:
        InvalidRequest: it is not, or is no file.
    """
    place = file.expanduser().absolute()
    if not place.is_file():
        raise InvalidRequest(f"There is no file {file}.", f"It was looked for at {place}.")
    return place


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of a file that is given, or of standard input: read while they are sent. See `content_of`."""

    name: str
    size: int
    _file: IO[bytes]

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of them, from the first on.

        Raises:
            InvalidRequest: they cannot be read.
        """
        with _reading(self.name):
            await in_thread(self._file.seek, 0)
            while piece := await in_thread(self._file.read, _PIECE):
                yield piece

    def read(self) -> bytes:
        """All of them at once.

        Raises:
            InvalidRequest: they cannot be read.
        """
        with _reading(self.name):
            self._file.seek(0)
            return self._file.read()


@contextmanager
def content_of(file: str) -> Iterator[Content]:
    """What is in a file, or comes from standard input for `-`, which is put on disk meanwhile.

    Raises:
        InvalidRequest: there is no such file, or it cannot be read.
    """
    place = None if file == STDIN else given_file(Path(file))
    with ExitStack() as stack:
        with _reading(file):
            if place is None:
                opened: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(sys.stdin.buffer, opened)
            else:
                opened = stack.enter_context(place.open("rb"))
            size = opened.seek(0, os.SEEK_END)
        yield Content(file, size, opened)


@contextmanager
def _reading(file: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be read: {error.strerror}.") from error


def text_of(file: str) -> str:
    """What is in a file, or comes from standard input for `-`, as text.

    Raises:
        InvalidRequest: there is no such file, it cannot be read, or is not text in UTF-8.
    """
    with content_of(file) as content:
        try:
            return content.read().decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"{file} is not text in UTF-8.") from error


async def written(file: Path, pieces: AsyncIterable[bytes], *, force: bool = False) -> tuple[Path, int]:
    """Write `pieces` to `file` as they come, beside it at first; its whole path, and how many bytes that were.

    Raises:
        Conflict: there is such a file, and `force` is not given.
        NoPermission, DiskFull: it cannot be written.
    """
    place = _place(file)
    try:
        _free(place, file, force=force)
        return place, await pour(place, pieces, lambda: _free(place, file, force=force))
    except OSError as error:
        if isinstance(full := translate(error, "writing", place), DiskFull):
            raise full from error
        raise NoPermission(f"{file} cannot be written: {error.strerror}.", "Choose another place.") from error


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
