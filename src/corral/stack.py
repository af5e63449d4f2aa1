"""`DockerManager` and `OllamaClient`: the containers of a configuration, from Python and without a server."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corral.app import Corral, ahead
from corral.app.hosted import Closing
from corral.config import Settings, load
from corral.domain.ports import Report, silent
from corral.domain.standings import describe
from corral.errors import (
    Conflict,
    ContainerNotFound,
    ContainerUnhealthy,
    CorralError,
    DockerUnavailable,
    ModelNotFound,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.domain.standings import Standing

_UNKNOWN = "unknown"


class _Stack(Closing):
    """A Corral whose containers are asked for in one event loop."""

    def __init__(
        self,
        config: str | Path | None = None,
        *,
        settings: Settings | None = None,
        env: Mapping[str, str] | None = None,
        corral: Corral | None = None,
    ) -> None:
        if corral is None and settings is None:
            settings = load(env, {}, None if config is None else Path(config))
        self._own = corral is None
        self.corral = corral or Corral(settings, env=env)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def close(self) -> None:
        """Close every connection; containers go on running. Idempotent."""
        if not self._closed and self._own:
            await self.corral.close()
        self._closed = True

    async def _named(self, container_name: str) -> str:
        """The name in the configuration of what is called so there, or on the Docker engine."""
        await self._enter()
        wanted = self.corral.fleet.all_wanted()
        called = container_name.removeprefix("/")
        if called in wanted:
            return called
        return next((name for name, want in wanted.items() if want.spec.container == called), called)

    async def _enter(self) -> None:
        """Be at work in this loop, from the first call on."""
        if self._closed:
            raise Conflict(f"This {type(self).__name__} is closed.", "Create another.")
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            raise Conflict(
                f"This {type(self).__name__} belongs to another event loop.",
                "Do all of its work within one asyncio.run(...).",
            )
        self._loop = loop
        await ahead.operations()


class DockerManager(_Stack):
    """The containers of a configuration: how they stand, started, stopped, measured and asked whether they are well.

    A container is named as in the configuration (`coder`), or as on the Docker engine (`corral-coder`). What is seen is
    written down, as the server does it. Whoever wants them kept, and started again when they end, runs the server.

    Use it as an `async with` block, or `close` it.

    Args:
        config: a configuration file instead of the usual places.
        settings: a configuration that has been read already.
        env: the environment; the process's own when None.
        corral: one that is there already, and is left open.
    """

    async def get_container_status(self, container_name: str) -> dict[str, Any]:
        """How a container stands, seen now; bytes, and times in Unix seconds.

        Beside everything that the API tells of it: `container_name` on the Docker engine, `installed_version` of its
        server, `status` (`active` or `inactive`), `running`, `ports` as `{inside: "HOST:OUTSIDE"}`.

        Raises:
            ContainerNotFound: there is none of that name; names the nearest.
        """
        return self._told(await self.corral.fleet.status(await self._named(container_name)))

    async def start_container(self, container_name: str) -> bool:
        """Start a container, made first where it is not there; whether its models' API answers by now.

        Raises:
            ContainerNotFound, ImageNotFound, PortTaken, ContainerError: it cannot be started; says why.
        """
        name = await self._named(container_name)
        try:
            return (await self.corral.fleet.start(name)).state.active
        except ContainerUnhealthy:
            return False

    async def stop_container(self, container_name: str) -> bool:
        """End a container, which gives back what it takes; whether it is down. It stays so until it is started.

        Raises:
            ContainerNotFound, ContainerError: it cannot be ended; says why.
        """
        return not (await self.corral.fleet.stop(await self._named(container_name))).state.up

    async def get_container_stats(self, container_name: str) -> dict[str, Any]:
        """What a container takes now, looked at for a second. Bytes; None is unknown, and all is while it is down.

        `cpu_percent` of one processor, `memory_usage`, `memory_limit`, `memory_percent`, `network_rx`, `network_tx`,
        `block_read`, `block_write`, `pids`, `throttled` (0 to 1), and `gpu` with `memory_used`, `temperature`
        (Celsius) and `utilization` (percent).

        Raises:
            ContainerNotFound: there is none.
        """
        usage = await self.corral.fleet.usage(await self._named(container_name))
        told: dict[str, Any] = {} if usage is None else asdict(usage)
        cpu, memory, limit = told.get("cpu"), told.get("memory"), told.get("memory_limit")
        return {
            "running": usage is not None,
            "cpu_percent": None if cpu is None else round(cpu * 100, 1),
            "memory_usage": memory,
            "memory_limit": limit,
            "memory_percent": None if memory is None or not limit else round(memory / limit * 100, 1),
            "network_rx": told.get("received"),
            "network_tx": told.get("sent"),
            "block_read": told.get("read"),
            "block_write": told.get("written"),
            "pids": told.get("pids"),
            "throttled": told.get("throttled"),
            "gpu": {
                "memory_used": told.get("gpu_memory"),
                "temperature": told.get("gpu_temperature"),
                "utilization": told.get("gpu_utilization"),
            },
        }

    async def validate_container_health(self, container_name: str, *, generate: bool = False) -> bool:
        """Whether the models' own API in it answers, with every model that it shall have; and gives a token.

        Raises:
            ContainerNotFound: there is none of that name.
        """
        name = await self._named(container_name)
        try:
            return (await self.corral.fleet.health(name, generate=generate)).healthy
        except ContainerUnhealthy:
            return False

    async def get_stack_status(self) -> dict[str, Any]:
        """All at a glance, whether Docker answers or not.

        `docker` (whether it answers), `reason` (why not), `engine`, `total` and `active` (how many containers),
        `states` (how many in each), `containers` (each as `get_container_status` tells it), `usage` of all together,
        `gpus` by number with the containers that have them.
        """
        await self._enter()
        standings = await self.corral.fleet.list()
        stack = await self.corral.fleet.stack()
        return {
            "docker": stack["engine"] is not None,
            "reason": stack["reason"],
            "engine": stack["engine"],
            "total": len(standings),
            "active": sum(standing.state.active for standing in standings),
            "states": stack["containers"],
            "containers": [self._told(standing) for standing in standings],
            "usage": stack["usage"],
            "gpus": stack["gpus"],
        }

    async def get_active_models(self) -> list[dict[str, Any]]:
        """The models that can be asked now, and where.

        Each has `name`, `container_name`, `port`, `url` of its server, `openai_base_url` for clients of OpenAI's
        dialect, `installed_version` (its digest, where the server tells one), `status`, `loaded`, `size`, `purpose`.
        """
        with suppress(DockerUnavailable):  # then none is known to be active
            await self.sync_with_docker()
        return [
            {
                "name": model.name,
                "container_name": standing.container,
                "port": standing.port,
                "url": standing.url,
                "openai_base_url": None if standing.url is None else f"{standing.url}/v1",
                "installed_version": model.digest,
                "status": "active",
                "loaded": model.loaded,
                "size": model.size,
                "purpose": standing.purpose,
                "last_updated": standing.checked_at,
            }
            for standing in await self.corral.fleet.list()
            if standing.state.active
            for model in standing.models
        ]

    async def sync_with_docker(self) -> list[dict[str, Any]]:
        """Look at the Docker engine and at every API, and write down what is there; nothing is changed on it.

        Raises:
            DockerUnavailable: it does not answer, or may not be asked.
        """
        await self._enter()
        return [self._told(standing) for standing in await self.corral.fleet.sync()]

    def _told(self, standing: Standing) -> dict[str, Any]:
        want = self.corral.fleet.all_wanted().get(standing.name)
        ports = () if want is None else want.spec.ports
        return {
            **describe(standing, self.corral.clock.wall()),
            "container_name": standing.container,
            "installed_version": standing.version,
            "running": standing.state.up,
            "ports": {str(port.inside): f"{port.host}:{port.outside}" for port in ports},
            "last_updated": standing.checked_at or standing.since,
        }


class OllamaClient(_Stack):
    """The models in containers, asked and changed by the API of the server in them.

    Containers are named as for a DockerManager. Which kinds of server can fetch and remove models their kind says: of
    those that cannot, the models are listed and tried all the same.

    Use it as an `async with` block, or `close` it.

    Args:
        config: a configuration file instead of the usual places.
        settings: a configuration that has been read already.
        env: the environment; the process's own when None.
        corral: one that is there already, and is left open, such as `manager.corral`.
    """

    async def pull_model(self, model_name: str, container_name: str, *, report: Report = silent) -> bool:
        """Have a container's server fetch a model, for as long as that takes; True when it has it.

        `report` is told how far it is.

        Raises:
            ContainerNotFound, ContainerUnhealthy, NotSupported: it could not; says why.
        """
        await self.corral.inside.pull(await self._named(container_name), model_name, report)
        return True

    async def list_models(self, container_name: str) -> list[str]:
        """The names of the models that a container has.

        Raises:
            ContainerNotFound, ContainerUnhealthy: it cannot be asked.
        """
        return [model.name for model in await self.corral.inside.models(await self._named(container_name))]

    async def test_model(self, model_name: str, container_name: str) -> dict[str, Any]:
        """Have a model say one token, which loads it. A failure is an answer: `success` is False, and `error` says why.

        Further `model`, `container`, `response`, `seconds` in all, `load_seconds` and `tokens`; None is unknown.
        """
        found: dict[str, Any] = {"model": model_name, "container": container_name}
        try:
            trial = await self.corral.inside.test(await self._named(container_name), model_name)
        except CorralError as error:
            if isinstance(error, Conflict | ContainerNotFound):
                raise
            nothing = dict.fromkeys(("response", "seconds", "load_seconds", "tokens"))
            return {**found, "success": False, **nothing, "error": error.message}
        return {
            **found,
            "success": trial.ok,
            "response": trial.said,
            "seconds": trial.seconds,
            "load_seconds": trial.load,
            "tokens": trial.tokens,
            "error": trial.reason or None,
        }

    async def get_model_version(self, model_name: str, container_name: str) -> str:
        """The digest of a model in a container; `unknown` where its server tells none.

        Raises:
            ModelNotFound: it has none of that name; names those it has.
            ContainerNotFound, ContainerUnhealthy: it cannot be asked.
        """
        return await self.corral.inside.version(await self._named(container_name), model_name) or _UNKNOWN

    async def remove_model(self, model_name: str, container_name: str) -> bool:
        """Have a container's server remove a model; False when it had none of that name.

        Raises:
            ContainerNotFound, ContainerUnhealthy, NotSupported: it could not; says why.
        """
        try:
            await self.corral.inside.remove(await self._named(container_name), model_name)
        except ModelNotFound:
            return False
        return True
