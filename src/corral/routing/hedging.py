"""When an answer is long in coming, the next candidate is asked as well; the first to say something answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from corral.errors import UpstreamError
from corral.routing.calling import LEFT, Calling, Missed, spoilt
from corral.routing.passage import Passage
from corral.routing.policies import Action, Verdict

if TYPE_CHECKING:
    from corral.domain.ports import Report
    from corral.routing.carrying import Carrying

_LOST = Verdict(Action.NEXT, "hedged", "another answered first")


async def race(carrying: Carrying, after: float, report: Report) -> Passage:
    """The first answer to say something, of the candidate whose turn it is and of the next `after` that many seconds.

    Who was slower is stopped, and billed for the prompt: it has read it.

    Raises:
        Missed: none of those asked answers; all but the last are noted.
    """
    candidates = carrying.plan.candidates
    at = candidates.index(carrying.candidate)
    running: dict[asyncio.Task[Passage], Calling] = {}
    clock = carrying.parts.clock
    why = _LOST
    timer: asyncio.Task[None] | None = None
    winner: Passage | None = None
    try:
        while True:
            calling = Calling(carrying, candidates[at].model)
            running[asyncio.create_task(_said(calling, report))] = calling
            more = at + 1 < len(candidates)
            timer = asyncio.create_task(clock.sleep(after)) if more else None
            found = await _one_of(carrying, running, timer)
            if timer is not None:
                timer.cancel()
            if isinstance(found, Passage):
                winner = found
                return found
            if found is not None:
                if not running and (not more or found.verdict.action is Action.GIVE_UP):
                    raise found
                carrying.miss(found)
            at += 1
            carrying.forward()
    except asyncio.CancelledError:
        why = LEFT
        raise
    finally:
        if timer is not None:
            timer.cancel()
        if await _stop(carrying, running, why):
            if winner is not None:
                winner.abandon()
                _note(carrying, winner.calling, LEFT)
            raise asyncio.CancelledError


async def _one_of(
    carrying: Carrying, running: dict[asyncio.Task[Passage], Calling], timer: asyncio.Task[None] | None
) -> Passage | Missed | None:
    """The first answer; or why the last that was asked gave none; or None when the time is over."""
    while True:
        waiting: set[asyncio.Task[object]] = {*running}
        if timer is not None:
            waiting.add(timer)
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in [task for task in running if task in done]:
            running.pop(task)
            error = task.exception()
            if error is None:
                return task.result()
            if not isinstance(error, Missed):
                raise error
            if timer is not None or not running:
                return error
            carrying.miss(error)
        if timer is not None and timer in done:
            return None


async def _said(calling: Calling, report: Report) -> Passage:
    """An answer of which the first piece is there.

    Raises:
        Missed: there is none.
    """
    passage = await calling.go(report)
    begun = False
    try:
        await passage.prime()
        begun = True
    except UpstreamError as error:
        raise spoilt(passage, error, error) from error
    finally:
        if not begun:
            passage.abandon()
    return passage


async def _stop(carrying: Carrying, running: dict[asyncio.Task[Passage], Calling], why: Verdict) -> bool:
    """End the calls that nobody waits for any more, and note what they cost; whether we were cancelled meanwhile."""
    cancelled = False
    for task in running:
        task.cancel()
    while ending := [task for task in running if not task.done()]:
        try:
            await asyncio.wait(ending)
        except asyncio.CancelledError:
            cancelled = True
            for task in ending:
                task.cancel()
    for task, calling in running.items():
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Missed):
            carrying.miss(error)
            continue
        if error is not None:
            raise error
        if not task.cancelled():  # it had answered in the same moment
            task.result().abandon()
        _note(carrying, calling, why)
    return cancelled


def _note(carrying: Carrying, calling: Calling, why: Verdict) -> None:
    """Note a call whose answer nobody waits for."""
    attempt = calling.left(why)
    if attempt is not None:
        carrying.tries = (*carrying.tries, attempt)
