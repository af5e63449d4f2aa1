"""A request as it goes its way: what is asked for, by whom, and what has become of it so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from corral.dialects.form import Form
from corral.domain.callers import LOCAL, Caller
from corral.domain.models import Capability

BYTES_A_TOKEN = 4
"""Bytes of a request or an answer that are taken for a token where nobody counted."""
_NOTHING: frozenset[Capability] = frozenset()


@dataclass(slots=True, eq=False)
class Order:
    """One request of a client, in the client's form.

    `model` is the name it asks for. `document` is the parsed body, in which the model's name is not looked at again,
    and `body` the bytes it came as, None where they may not be passed on. `needs` is what the model must be able to do.
    `usage_wanted` is False for a stream whose client does not want to be told its usage. `context` is how many tokens
    of context it asks for. `betas` are what it says in `anthropic-beta`, for an engine that it reaches as it is.
    `keep_alive` in seconds, and `priority`, are as in Ask. `started` is when the request was
    there, on the clock of `time.perf_counter`.
    """

    request_id: str
    form: Form
    model: str
    document: dict[str, Any]
    body: bytes | None = None
    caller: Caller = LOCAL
    project: str = ""
    needs: frozenset[Capability] = _NOTHING
    stream: bool = False
    usage_wanted: bool = True
    max_tokens: int | None = None
    strict: bool = False
    keep_alive: float | None = None
    priority: int | None = None
    context: int | None = None
    started: float = 0.0
    asked: Any = field(default=None, repr=False)
    betas: bytes = b""

    @property
    def request(self) -> Any:
        """The canonical request; read when it is first needed.

        Raises:
            InvalidRequest: the document is none of its form.
        """
        if self.asked is None:
            self.asked = self.form.read_request(self.document)
        return self.asked
