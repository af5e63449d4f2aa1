"""The way to a Docker engine: where settings, environment and contexts say it is, in a version of its API known here.

Connections are made as they are needed and kept by nobody, so that an engine that went away and came back is simply
there again. The version of the API is agreed on at the first call, and anew after each failure.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from corral.containers.contexts import Place, Places, locate, secured
from corral.containers.failures import told
from corral.containers.streams import JsonReader
from corral.errors import DockerUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import aiohttp
    from aiodocker import Docker as Client

OLDEST, NEWEST = (1, 40), (1, 51)
"""Versions of the API: GPUs are asked for since the first; the second is the newest that this was written for."""


class Connection:
    """The way to one engine; nothing is asked before the first call.

    `timeout` is how long an ordinary answer may take, in seconds. `about` is for what the engine says of itself; after
    a failure it is empty, since another may answer then. `doing` says everywhere what could not be done.

    Raises:
        DockerUnavailable: from every call: the engine does not answer, or is not to be talked to.
        ContainerError, NotFound, Conflict: from every call: the engine refuses, as it says.
    """

    def __init__(self, places: Places, timeout: float) -> None:
        self.places = places
        self.timeout = timeout
        self.about: Mapping[str, Any] = {}
        self._client: Client | None = None
        self._place: Place | None = None
        self._base = ""
        self._connecting = asyncio.Lock()

    def where(self) -> Place:
        """Where the engine is that answers; before the first call, where it should be."""
        return self._place if self._place is not None else locate(self.places)

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        client, self._client, self._base = self._client, None, ""
        if client is not None:
            await client.session.close()
            await client.close()

    async def fetch(
        self, path: str, doing: str, asked: Mapping[str, str] | None = None, image: str | None = None
    ) -> Any:
        """A whole answer in JSON."""
        async with self.sent("GET", path, doing, asked, image=image, timeout=self.timeout) as answer:
            return await answer.json()

    async def objects(self, path: str, doing: str, asked: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
        """What an answer tells in JSON, one thing after the other, for as long as it goes on."""
        reader = JsonReader()
        async with self.sent("GET", path, doing, asked, timeout=None) as answer:
            async for data in answer.content.iter_any():
                for said in reader.feed(data):
                    yield said

    @asynccontextmanager
    async def sent(
        self,
        method: str,
        path: str,
        doing: str,
        asked: Mapping[str, str] | None = None,
        *,
        image: str | None = None,
        timeout: float | None = 60.0,
        body: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The head of an answer, whose body the caller reads; a refusal is raised. Without a timeout it may go on."""
        import aiohttp
        from aiodocker.exceptions import DockerError

        async with self.asked(doing, image) as client:
            limits = aiohttp.ClientTimeout(total=timeout, sock_connect=self.timeout)
            url = f"{self._base}/{path}"
            async with client.session.request(method, url, params=asked, timeout=limits, json=body) as answer:
                if answer.status >= 400:
                    raise DockerError(answer.status, await _refusal(answer))
                yield answer

    @asynccontextmanager
    async def asked(self, doing: str, image: str | None = None) -> AsyncIterator[Client]:
        """A client on the engine; failures become ours, and after one the engine is got to know anew."""
        place = locate(self.places) if self._client is None else self.where()
        try:
            async with told(place, doing, image):
                yield await self._connected(place)
        except DockerUnavailable:
            self._base, self.about = "", {}
            if self._client is not None and locate(self.places) != place:
                await self.close()  # it was said meanwhile that the engine is elsewhere
            raise

    async def _connected(self, place: Place) -> Client:
        if self._client is not None and self._base:
            return self._client
        async with self._connecting:
            if self._client is None:
                self._client, self._place = self._made(place), place
            if not self._base:
                version = await _agreed(self._client, place)
                self._client.api_version = f"v{version}"
                self._base = f"{'https' if place.tls else 'http'}://{_host(place)}/v{version}"
            return self._client

    def _made(self, place: Place) -> Client:
        import aiodocker
        import aiohttp

        connector: aiohttp.BaseConnector
        if place.socket is not None:
            connector = aiohttp.UnixConnector(str(place.socket), limit=0, force_close=True)
        else:
            tls = True if place.tls is None else secured(place.tls)
            connector = aiohttp.TCPConnector(limit=0, force_close=True, ssl=tls)
        limits = aiohttp.ClientTimeout(total=self.timeout)
        session = aiohttp.ClientSession(connector=connector, timeout=limits, trust_env=False)
        address = f"{'https' if place.tls else 'http'}://{_host(place)}"
        client = aiodocker.Docker(url=address, connector=connector, session=session, timeout=limits)
        client.docker_host = address
        return client


async def _agreed(client: Client, place: Place) -> str:
    """The version of the API to speak: the engine's own, and none that is not known here."""
    # Without a version in its path the engine answers whoever asks.
    async with client.session.get(f"{client.docker_host}/version") as answer:
        if answer.status >= 400:
            raise DockerUnavailable(
                f"What answers at {place.address} (from {place.origin}) does not talk to us as a Docker engine: "
                f"{answer.status} {await _refusal(answer)}",
                "Check the address, and whether it wants certificates: DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH.",
            )
        said = await answer.json()
    newest, oldest = (version_of(said.get(name, "")) for name in ("ApiVersion", "MinAPIVersion"))
    if newest < OLDEST:
        raise DockerUnavailable(
            f"The Docker engine at {place.address} is too old: it is version {said.get('Version')} with the API "
            f"{said.get('ApiVersion')}, and {OLDEST[0]}.{OLDEST[1]} is needed.",
            "Use Docker 19.03 or newer.",
        )
    major, minor = min(newest, max(NEWEST, oldest))
    return f"{major}.{minor}"


async def _refusal(answer: aiohttp.ClientResponse) -> str:
    """The engine's words; they are JSON, unless something between us and the engine answers."""
    text = await answer.text(errors="replace")
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(text)["message"])
    return text.strip() or str(answer.reason)


def version_of(text: str) -> tuple[int, int]:
    """The two numbers of a version of the API; zeros for what is none."""
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)


def _host(place: Place) -> str:
    return "docker" if place.socket is not None else place.address.partition("://")[2]
