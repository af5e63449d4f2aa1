"""What was done for one answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fallback:
    """A model that was asked before the one that answered, and the error for which it could not be had."""

    model: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """The facts of one answer. Unknown is None, never a guess. Times in milliseconds, `context` in tokens.

    `model` is the one that answered; `fallbacks` are those asked before it, in that order.
    """

    request_id: str
    model: str
    runtime: str
    revision: str | None = None
    engine: str | None = None
    context: int | None = None
    wait_ms: float = 0.0
    attempts: int = 1
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    ignored: tuple[str, ...] = ()
    fallbacks: tuple[Fallback, ...] = ()
