"""Runtime `openai`: a server that speaks OpenAI's dialect, anywhere. Nothing is started: the engine is an address."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from corral.domain.models import Capability
from corral.domain.ports import Availability, Endpoint, Footprint, LaunchSpec, Report, SessionFacts
from corral.errors import InvalidRequest, RuntimeUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEALTH_TIMEOUT = 3.0
_FIELD_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OF_THE_RELAY = frozenset({"connection", "content-length", "content-type", "host", "transfer-encoding"})


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
        _check_url(self.base_url)
        if self.api_key_env is not None and not _VARIABLE.fullmatch(self.api_key_env):
            # The value is not repeated: it may be the key itself.
            raise InvalidRequest(
                "Option 'api_key_env' for openai is not the name of an environment variable.",
                "Put the key into the environment, and the variable's name here: api_key_env: EXAMPLE_API_KEY",
                param="api_key_env",
            )
        for name, value in self.sent().items():
            if not _FIELD_NAME.fullmatch(name) or name.lower() in _OF_THE_RELAY:
                raise InvalidRequest(f"Option 'headers' for openai: {name!r} cannot be set.", param="headers")
            if not _FIELD_VALUE.fullmatch(value):
                raise InvalidRequest(
                    f"Option 'headers' for openai: the value of {name!r} has characters a header cannot carry.",
                    param="headers",
                )
        if self.context is not None and self.context < 1:
            raise InvalidRequest(
                f"Option 'context' for openai must be at least 1, not {self.context}.", param="context"
            )

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

    async def start(self, spec: LaunchSpec, report: Report) -> OpenAISession:
        """The address, with the key as the environment has it now. The server is not asked."""
        options: OpenAIOptions = spec.options
        headers = options.sent()
        if options.api_key_env is not None:
            headers["Authorization"] = f"Bearer {self._key(options.api_key_env, spec.model)}"
        endpoint = Endpoint(url=options.base_url.rstrip("/"), headers=headers, model=options.upstream_model)
        return OpenAISession(endpoint, SessionFacts(context=options.context, device="remote"))

    def _key(self, variable: str, model: str) -> str:
        key = self._env.get(variable, "").strip()
        if not key:
            raise RuntimeUnavailable(
                f"The model {model!r} needs a key, and the environment variable {variable} is not set.",
                f"Set it and start Corral again: export {variable}=…",
            )
        if not _FIELD_VALUE.fullmatch(key):
            raise RuntimeUnavailable(
                f"The environment variable {variable} holds characters that no key has.", "Check it for line breaks."
            )
        return key


class OpenAISession:
    """An address. Nothing of it lives here."""

    def __init__(self, endpoint: Endpoint, facts: SessionFacts) -> None:
        self._endpoint = endpoint
        self._facts = facts

    @property
    def endpoint(self) -> Endpoint:
        """Where it answers."""
        return self._endpoint

    @property
    def facts(self) -> SessionFacts:
        """What the configuration says of it."""
        return self._facts

    async def healthy(self) -> bool:
        """Whether the server answers at all: a refusal is an answer, a failure of its own is not."""
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=_HEALTH_TIMEOUT)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=True) as client,
                client.get(
                    f"{self._endpoint.url}/models", headers=self._endpoint.headers, allow_redirects=False
                ) as answer,
            ):
                return answer.status < 500
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return False

    async def footprint(self) -> Footprint:
        """Nothing on this machine."""
        return Footprint({})

    def processes(self) -> Sequence[int]:
        """None of ours."""
        return ()

    async def ended(self) -> str:
        """Never returns: a remote engine does not end."""
        await asyncio.get_running_loop().create_future()
        raise AssertionError("a future nobody holds was resolved")

    def log(self) -> Sequence[str]:
        """Nothing is seen of the server's output."""
        return ()

    async def stop(self, grace: float) -> None:
        """Nothing to end."""


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not _FIELD_VALUE.fullmatch(url) or " " in url:
        raise InvalidRequest(
            "Option 'base_url' for openai is not an http or https address.",
            "Write it as https://HOST/v1.",
            param="base_url",
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InvalidRequest(
            "Option 'base_url' for openai has more than an address in it: a name, a password, a query or a fragment.",
            "Give the key through api_key_env.",
            param="base_url",
        )


plugin = OpenAI
