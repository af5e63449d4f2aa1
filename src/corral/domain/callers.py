"""Who asks, and what they may."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """What a key may be used for. Each includes those before it."""

    INFER = "infer"
    MANAGE = "manage"
    ADMIN = "admin"


SCOPES: tuple[Scope, ...] = tuple(Scope)


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """Whoever a request comes from: a key, the server's own key, or anybody on this machine.

    `id` names it in the books. `models` are patterns as `gemini-*`, `projects` names; none is: all. `project` is what
    its requests count for. `requests` and `tokens` are limits for a minute, `parallel` one for requests at a time.
    `strict`: nothing may be silently less than what was asked. `accounts` are the ids of the budgets that it spends
    from. `prompts`: its prompts may be logged, where the server logs any.
    """

    id: str
    name: str
    scope: Scope = Scope.INFER
    models: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    project: str = ""
    requests: int | None = None
    tokens: int | None = None
    parallel: int | None = None
    strict: bool = False
    expires_at: float | None = None
    accounts: tuple[str, ...] = ()

    def may(self, scope: Scope) -> bool:
        """Whether it may do what takes `scope`."""
        return SCOPES.index(self.scope) >= SCOPES.index(scope)


LOCAL = Caller("local", "this machine", Scope.ADMIN)
"""Anybody on this machine, while no key is needed."""
SERVER = Caller("server", "the server's key", Scope.ADMIN)
"""Whoever has CORRAL_API_KEY."""
