"""`/api/v1/keys`: keys of clients; and `/api/v1/audit`: what was managed, and by whom."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from corral.app import Corral
from corral.domain.callers import LOCAL, Caller, Scope
from corral.domain.keys import Key, KeyState, KeyWish, describe
from corral.errors import KeyNotFound
from corral.gateway.api.pages import Limit, reply
from corral.routing import audit
from corral.routing.audit import Actor
from corral.routing.keys import GRACE


class ClientKey(BaseModel):
    """A key, without the key itself, which nothing can show again. Unix seconds; what does not apply is null."""

    id: str
    state: KeyState
    shown: str = Field(description="Its first characters")
    name: str
    scope: Scope
    models: list[str] = Field(description="Patterns of the models it may use; none: all")
    projects: list[str] = Field(description="Projects it may name, the first by default; none: any")
    requests: int | None = Field(description="Most in a minute")
    tokens: int | None = Field(description="Most in a minute")
    parallel: int | None = Field(description="Most requests at a time")
    strict: bool = Field(description="Nothing may be silently less than what was asked")
    expires_at: float | None
    created_at: float
    rotated_at: float | None
    previous_until: float | None = Field(description="Until when the key it was rotated from still counts")
    revoked_at: float | None
    used_at: float | None = Field(description="When it was last used, to some seconds")


class OneKey(BaseModel):
    """Answer about one key."""

    success: bool = True
    key: ClientKey


class NewKey(OneKey):
    """A key that was made, and the only time that it is shown."""

    secret: str


class ManyKeys(BaseModel):
    """Every key, oldest first."""

    success: bool = True
    keys: list[ClientKey]
    count: int


class AuditEntry(BaseModel):
    """Something that was done. `actor` is a caller's id, or `terminal`."""

    number: int
    at: float
    actor: str
    action: str
    target: str
    detail: dict[str, Any]
    request_id: str | None


class ManyEntries(BaseModel):
    """A page of the audit log, newest first. `next` is the `before` of the next page; null on the last."""

    success: bool = True
    entries: list[AuditEntry]
    count: int
    next: int | None


class KeyChange(BaseModel):
    """What a key is to be; what is left out stays, or is free for a new one. Null takes a limit away."""

    model_config = ConfigDict(extra="forbid")

    name: str = ""
    scope: Scope = Scope.INFER
    models: list[str] = []
    projects: list[str] = []
    requests: int | None = None
    tokens: int | None = None
    parallel: int | None = None
    strict: bool = False
    expires_at: float | None = Field(None, description="Unix seconds")

    def changes(self) -> dict[str, Any]:
        """What was given, as fields of a `KeyWish`."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


class KeyRequest(KeyChange):
    """A new key."""

    name: str


class Rotation(BaseModel):
    """How a key is rotated."""

    grace: float = Field(GRACE, description="Seconds for which the old one still counts")


def actor(request: Request) -> Actor:
    """Who asks, for the audit log."""
    caller: Caller = request.scope.get("corral.caller", LOCAL)
    return Actor(caller.id, request.scope.get("corral.request_id"))


def router(corral: Corral) -> APIRouter:
    """The routes, over the keys of `corral`."""
    routes = APIRouter(prefix="/api/v1/keys", tags=["keys"])
    keys = corral.keys

    @routes.get("", response_model=ManyKeys)
    async def list_keys() -> Response:
        """Every key, revoked and expired ones too."""
        now = corral.clock.wall()
        found = [describe(key, now) for key in await keys.all()]
        return reply({"success": True, "keys": found, "count": len(found)})

    @routes.get("/self", response_model=OneKey)
    async def own_key(request: Request) -> Response:
        """The key that this request comes with."""
        caller: Caller = request.scope.get("corral.caller", LOCAL)
        if not caller.id.startswith("key-"):
            raise KeyNotFound(f"You ask as {caller.name}, which is no client's key.", "See them: GET /api/v1/keys")
        return _one(corral, await keys.get(caller.id))

    @routes.get("/{key}", response_model=OneKey)
    async def one_key(key: str) -> Response:
        """One key, by its id or name."""
        return _one(corral, await keys.get(key))

    _changing(routes, corral)
    return routes


def _changing(routes: APIRouter, corral: Corral) -> None:
    keys = corral.keys

    @routes.post("", response_model=NewKey, status_code=201)
    async def create_key(request: Request, wanted: KeyRequest) -> Response:
        """Make a key. Its `secret` is in this answer and never again."""
        return _new(corral, await keys.create(KeyWish(**wanted.changes()), actor(request)), 201)

    @routes.patch("/{key}", response_model=OneKey)
    async def change_key(request: Request, key: str, wanted: KeyChange) -> Response:
        """Change what a key may do. It holds for the next request."""
        return _one(corral, await keys.change(key, wanted.changes(), actor(request)))

    @routes.post("/{key}/rotate", response_model=NewKey)
    async def rotate_key(request: Request, key: str, wanted: Rotation | None = None) -> Response:
        """Make another secret for a key; the old one counts for a grace period. Budgets and limits stay."""
        grace = GRACE if wanted is None else wanted.grace
        return _new(corral, await keys.rotate(key, actor(request), grace), 200)

    @routes.post("/{key}/revoke", response_model=OneKey)
    async def revoke_key(request: Request, key: str) -> Response:
        """Let a key open nothing any more; it stays in the list."""
        return _one(corral, await keys.revoke(key, actor(request)))

    @routes.delete("/{key}", response_model=OneKey)
    async def delete_key(request: Request, key: str) -> Response:
        """Forget a key; what it used stays in the books."""
        return _one(corral, await keys.delete(key, actor(request)))


def _one(corral: Corral, key: Key) -> Response:
    return reply({"success": True, "key": describe(key, corral.clock.wall())})


def _new(corral: Corral, made: tuple[Key, str], status: int) -> Response:
    content = {"success": True, "key": describe(made[0], corral.clock.wall()), "secret": made[1]}
    return reply(content, status, {"cache-control": "no-store"})


def audited(corral: Corral) -> APIRouter:
    """The route of the audit log."""
    routes = APIRouter(prefix="/api/v1/audit", tags=["audit"])

    @routes.get("", response_model=ManyEntries)
    async def list_audit(
        limit: Limit = 50, before: Annotated[int | None, Query(description="`next` of the page before")] = None
    ) -> Response:
        """What was managed, newest first, for as long as `usage.keep` says."""
        found = await corral.audit.page(limit + 1, before)
        page = [audit.describe(entry) for entry in found[:limit]]
        after = page[-1]["number"] if len(found) > limit else None
        return reply({"success": True, "entries": page, "count": len(page), "next": after})

    return routes
