"""One thing looked at: what was found, why it matters, what mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """Fine; worth knowing; in the way."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """What was found, why it matters, and the command that mends it.

    Attributes:
        name: what was looked at, in one word.
        detail: what was found. Never holds a secret.
        fix: what to type; empty where there is nothing to mend.
        why: what it is needed for.
        found: whether there is such a thing here at all; where there is none, and none is needed, all is well.
    """

    name: str
    verdict: Verdict
    detail: str
    fix: str = ""
    why: str = ""
    found: bool = True
