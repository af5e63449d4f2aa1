"""`/api/v1/doctor`: what works on the server's machine, what does not, and the command that mends it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from corral.app import Corral
from corral.app.checkup import Verdict, examine
from corral.gateway.api.pages import reply


class CheckShape(BaseModel):
    """One thing looked at."""

    name: str
    verdict: Verdict
    detail: str = Field(description="What was found; never a secret")
    fix: str = Field(description="What to type; empty where there is nothing to mend")
    why: str = Field(description="What it is needed for")
    found: bool = Field(description="Whether there is such a thing at all")


class Checkup(BaseModel):
    """Everything looked at, in the order in which it was."""

    success: bool = True
    ok: bool = Field(description="Whether nothing has to be mended")
    checks: list[CheckShape]


def router(corral: Corral) -> APIRouter:
    """The route, over the parts of `corral`."""
    routes = APIRouter(prefix="/api/v1/doctor", tags=["doctor"])

    @routes.get("", response_model=Checkup)
    async def doctor(
        online: Annotated[bool, Query(description="Whether the package index is asked, too")] = False,
    ) -> Response:
        """What works on the server's machine, what does not, and the command that mends it."""
        checks = [check async for check in examine(corral, online=online)]
        ok = all(check.verdict is not Verdict.FAIL for check in checks)
        return reply({"success": True, "ok": ok, "checks": [asdict(check) for check in checks]})

    return routes
