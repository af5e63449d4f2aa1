"""Who went away, and what is answered at hand: driven without a socket."""

from __future__ import annotations

import asyncio

import pytest

from corral.kit.relay import Clients, relay, respond


class Wire:
    """An ASGI client's side, driven by hand."""

    def __init__(self):
        self.messages = asyncio.Queue()
        self.asked = asyncio.Event()
        self.sent = []

    async def receive(self):
        self.asked.set()
        return await self.messages.get()

    async def send(self, message):
        self.sent.append(message)


async def test_a_client_that_leaves_takes_its_request_with_it():
    wire, clients = Wire(), Clients(period=0)
    reached = []

    async def request():
        with clients.watch(wire.receive) as client:
            await asyncio.Event().wait()
            reached.append("the end")
        reached.append(client.gone)

    task = asyncio.create_task(request())
    await wire.asked.wait()
    wire.messages.put_nowait({"type": "http.request", "body": b"", "more_body": False})
    wire.messages.put_nowait({"type": "http.disconnect"})
    await task
    assert reached == [True]
    assert task.cancelling() == 0


async def test_any_other_cancellation_goes_through():
    wire, clients = Wire(), Clients(period=0)

    async def request():
        with clients.watch(wire.receive):
            await asyncio.Event().wait()

    task = asyncio.create_task(request())
    await wire.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_leaving_and_being_cancelled_at_once_is_a_cancellation():
    wire, clients = Wire(), Clients(period=0)

    async def request():
        with clients.watch(wire.receive) as client:
            try:
                await asyncio.Event().wait()
            finally:
                asyncio.current_task().cancel()
        assert not client.gone

    task = asyncio.create_task(request())
    await wire.asked.wait()
    wire.messages.put_nowait({"type": "http.disconnect"})
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_short_request_is_never_listened_to():
    wire, clients = Wire(), Clients(period=0)
    with clients.watch(wire.receive) as client:
        pass
    with clients.watch(Wire().receive):
        later = Wire()
        with clients.watch(later.receive):
            await later.asked.wait()
    assert not wire.asked.is_set()
    assert not client.gone


async def test_an_error_in_the_request_is_the_request_s_own():
    with pytest.raises(ValueError, match="own"), Clients().watch(Wire().receive):
        raise ValueError("own")


async def test_respond_sends_a_head_and_one_body():
    wire = Wire()
    await respond(wire.send, 404, b'{"a":1}', [(b"x-request-id", b"r1")])
    start, body = wire.sent
    assert (start["type"], start["status"]) == ("http.response.start", 404)
    assert start["headers"] == [
        (b"content-type", b"application/json"),
        (b"content-length", b"7"),
        (b"x-request-id", b"r1"),
    ]
    assert body == {"type": "http.response.body", "body": b'{"a":1}'}


class Events:
    """A stream of an engine that said beforehand how long it will be, and comes in two pieces."""

    status = 200
    framed = whole = False
    pieces = (b'data: {"a": 1}\n\n', b"data: [DONE]\n\n")

    def __init__(self):
        self.content_length = sum(map(len, self.pieces))
        self.headers = [(b"content-type", b"text/event-stream")]

    def header(self, name):
        return dict(self.headers).get(name)

    async def read(self):
        return b"".join(self.pieces)

    async def __aiter__(self):
        for piece in self.pieces:
            yield piece

    def close(self):
        pass


class Adding:
    """An onlooker that adds a comment to every piece."""

    def whole(self, body):
        return body

    def passing(self, data, *, first):
        return b": hi\n\n" + data

    def tail(self, data):
        pass

    def over(self, error):
        return b""


async def test_a_stream_that_is_added_to_is_not_said_to_be_as_long_as_before():
    sent = []

    async def send(message):
        sent.append(message)

    await relay(Events(), send, lambda _: b"", onlooker=Adding())

    assert b"content-length" not in dict(sent[0]["headers"])
    assert b"".join(message.get("body", b"") for message in sent[1:]).count(b": hi") == 2
