"""What files make up a model: which are installed, what each of them is, what is refused. See docs/formats.md.

select      from a listing, before the first byte: names that no file may have, weights that are pickles
inspect     a file that has arrived, by its first bytes and its header
assemble    all files together: one GGUF, a split one, a snapshot; the role of each
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from corral.catalog import gguf, safetensors
from corral.catalog.documents import bounded
from corral.domain.models import FileEntry, RemoteFile
from corral.errors import CorruptModel, SourceError, UnsafeFormat

GGUF: Final = "gguf"
SAFETENSORS: Final = "safetensors"
PICKLE: Final = "pickle"
_OTHER: Final = "other"

_MOST_FILES: Final = 2000
_DEEPEST: Final = 8
_LONGEST_NAME: Final = 500
_LONGEST_PIECE: Final = 200
_HEAD: Final = 2048
_LARGEST_DOCUMENT: Final = 32 << 20
_MOST_VALUES: Final = 1 << 21

_PICKLES: Final = frozenset(
    {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill", ".npz", ".h5", ".hdf5", ".keras"}
    | {".mar", ".nemo", ".pdparams", ".pdopt", ".t7", ".torch", ".ot"}
)
_TEXTS: Final = frozenset({".json", ".jinja", ".txt", ".md", ".model", ".tiktoken", ".yaml", ".yml"})
_KNOWN_NAMES: Final = re.compile(
    r"(licen[cs]e|notice|use_policy|readme|copying|merges|vocab)([.\-_].*)?", re.IGNORECASE
)
_PIECE: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_SHARD: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{5,6})-of-(?P<count>\d{5,6})\.safetensors")
_PROJECTORS: Final = frozenset({"clip", "mmproj"})

# Protocol 2 and later say so in their first byte. Older ones are text: a global to import, or a container or a string
# that goes on the stack first.
_PICKLED: Final = re.compile(
    rb"\x80[\x00-\x08]"
    rb"|[(\]})]*c[A-Za-z_][\w.]*\r?\n[A-Za-z_][\w.]*\r?\n(?:[(\])}.]|q[\x00-\x1f]|p\d+\r?\n)"
    rb"|\(S['\"]|\(i[\w.]+\r?\n\w+\r?\n|\(V[^\n]*\np\d+\r?\n|\([dlt]p?\d*\r?\n|[\]})]q\x00"
)
_OBJECTS: Final = re.compile(rb"\x93NUMPY.{0,8}\{.*'descr':\s*[^}]*O", re.DOTALL)
_ARCHIVES: Final = (b"PK\x03\x04", b"PK\x05\x06", b"\x89HDF\r\n\x1a\n", b"\x1f\x8b", b"7z\xbc\xaf", b"BZh", b"\xfd7zXZ")


@dataclass(frozen=True, slots=True)
class Selection:
    """The files to install, by name, and the names of those that are left where they are."""

    files: tuple[RemoteFile, ...]
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inspected:
    """A file that is here, and what it turned out to be: `kind` is a format, or `other` for what belongs to a model."""

    entry: FileEntry
    path: Path
    kind: str
    gguf: gguf.Header | None = None
    safetensors: safetensors.Header | None = None

    def moved(self, path: Path) -> Inspected:
        """The same file, at another place."""
        return replace(self, path=path)


@dataclass(frozen=True, slots=True)
class Shape:
    """What the files make up.

    `header` is of the GGUF as a whole; `weights` are those of a snapshot. `documents` are the other files, by name.
    """

    format: str
    files: tuple[FileEntry, ...]
    header: gguf.Header | None = None
    weights: tuple[safetensors.Header, ...] = ()
    documents: Mapping[str, Path] = field(default_factory=dict)
    sees: bool = False


def suffix(name: str) -> str:
    """The ending of a file name, in lower case, with its dot; empty when it has none."""
    stem, dot, end = name.rpartition("/")[2].rpartition(".")
    return f".{end.lower()}" if dot and stem else ""


def is_safe(name: str) -> bool:
    """Whether a file of a model may be called that: a relative path that stays where it is, as any system takes it."""
    pieces = name.split("/")
    return (
        0 < len(name) <= _LONGEST_NAME
        and len(pieces) <= _DEEPEST
        and "\\" not in name
        and all(piece.strip() and piece not in {".", ".."} and len(piece) <= _LONGEST_PIECE for piece in pieces)
        and not any(unicodedata.category(char) in {"Cc", "Cs", "Cf", "Zl", "Zp"} for char in name)
    )


def select(files: Sequence[RemoteFile], where: str, *, unsafe: bool = False) -> Selection:
    """What to install of the `files` that `where` lists, sorted by name.

    GGUF files win over all others that lie beside them, unless there are safetensors; of a snapshot, code and other
    formats stay where they are.

    Raises:
        SourceError: there is nothing, or a name that no file may have.
        UnsafeFormat: there are no other weights than pickles, and `unsafe` does not allow them.
    """
    _check_names(files, where)
    names = {file.name: suffix(file.name) for file in files}
    endings = set(names.values())
    if ".safetensors" in endings:
        taken = {name for name, end in names.items() if end == ".safetensors" or _belongs(name, end)}
    elif ".gguf" in endings:
        taken = {name for name, end in names.items() if end == ".gguf" or _belongs(name, end)}
    elif endings & _PICKLES and not unsafe:
        first = min(name for name, end in names.items() if end in _PICKLES)
        raise _unsafe(f"{first} of {where} is")
    else:
        taken = {name for name, end in names.items() if end != ".py"}
    return Selection(
        tuple(sorted((file for file in files if file.name in taken), key=lambda file: file.name)),
        tuple(sorted(names.keys() - taken)),
    )


def _belongs(name: str, end: str) -> bool:
    return end in _TEXTS or not end or _KNOWN_NAMES.fullmatch(name.rpartition("/")[2]) is not None


def _check_names(files: Sequence[RemoteFile], where: str) -> None:
    if not files:
        raise SourceError(f"{where} has no files.", "Check the reference.")
    if len(files) > _MOST_FILES:
        raise SourceError(f"{where} lists {len(files)} files; a model has at most {_MOST_FILES}.", "Name some of them.")
    taken: dict[str, str] = {}
    for file in files:
        if not file.parts or not is_safe(file.name):
            raise SourceError(f"{where} lists a file that cannot be: {file.name[:80]!r}.", "Check the reference.")
        folded = unicodedata.normalize("NFC", file.name).casefold()
        if folded in taken:
            raise SourceError(f"{where} lists {file.name!r} and {taken[folded]!r}, which are one file on some disks.")
        taken[folded] = file.name
    for folded, name in taken.items():
        above = folded
        while above := above.rpartition("/")[0]:
            if above in taken:
                raise SourceError(f"{where} lists {taken[above]!r} as a file and, in {name!r}, as a folder.")


def inspect(path: Path, entry: FileEntry, *, unsafe: bool = False) -> Inspected:
    """What the file at `path` is, by its bytes and then by its name; blocks for some 0.1 s.

    Raises:
        CorruptModel: it is damaged, truncated, or not what its name says.
        UnsafeFormat: opening it can run code, and `unsafe` does not allow that.
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    end = suffix(entry.name)
    if head.startswith(b"GGUF"):
        return Inspected(entry, path, GGUF, gguf=gguf.read(path))
    if end in _PICKLES or _PICKLED.match(head) or _OBJECTS.match(head) or head.startswith(_ARCHIVES):
        if not unsafe:
            raise _unsafe(f"{entry.name} begins like" if end not in _PICKLES else f"{entry.name} is")
        return Inspected(entry, path, PICKLE if end in _PICKLES else _OTHER)
    if end == ".gguf":
        gguf.read(path)  # says what is wrong with it
    if end == ".safetensors":
        return Inspected(entry, path, SAFETENSORS, safetensors=safetensors.read(path))
    if end == ".json" and head.lstrip()[:1] not in {b"{", b"["}:
        raise CorruptModel("It is no JSON.", "The source sent something else: try again, or check the reference.")
    return Inspected(entry, path, _OTHER)


def _unsafe(what: str) -> UnsafeFormat:
    return UnsafeFormat(
        f"{what} a pickle or an archive of such, which can run code when it is opened.",
        "Look for the same model as safetensors or GGUF. If you trust who made it, name it in sources.allow_pickle.",
    )


def is_projector(header: gguf.Header) -> bool:
    """Whether the file is no model but the eyes of one: a multimodal projector."""
    return header.architecture in _PROJECTORS or header.text("general.type") in _PROJECTORS


def assemble(items: Sequence[Inspected]) -> Shape:
    """What the files make up, and the role of each.

    Raises:
        CorruptModel: no model, more than one, or one of which something is missing.
    """
    kinds = {item.kind for item in items}
    if SAFETENSORS in kinds and GGUF not in kinds:
        return _snapshot(items, SAFETENSORS)
    if PICKLE in kinds and GGUF not in kinds:
        return _snapshot(items, PICKLE)
    return _gguf(items)


def _gguf(items: Sequence[Inspected]) -> Shape:
    headers = {item.entry.name: item.gguf for item in items if item.gguf is not None}
    eyes = [name for name, header in headers.items() if is_projector(header)]
    pieces = {name: header for name, header in headers.items() if name not in eyes}
    roles = dict.fromkeys(eyes, "mmproj")
    if any(header.split is not None for header in pieces.values()):
        first, whole = _whole(pieces)
        roles |= dict.fromkeys(pieces, "split") | {first: "model"}
    elif len(pieces) == 1:
        first, whole = next(iter(pieces.items()))
        roles[first] = "model"
    else:
        raise _not_one(items)
    if len(eyes) > 1 or SAFETENSORS in {item.kind for item in items}:
        raise _not_one(items)
    return Shape(
        GGUF,
        tuple(replace(item.entry, role=roles.get(item.entry.name, "file")) for item in items),
        header=whole,
        documents={item.entry.name: item.path for item in items if item.gguf is None},
        sees=bool(eyes),
    )


def _not_one(items: Sequence[Inspected]) -> CorruptModel:
    names = ", ".join(item.entry.name for item in items[:10])
    return CorruptModel(
        "A model is one GGUF file, or all pieces of one, and a projector if it sees; or a snapshot with config.json. "
        f"These are: {names or 'none'}.",
        "Name one of the files.",
    )


def _whole(pieces: Mapping[str, gguf.Header]) -> tuple[str, gguf.Header]:
    """The name of the first piece, and the header of the model that the pieces are together.

    Raises:
        CorruptModel: one is missing, or of another model.
    """
    order: dict[int, str] = {}
    counts, totals, stems = set(), set(), set()
    for name, header in pieces.items():
        match = _PIECE.fullmatch(name)
        if header.split is None or match is None or int(match["number"]) != header.split.number + 1:
            raise CorruptModel(f"{name} is no piece of a split GGUF as its name and its header must say.")
        order[header.split.number] = name
        counts |= {header.split.count, int(match["count"])}
        totals.add(header.split.tensors)
        stems.add(match["stem"])
    if len(counts) > 1 or len(totals) > 1 or len(stems) > 1 or len(order) < len(pieces):
        raise CorruptModel(f"The pieces are not of one model: {', '.join(sorted(pieces)[:10])}.", "Name one of them.")
    count = counts.pop()
    missing = [number + 1 for number in range(count) if number not in order]
    if missing:
        raise CorruptModel(f"{len(missing)} of {count} pieces are missing, the first is number {missing[0]}.")
    headers = [pieces[order[number]] for number in range(count)]
    tensors = sum(header.tensors for header in headers)
    if totals != {tensors}:
        raise CorruptModel(f"The pieces hold {tensors} tensors and should hold {totals.pop()}.", "Fetch them again.")
    types: Counter[str] = Counter()
    for header in headers:
        types.update(header.tensor_types)
    whole = replace(
        headers[0],
        parameters=sum(header.parameters for header in headers),
        required_size=sum(header.required_size for header in headers),
        tensor_types=dict(types),
        tensors=tensors,
    )
    return order[0], whole


def _snapshot(items: Sequence[Inspected], kind: str) -> Shape:
    documents = {item.entry.name: item.path for item in items if item.kind == _OTHER}
    weights = [item for item in items if item.kind == kind]
    if "config.json" not in documents:
        adapter = "adapter_config.json" in documents
        what = "An adapter is no model of its own" if adapter else "A snapshot has a config.json, and there is none"
        raise CorruptModel(f"{what}: {', '.join(item.entry.name for item in items[:10])}.", "Check the reference.")
    if kind == SAFETENSORS:
        _check_shards(weights, documents)
    return Shape(
        kind,
        tuple(replace(item.entry, role="model" if item.kind == kind else "file") for item in items),
        weights=tuple(item.safetensors for item in weights if item.safetensors is not None),
        documents=documents,
    )


def _check_shards(weights: Sequence[Inspected], documents: Mapping[str, Path]) -> None:
    """Refuse a snapshot that lacks a piece which another file of it speaks of."""
    names = {item.entry.name for item in weights}
    wanted: set[str] = set()
    for match in filter(None, map(_SHARD.fullmatch, names)):
        count = int(match["count"])
        if count > _MOST_FILES:
            raise CorruptModel(f"{match[0]} says that it is one of {count} pieces.")
        width = len(match["number"])
        wanted |= {f"{match['stem']}-{n:0{width}}-of-{match['count']}.safetensors" for n in range(1, count + 1)}
    held = {item.entry.name: item.safetensors.tensors for item in weights if item.safetensors is not None}
    for name in documents:
        if name.endswith(".safetensors.index.json"):
            wanted |= _of_index(name, documents[name], held)
    missing = sorted(wanted - names)
    if missing:
        raise CorruptModel(f"{len(missing)} files of weights are missing: {', '.join(missing[:5])}.", "Fetch it again.")


def _of_index(name: str, path: Path, held: Mapping[str, frozenset[str]]) -> set[str]:
    """The files that an index of weights names.

    Raises:
        CorruptModel: it is damaged, or names a tensor that is not where it says.
    """
    folder = name.rpartition("/")[0]
    try:
        places = document(path)["weight_map"]
        wanted = {tensor: f"{folder}/{place}" if folder else str(place) for tensor, place in places.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptModel(f"{name} is damaged.", "Fetch it again.") from error
    for tensor, place in wanted.items():
        if place in held and tensor not in held[place]:
            raise CorruptModel(f"{name} says that {tensor[:80]!r} is in {place}, and it is not.", "Fetch it again.")
    return set(wanted.values())


def document(path: Path) -> dict[str, Any]:
    """The JSON object in a file of at most 32 MiB and two million values; ValueError where there is none. Blocks."""
    if path.stat().st_size > _LARGEST_DOCUMENT:
        raise ValueError(f"{path} is too large")
    match bounded(path.read_bytes(), _MOST_VALUES):
        case dict() as found:
            return found
    raise ValueError(f"{path} holds no object")
