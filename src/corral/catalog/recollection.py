"""What was found out about files that lie elsewhere, kept so that each command need not open them all again.

`models/discovered.json`: a derived cache; what is not as it should be in it is passed over, and read anew.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import orjson

from corral.catalog import manifests
from corral.errors import StoreError
from corral.kit.disk import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from corral.domain.models import Revision

_FORMAT: Final = 1
"""To be raised when more is read from files than before."""

_MOST: Final = 1000
_LARGEST: Final = 64 << 20


class Recollection:
    """Revisions by a key that stands for the files as they were seen. `folder` None remembers nothing. Blocks."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._path = None if folder is None else folder / "discovered.json"

    def recall(self) -> dict[str, Revision]:
        """What is remembered; empty where nothing is, or nothing can be read."""
        found: dict[str, Revision] = {}
        for key, record in self._records().items():
            with suppress(StoreError, TypeError, KeyError, AttributeError):
                found[key] = manifests.load(orjson.dumps(record), self._place(record["id"]))
        return found

    def keep(self, revisions: Mapping[str, Revision]) -> None:
        """Remember these too; the oldest beyond a thousand are forgotten. A disk that takes nothing is no error."""
        if self._path is None or self._folder is None or not self._folder.is_dir():
            return
        records = {key: record for key, record in self._records().items() if key not in revisions}
        records |= {key: orjson.loads(manifests.dump(revision)) for key, revision in revisions.items()}
        latest = dict(list(records.items())[-_MOST:])
        with suppress(OSError):
            write_whole(self._path, orjson.dumps({"corral": _FORMAT, "models": latest}))

    def _place(self, known: object) -> Path:
        if self._folder is None or not isinstance(known, str):
            raise TypeError("no id")
        return self._folder / f"{known}.json"

    def _records(self) -> dict[str, Any]:
        try:
            if self._path is None or self._path.stat().st_size > _LARGEST:
                return {}
            content = orjson.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        match content:
            case {"corral": int(form), "models": dict(records)} if form == _FORMAT:
                return records
        return {}
