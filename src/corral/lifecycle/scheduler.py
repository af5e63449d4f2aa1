"""What to do about engines, decided from values alone: (request, engines, time) → effects with reasons.

Nothing here waits, starts or stops anything: `supervisor` carries the effects out, and is the only one to.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from corral.domain.states import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class EngineView:
    """What a decision may know of an engine.

    Times in seconds of one clock; `in_flight` counts requests being answered.
    """

    model: str
    state: State
    in_flight: int = 0
    last_used: float = 0.0
    idle_timeout: float = inf


@dataclass(frozen=True, slots=True)
class Use:
    """Answer with the engine that is there."""

    reason: str


@dataclass(frozen=True, slots=True)
class Join:
    """Wait for the load that is under way."""

    reason: str


@dataclass(frozen=True, slots=True)
class AwaitStop:
    """Wait until the engine that is stopping is gone, then decide again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Load:
    """Start an engine."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unload:
    """Stop an engine."""

    model: str
    reason: str


_BUSY_CHECK = 1.0
"""Seconds after which a busy engine is looked at again at the earliest."""

Admission = Use | Join | AwaitStop | Load


def admit(model: str, engines: Mapping[str, EngineView]) -> Admission:
    """What a request for `model` must do before it can be answered. One load per model, however many ask."""
    engine = engines.get(model)
    if engine is None or engine.state in (State.COLD, State.FAILED):
        return Load(f"{model} is not in memory")
    if engine.state is State.READY:
        return Use(f"{model} is in memory")
    if engine.state is State.LOADING:
        return Join(f"{model} is being loaded")
    return AwaitStop(f"{model} is leaving memory")


def idle(engines: Iterable[EngineView], now: float) -> list[Unload]:
    """The engines that nobody has used for their time-out, longest unused first. A busy engine is never idle."""
    due = [e for e in engines if e.state is State.READY and not e.in_flight and now - e.last_used >= e.idle_timeout]
    due.sort(key=lambda e: e.last_used)
    return [
        Unload(e.model, f"unused for {now - e.last_used:.0f} s, its idle time-out is {e.idle_timeout:.0f} s")
        for e in due
    ]


def next_check(engines: Iterable[EngineView], now: float) -> float:
    """Seconds until `idle` can next name an engine that is ready now; infinity when none ever will.

    A busy engine may become free at any time from now on, so it counts as used now; it is looked at again after a
    second at the earliest, however short its time-out.
    """
    ready = [e for e in engines if e.state is State.READY]
    waits = (max(e.idle_timeout, _BUSY_CHECK) if e.in_flight else e.last_used + e.idle_timeout - now for e in ready)
    return max(0.0, min(waits, default=inf))
