"""An answer that passes: what is told its end, what is not, and what it costs that nobody counted."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from corral.dialects.form import PLAIN, form
from corral.domain.money import Price, Tier, Usage
from corral.domain.ports import Endpoint
from corral.errors import UpstreamProtocol, UpstreamTimeout, UpstreamUnreachable
from corral.kit.relay import Outcome
from corral.routing.composing import Call, Way
from corral.routing.faults import Refused, refused
from corral.routing.labels import Labelled
from corral.routing.passage import Passage
from corral.routing.translation import Translated

EVENTS = b"text/event-stream"
ROLE = b'data: {"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": null}]}\n\n'
TOKEN = b'data: {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": null}]}\n\n'
STOP = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}}\n\n'
ERROR = b'data: {"error": {"message": "no", "type": "server_error"}}\n\n'
RECEIPT = b": receipt\n\n"
GONE = UpstreamUnreachable("It was lost.")


class Answer:
    """An engine's response whose head is there."""

    status = 200
    framed = whole = False
    content_length = None

    def __init__(self, *pieces, kind=EVENTS, error=None):
        self.headers = [(b"content-type", kind)]
        self.pieces, self.error, self.closed = pieces, error, False

    def header(self, name):
        return dict(self.headers).get(name)

    async def __aiter__(self):
        for piece in self.pieces:
            yield piece
        if self.error is not None:
            raise self.error

    async def read(self):
        return b"".join([piece async for piece in self])

    def close(self):
        self.closed = True


class Hold:
    """Money that is held, and what became of it."""

    spent = None

    def settle(self, amounts):
        assert self.spent is None
        self.spent = (amounts.nano, amounts.tokens)

    def release(self):
        self.settle(SimpleNamespace(nano=0, tokens=0))


PRICE = Price(tiers=(Tier(input=2_000_000_000, output=8_000_000_000),), source="test")


def passing(response, *, client="openai.chat", spoken=None, stream=True, remote=True, document=None, unasked=False):
    """A passage of `response`, its hold at `hold`; it is settled by `comment` as carrying does."""
    engine = SimpleNamespace(remote=remote, model="m", session=SimpleNamespace(endpoint=Endpoint("http://engine")))
    order = SimpleNamespace(
        form=form(client), stream=stream, document=document or {}, body=b"x" * 40, model="m", request_id="req-1"
    )
    asked = None
    if spoken is not None:
        asked = form(client).read_request(
            {"model": "m", "messages": [{"role": "user", "content": "hi"}], **(document or {})}
        )
        order.request = asked
    way = Way(form(spoken or client), spoken is None, engine.session.endpoint, PLAIN, False, None, "")
    call = Call(way, "/x", b"{}", asked, unasked=unasked)
    hold = Hold()
    calling = SimpleNamespace(prompt=lambda: Usage(10), used=None, cost=0, sent=call, held=hold, price=PRICE)
    parts = SimpleNamespace(dispatcher=SimpleNamespace(end=lambda *_: None))
    order.keep_alive = None
    carrying = SimpleNamespace(order=order, settled=None, parts=parts)

    def comment(passage):
        carrying.settled = passage.used(None)
        passage.pay(*carrying.settled)
        return RECEIPT

    carrying.comment = comment
    return Passage(carrying, calling, engine, response), hold


def through(passage, *pieces, error=None):
    """All that the client gets."""
    heard = [passage.passing(piece, first=not at) for at, piece in enumerate(pieces)]
    return b"".join(heard) + passage.over(error)


def test_the_receipt_stands_before_the_end():
    passage, hold = passing(Answer())
    assert through(passage, ROLE, TOKEN, STOP + USAGE, DONE) == ROLE + TOKEN + STOP + USAGE + RECEIPT + DONE
    assert hold.spent == (3 * 2000 + 5 * 8000, 8)


def test_nothing_follows_the_end():
    passage, _ = passing(Answer())
    assert (
        through(passage, ROLE, TOKEN + STOP + DONE + ERROR, TOKEN, error=GONE) == ROLE + TOKEN + STOP + RECEIPT + DONE
    )


def test_what_a_model_writes_is_no_end():
    told = TOKEN.replace(b"hi", b"say data: [DONE]")
    passage, _ = passing(Answer())
    assert through(passage, ROLE, told, STOP, DONE) == ROLE + told + STOP + RECEIPT + DONE


@pytest.mark.parametrize("error", [None, GONE, UpstreamTimeout("It was silent.")])
def test_a_stream_that_said_why_it_ended_gets_its_end(error):
    passage, _ = passing(Answer())
    assert through(passage, ROLE, TOKEN, STOP, error=error) == ROLE + TOKEN + STOP + RECEIPT + DONE


def test_a_stream_without_an_end_is_not_whole():
    passage, hold = passing(Answer())
    with pytest.raises(UpstreamUnreachable, match="before its end"):
        through(passage, ROLE, TOKEN, TOKEN)
    outcome = Outcome(status=200, bytes=9, chunks=3)
    passage.pay(*passage.used(outcome))
    assert hold.spent == (10 * 2000 + 3 * 8000, 13)


def test_one_of_several_choices_is_not_all():
    passage, _ = passing(Answer(), document={"n": 2})
    with pytest.raises(UpstreamUnreachable, match="lost"):
        through(passage, ROLE, STOP, error=GONE)


def test_an_error_of_the_engines_own_is_told_once():
    passage, _ = passing(Answer())
    assert through(passage, ROLE, TOKEN, ERROR) == ROLE + TOKEN + ERROR
    assert passage.reported.fault.message == "no"
    first, _ = passing(Answer())
    with pytest.raises(Refused):
        first.passing(ERROR, first=True)


def test_garbage_ends_a_stream_and_what_came_before_it_is_told():
    passage, _ = passing(Answer())
    assert passage.passing(ROLE + TOKEN + b"data: {\n\n" + STOP + DONE, first=True) == ROLE + TOKEN
    with pytest.raises(UpstreamProtocol):
        passage.passing(STOP, first=False)
    with pytest.raises(UpstreamProtocol):
        passage.over(None)


def test_a_stream_that_is_there_at_once_is_looked_at_as_one():
    passage, _ = passing(Answer())
    assert passage.whole(ROLE + STOP.rstrip()) == ROLE + STOP + RECEIPT + DONE
    for broken in (ROLE + TOKEN, ROLE + b"data: {\n\n", b"<html>", b'{"id": 1}', b""):
        passage, _ = passing(Answer())
        with pytest.raises((UpstreamProtocol, UpstreamUnreachable)):
            passage.whole(broken)


def test_usage_that_the_client_did_not_ask_for_is_left_out_and_counted():
    passage, hold = passing(Answer(), unasked=True)
    assert through(passage, ROLE, STOP, USAGE + DONE) == ROLE + STOP + RECEIPT + DONE
    assert hold.spent == (3 * 2000 + 5 * 8000, 8)


@pytest.mark.parametrize(("stream", "kind"), [(True, EVENTS), (False, b"application/json")])
def test_a_wrong_content_type_is_put_right(stream, kind):
    for wrong in (b"text/plain", b"", b"application/octet-stream"):
        passage, _ = passing(Answer(kind=wrong), stream=stream)
        assert passage.response.header(b"content-type") == kind
        assert [each for each in passage.response.headers if each[0] == b"content-type"] == [(b"content-type", kind)]
    passage, _ = passing(Answer(kind=kind + b"; charset=utf-8"), stream=stream)
    assert not isinstance(passage.response, Labelled)


@pytest.mark.parametrize(("remote", "cost"), [(True, 10 * 2000), (False, 0)])
def test_who_gets_nothing_pays_a_vendor_for_the_prompt(remote, cost):
    passage, _ = passing(Answer(), remote=remote)
    assert passage.missed(GONE)[1] == cost
    assert passage.missed(refused(500, form("openai.chat").read_error(500, None), "m"))[1] == 0
    assert passage.used(Outcome(status=200))[1] == cost
    left = Answer()
    passage, hold = passing(left, remote=remote)
    passage.abandon()
    assert hold.spent[0] == passage.calling.cost == cost
    assert left.closed


async def all_of(answer):
    """What a client of Anthropic's hears of an OpenAI-speaking engine's stream, and what it failed of."""
    passage, _ = passing(
        answer, client="anthropic.messages", spoken="openai.chat", document={"max_tokens": 9, "stream": True}
    )
    assert isinstance(passage.response, Translated)
    heard = []
    try:
        async for piece in passage.response:
            heard.append(piece)  # noqa: PERF401 # what came before the error counts
    except (UpstreamProtocol, UpstreamUnreachable, UpstreamTimeout, Refused) as error:
        return b"".join(heard), error
    return b"".join(heard), None


async def test_a_translated_stream_is_whole_once_the_model_has_ended():
    for error in (None, GONE, UpstreamTimeout("It was silent.")):
        heard, failure = await all_of(Answer(ROLE, TOKEN, STOP, error=error))
        assert failure is None
        assert heard.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')


async def test_what_was_written_before_a_fault_in_the_same_piece_is_sent():
    heard, failure = await all_of(Answer(ROLE, TOKEN + b"data: {\n\n"))
    assert isinstance(failure, UpstreamProtocol)
    assert b'"text":"hi"' in heard
    heard, failure = await all_of(Answer(ROLE + TOKEN + b"data: {\n\n"))
    assert (heard, type(failure)) == (b"", UpstreamProtocol)  # nobody has heard anything: another may be asked


async def test_a_translated_stream_without_an_end_is_not_whole():
    heard, failure = await all_of(Answer(ROLE, TOKEN))
    assert b"message_stop" not in heard
    assert isinstance(failure, UpstreamUnreachable)
    assert isinstance((await all_of(Answer(ROLE, ERROR)))[1], Refused)


@pytest.mark.parametrize(
    ("usage", "billed"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}, Usage(3, 5)),
        ({"prompt_tokens": 0, "completion_tokens": 5, "total_tokens": 5}, Usage(0, 5)),
        ({}, None),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None),
        ({"prompt_tokens": 3, "completion_tokens": -5, "total_tokens": 8}, None),
        ({"total_tokens": 8}, None),
        ({"prompt_tokens": 3, "completion_tokens": "many"}, None),
    ],
)
def test_words_cost_something_whatever_the_vendor_says_of_them(usage, billed):
    passage, _ = passing(Answer(), stream=False)
    choice = {"index": 0, "message": {"role": "assistant", "content": "words"}, "finish_reason": "stop"}

    passage.whole(json.dumps({"choices": [choice], "usage": usage}).encode())
    used, cost = passage.used(None)

    if billed is not None:
        assert used == billed
    else:
        assert used.input == 10  # reckoned
        assert used.output > 0
    assert cost == PRICE.cost(used) > 0


def test_an_answer_that_the_vendor_kept_back_may_cost_nothing():
    passage, _ = passing(Answer(), stream=False)
    choice = {"index": 0, "message": {"role": "assistant", "content": None}, "finish_reason": "content_filter"}
    usage = {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3}

    passage.whole(json.dumps({"choices": [choice], "usage": usage}).encode())

    assert passage.used(None)[0] == Usage(3, 0)
