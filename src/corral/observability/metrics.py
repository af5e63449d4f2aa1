"""Numbers of what goes on, for Prometheus: plain counters on an answer's path, text only when somebody looks.

What a client makes up never becomes a label: models are those that this server knows, and at most `MOST_SERIES`.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from corral.observability.sums import tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from corral.domain.money import Usage
    from corral.observability.record import Record

MOST_SERIES = 1000
"""Different (model, runtime, dialect) that are told apart; further ones are counted together."""
MOST_CODES = 100
"""Different codes of errors that are told apart, of one model."""
OTHER = "other"
_TOGETHER = 64
"""Answers that are counted together. One by one, each would find the processor's caches full of other things."""

LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Bounds in seconds."""
PER_TOKEN = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
OWN = (0.00005, 0.0001, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 1.0)

Sample = tuple[tuple[str, ...], float]
"""Values of labels, and a number."""


class Histogram:
    """How often something took how long. `counts` has one more than `bounds`, for what is beyond the last."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


class Series:
    """What is counted of one model on one runtime, asked in one dialect. `cost` in nanodollars."""

    __slots__ = (
        "cache_write",
        "cached",
        "cost",
        "errors",
        "fallbacks",
        "first",
        "gone",
        "input",
        "latency",
        "ok",
        "output",
        "per_token",
        "reasoning",
        "retries",
        "unpriced",
        "wait",
    )

    def __init__(self) -> None:
        self.ok = self.gone = self.retries = self.fallbacks = self.unpriced = 0
        self.input = self.output = self.cached = self.cache_write = self.reasoning = self.cost = 0
        self.errors: dict[str, int] = {}
        self.latency, self.first = Histogram(LATENCY), Histogram(LATENCY)
        self.per_token, self.wait = Histogram(PER_TOKEN), Histogram(LATENCY)


class Metrics:
    """What is counted of all answers. `record` and what follows it are for the path: no lock, no I/O.

    The callables are asked when somebody looks, and stay what the composition root sets them to:

    - `breakers`: (model,) → 0 closed, 1 half open, 2 open;
    - `budgets`: (name, unit) → what is left, in US dollars, tokens or requests;
    - `engines`: (model, state) → 1;
    - `memory`: (device, what) → bytes, where `what` is `held` or `capacity`;
    - `decisions`: (what,) → how often the scheduler decided it;
    - `books`: (`waiting` or `unrecorded`,) → answers.
    """

    def __init__(self) -> None:
        self._series: dict[tuple[str, str, str], Series] = {}
        self._own = Histogram(OWN)
        self._ended: list[Record] = []
        self.in_flight = 0
        self.refused: dict[str, int] = {}
        self.breakers: Callable[[], Iterable[Sample]] = _none
        self.budgets: Callable[[], Iterable[Sample]] = _none
        self.engines: Callable[[], Iterable[Sample]] = _none
        self.memory: Callable[[], Iterable[Sample]] = _none
        self.decisions: Callable[[], Iterable[Sample]] = _none
        self.books: Callable[[], Iterable[Sample]] = _none
        self._registry: Any = None

    @property
    def series(self) -> dict[tuple[str, str, str], Series]:
        """What is counted, by model, runtime and dialect."""
        self._count_all()
        return self._series

    @property
    def own(self) -> Histogram:
        """Corral's own part of each answer."""
        self._count_all()
        return self._own

    def enter(self) -> None:
        """A request is being answered."""
        self.in_flight += 1

    def leave(self) -> None:
        """It no longer is."""
        self.in_flight -= 1

    def refuse(self, code: str) -> None:
        """A request was turned away before anything was known of it, with the error `code`."""
        _tally(self.refused, code)

    def record(self, record: Record) -> None:
        """Count an answer that has ended."""
        ended = self._ended
        ended.append(record)
        if len(ended) >= _TOGETHER:
            self._count_all()

    def render(self) -> bytes:
        """All of it, in Prometheus' text format."""
        from corral.observability.exposition import render

        return render(self)

    def _count_all(self) -> None:
        """Count those that have ended since the last time."""
        ended, self._ended = self._ended, []
        for record in ended:
            self._count(record)

    def _count(self, record: Record) -> None:
        series = self._series.get((record.model, record.runtime, record.dialect))
        if series is None:
            series = self._new(record)
        length = record.ended - record.started
        if record.error is not None:
            _tally(series.errors, record.error)
        elif record.gone:
            series.gone += 1
        else:
            series.ok += 1
        series.latency.add(length)
        used = record.usage
        if used is not None:
            _count(series, used)
            if record.cost is None:
                series.unpriced += 1
            else:
                series.cost += record.cost
        if record.first:
            series.first.add(record.first - record.started)
            if record.stream and used is not None and used.output > 1:
                series.per_token.add((record.ended - record.first) / (used.output - 1))
        if record.wait_ms:
            series.wait.add(record.wait_ms / 1000)
        if record.attempts:
            self._retried(series, record)
        self._own.add(record.own)

    def _new(self, record: Record) -> Series:
        place = (record.model, record.runtime, record.dialect)
        if len(self._series) >= MOST_SERIES:
            place = (OTHER, OTHER, OTHER)
        return self._series.setdefault(place, Series())

    def _retried(self, series: Series, record: Record) -> None:
        """Count the calls that failed, and what they cost, for the models that were called."""
        for each in record.attempts:
            if each.model == record.model:
                series.retries += 1
            if each.billed:
                failed = self._series.get((each.model, each.runtime, record.dialect), series)
                failed.cost += each.cost
                if each.usage is not None:
                    _count(failed, each.usage)
        if any(each.model != record.model for each in record.attempts):
            series.fallbacks += 1


def _count(series: Series, used: Usage) -> None:
    given, written, cached, stored, thought = tokens(used)
    series.input += given
    series.output += written
    if cached or stored or thought:
        series.cached += cached
        series.cache_write += stored
        series.reasoning += thought


def _tally(counts: dict[str, int], code: str) -> None:
    if code not in counts and len(counts) >= MOST_CODES:
        code = OTHER
    counts[code] = counts.get(code, 0) + 1


def _none() -> Iterable[Sample]:
    return ()


def summed(counts: Mapping[str, int]) -> Iterable[Sample]:
    """Counts by name as samples with one label."""
    return (((name,), float(count)) for name, count in counts.items())
