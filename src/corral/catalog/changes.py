"""What an update would change: pure comparisons of what is installed with what a source lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from corral.domain.models import FileEntry, Revision

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from corral.domain.models import Listing, RemoteFile

Kind = Literal["added", "removed", "changed", "same"]


@dataclass(frozen=True, slots=True)
class FileChange:
    """What becomes of one file. Sizes in bytes; None where the file is not, or its size is not known."""

    name: str
    kind: Kind
    size_before: int | None
    size_after: int | None


@dataclass(frozen=True, slots=True)
class Change:
    """What an update of a model would bring. `download`: bytes that are not in the store; None when unknown."""

    name: str
    current: Revision
    version: str
    changed: bool
    files: tuple[FileChange, ...]
    download: int | None


def size_of(file: RemoteFile) -> int | None:
    """The file's size in bytes, from itself or from its parts; None when it is not known."""
    if file.size is not None:
        return file.size
    sizes = [part.length if part.length is not None else part.size for part in file.parts]
    if not sizes or any(size is None for size in sizes):
        return None
    return sum(size or 0 for size in sizes)


def still(revision: Revision, listing: Listing, files: Sequence[RemoteFile]) -> bool:
    """Whether the source has what was installed from it: equal files, and an equal version where a digest is unknown.

    `files` are those of the listing that would be installed.
    """
    ours = {file.name: file for file in revision.files}
    if len(ours) != len(files) or ours.keys() != {file.name for file in files}:
        return False
    same_version = bool(listing.version) and listing.version == revision.version
    return all(_same(ours[file.name], file, same_version=same_version) for file in files)


def compare(
    name: str, revision: Revision, version: str, files: Sequence[RemoteFile], whole: Callable[[FileEntry], bool]
) -> Change:
    """What installing `files` over `revision` would change; `whole` tells whether bytes are in the store already."""
    ours = {file.name: file for file in revision.files}
    same_version = bool(version) and version == revision.version
    found: list[FileChange] = []
    download: int | None = 0
    for file in files:
        before, size = ours.pop(file.name, None), size_of(file)
        same = before is not None and _same(before, file, same_version=same_version)
        kind: Kind = "added" if before is None else "same" if same else "changed"
        found.append(FileChange(file.name, kind, before.size if before else None, size))
        if not same and not _there(file, whole):
            download = None if download is None or size is None else download + size
    found.extend(FileChange(file.name, "removed", file.size, None) for file in ours.values())
    return Change(name, revision, version, any(item.kind != "same" for item in found), tuple(found), download)


def wanted(files: Sequence[RemoteFile], whole: Callable[[FileEntry], bool]) -> list[RemoteFile]:
    """The files whose bytes are not in the store."""
    return [file for file in files if not _there(file, whole)]


def _same(ours: FileEntry, theirs: RemoteFile, *, same_version: bool) -> bool:
    size = size_of(theirs)
    if size is not None and size != ours.size:
        return False
    return same_version if theirs.sha256 is None else theirs.sha256 == ours.sha256


def _there(file: RemoteFile, whole: Callable[[FileEntry], bool]) -> bool:
    if file.sha256 is None or file.size is None:
        return False
    return whole(FileEntry(file.name, file.size, file.sha256))
