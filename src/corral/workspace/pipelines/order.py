"""What is asked for when a pipeline is to be run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from corral.domain.callers import LOCAL, Caller


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOrder:
    """A run to be started.

    `project` is an id or a name, `pipeline` as well; `source` is YAML in its place. `models` are asked in place of what
    the pipeline names: by step, or `*` for all. `budget` is in nanodollars, None as the pipeline says. `seed` None has
    one drawn. `caller` pays.
    """

    project: str
    pipeline: str | None = None
    source: str | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    budget: int | None = None
    seed: int | None = None
    title: str = ""
    tags: tuple[str, ...] = ()
    caller: Caller = LOCAL
