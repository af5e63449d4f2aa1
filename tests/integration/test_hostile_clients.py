"""Clients that send anything at all: they are refused in their own dialect's form, and nobody else notices.

Whatever comes, Corral does not fail (500), does not wait for ever, does not grow, and answers the next client.
"""

from __future__ import annotations

import gzip
import http.client
import json
import re
import socket
import struct
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.servers import Server, corral_server

CONFIG = """
server: {request_timeout: 30s}
models:
  robot: {runtime: fake, options: {reply: "one two three"}}
  vectors: {runtime: fake}
  talker: {runtime: fake, options: {tokens: 100000}}
"""
TURN = [{"role": "user", "content": "hi"}]
TOLD = [{"role": "user", "parts": [{"text": "hi"}]}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "minLength": 1}}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
GEMINI = "/v1beta/models/robot"
DOORS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "model": "robot",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c", "content": "r"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
        "stop": ["x"],
        "max_tokens": 5,
    },
    "/v1/completions": {"model": "robot", "prompt": "hi", "max_tokens": 5, "stream_options": {"include_usage": True}},
    "/v1/embeddings": {"model": "robot", "input": ["a"], "dimensions": 8, "encoding_format": "float"},
    "/v1/responses": {
        "model": "robot",
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "r"},
        ],
        "tools": [{"type": "function", "name": "f", "parameters": SCHEMA}],
        "metadata": {"a": "b"},
        "reasoning": {"effort": "low"},
    },
    "/v1/rerank": {"model": "robot", "query": "a", "documents": ["b"], "top_n": 1},
    "/v1/messages": {
        "model": "robot",
        "max_tokens": 5,
        "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "r"}]},
        ],
        "tools": [{"name": "f", "input_schema": SCHEMA}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    },
    "/v1/messages/count_tokens": {"model": "robot", "messages": TURN},
    "/api/chat": {
        "model": "robot",
        "stream": False,
        "messages": [
            *TURN,
            {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
            {"role": "tool", "tool_name": "f", "content": "r"},
        ],
        "format": SCHEMA,
        "options": {"temperature": 1, "num_predict": 5, "stop": ["a"]},
    },
    "/api/generate": {"model": "robot", "stream": False, "prompt": "a", "system": "s", "options": {"seed": 5}},
    "/api/embed": {"model": "robot", "input": "hi", "dimensions": 8},
    "/api/embeddings": {"model": "robot", "prompt": "hi"},
    f"{GEMINI}:generateContent": {
        "systemInstruction": {"parts": [{"text": "s"}]},
        "contents": [
            *TOLD,
            {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"a": 1}}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"a": 1}}}]},
        ],
        "tools": [{"functionDeclarations": [{"name": "f", "parameters": SCHEMA}]}],
        "generationConfig": {"maxOutputTokens": 5, "thinkingConfig": {"thinkingBudget": 1}},
    },
    f"{GEMINI}:streamGenerateContent": {"contents": TOLD},
    f"{GEMINI}:embedContent": {"content": {"parts": [{"text": "hi"}]}, "outputDimensionality": 8},
    f"{GEMINI}:batchEmbedContents": {"requests": [{"model": "models/robot", "content": {"parts": [{"text": "hi"}]}}]},
    f"{GEMINI}:countTokens": {"contents": TOLD},
}
"""Each door with a request that it takes, rich enough that much can be wrong with it."""
STRANGE: list[Any] = [
    *(None, True, -1, 0, 1.5, 1e308, -1e308, 2**63, 2**64, "", "x", "5", "\x00", "\u2028", "a\r\nb: c", "😀"),
    *([], [None], [[]], [{}], {}, {"x": {}}, {"type": "x"}, [{"type": []}], [{"type": "text", "text": 5}]),
    *([{"type": "image_url", "image_url": {"url": "data:;base64,!!"}}], [{"type": "image_url", "image_url": 5}]),
    *([{"role": "user"}], [{"role": "tool", "content": "x"}], [{"functionCall": {}}], [{"inlineData": {"data": 5}}]),
    *([{"type": "tool_use"}], [{"type": "tool_result"}], [{"type": "function", "function": {"name": "a\r\nb"}}]),
]
TRICKS = [
    "../../etc/passwd",
    "/robot",
    "robot/..",
    "robot\r\nx: y",
    "robot?x=1",
    "robot#",
    "rob%6ft",
    "робот",
    "😀",
    "-rf",
    " ",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with corral_server(tmp_path_factory.mktemp("home"), CONFIG) as running:
        yield running
        log = (running.home.parent / "server.log").read_text()
        assert "Traceback" not in log, log[-4000:]


class Client:
    """A connection that is kept, and opened again where the server has closed it."""

    def __init__(self, server: Server) -> None:
        parts = urlsplit(server.url)
        self.host, self.port = parts.hostname or "", parts.port or 0
        self._connection = http.client.HTTPConnection(self.host, self.port, timeout=60)

    def post(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        self._connection.request("POST", path, body, {"content-type": "application/json", **(headers or {})})
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def close(self) -> None:
        self._connection.close()

    def raw(self, data: bytes, *, half: bool = False) -> bytes:
        """All that comes back for these bytes, until the server closes."""
        with socket.create_connection((self.host, self.port), timeout=60) as connection:
            connection.sendall(data)
            if half:
                connection.shutdown(socket.SHUT_WR)
            parts = []
            while piece := connection.recv(65536):
                parts.append(piece)
        return b"".join(parts)


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    found = Client(server)
    yield found
    status, answer = found.post("/v1/chat/completions", json.dumps({"model": "robot", "messages": TURN}).encode())
    found.close()
    assert status == 200, answer


def head(path: str, length: int, *more: bytes) -> bytes:
    lines = [f"POST {path} HTTP/1.1".encode(), b"host: localhost", b"connection: close"]
    return b"\r\n".join([*lines, b"content-length: %d" % length, *more, b"", b""])


def in_form(path: str, body: bytes) -> str:
    """What is said by an error, which has the form of the path's dialect."""
    found = json.loads(body)
    if path.startswith("/api/"):
        assert set(found) == {"error"}
        return str(found["error"])
    if path.startswith("/v1/messages"):
        assert found["type"] == "error"
        assert set(found["error"]) == {"type", "message"}
    elif path.startswith("/v1beta/"):
        assert {"code", "message", "status"} <= set(found["error"])
    else:
        assert {"message", "type", "code"} <= set(found["error"]) <= {"message", "type", "param", "code"}
    return str(found["error"]["message"])


def judged(path: str, status: int, body: bytes, sent: Any = "") -> None:
    """An answer, or the client's own mistake in the form it knows."""
    assert status in {200, 400, 404, 413, 415, 422}, (path, status, body[:300], sent)
    if status != 200:
        assert in_form(path, body)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a document."""
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*at, key)
        yield from places(each, (*at, key))


def changed(value: Any, at: tuple[Any, ...], to: Any) -> Any:
    """A copy of a document with something else in one place."""
    if not at:
        return to
    if isinstance(value, dict):
        return {**value, at[0]: changed(value[at[0]], at[1:], to)}
    return [*value[: at[0]], changed(value[at[0]], at[1:], to), *value[at[0] + 1 :]]


@pytest.mark.parametrize("path", DOORS)
def test_something_strange_in_any_one_place(client: Client, path: str) -> None:
    for at in places(DOORS[path]):
        for strange in STRANGE:
            sent = changed(DOORS[path], at, strange)
            judged(path, *client.post(path, json.dumps(sent).encode()), sent)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("path", DOORS)
def test_anything_in_any_places(client: Client, path: str) -> None:
    known = list(places(DOORS[path]))

    @given(st.lists(st.tuples(st.sampled_from(known), JSON), max_size=3), st.dictionaries(st.text(max_size=8), JSON))
    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def ask(changes: list[tuple[tuple[Any, ...], Any]], more: dict[str, Any]) -> None:
        sent = {**more, **DOORS[path]}
        for at, value in changes:
            if at in set(places(sent)):
                sent = changed(sent, at, value)
        judged(path, *client.post(path, json.dumps(sent).encode("utf-8", "surrogatepass")), sent)

    ask()


@pytest.mark.parametrize("path", DOORS)
def test_bytes_that_are_no_request(client: Client, path: str) -> None:
    good = json.dumps(DOORS[path]).encode()
    bodies = {
        "empty": b"",
        "null": b"null",
        "a list": b"[" + good + b"]",
        "a text": b'"x"',
        "cut": good[:-3],
        "two": good + good,
        "not a number": good[:-1] + b', "temperature": NaN}',
        "infinite": good[:-1] + b', "temperature": 1e999}',
        "many digits": good[:-1] + b', "seed": ' + b"9" * 10_000 + b"}",
        "half a letter": good[:-1] + b', "user": "\\ud800"}',
        "no letter": good[:-1] + b', "user": "\xff\xfe"}',
        "marked": b"\xef\xbb\xbf" + good,
        "in another coding": good.decode().encode("utf-16"),
        "compressed": gzip.compress(good),
        "deep": b'{"model":' + b"[" * 100_000,
        "deep objects": good[:-1] + b', "metadata": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    }
    for name, body in bodies.items():
        status, answer = client.post(path, body)
        assert status == 400, (name, status, answer[:200])
        assert in_form(path, answer), name
    assert "compressed" in in_form(path, client.post(path, bodies["compressed"])[1])


@pytest.mark.parametrize("depth", [100, 230, 239, 245, 252, 300, 1000])
def test_what_is_deep_is_answered_or_refused(client: Client, depth: int) -> None:
    deep = b"[" * depth + b"]" * depth
    schema = b'{"type":"object","properties":{"a":' * (depth // 2) + b"{}" + b"}}" * (depth // 2)
    for path, document in DOORS.items():
        rest = {key: value for key, value in document.items() if key not in ("tools", "metadata", "options", "format")}
        good = json.dumps(rest).encode()[:-1]
        tools = b', "tools": [{"type":"function","name":"f","input_schema":' + schema + b',"parameters":' + schema
        tools += b',"function":{"name":"f","parameters":' + schema
        tools += b'},"functionDeclarations":[{"name":"f","parameters":' + schema + b"}]}]}"
        for body in (
            good + b', "metadata": {"a": ' + deep + b"}}",
            good + b', "options": ' + deep + b"}",
            good + tools,
        ):
            judged(path, *client.post(path, body), (depth, body[:100]))


@pytest.mark.parametrize("path", DOORS)
def test_whatever_names_a_model(client: Client, path: str) -> None:
    for name in TRICKS:
        asked, body = path, {**DOORS[path], "model": name}
        if path.startswith("/v1beta/"):
            quoted = "".join(f"%{byte:02x}" for byte in name.encode())
            asked = path.replace("robot", quoted)
        status, answer = client.post(asked, json.dumps(body).encode())
        if not (path.startswith("/v1beta/") and status == 200):
            assert status in {400, 404}, (name, status, answer[:200])
            assert in_form(path, answer)


@pytest.mark.parametrize("path", DOORS)
def test_content_types_are_not_believed_and_the_last_of_two_keys_counts(client: Client, path: str) -> None:
    good = json.dumps(DOORS[path]).encode()
    plain = client.post(path, good)[0]
    for kind in ("text/plain", "multipart/form-data; boundary=x", "", "application/json; charset=utf-16"):
        assert client.post(path, good, {"content-type": kind})[0] == plain
    if "model" in DOORS[path]:
        assert client.post(path, b'{"model": "nobody", ' + good[1:])[0] == plain


@pytest.mark.parametrize("path", DOORS)
def test_framing_that_cannot_be_trusted(client: Client, path: str) -> None:
    good = json.dumps(DOORS[path]).encode()
    start = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n".encode()
    wrong = {
        "two lengths": start + b"content-length: %d\r\ncontent-length: 5\r\n\r\n" % len(good) + good,
        "a length and chunks": head(path, len(good), b"transfer-encoding: chunked") + b"0\r\n\r\n",
        "a length of many digits": start + b"content-length: " + b"9" * 5000 + b"\r\n\r\n",
        "less than nothing": start + b"content-length: -5\r\n\r\n" + good,
        "no number": start + b"content-length: five\r\n\r\n" + good,
        "no length": start + b"\r\n" + good,
        "a chunk of no size": start + b"transfer-encoding: chunked\r\n\r\nzz\r\n" + good + b"\r\n0\r\n\r\n",
        "a folded header": start + b"x-a: b\r\n c\r\ncontent-length: 2\r\n\r\n{}",
        "a header without a name": start + b": b\r\ncontent-length: 2\r\n\r\n{}",
        "a nought in a header": start + b"x-a: \x00\r\ncontent-length: 2\r\n\r\n{}",
    }
    for name, data in wrong.items():
        answer = client.raw(data)
        assert re.match(rb"HTTP/1\.1 4\d\d ", answer), (name, answer[:200])
        assert in_form(path, answer.partition(b"\r\n\r\n")[2]), name
    whole = client.raw(head(path, len(good)) + good)
    pieces = b"".join(b"%x\r\n%s\r\n" % (1, good[at : at + 1]) for at in range(len(good)))
    chunked = client.raw(start + b"transfer-encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n")
    assert chunked[:12] == whole[:12]


def test_a_head_that_never_ends_is_refused(client: Client) -> None:
    for more in (b"x: " + b"y" * 200_000, b"\r\n".join(b"x-%d: y" % number for number in range(20_000))):
        data = b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\n" + more + b"\r\n\r\n"
        try:
            answer = client.raw(data)
        except ConnectionError:  # it was refused before all of it was sent
            continue
        assert b" 431 " in answer.partition(b"\r\n")[0]


def test_who_hangs_up_in_any_way_harms_nobody(client: Client) -> None:
    good = json.dumps({"model": "robot", "messages": TURN, "stream": True}).encode()
    data = head("/v1/chat/completions", len(good)) + good
    for cut in (1, 30, len(data) - 5, len(data)):
        client.raw(data[:cut], half=True)
        with socket.create_connection((client.host, client.port), timeout=60) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end
            connection.sendall(data[:cut])


def test_requests_behind_each_other_are_answered_in_their_order(client: Client) -> None:
    data = b""
    for number in range(20):
        body = json.dumps({"model": "robot", "messages": TURN, "fake": {"reply": f"n{number}"}}).encode()
        body = body if number % 5 else b"{broken"
        more = b"\r\nconnection: close" if number == 19 else b""
        start = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost%s\r\ncontent-length: %d\r\n\r\n"
        data += start % (more, len(body)) + body
    answer = client.raw(data).decode()
    assert re.findall(r"HTTP/1\.1 (\d+)", answer) == ["400" if number % 5 == 0 else "200" for number in range(20)]
    assert re.findall(r'"content": "(n\d+)"', answer) == [f"n{number}" for number in range(20) if number % 5]


def memory(server: Server) -> int:
    return int(psutil.Process(server.process.pid).memory_info().rss)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/api/chat", "/v1/responses"])
def test_much_of_everything(client: Client, server: Server, path: str) -> None:
    tool = {"name": "f", "input_schema": {}, "type": "function", "function": {"name": "f"}, "parameters": {}}
    key = "input" if path == "/v1/responses" else "messages"
    rest = {"model": "robot", "max_tokens": 5, "stream": False}
    for _ in range(2):
        for body in (
            {**rest, key: [{"role": "user", "content": "word " * 2_000_000}]},
            {**rest, key: TURN * 100_000},
            {**rest, key: TURN, "tools": [{**tool, "name": f"f{number}"} for number in range(10_000)]},
            {**rest, key: TURN, **{f"unknown{number}": number for number in range(50_000)}},
        ):
            status, answer = client.post(path, json.dumps(body).encode())
            judged(path, status, answer)
    assert memory(server) < 1_500_000_000


def test_who_reads_a_stream_slowly_does_not_fill_memory(client: Client, server: Server) -> None:
    body = json.dumps({"model": "talker", "messages": TURN, "stream": True}).encode()
    data = head("/v1/chat/completions", len(body)) + body
    client.raw(head("/v1/chat/completions", len(body)) + body)  # the model is in memory, and has been read out once
    before = memory(server)
    readers = [socket.create_connection((client.host, client.port), timeout=60) for _ in range(10)]
    try:
        for reader in readers:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.sendall(data)
            assert reader.recv(1000)
        for _ in range(200):  # others are served meanwhile
            assert (
                client.post("/v1/chat/completions", json.dumps({"model": "robot", "messages": TURN}).encode())[0] == 200
            )
        assert memory(server) - before < 100_000_000
    finally:
        for reader in readers:
            reader.close()


def test_no_header_is_made_of_what_a_client_names(client: Client) -> None:
    evil = "a\r\nx-evil: 1\r\n\r\nb"
    for path, document in DOORS.items():
        body = json.dumps({**document, evil: 1, **{f"field-{n}-{'x' * 100}": n for n in range(2000)}}).encode()
        answer = client.raw(head(path, len(body), b"x-corral-strict: false") + body)
        lines, _, rest = answer.partition(b"\r\n\r\n")
        assert not any(line.lower().startswith(b"x-evil") for line in lines.split(b"\r\n"))
        assert len(lines) < 16_000, "a client gives up on heads longer than that"
        assert rest
