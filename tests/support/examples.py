"""What a source's contract tests need to know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class SourceExample:
    """A reference that exists and what it holds, references that do not, and how to make the upstream send other bytes.

    `damage` is None for a source that promises no digest; then its listing must not name one. `close` is called when
    the test is over: it ends what `build` started, such as a server.
    """

    reference: str
    absent: tuple[str, ...]
    content: Mapping[str, bytes]
    env: Mapping[str, str] = field(default_factory=dict)
    damage: Callable[[], object] | None = None
    close: Callable[[], object] = lambda: None
