"""`/api/v1/usage` and `/api/v1/receipts`: what was used, and what was done for one answer.

A key sees what it did itself. Who may manage sees everybody's.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from corral.domain.callers import Caller, Scope
from corral.domain.ports import Clock
from corral.errors import Forbidden
from corral.gateway.api.pages import Limit, printable, reply
from corral.observability.queries import Question, moment
from corral.observability.usage import Books, missing

_WEEK = "7d"


class Sums(BaseModel):
    """What was used, added up. Tokens; `cost_nano` in nanodollars (10⁻⁹ US dollar), the same in `cost_usd`.

    Of `key`, `project`, `model`, `runtime`, `day` and `hour`, those are there that `by` names.
    """

    key: str | None = None
    key_name: str | None = Field(None, description="What the key is called; null for what is no key, or was deleted")
    project: str | None = None
    model: str | None = None
    runtime: str | None = None
    day: str | None = Field(None, description="2026-11-21, in UTC")
    hour: str | None = Field(None, description="2026-11-21T14:00:00Z")
    requests: int
    errors: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    cost_nano: int
    cost_usd: float
    unpriced: int = Field(description="Answers whose cost nobody knows: it is not in the sum")
    mean_first_ms: float | None = Field(description="To the first byte, of those that had one")
    mean_ms: float | None


class Usage(BaseModel):
    """Sums from the hour or day of `from` up to that of `to`; both as they were counted, in Unix seconds."""

    success: bool = True
    since: float = Field(alias="from")
    until: float = Field(alias="to")
    by: list[str]
    usage: list[Sums]
    count: int
    total: Sums | None = Field(description="All of it; null when there was nothing")


class Attempts(BaseModel):
    """A page of attempts, newest first. `next` is the `before` of the next page; null on the last."""

    success: bool = True
    requests: list[dict[str, Any]]
    count: int
    next: str | None


class OneReceipt(BaseModel):
    """The receipt of one answer; its fields are described in docs/usage.md."""

    success: bool = True
    receipt: dict[str, Any]


_Since = Annotated[
    str, Query(alias="from", description="2026-11-21, 2026-11-21T14:00:00Z, Unix seconds, or 7d for a week ago")
]
_Until = Annotated[str | None, Query(alias="to", description="The same; now when it is left out")]
_Only = Annotated[str | None, Query(description="Only of this one")]


_CSV: dict[int | str, dict[str, Any]] = {200: {"content": {"text/csv": {}}}}


def router(books: Books, clock: Clock) -> APIRouter:
    """The routes, over `books`."""
    routes = APIRouter(prefix="/api/v1", tags=["usage"])

    @routes.get("/usage", response_model=Usage, responses=_CSV)
    async def usage(  # noqa: PLR0913, PLR0917  # the query is the signature
        request: Request,
        since: _Since = _WEEK,
        until: _Until = None,
        by: Annotated[str, Query(description="One or two of key, project, model, runtime, day, hour")] = "model",
        key: _Only = None,
        project: _Only = None,
        model: _Only = None,
        form: Annotated[Literal["json", "csv"], Query(alias="format")] = "json",
    ) -> Response:
        """What was used, added up. Up to 8 days are exact to the hour; more are counted in whole days, in UTC."""
        question = _question(request, clock, since, until, key=key, project=project, model=model)
        asked = replace(question, by=tuple(each for each in by.split(",") if each))
        if form == "csv":
            return _csv(await books.sums(asked), asked.by)
        return reply({"success": True, **await books.report(asked)})

    @routes.get("/usage/requests", response_model=Attempts)
    async def requests(  # noqa: PLR0913, PLR0917  # the query is the signature
        request: Request,
        since: _Since = _WEEK,
        until: _Until = None,
        key: _Only = None,
        project: _Only = None,
        model: _Only = None,
        limit: Limit = 50,
        before: Annotated[str | None, Query(description="`next` of the page before")] = None,
    ) -> Response:
        """Single attempts, newest first, for as long as they are kept. A page may be short, and more follow."""
        question = _question(request, clock, since, until, key=key, project=project, model=model)
        page, after = await books.answers(question, limit, before)
        return reply({"success": True, "requests": page, "count": len(page), "next": after})

    @routes.get("/receipts/{request_id}", response_model=OneReceipt)
    async def receipt(request: Request, request_id: str) -> Response:
        """What was done for one answer, by its `x-request-id`. 404 for another key's."""
        found = await books.receipt(request_id)
        caller = _caller(request)
        if found["key"] != caller.id and not caller.may(Scope.MANAGE):
            raise missing(request_id)  # as if there were none
        return reply({"success": True, "receipt": found})

    return routes


def _caller(request: Request) -> Caller:
    """Who asks, as the gate has found."""
    caller: Caller = request.scope["corral.caller"]
    return caller


def _question(request: Request, clock: Clock, since: str, until: str | None, **only: str | None) -> Question:
    """What is asked for, as far as the caller may see it.

    Raises:
        Forbidden: it is another key's usage.
    """
    for name, value in only.items():
        printable(value or "", name)
    caller = _caller(request)
    if not caller.may(Scope.MANAGE):
        if only["key"] not in (None, caller.id):
            raise Forbidden(
                f"The key {caller.name!r} sees its own usage only.", "Ask with a key whose scope is manage."
            )
        only["key"] = caller.id
    now = clock.wall()
    asked = Question(moment(since, now), now if until is None else moment(until, now))
    return replace(asked, **only)  # type: ignore[arg-type]  # key, project and model are texts


def _csv(found: Sequence[dict[str, Any]], by: Sequence[str]) -> Response:
    """The rows for a spreadsheet: in a cell that begins as a formula does, an apostrophe goes first."""
    text = io.StringIO()
    names = list(found[0]) if found else list(by)
    writer = csv.writer(text)
    writer.writerow(names)
    writer.writerows([_cell(row[name]) for name in names] for row in found)
    headers = {"content-disposition": 'attachment; filename="usage.csv"'}
    return Response(text.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
