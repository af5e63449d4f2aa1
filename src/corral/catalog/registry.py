"""The registry: models by name; installed, updated, rolled back, moved and removed."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from corral.catalog import overrides, published
from corral.catalog.changes import Change, compare, size_of, still, wanted
from corral.catalog.garbage import Collector, Garbage
from corral.catalog.history import Past, Record, Step, pasts
from corral.catalog.manifests import decode, encode
from corral.catalog.move import Mover, Places
from corral.catalog.pull import Origin, Pull, files_of, key_of
from corral.catalog.references import family, name_of, reference
from corral.catalog.shelf import Shelf
from corral.catalog.usage import Limits, Needs, Usage, measure, require
from corral.catalog.verification import Finding, Verifier
from corral.domain.models import ModelRef, check_name
from corral.domain.ports import Destination, Progress, Report, silent
from corral.errors import (
    Conflict,
    CorralError,
    DigestMismatch,
    ModelPinned,
    NotSupported,
    StoreError,
)
from corral.kit.disk import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from corral.catalog.caches import Caches
    from corral.catalog.library import Entry, Library
    from corral.catalog.shelf import Discoverer
    from corral.domain.models import Installed, RemoteFile, Revision
    from corral.domain.ports import Clock, Source

_TRIES = 3


def _nobody(_: str) -> None:
    """Told the keys of parts."""


class Registry(Shelf):
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

    def __init__(  # noqa: PLR0913 - each is a port of its own, and all but three have a default
        self,
        models_dir: Path,
        sources: Mapping[str, Source],
        clock: Clock,
        library: Library | None = None,
        *,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        mirrors: Sequence[ModelRef] = (),
        caches: Caches | None = None,
        discover: Discoverer | None = None,
    ) -> None:
        super().__init__(models_dir, clock, library, discover)
        self._sources = sources
        self._limits = limits
        self._mirrors = mirrors
        self._caches = caches
        self._places = Places(models_dir)

    async def install(
        self,
        what: str,
        *,
        name: str | None = None,
        report: Report = silent,
        on_part: Callable[[str], None] = _nobody,
    ) -> Installed:
        """Install a model of the library, or what a reference `scheme:locator` names, under `name`.

        What is in the store already is not fetched; an unchanged model is returned at once. The earlier revision of the
        name stays in its history. When cancelled or killed, the model is as it was before, and what has arrived is used
        by the next try; `on_part` is told the key of each part.

        Raises:
            ModelNotFound: neither the library nor a source has it.
            Conflict, ModelPinned: another model has that name, or it is held at its revision.
            QuotaExceeded, DiskFull: there is no room; said before the first byte.
            SourceError, SourceNotFound, DigestMismatch, CorruptModel, UnsafeFormat, NoPermission: as they say.
        """
        if name is not None:
            check_name(name)
        entry = self.library.find(what)
        if entry is not None:
            return await self._install_entry(entry, name or entry.name, report, on_part)
        return await self._install_from(reference(what, self._sources, self.library.names()), name, report, on_part)

    async def check(self, name: str) -> Change:
        """Ask the source what an update would bring; nothing is downloaded.

        Raises:
            ModelNotFound: there is no such model.
            SourceError: the source cannot be asked.
        """
        installed = self._mine(name)
        entry = self._entry_of(installed)
        if entry is not None:
            files = [file.offered for file in entry.files]
            return compare(installed.name, installed.revision, entry.version, files, self._blobs.whole)
        ref = reference(installed.follows, self._sources, ())
        listing = await self._sources[ref.scheme].resolve(ref)
        files = list(files_of(listing, unsafe=self._allows(installed.follows)))
        return compare(installed.name, installed.revision, listing.version, files, self._blobs.whole)

    async def update(
        self, name: str, *, report: Report = silent, on_part: Callable[[str], None] = _nobody
    ) -> Installed:
        """Install what the model's source has now; the same model when nothing changed.

        Raises:
            ModelPinned: it is held at its revision.
            CorralError: as `install`.
        """
        installed = self._mine(name)
        self._refuse_pinned(installed, "updated")
        entry = self._entry_of(installed)
        if entry is not None:
            return await self._install_entry(entry, installed.name, report, on_part)
        return await self._install_from(
            reference(installed.follows, self._sources, ()), installed.name, report, on_part
        )

    def history(self, name: str) -> list[Past]:
        """The revisions that the model was, newest first.

        Raises:
            ModelNotFound: there is no such model.
        """
        return pasts(self._own(name), self._past, self._all_whole)

    async def rollback(self, name: str, to: str | None = None) -> Installed:
        """Let the model be the revision before, or the one whose id begins with `to`. Instant: its files are here.

        Raises:
            Conflict: there is none, or its files are no longer here; names what there is.
            ModelPinned: it is held at its revision.
        """
        called = self._own(name).name

        def back(record: Record) -> Record:
            if record.pinned:
                raise _pinned(called, "rolled back")
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

        Raises:
            ModelNotFound: there is no such model.
            ModelPinned: it is pinned, and `force` is not given.
        """
        async with self._blobs.locked():
            view = await in_thread(self._index.read)
            entry = self.library.find(name)
            called = name if name in view.records or encode(name) in view.broken or entry is None else entry.name
            record = view.records.get(called)
            if record is None and encode(called) not in view.broken:
                self._own(name)  # raises
                raise self._unknown(name)
            if record is not None and record.pinned and not force:
                raise _pinned(called, "removed", "or remove it with --force")
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
        view = await in_thread(self._index.strict)
        models: list[tuple[str, Revision]] = []
        for name in view.names:
            record = view.records[name]
            models.append((name, self._index.revision(record.current)))
            models.extend((name, past.revision) for past in self.history(name) if past.here and not past.current)
        total = sum({file.sha256: file.size for _, revision in models for file in revision.files}.values())
        found = await Verifier(self._blobs, report, total).findings(models)
        return [*found, *(Finding(decode(stem), "", error) for stem, error in view.broken.items())]

    async def gc(self, *, keep: Collection[str] = (), dry_run: bool = False) -> Garbage:
        """Remove what nobody needs: old revisions beyond `keep_revisions`, files, leftovers of killed processes.

        Parts with a key in `keep` stay, and whatever somebody has open. With `dry_run` it is only said.
        """
        async with self._blobs.locked():
            work = Collector(
                self._blobs, self._manifests, self._index, self._overrides, self._places, frozenset(keep), dry_run
            )
            found = await in_thread(work.collect, self._limits.keep_revisions, tuple(self._found()))
            if not dry_run:
                self._index.changed()
                await in_thread(self._publish)
            return found

    def usage(self) -> Usage:
        """What takes what, and what is shared. Blocks; some 0.2 s with ten thousand models."""
        partial = sum(self._blobs.held().values())
        return measure(self._blobs.root, self._needs(), self._blobs.sizes(), partial, self._limits.quota)

    def require_room(self, size: int | None, scheme: str, what: str) -> None:
        """Check that `size` bytes more may be written for `what`, of the source `scheme`; unknown is the default size.

        Raises:
            QuotaExceeded, DiskFull: they may not; says the sizes.
        """
        needed = self._limits.default_model_size if size is None else size
        if needed > 0:
            needs = self._needs() if scheme in self._limits.quotas else []
            sizes, root = self._blobs.sizes(), self._blobs.root
            require(needed, scheme, what, limits=self._limits, needs=needs, sizes=sizes, root=root)

    async def set_override(self, name: str, override: Mapping[str, object] | None) -> None:
        """Say what the model is in spite of its files; None takes it back. See `overrides.check` for what can be said.

        Raises:
            ModelNotFound: there is no such model.
            InvalidRequest, UnknownOption: it cannot be said.
        """
        said = None if override is None else overrides.check(override)
        called = self.get(name).name
        async with self._blobs.locked():
            await in_thread(self._overrides.write, called, said)
            await in_thread(self._publish)

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
        if folder is not None:
            async with self._blobs.locked():
                place = await in_thread(self._places.under, folder)
        moved = await Mover(self._blobs, self._clock, place, report).move(digests)
        async with self._blobs.locked():
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

    async def _install_from(
        self, ref: ModelRef, name: str | None, report: Report, on_part: Callable[[str], None]
    ) -> Installed:
        source = self._sources[ref.scheme]
        report(Progress("resolve", detail=str(ref)))
        listing = await source.resolve(ref)
        unsafe = self._allows(str(ref))
        files = files_of(listing, unsafe=unsafe)
        called = name or name_of(listing.ref)
        before = self._free_for(called, str(listing.ref))
        if before is not None and still(before.revision, listing, files) and self._all_whole(before.revision):
            return before
        if before is not None:
            self._refuse_pinned(before, "updated")
        await in_thread(self._require, files, ref.scheme, str(ref))
        return await self._bring(called, source, files, Origin.of(listing, unsafe=unsafe), (report, on_part, unsafe))

    async def _bring(
        self,
        name: str,
        source: Source,
        files: Sequence[RemoteFile],
        origin: Origin,
        how: tuple[Report, Callable[[str], None], bool],
    ) -> Installed:
        for _ in range(_TRIES):
            async with self._pull(*how) as pull:
                await pull.bring_all(files, source)
                installed = await self._commit(name, pull, await pull.conclude(origin), origin.source)
            if installed is not None:
                return installed
        raise _contested(name)

    async def _install_entry(
        self, entry: Entry, name: str, report: Report, on_part: Callable[[str], None]
    ) -> Installed:
        origin = Origin(str(entry.ref), entry.version, entry.licence, entry.defaults)
        before = self._free_for(name, origin.source)
        if before is not None and _is_of(before.revision, entry) and self._all_whole(before.revision):
            return before
        if before is not None:
            self._refuse_pinned(before, "updated")
        await in_thread(self._require, [file.offered for file in entry.files], entry.ref.scheme, name)
        for _ in range(_TRIES):
            async with self._pull(report, on_part, unsafe=False) as pull:
                offered: dict[str, RemoteFile] = {}
                for pinned in entry.files:
                    if await pull.reuse(pinned.entry):
                        continue
                    source = self._sources[entry.ref.scheme]
                    if not offered:
                        report(Progress("resolve", detail=str(entry.ref)))
                        offered = {file.name: file for file in files_of(await source.resolve(entry.ref))}
                    if pinned.entry.name not in offered:
                        raise DigestMismatch(f"{entry.ref} no longer has {pinned.entry.name}, which is pinned.")
                    await pull.bring(pinned.pin(offered[pinned.entry.name]), source)
                installed = await self._commit(name, pull, await pull.conclude(origin), entry.name)
            if installed is not None:
                return installed
        raise _contested(name)

    def _pull(self, report: Report, on_part: Callable[[str], None], unsafe: bool) -> Pull:
        mirrors = [(ref, self._sources[ref.scheme]) for ref in self._mirrors if ref.scheme in self._sources]
        return Pull(self._blobs, report, on_part=on_part, mirrors=mirrors, caches=self._caches, unsafe=unsafe)

    def _free_for(self, name: str, source: str) -> Installed | None:
        """The model that `name` stands for now, when one from `source` may take its place.

        Raises:
            Conflict: it is something else.
        """
        record = self._index.look().records.get(name)
        if record is None:
            return None
        before = self._whole(record)
        if family(before.revision.source) == family(source):
            return before
        raise Conflict(
            f"Another model is called {name!r}, from {before.revision.source}.",
            f"Choose another name with --name, or remove it first: corral rm {name}",
            param="name",
        )

    async def _commit(self, name: str, pull: Pull, revision: Revision, follows: str) -> Installed | None:
        """Let `name` stand for the revision; None when one of its files was removed in the meantime."""
        step = Step(revision.id, self._clock.wall(), revision.source, revision.version)
        async with self._blobs.locked():
            if not pull.intact(revision.files):
                return None
            self._index.changed()
            before = self._free_for(name, revision.source)
            if before is not None and before.revision.id != revision.id:
                self._refuse_pinned(before, "updated")
            return await in_thread(self._record, name, step, revision, follows)

    def _record(self, name: str, step: Step, revision: Revision, follows: str) -> Installed:
        old = self._index.look().records.get(name)
        fresh = Record(name, revision.id, (step,), follows)
        record = fresh if old is None else old.onto(step, follows)
        self._manifests.write(record, revision)
        self._publish()
        return self._whole(record)

    async def _change(self, name: str, change: Callable[[Record], Record]) -> Installed:
        """Write the record of `name` anew, as `change` makes it of what it is now."""
        async with self._blobs.locked():
            self._index.changed()
            record = self._own(name)
            changed = change(record)
            if changed != record:
                await in_thread(self._manifests.write, changed)
                await in_thread(self._publish)
            return self._whole(changed)

    def _forget(self, name: str, record: Record | None) -> int:
        self._manifests.forget(name)
        self._overrides.write(name, None)
        view = self._index.read()
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
            self._manifests.drop(mine - others)
            freed = sum(self._blobs.drop(digest) or 0 for digest in sorted(digests - needed))
        self._publish()
        return freed

    def _publish(self) -> None:
        """Write `manifest.json` anew."""
        self._index.changed()
        said = set(self._overrides.stems())
        rows = []
        for installed in self._summaries(list(self._index.look().names)):
            runtime = self._overrides.of(installed.name).get("runtime") if encode(installed.name) in said else None
            models = [file for file in installed.revision.files if file.role == "model"]
            path = self._blobs.path(models[0].sha256) if len(models) == 1 else None
            rows.append(published.row(installed, runtime, path))
        published.write(self._blobs.root / "manifest.json", rows, self._clock.wall())

    def _target(self, record: Record, to: str | None) -> str:
        """The id of the revision to roll back to, whose files are here."""
        target = record.target(to)
        step = next(step for step in record.history if step.revision == target)
        revision = self._past(step)
        if revision is None or not self._all_whole(revision):
            here = [past.revision.id[:12] for past in pasts(record, self._past, self._all_whole) if past.here]
            source = step.source or (revision.source if revision else record.follows)
            raise Conflict(
                f"The files of revision {target[:12]} of {record.name} are no longer here.",
                f"Here are: {', '.join(here) or 'none'}. "
                f"What its source has now: corral pull {source} --name {record.name}",
                param="revision",
            )
        return target

    def _past(self, step: Step) -> Revision | None:
        try:
            return self._index.revision(step)
        except StoreError:
            return None

    def _here(self, record: Record) -> dict[str, int]:
        """The digests and sizes of the files of a model's revisions, as far as they are in the store."""
        needed: dict[str, int] = {}
        for step in record.history:
            needed |= self._index.digests(step.revision)
        here = self._blobs.sizes()
        return {digest: size for digest, size in needed.items() if digest in here}

    def _needs(self) -> list[Needs]:
        found = []
        for name in self._index.look().names:
            record = self._index.look().records[name]
            source = record.current.source or self._index.revision(record.current).source
            revisions = tuple(frozenset(self._index.digests(step.revision)) for step in record.history)
            found.append(Needs(name, _scheme(source), revisions))
        return found

    def _require(self, files: Sequence[RemoteFile], scheme: str, what: str) -> None:
        missing = wanted(files, self._blobs.whole)
        held = self._blobs.held() if missing else {}
        needed: int | None = 0
        for file in missing:
            size = size_of(file)
            there = sum(count for part, count in held.items() if part.startswith(key_of(file)))
            needed = None if needed is None or size is None else needed + max(0, size - there)
        self.require_room(needed, scheme, what)

    def _mine(self, name: str) -> Installed:
        return self._whole(self._own(name))

    def _entry_of(self, installed: Installed) -> Entry | None:
        """The library's entry that the model was installed from."""
        entry = self.library.find(installed.follows)
        if entry is not None:
            return entry
        by_name = self.library.find(installed.name)
        return by_name if by_name is not None and str(by_name.ref) == installed.follows else None

    def _allows(self, ref: str) -> bool:
        return ref in self._limits.allow_pickle

    def _refuse_pinned(self, installed: Installed, what: str) -> None:
        if installed.pinned:
            raise _pinned(installed.name, what)

    def _all_whole(self, revision: Revision) -> bool:
        return all(self._blobs.whole(file) for file in revision.files)


def _is_of(revision: Revision, entry: Entry) -> bool:
    pinned = [file.entry.sha256 for file in entry.files]
    return [file.sha256 for file in revision.files] == pinned and dict(revision.defaults) == dict(entry.defaults)


def _scheme(source: str) -> str:
    try:
        return ModelRef.parse(source).scheme
    except CorralError:
        return source.partition(":")[0]


def _pinned(name: str, what: str, or_else: str = "") -> ModelPinned:
    return ModelPinned(
        f"{name} is pinned and is not {what}.", f"Let it go first: corral unpin {name}{or_else and f', {or_else}'}"
    )


def _contested(name: str) -> StoreError:
    return StoreError(f"{name}'s files were removed by somebody else, again and again.", "Try again.")
