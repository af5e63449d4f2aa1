"""Whether a service is well, as far as it lets itself be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corral.errors import UpstreamError
from corral.kit import loopback
from corral.services.ports import answers

if TYPE_CHECKING:
    from corral.domain.services import ServiceSpec

QUIET = 1.0
"""Seconds that a service which cannot be asked must have run to count as well."""


def askable(spec: ServiceSpec) -> bool:
    """Whether there is anything to ask."""
    return spec.health is not None or spec.port is not None


async def well(spec: ServiceSpec) -> bool:
    """Whether its health URL answers 2xx; where it has none, whether its port takes connections. Never raises."""
    if spec.health is None:
        return spec.port is not None and await answers(spec.host, spec.port)
    try:
        status, _ = await loopback.get(spec.health, {}, spec.vigilance.timeout)
    except UpstreamError:
        return False
    return 200 <= status < 300
