"""`POST /api/v1/runtime/route`: where a request would go, told without sending it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, Response
from pydantic import BaseModel, Field

from corral.app import Corral
from corral.domain.callers import LOCAL
from corral.gateway.api.pages import reply
from corral.gateway.forecast import forecast, order_of


class Asked(BaseModel):
    """A candidate that would be asked; candidates are asked in the order of the list. Unknown is null."""

    model: str
    reason: str = Field(description="Why it stands where it does")
    weight: float
    limit: int | None
    fallback: bool = Field(description="It stands in for the model that was asked for")
    local: bool
    ready: bool = Field(description="It answers at once")
    context: int | None
    in_flight: int
    first_byte_seconds: float | None
    price: str | None = Field(description="Where its price is from")
    cost: float | None = Field(description="US dollars for the prompt and the longest answer")
    worst: float | None = Field(description="US dollars that a budget must have left")
    memory: dict[str, Any] | None = Field(description="Of a local model that is not in memory: what would happen there")


class NotAsked(BaseModel):
    """A candidate that would not be asked; `code` is of an error."""

    model: str
    code: str
    reason: str
    retry_after: float | None


class Forecast(BaseModel):
    """What would become of a request. `means` is the model or route that its name leads to."""

    model: str
    means: str
    policy: str
    needs: list[str]
    prompt_tokens: int | None = Field(description="An estimate")
    max_tokens: int | None
    retries: int
    hedge: float | None
    sticky: bool
    candidates: list[Asked]
    dropped: list[NotAsked]
    error: dict[str, Any] | None = Field(description="What it would be answered with where there are no candidates")


class Planned(BaseModel):
    """A plan."""

    success: bool = True
    plan: Forecast


def router(corral: Corral) -> APIRouter:
    """The routes, over `corral`."""
    routes = APIRouter(prefix="/api/v1/runtime", tags=["runtime"])

    @routes.post("/route", response_model=Planned)
    async def plan_request(
        request: Request,
        document: Annotated[dict[str, Any], Body(description="The body of the request, as a client sends it")],
        dialect: Annotated[
            str, Query(description="`openai`, `anthropic`, `gemini`, `ollama`, or a form such as `openai.embeddings`")
        ] = "openai",
        model: Annotated[str | None, Query(description="The name asked for, where the body does not say it")] = None,
        strict: Annotated[bool, Query(description="As the header `x-corral-strict`")] = False,
    ) -> Response:
        """Where a request would go, and why; nothing is sent, loaded or reserved."""
        caller = request.scope.get("corral.caller", LOCAL)
        order = order_of(document, dialect, model, strict=strict, caller=caller)
        return reply({"success": True, "plan": await forecast(corral, order)})

    return routes
