"""Zip archives, near and far: a listing from a few ranges at the end, a member inflated into a part."""

from __future__ import annotations

import io
import re
import tempfile
import zipfile
import zlib
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from corral.domain.ports import Progress
from corral.domain.sizes import human
from corral.errors import DigestMismatch, SourceError
from corral.kit.disk import in_thread
from corral.kit.fetch import TooLong, fetch
from corral.kit.part import Part
from corral.kit.web import Transient, judge, local_path, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from aiohttp import ClientResponse

    from corral.domain.models import RemotePart
    from corral.domain.ports import PartFile, Report
    from corral.kit.web import Web

T = TypeVar("T")

_FIRST_RUN = 64 << 10
_MOST_DIRECTORY = 2 << 20
"""Bytes: over 10,000 members with long names. What `zipfile` makes of it takes some 30 MB and a quarter of a second."""

_MOST_FETCHED = 2 * _MOST_DIRECTORY
_MOST_UNASKED = 32 << 20
"""Bytes of an archive that are fetched to look into it, where a server sends whole files only."""

_USUAL = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""How members may be compressed: of the other ways `zipfile` inflates a run whole, however far that goes."""

_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)$")
_BROKEN = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    NotImplementedError,
    RuntimeError,
    ValueError,
    EOFError,
    OverflowError,
    zlib.error,
)
"""What `zipfile` raises on hostile or damaged archives."""


class _Hole(Exception):
    """The archive was read where nothing is held."""

    def __init__(self, start: int) -> None:
        super().__init__(start)
        self.start = start


class _NoRanges(Exception):
    """The server sends whole files only."""


class _Sparse(io.RawIOBase):
    """A file of which some `runs` of bytes are held, by where they start."""

    def __init__(self, size: int, runs: Mapping[int, bytes]) -> None:
        super().__init__()
        self._size = size
        self._at = 0
        self._runs = runs

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if self._at < 0:
            raise ValueError("before the beginning")
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, into: bytearray | memoryview) -> int:  # type: ignore[override]  # typeshed says WriteableBuffer
        if self._at >= self._size:
            return 0
        for start, data in self._runs.items():
            if start <= self._at < start + len(data):
                piece = data[self._at - start :][: len(into)]
                into[: len(piece)] = piece
                self._at += len(piece)
                return len(piece)
        raise _Hole(self._at)


class _Frugal(io.BufferedReader):
    """Reads no more at once than a directory may have: `zipfile` takes one in a single read, and makes much of it."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MOST_DIRECTORY:
            raise ValueError(f"its directory has over {human(_MOST_DIRECTORY)}")
        return super().read(size)


def small(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> bytes:
    """The member, which may have `most` bytes; empty when it claims more. Blocks."""
    if member.file_size > most or member.compress_type not in _USUAL:
        return b""
    with archive.open(member) as stream:
        return stream.read(most)


async def survey(web: Web, where: RemotePart, look: Callable[[zipfile.ZipFile], T]) -> tuple[T, int]:
    """What `look` finds in the archive at `where.url`, and the archive's size in bytes.

    Only the ranges that `look` reads are fetched; where a server has no ranges, a small archive is fetched whole, into
    a temporary file. `look` is called in a thread, several times, and must not keep the archive.

    Raises:
        SourceError: it cannot be had, is no zip archive, or is too large to look into.
    """
    path = local_path(where.url)
    if path is not None:
        return await in_thread(_look_at, path, look, where.url)
    try:
        return await _survey_by_ranges(web, where.url, look)
    except _NoRanges:
        return await _survey_whole(web, where, look)


async def _survey_whole(web: Web, where: RemotePart, look: Callable[[zipfile.ZipFile], T]) -> tuple[T, int]:
    with tempfile.TemporaryDirectory(prefix="corral-") as folder:
        part = await Part.open(Path(folder) / "archive", web.clock)
        try:
            await fetch(web, where, part, most=_MOST_UNASKED)
        except TooLong as error:
            raise SourceError(
                f"{shown(where.url)} cannot be looked into: its server sends whole files only, and it has over "
                f"{human(_MOST_UNASKED)}.",
                "Download it yourself, and install from there: what is in a .zip by file:PATH, a wheel by pypi:NAME "
                "with PIP_NO_INDEX=1 and PIP_FIND_LINKS=FOLDER.",
            ) from error
        finally:
            part.close()
        return await in_thread(_look_at, part.path, look, where.url)


def _look_at(path: Path, look: Callable[[zipfile.ZipFile], T], url: str) -> tuple[T, int]:
    try:
        with _sound(url), _Frugal(io.FileIO(path)) as stream, zipfile.ZipFile(stream) as archive:
            return look(archive), path.stat().st_size
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error


def _look_into(runs: Mapping[int, bytes], size: int, look: Callable[[zipfile.ZipFile], T], url: str) -> T | _Hole:
    """What `look` finds, or what is missing for it. Blocks."""
    try:
        with _sound(url), zipfile.ZipFile(_Frugal(_Sparse(size, runs))) as archive:
            return look(archive)
    except _Hole as hole:
        return hole


async def _survey_by_ranges(web: Web, url: str, look: Callable[[zipfile.ZipFile], T]) -> tuple[T, int]:
    start, data, size = await _run(web, url, f"-{_FIRST_RUN}")
    runs = {start: data}
    step = _FIRST_RUN
    while True:
        found = await in_thread(_look_into, runs, size, look, url)
        if not isinstance(found, _Hole):
            return found, size
        if sum(map(len, runs.values())) + step > _MOST_FETCHED:
            raise SourceError(
                f"{shown(url)} cannot be looked into: over {human(_MOST_FETCHED)} of it would have to be read.",
                "Download it yourself, and install what is in it by file:PATH.",
            )
        start, data, again = await _run(web, url, f"{found.start}-{min(found.start + step, size) - 1}")
        if start != found.start or again != size:
            raise SourceError(f"{shown(url)} contradicts itself about ranges.")
        runs[start] = data
        step = min(2 * step, _MOST_FETCHED // 4)


async def _run(web: Web, url: str, wanted: str) -> tuple[int, bytes, int]:
    """The run of bytes `wanted`, as start, data and the size of the whole."""
    patience = web.patience()
    headers = {"Range": f"bytes={wanted}", "Accept-Encoding": "identity"}
    while True:
        try:
            async with web.get(url, headers) as reply:
                if reply.status in {200, 416}:
                    raise _NoRanges
                judge(reply, url)
                match = _RANGE.match(reply.headers.get("Content-Range", ""))
                if reply.status != 206 or match is None:
                    raise SourceError(f"{shown(url)} answered {reply.status} to a range, without saying which it sent.")
                start, end, size = int(match[1]), int(match[2]), int(match[3])
                if not start <= end < size or end - start >= _MOST_FETCHED:
                    raise SourceError(f"{shown(url)} sent an impossible range: {match[0]}.")
                return start, await _whole(web, reply, end - start + 1), size
        except Transient as error:
            await patience.wait(error)


async def _whole(web: Web, reply: ClientResponse, length: int) -> bytes:
    url, pace, data = shown(str(reply.url)), web.pace(), bytearray()
    while len(data) < length:
        block = await reply.content.readany()
        if not block:
            raise Transient(f"{url} broke off.", "Try again.")
        data += block
        pace.check(len(data), url)
    if len(data) > length:
        raise SourceError(f"{url} sent more than it said.")
    return bytes(data)


async def unpack(web: Web, what: RemotePart, into: PartFile, held: int, report: Report, suffix: str = "zip") -> None:
    """Append the member of the archive that `what` names to `into`, less its first `held` bytes.

    The archive is fetched into the part's scratch, resumed and verified as a whole before anything of it is used, and
    removed after.

    Raises:
        DigestMismatch: the archive or the member is not what was promised; nothing of it is kept.
        SourceError: the archive cannot be had; what arrived is kept.
    """
    if what.member is None or what.length is None:
        raise SourceError(f"{shown(what.url)} is no archive that carries a model.")
    archive = await Part.open(into.scratch(f"{what.sha256 or 'unpinned'}.{suffix}"), web.clock)
    try:
        await fetch(web, what, archive, report)
        await inflate(archive.path, what.member, into, held, report, most=what.length)
    except DigestMismatch:
        await into.restart()
        await archive.discard()
        raise
    else:
        await archive.discard()
    finally:
        archive.close()


async def inflate(archive: Path, member: str, into: PartFile, held: int, report: Report, *, most: int) -> None:
    """Append `member` of the archive to `into`, less its first `held` bytes, which `into` has already.

    The archive's own checksum is verified on the way, over the whole member. The member must have `most` bytes: however
    far the data would inflate, no more is written.

    Raises:
        DigestMismatch: the member is damaged.
        SourceError: it is not there.
    """
    with ExitStack() as stack:
        file = stack.enter_context(_Frugal(io.FileIO(archive)))
        with _sound(str(archive)):
            opened = stack.enter_context(await in_thread(zipfile.ZipFile, file))
        try:
            info = opened.getinfo(member)
        except KeyError as error:
            raise SourceError(f"{archive.name} has no {member}.", "The package has changed; try again.") from error
        if info.file_size != most:
            raise DigestMismatch(f"{member} would be {info.file_size} bytes; promised were {most}.", "Try again.")
        if info.compress_type not in _USUAL:
            raise SourceError(f"{member} is compressed in an unusual way.", "Unpack it, and install it by file:PATH.")
        with _sound(member, damaged=True):
            stream = opened.open(info)
        with stream:
            done = 0
            while True:
                with _sound(member, damaged=True):
                    block = await in_thread(stream.read, _MOST_DIRECTORY)
                if not block:
                    break
                new = block[max(0, held - done) :]
                done += len(block)
                if new:
                    await into.append(new)
                report(Progress("unpack", done, info.file_size, member))
    if done != info.file_size:
        raise DigestMismatch(f"{member} is {done} bytes where its archive says {info.file_size}.", "Try again.")


@contextmanager
def _sound(what: str, *, damaged: bool = False) -> Iterator[None]:
    """Turn what `zipfile` raises on a bad archive into Corral's words."""
    try:
        yield
    except _BROKEN as error:
        if damaged:
            raise DigestMismatch(f"{what} is damaged: {error}.", "Nothing of it was kept. Try again.") from error
        raise SourceError(f"{shown(what)} is not a sound zip archive: {error}.", "Try again.") from error
