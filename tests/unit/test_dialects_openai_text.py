"""OpenAI's completions and embeddings, and reranking."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from corral.dialects.canonical import Embed, Rank, Ranking, Reply, Stop, Text, Vectors
from corral.dialects.form import PLAIN, Profile, form
from corral.domain.money import Usage
from corral.errors import InvalidRequest, NotSupported

TEXT, EMBED, RANK = form("openai.completions"), form("openai.embeddings"), form("openai.rerank")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"prompt": ["a", "b"]}, NotSupported),
        ({"prompt": [1, 2]}, NotSupported),
        ({"prompt": [[1], [2]]}, NotSupported),
        ({"prompt": ""}, InvalidRequest),
        ({"prompt": None}, InvalidRequest),
        ({"prompt": {}}, InvalidRequest),
        ({"logprobs": "2"}, InvalidRequest),
        ({"echo": 1}, InvalidRequest),
        ({"best_of": 0}, InvalidRequest),
    ],
)
def test_prompts_that_cannot_be_said(fields: dict[str, Any], error: type[InvalidRequest]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        TEXT.read_request({"model": "m", "prompt": "a", **fields})

    assert type(refused.value) is error
    assert refused.value.param == next(iter(fields))


def test_probabilities_in_either_way() -> None:
    probs = [{"token": "a", "logprob": -0.5, "bytes": None, "top_logprobs": [{"token": "a", "logprob": -0.5}]}]
    request = TEXT.read_request({"model": "m", "prompt": "x", "logprobs": 1})
    document = TEXT.write_reply(Reply("i", "m", (Text("a"),), Stop.END, logprobs=probs), request)

    assert document["choices"][0]["logprobs"] == {
        "tokens": ["a"],
        "token_logprobs": [-0.5],
        "top_logprobs": [{"a": -0.5}],
        "text_offset": [0],
    }
    assert TEXT.read_reply(document).logprobs == probs
    assert TEXT.write_request(request, PLAIN).document["logprobs"] == 1
    unlike = replace(request, like=replace(request.like, logprobs=True, top_logprobs=None))
    assert TEXT.write_request(unlike, PLAIN).document["logprobs"] == 0


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("given", [[0.5, 1.0], "AAAAPwAAgD8="])
def test_vectors_come_as_they_were_asked_for(wanted: bool, given: Any) -> None:
    document = EMBED.write_reply(Vectors("m", (given,), Usage(3)), Embed("m", ("a",), base64=wanted))

    assert document["data"][0]["embedding"] == ("AAAAPwAAgD8=" if wanted else [0.5, 1.0])
    assert document["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


@pytest.mark.parametrize("given", [None, "", [], [1, "a"], [[]], [["a"]], {}, [None]])
def test_inputs_that_are_none(given: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        EMBED.read_request({"model": "m", "input": given})

    assert refused.value.param == "input"


def test_what_an_embedder_refuses_is_named() -> None:
    written = EMBED.write_request(
        Embed("m", ("a",), 8, True), Profile(drop=frozenset(("dimensions", "encoding_format")))
    )

    assert written.document == {"model": "m", "input": ["a"]}
    assert set(written.ignored) == {"dimensions", "base64"}


def test_a_ranking_is_cut_sorted_and_shown_as_asked() -> None:
    request = Rank("m", "q", ("a", "b", "c"), 2, True)
    answer = {"results": [{"index": 0, "score": 0.1}, {"index": 2, "score": 0.9}, {"index": 1, "score": 0.5}]}
    ranking = RANK.read_reply({**answer, "usage": {"total_tokens": 7}})

    assert ranking == Ranking("", ((2, 0.9), (1, 0.5), (0, 0.1)), Usage(7))
    assert RANK.write_reply(ranking, request)["results"] == [
        {"index": 2, "relevance_score": 0.9, "document": {"text": "c"}},
        {"index": 1, "relevance_score": 0.5, "document": {"text": "b"}},
    ]


def test_calls_without_streams_say_so() -> None:
    for each in (EMBED, RANK):
        with pytest.raises(NotSupported):
            each.stream_reader()
        with pytest.raises(NotSupported):
            each.stream_writer(None)
