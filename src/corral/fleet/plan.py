"""Wanted and seen → what is to be done, each step with its reason. Pure.

Steps of one phase may be done at once; `phases` gives them in order: what makes room, then what is made, then what is
started. `create` and `recreate` mean: made, and started.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from corral.domain.containers import ContainerSpec, Planned, Seen, Wanted


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is known of a container from before.

    Attributes:
        up: whether it shall run, as somebody last said, by hand or through Corral; None: nobody did, and its
            configuration holds.
        hold: why it is not started now (a pause before the next start, a crash loop); empty: nothing is in the way.
        drift: in words, what an inspection found to be different from what it was made as.
    """

    up: bool | None = None
    hold: str = ""
    drift: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody asks for: all or the `names`, up or down. `orphans` is `report`, `remove` or `adopt`."""

    names: frozenset[str] = field(default_factory=frozenset)
    down: bool = False
    recreate: bool = False
    orphans: str = "report"


def plan(
    wanted: Mapping[str, Wanted],
    seen: Sequence[Seen],
    yard: str,
    remembered: Mapping[str, Remembered],
    asked: Asked = Asked(),
) -> list[Planned]:
    """Every step that makes the engine's containers what they shall be, in order.

    Containers of others are never touched: what is in the way is said. A container with our labels that nothing
    is remembered of is adopted. Applied, and made again, it has nothing to do.

    Args:
        seen: all containers of the engine, not only ours: names and ports are everybody's.
        yard: whose we are.
        remembered: by name; a name that is not in it has never been seen.
    """
    raise NotImplementedError


def phases(steps: Sequence[Planned]) -> list[list[Planned]]:
    """The steps that do something, in groups that are done one after the other; those of one group at once."""
    raise NotImplementedError


def drifted(want: ContainerSpec, made: ContainerSpec) -> tuple[str, ...]:
    """What is different, in words, each naming the key. Values of the environment are not shown."""
    raise NotImplementedError


def whose(seen: Seen, yard: str) -> str:
    """Whose container it is, in words: this Corral's, another's, a compose project's, or nobody's that is known."""
    raise NotImplementedError
