"""Which waiting operations may start now. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Limits:
    """How much at once: of all operations, and of those that fetch from one host.

    `attempts` is how often one is tried, `keep` for how many seconds it is remembered when it has ended.
    """

    parallel: int = 3
    per_host: int = 2
    attempts: int = 3
    keep: float = 30 * 86400.0


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
    free = limits.parallel - len(at_work)
    lanes = {place.lane for place in at_work}
    hosts = Counter(place.host for place in at_work)
    chosen = []
    for place in waiting:
        if free <= 0:
            break
        turn = not place.lane or place.lane not in lanes
        lanes.add(place.lane)
        if turn and (not place.host or hosts[place.host] < limits.per_host):
            hosts[place.host] += 1
            free -= 1
            chosen.append(place.id)
    return chosen
