"""What a failure means, how long to wait, and what tells conversations apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.dialects.form import Fault
from corral.errors import (
    BudgetExceeded,
    ContextOverflow,
    CorralError,
    DatabaseError,
    DoesNotFit,
    EngineDied,
    Forbidden,
    InvalidRequest,
    ModelNotFound,
    QueueFull,
    RateLimited,
    UpstreamProtocol,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from corral.routing.policies import (
    Action,
    backoff,
    classify,
    conversation,
    guess_tokens,
    hedge_in,
    judge,
    named_wait,
)


@pytest.mark.parametrize(
    ("error", "action", "counts", "shared"),
    [
        (UpstreamUnreachable("gone"), Action.RETRY, True, True),
        (UpstreamTimeout("slow"), Action.NEXT, True, False),
        (UpstreamProtocol("garbage"), Action.NEXT, True, False),
        (EngineDied("died"), Action.NEXT, False, False),
        (QueueFull("full"), Action.NEXT, False, False),
        (DoesNotFit("large"), Action.NEXT, False, False),
        (ModelNotFound("none"), Action.NEXT, False, False),
        (ContextOverflow("long"), Action.NEXT, False, False),
        (BudgetExceeded("spent"), Action.NEXT, False, False),
        (InvalidRequest("what"), Action.GIVE_UP, False, False),
        (Forbidden("no"), Action.GIVE_UP, False, False),
        (RateLimited("slowly"), Action.GIVE_UP, False, False),
        (DatabaseError("away"), Action.GIVE_UP, False, False),
    ],
)
def test_failures_of_corral_and_of_the_way(error: CorralError, action: Action, counts: bool, shared: bool) -> None:
    verdict = classify(error)
    assert (verdict.action, verdict.counts, verdict.shared) == (action, counts, shared)
    assert (verdict.code, verdict.reason) == (error.code, error.message)


def test_a_wait_that_an_error_names_is_kept() -> None:
    assert classify(QueueFull("full", retry_after=7.0)).retry_after == 7.0


@pytest.mark.parametrize(
    ("status", "fault", "action", "counts"),
    [
        (400, Fault("messages: Field required", "invalid_request_error"), Action.GIVE_UP, False),
        (400, Fault("too long", "context_length_exceeded"), Action.NEXT, False),
        (400, Fault("prompt is too long: 208310 tokens > 200000 maximum"), Action.NEXT, False),
        (400, Fault("The input token count (1048577) exceeds the maximum number of"), Action.NEXT, False),
        (400, Fault("it exceeds the context", kind="exceed_context_size_error"), Action.NEXT, False),
        (400, Fault("API key not valid. Please pass a valid API key."), Action.NEXT, True),
        (400, Fault("Your credit balance is too low"), Action.NEXT, True),
        (401, None, Action.NEXT, True),
        (402, None, Action.NEXT, True),
        (403, Fault("not allowed"), Action.NEXT, True),
        (404, Fault("models/x is not found"), Action.NEXT, False),
        (404, Fault("No such response", param="previous_response_id"), Action.GIVE_UP, False),
        (408, None, Action.RETRY, True),
        (409, None, Action.RETRY, True),
        (413, Fault("Request exceeds 32 MB"), Action.GIVE_UP, False),
        (422, None, Action.GIVE_UP, False),
        (425, None, Action.RETRY, True),
        (429, Fault("Rate limit reached", "rate_limit_exceeded"), Action.RETRY, True),
        (429, Fault("You exceeded your current quota", "insufficient_quota"), Action.NEXT, True),
        (500, None, Action.RETRY, True),
        (502, None, Action.RETRY, True),
        (503, None, Action.RETRY, True),
        (504, None, Action.RETRY, True),
        (520, None, Action.RETRY, True),
        (529, Fault("Overloaded", kind="overloaded_error"), Action.RETRY, True),
        (301, None, Action.NEXT, False),
        (418, None, Action.GIVE_UP, False),
    ],
)  # fmt: skip
def test_refusals(status: int, fault: Fault | None, action: Action, counts: bool) -> None:
    verdict = judge(status, fault)
    assert (verdict.action, verdict.counts, verdict.shared) == (action, counts, False)


def test_a_prompt_that_is_too_long_is_called_so_whatever_the_vendor_calls_it() -> None:
    assert judge(400, Fault("This model's maximum context length is 8192 tokens.")).code == ContextOverflow.code
    assert judge(429, Fault("Rate limit", "rate_limit_exceeded")).code == "rate_limit_exceeded"
    assert judge(500).code == "status_500"


def test_the_body_says_better_than_the_header_how_long_to_wait() -> None:
    assert judge(429, Fault("later", retry_after=3.0), 9.0).retry_after == 3.0
    assert judge(429, Fault("later"), 9.0).retry_after == 9.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], None),
        ([(b"retry-after", b"12")], 12.0),
        ([(b"retry-after", b"1.5")], 1.5),
        ([(b"retry-after", b"12"), (b"retry-after-ms", b"250")], 0.25),
        ([(b"retry-after-ms", b"250"), (b"retry-after", b"12")], 0.25),
        ([(b"retry-after", b"Thu, 01 Jan 1970 00:16:50 GMT")], 10.0),
        ([(b"retry-after", b"Thu, 01 Jan 1970 00:00:00 GMT")], 0.0),
        ([(b"retry-after", b"soon")], None),
        ([(b"retry-after", b"-3")], None),
        ([(b"retry-after", b"nan")], None),
        ([(b"retry-after", b"inf")], None),
        ([(b"retry-after", b"\xff")], None),
    ],
)
def test_waits_that_headers_name(headers: list[tuple[bytes, bytes]], seconds: float | None) -> None:
    assert named_wait(headers, 1000.0) == seconds


@given(st.binary(max_size=40), st.floats(0, 4e9))
def test_no_header_breaks_it(value: bytes, wall: float) -> None:
    found = named_wait([(b"retry-after", value)], wall)
    assert found is None or found >= 0


@given(st.integers(1, 10_000), st.none() | st.floats(0, 1e6), st.floats(0, 60), st.floats(0, 1))
def test_waits_are_bounded_and_keep_what_was_asked(
    attempt: int, retry_after: float | None, within: float, rand: float
) -> None:
    wait = backoff(attempt, retry_after, within, rand)
    if retry_after is None:
        assert wait is not None
        assert 0 <= wait <= min(8.0, within)
    elif retry_after > within:
        assert wait is None
    else:
        assert wait is not None
        assert retry_after <= wait <= retry_after * 1.1 + 0.05


def test_waits_double_up_to_a_bound() -> None:
    assert [backoff(attempt, None, 60, 1.0) for attempt in (1, 2, 3, 4, 5, 6, 7, 99)] == [0.25, 0.5, 1, 2, 4, 8, 8, 8]


def test_a_hedge_comes_once_for_each_other_candidate() -> None:
    assert hedge_in(None, 0.0, 1, 2) is None
    assert hedge_in(2.0, 0.5, 1, 2) == 1.5
    assert hedge_in(2.0, 9.0, 1, 2) == 0.0
    assert hedge_in(2.0, 0.0, 2, 2) is None


def turn(role: str, text: object) -> dict[str, object]:
    return {"role": role, "content": text}


CHAT = {"messages": [turn("system", "Be brief."), turn("user", "What is a corral?")]}


@pytest.mark.parametrize(
    ("one", "later"),
    [
        (CHAT, {"messages": [*CHAT["messages"], turn("assistant", "A pen."), turn("user", "For whom?")]}),
        (
            {"system": "s", "messages": [turn("user", [{"type": "text", "text": "a"}])]},
            {
                "system": "s",
                "messages": [
                    turn("user", [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]),
                    turn("assistant", "b"),
                ],
            },
        ),
        (
            {"contents": [{"role": "user", "parts": [{"text": "a"}]}]},
            {"contents": [{"role": "user", "parts": [{"text": "a"}]}, {"role": "model", "parts": [{"text": "b"}]}]},
        ),
        ({"instructions": "i", "input": "a"}, {"instructions": "i", "input": [turn("user", "a")], "stream": True}),
    ],
)
def test_later_turns_are_of_the_same_conversation(one: dict[str, object], later: dict[str, object]) -> None:
    assert conversation("k", one) == conversation("k", later) is not None


def test_other_conversations_are_others() -> None:
    texts = ["a", "b", "a" * 5000, "a" * 5001, "a" * 2000 + "b" + "a" * 2999, "a" * 4999 + "b"]
    asked = [{"messages": [turn("user", text)]} for text in texts]
    keys = {conversation("k", document) for document in asked}
    # In the middle of a long text nobody looks: of the two that differ only there, one key is made.
    assert len(keys) == len(texts) - 1
    assert conversation("other", asked[0]) not in keys
    assert conversation("k", {"system": "s", **asked[0]}) not in keys


@pytest.mark.parametrize("document", [{}, {"messages": []}, {"messages": 7}, {"input": ["a", "b"]}, {"messages": [3]}])
def test_what_is_no_conversation_has_no_place(document: dict[str, object]) -> None:
    assert conversation("k", document) is None


_WORDS = st.sampled_from(["role", "content", "messages", "text", "parts", "system", "contents", "data"])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_WORDS, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["messages", "contents", "system", "input", "prompt", "instructions"]), _JSON))
def test_no_document_breaks_it(document: dict[str, object]) -> None:
    conversation("k", document)
    assert guess_tokens(document) >= 0


def test_a_prompt_is_guessed_within_a_factor() -> None:
    text = "Corral keeps the right models in memory and answers every client. " * 100
    assert 1000 < guess_tokens({"model": "m", "messages": [turn("user", text)]}) < 2500
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}}
    assert guess_tokens({"messages": [turn("user", [picture])]}) < 1500
    assert guess_tokens({"messages": [turn("user", "日本語" * 100)]}) >= 200
