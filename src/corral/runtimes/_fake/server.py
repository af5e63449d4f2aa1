"""A small server of OpenAI's dialect that answers from a script."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
import time
from collections import deque
from contextlib import aclosing
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from corral.kit import child
from corral.runtimes._fake.answers import Answer, RefusedError, embeddings, length, prompt_of
from corral.runtimes._fake.wire import PAGE, CutError, Request, Wire, read_request

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

_AT_START_ONLY = {"load_ms", "memory_mib", "slots", "embed_dimensions"}
_CRASHED = 70
_REMEMBERED = 1000
"""Requests that `/fake/seen` tells of, the last ones: an engine under load must not grow."""
_ERROR = {"error": {"message": "The script says so.", "type": "server_error", "param": None, "code": None}}
_KINDS = {"html": "text/html", "untyped": "text/plain"}
"""Faults → the content type of a stream."""
_DONE = b"data: [DONE]\n\n"
_ENDING = frozenset(("half", "error"))
"""Faults that end a stream, and as if that were well."""
_SCRIPT = "#fake "
"""What a prompt begins with that has a script of its own, as JSON on its first line."""
_GENERATING = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")


def main() -> None:
    """Serve until the parent goes or says so."""
    parent = child.attach()
    script = parent.launch["script"]
    if script["fault"] == "ignore_sigterm":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    held = b"\x01" * (script["memory_mib"] * 1024**2)  # written to, so that it really is taken
    time.sleep(script["load_ms"] / 1000)
    if script["fault"] == "crash_on_start":
        print("fake: crashing at the start, as the script says", file=sys.stderr)
        child.leave(_CRASHED)
    if script["fault"] == "never_ready":
        threading.Event().wait()
    asyncio.run(_serve(parent, script, held))


async def _serve(parent: child.Parent, script: dict[str, Any], held: bytes) -> None:
    engine = Engine(parent.launch["name"], parent.launch["key"], script)
    server = await asyncio.start_server(engine.connected, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    if script["fault"] == "refuse":
        server.close()
    print(f"fake: listening on {host}:{port}, holding {len(held)} bytes", file=sys.stderr)
    parent.ready(address=f"http://{host}:{port}")
    await asyncio.get_running_loop().create_future()


class Engine:
    """One engine: its script, what it was asked, what is held, and which requests failed."""

    def __init__(self, name: str, key: str, script: dict[str, Any]) -> None:
        self.name = name
        self.script = script
        self._key = key
        self._free = asyncio.Semaphore(script["slots"])
        self._released = asyncio.Event()
        self._seen: deque[dict[str, Any]] = deque(maxlen=_REMEMBERED)
        self._asked = 0
        self._counts = {"gone": 0, "held": 0, "failed": 0}

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection, one after the other."""
        wire, ahead = Wire(writer), b""
        try:
            while (request := await read_request(reader, ahead)) is not None:
                ahead = await self._attend(request, reader, wire)
                if not request.keep_alive or writer.is_closing():
                    break
        except CutError:
            pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            self._counts["gone"] += 1
        finally:
            writer.close()

    async def _attend(self, request: Request, reader: asyncio.StreamReader, wire: Wire) -> bytes:
        """Answer one request unless its client goes away first; returns what of the next one was read."""
        answering = asyncio.ensure_future(self.answer(request, wire))
        watching = asyncio.ensure_future(reader.read(1))
        await asyncio.wait({answering, watching}, return_when=asyncio.FIRST_COMPLETED)
        ahead = watching.result() if watching.done() else b""
        if not answering.done() and watching.done() and not ahead:
            answering.cancel()
            await asyncio.wait({answering})
            raise ConnectionResetError("the client went away")
        watching.cancel()
        await asyncio.wait({watching})
        await answering
        return ahead

    async def answer(self, request: Request, wire: Wire) -> None:
        """Answer one request."""
        try:
            await self._route(request, wire)
        except RefusedError as refused:
            extra = {} if refused.retry_after is None else {"Retry-After": f"{refused.retry_after:g}"}
            await wire.whole(refused.body, refused.status, extra)

    async def _route(self, request: Request, wire: Wire) -> None:
        if request.path == "/health":
            await wire.whole({"status": "ok"})
            return
        if request.headers.get("authorization") != f"Bearer {self._key}":
            raise RefusedError(401, "authentication_error", "Invalid API Key")
        if request.path.startswith("/fake/"):
            await wire.whole(self._control(request))
            return
        shown = {name: value for name, value in request.headers.items() if name != "authorization"}
        self._asked += 1
        self._seen.append({"method": request.method, "path": request.path, "headers": shown, "body": request.body})
        if request.path == "/v1/models" and request.method == "GET":
            await wire.whole({"object": "list", "data": [{"id": self.name, "object": "model", "owned_by": "fake"}]})
        elif request.path in _GENERATING and request.method == "POST":
            async with self._free:
                await self._generate(request, wire)
        else:
            raise _unknown(request)

    def _control(self, request: Request) -> dict[str, Any]:
        match request.method, request.path:
            case "GET", "/fake/seen":
                pass
            case "POST", "/fake/release":
                self._released.set()
            case "POST", "/fake/hold":
                self._released.clear()
            case "POST", "/fake/count":
                return {"count": length(request.body)}
            case _:
                raise _unknown(request)
        return {"requests": list(self._seen), **self._counts}

    async def _generate(self, request: Request, wire: Wire) -> None:
        body = request.body
        if not isinstance(body, dict):
            raise RefusedError(400, "invalid_request_error", "The body is not a JSON object.")
        script = self._script(body)
        fault = self._fault(script)
        kind, _, number = fault.partition(":")
        if kind == "status":
            raise RefusedError(int(number), "fake_error", f"The script says {number}.", script.retry_after)
        if kind == "hang":
            await asyncio.get_running_loop().create_future()
        if kind == "garbage":
            await wire.raw(b"\x00\x01 this is not HTTP \xff\r\n\r\n")
            return
        if kind == "error" and not body.get("stream"):
            await wire.whole(_ERROR)
            return
        if request.path == "/v1/embeddings":
            await wire.whole(embeddings(body, self.name, self.script["embed_dimensions"]), broken=kind)
            return
        answer = Answer.to(body, script, self.name, self._asked, chat=request.path == "/v1/chat/completions")
        if body.get("stream"):
            await wire.stream(self._spoken(answer.events(), script, kind, wire), _KINDS.get(kind, "text/event-stream"))
            return
        async for _ in self._paced(answer.events(), script, kind, wire):
            pass
        await wire.whole(answer.whole(), broken=kind)

    def _script(self, body: dict[str, Any]) -> SimpleNamespace:
        own = body.get("fake") or {}
        if self.script["prompted"]:
            own = _prompted(prompt_of(body)) or own
        allowed = self.script.keys() - _AT_START_ONLY
        if not isinstance(own, dict) or not own.keys() <= allowed:
            raise RefusedError(400, "invalid_request_error", f"The field 'fake' takes {', '.join(sorted(allowed))}.")
        return SimpleNamespace(**{**self.script, **own})

    def _fault(self, script: SimpleNamespace) -> str:
        if script.fault == "none" or (script.fault_times and self._counts["failed"] >= script.fault_times):
            return "none"
        self._counts["failed"] += 1
        return str(script.fault)

    async def _spoken(
        self, events: Iterator[tuple[bool, dict[str, Any]]], script: SimpleNamespace, fault: str, wire: Wire
    ) -> AsyncGenerator[bytes, None]:
        """The bytes of a stream, as `_paced` gives them, where the fault is not of all of them."""
        if fault == "html":
            yield PAGE
        if fault in {"html", "empty"}:
            return
        async with aclosing(self._paced(events, script, fault, wire)) as pieces:
            async for piece in pieces:
                if fault != "drip":
                    yield piece
                    continue
                for at in range(len(piece)):
                    await asyncio.sleep(script.delay_ms / 1000)
                    yield piece[at : at + 1]

    async def _paced(
        self, events: Iterator[tuple[bool, dict[str, Any]]], script: SimpleNamespace, fault: str, wire: Wire
    ) -> AsyncGenerator[bytes, None]:
        """The events as bytes, at the script's pace, with its fault at the token it names."""
        tokens = 0
        await asyncio.sleep(script.first_token_ms / 1000)
        for is_token, data in _pieces(events, script.fault_after, late=script.fault_late):
            if data is None:
                async for piece in self._failing(fault, wire):
                    yield piece
                if fault in _ENDING and wire.streaming:
                    return
                continue
            if is_token and tokens == script.hold_after:
                await self._hold()
            if is_token and tokens:
                await asyncio.sleep(script.delay_ms / 1000)
            tokens += is_token
            yield data

    async def _failing(self, fault: str, wire: Wire) -> AsyncGenerator[bytes, None]:
        """What is said at the moment of the fault; or nothing more ever is."""
        if fault == "crash":
            child.leave(_CRASHED)
        if not wire.streaming:
            return
        if fault == "cut":
            wire.cut()
        if fault == "stall":
            await asyncio.get_running_loop().create_future()
        if fault == "garbage_event":
            yield b'data: {"choices": [{"delta": \n\n'
        if fault == "error":
            yield b"data: " + json.dumps(_ERROR).encode() + b"\n\n"

    async def _hold(self) -> None:
        self._counts["held"] += 1
        try:
            await self._released.wait()
        finally:
            self._counts["held"] -= 1


def _pieces(
    events: Iterator[tuple[bool, dict[str, Any]]], after: int, *, late: bool
) -> Iterator[tuple[bool, bytes | None]]:
    """The events of a stream as bytes, each with whether it carries a token; None stands where the fault is due."""
    tokens = 0
    for is_token, event in events:
        if is_token and tokens == after and not late:
            yield False, None
        tokens += is_token
        yield is_token, b"data: " + json.dumps(event).encode() + b"\n\n"
    if late:
        yield False, _DONE
    if late or tokens <= after:
        yield False, None
    if not late:
        yield False, _DONE


def _prompted(prompt: str) -> Any:
    """The script that a prompt begins with; None where there is none."""
    if not prompt.startswith(_SCRIPT):
        return None
    try:
        return json.loads(prompt[len(_SCRIPT) :].partition("\n")[0])
    except ValueError:
        raise RefusedError(400, "invalid_request_error", f"What follows {_SCRIPT!r} is not JSON.") from None


def _unknown(request: Request) -> RefusedError:
    return RefusedError(404, "not_found_error", f"There is no {request.method} {request.path}.")
