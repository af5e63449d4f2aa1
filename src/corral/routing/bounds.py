"""The most that a call can cost, told before it is made. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from corral.routing.book import Amounts

if TYPE_CHECKING:
    from corral.domain.money import Price

IMAGE: Final = 16_384
"""Tokens that no picture of a prompt exceeds: the largest that vendors document, rounded up."""
MESSAGE: Final = 16
"""Tokens that a chat template or a vendor adds to each message at the most."""
_MILLION: Final = 1_000_000


def input_upper(size: int, messages: int = 1, images: int = 0) -> int:
    """Tokens that a prompt cannot exceed.

    Args:
        size: bytes of all its text in UTF-8: a token stands for at least one byte. Nothing tighter is certain.
        messages: how many messages and tools it has.
        images: how many pictures; their bytes need not be in `size`.
    """
    return size + messages * MESSAGE + images * IMAGE


def worst_case(price: Price, input_upper: int, max_tokens: int, images: int = 0, seconds: float = 0.0) -> Amounts:
    """The most that a call can take: each token at the dearest class that it could be of, in the dearest tier.

    Args:
        price: what the model costs.
        input_upper: tokens that the prompt cannot exceed.
        max_tokens: tokens of answer, thought included, that may be written.
        images: pictures that may be made.
        seconds: how long the engine may work, where it costs by the time.
    """
    max_tokens = max(max_tokens, 0)  # a reservation of less than nothing would be a gift
    tokens = input_upper + max_tokens
    if not price.known:
        return Amounts(None, tokens)
    bounds = price.bounds
    _, read, written = bounds[0]
    if len(bounds) > 1:
        reached = [bounds[0], *(each for each in bounds[1:] if each.over < input_upper)]
        read, written = max(each.read for each in reached), max(each.written for each in reached)
    nano = -(-(input_upper * read + max_tokens * written) // _MILLION) + price.request + images * price.image
    return Amounts(nano + (round(seconds * price.second) if price.second else 0), tokens)
