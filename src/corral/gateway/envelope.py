"""An error as the management API, and everything that is no dialect, writes it."""

from __future__ import annotations

from corral.errors import CorralError


def envelope(error: CorralError) -> dict[str, object]:
    """What is said of `error`: the one shape, everywhere."""
    return {"success": False, "error": {"code": error.code, "message": error.message, "hint": error.hint}}


def crash() -> CorralError:
    """What a client is told of a failure of ours that nothing foresaw."""
    return CorralError("Corral failed while it answered this request.", "The server's log says more.")
