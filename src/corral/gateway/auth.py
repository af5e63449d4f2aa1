"""Who may ask: one function reads every header style, and one gate decides, for every route.

Three questions, in this order. Is the request meant for this server (`Host`: a web page whose name was pointed at
127.0.0.1 must not reach us)? Does it come from a page of another site (`Origin`: a form on any page can post to
127.0.0.1 without asking)? And whose key does it carry, where one is needed?

A key may come in several headers. Of two in one request the first of `Authorization: Bearer`, `x-api-key`, `api-key`,
`x-goog-api-key` counts, whatever their order; two different ones of one name are no key at all.

A WebSocket is asked the same. A page cannot give it headers, only names of protocols it would speak; so it offers
`corral` and, where there is a key, `key.KEY` beside it, or `key64.` and the key in base64url when the key has
characters that such a name may not have. We answer with `corral` alone, so that the key is not repeated.

Clients of Gemini, and WebSockets, may put the key into the query; it counts when nothing else brought one. Whoever
shows an address shows it through `redacted`.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes, urlsplit

from corral.domain.callers import LOCAL, SERVER, Caller, Scope
from corral.errors import Forbidden, HostRefused, InvalidRequest, Unauthorized, UnsafeBind
from corral.routing.keys import PREFIX, PROJECT, Keys

if TYPE_CHECKING:
    from corral.config import Settings

Headers = Iterable[tuple[bytes, bytes]]

SUBPROTOCOL = "corral"
"""What a page offers as its WebSocket's protocol, beside its key."""
QUERY_KEYS = (b"key", b"api_key")
"""What a key is called in a query."""

_RANKS = {b"authorization": 4, b"x-api-key": 3, b"api-key": 2, b"x-goog-api-key": 1}
_NOTED = {b"content-length": "length", b"origin": "origin", b"anthropic-beta": "betas"}
"""Headers that are noted as they are, and the names for it."""
_NO_KEY = b"?"
"""It is nobody's, and not the same as none."""
_REMEMBERED = 1024
_MOST_PROJECTS = 100
"""Projects that a key without a list of them may name, for as long as the server runs."""

NOBODY = Caller("nobody", "nobody in particular", models=("",))
"""Who asks on a public route, where nobody's key is looked at."""


class Head:
    """What the gateway reads of a request's headers, in one pass.

    `length` is the declared size of the body in bytes, `project` what `x-corral-project` says, `betas` what
    `anthropic-beta` does, and `strict` whether `x-corral-strict` asks that nothing be less than asked for.
    """

    __slots__ = ("betas", "host", "key", "length", "origin", "project", "strict")

    def __init__(self, headers: Headers) -> None:
        self.host: bytes | None = None
        self.origin: bytes | None = None
        self.key: bytes | None = None
        self.length: bytes | None = None
        self.project: bytes | None = None
        self.strict = False
        self.betas = b""
        best = 0
        for name, value in headers:
            if name == b"host":
                # Of two, someone before us may have believed the other: what is asked for is then nobody's to say.
                self.host = value if self.host is None else b""
            elif name in _NOTED:
                setattr(self, _NOTED[name], value)
            elif name == b"x-corral-project":
                self.project = value if self.project is None else b""
            elif name == b"x-corral-strict":
                self.strict = value.strip().lower() in (b"true", b"1", b"yes")
            elif name in _RANKS:
                key = _key_in(name, value)
                rank = _RANKS[name]
                if key and rank > best:
                    self.key, best = key, rank
                elif key and rank == best and key != self.key:
                    self.key = _NO_KEY


def _key_in(name: bytes, value: bytes) -> bytes:
    """The key in a header's value; empty where there is none."""
    if name != b"authorization":
        return value.strip()
    scheme, _, token = value.partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def offered(head: Head, subprotocols: Sequence[str]) -> Head:
    """`head` with the key that is offered among a WebSocket's protocols, unless a header has brought one."""
    for name in subprotocols:
        kind, _, value = name.partition(".")
        if head.key is None and kind == "key" and value:
            head.key = value.encode()
        elif head.key is None and kind == "key64":
            try:
                head.key = base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)
            except (binascii.Error, ValueError):
                head.key = _NO_KEY
    return head


def queried(head: Head, query: bytes) -> Head:
    """`head` with the key of a query (`?key=`, `?api_key=`), unless the request has brought one otherwise.

    Only for Gemini's routes and WebSockets: elsewhere a key does not belong into an address.
    """
    if query and head.key is None:
        for name, value in _pairs(query):
            if name in QUERY_KEYS and value:
                head.key = value if head.key in (None, value) else _NO_KEY
    return head


def redacted(query: bytes) -> str:
    """A query as it may be shown and logged: ASCII, without the key, however its name was spelt."""
    shown = [part.partition(b"=")[0] + b"=***" if _secret(part) else part for part in query.split(b"&")]
    return b"&".join(shown).decode("ascii", "backslashreplace")


def _pairs(query: bytes) -> Iterable[tuple[bytes, bytes]]:
    for part in query.split(b"&"):
        name, _, value = part.partition(b"=")
        yield _plain(name), unquote_to_bytes(value)


def _secret(part: bytes) -> bool:
    name = _plain(part.partition(b"=")[0])
    return b"key" in name or b"token" in name


def _plain(name: bytes) -> bytes:
    return unquote_to_bytes(name).lower()


class Gate:
    """Decides whether a request may come in, and says who asks.

    A key is needed where CORRAL_API_KEY is set, where there is a key in `keys`, valid or not, where `auth.required`
    says so, and where others than this machine can reach the server. Nothing that is not a key ever becomes LOCAL
    there.

    Args:
        settings: `server.host`, `server.allowed_hosts`, `auth.required` and the server's own key.
        keys: the keys of clients; None is none.
        token: what the terminal of this home sends in place of a key.
    """

    def __init__(self, settings: Settings, keys: Keys | None = None, token: str = "") -> None:
        self._key = settings.api_key.encode() if settings.api_key else None
        self._token = token.encode()
        self._keys = keys
        host = settings.server.host.lower()
        self._closed = self._key is not None or settings.auth.required == "always" or not _means_loopback(host)
        self._names = {"localhost", host, *(name.lower() for name in settings.server.allowed_hosts)}
        self._known: set[bytes] = set()
        self._projects: dict[tuple[Caller, bytes], Caller] = {}
        self._named: dict[str, set[str]] = {}

    @property
    def closed(self) -> bool:
        """Whether a key is needed now."""
        return self._closed or (self._keys is not None and self._keys.exist)

    def admit(self, head: Head, *, public: bool = False) -> Caller:
        """Let the request in and say who asks, or raise. A `public` route needs no key, and nobody asks there.

        A key that another process made a moment ago is not known yet: `admit_anew` looks for it.

        Raises:
            InvalidRequest: there is no Host header, or more than one; the project's name cannot be one.
            HostRefused: the Host or Origin is not ours.
            Unauthorized: the key is missing or wrong.
            Forbidden: the key is not for that project.
            DatabaseError: the keys could not be read since the server started.
        """
        host = head.host
        if not host:
            raise InvalidRequest("The request must have one Host header.")
        if host not in self._known:
            self._check_host(host)
        if head.origin is not None and not self._same_site(head.origin, host):
            raise HostRefused(
                f"Pages of {_show(head.origin)} may not use this server.",
                "Add the page's host name to server.allowed_hosts if you trust it.",
            )
        if public:
            return NOBODY
        caller = self._whose(head.key)
        return caller if head.project is None else self._within(caller, head.project)

    async def admit_anew(self, head: Head) -> Caller:
        """As `admit`, after a look for keys that were made since; to be called when that raised Unauthorized.

        Many wrong keys cause a look each quarter of a second at most.
        """
        if self._keys is not None and head.key is not None and head.key.startswith(PREFIX):
            await self._keys.look_again()
        return self.admit(head)

    def _whose(self, key: bytes | None) -> Caller:
        keys = self._keys
        if key:
            ours = key.startswith(PREFIX)
            if ours and keys is not None:
                caller = keys.find(key)
                if caller is not None:
                    return caller
            if self._key is not None and hmac.compare_digest(key, self._key):
                return SERVER
            if self._token and hmac.compare_digest(key, self._token):
                return LOCAL
            # Whoever sends one of our keys relies on being told from others: it is wrong even where none is needed.
            if ours or self.closed:
                why = keys.why(key) if keys is not None else "The key is not valid."
                raise Unauthorized(why, "Send it as `Authorization: Bearer KEY` or `x-api-key: KEY`.")
        if keys is not None and keys.problem is not None:
            raise keys.problem
        if self.closed:
            raise Unauthorized(
                "This server needs a key.", "Send it as `Authorization: Bearer KEY` or `x-api-key: KEY`."
            )
        return LOCAL

    def _within(self, caller: Caller, project: bytes) -> Caller:
        """`caller`, asking for another of its projects. The same object each time, as long as the key stays."""
        found = self._projects.get((caller, project))
        if found is not None:
            return found
        name = project.decode("latin-1")
        if not PROJECT.fullmatch(name):
            raise InvalidRequest(
                "x-corral-project is no name of a project.",
                "Letters, digits, `.`, `_` and `-`, at most 100 of them, beginning with a letter or digit.",
                param="x-corral-project",
            )
        if caller.projects and name not in caller.projects:
            raise Forbidden(
                f"The key {caller.name!r} is not for the project {name!r}.",
                f"It is for: {', '.join(caller.projects)}.",
                param="x-corral-project",
            )
        if not caller.projects and not caller.may(Scope.MANAGE):
            # Each name is a row of every hour: those that a key makes up must have an end.
            named = self._named.setdefault(caller.id, set())
            if name not in named and len(named) >= _MOST_PROJECTS:
                raise Forbidden(
                    f"The key {caller.name!r} has named {_MOST_PROJECTS} projects already.",
                    "Give it a list of its projects: corral keys create NAME --project PROJECT",
                    param="x-corral-project",
                )
            named.add(name)
        found = caller if name == caller.project else replace(caller, project=name)
        if len(self._projects) >= _REMEMBERED:
            self._projects.clear()
        self._projects[caller, project] = found
        return found

    def _check_host(self, host: bytes) -> None:
        if not self._trusted(_host_name(host)):
            raise HostRefused(
                f"This server does not answer to the host name {_show(host)}.",
                "Add it to server.allowed_hosts (CORRAL_SERVER_ALLOWED_HOSTS) if it is yours.",
            )
        # Bounded: numeric addresses are always trusted, so a client could otherwise fill the set with them.
        if len(self._known) < 64:
            self._known.add(host)

    def _trusted(self, name: str) -> bool:
        """A name that can only mean this machine, or that the configuration lists. An address cannot be rebound."""
        if name in self._names or name.endswith(".localhost"):
            return True
        try:
            ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True

    def _same_site(self, origin: bytes, host: bytes) -> bool:
        text = origin.decode("latin-1")
        if text.partition("://")[2] == host.decode("latin-1"):
            return True
        try:
            parts = urlsplit(text)
            name = parts.hostname or ""
        except ValueError:  # such as an unclosed bracket
            return False
        if parts.scheme in ("http", "https"):
            return name in self._names or name.endswith(".localhost") or _is_loopback(name)
        # Desktop programs (app://, vscode-webview://) come with a scheme of their own; a web page cannot. `null` is
        # any page.
        return text != "null" and "://" in text


def check_exposure(address: str, settings: Settings, keys: Keys | None) -> None:
    """Refuse to listen on an address that others can reach, unless a key is needed there.

    Args:
        address: the numeric address of the listening socket.
        settings: with the server's own key, if any.
        keys: the keys of clients, read.

    Raises:
        UnsafeBind: it is not loopback, and there is no key with which anybody could ask.
    """
    if _is_loopback(address.partition("%")[0]) or settings.api_key or (keys is not None and keys.live):
        return
    raise UnsafeBind(
        f"Listening on {settings.server.host} would let anyone who reaches this machine use it.",
        "Set a key in the environment first: export CORRAL_API_KEY=…, or make one: corral keys create NAME",
    )


def _means_loopback(host: str) -> bool:
    """Whether `server.host` can only be this machine. Any other name is taken for one that others reach."""
    return host == "localhost" or host.endswith(".localhost") or _is_loopback(host.strip("[]"))


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _host_name(host: bytes) -> str:
    text = host.decode("latin-1").lower()
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    return text.partition(":")[0].rstrip(".")


def _show(value: bytes) -> str:
    return repr(value[:100].decode("latin-1"))
