"""Decisions about requests, pure: whether to try again, where to go next, whom to leave alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

from corral.errors import (
    BudgetExceeded,
    ConfigError,
    ContextOverflow,
    CorralError,
    Degraded,
    EngineError,
    ModelNotFound,
    NotSupported,
    StoreError,
    UpstreamError,
    UpstreamUnreachable,
)

if TYPE_CHECKING:
    from corral.dialects.form import Fault

_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 8.0
"""Seconds between two calls of the same candidate, where nobody says how long to wait."""
_JITTER = 0.1
"""Part of a `Retry-After` that is added at most, so that not all who were told the same come back at once."""
_LEAST_JITTER = 0.05
MOST_ALONE = 3600.0
"""Seconds: nobody is left alone for longer, whatever a vendor says."""
_HEAD = 512
"""Characters of each end of a text that tell one conversation from another."""


class Action(StrEnum):
    """What to do about a failure."""

    RETRY = "retry"  # the same candidate, after a while; then the next
    NEXT = "next"  # another candidate may do it
    GIVE_UP = "give_up"  # it would meet every candidate


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a failure means. `code` and `reason` are for the receipt.

    `counts`: it speaks against the candidate, for its breaker. `shared`: it speaks against the address, so against
    every model there. `retry_after` in seconds, as the other side said.
    """

    action: Action
    code: str
    reason: str
    counts: bool = False
    shared: bool = False
    retry_after: float | None = None


def classify(error: CorralError) -> Verdict:
    """What it means that a candidate could not be had, or that a call of it failed within Corral or on the way."""
    after = error.retry_after
    if isinstance(error, UpstreamUnreachable):
        return Verdict(Action.RETRY, error.code, error.message, counts=True, shared=True, retry_after=after)
    if isinstance(error, UpstreamError):  # one that was waited for in vain is not waited for again
        return Verdict(Action.NEXT, error.code, error.message, counts=True, retry_after=after)
    if isinstance(error, _ELSEWHERE):
        return Verdict(Action.NEXT, error.code, error.message, retry_after=after)
    return Verdict(Action.GIVE_UP, error.code, error.message, retry_after=after)


_ELSEWHERE: tuple[type[CorralError], ...] = (
    BudgetExceeded,  # another may cost less, or nothing
    ConfigError,
    ContextOverflow,
    Degraded,
    EngineError,  # those of local engines are counted where they are kept
    ModelNotFound,
    NotSupported,
    StoreError,
)
_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_OUR_ACCOUNT = frozenset({401, 402, 403})
_TOO_LONG = re.compile(
    r"context[_ ](length|window|size)|context_length_exceeded|prompt is too long|too many (input )?tokens"
    r"|input token count.{0,40}exceeds|maximum number of tokens|reduce the length|exceed_context_size",
    re.IGNORECASE,
)
_NO_MONEY = re.compile(
    r"insufficient_quota|exceeded your current quota|credit balance|billing|api[_ ]key[_ ](not valid|invalid)",
    re.IGNORECASE,
)


def judge(status: int, fault: Fault | None = None, retry_after: float | None = None) -> Verdict:
    """What a vendor's or engine's refusal means. `retry_after` (seconds) stands in for what `fault` does not say."""
    words = "" if fault is None else f"{fault.code or ''} {fault.kind or ''} {fault.message}"
    after = fault.retry_after if fault is not None and fault.retry_after is not None else retry_after
    code, reason = f"status_{status}", f"it answered {status}"
    if fault is not None and fault.message:
        code, reason = fault.code or code, f"{reason}: {fault.message[:300]}"
    if status in {400, 413, 422} and _TOO_LONG.search(words):
        return Verdict(Action.NEXT, ContextOverflow.code, reason)
    # Who says when to come again speaks of a limit for a while, in whatever words; no money comes by waiting.
    spent = after is None and 400 <= status < 500 and _NO_MONEY.search(words)
    if status in _OUR_ACCOUNT or spent:
        return Verdict(Action.NEXT, code, reason, counts=True, retry_after=after)
    if status in _AGAIN or status >= 500:
        return Verdict(Action.RETRY, code, reason, counts=True, retry_after=after)
    if status == 404:  # Corral chose the path: what is missing is the model, unless the vendor names something else
        ours = fault is None or not fault.param or "model" in fault.param
        return Verdict(Action.NEXT if ours else Action.GIVE_UP, code, reason)
    return Verdict(Action.NEXT if status < 400 else Action.GIVE_UP, code, reason)


def named_wait(headers: Iterable[tuple[bytes, bytes]], wall: float) -> float | None:
    """Seconds to wait that an answer's headers name: `retry-after-ms`, else `retry-after` as seconds or as a date.

    `headers` have lower-case names; `wall` is now, in Unix seconds. None when they name none that can be read.
    """
    found: float | None = None
    for name, value in headers:
        if name == b"retry-after-ms" and (exact := _number(value)) is not None:
            return exact / 1000
        if name == b"retry-after":
            found = _number(value)
            if found is None:
                found = _until(value, wall)
    return found


def _number(value: bytes) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if isfinite(number) and number >= 0 else None


def _until(value: bytes, wall: float) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(value.decode("ascii")).timestamp() - wall)
    except (ValueError, OverflowError):
        return None


def backoff(attempt: int, retry_after: float | None, within: float, rand: float) -> float | None:
    """Seconds before a candidate is called again after its `attempt`th failure, counted from 1.

    Without `retry_after` it is anything up to a bound that doubles; `rand` from 0 to 1 says where. A `retry_after` is
    kept, and a little more. None: it is longer than `within`, so another candidate should be asked.
    """
    if retry_after is None:
        return min(rand * min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(attempt - 1, 16)), within)
    if retry_after > within:
        return None
    return max(0.0, retry_after) + rand * max(_LEAST_JITTER, _JITTER * retry_after)


def hedge_in(after: float | None, waited: float, asked: int, candidates: int) -> float | None:
    """Seconds until the next candidate is asked as well; None when none is to be.

    `after` is the route's `hedge`, `waited` how long the last that was asked has been silent, `asked` how many have
    been asked of the `candidates` of the plan.
    """
    if after is None or asked >= candidates:
        return None
    return max(0.0, after - waited)


# Breakers


class Standing(StrEnum):
    """How a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"  # the pause is over; somebody must look whether it is well


@dataclass(frozen=True, slots=True)
class Threshold:
    """When a candidate is left alone: after `failures` in a row, for `pause` seconds."""

    failures: int = 5
    pause: float = 30.0


@dataclass(frozen=True, slots=True)
class Breaker:
    """What is known of one candidate, or one address, that failed.

    `failures` in a row. Until `until`, in seconds of the caller's clock, it is left alone; `examine` says that it must
    be found well afterwards, before requests go there again. `probe_until`: somebody looks, and has that long for it.
    `why` is what it failed of last.
    """

    failures: int = 0
    until: float = -inf
    examine: bool = False
    probe_until: float = -inf
    why: str = ""

    @property
    def claimed(self) -> bool:
        """Whether somebody looks, or said so and never told."""
        return self.probe_until > -inf

    def standing(self, now: float) -> Standing:
        """How it stands."""
        if now < self.until:
            return Standing.OPEN
        return Standing.HALF_OPEN if self.examine else Standing.CLOSED

    def wait(self, now: float) -> float:
        """Seconds until somebody may look, or requests may go there; 0 when closed or due."""
        return max(0.0, self.until - now, (self.probe_until - now) if self.examine else 0.0)

    def failed(self, now: float, threshold: Threshold, retry_after: float | None, why: str) -> Breaker:
        """After one more failure. A `retry_after` opens it for that long, and needs nobody to look afterwards."""
        failures = self.failures + 1
        until, examine = self.until, self.examine
        if failures >= threshold.failures:
            until, examine = max(until, now + threshold.pause), True
        if retry_after is not None:
            until = max(until, now + min(retry_after, MOST_ALONE))
        return Breaker(failures, until, examine, -inf, why)

    def succeeded(self, now: float) -> Breaker | None:
        """After an answer; None is as new. One that came while it is left alone was asked for before that."""
        return self if self.standing(now) is Standing.OPEN else None

    def claim(self, now: float, threshold: Threshold) -> Breaker | None:
        """With somebody looking, who reports by `probed`; None when nobody needs to, or somebody does already."""
        if self.standing(now) is not Standing.HALF_OPEN or now < self.probe_until:
            return None
        return Breaker(self.failures, self.until, True, now + threshold.pause, self.why)

    def probed(self, now: float, threshold: Threshold, *, well: bool) -> Breaker:
        """After somebody looked. Found well, it is closed, and the next failure opens it again; else it stays alone."""
        if well:
            return Breaker(max(threshold.failures - 1, 0), -inf, False, -inf, self.why)
        return Breaker(self.failures, now + threshold.pause, True, -inf, self.why)


# Requests, as far as they can be told apart without knowing their dialect

_TEXT_A_TOKEN = 4
"""Characters of text in a token, roughly; of text that is not ASCII one and a half."""
_PICTURE = 1000
_BINARY = frozenset({"data", "url", "image_url", "images", "file_data"})


def guess_tokens(document: Mapping[str, Any]) -> int:
    """How many tokens the prompt of a request may have, whatever its dialect: from the length of its texts.

    It is for choosing among candidates only, and may be wrong by half; the engine chosen counts itself. Pictures count
    a thousand, however large.
    """
    total = 0
    rest: list[object] = [value for key, value in document.items() if key not in {"model", "user"}]
    while rest:
        content = rest.pop()
        if isinstance(content, str):
            total += len(content) // _TEXT_A_TOKEN + 1 if content.isascii() else len(content) * 2 // 3 + 1
        elif isinstance(content, dict):
            for key, value in content.items():
                if key in _BINARY:
                    total += _PICTURE
                else:
                    rest.append(value)
        elif isinstance(content, list):
            total += 2 * len(content)
            rest += content
    return total


def conversation(caller: str, document: Mapping[str, Any]) -> int | None:
    """What tells the caller's conversation from others, by how it begins; None where nothing can be told.

    Equal for every later turn: it is made of the instructions and the first turn of the user, whatever the dialect.
    Only bounded parts of them are looked at. It means nothing to another process.
    """
    system = document.get("system") or document.get("systemInstruction") or document.get("instructions")
    turns = document.get("messages") or document.get("contents") or document.get("input") or document.get("prompt")
    first: object = turns if isinstance(turns, str) else None
    if isinstance(turns, list):
        for turn in turns[:8]:
            if not isinstance(turn, Mapping):
                continue
            role = turn.get("role")
            if role == "system" or role == "developer":  # noqa: PLR1714 # what a client sends need not be hashable
                system = system or turn.get("content")
            elif role is None or role == "user":
                first = turn.get("content") or turn.get("parts")
                break
    if not first and not system:
        return None
    return hash((caller, _ends(system, 4), _ends(first, 4)))


def _ends(content: object, depth: int) -> object:
    """A bounded, hashable part of a message's content: both ends of each of its first texts, and their lengths."""
    if isinstance(content, str):
        return content if len(content) <= 2 * _HEAD else (content[:_HEAD], content[-_HEAD:], len(content))
    if isinstance(content, list) and depth:
        return (len(content), *[_ends(part, depth - 1) for part in content[:4]])
    if isinstance(content, Mapping) and depth:
        inner = content.get("text") or content.get("parts") or content.get("image_url") or content.get("source")
        return _ends(inner or content.get("data") or content.get("url"), depth - 1)
    return content if isinstance(content, int | float) else None
