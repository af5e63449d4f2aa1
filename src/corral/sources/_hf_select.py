"""What a Hugging Face reference names, and which files of a repo it means. Pure: names in, names out.

owner/repo                       the only GGUF, or the best of several; of a repo without GGUF the safetensors snapshot
owner/repo:Q4_K_M                that quantisation, in any case
owner/repo@revision[:Q4_K_M]     of a branch, tag or commit
owner/repo[@revision]/path.gguf  that file; `*`, `?` and `[…]` match several
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote, unquote

from corral.domain.sizes import human
from corral.errors import SourceError, SourceNotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PREFERRED: Final = (
    "Q4_K_M",
    "UD-Q4_K_XL",
    "Q4_K_XL",
    "Q4_K_L",
    "Q4_K_S",
    "IQ4_NL",
    "IQ4_XS",
    "Q4_1",
    "Q4_0",
    "MXFP4",
    "MXFP4_MOE",
    "Q5_K_M",
    "Q5_K_S",
    "Q5_1",
    "Q5_0",
    "Q6_K",
    "Q8_0",
    "Q3_K_L",
    "Q3_K_M",
    "IQ3_M",
    "BF16",
    "F16",
    "F32",
)
"""Quantisations, the one taken unasked first. Others come after these, the smallest first."""

PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
"""File name endings of formats that can run code when they are opened."""

_HOST = re.compile(r"(?:https?:)?(?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/", re.IGNORECASE)
_LOCATOR = re.compile(
    r"""(?P<repo>\w[\w.\-]{0,95}(?:/\w[\w.\-]{0,95})?)
        (?:@(?P<revision>refs/(?:pr|convert)/[\w.\-]+|[^/:@\s]+))?
        (?::(?P<quantization>[\w.\-]+)|/(?P<pattern>[^\x00-\x1f]+))?""",
    re.ASCII | re.VERBOSE,
)
_PAGE = re.compile(r"([^/]+/[^/@:]+)/(?:blob|resolve|tree|raw)/(refs/(?:pr|convert)/[^/]+|[^/]+)(?:/(.+))?")
_LABEL = re.compile(
    r"(?<![a-z0-9])((?:ud-)?(?:i?q\d+(?:_(?:k|xxs|xs|xl|s|m|l|nl|\d)(?![a-z0-9]))*"
    r"|tq\d_\d|bf16|fp?16|fp?32|mxfp4(?:_moe)?|nvfp4))(?![a-z0-9])",
    re.IGNORECASE,
)
_PIECE = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.gguf", re.IGNORECASE)

_SINGLE = re.compile(r"model\.safetensors")
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors|model\.safetensors\.index\.json")
_ADAPTER = re.compile(r"adapter_model\.safetensors")
_NOT_WEIGHTS = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state).*")
_MODULE = re.compile(r"\d+_\w+/(config\.json|model\.safetensors)", re.ASCII)
_COMPANIONS = re.compile(
    r"(config|generation_config|adapter_config|special_tokens_map|added_tokens|vocab|modules|processor_config"
    r"|(video_|image_)?preprocessor_config|sentence_bert_config|config_sentence_transformers)\.json"
    r"|(vocab|merges)\.txt|tokenizer[\w.\-]*\.(json|txt|model)|\w*\.tiktoken|spiece\.model|sentencepiece[\w.\-]*\.model"
    r"|chat_template[\w.\-]*|additional_chat_templates/[\w.\-]+\.jinja|README\.md",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a repo. `sha256` of one kept in LFS; `blob` is the git object's SHA-1 of any other."""

    path: str
    size: int | None = None
    sha256: str | None = None
    blob: str | None = None

    @property
    def base(self) -> str:
        """The name without its folder."""
        return self.path.rpartition("/")[2]

    @property
    def folder(self) -> str:
        """The folder, empty for the repo's own."""
        return self.path.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A reference, taken apart."""

    repo: str
    revision: str | None = None
    quantization: str | None = None
    pattern: str | None = None

    @classmethod
    def parse(cls, locator: str) -> Self:
        """What stands behind `hf:`, also with the hub's host or a page's address in front.

        Raises:
            SourceNotFound: it cannot name anything there.
        """
        text = locator.rstrip("/")
        host = _HOST.match(text)
        if host is not None:
            text = text[host.end() :].partition("?")[0].partition("#")[0]
            page = _PAGE.fullmatch(text)
            if page is not None:
                text = f"{page[1]}@{page[2]}" + (f"/{unquote(page[3])}" if page[3] else "")
        match = _LOCATOR.fullmatch(text)
        if match is None or len(text) > 1000:
            raise _unnamable(locator)
        wanted = cls(
            match["repo"], match["revision"] and unquote(match["revision"]), match["quantization"], match["pattern"]
        )
        climbs = ".." in wanted.repo or ".." in (wanted.revision or "") or ".." in (wanted.pattern or "").split("/")
        if wanted.pattern is not None and "/" not in wanted.repo:
            raise _unnamable(locator)
        if climbs or "--" in wanted.repo or not (wanted.revision or "main").isprintable():
            raise _unnamable(locator)
        return wanted

    def __str__(self) -> str:
        revision = self.revision
        if revision is not None and not revision.startswith(("refs/pr/", "refs/convert/")):
            revision = quote(revision, safe="")
        text = self.repo if revision is None else f"{self.repo}@{revision}"
        if self.quantization is not None:
            return f"{text}:{self.quantization}"
        return text if self.pattern is None else f"{text}/{self.pattern}"


@dataclass(frozen=True, slots=True)
class Choice:
    """The files that a reference means. `chosen` is the quantisation that was taken without being asked for."""

    files: tuple[Entry, ...]
    chosen: str | None = None


@dataclass(frozen=True, slots=True)
class _Model:
    """A GGUF, whole or in pieces. `total` pieces make it up."""

    stem: str
    pieces: tuple[Entry, ...]
    total: int

    @property
    def label(self) -> str | None:
        return label(self.stem)

    @property
    def size(self) -> int | None:
        sizes = [piece.size for piece in self.pieces]
        return None if None in sizes else sum(size or 0 for size in sizes)

    @property
    def told(self) -> str:
        """As an error names it."""
        name = self.label or self.stem
        return name if self.size is None else f"{name} ({human(self.size)})"


def label(path: str) -> str | None:
    """The quantisation that a GGUF's name tells, as it is commonly written; the file's own name before its folder's."""
    for part in reversed(path.split("/")):
        found = _LABEL.findall(part)
        if found:
            return re.sub(r"^FP(?=\d)", "F", str(found[-1]).upper())
    return None


def choose(wanted: Wanted, entries: Iterable[Entry]) -> Choice:
    """The files that `wanted` means among those of its repo.

    Raises:
        SourceNotFound: there are none, or several that are equally meant; says which there are.
        SourceError: a model in pieces lacks one.
    """
    entries = sorted(entries, key=lambda entry: entry.path)
    matching = entries
    if wanted.pattern is not None:
        exact = [entry for entry in entries if entry.path == wanted.pattern]
        matching = exact or [entry for entry in entries if _matches(entry, wanted.pattern)]
        if not matching:
            raise SourceNotFound(f"hf:{wanted}: no file there has that name.", _offer(wanted, entries))
    models = _models(entries)
    meant = [model for model in models if not set(model.pieces).isdisjoint(matching)]
    if meant:
        model = _pick(wanted, meant)
        if len(model.pieces) != model.total:
            raise SourceError(
                f"hf:{wanted}: of the {model.total} pieces of {model.stem} there are {len(model.pieces)}.",
                "The repo is not whole. Choose another quantisation.",
            )
        named = wanted.quantization is not None or (wanted.pattern is not None and len(meant) == 1)
        return Choice((*model.pieces, *_projector(model, entries)), None if named else model.label)
    if wanted.quantization is not None:
        raise SourceNotFound(
            f"hf:{wanted.repo} has no GGUF, so there is no {wanted.quantization} of it.", _offer(wanted, entries)
        )
    return Choice(_snapshot(wanted, entries, matching))


def _unnamable(locator: str) -> SourceNotFound:
    return SourceNotFound(
        f"{locator[:200]!r} names nothing on Hugging Face.",
        "Write hf:OWNER/REPO, hf:OWNER/REPO:Q4_K_M or hf:OWNER/REPO/FILE.",
    )


def _matches(entry: Entry, pattern: str) -> bool:
    return fnmatchcase(entry.path, pattern) or ("/" not in pattern and fnmatchcase(entry.base, pattern))


def _is_projector(entry: Entry) -> bool:
    return "mmproj" in entry.base.lower()


def _models(entries: Sequence[Entry]) -> list[_Model]:
    """The models among the GGUF files, pieces put together; no projectors, no importance matrices."""
    found: dict[tuple[str, int], list[Entry]] = {}
    for entry in entries:
        name = entry.base.lower()
        if not name.endswith(".gguf") or _is_projector(entry) or "imatrix" in name:
            continue
        piece = _PIECE.fullmatch(entry.path)
        key = (entry.path[: -len(".gguf")], 1) if piece is None else (piece["stem"], int(piece["total"]))
        found.setdefault(key, []).append(entry)
    return [_Model(stem, tuple(pieces), total) for (stem, total), pieces in found.items()]


def _pick(wanted: Wanted, models: Sequence[_Model]) -> _Model:
    text = wanted.quantization
    if text is None or text.lower() == "latest":
        best = min(map(_rank, models))
        fitting = [model for model in models if _rank(model) == best]
    else:
        fitting = _of_quantization(text, models)
    if not fitting:
        raise SourceNotFound(
            f"hf:{wanted.repo} has no {text!r}.", f"There are: {', '.join(model.told for model in _by_size(models))}."
        )
    if len(fitting) > 1:
        names = ", ".join(f"hf:{wanted.repo}/{model.pieces[0].path}" for model in fitting[:8])
        raise SourceNotFound(f"hf:{wanted} can mean {len(fitting)} models.", f"Name one of them: {names}.")
    return fitting[0]


def _rank(model: _Model) -> tuple[int, int]:
    """The place in `PREFERRED`; of models that are not in it the smaller one is better."""
    if model.label in PREFERRED:
        return PREFERRED.index(model.label), 0
    return len(PREFERRED), model.size or 0


def _of_quantization(text: str, models: Sequence[_Model]) -> list[_Model]:
    """The models of the quantisation `text`, or else those with `text` in their names."""
    asked = _plain(text)
    by_label = [model for model in models if model.label is not None and _plain(model.label) == asked]
    dynamic = [model for model in models if model.label is not None and _plain(model.label) == f"ud_{asked}"]
    word = re.compile(rf"(?<![a-z0-9_]){re.escape(text.lower().removesuffix('.gguf'))}(?![a-z0-9_])")
    return by_label or dynamic or [model for model in models if word.search(model.stem.rpartition("/")[2].lower())]


def _plain(text: str) -> str:
    return re.sub(r"^fp(?=\d)", "f", text.lower().replace("-", "_"))


def _by_size(models: Iterable[_Model]) -> list[_Model]:
    return sorted(models, key=lambda model: (model.size or 0, model.stem))


def _projector(model: _Model, entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """The repo's projector: of the model's own folder if it has one, in F16 if it can be, else the smallest."""
    there = [entry for entry in entries if _is_projector(entry) and entry.base.lower().endswith(".gguf")]
    beside = [entry for entry in there if entry.folder == model.pieces[0].folder]
    ordered = sorted(beside or there, key=lambda entry: (label(entry.base) != "F16", entry.size or 0, entry.path))
    return tuple(ordered[:1])


def _snapshot(wanted: Wanted, entries: Sequence[Entry], matching: Sequence[Entry]) -> tuple[Entry, ...]:
    """Weights and what belongs to them: never code, never another framework's weights beside safetensors."""
    weights = _weights(matching, anywhere=wanted.pattern is not None)
    if not weights:
        raise SourceNotFound(f"hf:{wanted} has no GGUF or safetensors files.", _offer(wanted, entries))
    companions = [entry for entry in entries if _COMPANIONS.fullmatch(entry.path) or _MODULE.fullmatch(entry.path)]
    return tuple(sorted({*weights, *companions}, key=lambda entry: entry.path))


def _weights(entries: Sequence[Entry], *, anywhere: bool) -> list[Entry]:
    """Safetensors where there are any: as transformers names them, else whatever lies at the top. Else pickles."""
    top = [entry for entry in entries if anywhere or not entry.folder]
    for names in (_SINGLE, _SHARD, _ADAPTER):
        found = [entry for entry in top if names.fullmatch(entry.base)]
        if any(entry.base.endswith(".safetensors") for entry in found):
            return found
    found = [entry for entry in top if entry.base.endswith(".safetensors")]
    if found:
        # The vendor's own format, which some repos hold beside transformers'.
        return [entry for entry in found if not entry.base.startswith("consolidated")] or found
    pickles = [entry for entry in top if entry.base.lower().endswith(PICKLES) and not _NOT_WEIGHTS.match(entry.base)]
    torch = [entry for entry in pickles if entry.base.startswith("pytorch_model")]
    index = [entry for entry in top if torch and entry.base == "pytorch_model.bin.index.json"]
    return [*(torch or pickles), *index]


def _offer(wanted: Wanted, entries: Sequence[Entry]) -> str:
    models = _models(entries)
    if models:
        return f"There are: {', '.join(model.pieces[0].path for model in _by_size(models)[:20])}."
    if any(entry.base.endswith(".safetensors") for entry in entries):
        return f"It has safetensors: hf:{wanted.repo}"
    endings = sorted({entry.base.rpartition(".")[2] for entry in entries if "." in entry.base.lstrip(".")})
    return f"It has files of these kinds: {', '.join(endings[:12])}." if endings else "It has no files."
