"""How a model comes into memory: what it needs is found out, it is loaded or woken, and what comes of that."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from corral.domain.memory import Placement
from corral.domain.states import State
from corral.errors import CorralError, DoesNotFit, EngineDied, EngineStartFailed, OutOfMemory
from corral.lifecycle.engines import Launch
from corral.lifecycle.hands import Owner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from corral.lifecycle.engines import Engine, Gauge
    from corral.lifecycle.hands import Hands
    from corral.lifecycle.slots import Slot


class Host(Owner, Protocol):
    """Whose models they are: the one writer of states, who also knows who waits."""

    def refuse(self, slot: Slot, error: BaseException) -> None:
        """Tell all who wait that they wait in vain."""
        ...

    def fail(self, model: str, slot: Slot, error: BaseException) -> None:
        """The same, and the model is not to be had."""
        ...


class Arrivals:
    """Brings models in, each step in a task of its own that can be called off.

    Args:
        host: is told what comes of it.
        plan: how to start a model by name.
        hands: start and wake engines.
        gauge: is told of memory that did not suffice.
    """

    def __init__(self, host: Host, plan: Callable[[str], Awaitable[Launch]], hands: Hands, gauge: Gauge) -> None:
        self._owner = host
        self._plan = plan
        self._hands = hands
        self._gauge = gauge

    def plan(self, model: str, slot: Slot) -> None:
        """Find out what the model needs."""
        slot.launch = None
        self._begin(model, slot, self._planned(model), "plan")

    def load(self, model: str, slot: Slot, launch: Launch) -> None:
        """Start its engine where the slot says."""
        self._begin(model, slot, self._hands.start(model, slot, launch), "load")

    def wake(self, model: str, slot: Slot, engine: Engine) -> None:
        """Have its sleeping engine answer again."""
        self._begin(model, slot, self._hands.wake(engine, slot.task), "wake")

    def _begin(self, model: str, slot: Slot, work: Coroutine[Any, Any, Any], what: str) -> None:
        slot.task = asyncio.create_task(work, name=f"{what} {model}")
        # Runs before anyone who waits does, so that they find the state that their result implies.
        slot.task.add_done_callback(lambda task: self._settle(model, slot, task))

    async def _planned(self, model: str) -> Launch:
        return await self._plan(model)

    def _settle(self, model: str, slot: Slot, task: asyncio.Task[Any]) -> None:
        """A plan, a load or an awakening is over."""
        if slot.state in (State.COLD, State.FAILED) or slot.task is not task:
            if not task.cancelled():
                task.exception()  # nobody waits for it any more, be it good or bad
            return
        slot.task = None
        if task.cancelled():
            self._called_off(model, slot)
        elif error := task.exception():
            self._not_loaded(model, slot, error)
        elif isinstance(found := task.result(), Launch):
            slot.launch = found
            if slot.line or slot.hinted_until is not None:
                self._owner.decide_soon()
            else:
                self._owner.set_state(model, slot, State.COLD, "nobody waits for it any more")
        else:
            self._loaded(model, slot, found)

    def _loaded(self, model: str, slot: Slot, engine: Engine) -> None:
        awoken = slot.engine is engine
        if engine.gone.is_set():
            self._not_loaded(model, slot, EngineDied(f"The engine of {model!r} ended while it was waking."))
            return
        slot.engine = engine
        self._owner.set_state(
            model, slot, State.READY, "awake again" if awoken else f"loaded in {engine.load_seconds:.1f} s"
        )
        if not awoken:
            slot.watch = self._hands.spawn(self._hands.watch(model, slot, engine))
        if not engine.remote:
            self._hands.spawn(self._hands.measure(engine))
        self._owner.decide_soon()

    def _not_loaded(self, model: str, slot: Slot, error: BaseException) -> None:
        if slot.engine is None and isinstance(error, OutOfMemory) and slot.launch is not None:
            self._gauge.too_small(slot.launch, slot.placement)
            if slot.failed_for is None:
                slot.failed_for = error
                slot.placement = Placement()
                self._owner.set_state(model, slot, State.QUEUED, f"it did not get by with its memory: {error.message}")
                self.plan(model, slot)  # what it needs is known better now
                return
        if slot.failed_for is not None and isinstance(error, DoesNotFit):
            error = slot.failed_for  # that is how it is known not to fit
        elif slot.launch is not None and isinstance(error, CorralError):
            self._owner.ended_by_itself(model, error.message, 0.0)
        self._owner.fail(model, slot, error)

    async def call_off(self, model: str, slot: Slot) -> None:
        """End what has not become an engine yet."""
        if slot.task is not None:
            slot.task.cancel()
            await asyncio.wait([slot.task])  # and look again: it may have become ready before it could be cancelled
            await asyncio.sleep(0)  # its callback runs before anything else does
        else:
            self._called_off(model, slot)

    def _called_off(self, model: str, slot: Slot) -> None:
        why = "the load was called off"
        self._owner.refuse(slot, EngineStartFailed("The load was called off.", "Ask again to load it."))
        if slot.engine is None:
            self._owner.set_state(model, slot, State.COLD, why)
        else:  # it was waking
            self._owner.set_state(model, slot, State.STOPPING, why)
            self._hands.begin_stop(model, slot, slot.engine, why)
