"""OCI distribution, as a client that only takes: manifests read with distrust, and a web that logs in as it is told.

    GET /v2/NAME/manifests/TAG      JSON that names layers by media type, digest and size
    GET /v2/NAME/blobs/DIGEST       a layer, often by way of a redirect to a blob store elsewhere

A registry that wants a login answers 401 with `WWW-Authenticate: Bearer realm=…,service=…,scope=…`; the realm gives out
tokens, also to nobody in particular. A token goes to the registry's own origin and to no other.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode, urlsplit, urlunsplit

import orjson

from corral.errors import DigestMismatch, SourceError
from corral.kit.web import Access, Transient, Web, judge, shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from aiohttp import ClientResponse

    from corral.domain.ports import Clock
    from corral.kit.web import Pace

MANIFEST_TYPES = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
)
MOST_MANIFEST = 4 << 20
MOST_LAYERS = 4096
_MOST_TOKEN = 64 << 10
_LARGEST = 1 << 50
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)
_MEDIA_TYPE = re.compile(r"[\w.+\-/]{1,200}", re.ASCII)
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Layer:
    """A blob that a manifest names: `sha256` in hex, `size` in bytes."""

    media_type: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a tag stands for. `sha256` is of the manifest's own bytes."""

    sha256: str
    layers: tuple[Layer, ...]
    config: Layer | None = None


def read_manifest(data: bytes, what: str) -> Manifest:
    """The manifest written in `data`; `what` names it in errors.

    Raises:
        SourceError: it is none, or promises what cannot be.
    """
    try:
        content = orjson.loads(data) if len(data) <= MOST_MANIFEST else None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise SourceError(f"{what} is no manifest: {_glimpse(data)}.", "Check that this is a registry of models.")
    if isinstance(content.get("manifests"), list):
        raise SourceError(f"{what} is a list of container images, not a model.", "Name a model.")
    layers = content.get("layers")
    if not isinstance(layers, list):
        raise SourceError(f"{what} is a manifest without layers.", "Name a model.")
    if len(layers) > MOST_LAYERS:
        raise SourceError(f"{what} claims {len(layers)} layers; no model has over {MOST_LAYERS}.", "Do not trust it.")
    config = content.get("config")
    return Manifest(
        hashlib.sha256(data).hexdigest(),
        tuple(_layer(item, what) for item in layers),
        None if config is None else _layer(config, what),
    )


def _layer(item: object, what: str) -> Layer:
    fields = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
    kind, digest, size = fields.get("mediaType"), fields.get("digest"), fields.get("size")
    match = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    if match is None:
        raise SourceError(f"{what} names a layer by {_quoted(digest)}, which is no SHA-256.", "Do not trust it.")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _LARGEST:
        raise SourceError(f"{what} names a layer of {_quoted(size)} bytes.", "Do not trust it.")
    if not isinstance(kind, str) or not _MEDIA_TYPE.fullmatch(kind):
        raise SourceError(f"{what} names a layer of the kind {_quoted(kind)}.", "Do not trust it.")
    return Layer(kind, match[1], size)


def _quoted(value: object) -> str:
    return "nothing" if value is None else repr(value)[:80]


def _glimpse(data: bytes) -> str:
    if len(data) > MOST_MANIFEST:
        return f"it is over {MOST_MANIFEST >> 20} MiB long"
    if data.lstrip()[:1] == b"<":
        return "it is a web page"
    return f"it begins with {data[:40]!r}"


class RegistryWeb(Web):
    """A web for one registry at `base` (`https://host[:port]`): asked for a token, it gets one and asks again."""

    def __init__(self, base: str, access: Access, clock: Clock) -> None:
        super().__init__(access, clock)
        self.base = base
        self._token = ""

    @asynccontextmanager
    async def get(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        secret: Mapping[str, str] | None = None,
        method: str = "GET",
    ) -> AsyncIterator[ClientResponse]:
        """As `Web.get`, with a token for the registry's own addresses once one was asked for."""
        mine = _origin(url) == _origin(self.base)
        async with super().get(url, headers, secret=self._secret(mine, secret), method=method) as reply:
            challenge = reply.headers.get("WWW-Authenticate", "")
            wanted = reply.status == 401 and mine and _origin(str(reply.url)) == _origin(self.base)
            if not wanted or not challenge.lower().startswith("bearer "):
                yield reply
                return
        self._token = await self._ask_for_token(challenge)
        async with super().get(url, headers, secret=self._secret(mine, secret), method=method) as reply:
            yield reply

    async def manifest(self, name: str, tag: str) -> tuple[Manifest, bytes]:
        """What `tag`, a tag or `sha256:…`, of the repository `name` stands for, and the bytes that say so.

        Raises:
            SourceNotFound: the registry has no such thing.
            DigestMismatch: it is not what its digest says.
            SourceError: the registry cannot be reached, refuses, or answers something else.
        """
        url = f"{self.base}/v2/{name}/manifests/{tag}"
        data, headers = await self.read(url, MOST_MANIFEST, {"Accept": ", ".join(MANIFEST_TYPES)})
        manifest = read_manifest(data, shown(url))
        for promised in (headers.get("Docker-Content-Digest"), tag):
            match = _DIGEST.fullmatch(promised or "")
            if match is not None and match[1] != manifest.sha256:
                raise DigestMismatch(
                    f"{shown(url)} is not what its digest says: sha256:{manifest.sha256}, promised was {promised}.",
                    "Try again; if it stays so, do not trust the registry.",
                )
        return manifest, data

    async def blob(self, name: str, layer: Layer, most: int) -> bytes:
        """The bytes of a small layer, as its digest says.

        Raises:
            DigestMismatch: they are others.
            SourceError: it is over `most` bytes, or the registry fails.
        """
        url = self.blob_url(name, layer)
        if layer.size > most:
            raise SourceError(f"{shown(url)} ({layer.media_type}) has {layer.size} bytes, over the {most} allowed.")
        data, _ = await self.read(url, layer.size)
        if len(data) != layer.size or hashlib.sha256(data).hexdigest() != layer.sha256:
            raise DigestMismatch(
                f"{shown(url)} is not what was promised: {len(data)} of {layer.size} bytes with another SHA-256.",
                "Try again; if it stays so, do not trust the registry.",
            )
        return data

    def blob_url(self, name: str, layer: Layer) -> str:
        """Where the layer lies."""
        return f"{self.base}/v2/{name}/blobs/sha256:{layer.sha256}"

    async def read(
        self, url: str, most: int, headers: Mapping[str, str] | None = None
    ) -> tuple[bytes, Mapping[str, str]]:
        """The whole of what lies at `url`, and the headers it came with; tried again when the failure may pass.

        Raises:
            SourceNotFound: nothing lies there.
            SourceError: it is longer than `most` bytes, or cannot be had.
        """
        patience = self.patience()
        while True:
            try:
                async with self.get(url, {**(headers or {}), "Accept-Encoding": "identity"}) as reply:
                    judge(reply, url)
                    return await _take(reply, url, most, self.pace()), reply.headers
            except Transient as error:
                await patience.wait(error)

    def _secret(self, mine: bool, given: Mapping[str, str] | None) -> dict[str, str]:
        token = {"Authorization": f"Bearer {self._token}"} if mine and self._token else {}
        return {**token, **(given or {})}

    async def _ask_for_token(self, challenge: str) -> str:
        fields = dict(_CHALLENGE.findall(challenge))
        realm = urlsplit(fields.get("realm", ""))
        if realm.scheme not in {"http", "https"} or realm.username is not None:
            raise SourceError(f"{self.base} wants a login and does not say where.", "Check the address.")
        query = "&".join(
            part
            for part in (realm.query, urlencode({key: fields[key] for key in ("service", "scope") if key in fields}))
            if part
        )
        url = urlunsplit(realm._replace(query=query, fragment=""))
        async with super().get(url) as reply:
            judge(reply, url)
            data = await _take(reply, url, _MOST_TOKEN, self.pace())
        try:
            content = orjson.loads(data)
        except ValueError:
            content = None
        found = content if isinstance(content, dict) else {}
        token = found.get("token") or found.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise SourceError(f"{shown(url)} gave no token.", "It may want an account, which is not supported.")
        return token


async def _take(reply: ClientResponse, url: str, most: int, pace: Pace) -> bytes:
    data = bytearray()
    while block := await reply.content.readany():
        data += block
        pace.check(len(data), shown(url))
        if len(data) > most:
            raise SourceError(f"{shown(url)} sends more than the {most} bytes that it may.", "Do not trust it.")
    return bytes(data)


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    port = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
    return parts.scheme, (parts.netloc.rpartition("@")[2].lower()).removesuffix(port)
