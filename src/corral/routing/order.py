"""A request as it goes its way: what is asked for, by whom, and what has become of it so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from corral.dialects.form import Form
from corral.domain.callers import LOCAL, Caller
from corral.domain.models import Capability

if TYPE_CHECKING:
    from corral.observability.record import Record
    from corral.routing.book import Amounts

BYTES_A_TOKEN = 4
"""Bytes of a request or an answer that are taken for a token where nobody counted."""
_NOTHING: frozenset[Capability] = frozenset()


class Keeper(Protocol):
    """Keeps the answer of one order itself, and with it the record that otherwise goes to the books."""

    def allow(self, worst: Amounts, model: str) -> None:
        """A call of `model` is about to be made, which costs `worst` at most.

        Raises:
            BudgetExceeded: it may not be made.
        """
        ...

    def keep(self, record: Record) -> None:
        """Write down what became of the order; called once, before what it cost is settled. Does not wait.

        Raises:
            StoreError: it could not be written; what it cost is settled all the same.
        """
        ...


@dataclass(slots=True, eq=False)
class Order:
    """One request of a client, in the client's form.

    `model` is the name it asks for. `document` is the parsed body, in which the model's name is not looked at again,
    and `body` the bytes it came as, None where they may not be passed on. `needs` is what the model must be able to do.
    `usage_wanted` is False for a stream whose client does not want to be told its usage. `context` is how many tokens
    of context it asks for. `betas` are what it says in `anthropic-beta`, for an engine that it reaches as it is.
    `keep_alive` in seconds, and `priority`, are as in Ask. `started` is when the request was
    there, on the clock of `time.perf_counter`. `keeper` writes the answer down in place of the books, where somebody
    has to have it exactly once.
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
    keeper: Keeper | None = None

    @property
    def request(self) -> Any:
        """The canonical request; read when it is first needed.

        Raises:
            InvalidRequest: the document is none of its form.
        """
        if self.asked is None:
            self.asked = self.form.read_request(self.document)
        return self.asked
