"""Streams that go from an engine's socket to a client's past every queue: cut, slow, left, pipelined, broken.

The engine and the client are both sockets of the test, so each says exactly when a byte is there.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psutil
import pytest

from tests.support.api import Client
from tests.support.servers import Server, corral_server

MANAGER = "manager-key-of-the-stream"
CONFIG = """
upstream: {{first_byte_timeout: 20s, between_timeout: 20s}}
routing: {{retries: 0, breaker_failures: 1000000}}
usage: {{write_every: 100ms}}
models:
  far: {{runtime: openai, options: {{base_url: "http://127.0.0.1:{port}/v1", upstream_model: far}}}}
prices:
  far: {{input: 3, output: 7}}
"""
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"
PATIENCE = 30.0
"""Seconds after which a socket that says nothing is taken for one that hangs."""


def event(text: str, stop: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": stop}
    said = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "far", "choices": [choice]}
    return b"data: " + json.dumps(said).encode() + b"\n\n"


END = event("", "stop") + DONE


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


wires: list[socket.socket] = []
"""Every connection of Corral to the engine; closed after each test, so that the next begins with a new one."""


class Call:
    """The engine's end of one connection, from its first whole request on."""

    def __init__(self, wire: socket.socket) -> None:
        self.wire = wire
        wires.append(wire)
        wire.settimeout(PATIENCE)
        self.request()

    def request(self) -> None:
        """Read the next request whole."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += self._more()

    def _more(self) -> bytes:
        data = self.wire.recv(65536)
        assert data, "Corral closed its connection to the engine"
        return data

    def say(self, *data: bytes) -> None:
        self.wire.sendall(b"".join(data))

    def left(self) -> bool:
        """Whether Corral has closed the connection; waits for that."""
        try:
            return self.wire.recv(1) == b""
        except ConnectionResetError:
            return True


class Place:
    """A server, and the engine that it asks."""

    def __init__(self, server: Server, engine: socket.socket, secret: str) -> None:
        self.server = server
        self.engine = engine
        self.secret = secret
        self.manager = Client(server, {"authorization": f"Bearer {MANAGER}"})

    def call(self) -> Call:
        """The next connection of Corral to the engine."""
        return Call(self.engine.accept()[0])

    def client(self, room: int | None = None) -> socket.socket:
        """A client's connection; `room` bytes of what is sent to it wait in the kernel."""
        wire = socket.socket()
        if room is not None:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        wire.settimeout(PATIENCE)
        host, _, port = self.server.url.removeprefix("http://").rpartition(":")
        wire.connect((host, int(port)))
        return wire

    def request(self, *, version: str = "1.1", more: str = "") -> bytes:
        body = json.dumps({"model": "far", "stream": True, "messages": [{"role": "user", "content": "hi"}]}).encode()
        head = (
            f"POST /v1/chat/completions HTTP/{version}\r\nhost: 127.0.0.1\r\nauthorization: Bearer {self.secret}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n{more}\r\n"
        )
        return head.encode() + body

    def ask(self, path: str) -> Any:
        return self.manager.ask("GET", path, base="").json

    def until(self, said: Callable[[], bool]) -> None:
        """Return when it is so: books are written a moment later."""
        deadline = time.monotonic() + PATIENCE
        while not said():
            assert time.monotonic() < deadline

    def quiet(self) -> None:
        """Nothing is under way and nothing is held any more; and nothing went wrong."""
        self.until(lambda: self._far()["in_flight"] == 0)
        self.until(lambda: "corral_in_flight 0.0" in self.metrics())
        self.until(lambda: not self.ask("/api/v1/budgets/all")["budget"]["leased"])
        log = (self.server.home.parent / "server.log").read_text()
        assert "Traceback" not in log, log[-3000:]

    def metrics(self) -> str:
        return self.manager.ask("GET", "/metrics", base="").body.decode()

    def requests(self) -> int:
        total = self.ask("/api/v1/usage?from=1d")["total"]
        return 0 if total is None else int(total["requests"])

    def _far(self) -> dict[str, Any]:
        models = self.ask("/api/v1/runtime/models")["models"]
        found: dict[str, Any] = next(each for each in models if each["name"] == "far")
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home = tmp_path_factory.mktemp("poured")
    with closing(socket.create_server(("127.0.0.1", 0))) as engine:
        engine.settimeout(PATIENCE)
        config = CONFIG.format(port=engine.getsockname()[1])
        env = {"OPENAI_API_KEY": "k", "CORRAL_API_KEY": MANAGER}
        with corral_server(home, config, env=env) as server:
            manager = Client(server, {"authorization": f"Bearer {MANAGER}"})
            made = manager.ask("POST", "/api/v1/keys", {"name": "all"}, base="").json
            wanted = {"name": "all", "amount": 1000, "subject": "key", "who": made["key"]["id"]}
            assert manager.ask("POST", "/api/v1/budgets", wanted, base="").status < 300
            yield Place(server, engine, made["secret"])


@pytest.fixture(autouse=True)
def hung_up() -> Iterator[None]:
    yield
    while wires:
        wires.pop().close()


def head(wire: socket.socket) -> tuple[bytes, bytes]:
    """A response's head, byte by byte, so that nothing behind it is taken."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        piece = wire.recv(1)
        assert piece, data
        data += piece
    return data.partition(b"\r\n")[0], data


def line(wire: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\r\n"):
        piece = wire.recv(1)
        assert piece, f"closed after {data!r}"
        data += piece
    return data[:-2]


def exactly(wire: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = wire.recv(size - len(data))
        assert piece, f"closed in {data!r}"
        data += piece
    return data


def piece(wire: socket.socket) -> bytes:
    """The next chunk of a response; empty at its end."""
    data = exactly(wire, int(line(wire), 16))
    assert line(wire) == b""
    return data


def rest(wire: socket.socket, raw: bytes = b"") -> bytes:
    """A response's body up to its end. Of one that was there at once `raw`, its head, says how long it is."""
    _, _, length = raw.partition(b"content-length: ")
    if length:
        return exactly(wire, int(length.partition(b"\r\n")[0]))
    found = b""
    while data := piece(wire):
        found += data
    return found


def words(body: bytes) -> list[str]:
    """What the events of a stream say."""
    found = []
    for each in body.split(b"\n\n"):
        if each.startswith(b"data: {"):
            said = json.loads(each[6:])
            found += [said["choices"][0]["delta"].get("content", "")] if said.get("choices") else []
    return [each for each in found if each]


def begun(place: Place, wire: socket.socket) -> Call:
    """A stream of which the client has heard one event."""
    wire.sendall(place.request())
    call = place.call()
    call.say(HEAD, chunk(event("one")))
    assert head(wire)[0] == b"HTTP/1.1 200 OK"
    assert words(piece(wire)) == ["one"]
    return call


def reset(wire: socket.socket) -> None:
    """Go away at once, with a reset."""
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.close()


def test_an_event_goes_out_when_it_comes_and_both_connections_serve_again(place: Place) -> None:
    with closing(place.client()) as wire:
        call = begun(place, wire)
        for at in range(3):
            for word in ("two", "three"):
                call.say(chunk(event(word)))
                assert words(piece(wire)) == [word]
            call.say(chunk(END), chunk(b""))
            body = rest(wire)
            assert body.endswith(DONE)
            assert body.count(b"corral-receipt") == 1
            wire.sendall(place.request())
            call.request()
            call.say(HEAD, chunk(event("one")))
            status, raw = head(wire)
            assert (status, raw.count(b"transfer-encoding")) == (b"HTTP/1.1 200 OK", 1), at
            assert words(piece(wire)) == ["one"]
        call.say(chunk(END), chunk(b""))
        rest(wire)
    place.quiet()


def test_an_event_cut_anywhere_comes_whole(place: Place) -> None:
    with closing(place.client()) as wire:
        call = begun(place, wire)
        raw = chunk(event("two")) + chunk(event("three") + event("four")[:-1])
        for at in range(len(raw)):
            call.say(raw[at : at + 1])
        heard = b""
        while len(words(heard)) < 2:  # some of it may come together
            heard += piece(wire)
        assert words(heard) == ["two", "three"]
        call.say(chunk(b"\n"), chunk(END), chunk(b""))
        assert words(rest(wire)) == ["four"]
    place.quiet()


@pytest.mark.parametrize("how", ["closed", "reset", "ended", "garbled", "unfit"])
def test_a_stream_that_breaks_after_it_has_begun_ends_with_an_error(place: Place, how: str) -> None:
    with closing(place.client()) as wire:
        call = begun(place, wire)
        call.say(chunk(event("two")))
        assert words(piece(wire)) == ["two"]
        if how == "closed":
            call.wire.close()
        elif how == "reset":
            reset(call.wire)
        elif how == "ended":
            call.say(chunk(b""))
        elif how == "garbled":
            call.say(b"zz\r\n")
        else:
            call.say(chunk(b"data: {nonsense\n\n"))
        body = rest(wire)
        assert b'"error"' in body
        assert DONE not in body or body.index(b'"error"') < body.index(DONE)
        call.wire.close()
        again = begun(place, wire)  # the client's connection is as good as before
        again.say(chunk(END), chunk(b""))
        assert rest(wire).endswith(DONE)
    place.quiet()


@pytest.mark.parametrize("leave", [reset, socket.socket.close])
def test_a_client_that_leaves_is_noticed_by_the_engine(place: Place, leave: Callable[[socket.socket], None]) -> None:
    before = place.requests()
    wire = place.client()
    call = begun(place, wire)
    call.say(chunk(event("two")))
    leave(wire)
    assert call.left()
    place.quiet()
    place.until(lambda: place.requests() == before + 1)


def test_a_client_that_leaves_before_the_first_event_is_noticed_by_the_engine(place: Place) -> None:
    wire = place.client()
    wire.sendall(place.request())
    call = place.call()
    call.say(HEAD)
    reset(wire)
    assert call.left()
    place.quiet()


def test_a_client_that_leaves_with_another_request_in_its_wake_leaves_nothing_behind(place: Place) -> None:
    before = place.requests()
    wire = place.client()
    call = begun(place, wire)
    wire.sendall(place.request() * 2)
    call.say(chunk(event("two")))
    assert words(piece(wire)) == ["two"]
    reset(wire)
    assert call.left()
    place.quiet()
    place.until(lambda: place.requests() == before + 1)


def test_pipelined_streams_come_one_after_the_other(place: Place) -> None:
    with closing(place.client()) as wire:
        wire.sendall(place.request() * 3)
        call = place.call()
        for at in range(3):
            call.say(HEAD, chunk(event("one")), chunk(event("two")), chunk(END), chunk(b""))
            status, raw = head(wire)
            assert status == b"HTTP/1.1 200 OK"
            assert words(rest(wire, raw)) == ["one", "two"]
            if at < 2:
                call.request()
    place.quiet()


def test_what_is_no_request_during_a_stream_does_not_upset_it(place: Place) -> None:
    with closing(place.client()) as wire:
        call = begun(place, wire)
        wire.sendall(b"\x00 nonsense\r\n\r\n")
        assert wire.recv(65536) == b""  # nothing is said in the middle of an answer
        assert call.left()
    place.quiet()


def test_a_slow_client_holds_the_engine_back(place: Place) -> None:
    process = psutil.Process(place.server.process.pid)
    with closing(place.client(room=4096)) as wire:
        call = begun(place, wire)
        text = "x" * 8000
        raw = chunk(event(text)) * 16
        grown = process.memory_info().rss
        call.wire.settimeout(1.0)
        with pytest.raises(TimeoutError):  # somebody no longer takes it
            call.say(raw * 1000)  # 128 MB
        assert process.memory_info().rss - grown < 32 * 1024**2
        reset(wire)
        call.wire.settimeout(PATIENCE)
        assert call.left()
    place.quiet()


def test_a_slow_client_that_comes_round_gets_each_event_once(place: Place) -> None:
    with closing(place.client(room=4096)) as wire:
        call = begun(place, wire)
        count, text = 400, "x" * 4000
        call.wire.setblocking(False)
        raw = b"".join(chunk(event(f"{at}-{text}")) for at in range(count)) + chunk(END) + chunk(b"")
        view, found = memoryview(raw), b""
        while view:
            try:
                view = view[call.wire.send(view) :]
            except BlockingIOError:
                found += piece(wire)
        found += rest(wire)
        assert [each.partition("-")[0] for each in words(found)] == [str(at) for at in range(count)]
        assert found.endswith(DONE)
    place.quiet()


def test_a_client_of_http_1_0_gets_a_stream_that_ends_with_its_connection(place: Place) -> None:
    with closing(place.client()) as wire:
        wire.sendall(place.request(version="1.0"))
        call = place.call()
        call.say(HEAD, chunk(event("one")))
        status, raw = head(wire)
        assert status == b"HTTP/1.1 200 OK"
        assert b"connection: close" in raw
        call.say(chunk(END), chunk(b""))
        body = b""
        while data := wire.recv(65536):
            body += data
        assert b"one" in body
        assert DONE in body
    place.quiet()


def test_a_client_that_wants_its_connection_closed_gets_a_whole_stream(place: Place) -> None:
    with closing(place.client()) as wire:
        wire.sendall(place.request(more="connection: close\r\n"))
        call = place.call()
        call.say(HEAD, chunk(event("one")))
        raw = head(wire)[1]
        assert b"connection: close" in raw
        assert words(piece(wire)) == ["one"]
        call.say(chunk(event("two")))
        assert words(piece(wire)) == ["two"]
        call.say(chunk(END), chunk(b""))
        assert rest(wire).endswith(DONE)
        assert wire.recv(1) == b""
    place.quiet()


def test_a_client_that_waits_to_be_told_to_go_on_gets_one_head(place: Place) -> None:
    with closing(place.client()) as wire:
        asked = place.request(more="expect: 100-continue\r\n")
        wire.sendall(asked)  # and does not wait
        call = place.call()
        call.say(HEAD, chunk(event("one")), chunk(END), chunk(b""))
        assert head(wire)[0].startswith(b"HTTP/1.1 100")
        status, raw = head(wire)
        assert status == b"HTTP/1.1 200 OK"
        assert words(rest(wire, raw)) == ["one"]
    place.quiet()
