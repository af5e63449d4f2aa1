"""Runtime `openai`: a server that speaks OpenAI's dialect, anywhere. Nothing is started: the engine is an address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote

from corral.dialects.form import Profile
from corral.domain.models import Capability
from corral.domain.ports import Availability, Endpoint, LaunchSpec, Report, SessionFacts
from corral.errors import InvalidRequest, UnknownOption
from corral.kit.vendor import RemoteSession, check_headers, check_least, check_url, check_variable, secret

Bound = Literal["max_tokens", "max_completion_tokens"]
Thinks = Literal["effort", "object", "none"]
_BEARER = "Authorization"


@dataclass(frozen=True, slots=True)
class OpenAIOptions:
    """Where a server of OpenAI's dialect is, and how to ask it. None is: as the vendor has it, else the default.

    Attributes:
        vendor: a service whose values for the other options are known: `groq`, `mistral`, …
        base_url: its address, up to where the dialect's paths begin: `https://api.example.com/v1`.
        api_key_env: the environment variable that holds the key; None sends no key.
        upstream_model: the server's own name for the model; None passes the name the client used.
        organization: sent as `OpenAI-Organization`.
        project: sent as `OpenAI-Project`.
        headers: sent with every request. A key does not belong here: it would stand in the configuration.
        context: tokens the model holds, where you know it.
        provider: whose prices hold, as the price list calls it.
        key_header: the header that carries the key; in `Authorization` it stands after `Bearer`.
        api_version: put behind every path as `?api-version=…`.
        responses: whether it knows `/responses` too; what a client asks there is then passed on as it is.
        max_tokens_field: what it calls the bound of an answer.
        developer_role: whether it calls the system's role `developer`.
        thinking: how it takes a wish for thoughts: as `reasoning_effort`, as an object `reasoning`, or not.
        stream_usage: whether it is to be asked for a stream's usage.
        drop: fields that it refuses; they are left out, and reported.
        extra: fields that every request gets which does not have them.
    """

    vendor: str | None = None
    base_url: str | None = None
    api_key_env: str | None = None
    upstream_model: str | None = None
    organization: str | None = None
    project: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    context: int | None = None
    provider: str | None = None
    key_header: str | None = None
    api_version: str | None = None
    responses: bool | None = None
    max_tokens_field: Bound | None = None
    developer_role: bool | None = None
    thinking: Thinks | None = None
    stream_usage: bool | None = None
    drop: tuple[str, ...] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = _vendors()
        if self.vendor is not None and self.vendor not in known:
            raise UnknownOption.among(self.vendor, known, "option 'vendor' of openai")
        url = self.base_url or known.get(self.vendor or "", {}).get("base_url")
        if url is None:
            raise InvalidRequest(
                "Option 'base_url' for openai is missing.",
                f"Write it as https://HOST/v1, or name a vendor: {', '.join(sorted(known))}.",
                param="base_url",
            )
        check_url(url, "openai")
        check_variable(self.api_key_env, "openai")
        check_headers({**self.sent(), (self.key_header or _BEARER): ""}, "openai")
        check_least({"context": self.context}, "openai")

    def sent(self) -> dict[str, str]:
        """The headers of every request, without the key."""
        own = {"OpenAI-Organization": self.organization, "OpenAI-Project": self.project}
        return {name: value for name, value in own.items() if value is not None} | dict(self.headers)

    def filled(self) -> Self:
        """The same with what is known of the vendor, where nothing is said."""
        row = _vendors().get(self.vendor or "", {})
        given = {name: row[name] for name in row if getattr(self, name) is None}
        return replace(self, **given)

    def profile(self) -> Profile:
        """How this server differs from others that speak the dialect."""
        common = Profile()
        return Profile(
            max_tokens=self.max_tokens_field or common.max_tokens,
            developer=bool(self.developer_role),
            thinking=self.thinking or common.thinking,
            usage=self.stream_usage is not False,
            drop=frozenset(self.drop or ()),
            extra=self.extra,
        )


@cache
def _vendors() -> Mapping[str, Mapping[str, Any]]:
    """The table beside this file: of each vendor, values for the options above."""
    import yaml

    table = yaml.safe_load(Path(__file__).with_name("_vendors.yaml").read_text(encoding="utf-8"))
    return {
        name: {key: tuple(v) if isinstance(v, list) else v for key, v in row.items()} for name, row in table.items()
    }


class OpenAI:
    """Reaches a server of OpenAI's dialect."""

    kind = "openai"
    options = OpenAIOptions
    formats: frozenset[str] = frozenset()
    preference = 0
    capabilities = frozenset(Capability)

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    async def probe(self) -> Availability:
        """Always usable: it needs nothing installed."""
        return Availability(usable=True)

    def secrets(self, options: OpenAIOptions) -> tuple[str, ...]:
        """The variables of the environment of which one must hold a key."""
        variable = options.filled().api_key_env
        return () if variable is None else (variable,)

    def demand(self, spec: LaunchSpec) -> None:
        """None: what it takes, it takes elsewhere."""

    async def start(self, spec: LaunchSpec, report: Report) -> RemoteSession:
        """The address, with the key as the environment has it now. The server is not asked."""
        given: OpenAIOptions = spec.options
        options = given.filled()
        headers = options.sent()
        if options.api_key_env is not None:
            key = secret(self._env, options.api_key_env, spec.model)
            name = options.key_header or _BEARER
            headers[name] = f"Bearer {key}" if name.lower() == "authorization" else key
        endpoint = Endpoint(
            url=(options.base_url or "").rstrip("/"),
            headers=headers,
            model=options.upstream_model,
            speaks=frozenset({"openai.responses"}) if options.responses else frozenset(),
            profile=options.profile(),
            provider=options.provider,
            query="" if options.api_version is None else f"api-version={quote(options.api_version, safe='')}",
        )
        return RemoteSession(endpoint, SessionFacts(context=options.context, device="remote"))


plugin = OpenAI
