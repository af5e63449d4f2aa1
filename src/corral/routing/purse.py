"""Money for calls: what an engine's answers cost, and what is held of the caller's budgets while one is under way."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from corral.domain.models import Capability
from corral.errors import DatabaseError
from corral.routing.bounds import input_upper, worst_case
from corral.routing.ledger import NOTHING, Amounts, Hold

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from corral.domain.money import Price
    from corral.lifecycle.engines import Engine
    from corral.routing.ledger import Ledger
    from corral.routing.order import Order

_log = logging.getLogger("corral.ledger")

_LONGEST_ANSWER = 600.0
"""Seconds of an engine's work that are held, where it costs by the time."""


class Purse:
    """The ledger and the prices, as carriers of orders need them.

    Args:
        ledger: the callers' budgets.
        prices: what an engine's answers cost.
        bound: most tokens that a request under a budget may write when it does not say itself.
        there: whether there can be any budget; to look for some is no reason to make a database.
    """

    def __init__(
        self,
        ledger: Ledger,
        prices: Callable[[Engine], Price],
        bound: Callable[[], int],
        there: Callable[[], bool] = lambda: True,
    ) -> None:
        self.ledger = ledger
        self._there = there
        self._prices = prices
        self._bound = bound

    def price(self, engine: Engine) -> Price:
        """What the engine's answers cost now: prices change with the hour, and with the configuration."""
        return self._prices(engine)

    def limit(self, order: Order) -> int:
        """The bound on what may be written, for an order under a budget; some clients say -1 for none."""
        wanted = order.max_tokens
        return wanted if wanted is not None and wanted > 0 else self._bound()

    def hold(self, order: Order, price: Price) -> tuple[Hold | None, int | None]:
        """Money for one call, and the bound on what may be written; (None, _) where it must be waited for.

        Raises:
            StoreError: the journal cannot be written.
        """
        ledger = self.ledger
        group = ledger.group(order.caller)
        if group is not None:
            limit = self.limit(order)
            return ledger.take(group, worst(order, price, limit)), limit
        if ledger.awake or not self._there():
            return NOTHING, None
        return None, self.limit(order)

    async def reserve(self, order: Order, price: Price, model: str) -> tuple[Hold, int | None]:
        """As `hold`, waiting where that is needed.

        Raises:
            BudgetExceeded: there is not enough.
            DatabaseError: whether there is enough cannot be told.
        """
        limit = self.limit(order)
        try:
            found = await self.ledger.reserve(order.caller, worst(order, price, limit), model)
        except DatabaseError as error:
            # Where the database is, and whose, is nothing for those who only ask.
            _log.warning("a request of %s is refused: %s", order.caller.id, error)
            raise DatabaseError(
                "The budget cannot be looked up: the database is away.", "Try again. The server's log says more."
            ) from error
        return found, limit if found is not NOTHING else None


def worst(order: Order, price: Price, limit: int) -> Amounts:
    """The most that one call can take of the caller's budgets."""
    document, body = order.document, order.body
    messages = document.get("messages") or document.get("contents") or document.get("input")
    count = len(messages) if isinstance(messages, list) else 0
    if "tools" in document and isinstance(tools := document["tools"], list):
        count += len(tools)
    size = len(body) if body else len(str(document))
    images = 0
    if Capability.VISION in order.needs:
        # Their bytes are no text: what a picture can count for at most stands in their place.
        size, images = _text_size(document), _pictures(document)
    if "n" in document or "best_of" in document or "generationConfig" in document:
        limit *= _choices(document)
    return worst_case(price, input_upper(size, count or 1, images), limit, 0, _LONGEST_ANSWER)


def _choices(document: Mapping[str, Any]) -> int:
    """How many answers a request can be billed for, in any form."""
    most = 1
    more = document.get("generationConfig")
    for value in (
        document.get("n"),
        document.get("best_of"),
        more.get("candidateCount") if isinstance(more, dict) else None,
    ):
        if type(value) is int and value > most:
            most = value
    return most


_DATA = frozenset(("data", "url", "image_url", "images"))


def _text_size(value: object, depth: int = 0) -> int:
    """Bytes of all text in a request, without that of pictures."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if depth > _DEEPEST:
        return len(str(value))
    if isinstance(value, dict):
        return sum(len(key) + (0 if key in _DATA else _text_size(each, depth + 1)) for key, each in value.items())
    if isinstance(value, list):
        return sum(_text_size(each, depth + 1) for each in value)
    return 8


_DEEPEST = 64
_PICTURES = frozenset(("image_url", "image", "input_image", "inlineData", "inline_data", "fileData", "source"))


def _pictures(value: object, depth: int = 0) -> int:
    """How many pictures a request can have at most, in any form."""
    if depth > _DEEPEST:
        return 0
    if isinstance(value, dict):
        own = len(_PICTURES & value.keys())
        images = value.get("images")
        own += len(images) if isinstance(images, list) else 0
        return own + sum(_pictures(each, depth + 1) for each in value.values())
    if isinstance(value, list):
        return sum(_pictures(each, depth + 1) for each in value)
    return 0
