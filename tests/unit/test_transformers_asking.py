"""How requests of OpenAI's dialect are put to the library's server: followed or refused, never dropped."""

import json

import pytest

from corral.errors import InvalidRequest, NotSupported
from corral.runtimes._transformers.asking import CHAT, Asking, conversation

COMPLETION = "/completions"
HI = [{"role": "user", "content": "Hi"}]
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def asked(asking=Asking(), path=CHAT, **body):  # noqa: B008 — it is frozen
    """The request as the server gets it, and the generation that it asks for."""
    body = {"messages": HI, **body} if path == CHAT else body
    assert asking(path, body)
    return body, json.loads(body.pop("generation_config"))


def test_a_plain_request_takes_the_models_own_settings():
    body, config = asked(Asking(model={"eos_token_id": 2, "do_sample": True, "temperature": 0.6}))

    assert body == {"messages": HI}
    assert config == {"eos_token_id": 2, "do_sample": True, "temperature": 0.6, "max_new_tokens": None}


@pytest.mark.parametrize(
    ("said", "config"),
    [
        ({"temperature": 0}, {"do_sample": False}),
        ({"temperature": 0.7}, {"do_sample": True, "temperature": 0.7}),
        ({"top_p": 0.9}, {"do_sample": True, "top_p": 0.9}),
        ({"top_k": 40.0}, {"do_sample": True, "top_k": 40}),
        ({"temperature": None, "top_p": None}, {}),
        ({"repeat_penalty": 1.1}, {"repetition_penalty": 1.1}),
        ({"frequency_penalty": 0.5}, {"frequency_penalty": 0.5}),
        ({"temperature": 1, "seed": 4}, {"do_sample": True, "temperature": 1, "seed": 4}),
        ({"temperature": 0, "top_p": 0.5}, {"do_sample": False}),
    ],
)
def test_each_parameter_is_followed(said, config):
    body, found = asked(**said)

    assert body == {"messages": HI}
    assert found == {**config, "max_new_tokens": None}


def test_the_client_has_the_last_word_over_the_options_and_these_over_the_model():
    asking = Asking(model={"temperature": 0.1, "do_sample": False}, defaults={"temperature": 0.5, "top_k": 5})

    assert asked(asking)[1] == {"do_sample": True, "temperature": 0.5, "top_k": 5, "max_new_tokens": None}
    assert asked(asking, temperature=0.9)[1]["temperature"] == 0.9
    assert asked(asking, temperature=0)[1] == {"do_sample": False, "max_new_tokens": None}


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": 1.5}, "top_k"),
        ({"top_k": True}, "top_k"),
        ({"seed": 0.5}, "seed"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_completion_tokens": -5}, "max_tokens"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(said, param):
    with pytest.raises(InvalidRequest) as caught:
        asked(**said)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("said", "length"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6, "max_tokens": 5}, 6),
        ({"max_tokens": -1}, 99),
        ({"max_tokens": None}, 99),
        ({}, 99),
    ],
)
def test_the_length_is_the_clients_and_else_the_options(said, length):
    body, config = asked(Asking(max_tokens=99), **said)

    assert config["max_new_tokens"] == length
    assert body == {"messages": HI}


@pytest.mark.parametrize(
    "said",
    [
        {"n": 2},
        {"logprobs": True},
        {"top_logprobs": 3},
        {"logit_bias": {"5": 1}},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "json_object"}},
        {"tool_choice": "required", "tools": TOOLS},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}, "tools": TOOLS},
        {"generation_config": "{}"},
        {"typical_p": 0.5},
    ],
)
def test_what_cannot_be_done_is_refused_by_name(said):
    with pytest.raises(NotSupported) as caught:
        asked(**said)
    assert caught.value.param == next(iter(said))
    assert caught.value.hint


def test_what_asks_for_nothing_is_no_reason_to_refuse():
    plain = {"n": 1, "logprobs": False, "logit_bias": {}, "response_format": {"type": "text"}, "tool_choice": "auto"}
    body, _ = asked(**plain, stream_options={"include_usage": True}, user="me", parallel_tool_calls=True)

    assert body == {"messages": HI}


def test_one_at_a_time_other_parameters_are_followed():
    single = Asking(batched=False)

    body, config = asked(single, typical_p=0.9, seed=4)
    assert body["seed"] == 4
    assert config["typical_p"] == 0.9
    assert "seed" not in config
    assert asked(Asking(batched=False, defaults={"seed": 5}))[0]["seed"] == 5
    assert "seed" not in asked(single)[0]
    with pytest.raises(NotSupported) as caught:
        asked(single, presence_penalty=0.5)
    assert caught.value.hint.endswith("batching: true.")
    assert "presence_penalty" in asked(single, presence_penalty=0)[1]


def test_tools_are_offered_unless_the_client_says_none():
    assert asked(tools=TOOLS)[0]["tools"] == TOOLS
    assert asked(tools=TOOLS, tool_choice="auto")[0]["tools"] == TOOLS
    assert "tools" not in asked(tools=TOOLS, tool_choice="none")[0]


def test_texts_that_end_an_answer_are_the_clients_and_else_the_options():
    asking = Asking(stop=("END",))

    assert asked(asking)[0]["stop"] == ["END"]
    assert asked(asking, stop="x")[0]["stop"] == "x"


def test_a_completion_has_one_prompt():
    assert asked(path=COMPLETION, prompt="a")[0] == {"prompt": "a"}
    assert asked(path=COMPLETION, prompt=["a"])[0] == {"prompt": "a"}
    for prompt in (["a", "b"], [1, 2], []):
        with pytest.raises(NotSupported) as caught:
            asked(path=COMPLETION, prompt=prompt)
        assert caught.value.param == "prompt"
    with pytest.raises(NotSupported):
        asked(path=COMPLETION, prompt="a", echo=True)


def test_messages_that_are_none_are_left_to_the_server():
    assert asked(messages="Hi")[0]["messages"] == "Hi"


def test_a_template_with_a_place_for_it_gets_the_system_message():
    said = [{"role": "developer", "content": "Be brief."}, *HI]

    assert conversation(said, system=True) == [{"role": "system", "content": "Be brief."}, *HI]
    assert said[0]["role"] == "developer"


def test_a_template_without_has_it_before_what_the_user_says_first():
    said = [{"role": "system", "content": "A."}, {"role": "developer", "content": "B."}, *HI]

    assert conversation(said, system=False) == [{"role": "user", "content": "A.\n\nB.\n\nHi"}]
    assert conversation(HI, system=False) == HI
    assert conversation(said[:1], system=False) == [{"role": "user", "content": "A."}]
    later = [*HI, {"role": "assistant", "content": "Yes?"}, {"role": "system", "content": "C."}]
    assert conversation(later, system=False) == [{"role": "user", "content": "C.\n\nHi"}, later[1]]


def test_pictures_stay_where_a_system_message_is_put_before_them():
    picture = {"type": "image_url", "image_url": {"url": "data:"}}
    parts = [{"type": "text", "text": "What?"}, picture]
    said = [{"role": "system", "content": [{"type": "text", "text": "A."}]}, {"role": "user", "content": parts}]

    assert conversation(said, system=False)[0]["content"] == [{"type": "text", "text": "A."}, *parts]
    assert (
        conversation([*said[:1], {"role": "user", "content": parts[:1]}], system=False)[0]["content"] == "A.\n\nWhat?"
    )
    mixed = conversation([{"role": "system", "content": "A."}, {"role": "user", "content": [picture]}], system=False)
    assert mixed[0]["content"] == [{"type": "text", "text": "A."}, picture]
