"""docs/usage.md names every field of a receipt and of sums, and no others."""

from __future__ import annotations

import re

from corral.domain.money import Usage
from corral.domain.receipts import Attempt, Fallback
from corral.gateway.api.usage import Sums
from corral.observability.queries import BY
from corral.observability.record import described
from support.records import answered
from tests.docs import pages

PAGE = pages.read("docs/usage.md")


def _fields(heading: str) -> set[str]:
    return {name for row in PAGE.table(heading) for name in re.findall(r"`(\w+)`", row[0])}


def test_every_field_of_a_receipt() -> None:
    used = Usage(9, 8, 7, 6, 5, 4, 3, 2, 1.0)
    record = answered(usage=used, error="engine_died", message="It ended.", gone=True, device="cpu")
    record.attempts = (Attempt("big", "openai", "e", "x", "y", 503, used, 1, 0.1, billed=True),)
    record.drops, record.ignored, record.degraded = (Fallback("a", "b", "c"),), ("seed",), ("json",)

    content = described(record)

    assert _fields("Receipts") == set(content)
    text = PAGE.section("Receipts")
    inner = {*content["usage"], *content["tries"][0], *content["route"][0]}
    assert [name for name in sorted(inner) if f"`{name}`" not in text] == []


def test_every_field_of_sums() -> None:
    assert _fields("Sums") | {*BY, "key_name"} == set(Sums.model_fields)
