"""What the store's records say, read once and kept up to date: fast with ten thousand names, never believed blindly.

`index.json` beside the records holds what was read of them, each with the stamp (time of change, size, inode) of the
file it was read from. An entry counts only while that file has that stamp; what has none, or was written a moment ago,
is read from the record itself. The first line is the SHA-256 of the rest, so a cut or damaged index is no index. It is
written by a reader who had to read many records, and may be deleted at any time. Whoever acts on a model (`whole`)
reads its record and its manifest, not the index.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from corral.catalog import history
from corral.catalog.history import Record
from corral.catalog.manifests import CAPABILITIES, Facts, Manifests, Recorded, encode
from corral.domain.models import FileEntry, Revision
from corral.errors import StoreError
from corral.kit.disk import translate, write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from corral.catalog.history import Step
    from corral.domain.ports import Clock

Sign = list[int]

_SETTLED: Final = 0.1
"""Seconds after which a second change of a file surely has another time stamp than the first."""

_WORTH: Final = 64
"""Records that had to be read for the index to be written anew."""

_LONG: Final = 400
"""Characters from which a text of a revision stays out of the index."""

_KEPT: Final = 256
"""Revisions of which all is kept in memory."""

_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class View:
    """The records as they were read, and whether the folders' time stamps can vouch for them."""

    stamps: tuple[int, ...]
    vouched: bool
    records: Mapping[str, Record]
    names: tuple[str, ...]
    broken: Mapping[str, StoreError]
    stamp: str


class Index:
    """The records of the store under `root`. Reading is cheap and sees at once what other processes did. Blocks."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self._root = root
        self._clock = clock
        self._manifests = Manifests(root)
        self._view: View | None = None
        self._opened = False
        self._records: dict[str, tuple[Sign | None, Record]] = {}
        self._rows: dict[str, tuple[Sign | None, list[Any]]] = {}
        self._revisions: dict[str, Recorded] = {}
        self._whole: dict[str, Recorded] = {}
        self._confirmed: set[str] = set()
        self._signs: Mapping[str, Sign | None] = {}

    def look(self) -> View:
        """The records as they are now; free of charge when nothing changed.

        Raises:
            StoreError: the folders cannot be read.
        """
        stamps = self._stamps()
        view = self._view
        if view is None or not view.vouched or view.stamps != stamps:
            view = self.read()
        return view

    def read(self) -> View:
        """The records as they are now, whatever was believed; what did not change is not read again."""
        if not self._opened:
            self._opened = True
            self._open()
        # The stamps are taken before reading: a change while we read makes them differ. One within the same tick of
        # the file system's clock would not, so a stamp is believed only when it has aged.
        stamps = self._stamps()
        now = self._clock.wall()
        vouched = all(abs(now - stamp / 1e9) > _SETTLED for stamp in stamps)
        names, manifests = _scan(self._manifests.names, now), _scan(self._manifests.manifests, now)
        self._signs = manifests
        records: dict[str, Record] = {}
        kept: dict[str, tuple[Sign | None, Record]] = {}
        broken: dict[str, StoreError] = {}
        fresh = 0
        self._forget_changed()
        for stem, sign in names.items():
            known = self._records.get(stem)
            try:
                if known is None or sign is None or known[0] != sign:
                    fresh += 1
                    record = self._manifests.record(stem)
                    self._confirmed.add(stem)
                else:
                    record = known[1]
                if record.revision not in self._rows:
                    fresh += 1
                    self._keep(record.revision)
            except StoreError as error:
                broken[stem] = error
            except FileNotFoundError:
                continue  # removed while we looked
            else:
                kept[stem] = (sign, record)
                records[record.name] = record
        self._records = kept
        self._confirmed &= kept.keys()
        stamp = hashlib.sha256(orjson.dumps([names, manifests]) if vouched else os.urandom(16)).hexdigest()[:32]
        view = self._view = View(stamps, vouched, records, tuple(sorted(records)), broken, stamp)
        if fresh > _WORTH:
            self._write()
        return view

    def strict(self) -> View:
        """The records as they are now, each of them read again."""
        self.forget()
        return self.read()

    def forget(self) -> None:
        """Believe nothing that was read."""
        self._opened = True
        self._view = None
        for known in (self._records, self._rows, self._revisions, self._whole):
            known.clear()
        self._confirmed.clear()

    def changed(self) -> None:
        """Something was written: the next look reads it, whatever the time stamps say."""
        self._view = None

    def confirm(self, record: Record) -> Record | None:
        """The record as its file has it; None when it is gone. An index that said otherwise is thrown away.

        Raises:
            StoreError: it is damaged.
        """
        stem = encode(record.name)
        if stem in self._confirmed:
            return record
        try:
            found = self._manifests.record(stem)
        except FileNotFoundError:
            self.changed()
            return None
        except StoreError:
            self.forget()
            raise
        if found != record:
            self.forget()
        else:
            self._confirmed.add(stem)
        return found

    def revision(self, step: Step) -> Recorded:
        """The revision of a step, whose long texts are read when they are asked for.

        Raises:
            StoreError: its manifest is damaged or gone.
        """
        known = step.revision
        revision = self._revisions.get(known)
        if revision is None:
            revision = self._revisions[known] = self._built(known)
        return _as_of(step, revision)

    def whole(self, step: Step) -> Recorded:
        """The revision of a step with all that its manifest says, read from there.

        Raises:
            StoreError: it is damaged or gone.
        """
        return _as_of(step, self._read_whole(step.revision))

    def digests(self, known: str) -> dict[str, int]:
        """The digests and sizes of a revision's files; empty when its manifest is not there."""
        try:
            if known not in self._rows:
                self._keep(known)
        except StoreError:
            return {}
        return {file[2]: file[1] for file in self._rows[known][1][4]}

    def _read_whole(self, known: str) -> Recorded:
        revision = self._whole.get(known)
        if revision is None:
            revision = self._manifests.revision(known)
            while len(self._whole) >= _KEPT:
                with suppress(KeyError, StopIteration):
                    del self._whole[next(iter(self._whole))]
            self._whole[known] = revision
        return revision

    def _built(self, known: str) -> Recorded:
        if known not in self._rows:
            self._keep(known)
        source, form, version, licence, files, capabilities, facts, defaults = self._rows[known][1]
        revision = Revision(
            source,
            form,
            tuple(FileEntry(*file) for file in files),
            version,
            licence,
            frozenset(CAPABILITIES[item] for item in capabilities if item in CAPABILITIES),
            Facts(facts[0], frozenset(facts[1]), lambda: self._read_whole(known).facts) if facts[1] else facts[0],
            Facts(defaults[0], frozenset(defaults[1]), lambda: self._read_whole(known).defaults)
            if defaults[1]
            else defaults[0],
        )
        return Recorded.under(known, revision)

    def _keep(self, known: str) -> None:
        revision = self._manifests.revision(known)
        files = [[file.name, file.size, file.sha256, file.role] for file in revision.files]
        self._rows[known] = (
            self._signs.get(known),
            [
                *(revision.source, revision.format, revision.version, revision.licence, files),
                *(sorted(revision.capabilities), _short(revision.facts), _short(revision.defaults)),
            ],
        )

    def _forget_changed(self) -> None:
        """Drop what is known of manifests that are not as they were."""
        for known, (sign, _) in list(self._rows.items()):
            if sign is None or self._signs.get(known) != sign:
                self._rows.pop(known, None)
                self._revisions.pop(known, None)
        for known in self._whole.keys() - self._rows.keys():
            self._whole.pop(known, None)

    def _stamps(self) -> tuple[int, ...]:
        found = []
        for folder in (self._manifests.names, self._manifests.manifests):
            try:
                found.append(folder.stat().st_mtime_ns)
            except (FileNotFoundError, NotADirectoryError):
                found.append(0)
            except OSError as error:
                raise translate(error, "reading", folder) from error
        return tuple(found)

    def _open(self) -> None:
        """Take what the index on disk knows; nothing when there is none, or none that can be believed."""
        with suppress(OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, StopIteration):
            head, _, body = (self._root / "index.json").read_bytes().partition(b"\n")
            if head.decode() != hashlib.sha256(body).hexdigest():
                return
            found = orjson.loads(body)
            if found["corral"] != _FORMAT:
                return
            records = {stem: (row[0], _record(row[1:])) for stem, row in found["names"].items()}
            rows = {known: (row[0], row[1:]) for known, row in found["revisions"].items()}
            if any(stem != encode(record.name) for stem, (_, record) in records.items()):
                return
            self._records, self._rows = records, rows

    def _write(self) -> None:
        named = {step.revision for _, record in self._records.values() for step in record.history}
        body = orjson.dumps(
            {
                "corral": _FORMAT,
                "names": {stem: [sign, *_row(record)] for stem, (sign, record) in self._records.items() if sign},
                "revisions": {
                    known: [sign, *row] for known, (sign, row) in self._rows.items() if sign and known in named
                },
            }
        )
        head = hashlib.sha256(body).hexdigest().encode()
        with suppress(OSError):  # a store that may only be read can be read all the same
            write_whole(self._root / "index.json", head + b"\n" + body, durable=False)


def _as_of(step: Step, revision: Recorded) -> Recorded:
    if not step.source or (step.source, step.version) == (revision.source, revision.version):
        return revision
    return Recorded.under(step.revision, revision, source=step.source, version=step.version)


def _short(facts: Mapping[str, Any]) -> list[Any]:
    """What of `facts` is short enough for the index, and the names of the rest."""
    left = [
        key for key, value in facts.items() if len(value if isinstance(value, str) else orjson.dumps(value)) > _LONG
    ]
    return [{key: value for key, value in facts.items() if key not in left}, left]


def _row(record: Record) -> list[Any]:
    steps = [[step.revision, step.installed_at, step.source, step.version] for step in record.history]
    return [record.name, record.revision, steps, record.follows, record.pinned]


def _record(row: list[Any]) -> Record:
    name, revision, steps, follows, pinned = row
    return history.Record(name, revision, tuple(history.Step(*step) for step in steps), follows, pinned)


def _scan(folder: Path, now: float) -> dict[str, Sign | None]:
    """The stamp of each record in the folder, by its stem; None for one too young to be known by it."""
    now_ns, settled = int(now * 1e9), int(_SETTLED * 1e9)
    found: dict[str, Sign | None] = {}
    try:
        with os.scandir(folder) as items:
            for item in items:
                name = item.name
                if not name.endswith(".json"):
                    continue
                try:
                    stat = item.stat()
                except FileNotFoundError:
                    continue
                time = stat.st_mtime_ns
                found[name[:-5]] = [time, stat.st_size, stat.st_ino] if abs(now_ns - time) > settled else None
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise translate(error, "reading", folder) from error
    return found
