"""Images brought to what their registries have now, one container at a time, and back.

    fetch ─▶ same as before? ─▶ nothing
      └─▶ the old container steps aside, a new one is made and started ─▶ its API answers ─▶ a model says a word ─▶ kept
                                                                   └─ it does not ─▶ the old one comes back ◀─┘

What was there is held by its id, and under a name of its own, so that no clearing up of images loses it. After a
rollout that failed the image's name means the old image again, so that whatever makes the container anew makes it of
what works.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from corral.domain.ports import Progress
from corral.errors import Conflict, ContainerError, ContainerUnhealthy, CorralError, DockerUnavailable, ImageNotFound
from corral.fleet.asking import TRIAL_TIMEOUT, Asker
from corral.fleet.desired import url_of
from corral.fleet.observing import is_aside
from corral.fleet.reconcile import How

if TYPE_CHECKING:
    from collections.abc import Collection

    from corral.domain.containers import Seen, Wanted
    from corral.domain.ports import Report
    from corral.fleet.keeper import Parts

UPDATED, UNCHANGED, UNDONE, FAILED, SKIPPED, WAITING = (
    "updated",
    "unchanged",
    "undone",
    "failed",
    "skipped",
    "not tried",
)
BROKEN = frozenset({UNDONE, FAILED})
"""Outcomes after which nothing further is tried."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """What became of one image, or of one `model` in a container.

    `outcome` is one of the words above; `before` and `after` are digests, `after` what it is now.
    """

    container: str
    model: str | None
    outcome: str
    before: str | None = None
    after: str | None = None
    reason: str = ""


class Rollout:
    """Changes the images of containers. Creating it does no I/O; `parts` has to know the containers as they are."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._observer = parts.observer
        self._reconciler = parts.reconciler

    async def update(self, name: str, report: Report) -> Renewed:
        """Bring its image to what the registry has now. What does not work is undone, and said in the outcome.

        Raises:
            DockerUnavailable: the engine went away; what was begun is brought to an end when it is back.
        """
        want, engine = self._wanted(name), self._parts.engine()
        spec = want.spec
        if spec.digest is not None:
            return Renewed(name, None, SKIPPED, reason=f"it is pinned to {spec.digest}")
        await self.settle(name)
        async with self._reconciler.alone(name):
            old = (await self._reconciler.look(name)).seen
            if old is None or not old.running:
                return Renewed(name, None, SKIPPED, reason="it is not up")
            report(Progress("resolve", detail=f"{name}: {spec.image}"))
            try:
                pulled = await engine.pull(spec.image, report)
            except DockerUnavailable:
                raise
            except (ContainerError, ImageNotFound) as error:
                return Renewed(name, None, FAILED, old.image_id, old.image_id, error.message)
            if pulled.id == old.image_id:
                self._observer.rows.version(name, pulled.id, spec.image)
                return Renewed(name, None, UNCHANGED, pulled.id, pulled.id)
            return await self._change(want, old, pulled.id, report)

    async def back(self, name: str, report: Report) -> Renewed:
        """Make it of the image that it had before.

        Raises:
            Conflict: there is none, or it is no longer here, or the configuration says which image it is.
            DockerUnavailable: as `update`.
        """
        want, engine = self._wanted(name), self._parts.engine()
        if want.spec.digest is not None:
            raise Conflict(
                f"Container {name!r} is pinned to {want.spec.digest}.",
                f"Set containers.{name}.digest to another, then: corral containers up {name}",
            )
        await self.settle(name)
        async with self._reconciler.alone(name):
            known = await self._reconciler.look(name)
            old, previous = known.seen, known.standing.previous
            if old is None or not old.running:
                raise Conflict(f"Container {name!r} is not up.", f"Start it first: corral containers start {name}")
            if previous is None or previous == old.image_id:
                raise Conflict(f"Container {name!r} has had no other image.", "There is nothing to go back to.")
            if await engine.image(previous) is None:
                raise Conflict(f"The image that {name!r} had before, {previous[:19]}, is no longer here.", "Pull it.")
            await engine.tag(previous, want.spec.image)
            return await self._change(want, old, previous, report)

    async def settle(self, name: str) -> None:
        """Bring to an end what an earlier change of it left when it was cut short.

        Raises:
            ContainerError: it does not come to an end.
        """
        engine, yard = self._parts.engine(), await self._observer.rows.yard()
        for last in (False, True):
            everything = await engine.list(yard)
            if not any(is_aside(seen) and seen.name == name for seen in everything):
                return
            if last:
                break
            with suppress(ContainerUnhealthy):
                await self._reconciler.well(name)
            await self._reconciler.mend(everything)
        raise ContainerError(
            f"An earlier change of container {name!r} has not come to an end.", f"See: corral containers ps {name}"
        )

    async def _change(self, want: Wanted, old: Seen, image: str, report: Report) -> Renewed:
        """Make it anew of `image`, which its name means by now; what was there comes back where that does not work."""
        engine, rows, name = self._parts.engine(), self._observer.rows, want.name
        rows.version(name, old.image_id, want.spec.image)
        had = {model.name for model in self._observer.known[name].standing.models}

        async def gate(_: str) -> None:
            await self._reconciler.well(name)
            await self._speaks(want, had)
            await engine.tag(old.image_id, kept_as(await rows.yard(), name))

        report(Progress("replace", detail=f"{name}: made anew of {image[:19]}"))
        try:
            how = How(pull=False, report=report, gate=gate)
            await self._reconciler.recreate(name, how, f"its image is {image[:19]} now")
        except CorralError as error:
            await engine.tag(old.image_id, want.spec.image)
            rows.version(name, image, want.spec.image, failed=error.message)
            now = (await self._reconciler.look(name)).seen
            back = now is not None and now.image_id == old.image_id and now.running
            reason = error.message if back else f"{error.message} What was there before did not come back either."
            self._observer.done(name, "undone" if back else "failed", reason)
            return Renewed(name, None, UNDONE if back else FAILED, old.image_id, old.image_id, reason)
        return Renewed(name, None, UPDATED, old.image_id, image)

    async def _speaks(self, want: Wanted, had: Collection[str]) -> None:
        """Have one of its models say a word, if it has any.

        Raises:
            ContainerUnhealthy: it does not, or lacks what it had.
        """
        asker = asker_of(want, self._parts)
        if asker is None:
            return
        found = await asker.models()
        lost = [model for model in had if asker.among(found, model) is None]
        if lost:
            raise ContainerUnhealthy(f"It no longer has {', '.join(sorted(lost))}.")
        there = [model for model in want.models if asker.among(found, model) is not None]
        model = next(iter([*there, *(model.name for model in found)]), None)
        if model is not None:
            trial = await asker.test(model, timeout=min(want.watch.start_timeout, TRIAL_TIMEOUT))
            if not trial.ok:
                raise ContainerUnhealthy(f"Its API answers, and {model!r} does not: {trial.reason}.")

    def _wanted(self, name: str) -> Wanted:
        return self._parts.wanted()[name]


def asker_of(want: Wanted, parts: Parts) -> Asker | None:
    """The server of a container; None for one without a port, which cannot be asked."""
    url = url_of(want.spec)
    return None if url is None else Asker(want.spec.kind, url, parts.clock, want.watch.health)


def kept_as(yard: str, name: str) -> str:
    """The reference under which the image is kept that a container had before."""
    return f"corral-previous:{re.sub(r'[^A-Za-z0-9_.-]', '-', yard)[:20]}-{name}"
