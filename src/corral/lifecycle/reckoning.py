"""How many bytes an engine takes, reckoned from what its model's files say. Pure.

What an engine holds: its weights; the context, two vectors for each token and layer; the buffers of one step; and the
process around them. The first two are arithmetic on what the file says, the others were measured with llama.cpp. What
the file does not say is guessed on the large side, and the estimate tells so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corral.domain.memory import DEFAULT_CONTEXT, Demand

_STEP = 512
"""Tokens that are computed at once."""
_ACTIVATIONS = 16
"""Vectors of the model's width that are alive for each token of a step."""
_TOKEN = 200
"""Bytes that the tables of a vocabulary take for each of its tokens, in the process."""
_GUESSED_TOKEN = 26_000
_GUESSED_SIZE = 100_000_000
_GUESSED_GROWTH = 0.45
"""Where the file does not say: bytes of the context for each token of a model of so many bytes, and how that grows with
the model. It is about right for models of 135M, 8B and 70B at 4 bits, and too much for most others."""

# Bytes of one number of the context, by its format; the quantised ones keep a scale for each block of 32.
_NUMBERS: Mapping[str, float] = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "fp8": 1.0,
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
class Estimate:
    """Bytes an engine will take. `cells` is the context; `logits` counts on a GPU only, where it is set aside at once.

    `overhead` is what the runtime takes on each GPU beside them. `tokens` is the context of each slot that it was
    reckoned with. `guessed` says that the file did not tell enough.
    """

    weights: int
    cells: int
    compute: int
    logits: int
    process: int
    tokens: int
    slots: int
    guessed: bool = False
    overhead: int = 0

    @property
    def total(self) -> int:
        """All of it, on the processor."""
        return self.weights + self.cells + self.compute + self.process

    @property
    def on_gpu(self) -> int:
        """What a GPU must have for all of it; the process stays outside."""
        return self.weights + self.cells + self.compute + self.logits + self.overhead


@dataclass(frozen=True, slots=True)
class Slices:
    """A model cut into layers: bytes of each one's weights and context, and of what belongs to none (`outer`).

    Those outer weights turn tokens into vectors and back; the processor keeps them however much a GPU takes, and a GPU
    that takes any layer has them, too.
    """

    outer: int
    weights: int
    cells: tuple[int, ...]

    @property
    def count(self) -> int:
        """Layers as llama.cpp counts them: the last turns vectors into tokens."""
        return len(self.cells) + 1

    def taken(self, layers: int) -> int:
        """Bytes of the last `layers` layers, of which the outer one is the first to go."""
        inner = min(max(0, layers - 1), len(self.cells))
        cells = sum(self.cells[len(self.cells) - inner :])
        return (self.outer if layers > 0 else 0) + inner * self.weights + cells

    def left(self, layers: int) -> int:
        """Bytes that stay with the processor then."""
        inner = min(max(0, layers - 1), len(self.cells))
        kept = len(self.cells) - inner
        return self.outer + kept * self.weights + sum(self.cells[:kept])


def estimate(facts: Mapping[str, Any], size: int, demand: Demand | None = None) -> Estimate:
    """What an engine of a model will take, by the facts of its files and their `size` in bytes."""
    demand = demand or Demand()
    trained = _number(facts, "context_length")
    tokens = demand.context or DEFAULT_CONTEXT
    if trained is not None:
        tokens = min(tokens, trained)
    if demand.fixed is not None:
        return Estimate(demand.fixed, 0, 0, 0, 0, tokens, demand.slots)
    weights = round(size * demand.weights)
    width, vocabulary = _number(facts, "embedding_length"), _number(facts, "vocab_size") or 0
    layers = _cells(facts, tokens, demand)
    if demand.cache is not None:
        cells = demand.cache
    elif layers is not None:
        cells = round(sum(layers)) * demand.slots
    else:
        cells = round(_GUESSED_TOKEN * (weights / _GUESSED_SIZE) ** _GUESSED_GROWTH * tokens) * demand.slots
    return Estimate(
        weights=weights,
        cells=cells,
        compute=_STEP * 4 * _ACTIVATIONS * width if width else round(weights * 0.02),
        logits=_STEP * 4 * vocabulary,
        process=demand.process + (_TOKEN * vocabulary if demand.cache is None else 0),
        tokens=tokens,
        slots=demand.slots,
        guessed=layers is None and demand.cache is None,
        overhead=demand.overhead,
    )


def slices(facts: Mapping[str, Any], found: Estimate, demand: Demand) -> Slices | None:
    """The estimate by layers; None where the file does not say how many there are, or nothing was estimated."""
    count = _number(facts, "block_count")
    if count is None or demand.fixed is not None:
        return None
    by_layer = None if demand.cache is not None else _cells(facts, found.tokens, demand)
    cells = (found.cells / count,) * count if by_layer is None else tuple(item * found.slots for item in by_layer)
    outer = min(found.weights, round(_outer(facts, found.weights) * demand.weights))
    return Slices(outer, (found.weights - outer) // count, tuple(round(item) for item in cells))


def trained_context(facts: Mapping[str, Any]) -> int | None:
    """Tokens that the model was trained for."""
    return _number(facts, "context_length")


def _outer(facts: Mapping[str, Any], size: int) -> int:
    """Bytes of the file's weights that belong to no layer."""
    inner = _number(facts, "block_bytes")
    if inner is not None:
        return max(0, size - inner)
    vocabulary, width, parameters = (_number(facts, key) for key in ("vocab_size", "embedding_length", "parameters"))
    if vocabulary is None or width is None or parameters is None:
        return round(size * 0.1)
    return round(size * min(1.0, vocabulary * width / parameters))


def _cells(facts: Mapping[str, Any], tokens: int, demand: Demand) -> tuple[float, ...] | None:
    """Bytes of one slot's context in each layer; None when the facts do not tell."""
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
    token = key * _NUMBERS.get(demand.keys, 2.0) + value * _NUMBERS.get(demand.values, 2.0)
    window = _number(facts, "sliding_window")
    windowed = _windowed(facts, layers) if window else (False,) * layers
    # A window is kept with the step that moves it.
    held = (min(tokens, window + _STEP) if short and window else tokens for short in windowed)
    return tuple(cells * count * token for cells, count in zip(held, kv_heads, strict=True))


def _windowed(facts: Mapping[str, Any], layers: int) -> tuple[bool, ...]:
    """Of each layer, whether it sees only a window; all see everything where nobody says."""
    pattern = facts.get("sliding_window_pattern")
    if isinstance(pattern, Sequence) and not isinstance(pattern, str) and len(pattern) == layers:
        return tuple(bool(item) for item in pattern)
    given = pattern if isinstance(pattern, int) and pattern > 0 else None
    every = given or _PATTERNS.get(str(facts.get("architecture")))
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
