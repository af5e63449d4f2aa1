"""The services of the configuration: started, stopped, watched. `corral.services`."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from corral.domain.services import ServiceState, ServiceStatus, check_service
from corral.errors import ConfigError, CorralError, ServiceError, ServiceNotFound, nearest
from corral.kit import environments
from corral.services import kinds
from corral.services.folder import Folder
from corral.services.local import LocalServices
from corral.services.systemd import SystemdServices

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from corral.app.corral import Corral
    from corral.config import ServiceSettings
    from corral.domain.services import ServiceManager, ServiceSpec

_LOOK = 0.05
"""Seconds between two looks at a service that is starting."""
_LAST_LINES = 5
_MORE = 10.0
"""Seconds beyond its own time-out that are waited for a service, so that who watches it can say what was wrong."""


class Services:
    """The services of one `Corral`, as `services.NAME` in its configuration describes them.

    What is done to one service is done one after the other, in this process by a lock and between processes by the
    manager. Nothing here is kept in memory: each call looks at what is there.

    Args:
        corral: whose.
        managers: what keeps services; the real ones when None.
    """

    def __init__(self, corral: Corral, managers: Mapping[str, ServiceManager] | None = None) -> None:
        self._corral = corral
        self._managers = managers
        self._locks: dict[str, asyncio.Lock] = {}
        self._chosen: str | None = None

    def names(self) -> list[str]:
        """The services that are configured, sorted."""
        return sorted(self._corral.settings.services)

    def spec(self, name: str) -> ServiceSpec:
        """What the service `name` runs.

        Raises:
            ServiceNotFound: it is not configured.
            CorralError: its settings cannot be used, or its program or model is not here.
        """
        return kinds.spec(name, self._settings(name), kinds.Surroundings(self._program, self._model))

    async def list(self) -> list[ServiceStatus]:
        """How each service stands, by name; one whose settings are wrong is among them, and says so."""
        return list(await asyncio.gather(*(self._described(name) for name in self.names())))

    async def status(self, name: str) -> ServiceStatus:
        """How it stands.

        Raises:
            ServiceNotFound: it is not configured.
            CorralError: its settings cannot be used, or its manager cannot be asked.
        """
        manager, spec = await self._of(name)
        return await manager.status(spec)

    async def start(self, name: str, *, wait: bool = True) -> ServiceStatus:
        """Start it, and by default wait until it is healthy; one that is up already is left as it is.

        Raises:
            AddressInUse: another program has its port.
            ServiceError: it could not be started, or did not become healthy in its time; with the end of its log.
        """
        async with self._alone(name):
            manager, spec = await self._of(name)
            await manager.start(spec)
        # Not alone any more: whoever sees that it will come to nothing may stop it.
        return await self._settled(manager, spec) if wait else await manager.status(spec)

    async def stop(self, name: str) -> ServiceStatus:
        """End it and all of its processes; one that is not up is left as it is.

        Raises:
            ServiceError: its manager cannot end it.
        """
        async with self._alone(name):
            manager, spec = await self._of(name)
            await manager.stop(spec)
            return await manager.status(spec)

    async def restart(self, name: str, *, wait: bool = True) -> ServiceStatus:
        """End it if it is up, and start it as it is configured now.

        Raises:
            CorralError: as `start` and `stop`.
        """
        async with self._alone(name):
            manager, spec = await self._of(name)
            await manager.stop(spec)
            await manager.start(spec)
        # Not alone any more: whoever sees that it will come to nothing may stop it.
        return await self._settled(manager, spec) if wait else await manager.status(spec)

    async def log(self, name: str, lines: int = 100) -> Sequence[str]:
        """The last lines it printed, oldest first.

        Raises:
            ServiceError: its log cannot be read.
        """
        manager, spec = await self._of(name)
        return await manager.log(spec, lines)

    async def install(self, name: str) -> ServiceStatus:
        """See to it that it starts with the machine, or with the login. It is not started now.

        Raises:
            ServiceUnavailable: its manager cannot.
            ServiceError: it was refused.
        """
        async with self._alone(name):
            manager, spec = await self._of(name)
            await manager.install(spec)
            return await manager.status(spec)

    async def uninstall(self, name: str) -> ServiceStatus:
        """Stop it, and remove what was written for it; its log and its settings stay.

        Raises:
            ServiceError: it could not be removed.
        """
        async with self._alone(name):
            manager, spec = await self._of(name)
            await manager.uninstall(spec)
            return await manager.status(spec)

    async def manager(self, name: str) -> ServiceManager:
        """What keeps it: what its settings say; else systemd where that can be used, and local processes elsewhere.

        Raises:
            ConfigError: there is no such manager.
            ServiceError: the one its settings name cannot be used here.
        """
        wanted = self._settings(name).manager
        managers = self._all()
        if wanted is not None and wanted not in managers:
            raise ConfigError(
                f"There is no service manager {wanted!r}.",
                f"Set services.{name}.manager to one of: {', '.join(managers)}.",
            )
        if wanted is not None:
            found = await managers[wanted].probe()
            if not found.usable:
                raise ServiceError(f"Service {name!r} cannot be kept by {wanted}: {found.reason}", found.hint)
            return managers[wanted]
        if (await asyncio.to_thread(Folder(self._corral.settings.home, name).read)).state.up:
            return managers["local"]  # it was started so, where systemd could not be reached then
        if self._chosen is None:
            # The machine's own manager for root, for whom a session of its own is rare, and a user's for users.
            order = ("systemd", "systemd-user") if os.geteuid() == 0 else ("systemd-user",)
            usable = [kind for kind in order if kind in managers and (await managers[kind].probe()).usable]
            self._chosen = usable[0] if usable else "local"
        return managers[self._chosen]

    async def _of(self, name: str) -> tuple[ServiceManager, ServiceSpec]:
        spec = await asyncio.to_thread(self.spec, name)
        return await self.manager(name), spec

    async def _described(self, name: str) -> ServiceStatus:
        try:
            return await self.status(name)
        except CorralError as error:
            settings = self._settings(name)
            kind, manager = settings.kind or name, settings.manager or self._chosen or "local"
            return ServiceStatus(name, kind, manager, ServiceState.FAILED, reason=str(error))

    async def _settled(self, manager: ServiceManager, spec: ServiceSpec) -> ServiceStatus:
        clock = self._corral.clock
        until = clock.now() + spec.start_timeout + _MORE
        while True:
            status = await manager.status(spec)
            if status.state is ServiceState.RUNNING:
                return status
            if not status.state.up or clock.now() >= until:
                break
            await clock.sleep(_LOOK)
        why = status.reason or status.last_exit or "it is not healthy yet"
        last = [line for line in await manager.log(spec, _LAST_LINES) if line.strip()]
        said = f" It last said: {' | '.join(last)}." if last else ""
        raise ServiceError(
            f"Service {spec.name!r} did not become healthy: {why}.{said}",
            f"See more of it with: corral services logs {spec.name}",
        )

    @asynccontextmanager
    async def _alone(self, name: str) -> AsyncIterator[None]:
        self._settings(name)
        async with self._locks.setdefault(name, asyncio.Lock()):
            yield

    def _settings(self, name: str) -> ServiceSettings:
        check_service(name)
        known = self._corral.settings.services
        if name not in known:
            close = nearest(name, known, 1)
            hint = f"Did you mean {close[0]}?" if close else f"Describe it in corral.yaml, under services.{name}."
            raise ServiceNotFound(f"There is no service {name!r}.", hint, param="service")
        return known[name]

    def _all(self) -> Mapping[str, ServiceManager]:
        if self._managers is None:
            home, env, clock = self._corral.settings.home, self._corral.env, self._corral.clock
            self._managers = {
                "systemd-user": SystemdServices(home, env, clock, user=True),
                "systemd": SystemdServices(home, env, clock, user=False),
                "local": LocalServices(home, env, clock),
            }
        return self._managers

    def _program(self, kind: str, name: str, given: Path | None) -> Path | None:
        found = environments.program(kind, name, self._corral.settings.home, self._corral.env, given)
        return None if found is None else found.absolute()

    def _model(self, name: str) -> Path:
        folder = Path(name).expanduser()
        if "/" in name and folder.is_dir():
            return folder.absolute()
        return self._corral.registry.files(self._corral.registry.get(name))["model"]
