"""`ModelRegistry`: the catalog and its operations, from Python and without a server."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corral.app import Corral, ahead
from corral.app.described import Describer, capabilities
from corral.app.fitness import Judge
from corral.app.hosted import Closing
from corral.app.providers import scheme, wanted
from corral.config import Settings, load
from corral.domain.models import Installed, check_name
from corral.domain.operations import OperationStatus, Order
from corral.domain.ports import Query
from corral.domain.registry import ModelCapabilities, ModelMetadata, ModelOperation, provider_of
from corral.errors import Conflict, CorralError, OperationNotFound, StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.catalog.changes import Change
    from corral.catalog.history import Past
    from corral.domain.operations import Operation
    from corral.domain.ports import Hit
    from corral.lifecycle.footprint import Fit
    from corral.operations.durable import Operations

_GB = 1000**3
_KEPT = 1000
"""Operations whose state is remembered here."""


class ModelRegistry(Closing):
    """The models of a folder: listed, installed, updated, removed, in this process's loop and without a server.

    Long work is an operation: the call returns its id at once, and `get_operation_status` says how it stands. An
    operation that is under way when the registry is closed, or its process killed, is done by the next registry, or
    server, of the same folder, from where it was. Several registries may share a folder, in one process or in many.

    Use it as an `async with` block, or `close` it.

    Args:
        models_dir: the folder of the models, with its operations in `.corral` there; None is the configured store,
            with everything that a server of this machine keeps.
        config: a configuration file instead of the usual places.
        settings: a configuration that has been read already.
        env: the environment; the process's own when None.
    """

    def __init__(
        self,
        models_dir: str | Path | None = None,
        *,
        config: str | Path | None = None,
        settings: Settings | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        flags = {} if models_dir is None else {"store.models_dir": str(models_dir)}
        if settings is None:
            settings = load(env, flags, None if config is None else Path(config))
        elif models_dir is not None:
            settings = replace(settings, store=replace(settings.store, models_dir=Path(models_dir).absolute()))
        if models_dir is not None:
            # Another folder than the server's: its operations must not be taken for the server's.
            settings = replace(settings, home=settings.models_dir / ".corral")
        self.corral = Corral(settings, env=env)
        self._registry = self.corral.registry
        self._known: dict[str, Operation] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._worker: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def close(self) -> None:
        """Stop what is at work, so that the next one goes on with it, and every engine. Idempotent."""
        self._closed = True
        tasks = [*self._watches.values(), *([] if self._worker is None else [self._worker])]
        self._watches, self._worker = {}, None
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self.corral.close()

    @property
    def manifest(self) -> dict[str, ModelMetadata]:
        """What is installed, by name, as of now."""
        describer = Describer(self.corral)
        return {installed.name: describer.metadata(installed) for installed in self._registry.all()}

    async def list_available_models(self, provider: str | None = None, *, limit: int = 50) -> list[ModelMetadata]:
        """What is installed, and what else can be: of a provider, or what has a short name. Only a provider is asked.

        Raises:
            InvalidRequest: there is no such provider.
        """
        asked = None if provider is None else scheme(self.corral, provider)
        named = None if asked is None else provider_of(asked)
        found = [item for item in self.manifest.values() if named in (None, item.provider)]
        here = {item.name for item in found}
        found += [
            ModelMetadata(
                entry.name,
                provider_of(entry.ref.scheme),
                entry.description,
                round(entry.size / _GB, 3),
            )
            for entry in self._registry.library
            if asked in (None, entry.ref.scheme) and entry.name not in here
        ]
        if asked is not None and len(found) < limit:
            with suppress(CorralError):  # what cannot be asked has nothing to add; `search` says why
                hits = await self.corral.sources[asked].search(Query("", limit - len(found)))
                found += [_offered(hit) for hit in hits if hit.ref.locator not in here]
        return found[:limit]

    async def install_model(
        self, model_name: str, provider: str | None = None, runtime: str | None = None, *, source: str | None = None
    ) -> str:
        """Install a model: what its provider calls it, a short name of the library, or a reference; the operation's id.

        `source` is the reference when `model_name` is only what to call it.

        Raises:
            InvalidRequest, InvalidName, ModelNotFound: it cannot be, as far as that can be told beforehand.
        """
        what: str
        name: str | None
        if source is not None:
            what, name = source, check_name(model_name)
        else:
            what, name = wanted(self.corral, model_name, provider)
        return await self._start(self.corral.catalog.install_order(what, name=name, runtime=runtime))

    async def update_model(self, model_name: str) -> str:
        """Install what the model's source has now; the operation's id."""
        return await self._start(self.corral.catalog.order("update", self._named(model_name)))

    async def remove_model(self, model_name: str, *, force: bool = False) -> str:
        """Remove a model; the operation's id.

        Raises:
            ModelNotFound: there is no such model.
            ModelBusy, Conflict: it is in memory or used, and `force` is not given.
        """
        name = model_name if model_name in self._registry.damaged() else self._named(model_name)
        return await self._start(self.corral.catalog.order("remove", name, force=force))

    async def verify_model(self, model_name: str | None = None) -> str:
        """Read every byte of a model, or of all, and compare it with its digests; the operation's id."""
        name = "" if model_name is None else self._named(model_name)
        return await self._start(self.corral.catalog.order("verify", name))

    async def collect_garbage(self, *, dry_run: bool = False) -> str:
        """Remove what nothing needs; the operation's id."""
        return await self._start(self.corral.catalog.order("gc", "", dry_run=dry_run))

    def get_operation_status(self, operation_id: str) -> ModelOperation:
        """How an operation of this registry stands, as last heard; costs nothing.

        Raises:
            OperationNotFound: it was not begun here; see `list_operations`.
        """
        if operation_id not in self._known:
            raise OperationNotFound(
                f"No operation {operation_id[:100]!r} was begun here.", "Look with: await registry.list_operations()"
            )
        return ModelOperation.of(self._known[operation_id])

    async def list_operations(self, limit: int = 10) -> list[ModelOperation]:
        """The newest operations of this folder, newest first, whoever began them."""
        await self._enter()
        return [ModelOperation.of(operation) for operation in await self.corral.catalog.operations.page(limit)]

    async def wait(self, operation_id: str) -> ModelOperation:
        """The operation when it has ended or is paused.

        Raises:
            OperationNotFound: there is none.
        """
        await self._enter()
        operations = self.corral.catalog.operations
        async for operation in operations.watch(operation_id):
            self._remember(operation)
            if operation.status is OperationStatus.PAUSED:
                break
        return ModelOperation.of(await operations.get(operation_id))

    async def cancel_operation(self, operation_id: str) -> ModelOperation:
        """Call an operation off. Raises Conflict when it has ended."""
        return self._told(await (await self._operations()).cancel(operation_id))

    async def pause_operation(self, operation_id: str) -> ModelOperation:
        """Stop an operation where it is. Raises Conflict when it has ended or is paused."""
        return self._told(await (await self._operations()).pause(operation_id))

    async def resume_operation(self, operation_id: str) -> ModelOperation:
        """Go on with a paused operation. Raises Conflict when it is not paused."""
        operation = await (await self._operations()).resume(operation_id)
        self._follow(operation)
        return self._told(operation)

    async def activate_model(self, model_name: str, runtime: str | None = None) -> bool:
        """Choose the runtime that runs a model and bring it into memory, in a child of this process; True.

        Raises:
            ModelNotFound, RuntimeUnavailable, EngineError: it cannot be.
        """
        await self._enter()
        await self.corral.catalog.activate(check_name(model_name), runtime)
        return True

    def get_model(self, model_name: str) -> ModelMetadata:
        """An installed model. Raises ModelNotFound."""
        return Describer(self.corral).metadata(self._registry.get(check_name(model_name)))

    def get_model_capabilities(self, model_name: str) -> ModelCapabilities:
        """What an installed model can do, from its files and from what was said by hand. Raises ModelNotFound."""
        return capabilities(self._registry.get(check_name(model_name)))

    async def set_model_capabilities(self, model_name: str, said: Mapping[str, Any] | None) -> ModelCapabilities:
        """Say what a model can do in spite of its files, such as `{"supports_system_role": False}`; None takes it back.

        Raises:
            InvalidRequest, UnknownOption: that cannot be said.
        """
        name = self._named(model_name)

        def change(before: Mapping[str, object]) -> Mapping[str, object]:
            kept = {key: value for key, value in before.items() if key != "capabilities"}
            return kept | ({"capabilities": dict(said)} if said else {})

        await self._registry.change_override(name, change)
        return self.get_model_capabilities(name)

    def check_storage_quota(self, additional_size_gb: float = 0.0, provider: str | None = None) -> bool:
        """Whether so much more (in 10^9 bytes) may be installed: within the quotas, and on the disk."""
        asked = "" if provider is None else scheme(self.corral, provider)
        try:
            self._registry.require_room(round(additional_size_gb * _GB), asked, "this")
        except StoreError:
            return False
        return True

    async def check_update(self, model_name: str) -> Change:
        """Ask the model's source what an update would bring; nothing is downloaded."""
        return await self._registry.check(self._named(model_name))

    def history(self, model_name: str) -> list[Past]:
        """The revisions that the model was, newest first."""
        return self._registry.history(self._named(model_name))

    async def rollback(self, model_name: str, to: str | None = None) -> ModelMetadata:
        """Let the model be its revision before, or that whose id begins with `to`. Raises Conflict: there is none."""
        return self._described(await self.corral.catalog.rollback(self._named(model_name), to))

    async def pin(self, model_name: str, revision: str | None = None) -> ModelMetadata:
        """Hold the model at its revision, or at the one whose id begins with `revision`."""
        return self._described(await self.corral.catalog.pin(self._named(model_name), revision))

    async def unpin(self, model_name: str) -> ModelMetadata:
        """Let the model be updated and removed again."""
        return self._described(await self.corral.catalog.unpin(self._named(model_name)))

    async def search(self, text: str, provider: str = "huggingface", *, limit: int = 20) -> list[Hit]:
        """What a provider has that matches.

        Raises:
            NotSupported: it cannot be searched.
            SourceError: it cannot be asked.
        """
        return list(await self.corral.sources[scheme(self.corral, provider)].search(Query(text, limit)))

    async def fit(self, model_name: str) -> Fit | None:
        """Whether the model fits this machine, and why."""
        revision = self._registry.get(check_name(model_name)).revision
        judge = await Judge.of(self.corral.settings.models_dir)
        return judge.fit(revision.facts, revision.size)

    async def _start(self, order: Order) -> str:
        await self._enter()
        operation = await self.corral.catalog.start(order)
        self._remember(operation)
        self._follow(operation)
        return operation.id

    def _follow(self, operation: Operation) -> None:
        """Keep what is known of the operation up to date until it has ended."""
        if operation.id in self._watches or operation.status.ended:
            return
        task = asyncio.create_task(self._watch(operation.id), name=f"watch {operation.id}")
        self._watches[operation.id] = task
        task.add_done_callback(lambda _: self._watches.pop(operation.id, None))

    async def _watch(self, operation_id: str) -> None:
        with suppress(CorralError):  # what was last heard stands
            async for operation in self.corral.catalog.operations.watch(operation_id):
                self._remember(operation)

    def _remember(self, operation: Operation) -> None:
        self._known[operation.id] = operation
        if len(self._known) > _KEPT:
            oldest = next((key for key, value in self._known.items() if value.status.ended), None)
            if oldest is not None:
                del self._known[oldest]

    def _told(self, operation: Operation) -> ModelOperation:
        self._remember(operation)
        return ModelOperation.of(operation)

    async def _operations(self) -> Operations:
        await self._enter()
        return self.corral.catalog.operations

    async def _enter(self) -> None:
        """Be at work in this loop, from the first call on."""
        if self._closed:
            raise Conflict("This ModelRegistry is closed.", "Create another.")
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            raise Conflict(
                "This ModelRegistry belongs to another event loop.", "Do all of its work within one asyncio.run(...)."
            )
        self._loop = loop
        await ahead.operations()
        if self._worker is None and not self._closed:
            self._worker = asyncio.create_task(self.corral.catalog.operations.run(), name="operations")

    def _named(self, model_name: str) -> str:
        return self._registry.get(check_name(model_name)).name

    def _described(self, installed: Installed) -> ModelMetadata:
        return Describer(self.corral).metadata(installed)


def _offered(hit: Hit) -> ModelMetadata:
    facts = hit.facts
    return ModelMetadata(
        name=hit.ref.locator,
        provider=provider_of(hit.ref.scheme),
        display_name=hit.title,
        size_gb=None if hit.size is None else round(hit.size / _GB, 3),
        capabilities=ModelCapabilities(
            max_context_length=facts.get("context_length"),
            quantization=facts.get("quantization"),
            parameters=facts.get("parameters"),
            architecture=facts.get("architecture"),
            licence=hit.licence,
        ),
    )
