"""Runtime `container`: an engine in a Docker container that comes and goes as any engine does.

    container.py                the runtime: what is left over swept, an image, a port, a container that answers
    _container/options.py       how an engine is started
               made.py          options, files and placement → image, arguments, mounts, limits
               session.py       the engine: its log, its end, what it takes

The model's files are mounted read-only; the port is one of loopback. The container lives as long as Corral wants the
engine. It does not die with a Corral that is killed, as a process does: it carries whose it is, and the next Corral of
the same home removes it before it starts one itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from typing import TYPE_CHECKING, Any

from corral.domain.memory import Demand
from corral.domain.models import Capability
from corral.domain.ports import Availability, Endpoint, LaunchSpec, Progress, Report, SessionFacts
from corral.errors import (
    ContainerError,
    CorralError,
    DockerUnavailable,
    EngineStartFailed,
    EngineTimeout,
    ImageNotFound,
    OutOfMemory,
    PortTaken,
    RuntimeUnavailable,
)
from corral.kit import loopback, pidfile, process
from corral.runtimes._container.made import OWNER_LABEL, Made, make
from corral.runtimes._container.options import TEXT, ContainerOptions
from corral.runtimes._container.session import ContainerSession, Watched, answers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.domain.containers import ContainerEngine, Containers, Seen
    from corral.domain.ports import Clock

_PORTS = 3
"""Ports that are tried, should somebody take one in the moment that it is free."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5
_PROPS_TIMEOUT = 5.0
_NOTHING = "Corral runs engines in containers once a Docker engine answers: corral doctor"


class Container:
    """Runs a model in a container."""

    kind = "container"
    options = ContainerOptions
    formats: frozenset[str] = frozenset()
    accepts = frozenset({"gguf", "safetensors"})
    preference = 0
    capabilities = frozenset(Capability)

    def __init__(self, containers: Containers, clock: Clock) -> None:
        self._containers = containers
        self._clock = clock
        self._swept = False
        self._sweeping = asyncio.Lock()

    async def probe(self) -> Availability:
        """Whether a Docker engine answers. A server asks this when it begins: what a killed one left goes then."""
        try:
            info = await self._containers.engine.info()
            await self._sweep_once()
        except CorralError as error:
            return Availability(usable=False, reason=error.message, hint=error.hint or _NOTHING)
        return Availability(usable=True, version=info.version)

    def demand(self, spec: LaunchSpec) -> Demand:
        """What the files and the context let expect; `memory` where that is said."""
        options: ContainerOptions = spec.options
        device = "cpu" if options.gpus == () else None
        return Demand(
            context=options.context,
            slots=options.slots or Demand().slots,
            fixed=options.memory,
            device=device,
            layers=options.gpu_layers,
            splits=options.kind == "llamacpp",
        )

    async def start(self, spec: LaunchSpec, report: Report) -> ContainerSession:
        """Make the container, start it, and wait until the engine in it answers."""
        try:
            return await self._start(spec, report)
        except DockerUnavailable as error:
            raise RuntimeUnavailable(error.message, error.hint or _NOTHING) from error
        except (ContainerError, ImageNotFound, PortTaken) as error:
            title = f"The engine of {spec.model!r} could not be started in a container"
            raise EngineStartFailed(f"{title}: {error.message}", error.hint) from error

    async def sweep(self) -> list[str]:
        """Remove the engines of this home whose Corral is no more; their containers' names.

        Raises:
            DockerUnavailable, StoreError: it cannot be told what there is.
        """
        engine = self._containers.engine
        left = [seen for seen in await engine.list(await asyncio.to_thread(self._yard)) if not _owned(seen)]
        gone = [seen.container for seen in left if await engine.remove(seen.id, force=True)]
        self._swept = True
        return gone

    async def _sweep_once(self) -> None:
        async with self._sweeping:
            if not self._swept:
                await self.sweep()

    async def _start(self, spec: LaunchSpec, report: Report) -> ContainerSession:
        engine = self._containers.engine
        await self._sweep_once()
        for last in (False,) * (_PORTS - 1) + (True,):
            made = await asyncio.to_thread(lambda: make(spec, _free_port(), _owner()))
            await self._provide(engine, made, report, pull=spec.options.pull)
            report(Progress("load", detail=made.spec.image))
            try:
                return await self._run(engine, made, spec)
            except PortTaken:
                if last:
                    raise
        raise AssertionError("unreachable")

    async def _provide(self, engine: ContainerEngine, made: Made, report: Report, *, pull: bool) -> None:
        """See that the image is here."""
        spec = made.spec
        reference = spec.image if spec.digest is None else f"{spec.image.partition('@')[0]}@{spec.digest}"
        if await engine.image(reference) is not None:
            return
        if not pull:
            raise ImageNotFound(
                f"The image {reference} is not here.", f"Let it be fetched: pull: true, or: docker pull {reference}"
            )
        await engine.pull(reference, report)

    async def _run(self, engine: ContainerEngine, made: Made, spec: LaunchSpec) -> ContainerSession:
        yard = await asyncio.to_thread(self._yard)
        container = await _to_the_end(engine.create(made.spec, yard), engine)
        try:
            await engine.start(container)
        except BaseException:
            await asyncio.shield(engine.remove(container, force=True))
            raise
        watched = Watched(engine, container, self._clock)
        try:
            return await self._opened(watched, made, spec)
        except BaseException:
            await watched.close(0)
            raise

    async def _opened(self, watched: Watched, made: Made, spec: LaunchSpec) -> ContainerSession:
        """The session, once the engine answers."""
        options: ContainerOptions = spec.options
        port = made.spec.ports[0].outside
        address, title = f"http://127.0.0.1:{port}", f"The engine of {spec.model!r}"
        endpoint = Endpoint(
            url=f"{address}{options.base_path.rstrip('/')}",
            headers={"Authorization": f"Bearer {made.key}"} if made.key else {},
            model=options.upstream_model or spec.model,
        )
        try:
            async with asyncio.timeout(spec.load_timeout):
                await self._ready(watched, f"{address}{made.health}", endpoint)
        except TimeoutError:
            said = process.start_failed(title, f"did not answer within {spec.load_timeout:g} s", watched.log())
            raise EngineTimeout(said.message, said.hint) from None
        if watched.gone:
            raise _failed(title, await watched.ended(), watched, made)
        facts = await _facts(made, spec, address, endpoint)
        return ContainerSession(watched, endpoint, facts, f"{address}{made.health}", made.gpu)

    async def _ready(self, watched: Watched, health: str, endpoint: Endpoint) -> None:
        """Wait until it answers, or has ended."""
        ended = asyncio.ensure_future(watched.ended())
        pause = _FIRST_PAUSE
        try:
            while not watched.gone and not await answers(health, endpoint):
                await asyncio.wait([ended], timeout=pause)
                pause = min(pause * 1.5, _LONGEST_PAUSE)
        finally:
            ended.cancel()

    def _yard(self) -> str:
        return f"{self._containers.yard}.engines"


async def _to_the_end(creating: Any, engine: ContainerEngine) -> str:
    """The id of a container that is made; should nobody want it any more by then, it is removed again."""
    task = asyncio.ensure_future(creating)
    try:
        return str(await asyncio.shield(task))
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if task.exception() is None:
            await engine.remove(task.result(), force=True)
        raise


def _failed(title: str, reason: str, watched: Watched, made: Made) -> EngineStartFailed:
    error = process.start_failed(title, reason, watched.log())
    if watched.last is None or not watched.last.oom_killed:
        return error
    return OutOfMemory(
        error.message, f"Give it more ({made.spec.memory or 0} bytes now), or less to hold: `context`, `slots`."
    )


async def _facts(made: Made, spec: LaunchSpec, address: str, endpoint: Endpoint) -> SessionFacts:
    """What is known of the engine: as it says itself, where it does."""
    options: ContainerOptions = spec.options
    props = await _props(f"{address}/props", endpoint.headers) if options.kind == "llamacpp" else {}
    settings = props.get("default_generation_settings")
    context = settings.get("n_ctx") if isinstance(settings, dict) else None
    slots = props.get("total_slots")
    known = spec.revision.capabilities if spec.revision else frozenset()
    return SessionFacts(
        context=context if isinstance(context, int) and context > 0 else made.context,
        slots=slots if isinstance(slots, int) and slots > 0 else options.slots,
        device=made.gpu or "cpu",
        capabilities=frozenset(map(Capability, options.capabilities))
        if options.capabilities is not None
        else known or TEXT,
    )


async def _props(url: str, headers: Mapping[str, str]) -> dict[str, Any]:
    try:
        status, body = await loopback.get(url, headers, _PROPS_TIMEOUT)
        found = json.loads(body) if status == 200 else None
    except (CorralError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _owner() -> str:
    """The process that this is, as no other ever was or will be."""
    own = pidfile.identity(os.getpid())
    return "" if own is None else f"{own.pid} {own.began!r} {own.boot}"


def _owned(seen: Seen) -> bool:
    """Whether the process that made it is still there."""
    try:
        pid, began, boot = seen.labels.get(OWNER_LABEL, "").split(" ")
        return pidfile.alive(pidfile.Identity(int(pid), float(began), boot))
    except ValueError:
        return False


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


plugin = Container
