"""Containers of compose's, taken over: each is stopped, made anew by Corral, and brought back if that fails."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from posixpath import commonpath
from typing import TYPE_CHECKING, TypeVar

from corral.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from corral.domain.containers import ContainerEngine, Seen

T = TypeVar("T")

ASIDE = ".before-corral"
"""What is added to the name of a container that is taken over, until its successor is well."""

_WEIGHTS = re.compile(r"/blobs/[^/]+$|[^/]\.(?:gguf|safetensors)$")
"""What holds a model: by its digest, as Ollama and the cache of the Hub have it, or a file of its own."""
_PROJECT = "com.docker.compose.project"
_SERVICE = "com.docker.compose.service"


@dataclass(frozen=True, slots=True)
class Started:
    """A container that compose has started.

    Attributes:
        name: what it is in Corral's configuration.
        container: its name on the engine, as compose has given it.
        kept: the volumes and folders that its successor has, too. Where there is none, what is in it stays behind.
        others: further containers of the same service, which are left alone.
    """

    name: str
    container: str
    id: str
    running: bool
    kept: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


async def started(
    engine: ContainerEngine, project: str, services: Mapping[str, str], sources: Mapping[str, Collection[str]]
) -> list[Started]:
    """The containers of a compose project on the engine, by the names of their entries.

    Args:
        project: as compose calls it.
        services: the service that each entry was.
        sources: the volumes and folders of each entry.

    Raises:
        DockerUnavailable: the engine does not answer.
    """
    seen = await engine.list()
    taken = {one.name for one in seen if one.yard is not None}
    theirs = [one for one in seen if one.labels.get(_PROJECT) == project and one.yard is None]
    found = []
    for name, service in services.items():
        left = name in taken  # what was taken over, and stays for what is in it
        of_it = _in_order(
            [
                one
                for one in theirs
                if one.labels.get(_SERVICE) == service and not (left and one.container.endswith(ASIDE))
            ]
        )
        if not of_it:
            continue
        first, *rest = of_it
        made = await engine.describe(first.id)
        kept = tuple(mount.source for mount in made.mounts if mount.source in sources.get(name, ()))
        others = tuple(one.container for one in rest)
        found.append(Started(name, first.container.removesuffix(ASIDE), first.id, first.running, kept, others))
    return found


async def take_over(
    engine: ContainerEngine,
    old: Started,
    start: Callable[[], Awaitable[T]],
    drop: Callable[[], Awaitable[None]],
    grace: float = 20.0,
) -> T:
    """Stop a container of compose's and start its successor; what `start` gives.

    One that has models in itself is left as it is: they would go with it, and be fetched anew.

    The old one is removed once the new one is well, if all that it kept is in volumes and folders of both. It is put
    back and started again when the new one cannot be had.

    Args:
        start: makes and starts the new one, and waits until it is well.
        drop: removes what there is of the new one.
        grace: seconds from SIGTERM to SIGKILL.

    Raises:
        Conflict: it has models in itself, and says how they are kept.
        CorralError: what `start` or the engine raised; the old one is as it was.
    """
    refuse_models(old.name, old.container, await engine.written(old.id))
    done = False
    if (await engine.inspect(old.id)).container != old.container + ASIDE:  # else it was cut short, and goes on
        await engine.rename(old.id, old.container + ASIDE)
    try:
        await engine.stop(old.id, grace)
        result = await start()
        done = True
    finally:
        if not done:
            await asyncio.shield(_put_back(engine, old, drop))
    if old.kept:
        await engine.remove(old.id)
    return result


def refuse_models(name: str, container: str, written: Sequence[str]) -> None:
    """Refuse to replace a container that has models among what it has `written` in its own file system.

    Raises:
        Conflict: it has, and says how they are kept.
    """
    found = [path for path in written if _WEIGHTS.search(path)]
    if not found:
        return
    folder = str(PurePosixPath(commonpath([str(PurePosixPath(path).parent) for path in found])))
    folder = folder.removesuffix("/blobs")
    raise Conflict(
        f"Container {container} has its models in itself, in {folder}, and in no volume: they would go with it.",
        f"Keep them: docker cp {container}:{folder} /srv/models, give containers.{name} the entry `volumes: "
        f"{{/srv/models: {folder}}}`, then docker rm --force {container}, and corral containers up {name}",
        param="container",
    )


async def _put_back(engine: ContainerEngine, old: Started, drop: Callable[[], Awaitable[None]]) -> None:
    await drop()
    await engine.rename(old.id, old.container)
    if old.running:
        await engine.start(old.id)


def _in_order(seen: Sequence[Seen]) -> list[Seen]:
    """Those that run first, then by name."""
    return sorted(seen, key=lambda one: (not one.running, one.container))
