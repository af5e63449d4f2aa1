"""What the parts tell when somebody looks at the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corral.observability.metrics import summed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from corral.app.corral import Corral
    from corral.observability.metrics import Metrics, Sample


def attach(metrics: Metrics, corral: Corral) -> None:
    """Let `metrics` ask the supervisor and the books of `corral`; asking costs nothing until somebody looks."""
    supervisor = corral.supervisor

    def engines() -> Iterable[Sample]:
        return [((each.model, each.state.value), 1.0) for each in supervisor.statuses()]

    def memory() -> Iterable[Sample]:
        sides = (("held", supervisor.held()), ("capacity", supervisor.capacity()))
        return [((device, what), float(size)) for what, sizes in sides for device, size in sizes.items()]

    metrics.engines = engines
    metrics.memory = memory
    metrics.decisions = lambda: summed(supervisor.counters)
    metrics.books = lambda: summed({"waiting": corral.books.waiting, "unrecorded": corral.books.unrecorded})
