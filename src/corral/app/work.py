"""What each kind of operation does: the registry's long work, with what is in memory kept in step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from corral.app.described import brief
from corral.domain.models import ModelRef
from corral.errors import CorruptModel, ModelBusy, ModelNotFound, RuntimeUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from corral.app.corral import Corral
    from corral.domain.models import Installed
    from corral.domain.operations import Operation
    from corral.operations.durable import Work

    Handler = Callable[[Operation, Work], Awaitable[Mapping[str, Any] | None]]
    Settle = Callable[[Operation], Awaitable[None]]


def handlers(corral: Corral) -> dict[str, Handler]:
    """What does each kind of operation, by its name."""
    hands = _Hands(corral)
    return {
        "install": hands.install,
        "update": hands.update,
        "remove": hands.remove,
        "verify": hands.verify,
        "move": hands.move,
        "push": hands.push,
        "gc": hands.gc,
        "container-pull": hands.container_pull,
        "container-update": hands.container_update,
        "pipeline-run": hands.pipeline_run,
    }


def settlers(corral: Corral) -> dict[str, Settle]:
    """Who is told how operations of a kind stand once nobody is at them."""

    async def settle_run(operation: Operation) -> None:
        await corral.workspace.runs.settle(operation)

    return {"pipeline-run": settle_run}


class _Hands:
    """The handlers. Each can be started again from the beginning and goes on from what is there."""

    def __init__(self, corral: Corral) -> None:
        self._corral = corral
        self._registry = corral.registry

    async def install(self, operation: Operation, work: Work) -> Mapping[str, Any]:
        params = operation.order.params
        what, name = str(params["what"]), params.get("name")
        installed = await self._corral.origins.install(what, name=name, report=work.report, on_part=work.on_part)
        remark = await self._choose(installed, params.get("runtime"))
        self._corral.catalog.renew(installed.name)
        return brief(installed) | ({"remark": remark} if remark else {})

    async def _choose(self, installed: Installed, runtime: Any) -> str | None:
        """Have the model run by the runtime that was asked for; returns why it cannot be, which is no failure."""
        if not runtime:
            return None
        try:
            why = await self._corral.catalog.why_not(str(runtime), installed)
        except RuntimeUnavailable as error:
            return error.message
        if why is None:
            await self._registry.change_override(installed.name, lambda said: {**said, "runtime": runtime})
        return why

    async def update(self, operation: Operation, work: Work) -> Mapping[str, Any]:
        before = self._registry.get(operation.order.model)
        installed = await self._registry.update(before.name, report=work.report, on_part=work.on_part)
        self._corral.catalog.renew(installed.name)
        return {"before": before.revision.id, **brief(installed)}

    async def remove(self, operation: Operation, work: Work) -> Mapping[str, Any]:
        name, force = operation.order.model, bool(operation.order.params.get("force"))
        for model in self._corral.catalog.loaded_from(name):
            if not force:
                raise ModelBusy(f"Model {name!r} is in memory as {model}.", f"First: corral unload {model}")
            await self._corral.unload(model, force=True, drain=0)
        work.message(f"removing {name}")
        try:
            freed = await self._registry.remove(name, force=force)
        except ModelNotFound:
            if operation.attempts < 2:
                raise
            freed = 0  # the process died between the removal and the note that it was done
        return {"name": name, "freed": freed}

    async def verify(self, operation: Operation, work: Work) -> Mapping[str, Any]:
        if operation.order.model:
            return brief(await self._registry.verify(operation.order.model, report=work.report))
        findings = await self._registry.verify_all(work.report)
        errors = [(finding.name, finding.error) for finding in findings if finding.error is not None]
        if errors:
            said = "; ".join(f"{name}: {error.message}" for name, error in errors)
            many = f"{len(errors)} of {len(findings)} revisions are" if len(findings) > 1 else "The only revision is"
            raise CorruptModel(f"{many} not as installed: {said}", errors[0][1].hint)
        return {"verified": len(findings)}

    async def move(self, operation: Operation, work: Work) -> Mapping[str, Any]:
        folder = operation.order.params.get("folder")
        target = Path(folder) if folder else None
        moved = await self._registry.move(operation.order.model, target, report=work.report)
        return {"name": operation.order.model, "moved": moved, "folder": folder}

    async def push(self, operation: Operation, work: Work) -> Mapping[str, Any]:
        to = ModelRef.parse(str(operation.order.params["to"]))
        return {
            "name": operation.order.model,
            "ref": str(await self._registry.push(operation.order.model, to, report=work.report)),
        }

    async def container_pull(self, operation: Operation, work: Work) -> Mapping[str, Any]:
        return await self._corral.inside.pulled(operation, work)

    async def container_update(self, operation: Operation, work: Work) -> Mapping[str, Any]:
        return await self._corral.inside.updated(operation, work)

    async def pipeline_run(self, operation: Operation, work: Work) -> Mapping[str, Any]:
        return await self._corral.workspace.runs.carry_out(operation, work)

    async def gc(self, operation: Operation, work: Work) -> Mapping[str, Any]:
        work.message("looking for what nothing needs")
        keep = self._corral.catalog.operations.parts
        found = await self._registry.gc(keep=keep, dry_run=bool(operation.order.params.get("dry_run")))
        return {
            "revisions": len(found.revisions),
            "blobs": found.blobs,
            "parts": found.parts,
            "bytes": found.bytes,
            "kept": list(found.kept),
        }
