"""A run as a tree of its steps: the messages of a run in, lines for a terminal out. Nothing here does I/O.

STEP           STATE      MODEL     TOKENS  TIME    COST
├─ ✓ analysis  completed  smollm2      208  900ms  $0.00
├─ ● parts     1/2        gemma3       205  4.1s   $0.00
│  ├─ ✓ [0]    completed  gemma3       205  2s     $0.00   src/Counter.tsx
│  └─ ● [1]    running    gemma3            2.1s           …const [count, setCount] =
└─ · assemble  waiting
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from corral.cli.output import line, time_text
from corral.cli.table import Cell, Column, arranged, cells, cut, table_lines
from corral.domain.workspace import RunStatus, StepStatus

Found = dict[str, Any]
Paint = Callable[[str, str], str]

TAIL = 60
"""Cells of what a model is writing that are shown, at most."""
_LEAST_REMARK = 10
"""Cells below which a remark says nothing."""
_GAP = 2

_MARKS = {
    StepStatus.WAITING: "·",
    StepStatus.RUNNING: "●",
    StepStatus.COMPLETED: "✓",
    StepStatus.FAILED: "✗",
    StepStatus.SKIPPED: "○",
    StepStatus.CANCELLED: "-",
}
STYLES = {
    "waiting": "dim",
    "queued": "yellow",
    "running": "yellow",
    "paused": "cyan",
    "completed": "green",
    "failed": "red",
    "skipped": "dim",
    "cancelled": "dim",
}
"""The colour of a run's status or a step's, everywhere."""

_DONE = frozenset({StepStatus.COMPLETED, StepStatus.SKIPPED})
_COLUMNS = (
    Column("STEP"),
    Column("STATE"),
    Column("MODEL", soft=True, spare=2),
    Column("TOKENS", right=True, spare=3),
    Column("TIME", right=True, spare=1),
    Column("COST", right=True, spare=4),
)
_REMARK = Column("", soft=True, spare=5)


@dataclass(slots=True)
class View:
    """What the messages of a run have told so far; `at` is when the last of them was sent."""

    run: Found = field(default_factory=dict)
    steps: dict[str, Found] = field(default_factory=dict)
    artifacts: dict[str, Found] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    at: float = 0.0

    def hear(self, message: Mapping[str, Any]) -> None:
        """Take a message in; one of a kind that is not known changes nothing."""
        self.at = float(message.get("at") or self.at)
        match message.get("type"):
            case "snapshot":
                self.run = dict(message["run"])
                self.steps = {step["key"]: dict(step) for step in message["steps"]}
                self.artifacts = {artifact["id"]: dict(artifact) for artifact in message["artifacts"]}
            case "run":
                self.run = dict(message["run"])
            case "step":
                self._step(dict(message["step"]))
            case "text":
                key = str(message["step"])
                self.texts[key] = (self.texts.get(key, "") + str(message["text"]))[-4 * TAIL :]
            case "artifact":
                self.artifacts[message["artifact"]["id"]] = dict(message["artifact"])
            case "cost":
                self.run |= {name: message[name] for name in ("cost_usd", "input_tokens", "output_tokens")}
            case "end":
                self.run["status"] = message["status"]

    def _step(self, step: Found) -> None:
        before = self.steps.get(step["key"])
        if before is None or before["attempt"] != step["attempt"] or step["status"] != StepStatus.RUNNING:
            self.texts.pop(step["key"], None)  # what was written before is not part of this try
        self.steps[step["key"]] = step

    @property
    def status(self) -> str:
        """Where the run stands."""
        return str(self.run.get("status", RunStatus.QUEUED))

    def made(self, key: str) -> list[Found]:
        """The artifacts of a step."""
        return [artifact for artifact in self.artifacts.values() if artifact.get("step") == key]


def lines(view: View, now: float, width: int | None, paint: Paint) -> list[str]:
    """The tree: a head, the steps, and at the end what went wrong. `now` is in the run's own time."""
    told = list(_rows(view, now))
    room = _room([row for row, _ in told], width)
    rows = [[*row, _said(view, step, room)] for row, step in told]
    shown = list(table_lines((*_COLUMNS, _REMARK), rows, width, paint)) if rows else []
    return [*_head(view, now, width, paint), *shown]


def _room(rows: Sequence[Sequence[Cell]], width: int | None) -> int | None:
    """The cells that the other columns leave to a remark, which is cut rather than left out; None: all it likes."""
    if width is None or not rows:
        return None
    stacks = [[Cell(column.title), *stack] for column, *stack in zip(_COLUMNS, *rows, strict=True)]
    _, widths = arranged(_COLUMNS, stacks, width)
    room = width - sum(widths) - _GAP * len(widths)
    return room if room >= _LEAST_REMARK else 0


def _head(view: View, now: float, width: int | None, paint: Paint) -> list[str]:
    run = view.run
    name = line(run.get("title") or run.get("name") or "")
    pieces = [str(run.get("id", "")), view.status]
    if run.get("steps_total"):
        pieces.append(f"{run.get('steps_done', 0)}/{run['steps_total']} steps")
    if run.get("started_at"):
        pieces += [time_text(worked(run, now)), rested(run, now)]
    pieces += [f"{tokens(run)} tokens", money(run)]
    text = "  ".join(piece for piece in pieces if piece)
    if width is not None:
        name = cut(name, width)
        text = cut(text, max(width - cells(name) - 2, 1))
    return [f"{paint(name, 'bold')}  {paint(text, STYLES.get(view.status, ''))}"]


def _rows(view: View, now: float) -> Iterable[tuple[list[Cell], Found]]:
    """A row for each step, but for its remark, and the step."""
    groups = grouped(view.steps.values())
    for place, (name, members) in enumerate(groups.items()):
        last = place == len(groups) - 1
        stem, below = ("└─ ", "   ") if last else ("├─ ", "│  ")
        whole = next((step for step in members if step["index"] is None), None)
        items = [step for step in members if step["index"] is not None]
        if not items and whole is not None:
            yield _row(whole, stem, name, now)
            continue
        yield _row(_summed(name, whole, items), stem, name, now)
        for number, item in enumerate(items):
            twig = "└─ " if number == len(items) - 1 else "├─ "
            yield _row(item, below + twig, f"[{item['index']}]", now)


def grouped(steps: Iterable[Found]) -> dict[str, list[Found]]:
    """Steps by their names, in their order; the items of one that fans out stand together."""
    groups: dict[str, list[Found]] = {}
    for step in sorted(
        steps, key=lambda step: (step["position"], step["name"], -1 if step["index"] is None else step["index"])
    ):
        groups.setdefault(step["name"], []).append(step)
    return groups


def _summed(name: str, whole: Found | None, items: Sequence[Found]) -> Found:
    """A step that fans out, with what its items have come to."""
    done = sum(item["status"] in _DONE for item in items)
    statuses = {str(item["status"]) for item in items}
    status = next(
        (word for word in ("failed", "cancelled", "running") if word in statuses),
        "completed" if done == len(items) else "running" if done else "waiting",
    )
    began = [item["started_at"] for item in items if item["started_at"]]
    ended = [item["ended_at"] for item in items if item["ended_at"]]
    models = list(dict.fromkeys(item["model"] for item in items if item["model"]))
    return {
        **(whole or {}),
        "key": name,
        "name": name,
        "status": status,
        "shown": f"{done}/{len(items)}",
        "model": models[0] if len(models) == 1 else f"{len(models)} models" if models else None,
        "started_at": min(began, default=None),
        "ended_at": max(ended) if len(ended) == len(items) else None,
        "paused_seconds": (whole or {}).get("paused_seconds", 0.0),
        "reason": "",
        "error": None,
        "attempt": 0,
        **{part: sum(item.get(part) or 0 for item in items) for part in ("cost_usd", "input_tokens", "output_tokens")},
    }


def _row(step: Found, stem: str, name: str, now: float) -> tuple[list[Cell], Found]:
    status = str(step["status"])
    running = status == StepStatus.RUNNING
    spent = ""
    if step["started_at"]:
        until = step["ended_at"] or (now if running else None)
        spent = "" if until is None else time_text(worked(step, until))
    asked = bool(step["started_at"] and step["model"])
    # What an answer under way takes is not known before it is whole: nothing is shown rather than 0.
    counted = asked and not (running and not step.get("input_tokens"))
    row = [
        Cell(f"{stem}{_MARKS.get(StepStatus(status), '·')} {line(name)}"),
        Cell(step.get("shown") or status, STYLES.get(status, "")),
        Cell(line(step["model"] or "")),
        Cell(tokens(step) if counted else ""),
        Cell(spent),
        Cell(money(step) if counted else ""),
    ]
    return row, step


def _said(view: View, step: Found, room: int | None) -> Cell:
    """The remark on a step, in as many cells as there are."""
    text = remark(view, step, TAIL if room is None else min(room, TAIL))
    shown = text if room is None else cut(text, room) if room else ""
    return Cell(shown, "red" if step["status"] == StepStatus.FAILED else "dim")


def remark(view: View, step: Found, room: int = TAIL) -> str:
    """What there is to say of a step: what it writes just now, what it made, or why it is as it is.

    Of what it writes the end is told, in `room` cells.
    """
    status = str(step["status"])
    if status == StepStatus.RUNNING:
        again = f"try {step['attempt']}  " if step["attempt"] > 1 else ""
        return f"{again}{_end(line(view.texts.get(step['key'], '')), room - cells(again))}".rstrip()
    if step.get("error"):
        return line(step["error"].get("message", ""))
    made = ", ".join(line(artifact["name"]) for artifact in view.made(step["key"]))
    return made or line(step.get("reason") or "")


def _end(text: str, room: int) -> str:
    """The end of a text in at most `room` cells, with an ellipsis where something is missing."""
    if cells(text) <= room:
        return text
    kept, left = [], room - 1
    for character in reversed(text):
        left -= cells(character)
        if left < 0:
            break
        kept.append(character)
    return "…" + "".join(reversed(kept))


def worked(timed: Mapping[str, Any], now: float) -> float:
    """Seconds for which a run or a step that has begun was at work, until its end, its pause, or now."""
    until = timed.get("ended_at") or timed.get("paused_at") or now
    return max(float(until - timed["started_at"] - (timed.get("paused_seconds") or 0)), 0.0)


def rested(timed: Mapping[str, Any], now: float) -> str:
    """How long nobody was at it, for a person; nothing where that is less than a second."""
    since = timed.get("paused_at")
    seconds = (timed.get("paused_seconds") or 0) + (0 if since is None else max(now - since, 0))
    return f"paused {time_text(seconds)}" if seconds >= 1 else ""


def tokens(counted: Mapping[str, Any]) -> str:
    """The tokens of a run or a step, in and out together, for a person."""
    from corral.cli.usage import count_text

    return count_text((counted.get("input_tokens") or 0) + (counted.get("output_tokens") or 0))


def money(counted: Mapping[str, Any]) -> str:
    """The cost of a run or a step, for a person."""
    from corral.cli.usage import money_text

    return money_text(round(float(counted.get("cost_usd") or 0) * 1e9))


def told(view: View, message: Mapping[str, Any]) -> list[str]:
    """What changes with a message that `view` has not heard yet, in lines for a log; mere pieces of text are none."""
    match message.get("type"):
        case "snapshot":
            run = message["run"]
            return [f"{line(run['name'])}: {run['id']}, {run['status']}, {count(len(message['steps']), 'step')}"]
        case "run":
            status = str(message["run"]["status"])
            return [] if status == view.status else [f"{message['run']['id']}: {status}"]
        case "step":
            step = message["step"]
            before = view.steps.get(step["key"], {})
            same = (before.get("status"), before.get("attempt")) == (step["status"], step["attempt"])
            return [] if same or step["status"] == StepStatus.WAITING else [_step_line(step)]
        case "artifact":
            made = message["artifact"]
            whose = line(made.get("step") or made.get("project") or "")
            return [f"{whose}: made {line(made['name'])} ({made['id']})"]
    return []


def _step_line(step: Found) -> str:
    status, pieces = str(step["status"]), []
    if status == StepStatus.RUNNING:
        pieces = [line(step["model"] or "")] + ([f"try {step['attempt']}"] if step["attempt"] > 1 else [])
    elif status == StepStatus.COMPLETED:
        pieces = [f"{tokens(step)} tokens", money(step)] if step["model"] else []
        if step["started_at"] and step["ended_at"]:
            pieces += [time_text(worked(step, step["ended_at"])), rested(step, step["ended_at"])]
    elif step.get("error"):
        pieces = [line(step["error"].get("message", ""))]
    elif step.get("reason"):
        pieces = [line(step["reason"])]
    return f"{line(step['key'])}: {status}{' — ' if any(pieces) else ''}{', '.join(piece for piece in pieces if piece)}"


def count(number: int, what: str) -> str:
    """How many of what: `1 step`, `2 steps`."""
    return f"{number} {what}{'' if number == 1 else 's'}"
