"""OpenAI's plain completions and embeddings, and reranking as Jina and those who followed have it beside them."""

from __future__ import annotations

import base64
import binascii
import sys
from array import array
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from corral.dialects import _openai_answers as answers
from corral.dialects._openai_fields import (
    check_count,
    need,
    take,
    take_model,
    take_stop,
    take_usage_wanted,
    wrong,
)
from corral.dialects._openai_text_stream import TextReader, TextWriter, read_probs
from corral.dialects.canonical import (
    Embed,
    Rank,
    Ranking,
    Reply,
    Request,
    Text,
    Texts,
    Vectors,
    unsaid,
)
from corral.dialects.form import Kind, Profile, Written
from corral.dialects.meter import Meter
from corral.dialects.openai_chat import (
    METERED,
    extra_of,
    first_choice,
    model_of,
    stop_of,
    usage_of,
    write_sampling,
    written,
)
from corral.errors import NotSupported

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.dialects.form import StreamReader, StreamWriter
    from corral.domain.money import Usage

COMPLETIONS, EMBEDDINGS, RERANK = "openai.completions", "openai.embeddings", "openai.rerank"
_CAN = frozenset(
    ("suffix", "echo", "max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop", "presence_penalty")
) | frozenset(("frequency_penalty", "repeat_penalty", "logprobs", "top_logprobs", "user"))
_SAID = _CAN | frozenset(("model", "prompt", "n", "best_of", "stream", "stream_options", "repetition_penalty"))
_EMBED_CAN = frozenset(("dimensions", "base64", "user"))
_EMBED_SAID = frozenset(("model", "input", "encoding_format", "dimensions", "user"))
_RANK_CAN = frozenset(("top", "documents_wanted"))
_RANK_SAID = frozenset(("model", "query", "documents", "top_n", "return_documents"))


class _Metered(answers.Errors):
    """Errors, and the meter of chat."""

    def meter(self) -> Meter:
        """For one answer that is relayed."""
        return Meter(METERED)


class _Whole(_Metered):
    """A call whose answer always comes whole."""

    media: bytes | None = None

    def stream_reader(self) -> StreamReader:
        """There are no streams of it."""
        raise NotSupported("This call has no streams.", param="stream")

    def stream_writer(self, request: Any) -> StreamWriter:
        """There are no streams of it."""
        raise NotSupported("This call has no streams.", param="stream")


class Completions(_Metered):
    """`/completions`."""

    name = COMPLETIONS
    kind = Kind.TEXT
    media = b"text/event-stream"

    def read_request(self, document: Mapping[str, Any]) -> Texts:
        """The request in a client's body: one prompt, which is text."""
        lost: dict[str, None] = {}
        check_count(document, lost)
        check_count(document, lost, "best_of")
        stream = bool(take(document, "stream", bool))
        probable = _read_logprobs(document)
        repeat = take(document, "repetition_penalty", float)
        again = take(document, "repeat_penalty", float)
        model = take_model(document)
        like = Request(
            model,
            (),
            max_tokens=take(document, "max_tokens", int),
            temperature=take(document, "temperature", float),
            top_p=take(document, "top_p", float),
            top_k=take(document, "top_k", int),
            min_p=take(document, "min_p", float),
            seed=take(document, "seed", int),
            stop=take_stop(document),
            presence_penalty=take(document, "presence_penalty", float),
            frequency_penalty=take(document, "frequency_penalty", float),
            repeat_penalty=again if repeat is None else repeat,
            logprobs=None if probable is None else True,
            top_logprobs=probable,
            user=take(document, "user", str),
            stream=stream,
            usage_wanted=take_usage_wanted(document, lost) if stream or "stream_options" in document else True,
            extra=extra_of(document, _SAID),
            origin=COMPLETIONS,
            lost=tuple(lost),
        )
        return Texts(_read_prompt(document), like, take(document, "suffix", str), bool(take(document, "echo", bool)))

    def write_request(self, request: Texts, profile: Profile) -> Written:
        """The request for an engine."""
        like = request.like
        out: dict[str, Any] = {"model": like.model, "prompt": request.prompt}
        if request.suffix is not None:
            out["suffix"] = request.suffix
        if request.echo:
            out["echo"] = True
        if like.stream:
            out["stream"] = True
            if profile.usage:
                out["stream_options"] = {"include_usage": True}
        write_sampling(out, like, "max_tokens")
        if like.top_k is not None:
            out["top_k"] = like.top_k
        if like.logprobs is not None:
            out.pop("logprobs")
            if like.logprobs:
                out["logprobs"] = like.top_logprobs or 0
        return written("/completions", out, request, profile, (COMPLETIONS, _CAN, {}))

    def read_reply(self, document: Mapping[str, Any]) -> Reply:
        """The answer of an engine."""
        choice = first_choice(document)
        text, given = choice.get("text"), document.get("id")
        if type(text) is not str:
            raise ValueError("the choice has no text")
        stop, sequence = stop_of(choice, False)
        return Reply(
            id=given if type(given) is str else "",
            model=model_of(document),
            parts=(Text(text),) if text else (),
            stop=stop,
            sequence=sequence,
            usage=usage_of(document),
            created=answers.count(document.get("created")),
            logprobs=read_probs(choice.get("logprobs")),
        )

    def write_reply(self, reply: Reply, request: Texts) -> dict[str, Any]:
        """The answer for a client."""
        choice = {
            "index": 0,
            "text": "".join(part.text for part in reply.parts if isinstance(part, Text)),
            "logprobs": _write_probs(reply.logprobs),
            "finish_reason": answers.TEXT_REASONS[reply.stop],
        }
        return answers.completion("text_completion", reply, choice)

    def stream_reader(self) -> TextReader:
        """For one stream of an engine."""
        return TextReader()

    def stream_writer(self, request: Texts) -> TextWriter:
        """For one stream to the client of `request`."""
        return TextWriter(request.like.usage_wanted, _write_probs)


def _read_prompt(document: Mapping[str, Any]) -> str:
    prompt = document.get("prompt")
    if type(prompt) is list and len(prompt) == 1 and type(prompt[0]) is str:
        prompt = prompt[0]
    if type(prompt) is str and prompt:
        return prompt
    if type(prompt) is list and prompt and all(type(each) in (str, int, list) for each in prompt):
        raise NotSupported(
            "`prompt` holds several prompts, or tokens, which cannot be said to the engine of this model.",
            "Send one prompt as text.",
            param="prompt",
        )
    raise wrong("prompt", "a string or an array that is not empty")


def _read_logprobs(document: Mapping[str, Any]) -> int | None:
    wish = document.get("logprobs")
    if type(wish) is bool:  # as in chat, which some clients say here too
        return (take(document, "top_logprobs", int) or 0) if wish else None
    number: int | None = take(document, "logprobs", int)
    return number


def _write_probs(probs: Any) -> dict[str, Any] | None:
    """Canonical logprobs as plain completion has them: a column each."""
    if type(probs) is not list:
        return None
    rows = [row for row in probs if type(row) is dict and type(row.get("token")) is str]
    tokens = [row["token"] for row in rows]
    return {
        "tokens": tokens,
        "token_logprobs": [row.get("logprob") for row in rows],
        "top_logprobs": [
            {each["token"]: each.get("logprob") for each in row.get("top_logprobs") or () if _has_token(each)}
            for row in rows
        ],
        "text_offset": list(accumulate((len(token) for token in tokens[:-1]), initial=0)) if tokens else [],
    }


def _has_token(row: Any) -> bool:
    return type(row) is dict and type(row.get("token")) is str


class Embeddings(_Whole):
    """`/embeddings`."""

    name = EMBEDDINGS
    kind = Kind.EMBEDDINGS

    def read_request(self, document: Mapping[str, Any]) -> Embed:
        """The request in a client's body."""
        wish = take(document, "encoding_format", str)
        if wish not in (None, "float", "base64"):
            raise wrong("encoding_format", "one of float, base64")
        return Embed(
            take_model(document),
            _read_inputs(document.get("input")),
            take(document, "dimensions", int),
            wish == "base64",
            take(document, "user", str),
            extra_of(document, _EMBED_SAID),
            EMBEDDINGS,
        )

    def write_request(self, request: Embed, profile: Profile) -> Written:
        """The request for an engine."""
        inputs = [each if isinstance(each, str) else list(each) for each in request.inputs]
        out: dict[str, Any] = {"model": request.model, "input": inputs}
        if request.base64:
            out["encoding_format"] = "base64"
        for name in ("dimensions", "user"):
            value = getattr(request, name)
            if value is not None:
                out[name] = value
        return _whole("/embeddings", out, request, profile, (EMBEDDINGS, _EMBED_CAN, {"encoding_format": "base64"}))

    def read_reply(self, document: Mapping[str, Any]) -> Vectors:
        """The answer of an engine, its vectors in the order of the inputs."""
        rows = document.get("data")
        if type(rows) is not list or not rows:
            raise ValueError("the answer has no vectors")
        found: list[tuple[int, Any]] = []
        for number, row in enumerate(rows):
            vector = row.get("embedding") if type(row) is dict else None
            if type(vector) is not str and not (type(vector) is list and all(type(n) in (int, float) for n in vector)):
                raise ValueError("a vector is neither numbers nor base64")
            place = row.get("index")
            found.append((place if type(place) is int else number, vector))
        found.sort(key=lambda each: each[0])
        return Vectors(model_of(document), tuple(vector for _, vector in found), _usage(document))

    def write_reply(self, reply: Vectors, request: Embed) -> dict[str, Any]:
        """The answer for a client, in the encoding it asked for."""
        coded = pack if request.base64 else unpack
        data = [
            {"object": "embedding", "index": number, "embedding": coded(vector)}
            for number, vector in enumerate(reply.vectors)
        ]
        return {"object": "list", "data": data, "model": reply.model, "usage": _write_usage(reply.usage)}


def pack(vector: Any) -> str:
    """A vector as base64 of little-endian floats of 32 bits."""
    if isinstance(vector, str):
        return vector
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()


def unpack(vector: Any) -> list[float]:
    """A vector as numbers.

    Raises:
        ValueError: it is base64 of something else.
    """
    if not isinstance(vector, str):
        return list(vector)
    numbers = array("f")
    try:
        numbers.frombytes(base64.b64decode(vector, validate=True))
    except binascii.Error as error:
        raise ValueError("a vector is not base64") from error
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def _read_inputs(given: Any) -> tuple[str | tuple[int, ...], ...]:
    if type(given) is str and given:
        return (given,)
    if type(given) is list and given:
        if all(type(each) is str for each in given):
            return tuple(given)
        if all(type(each) is int for each in given):
            return (tuple(given),)
        if all(type(each) is list and each and all(type(token) is int for token in each) for each in given):
            return tuple(tuple(each) for each in given)
        raise wrong("input", "an array of strings, or of tokens")
    raise wrong("input", "a string or an array that is not empty")


def _whole(
    path: str, out: dict[str, Any], request: Any, profile: Profile, told: tuple[str, frozenset[str], dict[str, str]]
) -> Written:
    name, can, canonical = told
    if request.origin == name:
        for key, value in request.extra.items():
            out.setdefault(key, value)
    dropped = [key for key in out if key in profile.drop and key in canonical | {each: each for each in can}]
    for key in dropped:
        del out[key]
    for key, value in profile.extra.items():
        out.setdefault(key, value)
    return Written(path, out, unsaid(request, name, can, [canonical.get(key, key) for key in dropped]))


def _usage(document: Mapping[str, Any]) -> Usage | None:
    usage = document.get("usage")
    if type(usage) is not dict:
        return None
    read = answers.read_usage(usage)
    # Rerankers and some embedders tell nothing but the total.
    return read if read.input else answers.read_usage({"prompt_tokens": usage.get("total_tokens")})


def _write_usage(usage: Usage | None) -> dict[str, int]:
    read = 0 if usage is None else usage.input
    return {"prompt_tokens": read, "total_tokens": read}


class Rerank(_Whole):
    """`/rerank`."""

    name = RERANK
    kind = Kind.RERANK

    def read_request(self, document: Mapping[str, Any]) -> Rank:
        """The request in a client's body."""
        given = document.get("documents")
        if type(given) is not list or not given:
            raise wrong("documents", "an array that is not empty")
        documents = []
        for index, each in enumerate(given):
            text = each.get("text") if type(each) is dict else each
            if type(text) is not str:
                raise wrong(f"documents[{index}]", "a string, or an object with a `text`")
            documents.append(text)
        return Rank(
            take_model(document),
            need(document, "query", str),
            tuple(documents),
            take(document, "top_n", int),
            bool(take(document, "return_documents", bool)),
            extra_of(document, _RANK_SAID),
            RERANK,
        )

    def write_request(self, request: Rank, profile: Profile) -> Written:
        """The request for an engine."""
        out: dict[str, Any] = {"model": request.model, "query": request.query, "documents": list(request.documents)}
        if request.top is not None:
            out["top_n"] = request.top
        if request.documents_wanted:
            out["return_documents"] = True
        names = {"top_n": "top", "return_documents": "documents_wanted"}
        return _whole("/rerank", out, request, profile, (RERANK, _RANK_CAN, names))

    def read_reply(self, document: Mapping[str, Any]) -> Ranking:
        """The answer of an engine, best first."""
        rows = document.get("results", document.get("data"))
        if type(rows) is not list:
            raise ValueError("the answer has no results")
        scores = []
        for row in rows:
            place = row.get("index") if type(row) is dict else None
            score = row.get("relevance_score", row.get("score")) if type(row) is dict else None
            if type(place) is not int or not isinstance(score, int | float) or isinstance(score, bool):
                raise ValueError("a result has no index or no score")
            scores.append((place, float(score)))
        scores.sort(key=lambda each: -each[1])
        return Ranking(model_of(document), tuple(scores), _usage(document))

    def write_reply(self, reply: Ranking, request: Rank) -> dict[str, Any]:
        """The answer for a client, with the documents if they are wanted."""
        results: list[dict[str, Any]] = []
        for place, score in reply.scores[: request.top]:
            result: dict[str, Any] = {"index": place, "relevance_score": score}
            if request.documents_wanted and 0 <= place < len(request.documents):
                result["document"] = {"text": request.documents[place]}
            results.append(result)
        return {"model": reply.model, "results": results, "usage": _write_usage(reply.usage)}


FORMS = {COMPLETIONS: Completions(), EMBEDDINGS: Embeddings(), RERANK: Rerank()}
