"""What a kind of entry is: a project, a context, a pipeline, a run or an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import Table

from corral.domain.workspace import Entry

E = TypeVar("E", bound=Entry)


@dataclass(frozen=True, slots=True)
class Kind(Generic[E]):
    """A kind of entry: what it is called, where it is kept, and of which form the fields are.

    `lines` are texts of one line, `texts` longer ones, `documents` are JSON; `fixed` are never changed by a caller.
    `filters` are the columns that a list can be asked for, with the type of what is asked; `sorts` those it can be
    sorted by. `named`: one that is not deleted has a name that is its own, and can be had by it.
    """

    name: str
    prefix: str
    table: Table
    entry: type[E]
    lines: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    fixed: frozenset[str] = frozenset()
    filters: Mapping[str, type] | None = None
    sorts: tuple[str, ...] = ()
    named: bool = False
