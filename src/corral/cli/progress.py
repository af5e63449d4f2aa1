"""The progress of an install, as each reader wants it: a bar, a few lines, JSON lines, or nothing."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from corral.cli.output import Mode, Output, line, size_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from corral.domain.ports import Progress, Report


class Watch:
    """Keeps the last progress seen. `held` is how many bytes have arrived.

    `moved` says whether anything was fetched, `built` whether there was anything at all to do.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self.held = 0
        self.moved = False
        self.built = False

    def __call__(self, progress: Progress) -> None:
        """Take note and pass on."""
        self.built = self.built or progress.phase in ("download", "unpack", "copy", "check")
        if progress.phase == "download":
            self.held = progress.done
            self.moved = True
        self._report(progress)


@contextmanager
def shown(output: Output, name: str) -> Iterator[Watch]:
    """A report for the block that shows how far the install of `name` is, as `output` wants it."""
    if output.mode is Mode.JSON:
        yield Watch(JsonLines(output, name))
    elif output.mode is Mode.QUIET:
        yield Watch(lambda _: None)
    elif output.live:
        with _bars(output) as bars:
            yield Watch(Bar(bars, name))
    else:
        yield Watch(Lines(output, name))


class JsonLines:
    """A JSON object whenever the phase or the whole percent changes; each megabyte where the total is unknown."""

    def __init__(self, output: Output, name: str) -> None:
        self._output = output
        self._name = name
        self._last: tuple[str, int] | None = None

    def __call__(self, progress: Progress) -> None:
        """Write, when it is news."""
        step = progress.done * 100 // progress.total if progress.total else progress.done // 1_000_000
        if (progress.phase, step) == self._last:
            return
        self._last = (progress.phase, step)
        self._output.emit(
            {
                "event": "progress",
                "name": self._name,
                "phase": progress.phase,
                "done": progress.done,
                "total": progress.total,
                "detail": progress.detail,
            }
        )


class Lines:
    """A line at the beginning of each phase, and for each quarter of a download."""

    def __init__(self, output: Output, name: str) -> None:
        self._output = output
        self._name = name
        self._last: tuple[str, int] | None = None

    def __call__(self, progress: Progress) -> None:
        """Write, when it is news."""
        quarter = progress.done * 4 // progress.total if progress.total else 0
        if (progress.phase, quarter) == self._last:
            return
        self._last = (progress.phase, quarter)
        total = f" of {size_text(progress.total)}" if progress.total else ""
        amount = f": {size_text(progress.done)}{total}" if progress.done or total else ""
        self._output.note(f"{self._name}: {progress.phase}{amount}")


class Bar:
    """A bar that moves: bytes, rate and the time that is left."""

    def __init__(self, bars: Bars, name: str) -> None:
        self._bars = bars
        self._name = line(name)
        self._task: TaskID | None = None
        self._phase = ""

    def __call__(self, progress: Progress) -> None:
        """Move it; each phase has a bar of its own, in place of the last one."""
        if progress.phase != self._phase:
            if self._task is not None:
                self._bars.remove_task(self._task)
            self._phase = progress.phase
            self._task = self._bars.add_task(f"{self._name} {line(progress.phase)}", total=None)
        if self._task is not None:
            self._bars.update(self._task, completed=progress.done, total=progress.total)


def _bars(output: Output) -> Bars:
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    console = output.console(output.stderr)
    console.width = max(
        console.width - 3, 20
    )  # room for the ^C of a terminal, which would push the bar out of its line
    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        expand=True,
    )
