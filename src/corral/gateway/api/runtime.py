"""`/api/v1/runtime`: what is in memory and why, moving models in and out of it, and asking them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import asdict
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from corral.app import Corral, launching
from corral.app.registration import Registrations
from corral.config import duration
from corral.domain.callers import LOCAL, Caller
from corral.domain.generation import GenerationConfig, ModelConfig
from corral.errors import CorralError, InvalidRequest, NotFound
from corral.gateway import described
from corral.gateway.api.pages import reply
from corral.gateway.api.runtime_shapes import (
    Decisions,
    Done,
    Explained,
    Generated,
    Generation,
    Health,
    LogLines,
    ManyModels,
    ModelState,
    OneModel,
    Registered,
    Registration,
    Stats,
)
from corral.gateway.api.streaming import Streaming
from corral.gateway.envelope import envelope
from corral.gateway.feed import Feed
from corral.kit.clients import Clients
from corral.routing.generation import Generator, Stream
from corral.routing.limits import Limits

ModelName = Annotated[str, Query(description="The model's name", examples=["smollm2"])]
KeepAlive = Annotated[str | None, Query(description="How long it may be unused from now on: `10m`, 0, `never`")]
_CLIENT_LEFT = 499


def router(corral: Corral, registrations: Registrations, feed: Feed) -> APIRouter:
    """The routes, over `corral`."""
    routes = APIRouter(prefix="/api/v1/runtime", tags=["runtime"])
    _add_models(routes, corral, registrations)
    _add_loading(routes, corral, registrations)
    _add_registering(routes, corral, registrations)
    _add_generating(routes, corral)
    _add_telling(routes, corral, feed)
    return routes


def _add_models(routes: APIRouter, corral: Corral, registrations: Registrations) -> None:
    @routes.get("/models")
    async def list_models() -> ManyModels:
        """Every model that can be asked for, loaded or not."""
        found = [ModelState(**model) for model in described.models(corral, registrations)]
        return ManyModels(models=found, count=len(found))

    @routes.get("/models/{name:path}/log")
    async def engine_log(name: str) -> LogLines:
        """The last lines that the model's engine wrote; of its last one when it is gone, or why none could start."""
        lines = corral.supervisor.log(corral.canonical(name))
        if lines is None:
            corral.definition(name)
            raise NotFound(
                f"Model {name!r} has not been in memory, so it has no log.", f"Load it with: corral load {name}"
            )
        return LogLines(lines=list(lines))

    @routes.get("/models/{name:path}")
    async def one_model(name: str) -> OneModel:
        """One model by name, which may hold `/`; of one that is not in memory also what it would take."""
        known = described.model(corral, registrations, name)
        if known.get("placement") is None:
            known |= await _expected(corral, name)
        return OneModel(model=ModelState(**known))


def _add_loading(routes: APIRouter, corral: Corral, registrations: Registrations) -> None:
    clients = Clients()

    @routes.post("/models/load", responses={202: {"model": OneModel, "description": "`wait` is false"}})
    async def load_model(
        model_name: ModelName,
        request: Request,
        response: Response,
        keep_alive: KeepAlive = None,
        wait: Annotated[
            bool, Query(description="False: only as a hint that it will soon be asked for, if there is room")
        ] = True,
    ) -> OneModel:
        """Bring a model into memory; answers when it is ready. It leaves again after its idle time-out."""
        seconds = _seconds(keep_alive)
        own = corral.canonical(model_name)
        if wait:
            with clients.watch(request.receive):  # a load goes on without whoever asked for it, and nobody waits
                engine = await corral.load(own, keep_alive=seconds)
                await corral.supervisor.measure(engine)
        else:
            corral.definition(model_name)
            corral.supervisor.hint(own)
            response.status_code = 202
        return OneModel(model=_one(corral, registrations, model_name))

    @routes.post("/models/unload")
    async def unload_model(
        model_name: ModelName,
        force: Annotated[bool, Query(description="Also when it is answering")] = False,
        drain: Annotated[
            float | None, Query(ge=0, le=3600, description="Seconds to wait for answers under way")
        ] = None,
    ) -> OneModel:
        """Take a model out of memory; 409 when it is still answering after `drain` seconds."""
        described.model(corral, registrations, model_name)
        await corral.unload(model_name, drain=drain, force=force)
        return OneModel(model=_one(corral, registrations, model_name))


def _add_registering(routes: APIRouter, corral: Corral, registrations: Registrations) -> None:
    @routes.post("/models/register")
    async def register_model(wanted: Registration) -> Registered:
        """Make a model that can be asked for under a name of its own; it is there again after a restart."""
        fields = wanted.model_dump() | {"fallback": tuple(wanted.fallback)}
        registrations.keep(ModelConfig(**fields))
        model = _one(corral, registrations, wanted.model_name)
        return Registered(message=f"Model {wanted.model_name!r} is registered. {model.reason}".strip(), model=model)

    @routes.delete("/models/{name:path}")
    async def unregister_model(name: str) -> Done:
        """Take a registration back. What is installed stays."""
        registrations.remove(name)
        return Done(message=f"Model {name!r} is no longer registered.")


def _add_generating(routes: APIRouter, corral: Corral) -> None:
    generator = Generator(corral.carrier)
    clients = Clients()

    @routes.post("/generate", response_model=Generated)
    async def generate(wanted: Generation, request: Request) -> Response:
        """Ask a model, loading it where needed; with `stream`, the answer comes as server-sent events."""
        config = _config(wanted)
        name = request.scope.get("corral.request_id")
        caller: Caller = request.scope.get("corral.caller", LOCAL)
        if wanted.stream:
            pieces = _generated(generator, wanted.model_name, config, name, caller)
            return Streaming(_limited(corral.traffic.limits, caller, pieces))
        with _entered(corral.traffic.limits, caller), clients.watch(request.receive):
            found = await generator.whole(wanted.model_name, config, name, caller)
            answer = {"success": True, "text": found.text, "tokens": found.tokens, "model": found.receipt.model}
            return reply({**answer, "finish_reason": found.receipt.finish_reason, "receipt": asdict(found.receipt)})
        return Response(status_code=_CLIENT_LEFT)  # nobody is there to read it


def _add_telling(routes: APIRouter, corral: Corral, feed: Feed) -> None:
    started = corral.clock.now()

    @routes.get("/health")
    async def health() -> Health:
        """Whether all is well, and what is not."""
        counts: dict[str, int] = {}
        for status in corral.supervisor.statuses():
            counts[status.state] = counts.get(status.state, 0) + 1
        problems: Any = described.problems(corral)
        return Health(status="degraded" if problems else "ok", models=counts, problems=problems)

    @routes.get("/stats", response_model=Stats)
    async def stats() -> Response:
        """What is used of this machine, and by whom."""
        machine = await corral.sampler.look(fresh=1.0)
        return reply(
            {
                "success": True,
                "machine": described.as_json(machine),
                "memory": described.memory(corral),
                "engines": described.engines(corral),
                "queues": described.queues(corral),
                "counters": described.counters(corral),
                "uptime_seconds": corral.clock.now() - started,
            }
        )

    @routes.get("/explain", response_model=Explained)
    async def explain(model: Annotated[str, Query(description="The model's name")]) -> Response:
        """What would happen to a request for the model now, and why: what it needs, who would make room, who waits."""
        own = corral.canonical(model)
        found = described.as_json(await corral.supervisor.explain(own))
        status = next((s for s in corral.supervisor.statuses() if s.model == own and s.engine), None)
        place = status.placement if status is not None else None
        found |= {"placement": described.placed(place)} if place is not None else await _expected(corral, model)
        return reply({"success": True, "model": own, "explanation": {**found, "memory": described.memory(corral)}})

    @routes.get("/decisions", response_model=Decisions)
    async def decisions(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Response:
        """What was decided and done last, each with its reason, newest first."""
        found = described.as_json(corral.supervisor.decisions(limit))
        return reply({"success": True, "decisions": found, "count": len(found)})

    @routes.get("/events", response_class=StreamingResponse)
    async def events() -> Streaming:
        """How the yard stands, and then each change, as server-sent events."""
        return Streaming(_told(feed))


async def _told(feed: Feed) -> AsyncGenerator[bytes, None]:
    yield b": corral\n\n"
    async with aclosing(feed.listen()) as messages:
        async for message in messages:
            yield b": still here\n\n" if message is None else _event(message)


@contextmanager
def _entered(limits: Limits, caller: Caller) -> Iterator[None]:
    """The caller has a request under way, as through any other door."""
    limits.enter(caller)
    try:
        yield
    finally:
        limits.leave(caller)


async def _limited(limits: Limits, caller: Caller, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    with _entered(limits, caller):
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece


async def _generated(
    generator: Generator, model: str, config: GenerationConfig, request_id: str | None, caller: Caller
) -> AsyncGenerator[bytes, None]:
    """The answer as events: each piece, and at the end the facts of it, or why there is no more."""
    body = config.body(model, stream=True)
    stream = await generator.open(body, request_id, keep_alive=config.keep_alive, caller=caller)
    try:
        yield b""  # the head is sent now: whatever could not be had would have been told by a status
        async with aclosing(stream.texts()) as texts:
            async for text in texts:
                yield _event({"text": text})
        yield _event({"done": True, **_ended(stream)})
    except CorralError as error:
        yield _event({"done": True, **envelope(error)})
    finally:
        await stream.close()


def _ended(stream: Stream) -> dict[str, Any]:
    receipt = stream.receipt
    facts = {"success": True, "tokens": receipt.completion_tokens or 0, "model": receipt.model}
    return {**facts, "finish_reason": receipt.finish_reason, "receipt": asdict(receipt)}


def _event(content: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(content) + b"\n\n"


def _config(wanted: Generation) -> GenerationConfig:
    if not wanted.prompt and not wanted.messages:
        raise InvalidRequest("There is no prompt.", 'Send {"model_name": …, "prompt": …}.', param="prompt")
    fields = wanted.model_dump(exclude={"model_name", "stream"})
    return GenerationConfig(**{**fields, "keep_alive": _seconds(wanted.keep_alive)})


def _seconds(keep_alive: str | float | None) -> float | None:
    """A length of time as people write it.

    Raises:
        InvalidRequest: it is none.
    """
    try:
        return None if keep_alive is None else duration(_number(keep_alive))
    except (ValueError, TypeError) as error:
        raise InvalidRequest(f"keep_alive is {error}.", "For example 10m, 0 or never.", param="keep_alive") from error


def _number(text: str | float) -> str | float:
    """A negative number stays one, also in an address."""
    return float(text) if isinstance(text, str) and text.startswith("-") else text


def _one(corral: Corral, registrations: Registrations, name: str) -> ModelState:
    return ModelState(**described.model(corral, registrations, name))


async def _expected(corral: Corral, name: str) -> dict[str, Any]:
    """Where a model that is not in memory would be put, and what it would take there; nothing when that is unknown."""
    try:
        launch = await launching.plan(corral, corral.canonical(name))
    except CorralError:
        return {}
    if not launch.placements:
        return {}
    best = launch.placements[0]
    return {"placement": described.placed(best), "estimated": dict(best.devices)}
