"""Corral in Python, with no server: load a model, ask it, let it go."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Self

from corral.app.hosted import Hosted
from corral.app.registration import Registrations, fallbacks
from corral.domain.generation import GenerationConfig, ModelConfig, ModelInfo, Reply
from corral.domain.ports import Report, silent
from corral.domain.states import State
from corral.errors import CorralError, ModelNotFound
from corral.routing.generation import Generator, first_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    from corral.config import Settings
    from corral.domain.models import Installed
    from corral.domain.receipts import Fallback
    from corral.lifecycle.supervisor import Engine


class LoadedModel:
    """A model to ask. It loads again by itself if it left memory in the meantime."""

    def __init__(self, manager: ModelManager, name: str) -> None:
        self._manager = manager
        self.name = name

    async def generate(
        self, prompt: str = "", max_tokens: int | None = 1024, temperature: float | None = 0.7, **more: Any
    ) -> Reply:
        """The whole answer to `prompt`; `more` are further fields of GenerationConfig, such as `system` or `stop`.

        Raises:
            CorralError: the engine refused or failed; says why.
        """
        return await self._manager.generate(self.name, GenerationConfig(prompt, max_tokens, temperature, **more))

    async def generate_stream(
        self, prompt: str = "", max_tokens: int | None = 1024, temperature: float | None = 0.7, **more: Any
    ) -> AsyncGenerator[str, None]:
        """The answer's text piece by piece, as the engine writes it. Leaving the loop early stops the engine."""
        config = GenerationConfig(prompt, max_tokens, temperature, **more)
        async with aclosing(self._manager.generate_stream(self.name, config)) as pieces:
            async for piece in pieces:
                yield piece


class ModelManager(Hosted):
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
        super().__init__(config, settings=settings, flags=flags, env=env)
        self._registrations = Registrations(self.corral)
        self._generator = Generator(self.corral.carrier)

    async def __aenter__(self) -> Self:
        self._begin()
        return self

    def models(self) -> list[str]:
        """Every name that can be loaded."""
        return self.corral.names()

    def register_model(self, config: ModelConfig) -> None:
        """Make `config.model_name` a model that can be loaded, until this manager is closed.

        Raises:
            UnknownPlugin: there is no such runtime.
            NotSupported: the runtime cannot do what is asked, such as quantising while loading.
        """
        self._registrations.add(config)

    def list_models(self) -> list[ModelInfo]:
        """Everything that is known of each model that can be loaded, and of each that was registered."""
        found = []
        for name in sorted({*self.models(), *self._registrations.names()}):
            try:
                found.append(self.get_model_info(name))
            except CorralError as error:  # one that is broken must not hide the others
                found.append(ModelInfo(name, None, reason=error.message))
        return found

    def get_model_info(self, name: str) -> ModelInfo:
        """What is known of a model, loaded or not.

        Raises:
            ModelNotFound: it is neither installed, nor configured, nor registered.
            RuntimeUnavailable: no runtime here runs its files.
        """
        corral = self.corral
        model = corral.canonical(name)
        kind = self._registrations.model_type(model)
        status = next((s for s in corral.supervisor.statuses() if s.model == model), None)
        if status is not None and status.engine is not None:
            return self._info(status.engine, status.state, kind)
        state, why = (State.COLD, "") if status is None else (status.state, status.reason)
        try:
            definition = corral.definition(name)
        except ModelNotFound as error:
            if model not in self._registrations:
                raise
            return ModelInfo(model, None, reason=str(error), model_type=kind)
        installed = definition.installed
        if installed is None:
            return ModelInfo(model, definition.runtime, local=False, state=state, model_type=kind, reason=why)
        revision = installed.revision
        return ModelInfo(
            model,
            definition.runtime,
            revision.id,
            definition.options.get("context") or revision.facts.get("context_length"),
            state=state,
            model_type=kind,
            path=corral.registry.files(installed).get("model"),
            size=revision.size,
            reason=why,
        )

    async def health_check(self) -> dict[str, Any]:
        """How the models stand: `status` is `ok`, or `degraded` when some failed; `models` maps each to its state.

        Every engine is asked whether it would answer now. `problems` maps a model to what is wrong with it.
        """
        problems, states = {}, {info.name: info.state for info in self.list_models()}
        for status in self.corral.supervisor.statuses():
            states[status.model] = status.state
            if status.state is State.FAILED:
                problems[status.model] = status.reason
            elif status.engine is not None and not await status.engine.session.healthy():
                problems[status.model] = "its engine does not answer"
        return {"status": "degraded" if problems else "ok", "models": states, "problems": problems}

    async def install(self, what: str, *, name: str | None = None, report: Report = silent) -> Installed:
        """Install a model by library name or reference, as `corral pull` does."""
        return await self.corral.origins.install(what, name=name, report=report)

    async def load_model(self, name: str, *, report: Report = silent) -> tuple[LoadedModel, ModelInfo]:
        """Bring a model into memory, or reach the cloud for it; where it cannot be had, the next of its `fallback`.

        Which one it is the ModelInfo says.

        Raises:
            ModelNotFound: it is neither installed nor configured.
            EngineError: it could not be started.
        """
        self._begin()

        async def attempt(model: str, missed: tuple[Fallback, ...]) -> tuple[LoadedModel, ModelInfo]:
            engine = await self.corral.load(model, report)
            reason = " ".join(f"{miss.model!r} cannot be had: {miss.message}" for miss in missed)
            info = self._info(engine, State.READY, self._registrations.model_type(model), reason, name=model)
            return LoadedModel(self, model), info

        return await first_of(tuple(dict.fromkeys((name, *fallbacks(self.corral, name)))), attempt)

    async def unload_model(self, name: str) -> bool:
        """Take a model out of memory, waiting for answers under way; False when it was not there."""
        return await self.corral.unload(name)

    async def generate(self, name: str, config: GenerationConfig) -> Reply:
        """The whole answer of model `name`, loading it first where needed; of its `fallback` where it cannot be had.

        Raises:
            CorralError: the model cannot be had, or its engine refused or failed.
        """
        self._begin()
        return await self._generator.whole(name, config)

    async def generate_stream(self, name: str, config: GenerationConfig) -> AsyncGenerator[str, None]:
        """The answer's text, piece by piece. Leaving the loop early stops the engine.

        Its `fallback` is asked where the model cannot be had, until the first piece has come; never after it.
        """
        self._begin()
        stream = await self._generator.open(config.body(name, stream=True), keep_alive=config.keep_alive)
        try:
            async with aclosing(stream.texts()) as texts:
                async for text in texts:
                    yield text
        finally:
            await stream.close()

    async def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks that answer an OpenAI chat-completions body with `stream` set.

        Raises:
            CorralError: as `generate`; an engine that dies in mid-answer is an EngineDied after the chunks that came.
        """
        self._begin()
        stream = await self._generator.open(body)
        try:
            async with aclosing(stream.chunks()) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            await stream.close()

    def _info(self, engine: Engine, state: State, kind: str, reason: str = "", *, name: str | None = None) -> ModelInfo:
        facts, spec = engine.session.facts, engine.launch.spec
        return ModelInfo(
            name or engine.model,
            engine.runtime,
            engine.revision,
            facts.context,
            facts.device,
            local=not engine.remote,
            state=state,
            model_type=kind,
            path=spec.files.get("model"),
            size=spec.revision.size if spec.revision else None,
            reason=reason,
        )


RuntimeManager = ModelManager
"""The name that the documents of the runtimes have for it."""
