"""The Docker engine, who may ask it, and the containers of the configuration with their ports."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from corral.app.checkup.checks import Check, Verdict
from corral.errors import CorralError, DockerUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from corral.app.corral import Corral
    from corral.domain.containers import EngineInfo, Port, Wanted

_WHY_ENGINE = "It runs the model servers that are containers; models of other runtimes need none."
_WHY_CONTAINER = "It is in the configuration, and answers for its models."


async def engine(corral: Corral) -> tuple[EngineInfo | None, Check]:
    """The Docker engine, where it answers, and the check of it: a container that is configured needs it."""
    needed = sorted(corral.settings.containers)
    try:
        info = await corral.docker.info()
    except DockerUnavailable as error:
        if needed:
            detail = f"needed by {', '.join(needed)}: {error.message}"
            return None, Check("docker", Verdict.FAIL, detail, error.hint, _WHY_ENGINE, found=False)
        detail = f"not usable, and not needed: {error.message}"
        return None, Check("docker", Verdict.OK, detail, why=_WHY_ENGINE, found=False)
    except CorralError as error:
        return None, Check("docker", Verdict.FAIL, error.message, error.hint, _WHY_ENGINE)
    about = f"{info.version} (API {info.api}) at {info.address}"
    return info, Check("docker", Verdict.OK, f"{about}{', rootless' if info.rootless else ''}", why=_WHY_ENGINE)


async def containers(corral: Corral) -> AsyncIterator[Check]:
    """Of each configured container: whether its image is here and its ports are free, or its own."""
    from corral.domain.standings import ContainerState

    if not corral.settings.containers:
        return
    standing = {one.name: one for one in await corral.fleet.list()}
    for name in corral.fleet.names():
        title = f"container {name}"
        try:
            wanted = corral.fleet.wanted(name)
            image = await corral.docker.image(wanted.spec.image)
        except CorralError as error:
            yield Check(title, Verdict.FAIL, error.message, error.hint, _WHY_CONTAINER)
            continue
        there = standing.get(name)
        if there is not None and there.state.up:
            bad = not there.state.active and there.state is not ContainerState.STARTING
            detail = f"{there.state}{f': {there.reason}' if there.reason else ''}"
            fix = f"corral containers logs {name}" if bad else ""
            yield Check(title, Verdict.WARN if bad else Verdict.OK, detail, fix, _WHY_CONTAINER)
        elif (held := taken(wanted)) is not None:
            detail = f"port {held.outside} of {held.host} is in use by another program"
            fix = f"Free it (ss -ltnp 'sport = :{held.outside}'), or set containers.{name}.port to another."
            yield Check(title, Verdict.FAIL, detail, fix, _WHY_CONTAINER)
        elif image is None:
            detail = f"not made yet; the image {wanted.spec.image} is not here"
            yield Check(title, Verdict.WARN, detail, f"corral containers up {name}", _WHY_CONTAINER)
        else:
            state = "absent" if there is None else there.state
            detail = f"{state}; its image is here, and its ports are free"
            yield Check(title, Verdict.OK, detail, why=_WHY_CONTAINER)


def taken(wanted: Wanted) -> Port | None:
    """The first port of this machine that it shall have and that somebody has."""
    for port in wanted.spec.ports:
        family = socket.AF_INET6 if ":" in port.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((port.host, port.outside))
            except OSError:
                return port
    return None
