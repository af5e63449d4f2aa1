"""What a runtime needs that reaches a vendor and starts nothing: its options checked, its key, and a session."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

from corral.domain.ports import Endpoint, Footprint, SessionFacts
from corral.errors import InvalidRequest, RuntimeUnavailable, UpstreamTimeout, UpstreamUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_HEALTH_TIMEOUT = 3.0
_COUNT_TIMEOUT = 30.0
_FIELD_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OF_THE_RELAY = frozenset({"connection", "content-length", "content-type", "host", "transfer-encoding"})


def check_url(url: str, runtime: str, example: str = "https://HOST/v1") -> None:
    """Refuse as option `base_url` of `runtime` what is not an address, or more than one. No credential is repeated.

    Raises:
        InvalidRequest: it is none, or has a name, a password, a query or a fragment in it.
    """
    try:
        parts = urlsplit(url)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not _FIELD_VALUE.fullmatch(url) or " " in url:
        raise InvalidRequest(
            f"Option 'base_url' for {runtime} is not an http or https address.",
            f"Write it as {example}.",
            param="base_url",
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InvalidRequest(
            f"Option 'base_url' for {runtime} has more than an address in it: "
            "a name, a password, a query or a fragment.",
            "Give the key through api_key_env.",
            param="base_url",
        )


def check_variable(name: str | None, runtime: str) -> None:
    """Refuse as option `api_key_env` of `runtime` what is no variable's name. None is none.

    Raises:
        InvalidRequest: it is none.
    """
    if name is not None and not _VARIABLE.fullmatch(name):
        # The value is not repeated: it may be the key itself.
        raise InvalidRequest(
            f"Option 'api_key_env' for {runtime} is not the name of an environment variable.",
            "Put the key into the environment, and the variable's name here: api_key_env: EXAMPLE_API_KEY",
            param="api_key_env",
        )


def check_headers(headers: Mapping[str, str], runtime: str) -> None:
    """Refuse as option `headers` of `runtime` what would break a request, or belongs to the relay.

    Raises:
        InvalidRequest: names the header, not its value.
    """
    for name, value in headers.items():
        if not _FIELD_NAME.fullmatch(name) or name.lower() in _OF_THE_RELAY:
            raise InvalidRequest(f"Option 'headers' for {runtime}: {name!r} cannot be set.", param="headers")
        if not _FIELD_VALUE.fullmatch(value):
            raise InvalidRequest(
                f"Option 'headers' for {runtime}: the value of {name!r} has characters a header cannot carry.",
                param="headers",
            )


def check_least(values: Mapping[str, int | None], runtime: str, least: int = 1) -> None:
    """Refuse options of `runtime`, by their names, that are less than `least`. None is not given.

    Raises:
        InvalidRequest: one is less.
    """
    for name, value in values.items():
        if value is not None and value < least:
            raise InvalidRequest(f"Option {name!r} for {runtime} must be at least {least}, not {value}.", param=name)


def secret(env: Mapping[str, str], variable: str, model: str) -> str:
    """The key for `model` that the environment holds in `variable`, without white space around it.

    Raises:
        RuntimeUnavailable: it holds none, or one that no header can carry.
    """
    key = env.get(variable, "").strip()
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


@dataclass(frozen=True, slots=True)
class Question:
    """How a vendor is asked for the length of a prompt: path and body, and the field of its answer with the number."""

    path: str
    body: Mapping[str, Any]
    field: str


class RemoteSession:
    """An address. Nothing of it lives here. `probe` is the path that is asked for its health, below that address.

    `question` makes of a request what its vendor is asked to count its prompt, where that is free; None: it cannot be.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        facts: SessionFacts,
        probe: str = "/models",
        question: Callable[[str, Mapping[str, Any]], Question | None] | None = None,
    ) -> None:
        self.endpoint = endpoint
        """Where it answers."""
        self.facts = facts
        """What the configuration says of it."""
        self._probe = probe
        self._question = question

    async def healthy(self) -> bool:
        """Whether the server answers at all: a refusal is an answer, a failure of its own is not."""
        import aiohttp

        query = f"?{self.endpoint.query}" if self.endpoint.query else ""
        timeout = aiohttp.ClientTimeout(total=_HEALTH_TIMEOUT)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=True) as client,
                client.get(
                    f"{self.endpoint.url}{self._probe}{query}", headers=self.endpoint.headers, allow_redirects=False
                ) as answer,
            ):
                return answer.status < 500
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return False

    async def count(self, path: str, document: Mapping[str, Any]) -> int | None:
        """Tokens of a prompt, as the vendor counts them; None where it does not say.

        Raises:
            UpstreamError: it does not answer.
        """
        import aiohttp

        asked = None if self._question is None else self._question(path, document)
        if asked is None:
            return None
        endpoint = self.endpoint
        url = f"{endpoint.url}{asked.path}" + (f"?{endpoint.query}" if endpoint.query else "")
        headers = {**endpoint.headers, "Content-Type": "application/json"}
        timeout = aiohttp.ClientTimeout(total=_COUNT_TIMEOUT)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=True) as client,
                client.post(url, data=orjson.dumps(asked.body), headers=headers, allow_redirects=False) as answer,
            ):
                said = orjson.loads(await answer.read()) if answer.status == 200 else None
        except TimeoutError as error:
            raise UpstreamTimeout(f"{endpoint.url} did not count within {_COUNT_TIMEOUT:g} s.") from error
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamUnreachable(f"{endpoint.url} cannot be reached: {error}.") from error
        except ValueError:
            return None
        found = said.get(asked.field) if isinstance(said, dict) else None
        return found if type(found) is int else None

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
