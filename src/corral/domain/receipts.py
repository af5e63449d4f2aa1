"""What was done for one answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from corral.domain.money import Usage


@dataclass(frozen=True, slots=True)
class Fallback:
    """A model that was asked before the one that answered, and the error for which it could not be had."""

    model: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call of one engine, or the reason why there was none.

    `error` is the code of why it gave no answer; None for the one that did. `cost` in nanodollars, `seconds` from the
    call to its end. `billed`: the engine did work that counts.
    """

    model: str
    runtime: str = ""
    engine: str | None = None
    error: str | None = None
    message: str = ""
    status: int | None = None
    usage: Usage | None = None
    cost: int = 0
    seconds: float = 0.0
    billed: bool = False


@dataclass(frozen=True, slots=True)
class Receipt:
    """The facts of one answer. Unknown is None, never a guess. Times in milliseconds, `context` in tokens.

    `model` is the one that answered and `asked` the name the client used; `fallbacks` are those asked before it, in
    that order. `cost` in nanodollars, of all attempts; `price` says by which price. `dialect` is the client's, and
    `spoken` the engine's. `ignored` are parameters that had no effect, `degraded` what else was less than asked for.
    `tries` are all calls of engines, the last the one that answered; `route` says of each candidate that was not asked
    why not.
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
    asked: str | None = None
    device: str | None = None
    dialect: str | None = None
    spoken: str | None = None
    status: int | None = None
    error: str | None = None
    usage: Usage | None = None
    cost: int | None = None
    price: str | None = None
    degraded: tuple[str, ...] = ()
    tries: tuple[Attempt, ...] = ()
    route: tuple[Fallback, ...] = ()
    first_ms: float | None = None
    total_ms: float | None = None
    at: float | None = None
    key: str | None = None
    project: str | None = None
    extra: dict[str, object] = field(default_factory=dict)
