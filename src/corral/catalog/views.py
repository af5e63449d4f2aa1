"""Files under their real names, for what looks for its other pieces by name: split GGUFs and snapshots.

    models/views/<revision id>/<name>  ->  ../../blobs/sha256/<hex>

A view is made when it is first asked for, from symbolic links alone, and made again when anything of it is not as it
should be. It holds nothing: to remove one is always safe, and who has its files open keeps them.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from corral.catalog import formats
from corral.domain.sizes import human
from corral.errors import CorruptModel, StoreError
from corral.kit.disk import translated

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from corral.catalog.blobs import Blobs
    from corral.domain.models import Installed, Revision

_TRIES: Final = 5


class Views:
    """The views of the store whose files are `blobs`. Blocks, as links do: for well under a millisecond each."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._root = blobs.root / "views"

    def files(self, revision: Revision) -> dict[str, Path]:
        """What a runtime is given, by role: `model` is a file, the first piece of a split one, or a snapshot's folder.

        Raises:
            CorruptModel: a file is gone or cut short.
            StoreError: the view cannot be made.
        """
        for entry in revision.files:
            if not self._blobs.whole(entry):
                raise CorruptModel(
                    f"{entry.name} is not in the store as it was installed ({human(entry.size)}).",
                    "Install it again: corral pull NAME",
                )
        if revision.format != formats.GGUF:
            return {"model": self.view(revision)}
        named = self.view(revision) if any(entry.role == "split" for entry in revision.files) else None
        return {
            entry.role: named / entry.name if named and entry.role == "model" else self._blobs.path(entry.sha256)
            for entry in revision.files
            if entry.role in {"model", "mmproj"}
        }

    def view(self, revision: Revision) -> Path:
        """A folder in which the revision's files lie under their names.

        Raises:
            StoreError: it cannot be made.
        """
        folder = self._root / revision.id
        wanted = {entry.name: self._link(revision.id, entry.name, entry.sha256) for entry in revision.files}
        with translated("making", folder):
            if not _is(folder, wanted):
                self._build(folder, wanted)
        return folder

    def sweep(self, live: Collection[str]) -> None:
        """Remove the views of all revisions but the `live` ones, and what a killed process left. Call it locked."""
        if self._root.is_dir():
            with translated("removing from", self._root):
                for path in list(self._root.iterdir()):
                    if path.name not in live:
                        shutil.rmtree(path, ignore_errors=True)

    def _link(self, identity: str, name: str, sha256: str) -> str:
        return os.path.relpath(self._blobs.path(sha256), (self._root / identity / name).parent)

    def _build(self, folder: Path, wanted: Mapping[str, str]) -> None:
        for _ in range(_TRIES):
            beside = folder.with_name(f"{folder.name}~{secrets.token_hex(8)}")
            try:
                _lay(beside, wanted)
                # Another process may be at it too: whoever comes second finds the folder, and takes it if it is sound.
                if _is(folder, wanted) or (_put(beside, folder) and _is(folder, wanted)):
                    return
            except FileNotFoundError:
                continue  # a collection of garbage took what was beside for a leftover
            finally:
                shutil.rmtree(beside, ignore_errors=True)
        raise StoreError(f"{folder} is changed by somebody else again and again.", "Try again.")


def _lay(folder: Path, wanted: Mapping[str, str]) -> None:
    for name, target in wanted.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)


def _put(beside: Path, folder: Path) -> bool:
    """Let what was built take the place of whatever is there; False when another was quicker."""
    aside = beside.with_name(f"{beside.name}~")
    try:
        with suppress(FileNotFoundError):
            folder.rename(aside)
        beside.rename(folder)
    except OSError as error:
        if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
            raise
        return False
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return True


def _is(folder: Path, wanted: Mapping[str, str]) -> bool:
    """Whether the folder holds those links and nothing else."""
    found: dict[str, str] = {}
    try:
        for base, _, names in os.walk(folder):
            for name in names:
                path = Path(base, name)
                found[path.relative_to(folder).as_posix()] = str(path.readlink())
    except OSError:
        return False
    return found == wanted


def found_files(installed: Installed) -> dict[str, Path]:
    """As `Views.files`, for a model that lies in a folder of its own and is only referred to.

    Raises:
        CorruptModel: a file is gone or has another size than it was found with.
    """
    folder = installed.folder
    if folder is None:
        raise ValueError(f"{installed.name} lies in the store")
    for entry in installed.revision.files:
        path = folder / entry.name
        if not path.is_file() or path.stat().st_size != entry.size:
            raise CorruptModel(f"{path} is not as it was found.", "Try again in a second.")
    if installed.revision.format != formats.GGUF:
        return {"model": folder}
    return {entry.role: folder / entry.name for entry in installed.revision.files if entry.role in {"model", "mmproj"}}
