"""Operations: long work that survives a restart, as everybody sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from corral.domain.models import told


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


def describe(operation: Operation) -> dict[str, Any]:
    """The operation as JSON has it: the same everywhere, whatever carries it. No address in it holds a secret."""
    failure = operation.error
    return {
        "operation_id": operation.id,
        "model_name": operation.order.model,
        "operation_type": operation.order.kind,
        "status": operation.status,
        "progress": round(operation.progress, 1),
        "message": operation.message or _words(operation),
        "error": None if failure is None else f"{failure.message} {failure.hint}".rstrip(),
        "failure": None
        if failure is None
        else {"code": failure.code, "message": failure.message, "hint": failure.hint},
        "phase": operation.phase,
        "done_bytes": operation.done,
        "total_bytes": operation.total,
        "rate": operation.rate,
        "eta_seconds": operation.eta,
        "attempts": operation.attempts,
        "created_at": operation.created_at,
        "started_at": operation.started_at,
        "ended_at": operation.ended_at,
        "params": {key: _bare(value) for key, value in operation.order.params.items()},
        "result": None if operation.result is None else dict(operation.result),
    }


def _bare(value: Any) -> Any:
    return told(value) if isinstance(value, str) else value


def _words(operation: Operation) -> str:
    """What there is to say of an operation that says nothing itself."""
    kind, model = operation.order.kind, operation.order.model
    return f"{kind} {model}: {operation.status}".replace("in_progress", "at work").replace(" :", ":")
