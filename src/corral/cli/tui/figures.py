"""The machine, money and receipts as lines, tables and fields. Pure."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from corral.cli.output import line, size_text, time_text
from corral.cli.table import Cell, Column, fold
from corral.cli.tui.marks import Fields, Row, Table, bar, cell, inked, percent, spark
from corral.cli.usage import count_text, money_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.cli.tui.yard import Yard

SPENT = (
    Column("MODEL", soft=True),
    Column("REQUESTS", right=True),
    Column("ERRORS", right=True, spare=1),
    Column("INPUT", right=True),
    Column("CACHED", right=True, spare=3),
    Column("OUTPUT", right=True),
    Column("FIRST", right=True, spare=2),
    Column("COST", right=True),
    Column("SHARE", spare=4),
)
BUDGETS = (
    Column("BUDGET", soft=True),
    Column("OF", soft=True, spare=3),
    Column("SPENT", right=True),
    Column("RESERVED", right=True, spare=2),
    Column("AMOUNT", right=True),
    Column("USED"),
    Column("RENEWS", spare=1),
)
_BAR = 12
_NEARLY = 0.8


def head_text(yard: Yard, room: int) -> str:
    """The machine in as many words as fit into so many cells, for the head of every screen."""
    cpu, used = yard.trail("cpu").last, yard.trail("memory").last
    total = (yard.machine.get("memory") or {}).get("total")
    said = "" if cpu is None else f"cpu {cpu:.0f} %"
    if used is None:
        return said if len(said) <= room else ""
    most = f" of {size_text(total)}" if total else ""
    taken = f"{said}  memory {size_text(used)}".strip()
    return next((text for text in (taken + most, taken, said) if len(text) <= room), "")


def machine_lines(yard: Yard, width: int) -> list[Row]:
    """The machine: each figure beside its course."""
    machine = yard.machine
    cpu, memory, disk = machine.get("cpu") or {}, machine.get("memory") or {}, machine.get("disk") or {}
    total = memory.get("total")
    lines: list[Row] = [_titled("Processor", cpu.get("name") or "unknown")]
    lines.append(_course("busy", yard, "cpu", width, most=100.0, said=_percent(yard.trail("cpu").last)))
    lines += _noted(_threads(cpu), width)
    lines += [(), _titled("Memory", f"{size_text(total)} that Corral may use")]
    lines.append(_course("in use", yard, "memory", width, most=total, said=size_text(yard.trail("memory").last)))
    if memory.get("swap_total"):
        swap = memory["swap_total"] - (memory.get("swap_free") or 0)
        lines += _noted(f"swap {size_text(swap)} of {size_text(memory['swap_total'])} in use", width)
    lines += [(), *_disk(disk, width)]
    gpus = machine.get("gpus")
    for gpu in gpus or ():
        lines += [(), *_gpu(gpu, yard, width)]
    if not gpus:
        why = (
            "It could not be found out whether there is one."
            if gpus is None
            else "There is none: models run on the processor."
        )
        lines += [(), _titled("GPU", "unknown" if gpus is None else "none"), *_noted(why, width)]
    for lost in machine.get("lost") or ():
        lines += [
            (),
            _titled("GPU", f"{(lost.get('gpu') or {}).get('id')} is lost", "red"),
            *_noted(lost.get("reason"), width),
        ]
    return lines


def _titled(title: str, said: object, tone: str = "") -> Row:
    return (Cell(title, "title"), Cell("  "), cell(said, tone))


def _noted(text: object, width: int) -> list[Row]:
    """A line below a figure, folded where it is wider than that; 0 folds nothing."""
    if not text:
        return []
    folded = fold(line(text), max(width - 2, 8)) if width else [line(text)]
    return [(Cell(f"  {each}", "dim"),) for each in folded]


def _course(name: str, yard: Yard, trail: str, width: int, *, most: float | None, said: str) -> Row:
    room = max(min(width - 26, 120), 0)
    course = spark(yard.trail(trail).values, room, most)
    return (Cell(f"  {name:<12}", "dim"), Cell(f"{said:>8}"), Cell("  "), *inked(course))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} %"


def _threads(cpu: Mapping[str, Any]) -> str:
    parts = []
    if cpu.get("count"):
        parts.append(f"{cpu['count']} threads" + (f" on {cpu['cores']} cores" if cpu.get("cores") else ""))
    parts += [", ".join(cpu["instructions"])] if cpu.get("instructions") else []
    return "; ".join(parts)


def _disk(disk: Mapping[str, Any], width: int) -> list[Row]:
    total, free = disk.get("total"), disk.get("free")
    share = None if not total or free is None else 1 - free / total
    drawn = bar(share, max(min(width - 26, 40), 0))
    return [
        _titled("Disk", f"{size_text(free)} free of {size_text(total)}, where the models are"),
        (Cell(f"  {'in use':<12}", "dim"), Cell(f"{percent(share):>8}"), Cell("  "), *inked(drawn)),
    ]


def _gpu(gpu: Mapping[str, Any], yard: Yard, width: int) -> list[Row]:
    name, total = str(gpu.get("id")), gpu.get("total")
    lines = [_titled(f"GPU {name}", f"{gpu.get('name') or 'unknown'}, {size_text(total)}")]
    if gpu.get("fault"):
        return [*lines, (Cell(f"  {line(gpu['fault'])}", "red"),)]
    rows = (("busy", "usage", 100.0, "%"), ("in use", "used", total, ""), ("temperature", "temperature", 100.0, "°C"))
    for said, what, most, unit in (*rows, ("power", "power", gpu.get("power_limit"), "W")):
        last = yard.trail(f"{name}/{what}").last
        text = size_text(last) if not unit else "-" if last is None else f"{last:.0f} {unit}"
        lines.append(_course(said, yard, f"{name}/{what}", width, most=most, said=text))
    return lines


def spent_table(usage: Mapping[str, Any] | None) -> Table:
    """What was used today, by model."""
    rows = list((usage or {}).get("usage") or ())
    most = max((row["cost_nano"] for row in rows), default=0)
    plotted = "cost_nano" if most else "output_tokens"
    top = most or max((row["output_tokens"] for row in rows), default=0)
    return Table(
        SPENT,
        tuple(str(row.get("model")) for row in rows),
        tuple(_spent(row, row[plotted] / top if top else 0.0) for row in rows),
        "Nothing was asked today.",
    )


def _spent(row: Mapping[str, Any], share: float) -> Row:
    first = row.get("mean_first_ms")
    return (
        cell(row.get("model")),
        cell(count_text(row["requests"])),
        cell(count_text(row["errors"]) if row["errors"] else None, "red" if row["errors"] else ""),
        cell(count_text(row["input_tokens"])),
        cell(count_text(row["cached_tokens"]) if row["cached_tokens"] else None),
        cell(count_text(row["output_tokens"])),
        cell(None if first is None else time_text(first / 1000)),
        cell(money_text(row["cost_nano"]) if row["cost_nano"] or not row["unpriced"] else "unknown"),
        Cell(bar(share, _BAR), "accent"),
    )


def spent_line(usage: Mapping[str, Any] | None) -> Row:
    """Today in one line."""
    total = (usage or {}).get("total")
    if not total:
        return (Cell("Today, in UTC: ", "dim"), Cell("nothing yet.", "dim"))
    said = f"  {total['requests']:,} requests, {total['input_tokens']:,} tokens in, {total['output_tokens']:,} out"
    unpriced = f"; the cost of {total['unpriced']:,} is not known" if total.get("unpriced") else ""
    return (
        Cell("Today, in UTC: ", "dim"),
        Cell(money_text(total["cost_nano"]), "title"),
        Cell(said),
        Cell(unpriced, "yellow"),
    )


def budgets_table(yard: Yard) -> Table:
    """Every budget, and how much of it is gone."""
    found = yard.budgets or ()
    empty = "There is no budget. Make one: corral budgets create NAME AMOUNT"
    return Table(BUDGETS, tuple(str(one.get("name")) for one in found), tuple(map(_budget, found)), empty)


def _budget(one: Mapping[str, Any]) -> Row:
    amount, spent, leased = one.get("amount") or 0, one.get("spent") or 0, one.get("leased") or 0
    share = (spent + leased) / amount if amount else 1.0
    tone = "red" if share >= 1 else "yellow" if share >= _NEARLY else "accent"
    word = "  spent" if share >= 1 else "  nearly" if share >= _NEARLY else ""
    renews = one.get("renews_at")
    who = {"all": "all"}.get(str(one.get("subject")), f"{one.get('subject')} {one.get('who')}")
    return (
        cell(one.get("name")),
        cell(who),
        cell(_amount(one, spent)),
        cell(_amount(one, leased) if leased else None),
        cell(f"{_amount(one, amount)} a {one.get('period')}".replace("a total", "in all")),
        Cell(f"{bar(share, _BAR)} {percent(share):>5}{word}", tone),
        cell(None if renews is None else time.strftime("%d %b", time.gmtime(renews)), "dim"),
    )


def _amount(one: Mapping[str, Any], value: float) -> str:
    return f"${value:,.2f}" if one.get("unit") == "usd" else count_text(round(value))


def receipt_line(receipt: Mapping[str, Any]) -> Row:
    """What an answer was, in one line: who gave it, how long that took, what it cost."""
    used = receipt.get("usage") or {}
    parts = [line(receipt.get("engine") or receipt.get("runtime") or "?")]
    parts += [f"on {line(receipt['device'])}"] if receipt.get("device") else []
    parts += [f"waited {_ms(receipt.get('wait_ms') or 0.0)}"]
    parts += [f"first word {_ms(receipt['first_ms'])}"] if receipt.get("first_ms") is not None else []
    parts += [f"in all {_ms(receipt['total_ms'])}"] if receipt.get("total_ms") is not None else []
    parts += [f"{used['input']:,} in, {used.get('output', 0):,} out"] if used.get("input") is not None else []
    cost = receipt.get("cost_nano")
    parts.append("cost unknown" if cost is None else money_text(cost))
    said: list[Cell] = [Cell("  ".join(parts), "dim")]
    asked = receipt.get("asked")
    if asked not in (None, "", receipt.get("model")):
        said.insert(0, Cell(f"{line(receipt.get('model'))} answered for {line(asked)}  ", "yellow"))
    less = [*(receipt.get("ignored") or ()), *(receipt.get("degraded") or ())]
    if less:
        said.append(Cell(f"  ignored: {line(', '.join(map(str, less)))}", "yellow"))
    return tuple(said)


def receipt_fields(receipt: Mapping[str, Any]) -> Fields:
    """A receipt as names and values."""
    return [(name.replace("_", " "), cell(value)) for name, value in receipt.items() if value not in (None, "", [], {})]


def _ms(value: float) -> str:
    return time_text(value / 1000) if value >= 1 else "0ms"
