"""Configured containers as a compose file, and containers that are there as configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from corral.fleet.compose import to_compose
from corral.fleet.compose.service import SECRET

if TYPE_CHECKING:
    from corral.app.corral import Corral


def export(corral: Corral) -> str:
    """The containers of the configuration as a compose file; secrets stay the names of their variables.

    Raises:
        ConfigError: the settings of one cannot be used.
    """
    fleet = corral.fleet
    return to_compose(corral.settings.containers, {name: fleet.wanted(name) for name in fleet.names()})


async def adopted(corral: Corral, name: str) -> tuple[dict[str, Any], list[str]]:
    """What a container that is there would be in the configuration; and the variables to set for Corral before.

    Their values look like secrets, and are told nobody: in the entry stands `${NAME}`.

    Raises:
        ContainerNotFound: there is none of that name.
    """
    entry = await corral.fleet.adopt(name)
    environment = dict(entry.get("environment") or {})
    secrets = sorted(variable for variable, value in environment.items() if value and SECRET.search(variable))
    if secrets:
        entry = {**entry, "environment": {**environment, **{variable: f"${{{variable}}}" for variable in secrets}}}
    return entry, secrets
