"""The management API of a server, as a client of it: whole answers, events, and operations to their end."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from support.servers import Server

MODELS = "/api/v1/models"


class Reply:
    """An answer, whole."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {key.lower(): value for key, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])


class Client:
    """Asks a server below `/api/v1/models`."""

    def __init__(self, server: Server, headers: dict[str, str] | None = None) -> None:
        self.server = server
        self.folder: Path = server.home.parent
        self._headers = headers or {}

    @contextmanager
    def open(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, *, base: str = MODELS
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer as it comes."""
        parts = urlsplit(self.server.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        try:
            kind = {} if data is None else {"content-type": "application/json"}
            connection.request(method, base + path, data, {**kind, **self._headers, **(headers or {})})
            yield connection.getresponse()
        finally:
            connection.close()

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, *, base: str = MODELS
    ) -> Reply:
        """The whole answer."""
        with self.open(method, path, body, headers, base=base) as response:
            return Reply(response)

    def chunked(self, method: str, path: str, pieces: list[bytes]) -> Reply:
        """The whole answer to a body of unknown length."""
        parts = urlsplit(self.server.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        try:
            kind = {"content-type": "application/json", "transfer-encoding": "chunked"}
            connection.request(method, MODELS + path, iter(pieces), kind, encode_chunked=True)
            return Reply(connection.getresponse())
        finally:
            connection.close()

    def events(self, operation_id: str, headers: dict[str, str] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each event's id and what it tells, until the server ends."""
        with self.open("GET", f"/operations/{operation_id}/events", headers=headers) as response:
            yield from told(response)

    def ended(self, operation_id: str) -> dict[str, Any]:
        """The operation when it has ended."""
        (*_, (_, last)) = self.events(operation_id)
        assert last["status"] in ("completed", "failed", "cancelled"), last
        return last

    def settled_tag(self, path: str) -> str:
        """The tag of a list once it stays the same: just after a change, it is made anew each time."""
        last = ""
        for _ in range(1000):
            tag = self.ask("GET", path).headers["etag"]
            if tag == last:
                return tag
            last = tag
        raise AssertionError("the tag never settled")

    @staticmethod
    def quoted(name: str) -> str:
        return quote(name, safe="")


def told(response: http.client.HTTPResponse) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each event's id and what it tells, until the server ends."""
    assert response.status == 200, response.read()
    assert response.getheader("content-type", "").startswith("text/event-stream")
    name = ""
    for line in response:
        if line.startswith(b"id: "):
            name = line[4:].decode().strip()
        elif line.startswith(b"data: "):
            yield name, json.loads(line[6:])
