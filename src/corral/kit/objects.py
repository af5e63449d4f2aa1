"""Object stores: S3, Google's and Azure's, by obstore, which is loaded when the first one is opened.

    s3://BUCKET/KEY               AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION,
                                  AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL for others than Amazon's
    gs://BUCKET/KEY               GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT
    az://ACCOUNT/CONTAINER/KEY    AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN

The environment is passed in; without credentials in it a store is asked anonymously, and no address of a cloud's own
metadata service is tried. Messages carry no text of the library's, which quotes addresses that may be signed.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from corral.errors import (
    AddressRefused,
    ConfigError,
    InvalidName,
    LoginRequired,
    RuntimeUnavailable,
    SourceError,
    SourceNotFound,
)
from corral.kit.addresses import Zone, literal_zone, named, place
from corral.kit.disk import in_thread
from corral.kit.web import Patience, Transient, goes_direct

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Mapping
    from pathlib import Path

    from obstore import GetOptions
    from obstore.store import ObjectStore

    from corral.domain.ports import Clock
    from corral.kit.web import Access

T = TypeVar("T")

READ = 1 << 20
"""Bytes, at least, in a run of a stream."""

PIECE = 8 << 20
"""Bytes in a piece of an upload, where the store's limit on their number does not want more."""

_MOST_PIECES = 9000
_AT_ONCE = 4
_MOST_LISTED = 5000
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{1,254}")
_STATUS = re.compile(r"status code: (\d{3})")
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})

# What a store is configured with, by the environment's names.
_S3 = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION")
_S3_ROLES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_METADATA_ENDPOINT",
)
_GS = ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY")
_AZ = (
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_TOKEN",
    "AZURE_STORAGE_CLIENT_ID",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_STORAGE_TENANT_ID",
    "AZURE_FEDERATED_TOKEN_FILE",
)


@dataclass(frozen=True, slots=True)
class Spot:
    """A place in a bucket: `kind` is s3, gs or az; `bucket` is an account and a container for az. No slash ends it."""

    kind: str
    bucket: str
    key: str = ""

    @classmethod
    def parse(cls, text: str) -> Spot:
        """The place that an address without a fragment names.

        Raises:
            InvalidName: it is none; or it carries a login or a query, which do not belong there.
        """
        kind, found, rest = text.partition("://")
        bucket, _, key = rest.partition("/")
        if kind == "az":
            container, _, key = key.partition("/")
            sound = bool(_BUCKET.fullmatch(bucket) and _BUCKET.fullmatch(container))
            bucket = f"{bucket}/{container}"
        else:
            sound = kind in {"s3", "gs"} and bool(_BUCKET.fullmatch(bucket))
        key = key.strip("/")
        climbs = bool(key) and not {"", ".", ".."}.isdisjoint(key.split("/"))
        if not found or not sound or climbs or "?" in key or not key.isprintable():
            raise InvalidName(
                f"{text.partition('?')[0].rpartition('@')[2][:200]!r} is no address of a bucket.",
                "Write it as s3://BUCKET/KEY, gs://BUCKET/KEY or az://ACCOUNT/CONTAINER/KEY; logins come from the "
                "environment.",
                param="model",
            )
        return cls(kind, bucket, key)

    def __str__(self) -> str:
        return f"{self.kind}://{self.bucket}/{self.key}".rstrip("/")

    def __truediv__(self, more: str) -> Spot:
        return Spot(self.kind, self.bucket, f"{self.key}/{more}".lstrip("/"))


class TooLarge(SourceError):
    """What lies there is larger than it may be."""


@dataclass(frozen=True, slots=True)
class Object:
    """What lies at a place: bytes, and the store's mark of the version."""

    spot: Spot
    size: int
    tag: str | None


class Objects:
    """The objects of any bucket, as the environment `env` allows them to be reached."""

    def __init__(self, env: Mapping[str, str], access: Access, clock: Clock) -> None:
        self._env = env
        self._access = access
        self._clock = clock
        self._open: dict[tuple[str, str], ObjectStore] = {}

    def patience(self) -> Patience:
        """A fresh count of tries."""
        return Patience(self._clock, self._access.retries)

    async def head(self, spot: Spot) -> Object:
        """What lies at `spot`.

        Raises:
            SourceNotFound: nothing.
            SourceError: it cannot be asked.
        """
        store = await self._store(spot)
        meta = await self._tried(spot, lambda: store.head_async(spot.key))
        return Object(spot, int(meta["size"]), meta["e_tag"])

    async def read(self, spot: Spot, most: int) -> bytes:
        """All bytes at `spot`, which may be `most`.

        Raises:
            SourceNotFound: nothing lies there.
            TooLarge: it is larger.
            SourceError: it cannot be had.
        """
        store = await self._store(spot)

        async def whole() -> bytes:
            found = await store.get_async(spot.key)
            if found.meta["size"] > most:
                raise TooLarge(f"{spot} is too large: {found.meta['size']} bytes.")
            return bytes(await found.bytes_async())

        return await self._tried(spot, whole)

    async def under(self, spot: Spot) -> list[Object]:
        """The objects below `spot`, by name.

        Raises:
            SourceError: they cannot be listed, or are too many.
        """
        store = await self._store(spot)

        async def listed() -> list[Object]:
            found: list[Object] = []
            async for chunk in store.list_async(spot.key or None):
                found += [Object(Spot(spot.kind, spot.bucket, m["path"]), m["size"], m["e_tag"]) for m in chunk]
                if len(found) > _MOST_LISTED:
                    raise SourceError(f"{spot} holds over {_MOST_LISTED} objects.", "Name one of them.")
            return sorted(found, key=lambda item: item.spot.key)

        return await self._tried(spot, listed)

    async def stream(self, spot: Spot, start: int, tag: str | None) -> tuple[Object, AsyncIterator[bytes]]:
        """What lies at `spot`, and its bytes from `start` on; one try. With `tag`, only of that version.

        Errors while the bytes are read are to be translated with `translated`.

        Raises:
            Transient: another try may help; also when it is of another version, with `after` 0.
        """
        store = await self._store(spot)
        with translated(spot):
            options: GetOptions = {"range": {"offset": start}} if start else {}
            if tag is not None:
                options["if_match"] = tag
            found = await store.get_async(spot.key, options=options)
            size, begins = int(found.meta["size"]), int(found.range[0])
            if begins != start:
                raise SourceError(f"{spot} was asked for bytes from {start} on and sent them from {begins}.")
            return Object(spot, size, found.meta["e_tag"]), found.stream(min_chunk_size=READ).__aiter__()

    async def write(self, spot: Spot, data: bytes) -> None:
        """Let `data` lie at `spot`: all of it or what was there before."""
        store = await self._store(spot)
        await self._tried(spot, lambda: store.put_async(spot.key, data, use_multipart=False))

    async def upload(self, spot: Spot, size: int, data: Callable[[], AsyncIterable[bytes]]) -> None:
        """Let the `size` bytes that `data` yields lie at `spot`; tried again from the start.

        Nothing appears there when `data` raises, or this is cut short.
        """
        store = await self._store(spot)
        piece = max(PIECE, -(-size // _MOST_PIECES))

        async def whole() -> Any:
            return await store.put_async(
                spot.key, data(), use_multipart=True, chunk_size=piece, max_concurrency=_AT_ONCE
            )

        await self._tried(spot, whole)

    async def _tried(self, spot: Spot, work: Callable[[], Awaitable[T]]) -> T:
        patience = self.patience()
        while True:
            try:
                with translated(spot):
                    return await work()
            except Transient as error:
                await patience.wait(error)

    async def _store(self, spot: Spot) -> ObjectStore:
        known = self._open.get((spot.kind, spot.bucket))
        if known is None:
            known = await in_thread(self._opened, spot)
            self._open[spot.kind, spot.bucket] = known
        return known

    def _opened(self, spot: Spot) -> ObjectStore:
        try:
            from obstore.exceptions import BaseError
            from obstore.store import AzureStore, GCSStore, S3Store
        except ModuleNotFoundError as error:
            raise RuntimeUnavailable(
                f"{spot.kind}:// addresses need the package obstore, which is not installed.",
                "Install it: pip install 'corral[bucket]'",
            ) from error
        config: Any = self._config(spot)
        options: Any = self._client(str(config.get("endpoint", "")))
        try:
            # One try each: `Patience` counts them, and says when to stop.
            retry: Any = {"max_retries": 0, "retry_timeout": timedelta(seconds=self._access.timeout)}
            if spot.kind == "az":
                account, _, container = spot.bucket.partition("/")
                config["account_name"] = account
                return AzureStore(container, config=config, client_options=options, retry_config=retry)
            kind: Any = {"s3": S3Store, "gs": GCSStore}[spot.kind]
            opened: ObjectStore = kind(spot.bucket, config=config, client_options=options, retry_config=retry)
        except (BaseError, ValueError) as error:
            # Without the library's text, which may quote a credential.
            raise ConfigError(
                f"{spot.kind}://{spot.bucket} cannot be opened as the environment says ({type(error).__name__}).",
                "Check AWS_…, GOOGLE_… or AZURE_STORAGE_…",
            ) from None
        return opened

    def _config(self, spot: Spot) -> dict[str, Any]:
        names, roles = {"s3": (_S3, _S3_ROLES), "gs": (_GS, ()), "az": (_AZ, ())}[spot.kind]
        config: dict[str, Any] = {name: self._env[name] for name in (*names, *roles) if self._env.get(name)}
        if spot.kind == "s3":
            endpoint = self._env.get("AWS_ENDPOINT_URL_S3") or self._env.get("AWS_ENDPOINT_URL")
            config |= {"endpoint": endpoint} if endpoint else {}
        elif spot.kind == "az" and self._env.get("AZURE_STORAGE_ENDPOINT"):
            config["endpoint"] = self._env["AZURE_STORAGE_ENDPOINT"]
        regions = {"AWS_REGION", "AWS_DEFAULT_REGION", "endpoint"}
        if not config.keys() - regions:
            config["skip_signature"] = True
        return config

    def _client(self, endpoint: str) -> dict[str, Any]:
        access = self._access
        stall = access.timeout if access.stall is None else access.stall
        options: dict[str, Any] = {
            "connect_timeout": timedelta(seconds=access.timeout),
            "read_timeout": timedelta(seconds=stall),
            "timeout": timedelta(days=30),  # of a whole answer: it may be a large one
        }
        if endpoint.startswith("http:"):
            host, _ = place(endpoint)
            loopback = host == "localhost" or literal_zone(host) is Zone.LOOPBACK
            if not loopback and not named(endpoint, access.private | access.trusted):
                where = urlsplit(endpoint).netloc.rpartition("@")[2]
                raise AddressRefused(
                    f"The buckets' endpoint {where} is not encrypted.",
                    f"Use https, or allow it: CORRAL_SOURCES_ALLOW_PRIVATE={where}",
                )
            options["allow_http"] = True
        if access.ca is not None and access.ca.is_file():
            options["root_certificate"] = access.ca.read_text()
        proxy = access.proxies.get("https") or access.proxies.get("all")
        host = (urlsplit(endpoint).hostname or "") if endpoint else ""
        if proxy and not (host and goes_direct(host, urlsplit(endpoint).port, access.proxies.get("no", ""))):
            options["proxy_url"] = proxy if "://" in proxy else f"http://{proxy}"
        return options


@contextmanager
def translated(spot: Spot) -> Iterator[None]:
    """Turn what the library raises inside into Corral's words for doing something at `spot`."""
    from obstore.exceptions import BaseError

    try:
        yield
    except FileNotFoundError:
        raise SourceNotFound(f"{spot} does not exist.", "Check the bucket and the key.") from None
    except BaseError as error:
        raise _translate(error, spot) from None


def _translate(error: Exception, spot: Spot) -> SourceError | SourceNotFound:
    kind = type(error).__name__
    found = _STATUS.search(str(error))
    status = int(found[1]) if found else None
    if kind in {"PermissionDeniedError", "UnauthenticatedError"} or status in {401, 403}:
        return LoginRequired(
            f"{spot} is not for everybody, and the credentials in the environment do not open it.",
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS or "
            "AZURE_STORAGE_ACCOUNT_KEY.",
        )
    if status == 404:
        return SourceNotFound(f"{spot.kind}://{spot.bucket} does not exist.", "Check the bucket's name.")
    if kind == "PreconditionError":
        return Transient(f"{spot} was changed meanwhile.", "Try again.", after=0.0)
    if kind == "GenericError" and (status is None or status in _PASSING):
        return Transient(f"{spot} cannot be reached ({status or 'no connection'}).", "Try again later.")
    return SourceError(f"{spot} refused ({status or kind}).", "Check the bucket and what you may do there.")


async def blocks(path: Path) -> AsyncIterator[bytes]:
    """The bytes of a local file, in blocks."""
    with path.open("rb") as stream:
        while block := await in_thread(stream.read, PIECE):
            yield block
