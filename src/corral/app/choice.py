"""Which runtime runs a model, where nobody says: the best liked of those that run its files and can be used here."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from corral.errors import CorralError, RuntimeUnavailable

if TYPE_CHECKING:
    from corral.domain.ports import Availability, Clock, Runtime
    from corral.plugins import Plugins

_FRESH = 30.0
"""Seconds for which a runtime's word counts."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The runtime for files of a format, and why; and of each other one, why not. None when there is none."""

    runtime: str | None
    reason: str
    rejected: tuple[tuple[str, str], ...] = ()


class Choices:
    """Chooses runtimes by format. What a runtime says of itself is asked for ahead, by `survey`."""

    def __init__(self, runtimes: Plugins[Runtime], clock: Clock) -> None:
        self._runtimes = runtimes
        self._clock = clock
        self._said: dict[str, tuple[float, Availability]] = {}

    async def availability(self, kind: str) -> Availability:
        """What the runtime says of itself, now or a moment ago.

        Raises:
            CorralError: there is no such runtime, or it cannot be loaded.
        """
        at, said = self._said.get(kind, (0.0, None))
        if said is None or self._clock.now() - at > _FRESH:
            said = await self._runtimes[kind].probe()
            self._said[kind] = self._clock.now(), said
        return said

    async def survey_all(self) -> None:
        """Ask every runtime that is ever chosen by itself."""
        for kind in self._runtimes:
            try:
                wanted = self._runtimes[kind].preference > 0
            except CorralError:
                continue  # its own absence is told where it is asked for
            if wanted:
                await self.availability(kind)

    async def survey(self, form: str) -> None:
        """Ask the runtimes for files of this format until one is found that can be used and is at its best here."""
        for runtime in self._candidates(form)[0]:
            said = await self.availability(runtime.kind)
            if said.usable and said.preferred:
                return

    def choose(self, form: str) -> Choice:
        """The runtime for files of this format, by what is known.

        Outside of a loop, one that needs an environment of its own and was not asked yet is asked now, which blocks for
        some milliseconds; any other counts as usable until somebody has asked it.
        """
        candidates, broken = self._candidates(form)
        rejected = list(broken)
        second: Runtime | None = None
        for runtime in candidates:
            said = self._known(runtime)
            if said is not None and not said.usable:
                rejected.append((runtime.kind, said.reason))
            elif said is not None and not said.preferred:
                second = second or runtime
            else:
                return Choice(runtime.kind, _reason(form, runtime, said, rejected), tuple(rejected))
        if second is not None:
            return Choice(second.kind, _reason(form, second, self._said[second.kind][1], rejected), tuple(rejected))
        return Choice(None, f"nothing here runs {form} files", tuple(rejected))

    def _known(self, runtime: Runtime) -> Availability | None:
        _, said = self._said.get(runtime.kind, (0.0, None))
        if said is None and getattr(runtime, "recipe", None) is not None and not _in_loop():
            return asyncio.run(self.availability(runtime.kind))
        return said

    def require(self, name: str, form: str) -> str:
        """The runtime for the model `name`, whose files are of this format.

        Raises:
            RuntimeUnavailable: none runs them, or none that does can be used here; says of each why not.
        """
        choice = self.choose(form)
        if choice.runtime is not None:
            return choice.runtime
        candidates, _ = self._candidates(form)
        if not candidates:
            why = [f"{kind}: {reason}" for kind, reason in choice.rejected]
            raise RuntimeUnavailable(
                f"No runtime here runs {form} files, as {name!r} is.",
                " ".join([f"Runtimes: {', '.join(self._runtimes)}.", *why]),
            )
        said = self._said[candidates[0].kind][1]
        reasons = "; ".join(f"{kind}: {reason}" for kind, reason in choice.rejected)
        raise RuntimeUnavailable(f"No runtime for {form} files, as {name!r} is, can be used here. {reasons}", said.hint)

    def _candidates(self, form: str) -> tuple[list[Runtime], list[tuple[str, str]]]:
        """The runtimes that run the format, the best liked first, and those that cannot even be loaded."""
        found, broken = [], []
        for kind in self._runtimes:
            try:
                runtime = self._runtimes[kind]
            except CorralError as error:
                broken.append((kind, error.message))
            else:
                if form in runtime.formats and runtime.preference > 0:
                    found.append(runtime)
        return sorted(found, key=lambda runtime: (-runtime.preference, runtime.kind)), broken


def _reason(form: str, runtime: Runtime, said: Availability | None, rejected: list[tuple[str, str]]) -> str:
    on = f" on {', '.join(said.devices)}" if said is not None and said.devices else ""
    others = f"; not {', '.join(kind for kind, _ in rejected)}" if rejected else ""
    return f"it runs {form} files{on}{others}"


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
