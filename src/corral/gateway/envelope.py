"""An error as the management API, and everything that is no dialect, writes it."""

from __future__ import annotations

from math import ceil

from corral.errors import CorralError, MethodNotAllowed, Unauthorized


def envelope(error: CorralError) -> dict[str, object]:
    """What is said of `error`: the one shape, everywhere."""
    return {"success": False, "error": {"code": error.code, "message": error.message, "hint": error.hint}}


def crash() -> CorralError:
    """What a client is told of a failure of ours that nothing foresaw."""
    return CorralError("Corral failed while it answered this request.", "The server's log says more.")


def beside(error: CorralError) -> list[tuple[bytes, bytes]]:
    """The headers that an answer with this error needs beside its body."""
    headers = []
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allowed).encode()))
    if isinstance(error, Unauthorized):
        headers.append((b"www-authenticate", b"Bearer"))
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % ceil(error.retry_after)))
    return headers
