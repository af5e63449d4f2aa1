"""GGUF headers: sound ones are read, all others are refused, soon and in little memory."""

import io
import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.catalog import gguf
from corral.catalog.gguf import Header, LongArray, Split
from corral.errors import CorruptModel
from support import models

TINY = models.gguf()


def parse(data: bytes) -> Header:
    return gguf.parse(io.BytesIO(data), len(data))


def head(keys: bytes = b"", count: int = 0, tensors: bytes = b"", tensor_count: int = 0) -> bytes:
    """A header with the architecture and then whatever is given."""
    first = models.text("general.architecture") + models.value("llama")
    return b"GGUF" + struct.pack("<IQQ", 3, tensor_count, count + 1) + first + keys + tensors


@pytest.mark.parametrize("version", [2, 3])
def test_a_sound_header_is_read(version):
    header = parse(models.gguf(256, version=version))
    assert (header.architecture, header.parameters, header.quantization) == ("llama", 256, "F32")
    assert header.chat_template == models.CHATML
    assert header.facts() == {
        "architecture": "llama",
        "title": "Tiny",
        "parameters": 256,
        "quantization": "F32",
        "context_length": 128,
        "embedding_length": 8,
        "block_count": 1,
        "vocab_size": 3,
        "tokenizer": "gpt2",
        "licence": "mit",
        "has_chat_template": True,
    }


def test_the_required_size_is_the_size(tmp_path):
    assert parse(TINY).required_size == len(TINY)
    path = tmp_path / "tiny.gguf"
    path.write_bytes(TINY)
    assert gguf.read(path) == parse(TINY)


@pytest.mark.parametrize("cut", [1, 500, len(TINY) - 1025, len(TINY) - 10, len(TINY)])
def test_any_truncation_is_noticed(cut):
    with pytest.raises(CorruptModel):
        parse(TINY[: len(TINY) - cut])


def test_truncation_says_how_much_is_missing():
    with pytest.raises(CorruptModel, match=f"has {len(TINY) - 1} bytes and its tensors need {len(TINY)}"):
        parse(TINY[:-1])


def test_quantised_tensors_are_counted_by_block():
    table = models.tensor("a", (64, 2), 3, 0) + models.tensor("b", (256,), 12, 96)
    data = head(tensors=table, tensor_count=2)
    start = -(-len(data) // 32) * 32
    header = gguf.parse(io.BytesIO(data), start + 96 + 144)
    assert (header.parameters, header.required_size) == (128 + 256, start + 96 + 144)
    assert header.tensor_types == {"Q4_1": 80, "Q4_K": 144}
    assert header.quantization == "Q4_K"  # the file names no type: that of most bytes


def test_an_unknown_tensor_type_is_no_reason_to_refuse():
    data = head(tensors=models.tensor("a", (64,), 99, 0), tensor_count=1)
    header = gguf.parse(io.BytesIO(data), len(data) + 64)
    assert header.tensor_types == {"type 99": 0}


def test_layers_may_differ():
    header = parse(models.gguf(llama__attention__head_count_kv=[1, 0, 4]))
    assert header.facts()["head_count_kv"] == [1, 0, 4]


@pytest.mark.parametrize("odd", [True, 1.5, "8", ["a"]])
def test_a_property_of_another_type_is_left_out(odd):
    assert "context_length" not in parse(models.gguf(llama__context_length=odd)).facts()


def test_long_arrays_are_skipped_across_the_window():
    tokens = [f"token {number}" * 9 for number in range(60_000)]
    header = parse(models.gguf(tokenizer__ggml__tokens=tokens, tokenizer__ggml__scores=list(range(300_000))))
    assert header.metadata["tokenizer.ggml.tokens"] == LongArray(60_000)
    assert header.metadata["tokenizer.ggml.scores"] == LongArray(300_000)
    assert header.chat_template == models.CHATML


def test_a_text_longer_than_the_window_is_skipped_in_an_array():
    header = parse(models.gguf(tokenizer__ggml__tokens=["x" * 3_000_000, "y"]))
    assert header.facts()["vocab_size"] == 2


def big(kind: int, *numbers: int) -> bytes:
    return models.text("k") + struct.pack(f"<I{len(numbers)}Q", kind, *numbers)


HOSTILE = {
    "empty": b"",
    "other": b"PK\x03\x04" + bytes(100),
    "version 1": b"GGUF" + struct.pack("<IQQ", 1, 0, 0),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "many keys": b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 62),
    "many tensors": b"GGUF" + struct.pack("<IQQ", 3, 1 << 62, 0),
    "no architecture": b"GGUF" + struct.pack("<IQQ", 3, 0, 0),
    "architecture is a number": models.gguf(general__architecture=7),
    "long key": head(struct.pack("<Q", 1 << 40), 1),
    "long text": head(big(8, 1 << 40), 1),
    "text past the end": head(big(8, 1 << 20), 1),
    "unknown type": head(models.text("k") + struct.pack("<I", 77), 1),
    "huge array": head(models.text("k") + struct.pack("<IIQ", 9, 10, 1 << 60), 1),
    "huge array of texts": head(models.text("k") + struct.pack("<IIQ", 9, 8, 1 << 60), 1),
    "text in an array past the end": head(models.text("k") + struct.pack("<IIQQ", 9, 8, 1, 1 << 62) + bytes(64), 1),
    "nested arrays": head(models.text("k") + struct.pack("<IIQ", 9, 9, 1), 1),
    "key twice": head(models.text("general.architecture") + models.value("x"), 1),
    "odd alignment": models.gguf(general__alignment=33),
    "no alignment": models.gguf(general__alignment=0),
    "text alignment": models.gguf(general__alignment="32"),
    "five dimensions": head(tensors=models.tensor("a", (1,) * 5, 0, 0), tensor_count=1),
    "no elements": head(tensors=models.tensor("a", (0,), 0, 0), tensor_count=1),
    "too many elements": head(tensors=models.tensor("a", (1 << 63, 1 << 63), 0, 0), tensor_count=1),
    "odd offset": head(tensors=models.tensor("a", (4,), 0, 3), tensor_count=1),
    "far offset": head(tensors=models.tensor("a", (4,), 0, 1 << 60), tensor_count=1),
    "half a block": head(tensors=models.tensor("a", (31,), 2, 0), tensor_count=1),
    "too many parameters": head(tensors=models.tensor("a", (1 << 59,), 99, 0) * 3, tensor_count=3),
    "too much text": head(b"".join(models.text(f"k{n}") + models.value("x" * (1 << 22)) for n in range(9)), 9),
}


def test_many_short_arrays_take_little_memory():
    numbers = struct.pack("<IIQ2000H", 9, 2, 2000, *range(1000, 3000))
    data = head(b"".join(models.text(f"k{number}") + numbers for number in range(500)), 500)
    bounded(data)
    assert parse(data).metadata["k499"] == LongArray(2000)
    assert len(parse(data).metadata["k0"]) == 2000


def test_a_name_that_is_none_is_cut():
    facts = parse(models.gguf(general__name="x" * 100_000, general__architecture="y" * 100_000)).facts()
    assert (facts["title"], facts["architecture"]) == ("x" * 500, "y" * 500)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name):
    with pytest.raises(CorruptModel):
        parse(HOSTILE[name])


def test_a_file_that_shrinks_while_it_is_read_is_refused():
    with pytest.raises(CorruptModel, match="ends in the middle"):
        gguf.parse(io.BytesIO(TINY[:100]), len(TINY))


def bounded(data: bytes, size: int | None = None) -> None:
    tracemalloc.start()
    try:
        gguf.parse(io.BytesIO(data), size or len(data))
    except CorruptModel:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 24 << 20


@given(st.binary(max_size=4096), st.booleans(), st.integers(0, 1 << 50))
def test_garbage_gives_a_value_or_a_refusal(data, sound_start, more):
    data = b"GGUF\x03\0\0\0" + data if sound_start else data
    bounded(data, len(data) + more)


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, len(TINY) - 1100), st.integers(0, 255)), min_size=1, max_size=8),
    st.integers(0, 1 << 50),
)
def test_damage_anywhere_gives_a_value_or_a_refusal(changes, more):
    data = bytearray(TINY)
    for place, byte in changes:
        data[place] = byte
    bounded(bytes(data), len(data) + more)


def test_short_lists_of_texts_are_read_in_the_general_section_only():
    header = parse(
        models.gguf(general__languages=["en", "de"], tokenizer__ggml__added=["x"], general__tags=["a"] * 300)
    )
    assert header.texts("general.languages") == ("en", "de")
    assert header.metadata["tokenizer.ggml.added"] == LongArray(1)
    assert header.metadata["general.tags"] == LongArray(300)
    assert header.texts("general.name") == ("Tiny",)
    assert header.texts("general.none") == ()


def test_a_piece_of_a_split_model_says_which():
    pieces = [parse(data) for data in models.split_gguf(3).values()]
    assert [piece.split for piece in pieces] == [Split(number, 3, 3) for number in range(3)]
    assert [piece.architecture for piece in pieces] == ["llama", "", ""]
    assert [piece.tensors for piece in pieces] == [1, 1, 1]
    assert parse(TINY).split is None


@pytest.mark.parametrize(
    "keys",
    [
        {"split__no": 3, "split__count": 3, "split__tensors__count": 3},
        {"split__no": 0, "split__count": 1, "split__tensors__count": 3},
        {"split__no": 0, "split__count": 5000, "split__tensors__count": 3},
        {"split__no": 0, "split__count": "3", "split__tensors__count": 3},
        {"split__no": 0, "split__count": 3},
    ],
)
def test_what_says_that_impossibly_is_a_whole_one(keys):
    assert parse(models.gguf(**keys)).split is None


def test_a_first_piece_must_name_its_architecture():
    with pytest.raises(CorruptModel, match="no architecture"):
        parse(models.gguf(drop=["general.architecture"], split__no=0, split__count=2, split__tensors__count=2))
