"""How a model's files get from a source into the store: resumed, verified, inspected, and only then visible.

registry.install                                        async with Pull(blobs, report, …) as pull:
  files_of(listing)      what is installed of it            await pull.bring_all(files, source)
  bring_all              three files at a time              revision = await pull.conclude(Origin.of(listing))
    ├ store              there already: hashed, reused      … commit, if pull.intact(revision.files)
    ├ caches             Hugging Face's, Ollama's: hard-linked once the bytes are proven
    ├ source             resumed, verified
    └ mirrors            by digest, when the source failed
  conclude               what the files make up, what they can do
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from corral.catalog import capabilities, formats, prompting
from corral.catalog.changes import size_of
from corral.catalog.tally import Tally
from corral.domain.models import FileEntry, ModelRef, Revision, told
from corral.domain.ports import Mirror
from corral.errors import CorruptModel, DigestMismatch, SourceError, SourceNotFound, UnsafeFormat
from corral.kit.disk import in_thread, translate

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from corral.catalog.blobs import Blobs
    from corral.catalog.caches import Caches
    from corral.catalog.formats import Inspected
    from corral.catalog.room import Claim
    from corral.domain.models import Listing, RemoteFile
    from corral.domain.ports import Report, Source
    from corral.kit.part import Part

_AT_ONCE: Final = 3

Probe = Callable[[prompting.Template], prompting.Prompting]
MirrorAt = tuple[ModelRef, "Source"]
"""Where to look for bytes of known digest, and the source that does; one that is no `Mirror` is passed over."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a revision's manifest says of where it comes from, and the launch options pinned with it.

    `facts` is what the source says of the model; what the files say counts more. `ignored` names files that the source
    has and that are not installed.
    """

    source: str
    version: str
    licence: str | None
    defaults: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    @classmethod
    def of(cls, listing: Listing, *, unsafe: bool = False) -> Self:
        """The origin of what a source listed, with what it pins itself. `unsafe` as it was given to `files_of`."""
        facts = dict(listing.facts)
        if listing.homepage is not None:
            facts.setdefault("homepage", listing.homepage)
        ignored = formats.select(listing.files, str(listing.ref), unsafe=unsafe).ignored
        return cls(str(listing.ref), listing.version, listing.licence, dict(listing.defaults), facts, ignored)


def _nobody(_: str) -> None:
    """Told the keys of parts."""


class Pull:
    """One model on its way into the store. `async with` it: what it relies on is kept from removal until the end.

    Args:
        blobs: the store's files.
        report: told the progress over all files of the model; it never goes backwards.
        on_part: told the key of each part before it is opened, and the one of its bytes, `sha256-HEX`, before they
            appear in the store: what a removal of leftovers must spare, and who gives up need not leave behind.
        mirrors: asked for files of known digest when the source failed, in order.
        caches: other programs' files on this machine, linked instead of fetched when the digest is known.
        unsafe: take files that can run code when they are opened (the user named this reference).
        claim: what the install may write; None is whatever the disk has room for.
    """

    def __init__(
        self,
        blobs: Blobs,
        report: Report,
        *,
        on_part: Callable[[str], None] = _nobody,
        mirrors: Sequence[MirrorAt] = (),
        caches: Caches | None = None,
        unsafe: bool = False,
        claim: Claim | None = None,
    ) -> None:
        self._blobs = blobs
        self._claim = claim
        self._tally = Tally(report)
        self._on_part = on_part
        self._mirrors = mirrors
        self._caches = caches
        self._unsafe = unsafe
        self._held: dict[str, int] = {}
        self._found: dict[str, Inspected | None] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def reuse(self, entry: FileEntry) -> bool:
        """Take the file from the store, if it is there whole and as it came; whether it was."""
        if self._blobs.whole(entry):
            self._tally.expect(entry.name, entry.size)
            self._tally.look(entry.name)
        if not await self._pin(entry):
            return False
        await self._inspect(entry, self._blobs.path(entry.sha256))
        self._tally.finish(entry.name, entry.size)
        return True

    async def bring_all(self, files: Sequence[RemoteFile], source: Source) -> None:
        """Bring every file, some at a time, in whatever order they arrive; the revision lists them in this one.

        Raises:
            CorralError: as `bring`, of the first file that failed; the others are left as far as they came.
        """
        for file in files:
            self._found.setdefault(file.name, None)
            self._tally.expect(file.name, file.size)
            known = _known(file)
            if known is not None and self._blobs.whole(known):
                self._tally.held(known.name, known.size)
        lanes = asyncio.Semaphore(_AT_ONCE)

        async def bring_equal(equal: Sequence[RemoteFile]) -> None:
            async with lanes:
                for file in equal:
                    await self.bring(file, source)

        try:
            async with asyncio.TaskGroup() as group:
                for equal in _by_content(files):
                    group.create_task(bring_equal(equal))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def bring(self, file: RemoteFile, source: Source) -> None:
        """Take the file from the store when its digest is known and there, else from another cache or the source.

        Raises:
            DigestMismatch: it is not what was promised; nothing is kept.
            CorruptModel, UnsafeFormat: it is no sound model, or nothing that is installed; nothing is kept.
            DiskFull: there is no room for it; said before the first byte where the size is known.
            SourceError: the source and all mirrors failed; what arrived is kept, and the next pull goes on from there.
        """
        self._tally.expect(file.name, file.size)
        known = _known(file)
        if known is not None and await self.reuse(known):
            return
        self._on_part(key_of(file))
        part = await self._blobs.part(key_of(file), self._tally.of(file.name))
        try:
            if self._claim is not None and size_of(file) is None:
                part.ask = self._claim.take
            # Another process may have brought it while we waited for the part.
            if known is not None and await self.reuse(known):
                await part.discard()
                return
            if known is None or not await self._link(known, part):
                self._blobs.require(_room(file, part), file.name)
                await self._fetch(file, source, part)
            await self._accept(file, part)
            if self._claim is not None:
                self._claim.arrived(key_of(file))
        finally:
            part.close()

    async def conclude(self, origin: Origin, probe: Probe = prompting.probe) -> Revision:
        """The revision that the files brought so far make up, with what they can do: `probe` tries chat templates out.

        Raises:
            CorruptModel: they do not make up a model.
        """
        return await in_thread(self.revision, origin, probe)

    def revision(self, origin: Origin, probe: Probe = prompting.probe) -> Revision:
        """As `conclude`, for who is in a thread already: it blocks for some 0.2 s."""
        shape = formats.assemble([item for item in self._found.values() if item is not None])
        found = capabilities.of_shape(shape, origin.defaults, probe)
        facts = {**origin.facts, **found.facts}
        if origin.ignored:
            facts["ignored_files"] = list(origin.ignored)
        licence = origin.licence or found.facts.get("licence")
        return Revision(
            source=origin.source,
            format=shape.format,
            files=shape.files,
            version=origin.version,
            licence=licence if isinstance(licence, str) else None,
            capabilities=found.capabilities,
            facts=facts,
            defaults=origin.defaults,
        )

    def intact(self, files: Sequence[FileEntry]) -> bool:
        """Whether all files were brought here and are in the store. Ask it with the store locked.

        What was moved to another disk in the meantime is, though it is not what is held here any more: it was verified
        before it took the place of that, and with the store locked nobody removes it.
        """
        return all(file.sha256 in self._held and self._blobs.whole(file) for file in files)

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

    async def _link(self, known: FileEntry, part: Part) -> bool:
        """Hold the bytes of another program's cache, where one has them; whether they are held."""
        if self._caches is None:
            return False
        for path in await in_thread(self._caches.find, known.sha256, known.size):
            if await part.link(path, known.sha256, self._tally.of(known.name)):
                return True
        return False

    async def _fetch(self, file: RemoteFile, source: Source, part: Part) -> None:
        """Have all bytes of the file in the part, from the source or, where its digest is known, from a mirror."""
        report = self._tally.of(file.name)
        failed: list[tuple[str, SourceError | SourceNotFound | DigestMismatch]] = []
        for where, offered, server in ((None, file, source), *self._second_sources(file)):
            held = part.size
            for _ in range(2):
                try:
                    await server.fetch(offered, part, report)
                    await _compare(file, part)
                except (SourceError, SourceNotFound, DigestMismatch) as error:
                    failed.append((f"{where}: " if where else "", error))
                    # What was held came from elsewhere and may be what is wrong: once more, from the start.
                    if isinstance(error, DigestMismatch) and held and not part.size:
                        held = 0
                        continue
                    break
                else:
                    return
        if not part.size:
            await part.discard()
        first = failed[0][1]
        if len(failed) == 1:
            raise first
        reasons = " ".join(dict.fromkeys(f"{where}{error.message}" for where, error in failed))
        raise type(first)(f"{file.name} could not be had. {reasons}", first.hint) from failed[-1][1]

    def _second_sources(self, file: RemoteFile) -> list[tuple[str, RemoteFile, Source]]:
        found: list[tuple[str, RemoteFile, Source]] = []
        for base, source in self._mirrors:
            offered = _mirrored(source, base, file)
            if offered is not None:
                found.append((told(str(base)), offered, source))
        return found

    async def _accept(self, file: RemoteFile, part: Part) -> None:
        """Look into what arrived, and make it a blob."""
        digest = part.digest()
        entry = FileEntry(file.name, part.size, digest)
        self._tally.check(file.name, part.size)
        try:
            await self._inspect(entry, part.held_at)
        except (CorruptModel, UnsafeFormat):
            await part.discard()
            raise
        if await self._pin(entry):
            await part.discard()
        else:
            if file.sha256 is None:
                self._on_part(key_of_bytes(digest))
            await part.publish(self._blobs.path(digest))
            descriptor = await self._blobs.pin(digest)
            if descriptor is not None:
                self._hold(digest, descriptor)
        await self._inspect(entry, self._blobs.path(digest), again=True)
        self._tally.finish(file.name, part.size)

    async def _inspect(self, entry: FileEntry, path: Path, *, again: bool = False) -> None:
        """Note what the file is; `again`: it was looked into, and only lies elsewhere now."""
        before = self._found.get(entry.name)
        if again and before is not None:
            self._found[entry.name] = before.moved(path)
            return
        try:
            self._found[entry.name] = await in_thread(formats.inspect, path, entry, unsafe=self._unsafe)
        except CorruptModel as error:
            raise CorruptModel(f"{entry.name}: {error.message}", error.hint) from error
        except OSError as error:
            raise translate(error, "reading", path) from error


def _mirrored(source: Source, base: ModelRef, file: RemoteFile) -> RemoteFile | None:
    return source.mirrored(base, file) if isinstance(source, Mirror) else None


async def _compare(file: RemoteFile, part: Part) -> None:
    """Hold what the source says it brought against what was promised; nothing else is kept."""
    digest, size = part.digest(), part.size
    if file.sha256 in {None, digest} and file.size in {None, size}:
        return
    await part.restart()
    raise DigestMismatch(
        f"{file.name} arrived with {size} bytes and SHA-256 {digest}; promised: {file.size}, {file.sha256}.",
        "Nothing of it was kept. Try again; if it stays so, do not trust the source.",
    )


def _by_content(files: Sequence[RemoteFile]) -> list[list[RemoteFile]]:
    """Files of equal bytes together: the second is taken from the store when the first is there."""
    groups: dict[str, list[RemoteFile]] = {}
    for file in files:
        groups.setdefault(key_of(file), []).append(file)
    return list(groups.values())


def _known(file: RemoteFile) -> FileEntry | None:
    """The file as an entry of the store, when size and digest are known beforehand."""
    if file.sha256 is None or file.size is None:
        return None
    return FileEntry(file.name, file.size, file.sha256)


def key_of(file: RemoteFile) -> str:
    """The name of the file's part: equal for equal bytes, whoever asks for them."""
    if file.sha256 is not None:
        return key_of_bytes(file.sha256)
    what = [[part.sha256 or part.url, part.size, part.member] for part in file.parts]
    return f"ref-{hashlib.sha256(json.dumps([file.name, what]).encode()).hexdigest()}"


def key_of_bytes(digest: str) -> str:
    """The name of the part of the bytes with that SHA-256."""
    return f"sha256-{digest}"


def _room(file: RemoteFile, part: Part) -> int:
    """Bytes still to be written: the rest of the file, and the largest archive that lies beside it meanwhile."""
    if file.size is None and any(piece.length is None and piece.size is None for piece in file.parts):
        return 0
    total = file.size if file.size is not None else sum(piece.length or piece.size or 0 for piece in file.parts)
    archives = max((piece.size or 0 for piece in file.parts if piece.member is not None), default=0)
    held = sum(path.stat().st_size for path in part.path.parent.glob(f"{part.path.stem}~*"))
    return max(0, total - part.size) + max(0, archives - held)


def files_of(listing: Listing, *, unsafe: bool = False) -> tuple[RemoteFile, ...]:
    """What is installed of what a source listed, in the order in which a revision lists it.

    Raises:
        SourceError: it listed nothing, or names that no files may have.
        UnsafeFormat: its weights are pickles or the like, and `unsafe` does not allow that.
    """
    return formats.select(listing.files, str(listing.ref), unsafe=unsafe).files
