"""Where requests go: from the configuration and what is installed to routes, and from those to plans."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from corral.domain.money import FREE, UNKNOWN
from corral.domain.options import parse_options
from corral.domain.ports import LaunchSpec
from corral.errors import CorralError
from corral.routing import layout
from corral.routing.breakers import Breakers
from corral.routing.plan import Facts, Known, Plan, Route, plan
from corral.routing.policies import Threshold
from corral.routing.stickiness import Speeds, Stickiness

if TYPE_CHECKING:
    from collections.abc import Callable

    from corral.app.corral import Corral, Definition
    from corral.domain.money import Price

_FRESH = 2.0
"""Seconds for which it is believed what a name stands for: a model may be installed, or change, at any time."""
_MOST = 4096
AUTO = "auto"
"""The name for whatever runs here, where the configuration has nothing of that name."""
_MOST_AUTO = 50
_GOLDEN = 0.6180339887498949
"""Steps of this around a circle fall into no rhythm, so that shares are right over short times, too."""
_CHANGES_ABILITY = frozenset({"chat_template", "embeddings", "mmproj"})
"""Options with which an engine can do other things than the files say."""


class Routes:
    """Knows what names lead to, and plans requests.

    `price` says what a model costs, asked as `Prices.of`. `breakers`, `stickiness` and `speeds` are what is remembered
    of candidates: whoever carries requests tells them how each ended.

    Args:
        corral: what there is.

    Raises:
        ConfigError: the routes of the configuration cannot be used.
    """

    def __init__(self, corral: Corral) -> None:
        self._corral = corral
        self.price: Callable[[str, str | None, str | None, bool], Price] = _free_if_local
        routing = corral.settings.routing
        self.breakers = Breakers(
            corral.clock, Threshold(routing.breaker_failures, routing.breaker_pause), self._address
        )
        self.stickiness = Stickiness(corral.clock, routing.sticky)
        self.speeds = Speeds(corral.clock)
        self._laid: dict[str, Route] = {}
        self._meant: dict[str, Route] | None = None
        self._found: dict[str, Plan | Route] = {}
        self._known: dict[str, Known] = {}
        self._listed: dict[str, tuple[str | None, str | None, bool]] = {}
        self._drawn: dict[str, float] = {}
        self._fresh_until = 0.0
        self.renew()

    def renew(self) -> None:
        """Go by the configuration as it is now.

        Raises:
            ConfigError: its routes cannot be used; all stays as it was.
        """
        settings, routing = self._corral.settings, self._corral.settings.routing
        self._laid = layout.lay(settings.routes, self._corral.models, routing.retries)
        self._meant = None  # which models their names mean is looked up when that is first asked: it reads the store
        self.breakers.threshold = Threshold(routing.breaker_failures, routing.breaker_pause)
        self.stickiness.seconds = routing.sticky
        self._drawn = {name: number for name, number in self._drawn.items() if name in self._laid}
        self._forget()

    def names(self) -> list[str]:
        """Names that lead to candidates by `routes` of the configuration."""
        return sorted(self._corral.settings.routes)

    def find(self, name: str) -> Plan | Route:
        """What `name` leads to: the whole plan where that is one model, else the route to `plan` by. The hot path."""
        if self._corral.clock.now() >= self._fresh_until:
            self._forget()
        found = self._found.get(name)
        return self._resolve(name) if found is None else found

    def plan(self, route: Route, facts: Facts) -> Plan:
        """Whom to ask, and whom not, for a request."""
        pick = 0.0
        if route.policy == "weighted":
            pick = self._drawn[route.name] = (self._drawn.get(route.name, 0.0) + _GOLDEN) % 1.0
        return plan(facts, route, self.priced if route.policy == "cheapest" else self.known, pick)

    def preview(self, name: str, facts: Facts) -> Plan:
        """The plan that the next such request would have, single models included; nothing is drawn for it."""
        found = self.find(name)
        route = Route(name, layout.legs_of(found), found) if isinstance(found, Plan) else found
        return plan(facts, route, self.priced, (self._drawn.get(route.name, 0.0) + _GOLDEN) % 1.0)

    def known(self, model: str) -> Known:
        """How a candidate stands now. The object is the same for each call, and brought up to date."""
        known = self._known.get(model)
        if known is None:
            known = self._known[model] = self._lasting(model)
        engine, known.unstable = self._corral.supervisor.outlook(model)
        known.ready = engine is not None and not engine.gone.is_set()
        known.in_flight = 0 if engine is None else engine.in_flight
        known.speed = self.speeds.of(model)
        known.alone = self.breakers.wait(model)
        known.why, known.due = (self.breakers.why(model), self.breakers.due(model)) if known.alone else ("", False)
        return known

    def priced(self, model: str) -> Known:
        """As `known`, with what it costs."""
        known = self.known(model)
        if known.missing is None:
            listed = self._listed.get(model)
            if listed is None:
                listed = self._listed[model] = self._listing(model, known)
            known.price = self.price(model, *listed)
        return known

    def _resolve(self, name: str) -> Plan | Route:
        """As `find`, for a name that was not asked for a moment ago. Names that mean nothing are not remembered."""
        corral = self._corral
        if self._meant is None:
            settings = corral.settings
            self._meant = layout.lay(settings.routes, corral.models, settings.routing.retries, corral.canonical)
        own = name if name in self._meant else corral.canonical(name)
        route = self._meant.get(own)
        if route is None:
            found: Plan | Route = layout.direct(own, corral.settings.routing.retries)
            if self._lasting(own).missing is not None:
                here = self._here() if own == AUTO else ()
                if not here:
                    return found
                found = layout.among(own, here, corral.settings.routing.retries)
        else:
            found = route
        if len(self._found) >= _MOST:
            self._found.clear()
        self._found[name] = found
        return found

    def _here(self) -> list[str]:
        """The models that run on this machine: those in memory first, then the largest. Vendors are asked by name only.

        Whether one can do what a request needs is seen when that is planned.
        """
        found = []
        for name in self._corral.names():
            known = self.known(name)
            if known.missing is None and known.local:
                installed = self._corral.definition(name).installed
                found.append((not known.ready, 0 if installed is None else -installed.revision.size, name))
        return [name for _, _, name in sorted(found)[:_MOST_AUTO]]

    def _forget(self) -> None:
        self._found.clear()
        self._known.clear()
        self._listed.clear()
        self._fresh_until = self._corral.clock.now() + _FRESH

    def _lasting(self, model: str) -> Known:
        """What of a model's standing does not change from one request to the next."""
        try:
            definition = self._corral.definition(model)
        except CorralError as error:
            return Known(missing=(error.code, error.message))
        engine, _ = self._corral.supervisor.outlook(model)
        local = self._is_local(definition) if engine is None else not engine.remote
        known = Known(local=local)
        if engine is not None:
            known.capabilities, known.context = engine.session.facts.capabilities, engine.session.facts.context
            return known
        said = definition.options.get("context")
        known.context = said if isinstance(said, int) else None
        if definition.installed is not None:
            revision = definition.installed.revision
            if not _CHANGES_ABILITY & definition.options.keys():
                known.capabilities = revision.capabilities or None
            longest = revision.facts.get("context_length")
            if known.context is None and isinstance(longest, int):
                known.context = longest
        return known

    def _is_local(self, definition: Definition) -> bool:
        """Whether a model that is not in memory would run here: by its files, no address elsewhere, or memory."""
        runtime = self._corral.runtimes[definition.runtime]
        if definition.installed is not None or all(item.name != "base_url" for item in fields(runtime.options)):
            return True
        try:
            options = parse_options(runtime.options, definition.options, f"model {definition.name!r}")
        except CorralError:
            return False  # whoever asks for it is told why it cannot be had
        return runtime.demand(LaunchSpec(definition.name, options)) is not None

    def _listing(self, model: str, known: Known) -> tuple[str | None, str | None, bool]:
        """How the price list calls a model: its provider, its name there, and whether it is local."""
        engine, _ = self._corral.supervisor.outlook(model)
        if engine is not None:
            endpoint = engine.session.endpoint
            return endpoint.provider, endpoint.model, not engine.remote
        try:
            definition = self._corral.definition(model)
            runtime = self._corral.runtimes[definition.runtime]
            options = parse_options(runtime.options, definition.options, f"model {model!r}")
        except CorralError:
            return None, None, False  # whoever asks for it is told why it cannot be had
        provider = getattr(options, "provider", None) or getattr(runtime, "provider", None)
        return provider, getattr(options, "upstream_model", None), known.local

    def _address(self, model: str) -> str | None:
        """Where a model that another machine serves is reached; None for what runs here."""
        engine, _ = self._corral.supervisor.outlook(model)
        return engine.session.endpoint.url if engine is not None and engine.remote else None


def _free_if_local(_: str, __: str | None, ___: str | None, local: bool) -> Price:
    return FREE if local else UNKNOWN
