"""One address into one part: ranged, resumed, retried, verified."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import orjson

from corral.domain.models import RemotePart
from corral.domain.ports import Progress, Report, silent
from corral.errors import DigestMismatch, SourceError, SourceNotFound
from corral.kit.web import Transient, judge, local_path, shown

if TYPE_CHECKING:
    from aiohttp import ClientResponse

    from corral.domain.ports import PartFile
    from corral.kit.web import Pace, Web

_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)$")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_AHEAD = 4 << 20
"""Bytes taken from a connection while those before are written."""

_PAGES = frozenset({"text/html", "application/xhtml+xml"})


class TooLong(SourceError):
    """It has more bytes than were wanted at most."""


@dataclass(slots=True)
class _State:
    """What is known of the thing so far. `tag` is the strong entity tag of what the held bytes came from."""

    what: RemotePart
    total: int | None
    tag: str | None = None
    most: int | None = None

    def bound(self, size: int | None) -> None:
        """Let no more than `most` bytes come."""
        if self.most is not None and size is not None and size > self.most:
            raise TooLong(f"{shown(self.what.url)} has over {self.most} bytes.", "Check the address.")

    def learn_tag(self, reply: ClientResponse) -> None:
        tag = reply.headers.get("ETag")
        self.tag = tag if tag and not tag.startswith("W/") else None


class _Honest:
    """Reports bytes that lie on the disk; a start from zero does not take the mark back, it says so."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._highest = 0

    def __call__(self, held: int, total: int | None) -> None:
        again = held < self._highest
        self._highest = max(held, self._highest)
        self._report(Progress("download", self._highest, total, "again from the start" if again else ""))


class _Ahead:
    """Takes a body's bytes as they arrive, up to a limit, while the disk is busy with those before.

    A connection that breaks takes with it what nobody has taken from it yet: this leaves nothing there.
    """

    def __init__(self, reply: ClientResponse) -> None:
        self._reply = reply
        self._runs: list[bytes] = []
        self._held = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._task = asyncio.ensure_future(self._pump())
        self._task.add_done_callback(lambda _: self._news.set())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.exception()  # raised by `take`, or of no interest to who takes no more

    async def take(self) -> bytes:
        """All that has arrived; waits for some. Empty at the end, which also is where a failure is raised."""
        while not self._runs and not self._task.done():
            self._news.clear()
            await self._news.wait()
        if not self._runs:
            self._task.result()
            return b""
        data = self._runs[0] if len(self._runs) == 1 else b"".join(self._runs)
        self._runs.clear()
        self._held = 0
        self._room.set()
        return data

    async def _pump(self) -> None:
        while data := await self._reply.content.readany():
            self._runs.append(data)
            self._held += len(data)
            self._news.set()
            while self._held >= _AHEAD:
                self._room.clear()
                await self._room.wait()


async def fetch(
    web: Web, what: RemotePart, into: PartFile, report: Report = silent, *, most: int | None = None
) -> None:
    """Bring the whole of what lies at `what.url` into `into`, going on from what it holds.

    Without a digest to check against, bytes held from an earlier process are used only where the server vouches, by a
    strong entity tag, that they are of the version it has now; elsewhere they are thrown away.
    A stall, a drip, a lost connection and a passing server error are tried again, a few times without progress between.

    Raises:
        DigestMismatch: it is whole and not what was promised; nothing is kept.
        TooLong: it has over `most` bytes, where that is given; no more than those were fetched.
        SourceNotFound: nothing lies there.
        SourceError: it cannot be had, or the server contradicts itself; what arrived is kept unless it is in doubt.
        DiskFull: there is no room; what was written is kept.
    """
    honest = _Honest(report)
    if what.size is not None and into.size > what.size:
        await into.restart()
    path = local_path(what.url)
    if path is not None:
        try:
            await into.clone(path, report)
        except OSError as error:
            raise SourceNotFound(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error
        await _verify(what, into)
        return
    state = _State(what, what.size, most=most)
    state.bound(what.size)
    if what.sha256 is None and into.size:
        state.tag = recall(into.scratch("tag"))
        if state.tag is None:
            await into.restart()
        state.total = None  # also what is held whole must be vouched for
    resumed = into.size > 0
    while True:
        await _complete(web, state, into, honest)
        try:
            await _verify(what, into)
        except DigestMismatch:
            # What was held may have been damaged since: blame the upstream only for bytes that it has just sent, all.
            if not resumed:
                raise
            resumed = False
            continue
        return


async def _complete(web: Web, state: _State, into: PartFile, honest: _Honest) -> None:
    patience, pace = web.patience(), web.pace(into.size)
    while state.total is None or into.size < state.total:
        try:
            await _once(web, state, into, honest)
        except Transient as error:
            if pace.progressed(into.size):
                patience.progressed()
            await patience.wait(error)
        else:
            if state.total is None:
                state.total = into.size


async def _once(web: Web, state: _State, into: PartFile, honest: _Honest) -> None:
    url = state.what.url
    headers = {"Accept-Encoding": "identity"}
    if into.size:
        headers["Range"] = f"bytes={into.size}-"
        if state.tag is not None:
            headers["If-Range"] = state.tag
    async with web.get(url, headers) as reply:
        if reply.status == 416 and into.size:
            await _settle_416(reply, state, into)
            return
        judge(reply, url)
        if reply.headers.get("Content-Encoding", "identity") != "identity":
            raise SourceError(f"{shown(url)} sends its files compressed anew, which cannot be resumed or verified.")
        if state.what.sha256 is None:
            refuse_page(reply, url)
        await _begin(reply, state, into)
        state.learn_tag(reply)
        if state.what.sha256 is None:
            # Not in a thread: what a connection brought before it broke is lost unless it is taken at once.
            note(into.scratch("tag"), state.tag)
        honest(into.size, state.total)
        await _take(reply, state, into, honest, web.pace(into.size))


async def _begin(reply: ClientResponse, state: _State, into: PartFile) -> None:
    """Make sure that the bytes to come go behind those held."""
    url = state.what.url
    if reply.status == 206:
        if state.tag is not None and reply.headers.get("ETag", state.tag) != state.tag:
            await into.restart()
            state.tag = None
            raise Transient(f"{shown(url)} has changed meanwhile.", "Try again.")
        _check_range(reply, state, into.size)
    elif reply.status == 200:
        if into.size:
            await into.restart()
        _learn_total(state, reply.content_length, url)
    else:
        raise SourceError(f"{shown(url)} answered {reply.status} to a download.")


async def _take(reply: ClientResponse, state: _State, into: PartFile, honest: _Honest, pace: Pace) -> None:
    # What piled up while the disk was busy is taken in one go: small runs from a slow server, large from a fast one.
    async with _Ahead(reply) as arriving:
        while data := await arriving.take():
            if state.total is not None and into.size + len(data) > state.total:
                await into.restart()
                raise SourceError(
                    f"{shown(state.what.url)} sends more than the {state.total} bytes that were promised."
                )
            state.bound(into.size + len(data))
            await into.append(data)
            honest(into.size, state.total)
            if into.size != state.total:
                pace.check(into.size, shown(state.what.url))
    if state.total is not None and into.size < state.total and reply.content_length is None:
        raise Transient(f"{shown(state.what.url)} ended after {into.size} of {state.total} bytes.", "Try again.")


def note(path: Path, tag: str | None) -> None:
    """Write down which version the bytes to come are of."""
    if tag is None:
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(orjson.dumps([_boot(), tag]))


def recall(path: Path) -> str | None:
    """The version that was noted, if the machine has run ever since: a power cut may have left holes in the bytes."""
    with suppress(OSError, ValueError, TypeError):
        boot, tag = orjson.loads(path.read_bytes())
        if boot and boot == _boot():
            return str(tag)
    return None


def _boot() -> str:
    """What this run of the machine is called; empty where that is not told."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def refuse_page(reply: ClientResponse, url: str) -> None:
    """Let anything pass but a web page.

    Raises:
        SourceError: a page came where a model was expected: a login form, an error, the page about the file.
    """
    if reply.content_type in _PAGES and not urlsplit(url).path.lower().endswith((".html", ".htm")):
        raise SourceError(
            f"{shown(url)} is a web page, not a model.", "Use the address that the file itself is downloaded from."
        )


def _check_range(reply: ClientResponse, state: _State, held: int) -> None:
    url = shown(state.what.url)
    text = reply.headers.get("Content-Range", "")
    match = _CONTENT_RANGE.match(text)
    if not held or match is None or match[1] is None:
        raise SourceError(f"{url} answered a range that was not asked for ({text or 'no Content-Range'}).")
    start, end = int(match[1]), int(match[2])
    if start != held or end < start:
        raise SourceError(f"{url} was asked for bytes from {held} on and sent {text}.")
    if reply.content_length not in {None, end - start + 1}:
        raise SourceError(f"{url} contradicts itself: {text} with a length of {reply.content_length}.")
    _learn_total(state, int(match[3]) if match[3] != "*" else None, state.what.url)
    if state.total is not None and end >= state.total:
        raise SourceError(f"{url} sent {text}, which is past the end.")


def _learn_total(state: _State, total: int | None, url: str) -> None:
    if total is None:
        return
    if state.what.size is not None and total != state.what.size:
        raise SourceError(f"{shown(url)} has {total} bytes where {state.what.size} were promised.", "Try again later.")
    state.bound(total)
    state.total = total


async def _settle_416(reply: ClientResponse, state: _State, into: PartFile) -> None:
    """The server has nothing from there on: either all is held, or what is held is of something else."""
    match = _CONTENT_RANGE.match(reply.headers.get("Content-Range", ""))
    total = int(match[3]) if match and match[1] is None and match[3] != "*" else None
    if total is not None and total == into.size:
        _learn_total(state, total, state.what.url)
        return
    await into.restart()
    raise Transient(f"{shown(state.what.url)} refused to go on from where we were.", "Try again.")


async def _verify(what: RemotePart, into: PartFile) -> None:
    got = into.digest()
    if (what.sha256 is not None and got != what.sha256) or (what.size is not None and into.size != what.size):
        size = into.size
        await into.restart()
        raise DigestMismatch(
            f"{shown(what.url)} is not what was promised: {size} bytes with SHA-256 {got}, "
            f"promised {'any size' if what.size is None else f'{what.size} bytes'} with {what.sha256}.",
            "Nothing of it was kept. Try again; if it stays so, do not trust the source.",
        )
