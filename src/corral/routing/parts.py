"""Whom a carrier of orders needs: who plans, who holds money, who takes notes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from corral.domain.ports import Clock
from corral.kit.upstream import Timeouts
from corral.routing.breakers import Breakers
from corral.routing.composing import Composer
from corral.routing.dispatch import Dispatcher
from corral.routing.purse import Purse

if TYPE_CHECKING:
    from corral.observability.record import Record
    from corral.routing.order import Order
    from corral.routing.plan import Plan


class Planner(Protocol):
    """Says where an order may go."""

    def plan(self, order: Order) -> Plan:
        """The candidates, in order.

        Raises:
            CorralError: nothing has that name, or no candidate may be asked.
        """
        ...

    def answered(self, order: Order, model: str, seconds: float) -> None:
        """`model` has answered, its first byte after `seconds`."""
        ...


class Notes(Protocol):
    """Where records go."""

    def record(self, record: Record) -> None:
        """Keep it. Does not block."""
        ...

    def kept(self, record: Record) -> None:
        """As `record`, of an answer that its order's keeper has written down. Does not block."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What orders are carried out with.

    `dispatcher` has the engines, `composer` puts requests into their words, `planner` says where an order may go,
    `breakers` whom to leave alone; `money` is ledger and prices, `notes` gets every record. `within` says
    how many seconds are waited at most before a candidate is asked again. `rand` gives numbers from 0 to below 1.
    """

    dispatcher: Dispatcher
    composer: Composer
    planner: Planner
    breakers: Breakers
    money: Purse
    notes: Notes
    clock: Clock
    timeouts: Timeouts
    within: Callable[[], float] = lambda: 10.0
    rand: Callable[[], float] = random.random
