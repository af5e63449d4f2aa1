"""How a model's files get from a source into the store: resumed, verified, inspected, and only then visible."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from corral.catalog import capabilities, gguf
from corral.domain.models import FileEntry, Revision
from corral.domain.ports import Progress
from corral.errors import CorruptModel, DigestMismatch, SourceError
from corral.kit.disk import in_thread, translate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from corral.catalog.blobs import Blobs
    from corral.catalog.gguf import Header
    from corral.domain.models import Listing, RemoteFile
    from corral.domain.ports import Report, Source
    from corral.kit.part import Part


@dataclass(frozen=True, slots=True)
class Origin:
    """What a revision's manifest says of where it comes from, and the launch options pinned with it."""

    source: str
    version: str
    licence: str | None
    defaults: Mapping[str, Any]

    @classmethod
    def of(cls, listing: Listing) -> Self:
        """The origin of what a source listed, with nothing pinned."""
        return cls(str(listing.ref), listing.version, listing.licence, {})


class Pull:
    """One model on its way into the store. `async with` it: what it relies on is kept from removal until the end."""

    def __init__(self, blobs: Blobs, report: Report) -> None:
        self._blobs = blobs
        self._report = report
        self._held: dict[str, int] = {}
        self._headers: list[tuple[FileEntry, Header]] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def reuse(self, entry: FileEntry) -> bool:
        """Take the file from the store, if it is there whole and as it came; whether it was."""
        if not await self._pin(entry):
            return False
        header = await _inspect(self._blobs.path(entry.sha256), entry.name)
        self._headers.append((replace(entry, role=_role(header)), header))
        return True

    async def bring(self, file: RemoteFile, source: Source) -> None:
        """Take the file from the store when its digest is known and there, else from the source.

        Raises:
            DigestMismatch: it is not what was promised; nothing is kept.
            CorruptModel: it is no sound model; nothing is kept.
            DiskFull: there is no room for it; said before the first byte where the size is known.
            SourceError: the source failed; what arrived is kept, and the next pull goes on from there.
        """
        known = _known(file)
        if known is not None and await self.reuse(known):
            return
        part = await self._blobs.part(_key(file), self._report)
        self._stack.callback(part.close)
        # Another process may have brought it while we waited for the part.
        if known is not None and await self.reuse(known):
            await part.discard()
            return
        self._blobs.require(_room(file, part), file.name)
        await source.fetch(file, part, self._report)
        await self._accept(file, part)

    def revision(self, origin: Origin) -> Revision:
        """The revision that the files brought so far make up."""
        files = [entry for entry, _ in self._headers]
        models = [header for entry, header in self._headers if entry.role == "model"]
        if len(models) != 1:
            names = ", ".join(entry.name for entry in files)
            raise CorruptModel(f"A model is one GGUF file, and a projector if it sees; these are: {names or 'none'}.")
        header = models[0]
        return Revision(
            source=origin.source,
            format="gguf",
            files=tuple(files),
            version=origin.version,
            licence=origin.licence or header.text("general.license"),
            capabilities=capabilities.read(header, origin.defaults, sees=len(files) > 1),
            facts=header.facts(),
            defaults=origin.defaults,
        )

    def intact(self, files: Sequence[FileEntry]) -> bool:
        """Whether all files are in the store and held here. Ask it with the store locked."""
        return all(
            file.sha256 in self._held and self._blobs.holds(self._held[file.sha256], file.sha256) for file in files
        )

    async def _pin(self, entry: FileEntry) -> bool:
        if not self._blobs.whole(entry):
            return False
        descriptor = await self._blobs.pin(entry.sha256)
        if descriptor is None:
            return False
        with ExitStack() as undo:
            undo.callback(os.close, descriptor)
            # What the disk did not keep is not handed on to another model: it is fetched, and takes the blob's place.
            if await self._blobs.digest(entry.sha256) != entry.sha256:
                return False
            undo.pop_all()
        self._hold(entry.sha256, descriptor)
        return True

    def _hold(self, sha256: str, descriptor: int) -> None:
        self._stack.callback(os.close, descriptor)
        self._held[sha256] = descriptor

    async def _accept(self, file: RemoteFile, part: Part) -> None:
        """Verify what the source says it brought, look into it, and make it a blob."""
        digest = part.digest()
        if file.sha256 not in {None, digest} or file.size not in {None, part.size}:
            size = part.size
            await part.discard()
            raise DigestMismatch(
                f"{file.name} arrived with {size} bytes and SHA-256 {digest}; promised: {file.size}, {file.sha256}.",
                "Nothing of it was kept. Try again; if it stays so, do not trust the source.",
            )
        self._report(Progress("check", part.size, part.size, file.name))
        try:
            header = await _inspect(part.path, file.name)
        except CorruptModel:
            await part.discard()
            raise
        entry = FileEntry(file.name, part.size, digest, _role(header))
        if await self._pin(entry):
            await part.discard()
        else:
            await part.publish(self._blobs.path(digest))
            descriptor = await self._blobs.pin(digest)
            if descriptor is not None:
                self._hold(digest, descriptor)
        self._headers.append((entry, header))


def _role(header: Header) -> str:
    return "mmproj" if capabilities.is_projector(header) else "model"


async def _inspect(path: Path, name: str) -> Header:
    try:
        return await in_thread(gguf.read, path)
    except CorruptModel as error:
        raise CorruptModel(f"{name}: {error.message}", error.hint) from error
    except OSError as error:
        raise translate(error, "reading", path) from error


def _known(file: RemoteFile) -> FileEntry | None:
    """The file as an entry of the store, when size and digest are known beforehand."""
    if file.sha256 is None or file.size is None:
        return None
    return FileEntry(file.name, file.size, file.sha256)


def _key(file: RemoteFile) -> str:
    """The name of the file's part: equal for equal bytes, whoever asks for them."""
    if file.sha256 is not None:
        return f"sha256-{file.sha256}"
    what = [[part.sha256 or part.url, part.size, part.member] for part in file.parts]
    return f"ref-{hashlib.sha256(json.dumps([file.name, what]).encode()).hexdigest()}"


def _room(file: RemoteFile, part: Part) -> int:
    """Bytes still to be written: the rest of the file, and the largest archive that lies beside it meanwhile."""
    if file.size is None and any(piece.length is None and piece.size is None for piece in file.parts):
        return 0
    total = file.size if file.size is not None else sum(piece.length or piece.size or 0 for piece in file.parts)
    archives = max((piece.size or 0 for piece in file.parts if piece.member is not None), default=0)
    held = sum(path.stat().st_size for path in part.path.parent.glob(f"{part.path.stem}~*"))
    return max(0, total - part.size) + max(0, archives - held)


def files_of(listing: Listing) -> tuple[RemoteFile, ...]:
    """What a source listed, when it is something that can be installed.

    Raises:
        SourceError: it listed nothing, or a name that no file may have.
    """
    if not listing.files:
        raise SourceError(f"{listing.ref} has no files.", "Check the reference.")
    for file in listing.files:
        if not file.parts or not file.name or "/" in file.name or "\0" in file.name:
            raise SourceError(f"{listing.ref} lists a file that cannot be: {file.name[:80]!r}.", "Check the reference.")
    return listing.files
