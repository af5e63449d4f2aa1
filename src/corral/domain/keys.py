"""A client's key, as it is kept and shown. The key itself is in nobody's hands but the client's."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from corral.domain.callers import Caller, Scope


class KeyState(StrEnum):
    """Whether a key opens anything."""

    LIVE = "live"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class KeyWish:
    """What a key is to be. `models` are patterns, `projects` names, of which the first is the default; none is: all.

    `requests` and `tokens` bound a minute, `parallel` the requests at a time. `expires_at` in Unix seconds.
    """

    name: str
    scope: Scope = Scope.INFER
    models: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    requests: int | None = None
    tokens: int | None = None
    parallel: int | None = None
    strict: bool = False
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """A key that was made. `shown` are its first characters; `previous_until` is until when its predecessor counts.

    Times in Unix seconds; what has not happened, or does not apply, is None.
    """

    id: str
    wish: KeyWish
    shown: str
    created_at: float
    rotated_at: float | None = None
    previous_until: float | None = None
    revoked_at: float | None = None
    used_at: float | None = None

    def state(self, now: float) -> KeyState:
        """How it stands at `now`."""
        if self.revoked_at is not None:
            return KeyState.REVOKED
        expires = self.wish.expires_at
        return KeyState.LIVE if expires is None or now < expires else KeyState.EXPIRED

    def caller(self) -> Caller:
        """Who asks with it."""
        wish = self.wish
        return Caller(
            self.id,
            wish.name,
            wish.scope,
            wish.models,
            wish.projects,
            wish.projects[0] if wish.projects else "",
            wish.requests,
            wish.tokens,
            wish.parallel,
            wish.strict,
            wish.expires_at,
        )


def describe(key: Key, now: float) -> dict[str, Any]:
    """The key as every surface shows it: plain values of JSON."""
    found: dict[str, Any] = {"id": key.id, "state": str(key.state(now)), "shown": key.shown}
    found |= asdict(key.wish)
    found |= {"scope": str(key.wish.scope), "models": list(key.wish.models), "projects": list(key.wish.projects)}
    previous = key.previous_until if key.previous_until is not None and key.previous_until > now else None
    return found | {
        "created_at": key.created_at,
        "rotated_at": key.rotated_at,
        "previous_until": previous,
        "revoked_at": key.revoked_at,
        "used_at": key.used_at,
    }
