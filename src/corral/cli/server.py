"""A running Corral server, as the commands ask it: over HTTP, by Corral's own client, which is quick to import."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlencode

from corral.domain.operations import Failure, Operation, OperationStatus, Order
from corral.errors import CorralError, NotSupported, ServerNotRunning, UpstreamError
from corral.kit.sse import Reader
from corral.kit.upstream import Response, Target, Timeouts, Upstream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

    from corral.cli.invocation import Invocation
    from corral.kit.upload import Upload

_PATIENCE = Timeouts(connect=5.0, first_byte=3600.0, between=600.0)
_RUNTIME = "/api/v1/runtime"
_MODELS = f"{_RUNTIME}/models"
_CATALOG = "/api/v1/models"
_OPERATIONS = f"{_CATALOG}/operations"
_SERVICES = "/api/v1/services"
_CONTAINERS = "/api/v1/containers"


def kinds(root: type[CorralError] = CorralError) -> Iterator[type[CorralError]]:
    """Every class of error, the general before the special."""
    yield root
    for kind in root.__subclasses__():
        yield from kinds(kind)


def error_of(content: Mapping[str, Any]) -> CorralError:
    """The error that a server described: of the class with that code, so that it ends in the same exit code here."""
    code = content.get("code")
    kind = next((kind for kind in kinds() if kind.code == code), CorralError)
    return kind(str(content.get("message") or "The server gave no reason."), str(content.get("hint") or ""))


_NAMES = {
    "message": "message",
    "phase": "phase",
    "done": "done_bytes",
    "total": "total_bytes",
    "rate": "rate",
    "eta": "eta_seconds",
    "attempts": "attempts",
    "created_at": "created_at",
    "started_at": "started_at",
    "ended_at": "ended_at",
    "result": "result",
    "progress": "progress",
}
"""What an operation's fields are called over HTTP."""


def operation_of(content: Mapping[str, Any]) -> Operation:
    """The operation that a server described; what it did not say is unknown.

    Raises:
        KeyError, ValueError, TypeError: it is none.
    """
    failure = content.get("failure")
    given = {"created_at": 0.0} | {
        field: content[name] for field, name in _NAMES.items() if content.get(name) is not None
    }
    return Operation(
        id=str(content["operation_id"]),
        order=Order(str(content["operation_type"]), str(content["model_name"]), dict(content.get("params") or {})),
        status=OperationStatus(content["status"]),
        error=None
        if failure is None
        else Failure(str(failure["code"]), str(failure["message"]), str(failure.get("hint") or "")),
        **given,
    )


def _request(order: Order) -> tuple[str, str, dict[str, Any] | None]:
    """Method, path and body of the request that orders this.

    Raises:
        NotSupported: there is no such request.
    """
    params, name = order.params, quote(order.model)
    match order.kind:
        case "install":
            body = _given(name=params["what"], alias=params.get("name"), runtime=params.get("runtime"))
            return "POST", f"{_CATALOG}/registry/install", body
        case "remove":
            return "DELETE", f"{_CATALOG}/registry/{name}?force={str(bool(params.get('force'))).lower()}", None
        case "gc":
            return "POST", f"{_CATALOG}/gc", {"dry_run": bool(params.get("dry_run"))}
        case "verify" if not name:
            return "POST", f"{_CATALOG}/verify", None
        case "update" | "verify":
            return "POST", f"{_CATALOG}/{name}/{order.kind}", None
        case "push" | "move" as kind:
            return "POST", f"{_CATALOG}/{name}/{kind}", dict(params)
        case "container-pull":
            return "POST", f"{_CONTAINERS}/{quote(order.model, safe='')}/models", {"model": params["model"]}
        case "container-update":
            return "POST", f"{_CONTAINERS}/update", dict(params)
    raise NotSupported(f"A server cannot be asked to {order.kind}.")


def _named(disposition: str) -> str:
    """The file name that a `Content-Disposition` tells; empty where it tells none."""
    from email.message import Message

    message = Message()
    message["content-disposition"] = disposition
    return message.get_filename() or ""


async def _whole(response: Response) -> AsyncGenerator[bytes, None]:
    """The body of an answer as it comes.

    Raises:
        UpstreamError: it broke off.
    """
    try:
        async for piece in response:
            yield piece
    except UpstreamError as error:
        raise type(error)(f"The answer broke off: {error.message}", "Is the server still there? corral ps") from error


def _given(**values: Any) -> dict[str, Any] | None:
    return {key: value for key, value in values.items() if value is not None} or None


@dataclass(frozen=True, slots=True)
class File:
    """A file as it comes: what it is called, and what should be known of it, a sentence each."""

    name: str
    pieces: AsyncIterable[bytes]
    notes: tuple[str, ...] = ()


class Server:
    """The server at `url`, which may end in the `/v1` of OpenAI's clients. Use it inside one loop, and close it.

    Raises (every method):
        ServerNotRunning: nobody answers there, or it is not a Corral.
        CorralError: what the server said.
    """

    @classmethod
    def of(cls, invocation: Invocation) -> Self:
        """The server that the commands of this invocation ask; it is for the caller to close.

        Raises:
            ServerNotRunning: there is none.
        """
        where = invocation.running()
        if where is None:
            raise ServerNotRunning(
                f"No Corral server runs for {invocation.place()}.", "Start one in another terminal: corral serve"
            )
        return cls(where.url, invocation.key() or where.token, invocation.env)

    def __init__(self, url: str, key: str | None = None, env: Mapping[str, str] | None = None) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._target = Target.of(self.url, headers)
        self._upstream = Upstream(env)

    async def close(self) -> None:
        """Close its connections."""
        await self._upstream.close()

    async def models(self) -> list[dict[str, Any]]:
        """Every model it knows."""
        return list(await self._call("GET", _MODELS, "models"))

    async def model(self, name: str) -> dict[str, Any]:
        """One model."""
        return dict(await self._call("GET", f"{_MODELS}/{quote(name)}", "model"))

    async def load(self, name: str, *, keep_alive: str | None = None, wait: bool = True) -> dict[str, Any]:
        """Bring a model into memory; returns when it is ready, or without `wait` at once, as a hint.

        `keep_alive` says for how long it may be unused from now on, such as `10m`.
        """
        query = {"model_name": name, "wait": str(wait).lower()} | ({"keep_alive": keep_alive} if keep_alive else {})
        return dict(await self._call("POST", f"{_MODELS}/load?{urlencode(query)}", "model"))

    async def explain(self, name: str) -> dict[str, Any]:
        """What would happen to a request for a model now, and why."""
        return dict(await self._call("GET", f"{_RUNTIME}/explain?{urlencode({'model': name})}", "explanation"))

    async def route(
        self, document: Mapping[str, Any], dialect: str, model: str | None, *, strict: bool
    ) -> dict[str, Any]:
        """Where a request would go, and why; `model` is the name asked for where the request does not say it."""
        query = {"dialect": dialect, "strict": str(strict).lower()} | ({} if model is None else {"model": model})
        return dict(await self._call("POST", f"{_RUNTIME}/route?{urlencode(query)}", "plan", document))

    def happenings(self) -> AsyncGenerator[dict[str, Any], None]:
        """How it stands in memory, and then each change, until the server leaves."""
        return self.told(f"{_RUNTIME}/events")

    async def told(self, path: str) -> AsyncGenerator[dict[str, Any], None]:
        """Each event of a stream of the management API, until it ends; what it says went wrong is raised."""
        response = await self._ask("GET", path)
        try:
            if response.status >= 400:
                raise self._refusal(await self._document(response))
            async for data in self._events(response):
                event = self._parse(data)
                if event.get("success") is False:
                    raise self._refusal(event)
                yield event
        finally:
            response.close()

    async def unload(self, name: str, *, force: bool = False, drain: float | None = None) -> dict[str, Any]:
        """Take a model out of memory. `drain`: seconds that answers under way may still take."""
        query = {"model_name": name, "force": str(force).lower()} | ({} if drain is None else {"drain": f"{drain:g}"})
        return dict(await self._call("POST", f"{_MODELS}/unload?{urlencode(query)}", "model"))

    async def reload(self) -> dict[str, Any]:
        """Have the server read its configuration again; it refuses one that cannot be used, and goes on as before."""
        return await self._whole("POST", "/api/v1/runtime/reload", "later")

    async def log(self, name: str) -> list[str]:
        """The last lines of a model's engine."""
        return list(await self._call("GET", f"{_MODELS}/{quote(name)}/log", "lines"))

    async def services(self) -> list[dict[str, Any]]:
        """Every service of its configuration."""
        return list(await self._call("GET", _SERVICES, "services"))

    async def service(self, name: str, verb: str, *, wait: bool | None = None) -> dict[str, Any]:
        """Start, stop, restart, install or uninstall a service, or ask for its `status`; how it stands then."""
        path = f"{_SERVICES}/{quote(name, safe='')}"
        if verb == "status":
            return dict(await self._call("GET", path, "service"))
        return dict(await self._call("POST", f"{path}/{verb}", "service", _given(wait=wait)))

    async def service_log(self, name: str, lines: int) -> list[str]:
        """The last lines that a service printed."""
        return list(await self._call("GET", f"{_SERVICES}/{quote(name, safe='')}/log?lines={lines}", "lines"))

    async def submit(self, order: Order) -> Operation:
        """Hand an operation over; an equal one that has not ended is joined."""
        method, path, body = _request(order)
        return await self.operation(str(await self._call(method, path, "operation_id", body)))

    async def rollback(self, name: str, revision: str | None) -> dict[str, Any]:
        """Let a model stand for an earlier revision."""
        return dict(await self._call("POST", f"{_CATALOG}/{quote(name)}/rollback", "model", _given(revision=revision)))

    async def pin(self, name: str, revision: str | None, *, off: bool) -> dict[str, Any]:
        """Hold a model at a revision, or let it go."""
        path = f"{_CATALOG}/{quote(name)}/pin"
        if off:
            return dict(await self._call("DELETE", path, "model"))
        return dict(await self._call("POST", path, "model", _given(revision=revision)))

    async def revisions(self, name: str) -> list[dict[str, Any]]:
        """The revisions that a model has had, newest first."""
        return list(await self._call("GET", f"{_CATALOG}/{quote(name)}/revisions", "revisions"))

    async def change_of(self, name: str) -> dict[str, Any]:
        """What an update of a model would bring."""
        path = f"{_CATALOG}/{quote(name)}/update"
        return await self._whole("GET", path, "changed")

    async def question(self, path: str, field: str) -> dict[str, Any]:
        """The answer to a GET, which has that field."""
        return await self._whole("GET", path, field)

    async def tell(self, method: str, path: str, field: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer to any request of the management API, which has that field."""
        return await self._whole(method, path, field, body)

    async def send(
        self, method: str, path: str, field: str, content: Upload, media_type: str = "application/octet-stream"
    ) -> dict[str, Any]:
        """The answer to a request whose body is read while it is sent; it has that field."""
        return await self._read(await self._sent(method, path, content, media_type), field)

    async def poured(self, path: str) -> AsyncGenerator[bytes, None]:
        """What is behind `path`, as it comes."""
        async with self.file(path) as file:
            async for piece in file.pieces:
                yield piece

    @asynccontextmanager
    async def file(self, path: str) -> AsyncGenerator[File, None]:
        """The file behind `path`; it comes while it is read, within the block."""
        response = await self._ask("GET", path)
        try:
            if response.status >= 400:
                raise self._refusal(await self._document(response))
            disposition = (response.header(b"content-disposition") or b"").decode("latin-1")
            notes = tuple(json.loads(response.header(b"x-corral-notes") or b"[]"))
            yield File(_named(disposition), _whole(response), notes)
        finally:
            response.close()

    async def room(self) -> dict[str, Any]:
        """What takes what in its store."""
        return await self._whole("GET", f"{_CATALOG}/df", "total")

    async def search(self, text: str, limit: int, source: str | None) -> dict[str, Any]:
        """What is there and what can be had that matches."""
        query = urlencode({"q": text, "limit": str(limit)} | ({"source": source} if source else {}))
        return await self._whole("GET", f"{_CATALOG}/search?{query}", "models")

    async def operation(self, identifier: str) -> Operation:
        """One operation as it stands."""
        return self._operation(await self._call("GET", f"{_OPERATIONS}/{quote(identifier)}", "operation"))

    async def operations(self, limit: int) -> list[Operation]:
        """The newest operations, newest first."""
        found = await self._call("GET", f"{_OPERATIONS}?limit={limit}", "operations")
        return [self._operation(item) for item in found]

    async def change(self, identifier: str, verb: str) -> Operation:
        """`cancel`, `pause` or `resume` it."""
        return self._operation(await self._call("POST", f"{_OPERATIONS}/{quote(identifier)}/{verb}", "operation"))

    async def watch(self, identifier: str) -> AsyncGenerator[Operation, None]:
        """The operation now, and at each change, until it has ended."""
        response = await self._ask("GET", f"{_OPERATIONS}/{quote(identifier)}/events")
        try:
            if response.status >= 400:
                raise self._refusal(await self._document(response))
            async for data in self._events(response):
                content = self._parse(data)
                yield self._operation(content.get("operation", content))
        finally:
            response.close()

    def _operation(self, content: Mapping[str, Any]) -> Operation:
        try:
            return operation_of(content)
        except (KeyError, ValueError, TypeError) as error:
            raise self._stranger() from error

    async def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks that answer a chat-completions body with `stream` set. Leaving early cancels the answer."""
        response = await self._ask("POST", "/v1/chat/completions", body)
        try:
            if response.status >= 400:
                raise self._refusal(await self._document(response))
            async for data in self._events(response):
                if data == "[DONE]":
                    return
                chunk = self._parse(data)
                if "error" in chunk:
                    raise self._refusal(chunk)
                yield chunk
        finally:
            response.close()

    async def _events(self, response: Response) -> AsyncIterator[str]:
        reader = Reader()
        async for chunk in _whole(response):
            for data in reader.feed(chunk):
                yield data

    async def _call(self, method: str, path: str, field: str, body: Mapping[str, Any] | None = None) -> Any:
        return (await self._whole(method, path, field, body))[field]

    async def _whole(self, method: str, path: str, field: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The whole answer, which has that field."""
        return await self._read(await self._ask(method, path, body), field)

    async def _read(self, response: Response, field: str) -> dict[str, Any]:
        try:
            document = await self._document(response)
        finally:
            response.close()
        if response.status >= 400 or field not in document:
            raise self._refusal(document)
        return document

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Response:
        content = b"" if body is None else json.dumps(body).encode()
        return await self._sent(method, path, content, "application/json")

    async def _sent(self, method: str, path: str, content: bytes | Upload, media_type: str) -> Response:
        headers = [] if content == b"" else [(b"content-type", media_type.encode())]
        try:
            return await self._upstream.request(
                self._target, method, path, headers=headers, body=content, timeouts=_PATIENCE
            )
        except UpstreamError as error:
            raise ServerNotRunning(
                f"No Corral server answers at {self.url}: {error.message}", "Start one with: corral serve"
            ) from error

    async def _document(self, response: Response) -> dict[str, Any]:
        try:
            content = await response.read()
        except UpstreamError as error:
            raise ServerNotRunning(
                f"The server at {self.url} went away: {error.message}", "Start it: corral serve"
            ) from error
        return self._parse(content.decode("utf-8", "replace"))

    def _parse(self, text: str) -> dict[str, Any]:
        try:
            document = json.loads(text)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise self._stranger()
        return document

    def _stranger(self) -> ServerNotRunning:
        return ServerNotRunning(f"What answers at {self.url} is not a Corral server.", "Check --url and CORRAL_URL.")

    def _refusal(self, document: Mapping[str, Any]) -> CorralError:
        content = document.get("error")
        if isinstance(content, Mapping):
            return error_of(content)
        if isinstance(content, str):
            return error_of({"message": content})
        return self._stranger()
