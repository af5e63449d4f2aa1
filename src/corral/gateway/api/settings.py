"""`/api/v1/runtime/reload`: a changed configuration, taken over while Corral runs."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from corral.app import Corral


class Reloaded(BaseModel):
    """A configuration that is in use now."""

    success: bool = True
    file: str | None = Field(description="The file it was read from")
    later: list[str] = Field(description="What of it takes effect only when Corral is started again")


def router(corral: Corral) -> APIRouter:
    """The route, over `corral`."""
    routes = APIRouter(prefix="/api/v1/runtime", tags=["runtime"])

    @routes.post("/reload")
    async def reload() -> Reloaded:
        """Read the configuration again and take it over. Answers under way are not cut short; on an error all stays."""
        later = await corral.reloading.reload()
        file = corral.settings.file
        return Reloaded(file=None if file is None else str(file), later=later)

    return routes
