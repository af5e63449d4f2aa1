"""Compose files of the containers that are configured, and the containers that compose has made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corral.fleet.compose import to_compose

if TYPE_CHECKING:
    from corral.app.corral import Corral


def export(corral: Corral) -> str:
    """The containers of the configuration as a compose file; secrets stay the names of their variables.

    Raises:
        ConfigError: the settings of one cannot be used.
    """
    fleet = corral.fleet
    return to_compose(corral.settings.containers, {name: fleet.wanted(name) for name in fleet.names()})
