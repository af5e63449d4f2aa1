"""A container that makes room for its successor: what it is called meanwhile, and who may be removed for it.

Names on the engine are everybody's. What has one of ours, and is not ours, is never touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from corral.errors import Conflict, ContainerNotFound
from corral.fleet.observing import ASIDE

if TYPE_CHECKING:
    from corral.domain.containers import ContainerEngine, Seen


async def before(engine: ContainerEngine, old: Seen) -> Seen | None:
    """The predecessor that already stands aside for `old`; None: its place is free.

    Raises:
        Conflict: a container of somebody else's has that place.
    """
    name = f"{old.container}{ASIDE}"
    try:
        there = await engine.inspect(name)
    except ContainerNotFound:
        return None
    if not _same(there, old):
        raise Conflict(
            f"{old.container} cannot be made anew: it would step aside as {name}, and there is a container of that "
            f"name, of the image {there.image}, that is not its own.",
            f"Give that another name: docker rename {name} OTHER",
        )
    return there


async def remove_successor(engine: ContainerEngine, name: str, old: Seen) -> None:
    """Remove what there is of the successor of `old`, under `name`; what others have by that name stays."""
    try:
        there = await engine.inspect(name)
    except ContainerNotFound:
        return
    if there.id != old.id and _same(there, old):
        await engine.remove(there.id, force=True)


def _same(one: Seen, other: Seen) -> bool:
    """Whether both are the same Corral's, for the same entry of its configuration."""
    return one.yard is not None and (one.yard, one.name) == (other.yard, other.name)
