"""What each route takes of a key: every route stands in the table, and what does not is for admins."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from corral.app import Corral
from corral.config import load
from corral.domain.callers import LOCAL, Caller, Scope
from corral.errors import Forbidden
from corral.gateway import scopes
from corral.gateway.api.application import create
from corral.gateway.application import Gateway

WORKSPACE = tuple(f"/api/v1/{many}" for many in ("projects", "contexts", "pipelines", "runs", "artifacts"))
PUBLIC = {"/", "/health", "/healthz", "/readyz", "/version"}


@pytest.fixture
async def corral(tmp_path: Path):
    built = Corral(load({"HOME": str(tmp_path)}, cwd=tmp_path), env={})
    yield built
    await built.close()


def filled(path: str) -> str:
    """A path that a client could ask for."""
    return re.sub(r"\{[^}]*\}", "some-name", path)


async def test_every_route_of_the_management_stands_in_the_table(corral: Corral) -> None:
    described = (await asyncio.to_thread(create(corral).openapi))["paths"]
    routes = [(verb.upper(), path) for path, verbs in described.items() for verb in verbs]

    assert len(routes) > 40
    assert [route for route in routes if scopes.listed(route[0], filled(route[1])) is None] == []
    inside = [route for route in routes if route[1].startswith(WORKSPACE)]
    managed = {route for route in inside if scopes.needed(route[0], filled(route[1])) is not Scope.INFER}
    assert len(inside) > 60
    assert {(method, path) for method, path in managed if not path.endswith("/purge")} == {
        ("GET", "/api/v1/projects/{id}/export"),
        ("POST", "/api/v1/projects/import"),
    }
    assert len(managed) == 2 + len(WORKSPACE)
    changing = [route for route in routes if route[0] != "GET" and route not in inside]
    open_to_all = [route for route in changing if scopes.needed(route[0], filled(route[1])) is Scope.INFER]
    assert open_to_all == [("POST", "/api/v1/runtime/generate")]


async def test_every_other_page_is_public_or_in_the_table(corral: Corral) -> None:
    gateway = Gateway(corral)
    pages = [path for method, path in gateway.routes if method == "GET" and path not in PUBLIC]

    assert [page for page in pages if scopes.listed("GET", filled(page)) is None] == []
    assert [socket for socket in gateway.sockets if scopes.listed("GET", filled(socket)) is None] == []


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/api/v1/receipts/req-1", Scope.INFER),
        ("HEAD", "/v1/models", Scope.INFER),
        ("GET", "/api/v1/keys/self", Scope.INFER),
        ("GET", "/api/v1/keys/selfish", Scope.ADMIN),
        ("DELETE", "/api/v1/keys/self", Scope.ADMIN),
        ("GET", "/api/v1/runtime/models", Scope.MANAGE),
        ("POST", "/api/v1/runtime/models/load", Scope.MANAGE),
        ("POST", "/api/v1/runtime/models/register", Scope.ADMIN),
        ("DELETE", "/api/v1/models/registry/a/b", Scope.MANAGE),
        ("POST", "/api/v1/keys", Scope.ADMIN),
        ("GET", "/api/v1/audit", Scope.ADMIN),
        ("GET", "/metrics", Scope.MANAGE),
        ("GET", "/api/v1/nothing/of/the/kind", Scope.ADMIN),
        ("GET", "/api/v1/receipts", Scope.ADMIN),
        ("GET", "/api/v1/projects", Scope.INFER),
        ("POST", "/api/v1/artifacts/art-1/purge", Scope.MANAGE),
        ("GET", "/api/v1/artifacts/art-1/export", Scope.INFER),
        ("GET", "/api/v1/projects/web/export", Scope.MANAGE),
        ("GET", "/api/v1/runs/run-1/ws", Scope.INFER),
        ("POST", "/api/v1/workspace/search", Scope.ADMIN),
        ("GET", "/api/v1/modelsque", Scope.ADMIN),
        ("GET", "/api/v1/usage/" + "x" * 500, Scope.INFER),
    ],
)
def test_what_is_needed(method: str, path: str, scope: Scope) -> None:
    assert scopes.needed(method, path) is scope


def test_a_refusal_says_what_the_key_is_for() -> None:
    manager = Caller("key-1", "ci", Scope.MANAGE)

    scopes.check(manager, "POST", "/api/v1/models/gc")
    scopes.check(LOCAL, "POST", "/api/v1/keys")
    with pytest.raises(Forbidden, match=r"'ci' is for manage; this takes admin"):
        scopes.check(manager, "POST", "/api/v1/keys")
    with pytest.raises(Forbidden):
        scopes.check(Caller("key-2", "chat"), "GET", "/api/v1/runtime/models")
