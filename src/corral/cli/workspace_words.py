"""How entries of the workspace are told to a person: their tables, moments, tags and what was done to them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from corral.cli.output import Output, Painted, size_text
from corral.cli.pipelines_tree import STYLES, count, money, tokens
from corral.cli.table import Column

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Found = dict[str, Any]

ONE = {"projects": "project", "contexts": "context", "pipelines": "pipeline", "runs": "run", "artifacts": "artifact"}
"""What one of each kind is called."""

DONE = {"archive": "archived", "restore": "restored", "delete": "removed", "purge": "removed for good"}


def moment(seconds: float | None) -> str:
    """When something happened, on this machine's clock; a dash where it did not."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else "-"


def called(kind: str, entry: Mapping[str, Any]) -> str:
    """What `entry` is best asked for by: a project and a pipeline by name, the others by id."""
    return str(entry["name"] if kind in ("projects", "pipelines") else entry["id"])


def told(output: Output, kind: str, entry: Found, what: str) -> None:
    """Say that `what` was done to an entry."""
    name = called(kind, entry) if kind != "artifacts" else f"{entry['name']} ({entry['id']})"
    name = f"{entry['name']} ({entry['id']})" if kind == "contexts" else name
    said = f"{ONE[kind].capitalize()} {name} is {what}."
    output.result(entry, lambda: output.say(said), [called(kind, entry)])


def listed(output: Output, kind: str, page: Found, empty: str) -> None:
    """Say a page of entries, as a table."""
    items = page["items"]

    def show() -> None:
        if not items:
            output.say(empty)
            return
        columns, row = _TABLES[kind]
        names = page.get("called", {})
        shown = [item | {"project": names[item["project"]]} if item.get("project") in names else item for item in items]
        output.table(columns, [row(item) for item in shown])
        if page.get("next"):
            output.note("There are more: -n N shows more of them.")

    data = {kind: items, "count": len(items), "next": page.get("next"), "total": page.get("total")}
    output.result(data, show, [called(kind, item) for item in items])


def state(entry: Mapping[str, Any]) -> Painted:
    """Whether an entry was put or thrown away."""
    if entry.get("deleted_at"):
        return Painted("removed", "red")
    return Painted("archived", "dim") if entry.get("archived_at") else Painted("", "")


def status(entry: Mapping[str, Any]) -> Painted:
    """Where a run or a step stands, in its colour."""
    word = str(entry["status"])
    return Painted(word, STYLES.get(word, ""))


def tagged(entry: Mapping[str, Any]) -> str:
    """An entry's tags."""
    return ", ".join(entry.get("tags") or ()) or "-"


def _project(entry: Found) -> list[object]:
    return [entry["name"], entry["title"] or "-", tagged(entry), moment(entry["updated_at"]), state(entry)]


def _context(entry: Found) -> list[object]:
    size = entry["size"] or len((entry["text"] or "").encode()) or None
    about = ", ".join(entry["variables"]) if entry["kind"] == "variables" else size_text(size)
    given = Painted("given", "green") if entry["enabled"] else Painted("left out", "dim")
    return [entry["name"], entry["id"], entry["kind"], about, given, moment(entry["updated_at"])]


def _pipeline(entry: Found) -> list[object]:
    about = entry["description"] or "-"
    return [entry["name"], entry["id"], entry["project"] or "all", about, moment(entry["updated_at"]), state(entry)]


def _run(entry: Found) -> list[object]:
    steps = f"{entry['steps_done']}/{entry['steps_total']}"
    began = moment(entry["started_at"] or entry["created_at"])
    return [entry["id"], entry["title"] or entry["name"], status(entry), steps, tokens(entry), money(entry), began]


def _artifact(entry: Found) -> list[object]:
    return [
        entry["name"],
        entry["id"],
        entry["kind"],
        size_text(entry["size"]),
        entry["number"],
        entry["step"] or "-",
        entry["run"] or "-",
        moment(entry["updated_at"]),
    ]


_TABLES: dict[str, tuple[list[Column], Callable[[Found], list[object]]]] = {
    "projects": (
        [
            Column("NAME"),
            Column("TITLE", soft=True),
            Column("TAGS", soft=True, spare=2),
            Column("CHANGED", spare=1),
            Column("", spare=3),
        ],
        _project,
    ),
    "contexts": (
        [
            Column("NAME", soft=True),
            Column("ID"),
            Column("KIND"),
            Column("HOLDS", soft=True),
            Column("MODELS", spare=1),
            Column("CHANGED", spare=2),
        ],
        _context,
    ),
    "pipelines": (
        [
            Column("NAME"),
            Column("ID", spare=2),
            Column("OF"),
            Column("ABOUT", soft=True),
            Column("CHANGED", spare=1),
            Column("", spare=3),
        ],
        _pipeline,
    ),
    "runs": (
        [
            Column("RUN"),
            Column("OF", soft=True),
            Column("STATUS"),
            Column("STEPS", right=True, spare=1),
            Column("TOKENS", right=True, spare=3),
            Column("COST", right=True, spare=2),
            Column("BEGUN", spare=4),
        ],
        _run,
    ),
    "artifacts": (
        [
            Column("NAME", soft=True),
            Column("ID"),
            Column("KIND"),
            Column("SIZE", right=True, spare=1),
            Column("EDITION", right=True, spare=2),
            Column("STEP", spare=3),
            Column("RUN", spare=4),
            Column("CHANGED", spare=5),
        ],
        _artifact,
    ),
}


def about(entry: Found, *names: str) -> list[tuple[str, object]]:
    """The fields of an entry that everybody asks for, and `names` of its own; those that say nothing are left out."""
    pairs: list[tuple[str, object]] = [("id", entry["id"])]
    pairs += [(name.replace("_", " "), entry[name]) for name in names if entry.get(name) not in (None, "", (), [], {})]
    pairs += [("tags", tagged(entry))] if entry.get("tags") else []
    pairs += [("made", moment(entry["created_at"])), ("changed", moment(entry["updated_at"]))]
    pairs += [("archived", moment(entry["archived_at"]))] if entry.get("archived_at") else []
    pairs += [("removed", moment(entry["deleted_at"]))] if entry.get("deleted_at") else []
    return pairs


def many(number: int, what: str) -> str:
    """How many of what."""
    return count(number, what)


def spelled(pairs: Mapping[str, Any]) -> str:
    """Names with their values on one line."""
    return ", ".join(f"{name}={value}" for name, value in pairs.items())


def listing(names: Sequence[str]) -> str:
    """Names on one line, or a dash."""
    return ", ".join(names) or "-"
