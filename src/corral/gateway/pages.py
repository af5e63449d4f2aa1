"""What is answered without an engine: what this server is, how it is, and which models there are, in each dialect."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from corral import __version__
from corral.app import measuring
from corral.domain.callers import Caller
from corral.domain.models import Capability
from corral.domain.states import State
from corral.errors import CorralError
from corral.gateway.inference import openai
from corral.routing.keys import may_use, seen_by

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from corral.app import Corral
    from corral.app.corral import Definition

_JSON = b"application/json"
_TEXT = b"text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Asking:
    """A request for a page: who asks, and the headers."""

    caller: Caller
    headers: Mapping[bytes, bytes]

    @property
    def anthropic(self) -> bool:
        """Whether a client of Anthropic's asks, where a path is shared."""
        return b"anthropic-version" in self.headers


@dataclass(frozen=True, slots=True)
class Page:
    """What is answered: a status and a body."""

    body: bytes
    status: int = 200
    kind: bytes = _JSON

    @classmethod
    def of(cls, content: Any, status: int = 200) -> Page:
        """A page of JSON."""
        return cls(orjson.dumps(content), status)


class Pages:
    """Every page that has a path of its own. `public` are those that need no key.

    Args:
        corral: the parts.
        loading: the models that are being loaded before the server is ready.
    """

    def __init__(self, corral: Corral, loading: set[str]) -> None:
        self._corral = corral
        self._loading = loading
        self._started = int(corral.clock.wall())
        self.public: dict[str, Callable[[], Page]] = {
            "/": self._root,
            "/health": self._health,
            "/healthz": self._health,
            "/readyz": self._ready,
            "/version": self._version,
        }
        self.closed: dict[str, Callable[[Asking], Awaitable[Page]]] = {
            "/v1/models": self._models,
            "/v1beta/models": self._gemini_models,
            "/metrics": self._metrics,
        }

    async def model(self, name: str, asking: Asking) -> Page:
        """One model, as `/v1/models/NAME` tells of it."""
        self._check(name, asking.caller)
        entry = self._anthropic(name) if asking.anthropic else self._openai(name)
        return Page.of(entry)

    async def gemini_model(self, name: str, asking: Asking) -> Page:
        """One model, as `/v1beta/models/NAME` tells of it."""
        self._check(name, asking.caller)
        return Page.of(self._gemini(name))

    def names(self, caller: Caller) -> Iterator[str]:
        """The models and routes that the caller may ask for."""
        corral = self._corral
        for name in dict.fromkeys((*corral.routes.names(), *corral.names())):
            if may_use(caller, name):
                yield name

    def _check(self, name: str, caller: Caller) -> None:
        may = seen_by(caller)
        if not may_use(caller, name):
            raise self._corral.unknown(name, may)
        if may is not None and name not in self._corral.routes.names():
            self._corral.definition(name, may)  # which may mean nothing: then no more is named than the caller may see

    def _all(self, caller: Caller, entry: Callable[[str], dict[str, Any]]) -> list[dict[str, Any]]:
        found = []
        for name in self.names(caller):
            with suppress(CorralError):  # what cannot be asked for is not offered; whoever names it is told why
                found.append(entry(name))
        return found

    def _root(self) -> Page:
        return Page.of(
            {
                "name": "Corral",
                "version": __version__,
                "openai": "/v1",
                "anthropic": "/v1/messages",
                "gemini": "/v1beta",
                "ollama": "/api",
                "management": "/api/v1",
                "docs": "/docs",
            }
        )

    def _health(self) -> Page:
        return Page.of({"status": "ok"})

    def _version(self) -> Page:
        return Page.of({"version": __version__})

    def _ready(self) -> Page:
        if self._loading:
            return Page.of({"status": "loading", "waiting_for": len(self._loading)}, 503)
        return Page.of({"status": "ready"})

    async def _metrics(self, _: Asking) -> Page:
        return Page(await measuring.look(self._corral), kind=_TEXT)

    async def _models(self, asking: Asking) -> Page:
        if asking.anthropic:
            data = self._all(asking.caller, self._anthropic)
            ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
            return Page.of({"data": data, "has_more": False, **ends})
        return Page.of({"object": "list", "data": self._all(asking.caller, self._openai)})

    async def _gemini_models(self, asking: Asking) -> Page:
        return Page.of({"models": self._all(asking.caller, self._gemini)})

    def _openai(self, name: str) -> dict[str, Any]:
        route = name if name in self._corral.routes.names() else None
        if route is not None:
            return openai.model_entry(name, self._started, "corral", {"runtime": "route", "state": State.READY})
        definition = self._corral.definition(name)
        states = {s.model: s.state for s in self._corral.supervisor.statuses()}
        extra = {"runtime": definition.runtime, "state": states.get(definition.name, State.COLD)}
        return openai.model_entry(definition.name, self._created(definition), "corral", extra)

    def _anthropic(self, name: str) -> dict[str, Any]:
        created = self._started if name in self._corral.routes.names() else self._created(self._corral.definition(name))
        at = datetime.fromtimestamp(created, UTC).isoformat().replace("+00:00", "Z")
        return {"type": "model", "id": name, "display_name": name, "created_at": at}

    def _gemini(self, name: str) -> dict[str, Any]:
        entry: dict[str, Any] = {"name": f"models/{name}", "version": "1", "displayName": name}
        able: frozenset[Capability] | None = None
        if name not in self._corral.routes.names():
            definition = self._corral.definition(name)
            known = self._corral.routes.known(definition.name)
            able = known.capabilities
            if known.context is not None:
                entry["inputTokenLimit"] = known.context
        methods = ["generateContent", "streamGenerateContent", "countTokens"]
        if able is not None and Capability.EMBEDDINGS in able:
            methods += ["embedContent", "batchEmbedContents"]
        return {**entry, "supportedGenerationMethods": methods}

    def _created(self, definition: Definition) -> float:
        return definition.installed.installed_at if definition.installed else self._started
