"""What is remembered of a container, what is new of it, and what comes of both: values of `standing`. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from corral.domain.containers import Event
from corral.domain.standings import ContainerState, Health

if TYPE_CHECKING:
    from corral.domain.containers import Watch

_SIGNALS = {
    1: "SIGHUP: its terminal went away",
    2: "SIGINT: it was interrupted",
    4: "SIGILL: its program has instructions that this processor does not know",
    6: "SIGABRT: it gave up by itself",
    7: "SIGBUS: it lost a file or memory that it had mapped",
    8: "SIGFPE: it divided by zero",
    9: "SIGKILL: it was killed",
    11: "SIGSEGV: it touched memory that is not its own",
    15: "SIGTERM: it was asked to stop",
}
_CODES = {
    125: "the Docker engine could not run it",
    126: "its program cannot be executed",
    127: "its program was not found",
}


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
class Act:
    """Something that Corral did to a container, from when until when; it still does where `done_at` is None."""

    do: Do
    began_at: float
    done_at: float | None = None


@dataclass(frozen=True, slots=True)
class Past:
    """What is remembered of one container. Times in Unix seconds.

    Attributes:
        state, reason, since: as `stand` last gave them; None: it has never been seen.
        id: the engine's id that the rest is about.
        wish: whether it shall run, as somebody last said; None: nobody did, and its configuration holds.
        wished_at: when that was said; `wish_before` is what was wished before, `by_hand` that it was not by Corral.
        running: whether it ran when it was last seen.
        fresh: it was started, and has not been seen since.
        started_at, finished_at: of the run that was last seen.
        exit_code: of its last end.
        oom: the kernel ended something in it for the memory it took.
        killed: somebody killed it, which is neither a wish nor its fault.
        stopping_at: when somebody asked it politely to end.
        pauses: ends since it last settled: the pause before the next start doubles with each.
        crashes: those of them that are its own fault.
        looped: they are too many; it is not started again.
        restarts: starts by Corral since it last settled.
        due: when it is started anew; None: no start is due. `paused_for` is how long that was put off, in seconds.
        healthy_since: when it became healthy in this run, and has been since.
        failures: health checks in a row that failed.
        checked_at: the last health check.
        doubts: looks in a row that found it on the CPU.
        remade: how often it was made anew for that.
        acts: what Corral did to it last, at most four.
        cause: why it ended, or is not well, in words.
    """

    state: ContainerState | None = None
    reason: str = ""
    since: float | None = None
    id: str | None = None
    wish: bool | None = None
    wished_at: float | None = None
    wish_before: bool | None = None
    by_hand: bool = False
    running: bool = False
    fresh: bool = False
    started_at: float | None = None
    finished_at: float | None = None
    exit_code: int | None = None
    oom: bool = False
    killed: bool = False
    stopping_at: float | None = None
    pauses: int = 0
    crashes: int = 0
    looped: bool = False
    restarts: int = 0
    due: float | None = None
    paused_for: float = 0.0
    healthy_since: float | None = None
    failures: int = 0
    checked_at: float | None = None
    doubts: int = 0
    remade: int = 0
    acts: tuple[Act, ...] = ()
    cause: str = ""

    @property
    def acting(self) -> bool:
        """Whether Corral does something to it at this moment."""
        return bool(self.acts) and self.acts[-1].done_at is None


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


def pause(watch: Watch, ends: int) -> float:
    """Seconds before the start after so many ends in a row, of at least one."""
    return min(watch.first * 2.0 ** min(max(ends, 1) - 1, 60), watch.longest)


def ended(code: int | None) -> str:
    """How a process ended, in words."""
    if code is None:
        return "it ended"
    if code in _CODES:
        return f"{_CODES[code]} (exit code {code})"
    if code > 128:
        return f"{_SIGNALS.get(code - 128, f'signal {code - 128}')} (exit code {code})"
    return "it ended by itself (exit code 0)" if code == 0 else f"it failed (exit code {code})"
