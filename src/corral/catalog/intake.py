"""How models come in: installed by name or reference, compared with their source, updated."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from corral.catalog import overrides, published
from corral.catalog.changes import Change, compare, size_of, still, wanted
from corral.catalog.history import Record, Step
from corral.catalog.manifests import encode
from corral.catalog.move import Places
from corral.catalog.pull import Origin, Pull, files_of, key_of
from corral.catalog.references import family, name_of, reference
from corral.catalog.room import Claim, Room
from corral.catalog.shelf import Shelf
from corral.catalog.usage import UNLIMITED, Limits, Needs
from corral.domain.models import ModelRef, check_name, told
from corral.domain.ports import Progress, Report, silent
from corral.errors import (
    Conflict,
    CorralError,
    DigestMismatch,
    ModelNotFound,
    ModelPinned,
    StoreError,
)
from corral.kit.disk import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from corral.catalog.caches import Caches
    from corral.catalog.library import Entry, Library
    from corral.catalog.shelf import Discoverer
    from corral.domain.models import Installed, RemoteFile, Revision
    from corral.domain.ports import Clock, Source

_TRIES = 3


def _nobody(_: str) -> None:
    """Told the keys of parts."""


class Intake(Shelf):
    """The models under `models_dir`, for those who add to them. See `Registry` for its arguments."""

    def __init__(  # noqa: PLR0913 - each is a port of its own, and all but three have a default
        self,
        models_dir: Path,
        sources: Mapping[str, Source],
        clock: Clock,
        library: Library | None = None,
        *,
        limits: Limits = UNLIMITED,
        mirrors: Sequence[ModelRef] = (),
        caches: Caches | None = None,
        discover: Discoverer | None = None,
    ) -> None:
        super().__init__(models_dir, clock, library, discover)
        self._sources = sources
        self._limits = limits
        self._room = Room(self._blobs, limits, self._needs)
        self._mirrors = mirrors
        self._caches = caches
        self._places = Places(models_dir)
        self._published: dict[str, tuple[Record, bytes]] = {}

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

    def require_room(self, size: int | None, scheme: str, what: str) -> None:
        """Check that `size` bytes more may be written for `what`, of the source `scheme`; unknown is the default size.

        What installs that are under way have yet to write is taken for written.

        Raises:
            QuotaExceeded, DiskFull: they may not; says the sizes.
        """
        self._room.require(size, scheme, what)

    async def _install_from(
        self, ref: ModelRef, name: str | None, report: Report, on_part: Callable[[str], None]
    ) -> Installed:
        source = self._sources[ref.scheme]
        report(Progress("resolve", detail=told(str(ref))))
        listing = await source.resolve(ref)
        unsafe = self._allows(str(ref))
        files = files_of(listing, unsafe=unsafe)
        called = name or name_of(listing.ref)
        before = self._free_for(called, str(listing.ref))
        same = before is not None and still(before.revision, listing, files)
        if before is not None and same and self.sound(before.revision):
            return before
        if before is not None and not same:
            self._refuse_pinned(before, "updated")
        with self._claim(files, ref.scheme, str(listing.ref)) as claim:
            await in_thread(claim.reserve)
            how = (report, on_part, unsafe, claim)
            return await self._bring(called, source, files, Origin.of(listing, unsafe=unsafe), how)

    async def _bring(
        self,
        name: str,
        source: Source,
        files: Sequence[RemoteFile],
        origin: Origin,
        how: tuple[Report, Callable[[str], None], bool, Claim],
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
        same = before is not None and _is_of(before.revision, entry)
        if before is not None and same and self.sound(before.revision):
            return before
        if before is not None and not same:
            self._refuse_pinned(before, "updated")
        with self._claim([file.offered for file in entry.files], entry.ref.scheme, name) as claim:
            await in_thread(claim.reserve)
            return await self._bring_entry(entry, name, origin, (report, on_part, False, claim))

    async def _bring_entry(
        self, entry: Entry, name: str, origin: Origin, how: tuple[Report, Callable[[str], None], bool, Claim]
    ) -> Installed:
        report = how[0]
        for _ in range(_TRIES):
            async with self._pull(*how) as pull:
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

    def _pull(self, report: Report, on_part: Callable[[str], None], unsafe: bool, claim: Claim) -> Pull:
        mirrors = [(ref, self._sources[ref.scheme]) for ref in self._mirrors if ref.scheme in self._sources]
        more: dict[str, Any] = {"mirrors": mirrors, "caches": self._caches, "unsafe": unsafe, "claim": claim}
        return Pull(self._blobs, report, on_part=on_part, **more)

    def _free_for(self, name: str, source: str) -> Installed | None:
        """The model that `name` stands for now, when one from `source` may take its place.

        Raises:
            Conflict: it is something else.
        """
        record = self._index.look().records.get(name)
        if record is None:
            return None
        try:
            before = self._whole(record)
        except ModelNotFound:
            return None
        if family(before.revision.source) == family(source):
            return before
        raise Conflict(
            f"Another model is called {name!r}, from {before.revision.source}.",
            f"Choose another name with --name, or remove it first: corral rm {name}",
            param="name",
        )

    async def _commit(self, name: str, pull: Pull, revision: Revision, follows: str) -> Installed | None:
        """Let `name` stand for the revision; None when one of its files was removed in the meantime.

        Raises:
            QuotaExceeded: another process took the room; the files stay until they are collected.
        """
        step = Step(revision.id, self._clock.wall(), revision.source, revision.version)
        async with self._blobs.locked():
            if not pull.intact(revision.files):
                return None
            before = self._free_for(name, revision.source)
            if before is not None and before.revision.id != revision.id:
                self._refuse_pinned(before, "updated")
            await in_thread(self._room.committed, revision.files, _scheme(revision.source), name)
            for file in revision.files:
                self._blobs.trust(file.sha256)
            return await in_thread(self._record, name, step, revision, follows)

    def _record(self, name: str, step: Step, revision: Revision, follows: str) -> Installed:
        old = self._index.latest().records.get(name)
        fresh = Record(name, revision.id, (step,), follows)
        record = fresh if old is None else old.onto(step, follows)
        if old is None and self._manifests.going(name):
            # What was said of the model that a killed removal left half removed is not said of this one.
            self._overrides.write(name, None)
            self._manifests.done(name)
        self._manifests.write(record, revision)
        self._index.wrote(name, record)
        self._publish()
        return self._whole(record)

    def _publish(self) -> None:
        """Write `manifest.json` anew, as what was last read or written has it. Call it locked."""
        said, view, known = set(self._overrides.stems()), self._index.latest(), self._published
        self._published, rows = {}, []
        for name in view.names:
            with suppress(StoreError):  # what is damaged is not listed
                record = view.records[name]
                if said and encode(name) in said:
                    rows.append(self._row(self._summary(record), self._overrides.of(name)))
                    continue
                old = known.get(name)
                same = old is not None and (old[0] is record or old[0] == record)
                row = old[1] if old is not None and same else self._row(self._summary(record), {})
                self._published[name] = (record, row)
                rows.append(row)
        published.write(self._blobs.root / "manifest.json", rows, self._clock.wall())

    def _row(self, installed: Installed, override: Mapping[str, Any]) -> bytes:
        models = [file for file in installed.revision.files if file.role == "model"]
        path = self._blobs.path(models[0].sha256) if len(models) == 1 else None
        return published.row(
            overrides.apply(installed, override) if override else installed, override.get("runtime"), path
        )

    def _needs(self) -> list[Needs]:
        found = []
        view = self._index.look()
        for name in view.names:
            record = view.records[name]
            with suppress(StoreError):  # removed by another process since we looked
                source = record.current.source or self._index.revision(record.current).source
                revisions = tuple(frozenset(self._index.digests(step.revision)) for step in record.history)
                found.append(Needs(name, _scheme(source), revisions))
        return found

    def _claim(self, files: Sequence[RemoteFile], scheme: str, what: str) -> Claim:
        missing = wanted(files, self._blobs.whole)
        return Claim(self._room, scheme, what, {key_of(file): size_of(file) for file in missing})

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
            raise pinned(installed.name, what)

    def sound(self, revision: Revision) -> bool:
        """Whether its files are there with their sizes, and none was found to be damaged. Reads no bytes of them."""
        doubted = self._blobs.doubted()
        return all(self._blobs.whole(file) and file.sha256 not in doubted for file in revision.files)


def _is_of(revision: Revision, entry: Entry) -> bool:
    pinned = [file.entry.sha256 for file in entry.files]
    return [file.sha256 for file in revision.files] == pinned and dict(revision.defaults) == dict(entry.defaults)


def _scheme(source: str) -> str:
    try:
        return ModelRef.parse(source).scheme
    except CorralError:
        return source.partition(":")[0]


def pinned(name: str, what: str, or_else: str = "") -> ModelPinned:
    """The error for a model that is held at its revision, when it should be `what`."""
    return ModelPinned(
        f"{name} is pinned and is not {what}.", f"Let it go first: corral pin {name} --off{or_else and f', {or_else}'}"
    )


def _contested(name: str) -> StoreError:
    return StoreError(f"{name}'s files were removed by somebody else, again and again.", "Try again.")
