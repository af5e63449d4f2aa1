"""What a key may ask for in a minute, and at a time.

Windows slide: in no 60 seconds, wherever they begin, is more let in than the limit. Tokens are counted when they are
known, after the answer; so the requests that are let in while there are some left may together go beyond. One process
counts for itself.

Pure: time is passed in.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING

from corral.errors import RateLimited

if TYPE_CHECKING:
    from collections.abc import Callable

    from corral.domain.callers import Caller

SPAN = 60.0
"""Seconds of a window."""
_EXACT = 256
"""Portions that are kept each for itself."""
_GRAIN = SPAN / 512
"""Seconds within which what is counted beyond those is kept as one."""
_SWEPT_AT = 256

Header = tuple[bytes, bytes]


class Window:
    """What was counted in the last 60 seconds, in at most some 800 portions."""

    __slots__ = ("_portions", "total")

    def __init__(self) -> None:
        # Each: when it began, when the last of it came, how much.
        self._portions: deque[list[float]] = deque()
        self.total = 0

    def add(self, now: float, amount: int) -> None:
        """Count `amount` at `now`."""
        self.total += amount
        portions = self._portions
        if len(portions) >= _EXACT and now - portions[-1][0] < _GRAIN:
            portions[-1][1] = now  # all of it stays as long as its last: rather too long than too short
            portions[-1][2] += amount
        else:
            portions.append([now, now, amount])

    def slide(self, now: float) -> int:
        """Forget what is older than a window; what is left."""
        portions = self._portions
        while portions and portions[0][1] + SPAN <= now:
            self.total -= int(portions.popleft()[2])
        return self.total

    def wait(self, now: float, room: int) -> float:
        """Seconds until no more than `room` is left, if nothing is added."""
        if room <= 0:
            return max(0.0, self._portions[-1][1] + SPAN - now) if self._portions else 0.0
        left, freed = self.total, now - SPAN
        for _, last, amount in self._portions:
            if left <= room:
                break
            left -= int(amount)
            freed = last
        return max(0.0, freed + SPAN - now)


@dataclass(slots=True)
class _Account:
    requests: Window = field(default_factory=Window)
    tokens: Window = field(default_factory=Window)
    parallel: int = 0

    def idle(self, now: float) -> bool:
        return not (self.parallel or self.requests.slide(now) or self.tokens.slide(now))


class Limits:
    """Counts what callers do, and refuses what would be too much. Callers without limits cost next to nothing.

    Args:
        now: seconds on a clock that never goes backwards.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._accounts: dict[str, _Account] = {}
        self._sweep_at = _SWEPT_AT

    def __len__(self) -> int:
        """How many callers are remembered."""
        return len(self._accounts)

    def enter(self, caller: Caller) -> None:
        """Let a request in; whoever was let in leaves by `leave`. A request that is refused is not counted.

        Raises:
            RateLimited: one limit does not allow it now; `retry_after` is when it would, as far as that is known.
        """
        if caller.requests is None and caller.tokens is None and caller.parallel is None:
            return
        account = self._accounts.get(caller.id)
        if account is None:
            account = self._opened(caller.id)
        if caller.parallel is not None and account.parallel >= caller.parallel:
            raise RateLimited(
                f"The key {caller.name!r} may have {caller.parallel} requests answered at a time.",
                "Wait for one of them to end.",
                retry_after=1.0,
            )
        if caller.requests is not None or caller.tokens is not None:
            now = self._now()
            if caller.tokens is not None and account.tokens.slide(now) >= caller.tokens:
                wait = account.tokens.wait(now, caller.tokens - 1)
                raise _too_much(caller, f"{caller.tokens} tokens", wait)
            if caller.requests is not None:
                if account.requests.slide(now) >= caller.requests:
                    wait = account.requests.wait(now, caller.requests - 1)
                    raise _too_much(caller, f"{caller.requests} requests", wait)
                account.requests.add(now, 1)
        account.parallel += 1

    def leave(self, caller: Caller) -> None:
        """A request that was let in has ended: `caller` is the very one that it entered with."""
        if caller.requests is None and caller.tokens is None and caller.parallel is None:
            return
        self._accounts[caller.id].parallel -= 1

    def spend(self, caller: Caller, tokens: int) -> None:
        """Count the tokens that an answer took."""
        if caller.tokens is None or tokens <= 0:
            return
        account = self._accounts.get(caller.id) or self._opened(caller.id)
        now = self._now()
        account.tokens.slide(now)
        account.tokens.add(now, tokens)

    def headers(self, caller: Caller) -> list[Header]:
        """What OpenAI's clients read of limits: how many there are, how many are left, when all are there again."""
        found: list[Header] = []
        if caller.requests is None and caller.tokens is None:
            return found
        account = self._accounts.get(caller.id) or _Account()
        now = self._now()
        for what, limit, window in (
            (b"requests", caller.requests, account.requests),
            (b"tokens", caller.tokens, account.tokens),
        ):
            if limit is not None:
                left = max(0, limit - window.slide(now))
                found += [
                    (b"x-ratelimit-limit-" + what, b"%d" % limit),
                    (b"x-ratelimit-remaining-" + what, b"%d" % left),
                    (b"x-ratelimit-reset-" + what, _length(window.wait(now, 0))),
                ]
        return found

    def _opened(self, identifier: str) -> _Account:
        if len(self._accounts) >= self._sweep_at:
            now = self._now()
            self._accounts = {key: kept for key, kept in self._accounts.items() if not kept.idle(now)}
            self._sweep_at = max(_SWEPT_AT, 2 * len(self._accounts))
        account = self._accounts[identifier] = _Account()
        return account


def _too_much(caller: Caller, what: str, wait: float) -> RateLimited:
    return RateLimited(
        f"The key {caller.name!r} may use {what} a minute.",
        f"Ask again in {ceil(wait)} s, or have the limit raised.",
        retry_after=wait,
    )


def _length(seconds: float) -> bytes:
    """A length of time as OpenAI writes it: `120ms`, `6s`, `1m0s`."""
    if seconds < 1:
        return b"%dms" % ceil(seconds * 1000)
    whole = ceil(seconds)
    return b"%dm%ds" % divmod(whole, 60) if whole >= 60 else b"%ds" % whole
