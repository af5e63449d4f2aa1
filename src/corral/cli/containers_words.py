"""The words of containers as a terminal shows them: states and steps in their colours, and which are trouble."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corral.cli.output import Painted

IN_TROUBLE = frozenset({"blocked", "orphan"})
"""Steps that need somebody to look."""

_STATES = {
    "healthy": "green",
    "created": "yellow",
    "starting": "yellow",
    "waiting": "yellow",
    "paused": "yellow",
    "orphan": "yellow",
    "unknown": "yellow",
    "unhealthy": "red",
    "fallen_back": "red",
    "exited": "red",
    "killed": "red",
    "oom_killed": "red",
    "crash_loop": "red",
    "stopped": "dim",
    "absent": "dim",
}
_SAID = {
    "absent": "is not there",
    "created": "is made, and not started",
    "exited": "has ended",
    "killed": "was killed",
    "oom_killed": "was killed for the memory it took (OOM)",
    "waiting": "waits for its next start",
    "crash_loop": "is in a crash loop",
    "fallen_back": "has fallen back to the CPU",
    "orphan": "is an orphan",
    "unknown": "stands nobody knows how",
}
_COMING = frozenset({"created", "starting", "waiting"})


@dataclass(frozen=True, slots=True)
class Words:
    """Words in their colours."""

    styles: Mapping[str, str]

    def painted(self, word: object) -> Painted:
        """A word for a table, in its colour."""
        return Painted(spelled(word), self.styles.get(str(word), ""))


def spelled(word: object) -> str:
    """A word as people write it."""
    return str(word).replace("_", " ").replace("oom ", "OOM ")


STATES = Words(_STATES)
STEPS = Words(
    {
        "keep": "dim",
        "create": "green",
        "start": "green",
        "adopt": "green",
        "recreate": "yellow",
        "wait": "yellow",
        "orphan": "yellow",
        "stop": "red",
        "remove": "red",
        "blocked": "red",
    }
)


def state_text(state: object) -> Painted:
    """A state for a table, in its colour."""
    return STATES.painted(state)


def sentence(one: Mapping[str, Any]) -> str:
    """How a container stands, where it answers, and why, for somebody who has just told it something."""
    what = _SAID.get(one["state"], f"is {spelled(one['state'])}")
    where = f" at {one['url']}" if one["status"] == "active" and one["url"] else ""
    why = f": {one['reason']}" if telling(one) else ""
    return f"{one['name']} {what}{where}{why}".rstrip(".") + "."


def telling(one: Mapping[str, Any]) -> bool:
    """Whether a container's reason says more than its state does."""
    return one["reason"] not in ("", "there is none", spelled(one["state"]))


def trouble(one: Mapping[str, Any], *, waited: bool = True) -> bool:
    """Whether a container is not what it shall be. One that still comes up is not, unless somebody waited for it."""
    if one["state"] == "orphan" or not one["wanted"]:
        return False
    return one["state"] != "healthy" and (waited or one["state"] not in _COMING)
