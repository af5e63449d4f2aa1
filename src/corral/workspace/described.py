"""Entries as JSON: the same in the API, on the command line with `--json`, in Python and in live messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from enum import Enum
from typing import TYPE_CHECKING, Any

from corral.domain.money import NANO

if TYPE_CHECKING:
    from corral.domain.workspace import Edition, Entry, Hit, Step

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


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(each) for each in value]
    return value
