"""Which files make up a model, and which are refused."""

import io
import json
import pickle
import struct
import tracemalloc
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.catalog import formats, safetensors
from corral.domain.models import FileEntry, RemoteFile, RemotePart
from corral.errors import CorruptModel, SourceError, UnsafeFormat
from support import models

EYES = models.gguf(seed=3, general__architecture="clip")


def offered(*names):
    return [RemoteFile(name, (RemotePart(f"memory:{name}"),)) for name in names]


def chosen(*names, unsafe=False):
    selection = formats.select(offered(*names), "here", unsafe=unsafe)
    return [file.name for file in selection.files], list(selection.ignored)


def lay(folder, files):
    """Write the files; each as it was inspected."""
    items = []
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        items.append(formats.inspect(path, FileEntry(name, len(data), models.sha256(data))))
    return items


def assembled(folder, files):
    return formats.assemble(lay(folder, files))


def memory(work):
    """Bytes at most that `work`, which may refuse, took."""
    tracemalloc.start()
    try:
        work()
    except (CorruptModel, ValueError):
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def roles(shape):
    return {entry.name: entry.role for entry in shape.files}


# Names


@pytest.mark.parametrize(
    "name", ["model.gguf", "1_Pooling/config.json", "a b.gguf", "モデル.gguf", "..gguf", "a/" * 7 + "b"]
)
def test_names_that_stay_where_they_are(name):
    assert formats.is_safe(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../a",
        "a/../b",
        "/a",
        "a//b",
        "a/",
        "a\\b",
        "a\0b",
        "a\nb",
        "a\x7fb",
        "\ud800",
        "a\u202eb",
        " ",
        "a/ /b",
        "a/" * 8 + "b",
        "x" * 201,
        "/".join(["x" * 150] * 4),
    ],
)
def test_names_that_no_file_may_have(name):
    assert not formats.is_safe(name)
    with pytest.raises(SourceError, match="a file that cannot be"):
        formats.select(offered(name), "here")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("a.gguf", "A.GGUF"), "one file on some disks"),
        (("stra\u00dfe", "STRASSE"), "one file on some disks"),
        (("a/b", "a"), "as a folder"),
        ((), "has no files"),
        ([f"{n}.gguf" for n in range(2001)], "at most 2000"),
    ],
)
def test_listings_that_cannot_be(names, says):
    with pytest.raises(SourceError, match=says):
        formats.select(offered(*names), "here")


# Selection


def test_a_snapshot_is_taken_without_code_pickles_and_other_formats():
    names = ["config.json", "model.safetensors", "tokenizer.model", "LICENSE", "1_Pooling/config.json", "merges.txt"]
    others = [
        "modeling_x.py",
        "pytorch_model.bin",
        "onnx/model.onnx",
        "flax_model.msgpack",
        "original/c.00.pth",
        "a.gguf",
    ]
    assert chosen(*names, *others) == (sorted(names), sorted(others))


def test_beside_a_gguf_only_what_belongs_to_it_is_taken():
    assert chosen("b.gguf", "a.gguf", "imatrix.dat", "README.md", "x.png", "evil.pkl") == (
        ["README.md", "a.gguf", "b.gguf"],
        ["evil.pkl", "imatrix.dat", "x.png"],
    )


def test_what_has_no_known_name_is_looked_into():
    assert chosen("sha256-abc", "setup.py") == (["sha256-abc"], ["setup.py"])


@pytest.mark.parametrize("name", ["pytorch_model.bin", "a/model.PT", "x.ckpt", "m.h5", "w.npz", "t.joblib", "m.keras"])
def test_weights_that_can_run_code_are_refused_unless_named(name):
    with pytest.raises(UnsafeFormat, match=name) as caught:
        chosen("config.json", name)
    assert "allow_pickle" in caught.value.hint
    assert chosen("config.json", name, "run.py", unsafe=True) == (sorted(["config.json", name]), ["run.py"])


# First bytes


def torch_zip():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02.")
    return out.getvalue()


class Bomb:
    def __reduce__(self):
        return (print, ("ran",))


NASTY = {
    **{f"protocol {number}": pickle.dumps(Bomb(), number) for number in range(6)},
    **{f"tensors {number}": pickle.dumps({"w": [1.0]}, number) for number in (2, 4)},
    "posix": b"cposix\nsystem\n(S'true'\ntR.",
    "inst": b"(S'true'\nios\nsystem\n.",
    "zip": torch_zip(),
    "hdf": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "objects": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n",
    "gzip": b"\x1f\x8b\x08" + bytes(20),
}


@pytest.mark.parametrize("kind", NASTY)
@pytest.mark.parametrize("name", ["model.gguf", "model.safetensors", "tokenizer.json", "notes", "README.md"])
def test_a_pickle_is_known_by_its_bytes_whatever_it_is_called(tmp_path, kind, name):
    with pytest.raises(UnsafeFormat):
        lay(tmp_path, {name: NASTY[kind]})


@pytest.mark.parametrize(
    "text",
    [
        "(c) 2024 Somebody\n",
        "cat\ndog\nbird\n",
        "Copyright\n",
        "(Since 2020)\n",
        "[PAD]\n[UNK]\n",
        "",
        "#version: 0.2\n",
        "(Version 2)\nof it\n",
        "corral\nmodel\nquick\n",
    ],
)
def test_plain_texts_are_no_pickles(tmp_path, text):
    assert lay(tmp_path, {"vocab.txt": text.encode()})[0].kind == "other"


def test_plain_arrays_are_no_pickles(tmp_path):
    data = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }\n" + bytes(4)
    assert lay(tmp_path, {"mean.npy": data})[0].kind == "other"


def test_allowed_pickles_are_weights(tmp_path):
    files = {"config.json": b"{}", "pytorch_model.bin": NASTY["zip"]}
    items = []
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        items.append(formats.inspect(tmp_path / name, FileEntry(name, len(data), "0"), unsafe=True))
    shape = formats.assemble(items)
    assert (shape.format, roles(shape)) == ("pickle", {"config.json": "file", "pytorch_model.bin": "model"})


def test_a_page_instead_of_json_is_noticed(tmp_path):
    with pytest.raises(CorruptModel, match="no JSON"):
        lay(tmp_path, {"config.json": b"<!doctype html>"})


# GGUF


def test_one_gguf_whatever_it_is_called(tmp_path):
    shape = assembled(tmp_path, {"sha256-abc": models.gguf(), "LICENSE": b"MIT", "eyes": EYES})
    assert (shape.format, shape.sees) == ("gguf", True)
    assert roles(shape) == {"sha256-abc": "model", "LICENSE": "file", "eyes": "mmproj"}


@pytest.mark.parametrize("folder", ["", "Q4/"])
def test_a_split_gguf_is_one_model(tmp_path, folder):
    pieces = {f"{folder}{name}": data for name, data in models.split_gguf(3, elements=64).items()}
    shape = assembled(tmp_path, dict(reversed(pieces.items())))
    first, *further = pieces
    assert roles(shape) == {first: "model", **dict.fromkeys(further, "split")}
    assert shape.header is not None
    assert (shape.header.parameters, shape.header.tensors, shape.header.quantization) == (192, 3, "F32")
    assert shape.header.required_size == sum(map(len, pieces.values()))
    assert shape.header.facts()["context_length"] == 128


def renamed(files, old, new):
    return {(new if name == old else name): data for name, data in files.items()}


PIECES = models.split_gguf(3)
FIRST, SECOND, THIRD = PIECES
OTHER = models.split_gguf(3, elements=32)
BROKEN_SPLITS = {
    "one is missing": (
        {FIRST: PIECES[FIRST], THIRD: PIECES[THIRD]},
        "1 of 3 pieces are missing, the first is number 2",
    ),
    "first is missing": ({SECOND: PIECES[SECOND], THIRD: PIECES[THIRD]}, "the first is number 1"),
    "a wrong name": (renamed(PIECES, SECOND, "b.gguf"), "no piece of a split"),
    "swapped": ({**PIECES, SECOND: PIECES[THIRD], THIRD: PIECES[SECOND]}, "no piece of a split"),
    "of another stem": (renamed(PIECES, SECOND, "x-00002-of-00003.gguf"), "not of one model"),
    "of another count": (renamed(PIECES, SECOND, "tiny-00002-of-00004.gguf"), "not of one model"),
    "with a whole one": ({**PIECES, "whole.gguf": models.gguf()}, "no piece of a split"),
    "with too few tensors": ({**PIECES, THIRD: models.split_gguf(4)["tiny-00003-of-00004.gguf"]}, "not of one model"),
}


@pytest.mark.parametrize("how", BROKEN_SPLITS)
def test_a_split_of_which_something_is_wrong(tmp_path, how):
    files, says = BROKEN_SPLITS[how]
    with pytest.raises(CorruptModel, match=says):
        assembled(tmp_path, files)


def test_a_split_with_a_tensor_too_few(tmp_path):
    files = dict(PIECES)
    value = models.text("split.tensors.count") + models.value(3)
    for name, data in files.items():
        files[name] = data.replace(value, models.text("split.tensors.count") + models.value(9))
    with pytest.raises(CorruptModel, match="hold 3 tensors and should hold 9"):
        assembled(tmp_path, files)


@pytest.mark.parametrize(
    "files",
    [
        {"a.gguf": models.gguf(1), "b.gguf": models.gguf(2)},
        {"a.gguf": EYES},
        {"a.gguf": models.gguf(), "e1.gguf": EYES, "e2.gguf": EYES},
        {"README.md": b"nothing else"},
        {"a.gguf": models.gguf(), "model.safetensors": models.safetensors({"a": ("F32", (1,))})},
    ],
)
def test_what_is_not_one_model(tmp_path, files):
    with pytest.raises(CorruptModel, match="one GGUF file"):
        assembled(tmp_path, files)


# Snapshots


@pytest.mark.parametrize("shards", [1, 3])
def test_a_snapshot_is_one_model(tmp_path, shards):
    files = models.snapshot(shards)
    shape = assembled(tmp_path, files)
    assert shape.format == "safetensors"
    assert {name for name, role in roles(shape).items() if role == "model"} == {
        n for n in files if n.endswith("ensors")
    }
    assert len(shape.weights) == shards
    assert "tokenizer.json" in shape.documents


def without(files, *names):
    return {name: data for name, data in files.items() if name not in names}


SHARDS = models.snapshot(3)
INDEX = "model.safetensors.index.json"
BROKEN_SNAPSHOTS = {
    "no config": (models.snapshot(config__json=None), "has a config.json"),
    "an adapter": (models.snapshot(config__json=None, adapter_config__json=b"{}"), "adapter is no model"),
    "a shard is missing": (without(SHARDS, "model-00002-of-00003.safetensors"), "1 files of weights are missing"),
    "without an index too": (without(SHARDS, INDEX, "model-00002-of-00003.safetensors"), "are missing: model-00002"),
    "the index is a list": ({**SHARDS, INDEX: b"[1]"}, "index.json is damaged"),
    "the index is empty": ({**SHARDS, INDEX: b"{}"}, "index.json is damaged"),
    "the index is odd": ({**SHARDS, INDEX: b'{"weight_map": 7}'}, "index.json is damaged"),
    "the index lies": (
        {**SHARDS, INDEX: json.dumps({"weight_map": {"zz": "model-00001-of-00003.safetensors"}}).encode()},
        "says that 'zz' is in model-00001",
    ),
    "too many shards": (
        models.snapshot(model__safetensors=None)
        | {"m-00001-of-99999.safetensors": models.safetensors({"a": ("F32", (1,))})},
        "one of 99999 pieces",
    ),
}


@pytest.mark.parametrize("how", BROKEN_SNAPSHOTS)
def test_a_snapshot_of_which_something_is_wrong(tmp_path, how):
    files, says = BROKEN_SNAPSHOTS[how]
    with pytest.raises(CorruptModel, match=says):
        assembled(tmp_path, files)


def test_a_document_has_a_limit(tmp_path):
    path = tmp_path / "config.json"
    with path.open("wb") as out:
        out.truncate((32 << 20) + 1)
    with pytest.raises(ValueError, match="too large"):
        formats.document(path)


def test_a_document_of_brackets_alone_is_not_parsed(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(b'{"a": [' + b"[]," * 1_500_000 + b"[]]}")
    assert memory(lambda: formats.document(path)) < 16 << 20


# Safetensors headers


SOUND = models.safetensors({"a": ("BF16", (3, 4)), "b": ("F32", (2,)), "empty": ("F32", (0, 4))}, format="pt")


def parse(data, size=None):
    return safetensors.parse(io.BytesIO(data), len(data) if size is None else size)


def head(table, room=0):
    data = table if isinstance(table, bytes) else json.dumps(table).encode()
    return struct.pack("<Q", len(data)) + data + bytes(room)


def entry(kind="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": kind, "shape": list(shape), "data_offsets": list(offsets)}


def test_a_sound_header_is_read(tmp_path):
    (tmp_path / "a").write_bytes(SOUND)
    header = safetensors.read(tmp_path / "a")
    assert (header.parameters, dict(header.dtypes)) == (14, {"BF16": 24, "F32": 8})
    assert header.tensors == {"a", "b", "empty"}
    assert header.notes == {"format": "pt"}


def test_a_type_that_is_not_known_is_no_reason_to_refuse():
    assert parse(head({"a": entry("F3_NEW", (8,), (0, 3))}, 3)).dtypes == {"F3_NEW": 3}


HOSTILE = {
    "empty": b"",
    "short": b"\x01\0\0\0\0\0\0\0{",
    "huge header": struct.pack("<Q", 1 << 40) + b"{",
    "header over the limit": struct.pack("<Q", safetensors.LONGEST_HEADER + 1) + b"{",
    "past the end": struct.pack("<Q", 1000) + b"{}",
    "no object": head(b"[1,2]"),
    "no json": head(b"{nonsense"),
    "deep json": head(b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    "an entry is a list": head({"a": [1]}),
    "no offsets": head({"a": {"dtype": "F32", "shape": []}}),
    "negative": head({"a": entry(offsets=(-4, 0))}),
    "backwards": head({"a": entry(offsets=(4, 0))}, 4),
    "a negative shape": head({"a": entry(shape=(-1,))}, 4),
    "a text in the shape": head({"a": entry(shape=("1",))}, 4),
    "a truth in the shape": head({"a": entry(shape=(True,))}, 4),
    "too many dimensions": head({"a": entry(shape=(1,) * 17)}, 4),
    "too many elements": head({"a": entry(shape=(1 << 59, 1 << 59))}, 4),
    "the size is not the shape's": head({"a": entry(shape=(2,))}, 4),
    "beyond the end": head({"a": entry()}, 3),
    "overlap": head({"a": entry(), "b": entry(offsets=(2, 6))}, 6),
    "gap": head({"a": entry(), "b": entry(offsets=(8, 12))}, 12),
    "a gap at the start": head({"a": entry(offsets=(4, 8))}, 8),
    "too many parameters": head({f"{n}": entry("F3_NEW", (1 << 59,), (0, 0)) for n in range(3)}),
    "too many types": head({f"{n}": entry(f"T{n}", (1,), (n, n + 1)) for n in range(99)}, 99),
    "bytes that are nobody's": head({"a": entry()}, 5),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_are_refused(name):
    with pytest.raises(CorruptModel):
        parse(HOSTILE[name])


@pytest.mark.parametrize("cut", [1, 32, 60, len(SOUND) - 1, len(SOUND)])
def test_any_truncation_is_noticed(cut):
    with pytest.raises(CorruptModel):
        parse(SOUND[: len(SOUND) - cut])


def test_a_header_of_brackets_alone_is_not_parsed():
    data = head(b'{"__metadata__": {"a": [' + b"[]," * 2_500_000 + b"[]]}}")
    assert memory(lambda: parse(data)) < 16 << 20


def test_odd_notes_are_left_out():
    assert parse(head({"__metadata__": {"a": 1, "b": "x", "c": "y" * 2000}})).notes == {"b": "x"}
    assert parse(head({"__metadata__": [1]})).notes == {}


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, len(SOUND) - 33), st.integers(0, 255)), min_size=1, max_size=8))
def test_damage_anywhere_gives_a_value_or_a_refusal(changes):
    data = bytearray(SOUND)
    for place, byte in changes:
        data[place] = byte
    assert memory(lambda: parse(bytes(data))) < 8 << 20
