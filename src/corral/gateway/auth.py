"""Who may ask: one function reads every header style, and one gate decides, for every route.

Three questions, in this order. Is the request meant for this server (`Host`: a web page whose name was pointed at
127.0.0.1 must not reach us)? Does it come from a page of another site (`Origin`: a form on any page can post to
127.0.0.1 without asking)? And does it carry the server's key, where there is one?

A WebSocket is asked the same. A page cannot give it headers, only names of protocols it would speak; so it offers
`corral` and, where there is a key, `key.KEY` beside it, or `key64.` and the key in base64url when the key has
characters that such a name may not have. We answer with `corral` alone, so that the key is not repeated.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from corral.errors import HostRefused, InvalidRequest, Unauthorized

if TYPE_CHECKING:
    from corral.config import Settings

Headers = Iterable[tuple[bytes, bytes]]

SUBPROTOCOL = "corral"
"""What a page offers as its WebSocket's protocol, beside its key."""


class Head:
    """What the gateway reads of a request's headers, in one pass.

    `length` is the declared size of the body in bytes.
    """

    __slots__ = ("host", "key", "length", "origin")

    def __init__(self, headers: Headers) -> None:
        self.host: bytes | None = None
        self.origin: bytes | None = None
        self.key: bytes | None = None
        self.length: bytes | None = None
        for name, value in headers:
            if name == b"host":
                # Of two, someone before us may have believed the other: what is asked for is then nobody's to say.
                self.host = value if self.host is None else b""
            elif name == b"content-length":
                self.length = value
            elif name == b"authorization":
                scheme, _, token = value.partition(b" ")
                if scheme.lower() == b"bearer":
                    self.key = token.strip()
            elif name in (b"x-api-key", b"api-key", b"x-goog-api-key"):
                self.key = self.key or value.strip()
            elif name == b"origin":
                self.origin = value


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
                head.key = b"?"  # it is no key, and not the same as none
    return head


class Gate:
    """Decides whether a request may come in.

    Args:
        settings: `server.host`, `server.allowed_hosts` and the key.
    """

    def __init__(self, settings: Settings) -> None:
        self._key = settings.api_key.encode() if settings.api_key else None
        self._names = {
            "localhost",
            settings.server.host.lower(),
            *(name.lower() for name in settings.server.allowed_hosts),
        }
        self._known: set[bytes] = set()

    def admit(self, head: Head, *, public: bool = False) -> None:
        """Let the request in, or raise. A `public` route needs no key.

        Raises:
            InvalidRequest: there is no Host header, or more than one.
            HostRefused: the Host or Origin is not ours.
            Unauthorized: the key is missing or wrong.
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
        if self._key is not None and not public and not hmac.compare_digest(head.key or b"", self._key):
            problem = "The key is not valid." if head.key else "This server needs a key."
            raise Unauthorized(problem, "Send it as `Authorization: Bearer KEY` or `x-api-key: KEY`.")

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
