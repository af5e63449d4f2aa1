"""Models that are installed or can be: by provider, and by search. Rows as the document has them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from corral.app.described import Describer
from corral.app.fitness import Judge, judged
from corral.app.providers import scheme
from corral.catalog import published
from corral.domain.ports import Query
from corral.domain.registry import provider_of
from corral.errors import CorralError, NotSupported

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from corral.app import Corral
    from corral.catalog.library import Entry
    from corral.domain.models import Installed
    from corral.domain.ports import Hit

_GB = 1000**3
_BREATH = 200
"""Models that are looked at in one go."""
_UNKNOWN = {"supports_system_role": None, "allowed_roles": None}


async def offered(corral: Corral, provider: str | None, limit: int) -> tuple[list[dict[str, Any]], list[str]]:
    """What is installed of a provider, or of all, and what else can be; and why its source could not be asked.

    Only a provider that is named is asked over the network.
    """
    describer = await Describer.of(corral)
    asked = None if provider is None else scheme(corral, provider)
    named = None if asked is None else provider_of(asked)
    shown: list[dict[str, Any]] = []
    async for model in _each(corral):
        if named in (None, published.provider(model.revision.source)):
            shown.append(_offer(describer.summary(model)))
        if len(shown) >= limit:
            break
    here = {row["name"] for row in shown}
    for entry in corral.registry.library:
        if asked in (None, entry.ref.scheme) and entry.name not in here and len(shown) < limit:
            shown.append(_of_library(entry))
    problems: list[str] = []
    if asked is not None and len(shown) < limit:
        refs = {row["ref"] for row in shown}
        try:
            hits = await corral.sources[asked].search(Query("", limit - len(shown)))
        except NotSupported:
            hits = ()  # it cannot be searched, which is no failure of it
        except CorralError as error:
            hits, problems = (), [str(error)]
        shown += [_of_hit(hit, describer) for hit in hits if str(hit.ref) not in refs][: limit - len(shown)]
    return shown, problems


async def search(corral: Corral, text: str, limit: int, source: str | None) -> tuple[list[dict[str, Any]], list[str]]:
    """What is installed and what the sources have that matches, with whether it fits; and why one could not be asked.

    Raises:
        CorralError: the one source that was named could not be asked.
    """
    schemes = ("hf",) if source is None else (scheme(corral, source),)
    describer, judge = await Describer.of(corral), await Judge.of(corral.settings.models_dir)
    shown: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    async for model in _each(corral):
        names[model.follows or model.revision.source] = model.name
        if len(shown) < limit and _matches(text, model, schemes if source is not None else None):
            fit = judge.fit(model.revision.facts, model.revision.size)
            shown.append(_offer(describer.summary(model)) | _found(model.name) | {"fit": judged(fit)})
    hits, problems = await corral.catalog.search(Query(text, limit), schemes)
    if source is not None and problems and not hits and not shown:
        raise problems[0]
    listed = {row["ref"] for row in shown}
    for hit in hits:
        if len(shown) >= limit or str(hit.ref) in listed:
            continue
        more = {
            "fit": judged(judge.fit(hit.facts, hit.size)),
            "installed": _name_here(hit, names),
            "downloads": hit.downloads,
            "likes": hit.likes,
            "updated_at": hit.updated_at,
            "gated": hit.gated,
            "tags": list(hit.tags),
        }
        shown.append(_of_hit(hit, describer) | more)
    return shown, [str(problem) for problem in problems]


async def _each(corral: Corral) -> AsyncIterator[Installed]:
    """Every installed model, with a breath for everybody else now and then."""
    after: str | None = None
    while found := corral.registry.page(after, _BREATH):
        for installed in found:
            yield installed
        after = found[-1].name
        await asyncio.sleep(0)


def _matches(text: str, model: Installed, schemes: Iterable[str] | None) -> bool:
    source = model.follows or model.revision.source
    if schemes is not None and source.partition(":")[0] not in schemes:
        return False
    told = f"{model.name} {source} {model.revision.facts.get('title', '')}".casefold()
    return all(word in told for word in text.casefold().split())


def _name_here(hit: Hit, names: dict[str, str]) -> str | None:
    """What is installed of the hit: all of it, or one of its files or quantisations."""
    ref = str(hit.ref)
    for source, name in names.items():
        if source == ref or source.startswith((f"{ref}:", f"{ref}/", f"{ref}@")):
            return name
    return None


def _offer(row: dict[str, Any]) -> dict[str, Any]:
    keys = ("name", "provider", "display_name", "size_gb", "status", "runtime", "capabilities", "size", "licence")
    return {key: row[key] for key in keys} | {"ref": row["source"]}


def _found(name: str) -> dict[str, Any]:
    return {
        "installed": name,
        "downloads": None,
        "likes": None,
        "updated_at": None,
        "gated": False,
        "tags": [],
    }


def _of_library(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "provider": provider_of(entry.ref.scheme),
        "display_name": entry.description,
        "size_gb": round(entry.size / _GB, 3),
        "status": "available",
        "runtime": None,
        "capabilities": dict(_UNKNOWN),
        "size": entry.size,
        "ref": entry.name,
        "licence": entry.licence,
    }


def _of_hit(hit: Hit, describer: Describer) -> dict[str, Any]:
    facts = hit.facts
    kind = facts.get("format") or next((kind for kind in ("gguf", "safetensors") if kind in hit.tags), None)
    return {
        "name": hit.ref.locator,
        "provider": provider_of(hit.ref.scheme),
        "display_name": hit.title,
        "size_gb": None if hit.size is None else round(hit.size / _GB, 3),
        "status": "available",
        "runtime": None if kind is None else describer.runs(str(kind)),
        "capabilities": _UNKNOWN
        | {"max_context_length": facts.get("context_length"), "quantization": facts.get("quantization")},
        "size": hit.size,
        "ref": str(hit.ref),
        "licence": hit.licence,
    }
