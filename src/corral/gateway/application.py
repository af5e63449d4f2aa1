"""The ASGI application: routes to inference, operations and management, and the border where errors become answers."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

import orjson

from corral.app.registration import Registrations
from corral.errors import CorralError, HostRefused, MethodNotAllowed, NotFound, RateLimited, Unauthorized
from corral.gateway import scopes, watching
from corral.gateway.auditing import note
from corral.gateway.auth import SUBPROTOCOL, Gate, Head, offered, queried, redacted
from corral.gateway.body import ClientLeft, bounded, room, too_large
from corral.gateway.envelope import beside, crash, envelope
from corral.gateway.feed import Feed
from corral.gateway.inference import doors
from corral.gateway.inference.answers import Answers
from corral.gateway.inference.counting import GEMINI_PATH, PATH, Counting, counted
from corral.gateway.inference.dialect import render
from corral.gateway.inference.doors import DOORS, Asked
from corral.gateway.ollama import doors as ollama
from corral.gateway.pages import Asking, Page, Pages
from corral.gateway.progress import converse
from corral.gateway.telling import tell
from corral.gateway.ui import PREFIX, Ui
from corral.gateway.wire import DIRECT
from corral.gateway.workshop import Workshop
from corral.kit.identity import request_ids
from corral.kit.relay import Message, Receive, Send, respond

if TYPE_CHECKING:
    from corral.app import Corral
    from corral.domain.callers import Caller

Scope = MutableMapping[str, Any]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_AT_THE_DOOR = (Unauthorized, RateLimited, HostRefused)
"""What is counted as a refusal; anything later is an answer that went wrong."""

_PROGRESS = re.compile(r"/api/v1/models/operations/([^/]+)/ws")
_EVENTS = "/api/v1/runtime/events/ws"

_access = logging.getLogger("corral.access")
_log = logging.getLogger("corral.server")


class Gateway:
    """Corral over HTTP: raw ASGI for inference and operations, FastAPI below `/api/v1`; and its WebSockets.

    It owns the `Corral` it is given: its start and end are the lifespan's.

    Args:
        corral: the parts.
        token: what the terminal of this home may send in place of a key.
    """

    def __init__(self, corral: Corral, token: str = "") -> None:
        self.corral = corral
        self._gate = Gate(corral.settings, corral.keys, token)
        self._answers = Answers(corral)
        self._counting = Counting(corral)
        self._workshop = Workshop(corral)
        self._registrations = Registrations(corral)
        self._ollama = ollama.Ollama(corral, self._workshop, self._registrations)
        self._feed = Feed(corral, self._registrations, self._workshop.leaving, corral.sampler.messages)
        self._management: Application | None = None
        self._creating = asyncio.Lock()
        self._ids = request_ids()
        self._logs = corral.settings.log.requests
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loading: set[str] = set()
        self._pages = Pages(corral, self._loading)
        self._ui = Ui()

    @property
    def routes(self) -> list[tuple[str, str]]:
        """Every method and path outside the management API."""
        pages = [*self._pages.public, *self._pages.closed, "/v1/models/{id}", "/v1beta/models/{id}"]
        return [
            *(("GET", path) for path in pages),
            *(("POST", path) for path in (*DOORS, PATH, *doors.GEMINI_PATHS, GEMINI_PATH)),
            *ollama.routes(),
        ]

    @property
    def sockets(self) -> list[str]:
        """Every path of a WebSocket."""
        return ["/api/v1/models/operations/{operation_id}/ws", watching.SOCKET, _EVENTS]

    def reload(self) -> None:
        """Read the configuration again and take it over. Does not wait; what is wrong with it is logged."""
        self._spawn(self._reload())

    async def _reload(self) -> None:
        try:
            await self.corral.reloading.reload()
        except CorralError as error:
            _log.error("the configuration is not taken over: %s", error)

    def hush(self) -> None:
        """End what is streamed for as long as the server lives, so that it can stop."""
        self.corral.supervisor.hush()
        self._workshop.leaving.set()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one request, or live through the server's start and end."""
        if scope["type"] == "http":
            return self._http(scope, receive, send)
        if scope["type"] == "websocket":
            return self._socket(scope, receive, send)
        return self._lifespan(receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = next(self._ids)
        path: str = scope["path"]
        door = DOORS.get(path)
        direct = scope.pop(DIRECT, None)
        model, status = None, 0
        try:
            head = Head(scope["headers"])
            if door is None and (found := doors.gemini(path)) is not None:
                door, model = found
                head = queried(head, scope["query_string"])
            if door is not None:
                try:
                    caller = self._gate.admit(head)
                except Unauthorized:
                    caller = await self._gate.admit_anew(head)
                _allow(scope, "POST")
                asked = Asked(request_id, caller, head.strict, model, scope["query_string"], head.betas)
                outcome = await self._answers.answer(door, asked, head.length, receive, send, direct)
                status = 499 if outcome.client_gone else outcome.status
            elif (question := counted(path)) is not None:
                caller = await self._admit(queried(head, scope["query_string"]))
                _allow(scope, "POST")
                asked = Asked(request_id, caller, head.strict, question[1])
                outcome = await self._counting.answer(question[0], asked, head.length, receive, send)
                status = 499 if outcome.client_gone else outcome.status
            else:
                status = await self._other(scope, head, request_id.encode(), receive, send)
        except CorralError as error:
            status = error.http_status
            error.__traceback__ = None  # its frames hold it, and the request with it
            if isinstance(error, _AT_THE_DOOR):
                self.corral.traffic.metrics.refuse(error.code)
            await _refuse(send, path, error, request_id.encode())
        except ClientLeft:
            status = 499
        except Exception:  # the border: the client is told in the envelope, and uvicorn logs what is raised again
            status = 500
            if not _managed(path):  # there, FastAPI has answered
                await _refuse(send, path, crash(), request_id.encode())
            raise
        finally:
            self._log(request_id, scope["method"], scope, status)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Talk over a WebSocket, or answer with the error in the envelope when it is not to be."""
        request_id = next(self._ids).encode()
        status = 101
        await receive()
        try:
            names: list[str] = scope["subprotocols"]
            head = queried(offered(Head(scope["headers"]), names), scope["query_string"])
            caller = await self._admit(head)
            scopes.check(caller, "GET", scope["path"])
            accepted = SUBPROTOCOL if SUBPROTOCOL in names else None
            if scope["path"] == _EVENTS:
                await tell(self._feed.listen(), self._workshop.leaving, receive, send, accepted)
                return
            run = watching.asked(scope["path"])
            if run is not None:
                await watching.converse(self.corral, caller, run, self._workshop.leaving, receive, send, accepted)
                return
            asked = _PROGRESS.fullmatch(scope["path"])
            if asked is None:
                raise NotFound(
                    f"There is no WebSocket at {scope['path'][:200]}.", "See docs/http.md for those there are."
                )
            await converse(self._workshop, asked[1], receive, send, accepted)
        except CorralError as error:
            status = error.http_status
            await _deny(send, error, request_id)
        finally:
            self._log(request_id.decode(), "WEBSOCKET", scope, status)

    async def _admit(self, head: Head) -> Caller:
        try:
            return self._gate.admit(head)
        except Unauthorized:
            return await self._gate.admit_anew(head)

    def _log(self, request_id: str, method: str, scope: Scope, status: int) -> None:
        if self._logs:
            # The path as it was sent: decoded, it could hold a line break and forge a line.
            sent = scope["raw_path"].decode("ascii", "backslashreplace")
            query = scope["query_string"]
            if query:
                sent = f"{sent}?{redacted(query)}"
            _access.info("%s %s %s %d", request_id, method, sent, status)

    async def _other(self, scope: Scope, head: Head, request_id: bytes, receive: Receive, send: Send) -> int:
        path: str = scope["path"]
        public = self._pages.public.get(path)
        if public is not None:
            self._gate.admit(head, public=True)
            _allow(scope, "GET", "HEAD")
            page = public()
        elif path.startswith(PREFIX):
            self._gate.admit(head, public=True)
            _allow(scope, "GET", "HEAD")
            return await self._ui.answer(path, scope["headers"], send, request_id)
        elif path in self._pages.closed or path.startswith(("/v1/models/", "/v1beta/models/")):
            caller = await self._admit(queried(head, scope["query_string"]) if path.startswith("/v1beta/") else head)
            _allow(scope, "GET", "HEAD")
            scopes.check(caller, "GET", path)
            page = await self._page(path, Asking(caller, dict(scope["headers"])))
        elif (taken := ollama.methods(path)) is not None:
            return await self._as_ollama(scope, taken, head, request_id, receive, send)
        elif _managed(path):
            caller = await self._admit(head)
            scopes.check(caller, scope["method"], path)
            scope["corral.caller"] = caller
            limit, setting = room(scope["method"], path, self.corral.settings)
            if head.length is not None and head.length.isdigit() and int(head.length) > limit:
                raise too_large(limit, setting)
            return await self._manage(scope, request_id, bounded(receive, limit), send)
        else:
            self._gate.admit(head, public=True)
            raise NotFound(f"There is nothing at {path[:200]}.", "See /docs for the routes.")
        await respond(send, page.status, page.body, [(b"x-request-id", request_id)], page.kind)
        return page.status

    async def _as_ollama(
        self, scope: Scope, taken: tuple[str, ...], head: Head, request_id: bytes, receive: Receive, send: Send
    ) -> int:
        path: str = scope["path"]
        caller = await self._admit(head)
        _allow(scope, *taken)
        scopes.check(caller, scope["method"], path)
        scope["corral.caller"], scope["corral.request_id"] = caller, request_id.decode()
        errand = ollama.Errand(scope["method"], path, caller, request_id.decode(), head.length)
        status = await self._ollama.answer(errand, receive, send)
        if path in ollama.CHANGING:
            await note(self.corral.audit, scope, 200)  # also where the client has left: the work goes on
        return status

    async def _page(self, path: str, asking: Asking) -> Page:
        answer = self._pages.closed.get(path)
        if answer is not None:
            return await answer(asking)
        if path.startswith("/v1beta/"):
            return await self._pages.gemini_model(path.removeprefix("/v1beta/models/"), asking)
        return await self._pages.model(path.removeprefix("/v1/models/"), asking)

    async def _manage(self, scope: Scope, request_id: bytes, receive: Receive, send: Send) -> int:
        status = 0

        async def tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", request_id)]}
            await send(message)

        scope["corral.request_id"] = request_id.decode()
        await (self._management or await self._manager())(scope, receive, tagged)
        await note(self.corral.audit, scope, status)
        return status

    async def _manager(self) -> Application:
        """The management API, made when it is first asked: FastAPI takes more time and memory than all else here."""
        async with self._creating:
            if self._management is None:
                self._management = await asyncio.to_thread(
                    _create, self.corral, self._workshop, self._registrations, self._feed
                )
            return self._management

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.corral.keys.refresh()
        except CorralError as error:
            _log.error("nobody but the terminal is let in until the keys can be read: %s", error)
        self._spawn(self.corral.keys.run())
        self._spawn(self.corral.audit.run(self.corral.settings.usage.keep))
        self._spawn(self.corral.traffic.run())
        self._registrations.restore()
        self._spawn(self.corral.supervisor.run())
        self._spawn(self.corral.sampler.run())
        self._spawn(self._operate())
        self._spawn(self.corral.reloading.watch())
        self._spawn(self.corral.choices.survey_all())
        self._spawn(self.corral.fleet.keep())
        self._spawn(self.corral.inside.sweep())
        self._spawn(self.corral.workspace.keep())
        for name in self.corral.preloads():
            self._loading.add(name)
            self._spawn(self._preload(name))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._workshop.leaving.set()
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self.corral.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _preload(self, name: str) -> None:
        try:
            await self.corral.load(name)
        except CorralError as error:
            _log.error("cannot load %s at start: %s", name, error)
        finally:
            self._loading.discard(name)

    async def _operate(self) -> None:
        try:
            await self._workshop.run()
        except CorralError as error:
            _log.error("operations are not done: %s", error)

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _create(corral: Corral, workshop: Workshop, registrations: Registrations, feed: Feed) -> Application:
    from corral.gateway.api.application import create

    return create(corral, workshop, registrations, feed)


def _managed(path: str) -> bool:
    return path.startswith("/api/v1/") or path == "/docs"


def _allow(scope: Scope, *methods: str) -> None:
    if scope["method"] not in methods:
        said = f"{scope['path'][:200]} takes {' or '.join(methods)}, not {scope['method']}."
        raise MethodNotAllowed(said, allowed=methods)


async def _deny(send: Send, error: CorralError, request_id: bytes) -> None:
    """Answer a request for a WebSocket with an error, as any other request."""
    headers = [(b"content-type", b"application/json"), (b"x-request-id", request_id), *beside(error)]
    await send({"type": "websocket.http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": orjson.dumps(envelope(error))})


async def _refuse(send: Send, path: str, error: CorralError, request_id: bytes) -> None:
    """Answer with an error, in the dialect of the path it was asked on."""
    await respond(send, error.http_status, render(path, error), [(b"x-request-id", request_id), *beside(error)])
