"""What a container gives back when it ends: asked for just before, and said in its history."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from corral.errors import CorralError
from corral.fleet import limits

if TYPE_CHECKING:
    from corral.domain.containers import ContainerEngine, Usage, Wanted

_BRIEF = 0.3
"""Seconds that an end waits for it."""


async def taken(engine: ContainerEngine, container: str) -> Usage | None:
    """What it takes, where that is told at once; None where it does not run, or an end would have to wait."""
    try:
        async with asyncio.timeout(_BRIEF):
            return await engine.usage(container, brief=True)
    except (TimeoutError, CorralError):
        return None  # whoever ends it sees what is wrong, and better


def given_back(want: Wanted | None, before: Usage | None, reason: str) -> tuple[str, dict[str, Any]]:
    """What has become free with its end, in words after the reason, and in figures; nothing where it did not run."""
    if before is None:
        return reason, {}
    gave = limits.released(before, None, () if want is None else want.spec.ports)
    return "; ".join(word for word in (reason, limits.told(gave)) if word), {"released": asdict(gave)}
