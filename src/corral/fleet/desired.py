"""The configuration as specs: what is wanted of each container, checked. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from corral.config import ContainerSettings, Settings
    from corral.domain.containers import ContainerSpec, Port, Wanted


def all_wanted(settings: Settings, env: Mapping[str, str]) -> dict[str, Wanted]:
    """Every container of the configuration by its name, in the file's order.

    Ports that are given come first; each that is not is the first of its kind's that no entry has.

    Raises:
        ConfigError: an entry cannot be, or two cannot be together: names the keys and the place.
    """
    raise NotImplementedError


def wanted(
    name: str,
    entry: ContainerSettings,
    env: Mapping[str, str],
    *,
    taken: Collection[Port] = (),
    base: Path = Path("/"),
    place: str = "",
) -> Wanted:
    """One container of the configuration.

    Args:
        env: Corral's environment, for `$NAME` in values of its environment.
        taken: ports that others have.
        base: the folder that relative ones are in, absolute.
        place: where it is configured, for messages.

    Raises:
        ConfigError: it cannot be; names the key.
    """
    raise NotImplementedError


def url_of(spec: ContainerSpec) -> str | None:
    """Where its models' API is on this machine, without a trailing slash; None where it has no port."""
    raise NotImplementedError


def refuse_mount(source: str, also: Collection[str] = ()) -> str | None:
    """Why a folder of the machine may not be in a container; None when it may.

    `also` are the engine's own places, such as its root folder and its socket.
    """
    raise NotImplementedError
