"""Which steps to begin now, so that models are swapped as seldom as can be. Pure: it changes when, and never what.

A model that is in memory costs nothing to ask. So first comes all that such models can do, and what it makes possible;
only when that is done is another loaded: the one that begins the way with the fewest loads to the end, as far as that
can be seen. Nobody is kept waiting for ever: whoever waits here waits for a step of the same run that is under way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

_MOST_WAYS: Final = 1_000
"""Loads that are tried out in thought; beyond them the rest of a way is only reckoned to be as short as it could be."""


@dataclass(frozen=True, slots=True)
class Task:
    """A step, or one item of it. `model` None asks none. `needs` are keys of tasks that must have ended before."""

    key: str
    model: str | None = None
    needs: tuple[str, ...] = ()


def choose(
    ready: Sequence[Task],
    running: Iterable[Task] = (),
    resident: Collection[str] = (),
    last: str | None = None,
    room: int = 1 << 30,
    *,
    ahead: Sequence[Task] = (),
    beside: Callable[[str], bool] | None = None,
) -> list[Task]:
    """The tasks of `ready` to begin now, in this order; none while it is better to wait for those that are `running`.

    Args:
        ready: what could begin, in the order of the pipeline.
        running: what has begun and not ended.
        resident: models that can be asked at once: in memory, or not on this machine at all.
        last: the model asked last, which is taken for resident where nothing is known of that.
        room: how many may begin.
        ahead: what waits for other tasks, with its needs; without it only `ready` is looked at.
        beside: whether a model has room in memory beside those that are there; None: none has.
    """
    if room <= 0 or not ready:
        return []
    under_way = list(running)
    at_hand = {*resident, *(task.model for task in under_way if task.model is not None)}
    if not resident and last is not None:
        at_hand.add(last)
    free = [task for task in ready if task.model is None or task.model in at_hand]
    if beside is not None:
        free += [task for task in ready if task not in free and task.model is not None and beside(task.model)]
    awaited = {need for task in ahead for need in task.needs}  # what waits may ask the model that is there now
    if free or any(task.model is not None or task.key in awaited for task in under_way):
        return free[:room]
    model = next_model(ready, ahead)
    return [task for task in ready if task.model == model][:room]


def next_model(ready: Sequence[Task], ahead: Sequence[Task] = ()) -> str:
    """The model to load first, when each is loaded in place of the one before, for the fewest loads to the end.

    `ready` must ask some model. Of equals it is the one whose task stands first.
    """
    order = list(dict.fromkeys(task.model for task in ready if task.model is not None))
    if len(order) == 1:
        return order[0]
    search = _Search(_joined([*ready, *ahead]))
    return min(order, key=lambda model: search.loads(frozenset(), model))


class _Search:
    """The loads to the end by each way, with memory for one model; exact where there are not too many ways."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = tasks
        at = {task.key: number for number, task in enumerate(tasks)}
        self._needs = [frozenset(at[need] for need in task.needs if need in at) for task in tasks]
        self._for: list[list[int]] = [[] for _ in tasks]
        for number, needs in enumerate(self._needs):
            for need in needs:
                self._for[need].append(number)
        self._known: dict[frozenset[int], int] = {}
        self._left = _MOST_WAYS

    def loads(self, done: frozenset[int], model: str) -> int:
        """The loads from here on when `model` is loaded next, that one included."""
        return 1 + self._rest(self._exhausted(done, model))

    def _rest(self, done: frozenset[int]) -> int:
        if done not in self._known:
            models = self._models(done)
            if self._left <= 0:  # at least once each
                left = {task.model for number, task in enumerate(self._tasks) if number not in done}
                return len(left - {None})
            # What is left when there are no models waits for what is not among these tasks.
            self._known[done] = min((self.loads(done, model) for model in models), default=0)
        return self._known[done]

    def _models(self, done: frozenset[int]) -> list[str]:
        found = [
            task.model for number, task in enumerate(self._tasks) if number not in done and self._needs[number] <= done
        ]
        return list(dict.fromkeys(model for model in found if model is not None))

    def _exhausted(self, done: frozenset[int], model: str) -> frozenset[int]:
        """What is done when a model, and what asks none, has done all that it can."""
        self._left -= 1
        reached = set(done)
        able = [
            number
            for number, task in enumerate(self._tasks)
            if number not in done and task.model in {None, model} and self._needs[number] <= done
        ]
        while able:
            number = able.pop()
            if number not in reached:
                reached.add(number)
                able += [
                    other
                    for other in self._for[number]
                    if self._tasks[other].model in {None, model} and self._needs[other] <= reached
                ]
        return frozenset(reached)


def _joined(tasks: Sequence[Task]) -> list[Task]:
    """The tasks, with one in place of those that ask the same model and wait for the same: items of one list."""
    kept: dict[tuple[str | None, tuple[str, ...]], Task] = {}
    stands: dict[str, str] = {}
    for task in tasks:
        first = kept.setdefault((task.model, task.needs), task)
        stands[task.key] = first.key
    return [
        Task(task.key, task.model, tuple(dict.fromkeys(stands.get(need, need) for need in task.needs)))
        for task in kept.values()
    ]
