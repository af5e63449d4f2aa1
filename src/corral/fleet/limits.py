"""Limits worked out from what a container's models take. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from corral.domain.containers import Wanted


@dataclass(frozen=True, slots=True)
class Need:
    """What one model takes. Bytes; `host` in the machine's memory, `devices` on GPUs, `files` on the disk."""

    host: int
    devices: int = 0
    files: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a container may take. Bytes and processors; None is no limit. `reason` says what they come from."""

    memory: int | None = None
    cpus: float | None = None
    shm: int | None = None
    reason: str = ""


def limits(needs: Sequence[Need | None], machine: int | None, had: int | None = None) -> Limits:
    """The limits of a container with these models; a need of None is unknown, and then there is no limit.

    Args:
        machine: the machine's memory, of which no limit takes the last part.
        had: the limit it has now; it stays while it is enough and not far too much, so that it is not made anew for
            little.
    """
    raise NotImplementedError


def limited(wanted: Wanted, worked_out: Limits) -> Wanted:
    """The container with those limits that its configuration does not give."""
    raise NotImplementedError
