"""The workspace of a server, as a client of it: projects, contexts, pipelines, runs and artifacts over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from support.api import Client, Reply, told
from support.servers import Server

API = "/api/v1"

ONE_STEP = """
name: greet
inputs:
  topic: {type: string, required: true}
steps:
  hello:
    model: robot
    prompt: "Say hello to {{ inputs.topic }}"
"""
"""A pipeline that any server with a model called robot can run."""


class Studio(Client):
    """Asks a server below `/api/v1`."""

    def __init__(self, server: Server, key: str | None = None) -> None:
        super().__init__(server, {} if key is None else {"authorization": f"Bearer {key}"})

    def do(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, *, base: str = API
    ) -> Reply:
        """The whole answer."""
        return self.ask(method, path, body, headers, base=base)

    def get(self, path: str, **headers: str) -> Any:
        """What is there; it has to be."""
        return self._fine(self.do("GET", path, headers=named(headers)))

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        """What came of it; it has to be done."""
        return self._fine(self.do("POST", path, body, named(headers)))

    def upload(self, method: str, path: str, content: bytes, kind: str = "text/plain", **headers: str) -> Reply:
        """The answer to a file."""
        return self.do(method, path, content, {"content-type": kind, **named(headers)})

    def project(self, name: str = "web", **more: Any) -> dict[str, Any]:
        """A new project."""
        return dict(self.post("/projects", {"name": name, **more})["project"])

    def artifact(self, project: str, name: str = "src/a.txt", text: str = "one\n", **more: Any) -> dict[str, Any]:
        """A new artifact."""
        made = self.post("/artifacts", {"project": project, "name": name, "text": text, **more})
        return dict(made["artifact"])

    def messages(self, run: str, headers: dict[str, str] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each event's id and what it tells, until the server ends."""
        with self.open("GET", f"/runs/{run}/events", headers=headers, base=API) as response:
            yield from told(response)

    def finished(self, run: str) -> dict[str, Any]:
        """The run when it has ended."""
        (*_, (_, last)) = self.messages(run)
        assert last["type"] == "end", last
        return dict(self.get(f"/runs/{run}")["run"])

    @staticmethod
    def _fine(reply: Reply) -> Any:
        assert reply.status in (200, 201), (reply.status, reply.body[:500])
        return reply.json


def named(headers: dict[str, str]) -> dict[str, str]:
    """Headers that were given as arguments."""
    return {name.replace("_", "-"): value for name, value in headers.items()}
