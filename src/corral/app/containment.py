"""The models in containers, and their updates: `corral.inside`."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

from corral.domain.operations import Order
from corral.domain.ports import Report, silent
from corral.domain.standings import ContainerState, ModelInside
from corral.errors import ContainerUnhealthy, CorralError, InvalidRequest, NotSupported
from corral.fleet.asking import Asker, Trial, asker_of, missing
from corral.fleet.editions import Editions
from corral.fleet.kinds import KINDS
from corral.fleet.rollout import BROKEN, WAITING, Renewed, Rollout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from corral.app.corral import Corral
    from corral.app.fleet import Fleet
    from corral.domain.operations import Operation
    from corral.domain.standings import Standing
    from corral.operations.durable import Work

_LONGEST_NAME = 200
_LOOK = 0.2
"""Seconds between two looks at a server that does not answer yet."""


class Inside:
    """What is in the containers of one `Corral`: models fetched, listed, tried, removed; images and models updated.

    Creating it does no I/O. Whatever names a container raises ContainerNotFound where that is not configured, and
    ContainerUnhealthy where it is not up or does not answer as it should.
    """

    def __init__(self, corral: Corral) -> None:
        self._corral = corral

    def pull_order(self, name: str, model: str) -> Order:
        """The order to have `name` fetch `model`, as an operation that survives a restart."""
        order = Order("container-pull", name, {"model": model}, lane=f"container:{name}")
        self.check(order)
        return order

    def update_order(self, names: Sequence[str] = (), *, image: bool = True, models: bool = True) -> Order:
        """The order to update containers one after the other, as an operation that survives a restart."""
        wanted = list(dict.fromkeys(names))
        params = {"names": wanted, "image": image, "models": models}
        order = Order("container-update", wanted[0] if len(wanted) == 1 else "", params, lane="containers")
        self.check(order)
        return order

    def check(self, order: Order) -> None:
        """Refuse at once what can be seen to be impossible.

        Raises:
            ContainerNotFound: a container is not configured.
            InvalidRequest, NotSupported: that cannot be fetched, or not into such a container.
        """
        if order.kind == "container-pull":
            want = self._fleet.wanted(order.model)
            _require_name(order.params.get("model"))
            if not KINDS[want.spec.kind].keeps_models:
                raise NotSupported(
                    f"A container of kind {want.spec.kind!r} cannot fetch a model by itself.",
                    f"Say what it serves: containers.{order.model}.models, or its `command`.",
                )
            return
        for name in order.params.get("names") or ():
            self._fleet.wanted(str(name))

    async def pull(self, name: str, model: str, report: Report = silent) -> ModelInside:
        """Have the server in `name` fetch a model, or what is newer of it; as long as that takes.

        Raises:
            NotSupported: its kind cannot.
        """
        asker = await self._asker(name)
        found = await asker.pull(_require_name(model), report)
        if found is None:
            raise ContainerUnhealthy(
                f"The server in {name!r} says that it has fetched {model!r}, and does not have it.",
                f"Look at what it says: corral containers logs {name}",
            )
        if found.digest:
            self._fleet.parts.observer.rows.version(name, found.digest, model, model=model)
        await self._fleet.health(name)
        return found

    async def provide(self, names: Sequence[str], report: Report = silent) -> dict[str, CorralError]:
        """Have each server fetch what its entry names and it has not, where its kind can, as long as that takes.

        Returns why models could not be had, by container.
        """

        async def one(name: str) -> tuple[str, CorralError | None]:
            try:
                for model in await self._lacking(name):
                    await self.pull(name, model, report)
            except CorralError as error:
                return name, error
            return name, None

        done = await asyncio.gather(*(one(name) for name in names))
        return {name: error for name, error in done if error is not None}

    async def _lacking(self, name: str) -> tuple[str, ...]:
        """What the server in `name` should have and has not, once it answers; nothing where it does not in its time."""
        want = self._fleet.wanted(name)
        if not KINDS[want.spec.kind].keeps_models or not want.models:
            return ()
        clock = self._corral.clock
        until = clock.now() + want.watch.start_timeout
        while True:
            standing = await self._fleet.status(name)
            if not standing.state.up or clock.now() > until:
                return ()  # whoever waits for it to be healthy says why it is not
            found = await (await self._asker(name)).examine(want.models)
            if found.version is not None:
                return found.missing
            await clock.sleep(_LOOK)

    async def models(self, name: str) -> list[ModelInside]:
        """The models that the server in `name` has, by name."""
        return sorted(await (await self._asker(name)).models(), key=lambda model: model.name)

    async def remove(self, name: str, model: str) -> None:
        """Have the server in `name` remove a model, with what is kept of its past.

        Raises:
            ModelNotFound: it has none of that name.
            NotSupported: its kind cannot.
        """
        await Editions(self._fleet.parts).remove(await self._asker(name), _require_name(model))
        await self._fleet.health(name)

    async def test(self, name: str, model: str) -> Trial:
        """Have a model in `name` say one token, which loads it; what comes of it is in the answer, also a failure."""
        return await (await self._asker(name)).test(_require_name(model))

    async def version(self, name: str, model: str) -> str | None:
        """The digest of a model in `name`; None where its server tells none.

        Raises:
            ModelNotFound: it has none of that name.
        """
        asker = await self._asker(name)
        found = await asker.models()
        model_inside = asker.among(found, model)
        if model_inside is None:
            raise missing(model, found)
        return model_inside.digest

    async def update(
        self, names: Sequence[str] = (), *, image: bool = True, models: bool = True, report: Report = silent
    ) -> list[Renewed]:
        """Bring images and models to what there is now, one container after the other; no names are all.

        What does not answer with the new gets the old back, and nothing further is tried: see each `outcome`.

        Raises:
            ContainerNotFound: one is not configured.
            DockerUnavailable: the engine does not answer; what was begun is brought to an end when it does.
        """
        fleet = self._fleet
        wanted = [fleet.wanted(name) for name in names or fleet.all_wanted()]
        await fleet.sync()
        done: list[Renewed] = []
        for number, want in enumerate(wanted):
            if done and done[-1].outcome in BROKEN:
                done += [Renewed(rest.name, None, WAITING) for rest in wanted[number:]]
                break
            if image:
                done.append(await self._rollout.update(want.name, report))
            for model in want.models if models else ():
                if done and done[-1].outcome in BROKEN:
                    break
                if await self._up(want.name):
                    done.append(await self._editions.update(want, model, report))
        await fleet.sync()
        return done

    async def rollback(self, name: str, report: Report = silent, *, model: str | None = None) -> Standing:
        """Let `name` have the image that it had before, or `model` in it be what it was before; how it then stands.

        Raises:
            Conflict: there is nothing to go back to.
            ContainerUnhealthy: what was before does not answer now; it is as it was.
        """
        fleet = self._fleet
        want = fleet.wanted(name)
        await fleet.sync()
        if model is None:
            done = await self._rollout.back(name, report)
        else:
            await self._asker(name)
            done = await self._editions.back(want, _require_name(model))
        if done.outcome in BROKEN:
            raise ContainerUnhealthy(
                f"{name!r} was not put back: {done.reason}", f"See: corral containers status {name}"
            )
        await fleet.health(name)
        return await fleet.status(name)

    async def pulled(self, operation: Operation, work: Work) -> Mapping[str, Any]:
        """The work of an operation `container-pull`. The server itself goes on from what it has."""
        name, model = operation.order.model, str(operation.order.params["model"])
        found = await self.pull(name, model, work.report)
        return {"container": name, "model": found.name, "digest": found.digest, "size": found.size}

    async def updated(self, operation: Operation, work: Work) -> Mapping[str, Any]:
        """The work of an operation `container-update`. What is up to date by now is left alone.

        Raises:
            ContainerUnhealthy: an update was undone or could not be done; says which, and why.
        """
        params = operation.order.params
        done = await self.update(
            [str(name) for name in params.get("names") or ()],
            image=bool(params.get("image", True)),
            models=bool(params.get("models", True)),
            report=work.report,
        )
        work.message(told(done))
        broken = next((one for one in done if one.outcome in BROKEN), None)
        if broken is not None:
            what = repr(broken.container) if broken.model is None else f"{broken.model!r} in {broken.container!r}"
            rest = ", ".join(one.container for one in done if one.outcome == WAITING)
            raise ContainerUnhealthy(
                f"The update of {what} {'was undone' if broken.outcome == 'undone' else 'failed'}: {broken.reason}"
                + (f" Not tried: {rest}." if rest else ""),
                f"See: corral containers history {broken.container}",
            )
        return {"updates": [asdict(one) for one in done]}

    async def sweep(self) -> None:
        """Remove engines in containers that a killed Corral of this home left, where there may be any. Never raises.

        The runtime itself does so before its first start: this is for a server, in which that may be much later.
        """
        corral = self._corral
        try:
            chosen = {entry.runtime for entry in corral.models.values()}
            chosen |= {corral.registry.override(name).get("runtime") for name in corral.registry.names()}
            if "container" in chosen:
                await corral.choices.availability("container")
        except CorralError:
            return  # whoever starts one is told what is in the way

    @property
    def _fleet(self) -> Fleet:
        return self._corral.fleet

    @cached_property
    def _rollout(self) -> Rollout:
        return Rollout(self._fleet.parts)

    @cached_property
    def _editions(self) -> Editions:
        return Editions(self._fleet.parts)

    async def _asker(self, name: str) -> Asker:
        """The server in a container that is up, as far as that is known."""
        want, standing = self._fleet.wanted(name), await self._fleet.status(name)
        if not standing.state.up and standing.state is not ContainerState.UNKNOWN:
            why = f": {standing.reason}" if standing.reason else ""
            raise ContainerUnhealthy(
                f"Container {name!r} is {str(standing.state).replace('_', ' ')}{why}.",
                f"Start it: corral containers start {name}",
            )
        asker = asker_of(want, self._corral.clock)
        if asker is None:
            raise NotSupported(f"Container {name!r} has no port on this machine.", f"Set containers.{name}.port.")
        return asker

    async def _up(self, name: str) -> bool:
        return (await self._fleet.status(name)).state.up


def told(done: Sequence[Renewed]) -> str:
    """What became of an update, in one line."""
    parts = []
    for one in done:
        what = one.container if one.model is None else f"{one.container}/{one.model}"
        parts.append(f"{what}: {one.outcome}")
    return "; ".join(parts) or "there is nothing to update"


def _require_name(model: Any) -> str:
    if not isinstance(model, str) or not model.strip() or len(model) > _LONGEST_NAME or not model.isprintable():
        raise InvalidRequest(
            f"{str(model)[:60]!r} cannot name a model.", "For example: qwen2.5-coder:7b", param="model"
        )
    return model
