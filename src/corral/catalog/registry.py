"""The registry: models by name; installed, updated, rolled back, moved and removed."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from corral.catalog import overrides
from corral.catalog.garbage import Collector, Garbage
from corral.catalog.history import Past, Record, Step, pasts
from corral.catalog.intake import Intake, pinned
from corral.catalog.manifests import decode, encode
from corral.catalog.move import Mover
from corral.catalog.references import reference
from corral.catalog.usage import Usage, measure
from corral.catalog.verification import Finding, Verifier
from corral.domain.ports import Destination, Report, silent
from corral.errors import (
    Conflict,
    NotSupported,
    StoreError,
)
from corral.kit.disk import in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping
    from pathlib import Path

    from corral.catalog.index import Index
    from corral.domain.models import Installed, ModelRef, Revision

    Keep = Callable[[], Awaitable[Collection[str]]]
    """Says what is to be kept; asked when nobody else may change the store any more, and not before."""


async def _nothing() -> Collection[str]:
    return ()


class Registry(Intake):
    """The models under `models_dir`. `sources` gives a source by its scheme; it is asked only when one is needed.

    Reads are cheap and see at once what other processes did. All methods may be used by several tasks and processes.

    Args:
        models_dir: the store's folder, made when something is first written.
        sources: sources by scheme.
        clock: time.
        library: short names; those that ship with Corral when None.
        limits: how far the store may grow.
        mirrors: where bytes of known digest are looked for when a source failed.
        caches: other programs' files on this machine.
        discover: models that lie in folders of their own.
    """

    def history(self, name: str) -> list[Past]:
        """The revisions that the model was, newest first.

        Raises:
            ModelNotFound: there is no such model.
        """
        return pasts(self._own(name), self._past, self.sound)

    async def rollback(self, name: str, to: str | None = None) -> Installed:
        """Let the model be the revision before, or the one whose id begins with `to`. Instant: its files are here.

        Raises:
            Conflict: there is none, or its files are no longer here; names what there is.
            ModelPinned: it is held at its revision.
        """
        called = self._own(name).name

        def back(record: Record) -> Record:
            if record.pinned:
                raise pinned(called, "rolled back")
            return replace(record, revision=self._target(record, to))

        return await self._change(called, back)

    async def pin(self, name: str, revision: str | None = None) -> Installed:
        """Hold the model at its revision, or at the one whose id begins with `revision`.

        Raises:
            ModelNotFound: there is no such model.
            Conflict: there is no such revision, or its files are no longer here.
        """

        def hold(record: Record) -> Record:
            target = record.revision if revision is None else self._target(record, revision)
            return replace(record, revision=target, pinned=True)

        return await self._change(self._own(name).name, hold)

    async def unpin(self, name: str) -> Installed:
        """Let the model be updated and removed again.

        Raises:
            ModelNotFound: there is no such model.
        """
        return await self._change(self._own(name).name, lambda record: replace(record, pinned=False))

    async def remove(self, name: str, *, force: bool = False) -> int:
        """Forget the model with its history, and free the files that no other model needs; the bytes freed.

        The name goes first. A removal that was killed after that is finished by calling this again.

        Raises:
            ModelNotFound: there is no such model.
            ModelPinned: it is pinned, and `force` is not given.
        """
        async with self._blobs.locked():
            view = await in_thread(self._index.look)
            entry = self.library.find(name)
            called = name if name in view.records or encode(name) in view.broken or entry is None else entry.name
            record = view.records.get(called)
            if record is None and encode(called) not in view.broken:
                if not self._manifests.going(called):
                    self._own(name)  # raises
                    raise self._unknown(name)
                record = self._manifests.went(called)
            elif record is not None and record.pinned and not force:
                raise pinned(called, "removed", "or remove it with --force")
            return await in_thread(self._forget, called, record)

    async def verify(self, name: str, *, report: Report = silent) -> Installed:
        """Read every byte of the model again and compare with its digests; the model, when it is sound.

        Raises:
            DigestMismatch: a file is not what was installed.
            CorruptModel: a file is gone or cut short.
        """
        installed = self._mine(name)
        await Verifier(self._blobs, report, installed.revision.size).revision(installed.name, installed.revision)
        return installed

    async def verify_all(self, report: Report = silent) -> list[Finding]:
        """Verify every model of the store, with those of its earlier revisions that are here; damaged records, too."""
        models, broken = await in_thread(self._every_revision)
        total = sum({file.sha256: file.size for _, revision in models for file in revision.files}.values())
        found = await Verifier(self._blobs, report, total).findings(models)
        return [*found, *(Finding(decode(stem), "", error) for stem, error in broken.items())]

    async def gc(self, *, keep: Keep = _nothing, dry_run: bool = False) -> Garbage:
        """Remove what nobody needs: old revisions beyond `keep_revisions`, files, leftovers of killed processes.

        What came with a key that `keep` says stays, in part or whole, and whatever somebody has open. With `dry_run` it
        is only said.
        """
        async with self._blobs.locked():
            work = self._collector(await keep(), dry_run=dry_run)
            found = await in_thread(work.collect, self._limits.keep_revisions, tuple(self._found()))
            await in_thread(self._index.adopt, work.index)
            if not dry_run:
                await in_thread(self._publish)
            return found

    async def discard(self, keys: Collection[str], keep: Keep = _nothing) -> None:
        """Throw away what came with those keys for a cancelled install, but what a model needs or somebody is at.

        What came with a key that `keep` says stays, too.
        """
        async with self._blobs.locked():
            await in_thread(self._collector((), dry_run=False).discard, frozenset(keys) - frozenset(await keep()))

    def usage(self) -> Usage:
        """What takes what, and what is shared. Blocks; some 0.2 s with ten thousand models."""
        partial = sum(self._blobs.held().values())
        return measure(self._blobs.root, self._needs(), self._blobs.sizes(), partial, self._limits.quota)

    async def set_override(self, name: str, override: Mapping[str, object] | None) -> None:
        """Say what the model is in spite of its files; None takes it back. See `overrides.check` for what can be said.

        Raises:
            ModelNotFound: there is no such model.
            InvalidRequest, UnknownOption: it cannot be said.
        """
        said = None if override is None else overrides.check(override)
        await self._say(name, lambda _: said)

    async def change_override(self, name: str, change: Callable[[Mapping[str, object]], Mapping[str, object]]) -> None:
        """Say of the model what `change` makes of what is said of it, empty when nothing; nobody else can between.

        Raises:
            ModelNotFound, InvalidRequest, UnknownOption: as `set_override`.
            StoreError: what is said of it is damaged.
        """
        await self._say(name, lambda called: overrides.check(change(self.override(called))))

    async def move(self, name: str, folder: Path | None, *, report: Report = silent) -> int:
        """Move the model's files to `folder` on another disk, or back into the store; the bytes moved.

        A file is copied, verified, and only then linked to in its place, so that a kill leaves it where it was or is.
        Who has it open keeps it.

        Raises:
            ModelNotFound, DiskFull, DigestMismatch, Conflict: as they say.
        """
        record = self._own(name)
        digests = await in_thread(self._here, record)
        place = None
        with ExitStack() as stack:
            if folder is not None:
                async with self._blobs.locked():
                    place = await in_thread(self._places.under, folder)
                    stack.callback(os.close, self._places.use(place))
            moved = await Mover(self._blobs, self._clock, place, report).move(digests)
        async with self._blobs.locked():
            await in_thread(self._index.look)
            await in_thread(self._publish)
        return moved

    async def push(self, name: str, to: ModelRef, *, report: Report = silent) -> ModelRef:
        """Put the model where others can install it from; the reference to install it by.

        Raises:
            NotSupported: nothing can be put there.
            SourceError: it cannot be reached.
        """
        installed = self._mine(name)
        source = self._sources[reference(str(to), self._sources, ()).scheme]
        if not isinstance(source, Destination):
            raise NotSupported(f"Nothing can be pushed to {to.scheme!r}.", "Push to a bucket: s3://BUCKET/FOLDER")
        async with AsyncExitStack() as stack:
            files: dict[str, Path] = {}
            for file in installed.revision.files:
                files[file.sha256] = self.path(file)
                held = None if installed.folder else await self._blobs.pin(file.sha256)
                if held is not None:
                    stack.callback(os.close, held)
            return await source.push(installed, files, to, report)

    async def _say(self, name: str, said: Callable[[str], Mapping[str, object] | None]) -> None:
        """Keep as the model's override what `said` says of its own name, asked while nobody else may change it."""
        async with self._blobs.locked():
            await in_thread(self._index.look)
            called = self.get(name).name
            await in_thread(self._overrides.write, called, said(called))
            await in_thread(self._publish)

    def _collector(self, keep: Collection[str], *, dry_run: bool) -> Collector:
        return Collector(
            self._blobs, self._manifests, self._index.fresh(), self._overrides, self._places, frozenset(keep), dry_run
        )

    def _every_revision(self) -> tuple[list[tuple[str, Revision]], Mapping[str, StoreError]]:
        """All revisions that are here, each with its model's name, read anew; and what is wrong with records."""
        index = self._index.fresh()
        view = index.read()
        models: list[tuple[str, Revision]] = []
        for name in view.names:
            record = view.records[name]
            models.append((name, index.revision(record.current)))
            known = pasts(record, lambda step: _past(index, step), self.sound)
            models.extend((name, past.revision) for past in known if past.here and not past.current)
        return models, view.broken

    async def _change(self, name: str, change: Callable[[Record], Record]) -> Installed:
        """Write the record of `name` anew, as `change` makes it of what it is now."""
        async with self._blobs.locked():
            record = self._own(name)
            changed = change(record)
            if changed != record:
                await in_thread(self._manifests.write, changed)
                self._index.wrote(name, changed)
                await in_thread(self._publish)
            return self._whole(changed)

    def _forget(self, name: str, record: Record | None) -> int:
        self._manifests.forget(name)
        self._overrides.write(name, None)
        self._index.wrote(name, None)
        view = self._index.latest()
        freed = 0
        if not view.broken:  # else what the damaged record needs is not known, and nothing is taken from under it
            if record is None:
                # What it needed is not known either, so whatever nobody names goes.
                mine, digests = self._manifests.all(), set(self._blobs.sizes())
            else:
                mine = {step.revision for step in record.history}
                digests = {digest for known in mine for digest in self._index.digests(known)}
            others = {step.revision for other in view.records.values() for step in other.history}
            needed = {digest for known in others for digest in self._index.digests(known)}
            # The manifests last: who finishes this after a kill reads in them what is to go.
            freed = sum(self._blobs.drop(digest) or 0 for digest in sorted(digests - needed))
            self._manifests.drop(mine - others)
        self._manifests.done(name)
        self._publish()
        return freed

    def _target(self, record: Record, to: str | None) -> str:
        """The id of the revision to roll back to, whose files are here."""
        target = record.target(to)
        step = next(step for step in record.history if step.revision == target)
        revision = self._past(step)
        if revision is None or not self.sound(revision):
            here = [past.revision.id[:12] for past in pasts(record, self._past, self.sound) if past.here]
            source = step.source or (revision.source if revision else record.follows)
            raise Conflict(
                f"The files of revision {target[:12]} of {record.name} are no longer here.",
                f"Here are: {', '.join(here) or 'none'}. "
                f"What its source has now: corral pull {source} --name {record.name}",
                param="revision",
            )
        return target

    def _past(self, step: Step) -> Revision | None:
        return _past(self._index, step)

    def _here(self, record: Record) -> dict[str, int]:
        """The digests and sizes of the files of a model's revisions, as far as they are in the store."""
        needed: dict[str, int] = {}
        for step in record.history:
            needed |= self._index.digests(step.revision)
        here = self._blobs.sizes()
        return {digest: size for digest, size in needed.items() if digest in here}


def _past(index: Index, step: Step) -> Revision | None:
    try:
        return index.revision(step)
    except StoreError:
        return None
