"""What it costs to find out what a GGUF with a vocabulary of 256,000 can do, over reading every value of its header.

    python -m benchmarks.capabilities [--runs N] [--check]

The file is made on the spot: a header as of a large model, with tokens, scores, types and merges, and two gigabytes of
tensors that are only a hole. Each reading runs in a process of its own, in turns, so that a slow moment of the machine
falls on all of them. Printed are medians: seconds, their ratio to the plain reading, and the most memory that a process
held above one that only imported the same. The template is rendered in a process of its own; it is measured apart.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

VOCABULARY: Final = 256_000
ALLOWED_MEMORY: Final = 100.0
ALLOWED_RATIO: Final = 1.0
_TENSORS: Final = 2 << 30
_TEMPLATE: Final = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
_SCALARS: Final = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _texts(key: str, values: list[str]) -> bytes:
    return _text(key) + struct.pack("<IIQ", 9, 8, len(values)) + b"".join(map(_text, values))


def make(path: Path) -> None:
    """Write the file."""
    keys = [
        *(_text(key) + struct.pack("<I", 8) + _text(value) for key, value in _WORDS.items()),
        *(_text(key) + struct.pack("<II", 4, value) for key, value in _NUMBERS.items()),
        _texts("tokenizer.ggml.tokens", [f"\u2581token{number}" for number in range(VOCABULARY)]),
        _texts("tokenizer.ggml.merges", [f"a{number} b{number}" for number in range(VOCABULARY)]),
        _text("tokenizer.ggml.scores") + struct.pack(f"<IIQ{VOCABULARY}f", 9, 6, VOCABULARY, *range(VOCABULARY)),
        _text("tokenizer.ggml.token_type") + struct.pack("<IIQ", 9, 5, VOCABULARY) + b"\1\0\0\0" * VOCABULARY,
    ]
    table = _text("weights") + struct.pack("<IQIQ", 1, _TENSORS // 4, 0, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(keys)) + b"".join(keys) + table
    with path.open("wb") as out:
        out.write(head + bytes(-len(head) % 32))
        out.truncate(out.tell() + _TENSORS)


_WORDS: Final = {
    "general.architecture": "gemma3",
    "tokenizer.ggml.model": "llama",
    "tokenizer.chat_template": _TEMPLATE,
}
_NUMBERS: Final = {"gemma3.context_length": 131072, "gemma3.block_count": 62, "general.file_type": 0}


def plain(path: Path) -> object:
    """Every value of the header as a Python object, as a reader does that was not written for this."""
    with path.open("rb") as stream:

        def whole(width: int) -> int:
            return int.from_bytes(stream.read(width), "little")

        def value(kind: int) -> Any:
            if kind == 8:
                return stream.read(whole(8)).decode()
            if kind == 9:
                inner, length = whole(4), whole(8)
                return [value(inner) for _ in range(length)]
            code = _SCALARS[kind]
            return struct.unpack(code, stream.read(struct.calcsize(code)))[0]

        stream.seek(16)
        return {value(8): value(whole(4)) for _ in range(whole(8))}


def bare(path: Path) -> object:
    """The bytes of the header alone: the least that any reading costs."""
    with path.open("rb") as stream:
        return len(stream.read(20_000_000))


def corral(path: Path) -> object:
    """What Corral reads: the header, and what the model can do but for its template."""
    from corral.catalog import capabilities, formats, gguf
    from corral.catalog.prompting import Prompting

    shape = formats.Shape(formats.GGUF, (), header=gguf.read(path))
    return capabilities.of_shape(shape, {}, lambda _: Prompting(("user",))).facts["vocab_size"]


def template(path: Path) -> object:
    """The rendering of the template, which knows nothing of the file."""
    from corral.catalog import prompting

    return path.exists() and prompting.probe(prompting.Template(_TEMPLATE)).roles


READERS: Final = {"plain": plain, "bytes": bare, "corral": corral, "template": template}


def _held() -> float:
    """The most megabytes that this process held. On Linux a child's `ru_maxrss` begins with its parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = [line.split() for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(lines[0][1]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def one(name: str, path: Path) -> None:
    """Read once, and print seconds and megabytes."""
    from corral.catalog import capabilities  # noqa: F401 - imported by all of them, so that it counts for none

    before, started = _held(), time.perf_counter()
    READERS[name](path)
    print(json.dumps([time.perf_counter() - started, _held() - before, _held()]))


def main() -> int:
    """Measure, print, and with --check say by the exit status whether the targets are met."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--check", action="store_true")
    options.add_argument("--one", choices=READERS)
    options.add_argument("--file", type=Path)
    given = options.parse_args()
    if given.one:
        one(given.one, given.file)
        return 0
    found: dict[str, list[list[float]]] = {name: [] for name in READERS}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.gguf"
        make(path)
        for _ in range(given.runs):
            for name, runs in found.items():
                command = [sys.executable, "-m", "benchmarks.capabilities", "--one", name, "--file", str(path)]
                runs.append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
    middle = {name: [statistics.median(column) for column in zip(*runs, strict=True)] for name, runs in found.items()}
    for name, (seconds, grown, held) in middle.items():
        ratio = seconds / middle["plain"][0]
        print(f"{name:10} {seconds:8.3f} s  {ratio:6.3f} of plain  {grown:7.1f} MB more  {held:7.1f} MB in all")
    met = middle["corral"][1] < ALLOWED_MEMORY and middle["corral"][0] / middle["plain"][0] <= ALLOWED_RATIO
    return 1 if given.check and not met else 0


if __name__ == "__main__":
    sys.exit(main())
