"""A whole GGUF file in pieces, as llama.cpp's own tool splits it: the first has the metadata."""

from __future__ import annotations

import struct
from pathlib import Path

_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY, _ALIGNMENT = 8, 9, 32


class _Walk:
    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.at = 0

    def whole(self, width: int) -> int:
        self.at += width
        return int.from_bytes(self.data[self.at - width : self.at], "little")

    def text(self) -> None:
        length = self.whole(8)
        self.at += length

    def value(self, kind: int) -> None:
        if kind == _STRING:
            self.text()
        elif kind == _ARRAY:
            inner, length = self.whole(4), self.whole(8)
            if inner == _STRING:
                for _ in range(length):
                    self.text()
            else:
                self.at += length * _WIDTHS[inner]
        else:
            self.at += _WIDTHS[kind]


def _keys(number: int, count: int, tensors: int) -> bytes:
    out = b""
    for key, kind, code, value in (
        ("no", 2, "H", number),
        ("count", 2, "H", count),
        ("tensors.count", 5, "i", tensors),
    ):
        name = f"split.{key}".encode()
        out += struct.pack("<Q", len(name)) + name + struct.pack(f"<I{code}", kind, value)
    return out


def split(whole: Path, folder: Path, count: int) -> list[Path]:
    """Write the pieces of the model `whole` into `folder`; their paths, the first one first."""
    data = memoryview(whole.read_bytes())
    walk = _Walk(data)
    walk.at = 8
    tensors, keys = walk.whole(8), walk.whole(8)
    start = walk.at
    for _ in range(keys):
        walk.text()
        walk.value(walk.whole(4))
    metadata = data[start : walk.at]
    entries: list[tuple[bytes, int]] = []
    for _ in range(tensors):
        begin = walk.at
        walk.text()
        dimensions = walk.whole(4)
        walk.at += 8 * dimensions + 4
        entries.append((bytes(data[begin : walk.at]), walk.whole(8)))
    body = -(-walk.at // _ALIGNMENT) * _ALIGNMENT
    starts = sorted(offset for _, offset in entries)
    ends = dict(zip(starts, [*starts[1:], len(data) - body], strict=True))
    paths = []
    for number in range(count):
        share = entries[number * tensors // count : (number + 1) * tensors // count]
        table, blocks, at = b"", [], 0
        for info, offset in share:
            block = data[body + offset : body + ends[offset]]
            table += info + struct.pack("<Q", at)
            blocks.append(bytes(block) + bytes(-len(block) % _ALIGNMENT))
            at += len(blocks[-1])
        own = _keys(number, count, tensors)
        head = b"GGUF" + struct.pack("<IQQ", 3, len(share), 3 + (keys if number == 0 else 0))
        head += (bytes(metadata) if number == 0 else b"") + own + table
        path = folder / f"{whole.stem}-{number + 1:05}-of-{count:05}.gguf"
        path.write_bytes(head + bytes(-len(head) % _ALIGNMENT) + b"".join(blocks))
        paths.append(path)
    return paths
