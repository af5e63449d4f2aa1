"""Answers as the gateway notes them."""

from __future__ import annotations

from typing import Any

from corral.domain.callers import Caller
from corral.domain.money import Usage
from corral.observability.record import Record

ADA = Caller("key-ada", "ada", project="atlas")
AT = 1_700_000_000.0
"""22:13:20 on 2023-11-14, in UTC."""


def answered(number: int = 1, **more: Any) -> Record:
    """An answer that went well: 100 tokens in, 20 out, 5,000 nanodollars; 10 ms to its first byte, 50 ms in all.

    Of which 2 ms are Corral's own. `more` are fields that are otherwise.
    """
    record = Record(f"req-{number}", AT, 10.0, more.pop("caller", ADA))
    record.asked = record.model = "smollm2"
    record.runtime, record.engine, record.revision, record.context = "llamacpp", "smollm2-1", "rev-1", 8192
    record.dialect = record.spoken = "openai.chat"
    record.status, record.stop, record.usage = 200, "stop", Usage(100, 20)
    record.cost, record.price = 5000, "configured"
    record.sent, record.heard, record.first, record.ended = 10.001, 10.009, 10.010, 10.050
    for name, value in more.items():
        setattr(record, name, value)
    return record
