"""What is installed, for those who only read: by name, in pages, with what the user says of a model."""

from __future__ import annotations

from bisect import bisect_right
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from corral.catalog.blobs import Blobs
from corral.catalog.index import Index
from corral.catalog.library import Library, shipped
from corral.catalog.manifests import Manifests, decode, encode
from corral.catalog.overrides import Overrides, apply
from corral.catalog.views import Views, found_files
from corral.domain.models import Installed
from corral.errors import Conflict, ModelNotFound, StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from corral.catalog.history import Record
    from corral.catalog.index import View
    from corral.domain.models import FileEntry
    from corral.domain.ports import Clock

_NOTHING: Mapping[str, Installed] = {}


class Discoverer(Protocol):
    """Models that lie in folders of their own."""

    def installed(self) -> Mapping[str, Installed]:
        """What lies there now, by name: cheap, and the same mapping as long as nothing changed."""
        ...

    def problems(self) -> Mapping[str, str]:
        """What is wrong with files that would be models, by path."""
        ...


class Shelf:
    """The models under `models_dir`, and those that `discover` finds elsewhere.

    Reads are cheap and see at once what other processes did.
    """

    def __init__(
        self, models_dir: Path, clock: Clock, library: Library | None = None, discover: Discoverer | None = None
    ) -> None:
        self._blobs = Blobs(models_dir, clock)
        self._manifests = Manifests(models_dir)
        self._index = Index(models_dir, clock)
        self._overrides = Overrides(models_dir)
        self._views = Views(self._blobs)
        self._clock = clock
        self._library = library
        self._discover = discover
        self._names: tuple[View | None, object, list[str]] = (None, None, [])

    @property
    def library(self) -> Library:
        """The models that have short names, installed or not."""
        return self._library if self._library is not None else shipped()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._index.look().records or name in self._found())

    def names(self) -> list[str]:
        """The names of all installed models, sorted."""
        return list(self._sorted())

    def all(self) -> list[Installed]:
        """All installed models, by name. Those with a damaged record are left out; see `damaged`.

        Long texts of their facts are read when they are asked for.
        """
        return self._summaries(self._sorted())

    def page(self, after: str | None, limit: int) -> list[Installed]:
        """At most `limit` models as `all` has them, from the first name behind `after` on."""
        names = self._sorted()
        start = 0 if after is None else bisect_right(names, after)
        return self._summaries(names[start : start + limit])

    def stamp(self) -> str:
        """A text that changes whenever what `all` answers does, also when another process changed it."""
        found = self._found()
        known = "".join(f"-{name}{found[name].revision.id[:16]}" for name in sorted(found))
        known += "".join(f"-{path}: {why}" for path, why in sorted(self.problems().items()))
        return f"{self._index.stamp()}-{self._overrides.stamp():x}{known and f'-{hash_text(known)}'}"

    def damaged(self) -> dict[str, StoreError]:
        """What is wrong with the records that cannot be read, by name. `install` and `remove` mend it."""
        broken = self._index.look().broken
        return {decode(stem): broken[stem] for stem in sorted(broken)}

    def problems(self) -> Mapping[str, str]:
        """What is wrong with files in the user's own folders that would be models, by path."""
        return {} if self._discover is None else self._discover.problems()

    def get(self, name: str) -> Installed:
        """The model called `name`, by an alias of the library too, as its own record and manifest have it.

        Raises:
            ModelNotFound: it is not installed; with the nearest names, or the command that installs it.
            StoreError: its record is damaged.
        """
        entry = self.library.find(name)
        for candidate in (name, entry.name if entry else name):
            record = self._recorded(candidate)
            if record is not None:
                return self._whole(record)
            if candidate in self._found():
                return self._said(self._found()[candidate])
        raise self._unknown(name)

    def path(self, entry: FileEntry) -> Path:
        """Where the file lies, which has the size it should have.

        Raises:
            CorruptModel: it is gone or cut short, or on a disk that is not there.
        """
        if self._blobs.whole(entry):
            return self._blobs.path(entry.sha256)
        for installed in self._found().values():
            if entry in installed.revision.files and installed.folder is not None:
                return installed.folder / entry.name
        raise self._blobs.missing(entry)

    def files(self, installed: Installed) -> dict[str, Path]:
        """The model's files by role, as a runtime is given them.

        `model` is a file, the first piece of a split one, or a snapshot's folder.

        Raises:
            CorruptModel: one is gone or cut short, or on a disk that is not there.
        """
        if installed.folder is not None:
            return found_files(installed)
        for entry in installed.revision.files:
            if not self._blobs.whole(entry):
                raise self._blobs.missing(entry)
        return self._views.files(installed.revision)

    def override(self, name: str) -> Mapping[str, Any]:
        """What the user says of the model, by its own name; empty when nothing.

        Raises:
            StoreError: it is damaged.
        """
        return self._overrides.of(name)

    def _recorded(self, name: str) -> Record | None:
        """The record of `name`, as its file has it."""
        view = self._index.look()
        if name in view.records:
            record = self._index.confirm(view.records[name])
            # An index that lied is gone by now; what it said of other names is read again.
            return record if record is None or record.name == name else self._index.look().records.get(name)
        if encode(name) in view.broken:
            raise view.broken[encode(name)]
        return None

    def _own(self, name: str) -> Record:
        """The record of a model of the store, by an alias of the library too.

        Raises:
            ModelNotFound: there is none.
            Conflict: it lies in a folder of its own.
        """
        entry = self.library.find(name)
        for candidate in (name, entry.name if entry else name):
            record = self._recorded(candidate)
            if record is not None:
                return record
            found = self._found().get(candidate)
            if found is not None:
                raise Conflict(
                    f"{candidate} is not in the store: it lies in {found.folder}.",
                    "It is what its files there are: change or delete them there.",
                    param="model",
                )
        raise self._unknown(name)

    def _whole(self, record: Record) -> Installed:
        try:
            revision = self._index.whole(record.current)
        except StoreError:
            now = self._index.read().records.get(record.name)
            if now == record:
                raise
            if now is None:  # another process removed it since we looked
                raise self._unknown(record.name) from None
            return self._whole(now)
        return self._said(
            Installed(
                record.name, revision, record.current.installed_at, _follows(record, revision.source), record.pinned
            )
        )

    def _summary(self, record: Record) -> Installed:
        revision = self._index.revision(record.current)
        return Installed(
            record.name, revision, record.current.installed_at, _follows(record, revision.source), record.pinned
        )

    def _summaries(self, names: list[str]) -> list[Installed]:
        records, found = self._index.look().records, self._found()
        said = set(self._overrides.stems())
        models: list[Installed] = []
        for name in names:
            record = records.get(name)
            with suppress(StoreError, KeyError):  # removed or damaged since we looked; `get` says so
                installed = found[name] if record is None else self._summary(record)
                models.append(self._said(installed) if said and encode(name) in said else installed)
        return models

    def _said(self, installed: Installed) -> Installed:
        override = self._overrides.of(installed.name)
        return apply(installed, override) if override else installed

    def _sorted(self) -> list[str]:
        view, found = self._index.look(), self._found()
        if self._names[0] is not view or self._names[1] is not found:
            extra = [name for name in found if name not in view.records]
            self._names = (view, found, sorted([*view.names, *extra]) if extra else list(view.names))
        return self._names[2]

    def _found(self) -> Mapping[str, Installed]:
        return _NOTHING if self._discover is None else self._discover.installed()

    def _unknown(self, name: str) -> ModelNotFound:
        return ModelNotFound.among(name, self._sorted(), self.library.names())


def _follows(record: Record, source: str) -> str:
    return record.follows or source


def hash_text(text: str) -> str:
    """A short text that differs where `text` does."""
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:16]
