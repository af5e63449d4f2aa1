"""Models of Ollama's registry, and of any other that keeps models as Ollama does, without Ollama.

    ollama:llama3.2:1b                      registry.ollama.ai, namespace library
    ollama:user/model:tag
    ollama:host[:port]/namespace/model:tag  https; http for loopback, or written out as http://host/…
    ollama:llama3.2@sha256:…                exactly that manifest
    ollama:/folder/models#llama3.2:1b       from the folder of an Ollama on this machine; an update asks the registry

A model is a manifest that names layers. The file of weights and the projector become files; template, parameters,
system message and licence become defaults and facts of the revision.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from corral.domain.models import Listing, ModelRef, RemoteFile, RemotePart, told
from corral.errors import DigestMismatch, NotSupported, SourceError, SourceNotFound
from corral.kit.addresses import Zone, literal_zone
from corral.kit.disk import in_thread
from corral.kit.fetch import fetch
from corral.kit.oci import Layer, RegistryWeb
from corral.kit.ollama_store import DEFAULT_HOST, Name, OllamaStore
from corral.kit.pip_config import PipConfig
from corral.kit.web import Transient
from corral.sources._ollama import layers
from corral.sources._ollama.gotemplate import Untranslatable
from corral.sources._ollama.jinja import translate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from corral.config.settings import Settings
    from corral.domain.ports import Clock, Hit, PartFile, Query, Report
    from corral.kit.oci import Manifest
    from corral.kit.web import Access

_PREFIX = "application/vnd.ollama.image."
_MOST_TEXT = 1 << 20
_MOST_LICENCES = 8
_MOST_TOLD = 50
_FILES = ("model", "projector")
_TEXTS = ("template", "params", "system", "messages", "license")


class _Shelf(Protocol):
    """Where a model's layers lie: in a registry or on this machine."""

    async def manifest(self, name: Name) -> Manifest: ...
    async def read(self, name: Name, layer: Layer) -> bytes: ...
    def part(self, name: Name, layer: Layer) -> RemotePart: ...


@dataclass(frozen=True, slots=True)
class _Remote:
    web: RegistryWeb

    async def manifest(self, name: Name) -> Manifest:
        try:
            return (await self.web.manifest(name.repository, name.digest or name.tag))[0]
        except SourceNotFound as error:
            if name.host == DEFAULT_HOST:
                raise SourceNotFound(
                    f"Ollama's registry has no model {name}.", "See https://ollama.com/library for what there is."
                ) from error
            raise SourceNotFound(
                f"{name.host} has no model {name.repository}:{name.tag}.",
                f"Its tags, if it has the model at all: {self.web.base}/v2/{name.repository}/tags/list",
            ) from error

    async def read(self, name: Name, layer: Layer) -> bytes:
        return await self.web.blob(name.repository, layer, _MOST_TEXT)

    def part(self, name: Name, layer: Layer) -> RemotePart:
        return RemotePart(self.web.blob_url(name.repository, layer), layer.size, layer.sha256)


@dataclass(frozen=True, slots=True)
class _Local:
    store: OllamaStore

    async def manifest(self, name: Name) -> Manifest:
        try:
            manifest, _ = await in_thread(self.store.manifest, name)
        except FileNotFoundError as error:
            raise SourceNotFound(f"{self.store.folder} has no model {name}.", "See: ollama list") from error
        if name.digest not in {None, f"sha256:{manifest.sha256}"}:
            raise SourceNotFound(f"{self.store.folder} has {name.model} in another version.", "See: ollama list")
        return manifest

    async def read(self, name: Name, layer: Layer) -> bytes:
        path = self._path(name, layer)
        if layer.size > _MOST_TEXT:
            raise SourceError(f"{path} ({layer.media_type}) has {layer.size} bytes, over the {_MOST_TEXT} allowed.")
        try:
            data = await in_thread(path.read_bytes)
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror}.", "Check its owner and mode.") from error
        if hashlib.sha256(data).hexdigest() != layer.sha256:
            raise DigestMismatch(
                f"{path} is damaged: it is not what its name says.", f"Pull it again: ollama pull {name}"
            )
        return data

    def part(self, name: Name, layer: Layer) -> RemotePart:
        return RemotePart(self._path(name, layer).as_uri(), layer.size, layer.sha256)

    def _path(self, name: Name, layer: Layer) -> Path:
        path = self.store.blob(layer)
        if path is None:
            raise SourceNotFound(
                f"{self.store.folder} does not have {name} whole: sha256-{layer.sha256} is missing.",
                f"Pull it from the registry: corral pull ollama:{name}",
            )
        return path


class Ollama:
    """Ollama's registry as a source of models."""

    scheme = "ollama"

    def __init__(self, clock: Clock, env: Mapping[str, str], settings: Settings) -> None:
        self._clock = clock
        self._env = env
        self._settings = settings

    async def resolve(self, ref: ModelRef) -> Listing:
        """What the tag stands for: the manifest and the small layers are read, the weights are not.

        Of a model in a folder the fact `read_from` tells the folder.

        Raises:
            SourceNotFound: the name is none, or the registry has no such model.
            NotSupported: it is something that no runtime here can run, such as a model with an adapter.
            DigestMismatch: a layer is not what the manifest promises.
            SourceError: the registry cannot be reached, or says what cannot be.
        """
        wanted = _Wanted.parse(ref)
        if wanted.folder is not None:
            return await self._stored(wanted, OllamaStore(wanted.folder))
        try:
            async with RegistryWeb(wanted.base, await self._access(wanted.base), self._clock) as web:
                return await _listing(ref, wanted.name, _Remote(web))
        except Transient as error:
            # Not taken unasked: it may be older than what is installed, and an update would go back to it.
            store = await in_thread(OllamaStore.found, self._env)
            if store is None or not await in_thread(_holds, store, wanted.name):
                raise
            there = f"Ollama on this machine has it: corral pull 'ollama:{store.folder}#{wanted.name}'"
            raise Transient(error.message, there, after=error.after) from error

    async def fetch(self, file: RemoteFile, into: PartFile, report: Report) -> None:
        """Fetch a layer, going on from what is held.

        Raises:
            DigestMismatch: it is not what the manifest promised; nothing is kept.
            SourceError: the registry failed; what arrived is kept.
        """
        if len(file.parts) != 1:
            raise SourceError(f"{file.name} is no layer of a registry.")
        part = file.parts[0]
        parts = urlsplit(part.url)
        base = f"{parts.scheme}://{parts.netloc}"
        async with RegistryWeb(base, await self._access(base), self._clock) as web:
            await fetch(web, part, into, report)

    async def search(self, query: Query) -> Sequence[Hit]:
        """Refused: Ollama's registry has no search."""
        raise NotSupported(
            f"Ollama's registry cannot be searched for {query.text!r}.",
            "Look at https://ollama.com/library and name the model, as in ollama:llama3.2:1b, or search hf.",
        )

    async def _stored(self, wanted: _Wanted, store: OllamaStore) -> Listing:
        follows = ModelRef(self.scheme, wanted.written)
        listing = await _listing(follows, wanted.name, _Local(store))
        return replace(listing, facts={**listing.facts, "read_from": str(store.folder)})

    async def _access(self, base: str) -> Access:
        """Public registries, those that the settings allow, and one on this very machine when it is asked for."""
        config = await in_thread(PipConfig.read, self._env)
        access = config.access.within(self._settings.sources, guarded=True)
        host = urlsplit(base).hostname
        return replace(access, private=access.private | {host}) if host and _is_here(host) else access


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A reference, taken apart. `written` is the name as it was written, without a folder."""

    name: Name
    written: str
    scheme: str
    folder: Path | None = None

    @classmethod
    def parse(cls, ref: ModelRef) -> _Wanted:
        """What `ref` asks for.

        Raises:
            SourceNotFound: it can name no model.
        """
        written, folder, scheme = ref.locator, None, ""
        if written.startswith("/"):
            place, _, written = written.rpartition("#")
            folder = Path(place)
        for prefix in ("https://", "http://"):
            if written.startswith(prefix):
                scheme = prefix.removesuffix("://")
        bare = written.removeprefix(f"{scheme}://") if scheme else written
        name = Name.parse(bare)
        if name is None or (scheme and name.host == DEFAULT_HOST != bare.partition("/")[0]) or "\0" in str(folder):
            raise SourceNotFound(
                f"{_shown(ref)[:200]!r} names no model of Ollama's.",
                "Write ollama:NAME:TAG, ollama:USER/NAME:TAG or ollama:HOST/NAMESPACE/NAME:TAG.",
            )
        return cls(name, written, scheme or ("http" if _is_here(_host(name)) else "https"), folder)

    @property
    def base(self) -> str:
        return f"{self.scheme}://{self.name.host}"


def _shown(ref: ModelRef) -> str:
    """The reference as a message may show it, also one that names nothing: a login may stand before an `@`."""
    scheme, colon, rest = told(str(ref)).partition(":")
    return f"{scheme}{colon}{re.sub(r'^[^/]*@(?!sha256:)', '', rest)}"


def _host(name: Name) -> str:
    return urlsplit(f"//{name.host}").hostname or ""


def _is_here(host: str) -> bool:
    return host == "localhost" or literal_zone(host) is Zone.LOOPBACK


def _holds(store: OllamaStore, name: Name) -> bool:
    """Whether the store has the model whole."""
    try:
        manifest, _ = store.manifest(name)
    except (FileNotFoundError, SourceError):
        return False
    if name.digest not in {None, f"sha256:{manifest.sha256}"}:
        return False
    return all(store.blob(layer) is not None for layer in manifest.layers)


@dataclass(slots=True)
class _Content:
    """A manifest's layers by kind, and what nothing here can honour."""

    files: dict[str, list[Layer]] = field(default_factory=dict)
    texts: dict[str, list[Layer]] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)


async def _listing(ref: ModelRef, name: Name, shelf: _Shelf) -> Listing:
    manifest = await shelf.manifest(name)
    content = _sort(manifest)
    config: Mapping[str, Any] = {}
    if manifest.config is not None:
        config = layers.configuration(await shelf.read(name, manifest.config), f"The configuration of {name}")
    _refuse(name, content, config)
    texts = {
        kind: [(await shelf.read(name, layer)).decode("utf-8", "replace") for layer in found]
        for kind, found in content.texts.items()
    }
    defaults, facts = await in_thread(_honour, name, texts, config)
    opening = layers.messages(texts["messages"][-1].encode()) if "messages" in texts else []
    if opening is None:
        content.ignored.append("messages")
    elif opening:
        defaults["opening"] = opening
    if content.ignored:
        facts["ignored_layers"] = sorted(set(content.ignored))[:_MOST_TOLD]
    files = tuple(
        RemoteFile(f"{name.model}{ending}.gguf", (shelf.part(name, layer),), layer.size, layer.sha256)
        for kind, ending in (("model", ""), ("projector", "-mmproj"))
        for layer in content.files.get(kind, [])
    )
    licence = layers.licence(texts.get("license", []))
    return Listing(ref, files, f"sha256:{manifest.sha256}", licence, _homepage(name), defaults, facts)


def _sort(manifest: Manifest) -> _Content:
    content = _Content()
    for layer in manifest.layers:
        kind = layer.media_type.removeprefix(_PREFIX)
        if kind in _FILES or kind == "adapter":
            content.files.setdefault(kind, []).append(layer)
        elif kind not in _TEXTS:
            content.ignored.append(kind)
        elif kind != "license":
            content.texts[kind] = [layer]  # of several, Ollama takes the last
        elif len(content.texts.setdefault(kind, [])) < _MOST_LICENCES:
            content.texts[kind].append(layer)
        else:
            content.ignored.append(kind)
    return content


def _refuse(name: Name, content: _Content, config: Mapping[str, Any]) -> None:
    """Let pass what can be run here.

    Raises:
        NotSupported: it cannot.
        SourceError: it is no model.
    """
    models = content.files.get("model", [])
    if config.get("remote_host") or config.get("remote_model"):
        raise NotSupported(f"{name} runs in Ollama's cloud only: there is nothing to install.", "Choose another tag.")
    if content.files.get("adapter"):
        raise NotSupported(
            f"{name} is a model with an adapter on top, which cannot be installed yet.",
            "Install the model it was made from, and give llamacpp the adapter by its option `lora`.",
        )
    if config.get("model_format", "gguf") != "gguf":
        raise NotSupported(f"{name} is in the format {config['model_format']!r:.40}, not GGUF.", "Choose another tag.")
    if not models:
        kinds = ", ".join(sorted(set(content.ignored)))[:200] or "no layers"
        raise SourceError(f"{name} is no model of Ollama's: it has {kinds}.", "Check the name.")
    if len(models) > 1 or len(content.files.get("projector", [])) > 1:
        raise NotSupported(f"{name} is a model in several files.", "Choose a tag that is one file.")


def _honour(
    name: Name, texts: Mapping[str, Sequence[str]], config: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Defaults and facts of the revision. Blocks a little."""
    defaults: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    for text in texts.get("params", []):
        found = layers.parameters(text.encode(), f"The parameters of {name}")
        defaults |= found.options
        if found.ignored:
            facts["ignored_params"] = dict(islice(found.ignored.items(), _MOST_TOLD))
    for text in texts.get("system", []):
        if text.strip():
            defaults["system"] = facts["system"] = text
    for text in texts.get("template", []):
        reason = f"Ollama writes its prompts by code ({config['renderer']!r:.40})" if config.get("renderer") else ""
        try:
            defaults |= {} if reason else {"chat_template": translate(text)}
        except Untranslatable as error:
            reason = str(error)
        if reason:
            facts["template_ignored"] = f"The model file's own template is used, not Ollama's: {reason}."
    if texts.get("license"):
        facts["licence_text"] = layers.licence_text(texts["license"])
    return defaults, facts


def _homepage(name: Name) -> str | None:
    if name.host == DEFAULT_HOST:
        return f"https://ollama.com/{name.repository}"
    if name.host in {"hf.co", "huggingface.co"}:
        return f"https://huggingface.co/{name.repository}"
    return None


plugin = Ollama
