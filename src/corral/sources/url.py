"""Models that lie at an address: `https://host/model.gguf`, and `#sha256=…` behind it to say which bytes.

Of a model in several pieces (`…-00001-of-00003.gguf`) the address of one is enough. A zip archive is looked into for
its GGUF files. Addresses must be public and encrypted, unless `sources.allow_private` names their host.

A login or a query in the address serves this install and is not written down: an update asks without.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from corral.domain.models import Listing, ModelRef, RemoteFile, RemotePart
from corral.errors import DigestMismatch, InvalidName, NotSupported, SourceError, SourceNotFound
from corral.kit.archive import survey, unpack
from corral.kit.disk import in_thread
from corral.kit.fetch import fetch, refuse_page
from corral.kit.pip_config import PipConfig
from corral.kit.web import Access, Transient, Web, judge, shown

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Mapping, Sequence

    from aiohttp import ClientResponse

    from corral.config.settings import Settings
    from corral.domain.ports import Clock, Hit, PartFile, Query, Report

_GGUF = b"GGUF"
_PIECE = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<end>\.gguf)", re.IGNORECASE)
_TOTAL = re.compile(r"bytes \d+-\d+/(\d+)$")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MOST_PIECES = 512
_MOST_MEMBERS = 10_000
_MOST_INFLATED = 100
_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class _Found:
    """What lies at an address, as its server tells: bytes, a mark of the version, and how it begins."""

    url: str
    size: int | None
    version: str
    magic: bytes


class Url:
    """The web as a source of models."""

    scheme = "url"

    def __init__(self, clock: Clock, env: Mapping[str, str], settings: Settings) -> None:
        self._clock = clock
        self._env = env
        self._settings = settings

    async def resolve(self, ref: ModelRef) -> Listing:
        """What lies there: its first bytes are read, not the model. The version is the server's entity tag or date.

        Raises:
            SourceNotFound: nothing lies there, or it is no address.
            AddressRefused: it is private, or not encrypted.
            SourceError: it cannot be reached, or is no model.
        """
        url, digest = _address(ref.locator)
        async with await self._web() as web:
            found = await _probe(web, url)
            if found.magic.startswith(b"PK\x03\x04") and _file_name(url).lower().endswith((".zip", ".whl")):
                files = await _zipped(web, found, digest)
                version = found.version
            else:
                pieces = await _pieces(web, found)
                files = tuple(_file(piece, digest if piece.url == url else None) for piece in pieces)
                version = _joint([piece.version for piece in pieces])
        return Listing(ModelRef(self.scheme, _kept(url, digest)), files, digest or version)

    async def fetch(self, file: RemoteFile, into: PartFile, report: Report) -> None:
        """Fetch it, going on from what is held.

        Raises:
            DigestMismatch: it is not what was promised; nothing is kept.
            AddressRefused: the address, or where it redirects to, is private or not encrypted.
            SourceError: the server failed; what arrived is kept.
        """
        if len(file.parts) != 1:
            raise SourceError(f"{file.name} does not lie at one address.")
        (part,) = file.parts
        async with await self._web() as web:
            if part.member is None:
                await fetch(web, replace(part, sha256=file.sha256 or part.sha256), into, report)
                return
            if file.sha256 is None and part.sha256 is None:
                await into.restart()  # nothing would tell whether what is held is of the same archive
            await unpack(web, part, into, into.size, report)
        if file.sha256 not in {None, into.digest()} or into.size != file.size:
            await into.restart()
            raise DigestMismatch(f"{file.name} is not what was promised.", "Nothing of it was kept. Try again.")

    async def search(self, query: Query) -> Sequence[Hit]:
        """Refused: the web has no catalog of models."""
        raise NotSupported(f"Addresses cannot be searched for {query.text!r}.", "Name the address of a .gguf file.")

    def mirrored(self, base: ModelRef, file: RemoteFile) -> RemoteFile | None:
        """`file` where a copy of a store, `…/blobs/sha256/HEX`, holds it."""
        if file.sha256 is None or file.size is None:
            return None
        url, _ = _address(base.locator)
        parts = urlsplit(url)
        path = f"{parts.path.rstrip('/')}/blobs/sha256/{file.sha256}"
        part = RemotePart(urlunsplit(parts._replace(path=path)), file.size, file.sha256, length=file.size)
        return RemoteFile(file.name, (part,), file.size, file.sha256)

    async def _web(self) -> Web:
        config = await in_thread(PipConfig.read, self._env)
        return Web(_guarded(config.access, self._settings), self._clock)


def _guarded(access: Access, settings: Settings) -> Access:
    access = access.within(settings.sources, guarded=True)
    # Whoever writes a mirror into the settings trusts its host.
    mirrors = (urlsplit(item) for item in settings.sources.mirrors)
    hosts = {parts.netloc.rpartition("@")[2] for parts in mirrors if parts.scheme in {"http", "https"}}
    return replace(access, private=access.private | hosts)


def _address(locator: str) -> tuple[str, str | None]:
    """The address without its fragment, and the digest that the fragment names.

    Raises:
        SourceNotFound: it is no address of the web.
        InvalidName: the fragment is no digest.
    """
    try:
        parts = urlsplit(locator)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme.lower() not in {"http", "https"} or not parts.netloc or set(locator) & set("\0\r\n\t \\"):
        text = shown(locator)[:200] if parts.netloc else locator.partition("?")[0][:200]
        raise SourceNotFound(f"{text!r} is not a web address.", "Write it as https://HOST/PATH/MODEL.gguf.")
    digest = None
    if parts.fragment:
        digest = dict(parse_qsl(parts.fragment)).get("sha256", "").lower()
        if not _DIGEST.fullmatch(digest):
            raise InvalidName(
                f"The part of {shown(locator)} behind # is no SHA-256.", "Write it as #sha256=64 hex digits."
            )
    return urlunsplit(parts._replace(scheme=parts.scheme.lower(), fragment="")), digest


def _kept(url: str, digest: str | None) -> str:
    """The address as it may be written down."""
    return shown(url) + (f"#sha256={digest}" if digest else "")


def _file_name(url: str) -> str:
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    sound = name not in {"", ".", ".."} and name.isprintable() and len(name.encode()) <= 200 and "\\" not in name
    return name if sound else "model"


def _file(found: _Found, digest: str | None) -> RemoteFile:
    name = _file_name(found.url)
    if found.magic == _GGUF:
        name = name if name.lower().endswith(".gguf") else f"{name}.gguf"
    elif name.lower().endswith(".gguf"):
        raise SourceError(f"{shown(found.url)} is no GGUF file, whatever its name says.", "Check the address.")
    part = RemotePart(found.url, found.size, digest, length=found.size)
    return RemoteFile(name, (part,), found.size, digest)


def _joint(versions: Sequence[str]) -> str:
    """One mark for the versions of several pieces; empty when one of them has none."""
    if len(versions) == 1 or not all(versions):
        return versions[0] if len(versions) == 1 else ""
    return hashlib.sha256("\n".join(versions).encode()).hexdigest()


async def _probe(web: Web, url: str) -> _Found:
    patience = web.patience()
    while True:
        try:
            # Not HEAD: an address may be signed for GET only, and some servers know no HEAD.
            async with web.get(url, {"Range": "bytes=0-511", "Accept-Encoding": "identity"}) as reply:
                return await _seen(reply, url)
        except Transient as error:
            await patience.wait(error)


async def _seen(reply: ClientResponse, url: str) -> _Found:
    if reply.status == 416:
        raise SourceError(f"{shown(url)} is empty.", "Check the address.")
    judge(reply, url)
    refuse_page(reply, url)
    total = _TOTAL.match(reply.headers.get("Content-Range", ""))
    if reply.status not in {200, 206} or (reply.status == 206 and total is None):
        raise SourceError(f"{shown(url)} answered {reply.status} to a download.", "Check the address.")
    size = int(total[1]) if total and reply.status == 206 else reply.content_length
    data = b""
    while len(data) < 4 and (more := await reply.content.readany()):
        data += more
    if not data:
        raise SourceError(f"{shown(url)} is empty.", "Check the address.")
    if data.lstrip()[:1] == b"<":
        raise SourceError(
            f"{shown(url)} is a web page, not a model.", "Use the address that the file itself is downloaded from."
        )
    return _Found(url, size, reply.headers.get("ETag") or reply.headers.get("Last-Modified") or "", data[:4])


async def _pieces(web: Web, found: _Found) -> list[_Found]:
    """All pieces of the model that `found` is one of, in order; itself when it is whole."""
    match = _PIECE.fullmatch(_file_name(found.url))
    if match is None:
        return [found]
    count = int(match["count"])
    if not 1 <= int(match["number"]) <= count <= _MOST_PIECES:
        raise SourceError(f"{shown(found.url)} says that it is piece {match['number']} of {match['count']}.")
    parts = urlsplit(found.url)
    folder, _, last = parts.path.rpartition("/")
    gate = asyncio.Semaphore(_AT_ONCE)

    async def look(number: int) -> _Found:
        name = re.sub(r"-\d{5}-of-", f"-{number:05}-of-", last)
        url = urlunsplit(parts._replace(path=f"{folder}/{name}"))
        async with gate:
            return found if url == found.url else await _probe(web, url)

    return list(await asyncio.gather(*(look(number) for number in range(1, count + 1))))


async def _zipped(web: Web, found: _Found, digest: str | None) -> tuple[RemoteFile, ...]:
    """The GGUF files in an archive: a model, and its projector if it has one."""
    members, size = await survey(web, RemotePart(found.url, found.size, digest), _look)
    if not members:
        raise SourceNotFound(f"{shown(found.url)} holds no GGUF file.", "Unpack it, and install it by file:PATH.")
    if len([name for name, _ in members if "mmproj" not in name.lower()]) > 1 or len(members) > 2:
        names = ", ".join(name for name, _ in members[:8])
        raise SourceError(f"{shown(found.url)} holds several models: {names}.", "Unpack it, and install one by file:.")
    if sum(length for _, length in members) > _MOST_INFLATED * size:
        raise SourceError(f"{shown(found.url)} would inflate to over {_MOST_INFLATED} times its size.")
    return tuple(
        RemoteFile(
            name.rpartition("/")[2],
            (RemotePart(found.url, size, digest, name, length),),
            length,
        )
        for name, length in members
    )


def _look(archive: zipfile.ZipFile) -> tuple[tuple[str, int], ...]:
    infos = archive.infolist()
    if len(infos) > _MOST_MEMBERS:
        raise SourceError(f"The archive has {len(infos)} members.", "Unpack it, and install it by file:PATH.")
    plain = (info for info in infos if stat.S_IFMT(info.external_attr >> 16) in {0, stat.S_IFREG})
    return tuple((info.filename, info.file_size) for info in plain if info.filename.lower().endswith(".gguf"))


plugin = Url
