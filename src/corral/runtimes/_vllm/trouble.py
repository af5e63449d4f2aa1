"""What vLLM's last words mean. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from corral.errors import EngineStartFailed, OutOfMemory

if TYPE_CHECKING:
    from collections.abc import Sequence

# (EngineCore pid=619) ERROR 11-21 16:53:45 [core.py:1023] ValueError: …
_STAMP = re.compile(r"^(\(\w[^)]*pid=\d+\) ?)?((ERROR|WARNING|INFO|CRITICAL) [\d-]+ [\d:]+ \[[^\]]*\] ?)?")
_RAISED = re.compile(r"^(?:[a-z_]\w*\.)*([A-Z]\w*(?:Error|Exception|Exit)): (.+)")
_VALUE = re.compile(r"^Value error, (.+?)(?: \[type=.*)?$")
_USAGE = re.compile(r"^(?:vllm(?: serve)?|api_server\.py): error: (.+)")
_LINKER = re.compile(r"(\S+\.so[.\d]*: cannot open shared object file.*)")
_ECHOES = re.compile(
    r"Engine core initialization failed|WorkerProc initialization failed|Executor failed|See root cause|"
    r"Engine process failed|EngineDeadError|cancelled|leaked (semaphore|shared_memory)"
)

_MEMORY = re.compile(
    r"out of memory|OutOfMemoryError|MemoryError|No available memory for the cache blocks|can't allocate memory|"
    r"cannot allocate memory|Available memory on node|Free memory on device|is less than desired|bad_alloc|"
    r"No space left on device.*shm|want of memory",
    re.IGNORECASE,
)
_SHORT_CACHE = re.compile(r"larger than the available KV cache|To serve at least one request", re.IGNORECASE)
_LONGEST = re.compile(r"estimated maximum model length is (\d+)")
_HINTS = (
    (
        (
            r"architectures? .*(not supported|failed to be inspected)|does not recognize this architecture|"
            r"no vLLM implementation|model type .* but Transformers"
        ),
        "This vLLM does not know the model's architecture: see corral runtimes for others, or update vLLM.",
    ),
    (r"cannot open shared object file", "Its environment is damaged. Type: corral runtimes install vllm"),
    (
        r"tokenizer|sentencepiece|tiktoken",
        "The snapshot lacks what turns text into tokens. To install it again: corral rm, corral pull.",
    ),
    (
        (
            r"safetensor|SafetensorError|header|weights were not initialized|Cannot find any model weights|"
            r"incomplete|checkpoint"
        ),
        "The files are damaged or not whole. To install them again: corral rm, corral pull.",
    ),
    (r"trust_remote_code|custom code", "If you trust the model's code: option trust_remote_code: true."),
    (r"chat.template", "Check the option chat_template."),
    (r"LoRA|lora|adapter", "Check the option lora: an adapter fits only the model it was made from."),
    (r"quantiz", "Check the option quantization: not every method runs on every device."),
    (r"tool.call.parser|tool parser|reasoning.parser", "Check the options tool_parser and reasoning_parser."),
    (r"invalid choice|unrecognized arguments|expected .*argument|invalid .* value", "Check the option args."),
    (r"bfloat16|float16|dtype", "Check the option dtype."),
    (r"Tensor parallel|world_size|number of (available )?GPUs", "Check tensor_parallel and pipeline_parallel."),
    (r"SIGILL", "This build of vLLM needs a processor with AVX2; the best are those with AVX-512."),
)


def diagnose(title: str, reason: str, log: Sequence[str]) -> EngineStartFailed:
    """The error of a start that failed: the line of vLLM's log that decides, and what to do about it."""
    said = _decisive([_STAMP.sub("", line).strip() for line in log])
    whole = f"{title} {reason}: {said}"
    if _SHORT_CACHE.search(said):
        longest = _LONGEST.search(said)
        fits = f"context {longest[1]}, or " if longest else "a smaller context, or "
        return OutOfMemory(f"{whole}.", f"One request does not fit: give it {fits}more cache_mib.")
    if _MEMORY.search(f"{reason} {said}"):
        return OutOfMemory(f"{whole}.", "Give it less to hold: fewer slots, a smaller context, less cache_mib.")
    for pattern, hint in _HINTS:
        if re.search(pattern, f"{reason} {said}", re.IGNORECASE):
            return EngineStartFailed(f"{whole}.", hint)
    return EngineStartFailed(f"{whole}.", "Its log may say more.")


def _decisive(lines: Sequence[str]) -> str:
    """The words that tell most: of errors that others merely pass on the last, and of no errors the end."""
    for pattern in (_USAGE, _VALUE):
        found = [match[1] for line in lines if (match := pattern.match(line))]
        if found:
            return _short(found[-1])
    raised = [
        f"{match[1]}: {match[2]}" for line in lines if (match := _RAISED.match(line)) and not _ECHOES.search(line)
    ]
    if raised:
        return _short(raised[-1].removeprefix("ValueError: ").removeprefix("RuntimeError: "))
    linked = [match[1] for line in lines if (match := _LINKER.search(line))]
    tail = [line for line in lines if line and not _ECHOES.search(line)]
    return _short((linked or tail or ["it printed nothing"])[-1])


def _short(text: str) -> str:
    return (text if len(text) <= 400 else f"{text[:400]}…").rstrip(" .")
