"""Runtime `openai`: a server that speaks OpenAI's dialect, anywhere. Nothing is started: the engine is an address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from corral.domain.models import Capability
from corral.domain.ports import Availability, Endpoint, LaunchSpec, Report, SessionFacts
from corral.kit.vendor import RemoteSession, check_headers, check_least, check_url, check_variable, secret


@dataclass(frozen=True, slots=True)
class OpenAIOptions:
    """Where a server of OpenAI's dialect is, and how to ask it.

    Attributes:
        base_url: its address, up to where the dialect's paths begin: `https://api.example.com/v1`.
        api_key_env: the environment variable that holds the key; None sends no key.
        upstream_model: the server's own name for the model; None passes the name the client used.
        organization: sent as `OpenAI-Organization`.
        project: sent as `OpenAI-Project`.
        headers: sent with every request. A key does not belong here: it would stand in the configuration.
        context: tokens the model holds, where you know it.
    """

    base_url: str
    api_key_env: str | None = None
    upstream_model: str | None = None
    organization: str | None = None
    project: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    context: int | None = None

    def __post_init__(self) -> None:
        check_url(self.base_url, "openai")
        check_variable(self.api_key_env, "openai")
        check_headers(self.sent(), "openai")
        check_least({"context": self.context}, "openai")

    def sent(self) -> dict[str, str]:
        """The headers of every request, without the key."""
        own = {"OpenAI-Organization": self.organization, "OpenAI-Project": self.project}
        return {name: value for name, value in own.items() if value is not None} | dict(self.headers)


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

    def demand(self, spec: LaunchSpec) -> None:
        """None: what it takes, it takes elsewhere."""

    async def start(self, spec: LaunchSpec, report: Report) -> RemoteSession:
        """The address, with the key as the environment has it now. The server is not asked."""
        options: OpenAIOptions = spec.options
        headers = options.sent()
        if options.api_key_env is not None:
            headers["Authorization"] = f"Bearer {secret(self._env, options.api_key_env, spec.model)}"
        endpoint = Endpoint(url=options.base_url.rstrip("/"), headers=headers, model=options.upstream_model)
        return RemoteSession(endpoint, SessionFacts(context=options.context, device="remote"))


plugin = OpenAI
