"""Operations: long work that survives a restart, as everybody sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class OperationStatus(StrEnum):
    """Where an operation stands.

    pending ⇄ in_progress → completed | failed | cancelled, and pending or in_progress ⇄ paused.
    """

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self in {self.COMPLETED, self.FAILED, self.CANCELLED}


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as it is kept: the four values from which every surface renders."""

    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for: enough to do the work again from the start in another process.

    `kind` names who does it (`install`, `update`, …), `model` whom it is about, `params` are JSON values. Operations of
    one `lane` run one after the other; of one `host` as many at once as the limits allow. Empty means no such limit.
    """

    kind: str
    model: str
    params: Mapping[str, Any] = field(default_factory=dict)
    lane: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as it stands. Times in Unix seconds, `done`, `total` in bytes, `rate` in bytes a second.

    `progress` is 0 to 100 and never goes backwards, also over a restart; `eta` is the seconds left, None when unknown.
    `attempts` counts the starts. `parts` are the keys of unfinished files that it would go on from.
    """

    id: str
    order: Order
    status: OperationStatus
    created_at: float
    progress: float = 0.0
    phase: str = ""
    done: int = 0
    total: int | None = None
    rate: float | None = None
    eta: float | None = None
    message: str = ""
    error: Failure | None = None
    result: Mapping[str, Any] | None = None
    attempts: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    parts: frozenset[str] = frozenset()
