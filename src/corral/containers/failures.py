"""What goes wrong with the Docker engine, said in our words, once and for all."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from corral.errors import (
    Conflict,
    ContainerError,
    ContainerNotFound,
    CorralError,
    DiskFull,
    DockerUnavailable,
    ImageNotFound,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from aiodocker.exceptions import DockerError

    from corral.containers.contexts import Place

_NO_CONNECTION = 900
"""aiodocker's number for an engine that could not be reached."""
_TAKEN = re.compile(r"port is already allocated|address already in use|failed to bind (?:host )?port", re.IGNORECASE)
_NO_IMAGE = re.compile(
    r"no such image|manifest unknown|manifest for .* not found|pull access denied|repository does not exist"
    r"|repository .* not found|unauthorized|authentication required|denied: ",
    re.IGNORECASE,
)
_HINTS = (
    (
        re.compile(r"could not select device driver|nvidia-container|libnvidia|unresolvable CDI", re.IGNORECASE),
        (
            "The engine has no access to GPUs: install the NVIDIA container toolkit, run `nvidia-ctk runtime configure "
            "--runtime=docker`, and restart the engine; or set gpus: none."
        ),
    ),
    (re.compile(r"network \S+ not found", re.IGNORECASE), "Make the network first: docker network create NAME"),
    (
        re.compile(r"bind source path does not exist", re.IGNORECASE),
        "Make the folder first, or give a named volume: a name without a slash.",
    ),
    (
        re.compile(r"executable file not found|no such file or directory: unknown|exec format error", re.IGNORECASE),
        "Its image has no such program, or is for other machines; check `entrypoint`, `command` and the image.",
    ),
)


@asynccontextmanager
async def told(place: Place, doing: str, image: str | None = None) -> AsyncIterator[None]:
    """Within it, every failure of the engine, of aiodocker and of the connection becomes one of ours."""
    import aiohttp
    from aiodocker.exceptions import DockerError

    try:
        yield
    except DockerError as error:
        raise translated(error, place, doing, image) from error
    except TimeoutError as error:
        raise DockerUnavailable(
            f"The Docker engine at {place.address} did not answer in time; it was to {doing}.",
            "See whether it is well: docker info. A longer time: docker.timeout.",
        ) from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise unreachable(error, place, doing) from error


def translated(error: DockerError, place: Place, doing: str, image: str | None = None) -> CorralError:
    """What the engine refused."""
    message = error.message.strip()
    if error.status == _NO_CONNECTION:
        return unreachable(error.__context__ or error, place, doing)
    if "no space left on device" in message.lower():
        return DiskFull(
            f"The Docker engine has no room on its disk; it was to {doing}.",
            "See what takes it: docker system df. Remove what nobody needs: docker image prune",
        )
    if "client version" in message and ("too old" in message or "too new" in message):
        return DockerUnavailable(
            f"The Docker engine at {place.address} and Corral have no version in common: {message}"
        )
    if image is not None and (_NO_IMAGE.search(message) or "invalid reference format" in message):
        return ImageNotFound(
            f"There is no image {image}: {_short(message)}", f"See: docker pull {image}", param="image"
        )
    if error.status == 404 and "no such container" in message.lower():
        return ContainerNotFound(f"The Docker engine has no such container; it was to {doing}.")
    hint = next((hint for pattern, hint in _HINTS if pattern.search(message)), "")
    kind = Conflict if error.status == 409 else ContainerError
    return kind(f"The Docker engine refused to {doing}: {_short(message)}", hint)


def is_port_taken(message: str) -> bool:
    """Whether the engine could not start a container for a port that somebody has."""
    return _TAKEN.search(message) is not None


def unreachable(error: BaseException, place: Place, doing: str) -> DockerUnavailable:
    """An engine that does not answer, or may not be asked: why, and what to type."""
    cause = getattr(error, "os_error", None) or error
    where = f"{place.address} (from {place.origin})"
    path = place.socket
    if isinstance(cause, PermissionError):
        return _refused(path, where)
    if isinstance(cause, FileNotFoundError) or (path is not None and not path.exists()):
        return DockerUnavailable(
            f"No Docker engine at {where}: there is no such socket.",
            "Start it: sudo systemctl start docker. Install it: sudo apt-get install docker.io. If it is elsewhere, "
            "say where: docker.host or DOCKER_HOST.",
        )
    if isinstance(cause, ConnectionRefusedError):
        return DockerUnavailable(
            f"No Docker engine at {where}: nobody listens there.", "Start it: sudo systemctl start docker"
        )
    return DockerUnavailable(
        f"The Docker engine at {where} went away or cannot be understood ({cause or type(cause).__name__}); it was to "
        f"{doing}.",
        "See whether it is well: docker info",
    )


def _refused(path: Path | None, where: str) -> DockerUnavailable:
    group = _group(path)
    return DockerUnavailable(
        f"You may not use the Docker engine at {where}: its socket is for root"
        f"{f' and the group {group}' if group else ''}.",
        f"Join the group, and log in again: sudo usermod -aG {group or 'docker'} $USER",
    )


def _group(path: Path | None) -> str:
    """The group of a socket; empty where that is root's, or cannot be told."""
    try:
        found = path.group() if path is not None else ""
    except (OSError, KeyError):
        return ""
    return "" if found == "root" else found


def _short(message: str) -> str:
    """The engine's words on one line, with a full stop."""
    text = " ".join(message.split())
    return f"{text[:500]}{'…' if len(text) > 500 else ''}".rstrip(".") + "."


def whose_port(container: str, port: str, holders: Sequence[str]) -> tuple[str, str]:
    """What happened and what to do where a container's port is taken."""
    by = " and ".join(holders) if holders else "somebody else"
    return (
        f"{container} cannot start: its port {port} is taken by {by}.",
        "Give it another with `port`, or stop who has it.",
    )
