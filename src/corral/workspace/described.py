"""Entries as JSON: the same in the API, on the command line with `--json`, in Python and in live messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from enum import Enum
from typing import TYPE_CHECKING, Any

from corral.domain.money import NANO

if TYPE_CHECKING:
    from corral.domain.workspace import Edition, Entry, Hit, Step
    from corral.workspace.pipelines.plan import Checked

_MONEY = {"cost": "cost_usd", "budget": "budget_usd"}


def describe(entry: Entry | Step | Edition | Hit) -> dict[str, Any]:
    """The fields of an entry, in their order, as JSON has them: enums as words, money in US dollars."""
    found: dict[str, Any] = {}
    for each in fields(entry):
        value = getattr(entry, each.name)
        if each.name in _MONEY:
            found[_MONEY[each.name]] = None if value is None else value / NANO
        else:
            found[each.name] = _plain(value)
    return found


def findings(checked: Checked) -> dict[str, Any]:
    """What was found in a pipeline's source: whether it can run, what it is, and every issue."""
    definition = checked.definition
    return {
        "valid": not checked.issues,
        "name": None if definition is None else definition.name,
        "steps": [] if definition is None else [step.name for step in definition.steps],
        "inputs": {} if definition is None else {name: asdict(each) for name, each in definition.inputs.items()},
        "issues": [asdict(issue) for issue in checked.issues],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(each) for each in value]
    return value
