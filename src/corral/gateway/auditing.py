"""Writes down what is managed over HTTP: each request below `/api/v1` that changed something, once it is answered."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from corral.domain.callers import LOCAL
from corral.errors import CorralError
from corral.gateway.auth import redacted
from corral.routing.audit import Actor

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from corral.routing.audit import Audit

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_FOR_THEMSELVES = ("/api/v1/keys", "/api/v1/budgets")
"""What stands in the log together with the change itself, in one transaction."""
_NO_CHANGE = frozenset(
    {
        "/api/v1/runtime/generate",
        "/api/v1/runtime/route",
        "/api/v1/containers/import",
        "/api/v1/pipelines/validate",
    }
)
"""What is asked by POST, and changes nothing."""

_log = logging.getLogger("corral.server")


async def note(audit: Audit, scope: MutableMapping[str, Any], status: int) -> None:
    """Write down the request of `scope`, when it changed something. What cannot be written is logged."""
    path: str = scope["path"]
    if scope["method"] in _READING or status >= 400 or path.startswith(_FOR_THEMSELVES) or path in _NO_CHANGE:
        return
    query = redacted(scope["query_string"])
    target = f"{path}?{query}" if query else path
    pattern = getattr(scope.get("route"), "path", path)
    actor = Actor(scope.get("corral.caller", LOCAL).id, scope.get("corral.request_id"))
    try:
        await audit.record(actor, f"{scope['method']} {pattern}"[:80], target)
    except CorralError as error:
        _log.error("not in the audit log: %s %s by %s: %s", scope["method"], path, actor.id, error)
