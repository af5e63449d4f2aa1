"""`corral search`: models to install, and those that are here."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from corral.cli.invocation import Invocation, command
from corral.cli.models import described
from corral.cli.output import Painted, size_text
from corral.cli.table import Column
from corral.domain.models import Installed
from corral.domain.ports import Hit, Query
from corral.errors import CorralError, InvalidRequest

if TYPE_CHECKING:
    from corral.app import Corral
    from corral.cli.fitness import Judge

_SCALES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


@command
def search(
    invocation: Invocation,
    words: Annotated[list[str] | None, typer.Argument(metavar="[WORDS]...", help="Words of its name.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="At most so many from a source.")] = 20,
    source: Annotated[
        list[str] | None, typer.Option("--source", metavar="SOURCE", help="Where to look; hf unless given. Repeatable.")
    ] = None,
) -> None:
    """Search for models to install, on the Hugging Face hub and here.

    FIT says whether it runs on this machine: yes, tight or no. For example: corral search qwen coder
    """
    text = " ".join(words or ()).strip()
    invocation.here_only("search")
    corral = invocation.corral()
    schemes = tuple(dict.fromkeys(source or ("hf",)))
    for scheme in schemes:
        if scheme not in corral.sources:
            raise InvalidRequest(f"There is no source {scheme!r} here.", f"Sources: {', '.join(corral.sources)}.")
    output = invocation.output
    with output.busy(f"Asking {', '.join(schemes)} …"):
        hits, problems = asyncio.run(_ask(corral, Query(text, limit), schemes))
    from corral.cli.fitness import Judge

    judge = Judge(corral.settings.models_dir)
    installed = corral.registry.all()
    origins = {origin for model in installed for origin in (model.follows, model.revision.source) if origin}
    rows = [_installed_row(judge, model) for model in installed if _matches(model, text)]
    known = {row["ref"] for row in rows}
    rows += [_hit_row(judge, hit, origins) for hit in hits if str(hit.ref) not in known]

    def show() -> None:
        if not rows:
            output.say("Nothing was found." if not problems else "Nothing that is here matches.")
            return
        output.table(_COLUMNS, [_cells(row) for row in rows])
        output.note(f"Install one: corral pull {next((row['ref'] for row in rows if not row['installed']), 'REF')}")

    reasons = [{"code": error.code, "message": error.message, "hint": error.hint} for error in problems]
    data = {"hits": rows, "count": len(rows), "problems": reasons}
    output.result(data, show, [row["ref"] for row in rows])
    for error in problems[:-1]:
        output.fail(error)
    if problems:
        raise problems[-1]


async def _ask(corral: "Corral", query: Query, schemes: Sequence[str]) -> tuple[list[Hit], list[CorralError]]:
    try:
        return await corral.catalog.search(query, schemes)
    finally:
        await corral.close()


_COLUMNS = [
    Column("REFERENCE", soft=True),
    Column("SIZE", right=True),
    Column("FIT"),
    Column("PARAMETERS", right=True),
    Column("LICENCE", soft=True),
    Column("DOWNLOADS", right=True),
    Column("HERE"),
]


def _matches(model: Installed, text: str) -> bool:
    """Whether each word stands in the model's name or origin."""
    said = f"{model.name} {model.revision.source} {model.revision.facts.get('title') or ''}".casefold()
    return all(word in said for word in text.casefold().split())


def _installed_row(judge: "Judge", model: Installed) -> dict[str, Any]:
    facts = model.revision.facts
    return _row(judge, facts, model.revision.size) | {
        "ref": model.follows or model.revision.source,
        "title": model.name,
        "licence": described(model)["licence"],
        "installed": True,
        "name": model.name,
    }


def _hit_row(judge: "Judge", hit: Hit, origins: set[str]) -> dict[str, Any]:
    ref = str(hit.ref)
    return _row(judge, hit.facts, hit.size) | {
        "ref": ref,
        "title": hit.title,
        "licence": hit.licence,
        "downloads": hit.downloads,
        "likes": hit.likes,
        "updated_at": hit.updated_at,
        "gated": hit.gated,
        "tags": list(hit.tags),
        "installed": any(origin == ref or origin.startswith((f"{ref}:", f"{ref}@")) for origin in origins),
    }


def _row(judge: "Judge", facts: Mapping[str, Any], size: int | None) -> dict[str, Any]:
    fit = judge.fit(facts, size)
    return {
        "ref": "",
        "title": "",
        "name": None,
        "size": size,
        "fit": None if fit is None else fit.verdict,
        "fit_reason": None if fit is None else fit.reason,
        "parameters": facts.get("parameters"),
        "context_length": facts.get("context_length"),
        "architecture": facts.get("architecture"),
        "licence": None,
        "downloads": None,
        "likes": None,
        "updated_at": None,
        "gated": False,
        "tags": [],
        "installed": False,
    }


def _cells(row: Mapping[str, Any]) -> list[object]:
    from corral.cli.fitness import painted

    here = row["name"] or ("yes" if row["installed"] else "-")
    return [
        row["ref"],
        size_text(row["size"]),
        painted(row["fit"]),
        count_text(row["parameters"]),
        ("gated, " if row["gated"] else "") + (row["licence"] or "-"),
        count_text(row["downloads"]),
        Painted(here, "green") if row["installed"] else here,
    ]


def count_text(count: Any) -> str:
    """A number of things for a person, in three digits: `1.24B`; a dash when unknown."""
    if not isinstance(count, int | float) or isinstance(count, bool):
        return "-"
    for scale, letter in _SCALES:
        if count >= scale:
            return f"{count / scale:.3g}{letter}"
    return str(count)
