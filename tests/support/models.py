"""Small GGUF files and wheels that carry them, made on the spot."""

from __future__ import annotations

import hashlib
import io
import json
import math
import random
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

CHATML = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def value(item: Any) -> bytes:
    """A metadata value with its type in front."""
    if isinstance(item, bool):
        return struct.pack("<I?", 7, item)
    if isinstance(item, int):
        return struct.pack("<II", 4, item)
    if isinstance(item, float):
        return struct.pack("<If", 6, item)
    if isinstance(item, str):
        return struct.pack("<I", 8) + text(item)
    if item and isinstance(item[0], str):
        return struct.pack("<IIQ", 9, 8, len(item)) + b"".join(map(text, item))
    return struct.pack("<IIQ", 9, 5, len(item)) + struct.pack(f"<{len(item)}i", *item)


def tensor(name: str, shape: Iterable[int], kind: int, offset: int) -> bytes:
    shape = tuple(shape)
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "general.name": "Tiny",
    "general.file_type": 0,
    "general.license": "mit",
    "llama.context_length": 128,
    "llama.block_count": 1,
    "llama.embedding_length": 8,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": ["<s>", "a", "b"],
    "tokenizer.chat_template": CHATML,
}


def gguf(elements: int = 256, seed: int = 0, *, version: int = 3, drop: Iterable[str] = (), **changes: Any) -> bytes:
    """A sound file of `elements` floats; `changes` replace metadata, with `__` for a dot; `drop` leaves some out."""
    metadata = METADATA | {key.replace("__", "."): item for key, item in changes.items()}
    metadata = {key: item for key, item in metadata.items() if key not in set(drop)}
    head = b"GGUF" + struct.pack("<IQQ", version, 1, len(metadata))
    head += b"".join(text(key) + value(item) for key, item in metadata.items())
    head += tensor("weights", (elements,), 0, 0)
    head += b"\0" * (-len(head) % 32)
    return head + random.Random(seed).randbytes(4 * elements)


def split_gguf(count: int = 3, elements: int = 64, **changes: Any) -> dict[str, bytes]:
    """The pieces of a sound model, by name: the first has the metadata, each one tensor."""
    made = {}
    for number in range(count):
        metadata: dict[str, Any] = METADATA | changes if number == 0 else {}
        metadata |= {"split.no": number, "split.count": count, "split.tensors.count": count}
        head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(metadata))
        head += b"".join(text(key) + value(item) for key, item in metadata.items())
        head += tensor(f"weights.{number}", (elements,), 0, 0)
        head += b"\0" * (-len(head) % 32)
        made[f"tiny-{number + 1:05}-of-{count:05}.gguf"] = head + random.Random(number).randbytes(4 * elements)
    return made


def safetensors(tensors: Mapping[str, tuple[str, tuple[int, ...]]], seed: int = 0, **notes: str) -> bytes:
    """A sound file; each tensor is of the type F32 or BF16, and of a shape."""
    table: dict[str, Any] = {"__metadata__": notes} if notes else {}
    at = 0
    for name, (kind, shape) in tensors.items():
        size = math.prod(shape) * (4 if kind == "F32" else 2)
        table[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(table).encode()
    return struct.pack("<Q", len(head)) + head + random.Random(seed).randbytes(at)


CARD = b"---\nlicense: apache-2.0\nlanguage:\n- en\n- de\npipeline_tag: text-generation\n---\n# Tiny\n"


def snapshot(shards: int = 1, **changes: bytes | None) -> dict[str, bytes]:
    """The files of a small model as `transformers` writes it; `changes` replace or drop some, `__` being a dot."""
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "max_position_embeddings": 2048}
    config |= {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 9,
    }
    tokens = {"chat_template": CHATML, "bos_token": "<s>", "eos_token": {"content": "</s>", "special": True}}
    files: dict[str, bytes | None] = {
        "README.md": CARD,
        "config.json": json.dumps(config).encode(),
        "generation_config.json": json.dumps({"temperature": 0.6, "top_p": 0.9, "do_sample": True}).encode(),
        "tokenizer.json": json.dumps({"version": "1.0", "model": {"type": "BPE"}}).encode(),
        "tokenizer_config.json": json.dumps(tokens).encode(),
    }
    if shards == 1:
        files["model.safetensors"] = safetensors({"a": ("BF16", (9, 8)), "b": ("F32", (8,))}, format="pt")
    else:
        names = {f"w{n}": f"model-{n:05}-of-{shards:05}.safetensors" for n in range(1, shards + 1)}
        files |= {name: safetensors({key: ("BF16", (9, 8))}, seed=len(key)) for key, name in names.items()}
        files["model.safetensors.index.json"] = json.dumps({"metadata": {}, "weight_map": names}).encode()
    files |= {name.replace("__", "."): data for name, data in changes.items()}
    return {name: data for name, data in sorted(files.items()) if data is not None}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def wheel(name: str, version: str, members: Mapping[str, bytes], requires: Iterable[str] = ()) -> tuple[str, bytes]:
    """File name and bytes of a wheel with those members in its package."""
    package = name.replace("-", "_").replace(".", "_")
    metadata = (
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nLicense: MIT\nHome-page: https://example.org/\n"
    )
    metadata += "".join(f"Requires-Dist: {item}\n" for item in requires)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for member, data in members.items():
            archive.writestr(f"{package}/{member}", data)
        archive.writestr(f"{package}-{version}.dist-info/METADATA", metadata)
        archive.writestr(f"{package}-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    return f"{package}-{version}-py3-none-any.whl", out.getvalue()


def folder_index(root: Path, *wheels: tuple[str, bytes], digests: bool = True) -> str:
    """Lay the wheels out as a local index under `root`; its `file:` URL."""
    files = root / "files"
    files.mkdir(parents=True, exist_ok=True)
    for filename, data in wheels:
        (files / filename).write_bytes(data)
        page = root / "simple" / filename.split("-")[0].replace("_", "-") / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        fragment = f"#sha256={sha256(data)}" if digests else ""
        old = page.read_text() if page.exists() else "<!DOCTYPE html>"
        page.write_text(f'{old}<a href="../../files/{filename}{fragment}">{filename}</a>\n')
    return (root / "simple").as_uri()


def only(index: str, **more: str) -> dict[str, str]:
    """An environment in which that index is the only one, whatever this machine's pip is told."""
    nothing = dict.fromkeys(("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"), "")
    env = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index, "PIP_RETRIES": "2", "HOME": "/nonexistent"}
    return {**nothing, **env, **more}
