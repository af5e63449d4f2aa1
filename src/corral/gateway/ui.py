"""The pages for browsers below `/ui/`: files built of `web/`, and the policies under which a browser shows them.

    PAGE    Corral's own: runs its own scripts and no other, talks to this server, shows frames of this server
    FRAME   shows one component or page that a stranger wrote: runs what it is given, and can reach nobody

Strangers' code has no network by its own policy, and no way to leave the frame by the page's (`frame-src`). `sandbox`
takes its origin away also where somebody opens a frame by itself: with it storage, cookies and the page around it.

Only what the build's manifest lists is served, whatever else lies in the folder.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from corral.errors import NotFound, UiMissing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from corral.kit.relay import Send

FOLDER = Path(__file__).resolve().parent.parent / "ui"
"""Where `make web` puts the files, and the wheel has them."""
PREFIX = "/ui/"

_KINDS = {
    ".css": b"text/css; charset=utf-8",
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
    ".woff2": b"font/woff2",
}
_PAGE = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""Styles may stand in the page: its editor makes them as it goes. No text of a stranger gets into the page as HTML."""
_STRANGER = (
    "sandbox allow-scripts allow-forms; default-src 'none'; script-src '{script}' 'unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; media-src data: blob:; connect-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_FEATURES = b", ".join(
    b"%s=()" % name
    for name in (
        b"accelerometer",
        b"autoplay",
        b"camera",
        b"clipboard-read",
        b"clipboard-write",
        b"display-capture",
        b"fullscreen",
        b"geolocation",
        b"gyroscope",
        b"hid",
        b"microphone",
        b"midi",
        b"payment",
        b"serial",
        b"usb",
    )
)
_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-dns-prefetch-control", b"off"),
    (b"vary", b"accept-encoding"),
)
_FOREVER = b"public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it is sent, `packed` by gzip where that is smaller."""

    body: bytes
    packed: bytes | None
    etag: bytes
    headers: tuple[tuple[bytes, bytes], ...]


class Ui:
    """Serves the built files of a folder. Reading them happens beside the loop, once for each build.

    Args:
        folder: where the files and their `manifest.json` are; it need not exist.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._built: int | None = None
        self._listed: Mapping[str, Mapping[str, Any]] = {}
        self._files: dict[str, _File] = {}

    async def answer(self, path: str, headers: Iterable[tuple[bytes, bytes]], send: Send, request_id: bytes) -> int:
        """Answer a GET of `path`, which begins with `/ui/`; the status.

        Raises:
            UiMissing: nothing was built.
            NotFound: no such file was.
        """
        given = dict(headers)
        found = self._files.get(path) if self._current() else None
        if found is None:
            found = await asyncio.to_thread(self._read, path)
        packed = found.packed if b"gzip" in given.get(b"accept-encoding", b"") else None
        body = found.body if packed is None else packed
        etag = b'"%s%s"' % (found.etag, b"" if packed is None else b"-gz")
        own = [(b"etag", etag), (b"x-request-id", request_id), *found.headers]
        asked = given.get(b"if-none-match", b"")
        if etag in asked or asked.strip() == b"*":
            await send({"type": "http.response.start", "status": 304, "headers": own})
            await send({"type": "http.response.body", "body": b""})
            return 304
        if packed is not None:
            own.append((b"content-encoding", b"gzip"))
        own.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": 200, "headers": own})
        await send({"type": "http.response.body", "body": body})
        return 200

    def _current(self) -> bool:
        """Whether what is remembered is of the build that lies there now."""
        try:
            return (self._folder / "manifest.json").stat().st_mtime_ns == self._built
        except OSError:
            return False

    def _read(self, path: str) -> _File:
        manifest = self._folder / "manifest.json"
        try:
            if not self._current():
                self._listed = orjson.loads(manifest.read_bytes())
                self._files = {}
                self._built = manifest.stat().st_mtime_ns
            name = path.removeprefix(PREFIX)
            entry = self._listed.get(name)
            if entry is None:
                raise NotFound(f"There is no page at {path[:200]}.", "See docs/preview.md for those there are.")
            found = _prepared(name, (self._folder / name).read_bytes(), entry.get("script"))
        except (OSError, orjson.JSONDecodeError) as error:
            raise UiMissing(
                "The pages for browsers are not there: they were not built, or are being built now.",
                "Build them where Corral's source is, with Node 20 or newer: make web",
            ) from error
        self._files[path] = found
        return found


def _prepared(name: str, body: bytes, script: str | None) -> _File:
    kind = _KINDS.get(Path(name).suffix, b"application/octet-stream")
    packed = gzip.compress(body, 6, mtime=0)
    headers = [(b"content-type", kind), *_ALWAYS]
    # Names in assets/ hold a checksum of what is in them; all others are asked for anew.
    headers.append((b"cache-control", _FOREVER if name.startswith("assets/") else b"no-cache"))
    if kind.startswith(b"text/html"):
        headers.append((b"content-security-policy", policy(script).encode()))
        headers.append((b"permissions-policy", _FEATURES))
        headers.append((b"cross-origin-opener-policy", b"same-origin"))
    digest = hashlib.sha256(body).hexdigest()[:32].encode()
    return _File(body, packed if len(packed) < len(body) else None, digest, tuple(headers))


def policy(script: str | None) -> str:
    """The Content-Security-Policy of a page; `script` is the hash of the only one in a stranger's frame."""
    return _PAGE if script is None else _STRANGER.format(script=script)
