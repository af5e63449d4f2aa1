"""Runtime `anthropic`: Anthropic's service, or another that speaks its dialect. Nothing is started."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from corral.dialects.form import Profile
from corral.domain.models import Capability
from corral.domain.ports import Availability, Endpoint, LaunchSpec, Report, SessionFacts
from corral.errors import InvalidRequest
from corral.kit.vendor import Question, RemoteSession, check_headers, check_least, check_url, check_variable, secret

Thinks = Literal["adaptive", "budget", "none"]
_HOME = "https://api.anthropic.com/v1"
_COUNTED = frozenset(
    {"messages", "model", "system", "thinking", "tool_choice", "tools", "cache_control", "output_config"}
)
"""Fields of a request that a count of its tokens takes."""
_SAMPLING = frozenset({"temperature", "top_p", "top_k"})
_BETA = re.compile(r"[A-Za-z0-9._-]+")
_ABLE = frozenset(
    {Capability.CHAT, Capability.TOOLS, Capability.VISION, Capability.JSON_SCHEMA, Capability.SYSTEM_ROLE}
)


@dataclass(frozen=True, slots=True)
class AnthropicOptions:
    """Which of Anthropic's models is meant, and how to ask for it.

    Attributes:
        upstream_model: the vendor's own name for the model; None passes the name the client used.
        api_key_env: the environment variable that holds the key; None sends no key.
        base_url: where it is, up to where the dialect's paths begin.
        provider: whose prices hold, as the price list calls it.
        version: sent as `anthropic-version`. That of 2026 knows no temperature, `top_p` and `top_k`: they are dropped.
        betas: sent as `anthropic-beta`.
        headers: sent with every request. A key does not belong here: it would stand in the configuration.
        context: tokens the model holds, where you know it.
        max_output: tokens of an answer when the client says nothing; the dialect demands a bound.
        thinking: how the model takes a wish for thoughts: it decides itself within an effort (`adaptive`), it is given
            a number of tokens (`budget`), or it has none.
        drop: fields that the model refuses, such as `temperature`; they are left out, and reported.
    """

    upstream_model: str | None = None
    api_key_env: str | None = "ANTHROPIC_API_KEY"
    base_url: str = _HOME
    provider: str = "anthropic"
    version: str = "2023-06-01"
    betas: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    context: int | None = None
    max_output: int = 8192
    thinking: Thinks = "adaptive"
    drop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_url(self.base_url, "anthropic", _HOME)
        check_variable(self.api_key_env, "anthropic")
        for beta in self.betas:
            if not _BETA.fullmatch(beta):
                raise InvalidRequest(f"Option 'betas' for anthropic: {beta!r} is no beta's name.", param="betas")
        check_headers(self.sent(), "anthropic")
        check_least({"context": self.context, "max_output": self.max_output}, "anthropic")

    def sent(self) -> dict[str, str]:
        """The headers of every request, without the key."""
        betas = {"anthropic-beta": ",".join(self.betas)} if self.betas else {}
        return {"anthropic-version": self.version} | betas | dict(self.headers)

    def profile(self) -> Profile:
        """How this model differs from others that speak the dialect."""
        thinking = "effort" if self.thinking == "adaptive" else self.thinking
        drop = frozenset(self.drop) | (frozenset() if self.version < "2026" else _SAMPLING)
        return Profile(thinking=thinking, drop=drop, max_output=self.max_output)


class Anthropic:
    """Reaches Anthropic's service."""

    kind = "anthropic"
    options = AnthropicOptions
    formats: frozenset[str] = frozenset()
    preference = 0
    capabilities = _ABLE

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    async def probe(self) -> Availability:
        """Always usable: it needs nothing installed."""
        return Availability(usable=True)

    def secrets(self, options: AnthropicOptions) -> tuple[str, ...]:
        """The variables of the environment of which one must hold a key."""
        return () if options.api_key_env is None else (options.api_key_env,)

    def demand(self, spec: LaunchSpec) -> None:
        """None: what it takes, it takes elsewhere."""

    async def start(self, spec: LaunchSpec, report: Report) -> RemoteSession:
        """The address, with the key as the environment has it now. The vendor is not asked."""
        options: AnthropicOptions = spec.options
        headers = options.sent()
        if options.api_key_env is not None:
            headers["x-api-key"] = secret(self._env, options.api_key_env, spec.model)
        endpoint = Endpoint(
            url=options.base_url.rstrip("/"),
            dialect="anthropic",
            headers=headers,
            model=options.upstream_model,
            profile=options.profile(),
            provider=options.provider,
        )
        facts = SessionFacts(context=options.context, device="remote", capabilities=_ABLE, counts=True)
        return RemoteSession(endpoint, facts, question=_question)


def _question(path: str, document: Mapping[str, Any]) -> Question | None:
    """What the service is asked for the length of a prompt."""
    if path != "/messages":
        return None
    return Question(f"{path}/count_tokens", {k: v for k, v in document.items() if k in _COUNTED}, "input_tokens")


plugin = Anthropic
