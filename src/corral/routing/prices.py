"""What models cost: from the price list of `genai-prices`, or as the configuration says.

The list takes a quarter of a second to import, so it is when a model of a vendor is first asked for. Its decimals are
made whole nanodollars once; afterwards a price is a look into a dictionary.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from math import ceil, inf
from typing import TYPE_CHECKING, Any, Final

from corral.domain.money import FREE, UNKNOWN, Price, Tier, nano

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.config.traffic import PriceSettings
    from corral.domain.ports import Clock

_CLASSES: Final = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cached": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "reasoning": "output_reasoning_mtok",
    "audio_input": "input_audio_mtok",
    "audio_output": "output_audio_mtok",
}
"""Our classes of tokens, as the price list calls them."""
_WHILE: Final = 900.0
"""Seconds for which a price is believed that depends on the time: such prices change at full quarters of an hour."""
_HOUR: Final = 3600
_BATCH: Final = {"processing": "batch"}
_loading = threading.Lock()


class Prices:
    """The prices of all models.

    Safe to be asked from several threads. The first question about a vendor's model blocks for a quarter of a second.

    Args:
        settings: `prices` of the configuration, by model.
        electricity: US dollars for a kilowatt hour.
        clock: some prices depend on the date or the time of day, in UTC.
    """

    def __init__(self, settings: Mapping[str, PriceSettings], electricity: float, clock: Clock) -> None:
        self.unknown = 0
        """Models asked for whose price is not known."""
        self._settings = settings
        self._electricity = electricity
        self._clock = clock
        self._found: dict[tuple[str, str | None, str | None, bool, bool], tuple[Price, float]] = {}

    def take_over(self, settings: Mapping[str, PriceSettings]) -> None:
        """Go by other `prices` of the configuration from now on."""
        if settings != self._settings:
            self._settings = settings
            self._found = {}

    def of(
        self, model: str, provider: str | None, upstream_model: str | None, local: bool, *, batch: bool = False
    ) -> Price:
        """What `model` costs now; `UNKNOWN` where nobody says.

        Args:
            model: its name here, under which the configuration may have a price.
            provider: whose prices hold, as the price list calls it; None where that is not known.
            upstream_model: what the provider calls it.
            local: it runs on this machine: free, but for what the configuration says of it.
            batch: asked for in a batch.
        """
        name = (model, provider, upstream_model, local, batch)
        found = self._found.get(name)
        if found is not None and (found[1] == inf or self._clock.wall() < found[1]):
            return found[0]
        price, until = self._look(model, provider, upstream_model or model, local=local, batch=batch)
        if found is None and not price.known:
            self.unknown += 1
        self._found[name] = (price, until)
        return price

    def _look(
        self, model: str, provider: str | None, upstream: str, *, local: bool, batch: bool
    ) -> tuple[Price, float]:
        entry = self._settings.get(model)
        until = inf
        if entry is not None and entry.like:
            vendor, _, like = entry.like.rpartition(":")
            base, until = self._listed(like, vendor or None, batch=batch and entry.batch is None)
        elif local:
            base = FREE
        elif provider is not None:
            base, until = self._listed(upstream, provider, batch=batch and (entry is None or entry.batch is None))
        else:
            base = UNKNOWN
        return (base if entry is None else _overridden(base, entry, model, self._electricity, batch=batch)), until

    def _listed(self, model: str, provider: str | None, *, batch: bool) -> tuple[Price, float]:
        """The price of the price list, and until when it can be believed."""
        with _loading:  # the list builds its own tables at the first use, and threads must not meet in that
            from genai_prices.data_snapshot import get_snapshot

            now = self._clock.wall()
            moment = datetime.fromtimestamp(now, UTC)
            try:
                vendor, entry = get_snapshot().find_provider_model(model, None, provider, None)
            except LookupError:
                return UNKNOWN, inf
            values = entry.get_prices(moment, _BATCH if batch else None).__dict__
            source = f"genai-prices {version('genai-prices')} {vendor.id}:{entry.id}"
            variants = entry.price_variants or []
            conditions: list[Any] = entry.prices if isinstance(entry.prices, list) else []
            dated = any(each.constraint is not None for each in [*conditions, *variants])
            since = _since(conditions, moment)
        price = _converted(values, f"{source}{since}{' batch' if batch else ''}")
        return price, (now // _WHILE + 1) * _WHILE if dated else inf


def _since(conditions: list[Any], moment: datetime) -> str:
    """By which condition the price holds now, in words."""
    for each in reversed(conditions):
        if each.constraint is None:
            return ""
        if each.constraint.active(moment):
            start = getattr(each.constraint, "start_date", None)
            if start is not None:
                return f" since {start}"
            return f" {each.constraint.start_time:%H:%M}-{each.constraint.end_time:%H:%M} UTC"
    return ""


def _converted(values: Mapping[str, Any], source: str) -> Price:
    """A price of the list as ours; what is not paid by the token, the request or the picture is left out."""
    found = {ours: values.get(theirs) for ours, theirs in _CLASSES.items()}
    if found["input"] is None and found["output"] is None:
        return UNKNOWN
    steps = sorted({0, *(tier.start for value in found.values() for tier in getattr(value, "tiers", ()))})
    tiers = tuple(_tier(found, step) for step in steps)
    requests = values.get("requests_kcount")
    return Price(tiers, request=0 if requests is None else nano(_at(requests, 0) / 1000), source=source)


def _tier(found: Mapping[str, Any], over: int) -> Tier:
    amounts = {name: None if value is None else nano(_at(value, over)) for name, value in found.items()}
    input_, output = amounts.pop("input"), amounts.pop("output")
    return Tier(input=input_ or 0, output=output or 0, over=over, **amounts)


def _at(value: Any, over: int) -> Decimal:
    """A price of the list, for a prompt of more than `over` tokens."""
    base: Decimal = getattr(value, "base", value)
    for tier in getattr(value, "tiers", ()):
        if tier.start <= over:
            base = tier.price
    return base


def _overridden(base: Price, entry: PriceSettings, model: str, electricity: float, *, batch: bool) -> Price:
    """`base` with what the configuration says of the model; what it does not say stays."""
    given = _given(entry, tuple(_CLASSES))
    hourly = (entry.hour or 0.0) + (entry.watts or 0.0) / 1000 * electricity
    once: dict[str, Any] = {
        name: nano(value) for name in ("request", "image") if (value := getattr(entry, name)) is not None
    }
    timed: dict[str, Any] = (
        {"second": nano(hourly / _HOUR)} if entry.hour is not None or entry.watts is not None else {}
    )
    if not (given or once or timed):
        price = base
    elif not base.known and not {"input", "output"} <= given.keys() and not once:
        price = base  # half a price, or that of an hour, says nothing of what a vendor's tokens cost
    else:
        tiers = base.tiers if base.known else (Tier(),)
        price = replace(base, tiers=tuple(replace(tier, **given) for tier in tiers), **once, **timed, known=True)
    if price is not base:
        over = f" over {base.source}" if base.known and base is not FREE else ""
        price = replace(price, source=f"prices.{model}{over}")
    elif entry.like and price.known:
        price = replace(price, source=f"prices.{model} like {base.source}")
    if batch and entry.batch is not None and price.known:
        price = _scaled(price, entry.batch)
    return price


def _given(entry: PriceSettings, names: tuple[str, ...]) -> dict[str, Any]:
    """What the configuration says of these, in nanodollars."""
    return {name: nano(value) for name in names if (value := getattr(entry, name)) is not None}


def _scaled(price: Price, factor: float) -> Price:
    """All of a price times `factor`, rounded up."""

    def times(amount: int) -> int:
        return ceil(Decimal(amount) * Decimal(str(factor)))

    tiers = tuple(
        replace(
            tier,
            **{name: times(amount) for name in _CLASSES if (amount := getattr(tier, name)) is not None},
        )
        for tier in price.tiers
    )
    return replace(
        price,
        tiers=tiers,
        request=times(price.request),
        image=times(price.image),
        second=times(price.second),
        source=f"{price.source} x{factor:g} batch",
    )
