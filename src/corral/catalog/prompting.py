"""What a chat template takes, found out by rendering it: in a process of its own, bounded in time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LONGEST_TEMPLATE: Final = 1 << 18
"""Characters. The longest ones in use have some 20,000."""

TOO_LONG: Final = "it is too long"

_SECONDS: Final = 60.0
_IN_ONE_GO: Final = 16


@dataclass(frozen=True, slots=True)
class Template:
    """A chat template in Jinja, the one used with tools where that is another, and the names of special tokens."""

    text: str
    tools_text: str | None = None
    tokens: tuple[tuple[str, str], ...] = ()

    def job(self) -> dict[str, Any]:
        """The template as the process that renders it is told."""
        return {"template": self.text, "tool_template": self.tools_text, "tokens": dict(self.tokens)}


@dataclass(frozen=True, slots=True)
class Prompting:
    """What a template takes.

    `roles`: those whose words reach the model. `tools`: whether it tells the model of tools. `error` says why it
    takes nothing.
    """

    roles: tuple[str, ...] = ()
    tools: bool = False
    error: str | None = None


@lru_cache(maxsize=256)
def probe(template: Template) -> Prompting:
    """What the template takes. Blocks for some 0.2 s the first time; never raises."""
    return probe_all([template])[template]


def probe_all(templates: Sequence[Template]) -> Mapping[Template, Prompting]:
    """What each of the templates takes; one process for many. Blocks; never raises."""
    found: dict[Template, Prompting] = {}
    sound: list[Template] = []
    for template in dict.fromkeys(templates):
        if max(len(template.text), len(template.tools_text or "")) > LONGEST_TEMPLATE:
            found[template] = Prompting(error=TOO_LONG)
        else:
            sound.append(template)
    for start in range(0, len(sound), _IN_ONE_GO):
        some = sound[start : start + _IN_ONE_GO]
        try:
            found |= _ask(some)
        except OSError as error:
            found |= dict.fromkeys(some, Prompting(error=f"it could not be tried out here: {error.strerror}"))
    return found


def _ask(templates: Sequence[Template]) -> dict[Template, Prompting]:
    answers = _run([template.job() for template in templates])
    if answers is not None:
        return dict(zip(templates, map(_read, answers), strict=True))
    if len(templates) == 1:
        return {templates[0]: Prompting(error="it takes too much time or memory")}
    # One of them ended the process: each on its own, so that it spoils nothing for the others.
    return {template: _ask([template])[template] for template in templates}


def _run(jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    """The answers of the process; None when it did not come to its end.

    Raises:
        OSError: it could not be started.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "corral.catalog._rendering"],
            input=json.dumps(jobs).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONIOENCODING": "utf-8"},
            timeout=_SECONDS,
            check=True,
        )
        answers = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError):
        return None
    return answers if isinstance(answers, list) and len(answers) == len(jobs) else None


def _read(answer: Mapping[str, Any]) -> Prompting:
    return Prompting(tuple(answer["roles"]), bool(answer["tools"]), answer["error"])
