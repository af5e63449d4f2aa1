"""Lines of the log: for people as they are, for programs an object each. Never a key; prompts only where asked for.

The standard library's logging is enough: what is said is decided where it is said, and here only how it is written.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from corral.domain.money import NANO

if TYPE_CHECKING:
    from corral.observability.record import Record

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_access = logging.getLogger("corral.access")
_prompts = logging.getLogger("corral.prompts")


def formatter(form: str) -> logging.Formatter:
    """How lines are written: `text`, or `json`, an object in each line."""
    return Lines() if form == "json" else logging.Formatter(TEXT)


class Lines(logging.Formatter):
    """One JSON object in each line: `time`, `level`, `logger`, `message`, and the `facts` that it was given.

    Where an error came from is in `trace`. Whatever a message holds, a line is one line.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        content: dict[str, Any] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        facts = getattr(record, "facts", None)
        if isinstance(facts, dict):
            content |= facts
        if record.exc_info:
            content["trace"] = self.formatException(record.exc_info)
        return json.dumps(content, default=str)


def tell(record: Record) -> None:
    """Write the line of an answer, when anybody reads those."""
    if not _access.isEnabledFor(logging.INFO):
        return
    found = facts(record)
    words = " ".join(f"{name}={value}" for name, value in found.items() if name not in ("model", "status"))
    message = f"{record.status} {record.model or '-'} {words}"
    _access.info("%s", message.encode("ascii", "backslashreplace").decode(), extra={"facts": found})


def facts(record: Record) -> dict[str, Any]:
    """What the line of an answer says. Milliseconds, tokens in all, US dollars; what is unknown is not there."""
    used, spent = record.usage, record.spent
    found: dict[str, Any] = {
        "request_id": record.request_id,
        "caller": record.caller.id,
        "model": record.model or None,
        "status": record.status,
        "error": record.error,
        "ms": round((record.ended - record.started) * 1000, 1),
        "tokens": None if used is None else used.input + used.output,
        "cost_usd": None if spent is None else spent / NANO,
    }
    return {name: value for name, value in found.items() if value is not None}


def tell_prompt(request_id: str, prompt: bytes, answer: bytes) -> None:
    """Write what was asked and answered. Only where `log.prompts` says so: the caller looks."""
    found = {
        "request_id": request_id,
        "prompt": prompt.decode("utf-8", "replace"),
        "answer": answer.decode("utf-8", "replace"),
    }
    _prompts.info("%s", json.dumps(found), extra={"facts": found})
