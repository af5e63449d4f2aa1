"""A source in memory, which obeys the port's rules and fails where it is told to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from corral.domain.models import Listing, ModelRef, RemoteFile, RemotePart
from corral.domain.ports import Hit, PartFile, Progress, Query, Report
from corral.errors import NotSupported, SourceNotFound
from support.models import sha256


async def nothing() -> None:
    """Between two blocks."""


class MemorySource:
    """Has `models`: files by name, by locator. `between` is awaited before each block; `lies` leaves digests out."""

    scheme = "memory"

    def __init__(self, models: Mapping[str, Mapping[str, bytes]], *, lies: bool = False, block: int = 500) -> None:
        self.models = {key: dict(files) for key, files in models.items()}
        self.between: Callable[[], Awaitable[None]] = nothing
        self.sent = 0
        self.resolved = 0
        self.version = "1"
        self._lies = lies
        self._block = block

    async def resolve(self, ref: ModelRef) -> Listing:
        self.resolved += 1
        if ref.locator not in self.models:
            raise SourceNotFound(f"no {ref}")
        files = tuple(
            RemoteFile(
                name,
                (RemotePart(f"memory:{ref.locator}/{name}", len(data), length=len(data)),),
                None if self._lies else len(data),
                None if self._lies else sha256(data),
            )
            for name, data in self.models[ref.locator].items()
        )
        return Listing(ref, files, version=self.version)

    async def fetch(self, file: RemoteFile, into: PartFile, report: Report) -> None:
        locator, name = file.parts[0].url.removeprefix("memory:").split("/", 1)
        data = self.models[locator][name]
        while into.size < len(data):
            await self.between()
            block = data[into.size : into.size + self._block]
            await into.append(block)
            self.sent += len(block)
            report(Progress("download", into.size, len(data)))

    async def search(self, query: Query) -> Sequence[Hit]:
        raise NotSupported("no")
