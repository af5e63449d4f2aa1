"""A server with a project whose artifacts a browser looks at."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

from support.servers import corral_server

TYPES = {"tsx": "text/tsx", "html": "text/html", "svg": "image/svg+xml", "md": "text/markdown", "py": "text/x-python"}
_NUMBERS = count()


@dataclass(frozen=True)
class Previews:
    """A project on a running server; `key` is what it asks for, if any."""

    url: str
    key: str | None = None

    def ask(self, method: str, path: str, body: Any = None, media_type: str = "application/json") -> Any:
        """What the management API answers."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        headers = {"content-type": media_type, **({"x-api-key": self.key} if self.key else {})}
        with urlopen(Request(f"{self.url}/api/v1/{path}", data, headers, method=method), timeout=30) as answer:
            return json.loads(answer.read())

    def put(self, name: str, source: str) -> str:
        """A new artifact's id. `name` may be used again: each is of a project of its own."""
        project = self.ask("POST", "projects", {"name": f"shown-{next(_NUMBERS)}"})["project"]["id"]
        kind = TYPES.get(name.rpartition(".")[2], "text/plain")
        path = f"artifacts/content?project={project}&name={quote(name)}"
        return str(self.ask("POST", path, source.encode(), kind)["artifact"]["id"])

    def edit(self, identity: str, source: str) -> None:
        """The artifact's next edition."""
        self.ask("PUT", f"artifacts/{identity}/content", source.encode(), "text/plain")

    def look(self, identity: str) -> Any:
        """The artifact as the API shows it."""
        return self.ask("GET", f"artifacts/{identity}/preview")["preview"]

    def page(self, *artifacts: str) -> str:
        """Where the artifacts are shown, beside each other."""
        first, *others = artifacts
        return f"{self.url}/ui/preview.html?artifact={first}" + "".join(f"&with={other}" for other in others)


@contextmanager
def previews(home: Path, replies: Mapping[str, str] | None = None, *, key: str | None = None) -> Iterator[Previews]:
    """A server of its own for the block's length; `replies` are models, and what each always answers."""
    models = {name: {"runtime": "fake", "options": {"reply": text}} for name, text in (replies or {}).items()}
    env = {"CORRAL_API_KEY": key} if key else None
    with corral_server(home, json.dumps({"models": models}), env=env) as server:
        yield Previews(server.url, key)
