"""The model servers in containers, asked by their own APIs: what they are, what they have, and whether they answer.

    kind        dialect   version          models                       a model may be pulled and removed
    ollama      Ollama    /api/version     /api/tags, /api/ps           yes
    llamacpp    OpenAI    /props           /v1/models                   no: it serves what it was started with
    vllm        OpenAI    /version         /v1/models                   no
    openai      OpenAI    where it says    /v1/models                   no

What a server says is taken for what it is: text of somebody else's. It is bounded in time and in size, and whatever is
not as it should be is said in words, or left out.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from corral.domain.ports import Clock, Progress
from corral.domain.standings import Health, ModelInside
from corral.errors import ContainerUnhealthy, CorralError, EngineError, ModelNotFound, NotSupported, UpstreamError
from corral.fleet.desired import url_of
from corral.fleet.kinds import KINDS
from corral.kit import loopback
from corral.kit.ollama_api import OllamaApi, entries, whole

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from corral.domain.containers import Wanted
    from corral.domain.ports import Report

TIMEOUT = 5.0
"""Seconds for a question that a server answers from what it knows."""
TRIAL_TIMEOUT = 300.0
"""Seconds for one token, the loading of the model with it."""
SILENCE = 1800.0
"""Seconds that a pull may be quiet: a server reads many gigabytes once more to compare them with their digest."""

HELD = ("corral-held/", "corral-previous/")
"""What the names of models begin with that are kept to go back to: during an update, and after it."""

_OLLAMA = "ollama"
"""The dialect."""
_LIST = KINDS["openai"].health
_VERSIONS = {"llamacpp": ("/props", "build_info"), "vllm": ("/version", "version")}
_WORD = "Hello"
_MOST_MODELS = 1000
_MOST_NAME = 200
_MOST_SAID = 200
_MOST_COUNT = 2**53
_OTHER_WAY = frozenset({400, 404, 405, 415, 422, 501})
"""What a server answers whose model cannot do what was asked, and may do something else."""
_PULL_HINT = "Check its name, and whether the container reaches the registry: corral containers logs NAME"
_HINT = "Look at what it says: corral containers logs NAME"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Trial:
    """What asking a model for one token has shown. Seconds; None is unknown.

    Attributes:
        ok: whether it gave one, or a vector where it only embeds.
        seconds: the whole of it.
        said: what it gave; None for a vector.
        load: the part in which the model was loaded, where its server says that.
        tokens: those that were written.
        reason: what is wrong; empty where nothing is.
    """

    model: str
    ok: bool
    seconds: float
    said: str | None = None
    load: float | None = None
    tokens: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Asker:
    """The model server of one container.

    Attributes:
        kind: what serves in it, which says how it is asked.
        url: where its API is on this machine, without a trailing slash or path.
        clock: time.
        health: the path that answers 2xx while it is well; None is that of its kind.
    """

    kind: str
    url: str
    clock: Clock
    health: str | None = None

    async def examine(
        self, models: Sequence[str] = (), *, timeout: float = TIMEOUT, generate: bool = False, patience: float = 0.0
    ) -> Health:
        """Whether it answers as it should, and has `models`. Never raises.

        With `generate` it is also asked for one token, by the first model that it should have, or that it has; that
        may take `patience` seconds, by default as long as a model may take to be loaded.
        """
        at, begun = self.clock.wall(), self.clock.now()
        try:
            async with asyncio.timeout(timeout):
                found = await self._look(at, models)
        except TimeoutError:
            return Health(False, at, reason=f"{self._named} does not answer within {timeout:g} s")
        except CorralError as error:
            return Health(False, at, reason=_plain(error))
        found = replace(found, latency=self.clock.now() - begun)
        if not generate or not found.healthy:
            return found
        model = next(iter(models), None) or next((model.name for model in found.models), None)
        if model is None:
            return replace(found, healthy=False, reason="it has no model that could be asked for a token")
        trial = await self.test(model, timeout=patience or TRIAL_TIMEOUT)
        return replace(found, healthy=trial.ok, said=trial.said, reason=trial.reason)

    async def version(self) -> str | None:
        """The version of the server; None where it tells none.

        Raises:
            ContainerUnhealthy: it does not answer.
        """
        return await self._asked(self._version(), TIMEOUT)

    async def models(self, *, held: bool = False) -> tuple[ModelInside, ...]:
        """The models that it has; with `held` also what is only kept there to go back to.

        Raises:
            ContainerUnhealthy: it does not answer as it should.
        """
        return await self._asked(self._models(held=held), TIMEOUT)

    async def find(self, model: str) -> ModelInside | None:
        """One of its models, or of those that are kept to go back to; None when it has none of that name.

        Raises:
            ContainerUnhealthy: it does not answer as it should.
        """
        return self.among(await self.models(held=True), model)

    def among(self, found: Sequence[ModelInside], model: str) -> ModelInside | None:
        """The one of `found` that this server takes `model` for."""
        name = whole(model) if self._speaks_ollama else model
        exact = next((entry for entry in found if entry.name in (model, name)), None)
        if exact is None and self.kind == "llamacpp" and len(found) == 1:
            return found[0]  # it takes every name for the one model that it was started with
        return exact

    async def pull(self, model: str, report: Report) -> ModelInside | None:
        """Have it fetch a model, or what is newer of it; what it then has. Takes as long as that takes.

        Raises:
            NotSupported: its kind cannot.
            ContainerUnhealthy: it does not answer, or says why it could not.
        """
        self._require_ollama("fetch a model", "set what it is started with: `command`, `volumes`")
        report(Progress("resolve", detail=f"{model} for {self.url}"))
        try:
            await self._ollama.pull(model, lambda progress: report(replace(progress, detail=f"pulling {model}")))
        except EngineError as error:
            raise ContainerUnhealthy(f"{model!r} could not be fetched: {_plain(error)}.", _PULL_HINT) from error
        return await self.find(model)

    async def remove(self, model: str) -> None:
        """Have it remove a model.

        Raises:
            NotSupported: its kind cannot.
            ModelNotFound: it has none of that name; names those it has.
            ContainerUnhealthy: it does not answer as it should.
        """
        self._require_ollama("remove a model", "it is not there any more once `command` or `volumes` leave it out")
        try:
            gone = await self._ollama.delete(whole(model))
        except EngineError as error:
            raise ContainerUnhealthy(f"{model!r} could not be removed: {_plain(error)}.") from error
        if not gone:
            raise missing(model, await self.models())

    async def keep(self, model: str, name: str) -> bool:
        """Have it hold what `model` is now under a second `name` too; False where its kind cannot.

        Raises:
            ContainerUnhealthy: it does not answer as it should.
        """
        if not self.keeps_models:
            return False
        try:
            await self._ollama.copy(whole(model), name)
        except EngineError as error:
            raise ContainerUnhealthy(f"{model!r} could not be kept as {name!r}: {_plain(error)}.") from error
        return True

    async def test(self, model: str, *, timeout: float = TRIAL_TIMEOUT) -> Trial:
        """Ask `model` for one token; one that only embeds, for the vector of a word. Never raises."""
        begun = self.clock.now()
        try:
            async with asyncio.timeout(timeout):
                told = await (self._try_ollama(model) if self._speaks_ollama else self._try_openai(model))
        except TimeoutError:
            took = self.clock.now() - begun
            return Trial(model, False, took, reason=f"{model!r} gave no token within {timeout:g} s")
        except CorralError as error:
            return Trial(model, False, self.clock.now() - begun, reason=_plain(error))
        return replace(told, seconds=self.clock.now() - begun)

    @property
    def keeps_models(self) -> bool:
        """Whether models are pulled into it and removed from it while it runs."""
        return KINDS[self.kind].keeps_models

    @property
    def _speaks_ollama(self) -> bool:
        return KINDS[self.kind].dialect == _OLLAMA

    @property
    def _ollama(self) -> OllamaApi:
        return OllamaApi(self.url, silence=SILENCE)

    @property
    def _named(self) -> str:
        return f"the server at {self.url}"

    def _require_ollama(self, what: str, instead: str) -> None:
        if not self.keeps_models:
            raise NotSupported(f"A container of kind {self.kind!r} cannot {what} by itself.", f"Instead {instead}.")

    async def _asked(self, question: Awaitable[T], timeout: float) -> T:
        try:
            async with asyncio.timeout(timeout):
                return await question
        except TimeoutError:
            raise ContainerUnhealthy(f"The server at {self.url} did not answer within {timeout:g} s.", _HINT) from None
        except (EngineError, UpstreamError) as error:
            raise ContainerUnhealthy(f"The server did not answer as it should: {_plain(error)}.", _HINT) from error

    async def _look(self, at: float, models: Sequence[str]) -> Health:
        usual = KINDS[self.kind].health
        path = self.health or usual
        if path != (usual if self._speaks_ollama else _LIST):  # those are asked in any case
            await self._get(path)
        version, found = await self._version(), await self._models()
        lacking = tuple(name for name in models if self.among(found, name) is None)
        reason = f"it does not have {', '.join(lacking)}" if lacking else ""
        return Health(not lacking, at, version=version, models=found, missing=lacking, reason=reason)

    async def _version(self) -> str | None:
        if self._speaks_ollama:
            return _bare(await self._ollama.version(TIMEOUT))[:_MOST_NAME] or None
        asked = (_VERSIONS[self.kind],) if self.kind in _VERSIONS else tuple(_VERSIONS.values())
        for path, field in asked:
            try:
                said = (await self._get(path)).get(field)
            except UpstreamError:
                continue  # a server may well not tell; that it answers is seen by its health and its models
            if isinstance(said, str) and _bare(said):
                return _bare(said)[:_MOST_NAME]
        return None

    async def _models(self, *, held: bool = False) -> tuple[ModelInside, ...]:
        if not self._speaks_ollama:
            return _listed(await self._get(_LIST))
        have = await self._ollama.call("GET", "/api/tags", timeout=TIMEOUT)
        running = await self._ollama.call("GET", "/api/ps", timeout=TIMEOUT)
        if have is None or not isinstance(have.get("models"), list | None):
            raise EngineError(f"Ollama's answer to /api/tags of {self.url} lists no models.")
        loaded = {_text(entry.get("name")): entry for entry in entries(running)}
        found = [_tagged(entry, loaded) for entry in entries(have)[:_MOST_MODELS] if _text(entry.get("name"))]
        return tuple(model for model in found if held or not model.name.startswith(HELD))

    async def _try_ollama(self, model: str) -> Trial:
        """By its own API, which tells how long the loading took."""
        body = {"model": model, "prompt": _WORD, "stream": False, "options": {"num_predict": 1}}
        try:
            said = await self._ollama.call("POST", "/api/generate", body, timeout=None)
        except EngineError as error:
            if "does not support generate" not in error.message:
                raise
            said = await self._ollama.call("POST", "/api/embed", {"model": model, "input": _WORD}, timeout=None)
            return _embedded(model, said, "embeddings")
        if said is None:
            raise missing(model, await self._models())
        text = said.get("response")
        if not isinstance(text, str):
            raise EngineError("its answer has no text")
        tokens, load = _count(said.get("eval_count")), _count(said.get("load_duration"))
        if not text and not tokens and not said.get("thinking"):
            raise EngineError(f"{model!r} gave no token")
        return Trial(model, True, 0.0, text[:_MOST_SAID], None if load is None else load / 1e9, tokens)

    async def _try_openai(self, model: str) -> Trial:
        """In OpenAI's dialect: a chat, a text where it has no template for chats, a vector where it writes none."""
        chat = {"model": model, "messages": [{"role": "user", "content": _WORD}], "max_tokens": 1}
        first = await self._post("/v1/chat/completions", chat)
        if isinstance(first, dict):
            return _answered(model, first)
        said = await self._post("/v1/completions", {"model": model, "prompt": _WORD, "max_tokens": 1})
        if isinstance(said, dict):
            return _answered(model, said)
        said = await self._post("/v1/embeddings", {"model": model, "input": _WORD})
        if isinstance(said, dict):
            return _embedded(model, said, "data")
        raise EngineError(str(first))  # the first refusal tells most

    async def _get(self, path: str) -> Mapping[str, Any]:
        """What lies there; empty when that is no object of JSON."""
        status, body = await loopback.get(f"{self.url}{path}", {"Accept": "*/*"}, TIMEOUT)
        if not 200 <= status < 300:
            raise UpstreamError(f"{path} is answered with {status}{_why(body)}")
        return _object(body) or {}

    async def _post(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any] | str:
        """The answer; a text is why it was refused, for which another way might be open."""
        sent = json.dumps(body).encode()
        status, said = await loopback.post(f"{self.url}{path}", {"Accept": "*/*"}, TRIAL_TIMEOUT, sent)
        if status in _OTHER_WAY:
            return f"{path} is answered with {status}{_why(said)}"
        if not 200 <= status < 300:
            raise UpstreamError(f"{path} is answered with {status}{_why(said)}")
        found = _object(said)
        if found is None:
            raise UpstreamError(f"the answer to {path} is no object of JSON")
        return found


def asker_of(want: Wanted, clock: Clock) -> Asker | None:
    """The server of a container; None for one without a port, which cannot be asked."""
    url = url_of(want.spec)
    return None if url is None else Asker(want.spec.kind, url, clock, want.watch.health)


def missing(model: str, found: Sequence[ModelInside]) -> ModelNotFound:
    """The error of a model that a container does not have, with those that it has."""
    names = ", ".join(sorted(entry.name for entry in found)[:20])
    return ModelNotFound(
        f"The container has no model {model!r}.", f"It has: {names}." if names else "It has none yet.", param="model"
    )


def _answered(model: str, said: Mapping[str, Any]) -> Trial:
    choices = said.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(first, dict):
        raise EngineError("its answer has no choice in it")
    message, usage = first.get("message"), said.get("usage")
    text = message.get("content") if isinstance(message, dict) else first.get("text")
    tokens = _count(usage.get("completion_tokens")) if isinstance(usage, dict) else None
    if not text and not tokens:
        raise EngineError(f"{model!r} gave no token")
    return Trial(model, True, 0.0, text[:_MOST_SAID] if isinstance(text, str) else "", tokens=tokens)


def _embedded(model: str, said: Mapping[str, Any] | None, where: str) -> Trial:
    found = (said or {}).get(where)
    if not isinstance(found, list) or not found:
        raise EngineError(f"{model!r} gave no vector")
    return Trial(model, True, 0.0)


def _listed(said: Mapping[str, Any]) -> tuple[ModelInside, ...]:
    """The models of a list in OpenAI's dialect; what such a server lists it has in memory, unless it says otherwise."""
    data = said.get("data")
    if not isinstance(data, list):
        raise UpstreamError(f"the answer to {_LIST} lists no models")
    found = []
    for entry in data[:_MOST_MODELS]:
        name = _text(entry.get("id")) if isinstance(entry, dict) else ""
        if name:
            meta, status = entry.get("meta"), entry.get("status")
            size = _count(meta.get("size")) if isinstance(meta, dict) else None
            loaded = not isinstance(status, dict) or status.get("value") == "loaded"
            found.append(ModelInside(name, size=size, loaded=loaded))
    return tuple(found)


def _tagged(entry: Mapping[str, Any], loaded: Mapping[str, Mapping[str, Any]]) -> ModelInside:
    name = _text(entry.get("name"))
    there = loaded.get(name)
    return ModelInside(
        name,
        _text(entry.get("digest")) or None,
        _count(entry.get("size")),
        loaded=there is not None,
        in_gpu=None if there is None else _count(there.get("size_vram")),
    )


def _text(said: Any) -> str:
    """A name; empty for what is none, or is one that nobody means."""
    return said if isinstance(said, str) and said.isprintable() and len(said) <= _MOST_NAME else ""


def _count(said: Any) -> int | None:
    """A number of bytes or tokens; None for what is none, or more than a database or a program of others could hold."""
    return said if isinstance(said, int) and not isinstance(said, bool) and 0 <= said <= _MOST_COUNT else None


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _why(body: bytes) -> str:
    """What the body of a refusal says, in one line, after a colon; empty where it says nothing."""
    found = _object(body) or {}
    said = found.get("error", found.get("message", found.get("detail")))
    said = said.get("message") if isinstance(said, dict) else said
    if not isinstance(said, str):
        return ""
    return f": {_bare(said)[:_MOST_SAID]}"


def _plain(error: CorralError) -> str:
    """An error's message to be put into a sentence."""
    return _bare(error.message)[:500].rstrip(".")


def _bare(text: str | None) -> str:
    """A server's words on one line, without what a terminal or a database would take for something else."""
    return "".join(sign if sign.isprintable() else " " for sign in " ".join((text or "").split()))
