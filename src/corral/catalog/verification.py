"""Reading every byte again, and comparing with the digests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from corral.domain.models import told
from corral.domain.ports import Progress
from corral.errors import CorralError, DigestMismatch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from corral.catalog.blobs import Blobs
    from corral.domain.models import FileEntry, Revision
    from corral.domain.ports import Report


@dataclass(frozen=True, slots=True)
class Finding:
    """What verification says of one revision of a model: `error` is None when it is sound."""

    name: str
    revision: str
    error: CorralError | None


class Verifier:
    """Reads each blob once, however many models share it."""

    def __init__(self, blobs: Blobs, report: Report, total: int) -> None:
        self._blobs = blobs
        self._report = report
        self._total = total
        self._done = 0
        self._sound: set[str] = set()

    async def revision(self, name: str, revision: Revision) -> None:
        """Verify one revision of a model.

        Raises:
            CorralError: it is not as it was installed.
        """
        for file in revision.files:
            await self._file(name, revision.source, file)

    async def findings(self, models: Iterable[tuple[str, Revision]]) -> list[Finding]:
        """Verify them all, and say of each what was found."""
        found = []
        for name, revision in models:
            try:
                await self.revision(name, revision)
            except CorralError as error:
                found.append(Finding(name, revision.id, error))
            else:
                found.append(Finding(name, revision.id, None))
        return found

    async def _file(self, name: str, source: str, file: FileEntry) -> None:
        if not self._blobs.whole(file):
            raise self._blobs.missing(file)
        if file.sha256 in self._sound:
            return
        digest = await self._blobs.digest(file.sha256)
        if digest != file.sha256:
            self._blobs.doubt(file.sha256)
            raise DigestMismatch(
                f"{file.name} of {name} is damaged: its SHA-256 is {digest}, not {file.sha256}.",
                f"Its bytes are fetched again by: corral pull {told(source)} --name {name}",
            )
        self._blobs.trust(file.sha256)
        self._sound.add(file.sha256)
        self._done += file.size
        self._report(Progress("check", self._done, max(self._done, self._total), file.name))
