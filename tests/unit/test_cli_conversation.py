"""What was said, how it is asked, and what came back: without a terminal."""

from __future__ import annotations

import json

import pytest

from corral.cli.chat.conversation import Answer, Conversation, is_conversation, setting
from corral.errors import InvalidRequest, UnknownOption


def answer(text: str) -> Answer:
    return Answer(text=text)


def roles(conversation: Conversation) -> list[str]:
    return [message["role"] for message in conversation.messages]


def test_the_request_holds_what_was_said_and_set() -> None:
    talk = Conversation("m", "Be brief.", {"temperature": 0.2})
    talk.ask("One?")
    talk.answered(answer("1"))

    assert talk.ask("Two?") == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "1"},
            {"role": "user", "content": "Two?"},
        ],
        "temperature": 0.2,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_question_that_was_never_answered_gives_way() -> None:
    talk = Conversation("m")
    talk.ask("One?")
    talk.answered(answer(""))
    talk.ask("Two?")

    assert [message["content"] for message in talk.messages] == ["Two?"]


def test_a_partial_answer_stays() -> None:
    talk = Conversation("m")
    talk.ask("One?")
    talk.answered(answer("par"))

    assert roles(talk) == ["user", "assistant"]
    assert talk.last is not None


def test_regenerate_asks_the_last_question_again() -> None:
    talk = Conversation("m")
    talk.ask("One?")
    talk.answered(answer("1"))

    assert talk.regenerate()["messages"] == [{"role": "user", "content": "One?"}]
    assert talk.regenerate()["messages"] == [{"role": "user", "content": "One?"}]


def test_regenerate_needs_a_question() -> None:
    with pytest.raises(InvalidRequest):
        Conversation("m").regenerate()


def test_clear_keeps_system_and_settings() -> None:
    talk = Conversation("m", "S", {"seed": 1})
    talk.ask("One?")
    talk.answered(answer("1"))
    talk.clear()

    assert (talk.messages, talk.system, talk.settings, talk.last) == ([], "S", {"seed": 1}, None)


def test_what_is_saved_is_restored() -> None:
    talk = Conversation("m", "Sé brief.", {"seed": 1, "stop": ["a"]})
    talk.ask("One?")
    talk.answered(answer("1"))
    other = Conversation("x")
    other.restore(talk.dump())

    assert other.body() == talk.body()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": "corral-conversation"}',
        '{"format": "corral-conversation", "messages": [1]}',
        '{"format": "corral-conversation", "messages": [{"role": "user", "content": 1}]}',
        '{"format": "corral-conversation", "messages": [], "settings": [1]}',
    ],
)
def test_what_is_no_conversation_changes_nothing(text: str) -> None:
    talk = Conversation("m", "S")
    with pytest.raises(InvalidRequest):
        talk.restore(text)

    assert (talk.model, talk.system) == ("m", "S")
    assert not is_conversation(text)


def test_unknown_settings_of_a_file_are_left_out() -> None:
    talk = Conversation("m")
    talk.restore(
        json.dumps({"format": "corral-conversation", "messages": [], "settings": {"seed": 1, "model": "evil"}})
    )

    assert talk.body()["model"] == "m"
    assert talk.settings == {"seed": 1}


@pytest.mark.parametrize(
    ("name", "value", "known"),
    [
        ("temperature", "0.2", ("temperature", 0.2)),
        ("max-tokens", " 12 ", ("max_tokens", 12)),
        ("seed", "", ("seed", None)),
        ("stop", 'END "two words"', ("stop", ["END", "two words"])),
    ],
)
def test_settings(name: str, value: str, known: tuple[str, object]) -> None:
    assert setting(name, value) == known


def test_settings_that_are_none() -> None:
    with pytest.raises(UnknownOption, match="temperature"):
        setting("temprature", "1")
    with pytest.raises(InvalidRequest, match="whole number"):
        setting("seed", "1.5")
    with pytest.raises(InvalidRequest, match="a number"):
        setting("top_p", "x")
    with pytest.raises(InvalidRequest, match="stop"):
        setting("stop", '"open')


def chunk(content: str | None = None, **more: object) -> dict[str, object]:
    return {"choices": [{"delta": {"content": content}, **more}]}


def test_an_answer_gathers_text_reason_and_usage() -> None:
    got = Answer(asked_at=1.0)
    assert got.take({"choices": [{"delta": {"role": "assistant", "content": None}}]}, 1.5) == ("", "")
    assert got.take({"choices": [{"delta": {"reasoning_content": "hm"}}]}, 2.0) == ("hm", "")
    assert got.take(chunk("He"), 3.0) == ("", "He")
    assert got.take(chunk("llo", finish_reason="stop"), 4.0) == ("", "llo")
    assert got.take({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}}, 9.0) == ("", "")

    assert (got.text, got.reasoning, got.finish_reason) == ("Hello", "hm", "stop")
    assert (got.prompt_tokens, got.completion_tokens) == (3, 5)
    assert got.wait == 1.0
    assert got.tokens_per_second == 2.0


def test_an_answer_claims_nothing_it_does_not_know() -> None:
    got = Answer()
    got.take({"usage": {"prompt_tokens": True}, "choices": None}, 1.0)

    assert (got.wait, got.tokens_per_second, got.prompt_tokens) == (None, None, None)
    got.take(chunk("a"), 1.0)
    got.completion_tokens = 1
    assert got.tokens_per_second is None
