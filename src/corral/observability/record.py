"""What the gateway notes of one answer, and the receipt that is made of it when somebody asks.

Nothing is computed while the answer is under way: a record is filled with what the path knows anyway, and durations,
receipt and JSON are made of it later, and only when they are read or written.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson

from corral.domain.money import NANO, UNKNOWN
from corral.domain.receipts import Attempt, Fallback, Receipt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.domain.callers import Caller
    from corral.domain.money import Usage


class Record:
    """The facts of one answer, as they are at its end. Unknown is None, 0.0 or empty, as it is when it is made.

    Args:
        request_id: what the answer says in `x-request-id`; never that of another.
        at: when the request came, in Unix seconds.
        started: the same on the performance counter, as all moments here: `sent` (the call that answered went out),
            `heard` (its first byte came), `first` (the client got its first byte), `ended`.
        caller: who asked.

    `model` is a name of this server, empty while none is settled: what a client made up stands in `asked` alone.
    `runtime` … `context` are the engine's that answered, or that failed last. `dialect` is the client's form (such as
    `openai.chat`), `spoken` the engine's. `status` is what the client got, `error` the code of what it was told, also
    in a stream. `usage`, `cost` (nanodollars, None where nobody knows) and `price` (its source) are of the last
    attempt alone; `attempts` are those before it, `drops` the candidates that were not asked. `wait_ms` is how long it
    waited for a place. `gone`: the client left first. `trace` is the client's `traceparent`.
    """

    __slots__ = (
        "asked",
        "at",
        "attempts",
        "caller",
        "context",
        "cost",
        "degraded",
        "device",
        "dialect",
        "drops",
        "ended",
        "engine",
        "error",
        "first",
        "gone",
        "heard",
        "ignored",
        "message",
        "model",
        "price",
        "project",
        "request_id",
        "revision",
        "runtime",
        "sent",
        "spoken",
        "started",
        "status",
        "stop",
        "stream",
        "trace",
        "usage",
        "wait_ms",
    )

    def __init__(self, request_id: str, at: float, started: float, caller: Caller) -> None:
        self.request_id = request_id
        self.at = at
        self.started = started
        self.sent = self.heard = self.first = self.ended = self.wait_ms = 0.0
        self.caller = caller
        self.project = caller.project
        self.asked = self.model = self.runtime = self.dialect = self.spoken = self.message = ""
        self.engine: str | None = None
        self.revision: str | None = None
        self.device: str | None = None
        self.context: int | None = None
        self.stream = self.gone = False
        self.status = 0
        self.error: str | None = None
        self.usage: Usage | None = None
        self.stop: str | None = None
        self.cost: int | None = None
        self.price: str | None = None
        self.trace: str | None = None
        self.ignored: tuple[str, ...] = ()
        self.degraded: tuple[str, ...] = ()
        self.attempts: tuple[Attempt, ...] = ()
        self.drops: tuple[Fallback, ...] = ()

    @property
    def seconds(self) -> float:
        """From the request to the end of the answer."""
        return max(self.ended - self.started, 0.0)

    @property
    def own(self) -> float:
        """Seconds that were Corral's own: neither waiting for a place nor for an engine.

        Up to the call that answered, and from its first byte to the client's; what follows is the engine's pace.
        """
        if not self.sent:  # it never came to a call: all of it
            spent = self.ended - self.started
        elif self.heard and self.first:
            spent = self.sent - self.started + self.first - self.heard
        else:
            spent = self.sent - self.started
        for attempt in self.attempts:
            spent -= attempt.seconds
        return max(spent - self.wait_ms / 1000, 0.0)

    @property
    def first_ms(self) -> float | None:
        """Milliseconds until the client got the first byte."""
        return (self.first - self.started) * 1000 if self.first else None

    @property
    def spent(self) -> int | None:
        """Nanodollars of all attempts; None where nobody knows the last one's."""
        if self.cost is None or not self.attempts:
            return self.cost
        return self.cost + sum(attempt.cost for attempt in self.attempts if attempt.billed)


def receipt(record: Record) -> Receipt:
    """The receipt of an answer that has ended."""
    used, tries = record.usage, record.attempts
    called = bool(record.runtime or record.engine)
    if called:
        last = record.sent or record.started
        tries += (
            Attempt(
                record.model,
                record.runtime,
                record.engine,
                record.error,
                record.message,
                record.status or None,
                used,
                record.cost or 0,
                max(record.ended - last, 0.0),
                used is not None,
            ),
        )
    return Receipt(
        request_id=record.request_id,
        model=record.model,
        runtime=record.runtime,
        revision=record.revision,
        engine=record.engine,
        context=record.context,
        wait_ms=record.wait_ms,
        attempts=len(tries),
        prompt_tokens=None if used is None else used.input,
        completion_tokens=None if used is None else used.output,
        finish_reason=record.stop,
        ignored=record.ignored,
        fallbacks=_fallbacks(record),
        asked=record.asked or None,
        device=record.device,
        dialect=record.dialect or None,
        spoken=record.spoken or None,
        status=record.status or None,
        error=record.error,
        usage=used,
        cost=record.spent,
        price=record.price,
        degraded=record.degraded,
        tries=tries,
        route=record.drops,
        first_ms=record.first_ms,
        total_ms=record.seconds * 1000,
        at=record.at,
        key=record.caller.id,
        project=record.project or None,
    )


def _fallbacks(record: Record) -> tuple[Fallback, ...]:
    """The models that were asked before the one that answered, each once, with its last error."""
    failed = {each.model: each for each in record.attempts if each.model != record.model}
    return tuple(Fallback(each.model, each.error or "", each.message) for each in failed.values())


def receipt_json(record: Record) -> bytes:
    """The receipt as it is sent and written down: JSON on one line; what is unknown or empty is left out."""
    content = described(record)
    try:
        return orjson.dumps(content)
    except TypeError:  # an engine's words may hold half a character, or a number beyond 64 bits
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


_BRIEFS_KEPT = 2000
_briefs: dict[tuple[Any, ...], str] = {}


def brief(record: Record) -> str | None:
    """What a receipt says beyond the columns of its row, as JSON: the same for most answers of one engine.

    None where it says more: then the whole receipt must be kept. `restored` puts the two together.
    """
    used = record.usage
    if (
        used is None
        or (record.cost is None and record.price != UNKNOWN.source)
        or record.error is not None
        or record.attempts
        or record.drops
        or record.ignored
        or record.degraded
        or record.gone
        or used.seconds
        or used.images
        or used.audio_input
        or used.audio_output
    ):
        return None
    place = (record.engine, record.spoken, record.stop, record.revision, record.device, record.context)
    found = _briefs.get(place)
    if found is None:
        names = ("engine", "spoken", "finish_reason", "revision", "device", "context")
        content = {name: value for name, value in zip(names, place, strict=True) if value is not None}
        if len(_briefs) >= _BRIEFS_KEPT:  # engines come and go for as long as the server runs
            _briefs.clear()
        found = _briefs[place] = orjson.dumps({"brief": True, **content}).decode()
    return found


def restored(row: Mapping[str, Any]) -> dict[str, Any]:
    """The receipt in a row of `usage`, by the names of its columns."""
    content: dict[str, Any] = orjson.loads(row["receipt"])
    if not content.pop("brief", False):
        return content
    used = {"input": row["input"], "output": row["output"]}
    used |= {name: row[name] for name in ("cached", "cache_write", "reasoning") if row[name]}
    found = {
        "request_id": row["request_id"],
        "at": row["at"],
        "key": row["key"],
        "asked": row["asked"],
        "model": row["model"],
        "runtime": row["runtime"],
        "dialect": row["dialect"],
        "status": row["status"],
        "attempts": row["attempt"],
        "wait_ms": round(row["wait_ms"], 3),
        "total_ms": round(row["total_ms"], 3),
        **content,
        "usage": used,
    }
    if row["price"] != UNKNOWN.source:
        found |= {"cost_nano": row["cost"], "cost_usd": row["cost"] / NANO}
    if row["first_ms"] is not None:
        found["first_ms"] = round(row["first_ms"], 3)
    if row["project"]:
        found["project"] = row["project"]
    if row["price"] is not None:
        found["price"] = row["price"]
    return found


def described(record: Record) -> dict[str, Any]:
    """The receipt in JSON's values. Costs are there twice: `cost_nano`, to be added up, and `cost_usd`, to be read.

    It is made of the record itself, and field by field, since it is made of every answer.
    """
    tries = len(record.attempts) + (1 if record.runtime or record.engine else 0)
    content: dict[str, Any] = {
        "request_id": record.request_id,
        "at": record.at,
        "key": record.caller.id,
        "asked": record.asked,
        "model": record.model,
        "runtime": record.runtime,
        "dialect": record.dialect,
        "spoken": record.spoken,
        "status": record.status,
        "attempts": tries,
        "wait_ms": round(record.wait_ms, 3),
        "total_ms": round((record.ended - record.started) * 1000, 3),
    }
    _add_engine(content, record)
    if record.first:
        content["first_ms"] = round((record.first - record.started) * 1000, 3)
    if record.project:
        content["project"] = record.project
    if record.stop is not None:
        content["finish_reason"] = record.stop
    if record.usage is not None:
        content["usage"] = _used(record.usage)
    if record.price is not None:
        content["price"] = record.price
    if (cost := record.spent) is not None:
        content["cost_nano"] = cost
        content["cost_usd"] = cost / NANO
    if record.gone:
        content["client_gone"] = True
    if record.error is not None or record.attempts or record.drops or record.ignored or record.degraded:
        _add_trouble(content, record)
    return content


def _add_engine(content: dict[str, Any], record: Record) -> None:
    """What is known of the engine that answered."""
    if record.engine is not None:
        content["engine"] = record.engine
    if record.revision is not None:
        content["revision"] = record.revision
    if record.device is not None:
        content["device"] = record.device
    if record.context is not None:
        content["context"] = record.context


def _add_trouble(content: dict[str, Any], record: Record) -> None:
    """What only answers have that were less than asked for, or did not come at the first call."""
    if record.ignored:
        content["ignored"] = record.ignored
    if record.degraded:
        content["degraded"] = record.degraded
    if record.error is not None:
        content["error"] = record.error
        content["message"] = record.message
    if record.attempts:
        made = receipt(record)
        content["fallbacks"] = [_why(each) for each in made.fallbacks]
        content["tries"] = [_tried(each) for each in made.tries]
    if record.drops:
        content["route"] = [_why(each) for each in record.drops]


def _used(used: Usage) -> dict[str, Any]:
    """The classes of which something was used; `input` and `output` always."""
    found: dict[str, Any] = {"input": used.input, "output": used.output}
    if used.cached:
        found["cached"] = used.cached
    if used.cache_write:
        found["cache_write"] = used.cache_write
    if used.reasoning:
        found["reasoning"] = used.reasoning
    if used.audio_input or used.audio_output:
        found |= {"audio_input": used.audio_input, "audio_output": used.audio_output}
    if used.images:
        found["images"] = used.images
    if used.seconds:
        found["seconds"] = round(used.seconds, 6)
    return found


def _why(each: Fallback) -> dict[str, Any]:
    return {"model": each.model, "code": each.code, "message": each.message}


def _tried(each: Attempt) -> dict[str, Any]:
    content: dict[str, Any] = {
        "model": each.model,
        "runtime": each.runtime,
        "engine": each.engine,
        "status": each.status,
        "error": each.error,
        "message": each.message or None,
        "usage": None if each.usage is None else _used(each.usage),
        "seconds": round(each.seconds, 6),
        "billed": each.billed,
    }
    if each.billed:
        content |= {"cost_nano": each.cost, "cost_usd": each.cost / NANO}
    return {name: value for name, value in content.items() if value is not None}
