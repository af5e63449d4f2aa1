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
from corral.fleet.asking import TRIAL_TIMEOUT, asker_of
from corral.fleet.observing import is_aside
from corral.fleet.reconcile import How
from corral.fleet.standing import Do

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

_HELD, _PREVIOUS = "corral-held", "corral-previous"


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
        mended = await self.settle(name)
        async with self._reconciler.alone(name):
            known = await self._reconciler.look(name)
            if mended and known.seen is not None and not known.seen.running and known.standing.wanted:
                await self._reconciler.start(name, How(wait=True), "an update of it was cut short")
            old = (await self._reconciler.look(name)).seen
            if old is None or not old.running:
                return Renewed(name, None, SKIPPED, reason="it is not up")
            report(Progress("resolve", detail=f"{name}: {spec.image}"))
            try:
                pulled = await engine.pull(spec.image, report)
            except DockerUnavailable:
                raise
            except ImageNotFound as error:  # it may have been made here
                return Renewed(name, None, SKIPPED, old.image_id, old.image_id, error.message)
            except ContainerError as error:
                self._observer.untouched(name, error.message)
                return Renewed(name, None, FAILED, old.image_id, old.image_id, error.message)
            if pulled.id == old.image_id:
                return await self._confirm(want, old, report)
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
            old, told = known.seen, known.standing.previous
            if old is None or not old.running:
                raise Conflict(f"Container {name!r} is not up.", f"Start it first: corral containers start {name}")
            yard = await self._observer.rows.yard()
            for reference in (told, _kept_as(_PREVIOUS, yard, name), _kept_as(_HELD, yard, name)):
                previous = None if reference is None else await engine.image(reference)
                if previous is not None and previous.id != old.image_id:
                    await engine.tag(previous.id, want.spec.image)
                    return await self._change(want, old, previous.id, report)
            if told is not None and told != old.image_id:
                raise Conflict(
                    f"The image that {name!r} had before, {told[:19]}, is no longer here.",
                    f"Name one: containers.{name}.digest",
                )
            raise Conflict(f"Container {name!r} has had no other image.", "There is nothing to go back to.")

    async def settle(self, name: str) -> bool:
        """Bring to an end what an earlier change of it left when it was cut short; whether there was anything.

        Raises:
            ContainerError: it does not come to an end.
        """
        engine, yard = self._parts.engine(), await self._observer.rows.yard()
        for last in (False, True):
            everything = await engine.list(yard)
            if not any(is_aside(seen) and seen.name == name for seen in everything):
                return last
            if last:
                break
            with suppress(ContainerUnhealthy):
                await self._reconciler.well(name)
            await self._reconciler.mend(everything)
        raise ContainerError(
            f"An earlier change of container {name!r} has not come to an end.", f"See: corral containers status {name}"
        )

    async def _confirm(self, want: Wanted, old: Seen, report: Report) -> Renewed:
        """It runs the image that the registry has. If it does so since an update that was cut short, that is ended."""
        engine, rows, name = self._parts.engine(), self._observer.rows, want.name
        held = await engine.image(_kept_as(_HELD, await rows.yard(), name))
        known = [row for row in await rows.versions(name) if row["model"] is None and row["status"] == "current"]
        if held is None or held.id == old.image_id or not known or known[0]["version"] != held.id:
            rows.version(name, old.image_id, want.spec.image)
            return Renewed(name, None, UNCHANGED, old.image_id, old.image_id)
        try:
            await self._reconciler.well(name)
            await self._speaks(want, ())
        except ContainerUnhealthy as error:
            await engine.tag(held.id, want.spec.image)
            back = await self._change(want, old, held.id, report)
            rows.version(name, old.image_id, want.spec.image, failed=error.message)
            outcome = UNDONE if back.outcome == UPDATED else FAILED
            return Renewed(name, None, outcome, held.id, back.after, f"{error.message} {back.reason}".rstrip())
        await engine.tag(held.id, _kept_as(_PREVIOUS, await rows.yard(), name))
        rows.version(name, old.image_id, want.spec.image)
        self._observer.note(name, previous=held.id)
        return Renewed(name, None, UPDATED, held.id, old.image_id)

    async def _change(self, want: Wanted, old: Seen, image: str, report: Report) -> Renewed:
        """Make it anew of `image`, which its name means by now; what was there comes back where that does not work."""
        engine, rows, name = self._parts.engine(), self._observer.rows, want.name
        had = {model.name for model in self._observer.known[name].standing.models}
        rows.version(name, old.image_id, want.spec.image)
        await rows.flush()  # what it was must be known to whoever goes on after a kill
        await engine.tag(old.image_id, _kept_as(_HELD, await rows.yard(), name))

        async def gate(_: str) -> None:
            await self._reconciler.well(name)
            await self._speaks(want, had)
            await engine.tag(old.image_id, _kept_as(_PREVIOUS, await rows.yard(), name))

        report(Progress("replace", detail=f"{name}: made anew of {image[:19]}"))
        try:
            how = How(pull=False, report=report, gate=gate)
            await self._reconciler.recreate(name, how, f"its image is {image[:19]} now")
        except CorralError as error:
            await engine.tag(old.image_id, want.spec.image)
            rows.version(name, image, want.spec.image, failed=error.message)
            return await self._returned(name, old, error.message)
        return Renewed(name, None, UPDATED, old.image_id, image)

    async def _returned(self, name: str, old: Seen, reason: str) -> Renewed:
        """What became of an update that failed: whether what was there before is back, and answers."""
        now = (await self._reconciler.look(name)).seen
        if now is None or now.id != old.id or not now.running:
            return Renewed(
                name, None, FAILED, old.image_id, None, f"{reason} What was there before did not come back either."
            )
        self._observer.began(name, Do.RECREATE)
        self._observer.done(name, "undone", reason, id=old.id)  # nothing is held against it
        try:
            await self._reconciler.well(name)
        except ContainerUnhealthy as error:
            return Renewed(name, None, FAILED, old.image_id, old.image_id, f"{reason} Then: {error.message}")
        return Renewed(name, None, UNDONE, old.image_id, old.image_id, reason)

    async def _speaks(self, want: Wanted, had: Collection[str]) -> None:
        """Have one of its models say a word, if it has any.

        Raises:
            ContainerUnhealthy: it does not, or lacks what it had.
        """
        asker = asker_of(want, self._parts.clock)
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


def _kept_as(what: str, yard: str, name: str) -> str:
    """The reference under which an image is kept that a container had before, or has while it is changed."""
    return f"{what}:{re.sub(r'[^A-Za-z0-9_.-]', '-', yard)[:40]}-{name}"
