"""Which waiting operations may start now. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Limits:
    """How much at once: of all operations, and of those that fetch from one host.

    `attempts` is how often one is tried, `keep` for how many seconds it is remembered when it has ended. `apart` names
    hosts whose operations count for themselves, and how many of each there may be at once beside all others.
    """

    parallel: int = 3
    per_host: int = 2
    attempts: int = 3
    keep: float = 30 * 86400.0
    apart: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """An operation in the queue, as far as the queue cares."""

    id: str
    lane: str = ""
    host: str = ""


def startable(waiting: Iterable[Place], running: Iterable[Place], limits: Limits) -> list[str]:
    """The identifiers of those `waiting` (first come first) that may start beside those `running`, in that order.

    Of a lane one runs at a time, and none overtakes another of its lane; one that must wait for its host holds up
    nobody else. An empty lane or host is no limit.
    """
    at_work = list(running)
    free = limits.parallel - sum(place.host not in limits.apart for place in at_work)
    lanes = {place.lane for place in at_work}
    hosts = Counter(place.host for place in at_work)
    chosen = []
    for place in waiting:
        apart = limits.apart.get(place.host)
        if apart is None and free <= 0:
            continue
        turn = not place.lane or place.lane not in lanes
        lanes.add(place.lane)
        most = limits.per_host if apart is None else apart
        if turn and (not place.host or hosts[place.host] < most):
            hosts[place.host] += 1
            free -= apart is None
            chosen.append(place.id)
    return chosen
