"""Zips that are written while they are sent, and zips of strangers that are read with suspicion."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from typing import IO, TYPE_CHECKING

from corral.domain.sizes import human
from corral.errors import BodyTooLarge, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PIECE = 1 << 18
"""Bytes that are read or written in one go."""

_EARLIEST = (1980, 1, 1, 0, 0, 0)
_ENCRYPTED = 0x1
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)
"""What the library raises of zips that nobody wrote so."""
_WAYS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Poured:
    """A zip of which only what was written since the last look is kept. Every call blocks, for no longer than a piece.

    Use: `begin` a member, `write` its bytes, and `end` it; then `taken` is what has come of it. `close` writes the end.
    """

    def __init__(self) -> None:
        self._sink = _Sink()
        # What cannot be sought in is written with the sizes behind each member.
        self._zip = zipfile.ZipFile(self._sink, "w", zipfile.ZIP_DEFLATED)
        self._member: IO[bytes] | None = None

    def begin(self, name: str, *, packed: bool = True) -> None:
        """Begin a member; one that is not `packed` is written as it is."""
        about = zipfile.ZipInfo(name, _EARLIEST)
        about.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
        about.external_attr = (stat.S_IFREG | 0o644) << 16
        self._member = self._zip.open(about, "w", force_zip64=True)

    def write(self, data: bytes) -> None:
        """Bytes of the member that was begun."""
        if self._member is None:
            raise RuntimeError("no member was begun")
        self._member.write(data)

    def end(self) -> None:
        """End the member that was begun."""
        if self._member is not None:
            self._member.close()
            self._member = None

    def close(self) -> None:
        """Write the list of all members, with which a zip ends."""
        self._zip.close()

    def taken(self) -> bytes:
        """What came since the last look."""
        return self._sink.taken()


class Suspect:
    """A zip of a stranger in a file that can be sought in, once its list of members is found to be sound.

    Args:
        known: says which names a member may have; any other is refused, and so is every path that climbs.
        largest: bytes that it may unpack to, all members together.

    Raises:
        InvalidRequest: it is no zip, is cut, or has a member that no archive of Corral has.
        BodyTooLarge: it would unpack to more.
    """

    def __init__(self, file: IO[bytes], known: Callable[[str], bool], largest: int) -> None:
        try:
            self._zip = zipfile.ZipFile(file)
        except _DAMAGED as error:
            raise InvalidRequest(f"This is no zip, or not all of one: {error}.", "Export the project again.") from error
        self.members: dict[str, zipfile.ZipInfo] = {}
        for about in self._zip.infolist():
            self._look(about, known)
        if sum(about.file_size for about in self.members.values()) > largest:
            raise BodyTooLarge(
                f"The archive unpacks to more than {human(largest)}.",
                "Raise workspace.max_import, if it is not a bomb.",
            )

    def pieces(self, name: str) -> Iterator[bytes]:
        """The bytes of a member, piece by piece. Blocks.

        Raises:
            InvalidRequest: they are damaged, or are not as many as the list says.
        """
        about, seen = self.members[name], 0
        try:
            with self._zip.open(about) as member:
                while piece := member.read(PIECE):
                    # What the list says was added up; no member may be more than it says.
                    if (seen := seen + len(piece)) > about.file_size:
                        break
                    yield piece
        except _DAMAGED as error:
            raise InvalidRequest(f"{name} in it is damaged: {error}.", "Export the project again.") from error
        if seen != about.file_size:
            raise InvalidRequest(f"{name} in it is not as long as it says.", "Export the project again.")

    def read(self, name: str, most: int) -> bytes:
        """All bytes of a small member. Blocks.

        Raises:
            InvalidRequest: it is missing or damaged, or has more than `most` bytes.
        """
        if name not in self.members:
            raise InvalidRequest(f"There is no {name} in it.", "Give an archive that a Corral has exported.")
        if self.members[name].file_size > most:
            raise InvalidRequest(f"{name} in it is larger than {human(most)}.")
        return b"".join(self.pieces(name))

    def lines(self, name: str, longest: int) -> Iterator[bytes]:
        """The lines of a member, without their ends. Blocks.

        Raises:
            InvalidRequest: as `pieces`; a line has more than `longest` bytes, or the last has no end.
        """
        held = bytearray()
        for piece in self.pieces(name):
            held += piece
            if b"\n" in piece:
                *whole, rest = held.split(b"\n")
                yield from (bytes(line) for line in whole)
                held = bytearray(rest)
            if len(held) > longest:
                raise InvalidRequest(f"{name} in it has a line of more than {human(longest)}.")
        if held:
            raise InvalidRequest(f"{name} in it ends in the middle of a line.", "Export the project again.")

    def _look(self, about: zipfile.ZipInfo, known: Callable[[str], bool]) -> None:
        """Refuse a member that no archive of Corral has."""
        # `orig_filename` is what is written there; `filename` is cut at a zero byte.
        name, kind = about.orig_filename, stat.S_IFMT(about.external_attr >> 16)
        if not known(name) or name != about.filename:
            raise InvalidRequest(f"An archive of a project has no {name[:100]!r} in it.", _HINT)
        if name in self.members:
            raise InvalidRequest(f"{name} is in it twice.", _HINT)
        if kind not in (0, stat.S_IFREG):
            raise InvalidRequest(f"{name} in it is no plain file.", _HINT)
        if about.flag_bits & _ENCRYPTED or about.compress_type not in _WAYS:
            raise InvalidRequest(f"{name} in it is encrypted, or packed in a way that is not used here.", _HINT)
        self.members[name] = about


_HINT = "Give an archive that a Corral has exported, as it was."


class _Sink:
    """Where a zip is written to: what cannot be sought in, and forgets what was taken."""

    def __init__(self) -> None:
        self._held = bytearray()

    def write(self, data: bytes) -> int:
        self._held += data
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """What was not taken can still be."""

    def taken(self) -> bytes:
        found = bytes(self._held)
        self._held.clear()
        return found
