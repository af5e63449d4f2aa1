"""Every wire form keeps the promises of `dialects/form.py`. Forms are discovered; one without examples fails.

Examples of a form lie in `dialect_examples/FORM/`:

    NAME.request.json   {"in": a client's body, "out": what an engine of this form is sent for it, "ignored": [...]}
    NAME.reply.json     {"in": an engine's answer, "out": what a client of this form gets for it}
    NAME.stream         the bytes of an engine's stream
    NAME.events.json    what that stream adds up to: thought, text, calls, stop, usage

    error*.stream       the bytes of a stream that reports an error, which is its last event

`out` and `ignored` may be left out. What is written is checked with the types of the vendor's own client, where it has
them.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corral.dialects import form as forms
from corral.dialects.canonical import Failed, Ranking, Reply, Vectors
from corral.dialects.form import PLAIN, Fault, Form, Kind
from corral.domain.money import Usage
from corral.errors import InvalidRequest, UpstreamUnreachable
from tests.support.dialects import (
    ASKED,
    blanked,
    compared,
    gathered,
    json_values,
    mutated,
    pieces,
    read,
    replies,
    streams,
    told,
)

EXAMPLES = Path(__file__).parent / "dialect_examples"
CHATTY = (Kind.CHAT, Kind.TEXT)
_LESS = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
_MORE = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def of_kind(*kinds: Kind) -> list[str]:
    """The names of the forms of these kinds."""
    return [name for name in forms.names() if forms.form(name).kind in kinds]


@pytest.fixture(params=forms.names())
def form(request) -> Form:
    return forms.form(request.param)


@pytest.fixture(params=of_kind(*CHATTY))
def chatty(request) -> Form:
    """A form that has streams."""
    return forms.form(request.param)


@pytest.fixture(params=of_kind(Kind.EMBEDDINGS))
def embedding(request) -> Form:
    """A form for vectors."""
    return forms.form(request.param)


@pytest.fixture(params=of_kind(Kind.RERANK))
def ranking_form(request) -> Form:
    """A form for rankings."""
    return forms.form(request.param)


def examples(form: Form, suffix: str) -> dict[str, Any]:
    found = sorted((EXAMPLES / form.name).glob(f"*{suffix}"))
    return {path.name: path.read_bytes() if suffix == ".stream" else orjson.loads(path.read_bytes()) for path in found}


@cache
def checker(name: str, what: str) -> Any:
    """What the vendor's own client says is right: takes a document, raises when it is not."""
    from pydantic import TypeAdapter

    def typed(kind: Any) -> Any:
        return TypeAdapter(kind).validate_python

    if name.startswith("openai."):
        from openai import types
        from openai.types import chat, responses

        return {
            ("openai.chat", "reply"): typed(chat.ChatCompletion),
            ("openai.chat", "event"): typed(chat.ChatCompletionChunk),
            ("openai.responses", "reply"): typed(responses.Response),
            ("openai.responses", "event"): typed(responses.ResponseStreamEvent),
            ("openai.completions", "reply"): typed(types.Completion),
            ("openai.completions", "event"): lambda document: typed(types.Completion)(_finished(document)),
            ("openai.embeddings", "reply"): typed(types.CreateEmbeddingResponse),
        }.get((name, what))
    if name == "anthropic.messages":
        from anthropic import types as anthropic

        return typed(anthropic.Message if what == "reply" else anthropic.RawMessageStreamEvent)
    if name == "gemini.generate":
        from google.genai import types as google

        return google.GenerateContentResponse.model_validate
    if name in ("ollama.chat", "ollama.generate"):
        import ollama

        kind = ollama.ChatResponse if name == "ollama.chat" else ollama.GenerateResponse
        return kind.model_validate
    return None


def _finished(chunk: Any) -> Any:
    """A chunk with a reason to stop: the client's type demands one, and OpenAI sends null until the last."""
    choices = [{**choice, "finish_reason": choice["finish_reason"] or "stop"} for choice in chunk["choices"]]
    return {**chunk, "choices": choices}


def checked(form: Form, what: str, document: Any) -> Any:
    if (check := checker(form.name, what)) is not None and not document.get("error"):
        check(document)
    return document


def sent(form: Form, written: bytes) -> list[Any]:
    """The JSON in what a client is sent, each checked."""
    found = [orjson.loads(piece) for piece in pieces(form, written) if piece != b"[DONE]"]
    return [checked(form, "event", each) for each in found]


def asked(form: Form) -> Any:
    """A small request of the form's kind."""
    examples_of = examples(form, ".request.json")
    return form.read_request(next(iter(examples_of.values()))["in"])


# -- examples --------------------------------------------------------------------------------------------------------


def test_a_form_has_examples(form: Form) -> None:
    assert examples(form, ".request.json"), f"no example of a request in dialect_examples/{form.name}"
    assert examples(form, ".reply.json"), f"no example of an answer in dialect_examples/{form.name}"
    if form.kind in CHATTY:
        assert examples(form, ".stream"), f"no example of a stream in dialect_examples/{form.name}"


def test_a_form_says_what_it_is(form: Form) -> None:
    assert form.name in forms.names()
    assert form.name.startswith(form.dialect + ".")
    assert (form.media is not None) == (form.kind in CHATTY)


def test_requests_of_the_examples(form: Form) -> None:
    for name, example in examples(form, ".request.json").items():
        request = form.read_request(example["in"])
        written = form.write_request(request, PLAIN)
        if "out" in example:
            assert written.document == example["out"], name
        if "ignored" in example:
            assert sorted(written.ignored) == sorted(example["ignored"]), name
        again = form.read_request(full(form, written.document, request))
        found, expected = compared(request, again, written.ignored)
        assert found == expected, name


def test_answers_of_the_examples(form: Form) -> None:
    for name, example in examples(form, ".reply.json").items():
        reply = form.read_reply(example["in"])
        out = checked(form, "reply", form.write_reply(reply, asked(form)))
        if "out" in example:
            assert json.loads(orjson.dumps(out)) == example["out"], name
        meter = form.meter()
        meter.feed(orjson.dumps(example["in"]))
        assert meter.usage == reply.usage, name
        if isinstance(reply, Reply):
            assert told(form.read_reply(out)) == told(reply), name


def test_streams_of_the_examples(chatty: Form) -> None:
    for name, stream in examples(chatty, ".stream").items():
        events = read(chatty, stream)
        meter = chatty.meter()
        for event in stream.replace(b"\r\n", b"\n").split(b"\n\n" if b"\n\n" in stream else b"\n"):
            meter.feed(event + b"\n\n")
        if name.startswith("error"):
            assert isinstance(events[-1], Failed), name
            assert meter.failed is not None, name
            assert meter.failed.message == events[-1].message, name
            continue
        reply = gathered(events)
        expected = EXAMPLES / chatty.name / name.replace(".stream", ".events.json")
        if expected.exists():
            found = told(reply)
            for key, value in orjson.loads(expected.read_bytes()).items():
                assert json.loads(json.dumps(found[key])) == value, (name, key)
        assert meter.failed is None, name
        assert (meter.usage is None) == (reply.usage is None), name
        if reply.usage is not None:
            assert (meter.usage.input, meter.usage.output) == (reply.usage.input, reply.usage.output), name


# -- round trips -----------------------------------------------------------------------------------------------------


def full(form: Form, document: Any, request: Any) -> Any:
    """A written request as a client would send it, in dialects where the model or the stream stands in the address."""
    stream = getattr(getattr(request, "like", request), "stream", False)
    return (
        document
        if form.dialect != "gemini"
        else {**document, "model": document.get("model", "model"), "stream": stream}
    )


@_MORE
@given(data=st.data())
def test_a_request_loses_nothing_in_silence(form: Form, data: st.DataObject) -> None:
    """What comes back is what was asked; what does not is named, and named only if it was asked for."""
    request = data.draw(ASKED[form.kind])
    written = form.write_request(request, PLAIN)
    document = orjson.loads(orjson.dumps(written.document))
    again = form.read_request(full(form, document, request))
    found, expected = compared(request, again, written.ignored)
    assert found == expected, written.ignored
    for name in written.ignored:
        assert blanked(request, [name]) != request or name == "call.id", f"{name} was not asked for"


@_LESS
@given(data=st.data())
def test_what_another_form_knows_is_named(form: Form, data: st.DataObject) -> None:
    request = data.draw(ASKED[form.kind])
    inner = getattr(request, "like", request)
    inner = forms_of(inner, extra={"only_there": 1}, origin="elsewhere.chat", lost=("n",))
    request = forms_of(request, like=inner) if hasattr(request, "like") else inner
    written = form.write_request(request, PLAIN)
    assert {"only_there", "n"} <= set(written.ignored)
    assert b"only_there" not in orjson.dumps(written.document)


def forms_of(value: Any, **changes: Any) -> Any:
    import dataclasses

    return dataclasses.replace(value, **changes)


@_MORE
@given(data=st.data())
def test_an_answer_comes_back(chatty: Form, data: st.DataObject) -> None:
    reply = data.draw(replies(chatty.kind))
    document = checked(chatty, "reply", chatty.write_reply(reply, asked(chatty)))
    again = chatty.read_reply(orjson.loads(orjson.dumps(document)))
    assert told(again) == told(reply)


@_MORE
@given(data=st.data())
def test_a_stream_comes_back(chatty: Form, data: st.DataObject) -> None:
    events = data.draw(streams(chatty.kind))
    request = asked(chatty)
    inner = forms_of(getattr(request, "like", request), stream=True, usage_wanted=True)
    request = forms_of(request, like=inner) if hasattr(request, "like") else inner
    writer = chatty.stream_writer(request)
    written = b"".join([*(writer.feed(event) for event in events), writer.close()])
    sent(chatty, written)
    assert told(gathered(read(chatty, written))) == told(gathered(events))


@_LESS
@given(data=st.data())
def test_vectors_come_back(embedding: Form, data: st.DataObject) -> None:
    """As many as there were inputs: some forms take one at a time."""
    form = embedding
    request = asked(form)
    count = len(request.inputs)
    vector = st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=2)
    numbers = data.draw(st.lists(vector, min_size=count, max_size=count))
    document = checked(form, "reply", form.write_reply(Vectors("model", tuple(numbers), Usage(5)), request))
    again = form.read_reply(orjson.loads(orjson.dumps(document)))
    assert [list(each) for each in again.vectors] == numbers


def test_a_ranking_comes_back(ranking_form: Form) -> None:
    form = ranking_form
    request = asked(form)
    ranking = Ranking("model", ((1, 0.75), (0, 0.25)), Usage(5))
    assert form.read_reply(form.write_reply(ranking, request)).scores == ranking.scores


# -- errors ----------------------------------------------------------------------------------------------------------


def test_an_error_comes_back(form: Form) -> None:
    error = UpstreamUnreachable("The engine cannot be reached.", "Try again.", retry_after=2.0)
    document = orjson.loads(orjson.dumps(form.write_error(error)))
    assert form.read_error(error.http_status, document).message == str(error)
    fault = Fault("Not that many.", "too_many", "invalid_request_error", "n")
    assert form.read_error(400, orjson.loads(orjson.dumps(form.write_fault(fault, 400)))).message == fault.message


def test_a_stream_that_breaks_says_so(chatty: Form) -> None:
    writer = chatty.stream_writer(asked(chatty))
    error = UpstreamUnreachable("The engine cannot be reached.", "Try again.")
    written = writer.fail(error)
    assert str(error) in json.dumps(sent(chatty, written), ensure_ascii=False)
    failed = [event for event in read(chatty, written) if isinstance(event, Failed)]
    assert [str(error) in event.message for event in failed] == [True]
    meter = chatty.meter()
    meter.feed(written)
    assert meter.failed is not None
    assert str(error) in meter.failed.message


# -- garbage ---------------------------------------------------------------------------------------------------------


@_MORE
@given(data=st.data())
def test_a_wrong_request_is_refused_and_nothing_else(form: Form, data: st.DataObject) -> None:
    example = data.draw(st.sampled_from([each["in"] for each in examples(form, ".request.json").values()]))
    document = data.draw(mutated(example))
    try:
        request = form.read_request(document)
    except InvalidRequest as error:
        assert str(error)  # noqa: PT017 - both ways out are right
        return
    orjson.dumps(form.write_request(request, PLAIN).document)


@_LESS
@given(document=st.dictionaries(st.text(max_size=8), json_values, max_size=4))
def test_any_object_is_a_request_or_refused(form: Form, document: dict[str, Any]) -> None:
    try:
        form.read_request(document)
    except InvalidRequest as error:
        assert str(error)  # noqa: PT017


@_MORE
@given(data=st.data())
def test_a_wrong_answer_is_a_value_error_and_nothing_else(form: Form, data: st.DataObject) -> None:
    example = data.draw(st.sampled_from([each["in"] for each in examples(form, ".reply.json").values()]))
    document = data.draw(mutated(example) | st.dictionaries(st.text(max_size=8), json_values, max_size=4))
    try:
        reply = form.read_reply(document)
    except ValueError:
        return
    orjson.dumps(form.write_reply(reply, asked(form)))


@_MORE
@given(data=st.data())
def test_a_wrong_event_is_a_value_error_and_nothing_else(chatty: Form, data: st.DataObject) -> None:
    stream = data.draw(st.sampled_from(list(examples(chatty, ".stream").values())))
    reader, writer = chatty.stream_reader(), chatty.stream_writer(asked(chatty))
    whole = pieces(chatty, stream)
    broken = data.draw(st.integers(0, len(whole) - 1))
    for number, piece in enumerate(whole):
        if number == broken and piece != b"[DONE]":
            kinds = mutated(orjson.loads(piece)).map(orjson.dumps) | json_values.map(orjson.dumps) | st.binary()
            piece = data.draw(kinds)  # noqa: PLW2901
        try:
            for event in reader.feed(piece):
                writer.feed(event)
        except ValueError:
            break
    writer.close()


@_LESS
@given(document=json_values, status=st.integers(100, 599), chunk=st.binary())
def test_any_error_body_is_read(form: Form, document: Any, status: int, chunk: bytes) -> None:
    assert form.read_error(status, document).message
    assert form.read_error(status, {"error": document}).message
    meter = form.meter()
    meter.feed(chunk)
    meter.feed(orjson.dumps({"error": document, "usage": document}))
    assert (meter.usage, meter.stop, meter.failed) is not None


def test_streams_cut_at_every_byte(chatty: Form) -> None:
    """What was whole before the cut is told, in the same order, and the rest is not."""
    for stream in examples(chatty, ".stream").values():
        events = read(chatty, stream)
        for end in range(0, len(stream), 1 + len(stream) // 4000):
            found = read(chatty, stream[:end])
            assert found == events[: len(found)]
