"""Why an engine of llama.cpp did not start, in plain words, from what it logged."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from corral.errors import EngineStartFailed, OutOfMemory

if TYPE_CHECKING:
    from collections.abc import Sequence

_STAMP = re.compile(r"^[\d.]+ E +(?:\w+ +)?[\w:()]+: ?")
_NOISE = re.compile(
    r"exiting due to|common_fit_params|failed to (load|load multimodal|create\w* ?\w* with) model(,? '| from|$)"
)
_MEMORY = re.compile(
    r"(unable|failed) to (re)?alloc|failed to (allocate|reserve)|out of (device |host )?memory|want of memory"
    r"|OutOf\w*Memory|[Cc]annot allocate|bad_alloc|cudaMalloc|[A-Z]+_ERROR_OUT_OF_MEMORY|mlock|alloc_buffer"
    r"|alloc_tensor_range|insufficient memory"
)
_LESS = "Give it less to hold: fewer slots, a smaller context, cache_type_k and cache_type_v q8_0, fewer gpu_layers."
_HINTS = (
    (r"SIGILL", "This build of xllamacpp needs a processor with AVX2."),
    (r"[Pp]ermission denied", "Corral may not read one of the model's files: see its owner and mode (ls -l)."),
    (r"No such file", "One of the model's files is gone. To install it again: corral rm, corral pull."),
    (r"unknown model architecture", "A newer llama.cpp may know it: pip install --upgrade xllamacpp"),
    (
        r"V cache.*flash_attn|flash_attn.*V cache|[Ff]lash [Aa]ttention",
        "Set flash_attention: true, or cache_type_v: f16.",
    ),
    (
        r"mmproj|CLIP|multimodal|clip_|mtmd|projector",
        "Check the option mmproj: a projector fits only the model that it was made for.",
    ),
    (r"lora|adapter", "Check the option lora: an adapter fits only the model it was made from."),
    (r"chat template|template.*pars|[Jj]inja", "Check the option chat_template."),
    (r"[Pp]ooling|rerank|embedding", "Check the options pooling, embeddings and rerank."),
    (
        r"magic|corrupt|incomplete|error loading model|GGUF|gguf|key-value pairs|tensor (info|data)",
        "The file is damaged or of a kind llama.cpp does not read. To install it again: corral rm, corral pull.",
    ),
)


def diagnose(title: str, reason: str, log: Sequence[str]) -> EngineStartFailed:
    """The error of a failed start: the lines of llama.cpp's log that decide, and what to do about them.

    `OutOfMemory` when a device or the machine had too little.
    """
    errors: dict[str, None] = {}
    for line in log:
        if _STAMP.match(line) and not _NOISE.search(line):
            errors[_STAMP.sub("", line)] = None
    if not errors:
        tail = [line for line in log if line.strip()][-2:]
        errors = dict.fromkeys(tail)
    said = "; ".join(list(errors)[:3]) or "it printed nothing"
    message = f"{title} {reason}: {said}."
    if _MEMORY.search(f"{reason} {'; '.join(errors)}"):
        return OutOfMemory(message, _LESS)
    for pattern, hint in _HINTS:
        if re.search(pattern, f"{reason} {said}"):
            return EngineStartFailed(message, hint)
    return EngineStartFailed(message, "Its log may say more.")
