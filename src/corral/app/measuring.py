"""What the parts tell when somebody looks at the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corral.errors import DatabaseError
from corral.observability.metrics import summed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from corral.app.corral import Corral
    from corral.observability.metrics import Metrics, Sample

_STANDINGS = {"closed": 0.0, "half_open": 1.0, "open": 2.0}
_NANO = 1e9


def attach(metrics: Metrics, corral: Corral) -> None:
    """Let `metrics` ask the parts of `corral`; that costs nothing until somebody looks."""
    supervisor = corral.supervisor

    def engines() -> Iterable[Sample]:
        return [((each.model, each.state.value), 1.0) for each in supervisor.statuses()]

    def memory() -> Iterable[Sample]:
        sides = (("held", supervisor.held()), ("capacity", supervisor.capacity()))
        return [((device, what), float(size)) for what, sizes in sides for device, size in sizes.items()]

    def breakers() -> Iterable[Sample]:
        rows = corral.routes.breakers.rows()
        return [((each.name,), _STANDINGS[each.standing]) for each in rows if not each.address]

    metrics.engines = engines
    metrics.memory = memory
    metrics.breakers = breakers
    metrics.decisions = lambda: summed(supervisor.counters)
    metrics.books = lambda: summed({"waiting": corral.books.waiting, "unrecorded": corral.books.unrecorded})


async def look(corral: Corral) -> bytes:
    """The metrics of `corral` as Prometheus reads them, with what budgets have left as the database says now.

    While the database cannot be read, they say nothing of budgets.
    """
    samples: list[Sample] = []
    file = corral.database.file
    if file is None or file.exists():  # to look for budgets is no reason to make a database
        samples = await _budgets(corral)
    corral.metrics.budgets = lambda: samples
    return corral.metrics.render()


async def _budgets(corral: Corral) -> list[Sample]:
    from corral.routing.budgets import Budgets

    try:
        found = await Budgets(corral.database, corral.clock).standing()
    except DatabaseError:
        return []  # the books say so in the log, and the gap in the metrics is the truth
    return [
        ((each.budget.name, each.budget.unit), each.left / _NANO if each.budget.unit == "usd" else float(each.left))
        for each in found
    ]
