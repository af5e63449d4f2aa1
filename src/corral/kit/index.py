"""The Python package index as pip reaches it: HTML (PEP 503) or JSON (PEP 691), on the web or in a folder."""

from __future__ import annotations

import asyncio
import platform
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import unquote, urljoin, urlsplit

import orjson
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag, sys_tags
from packaging.utils import InvalidName, InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from corral.errors import SourceError, SourceNotFound
from corral.kit.disk import in_thread
from corral.kit.web import Transient, judge, local_path, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from corral.kit.pip_config import PipConfig
    from corral.kit.web import Web

_JSON = "application/vnd.pypi.simple.v1+json"
_ACCEPT = f"{_JSON}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_PAGE_LIMIT = 64 << 20


@dataclass(frozen=True, slots=True)
class Link:
    """A file that an index offers. `url` is absolute; `yanked` is the reason when it was withdrawn."""

    filename: str
    url: str
    sha256: str | None = None
    size: int | None = None
    requires_python: str | None = None
    yanked: str | None = None


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel chosen for this Python and machine."""

    name: str
    version: Version
    link: Link


@dataclass(slots=True)
class _Seen:
    """What the indexes said of one package."""

    links: list[Link] = field(default_factory=list)
    failures: list[SourceError] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


class Index:
    """All the places where pip would look, as one."""

    def __init__(self, config: PipConfig, web: Web) -> None:
        self._indexes = [web.remember(url) for url in config.indexes]
        self._pages = [web.remember(url) for url in config.find_links]
        self._web = web

    async def find(self, name: str, version: str | None = None) -> Wheel:
        """The wheel of `name` that pip would take: the newest final release that runs here, or exactly `version`.

        A place that fails is passed over while another has the package. The link's address carries no login: `web` has
        remembered it.

        Raises:
            SourceNotFound: no place has it; says which versions there are.
            SourceError: no place has it, and some could not be asked.
        """
        try:
            canonical = canonicalize_name(name, validate=True)
            wanted = Version(version) if version is not None else None
        except (InvalidName, InvalidVersion) as error:
            raise SourceNotFound(f"{name}=={version or ''} does not name a package's version.") from error
        seen = await self._look(canonical)
        wheels = list(_wheels(seen.links, canonical))
        usable = _usable(wheels, wanted)
        if usable:
            best = usable[0]
            return replace(best, link=replace(best.link, url=self._web.remember(best.link.url)))
        raise _nothing(name, wanted, wheels, seen)

    async def _look(self, name: str) -> _Seen:
        seen = _Seen()
        urls = [*self._pages, *(f"{index.rstrip('/')}/{name}/" for index in self._indexes)]
        seen.asked = [shown(url) for url in urls]
        for answer in await asyncio.gather(*map(self._page, urls), return_exceptions=True):
            if isinstance(answer, SourceNotFound):
                continue
            if isinstance(answer, SourceError):
                seen.failures.append(answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                seen.links += answer
        return seen

    async def _page(self, url: str) -> list[Link]:
        path = local_path(url)
        if path is not None:
            return await in_thread(_folder, path)
        patience = self._web.patience()
        while True:
            try:
                return await self._download(url)
            except Transient as error:
                await patience.wait(error)

    async def _download(self, url: str) -> list[Link]:
        async with self._web.get(url, {"Accept": _ACCEPT}) as reply:
            judge(reply, url)
            body, pace = bytearray(), self._web.pace()
            async for data in reply.content.iter_any():
                body += data
                pace.check(len(body), shown(url))
                if len(body) > _PAGE_LIMIT:
                    raise SourceError(f"{shown(url)} is too long a page to be an index.")
            base, kind = str(reply.url), reply.content_type
        if kind == _JSON:
            return _elsewhere(parse_json(bytes(body), base), url)
        if kind in {"text/html", "application/vnd.pypi.simple.v1+html"}:
            return _elsewhere(parse_html(body.decode("utf-8", "replace"), base), url)
        raise SourceError(f"{shown(url)} answers {kind}, which is not a package index.", "See: pip config list")


def _elsewhere(links: list[Link], url: str) -> list[Link]:
    """The links of a page on the web.

    Raises:
        SourceError: one leads to a file of this machine, which only a page on this machine may name.
    """
    if any(local_path(link.url) is not None for link in links):
        raise SourceError(f"{shown(url)} links to files of this machine.", "Do not trust that index.")
    return links


def parse_json(body: bytes, base: str) -> list[Link]:
    """The files of a PEP 691 page at `base`.

    Raises:
        SourceError: it is not one.
    """
    try:
        page = orjson.loads(body)
        return [_from_json(item, base) for item in page["files"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{shown(base)} is not a package index's JSON ({type(error).__name__}).") from error


def _from_json(item: Mapping[str, object], base: str) -> Link:
    hashes, size, yanked = item.get("hashes"), item.get("size"), item.get("yanked", False)
    sha256 = hashes.get("sha256") if isinstance(hashes, dict) else None
    python = item.get("requires-python")
    return Link(
        filename=str(item["filename"]),
        url=urljoin(base, str(item["url"])).partition("#")[0],
        sha256=_digest(str(sha256)) if sha256 else None,
        size=size if isinstance(size, int) and size >= 0 else None,
        requires_python=str(python) if python else None,
        yanked=None if yanked is False or yanked is None else str(yanked),
    )


def parse_html(text: str, base: str) -> list[Link]:
    """The links of a PEP 503 page at `base`."""
    page = _Anchors(base)
    page.feed(text)
    page.close()
    return page.links


class _Anchors(HTMLParser):
    def __init__(self, base: str) -> None:
        super().__init__()
        self._base = base
        self.links: list[Link] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        href = values.get("href")
        if href is None:
            return
        if tag == "base":
            self._base = urljoin(self._base, href)
        elif tag == "a":
            try:
                self.links.append(_from_anchor(urljoin(self._base, href), values))
            except ValueError:
                return  # not an address; pip passes over it too


def _from_anchor(url: str, values: Mapping[str, str]) -> Link:
    parts = urlsplit(url)
    kind, _, digest = parts.fragment.partition("&")[0].partition("=")
    return Link(
        filename=unquote(parts.path.rpartition("/")[2]),
        url=url.partition("#")[0],
        sha256=_digest(digest) if kind == "sha256" else None,
        requires_python=values.get("data-requires-python") or None,
        yanked=values.get("data-yanked"),
    )


def _digest(text: str) -> str | None:
    text = text.lower()
    return text if len(text) == 64 and set(text) <= set("0123456789abcdef") else None


def _folder(path: Path) -> list[Link]:
    """The links of a local index page, or the files of a folder without one."""
    try:
        page = path / "index.html" if path.is_dir() else path
        if page.is_file():
            return parse_html(page.read_text(encoding="utf-8", errors="replace"), page.as_uri())
        return [Link(item.name, item.as_uri(), size=item.stat().st_size) for item in path.iterdir() if item.is_file()]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceNotFound(f"{path} does not exist.") from error
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.", "See: pip config list") from error


def _wheels(links: Iterable[Link], name: str) -> Iterable[Wheel]:
    for link in links:
        try:
            found, version, _, tags = parse_wheel_filename(link.filename)
        except (InvalidWheelFilename, InvalidVersion):
            continue
        if found == name and not tags.isdisjoint(_tags()):
            yield Wheel(found, version, link)


_HERE: list[frozenset[Tag]] = []


def _tags() -> frozenset[Tag]:
    """The wheel tags that this Python takes."""
    if not _HERE:
        _HERE.append(frozenset(sys_tags()))
    return _HERE[0]


def _usable(wheels: Iterable[Wheel], wanted: Version | None) -> list[Wheel]:
    """Those pip would consider, best first: a withdrawn or early release only when asked for by its version."""
    usable = [wheel for wheel in wheels if _runs_here(wheel.link.requires_python)]
    if wanted is not None:
        usable = [wheel for wheel in usable if wheel.version == wanted]
    else:
        usable = [wheel for wheel in usable if wheel.link.yanked is None]
        usable = [wheel for wheel in usable if not wheel.version.is_prerelease] or usable
    # Of equals the one whose digest is known, since it can be verified.
    return sorted(usable, key=lambda wheel: (wheel.version, wheel.link.sha256 is not None), reverse=True)


def _runs_here(requirement: str | None) -> bool:
    try:
        return requirement is None or SpecifierSet(requirement).contains(platform.python_version(), prereleases=True)
    except InvalidSpecifier:
        return True  # pip ignores what it cannot read, too


def _nothing(name: str, wanted: Version | None, wheels: list[Wheel], seen: _Seen) -> SourceError | SourceNotFound:
    """Why no wheel was found: never a bare no."""
    what = f"{name}=={wanted}" if wanted is not None else name
    if seen.failures:
        reasons = " ".join(error.message for error in seen.failures)
        return SourceError(
            f"{what} was not found, and not every index could be asked. {reasons}", seen.failures[0].hint
        )
    if wheels:
        versions = sorted({wheel.version for wheel in wheels}, reverse=True)[:8]
        return SourceNotFound(f"{what} has no wheel for this Python.", f"There are: {', '.join(map(str, versions))}.")
    if seen.links:
        return SourceNotFound(f"{what} has no wheel for this machine.", "Only wheels can carry a model.")
    return SourceNotFound(f"No package index here has {what}.", f"Asked: {', '.join(seen.asked) or 'none'}.")
