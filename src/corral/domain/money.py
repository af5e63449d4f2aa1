"""Tokens and what they cost. Amounts are whole nanodollars (10⁻⁹ US dollar), so that books add up exactly."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from typing import NamedTuple

NANO = 1_000_000_000
"""Nanodollars in a dollar."""
MOST_TOKENS = 10**9
"""More of one answer is not believed of anybody: what an engine says is summed up and written down."""
_MILLION = 1_000_000
_LONGEST = 10**7
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one answer used, in tokens unless said otherwise.

    `input` counts all of the prompt, those of `cached` (read from the vendor's cache) and `cache_write` (written to it)
    among them. `output` counts all that was written, `reasoning` among it. `audio_input` and `audio_output` are among
    `input` and `output`. `images` is how many pictures were made, `seconds` how long a local engine was at work.

    Engines say it, and some say nonsense: less than nothing is 0, and more than `MOST_TOKENS` is `MOST_TOKENS`.
    """

    input: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0
    audio_input: int = 0
    audio_output: int = 0
    images: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if not (
            0 <= self.input <= MOST_TOKENS and 0 <= self.output <= MOST_TOKENS and 0 <= self.seconds <= _LONGEST
        ) or (
            (self.cached or self.cache_write or self.reasoning or self.audio_input or self.audio_output or self.images)
            and not all(0 <= getattr(self, name) <= MOST_TOKENS for name in _PARTS)
        ):
            for name in ("input", "output", *_PARTS):
                object.__setattr__(self, name, min(max(getattr(self, name), 0), MOST_TOKENS))
            object.__setattr__(self, "seconds", self.seconds if 0 <= self.seconds <= _LONGEST else 0.0)


_PARTS = ("cached", "cache_write", "reasoning", "audio_input", "audio_output", "images")


@dataclass(frozen=True, slots=True)
class Tier:
    """What a million tokens of each class cost, in nanodollars, from `over` tokens of prompt on.

    None is: as the class it is part of (`cached` and `cache_write` as `input`, `reasoning` as `output`, audio as text).
    """

    input: int = 0
    output: int = 0
    cached: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    audio_input: int | None = None
    audio_output: int | None = None
    over: int = 0


class Bound(NamedTuple):
    """The most that a token can cost which is read, or written, from `over` tokens of prompt on, whatever its class."""

    over: int
    read: int
    written: int


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs. `tiers` rise by `over`; the last that the prompt exceeds holds for the whole request.

    `request`, `image` and `second` are nanodollars for one. `source` says where the price is from, with its version.
    Where it is not `known`, nothing can be said of what a call costs, and `cost` says 0. `bounds` follow from `tiers`.
    """

    tiers: tuple[Tier, ...] = (Tier(),)
    request: int = 0
    image: int = 0
    second: int = 0
    source: str = ""
    known: bool = True
    bounds: tuple[Bound, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bounds", tuple(map(_bound, self.tiers)))

    @property
    def free(self) -> bool:
        """Whether nothing ever costs anything."""
        none = Tier()
        return (
            self.known
            and not (self.request or self.image or self.second)
            and all(
                (tier.input, tier.output, tier.cached or 0, tier.cache_write or 0, tier.reasoning or 0)
                == (0, 0, 0, 0, 0)
                and (tier.audio_input or 0, tier.audio_output or 0) == (none.input, none.output)
                for tier in self.tiers
            )
        )

    def cost(self, usage: Usage) -> int:
        """Nanodollars for `usage`, rounded up."""
        tier = self.tiers[0]
        for each in self.tiers[1:]:
            if usage.input > each.over:
                tier = each
        cached, written, thought = usage.cached, usage.cache_write, usage.reasoning
        heard, spoken = usage.audio_input, usage.audio_output
        # A vendor that counts a part apart from the whole must not make the rest negative.
        millionths = max(usage.input - cached - written - heard, 0) * tier.input
        millionths += max(usage.output - thought - spoken, 0) * tier.output
        if cached:
            millionths += cached * (tier.input if tier.cached is None else tier.cached)
        if written:
            millionths += written * (tier.input if tier.cache_write is None else tier.cache_write)
        if thought:
            millionths += thought * (tier.output if tier.reasoning is None else tier.reasoning)
        if heard:
            millionths += heard * (tier.input if tier.audio_input is None else tier.audio_input)
        if spoken:
            millionths += spoken * (tier.output if tier.audio_output is None else tier.audio_output)
        nano = -(-millionths // _MILLION) + self.request + usage.images * self.image
        return nano + (round(usage.seconds * self.second) if self.second else 0)


def _bound(tier: Tier) -> Bound:
    read = max(tier.input, tier.cached or 0, tier.cache_write or 0, tier.audio_input or 0)
    return Bound(tier.over, read, max(tier.output, tier.reasoning or 0, tier.audio_output or 0))


FREE = Price(source="free")
"""What costs nothing."""
UNKNOWN = Price(source="unknown", known=False)
"""What nobody knows the price of."""


def nano(dollars: Decimal | float | str) -> int:
    """Nanodollars of an amount of dollars, rounded up."""
    return int((Decimal(str(dollars)) * NANO).to_integral_value(ROUND_CEILING))


def dollars(amount: int) -> float:
    """An amount of nanodollars in dollars, for those who only read it."""
    return amount / NANO
