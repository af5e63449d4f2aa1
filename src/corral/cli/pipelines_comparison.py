"""Two runs side by side, for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from corral.cli.output import Painted, time_text
from corral.cli.pipelines_tree import money, tokens
from corral.cli.table import Column

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from corral.cli.output import Output

Found = dict[str, Any]

_COLOURS = {"+": "green", "-": "red", "@": "cyan", "\\": "dim"}


def shown(output: Output, found: Found) -> None:
    """Say how two runs differ, as `corral.workspace.comparing.compare` tells it."""
    one, two = found["a"], found["b"]
    columns = [Column(""), Column(one["id"], soft=True), Column(two["id"], soft=True)]
    rows = [[name, tell(one), tell(two)] for name, tell in _LINES]
    rows += [[f"input {name}", *map(_short, values)] for name, values in found["changed"]["inputs"].items()]
    output.table(columns, rows)
    others = [what for what in ("source", "material") if not found["same"][what]]
    if others:
        output.say(f"They were not given the same {' and '.join(others)}.", "yellow")
    output.say()
    output.table(_COLUMNS, [_step(step) for step in found["steps"]] + [_artifact(made) for made in found["artifacts"]])
    said = set()
    for each in (*found["steps"], *found["artifacts"]):
        text = each["diff"]["unified"] if each.get("diff") else ""
        body = text.partition("@@")[2]
        if text and body not in said:  # an artifact that is the whole answer differs as that does
            output.say()
            unified(output, text)
        said.add(body)
    if found["equal"]:
        output.say()
        output.say("All answers and artifacts are the same.")


def unified(output: Output, text: str) -> None:
    """A difference, line by line."""
    for line in text.splitlines():
        output.say(line, "bold" if line.startswith(("+++", "---")) else _COLOURS.get(line[:1], ""))


_LINES: tuple[tuple[str, Callable[[Found], object]], ...] = (
    ("status", lambda run: run["status"]),
    ("models", lambda run: ", ".join(f"{step}={model}" for step, model in run["models"].items()) or "as written"),
    ("seed", lambda run: run["seed"]),
    ("time", lambda run: time_text(run["seconds"])),
    ("tokens", tokens),
    ("cost", money),
)
_COLUMNS = [
    Column("STEP", soft=True),
    Column("ANSWER"),
    Column("MODEL", soft=True, spare=1),
    Column("TIME", spare=2),
    Column("TOKENS", spare=4),
    Column("COST", spare=3),
]


def _step(step: Found) -> list[object]:
    return [
        step["key"],
        _same(step),
        _both(step, lambda side: side["model"] or "-"),
        _both(step, lambda side: time_text(side["seconds"])),
        _both(step, tokens),
        _both(step, money),
    ]


def _artifact(made: Found) -> list[object]:
    return [made["name"], _same(made), "", "", "", ""]


def _same(each: Mapping[str, Any]) -> Painted:
    if each["a"] is None or each["b"] is None:
        return Painted("only the first" if each["b"] is None else "only the second", "yellow")
    if each["equal"]:
        return Painted("same", "green")
    return Painted(f"differs ({each['reason']})" if each.get("reason") else "differs", "yellow")


def _both(each: Mapping[str, Any], tell: Callable[[Found], str]) -> str:
    """What both sides are; once, where that is the same."""
    sides = ["-" if side is None else tell(side) for side in (each["a"], each["b"])]
    return sides[0] if sides[0] == sides[1] else " → ".join(sides)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"  # half a terminal
