"""What a name stands for, and what it stood for before: records of `names/`, as values."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import orjson

from corral.domain.models import Revision, check_name
from corral.errors import Conflict, InvalidName

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


_ID: Final = re.compile(r"[0-9a-f]{64}")
_FORMAT: Final = 2
_LONGEST: Final = 50
"""Revisions that a name remembers; beyond these the oldest are forgotten."""


@dataclass(frozen=True, slots=True)
class Step:
    """A revision that a name stood for, by its id, and what it was then: equal files may come from several sources."""

    revision: str
    installed_at: float
    source: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Past:
    """One entry of a model's history. `here`: all of its files are in the store, so that a rollback is instant."""

    revision: Revision
    installed_at: float
    current: bool
    here: bool


@dataclass(frozen=True, slots=True)
class Record:
    """What a name stands for: `revision`, one of `history`, which holds each revision once, the newest last."""

    name: str
    revision: str
    history: tuple[Step, ...]
    follows: str = ""
    pinned: bool = False

    @property
    def current(self) -> Step:
        """The step that the name is at."""
        if self.history[-1].revision == self.revision:
            return self.history[-1]
        return next(step for step in self.history if step.revision == self.revision)

    def onto(self, step: Step, follows: str) -> Record:
        """The record after an install: `step` is the newest, and current. The same revision keeps its date.

        What was current goes just before it, also where it was rolled back to: a rollback undoes what was done last.
        """
        if step.revision == self.revision:
            kept = replace(step, installed_at=self.current.installed_at)
            history = tuple(kept if item.revision == step.revision else item for item in self.history)
            return replace(self, history=history, follows=follows)
        others = tuple(item for item in self.history if item.revision not in {step.revision, self.revision})
        history = (*others, self.current, step)[-_LONGEST:]
        return replace(self, revision=step.revision, history=history, follows=follows)

    def target(self, to: str | None) -> str:
        """The id to roll back to: one older than the current, or what `to` is the beginning of.

        Raises:
            Conflict: there is none, or several; names what there is.
        """
        there = [step.revision for step in self.history]
        if to is None:
            place = there.index(self.revision)
            if place == 0:
                raise Conflict(f"{self.name} has no earlier revision than {self.revision[:12]}.", _what(self))
            return there[place - 1]
        found = [revision for revision in there if to and revision.startswith(to)]
        if len(found) != 1:
            many, begin = ("Several revisions", "begin") if found else ("No revision", "begins")
            raise Conflict(f"{many} of {self.name} {begin} with {to[:64]!r}.", _what(self), param="revision")
        return found[0]

    def kept(self, count: int) -> set[str]:
        """The revisions that `gc` leaves: the current and the newest others, `count` in all."""
        others = [step.revision for step in reversed(self.history) if step.revision != self.revision]
        return {self.revision, *others[: max(0, count - 1)]}


def parse(data: bytes) -> Record:
    """The record that `data` holds, in the form of this or of an earlier Corral.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    found: dict[str, Any] = orjson.loads(data)
    name, revision = _text(found["name"]), _id(found["revision"])
    try:
        check_name(name)
    except InvalidName as error:
        raise ValueError(error.message) from error
    steps = found.get("history")
    if steps is None:
        return Record(name, revision, (Step(revision, float(found["installed_at"])),))
    history = tuple(
        Step(
            _id(step["revision"]),
            float(step["installed_at"]),
            _text(step.get("source", "")),
            _text(step.get("version", "")),
        )
        for step in steps
    )
    ids = {step.revision for step in history}
    if revision not in ids or len(ids) != len(history):
        raise ValueError("the history contradicts itself")
    return Record(name, revision, history, _text(found.get("follows", "")), found.get("pinned") is True)


def dump(record: Record) -> bytes:
    """The record as it is written; an earlier Corral reads of it what it knows."""
    return orjson.dumps(
        {
            "corral": _FORMAT,
            "name": record.name,
            "revision": record.revision,
            "installed_at": record.current.installed_at,
            "follows": record.follows,
            "pinned": record.pinned,
            "history": record.history,
        }
    )


def pasts(record: Record, revision: Callable[[Step], Revision | None], here: Callable[[Revision], bool]) -> list[Past]:
    """The history as people see it, newest first; without what is forgotten."""
    found = []
    for step in reversed(record.history):
        known = revision(step)
        if known is not None:
            found.append(Past(known, step.installed_at, step.revision == record.revision, here(known)))
    return found


def _what(record: Record) -> str:
    return f"There is: {_listed([step.revision for step in reversed(record.history)], record.revision)}."


def _listed(ids: Sequence[str], current: str) -> str:
    return ", ".join(f"{item[:12]}{' (current)' if item == current else ''}" for item in ids)


def _id(value: object) -> str:
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise ValueError("no revision")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value
