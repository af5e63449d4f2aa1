"""What the store's records say, read once and kept up to date: fast with ten thousand names, never believed blindly.

`index.json` beside the records holds what was read of them, each with the stamp (time of change, size, inode) of the
file it was read from. An entry counts only while that file has that stamp; what has none, or was written a moment ago,
is read from the record itself. The first line is the SHA-256 of the rest, so a cut or damaged index is no index. It is
written by a reader who had to read many records, and may be deleted at any time. Whoever acts on a model (`confirm`,
`whole`) reads its record and its manifest, not the index.

    {"sha256": "…", "corral": 1, "names": 2}          then a line for each name and each revision, parsed when asked for
    stem <TAB> stamp <TAB> name <TAB> revision <TAB> [history, follows, pinned]
    revision <TAB> stamp <TAB> [source, format, …]
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from bisect import insort
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from corral.catalog import history
from corral.catalog.manifests import CAPABILITIES, Facts, Manifests, Recorded, encode
from corral.domain.models import FileEntry
from corral.errors import StoreError
from corral.kit.disk import translate, write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from corral.catalog.history import Record, Step
    from corral.domain.ports import Clock

_SETTLED: Final = 0.1
"""Seconds after which a second change of a file surely has another time stamp than the first."""

_WORTH: Final = 64
"""Records that had to be read for the index to be written anew."""

_LONG: Final = 400
"""Characters from which a text of a revision stays out of the index."""

_KEPT: Final = 256
"""Revisions of which all is kept in memory."""

_FORMAT: Final = 1


class Records(Mapping[str, "Record"]):
    """Records by name, each built when it is first asked for."""

    __slots__ = ("_entries",)

    def __init__(self, entries: dict[str, _Name]) -> None:
        self._entries = entries

    def __getitem__(self, name: str) -> Record:
        return self._entries[name].record

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def but(self, name: str, entry: _Name | None) -> Records:
        """The same with another entry for `name`, or without one."""
        entries = dict(self._entries)
        entries.pop(name, None)
        return Records(entries if entry is None else {**entries, name: entry})


class _Name:
    """What is known of one record: the stamp of its file, and its content, built or not yet."""

    __slots__ = ("_raw", "_record", "name", "revision", "sign")

    def __init__(self, sign: str | None, name: str, revision: str, content: Record | bytes) -> None:
        self.sign = sign
        self.name = name
        self.revision = revision
        self._record = None if isinstance(content, bytes) else content
        self._raw = content if isinstance(content, bytes) else b""

    @property
    def record(self) -> Record:
        if self._record is None:
            steps, follows, pinned = orjson.loads(self._raw)
            steps = tuple(history.Step(*step) for step in steps)
            self._record = history.Record(self.name, self.revision, steps, follows, pinned)
        return self._record

    @property
    def raw(self) -> bytes:
        if not self._raw and self._record is not None:
            self._raw = orjson.dumps(
                [
                    [[step.revision, step.installed_at, step.source, step.version] for step in self._record.history],
                    self._record.follows,
                    self._record.pinned,
                ]
            )
        return self._raw


@dataclass(frozen=True, slots=True)
class View:
    """The records as they were read, and whether the folders' time stamps can vouch for them."""

    stamps: tuple[int, ...]
    vouched: bool
    records: Records
    names: tuple[str, ...]
    broken: Mapping[str, StoreError]
    signs: tuple[Mapping[str, str | None], ...] = ()


class Index:
    """The records of the store under `root`. Reading is cheap and sees at once what other processes did. Blocks."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self._root = root
        self._clock = clock
        self._manifests = Manifests(root)
        self._mutex = threading.RLock()
        self._view: View | None = None
        self._stamped: tuple[View | None, str] = (None, "")
        self._opened = False
        self._names: dict[str, _Name] = {}
        self._rows: dict[str, tuple[str | None, bytes]] = {}
        self._revisions: dict[str, Recorded] = {}
        self._whole: dict[str, Recorded] = {}
        self._confirmed: set[str] = set()
        self._signs: dict[str, str | None] = {}

    def look(self) -> View:
        """The records as they are now; free of charge when nothing changed.

        Raises:
            StoreError: the folders cannot be read.
        """
        view = self._view
        if view is None or not view.vouched or view.stamps != self._stamps():
            view = self.read()
        return view

    def stamp(self) -> str:
        """A text that changes whenever what `look` answers does."""
        view = self.look()
        if self._stamped[0] is not view:
            known = orjson.dumps(view.signs) if view.vouched else secrets.token_bytes(16)
            self._stamped = (view, hashlib.sha256(known).hexdigest()[:32])
        return self._stamped[1]

    def read(self) -> View:
        """The records as they are now, whatever was believed; what did not change is not read again."""
        with self._mutex:
            if not self._opened:
                self._opened = True
                self._open()
            # The stamps are taken before reading: a change while we read makes them differ. One within the same tick
            # of the file system's clock would not, so a stamp is believed only when it has aged.
            stamps = self._stamps()
            now = self._clock.wall()
            vouched = all(abs(now - stamp / 1e9) > _SETTLED for stamp in stamps)
            signs = _scan(self._manifests.names, now)
            self._signs = _scan(self._manifests.manifests, now)
            self._forget_changed()
            before = len(self._rows)
            kept, broken, fresh = self._read(signs)
            fresh += len(self._rows) - before
            self._names = kept
            self._confirmed &= kept.keys()
            by_name = {entry.name: entry for entry in kept.values()}
            names = tuple(sorted(by_name))
            view = self._view = View(stamps, vouched, Records(by_name), names, broken, (signs, dict(self._signs)))
            if fresh > _WORTH:
                self._write()
            return view

    def wrote(self, name: str, record: Record | None) -> None:
        """Believe that `name` stands for that just now: said by who wrote it, and holds the store's lock."""
        with self._mutex:
            view, stem = self.latest(), encode(name)
            names = list(view.names)
            if name in view.records:
                names.remove(name)
            entry = None
            if record is None:
                self._names.pop(stem, None)
            else:
                for known in (self._signs, self._rows, self._revisions, self._whole):
                    known.pop(record.revision, None)
                self._names[stem] = entry = _Name(None, name, record.revision, record)
                self._confirmed.add(stem)
                insort(names, name)
            broken = {key: error for key, error in view.broken.items() if key != stem}
            # Not vouched for: whoever looks next, outside of the lock, reads again what others did meanwhile.
            self._view = View((), False, view.records.but(name, entry), tuple(names), broken)

    def fresh(self) -> Index:
        """An index of the same store that believes nothing: its `read` reads each record, and holds nobody up here."""
        fresh = Index(self._root, self._clock)
        fresh.forget()
        return fresh

    def adopt(self, fresh: Index) -> None:
        """Believe what `fresh` has read, which is given up for it.

        Call it with the store locked since before `fresh` read: what another holder of the lock relies on is never
        replaced by something older.
        """
        view = fresh.latest()
        with self._mutex:
            self._opened = True
            self._names, self._rows, self._signs = fresh._names, fresh._rows, fresh._signs
            self._revisions, self._whole, self._confirmed = fresh._revisions, fresh._whole, fresh._confirmed
            self._view = view

    def forget(self) -> None:
        """Believe nothing that was read."""
        with self._mutex:
            self._opened = True
            self._view = None
            for known in (self._names, self._rows, self._revisions, self._whole):
                known.clear()
            self._confirmed.clear()

    def changed(self) -> None:
        """Something was written: the next look reads it, whatever the time stamps say."""
        self._view = None

    def latest(self) -> View:
        """What was last looked at or written: for the holder of the store's lock, who has looked since he holds it."""
        return self._view or self.read()

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
            files = self._row(known)[4]
        except StoreError:
            return {}
        return {file[2]: file[1] for file in files}

    def _read(self, signs: Mapping[str, str | None]) -> tuple[dict[str, _Name], dict[str, StoreError], int]:
        """The records with those stamps, known or read; what is wrong with others; how many were read."""
        kept: dict[str, _Name] = {}
        broken: dict[str, StoreError] = {}
        fresh = 0
        for stem, sign in signs.items():
            entry = self._names.get(stem)
            try:
                if entry is None or sign is None or entry.sign != sign:
                    fresh += 1
                    record = self._manifests.record(stem)
                    entry = _Name(sign, record.name, record.revision, record)
                    self._confirmed.add(stem)
                if entry.revision not in self._rows:
                    self._keep(entry.revision)
            except StoreError as error:
                broken[stem] = error
            except FileNotFoundError:
                continue  # removed while we looked
            else:
                kept[stem] = entry
        return kept, broken, fresh

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
        source, form, version, licence, files, capabilities, facts, defaults = self._row(known)
        return Recorded.built(
            known,
            source,
            form,
            tuple([FileEntry(*file) for file in files]),
            version,
            licence,
            frozenset([CAPABILITIES[item] for item in capabilities if item in CAPABILITIES]),
            Facts(facts[0], frozenset(facts[1]), lambda: self._read_whole(known).facts) if facts[1] else facts[0],
            Facts(defaults[0], frozenset(defaults[1]), lambda: self._read_whole(known).defaults)
            if defaults[1]
            else defaults[0],
        )

    def _row(self, known: str) -> list[Any]:
        row = self._rows.get(known)
        found: list[Any] = orjson.loads(self._keep(known) if row is None else row[1])
        return found

    def _keep(self, known: str) -> bytes:
        revision = self._manifests.revision(known)
        files = [[file.name, file.size, file.sha256, file.role] for file in revision.files]
        row = orjson.dumps(
            [
                *(revision.source, revision.format, revision.version, revision.licence, files),
                *(sorted(revision.capabilities), _short(revision.facts), _short(revision.defaults)),
            ]
        )
        self._rows[known] = (self._signs.get(known), row)
        return row

    def _forget_changed(self) -> None:
        """Drop what is known of manifests that are not as they were."""
        for known, (sign, _) in list(self._rows.items()):
            if sign is None or self._signs.get(known) != sign:
                self._rows.pop(known, None)
                self._revisions.pop(known, None)
        for known in list(self._whole.keys() - self._rows.keys()):
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
        with suppress(OSError, ValueError, KeyError, TypeError):
            first, _, body = (self._root / "index.json").read_bytes().partition(b"\n")
            head = orjson.loads(first)
            if head["corral"] != _FORMAT or head["sha256"] != hashlib.sha256(body).hexdigest():
                return
            lines = body.decode().split("\n")
            names: dict[str, _Name] = {}
            for line in lines[: head["names"]]:
                stem, sign, name, revision, content = line.split("\t", 4)
                names[stem] = _Name(sign, name, revision, content.encode())
            rows: dict[str, tuple[str | None, bytes]] = {}
            for line in lines[head["names"] :]:
                revision, sign, content = line.split("\t", 2)
                rows[revision] = (sign, content.encode())
            self._names, self._rows = names, rows

    def _write(self) -> None:
        names = {stem: entry for stem, entry in self._names.items() if entry.sign is not None}
        lines = [
            f"{stem}\t{entry.sign}\t{entry.name}\t{entry.revision}\t".encode() + entry.raw
            for stem, entry in names.items()
        ]
        named = {entry.revision for entry in names.values()}
        named.update(step.revision for entry in names.values() for step in entry.record.history)
        lines.extend(
            f"{known}\t{sign}\t".encode() + row
            for known, (sign, row) in self._rows.items()
            if sign is not None and known in named
        )
        body = b"\n".join(lines)
        head = {"sha256": hashlib.sha256(body).hexdigest(), "corral": _FORMAT, "names": len(names)}
        with suppress(OSError):  # a store that may only be read can be read all the same
            write_whole(self._root / "index.json", orjson.dumps(head) + b"\n" + body, durable=False)


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


def _scan(folder: Path, now: float) -> dict[str, str | None]:
    """The stamp of each record in the folder, by its stem; None for one too young to be known by it."""
    now_ns, settled = int(now * 1e9), int(_SETTLED * 1e9)
    found: dict[str, str | None] = {}
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
                found[name[:-5]] = f"{time}.{stat.st_size}.{stat.st_ino}" if abs(now_ns - time) > settled else None
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise translate(error, "reading", folder) from error
    return found
