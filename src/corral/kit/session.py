"""The session of an engine that is a child process and answers on loopback: what all such runtimes share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from corral.domain.ports import Endpoint, Footprint, SessionFacts
from corral.errors import CorralError
from corral.kit import loopback

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from corral.kit.process import Child
    from corral.kit.tally import Tally

_HEALTH_TIMEOUT = 2.0


class ChildSession:
    """One engine in a child process; `health` is the address that answers 200 while it is well.

    `tally` counts the tokens of prompts, where the engine's `facts.counts` say that it can.
    """

    def __init__(
        self, child: Child, endpoint: Endpoint, facts: SessionFacts, health: str, tally: Tally | None = None
    ) -> None:
        self._child = child
        self.endpoint: Final = endpoint
        self.facts: Final = facts
        self._health = health
        self._tally = tally

    @property
    def pid(self) -> int:
        """The process, which may be gone."""
        return self._child.pid

    async def healthy(self) -> bool:
        """Whether it would answer now."""
        try:
            status, _ = await loopback.get(self._health, self.endpoint.headers, _HEALTH_TIMEOUT)
        except CorralError:
            return False
        return status == 200

    async def count(self, path: str, document: Mapping[str, Any]) -> int | None:
        """Tokens of a prompt, as the engine counts them; None where it cannot tell."""
        return None if self._tally is None else await self._tally(path, document)

    async def footprint(self) -> Footprint:
        """Memory of the process; mapped weights count as far as they are in memory. A GPU's memory is not seen here."""
        resident = await self._child.resident()
        return Footprint({} if resident is None else {"cpu": resident})

    def processes(self) -> Sequence[int]:
        """The child and what it started."""
        return self._child.family()

    async def ended(self) -> str:
        """Wait until it is gone, and return why."""
        return await self._child.ended()

    def log(self) -> Sequence[str]:
        """The last lines of its output."""
        return self._child.log()

    async def stop(self, grace: float) -> None:
        """End it."""
        await self._child.stop(grace)
