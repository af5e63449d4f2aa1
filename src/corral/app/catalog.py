"""Models as people manage them: durable operations, revisions and search, in step with what is in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from corral.domain.models import Installed, ModelRef, check_name
from corral.domain.operations import Order
from corral.domain.ports import Query, Report, silent
from corral.errors import Conflict, CorralError, InvalidName, ModelBusy, ModelPinned, RuntimeUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from corral.app.corral import Corral
    from corral.domain.operations import Operation
    from corral.domain.ports import Hit
    from corral.operations.durable import Operations


class Catalog:
    """The catalog of one `Corral`. Long work is an operation; what is instant is done at once.

    `start` hands an operation to the server's worker; `perform` does it here, for whoever has no server.
    """

    def __init__(self, corral: Corral) -> None:
        self._corral = corral
        self._operations: Operations | None = None
        self.opened: Callable[[], None] = lambda: None
        """Called when there is long work for the first time: whoever does it then looks for it."""

    @property
    def operations(self) -> Operations:
        """All operations of this home. The database is opened, and its library imported, when this is first used."""
        if self._operations is None:
            from corral.app.work import handlers, settlers
            from corral.db.engine import Database
            from corral.operations.durable import Limits, Operations

            corral, settings = self._corral, self._corral.settings
            wanted, apart = settings.operations, {"pipeline-run": settings.workspace.runs}
            self._operations = Operations(
                Database(settings.database.url, settings.home),
                settings.home,
                handlers(corral),
                corral.clock,
                limits=Limits(wanted.parallel, wanted.per_host, wanted.attempts, wanted.keep, apart),
                on_cancelled=corral.registry.discard,
                settlers=settlers(corral),
            )
            self.opened()
        return self._operations

    async def start(self, order: Order) -> Operation:
        """Queue an operation; whoever asks for the same again while it is unfinished gets the same one.

        Raises:
            CorralError: it cannot be done, as far as that can be told beforehand.
        """
        self.check(order)
        return await self.operations.submit(order)

    async def perform(self, order: Order, report: Report = silent) -> Operation:
        """Do an operation here and now, to its end, which may be a failure: see its `error`."""
        operation = await self.start(order)
        return await self.operations.perform(operation.id, report)

    def check(self, order: Order) -> None:
        """Refuse at once what can be seen to be impossible.

        Raises:
            ModelNotFound, InvalidName, UnknownPlugin: there is no such model, name or source.
            ModelBusy, Conflict: the model is in memory or used, and `force` is not given.
        """
        match order.kind:
            case "install":
                if order.params.get("name"):
                    check_name(str(order.params["name"]))
                self._corral.origins.check(str(order.params["what"]))
            case "remove":
                self._check_removal(order.model, force=bool(order.params.get("force")))
            case "gc":
                pass
            case "pipeline-run":
                raise InvalidName("A run is started by its pipeline.", "corral pipeline run FILE --project NAME")
            case "container-pull" | "container-update":
                self._corral.inside.check(order)
            case "verify" if not order.model:
                pass
            case "push":
                ModelRef.parse(str(order.params["to"]))
                self._corral.registry.get(order.model)
            case kind:
                installed = self._corral.registry.get(order.model)
                if kind == "update" and installed.pinned:
                    raise ModelPinned(
                        f"Model {order.model!r} is pinned to {installed.revision.id[:12]}.",
                        f"Let it move first: corral pin {order.model} --off",
                    )

    def install_order(self, what: str, *, name: str | None = None, runtime: str | None = None) -> Order:
        """The order to install `what`, a library name or reference."""
        if not what:
            raise InvalidName("There is nothing to install: the name is empty.", "For example: smollm2", param="name")
        params = {"what": what, "name": name, "runtime": runtime}
        given = {key: value for key, value in params.items() if value}
        model = name or self._corral.origins.name_for(what)
        return Order("install", model, given, runtime or f"model:{model}", _host(self._corral.origins.of(what)))

    def order(self, kind: str, name: str, **params: Any) -> Order:
        """The order to do `kind` to an installed model, or to all where `name` is empty.

        Operations on one model are done one after the other.
        """
        model = self._corral.canonical(name) if name else ""
        given = {key: value for key, value in params.items() if value not in (None, False)}
        host = ""
        if kind == "update" and model in self._corral.registry:
            installed = self._corral.registry.get(model)
            host = _host(self._corral.origins.of(installed.follows or installed.revision.source))
        return Order(kind, model, given, lane=f"model:{model}" if model else kind, host=host)

    async def rollback(self, name: str, to: str | None = None) -> Installed:
        """Let the model stand for an earlier revision, which is used from the next request on.

        Raises:
            Conflict: there is none, or its files are gone.
        """
        return self._renewed(await self._corral.registry.rollback(self._corral.canonical(name), to))

    async def pin(self, name: str, revision: str | None = None) -> Installed:
        """Hold the model at the revision it has, or at another of its own."""
        return self._renewed(await self._corral.registry.pin(self._corral.canonical(name), revision))

    async def unpin(self, name: str) -> Installed:
        """Let the model be updated and removed again."""
        return await self._corral.registry.unpin(self._corral.canonical(name))

    async def activate(self, name: str, runtime: str | None) -> tuple[Installed | None, str, str]:
        """Choose the runtime that runs a model, and bring it into memory; the model, the runtime, and a remark.

        A runtime that is not here, or cannot be used here, is told in the remark, and the one that runs the files is
        taken.

        Raises:
            ModelNotFound: there is no such model.
            RuntimeUnavailable: nothing here runs it, or the runtime that was named does not run such files.
        """
        corral = self._corral
        definition = corral.definition(name)
        installed, chosen, remark = definition.installed, definition.runtime, ""
        if runtime is not None:
            why = await self.why_not(runtime, installed)
            if why is not None:
                remark = f"{why} {chosen} runs {name}."
            else:
                if installed is not None:
                    await corral.registry.change_override(installed.name, lambda said: {**said, "runtime": runtime})
                chosen = runtime
        await corral.load(name)
        return installed, chosen, remark

    async def why_not(self, runtime: str, installed: Installed | None) -> str | None:
        """Why the runtime cannot be used here, as a sentence; None when it can.

        Raises:
            RuntimeUnavailable: it runs other files than the model has.
        """
        corral = self._corral
        if runtime not in corral.runtimes:
            return f"There is no runtime {runtime!r} here."
        chosen = corral.runtimes[runtime]
        # One that needs no files may take some all the same.
        formats = chosen.formats or getattr(chosen, "accepts", frozenset())
        if installed is not None and installed.revision.format not in formats:
            raise RuntimeUnavailable(
                f"{runtime} does not run {installed.revision.format} files, as {installed.name!r} is.",
                "Leave the runtime out: one that runs them is chosen.",
            )
        said = await corral.choices.availability(runtime)
        return None if said.usable else f"{runtime} cannot be used here: {said.reason}"

    async def search(self, query: Query, schemes: Sequence[str] = ("hf",)) -> tuple[list[Hit], list[CorralError]]:
        """What the sources offer, and why one of them could not be asked."""
        found: list[Hit] = []
        problems: list[CorralError] = []
        for scheme in schemes:
            try:
                found += await self._corral.sources[scheme].search(query)
            except CorralError as error:
                problems.append(error)
        return found[: query.limit], problems

    def loaded_from(self, name: str) -> list[str]:
        """The models in memory that run what is installed as `name`, by their own names."""
        statuses = self._corral.supervisor.statuses()
        return [status.model for status in statuses if status.engine and self._is(status.model, name)]

    def renew(self, name: str) -> None:
        """Have the engines that run another revision of `name` than the current one exchanged, when they are free.

        One that is just being started may have been given another, too.
        """
        if any(self._is(status.model, name) for status in self._corral.supervisor.statuses()):
            self._corral.exchange.look()

    async def close(self) -> None:
        """Close the database."""
        if self._operations is not None:
            await self._operations.close()
            self._operations = None

    def _renewed(self, installed: Installed) -> Installed:
        self.renew(installed.name)
        return installed

    def _check_removal(self, name: str, *, force: bool) -> None:
        corral = self._corral
        if name in corral.registry.damaged():
            return
        installed = corral.registry.get(name)
        if installed.pinned and not force:
            raise ModelPinned(
                f"Model {name!r} is pinned.", f"First: corral pin {name} --off. Or do both: corral rm {name} --force"
            )
        loaded = self.loaded_from(installed.name)
        if loaded and not force:
            raise ModelBusy(
                f"Model {name!r} is in memory{'' if loaded == [name] else ' as ' + ', '.join(loaded)}.",
                f"Let it go first: corral unload {loaded[0]}. Or do both: corral rm {name} --force",
            )
        users = [key for key, entry in corral.models.items() if entry.source == installed.name]
        if users and not force:
            raise Conflict(
                f"Model {name!r} is what {', '.join(users)} of the configuration stands for.",
                f"Change the configuration, or: corral rm {name} --force",
            )

    def _is(self, model: str, name: str) -> bool:
        try:
            installed = self._corral.definition(model).installed
        except CorralError:
            return model == name
        return installed is not None and installed.name == name


def _host(ref: ModelRef | None) -> str:
    """What counts as one host for the limit of operations at once."""
    if ref is None:
        return ""
    return urlsplit(ref.locator).netloc.rpartition("@")[2] if "://" in ref.locator else ref.scheme
