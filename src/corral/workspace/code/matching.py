"""Which lines two texts share, in order.

difflib says it where that is quick. Of long texts first the lines that each has only once are matched, and difflib
sees what lies between; a stretch that stays long shares nothing. So the time grows with the texts and not with their
product.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_QUICK = 250_000
_DEEPEST = 6

Block = tuple[int, int, int, int]
"""A stretch of lines of both sides, `[a1, a2)` and `[b1, b2)`."""


def stretches(a: list[str], b: list[str]) -> Iterator[tuple[bool, Block]]:
    """Stretches in order, each with whether both sides are equal in it; neighbours differ in that."""
    at_a = at_b = 0
    for a1, b1, size in _matches(a, b):
        if a1 > at_a or b1 > at_b:
            yield False, (at_a, a1, at_b, b1)
        if size:
            yield True, (a1, a1 + size, b1, b1 + size)
        at_a, at_b = a1 + size, b1 + size


def _matches(a: list[str], b: list[str]) -> Iterator[tuple[int, int, int]]:
    """Equal stretches, the longest that neighbours make, then an empty one at the end."""
    held: tuple[int, int, int] | None = None
    for a1, b1, size in [*_equal(a, b, (0, len(a), 0, len(b))), (len(a), len(b), 0)]:
        if held is not None and held[0] + held[2] == a1 and held[1] + held[2] == b1:
            held = (held[0], held[1], held[2] + size)
            continue
        if held is not None:
            yield held
        held = (a1, b1, size)
    if held is not None:
        yield held
        if held[2]:
            yield len(a), len(b), 0


def _equal(a: list[str], b: list[str], block: Block, depth: int = 0) -> Iterator[tuple[int, int, int]]:
    head = _shared(a, b, block, 1)
    a1, a2, b1, b2 = block[0] + head, block[1], block[2] + head, block[3]
    tail = _shared(a, b, (a1, a2, b1, b2), -1)
    a2, b2 = a2 - tail, b2 - tail
    if head:
        yield block[0], block[2], head
    if (a2 - a1) * (b2 - b1) <= _QUICK:
        for match in SequenceMatcher(None, a[a1:a2], b[b1:b2], autojunk=False).get_matching_blocks():
            if match.size:
                yield a1 + match.a, b1 + match.b, match.size
    elif depth < _DEEPEST:
        at = (a1, b1)
        for left, right in _anchors(a, b, (a1, a2, b1, b2)):
            yield from _equal(a, b, (at[0], left, at[1], right), depth + 1)
            yield left, right, 1
            at = (left + 1, right + 1)
        if at != (a1, b1):
            yield from _equal(a, b, (at[0], a2, at[1], b2), depth + 1)
    if tail:
        yield a2, b2, tail


def _shared(a: list[str], b: list[str], block: Block, step: int) -> int:
    """How many lines both sides share at their beginning (`step` 1) or their end (-1)."""
    a1, a2, b1, b2 = block
    left, right = (a1, b1) if step == 1 else (a2 - 1, b2 - 1)
    most = min(a2 - a1, b2 - b1)
    count = 0
    while count < most and a[left + count * step] == b[right + count * step]:
        count += 1
    return count


def _anchors(a: list[str], b: list[str], block: Block) -> list[tuple[int, int]]:
    """Lines that each side has once, in an order that both have."""
    a1, a2, b1, b2 = block
    left, right = Counter(a[a1:a2]), Counter(b[b1:b2])
    where = {line: number for number, line in enumerate(b[b1:b2], b1) if right[line] == 1}
    pairs = [(n, where[a[n]]) for n in range(a1, a2) if left[a[n]] == 1 and a[n] in where]
    ends: list[int] = []
    tops: list[int] = []
    before: list[int | None] = []
    for index, (_, place) in enumerate(pairs):
        length = bisect_left(ends, place)
        before.append(tops[length - 1] if length else None)
        ends[length : length + 1] = [place]
        tops[length : length + 1] = [index]
    chain: list[tuple[int, int]] = []
    at = tops[-1] if tops else None
    while at is not None:
        chain.append(pairs[at])
        at = before[at]
    return chain[::-1]
