"""The transformers runtime for real: an engine with a real model answers, streams, refuses, and is gone at the end."""

import asyncio
import json
import os
from pathlib import Path

import aiohttp
import psutil
import pytest
import pytest_asyncio

from corral.catalog import formats, snapshots
from corral.domain.memory import Placement
from corral.domain.models import Capability, FileEntry, Revision
from corral.domain.options import parse_options
from corral.domain.ports import LaunchSpec, silent
from corral.errors import EngineStartFailed
from corral.lifecycle.footprint import Room, placements
from corral.runtimes.transformers import Transformers, TransformersOptions

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
]

STORY = [{"role": "user", "content": "Write a short story about a dog."}]
# A template like Gemma's: no place for a system message, and who speaks must alternate.
STRICT = """{% for m in messages %}{% if m['role'] == 'system' or (m['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}<|im_start|>{{ m['role'] }}
{{ m['content'] }}<|im_end|>
{% endfor %}<|im_start|>assistant
"""


def spec(environment: Path, folder: Path, **options):
    made = parse_options(TransformersOptions, {"executable": str(environment), **options}, "transformers")
    return LaunchSpec("smollm2", made, {"model": folder}, revision(folder), 240.0)


def estimated(launch: LaunchSpec, home: Path) -> Placement:
    """What is expected of an engine that was never seen."""
    demand = Transformers(os.environ, home).demand(launch)
    (first,) = placements(launch.revision.facts, launch.revision.size, demand, [Room("cpu", None, None)])
    return first


def held(session) -> int:
    """Bytes: a footprint counts a part of what it shares with another engine beside it, and this the whole."""
    return sum(psutil.Process(pid).memory_info().rss for pid in session.processes())


def revision(folder: Path) -> Revision:
    """The snapshot as it is when it is installed."""
    entries = [(path, FileEntry(path.name, path.stat().st_size, "00")) for path in sorted(folder.glob("[!.]*"))]
    shape = formats.assemble([formats.inspect(path, entry) for path, entry in entries])
    _, facts = snapshots.read(shape)
    return Revision("file:smollm2", shape.format, shape.files, facts=facts)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(transformers_environment, smollm2_snapshot, tmp_path_factory):
    runtime = Transformers(os.environ, tmp_path_factory.mktemp("home"))
    session = await runtime.start(spec(transformers_environment, smollm2_snapshot, context=256, slots=2), silent)
    yield session
    await session.stop(10)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ask(session):
    """Send a body the way the gateway does: through the endpoint's own adapter."""
    async with aiohttp.ClientSession(headers=session.endpoint.headers) as http:

        async def send(path="/chat/completions", **body):
            body = {"model": session.endpoint.model, **body}
            session.endpoint.adapt(path, body)
            async with http.post(session.endpoint.url + path, json=body) as answer:
                return answer.status, await answer.text()

        yield send


def said(text):
    return json.loads(text)["choices"][0]["message"]["content"]


def events(text):
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


async def test_it_says_what_it_is(session):
    facts = session.facts

    assert (facts.context, facts.slots, facts.device) == (256, 2, "cpu")
    assert facts.capabilities == {Capability.CHAT, Capability.COMPLETION, Capability.SYSTEM_ROLE}
    assert any("attention" in note for note in facts.notes)
    assert await session.healthy()
    assert len(session.processes()) >= 2


async def test_the_first_estimate_is_near(session, transformers_environment, smollm2_snapshot, tmp_path, ask):
    first = estimated(spec(transformers_environment, smollm2_snapshot, context=256, slots=2), tmp_path)
    ready = (await session.footprint()).devices["cpu"]
    await asyncio.gather(*(ask(messages=STORY, max_tokens=40) for _ in range(4)))
    busy = (await session.footprint()).devices["cpu"]
    whole = held(session)

    print(
        f"estimated {first.total / 1e6:.0f} MB; ready {ready / 1e6:.0f}, busy {busy / 1e6:.0f}, whole {whole / 1e6:.0f}"
    )
    assert first.source == "estimated"
    assert max(ready, busy) <= whole
    assert 0.75 <= first.total / whole <= 1.25


async def test_it_answers_and_counts(ask):
    status, text = await ask(messages=STORY, max_tokens=6)
    answer = json.loads(text)

    assert status == 200
    assert answer["model"] == "smollm2"
    assert answer["usage"]["completion_tokens"] == 6
    assert answer["choices"][0]["finish_reason"] == "length"
    assert said(text)


async def test_a_stream_ends_with_usage_and_done(ask):
    status, text = await ask(messages=STORY, max_tokens=5, stream=True, stream_options={"include_usage": True})
    heard = events(text)

    assert status == 200
    assert text.rstrip().endswith("data: [DONE]")
    assert heard[-1]["usage"]["completion_tokens"] == 5
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in heard)


async def test_a_text_that_ends_the_answer_ends_it(ask):
    whole = said((await ask(messages=STORY, max_tokens=12))[1])
    word = whole.split()[3]

    _, text = await ask(messages=STORY, max_tokens=12, stop=[word])
    assert said(text) == whole[: whole.index(word)]
    assert json.loads(text)["choices"][0]["finish_reason"] == "stop"
    _, stream = await ask(messages=STORY, max_tokens=12, stop=word, stream=True)
    pieces = [event["choices"][0]["delta"].get("content", "") for event in events(stream)]
    assert "".join(pieces) == whole[: whole.index(word)]


async def test_each_request_is_sampled_by_its_own_parameters_also_side_by_side(ask):
    hot = {"messages": STORY, "max_tokens": 8, "temperature": 1.8, "top_k": 200}
    answers = await asyncio.gather(
        ask(messages=STORY, max_tokens=4),
        ask(**hot, seed=1),
        ask(**hot, seed=2),
        ask(messages=STORY, max_tokens=4, temperature=0),
    )
    plain, one, two, cold = (said(text) for _, text in answers)

    assert plain == cold
    assert len({plain, one, two}) == 3


async def test_a_seed_gives_the_same_answer_again(ask):
    hot = {"messages": STORY, "max_tokens": 12, "temperature": 1.5}
    answers = [said((await ask(**hot, seed=seed))[1]) for seed in (5, 6, 5, 6, 5)]

    assert answers[0] == answers[2] == answers[4]
    assert answers[1] == answers[3]
    assert answers[0] != answers[1]


async def test_penalties_are_followed(ask):
    plain = said((await ask(messages=STORY, max_tokens=40))[1])
    for penalty in ({"presence_penalty": 2.0}, {"frequency_penalty": 2.0}, {"repeat_penalty": 1.8, "min_p": 0.0}):
        assert said((await ask(messages=STORY, max_tokens=40, **penalty))[1]) != plain, penalty


async def test_a_prompt_that_is_too_long_is_refused_and_the_engine_lives(ask, session):
    long = [{"role": "user", "content": "dog " * 400}]
    for stream in (False, True):
        status, text = await ask(messages=long, stream=stream)
        assert status == 400
        assert "holds 256" in text
        assert "context_length_exceeded" in text
    status, text = await ask(messages=STORY, max_tokens=2)

    assert status == 200
    assert await session.healthy()


async def test_an_answer_without_a_limit_ends_with_the_context(ask):
    status, text = await ask(messages=STORY, temperature=0)

    assert status == 200
    assert json.loads(text)["usage"]["total_tokens"] <= 256


async def test_completions_work_too(ask):
    status, text = await ask("/completions", prompt=["Once upon a time"], max_tokens=4)

    assert status == 200
    assert json.loads(text)["choices"][0]["text"]


async def test_only_who_has_the_key_is_answered(session):
    async with aiohttp.ClientSession() as http:
        async with http.get(session.endpoint.url + "/models") as answer:
            assert answer.status == 401
        async with http.post(session.endpoint.url.removesuffix("/v1") + "/reset") as answer:
            assert answer.status == 401


async def test_a_client_that_goes_away_leaves_room_for_others(ask, session):
    async with (
        aiohttp.ClientSession(headers=session.endpoint.headers) as http,
        http.post(
            session.endpoint.url + "/chat/completions", json={"model": "x", "messages": STORY, "stream": True}
        ) as answer,
    ):
        await answer.content.readline()
    statuses = await asyncio.gather(*(ask(messages=STORY, max_tokens=2) for _ in range(4)))

    assert [status for status, _ in statuses] == [200] * 4


async def test_an_unknown_field_is_refused_in_openais_form(ask):
    status, text = await ask(messages=STORY, no_such_field=1)

    assert status == 422
    assert "no_such_field" in json.loads(text)["error"]["message"]


async def test_without_batches_with_a_strict_template_and_quantised(
    transformers_environment, smollm2_snapshot, tmp_path
):
    launch = spec(
        transformers_environment,
        smollm2_snapshot,
        context=256,
        batching=False,
        quantization="int8",
        chat_template=STRICT,
    )
    session = await Transformers(os.environ, tmp_path).start(launch, silent)
    before = [psutil.Process(pid) for pid in session.processes()]
    try:
        assert session.facts.slots == 1
        assert Capability.SYSTEM_ROLE not in session.facts.capabilities
        messages = [{"role": "system", "content": "You know all capitals."}, {"role": "user", "content": "Of France?"}]
        body = {"model": session.endpoint.model, "messages": messages, "max_tokens": 6, "stop": ["zzz"]}
        session.endpoint.adapt("/chat/completions", body)
        async with aiohttp.ClientSession(headers=session.endpoint.headers) as http:
            async with http.post(session.endpoint.url + "/chat/completions", json=body) as answer:
                assert answer.status == 200, await answer.text()
                assert said(await answer.text())
            twice = {"model": "x", "messages": [*messages[1:], *messages[1:]]}
            async with http.post(session.endpoint.url + "/chat/completions", json=twice) as answer:
                assert answer.status == 400
                assert "must alternate" in await answer.text()
        assert 0.75 <= estimated(launch, tmp_path).total / held(session) <= 1.25
        before[-1].kill()
        assert await session.ended()
        assert not any(process.is_running() and process.status() != "zombie" for process in before)
    finally:
        await session.stop(0)


async def test_a_model_that_the_library_does_not_know_is_said_plainly(
    transformers_environment, smollm2_snapshot, tmp_path
):
    folder = tmp_path / "odd"
    folder.mkdir()
    for file in smollm2_snapshot.iterdir():
        (folder / file.name).symlink_to(file)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "unheard_of", "architectures": ["NoSuch"]}))

    with pytest.raises(EngineStartFailed) as caught:
        await Transformers(os.environ, tmp_path).start(spec(transformers_environment, folder), silent)
    assert "does not recognize this architecture" in caught.value.message
    assert "corral runtimes install transformers" in caught.value.hint


async def test_it_counts_what_it_reads(session, ask):
    for path, said in (("/chat/completions", {"messages": STORY}), ("/completions", {"prompt": "Once upon a time"})):
        status, text = await ask(path, **said, max_tokens=1)
        assert status == 200, text
        body = {"model": session.endpoint.model, **said}
        session.endpoint.adapt(path, body)
        assert await session.count(path, body) == json.loads(text)["usage"]["prompt_tokens"]
    assert await session.count("/completions", {"prompt": ["two", "prompts"]}) is None
