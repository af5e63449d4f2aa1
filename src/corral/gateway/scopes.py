"""What each route takes of a key: one table, and `admin` for whatever is not in it.

Inference takes nothing but a key that may use the model, which the router looks at.
"""

from __future__ import annotations

import re
from functools import lru_cache

from corral.domain.callers import Caller, Scope
from corral.errors import Forbidden

_READ = "GET"
_ANY = ""

_WORKSPACE = ("projects", "contexts", "pipelines", "runs", "artifacts")

TABLE: tuple[tuple[str, str, Scope], ...] = (
    # What a key may know of itself and of its own requests; whose they are is looked at by the route.
    (_READ, "/v1/models", Scope.INFER),
    (_READ, "/v1/models/**", Scope.INFER),
    (_READ, "/v1beta/models", Scope.INFER),
    (_READ, "/v1beta/models/**", Scope.INFER),
    (_READ, "/api/tags", Scope.INFER),
    (_READ, "/api/ps", Scope.INFER),
    (_READ, "/api/version", Scope.INFER),
    ("POST", "/api/show", Scope.INFER),
    ("POST", "/api/pull", Scope.MANAGE),
    ("POST", "/api/create", Scope.MANAGE),
    ("POST", "/api/copy", Scope.MANAGE),
    ("DELETE", "/api/delete", Scope.MANAGE),
    ("POST", "/api/push", Scope.MANAGE),
    (_ANY, "/api/blobs/*", Scope.MANAGE),
    (_READ, "/api/v1/receipts/*", Scope.INFER),
    (_READ, "/api/v1/usage", Scope.INFER),
    (_READ, "/api/v1/usage/**", Scope.INFER),
    (_READ, "/api/v1/keys/self", Scope.INFER),
    # Generating is inference, whichever door it comes through.
    ("POST", "/api/v1/runtime/generate", Scope.INFER),
    # The workspace: a key works within its projects; what cannot be undone, and projects as a whole, are managed.
    ("POST", "/api/v1/*/*/purge", Scope.MANAGE),
    (_READ, "/api/v1/projects/*/export", Scope.MANAGE),
    ("POST", "/api/v1/projects/import", Scope.MANAGE),
    *((_ANY, f"/api/v1/{many}{more}", Scope.INFER) for many in _WORKSPACE for more in ("", "/**")),
    (_READ, "/api/v1/workspace/search", Scope.INFER),
    # Who may do anything with keys and money may do everything.
    (_ANY, "/api/v1/keys", Scope.ADMIN),
    (_ANY, "/api/v1/keys/**", Scope.ADMIN),
    (_ANY, "/api/v1/budgets", Scope.ADMIN),
    (_ANY, "/api/v1/budgets/**", Scope.ADMIN),
    (_ANY, "/api/v1/usage/**", Scope.ADMIN),
    (_ANY, "/api/v1/audit", Scope.ADMIN),
    (_ANY, "/api/v1/settings", Scope.ADMIN),
    (_ANY, "/api/v1/settings/**", Scope.ADMIN),
    ("POST", "/api/v1/runtime/reload", Scope.ADMIN),
    # A registration and an entry of the configuration are the same: they may name any command to run.
    ("POST", "/api/v1/runtime/models/register", Scope.ADMIN),
    (_ANY, "/api/v1/runtime/**", Scope.MANAGE),
    (_ANY, "/api/v1/models", Scope.MANAGE),
    (_ANY, "/api/v1/models/**", Scope.MANAGE),
    (_ANY, "/api/v1/routes", Scope.MANAGE),
    (_ANY, "/api/v1/routes/**", Scope.MANAGE),
    (_ANY, "/api/v1/services", Scope.MANAGE),
    (_ANY, "/api/v1/services/**", Scope.MANAGE),
    # What a container's environment holds, or the configuration says of it, may be a secret.
    (_READ, "/api/v1/containers/export", Scope.ADMIN),
    ("POST", "/api/v1/containers/*/adopt", Scope.ADMIN),
    (_ANY, "/api/v1/containers", Scope.MANAGE),
    (_ANY, "/api/v1/containers/**", Scope.MANAGE),
    (_READ, "/api/v1/doctor", Scope.MANAGE),
    (_READ, "/metrics", Scope.MANAGE),
    (_READ, "/docs", Scope.MANAGE),
    (_READ, "/api/v1/openapi.json", Scope.MANAGE),
)
"""Method (empty: any), path and scope; the first that fits counts. `*` is one segment of a path, `**` one or more."""

_MEANS = {"**": ".+", "*": "[^/]+"}


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", path)
    return re.compile("".join(_MEANS.get(part, re.escape(part)) for part in parts))


_RULES = tuple((method, _pattern(path), scope) for method, path, scope in TABLE)


def listed(method: str, path: str) -> Scope | None:
    """What the table says of a route; None where it says nothing. A HEAD is a GET."""
    method = "GET" if method == "HEAD" else method
    return next((scope for verb, rule, scope in _RULES if verb in (_ANY, method) and rule.fullmatch(path)), None)


def needed(method: str, path: str) -> Scope:
    """The scope that a request takes."""
    return _listed(method, path) or Scope.ADMIN if len(path) <= 200 else listed(method, path) or Scope.ADMIN


_listed = lru_cache(1024)(listed)


def check(caller: Caller, method: str, path: str) -> None:
    """Refuse a request that takes more than the caller may.

    Raises:
        Forbidden: says what the key may be used for, and what it takes.
    """
    if caller.scope is Scope.ADMIN:
        return
    scope = needed(method, path)
    if not caller.may(scope):
        raise Forbidden(
            f"The key {caller.name!r} is for {caller.scope}; this takes {scope}.",
            "Ask whoever runs this server for a key with that scope.",
        )
