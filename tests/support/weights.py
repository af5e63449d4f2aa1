"""Small GGUF files that llama.cpp really loads: an adapter for a model, and a ranking model of random weights."""

from __future__ import annotations

import math
import random
import struct
from array import array
from collections.abc import Mapping
from typing import Any

from tests.support.models import tensor, text, value

_PAGE = 32
Tensors = Mapping[str, tuple[tuple[int, ...], "array[float]"]]


def file(metadata: Mapping[str, Any], tensors: Tensors) -> bytes:
    """A whole file; each tensor is its shape, the innermost first, and its 32-bit floats."""
    table, data = b"", bytearray()
    for name, (shape, numbers) in tensors.items():
        table += tensor(name, shape, 0, len(data))
        data += numbers.tobytes()
        data += bytes(-len(data) % _PAGE)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    head += b"".join(text(key) + value(item) for key, item in metadata.items()) + table
    return head + bytes(-len(head) % _PAGE) + data


def noise(seed: int, *shape: int, scale: float = 1.0) -> tuple[tuple[int, ...], array[float]]:
    """A tensor of random numbers."""
    chance = random.Random(seed)
    return shape, array("f", (chance.gauss(0, scale) for _ in range(math.prod(shape))))


def same(number: float, *shape: int) -> tuple[tuple[int, ...], array[float]]:
    """A tensor of one number."""
    return shape, array("f", [number]) * math.prod(shape)


def adapter(scale: float, *, width: int = 576, layers: int = 30, architecture: str = "llama", seed: int = 1) -> bytes:
    """A LoRA of rank 1 on the queries of every layer; with a `scale` of 0 it changes nothing."""
    metadata = {
        "general.type": "adapter",
        "general.architecture": architecture,
        "adapter.type": "lora",
        "adapter.lora.alpha": 1.0,
    }
    tensors = {}
    for layer in range(layers):
        name = f"blk.{layer}.attn_output.weight"
        tensors[f"{name}.lora_a"] = noise(seed + layer, width, 1)
        tensors[f"{name}.lora_b"] = noise(seed + 100 + layer, 1, width, scale=scale)
    return file(metadata, tensors)


_WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *(f"\u2581{word}" for word in ("cat", "dog", "law", "tax", "a")),
]


def ranker(width: int = 32, context: int = 64) -> bytes:
    """A BERT of one layer with a head that gives one score; what it thinks is random, and always the same."""
    metadata = {
        "general.architecture": "bert",
        "general.name": "Tiny ranker",
        "bert.context_length": context,
        "bert.embedding_length": width,
        "bert.feed_forward_length": width,
        "bert.block_count": 1,
        "bert.attention.head_count": 2,
        "bert.attention.layer_norm_epsilon": 1e-5,
        "bert.attention.causal": False,
        "bert.pooling_type": 4,
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": _WORDS,
        "tokenizer.ggml.token_type": [3, 2, 3, 3, 3, *[1] * (len(_WORDS) - 5)],
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.unknown_token_id": 1,
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.cls_token_id": 2,
        "tokenizer.ggml.seperator_token_id": 3,
        "tokenizer.ggml.eos_token_id": 3,
        "tokenizer.ggml.mask_token_id": 4,
    }
    tensors = {
        "token_embd.weight": noise(1, width, len(_WORDS)),
        "token_types.weight": noise(2, width, 2),
        "position_embd.weight": noise(3, width, context),
        "cls.weight": noise(4, width, width),
        "cls.bias": same(0, width),
        "cls.output.weight": noise(5, width, 1),
        "cls.output.bias": same(0, 1),
    }
    for number, name in enumerate(("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down")):
        tensors[f"blk.0.{name}.weight"] = noise(10 + number, width, width, scale=0.3)
        tensors[f"blk.0.{name}.bias"] = same(0, width)
    for name in ("token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm"):
        tensors[f"{name}.weight"] = same(1, width)
        tensors[f"{name}.bias"] = same(0, width)
    return file(metadata, tensors)
