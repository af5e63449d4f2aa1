"""Wanted and seen → what is to be done, each step with its reason. Pure.

Steps of one phase may be done at once; `phases` gives them in order: what makes room, then what is made, then what is
started. `create` and `recreate` mean: made, and started.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from corral.domain.standings import Planned, Step
from corral.fleet.desired import clash

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from corral.domain.containers import ContainerSpec, Port, Seen, Wanted

_PROJECT = "com.docker.compose.project"
_SERVICE = "com.docker.compose.service"
_PHASES = (
    frozenset({Step.ADOPT, Step.STOP, Step.REMOVE}),
    frozenset({Step.CREATE, Step.RECREATE}),
    frozenset({Step.START}),
)
_NEEDS_ROOM = frozenset({Step.CREATE, Step.RECREATE, Step.START})
_GIVES_UP = frozenset({Step.REMOVE, Step.RECREATE})


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
    asked: Asked | None = None,
) -> list[Planned]:
    """Every step that makes the engine's containers what they shall be, in order.

    Containers of others are never touched: what is in the way is said. A container with our labels that nothing
    is remembered of is adopted. Applied, and made again, it has nothing to do.

    Args:
        seen: all containers of the engine, not only ours: names and ports are everybody's.
        yard: whose we are.
        remembered: by name; a name that is not in it has never been seen.
    """
    return _Plan(wanted, seen, yard, remembered, asked or Asked()).steps()


def phases(steps: Sequence[Planned]) -> list[list[Planned]]:
    """The steps that do something, in groups that are done one after the other; those of one group at once."""
    groups = [[step for step in steps if step.step in phase] for phase in _PHASES]
    return [group for group in groups if group]


class _Plan:
    """One plan being made."""

    def __init__(
        self,
        wanted: Mapping[str, Wanted],
        seen: Sequence[Seen],
        yard: str,
        remembered: Mapping[str, Remembered],
        asked: Asked,
    ) -> None:
        self._wanted = wanted
        self._seen = sorted(seen, key=lambda one: (one.container, one.id))
        self._yard = yard
        self._remembered = remembered
        self._asked = asked
        self._ours = [one for one in self._seen if one.yard == yard]
        names = [name for name in wanted if not asked.names or name in asked.names]
        self._mine = {name: self._one_of(name) for name in names}

    def steps(self) -> list[Planned]:
        """All of them, what makes room first; within a phase in the configuration's order."""
        extra = [*self._left_over(), *self._orphans()]
        first = {name: self._step(name, one) for name, one in self._mine.items()}
        leaving = {step.container for step in extra if step.step is Step.REMOVE}
        blocked = self._blocked(first, leaving)
        found = list(extra)
        for name, step in first.items():
            one = self._mine[name]
            if one is not None and name not in self._remembered and not self._asked.down:
                found.append(Planned(Step.ADOPT, name, "it is there with our labels", one.container))
            if name in blocked:
                found.append(Planned(Step.BLOCKED, name, blocked[name], step.container))
            elif one is not None and step.step is Step.RECREATE and self._is_waited_for(name, one, first, blocked):
                found.append(Planned(Step.REMOVE, name, f"{step.reason}; another is to have its place", one.container))
                found.append(Planned(Step.CREATE, name, step.reason, self._wanted[name].spec.container))
            else:
                found.append(step)
        order = {step: number for number, phase in enumerate(_PHASES) for step in phase}
        return sorted(found, key=lambda step: order.get(step.step, len(_PHASES)))

    def _one_of(self, name: str) -> Seen | None:
        """The container of that name that counts: the one with its name on the engine, else one that runs."""
        spec = self._wanted[name].spec
        return min(
            (one for one in self._ours if one.name == name),
            key=lambda one: (one.container != spec.container, not one.running, -(one.created_at or 0), one.id),
            default=None,
        )

    def _left_over(self) -> list[Planned]:
        """Further containers of a name: what a change left that was cut short."""
        why = "a further container of this name, left by a change that was cut short"
        return [
            Planned(Step.REMOVE, one.name, why, one.container)
            for one in self._ours
            if one.name in self._mine and one is not self._mine[one.name]
        ]

    def _orphans(self) -> list[Planned]:
        """Ours, and configured no longer."""
        step, why = {
            "remove": (Step.REMOVE, "it is configured no longer"),
            "adopt": (Step.ADOPT, "it is configured no longer, and is written into the configuration"),
        }.get(self._asked.orphans, (Step.ORPHAN, "it is configured no longer"))
        return [
            Planned(step, name, why, one.container)
            for one in self._ours
            if (name := one.name or one.container) not in self._wanted
            and (not self._asked.names or name in self._asked.names)
        ]

    def _step(self, name: str, one: Seen | None) -> Planned:
        """What is to be done with it, if nothing is in the way."""
        container = self._wanted[name].spec.container if one is None else one.container
        if self._asked.down:
            if one is None:
                return Planned(Step.KEEP, name, "there is none", container)
            return Planned(Step.REMOVE, name, "it is taken down; its volumes stay", container)
        known = self._remembered.get(name, Remembered())
        if not (self._wanted[name].up if known.up is None else known.up):
            why = "enabled is false" if known.up is None else "somebody stopped it"
            stop = one is not None and (one.running or one.restarting)
            return Planned(Step.STOP if stop else Step.KEEP, name, why, container)
        if one is None:
            return Planned(Step.CREATE, name, "there is none", container)
        drift = self._drift(name, one)
        if drift:
            return Planned(Step.RECREATE, name, drift, container)
        if one.running or one.restarting:
            return Planned(Step.KEEP, name, "it is paused, by hand" if one.paused else "", container)
        if known.hold:
            return Planned(Step.WAIT, name, known.hold, container)
        why = "it was never started" if one.created_only else "it does not run"
        return Planned(Step.START, name, why, container)

    def _drift(self, name: str, one: Seen) -> str:
        """Why it has to be made anew; empty: it need not."""
        spec = self._wanted[name].spec
        known = self._remembered.get(name, Remembered())
        if self._asked.recreate:
            return "it is to be made anew"
        if one.dead:
            return "the Docker engine could not remove it"
        if known.drift:
            return f"it differs from the configuration: {'; '.join(known.drift)}"
        if one.spec != spec.fingerprint():
            return "the configuration has changed since it was made"
        if one.container != spec.container:
            return f"it is called {one.container}, and shall be {spec.container}"
        return ""

    def _blocked(self, first: Mapping[str, Planned], leaving: Collection[str]) -> dict[str, str]:
        """What is in the way of whom.

        What is made anew gives its place up; but only if nothing is in its own way, so this is asked until nothing
        changes any more.
        """
        blocked: dict[str, str] = {}
        while True:
            gives_up = {name for name in first if name not in blocked and first[name].step in _GIVES_UP}
            free = {*leaving, *(first[name].container for name in gives_up)}
            stopped = {first[name].container for name in first if first[name].step is Step.STOP}
            found = {
                name: why
                for name, step in first.items()
                if name not in blocked and step.step in _NEEDS_ROOM and (why := self._in_the_way(name, free, stopped))
            }
            if not found:
                return blocked
            blocked |= found

    def _in_the_way(self, name: str, free: Collection[str], stopped: Collection[str]) -> str:
        spec = self._wanted[name].spec
        for other in self._seen:
            if other is self._mine[name] or other.container in free:
                continue
            if other.container == spec.container:
                return f"the name {spec.container} is taken by {whose(other, self._yard)}"
            port = _shared_port(spec, other)
            if port is not None and other.container not in stopped:
                return f"port {port} is taken by {whose(other, self._yard)}"
        return ""

    def _is_waited_for(self, name: str, one: Seen, first: Mapping[str, Planned], blocked: Collection[str]) -> bool:
        """Whether another that is made or started needs the name or a port that this one has until it is removed."""
        return any(
            other != name
            and step.step in _NEEDS_ROOM
            and other not in blocked
            and (self._wanted[other].spec.container == one.container or _shared_port(self._wanted[other].spec, one))
            for other, step in first.items()
        )


def _shared_port(spec: ContainerSpec, other: Seen) -> int | None:
    """A port that a container has while it runs, and that this spec wants."""
    shared = (port.outside for port in spec.ports for had in other.ports if clash(port, had))
    return next(shared, None) if other.running else None


def drifted(want: ContainerSpec, made: ContainerSpec) -> tuple[str, ...]:
    """What is different, in words, each naming the key. Values of the environment are not shown.

    `made` is a container as it was described, without what it has from its image. So nothing there is no difference:
    the image may say the same, and an engine without a kernel's limits keeps none. A difference that is none would
    have a container made anew for ever.
    """
    found = []
    for key in _COMPARED:
        if key == "memory" and want.fitted:
            continue  # it was worked out, and set while it ran
        ours, theirs = getattr(want, key), getattr(made, key)
        if ours != theirs and not (theirs is None or (ours is None and key in _BY_IMAGE) or _as_good_as(ours, theirs)):
            found.append(f"{key} is {_shown(theirs)}, and shall be {_shown(ours)}")
    if want.digest is None and want.image != made.image and "sha256:" not in made.image:
        found.append(f"image is {made.image}, and shall be {want.image}")
    published = {_plain(port) for port in made.ports}
    lacking = [] if want.network == "host" else [port for port in want.ports if _plain(port) not in published]
    found += [f"port {port.outside} does not lead to its port {port.inside}" for port in lacking]
    others = sorted(name for name, value in want.environment.items() if made.environment.get(name, value) != value)
    found += [f"environment has another {name}" for name in others]
    targets = {mount.target: mount for mount in made.mounts}
    found += [
        f"{mount.target} has {there.source if (there := targets.get(mount.target)) else 'nothing'}, "
        f"and shall have {mount.source}{', read-only' if mount.read_only else ''}"
        for mount in want.mounts
        if targets.get(mount.target) != mount
    ]
    if set(want.tmpfs) - set(made.tmpfs):
        found.append(f"tmpfs lacks {', '.join(sorted(set(want.tmpfs) - set(made.tmpfs)))}")
    return tuple(found)


_COMPARED = ("memory", "cpus", "shm", "pids", "gpus", "network", "read_only", "capabilities", "user", "command",
    "entrypoint", "working")  # fmt: skip
_BY_IMAGE = frozenset({"user", "command", "entrypoint", "working", "shm"})


def _as_good_as(ours: object, theirs: object) -> bool:
    """Whether two numbers differ by less than the engine keeps."""
    return isinstance(ours, float) and isinstance(theirs, float) and abs(ours - theirs) < 1e-6


def _plain(port: Port) -> Port:
    """The port, with one word for every address, as the engine shows it."""
    return replace(port, host="0.0.0.0") if port.host == "::" else port  # noqa: S104


def _shown(value: object) -> str:
    if value is None or value == ():
        return "none"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def whose(seen: Seen, yard: str) -> str:
    """Whose container it is, in words: this Corral's, another's, a compose project's, or nobody's that is known."""
    if seen.yard == yard:
        return f"{seen.container}, which is this Corral's {seen.name or 'container'}"
    if seen.yard is not None:
        return f"{seen.container}, which is {seen.name or 'a container'} of another Corral ({seen.yard})"
    project = seen.labels.get(_PROJECT)
    if project is not None:
        service = seen.labels.get(_SERVICE, "")
        return f"{seen.container}, which is service {service!r} of the compose project {project!r}"
    return f"{seen.container}, a container of {seen.image or 'some image'} that is not Corral's"
