"""Everything Corral consists of, put together from one configuration."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from corral.app import launching
from corral.app.catalog import Catalog
from corral.app.choice import Choices
from corral.app.contexts import Contexts
from corral.app.exchange import Exchange
from corral.app.memory import Memory
from corral.app.origins import Origins
from corral.app.reloading import Reloading
from corral.app.routes import Routes
from corral.catalog.caches import Caches
from corral.catalog.discovery import Discovery
from corral.catalog.registry import Registry
from corral.catalog.usage import Limits
from corral.config import ModelSettings, Settings, load, model_settings
from corral.domain.models import Installed, ModelRef, check_name
from corral.domain.ports import Clock, Report, Runtime, Source, silent
from corral.errors import CorralError, ModelNotFound
from corral.kit.advice import sifted
from corral.kit.clock import SystemClock
from corral.kit.upstream import Timeouts, Upstream
from corral.lifecycle.recollection import Recollection
from corral.lifecycle.supervisor import Engine, Supervisor
from corral.plugins import Plugins, runtimes, sources
from corral.routing.dispatch import Dispatcher

if TYPE_CHECKING:
    from pathlib import Path

    from corral.app.containment import Inside
    from corral.app.fleet import Fleet
    from corral.app.services import Services
    from corral.app.traffic import Traffic
    from corral.app.workspace import Workspace
    from corral.db.engine import Database
    from corral.domain.containers import ContainerEngine
    from corral.domain.hardware import Machine
    from corral.hardware.sampler import Sampler
    from corral.observability.metrics import Metrics
    from corral.observability.usage import Books
    from corral.routing.audit import Audit
    from corral.routing.carrying import Carrier
    from corral.routing.keys import Keys


_LATEST = ":latest"


@dataclass(frozen=True, slots=True)
class Definition:
    """What a name stands for: the runtime, its options, and the installed revision where it runs one."""

    name: str
    runtime: str
    options: Mapping[str, Any] = field(default_factory=dict)
    installed: Installed | None = None
    idle_timeout: float = 300.0


class Corral:
    """Everything, put together from one configuration. Creating it does no I/O beyond noticing which plugins exist.

    Args:
        settings: the configuration; read from the usual places when None.
        env: the environment, for keys of vendors and the package index.
        clock: time.
        again: reads the configuration once more, as it was read for `settings`.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        env: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        again: Callable[[], Settings] | None = None,
    ) -> None:
        self.env = os.environ if env is None else env
        self.settings = settings or load(self.env)
        self.clock = clock or SystemClock()
        ports = {
            "clock": self.clock,
            "env": self.env,
            "home": self.settings.home,
            "settings": self.settings,
            "containers": _Containers(self),
        }
        self.runtimes: Plugins[Runtime] = runtimes(ports)
        self.sources: Plugins[Source] = sources(ports)
        self.registry = self._registry()
        self.upstream = Upstream(self.env, limit=self.settings.upstream.max_connections)
        self.timeouts = Timeouts(
            connect=self.settings.upstream.connect_timeout,
            first_byte=self.settings.upstream.first_byte_timeout,
            between=self.settings.upstream.between_timeout,
            total=self.settings.upstream.total_timeout,
        )
        self.configured, self.contained = self._configured()
        self.models: dict[str, ModelSettings] = dict(self.configured)
        self.choices = Choices(self.runtimes, self.clock)
        self.memory = Memory(
            lambda: self.settings.engines,
            lambda: _seen(self.settings.home),
            Recollection(self.settings.home / "footprints.json"),
            self.clock,
        )
        self.supervisor = Supervisor(
            lambda name: launching.plan(self, name),
            self.clock,
            rules=launching.rules(self.settings),
            gauge=self.memory,
            stop_grace=self.settings.engines.stop_grace,
            on_gone=self._forget,
        )
        self.memory.news = self.supervisor.decide_soon
        self.dispatcher = Dispatcher(self.supervisor, self.upstream, self.clock, self.canonical)
        self.routes = Routes(self)
        self.origins = Origins(self)
        self.catalog = Catalog(self)
        self.exchange = Exchange(self)
        self.contexts = Contexts(self)
        self.reloading = Reloading(self, again or (lambda: self.settings))

    @cached_property
    def sampler(self) -> Sampler:
        """Looks at the machine from time to time, while its `run` does."""
        from corral.hardware.sampler import Sampler
        from corral.hardware.snapshot import Looker

        return Sampler(Looker(self.settings.models_dir), self.clock)

    @cached_property
    def traffic(self) -> Traffic:
        """What requests need: routes, money, books."""
        from corral.app.traffic import Traffic

        return Traffic(self)

    @property
    def carrier(self) -> Carrier:
        """Carries requests out."""
        return self.traffic.carrier

    @cached_property
    def services(self) -> Services:
        """The long-lived servers of this configuration."""
        from corral.app.services import Services

        return Services(self)

    @cached_property
    def yard(self) -> str:
        """The id of this home, by which its containers are told from those of others. Blocks for one small file.

        Raises:
            StoreError: it can be neither read nor made.
        """
        from corral.operations.leases import home_id

        return home_id(self.settings.home)

    @cached_property
    def docker(self) -> ContainerEngine:
        """The Docker engine; its library is imported when this is first used, and connects when it is asked."""
        from corral.containers.contexts import Places
        from corral.containers.docker import Docker
        from corral.hardware.nvidia import gpus

        docker = self.settings.docker
        return Docker(Places(docker.host, docker.context, self.env), timeout=docker.timeout, gpus=gpus)

    @cached_property
    def fleet(self) -> Fleet:
        """The containers of this configuration."""
        from corral.app.fleet import Fleet

        return Fleet(self)

    @cached_property
    def inside(self) -> Inside:
        """The models in those containers, and their updates."""
        from corral.app.containment import Inside

        return Inside(self)

    @cached_property
    def workspace(self) -> Workspace:
        """Projects, pipelines and artifacts."""
        from corral.app.workspace import Workspace

        return Workspace(self)

    @cached_property
    def database(self) -> Database:
        """Where keys, budgets and usage are written down; its library is imported when this is first used."""
        from corral.db.engine import Database

        return Database(self.settings.database.url, self.settings.home)

    @cached_property
    def keys(self) -> Keys:
        """The keys of clients."""
        from corral.routing.keys import Keys

        return Keys(self.database, self.clock)

    @cached_property
    def books(self) -> Books:
        """What is written down of answers."""
        from corral.observability.usage import Books

        return Books(self.database, self.clock, self.settings.usage)

    @cached_property
    def metrics(self) -> Metrics:
        """What is counted of answers."""
        from corral.app import measuring
        from corral.observability.metrics import Metrics

        made = Metrics()
        measuring.attach(made, self)
        return made

    @cached_property
    def audit(self) -> Audit:
        """What was managed, and by whom."""
        from corral.routing.audit import Audit

        return Audit(self.database, self.clock)

    def register(self, name: str, content: Mapping[str, Any]) -> None:
        """Add or replace a model as if `models.NAME` stood in the configuration file; lasts as long as this object."""
        self.models[check_name(name)] = model_settings(content, f"the registration of {name}")
        self.routes.renew()

    def names(self) -> list[str]:
        """Every name that can be asked for: configured models that can run, and installed ones; sorted."""
        configured = (name for name in self.models if self._exists(name))
        return sorted({*configured, *self.registry.names()})

    def canonical(self, name: str) -> str:
        """The one name of a model that has several: an alias of the configuration or the library becomes its own.

        As clients of Ollama have it, the tag `latest` goes without saying, where nothing has exactly the name.
        """
        own = self._own(name)
        if own is None:
            bare = name.removesuffix(_LATEST)
            own = self._own(bare if bare != name else name + _LATEST)
            if own is None and bare in self.settings.routes:
                own = bare
        return name if own is None else own

    def _own(self, name: str) -> str | None:
        """What is called so, or has that for another name; None: nothing."""
        if name in self.models or name in self.registry:
            return name
        meant = next((own for own, entry in self.models.items() if name in entry.aliases), None)
        if meant is not None:
            return meant
        entry = self.registry.library.find(name)
        return None if entry is None else entry.name

    def unknown(self, name: str, may: Callable[[str], bool] | None = None) -> ModelNotFound:
        """The error for a name that means nothing here. It names no model but those that `may` admits; without it all.

        Looks through all names: it is for who was refused anyway.
        """
        aliases = {alias: own for own, entry in self.models.items() for alias in entry.aliases}
        meant = aliases | {each: each for each in (*self.settings.routes, *self.names())}
        known = [each for each, own in meant.items() if may is None or may(own)]
        return ModelNotFound.among(name, known, [*self.registry.library.names(), *self._pullable(may)])

    def definition(self, name: str, may: Callable[[str], bool] | None = None) -> Definition:
        """What `name` stands for.

        Raises:
            ModelNotFound: nothing; names the nearest names, of those that `may` admits, or how to see what there is.
            RuntimeUnavailable: no runtime here runs its files.
        """
        name = self.canonical(check_name(name))
        entry = self.models.get(name, ModelSettings())
        installed = self._installed(name, entry)
        if installed is None and (entry.runtime is None or self.runtimes[entry.runtime].formats):
            route = self.settings.routes.get(name)
            if route is not None:
                to = ", ".join(route.models)
                hint = "Name one of those; where a request would go is told by: corral explain --request FILE"
                raise ModelNotFound(f"{name!r} is no model but a route to {to}.", hint, param="model")
            raise self.unknown(name, may)
        chosen = None if installed is None else self.registry.override(installed.name).get("runtime")
        kind = entry.runtime or chosen or self.choices.require(name, installed.revision.format if installed else "?")
        options = {**self._defaults(kind, installed), **self.settings.runtimes.get(kind, {}), **entry.options}
        idle = self.settings.engines.idle_timeout if entry.idle_timeout is None else entry.idle_timeout
        return Definition(name, kind, options, installed, idle)

    def entry(self, name: str) -> ModelSettings:
        """What the configuration says of a model; the defaults where it says nothing."""
        return self.models.get(self.canonical(name), ModelSettings())

    def format_of(self, name: str) -> str | None:
        """The format of the model's files, where a runtime must be chosen by it; None where that is settled.

        Raises:
            InvalidName: it cannot be a name.
        """
        name = self.canonical(check_name(name))
        entry = self.models.get(name, ModelSettings())
        installed = self._installed(name, entry)
        if installed is None or entry.runtime or self.registry.override(installed.name).get("runtime"):
            return None
        return installed.revision.format

    def take_over(self, settings: Settings) -> None:
        """Go on with other settings; what has been registered stays, unless it stands in these for the first time."""
        before, old = self.configured, self.settings
        self.settings = settings
        self.configured, self.contained = self._configured()
        registered = {
            name: entry
            for name, entry in self.models.items()
            if before.get(name) is not entry and (name in before or name not in self.configured)
        }
        self.models = {**self.configured, **registered}
        self.supervisor.rules = launching.rules(settings)
        self.supervisor.stop_grace = settings.engines.stop_grace
        if "traffic" in self.__dict__:
            self.traffic.prices.take_over(settings.prices)
        if "fleet" in self.__dict__:
            self.fleet.take_over(old)
        self.routes.renew()

    def preloads(self) -> list[str]:
        """The models to load when the server starts."""
        return [name for name, entry in self.models.items() if entry.preload]

    async def load(self, name: str, report: Report = silent, keep_alive: float | None = None) -> Engine:
        """Bring a model into memory by any of its names, and leave it there until its idle time-out.

        `keep_alive` in seconds overrules that time-out; None is as configured.

        Raises:
            CorralError: it cannot be had, or not be started.
        """
        return await self.supervisor.load(self.canonical(name), report, keep_alive)

    async def unload(self, name: str, *, drain: float | None = None, force: bool = False) -> bool:
        """Take a model out of memory by any of its names; False when it was not there.

        Answers under way get `drain` seconds to end, by default `engines.drain_grace`.

        Raises:
            ModelBusy: it is still answering, and `force` is not given.
        """
        wait = self.settings.engines.drain_grace if drain is None else drain
        return await self.supervisor.unload(self.canonical(name), drain=wait, force=force)

    async def close(self) -> None:
        """Stop every engine and close every connection."""
        try:
            await self.exchange.close()
            if "workspace" in self.__dict__:
                await self.workspace.close()
            if "traffic" in self.__dict__:
                await self.traffic.close()
            await self.catalog.close()
        finally:
            try:
                await self.supervisor.close()
                await self.memory.close()
            finally:
                await self._disconnect()

    async def _disconnect(self) -> None:
        """Close the connections; engines in containers need theirs until they are stopped."""
        try:
            if "fleet" in self.__dict__:
                await self.fleet.close()
            elif "docker" in self.__dict__:
                await self.docker.close()
            if "database" in self.__dict__:
                await self.database.close()
        finally:
            await self.upstream.close()

    def _configured(self) -> tuple[Mapping[str, ModelSettings], Mapping[str, str]]:
        """The models of the configuration, those in its containers among them; and which container has which."""
        if not self.settings.containers:
            return self.settings.models, {}
        from corral.app.contained import endpoints

        entries, inside = endpoints(self.settings, self.env)
        return {**entries, **self.settings.models}, inside

    def _registry(self) -> Registry:
        store, wanted = self.settings.store, self.settings.sources
        folder = self.settings.models_dir
        return Registry(
            folder,
            self.sources,
            self.clock,
            limits=Limits(
                store.quota, store.quotas, store.keep_revisions, store.default_model_size, wanted.allow_pickle
            ),
            mirrors=[ModelRef.parse(text) for text in wanted.mirrors],
            caches=Caches(self.env),
            discover=Discovery(store.discover, self.clock, exclude=folder),
        )

    def _forget(self, engine: Engine) -> None:
        self.upstream.forget(engine.target)
        self.memory.forget(engine)
        self.contexts.forget(engine)
        if "traffic" in self.__dict__:
            self.traffic.forget(engine)

    def _exists(self, name: str) -> bool:
        entry = self.models[name]
        try:
            if self._installed(name, entry) is not None:
                return True
            return entry.runtime is not None and not self.runtimes[entry.runtime].formats
        except CorralError:
            return False  # whoever asks for it by name is told why; it must not spoil the list of the others

    def _installed(self, name: str, entry: ModelSettings) -> Installed | None:
        for candidate in (name, entry.source):
            if candidate is not None:
                with suppress(ModelNotFound):
                    return self.registry.get(candidate)
        return None

    def _pullable(self, may: Callable[[str], bool] | None) -> Iterable[str]:
        named = (name for name, entry in self.models.items() if entry.source is not None)
        return named if may is None else filter(may, named)

    def _defaults(self, kind: str, installed: Installed | None) -> dict[str, Any]:
        """The revision's own options, as far as this runtime knows them and a model has a say in them.

        They come from whoever published it: they are advice on how it talks, not orders to this machine. So none of
        them names a file here, and a template is a text, never a path.
        """
        if installed is None:
            return {}
        advice, _ = sifted(installed.revision.defaults)
        known = {f.name for f in fields(self.runtimes[kind].options)}
        return {key: value for key, value in advice.items() if key in known}


class _Containers:
    """The Docker engine for plugins: nothing of it is imported before one asks."""

    def __init__(self, corral: Corral) -> None:
        self._corral = corral

    @property
    def engine(self) -> ContainerEngine:
        return self._corral.docker

    @property
    def yard(self) -> str:
        return self._corral.yard


def _seen(folder: Path) -> Machine:
    """The machine now. What looks at it is imported when it is first needed: many commands never do."""
    from corral.hardware import snapshot

    return snapshot.take(folder, usage=False)
