"""Safetensors headers, read from files that nobody vouches for.

A file is eight bytes of length, a header of that many bytes of JSON (tensor name → type, shape, where its bytes lie),
then the bytes, without a gap and to the end. Nothing of it can run; a header that does not add up is refused here
rather than by the library that would map it into memory.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NoReturn

from corral.catalog.documents import bounded
from corral.errors import CorruptModel

if TYPE_CHECKING:
    from pathlib import Path

LONGEST_HEADER: Final = 100_000_000
"""Bytes: the limit of the format's own library."""

_MOST_TENSORS: Final = 1 << 18
_MOST_DIMENSIONS: Final = 16
_MOST_VALUES: Final = 1 << 22
_MOST_PARAMETERS: Final = 1 << 60
_MOST_TYPES: Final = 64

_BITS: Final = {
    kind: bits
    for bits, kinds in {
        4: "F4",
        6: "F6_E2M3 F6_E3M2",
        8: "BOOL U8 I8 F8_E4M3 F8_E5M2 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ",
        16: "U16 I16 F16 BF16",
        32: "U32 I32 F32",
        64: "U64 I64 F64 C64",
    }.items()
    for kind in kinds.split()
}


@dataclass(frozen=True, slots=True)
class Header:
    """What a safetensors file says of itself: elements and bytes by type, and its own notes.

    `parameters` counts the tensors' elements; `tensors` are the names.
    """

    parameters: int
    dtypes: Mapping[str, int]
    tensors: frozenset[str] = field(repr=False)
    notes: Mapping[str, str] = field(default_factory=dict)


def read(path: Path) -> Header:
    """The header of the file at `path`, whose tensors lie in it whole. Blocks.

    Raises:
        CorruptModel: it is no safetensors file, damaged or truncated.
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        return parse(stream, path.stat().st_size)


def parse(stream: BinaryIO, size: int) -> Header:
    """The header at the start of `stream`, a file of `size` bytes.

    Raises:
        CorruptModel: see `read`.
    """
    first = stream.read(8)
    length = int.from_bytes(first, "little")
    if len(first) < 8 or length < 2:
        _refuse("it is too short")
    if length > LONGEST_HEADER:
        _refuse(f"its header would have {length} bytes")
    if length > size - 8:
        _refuse("it ends in the middle of its header")
    data = stream.read(length)
    if len(data) < length or not data.startswith(b"{"):
        _refuse("its header is no JSON object")
    try:
        table = bounded(data, _MOST_VALUES)
    except ValueError:
        _refuse("its header is no JSON")
    if not isinstance(table, dict) or len(table) > _MOST_TENSORS:
        _refuse("its header is no table of tensors")
    notes = table.pop("__metadata__", {})
    return _tensors(table, notes if isinstance(notes, dict) else {}, size - 8 - length)


def _tensors(table: Mapping[str, Any], notes: Mapping[str, Any], room: int) -> Header:
    parameters: int = 0
    dtypes: Counter[str] = Counter()
    spans: list[tuple[int, int]] = []
    for name, entry in table.items():
        kind, elements, (begin, end) = _entry(name, entry)
        if end > room:
            raise CorruptModel(
                f"The file is truncated: {name[:80]!r} ends at byte {end} of its data, and {room} are there.",
                "Fetch it again.",
            )
        if kind in _BITS and elements * _BITS[kind] != (end - begin) * 8:
            _refuse(f"{name[:80]!r} of {elements} {kind} does not take {end - begin} bytes")
        parameters += elements
        dtypes[kind] += end - begin
        if parameters > _MOST_PARAMETERS or len(dtypes) > _MOST_TYPES:
            _refuse("it has an impossible number of parameters, or of their types")
        spans.append((begin, end))
    _cover(spans, room)
    texts = {key: value for key, value in list(notes.items())[:100] if isinstance(value, str) and len(value) <= 1000}
    return Header(parameters, dict(dtypes), frozenset(table), texts)


def _entry(name: str, entry: Any) -> tuple[str, int, tuple[int, int]]:
    """Type, number of elements and place of one tensor."""
    match entry:
        case {"dtype": str(kind), "shape": list(shape), "data_offsets": [int(begin), int(end)]} if (
            len(kind) <= 16
            and len(shape) <= _MOST_DIMENSIONS
            and all(type(item) is int and 0 <= item < 1 << 60 for item in shape)
            and 0 <= begin <= end
        ):
            elements = math.prod(shape)
            if elements < 1 << 60:
                return kind, elements, (begin, end)
    raise _bad(f"what it says of {name[:80]!r} is impossible")


def _cover(spans: list[tuple[int, int]], room: int) -> None:
    """Refuse tensors that overlap or leave bytes to nobody, where anything could hide."""
    at = 0
    for begin, end in sorted(spans):
        if begin != at:
            _refuse("its tensors overlap" if begin < at else "there is a gap between its tensors")
        at = end
    if at != room:
        _refuse(f"{room - at} bytes at its end belong to no tensor")


def _refuse(why: str) -> NoReturn:
    raise _bad(why)


def _bad(why: str) -> CorruptModel:
    return CorruptModel(f"Not a sound safetensors file: {why}.", "Fetch it again.")
