"""The Hugging Face hub's metadata, by its own client library: bounded in time, and in Corral's errors.

The library is imported when something is first asked of the hub. It reads this process's environment; where the hub is
and who asks is passed to it explicitly instead.
"""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from urllib.parse import urlsplit

from corral.errors import AddressRefused, ConfigError, CorralError, LoginRequired, SourceError, SourceNotFound
from corral.kit.addresses import Zone, literal_zone, named
from corral.kit.web import Transient, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from huggingface_hub import HfApi

    from corral.kit.web import Access

T = TypeVar("T")

PUBLIC: Final = "https://huggingface.co"

_THREAD = "corral-hf"
_YES = frozenset({"1", "on", "yes", "true"})
_WORTH_RETRYING = frozenset({408, 425, 429, 500, 502, 503, 504})
_TRIES_AT_ONCE = 4
"""How many of the caller's time-outs a whole exchange may take: the library tries listings again by itself."""


@dataclass(frozen=True, slots=True)
class Hub:
    """Where the hub is, and who asks. `endpoint` has no trailing slash."""

    endpoint: str = PUBLIC
    token: str | None = field(default=None, repr=False)
    offline: bool = False

    @classmethod
    def read(cls, env: Mapping[str, str]) -> Self:
        """What the environment says, as the hub's own tools read it. Reads the token's file; blocks briefly.

        Raises:
            ConfigError: it says something that cannot be used.
        """
        endpoint = (env.get("HF_ENDPOINT") or PUBLIC).rstrip("/")
        parts = urlsplit(endpoint)
        if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc or parts.query:
            raise ConfigError(
                f"HF_ENDPOINT is no address of a hub: {shown(endpoint)}.",
                "Set it like https://huggingface.co, without a login; the login goes into HF_TOKEN.",
            )
        return cls(endpoint, _token(env), env.get("HF_HUB_OFFLINE", "").lower() in _YES)

    @property
    def logins(self) -> dict[str, str]:
        """The header that logs in, by origin: the hub's own and no other gets it."""
        parts = urlsplit(self.endpoint)
        return {} if self.token is None else {f"{parts.scheme}://{parts.netloc}": f"Bearer {self.token}"}

    def page(self, repo: str) -> str:
        """Where people read about the repo."""
        return f"{self.endpoint}/{repo}"

    def require_online(self) -> None:
        """Let pass unless told to stay offline.

        Raises:
            SourceError: told so.
        """
        if self.offline:
            raise SourceError("HF_HUB_OFFLINE is set, so Hugging Face is not asked.", "Unset it: unset HF_HUB_OFFLINE")

    def require_safe(self, access: Access) -> None:
        """Let pass unless a token, or what is installed, would go over the network for all to read and change.

        Raises:
            AddressRefused: it would.
        """
        parts = urlsplit(self.endpoint)
        host = parts.hostname or ""
        here = host == "localhost" or literal_zone(host) is Zone.LOOPBACK
        if parts.scheme != "https" and not here and not named(self.endpoint, access.private | access.trusted):
            raise AddressRefused(
                f"HF_ENDPOINT is not encrypted: {shown(self.endpoint)}.",
                f"Use https, or allow it: CORRAL_SOURCES_ALLOW_PRIVATE={parts.netloc}",
            )

    async def ask(self, work: Callable[[HfApi], T], about: str, timeout: float) -> T:
        """What `work` does with the library, in a thread; `about` names the repo or what else is asked for.

        When cancelled or late, nobody waits for the thread: it holds nothing that anybody needs.

        Raises:
            SourceNotFound: there is no such thing.
            LoginRequired: not without a login, or not with this one.
            Transient: the hub may answer another time.
            SourceError: it refuses, or is no hub.
        """
        self.require_online()
        try:
            async with asyncio.timeout(timeout * _TRIES_AT_ONCE):
                return await _aside(partial(self._work, work, about))
        except TimeoutError as error:
            raise Transient(f"{shown(self.endpoint)} took too long over {about}.", "Try again later.") from error

    def _work(self, work: Callable[[HfApi], T], about: str) -> T:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        # Whichever HTTP library the installed version is built on.
        kinds = [kind for kind in HfHubHTTPError.__mro__ if issubclass(kind, Exception)]
        broken = next(kind for kind in kinds if kind.__name__ == "HTTPError")
        _hush()
        api = HfApi(self.endpoint, token=self.token or False, headers={"user-agent": "corral"})
        try:
            return work(api)
        except (broken, OSError) as error:
            raise self._translate(error, about) from error
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise SourceError(
                f"{shown(self.endpoint)} did not answer as a Hugging Face hub does, asked for {about}.",
                "Check HF_ENDPOINT, and whether a proxy answers in its place.",
            ) from error

    def _translate(self, error: Exception, about: str) -> CorralError:
        """The error to raise for a failed exchange: never the library's own text."""
        from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RevisionNotFoundError

        where = shown(self.endpoint)
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, GatedRepoError):
            return self.gated(about)
        if isinstance(error, RevisionNotFoundError):
            return SourceNotFound(f"{about} has no such revision.", f"See: {self.page(about)}/tree/main")
        if isinstance(error, OfflineModeIsEnabled):
            return SourceError("HF_HUB_OFFLINE is set, so Hugging Face is not asked.", "Unset it: unset HF_HUB_OFFLINE")
        if status is None:
            return self._unreachable(error)
        if status in _WORTH_RETRYING:
            return Transient(f"{where} answered {status}, asked for {about}.", "Try again later.", after=_after(error))
        if status in {401, 403} and self.token is not None:
            return LoginRequired(
                f"{where} does not show {about} to whom the token belongs.", "Check the name, and HF_TOKEN."
            )
        if status in {401, 403, 404}:
            # The hub tells strangers of private repos that there are none, and of none that they are strangers.
            return SourceNotFound(
                f"{where} has no {about}, or it is private.",
                "Check the name. If it is private: export HF_TOKEN=hf_…",
            )
        return SourceError(f"{where} answered {status}, asked for {about}.", "Check the name and HF_ENDPOINT.")

    def gated(self, repo: str) -> LoginRequired:
        """The error for a repo whose terms are to be accepted first."""
        text = f"{repo} is gated or private: its owner wants to know who takes it"
        if self.token is None:
            return LoginRequired(f"{text}.", f"Accept the terms at {self.page(repo)}, then: export HF_TOKEN=hf_…")
        return LoginRequired(
            f"{text}, and has not let the token's owner in.", f"Accept the terms at {self.page(repo)}, then try again."
        )

    def _unreachable(self, error: Exception) -> SourceError:
        where = shown(self.endpoint)
        if type(error).__name__ == "TooManyRedirects":
            return SourceError(f"{where} redirects in a circle.", "Check HF_ENDPOINT.")
        if "Timeout" in type(error).__name__:
            return Transient(f"{where} sent nothing in time.", "Try again later.")
        return Transient(f"{where} cannot be reached.", "Check the network, the proxy and HF_ENDPOINT.")


async def _aside(work: Callable[[], T]) -> T:
    """Run `work`, which raises errors of Corral's only, in a thread that can be left behind."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(outcome: Callable[[], None]) -> None:
        if not done.done():
            outcome()

    def run() -> None:
        outcome: Callable[[], None]
        try:
            outcome = partial(done.set_result, work())
        except CorralError as error:
            outcome = partial(done.set_exception, error)
        with suppress(RuntimeError):  # the loop may have ended meanwhile
            loop.call_soon_threadsafe(settle, outcome)

    # Not asyncio's pool, whose threads are waited for when the program ends: the library sets no time-out for some.
    Thread(target=run, name=_THREAD, daemon=True).start()
    return await done


class _NotOurs(logging.Filter):
    """Lets pass what other users of the library in this process did; what we did is told by our errors."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.threadName != _THREAD


_QUIET: Final = _NotOurs()


def _hush() -> None:
    for name in ("huggingface_hub.utils._http", "huggingface_hub.repocard_data"):
        logging.getLogger(name).addFilter(_QUIET)


def _after(error: Any) -> float | None:
    """Seconds that the hub asked to wait."""
    asked = error.response.headers.get("Retry-After", "")
    return float(asked) if asked.isdecimal() else None


def _token(env: Mapping[str, str]) -> str | None:
    """The login: from the environment, else from where `hf auth login` keeps it.

    Raises:
        ConfigError: it has characters that no token has, and might break a request's head.
    """
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        text = env.get(name, "").strip()
        if text:
            return _checked(text, name)
    path = _token_path(env)
    with suppress(OSError, UnicodeDecodeError):
        return _checked(path.read_text(encoding="utf-8").strip(), str(path)) or None
    return None


def _token_path(env: Mapping[str, str]) -> Path:
    home = Path(env.get("HOME") or Path.home())
    cache = Path(env.get("XDG_CACHE_HOME") or home / ".cache")
    folder = Path(env.get("HF_HOME") or cache / "huggingface")
    path = str(env.get("HF_TOKEN_PATH") or folder / "token")
    return home / path[2:] if path.startswith("~/") else Path(path)


def _checked(token: str, where: str) -> str:
    if not re.fullmatch(r"[!-~]*", token):
        raise ConfigError(f"What {where} holds is no token.", "Make one at https://huggingface.co/settings/tokens")
    return token
