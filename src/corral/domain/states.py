"""The states of a model in memory."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Where a model stands; `lifecycle.supervisor` draws the ways between them.

    `queued` is asked for and waits for room; `sleeping` is there with its memory given back; `failed` is cold with a
    reason.
    """

    COLD = "cold"
    QUEUED = "queued"
    LOADING = "loading"
    READY = "ready"
    SLEEPING = "sleeping"
    STOPPING = "stopping"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Transition:
    """A model changed state. `at` is Unix seconds; `reason` says why, for a person."""

    model: str
    state: State
    at: float
    reason: str
