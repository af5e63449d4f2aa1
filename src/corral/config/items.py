"""How one setting is declared: its default, how it is read, and what it means."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def setting(default: Any, read: Callable[[Any], Any] | None, doc: str) -> Any:
    """A field of a section or an entry. `read` None takes a mapping as it is."""
    return field(default=default, metadata={"read": read, "doc": doc})


def mapping(read: Callable[[Any], Any] | None, doc: str) -> Any:
    """A field that is a mapping, empty by default."""
    return field(default_factory=dict[str, Any], metadata={"read": read, "doc": doc})
