"""How far long work is, as each reader wants it: bars, a few lines, JSON lines, or nothing.

What is shown is the operation itself, whether it is done in this process or by a server: the same bytes, rate and time
left that a browser sees. Nothing that is shown goes backwards within a phase.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from corral.cli.output import Mode, Output, line, size_text, time_text
from corral.domain.operations import OperationStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rich.console import RenderableType
    from rich.progress import Progress as Bars

    from corral.domain.operations import Operation

_BRIEF = ("wait", "start")
_EVERY = 5.0
"""Seconds between two lines of one piece of work, where lines are written."""
_WINDOW = 5.0
"""Seconds over which a rate is measured where the operation does not tell it."""
_NARROW = 70
_LEAST = 20


@dataclass(frozen=True, slots=True)
class Step:
    """Where work stands. `done`, `total` in bytes, `rate` in bytes a second, `eta` in seconds, `percent` of all."""

    phase: str
    done: int = 0
    total: int | None = None
    rate: float | None = None
    eta: float | None = None
    percent: float = 0.0
    detail: str = ""

    @classmethod
    def of(cls, operation: Operation) -> Step:
        """Where an operation stands."""
        phase = operation.phase or "start"
        if operation.status in (OperationStatus.PENDING, OperationStatus.PAUSED):
            phase = "wait" if operation.status is OperationStatus.PENDING else "paused"
        return cls(
            phase, operation.done, operation.total, operation.rate, operation.eta, operation.progress, operation.message
        )


class Show(Protocol):
    """Shows the steps of one piece of work."""

    def __call__(self, step: Step) -> None:
        """Show this one, when it is news."""


class Watch:
    """Keeps the last step seen, and passes on what does not go backwards.

    `held` is how many bytes have arrived; `moved` says whether anything was fetched.
    """

    def __init__(self, show: Show) -> None:
        self._show = show
        self._phase = ""
        self._done = 0
        self.held = 0
        self.moved = False

    def __call__(self, step: Step) -> None:
        """Take note and pass on."""
        self._done = step.done if step.phase != self._phase else max(self._done, step.done)
        self._phase = step.phase
        if step.phase == "download":
            self.held = self._done
            self.moved = True
        self._show(replace(step, done=self._done))

    def operation(self, operation: Operation) -> None:
        """Show where the operation stands, while it has not ended."""
        if not operation.status.ended:
            self(Step.of(operation))


class Board:
    """Where several pieces of work are shown at once."""

    def __init__(self, show: Callable[[str], Show]) -> None:
        self._show = show

    def watch(self, name: str) -> Watch:
        """A place for the work called `name`."""
        return Watch(self._show(name))


@contextmanager
def shown(output: Output, clock: Callable[[], float] = time.monotonic, *, events: bool = True) -> Iterator[Board]:
    """A board for the block's length, as `output` wants it; without `events`, JSON is left to the outcome."""
    if output.mode is Mode.JSON and events:
        yield Board(lambda name: JsonLines(output, name))
    elif not output.human:
        yield Board(lambda _: _nothing)
    elif output.live:
        with _bars(output) as bars:
            yield Board(lambda name: Bar(bars, name, clock))
    else:
        yield Board(lambda name: Lines(output, name, clock))


def _nothing(step: Step) -> None:
    """Show nothing of the step."""
    del step


class JsonLines:
    """A JSON object whenever the phase or the whole percent changes; each megabyte where the total is unknown."""

    def __init__(self, output: Output, name: str) -> None:
        self._output = output
        self._name = name
        self._last: tuple[str, int] | None = None

    def __call__(self, step: Step) -> None:
        """Write, when it is news."""
        at = step.done * 100 // step.total if step.total else step.done // 1_000_000
        if (step.phase, at) == self._last:
            return
        self._last = (step.phase, at)
        self._output.emit(
            {
                "event": "progress",
                "name": self._name,
                "phase": step.phase,
                "done": step.done,
                "total": step.total,
                "rate": step.rate,
                "eta": step.eta,
                "detail": step.detail,
            }
        )


class Lines:
    """A line at the beginning of each phase, and then every few seconds while something moves."""

    def __init__(self, output: Output, name: str, clock: Callable[[], float]) -> None:
        self._output = output
        self._name = name
        self._clock = clock
        self._meter = Meter(clock)
        self._last: Step | None = None
        self._next = 0.0

    def __call__(self, step: Step) -> None:
        """Write, when it is time."""
        if step.phase in _BRIEF:
            return
        step = self._meter.read(step)
        begins = self._last is None or self._last.phase != step.phase
        moved = self._last is not None and self._last.done != step.done
        if not begins and (not moved or self._clock() < self._next):
            return
        self._last, self._next = step, self._clock() + _EVERY
        pieces = [amount_text(step.done, step.total)] if step.done or step.total else []
        pieces += [f"{size_text(step.rate)}/s"] if step.rate and not begins else []
        pieces += [f"{time_text(step.eta)} left"] if step.eta and not begins else []
        self._output.note(f"{self._name}: {step.phase}{': ' if pieces else ''}{', '.join(pieces)}")


class Bar:
    """A bar that moves: bytes, rate and the time that is left."""

    def __init__(self, bars: Bars, name: str, clock: Callable[[], float]) -> None:
        self._bars = bars
        self._meter = Meter(clock)
        self._task = bars.add_task(line(name), total=None, phase="", amount="", rate="", eta="")

    def __call__(self, step: Step) -> None:
        """Move it."""
        step = self._meter.read(step)
        self._bars.update(
            self._task,
            completed=step.done,
            total=step.total or None,
            phase=line(step.phase),
            amount=amount_text(step.done, step.total) if step.done or step.total else "",
            rate=f"{size_text(step.rate)}/s" if step.rate else "",
            eta=time_text(step.eta) if step.eta else "",
        )


class Meter:
    """Measures rate and time left over the last seconds, for steps that do not tell them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._phase = ""
        self._seen: deque[tuple[float, int]] = deque()

    def read(self, step: Step) -> Step:
        """`step` with a rate and a time left, where they can be known."""
        if step.rate is not None:
            return step
        if step.phase != self._phase:
            self._phase = step.phase
            self._seen.clear()
        now = self._clock()
        self._seen.append((now, step.done))
        while self._seen[0][0] < now - _WINDOW:
            self._seen.popleft()
        since, before = self._seen[0]
        if now <= since or step.done <= before:
            return step
        rate = (step.done - before) / (now - since)
        return replace(step, rate=rate, eta=None if step.total is None else max(step.total - step.done, 0) / rate)


def amount_text(done: int, total: int | None) -> str:
    """How much of how much, the unit once where it is the same: `12.3/98.4 MB`."""
    if not total:
        return size_text(done)
    left, right = size_text(done), size_text(total)
    number, _, unit = left.partition(" ")
    return f"{number}/{right}" if right.endswith(f" {unit}") else f"{left}/{right}"


def _bars(output: Output) -> Bars:
    from rich.progress import BarColumn, ProgressColumn, TextColumn
    from rich.progress import Progress as Bars
    from rich.table import Column

    console = output.console(output.stderr)

    def text(field: str, *, shrinks: bool = False) -> TextColumn:
        column = Column(no_wrap=True, overflow="ellipsis", ratio=1 if shrinks else None)
        return TextColumn(f"{{task.{field}}}", markup=False, table_column=column)

    def columns(*, wide: bool) -> tuple[ProgressColumn, ...]:
        first = (text("description", shrinks=not wide), text("fields[phase]"))
        if not wide:
            return *first, text("fields[amount]")
        bar = BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=8))
        return *first, bar, text("fields[amount]"), text("fields[rate]"), text("fields[eta]")

    class Following(Bars):
        """Bars as wide as the terminal is at each frame: it may be resized meanwhile."""

        def get_renderables(self) -> Iterable[RenderableType]:
            # Room for the ^C of a terminal, which would push the bars out of their lines.
            console.width = max((output.width(output.stderr) or 0) - 3, _LEAST)
            self.columns = columns(wide=console.width >= _NARROW)
            yield from super().get_renderables()

    return Following(console=console, transient=True, expand=True)
