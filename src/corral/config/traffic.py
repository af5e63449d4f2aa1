"""Settings of what becomes of requests: routes, prices, the ledger, usage, keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from corral.config.items import mapping, setting
from corral.config.values import amount, amounts, choice, count, counts, duration, flag, names, text, whole


@dataclass(frozen=True, slots=True)
class RoutingSettings:
    """What is done when a model, an engine or a vendor fails."""

    retries: int = setting(1, count, "Times that a failed call is made again before the next candidate is asked.")
    retry_within: float = setting(
        10.0, duration, "A `Retry-After` up to this long is waited for; a longer one sends the request elsewhere."
    )
    breaker_failures: int = setting(5, whole, "Failures in a row after which a candidate is left alone.")
    breaker_pause: float = setting(30.0, duration, "How long it is left alone before one request may try it again.")
    sticky: float = setting(
        300.0, duration, "How long a conversation stays with the candidate that has its beginning in its cache."
    )


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """Money: what is reserved before a call, and what local work costs."""

    max_tokens: int = setting(
        4096, whole, "Most tokens that a request under a budget may write when it does not say itself."
    )
    electricity: float = setting(0.0, amount, "US dollars for a kilowatt hour; models with `watts` cost that.")
    lease: float = setting(
        0.05, amount, "Part of what a budget has left that a server takes at a time, to spend without asking again."
    )


@dataclass(frozen=True, slots=True)
class UsageSettings:
    """What is written down of each answer, and for how long."""

    keep: float = setting(30 * 86400.0, duration, "How long single answers and their receipts are kept.")
    keep_rows: int = setting(10_000_000, whole, "How many single answers are kept at most; the oldest go first.")
    keep_hours: float = setting(90 * 86400.0, duration, "How long sums of an hour are kept; those of a day stay.")
    write_every: float = setting(0.5, duration, "How often what was used is written to the database.")


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """Keys."""

    required: str = setting(
        "auto",
        choice("auto", "always"),
        "`auto`: a key is needed once CORRAL_API_KEY is set or one key exists. `always`: from the start.",
    )


@dataclass(frozen=True, slots=True)
class RouteSettings:
    """What a name leads to, where it is more than one model."""

    models: tuple[str, ...] = setting((), names, "The candidates, in order.")
    policy: str = setting(
        "ordered",
        choice("ordered", "weighted", "cheapest", "fastest", "least_busy"),
        "`ordered`, `weighted`, `cheapest`, `fastest` or `least_busy`: how candidates that can do it are ordered.",
    )
    weights: Mapping[str, float] = mapping(amounts, "Share of the requests by candidate, for `weighted`; 1 by default.")
    limits: Mapping[str, int] = mapping(counts, "Most requests at a time by candidate; beyond that the next is asked.")
    retries: int | None = setting(None, count, "As `routing.retries`, for this route.")
    sticky: bool = setting(True, flag, "Stay with the candidate that had the conversation before, for its cache.")
    hedge: float | None = setting(
        None, duration, "When nothing has come after this long, the next candidate is asked as well, and paid for."
    )
    overflow: bool = setting(True, flag, "A prompt too long for one candidate goes to the next that holds it.")
    connect_timeout: float | None = setting(None, duration, "As `upstream.connect_timeout`, for this route.")
    first_byte_timeout: float | None = setting(None, duration, "As `upstream.first_byte_timeout`, for this route.")
    between_timeout: float | None = setting(None, duration, "As `upstream.between_timeout`, for this route.")
    total_timeout: float | None = setting(None, duration, "As `upstream.total_timeout`, for this route.")


@dataclass(frozen=True, slots=True)
class PriceSettings:
    """What a model costs, where that is not known or known wrongly. In US dollars; tokens by the million."""

    input: float | None = setting(None, amount, "A million tokens of prompt.")
    output: float | None = setting(None, amount, "A million tokens of answer.")
    cached: float | None = setting(None, amount, "A million tokens of prompt that the vendor had in its cache.")
    cache_write: float | None = setting(None, amount, "A million tokens of prompt that the vendor put into its cache.")
    reasoning: float | None = setting(None, amount, "A million tokens of thought. Default: as of answer.")
    audio_input: float | None = setting(None, amount, "A million tokens of sound in the prompt.")
    audio_output: float | None = setting(None, amount, "A million tokens of sound in the answer.")
    request: float | None = setting(None, amount, "A request.")
    image: float | None = setting(None, amount, "A picture that is made.")
    hour: float | None = setting(None, amount, "An hour of a local engine's work.")
    watts: float | None = setting(None, amount, "What a local engine draws at work, paid as `ledger.electricity`.")
    like: str | None = setting(None, text, "Priced as this model of the price list, such as `openai:gpt-5`.")
    batch: float | None = setting(None, amount, "What a batch pays of the price, such as 0.5.")
