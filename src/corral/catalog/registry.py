"""The registry: models by name, installed, looked up and removed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from corral.catalog.blobs import Blobs
from corral.catalog.library import Library, shipped
from corral.catalog.manifests import Manifests, decode, encode
from corral.catalog.pull import Origin, Pull, files_of
from corral.domain.models import Installed, ModelRef, check_name
from corral.domain.ports import Progress, Report, silent
from corral.errors import Conflict, CorruptModel, DigestMismatch, InvalidName, ModelNotFound, StoreError, nearest
from corral.kit.disk import human, in_thread

if TYPE_CHECKING:
    from pathlib import Path

    from corral.catalog.library import Entry
    from corral.domain.models import FileEntry, Listing, RemoteFile, Revision
    from corral.domain.ports import Clock, Source

_SETTLED = 0.1
"""Seconds after which a second change of a folder surely has another time stamp than the first."""

_TRIES = 3
_NO_SCHEME = re.compile(r"[^:]*$|[./~]")


@dataclass(frozen=True, slots=True)
class _View:
    """The store as it was read, and whether the folder's time stamp can vouch for it."""

    stamp: int | None
    vouched: bool
    models: Mapping[str, Installed]
    broken: Mapping[str, StoreError]


class Registry:
    """The models under `models_dir`. `sources` gives a source by its scheme; it is asked only when one is needed.

    Reads are cheap and see at once what other processes did. All methods may be used by several tasks and processes.
    """

    def __init__(
        self,
        models_dir: Path,
        sources: Mapping[str, Source],
        clock: Clock,
        library: Library | None = None,
    ) -> None:
        self._blobs = Blobs(models_dir, clock)
        self._manifests = Manifests(models_dir)
        self._sources = sources
        self._clock = clock
        self._library = library
        self._view: _View | None = None

    @property
    def library(self) -> Library:
        """The models that have short names, installed or not."""
        return self._library if self._library is not None else shipped()

    def names(self) -> list[str]:
        """The names of all installed models, sorted."""
        return sorted(self._look().models)

    def all(self) -> list[Installed]:
        """All installed models, by name. Those with a damaged record are left out; see `damaged`."""
        models = self._look().models
        return [models[name] for name in sorted(models)]

    def damaged(self) -> dict[str, StoreError]:
        """What is wrong with the records that cannot be read, by name. `install` and `remove` mend it."""
        broken = self._look().broken
        return {decode(stem): broken[stem] for stem in sorted(broken)}

    def get(self, name: str) -> Installed:
        """The model called `name`, by an alias of the library too.

        Raises:
            ModelNotFound: it is not installed; with the nearest names, or the command that installs it.
            StoreError: its record is damaged.
        """
        view = self._look()
        entry = self.library.find(name)
        for candidate in (name, entry.name if entry else name):
            if candidate in view.models:
                return view.models[candidate]
            if encode(candidate) in view.broken:
                raise view.broken[encode(candidate)]
        raise ModelNotFound.among(name, view.models, self.library.names())

    def path(self, entry: FileEntry) -> Path:
        """Where the file lies, which has the size it should have.

        Raises:
            CorruptModel: it is gone or cut short.
        """
        if not self._blobs.whole(entry):
            raise CorruptModel(
                f"{entry.name} is not in the store as it was installed ({human(entry.size)}).",
                "Install it again: corral pull NAME",
            )
        return self._blobs.path(entry.sha256)

    async def install(self, what: str, *, name: str | None = None, report: Report = silent) -> Installed:
        """Install a model of the library, or what a reference `scheme:locator` names, under `name`.

        What is in the store already is not fetched; an unchanged model is returned at once. When cancelled or killed,
        the model is as it was before, and what has arrived is used by the next try.

        Raises:
            ModelNotFound: neither the library nor a source has it.
            Conflict: another model has that name.
            SourceError, SourceNotFound, DigestMismatch, CorruptModel, DiskFull, NoPermission: as they say.
        """
        if name is not None:
            check_name(name)
        entry = self.library.find(what)
        if entry is not None:
            return await self._install_entry(entry, name or entry.name, report)
        ref = self.reference(what)
        source = self._sources[ref.scheme]
        report(Progress("resolve", detail=str(ref)))
        listing = await source.resolve(ref)
        files = files_of(listing)
        called = name or _name_of(listing.ref)
        before = self._free_for(called, str(listing.ref))
        if before is not None and _is_still(before.revision, listing) and self._all_whole(before.revision):
            return before
        for _ in range(_TRIES):
            async with Pull(self._blobs, report) as pull:
                for file in files:
                    await pull.bring(file, source)
                installed = await self._commit(called, pull, pull.revision(Origin.of(listing)))
            if installed is not None:
                return installed
        raise _contested(called)

    async def remove(self, name: str) -> int:
        """Forget the model, and free the files that no other model needs; the bytes freed.

        Raises:
            ModelNotFound: there is no such model.
        """
        async with self._blobs.locked():
            view = await in_thread(self._read)
            entry = self.library.find(name)
            called = name if name in view.models or encode(name) in view.broken or entry is None else entry.name
            if called not in view.models and encode(called) not in view.broken:
                raise ModelNotFound.among(name, view.models)
            return await in_thread(self._forget, called)

    async def verify(self, name: str) -> Installed:
        """Read every byte of the model again and compare with its digests; the model, when it is sound.

        Raises:
            DigestMismatch: a file is not what was installed.
            CorruptModel: a file is gone or cut short.
        """
        installed = self.get(name)
        for file in installed.revision.files:
            self.path(file)  # refuses what is gone or cut short
            digest = await self._blobs.digest(file.sha256)
            if digest != file.sha256:
                raise DigestMismatch(
                    f"{file.name} of {installed.name} is damaged: its SHA-256 is {digest}, not {file.sha256}.",
                    f"Install it again: corral rm {installed.name}, then corral pull {installed.name}",
                )
        return installed

    async def _install_entry(self, entry: Entry, name: str, report: Report) -> Installed:
        origin = Origin(str(entry.ref), entry.version, entry.licence, entry.defaults)
        before = self._free_for(name, origin.source)
        if before is not None and _is_of(before.revision, entry) and self._all_whole(before.revision):
            return before
        for _ in range(_TRIES):
            async with Pull(self._blobs, report) as pull:
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
                installed = await self._commit(name, pull, pull.revision(origin))
            if installed is not None:
                return installed
        raise _contested(name)

    def reference(self, what: str) -> ModelRef:
        """What `scheme:locator` refers to.

        Raises:
            ModelNotFound: it is no reference to a source that is here; with what was perhaps meant.
        """
        if what.endswith(".gguf") and _NO_SCHEME.match(what):
            path = what if what.startswith(("/", "./", "../", "~/")) else f"./{what}"
            raise ModelNotFound(f"{what!r} is no model's name.", f"For a file: corral pull file:{path}", param="model")
        try:
            ref = ModelRef.parse(what)
        except InvalidName as error:
            raise ModelNotFound.among(what, self.library.names()) from error
        if ref.scheme not in self._sources:
            close = nearest(what, self.library.names())
            if close:
                raise ModelNotFound.among(what, close)
            known = ", ".join(f"{scheme}:" for scheme in self._sources)
            raise ModelNotFound(
                f"{what!r} is neither in the library, nor is {ref.scheme!r} a source of models here.",
                f"Sources: {known}. Short names: {', '.join(self.library.names())}.",
                param="model",
            )
        return ref

    def _free_for(self, name: str, source: str) -> Installed | None:
        """The model that `name` stands for now, when one from `source` may take its place.

        Raises:
            Conflict: it is something else.
        """
        view = self._look()
        before = view.models.get(name)
        if before is None or _family(before.revision.source) == _family(source):
            return before
        raise Conflict(
            f"Another model is called {name!r}, from {before.revision.source}.",
            f"Choose another name with --name, or remove it first: corral rm {name}",
            param="name",
        )

    async def _commit(self, name: str, pull: Pull, revision: Revision) -> Installed | None:
        """Let `name` stand for the revision; None when one of its files was removed in the meantime."""
        installed = Installed(name, revision, self._clock.wall())
        async with self._blobs.locked():
            if not pull.intact(revision.files):
                return None
            self._view = None
            self._free_for(name, revision.source)
            await in_thread(self._record, installed)
        return installed

    def _record(self, installed: Installed) -> None:
        self._manifests.write(installed)
        self._sweep()

    def _forget(self, name: str) -> int:
        self._manifests.forget(name)
        return self._sweep()

    def _sweep(self) -> int:
        self._view = None
        live = self._manifests.sweep()
        return 0 if live is None else self._blobs.sweep(live)

    def _all_whole(self, revision: Revision) -> bool:
        return all(self._blobs.whole(file) for file in revision.files)

    def _look(self) -> _View:
        stamp = self._manifests.changed_at()
        view = self._view
        if view is None or not view.vouched or view.stamp != stamp:
            view = self._view = self._read()
        return view

    def _read(self) -> _View:
        # The stamp is taken before reading: a change while we read makes it differ. One within the same tick of the
        # file system's clock would not, so a stamp is believed only when it has aged.
        stamp = self._manifests.changed_at()
        vouched = stamp is None or self._clock.wall() - stamp / 1e9 > _SETTLED
        return _View(stamp, vouched, *self._manifests.read())


def _is_of(revision: Revision, entry: Entry) -> bool:
    pinned = [file.entry.sha256 for file in entry.files]
    return [file.sha256 for file in revision.files] == pinned and dict(revision.defaults) == dict(entry.defaults)


def _is_still(revision: Revision, listing: Listing) -> bool:
    """Whether the source has what was installed from it: equal version, and equal files as far as it tells."""
    if not listing.version or revision.version != listing.version or len(revision.files) != len(listing.files):
        return False
    return all(
        (theirs.name, theirs.size or ours.size, theirs.sha256 or ours.sha256) == (ours.name, ours.size, ours.sha256)
        for theirs, ours in zip(listing.files, revision.files, strict=True)
    )


def _family(source: str) -> str:
    """A source's reference without its version, so that another version may take a model's place."""
    return re.sub(r"==[^#]*", "", source)


def _name_of(ref: ModelRef) -> str:
    """A name for what a reference points at: the last piece of its locator, without version and suffix."""
    stem = _family(ref.locator).rstrip("/").rpartition("/")[2].removesuffix(".gguf")
    return check_name(re.sub(r"[^\w.\-]+", "-", stem, flags=re.ASCII).strip("-.").lower() or "model")


def _contested(name: str) -> StoreError:
    return StoreError(f"{name}'s files were removed by somebody else, again and again.", "Try again.")
