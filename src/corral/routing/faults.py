"""What engines and vendors answer instead of an answer, as errors of ours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from corral.errors import (
    ContextOverflow,
    CorralError,
    InvalidRequest,
    UpstreamError,
    UpstreamLimited,
    UpstreamOverloaded,
)
from corral.routing.policies import judge

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.dialects.form import Fault

_CARRIES_KEY = re.compile("auth|key|token|secret", re.IGNORECASE)
_SHORTEST_KEY = 6
"""Characters. What is shorter is no secret, and may be a word of the message."""
_BUSY = frozenset((503, 529))
_OUR_KEY = frozenset((401, 403))
_VENDORS_OWN = frozenset((401, 402, 403, 404, 408, 429))
"""Statuses by which a server refuses whoever asks, and not what is asked."""


class Refused(UpstreamError):
    """An engine refused. `status` is its HTTP status, `fault` what it said, and `body` its answer as it came.

    `error` is the same in Corral's words. `body` is empty where a client of another dialect asked.
    """

    def __init__(self, error: CorralError, status: int, fault: Fault, body: bytes = b"") -> None:
        super().__init__(error.message, error.hint, param=error.param, retry_after=error.retry_after)
        self.error = error
        self.status = status
        self.fault = fault
        self.body = body

    @property
    def told(self) -> int:
        """The status for the client. That a vendor does not accept Corral's key must not look as if it were its own."""
        return self.error.http_status if self.status in _OUR_KEY else self.status


def concealed(said: bytes, headers: Mapping[str, str]) -> bytes:
    """What an engine said, without the key that it was sent in `headers`: some repeat it in their errors."""
    for name, value in headers.items():
        key = value.rpartition(" ")[2].encode()
        if len(key) >= _SHORTEST_KEY and _CARRIES_KEY.search(name):
            said = said.replace(key, b"***")
    return said


def refused(status: int, fault: Fault, model: str, body: bytes = b"", retry_after: float | None = None) -> Refused:
    """The error for a refusal. `model` is whom was asked; `retry_after` in seconds is from the answer's head."""
    later = fault.retry_after if retry_after is None else retry_after
    return Refused(_error(status, fault, model, later), status, fault, body)


def _error(status: int, fault: Fault, model: str, later: float | None) -> CorralError:
    text = f"Model {model!r} refused: {fault.message}" if fault.message else f"Model {model!r} answered {status}."
    if judge(status, fault).code == ContextOverflow.code:
        return ContextOverflow(text, "Send less, or ask a model with a larger context.", param=fault.param)
    if status == 429:
        return UpstreamLimited(text, "Ask again later, or name another model as its fallback.", retry_after=later)
    if status in _BUSY:
        return UpstreamOverloaded(text, "Ask again later, or name another model as its fallback.", retry_after=later)
    if 400 <= status < 500 and status not in _VENDORS_OWN:
        return InvalidRequest(text, param=fault.param)
    if status in _OUR_KEY:
        return UpstreamError(f"{text} It does not accept Corral's key.", "Check the variable of its api_key_env.")
    return UpstreamError(text, retry_after=later)
