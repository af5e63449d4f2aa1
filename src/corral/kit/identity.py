"""Names for requests, and for a Corral's home among others."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

from corral.errors import StoreError
from corral.kit.disk import translated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_YARD = re.compile(r"yard-[0-9a-f]{12}")


def request_ids() -> Iterator[str]:
    """Endless request identifiers, unique to this process and hard to guess: a random part and a count."""
    lead = f"req-{secrets.token_hex(8)}-"
    return (f"{lead}{number:x}" for number in count(1))


def yard(home: Path) -> str:
    """What tells this home from every other, wherever it lies: `yard-` and twelve digits, made up once. Blocks.

    It lies in the file `yard` of the home. Whoever copies a home has to leave that out, or two have one name.

    Raises:
        StoreError: it can be neither read nor written, or is none.
    """
    file = home / "yard"
    with translated("reading or writing", file):
        if not file.exists():
            home.mkdir(parents=True, exist_ok=True)
            beside = home / f"{secrets.token_hex(8)}.tmp"
            try:
                beside.write_text(f"yard-{secrets.token_hex(6)}\n", encoding="ascii")
                with suppress(FileExistsError):
                    os.link(beside, file)  # of two at once the first has it
            finally:
                beside.unlink(missing_ok=True)
        found = file.read_text(encoding="ascii", errors="replace").strip()
    if not _YARD.fullmatch(found):
        raise StoreError(
            f"{file} is no name of a Corral's home.",
            "Write yard- and twelve digits of 0-9 and a-f there, or remove it: its containers are then a stranger's.",
        )
    return found
