"""What models answered in one run, written down before it is paid: so nothing is paid twice, whatever is killed when.

    home/workspace/runs/<run>.journal      a JSON object a line, one for each answer; gone when the run has ended

Whoever is at the run, by its operation's lease, is the only one who reads and writes it. Lines are handed to the kernel
one by one, as the ledger's are, and not forced to the disk: they outlive the process, not the machine. What is cut at
the end was never finished, so nothing was paid by it.

An answer that finds no room is held in memory, and nobody is asked anything until it is written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import orjson

from corral.domain.sizes import human
from corral.errors import DiskFull, StoreError
from corral.kit.disk import free, translate, translated

if TYPE_CHECKING:
    from pathlib import Path


_ROOM = 256 * 1024
"""Bytes that are free before anybody is asked: an answer that finds no room is paid all the same."""


def folder(home: Path) -> Path:
    """Where the journals of a home lie; there is none before its first run."""
    return home / "workspace" / "runs"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one try of one step: a text, an error, or nothing because it was called off (`left`).

    `attempt` counts the tries of `step` from 1, and never means another. `error` has code, message and hint, `passing`
    says whether another try may go better. `rows` and `hours` are what the books hold of it, `receipt` what was done.
    `cost` in nanodollars, `at` in Unix seconds.
    """

    step: str
    attempt: int
    request_id: str
    model: str
    text: str = ""
    error: Mapping[str, str] | None = None
    passing: bool = False
    left: bool = False
    receipt: Mapping[str, Any] | None = None
    rows: Sequence[Sequence[Any]] = ()
    hours: Sequence[tuple[Sequence[Any], Sequence[Any]]] = ()
    cost: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    at: float = 0.0


_FIELDS = frozenset(each.name for each in fields(Answer))


class Journal:
    """The journal of one run. `answers` are those that it has, by step, in the order of their attempts.

    Args:
        path: where it lies; made at the first line.
        room: bytes that must be free before anybody is asked.
    """

    def __init__(self, path: Path, *, room: int = _ROOM) -> None:
        self.path = path
        self._room = room
        self.answers: dict[str, list[Answer]] = {}
        self._owed: list[bytes] = []
        self._descriptor = -1
        self._size = 0

    @property
    def owing(self) -> bool:
        """Whether it holds what could not be written."""
        return bool(self._owed)

    def load(self) -> None:
        """Read what is there, beside what is held. Blocks.

        Raises:
            StoreError: it cannot be read, or has a line that nobody wrote whole and another after it.
        """
        content = b""
        try:
            with translated("reading", self.path):
                content = self.path.read_bytes()
        except StoreError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
        whole = content.rfind(b"\n") + 1
        self.answers, self._size = {}, whole
        for number, line in enumerate([*content[:whole].splitlines(), *self._owed], 1):
            answer = _read(line)
            if answer is None:
                raise StoreError(
                    f"Line {number} of {self.path} is damaged.", "Remove the file: what it says is asked again."
                )
            self._add(answer)

    def find(self, step: str, attempt: int) -> Answer | None:
        """What became of that try; None: it was never answered."""
        return next((each for each in self.answers.get(step, ()) if each.attempt == attempt), None)

    def write(self, answer: Answer) -> None:
        """Write down what became of a try, and before it what is held.

        Raises:
            StoreError: it is not written.
        """
        self._append([*self._owed, _line_of(answer)])
        self._add(answer)

    def hold(self, answer: Answer) -> None:
        """Know what became of a try that could not be written down; `ready` writes it."""
        self._owed.append(_line_of(answer))
        self._add(answer)

    def ready(self) -> None:
        """See that another answer could be written down; what is held is, now.

        Raises:
            StoreError: it could not; nobody should be asked.
        """
        if self._owed:
            self._append(self._owed)
        with translated("measuring", self.path):
            left = free(self.path.parent)
        if left < self._room:
            raise DiskFull(
                f"There is no room for answers in {self.path.parent}: {human(left)} free.", "Free some space."
            )

    def _append(self, lines: Sequence[bytes]) -> None:
        line = b"".join(lines)
        self._open()
        done = 0
        try:
            while done < len(line):
                done += os.write(self._descriptor, line[done:])
        except OSError as error:
            os.ftruncate(self._descriptor, self._size)  # or the next line would be part of this one
            raise translate(error, "writing", self.path) from error
        self._size += done
        self._owed = []

    def close(self) -> None:
        """Let it lie, for whoever goes on. Harmless when repeated."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def remove(self) -> None:
        """Remove it: all that it says is written down elsewhere. Harmless when repeated."""
        self.path.unlink(missing_ok=True)
        self.close()

    def _open(self) -> None:
        if self._descriptor >= 0:
            return
        with translated("writing", self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.ftruncate(self._descriptor, self._size)  # what was cut at the end is no line

    def _add(self, answer: Answer) -> None:
        self.answers.setdefault(answer.step, []).append(answer)


def _line_of(answer: Answer) -> bytes:
    content = {name: getattr(answer, name) for name in _FIELDS}
    try:
        return orjson.dumps(content) + b"\n"
    except TypeError:  # an engine's words may hold half a character, or a number beyond 64 bits
        return json.dumps(content).encode() + b"\n"


def _read(line: bytes) -> Answer | None:
    """The answer that a line tells of; None where it tells of none."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    if not isinstance(found, dict) or not {"step", "attempt", "request_id", "model"} <= found.keys():
        return None
    return Answer(**{name: value for name, value in found.items() if name in _FIELDS})
