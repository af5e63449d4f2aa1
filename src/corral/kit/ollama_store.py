"""The folder in which Ollama keeps its models, read and never written.

models/
├── manifests/registry.ollama.ai/library/llama3.2/1b      a manifest: what the tag stands for
└── blobs/sha256-<hex>                                    a layer; `sha256-<hex>-partial…` is on its way

A tag's path is its name: host, namespace, model, tag.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from corral.errors import SourceError
from corral.kit.oci import MOST_MANIFEST, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from corral.kit.oci import Layer, Manifest

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
_MOST_MODELS = 100_000
_PIECE = r"[A-Za-z0-9_][\w.\-]{0,127}"
_NAME = re.compile(
    rf"((?P<host>(?:localhost|[\w\-]+(?:\.[\w\-]+)+|\[[0-9a-fA-F:.]+\]|[\w\-]+(?=:\d))(?::\d{{1,5}})?)/)?"
    rf"((?P<namespace>{_PIECE}(?:/{_PIECE})*)/)?(?P<model>{_PIECE})"
    rf"(?::(?P<tag>{_PIECE}))?(?:@(?P<digest>sha256:[0-9a-f]{{64}}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Name:
    """A model as Ollama names it: `llama3.2:1b`, `user/model:tag`, `host:port/namespace/model:tag`."""

    model: str
    tag: str = "latest"
    namespace: str = DEFAULT_NAMESPACE
    host: str = DEFAULT_HOST
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Name | None:
        """The name written as `text`; None when it is none."""
        match = _NAME.fullmatch(text)
        if match is None or len(text) > 400 or ".." in text.split("/"):
            return None
        found = {key: value for key, value in match.groupdict().items() if value is not None}
        return cls(**found)

    @property
    def repository(self) -> str:
        """What a registry calls it."""
        return f"{self.namespace}/{self.model}"

    def __str__(self) -> str:
        """As people write it: what goes without saying is left out."""
        where = [] if self.host == DEFAULT_HOST else [self.host]
        where += [] if not where and self.namespace == DEFAULT_NAMESPACE else [self.namespace]
        tag = "" if self.tag == "latest" else f":{self.tag}"
        return "/".join([*where, self.model]) + tag + (f"@{self.digest}" if self.digest else "")


@dataclass(frozen=True, slots=True)
class OllamaStore:
    """Ollama's models in `folder`. Reading blocks."""

    folder: Path

    @classmethod
    def found(cls, env: Mapping[str, str]) -> OllamaStore | None:
        """The one of this machine: where OLLAMA_MODELS says, the user's own, or the service's; None without one."""
        named = env.get("OLLAMA_MODELS")
        places = [Path(named)] if named else [Path(env["HOME"]) / ".ollama" / "models"] if env.get("HOME") else []
        for folder in [*places, Path("/usr/share/ollama/.ollama/models"), Path("/var/lib/ollama/models")]:
            with suppress(OSError):
                if (folder / "manifests").is_dir():
                    return cls(folder)
        return None

    def names(self) -> Iterator[Name]:
        """The names of all models, sorted, also of those that are not whole.

        Raises:
            SourceError: the folder cannot be read.
        """
        root = self.folder / "manifests"
        try:
            there = root.is_dir()
        except OSError as error:
            _refuse(error)
        if not there:
            raise SourceError(
                f"{self.folder} is no folder of Ollama's models: it has no manifests.",
                "Name the folder that OLLAMA_MODELS names, usually ~/.ollama/models.",
            )
        seen = 0
        for folder, folders, files in os.walk(root, onerror=_refuse):
            folders.sort()
            pieces = Path(folder).relative_to(root).parts
            seen += len(files)
            if seen > _MOST_MODELS:
                raise SourceError(f"{self.folder} has over {_MOST_MODELS} models.", "This cannot be Ollama's.")
            for tag in sorted(files) if len(pieces) >= 3 else ():
                name = Name.parse(f"{'/'.join(pieces)}:{tag}")
                if name is not None:
                    yield name

    def manifest(self, name: Name) -> tuple[Manifest, bytes]:
        """What the name stands for here.

        Raises:
            FileNotFoundError: there is no such model.
            SourceError: the manifest cannot be read or understood.
        """
        path = self.folder.joinpath("manifests", name.host, *name.namespace.split("/"), name.model, name.tag)
        try:
            if path.exists() and not path.is_file():
                raise SourceError(f"{path} is no file.", "It is not as Ollama makes them.")
            with path.open("rb") as file:
                data = file.read(MOST_MANIFEST + 1)
        except FileNotFoundError:
            raise
        except OSError as error:
            _refuse(error)
        return read_manifest(data, str(path)), data

    def blob(self, layer: Layer) -> Path | None:
        """Where the layer lies, with the size it should have; None when it does not."""
        path = self.folder / "blobs" / f"sha256-{layer.sha256}"
        with suppress(OSError):
            if path.is_file() and path.stat().st_size == layer.size:
                return path
        return None


def _refuse(error: OSError) -> NoReturn:
    raise SourceError(
        f"{str(error.filename)[:200]} cannot be read: {error.strerror}.", "Check its owner and mode."
    ) from error
