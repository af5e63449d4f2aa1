"""What engines were found to take, kept so that the next one's memory is known and not estimated.

`home/footprints.json`, a derived file: what is not as it should be in it is passed over.

    {"corral": 1, "footprints": [{"model": …, "runtime": …, "options": …, "place": "cuda:0", "used": …,
                                  "lives": [{"id": …, "at": …, "load": {…}, "peak": {…}, "short": {…}}, …]}, …]}

A life is one engine, or one try that ended for want of memory. The last three count: the largest of them is what the
next engine is expected to take, so one that was fed an uncommonly long prompt does not count for ever.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import orjson

from corral.kit.disk import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_log = logging.getLogger("corral.memory")

_FORMAT: Final = 1
_MOST: Final = 1000
_LARGEST: Final = 16 << 20
_LIVES: Final = 3
_MORE: Final = 1.2
"""Of memory that did not suffice, so much is taken the next time."""
_SHORT_FOR: Final = 3600.0
"""Seconds for which that counts: it may have been another program that held the memory."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What was run and how: the revision's id (else the model's name), the runtime, and `digest` of its options."""

    model: str
    runtime: str
    options: str = ""


@dataclass(frozen=True, slots=True)
class Life:
    """One engine: bytes by device when it was ready and at most; `short` is what it was given and did not suffice."""

    id: str
    at: float
    load: Mapping[str, int] = field(default_factory=dict)
    peak: Mapping[str, int] = field(default_factory=dict)
    short: Mapping[str, int] = field(default_factory=dict)

    def expects(self, now: float) -> dict[str, int]:
        """What the next engine should be given, by this one."""
        if now - self.at > _SHORT_FOR:
            return dict(self.peak)
        return _most(self.peak, {device: round(count * _MORE) for device, count in self.short.items()})


@dataclass(frozen=True, slots=True)
class _Entry:
    used: float
    lives: tuple[Life, ...]


_Key = tuple[Subject, str]


def digest(options: Any) -> str:
    """A short name for options, the same for the same values: of a dataclass, or of a mapping."""
    values = asdict(options) if is_dataclass(options) and not isinstance(options, type) else options
    data = orjson.dumps(values, default=_plain, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return hashlib.sha256(data).hexdigest()[:16]


class Recollection:
    """Footprints by subject and place. Made without reading; the first question or `read` reads the file, once.

    Questions and remarks take microseconds after that. Nothing lies on the disk before `save`. All may be called from
    several threads. `file` None keeps it all in memory. `now` is Unix seconds.
    """

    def __init__(self, file: Path | None, *, most: int = _MOST, now: Callable[[], float] = time.time) -> None:
        self._file = file
        self._bound = most
        self._now = now
        self._own = secrets.token_hex(8)
        self._lock = Lock()
        self._entries: dict[_Key, _Entry] | None = None
        self._changed = False

    def read(self) -> None:
        """Read the file now, if that has not been done. Blocks for some milliseconds; never raises."""
        with self._lock:
            self._known()

    def recall(self, subject: Subject) -> Mapping[str, Mapping[str, int]]:
        """Bytes by device that an engine of it is expected to take, under the `footprint.key` of each placement."""
        with self._lock:
            entries, now = self._known(), self._now()
            found: dict[str, Mapping[str, int]] = {}
            for (about, place), entry in entries.items():
                if about == subject:
                    found[place] = _most(*(life.expects(now) for life in entry.lives))
                    entries[about, place] = replace(entry, used=now)
            return {place: devices for place, devices in found.items() if devices}

    def most(self, model: str) -> int | None:
        """Bytes, on all devices together, that an engine of `model` took at most, however it ran; None: none ran."""
        with self._lock:
            ran = [entry.lives for (about, _), entry in self._known().items() if about.model == model]
            return max((sum(life.peak.values()) for lives in ran for life in lives), default=0) or None

    def lives(self, subject: Subject) -> Mapping[str, tuple[Life, ...]]:
        """What was measured, by place, the latest life last."""
        with self._lock:
            return {place: entry.lives for (about, place), entry in self._known().items() if about == subject}

    def remember(self, subject: Subject, place: str, devices: Mapping[str, int], life: str = "") -> None:
        """An engine was found to take this much. Of one `life`, the first is its load, and the most is kept.

        `life` is a name of the engine that no other one has; without one, all of this object's are one.
        """
        if not devices:
            return
        with self._lock:
            name = life or self._own
            known = self._lives(subject, place)
            before = next((one for one in known if one.id == name), Life(name, self._now(), dict(devices)))
            grown = replace(before, at=self._now(), peak=_most(before.peak, devices))
            if grown.peak != before.peak or name not in {one.id for one in known}:
                self._put(subject, place, [*(one for one in known if one.id != name), grown])

    def too_small(self, subject: Subject, place: str, devices: Mapping[str, int]) -> None:
        """An engine was given so much and could not be loaded: the next one is to get a fifth more, for an hour."""
        with self._lock:
            tried = Life(secrets.token_hex(8), self._now(), short=dict(devices))
            self._put(subject, place, [*self._lives(subject, place), tried])

    def save(self) -> None:
        """Write what is new, merged with what another process wrote meanwhile. Blocks: call it in a thread.

        A disk that takes nothing is told as a warning, and is no error.
        """
        with self._lock:
            if self._file is None or not self._changed:
                return
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                with self._file.with_name(f"{self._file.name}.lock").open("ab") as turn:
                    fcntl.flock(turn, fcntl.LOCK_EX)  # held for the milliseconds of reading and renaming
                    self._entries = self._newest(_merged(self._known(), self._stored()))
                    write_whole(self._file, _written(self._entries), durable=False)
            except OSError as error:
                _log.warning("footprints cannot be remembered in %s: %s", self._file, error.strerror or error)
                return
            self._changed = False

    def _lives(self, subject: Subject, place: str) -> tuple[Life, ...]:
        entry = self._known().get((subject, place))
        return () if entry is None else entry.lives

    def _put(self, subject: Subject, place: str, lives: Iterable[Life]) -> None:
        entries = self._known()
        latest = tuple(sorted(lives, key=lambda life: life.at)[-_LIVES:])
        entries[subject, place] = _Entry(self._now(), latest)
        self._changed = True
        if len(entries) > self._bound:
            self._entries = self._newest(entries)

    def _newest(self, entries: Mapping[_Key, _Entry]) -> dict[_Key, _Entry]:
        return dict(sorted(entries.items(), key=lambda item: item[1].used)[-self._bound :])

    def _known(self) -> dict[_Key, _Entry]:
        if self._entries is None:
            self._entries = self._stored()
        return self._entries

    def _stored(self) -> dict[_Key, _Entry]:
        """What lies on the disk; of what cannot be read, a warning and nothing."""
        if self._file is None:
            return {}
        try:
            records = _records(self._file)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            _log.warning("remembered footprints in %s are left aside: %s", self._file, error)
            return {}
        return dict(item for item in map(_read, records) if item is not None)


def _records(file: Path) -> list[Any]:
    if file.stat().st_size > _LARGEST:
        raise ValueError("it is too large")
    match orjson.loads(file.read_bytes()):
        case {"corral": int(form), "footprints": list(records)} if form == _FORMAT:
            return records
    raise ValueError("it is of another format")


def _merged(ours: Mapping[_Key, _Entry], theirs: Mapping[_Key, _Entry]) -> dict[_Key, _Entry]:
    """Both; of one place, the latest lives of either."""
    merged = dict(theirs)
    for place, entry in ours.items():
        other = merged.get(place)
        if other is None:
            merged[place] = entry
            continue
        lives = {life.id: life for life in other.lives}
        for life in entry.lives:
            twin = lives.get(life.id)
            lives[life.id] = life if twin is None or twin.at <= life.at else twin
        latest = sorted(lives.values(), key=lambda life: life.at)[-_LIVES:]
        merged[place] = _Entry(max(entry.used, other.used), tuple(latest))
    return merged


def _written(entries: Mapping[_Key, _Entry]) -> bytes:
    records = [
        {**asdict(subject), "place": place, "used": entry.used, "lives": [asdict(life) for life in entry.lives]}
        for (subject, place), entry in entries.items()
    ]
    return orjson.dumps({"corral": _FORMAT, "footprints": records})


def _read(record: Any) -> tuple[_Key, _Entry] | None:
    """One record of the file; None for one that is not as it should be."""
    match record:
        case {
            "model": str(model),
            "runtime": str(runtime),
            "options": str(options),
            "place": str(place),
            "used": int() | float() as used,
            "lives": list(lives),
        }:
            known = tuple(life for life in map(_life, lives) if life is not None)[-_LIVES:]
            return ((Subject(model, runtime, options), place), _Entry(float(used), known)) if known else None
    return None


def _life(record: Any) -> Life | None:
    match record:
        case {"id": str(name), "at": int() | float() as at, "load": load, "peak": peak, "short": short}:
            if all(_bytes(part) for part in (load, peak, short)):
                return Life(name, float(at), load, peak, short)
    return None


def _bytes(part: Any) -> bool:
    return isinstance(part, dict) and all(type(count) is int and 0 <= count < 1 << 60 for count in part.values())


def _most(*parts: Mapping[str, int]) -> dict[str, int]:
    """The largest of each device."""
    most: dict[str, int] = {}
    for part in parts:
        for device, count in part.items():
            most[device] = max(count, most.get(device, 0))
    return most


def _plain(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, frozenset | set) else str(value)
