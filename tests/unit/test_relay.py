"""Who went away, and what is answered at hand: driven without a socket."""

from __future__ import annotations

import asyncio

import pytest

from corral.kit.relay import Clients, respond


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
