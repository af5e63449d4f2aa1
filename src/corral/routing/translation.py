"""An engine's answer in the client's form: what stands in for the engine's response where the two speak differently.

It is relayed as any other answer: whole when it is no stream, else event by event as the engine's events come.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from corral.dialects.canonical import Begun, Ended, Failed, Reply, Spent
from corral.dialects.form import Fault
from corral.errors import CorralError, UpstreamError, UpstreamProtocol, UpstreamUnreachable
from corral.kit.sse import Lines, Splitter, data_of
from corral.routing.faults import refused
from corral.routing.order import BYTES_A_TOKEN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from corral.dialects.canonical import Event
    from corral.dialects.form import StreamReader, StreamWriter
    from corral.domain.money import Usage
    from corral.kit.response import Header, Response
    from corral.routing.composing import Call
    from corral.routing.order import Order

_OF_THE_BODY = frozenset((b"content-type", b"content-length", b"content-encoding", b"transfer-encoding"))
_JSON = (b"content-type", b"application/json")
_LONGEST = 32 * 1024 * 1024
"""Bytes of one event: more than any picture in one."""


class Translated:
    """An answer in the form of the order's client, made of one in the engine's. See `kit.relay.Reply`.

    It is its own meter: `usage` and `stop` are what has been seen so far, and `pieces` how many tokens that may be,
    where nobody tells. `closing` is asked, when a stream has ended well, for a comment that stands before its end.
    """

    __slots__ = (
        "_asked",
        "_client",
        "_closing",
        "_model",
        "_request_id",
        "_response",
        "_spoken",
        "_writer",
        "content_length",
        "framed",
        "headers",
        "pieces",
        "status",
        "stop",
        "usage",
        "whole",
    )

    def __init__(self, response: Response, call: Call, order: Order, closing: Callable[[], bytes] = bytes) -> None:
        client, stream = order.form, order.stream
        self.status = response.status
        self.content_length = None
        self.framed = stream
        self.whole = not stream
        self.usage: Usage | None = None
        self.stop: str | None = None
        self.pieces = 0
        self.headers: list[Header] = [header for header in response.headers if header[0] not in _OF_THE_BODY]
        self.headers.append((b"content-type", client.media or b"application/json") if stream else _JSON)
        self._response = response
        self._spoken = call.way.spoken
        self._client = client
        self._asked = call.asked
        self._model = order.model
        self._request_id = order.request_id
        self._writer: StreamWriter | None = None
        self._closing = closing

    @property
    def failed(self) -> Fault | None:
        """None: an error within the answer is raised where it is met."""
        return None

    def header(self, name: bytes) -> bytes | None:
        """The value of the first header called `name`."""
        return next((value for key, value in self.headers if key == name), None)

    def close(self) -> None:
        """Read no further."""
        self._response.close()

    def render(self, error: CorralError) -> bytes:
        """`error` as the end of this stream."""
        writer = self._writer or self._client.stream_writer(self._asked)
        return writer.fail(error)

    async def read(self) -> bytes:
        """The whole answer.

        Raises:
            UpstreamError: it broke, or is not what the engine's form may say, or reports an error.
        """
        body = await self._response.read()
        self.pieces = len(body) // BYTES_A_TOKEN
        document = parsed(body)
        try:
            if isinstance(document, dict) and document.get("error"):
                raise refused(502, self._spoken.read_error(502, document), self._model)
            reply = self._spoken.read_reply(document)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise UpstreamProtocol(f"The engine's answer is none: {error}.") from error
        self.usage = reply.usage
        if isinstance(reply, Reply):
            self.stop = reply.stop
            reply = replace(reply, id=self._request_id, model=self._model, created=reply.created or int(time.time()))
        else:
            reply = replace(reply, model=self._model)
        return orjson.dumps(self._client.write_reply(reply, self._asked))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The stream, in the client's form.

        Raises:
            UpstreamError: it broke, ended before its end, or reports an error.
        """
        reader, writer = self._spoken.stream_reader(), self._client.stream_writer(self._asked)
        self._writer = writer
        cutter = Splitter(_LONGEST) if self._spoken.media == b"text/event-stream" else Lines(_LONGEST)
        written: list[bytes] = []
        failure: UpstreamError | None = None
        begun = False
        try:
            async for chunk in self._response:
                self._write(cutter.feed(chunk), reader, writer, written)
                if written:
                    begun = True
                    yield b"".join(written)
                    written.clear()
            self._write(cutter.flush() + b"\n\n", reader, writer, written)
        except UpstreamError as error:
            failure = error
        if self.stop is None:
            if begun and written:  # the writer believes that the client has had it
                yield b"".join(written)
            raise failure or UpstreamUnreachable("The engine's answer ended before its end.")
        # Else the model had come to its end, and only what frames that is missing.
        yield b"".join((*written, writer.close(self._closing())))

    def _write(self, ready: bytes, reader: StreamReader, writer: StreamWriter, written: list[bytes]) -> None:
        """Add what the client is told of whole events to `written`, up to the first that is none."""
        for data in data_of(ready) if self._spoken.media == b"text/event-stream" else ready.splitlines():
            if not data.strip():
                continue
            try:
                events = reader.feed(data)
            except (ValueError, TypeError, LookupError, AttributeError) as error:
                raise UpstreamProtocol(f"The engine sent an event that is none: {error}.") from error
            self.pieces += len(events)
            written.extend(told for event in events if (told := writer.feed(self._noted(event))))

    def _noted(self, event: Event) -> Event:
        """The event as the client gets it; what is in it for the receipt is kept."""
        if isinstance(event, Begun):
            self.usage = event.usage or self.usage
            return replace(event, id=self._request_id, model=self._model, created=event.created or int(time.time()))
        if isinstance(event, Spent):
            self.usage = event.usage
        elif isinstance(event, Ended):
            self.stop = event.stop
        elif isinstance(event, Failed):
            raise refused(event.status or 502, Fault(event.message, event.code), self._model)
        return event


def parsed(body: bytes) -> Any:
    """The JSON in an engine's answer.

    Raises:
        UpstreamProtocol: it is none.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UpstreamProtocol("The engine answered with something that is not JSON.") from error
