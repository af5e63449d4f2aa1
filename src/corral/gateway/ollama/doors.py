"""The paths of Ollama's API beside inference: which does what, and how it is answered."""

from __future__ import annotations

from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from corral import __version__
from corral.app import launching, modelfile
from corral.domain.callers import Caller
from corral.errors import CorralError, InvalidRequest, ModelBusy, NotFound, NotSupported
from corral.gateway.body import read_body
from corral.gateway.inference import openai
from corral.gateway.ollama import described, pulling
from corral.kit.clients import Clients
from corral.kit.relay import Message, Receive, Send, respond

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from corral.app import Corral
    from corral.app.registration import Registrations
    from corral.domain.generation import ModelConfig
    from corral.gateway.workshop import Workshop

    Lines = AsyncGenerator[dict[str, Any], None]

_SPEAKS = "0.14.2"
"""The version of Ollama whose API this follows. Clients look whether it is recent enough for them."""
_LARGEST = 1024 * 1024
"""Bytes of a body that is taken here."""
_BLOBS = "/api/blobs/"
READING: dict[str, tuple[str, ...]] = {
    "/api/version": ("GET", "HEAD"),
    "/api/tags": ("GET", "HEAD"),
    "/api/ps": ("GET", "HEAD"),
    "/api/show": ("POST",),
}
CHANGING: dict[str, tuple[str, ...]] = {
    "/api/pull": ("POST",),
    "/api/create": ("POST",),
    "/api/copy": ("POST",),
    "/api/delete": ("DELETE",),
    "/api/push": ("POST",),
}


def methods(path: str) -> tuple[str, ...] | None:
    """The methods that a path takes; None: it is none of these."""
    if path.startswith(_BLOBS):
        return ("POST", "HEAD")
    return READING.get(path) or CHANGING.get(path)


def routes() -> list[tuple[str, str]]:
    """Every method and path, as they are documented."""
    known = [(taken[0], path) for path, taken in {**READING, **CHANGING}.items()]
    return [*known, ("POST", f"{_BLOBS}{{digest}}")]


@dataclass(frozen=True, slots=True)
class Errand:
    """One request: what is asked, by whom, and its name. `length` is its Content-Length."""

    method: str
    path: str
    caller: Caller
    request_id: str
    length: bytes | None


class Ollama:
    """Answers them.

    Args:
        corral: the parts.
        workshop: where long work is done.
        registrations: the models that were made of others.
    """

    def __init__(self, corral: Corral, workshop: Workshop, registrations: Registrations) -> None:
        self._corral = corral
        self._workshop = workshop
        self._registrations = registrations
        self._clients = Clients()
        self._streams: dict[str, Callable[[dict[str, Any]], Lines]] = {
            "/api/pull": self._pull,
            "/api/create": self._create,
        }
        self._deeds: dict[str, Callable[[dict[str, Any]], Awaitable[None]]] = {
            "/api/copy": self._copy,
            "/api/delete": self._delete,
            "/api/push": self._push,
        }

    async def answer(self, errand: Errand, receive: Receive, send: Send) -> int:
        """Answer one request; the status.

        Raises:
            CorralError: nothing has been sent yet.
            ClientLeft: the client went away.
        """
        path, headers = errand.path, [(b"x-request-id", errand.request_id.encode())]
        if path.startswith(_BLOBS):
            if errand.method == "HEAD":  # whoever asks sends the file next, and is then told why not
                raise NotFound("There is no such file.")
            raise NotSupported(
                "Corral takes no files of models over this door.",
                "On the machine where Corral runs: corral pull file:PATH",
            )
        body = await read_body(receive, errand.length, _LARGEST)
        if path in self._streams:
            document = openai.loaded(body)
            return await self._tell(self._streams[path](document), document, headers, receive, send)
        if path in self._deeds:
            await self._deeds[path](openai.loaded(body))
            await respond(send, 200, b"", headers)
            return 200
        await respond(send, 200, orjson.dumps(self._page(path, body, errand.caller)), headers)
        return 200

    def _page(self, path: str, body: bytes, caller: Caller) -> dict[str, Any]:
        match path:
            case "/api/version":
                return {"version": _SPEAKS, "corral": __version__}
            case "/api/tags":
                return described.tags(self._corral, caller)
            case "/api/ps":
                return described.running(self._corral, caller)
            case _:
                return described.show(self._corral, _name(openai.loaded(body)), caller)

    async def _tell(
        self, lines: Lines, document: dict[str, Any], headers: list[tuple[bytes, bytes]], receive: Receive, send: Send
    ) -> int:
        """Send line after line, or the last one alone where no stream is wanted."""
        stream = document.get("stream", True)
        if not isinstance(stream, bool):
            raise InvalidRequest("`stream` must be a boolean.", param="stream")
        async with aclosing(lines):
            with self._clients.watch(receive) as client:
                line = await anext(lines)  # what can be seen to be impossible is told by the status
                if stream:
                    await self._stream(line, lines, headers, send)
                else:
                    async for later in lines:
                        line = later
                    await respond(send, 200, orjson.dumps(line), headers)
        return 499 if client.gone else 200

    async def _stream(
        self, first: dict[str, Any], lines: Lines, headers: list[tuple[bytes, bytes]], send: Send
    ) -> None:
        kind = [(b"content-type", b"application/x-ndjson"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": [*kind, *headers]})
        await send(_line(first))
        try:
            async for line in lines:
                await send(_line(line))
        except CorralError as error:
            await send(_line({"error": str(error)}))
        await send({"type": "http.response.body", "body": b""})

    async def _pull(self, document: dict[str, Any]) -> Lines:
        pulling.check(document)
        wanted = pulling.order(self._corral, _name(document))
        async with aclosing(pulling.done(self._corral, self._workshop, wanted)) as lines:
            async for line in lines:
                yield line

    async def _create(self, document: dict[str, Any]) -> Lines:
        config = modelfile.made(self._corral, self._registrations, document)
        yield {"status": "reading model metadata"}
        await self._register(config)
        yield {"status": "writing manifest"}
        yield {"status": "success"}

    async def _copy(self, document: dict[str, Any]) -> None:
        source, destination = _text(document, "source"), _text(document, "destination")
        await self._register(modelfile.based(self._corral, self._registrations, source, destination))

    async def _register(self, config: ModelConfig) -> None:
        """Make the model, and see that it could be started; what stood under that name by registration is replaced."""
        name, before = config.model_name, self._registrations.get(config.model_name)
        if before is not None and before != config:
            with suppress(ModelBusy):  # then `keep` says so
                await self._corral.unload(name, drain=0)
        self._registrations.keep(config)
        try:
            await launching.prepare(self._corral, name)
        except CorralError:
            self._registrations.remove(name)
            if before is not None:
                self._registrations.keep(before)
            raise

    async def _delete(self, document: dict[str, Any]) -> None:
        corral, name = self._corral, _name(document)
        own = corral.canonical(name)
        if own in self._registrations:
            await corral.unload(own, drain=0)
            self._registrations.remove(own)
            return
        own = corral.registry.get(own).name
        for model in corral.catalog.loaded_from(own):
            await corral.unload(model, drain=0)
        async with aclosing(pulling.done(corral, self._workshop, corral.catalog.order("remove", own))) as lines:
            async for _ in lines:
                pass

    async def _push(self, document: dict[str, Any]) -> None:
        raise NotSupported(
            f"Corral does not push {_name(document)!r} to a registry of Ollama's.",
            "It puts models into buckets, from where others install them: corral push NAME s3://BUCKET/FOLDER",
        )


def _name(document: dict[str, Any]) -> str:
    """The model that is meant; older clients say `name`."""
    return _text(document, "model" if "model" in document else "name")


def _text(document: dict[str, Any], field: str) -> str:
    value = document.get(field)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"`{field}` is missing or not a string.", param=field)
    return value


def _line(content: dict[str, Any]) -> Message:
    return {"type": "http.response.body", "body": orjson.dumps(content) + b"\n", "more_body": True}
