"""`corral search`: models to install, and those that are here."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from corral.cli.invocation import Invocation, command
from corral.cli.output import Painted, painted_fit, size_text
from corral.cli.table import Column
from corral.domain.models import Installed
from corral.domain.ports import Hit, Query
from corral.errors import CorralError, InvalidRequest, SourceError

if TYPE_CHECKING:
    from corral.app import Corral
    from corral.app.fitness import Judge
    from corral.catalog.library import Entry

_SCALES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_UNKNOWN: Mapping[str, Any] = {
    "ref": "",
    "title": "",
    "installed": None,
    "size": None,
    "fit": None,
    "fit_reason": None,
    "parameters": None,
    "context_length": None,
    "architecture": None,
    "licence": None,
    "downloads": None,
    "likes": None,
    "updated_at": None,
    "gated": False,
    "tags": [],
}
"""A row of which nothing is known."""


@command
def search(
    invocation: Invocation,
    words: Annotated[list[str] | None, typer.Argument(metavar="[WORDS]...", help="Words of its name.")] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=1, max=100, help="At most so many from a source.")
    ] = 20,
    source: Annotated[
        list[str] | None, typer.Option("--source", metavar="SOURCE", help="Where to look; hf unless given. Repeatable.")
    ] = None,
) -> None:
    """Search for models to install, on the Hugging Face hub and here.

    FIT says whether it runs on this machine: yes, tight or no. For example: corral search qwen coder
    """
    text = " ".join(words or ()).strip()
    output = invocation.output
    schemes = tuple(dict.fromkeys(source or ("hf",)))
    with output.busy(f"Asking {', '.join(schemes)} …"):
        if invocation.url:
            rows, problems = _there(invocation, text, limit, source)
        else:
            rows, problems = asyncio.run(_here(invocation.corral(), Query(text, limit), schemes))

    def show() -> None:
        if not rows:
            output.say("Nothing was found." if not problems else "Nothing that is here matches.")
            return
        output.table(_COLUMNS, [_cells(row) for row in rows])
        ref = next((row["ref"] for row in rows if not row["installed"]), None)
        if ref:
            output.note(f"Install one: corral pull {ref}")

    reasons = [{"code": error.code, "message": error.message, "hint": error.hint} for error in problems]
    output.result({"models": rows, "count": len(rows), "problems": reasons}, show, [row["ref"] for row in rows])
    for error in problems[:-1]:
        output.fail(error)
    if problems:
        raise problems[-1]


_COLUMNS = [
    Column("REFERENCE", soft=True),
    Column("SIZE", right=True),
    Column("FIT"),
    Column("PARAMETERS", right=True),
    Column("LICENCE", soft=True),
    Column("DOWNLOADS", right=True),
    Column("HERE"),
]


async def _here(
    corral: "Corral", query: Query, schemes: Sequence[str]
) -> tuple[list[dict[str, Any]], list[CorralError]]:
    """What matches, what is here first; and why a source could not be asked."""
    from corral.app.fitness import Judge

    for scheme in schemes:
        if scheme not in corral.sources:
            raise InvalidRequest(f"There is no source {scheme!r} here.", f"Sources: {', '.join(corral.sources)}.")
    try:
        judge = await Judge.of(corral.settings.models_dir)
        hits, problems = await corral.catalog.search(query, schemes)
    finally:
        await corral.close()
    installed = corral.registry.all()
    names = {origin: model.name for model in installed for origin in (model.revision.source, model.follows) if origin}
    rows = [_installed_row(judge, model) for model in installed if _matches(_said(model), query.text)]
    taken = {model.name for model in installed}
    rows += [
        _library_row(judge, entry)
        for entry in corral.registry.library
        if entry.name not in taken and _matches(f"{entry.name} {entry.description}", query.text)
    ]
    known = {row["ref"] for row in rows}
    rows += [_hit_row(judge, hit, names) for hit in hits if str(hit.ref) not in known]
    return rows, problems


def _there(
    invocation: Invocation, text: str, limit: int, source: Sequence[str] | None
) -> tuple[list[dict[str, Any]], list[CorralError]]:
    """What another machine's server finds."""
    if source is not None and len(source) > 1:
        raise InvalidRequest("A server searches one source at a time.", "Give one --source.")
    found = invocation.ask(lambda server: server.search(text, limit, source[0] if source else None))
    rows = []
    for model in found["models"]:
        fit = model.get("fit") or {}
        known = {key: model[key] for key in _UNKNOWN if key in model}
        more = {"title": model.get("display_name"), "fit": fit.get("verdict"), "fit_reason": fit.get("reason")}
        rows.append({**_UNKNOWN, **known, **more})
    return rows, [SourceError(str(problem)) for problem in found.get("problems") or ()]


def _said(model: Installed) -> str:
    return f"{model.name} {model.revision.source} {model.follows} {model.revision.facts.get('title') or ''}"


def _matches(said: str, text: str) -> bool:
    """Whether each word of `text` stands in what is said of a model."""
    said = said.casefold()
    return all(word in said for word in text.casefold().split())


def _installed_row(judge: "Judge", model: Installed) -> dict[str, Any]:
    revision = model.revision
    return _row(judge, revision.facts, revision.size) | {
        "ref": model.follows or revision.source,
        "title": model.name,
        "licence": revision.licence,
        "installed": model.name,
    }


def _library_row(judge: "Judge", entry: "Entry") -> dict[str, Any]:
    return _row(judge, {}, entry.size) | {"ref": entry.name, "title": entry.description, "licence": entry.licence}


def _hit_row(judge: "Judge", hit: Hit, names: Mapping[str, str]) -> dict[str, Any]:
    ref = str(hit.ref)
    here = (name for origin, name in names.items() if origin == ref or origin.startswith((f"{ref}:", f"{ref}@")))
    return _row(judge, hit.facts, hit.size) | {
        "ref": ref,
        "title": hit.title,
        "licence": hit.licence,
        "downloads": hit.downloads,
        "likes": hit.likes,
        "updated_at": hit.updated_at,
        "gated": hit.gated,
        "tags": list(hit.tags),
        "installed": next(here, None),
    }


def _row(judge: "Judge", facts: Mapping[str, Any], size: int | None) -> dict[str, Any]:
    fit = judge.fit(facts, size)
    known = {key: facts.get(key) for key in ("parameters", "context_length", "architecture")}
    judgement = {} if fit is None else {"fit": fit.verdict, "fit_reason": fit.reason}
    return {**_UNKNOWN, **known, **judgement, "size": size}


def _cells(row: Mapping[str, Any]) -> list[object]:
    licence = row["licence"] or "-"
    return [
        row["ref"],
        size_text(row["size"]),
        painted_fit(row["fit"]),
        count_text(row["parameters"]),
        f"gated, {licence}" if row["gated"] else licence,
        count_text(row["downloads"]),
        Painted(row["installed"], "green") if row["installed"] else "-",
    ]


def count_text(count: Any) -> str:
    """A number of things for a person, in three digits: `1.24B`; a dash when unknown."""
    if not isinstance(count, int | float) or isinstance(count, bool):
        return "-"
    for scale, letter in _SCALES:
        if count >= scale:
            return f"{count / scale:.3g}{letter}"
    return f"{count:g}"
