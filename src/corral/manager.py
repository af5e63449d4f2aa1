"""Corral in Python, with no server: load a model, ask it, let it go."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import orjson

from corral.app import Corral
from corral.config import Settings, load
from corral.domain.generation import GenerationConfig, ModelConfig, ModelInfo, Reply
from corral.domain.models import Capability
from corral.domain.ports import Report, silent
from corral.domain.receipts import Receipt
from corral.errors import (
    Conflict,
    CorralError,
    InvalidRequest,
    NotSupported,
    UpstreamError,
    UpstreamProtocol,
    UpstreamUnreachable,
)
from corral.kit.identity import request_ids
from corral.kit.sse import Reader
from corral.routing.dispatch import Answer, Ask

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from types import TracebackType

    from corral.domain.models import Installed
    from corral.lifecycle.supervisor import Engine

_CHAT = "/chat/completions"
_NEEDS = frozenset((Capability.CHAT,))


class LoadedModel:
    """A model to ask. It loads again by itself if it left memory in the meantime."""

    def __init__(self, manager: ModelManager, name: str) -> None:
        self._manager = manager
        self.name = name

    async def generate(
        self, prompt: str = "", *, max_tokens: int | None = 1024, temperature: float | None = 0.7, **more: Any
    ) -> Reply:
        """The whole answer to `prompt`; `more` are further fields of GenerationConfig, such as `system` or `stop`.

        Raises:
            CorralError: the engine refused or failed; says why.
        """
        return await self._manager.generate(self.name, GenerationConfig(prompt, max_tokens, temperature, **more))

    async def generate_stream(
        self, prompt: str = "", *, max_tokens: int | None = 1024, temperature: float | None = 0.7, **more: Any
    ) -> AsyncGenerator[str, None]:
        """The answer's text piece by piece, as the engine writes it. Leaving the loop early stops the engine."""
        config = GenerationConfig(prompt, max_tokens, temperature, **more)
        async with aclosing(self._manager.generate_stream(self.name, config)) as pieces:
            async for piece in pieces:
                yield piece


class ModelManager:
    """Loads models on demand and answers from them, in this process's loop; engines are children that die with it.

    The configuration file and the environment apply as they do for the server. Use it as an `async with` block, or
    `close` it; either way no engine outlives the process.

    Args:
        config: a configuration file instead of the usual places.
        settings: a configuration that has been read already.
        flags: dotted keys that win over file and environment, such as `{"store.models_dir": "./models"}`.
    """

    def __init__(
        self,
        config: str | Path | None = None,
        *,
        settings: Settings | None = None,
        flags: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        if settings is None:
            settings = load(env, flags, Path(config) if config is not None else None)
        self.corral = Corral(settings, env=env)
        self._dispatcher = self.corral.dispatcher
        self._ids = request_ids()
        self._idler: asyncio.Task[None] | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop every engine; nothing is loaded after that. Idempotent."""
        self._closed = True
        if self._idler is not None:
            self._idler.cancel()
            await asyncio.wait([self._idler])
            self._idler = None
        await self.corral.close()

    def models(self) -> list[str]:
        """Every name that can be loaded."""
        return self.corral.names()

    def register_model(self, config: ModelConfig) -> None:
        """Make `config.model_name` a model that can be loaded, until this manager is closed.

        Raises:
            UnknownPlugin: there is no such runtime.
            NotSupported: the runtime cannot do what is asked, such as quantising while loading.
        """
        options = dict(config.options)
        entry: dict[str, Any] = {"options": options}
        if config.runtime_type is not None:
            entry["runtime"] = config.runtime_type
            runtime = self.corral.runtimes[config.runtime_type]
            known = {f.name for f in fields(runtime.options)}
            _ask_option(options, known, config, "quantization", config.quantization)
            if config.device_type == "cpu" and "gpu_layers" in known:
                options.setdefault("gpu_layers", 0)
            elif config.device_type not in ("auto", "cpu"):
                _ask_option(options, known, config, "device", config.device_type)
            if not runtime.formats and "upstream_model" in known:
                options.setdefault("upstream_model", config.model_id)
        elif config.quantization is not None:
            raise NotSupported(
                "`quantization` needs a `runtime_type` that quantises.", "Name one, or install a quantised file."
            )
        if "upstream_model" not in options:
            entry["source"] = config.model_id
        self.corral.register(config.model_name, entry)

    async def install(self, what: str, *, name: str | None = None, report: Report = silent) -> Installed:
        """Install a model by library name or reference, as `corral pull` does."""
        return await self.corral.install(what, name=name, report=report)

    async def load_model(self, name: str, *, report: Report = silent) -> tuple[LoadedModel, ModelInfo]:
        """Bring a model into memory, or reach the cloud for it.

        Raises:
            ModelNotFound: it is neither installed nor configured.
            EngineError: it could not be started.
        """
        self._begin()
        engine = await self.corral.load(name, report)
        facts = engine.session.facts
        info = ModelInfo(name, engine.runtime, engine.revision, facts.context, facts.device, local=not engine.remote)
        return LoadedModel(self, name), info

    async def unload_model(self, name: str) -> bool:
        """Take a model out of memory, waiting for answers under way; False when it was not there."""
        return await self.corral.unload(name)

    async def generate(self, name: str, config: GenerationConfig) -> Reply:
        """The whole answer of model `name`, loading it first where needed.

        Raises:
            CorralError: the model cannot be had, or its engine refused or failed.
        """
        self._begin()
        ask = Ask(name, _CHAT, config.body(name, stream=False), needs=_NEEDS)
        while True:
            answer = await self._dispatcher.open(ask)
            try:
                return self._reply(ask, answer.engine, _document(answer.response.status, await answer.response.read()))
            except UpstreamUnreachable as error:
                await self._dispatcher.recover(ask, answer.engine, error)
            finally:
                answer.close()

    async def generate_stream(self, name: str, config: GenerationConfig) -> AsyncGenerator[str, None]:
        """The answer's text, piece by piece. Leaving the loop early stops the engine."""
        async with aclosing(self.stream(config.body(name, stream=True))) as chunks:
            async for chunk in chunks:
                for choice in chunk.get("choices") or ():
                    text = (choice.get("delta") or {}).get("content")
                    if text:
                        yield text

    async def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks that answer an OpenAI chat-completions body with `stream` set.

        Raises:
            CorralError: as `generate`; an engine that dies in mid-answer is an EngineDied after the chunks that came.
        """
        self._begin()
        answer = await self._dispatcher.open(Ask(str(body["model"]), _CHAT, dict(body), needs=_NEEDS))
        try:
            if answer.response.status >= 400:
                _document(answer.response.status, await answer.response.read())
            async for chunk in _chunks(answer):
                yield chunk
        except UpstreamUnreachable as error:
            raise await self._dispatcher.explain(answer.engine, error) from error
        finally:
            answer.close()

    def _begin(self) -> None:
        if self._idler is not None and self._idler.get_loop() is not asyncio.get_running_loop():
            raise Conflict(
                "This ModelManager belongs to another event loop.", "Do all of its work within one asyncio.run(...)."
            )
        if self._idler is None and not self._closed:
            self._idler = asyncio.create_task(self.corral.supervisor.run(), name="idle engines")

    def _reply(self, ask: Ask, engine: Engine, document: Mapping[str, Any]) -> Reply:
        choice = document["choices"][0]
        usage = document.get("usage") or {}
        receipt = Receipt(
            request_id=next(self._ids),
            model=ask.model,
            runtime=engine.runtime,
            revision=engine.revision,
            engine=engine.id,
            context=engine.session.facts.context,
            wait_ms=ask.wait_ms,
            attempts=ask.attempts,
            prompt_tokens=usage.get("prompt_tokens"),
            completion_tokens=usage.get("completion_tokens"),
            finish_reason=choice.get("finish_reason"),
            ignored=ask.ignored,
        )
        message = choice.get("message") or {}
        return Reply(
            text=message.get("content") or "",
            tokens=usage.get("completion_tokens") or 0,
            receipt=receipt,
            tool_calls=tuple(message.get("tool_calls") or ()),
        )


def _ask_option(options: dict[str, Any], known: set[str], config: ModelConfig, name: str, value: Any) -> None:
    """Set option `name`, or say that the runtime has no such thing."""
    if value is None:
        return
    if name not in known:
        raise NotSupported(
            f"The runtime {config.runtime_type!r} cannot set {name} to {value!r} when it loads {config.model_name!r}.",
            "Leave it out, or take another runtime.",
            param=name,
        )
    options.setdefault(name, value)


def _document(status: int, body: bytes) -> dict[str, Any]:
    """The engine's JSON answer, or its error as one of ours."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UpstreamProtocol(f"The engine answered {status} with something that is not JSON.") from error
    if not isinstance(document, dict):
        raise UpstreamProtocol(f"The engine answered {status} with JSON that is no object.")
    if status >= 400 or document.get("error"):
        raise _refusal(status, document.get("error"))
    choices = document.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise UpstreamProtocol("The engine's answer holds no choices.")
    return document


def _refusal(status: int, detail: Any) -> CorralError:
    message = detail.get("message") if isinstance(detail, dict) else detail
    text = f"The engine refused: {message}" if message else f"The engine answered {status}."
    return InvalidRequest(text) if 400 <= status < 500 else UpstreamError(text)


async def _chunks(answer: Answer) -> AsyncGenerator[dict[str, Any], None]:
    reader = Reader()
    async for piece in answer.response:
        for data in reader.feed(piece):
            if data == "[DONE]":
                return
            try:
                chunk = orjson.loads(data)
            except orjson.JSONDecodeError as error:
                raise UpstreamProtocol("The engine sent an event that is not JSON.") from error
            if not isinstance(chunk, dict):
                raise UpstreamProtocol("The engine sent an event that is no object.")
            if chunk.get("error"):
                raise _refusal(500, chunk["error"])
            yield chunk
