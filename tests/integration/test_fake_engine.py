"""The fake engine over real sockets: what it says, and how it fails."""

import asyncio
import json
import os

import aiohttp
import psutil
import pytest

from corral.domain.ports import LaunchSpec, silent
from corral.errors import EngineStartFailed, EngineTimeout
from corral.runtimes.fake import Fake, FakeOptions

ASK = {"messages": [{"role": "user", "content": "one two three"}]}
PATIENCE = 90.0


class Client:
    """What a test says to one engine."""

    def __init__(self, session, http):
        self.session = session
        self.http = http
        self.url = session.endpoint.url

    async def post(self, path, **body):
        async with self.http.post(self.url + path, json=body) as answer:
            return answer.status, answer.headers, await answer.read()

    async def chat(self, **more):
        return await self.post("/chat/completions", **ASK, **more)

    async def control(self, verb, name):
        async with self.http.request(verb, f"{self.url.removesuffix('/v1')}/fake/{name}") as answer:
            return await answer.json()

    async def seen(self, **wanted):
        """The engine's account, once the counts in it are as wanted."""
        async with asyncio.timeout(PATIENCE):
            while True:
                account = await self.control("GET", "seen")
                if all(account[name] == value for name, value in wanted.items()):
                    return account


@pytest.fixture
async def engine():
    """Starts engines with a script, and ends them."""
    open_ = []

    async def start(**script):
        session = await Fake(os.environ).start(LaunchSpec("fakey", FakeOptions(**script)), silent)
        http = aiohttp.ClientSession(headers=session.endpoint.headers)
        open_.append((session, http))
        return Client(session, http)

    yield start
    for session, http in open_:
        await http.close()
        await session.stop(5)


def events(raw):
    return [line[6:] for line in raw.decode().split("\n\n") if line]


async def test_it_answers_whole_and_in_a_stream(engine):
    client = await engine(delay_ms=1, first_token_ms=1)
    status, _, raw = await client.chat(model="named")
    assert status == 200
    assert json.loads(raw)["choices"][0]["message"]["content"] == "one two three"
    assert json.loads(raw)["model"] == "named"
    _, headers, raw = await client.chat(stream=True, stream_options={"include_usage": True})
    assert headers["content-type"] == "text/event-stream"
    *parts, usage, done = events(raw)
    assert done == "[DONE]"
    assert json.loads(usage)["usage"]["completion_tokens"] == 3
    assert "".join(json.loads(part)["choices"][0]["delta"].get("content", "") for part in parts) == "one two three"


async def test_it_lists_embeds_and_completes(engine):
    client = await engine(embed_dimensions=3)
    async with client.http.get(client.url + "/models") as answer:
        assert [model["id"] for model in (await answer.json())["data"]] == ["fakey"]
    _, _, raw = await client.post("/embeddings", input="a")
    assert len(json.loads(raw)["data"][0]["embedding"]) == 3
    _, _, raw = await client.post("/completions", prompt="a b")
    assert json.loads(raw)["choices"][0]["text"] == "a b"


async def test_it_remembers_what_it_was_asked_but_not_the_key(engine):
    client = await engine()
    await client.chat(seed=7)
    account = await client.control("GET", "seen")
    (request,) = account["requests"]
    assert (request["method"], request["path"], request["body"]["seed"]) == ("POST", "/v1/chat/completions", 7)
    assert "authorization" not in request["headers"]


async def test_it_remembers_the_last_thousand_requests_only(engine):
    client = await engine()
    for _ in range(1002):
        async with client.http.get(client.url + "/models"):
            pass
    await client.chat(seed=8)
    account = await client.control("GET", "seen")
    assert len(account["requests"]) == 1000
    assert account["requests"][-1]["body"]["seed"] == 8


async def test_a_wrong_key_opens_nothing_but_the_health_check(engine):
    client = await engine()
    wrong = {"Authorization": "Bearer wrong"}
    for path in ("/v1/models", "/fake/seen"):
        async with client.http.get(client.url.removesuffix("/v1") + path, headers=wrong) as answer:
            assert answer.status == 401
    async with client.http.get(client.url.removesuffix("/v1") + "/health", headers=wrong) as answer:
        assert answer.status == 200


async def test_nonsense_is_refused_and_the_next_request_is_answered(engine):
    client = await engine()
    for path, data, status in [
        ("/v1/nothing", "{}", 404),
        ("/fake/nothing", "{}", 404),
        ("/v1/chat/completions", "not json", 400),
        ("/v1/chat/completions", '{"messages": [], "fake": {"no": 1}}', 400),
        ("/v1/chat/completions", '{"messages": [], "fake": "no"}', 400),
    ]:
        async with client.http.post(client.url.removesuffix("/v1") + path, data=data) as answer:
            assert answer.status == status
            assert (await answer.json())["error"]["message"]
    assert (await client.chat())[0] == 200


async def test_a_chunked_body_is_read(engine):
    client = await engine()

    async def pieces():
        yield b'{"messages": [{"role": "user", '
        yield b'"content": "in pieces"}]}'

    async with client.http.post(client.url + "/chat/completions", data=pieces()) as answer:
        assert (await answer.json())["choices"][0]["message"]["content"] == "in pieces"


async def raw_exchange(client, data):
    reader, writer = await asyncio.open_connection("127.0.0.1", int(client.url.split(":")[2].split("/")[0]))
    writer.write(data)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_what_is_not_http_ends_the_connection_only(engine):
    client = await engine()
    assert await raw_exchange(client, b"hello\r\n\r\n") == b""
    assert (await client.seen(gone=1))["requests"] == []


async def test_requests_sent_ahead_are_answered_in_turn(engine):
    client = await engine()
    get = b"GET /health HTTP/1.1\r\n\r\n"
    answer = await raw_exchange(client, get + get + b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert answer.count(b'{"status": "ok"}') == 3


async def test_held_tokens_wait_for_the_word(engine):
    client = await engine(hold_after=1)
    async with client.http.post(client.url + "/chat/completions", json=ASK | {"stream": True}) as answer:
        heard = b""
        while b'"one "' not in heard:
            heard += await answer.content.readany()
        account = await client.seen(held=1)
        assert len(account["requests"]) == 1
        assert b'"two "' not in heard
        await client.control("POST", "release")
        heard += await answer.content.read()
        assert b'"three"' in heard
    assert (await client.chat())[0] == 200
    await client.control("POST", "hold")
    asking = asyncio.ensure_future(client.chat())
    await client.seen(held=1)
    await client.control("POST", "release")
    assert (await asking)[0] == 200


async def test_a_client_that_leaves_is_noticed(engine):
    client = await engine(hold_after=1, slots=1)
    for stream in (True, False):
        asking = asyncio.ensure_future(client.chat(stream=stream))
        await client.seen(held=1)
        asking.cancel()
        await client.seen(held=0)
    assert (await client.control("GET", "seen"))["gone"] == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_a_status_comes_with_its_retry_after(engine, stream):
    client = await engine(fault="status:429", retry_after=2, fault_times=1)
    status, headers, raw = await client.chat(stream=stream)
    assert (status, headers["retry-after"]) == (429, "2")
    assert json.loads(raw)["error"]["code"] == 429
    assert (await client.chat(stream=stream))[0] == 200


@pytest.mark.parametrize(
    ("fault", "stream"),
    [("cut", True), ("cut", False), ("truncate", False), ("garbage", True), ("garbage", False)],
)
async def test_a_broken_answer_is_broken(engine, fault, stream):
    client = await engine(fault_after=1)
    with pytest.raises(aiohttp.ClientError):
        await client.chat(stream=stream, fake={"fault": fault})
    assert (await client.chat(stream=stream))[0] == 200


async def until_it_breaks(answer):
    heard = b""
    try:
        while chunk := await answer.content.readany():
            heard += chunk
    except aiohttp.ClientPayloadError as error:
        return heard, error
    return heard, None


async def test_a_cut_comes_after_the_tokens_it_names(engine):
    client = await engine()
    for after, words in [(0, b""), (2, b"two"), (99, b"three")]:
        cut = ASK | {"stream": True, "fake": {"fault": "cut", "fault_after": after}}
        async with client.http.post(client.url + "/chat/completions", json=cut) as answer:
            heard, error = await until_it_breaks(answer)
        assert isinstance(error, aiohttp.ClientPayloadError)
        assert words in heard
        assert b"[DONE]" not in heard


async def test_a_bad_event_stands_in_the_stream(engine):
    client = await engine(fault="garbage_event", fault_after=1)
    _, _, raw = await client.chat(stream=True)
    parts = events(raw)
    assert parts[2] == '{"choices": [{"delta": '
    assert parts[-1] == "[DONE]"


@pytest.mark.parametrize(
    ("script", "first", "last"),
    [
        ({"fault": "half"}, '"role"', '"two "'),
        ({"fault": "half", "fault_after": 99}, '"role"', '"stop"'),
        ({"fault": "error"}, '"role"', '"server_error"'),
        ({"fault": "error", "fault_late": True}, '"role"', '"server_error"'),
        ({"fault": "drip"}, '"role"', "[DONE]"),
    ],
)
async def test_a_stream_ends_as_scripted_and_without_a_break(engine, script, first, last):
    client = await engine(fault_after=2)
    status, headers, raw = await client.chat(stream=True, fake=script)
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    assert first in events(raw)[0]
    assert last in events(raw)[-1]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fault", "kind"), [("html", "text/html"), ("untyped", "text/plain")])
async def test_it_calls_its_answer_something_else(engine, fault, kind, stream):
    client = await engine(fault=fault)
    _, headers, raw = await client.chat(stream=stream)
    assert headers["content-type"].partition(";")[0] == kind
    assert (b"<html>" in raw) == (fault == "html")
    assert (b"chat.completion" in raw) == (fault == "untyped")


async def test_what_is_no_answer_looks_like_one(engine):
    client = await engine()
    for fault, is_whole in [("half", False), ("empty", False), ("error", True), ("drip", True)]:
        status, headers, raw = await client.chat(fake={"fault": fault})
        assert (status, int(headers["content-length"])) == (200, len(raw))
        if is_whole:
            assert ("error" in json.loads(raw)) == (fault == "error")
        else:
            with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
                json.loads(raw)
    assert (await client.chat(stream=True, fake={"fault": "empty"}))[2] == b""


@pytest.mark.parametrize(("late", "heard"), [(False, b'"role"'), (True, b"[DONE]")])
async def test_it_falls_silent_in_mid_answer(engine, late, heard):
    client = await engine()
    body = ASK | {"stream": True, "fake": {"fault": "stall", "fault_late": late}}
    async with client.http.post(client.url + "/chat/completions", json=body) as answer:
        said = b""
        while heard not in said:
            said += await answer.content.readany()
        assert (b'"one "' in said) == late
        with pytest.raises(asyncio.TimeoutError):
            async with asyncio.timeout(0.05):
                await answer.content.readany()


async def test_a_prompt_may_have_a_script(engine):
    client = await engine(prompted=True)
    asked = {"messages": [{"role": "user", "content": '#fake {"fault": "status:503"}\nhello'}]}
    assert (await client.post("/chat/completions", **asked))[0] == 503
    assert (await client.post("/completions", prompt='#fake {"reply": "no"}'))[0] == 200
    assert (await client.post("/completions", prompt="#fake no"))[0] == 400
    assert (await (await engine()).post("/chat/completions", **asked))[0] == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("after", [1, 99])
async def test_a_crash_ends_the_engine_in_mid_answer(engine, stream, after):
    client = await engine(fault="crash", fault_after=after)
    with pytest.raises(aiohttp.ClientError):
        await client.chat(stream=stream)
    assert await client.session.ended() == "exited with code 70"
    assert not await client.session.healthy()


async def test_one_that_hangs_is_alive_and_silent(engine):
    client = await engine(fault="hang")
    asking = asyncio.ensure_future(client.chat())
    await client.seen(failed=1)
    assert not asking.done()
    assert await client.session.healthy()
    asking.cancel()
    await client.seen(gone=1)


async def test_one_that_refuses_takes_no_connection(engine):
    client = await engine(fault="refuse")
    with pytest.raises(aiohttp.ClientConnectorError):
        await client.chat()
    assert not await client.session.healthy()


async def test_a_start_may_be_slow_or_fail(engine):
    assert await (await engine(load_ms=1)).session.healthy()
    with pytest.raises(EngineStartFailed, match="'fakey' exited with code 70") as caught:
        await engine(fault="crash_on_start")
    assert "crashing at the start" in caught.value.hint
    never = LaunchSpec("fakey", FakeOptions(fault="never_ready"), load_timeout=0.5)
    with pytest.raises(EngineTimeout, match="'fakey'"):
        await Fake(os.environ).start(never, silent)
    assert len(psutil.Process().children()) == 1


async def test_one_that_ignores_sigterm_is_killed_after_the_grace(engine):
    client = await engine(fault="ignore_sigterm")
    assert (await client.chat())[0] == 200
    await client.session.stop(0.1)
    assert await client.session.ended() == "was killed, because it did not stop"


async def test_only_so_many_are_answered_at_once(engine):
    client = await engine(slots=1, hold_after=0)
    asking = [asyncio.ensure_future(client.chat()) for _ in range(3)]
    async with asyncio.timeout(PATIENCE):
        while len((await client.seen(held=1))["requests"]) < 3:
            pass
    assert (await client.control("POST", "release"))["held"] == 1
    assert [status for status, _, _ in await asyncio.gather(*asking)] == [200, 200, 200]
