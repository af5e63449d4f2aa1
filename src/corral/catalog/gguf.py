"""GGUF headers, read from files that nobody vouches for.

A header is magic, version, counts, metadata (key, type, value), then a table of tensors; the tensors' data follows.
Sizes, counts and offsets come from the file and are believed only within bounds: whatever the bytes, reading ends soon,
in little memory, with a `Header` or with `CorruptModel`. Versions 2 and 3, little-endian, as llama.cpp loads them here.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from corral.errors import CorruptModel

if TYPE_CHECKING:
    from pathlib import Path

_MOST_KEYS: Final = 1 << 16
_MOST_TENSORS: Final = 1 << 17
_MOST_STRINGS: Final = 1 << 23
_MOST_HEADER: Final = 1 << 29
_LONGEST_KEY: Final = 1 << 12
_LONGEST_TEXT: Final = 1 << 22
_MOST_TEXT: Final = 1 << 25
_SHORT_ARRAY: Final = 1 << 11
_MOST_NUMBERS: Final = 1 << 17
_MOST_PARAMETERS: Final = 1 << 60
_WINDOW: Final = 1 << 20
_MOST_PIECES: Final = 1000
_FEW_TEXTS: Final = 256
_LONGEST_FACT: Final = 500

_STRING: Final = 8
_ARRAY: Final = 9
_SCALARS: Final = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}

# ggml's tensor types: name, elements in a block, bytes of a block.
_TYPES: Final[dict[int, tuple[str, int, int]]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}

# llama.cpp's names for how a whole file is quantised (`general.file_type`).
_FILE_TYPE_NAMES: Final = (
    "F32 F16 Q4_0 Q4_1 - - - Q8_0 Q5_0 Q5_1 Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K IQ2_XXS "
    "IQ2_XS Q2_K_S IQ3_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S IQ3_M IQ2_S IQ2_M IQ4_XS IQ1_M BF16 - - - TQ1_0 TQ2_0 "
    "MXFP4_MOE NVFP4 Q1_0"
)
_FILE_TYPES: Final = _FILE_TYPE_NAMES.split()


@dataclass(frozen=True, slots=True)
class LongArray:
    """An array in the metadata that was skipped: only its length is known."""

    length: int


@dataclass(frozen=True, slots=True)
class Split:
    """Which piece of a split model a file is: `number` of `count`, from 0; `tensors` of all pieces together."""

    number: int
    count: int
    tensors: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a GGUF file says of itself.

    `metadata` holds scalars, texts, short arrays of numbers and, in the general section, of texts as they stand, other
    arrays as `LongArray`. `required_size` is the bytes that the file must have for all tensors to lie in it.
    `parameters` counts the tensors' elements, `block_bytes` the bytes of those that belong to a layer.
    """

    version: int
    metadata: Mapping[str, object] = field(repr=False)
    parameters: int
    required_size: int
    tensor_types: Mapping[str, int]
    tensors: int = 0
    block_bytes: int = 0

    @property
    def architecture(self) -> str:
        """The model's family: `llama`, `gemma3`, `bert` and so on; empty in a further piece of a split model."""
        return str(self.metadata.get("general.architecture", ""))

    @property
    def split(self) -> Split | None:
        """Which piece of a split model it is; None when it is a whole one."""
        values = [self.metadata.get(f"split.{key}") for key in ("no", "count", "tensors.count")]
        match values:
            case [int(number), int(count), int(tensors)] if 0 <= number < count <= _MOST_PIECES and count > 1:
                return Split(number, count, tensors)
        return None

    @property
    def chat_template(self) -> str | None:
        """The Jinja template for chats, if the file carries one."""
        return self.text("tokenizer.chat_template")

    @property
    def quantization(self) -> str | None:
        """How the file as a whole is quantised, else the type of most of its bytes."""
        kind = self.metadata.get("general.file_type")
        name = _FILE_TYPES[kind] if isinstance(kind, int) and 0 <= kind < len(_FILE_TYPES) else "-"
        if name != "-":
            return name
        return max(self.tensor_types, key=lambda key: self.tensor_types[key]) if self.tensor_types else None

    def text(self, key: str) -> str | None:
        """The metadata's text under `key`."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def _short(self, key: str) -> str | None:
        """The same for a name, which every list shows: what is too long for one is cut."""
        value = self.text(key)
        return None if value is None else value[:_LONGEST_FACT]

    def texts(self, key: str) -> tuple[str, ...]:
        """The texts of the array under `key`."""
        value = self.metadata.get(key)
        found = value if isinstance(value, tuple) else (value,)
        return tuple(item for item in found if isinstance(item, str))

    def number(self, key: str) -> int | tuple[int, ...] | None:
        """The whole number under `key` of the model's own section, or one for each layer."""
        value = self.metadata.get(f"{self.architecture}.{key}")
        if isinstance(value, int):
            return None if isinstance(value, bool) else value
        if isinstance(value, tuple) and value and all(type(item) is int for item in value):
            return value
        return None

    def _pattern(self) -> int | tuple[bool, ...] | None:
        """Which layers see only a window: each one, or every how many that one does not."""
        value = self.metadata.get(f"{self.architecture}.attention.sliding_window_pattern")
        if isinstance(value, tuple) and value and all(isinstance(item, bool) for item in value):
            return tuple(bool(item) for item in value)
        return value if type(value) is int else None

    def facts(self) -> dict[str, Any]:
        """The model's properties, ready for JSON; what the file does not say is left out."""
        vocabulary = self.metadata.get("tokenizer.ggml.tokens")
        found = {
            "architecture": self.architecture[:_LONGEST_FACT],
            "title": self._short("general.name"),
            "parameters": self.parameters,
            "quantization": self.quantization,
            "context_length": self.number("context_length"),
            "embedding_length": self.number("embedding_length"),
            "block_count": self.number("block_count"),
            "head_count": self.number("attention.head_count"),
            "head_count_kv": self.number("attention.head_count_kv"),
            "key_length": self.number("attention.key_length"),
            "value_length": self.number("attention.value_length"),
            "sliding_window": self.number("attention.sliding_window"),
            "sliding_window_pattern": self._pattern(),
            "block_bytes": None if self.split else self.block_bytes or None,
            "expert_count": self.number("expert_count"),
            "vocab_size": vocabulary.length if isinstance(vocabulary, LongArray) else self.number("vocab_size"),
            "tokenizer": self._short("tokenizer.ggml.model"),
            "licence": self._short("general.license"),
            "has_chat_template": self.chat_template is not None,
        }
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in found.items() if value is not None
        }


def read(path: Path) -> Header:
    """The header of the file at `path`, which is long enough for what it describes. Blocks for some 0.1 s.

    Raises:
        CorruptModel: it is no GGUF file, damaged, truncated, or of a version that is not supported.
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        return parse(stream, path.stat().st_size)


def parse(stream: BinaryIO, size: int) -> Header:
    """The header at the start of `stream`, a file of `size` bytes.

    Raises:
        CorruptModel: see `read`.
    """
    header = _Reader(stream, size).header()
    if header.required_size > size:
        raise CorruptModel(
            f"The model file is truncated: it has {size} bytes and its tensors need {header.required_size}.",
            "Fetch it again.",
        )
    return header


class _Reader:
    """Walks the header once, through a window of the file."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._size = size
        self._window = b""
        self._at = 0
        self._before = 0
        self._strings = 0
        self._texts = 0
        self._numbers = 0

    @property
    def _position(self) -> int:
        return self._before + self._at

    def _bad(self, why: str) -> CorruptModel:
        return CorruptModel(f"Not a sound GGUF file: {why} (at byte {self._position}).", "Fetch it again.")

    def header(self) -> Header:
        magic = self._take(4)
        if magic != b"GGUF":
            raise CorruptModel("Not a GGUF file: it does not begin with GGUF.", "Only GGUF models can be installed.")
        version = self._whole(4)
        if version not in {2, 3}:
            raise CorruptModel(f"GGUF version {version} is not supported.", "Versions 2 and 3 are, little-endian.")
        tensors, keys = self._whole(8), self._whole(8)
        if keys > _MOST_KEYS or tensors > _MOST_TENSORS:
            raise self._bad(f"{keys} keys and {tensors} tensors are too many")
        metadata = self._metadata(keys)
        further = type(metadata.get("split.no")) is int and metadata["split.no"] != 0
        if not isinstance(metadata.get("general.architecture"), str) and not further:
            raise self._bad("it names no architecture")
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
            raise self._bad("its alignment is not a power of two")
        return self._tensors(tensors, version, metadata, alignment)

    def _metadata(self, count: int) -> dict[str, object]:
        metadata: dict[str, object] = {}
        for _ in range(count):
            key = self._string(_LONGEST_KEY)
            if key in metadata:
                raise self._bad(f"the key {key[:80]!r} comes twice")
            metadata[key] = self._value(self._whole(4), general=key.startswith("general."))
        return metadata

    def _value(self, kind: int, *, general: bool) -> object:
        if kind in _SCALARS:
            code = _SCALARS[kind]
            return struct.unpack(code, self._take(struct.calcsize(code)))[0]
        if kind == _STRING:
            return self._string(_LONGEST_TEXT)
        if kind == _ARRAY:
            return self._array(general=general)
        raise self._bad(f"a value is of the unknown type {kind}")

    def _array(self, *, general: bool) -> LongArray | tuple[float, ...] | tuple[str, ...]:
        kind, length = self._whole(4), self._whole(8)
        if kind == _STRING and general and length <= _FEW_TEXTS:
            return tuple(self._string(_LONGEST_KEY) for _ in range(length))
        if kind == _STRING:
            self._skip_strings(length)
            return LongArray(length)
        if kind not in _SCALARS:
            raise self._bad(f"an array is of the type {kind}, which arrays cannot be of")
        code = _SCALARS[kind]
        width = struct.calcsize(code)
        if length > (self._size - self._position) // width:
            raise self._bad(f"an array of {length} elements does not fit in the file")
        # A number takes up to 36 bytes here, so there is an end also to the short ones.
        if length > _SHORT_ARRAY or self._numbers + length > _MOST_NUMBERS:
            self._skip(length * width)
            return LongArray(length)
        self._numbers += length
        return struct.unpack(f"<{length}{code[1]}", self._take(length * width))

    def _skip_strings(self, length: int) -> None:
        self._strings += length
        if self._strings > _MOST_STRINGS or length > (self._size - self._position) // 8:
            raise self._bad(f"an array of {length} texts is too long")
        unpack, window, at = struct.Struct("<Q").unpack_from, self._window, self._at
        for _ in range(length):
            if at + 8 > len(window):
                self._at = at
                self._fill(8)
                window, at = self._window, self._at
            at += 8 + unpack(window, at)[0]
            if at > len(window):
                self._at = len(window)
                self._skip(at - len(window))
                window, at = self._window, self._at
        self._at = at

    def _tensors(self, count: int, version: int, metadata: Mapping[str, object], alignment: int) -> Header:
        parameters, end, inner = 0, 0, 0
        types: Counter[str] = Counter()
        for _ in range(count):
            in_layer = self._string(_LONGEST_KEY).startswith("blk.")
            dimensions = self._whole(4)
            if dimensions > 4:
                raise self._bad(f"a tensor has {dimensions} dimensions")
            shape = struct.unpack(f"<{dimensions}Q", self._take(8 * dimensions))
            kind, offset = self._whole(4), self._whole(8)
            elements = math.prod(shape)
            if not 0 < elements < 1 << 60 or offset % alignment:
                raise self._bad("a tensor's shape or place is impossible")
            # A type that is newer than this table: only where it begins can be checked.
            name, block, width = _TYPES.get(kind, (f"type {kind}", 1, 0))
            if elements % block:
                raise self._bad(f"a tensor of {elements} elements is no whole number of {name} blocks")
            length = elements // block * width
            parameters += elements
            inner += length if in_layer else 0
            if parameters > _MOST_PARAMETERS:
                raise self._bad("it has an impossible number of parameters")
            types[name] += length
            end = max(end, offset + length)
        data = -(-self._position // alignment) * alignment
        size = data + end if count else self._position
        return Header(version, metadata, parameters, size, dict(types), count, inner)

    def _string(self, longest: int) -> str:
        length = self._whole(8)
        if length > longest:
            raise self._bad(f"a text of {length} bytes is too long")
        self._texts += length
        if self._texts > _MOST_TEXT:
            raise self._bad("it has too much text")
        return self._take(length).decode("utf-8", "replace")

    def _whole(self, width: int) -> int:
        return int.from_bytes(self._take(width), "little")

    def _take(self, count: int) -> bytes:
        self._fill(count)
        data = self._window[self._at : self._at + count]
        self._at += count
        return data

    def _fill(self, count: int) -> None:
        """Have at least `count` bytes ahead in the window."""
        if len(self._window) - self._at >= count:
            return
        if self._position + count > self._size:
            raise self._bad("it ends in the middle of its header")
        if self._position > _MOST_HEADER:
            raise self._bad("its header is too long")
        rest = self._window[self._at :]
        self._before += self._at
        self._at = 0
        self._window = rest + self._stream.read(max(_WINDOW, count) - len(rest))
        if len(self._window) < count:
            raise self._bad("it ends in the middle of its header")

    def _skip(self, count: int) -> None:
        if self._position + count > self._size:
            raise self._bad("it ends in the middle of its header")
        if self._at + count <= len(self._window):
            self._at += count
            return
        self._before += self._at + count
        self._stream.seek(self._before)
        self._window, self._at = b"", 0
