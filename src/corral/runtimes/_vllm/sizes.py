"""What an engine of vLLM takes of memory, as far as it can be told before it is there. Pure.

The figures of a processor are measured (docs/runtimes.md); those of a GPU are assumed, on the large side,
until Corral has measured an engine on that machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from corral.domain.memory import DEFAULT_CONTEXT, Demand

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.runtimes._vllm.options import VllmOptions

MIB = 1024**2

PROCESS = 1800 * MIB
"""Three processes on a processor: the server, the engine's core, and the worker that computes."""
WORKER = 620 * MIB
"""One more worker."""
PROCESS_BESIDE_GPU = 3072 * MIB
OVERHEAD = 2048 * MIB
"""On each GPU: the driver's context, buffers of one step, captured graphs."""

_BLOCK = 128
"""Tokens in a block of the context on a processor; fewer on a GPU."""
_SPARE = 2
"""Blocks more: vLLM keeps one to itself."""
_UNKNOWN = 1024 * MIB
"""For the context of a model of which nothing is known."""
_NUMBERS = {"auto": 2, "bfloat16": 2, "float16": 2, "float32": 4, "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1}
_AT_LOAD = {"fp8": 0.55, "bitsandbytes": 0.35, "experts_int8": 0.6, "int8_per_channel_weight_only": 0.6}


def demand(options: VllmOptions, facts: Mapping[str, Any], on_processor: bool) -> Demand:
    """What an engine will want, of a model with these facts."""
    workers = options.parallel
    return Demand(
        context=context(options, facts),
        slots=options.slots,
        weights=_weights(options, facts),
        process=PROCESS + WORKER * (workers - 1) if on_processor else PROCESS_BESIDE_GPU + WORKER * (workers - 1),
        overhead=0 if on_processor else OVERHEAD,
        cache=cache(options, facts),
        device="cpu" if on_processor else options.device,
        parallel=1 if on_processor else workers,
    )


def context(options: VllmOptions, facts: Mapping[str, Any]) -> int:
    """Tokens of one request: what was asked for, or 4096, and never more than the model is known to be trained for."""
    trained = _count(facts, "context_length")
    asked = options.context or DEFAULT_CONTEXT
    return asked if trained is None else min(asked, trained)


def cache(options: VllmOptions, facts: Mapping[str, Any]) -> int:
    """Bytes for the context of all requests together, over all devices."""
    if options.cache_mib is not None:
        return options.cache_mib * MIB * options.parallel
    token = _token(options, facts)
    if token is None:
        return _UNKNOWN
    blocks = -(-context(options, facts) // _BLOCK) * options.slots + _SPARE
    return blocks * _BLOCK * token


def _token(options: VllmOptions, facts: Mapping[str, Any]) -> int | None:
    """Bytes of one token of context; None when the facts do not tell."""
    layers, heads = _count(facts, "block_count"), _most(facts, "head_count")
    kv_heads = _most(facts, "head_count_kv") or heads
    width = _count(facts, "embedding_length")
    head = _count(facts, "key_length") or (width // heads if width and heads else None)
    if layers is None or kv_heads is None or head is None:
        return None
    wide = options.cache_type == "auto" and options.dtype == "float32"
    return layers * kv_heads * 2 * head * (4 if wide else _NUMBERS[options.cache_type])


def _weights(options: VllmOptions, facts: Mapping[str, Any]) -> float:
    """Bytes of weights in memory over those in files."""
    stored = {"F32": 4, "F16": 2, "BF16": 2}.get(str(facts.get("quantization")).upper())
    if stored is None:
        return 1.0  # quantised already, or nobody knows
    if options.quantization is not None:
        return _AT_LOAD.get(options.quantization, 1.0) * 2 / stored
    return (4 if options.dtype == "float32" else 2) / stored


def _count(facts: Mapping[str, Any], key: str) -> int | None:
    value = facts.get(key)
    return value if isinstance(value, int) and value > 0 else None


def _most(facts: Mapping[str, Any], key: str) -> int | None:
    """A count that some models have once for each layer: the largest."""
    value = facts.get(key)
    if isinstance(value, (list, tuple)):
        return max((item for item in value if isinstance(item, int)), default=None)
    return _count(facts, key)
