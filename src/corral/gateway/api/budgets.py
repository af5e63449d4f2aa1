"""`/api/v1/budgets`: what keys, projects and all together may spend."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Body, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from corral.app import Corral
from corral.gateway.api.keys import actor
from corral.gateway.api.pages import reply
from corral.routing.book import Budget
from corral.routing.budgets import Budgets, Status, amount_of, describe

Unit = Literal["usd", "tokens", "requests"]
Period = Literal["day", "week", "month", "total"]


class BudgetState(BaseModel):
    """A budget in its present period. US dollars where `unit` is `usd`, else whole numbers; times in Unix seconds."""

    budget_id: str
    name: str
    subject: Literal["key", "project", "all"]
    who: str | None = Field(description="The key's id or the project's name")
    unit: Unit
    period: Period = Field(description="In UTC; weeks begin on Monday")
    amount: float
    current: str = Field(description="The present period, such as 2026-11")
    spent: float
    leased: float = Field(description="Reserved by answers under way, or set aside for servers to spend")
    left: float
    abandoned: float = Field(description="The part of spent of which a killed process left open whether it was")
    renews_at: float | None
    created_at: float


class OneBudget(BaseModel):
    """Answer about one budget."""

    success: bool = True
    budget: BudgetState


class ManyBudgets(BaseModel):
    """The budgets, by name."""

    success: bool = True
    budgets: list[BudgetState]
    count: int


class NewBudget(BaseModel):
    """A budget to be made: of a key, by id or name, of a project, or of all."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=100)
    amount: float = Field(ge=0, allow_inf_nan=False)
    unit: Unit = "usd"
    period: Period = "month"
    subject: Literal["key", "project", "all"] = "all"
    who: str = Field("", max_length=200)


class BudgetChange(BaseModel):
    """What is to be different; what is spent stays."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(None, max_length=100)
    amount: float | None = Field(None, ge=0, allow_inf_nan=False)


def router(corral: Corral) -> APIRouter:
    """The routes, over the database of `corral`; its ledger knows of each change at once."""
    routes = APIRouter(prefix="/api/v1/budgets", tags=["budgets"])
    budgets = Budgets(corral.database, corral.clock)

    def one(status: Status, code: int = 200) -> Response:
        return reply({"success": True, "budget": describe(status)}, code)

    @routes.get("", response_model=ManyBudgets)
    async def list_budgets() -> Response:
        """Every budget, and what is gone of it in its present period; from now on the server goes by these."""
        await corral.traffic.ledger.refresh()
        found = [describe(status) for status in await budgets.standing()]
        return reply({"success": True, "budgets": found, "count": len(found)})

    @routes.post("", response_model=OneBudget, status_code=201)
    async def create(request: Request, given: Annotated[NewBudget, Body()]) -> Response:
        """Make a budget. 409 when there is one of that name."""
        wanted = Budget(
            "", given.name, given.subject, given.who, given.unit, given.period, amount_of(given.unit, given.amount)
        )
        made = await budgets.create(wanted, actor(request))
        await corral.traffic.ledger.refresh()
        return one(made, 201)

    @routes.get("/{name}", response_model=OneBudget)
    async def one_budget(name: str) -> Response:
        """The budget with that name or id."""
        return one(await budgets.get(name))

    @routes.patch("/{name}", response_model=OneBudget)
    async def change(request: Request, name: str, given: Annotated[BudgetChange, Body()]) -> Response:
        """Change its amount or name."""
        before = (await budgets.get(name)).budget
        amount = None if given.amount is None else amount_of(before.unit, given.amount)
        changed = await budgets.change(before.id, amount=amount, rename=given.name, actor=actor(request))
        await corral.traffic.ledger.refresh()
        return one(changed)

    @routes.delete("/{name}", response_model=OneBudget)
    async def remove(request: Request, name: str) -> Response:
        """Remove it, and what is written down of it; the answer is how it stood."""
        found = await budgets.get(name)
        await budgets.remove(found.budget.id, actor(request))
        await corral.traffic.ledger.refresh()
        return one(found)

    return routes
