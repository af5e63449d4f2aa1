"""What a container takes, read from the engine's statistics, with both versions of control groups. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from corral.containers.specs import moment
from corral.domain.containers import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping


APART = 0.25
"""Seconds between two samples: some periods of the scheduler, which are a tenth of a second."""

_KEPT = 15.0
"""Seconds for which a sample says what was taken before another one."""


class Samples:
    """The last sample of each container, for what can be told only from two. Bounded by time."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, Mapping[str, Any]]] = {}

    def before(self, said: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The sample before this one; None where there is none of late, or the container was started again since."""
        at, now = moment(said.get("read")) or 0.0, _total(said.get("cpu_stats"))
        then, before = self._last.get(str(said.get("id", "")), (0.0, {}))
        was = _total(before.get("cpu_stats"))
        usable = was is not None and now is not None and now >= was and APART / 2 <= at - then <= _KEPT
        return before if usable else None

    def keep(self, said: Mapping[str, Any]) -> None:
        """Remember it for the next one."""
        at = moment(said.get("read")) or 0.0
        self._last = {key: kept for key, kept in self._last.items() if abs(at - kept[0]) <= _KEPT}
        self._last[str(said.get("id", ""))] = (at, {name: said.get(name) for name in ("read", "cpu_stats")})


def usage(said: Mapping[str, Any], machine: int | None = None) -> Usage | None:
    """One sample; None when the container does not run.

    `machine` is the machine's memory in bytes: a limit that is no less is none. Memory is without the files that the
    kernel keeps in it and gives back when it is asked, as the engine's own command line counts. The processors need
    the sample before, which the engine sends along with all but the first of a stream.
    """
    at = moment(said.get("read"))
    memory = said.get("memory_stats") or {}
    if at is None or not (memory.get("usage") or (said.get("pids_stats") or {}).get("current")):
        return None
    limit = memory.get("limit")
    received, sent = _network(said.get("networks"))
    read, written = _disk((said.get("blkio_stats") or {}).get("io_service_bytes_recursive"))
    return Usage(
        at=at,
        cpu=_cpu(said, at),
        memory=_memory(memory),
        memory_limit=None if not limit or (machine is not None and limit >= machine) else limit,
        received=received,
        sent=sent,
        read=read,
        written=written,
        pids=(said.get("pids_stats") or {}).get("current"),
        throttled=_throttled(said),
    )


def _cpu(said: Mapping[str, Any], at: float) -> float | None:
    """Processor time over the time that went by."""
    before = moment(said.get("preread"))
    now, then = (_total(said.get(name)) for name in ("cpu_stats", "precpu_stats"))
    if before is None or now is None or then is None or at <= before:
        return None
    return round(max(0, now - then) / 1e9 / (at - before), 4)


def _total(stats: Mapping[str, Any] | None) -> int | None:
    found: int | None = ((stats or {}).get("cpu_usage") or {}).get("total_usage")
    return found


def _memory(memory: Mapping[str, Any]) -> int | None:
    taken: int | None = memory.get("usage")
    if taken is None:
        return None
    stats = memory.get("stats") or {}
    # The first version of control groups sums up over groups below under `total_`; the second has one number.
    cache = stats.get("total_inactive_file", stats.get("inactive_file", 0))
    return int(taken - cache) if cache < taken else int(taken)


def _network(networks: Mapping[str, Mapping[str, int]] | None) -> tuple[int | None, int | None]:
    """Bytes received and sent; a container on the machine's own network has no meter."""
    if not networks:
        return None, None
    return (
        sum(each.get("rx_bytes", 0) for each in networks.values()),
        sum(each.get("tx_bytes", 0) for each in networks.values()),
    )


def _disk(entries: list[Mapping[str, Any]] | None) -> tuple[int | None, int | None]:
    if entries is None:
        return None, None
    sums = {"read": 0, "write": 0}
    for entry in entries:
        operation = str(entry.get("op", "")).lower()
        if operation in sums:
            sums[operation] += int(entry.get("value", 0))
    return sums["read"], sums["write"]


def _throttled(said: Mapping[str, Any]) -> float | None:
    """The part of the scheduling periods since the sample before, or since its start, in which it was held back."""
    now = (said.get("cpu_stats") or {}).get("throttling_data")
    if now is None:
        return None
    then = (said.get("precpu_stats") or {}).get("throttling_data") or {}
    periods = now.get("periods", 0) - then.get("periods", 0)
    held = now.get("throttled_periods", 0) - then.get("throttled_periods", 0)
    return round(min(1.0, max(0, held) / periods), 4) if periods > 0 else 0.0
