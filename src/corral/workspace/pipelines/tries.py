"""Which try of a step comes next, and when none does: told by what became of those before. Pure.

After an error that may pass the same model is asked again, an answer that breaks its contract goes back to it, and when
that is used up, the next of `fallback` is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from corral.errors import (
    CircuitOpen,
    DatabaseError,
    EngineDied,
    EngineStartFailed,
    EngineTimeout,
    EngineUnstable,
    OutOfMemory,
    QueueFull,
    RateLimited,
    UpstreamError,
)

if TYPE_CHECKING:
    from corral.workspace.pipelines.journal import Answer

RETRIES = 1
"""Tries after an error that may pass, of a step that does not say how many."""

_PASSING = (
    CircuitOpen,
    DatabaseError,
    EngineDied,
    EngineStartFailed,
    EngineTimeout,
    EngineUnstable,
    QueueFull,
    RateLimited,
    UpstreamError,
)


def _codes(kinds: Sequence[type[Any]]) -> frozenset[str]:
    found = set()
    for kind in kinds:
        found.add(kind.code)
        found |= _codes(kind.__subclasses__())
    return frozenset(found)


PASSING = _codes(_PASSING) - {OutOfMemory.code}
"""Codes of errors after which the same may well succeed."""
_FINAL = frozenset({"unauthorized", "forbidden"})


@dataclass(frozen=True, slots=True)
class Turn:
    """A try: whom to ask, and what is said beside the step's own words: the answer to be repaired and why."""

    model: str
    more: tuple[Mapping[str, str], ...] = ()
    again: bool = False


@dataclass(slots=True)
class Tries:
    """The tries of one step.

    Args:
        models: whom to ask, the first first.
        retries: how often after an error that may pass, of each model.
        repairs: how often an answer goes back to its model.
    """

    models: tuple[str, ...]
    retries: int
    repairs: int
    _at: int = 0
    _failed: int = 0
    _repaired: int = 0
    _more: tuple[Mapping[str, str], ...] = field(default=())

    @property
    def turn(self) -> Turn:
        """The try that is made now."""
        return Turn(self.models[self._at], self._more, self._failed > 0)

    def after_error(self, answer: Answer) -> bool:
        """Whether there is another try after one that gave nothing."""
        if answer.left:
            return True
        if answer.passing and self._failed < self.retries:
            self._failed += 1
            return True
        code = "" if answer.error is None else answer.error.get("code", "")
        return code not in _FINAL and self._next()

    def after_breach(self, text: str, problems: Sequence[str]) -> bool:
        """Whether there is another try after an answer that breaks its contract."""
        if self._repaired < self.repairs:
            self._repaired += 1
            said = "\n".join(f"- {problem}" for problem in problems)
            asked = f"That cannot be used as it is:\n{said}\n\nAnswer again, with all of it and with nothing else."
            self._more = ({"role": "assistant", "content": text}, {"role": "user", "content": asked})
            return True
        return self._next()

    def _next(self) -> bool:
        """Go on to the next model; whether there is one."""
        if self._at + 1 >= len(self.models):
            return False
        self._at += 1
        self._failed = self._repaired = 0
        self._more = ()
        return True
