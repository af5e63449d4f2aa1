"""How much memory an engine will take, from the model's own metadata, and whether a machine has it. Pure.

What an engine holds: its weights; the context, two vectors for each token and layer; the buffers of one step; and the
process around them. The first two are arithmetic on what the file says, the others were measured with llama.cpp. What
the file does not say is guessed on the large side, and the estimate tells so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from corral.domain.sizes import human

DEFAULT_CONTEXT = 4096
DEFAULT_SLOTS = 4

_PROCESS = 48 * 1024**2
_STEP = 512
"""Tokens that are computed at once."""
_ACTIVATIONS = 16
"""Vectors of the model's width that are alive for each token of a step."""
_GUESSED_CONTEXT = 0.12
"""The context of one slot of 4096 tokens over the weights, where the file does not say; it is less for most models."""
_EASE = 0.9
"""Of what is free, an estimate may take this much and still count as fitting with ease."""

# Bytes of one number of the context, by its format; the quantised ones keep a scale for each block of 32.
_NUMBERS: Mapping[str, float] = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}

# Every how many layers one sees the whole context, where the others see a window and the file does not say which.
_PATTERNS: Mapping[str, int] = {
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gpt-oss": 2,
    "cohere2": 4,
    "exaone4": 4,
    "olmo2": 4,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How an engine would be loaded. `context` in tokens for each slot; None is what a runtime takes by default."""

    context: int | None = None
    slots: int = DEFAULT_SLOTS
    keys: str = "f16"
    values: str = "f16"


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes an engine will take. `cells` is the context; `logits` counts on a GPU only, where it is set aside at once.

    `tokens` is the context of each slot that it was reckoned with. `guessed` says that the file did not tell enough.
    """

    weights: int
    cells: int
    compute: int
    logits: int
    process: int
    tokens: int
    slots: int
    guessed: bool = False

    @property
    def total(self) -> int:
        """All of it, on the processor."""
        return self.weights + self.cells + self.compute + self.process

    @property
    def on_gpu(self) -> int:
        """What a GPU must have for all of it; the process stays outside."""
        return self.weights + self.cells + self.compute + self.logits


@dataclass(frozen=True, slots=True)
class Room:
    """Memory that a model may use. `id` is `cpu`, `cuda:0`, …; `total` and `free` in bytes, None when unknown."""

    id: str
    total: int | None
    free: int | None


class Verdict(StrEnum):
    """Whether a model fits."""

    YES = "yes"
    TIGHT = "tight"
    NO = "no"


@dataclass(frozen=True, slots=True)
class DeviceFit:
    """How a model fits one device: bytes `needed`, and the device's own."""

    device: str
    verdict: Verdict
    needed: int
    free: int | None
    total: int | None


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether a model fits a machine, and why, in words; `devices` in the order in which they would be taken."""

    verdict: Verdict | None
    reason: str
    estimate: Estimate
    devices: tuple[DeviceFit, ...] = ()


def estimate(facts: Mapping[str, Any], size: int, plan: Plan | None = None) -> Estimate:
    """What an engine of a model will take, by the facts of its files and their `size` in bytes."""
    plan = plan or Plan()
    trained = _number(facts, "context_length")
    tokens = plan.context or DEFAULT_CONTEXT
    if trained is not None:
        tokens = min(tokens, trained)
    width = _number(facts, "embedding_length")
    per_slot = _cells(facts, tokens, plan)
    guessed = per_slot is None
    if per_slot is None:
        per_slot = round(size * _GUESSED_CONTEXT * tokens / DEFAULT_CONTEXT)
    return Estimate(
        weights=size,
        cells=per_slot * plan.slots,
        compute=_STEP * 4 * _ACTIVATIONS * width if width else round(size * 0.02),
        logits=_STEP * 4 * (_number(facts, "vocab_size") or 0),
        process=_PROCESS,
        tokens=tokens,
        slots=plan.slots,
        guessed=guessed,
    )


def fit(estimate: Estimate, rooms: Sequence[Room]) -> Fit:
    """Whether it fits into these memories, best device first; the processor's own is called `cpu`.

    yes: into what is free of the best one, with ease. tight: only just, only when others leave, or only on a lesser
    device or on several. no: not even when all is free. None: nothing is known of the memory.
    """
    found = tuple(_on(estimate, room) for room in rooms)
    known = [device for device in found if device.total is not None]
    if not known:
        return Fit(None, f"needs {human(estimate.total)}; how much memory there is, is not known", estimate, found)
    best = known[0]
    need = f"needs {human(best.needed)}{_how(estimate)}"
    if best.verdict is Verdict.YES:
        return Fit(Verdict.YES, f"{need}; {_left(best)}", estimate, found)
    lesser = next((device for device in known[1:] if device.verdict is not Verdict.NO), None)
    if best.verdict is Verdict.TIGHT:
        if lesser is not None and best.free is not None and best.needed > best.free:
            return Fit(Verdict.TIGHT, f"{need}; {_left(best)}; {lesser.device} has room, too", estimate, found)
        return Fit(Verdict.TIGHT, f"{need}; {_left(best)}", estimate, found)
    if lesser is not None:
        return Fit(
            Verdict.TIGHT,
            f"{need}, more than {best.device} has ({_total(best)}); {lesser.device} has room",
            estimate,
            found,
        )
    together = sum(device.total or 0 for device in known)
    if len(known) > 1 and estimate.total <= together * _EASE:
        names = " and ".join(device.device for device in known)
        return Fit(Verdict.TIGHT, f"{need}; only {names} together have that ({human(together)})", estimate, found)
    return Fit(Verdict.NO, f"{need}, more than {best.device} has ({_total(best)})", estimate, found)


def _on(estimate: Estimate, room: Room) -> DeviceFit:
    needed = estimate.total if room.id == "cpu" else estimate.on_gpu
    if room.total is None or needed > room.total:
        verdict = Verdict.NO
    elif room.free is not None and needed <= room.free * _EASE:
        verdict = Verdict.YES
    else:
        verdict = Verdict.TIGHT
    return DeviceFit(room.id, verdict, needed, room.free, room.total)


def _cells(facts: Mapping[str, Any], tokens: int, plan: Plan) -> int | None:
    """Bytes of one slot's context; None when the facts do not tell."""
    layers = _number(facts, "block_count")
    heads = _per_layer(facts, "head_count", layers)
    kv_heads = _per_layer(facts, "head_count_kv", layers) or heads
    if layers is None or heads is None or kv_heads is None:
        return None
    width = _number(facts, "embedding_length")
    most = max(heads, default=0)
    own = width // most if width and most else None
    key = _number(facts, "key_length") or own
    value = _number(facts, "value_length") or own
    if key is None or value is None:
        return None
    token = key * _NUMBERS.get(plan.keys, 2.0) + value * _NUMBERS.get(plan.values, 2.0)
    window = _number(facts, "sliding_window")
    windowed = _windowed(facts, layers) if window else (False,) * layers
    total = 0.0
    for count, short in zip(kv_heads, windowed, strict=True):
        # A window is kept with the step that moves it.
        held = min(tokens, window + _STEP) if short and window else tokens
        total += held * count * token
    return round(total)


def _windowed(facts: Mapping[str, Any], layers: int) -> tuple[bool, ...]:
    """Of each layer, whether it sees only a window; all see everything where nobody says."""
    pattern = facts.get("sliding_window_pattern")
    if isinstance(pattern, Sequence) and not isinstance(pattern, str) and len(pattern) == layers:
        return tuple(bool(item) for item in pattern)
    every = pattern if isinstance(pattern, int) and pattern > 0 else _PATTERNS.get(str(facts.get("architecture")))
    if every is None:
        return (False,) * layers
    return tuple(layer % every < every - 1 for layer in range(layers))


def _per_layer(facts: Mapping[str, Any], key: str, layers: int | None) -> tuple[int, ...] | None:
    value = facts.get(key)
    if layers is None:
        return None
    if isinstance(value, int):
        return (max(0, value),) * layers
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == layers:
        return tuple(max(0, int(item)) for item in value)
    return None


def _number(facts: Mapping[str, Any], key: str) -> int | None:
    value = facts.get(key)
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        value = max(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _how(estimate: Estimate) -> str:
    slots = "" if estimate.slots == 1 else f"{estimate.slots} x "
    guess = ", a guess" if estimate.guessed else ""
    return f" with {slots}{estimate.tokens} tokens of context{guess}"


def _left(device: DeviceFit) -> str:
    if device.free is None:
        return f"{device.device} has {_total(device)}, how much of it is free is not known"
    return f"{device.device} has {human(device.free)} free of {_total(device)}"


def _total(device: DeviceFit) -> str:
    return human(device.total or 0)
