"""The preview's page with a workspace that a test fills by hand: the real built files and headers, the API played."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from corral.errors import CorralError
from corral.gateway.ui import Ui

TYPES = {"tsx": "text/tsx", "html": "text/html", "svg": "image/svg+xml", "markdown": "text/markdown"}


def prop(
    name: str, type: str = "string", *, required: bool = False, default: Any = None, **more: Any
) -> dict[str, Any]:
    """A prop as the API tells of it."""
    return {"name": name, "type": type, "required": required, "default": default, "options": [], "doc": "", **more}


@dataclass
class Workspace:
    """What the API tells. `asked` are the repairs that were asked for, `repaired` what the model answers to them."""

    url: str = ""
    key: str | None = None
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    repaired: str = ""

    def put(self, name: str, kind: str, source: str, *props: dict[str, Any], **more: Any) -> str:
        """An artifact's id."""
        identity = f"art-{len(self.artifacts):012x}"
        artifact = {
            "id": identity,
            "name": name,
            "kind": kind,
            "media_type": TYPES.get(kind, "text/plain"),
            "title": "",
            "version": 1,
            "number": 1,
            "run": None,
            "step": None,
        }
        told = {"kind": kind, "source": source, "files": [], "props": list(props), "problems": [], "component": None}
        self.artifacts[identity] = {"artifact": artifact, **told, **more}
        return identity

    def page(self, *artifacts: str) -> str:
        """Where the artifacts are shown, beside each other."""
        first, *others = artifacts
        return f"{self.url}/ui/preview.html?artifact={first}" + "".join(f"&with={other}" for other in others)

    def edit(self, identity: str, source: str) -> None:
        """A next edition."""
        held = self.artifacts[identity]
        held["source"] = source
        held["artifact"] = {
            **held["artifact"],
            "version": held["artifact"]["version"] + 1,
            "number": held["artifact"]["number"] + 1,
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    workspace: Workspace
    ui: Ui

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path.startswith("/ui/"):
            self._page(parts.path)
        elif self._let_in():
            self._api(parts.path.split("/"), parse_qs(parts.query))

    def _api(self, path: list[str], query: dict[str, list[str]]) -> None:
        if path[1:] == ["v1", "models"]:
            self._json({"data": [{"id": "coder"}, {"id": "writer"}]})
        elif path[3:4] == ["artifacts"] and path[5:] == ["preview"] and path[4] in self.workspace.artifacts:
            self._json({"success": True, "preview": self.workspace.artifacts[path[4]]})
        elif path[3:4] == ["runs"] and path[5:] == ["events"]:
            events = [
                {"type": "text", "at": 0, "step": "repair", "text": "Here it is"},
                {"type": "end", "at": 1, "status": "completed"},
            ]
            body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
            self._send(200, body.encode(), [("content-type", "text/event-stream")])
        else:
            self._refuse(404, "entry_missing", f"There is no {path}.")

    def do_PUT(self) -> None:
        body = self._body()
        if self._let_in():
            identity = self.path.split("/")[4]
            held = self.workspace.artifacts[identity]["artifact"]
            if self.headers["if-match"] != f'"{held["version"]}"':
                self._refuse(412, "stale", "It was changed meanwhile.")
                return
            self.workspace.edit(identity, body.decode())
            self._json({"success": True, "artifact": self.workspace.artifacts[identity]["artifact"]})

    def do_POST(self) -> None:
        body = self._body()
        if self._let_in():
            identity = self.path.split("/")[4]
            self.workspace.asked.append(json.loads(body))
            self.workspace.edit(identity, self.workspace.repaired)
            self._json({"success": True, "run": {"id": "run-000000000001", "status": "queued", "error": None}}, 201)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["content-length"] or 0))

    def _let_in(self) -> bool:
        if self.workspace.key in (None, self.headers["x-api-key"]):
            return True
        self._refuse(401, "unauthorized", "A key is needed.")
        return False

    def _page(self, path: str) -> None:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
        try:
            asyncio.run(self.ui.answer(path, headers, send, b"req-1"))
        except CorralError as error:
            self._refuse(error.http_status, error.code, error.message)
            return
        own = [(name.decode(), value.decode()) for name, value in sent[0]["headers"]]
        self._send(
            sent[0]["status"], sent[1]["body"], [(name, value) for name, value in own if name != "content-length"]
        )

    def _json(self, content: Any, status: int = 200) -> None:
        self._send(status, json.dumps(content).encode(), [("content-type", "application/json")])

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._json({"success": False, "error": {"code": code, "message": message, "hint": ""}}, status)

    def _send(self, status: int, body: bytes, headers: list[tuple[str, str]]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 304:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing: a test says itself what went wrong."""


@contextmanager
def played() -> Iterator[Workspace]:
    """A server of the preview's page on loopback, for the block's length."""
    workspace = Workspace()
    handler = type("Handler", (_Handler,), {"workspace": workspace, "ui": Ui()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    workspace.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield workspace
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
