"""The progress of several files at once, told as that of one model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from corral.domain.ports import Progress

if TYPE_CHECKING:
    from corral.domain.ports import Report


class Tally:
    """Sums up what is told of each file; what is passed on never goes backwards.

    A total is known when that of every file is. A file that is in the store already counts as done.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._done: dict[str, int] = {}
        self._total: dict[str, int | None] = {}
        self._checked: dict[str, int] = {}
        self._furthest = 0

    def expect(self, name: str, size: int | None) -> None:
        """Say before it comes how large a file will be; None is not known."""
        if self._total.get(name) is None:
            self._total[name] = size
        self._done.setdefault(name, 0)

    def of(self, name: str) -> Report:
        """A report for what is done for that file alone."""

        def report(progress: Progress) -> None:
            if progress.phase != "download":
                self._report(progress)
                return
            self._done[name] = progress.done
            if progress.total is not None:
                self._total[name] = progress.total
            self._tell(progress.detail or name)

        return report

    def check(self, name: str, size: int) -> None:
        """The file is here and is being looked into."""
        self.held(name, size)
        self._checked[name] = size
        self.look(name)

    def look(self, name: str) -> None:
        """The file was here before, and is being read again."""
        done = sum(self._checked.values())
        total = self._whole()
        self._report(Progress("check", done, None if total is None else max(total, done), name))

    def finish(self, name: str, size: int) -> None:
        """The file is in the store."""
        self.held(name, size)
        self._checked[name] = size

    def held(self, name: str, size: int) -> None:
        """None of the file need come: it seems to be here already."""
        total = self._total.get(name)
        self._total[name] = self._done[name] = size if total is None else total

    def _whole(self) -> int | None:
        known = [total for total in self._total.values() if total is not None]
        return sum(known) if len(known) == len(self._total) else None

    def _tell(self, detail: str) -> None:
        self._furthest = max(self._furthest, sum(self._done.values()))
        total = self._whole()
        progress = Progress("download", self._furthest, total, detail)
        self._report(progress if total is None or total >= self._furthest else replace(progress, total=self._furthest))
