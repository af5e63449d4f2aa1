"""`/api/v1/services`: long-lived servers of models that Corral starts, watches and takes up again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Query, Response
from pydantic import BaseModel, Field

from corral.app import Corral
from corral.domain.services import ServiceState, ServiceStatus, describe
from corral.gateway.api.pages import reply


class Service(BaseModel):
    """A service. Bytes; seconds; times in Unix seconds; what is not known, or does not apply, is null."""

    name: str
    kind: str = Field(description="ollama, vllm or command")
    manager: str = Field(description="systemd-user, systemd or local")
    state: ServiceState
    pid: int | None
    since: float | None = Field(description="When it came into this state")
    started_at: float | None
    uptime: float | None
    restarts: int = Field(description="Starts after the first, since somebody last said start")
    last_exit: str | None
    healthy: bool | None = Field(description="What its last health check said")
    memory: int | None
    port: int | None
    reason: str = Field(description="Why it is in this state, where that is not plain")
    log: str | None = Field(description="The file of its output, or the command to read it")
    notes: list[str]
    installed: bool = Field(description="Whether it starts with the machine or the login")


class OneService(BaseModel):
    """Answer about one service."""

    success: bool = True
    service: Service


class ManyServices(BaseModel):
    """The services that are configured, by name."""

    success: bool = True
    services: list[Service]
    count: int


class ServiceLog(BaseModel):
    """The last lines that a service printed, oldest first."""

    success: bool = True
    name: str
    lines: list[str]


class StartRequest(BaseModel):
    """Whether to wait until the service is healthy."""

    wait: bool = True


Start = Annotated[StartRequest | None, Body()]


def router(corral: Corral) -> APIRouter:
    """The routes, over the services of `corral`."""
    services = corral.services
    routes = APIRouter(prefix="/api/v1/services", tags=["services"])

    def one(status: ServiceStatus) -> Response:
        return reply({"success": True, "service": describe(status, corral.clock.wall())})

    @routes.get("", response_model=ManyServices)
    async def list_services() -> Response:
        """Every service of the configuration, as it stands now."""
        found = [describe(status, corral.clock.wall()) for status in await services.list()]
        return reply({"success": True, "services": found, "count": len(found)})

    @routes.get("/{name}", response_model=OneService)
    async def status(name: str) -> Response:
        """One service as it stands now."""
        return one(await services.status(name))

    @routes.post("/{name}/start", response_model=OneService)
    async def start(name: str, given: Start = None) -> Response:
        """Start it, and wait until it is healthy; one that is up is left as it is."""
        return one(await services.start(name, wait=given is None or given.wait))

    @routes.post("/{name}/restart", response_model=OneService)
    async def restart(name: str, given: Start = None) -> Response:
        """End it and start it as it is configured now."""
        return one(await services.restart(name, wait=given is None or given.wait))

    @routes.post("/{name}/stop", response_model=OneService)
    async def stop(name: str) -> Response:
        """End it and all of its processes, politely at first; one that is not up is left so."""
        return one(await services.stop(name))

    @routes.post("/{name}/install", response_model=OneService)
    async def install(name: str) -> Response:
        """See to it that it starts with the machine, or with the login; systemd only."""
        return one(await services.install(name))

    @routes.post("/{name}/uninstall", response_model=OneService)
    async def uninstall(name: str) -> Response:
        """Stop it and remove what was written for it, but its log and its settings."""
        return one(await services.uninstall(name))

    @routes.get("/{name}/log", response_model=ServiceLog)
    async def log(
        name: str, lines: Annotated[int, Query(ge=1, le=10_000, description="How many of the last lines")] = 100
    ) -> Response:
        """The last lines it printed."""
        return reply({"success": True, "name": name, "lines": list(await services.log(name, lines))})

    return routes
