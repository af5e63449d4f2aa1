"""Names for requests."""

from __future__ import annotations

import secrets
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def request_ids() -> Iterator[str]:
    """Endless request identifiers, unique to this process and hard to guess: a random part and a count."""
    lead = f"req-{secrets.token_hex(8)}-"
    return (f"{lead}{number:x}" for number in count(1))
