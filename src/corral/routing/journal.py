"""What a process reserves and spends, written down as it happens, so that a kill loses nothing.

    home/ledger/<holder>.journal     locked while the process lives; the kernel frees it when that process dies

    corral-ledger 1 <holder> <boot> <base>     the base is the offset of the file's first byte
    a <account> <budget> <period>              names an account
    h <hold> <account>=<amount> …              reserved, before the call is made
    s <hold> <account>=<amount> …              what the call has cost; nothing, where it was not made

Lines are handed to the kernel one by one and not forced to the disk: they outlive the process, not the machine. Offsets
go on growing when the file is made shorter. Writing is quick and done in the loop.
"""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from corral.errors import StoreError
from corral.kit.disk import lies_at, translate, translated, try_lock
from corral.kit.pidfile import boot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

SUFFIX = ".journal"
LONGEST = 4 << 20
"""Bytes of a journal after which it is made shorter."""

_VOID = b" void"
"""Ends a line that could not be written whole: it says nothing."""
_HEAD = re.compile(rb"corral-ledger 1 (\S+) (\S+) ([+-]\d+)")
_ACCOUNT = re.compile(rb"a (\d+) (\S+) (\S+)")
_LINE = re.compile(rb"([hs]) (\d+)((?: \d+=\d{1,18})+)")


class Journal:
    """The journal of this process.

    Raises:
        StoreError: it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._boot = boot().replace(" ", "-")
        self._pending = b""
        with translated("writing", folder):
            folder.mkdir(parents=True, exist_ok=True)
            while True:
                self.holder = f"h-{secrets.token_hex(12)}"
                self.path = folder / f"{self.holder}{SUFFIX}"
                descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
                # Somebody who looks for dead holders may have found it before it was locked, and removed it.
                if try_lock(descriptor) and lies_at(descriptor, self.path):
                    break
                os.close(descriptor)
        self._descriptor = descriptor
        self._base = 0
        self._size = 0
        self.note(self._header(0))

    @property
    def end(self) -> int:
        """The offset behind the last line that is written."""
        return self._base + self._size

    @property
    def long(self) -> bool:
        """Whether it should be made shorter."""
        return self._size > LONGEST

    @property
    def whole(self) -> bool:
        """Whether all that was noted is written."""
        return not self._pending

    def write(self, line: bytes) -> None:
        """Write a line that must be there before something is done.

        Raises:
            StoreError: it is not written, and will not be.
        """
        if self._pending:
            self._flush()
        try:
            written = os.write(self._descriptor, line)
        except OSError as error:
            raise translate(error, "writing", self.path) from error
        self._size += written
        if written != len(line):
            # What is there of it must become a line, or the next one would be part of it.
            self._pending = _VOID + b"\n"
            raise StoreError(f"No room while writing {self.path}.", "Free some space and try again.")

    def note(self, line: bytes) -> None:
        """Write a line about what has been done; kept for later where that fails."""
        if not self._pending:
            try:
                written = os.write(self._descriptor, line)
            except OSError:
                written = 0
            self._size += written
            if written != len(line):
                self._pending = line[written:]
            return
        self._pending += line
        try:
            self._flush()
        except StoreError:
            return

    def catch_up(self) -> None:
        """Write what could not be written before.

        Raises:
            StoreError: it still cannot.
        """
        if self._pending:
            self._flush()

    def shorten(self, applied: int, names: Iterable[bytes], holds: Iterable[bytes]) -> None:
        """Begin anew with the accounts and open holds given as lines, and all lines from the offset `applied` on.

        Raises:
            StoreError: it could not be done; the journal is as it was.
        """
        beside = self.path.with_suffix(".new")
        with translated("writing", self.path):
            tail = self.path.read_bytes()[applied - self._base :]
            content = b"".join([*names, *holds])
            base = applied - len(content) - len(self._header(0))
            head = self._header(base)
            whole = head + content + tail
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
            try:
                self._put(descriptor, whole)
                beside.replace(self.path)
            except BaseException:
                os.close(descriptor)
                raise
        os.close(self._descriptor)
        self._descriptor, self._base, self._size = descriptor, base, len(whole)

    def remove(self) -> None:
        """Remove it: all that it says is written down elsewhere. Harmless when repeated."""
        self.path.unlink(missing_ok=True)
        self.leave()

    def leave(self) -> None:
        """Let it lie for whoever looks for dead holders. Harmless when repeated."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _flush(self) -> None:
        try:
            written = os.write(self._descriptor, self._pending)
        except OSError as error:
            raise translate(error, "writing", self.path) from error
        self._size += written
        self._pending = self._pending[written:]
        if self._pending:
            raise StoreError(f"No room while writing {self.path}.", "Free some space and try again.")

    def _put(self, descriptor: int, content: bytes) -> None:
        if not try_lock(descriptor) or os.write(descriptor, content) != len(content):
            raise StoreError(f"{self.path} could not be made shorter.", "Free some space and try again.")

    def _header(self, base: int) -> bytes:
        # As wide whatever the base is: the place of every line must be known before the base is.
        return f"corral-ledger 1 {self.holder} {self._boot} {base:+020d}\n".encode()


def naming(number: int, budget: str, period: str) -> bytes:
    """The line that names an account."""
    return f"a {number} {budget} {period}\n".encode()


Key = tuple[str, str]
"""A budget's id, and a period."""


@dataclass(slots=True)
class Story:
    """What a dead process's journal tells.

    `settled` is what it spent and had not written down elsewhere, `open` what calls had reserved of which nobody knows
    the end, by their numbers. `cut`: lines may be missing.
    """

    holder: str = ""
    settled: dict[Key, int] = field(default_factory=dict)
    open: dict[int, dict[Key, int]] = field(default_factory=dict)
    damaged: int = 0
    cut: bool = False

    def spent(self) -> Mapping[Key, int]:
        """All that must be counted: what was settled, and what is open as if it were spent."""
        found = dict(self.settled)
        for amounts in self.open.values():
            for key, amount in amounts.items():
                found[key] = found.get(key, 0) + amount
        return found


def read(content: bytes, applied: int) -> Story:
    """What a journal tells beyond the offset `applied`. Its last line may be cut; lines that say nothing are counted.

    A machine that has been started since may have lost the end of the file.
    """
    story = Story()
    names: dict[int, Key] = {}
    head, _, _ = content.partition(b"\n")
    found = _HEAD.fullmatch(head)
    if found is None:
        story.damaged, story.cut = 1, True
        return story
    story.holder = found[1].decode("ascii", "replace")
    story.cut = found[2].decode("ascii", "replace") != boot().replace(" ", "-")
    base = int(found[3])
    for place, line in _lines(content, len(head) + 1):
        if not _tell(story, names, line, booked=base + place < applied):
            story.damaged += 1
    story.cut = story.cut or story.damaged > 0 or base + len(content) < applied
    return story


def _lines(content: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    """Each whole line and its place. What follows the last line feed was never finished, so nothing was done by it."""
    while (end := content.find(b"\n", start)) >= 0:
        yield start, content[start:end]
        start = end + 1


def _tell(story: Story, names: dict[int, Key], line: bytes, *, booked: bool) -> bool:
    """Take over one line; whether it says something."""
    found = _ACCOUNT.fullmatch(line)
    if found is not None:
        names[int(found[1])] = (found[2].decode("utf-8", "replace"), found[3].decode("utf-8", "replace"))
        return True
    found = _LINE.fullmatch(line)
    if found is None:
        return line.endswith(_VOID)
    pairs = [pair.split(b"=") for pair in found[3].split()]
    if any(int(number) not in names for number, _ in pairs):
        return False
    amounts = {names[int(number)]: int(amount) for number, amount in pairs}
    hold = int(found[2])
    if found[1] == b"h":
        story.open[hold] = amounts
        return True
    story.open.pop(hold, None)
    if not booked:
        for key, amount in amounts.items():
            story.settled[key] = story.settled.get(key, 0) + amount
    return True
