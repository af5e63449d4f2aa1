"""The containers of the configuration: brought up, kept, watched and taken down. `corral.fleet`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from corral.domain.ports import silent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from corral.app.corral import Corral
    from corral.domain.containers import (
        ContainerEngine,
        EngineInfo,
        Happening,
        Health,
        Line,
        Planned,
        Standing,
        Usage,
        Wanted,
    )
    from corral.domain.ports import Report

Orphans = Literal["report", "remove", "adopt"]


class Fleet:
    """The containers of one `Corral`, as `containers.NAME` in its configuration describes them.

    Creating it does no I/O. Every method that asks the Docker engine raises DockerUnavailable when that does not
    answer, except `list`, `stack` and `history`, which tell what is known.

    Args:
        corral: whose.
        engine: the Docker engine; `corral.docker` when None.
    """

    def __init__(self, corral: Corral, engine: ContainerEngine | None = None) -> None:
        self._corral = corral
        self._engine = engine

    @property
    def engine(self) -> ContainerEngine:
        """The Docker engine."""
        return self._engine if self._engine is not None else self._corral.docker

    def names(self) -> list[str]:
        """The containers that are configured, sorted."""
        return sorted(self._corral.settings.containers)

    def wanted(self, name: str) -> Wanted:
        """What the configuration wants of `name`.

        Raises:
            ContainerNotFound: it is not configured; names the nearest.
            ConfigError: its settings cannot be used.
        """
        raise NotImplementedError

    async def info(self) -> EngineInfo:
        """The Docker engine: what it is, and what it can."""
        return await self.engine.info()

    async def list(self) -> list[Standing]:
        """How each stands, by name, orphans after them. With Docker away: as last known, state unknown, and why."""
        raise NotImplementedError

    async def status(self, name: str) -> Standing:
        """How it stands.

        Raises:
            ContainerNotFound: it is neither configured nor an orphan; names the nearest.
        """
        raise NotImplementedError

    async def plan(
        self, names: Sequence[str] = (), *, down: bool = False, orphans: Orphans = "report"
    ) -> list[Planned]:
        """What `up`, or with `down` that, would do now, and why; nothing is done. No names are all.

        Raises:
            ContainerNotFound: one is not configured.
        """
        raise NotImplementedError

    async def up(
        self,
        names: Sequence[str] = (),
        *,
        orphans: Orphans | None = None,
        recreate: bool = False,
        wait: bool = True,
        pull: bool = True,
        report: Report = silent,
    ) -> list[Standing]:
        """Make them what the configuration says, and by default wait until their models' APIs answer.

        What could not be brought up is in the result with its reason; the others are up all the same.

        Args:
            names: which; none are all.
            orphans: what becomes of those that are no longer configured; None is as `docker.orphans` says.
            recreate: also those that are as they should be are made anew.
            wait: until they are healthy, or it is plain that they will not be.
            pull: images that are not here are fetched.
            report: told how far it is.

        Raises:
            ContainerNotFound: one is not configured.
        """
        raise NotImplementedError

    async def down(self, names: Sequence[str] = (), *, report: Report = silent) -> list[Standing]:
        """Stop and remove their containers; volumes stay. They stay down until `up` or `start`."""
        raise NotImplementedError

    async def start(self, name: str, *, wait: bool = True) -> Standing:
        """Start it, made first where it is not there; one that is up is left as it is.

        Raises:
            ContainerNotFound, ImageNotFound, PortTaken, ContainerError: it cannot be started.
            ContainerUnhealthy: it did not become healthy in its time; with the end of its log.
        """
        raise NotImplementedError

    async def stop(self, name: str) -> Standing:
        """End it. It stays down until `start` or `up`."""
        raise NotImplementedError

    async def restart(self, name: str, *, wait: bool = True) -> Standing:
        """End it if it is up, and start it; one that was made otherwise than it is configured now is made anew.

        Raises:
            CorralError: as `start`.
        """
        raise NotImplementedError

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove its container, an orphan's too; volumes stay.

        Raises:
            ContainerNotFound: there is none.
            Conflict: it is up, and `force` is not given.
        """
        raise NotImplementedError

    async def adopt(self, name: str) -> dict[str, Any]:
        """The entry of the configuration that would describe a container that is there: an orphan, or a stranger's.

        Raises:
            ContainerNotFound: there is none of that name.
        """
        raise NotImplementedError

    def logs(self, name: str, *, lines: int = 100, follow: bool = False) -> AsyncIterator[Line]:
        """Its last `lines` lines, oldest first; and with `follow` every further one, until it ends.

        Raises:
            ContainerNotFound: there is none.
        """
        raise NotImplementedError

    async def usage(self, name: str) -> Usage | None:
        """What it takes now; None while it does not run.

        Raises:
            ContainerNotFound: there is none.
        """
        raise NotImplementedError

    def usages(self, name: str) -> AsyncIterator[Usage]:
        """What it takes, about once a second, until it ends.

        Raises:
            ContainerNotFound: there is none.
        """
        raise NotImplementedError

    async def stack(self) -> dict[str, Any]:
        """The whole at a glance.

        `engine` (None with `reason` while it does not answer), `containers` counted by state, `usage` summed over what
        runs (`cpu` in processors, `memory`, `gpu_memory` and traffic in bytes), `gpus` by number with who has them.
        """
        raise NotImplementedError

    async def health(self, name: str, *, generate: bool = False) -> Health:
        """Ask its models' API now; with `generate` it has to say a word. Written down like any other look.

        Raises:
            ContainerNotFound: it is not configured.
        """
        raise NotImplementedError

    async def history(self, name: str, limit: int = 100) -> list[Happening]:
        """What happened to it, newest first.

        Raises:
            DatabaseError: it cannot be read.
        """
        raise NotImplementedError

    async def versions(self, name: str) -> list[dict[str, Any]]:
        """Its image and its models over time, newest first.

        Of each `model` (None: the image), `version`, `reference`, `status` (`current`, `previous`, `failed`), `reason`,
        and `at` in Unix seconds.

        Raises:
            DatabaseError: they cannot be read.
        """
        raise NotImplementedError

    def changes(self) -> AsyncIterator[Standing | Happening]:
        """Each change from now on. A reader too slow by 256 changes loses the oldest."""
        raise NotImplementedError

    def feed(self) -> AsyncIterator[Mapping[str, Any]]:
        """Each change from now on as a message of the feed of events: `{"type": "container", …}`."""
        raise NotImplementedError

    async def sync(self) -> list[Standing]:
        """Look at the Docker engine and write down what is there; nothing is changed on it."""
        raise NotImplementedError

    async def keep(self) -> None:
        """Keep them as they are wanted, until cancelled. Survives Docker going and coming."""
        raise NotImplementedError

    async def close(self) -> None:
        """Write down what is not yet, and close every connection. Containers go on running."""
        raise NotImplementedError
