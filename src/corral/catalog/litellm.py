"""LiteLLM's configuration, as Corral would take it over: models, and routes where a name has several deployments.

Keys stay where they are: what is written is the name of the variable that holds each. Whatever has no like here is
said, with what to do instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from corral.catalog._litellm_models import Deployment, UnfitError, deployment
from corral.catalog.imports import ImportPlan, mapping, yaml_mapping
from corral.domain.models import check_name
from corral.errors import ConfigError, InvalidName

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_POLICIES: Mapping[str, str] = {
    "simple-shuffle": "weighted",
    "least-busy": "least_busy",
    "latency-based-routing": "fastest",
    "cost-based-routing": "cheapest",
}
_SECTIONS = frozenset({"model_list", "router_settings", "litellm_settings", "general_settings", "credential_list"})
_FALLBACKS = ("fallbacks", "context_window_fallbacks", "default_fallbacks", "content_policy_fallbacks")
_NUMBERS: Mapping[str, tuple[str, str]] = {
    "num_retries": ("routing", "retries"),
    "allowed_fails": ("routing", "breaker_failures"),
    "cooldown_time": ("routing", "breaker_pause"),
    "timeout": ("upstream", "first_byte_timeout"),
    "request_timeout": ("upstream", "first_byte_timeout"),
}
"""LiteLLM's setting → section and key here. Of the same in two places the router's counts."""
_AS_IT_IS = frozenset(
    {"drop_params", "enable_pre_call_checks", "modify_params", "routing_strategy", "model_group_alias"}
)
"""Taken over, or so in Corral anyway."""
_BUDGET = "Write one: corral budgets create --help"
_WATCH = "What is used is in `corral usage`, /metrics, the log and OpenTelemetry's traces: see docs/usage.md."
_REDIS = "Nothing is needed for it: servers of one home share their database."
_INSTEAD: Mapping[str, str] = {
    "cache": "Corral keeps no answers to give again. Vendors' caches of prompts are kept warm by `sticky`.",
    "cache_params": "Corral keeps no answers to give again.",
    "callbacks": _WATCH,
    "success_callback": _WATCH,
    "failure_callback": _WATCH,
    "service_callbacks": _WATCH,
    "max_budget": _BUDGET,
    "budget_duration": _BUDGET,
    "provider_budget_config": "Budgets are for keys and projects, not for vendors. " + _BUDGET,
    "content_policy_fallbacks": "An answer that a vendor's filter stopped is the answer; nobody else is asked.",
    "retry_after": "Corral waits 0.25 s, doubling, or what the vendor asks for.",
    "retry_policy": "Which failures are worth another try is fixed: see docs/routing.md.",
    "allowed_fails_policy": "Which failures count is fixed: see docs/routing.md.",
    "redis_host": _REDIS,
    "redis_port": _REDIS,
    "redis_password": _REDIS,
    "redis_url": _REDIS,
    "routing_strategy_args": "Policies have no settings here.",
    "disable_cooldowns": "Write routing: {breaker_failures: …} with a high number.",
    "stream_timeout": "Corral waits for the first byte of streams as of others.",
    "json_logs": "Write log: {format: json}.",
    "set_verbose": "Write log: {level: debug}.",
    "master_key": "export CORRAL_API_KEY=… with it where Corral runs: keys are not kept in files.",
    "database_url": "Keys and budgets of that database are not taken over: corral keys create, corral budgets create. "
    "Corral's own database is SQLite, or the PostgreSQL that `database.url` names.",
    "store_model_in_db": "Models are in corral.yaml, or registered: POST /api/v1/runtime/models.",
    "alerting": "See docs/metrics.md for what to watch.",
    "max_parallel_requests": "Keys have `parallel`: corral keys create --help",
    "global_max_parallel_requests": "Keys have `parallel`, and models `concurrency`.",
    "environment_variables": "They are not copied, as they may be secrets: set them where Corral runs.",
    "include": "Import each of these files by itself.",
    "guardrails": "Corral looks into no prompts.",
    "mcp_servers": "Corral is no MCP gateway.",
    "default_team_settings": "Corral has projects and keys: see docs/keys.md.",
}
"""What has no like here, and what to do instead."""


def plan_litellm(path: Path, env: Mapping[str, str]) -> ImportPlan:
    """What a `config.yaml` of LiteLLM's proxy becomes. `env` fills in `os.environ/NAME`, except for keys. Blocks.

    Raises:
        ConfigError: the file cannot be read, or is none of LiteLLM's.
    """
    return _Planning(_content(path), env).plan()


@dataclass(slots=True)
class _Group:
    """All deployments of one name. `models` are what they are called here."""

    name: str
    deployments: list[Deployment] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    fallback: list[str] = field(default_factory=list)


class _Planning:
    """Makes the plan of one file."""

    def __init__(self, content: Mapping[str, Any], env: Mapping[str, str]) -> None:
        self._content = content
        self._env = env
        self._router = mapping(content.get("router_settings"))
        self._own = mapping(content.get("litellm_settings"))
        self._skipped: list[tuple[str, str]] = []
        self._groups: dict[str, _Group] = {}
        self._models: dict[str, dict[str, Any]] = {}
        self._routes: dict[str, dict[str, Any]] = {}
        self._prices: dict[str, dict[str, Any]] = {}
        self._strategy = str(self._router.get("routing_strategy") or "simple-shuffle")

    def plan(self) -> ImportPlan:
        """The whole of it."""
        self._read()
        self._name()
        self._fall_back()
        for group in self._groups.values():
            self._route(group)
        self._alias()
        sections = self._numbers()
        self._say()
        return ImportPlan(
            models=self._models,
            routes=self._routes,
            prices=self._prices,
            sections=sections,
            skipped=tuple(dict.fromkeys(self._skipped)),
        )

    def _read(self) -> None:
        credentials = {
            str(item.get("credential_name")): mapping(item.get("credential_values"))
            for item in map(mapping, _list(self._content.get("credential_list")))
        }
        for number, item in enumerate(self._content["model_list"], 1):
            name = item.get("model_name") if isinstance(item, dict) else None
            if not isinstance(name, str) or not name:
                self._skipped.append((f"model_list[{number}]", "It has no `model_name`."))
                continue
            try:
                made = deployment(name, item, credentials, self._env)
                check_name(name)
            except UnfitError as error:
                self._skipped.append((name[:200], str(error)))
                continue
            except InvalidName as error:
                self._skipped.append((name[:200], f"{error.message} {error.hint}"))
                continue
            self._groups.setdefault(name, _Group(name)).deployments.append(made)

    def _name(self) -> None:
        """Give each deployment a model: of several with one name they are numbered."""
        taken = set(self._groups)
        for group in self._groups.values():
            single = len(group.deployments) == 1
            for number, made in enumerate(group.deployments, 1):
                name = group.name if single else f"{group.name}-{number}"
                while not single and name in taken:
                    name += "x"
                taken.add(name)
                group.models.append(name)
                self._models[name] = made.entry
                if made.price:
                    self._prices[name] = made.price
                self._skipped += [(name, reason) for reason in made.reasons]

    def _fall_back(self) -> None:
        said = {key: self._router.get(key, self._own.get(key)) for key in _FALLBACKS}
        for key in ("fallbacks", "context_window_fallbacks"):
            for name, others in _pairs(said[key]):
                if name == "*":
                    self._everybody(others)
                elif name in self._groups:
                    self._add(self._groups[name], others, key)
                else:
                    self._skipped.append((key, f"{name[:200]!r} is no model that was taken over."))
        self._everybody(_list(said["default_fallbacks"]))
        if said["content_policy_fallbacks"]:
            self._skipped.append(("content_policy_fallbacks", _INSTEAD["content_policy_fallbacks"]))

    def _everybody(self, others: Iterable[Any]) -> None:
        others = list(others)
        for group in self._groups.values():
            if not group.fallback:
                self._add(group, [each for each in others if str(each) != group.name], "default_fallbacks")

    def _add(self, group: _Group, others: Iterable[Any], key: str) -> None:
        for other in others:
            named = other.get("model") if isinstance(other, dict) else other
            if isinstance(other, dict):
                self._skipped.append((key, f"Of a fallback of {group.name!r} only the model is taken over."))
            target = self._groups.get(str(named))
            if target is None:
                self._skipped.append((key, f"{str(named)[:200]!r} is no model that was taken over."))
            elif target is not group:
                group.fallback += [name for name in target.models if name not in group.fallback]

    def _route(self, group: _Group) -> None:
        """What a name leads to, where that is more than one model with its fallbacks."""
        made, models = group.deployments, group.models
        bounds = self._bounds(group)
        if len(models) == 1:
            if made[0].limit:
                self._models[models[0]]["concurrency"] = made[0].limit
            if bounds:
                self._routes[group.name] = {"models": [*models, *group.fallback], **bounds}
            elif group.fallback:
                self._models[models[0]]["fallback"] = group.fallback
            return
        policy, shares = self._policy(group)
        route: dict[str, Any] = {"models": list(models), "policy": policy}
        if policy == "weighted":
            route["models"] += group.fallback
            shares |= dict.fromkeys(group.fallback, 0)  # asked only after all others
        elif policy == "ordered":
            order = sorted(range(len(models)), key=lambda at: made[at].order or 0)
            route["models"] = [*(models[at] for at in order), *group.fallback]
        elif group.fallback:
            reason = f"Its fallbacks are not in the route: `{policy}` would order them among the others. "
            self._skipped.append(
                (group.name, reason + f"As a policy `ordered` takes them: {', '.join(group.fallback)}.")
            )
        if shares:
            route["weights"] = shares
        limits = {name: each.limit for name, each in zip(models, made, strict=True) if each.limit}
        if limits:
            route["limits"] = limits
        self._routes[group.name] = {**route, **bounds}

    def _policy(self, group: _Group) -> tuple[str, dict[str, float]]:
        made = group.deployments
        if any(each.order is not None for each in made):
            return "ordered", {}
        policy = _POLICIES.get(self._strategy, "weighted")
        if policy != "weighted":
            return policy, {}
        for kind in ("weight", "rpm", "tpm"):
            if any(getattr(each, kind) is not None for each in made):
                return policy, {name: getattr(each, kind) or 0 for name, each in zip(group.models, made, strict=True)}
        return policy, {}

    def _bounds(self, group: _Group) -> dict[str, Any]:
        bounds: dict[str, Any] = {}
        for ours, theirs in (("first_byte_timeout", "timeout"), ("retries", "retries")):
            said = {getattr(each, theirs) for each in group.deployments} - {None}
            if said:
                bounds[ours] = max(said)
            if len(said) > 1:
                self._skipped.append((group.name, f"One `{ours}` holds for all of them: {max(said):g}, the largest."))
        return bounds

    def _alias(self) -> None:
        for name, target in mapping(self._router.get("model_group_alias")).items():
            alias = str(name)
            meant = str(target.get("model") if isinstance(target, dict) else target)
            if meant not in self._groups:
                self._skipped.append((alias[:200], f"It is an alias of {meant[:200]!r}, which was not taken over."))
                continue
            try:
                check_name(alias)
            except InvalidName as error:
                self._skipped.append((alias[:200], error.message))
                continue
            if isinstance(target, dict) and target.get("hidden"):
                self._skipped.append((alias, "`hidden` is not taken over: Corral lists all names."))
            if meant in self._routes or alias in self._groups:
                self._routes[alias] = {"models": [meant]}
            else:
                self._models[meant].setdefault("aliases", []).append(alias)

    def _numbers(self) -> dict[str, dict[str, Any]]:
        """Settings that are numbers here as there."""
        sections: dict[str, dict[str, Any]] = {}
        for given in (self._own, self._router):
            for key, (section, ours) in _NUMBERS.items():
                value = given.get(key)
                if value is None:
                    continue
                if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                    self._skipped.append((key, "It is no number."))
                    continue
                whole = section == "routing" and ours != "breaker_pause"
                least = 1 if ours == "breaker_failures" else 0
                sections.setdefault(section, {})[ours] = max(int(value), least) if whole else value
                if key == "allowed_fails":
                    self._skipped.append((key, "It counts failures in a row here, not in a minute."))
        return sections

    def _say(self) -> None:
        """Name what has no like here."""
        known = {*_NUMBERS, *_AS_IT_IS, *_FALLBACKS}
        if self._strategy not in _POLICIES:
            reason = "Corral has no such policy: requests are shared out by weight."
            self._skipped.append(("routing_strategy", f"{self._strategy[:60]!r}: {reason}"))
        for section in (self._router, self._own):
            self._skipped += [
                (key, _instead(key)) for key in sorted(map(str, section.keys() - known)) if section.get(key)
            ]
        general = mapping(self._content.get("general_settings"))
        self._skipped += [(key, _instead(key)) for key in sorted(map(str, general))]
        rest = sorted(map(str, self._content.keys() - _SECTIONS))
        self._skipped += [(key, _instead(key)) for key in rest]


def _instead(key: str) -> str:
    return f"Not taken over. {_INSTEAD.get(key, '')}".rstrip()


def _pairs(value: object) -> list[tuple[str, list[Any]]]:
    """A list of mappings `{name: [others]}`, or one such mapping."""
    items = [value] if isinstance(value, dict) else _list(value)
    return [(str(name), _list(others)) for item in items for name, others in mapping(item).items()]


def _content(path: Path) -> Mapping[str, Any]:
    content = yaml_mapping(path)
    if not isinstance(content.get("model_list"), list):
        raise ConfigError(f"{path} has no list `model_list`.", "It should be a config.yaml of LiteLLM's proxy.")
    return content


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value] if isinstance(value, str) else []
