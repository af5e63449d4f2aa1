"""The models in containers brought to what their registry has now, and back. Only servers that keep models can.

    corral-held/NAME       what the model was, from before it is fetched until the new one has said a word
    corral-previous/NAME   what it was before its last update, for `back`

Both are second names on the server itself, which cost no bytes; what only they mean takes its room there. A server that
knows no second names is updated all the same, and cannot be undone: then that is said.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from corral.domain.ports import Progress
from corral.domain.standings import Happening
from corral.errors import Conflict, ContainerUnhealthy, CorralError, ModelNotFound
from corral.fleet.asking import HELD, TRIAL_TIMEOUT, asker_of, missing
from corral.fleet.rollout import FAILED, SKIPPED, UNCHANGED, UNDONE, UPDATED, Renewed
from corral.kit.ollama_api import whole

if TYPE_CHECKING:
    from corral.domain.containers import Wanted
    from corral.domain.ports import Report
    from corral.domain.standings import ModelInside
    from corral.fleet.asking import Asker
    from corral.fleet.keeper import Parts

_LONGEST = 60


class Editions:
    """Changes the models in containers. Creating it does no I/O."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._rows = parts.observer.rows

    async def update(self, want: Wanted, model: str, report: Report) -> Renewed:
        """Have `model` fetched anew, and see that it says a word; what does not is undone, and said in the outcome."""
        asker, name = asker_of(want, self._parts.clock), want.name
        if asker is None or not asker.keeps_models:
            why = "its models come with its image and its command"
            return Renewed(name, model, SKIPPED, reason=why)
        try:
            before = await asker.find(model)
            held = await asker.find(aside(model))
            if before is not None and held is not None and held.digest != before.digest:
                return await self._judge(asker, want, model, held)  # an update was cut short after it was fetched
            keeps = before is not None and await self._hold(asker, model)
            if before is not None and before.digest:
                self._rows.version(name, before.digest, model, model=model)
            report(Progress("resolve", detail=f"{name}: {model}"))
            try:
                pulled = await asker.pull(model, report)
            except CorralError:
                await self._drop(asker, model)
                raise
        except CorralError as error:
            return Renewed(name, model, FAILED, reason=error.message)
        if before is not None and pulled is not None and pulled.digest and pulled.digest == before.digest:
            await self._drop(asker, model)
            return Renewed(name, model, UNCHANGED, before.digest, before.digest)
        return await self._judge(asker, want, model, before if keeps else None)

    async def back(self, want: Wanted, model: str) -> Renewed:
        """Let `model` be what it was before its last update.

        Raises:
            Conflict: nothing is kept of it.
            ModelNotFound: there is no such model.
            ContainerUnhealthy: the server does not answer as it should.
        """
        asker, name = asker_of(want, self._parts.clock), want.name
        found = () if asker is None else await asker.models(held=True)
        now = None if asker is None else asker.among(found, model)
        if asker is None or now is None:
            raise missing(model, [each for each in found if not each.name.startswith(HELD)])
        before = asker.among(found, aside(model, done=True))
        if before is None or before.digest == now.digest:
            raise Conflict(
                f"Nothing is kept of what {model!r} in {name!r} was before.", "There is nothing to go back to."
            )
        await asker.keep(model, aside(model))
        await asker.keep(aside(model, done=True), whole(model))
        return await self._judge(asker, want, model, now)

    async def remove(self, asker: Asker, model: str) -> None:
        """Remove a model, and what is kept of its past.

        Raises:
            ModelNotFound, NotSupported, ContainerUnhealthy: as `Asker.remove`.
        """
        await asker.remove(model)
        for done in (False, True):
            with suppress(ModelNotFound):
                await asker.remove(aside(model, done=done))

    async def _judge(self, asker: Asker, want: Wanted, model: str, before: ModelInside | None) -> Renewed:
        """Keep what the model is by now if it says a word, else let it be what is held as `before`, if that is."""
        name = want.name
        old = None if before is None else before.digest
        trial = await asker.test(model, timeout=TRIAL_TIMEOUT)
        try:
            now = await asker.find(model)
            new = None if now is None else now.digest
            if trial.ok:
                if before is not None:
                    await asker.keep(aside(model), aside(model, done=True))
                    await self._drop(asker, model)
                return self._said(Renewed(name, model, UPDATED, old, new))
            self._rows.version(name, new or "unknown", model, model=model, failed=trial.reason)
            if before is None:
                why = f"{trial.reason}. It cannot be undone: nothing is held of what it was."
                return self._said(Renewed(name, model, FAILED, old, new, why))
            await asker.keep(aside(model), whole(model))
            await self._drop(asker, model)
        except CorralError as error:
            return self._said(
                Renewed(name, model, FAILED, old, None, f"{trial.reason}; then: {error.message}".lstrip("; "))
            )
        return self._said(Renewed(name, model, UNDONE, old, old, trial.reason))

    async def _hold(self, asker: Asker, model: str) -> bool:
        """Whether the server holds what the model is, under a second name."""
        try:
            return await asker.keep(model, aside(model))
        except ContainerUnhealthy:
            return False

    async def _drop(self, asker: Asker, model: str) -> None:
        """Forget the second name; it may not be there."""
        try:
            await asker.remove(aside(model))
        except (ModelNotFound, ContainerUnhealthy):
            return

    def _said(self, done: Renewed) -> Renewed:
        """Write down what came of it."""
        if done.outcome == UPDATED and done.after:
            self._rows.version(done.container, done.after, str(done.model), model=done.model)
        detail = {"model": done.model, "before": done.before, "after": done.after}
        line = Happening(self._parts.clock.wall(), done.container, f"model {done.outcome}", reason=done.reason)
        self._rows.tell(replace(line, detail=detail))
        return done


def aside(model: str, *, done: bool = False) -> str:
    """The second name of a model on its server, during an update or, when that is `done`, after it."""
    name, _, tag = whole(model).rpartition(":")
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "--", name).strip("-.")
    if plain != name or len(plain) > _LONGEST:  # two names that become one stay two
        plain = f"{plain[:_LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return f"{HELD[1 if done else 0]}{plain}:{tag}"
