"""What was seen, asked and remembered → where a container stands, and what is to be done now. Pure.

`stand` is called with whatever is new: an event, the answer of a health check, a list, or nothing but that time has
passed. It gives the state, and those effects that are due; `wake` is when to ask again though nothing has happened.
Effects are by level: until one is carried out, each call gives it again.

Whoever carries one out says so before and after (`began`, `done`, `failed`), so that what Corral did itself is told
from what somebody did by hand, and a container that it stops is none that crashed.

A stop by hand is a wish; but an engine that goes down stops its containers the same way, and may still say so. So:
pass the event of a stop with what an inspection showed *after* it (an engine that is going answers none), and call
`gone` when the engine does not answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from corral.domain.containers import ContainerState, Event, Health

if TYPE_CHECKING:
    from corral.domain.containers import Seen, Wanted, Watch


class Do(StrEnum):
    """What is to be done to a container, now."""

    CREATE = "create"
    START = "start"
    STOP = "stop"
    RESTART = "restart"
    RECREATE = "recreate"


@dataclass(frozen=True, slots=True)
class Effect:
    """Something to do, and why."""

    do: Do
    reason: str


@dataclass(frozen=True, slots=True)
class Past:
    """What is remembered of one container. Times in Unix seconds.

    Attributes:
        state, reason, since: as `stand` last gave them; None: it has never been seen.
        id: the engine's id that the rest is about.
        wish: whether it shall run, as somebody last said; None: nobody did, and its configuration holds.
        running: whether it ran when it was last seen.
        started_at, finished_at: of the run that was last seen.
        exit_code: of its last end.
        oom: the kernel ended it for the memory it took.
        killed: somebody killed it, which is neither a wish nor its fault.
        stopping_at: when somebody asked it politely to end.
        wished_at: when an event was taken for a wish; `wish_before` is what was wished before that.
        pauses: ends since it last settled: the pause before the next start doubles with each.
        crashes: those of them that are its own fault.
        restarts: starts by Corral since it last settled.
        due: when it is started anew; None: no start is due.
        healthy_since: when it became healthy in this run, and has been since.
        failures: health checks in a row that failed.
        checked_at: the last health check.
        doubts: looks in a row that found it on the CPU.
        remade: how often it was made anew for that.
        doing: what Corral does to it now, or did last, from `began_at` until `done_at`.
        cause: why it ended, or is not well, in words.
    """

    state: ContainerState | None = None
    reason: str = ""
    since: float | None = None
    id: str | None = None
    wish: bool | None = None
    running: bool = False
    started_at: float | None = None
    finished_at: float | None = None
    exit_code: int | None = None
    oom: bool = False
    killed: bool = False
    stopping_at: float | None = None
    wished_at: float | None = None
    wish_before: bool | None = None
    pauses: int = 0
    crashes: int = 0
    restarts: int = 0
    due: float | None = None
    healthy_since: float | None = None
    failures: int = 0
    checked_at: float | None = None
    doubts: int = 0
    remade: int = 0
    doing: Do | None = None
    began_at: float | None = None
    done_at: float | None = None
    cause: str = ""


@dataclass(frozen=True, slots=True)
class News:
    """What is new of a container. `gpu_memory`: bytes its processes have on GPUs, as the driver says; None: unknown."""

    event: Event | None = None
    health: Health | None = None
    gpu_memory: int | None = None


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a container stands, what to remember, and what to do now. `wake`: when to ask again without any news."""

    state: ContainerState
    reason: str
    past: Past
    effects: tuple[Effect, ...] = ()
    wake: float | None = None


def stand(wanted: Wanted | None, seen: Seen | None, past: Past, now: float, news: News = News()) -> Stand:
    """Where it stands.

    Args:
        wanted: as configured; None: it is configured no longer, and an orphan.
        seen: as the engine shows it now; None: there is none.
        now: Unix seconds, by the clock that the engine's events are stamped with.
    """
    raise NotImplementedError


def began(past: Past, do: Do, now: float) -> Past:
    """Corral begins to do that. Events until `done` are its own."""
    raise NotImplementedError


def done(past: Past, now: float, id: str | None = None) -> Past:  # noqa: A002 # the engine's own word
    """It is done; `id` of the container it made."""
    raise NotImplementedError


def failed(past: Past, watch: Watch, reason: str, now: float) -> Past:
    """It could not be done: another try is due after a pause, or it is a crash loop."""
    raise NotImplementedError


def wish(past: Past, up: bool) -> Past:
    """Somebody says through Corral whether it shall run. What is wanted up starts with a clean past."""
    raise NotImplementedError


def gone(past: Past, reason: str, now: float) -> Stand:
    """The engine does not answer. A wish that its own going down made is taken back."""
    raise NotImplementedError


def shall_run(wanted: Wanted | None, past: Past) -> bool:
    """Whether it shall run: as somebody last said, else as it is configured."""
    raise NotImplementedError


def held(past: Past, now: float) -> str:
    """Why it is not started now, in words; empty: nothing is in the way. For `plan.Remembered.hold`."""
    raise NotImplementedError


def pause(watch: Watch, ends: int) -> float:
    """Seconds before the start after so many ends in a row, of at least one."""
    raise NotImplementedError


def ended(code: int | None) -> str:
    """How a process ended, in words."""
    raise NotImplementedError
