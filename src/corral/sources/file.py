"""Models that already lie on this machine: `file:./model.gguf`, `file:/models/model.gguf`, `file:~/model.gguf`."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from corral.domain.models import Listing, ModelRef, RemoteFile, RemotePart
from corral.errors import NotSupported, SourceError, SourceNotFound
from corral.kit.disk import in_thread
from corral.kit.web import local_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from corral.domain.ports import Hit, PartFile, Query, Report

_MAGIC = b"GGUF"


class File:
    """Takes a model's bytes into the store: shared copy-on-write where the disk can, copied where it cannot.

    Never a hard link: the original stays the user's, who may edit it in place, while what is installed must not change.
    """

    scheme = "file"

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    async def resolve(self, ref: ModelRef) -> Listing:
        """The file itself. Its version is its time stamp, so that an edited file is taken again.

        Raises:
            SourceNotFound: there is no such file.
            SourceError: it cannot be read, or is no GGUF file.
        """
        path = self._path(ref.locator)
        size, changed = await in_thread(_examine, path)
        part = RemotePart(path.as_uri(), size=size, length=size)
        file = RemoteFile(path.name, (part,), size=size)
        return Listing(ModelRef(self.scheme, str(path)), (file,), version=changed)

    async def fetch(self, file: RemoteFile, into: PartFile, report: Report) -> None:
        """Take the bytes as they are now.

        Raises:
            SourceError: the file changed while it was read; nothing is kept.
        """
        path = local_path(file.parts[0].url)
        if path is None or len(file.parts) != 1:
            raise SourceError(f"{file.name} is no local file.")
        before = await in_thread(_examine, path)
        try:
            await into.clone(path, report)
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror}.", "Check the file.") from error
        if await in_thread(_examine, path) != before or into.size != before[0]:
            await into.restart()
            raise SourceError(f"{path} was changed while it was read.", "Try again when nobody writes to it.")

    async def search(self, query: Query) -> Sequence[Hit]:
        """Refused: a disk is searched with other tools."""
        raise NotSupported(f"Local files cannot be searched for {query.text!r}.", "Name the file: file:./model.gguf")

    def _path(self, locator: str) -> Path:
        text = unquote(locator.removeprefix("//localhost").removeprefix("//")) if locator.startswith("//") else locator
        if text == "~" or text.startswith("~/"):
            text = f"{self._env.get('HOME') or Path.home()}{text[1:]}"
        with suppress(OSError, ValueError):
            return Path(text).resolve()
        raise SourceNotFound(f"{text[:200]!r} is not a path.", "Name a file: file:./model.gguf")


def _examine(path: Path) -> tuple[int, str]:
    """Size in bytes and time stamp of a GGUF file.

    Raises:
        SourceNotFound: there is no such file.
        SourceError: it cannot be read, or is no GGUF file.
    """
    try:
        if path.is_dir():
            raise SourceError(f"{path} is a folder.", "Name the .gguf file in it.")
        if not path.exists():
            raise SourceNotFound(f"{path} does not exist.", "Check the path.")
        if not path.is_file():
            raise SourceError(f"{path} is a pipe or device, not a file.", "Name a .gguf file.")
        with path.open("rb") as stream:
            magic = stream.read(len(_MAGIC))
        facts = path.stat()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.", "Check the file's owner and mode.") from error
    if magic != _MAGIC:
        raise SourceError(f"{path} is not a GGUF file.", "Only GGUF models can be installed from files.")
    seconds, rest = divmod(facts.st_mtime_ns, 1_000_000_000)
    return facts.st_size, f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09}Z"


plugin = File
