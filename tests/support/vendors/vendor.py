"""What every played vendor does: listens on loopback, notes what it is asked, and follows the script in the question.

    async with Anthropic() as vendor: vendor.url, vendor.key, vendor.asked

The script is in the last message of the user, as words that begin with `#`, such as `#tool` or `#status=429`:

    #say=WORD           the answer, with `_` for spaces; by default a greeting
    #tool  #tools=2     call the first of the tools offered, or that many
    #think              think first
    #cached             much of the prompt was in the vendor's cache
    #stop=WORD          stop for this reason, in the vendor's word
    #status=529         refuse so; with #retry_after=7 say when to come back
    #error=1            report an error in the stream after so many pieces
    #cut=1  #hang=1     drop the connection, or fall silent, after so many pieces; without a stream, before the answer
    #garbage            answer with something that is no JSON

Beside a test's loop the same vendor runs as a process of its own: `played(Anthropic)`, which yields its address.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from aiohttp import web

_WORD = re.compile(r"#(\w+)(?:=(\S+))?")


class Refusal(Exception):
    """The vendor refuses: with this status, kind and message."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.param = param


@dataclass(frozen=True)
class Script:
    """What the question asks the vendor to do."""

    words: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str) -> Script:
        """The script in `text`."""
        return cls({name: value or "1" for name, value in _WORD.findall(text)})

    def __contains__(self, name: str) -> bool:
        return name in self.words

    def number(self, name: str, otherwise: int = 0) -> int:
        """The number behind `name`."""
        return int(self.words.get(name, otherwise))

    def said(self, greeting: str) -> str:
        """The answer."""
        return self.words["say"].replace("_", " ") if "say" in self.words else greeting


@dataclass(frozen=True)
class Asked:
    """One request, as it came."""

    path: str
    query: str
    headers: dict[str, str]
    body: Any


class Vendor:
    """A vendor on loopback. Subclasses answer; `key` is the only one it takes."""

    name: ClassVar[str]
    prefix: ClassVar[str] = "/v1"
    key = "vendor-key"

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.dropped = 0
        """Clients that went away before their answer was whole."""
        self.url = ""
        self._runner: web.AppRunner | None = None
        self._over = asyncio.Event()

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}{self.prefix}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        assert self._runner is not None
        await self._runner.cleanup()

    def answer(self, asked: Asked, request: web.Request) -> Any:
        """A whole answer as JSON, or an iterable of pieces of a stream.

        Raises:
            Refusal: the vendor would refuse this request.
        """
        raise NotImplementedError

    def refusal(self, refusal: Refusal) -> Any:
        """The body of a refusal."""
        raise NotImplementedError

    def question(self, body: Any) -> str:
        """The last thing the user said."""
        raise NotImplementedError

    def broken(self) -> bytes:
        """The piece of a stream that reports an error."""
        raise NotImplementedError

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/asked":
            return web.json_response([vars(asked) for asked in self.asked])
        body = await request.read()
        try:
            parsed = json.loads(body) if body else None
        except ValueError:
            return self._refused(Refusal(400, "invalid_request_error", "The body is no JSON."))
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Asked(request.path.removeprefix(self.prefix), request.query_string, headers, parsed)
        self.asked.append(asked)
        try:
            script = Script.of(self.question(parsed)) if isinstance(parsed, dict) else Script()
            answer = self._answer(asked, request, script)
        except Refusal as refusal:
            seconds = {"retry-after": script.words["retry_after"]} if "retry_after" in script else {}
            return self._refused(refusal, seconds)
        try:
            if isinstance(answer, dict):
                return await self._whole(request, answer, script)
            return await self._stream(request, answer, script)
        except (asyncio.CancelledError, ConnectionError):
            self.dropped += 1
            raise

    def _answer(self, asked: Asked, request: web.Request, script: Script) -> Any:
        answer = self.answer(asked, request)
        if "status" in script:
            raise Refusal(script.number("status"), "", "as the script has it")
        return answer

    def _refused(self, refusal: Refusal, headers: dict[str, str] | None = None) -> web.Response:
        return web.json_response(self.refusal(refusal), status=refusal.status, headers=headers)

    async def _whole(self, request: web.Request, answer: dict[str, Any], script: Script) -> web.StreamResponse:
        if "garbage" in script:
            return web.Response(text='{"id": ', content_type="application/json")
        await self._faults(request, script, 10**9)
        return web.json_response(answer)

    async def _stream(self, request: web.Request, pieces: Iterable[bytes], script: Script) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": self.media()})
        await response.prepare(request)
        for count, piece in enumerate(pieces):
            if "error" in script and count == script.number("error"):
                await response.write(self.broken())
                return response
            if "garbage" in script and count == 1:
                await response.write(b"data: {{{\n\n")
            await self._faults(request, script, count)
            await response.write(piece)
        await response.write_eof()
        return response

    def media(self) -> str:
        """The content type of a stream."""
        return "text/event-stream; charset=utf-8"

    async def _faults(self, request: web.Request, script: Script, count: int) -> None:
        if "hang" in script and count >= script.number("hang"):
            await self._over.wait()
        if "cut" in script and count >= script.number("cut"):
            assert request.transport is not None
            request.transport.abort()
            raise ConnectionResetError


def pieces(text: str, size: int = 5) -> list[str]:
    """`text` as a model writes it."""
    return [text[at : at + size] for at in range(0, len(text), size)]


@contextmanager
def played(vendor: type[Vendor]) -> Iterator[str]:
    """The vendor as a process of its own; yields its URL."""
    command = [sys.executable, "-m", vendor.__module__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
            process.wait(60)


def play(vendor: type[Vendor]) -> None:
    """Be that process, until it is ended."""

    async def serve() -> None:
        async with vendor() as stage:
            print(stage.url, flush=True)
            await asyncio.to_thread(sys.stdin.read)

    asyncio.run(serve())


async def events(lines: AsyncIterator[bytes]) -> list[str]:
    """The data of the server-sent events in `lines`."""
    return [line[6:].decode().strip() async for line in lines if line.startswith(b"data: ")]
