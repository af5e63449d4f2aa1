"""Models on the Hugging Face hub: `hf:owner/repo`, `hf:owner/repo:Q4_K_M`, `hf:owner/repo@revision/file.gguf`.

What there is is asked of the hub through its client library; the bytes are fetched as everywhere else, from the commit
that was found, so that a push in the middle of a download changes nothing of it.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urldefrag, urlsplit

from corral.domain.models import Listing, ModelRef, RemoteFile, RemotePart
from corral.domain.ports import Hit
from corral.errors import DigestMismatch, LoginRequired, SourceError, SourceNotFound
from corral.kit.disk import in_thread
from corral.kit.fetch import fetch
from corral.kit.pip_config import PipConfig
from corral.kit.web import Patience, Transient, Web, shown
from corral.sources._hf_hub import Hub
from corral.sources._hf_select import Choice, Entry, Wanted, choose

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo

    from corral.config.settings import Settings
    from corral.domain.ports import Clock, PartFile, Query, Report
    from corral.kit.web import Access

T = TypeVar("T")

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")
_COMMIT = re.compile(r"[0-9a-zA-Z]{7,64}")
_BLOB = "git-sha1="
_EXPANDED = ("downloads", "likes", "tags", "gated", "lastModified", "pipeline_tag", "gguf", "safetensors")
_BYTES = {
    "F64": 8,
    "F32": 4,
    "I32": 4,
    "BF16": 2,
    "F16": 2,
    "I64": 8,
    "I16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "U8": 1,
    "I8": 1,
}
_MOST_HITS = 1000


class HuggingFace:
    """The hub as a source of models."""

    scheme = "hf"

    def __init__(self, clock: Clock, env: Mapping[str, str], settings: Settings) -> None:
        self._clock = clock
        self._env = env
        self._settings = settings

    async def resolve(self, ref: ModelRef) -> Listing:
        """What the reference means in the repo as it is now; the listing is bound to that commit.

        Raises:
            SourceNotFound: no such repo, revision, file or quantisation; says which there are.
            LoginRequired: the repo is gated or private.
            SourceError: the hub could not be reached or understood.
        """
        wanted = Wanted.parse(ref.locator)
        access, hub = await self._surroundings()
        info = await self._ask(
            hub,
            access,
            lambda api: api.model_info(
                wanted.repo, revision=wanted.revision, files_metadata=True, timeout=access.timeout
            ),
            wanted.repo,
        )
        if info.gated:
            await self._require_entry(hub, access, wanted.repo)
        repo, commit, entries = _understood(info, hub, wanted)
        choice = choose(wanted, entries)
        at = f"{hub.endpoint}/{repo}/resolve/{commit}"
        return Listing(
            ModelRef(self.scheme, str(wanted)),
            tuple(_file(at, entry) for entry in choice.files),
            commit,
            _licence(info),
            hub.page(repo),
            facts=_facts(info, repo, choice),
        )

    async def fetch(self, file: RemoteFile, into: PartFile, report: Report) -> None:
        """Fetch from the listed commit. Files in LFS are verified by SHA-256, the small others by git's own SHA-1.

        Raises:
            DigestMismatch: the bytes are not the promised ones; nothing of them is kept.
            LoginRequired: the repo is gated or private.
            SourceError: the hub failed; what arrived is kept for the next try.
        """
        if len(file.parts) != 1:
            raise SourceError(f"{file.name} is no file of a hub.", "Install it again.")
        access, hub = await self._surroundings()
        hub.require_online()
        part = file.parts[0]
        url, fragment = urldefrag(part.url)
        checked = into
        if part.sha256 is None and fragment.startswith(_BLOB) and part.size is not None:
            checked = _GitBlob(into, part.size, fragment.removeprefix(_BLOB), url)
            await checked.restart()  # what was held before cannot be hashed again, and is small
        async with Web(access, self._clock, hub.logins) as web:
            try:
                await fetch(web, RemotePart(url, part.size, part.sha256), checked, report)
            except LoginRequired as error:
                repo = urlsplit(url).path.partition("/resolve/")[0].strip("/")
                raise hub.gated(repo) from error
        if isinstance(checked, _GitBlob):
            await checked.verify()

    async def search(self, query: Query) -> Sequence[Hit]:
        """Repos whose names match, the most downloaded first; with no text, the most downloaded that generate text.

        Raises:
            SourceError: the hub could not be reached or understood.
        """
        access, hub = await self._surroundings()
        wanted = query.text.strip()[:200]
        limit = max(0, min(query.limit, _MOST_HITS))
        if not limit:
            return []

        def work(api: HfApi) -> list[Hit]:
            found = api.list_models(
                search=wanted or None,
                pipeline_tag=None if wanted else "text-generation",
                sort="downloads",
                limit=limit,
                expand=list(_EXPANDED),  # type: ignore[arg-type]  # the names that the oldest supported version has
            )
            return [_hit(info) for info in found if _is_named(info)]

        # The library tries a listing again for half a minute, which is too long to tell a person that nobody answers.
        hub.require_online()
        async with Web(access, self._clock) as web, web.get(hub.endpoint, method="HEAD"):
            pass
        return await hub.ask(work, f"models like {wanted!r}" if wanted else "models", access.timeout)

    async def _surroundings(self) -> tuple[Access, Hub]:
        """How the network is reached, and the hub. Its address is the user's own choice, so it may be private."""
        config, hub = await in_thread(lambda: (PipConfig.read(self._env), Hub.read(self._env)))
        access = config.access.within(self._settings.sources, guarded=False)
        hub.require_safe(access)
        return access, hub

    async def _ask(self, hub: Hub, access: Access, work: Callable[[HfApi], T], about: str) -> T:
        """Ask the hub, again when it fails in passing."""
        patience = Patience(self._clock, access.retries)
        while True:
            try:
                return await hub.ask(work, about, access.timeout)
            except Transient as error:
                await patience.wait(error)

    async def _require_entry(self, hub: Hub, access: Access, repo: str) -> None:
        """Find out before the first byte whether a gated repo lets us in.

        Raises:
            LoginRequired: it does not.
        """
        try:
            await self._ask(hub, access, lambda api: api.auth_check(repo), repo)
        except SourceNotFound as error:
            # A mirror may not know the question; the hub itself would have denied the repo before.
            if hub.token is None:
                raise hub.gated(repo) from error


class _GitBlob:
    """A part that also keeps git's digest of what is appended: the hub knows no other of files outside LFS."""

    def __init__(self, inner: PartFile, size: int, promised: str, url: str) -> None:
        self._inner = inner
        self._promised = promised
        self._url = url
        self._start = b"blob %d\0" % size
        self._hash = hashlib.sha1(self._start, usedforsecurity=False)

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._inner.size

    def scratch(self, name: str) -> Path:
        """The inner part's."""
        return self._inner.scratch(name)

    async def append(self, data: bytes) -> None:
        """Write and hash the next bytes."""
        await self._inner.append(data)
        self._hash.update(data)

    async def restart(self) -> None:
        """Throw away what is held."""
        await self._inner.restart()
        self._hash = hashlib.sha1(self._start, usedforsecurity=False)

    def digest(self) -> str:
        """SHA-256, in hex, of the bytes held."""
        return self._inner.digest()

    async def clone(self, path: Path, report: Report) -> None:
        """Refused: the hub's files are fetched."""
        raise SourceError(f"{path} is no file of a hub.")

    async def verify(self) -> None:
        """Let the bytes held pass when they are the promised ones.

        Raises:
            DigestMismatch: they are not; nothing is kept.
        """
        if self._hash.hexdigest() != self._promised:
            await self.restart()
            raise DigestMismatch(
                f"{shown(self._url)} is not the file that the commit names: git's digest is another.",
                "Nothing of it was kept. Try again; if it stays so, do not trust the source.",
            )


def _understood(info: ModelInfo, hub: Hub, wanted: Wanted) -> tuple[str, str, list[Entry]]:
    """The repo's present name, the commit, and its files.

    Raises:
        SourceError: the hub says what cannot be.
    """
    try:
        repo = Wanted.parse(info.id)
    except (SourceNotFound, TypeError, AttributeError) as error:
        raise _nonsense(hub, wanted, "its name") from error
    if repo != Wanted(repo.repo):
        raise _nonsense(hub, wanted, "its name")
    if not isinstance(info.sha, str) or not _COMMIT.fullmatch(info.sha):
        raise _nonsense(hub, wanted, "its commit")
    entries = []
    for sibling in info.siblings or ():
        lfs = sibling.lfs
        entry = Entry(
            sibling.rfilename,
            lfs.size if lfs else sibling.size,
            lfs.sha256 if lfs else None,
            None if lfs else sibling.blob_id,
        )
        if not _is_sound(entry):
            raise _nonsense(hub, wanted, f"the file {str(entry.path)[:80]!r}")
        entries.append(entry)
    return repo.repo, info.sha, entries


def _is_sound(entry: Entry) -> bool:
    path: Any = entry.path
    size: Any = entry.size
    return (
        isinstance(path, str)
        and path.isprintable()
        and not {"", ".", ".."} & set(path.split("/"))
        and "\\" not in path
        and (size is None or (isinstance(size, int) and size >= 0))
        and _is_digest(entry.sha256, _SHA256)
        and _is_digest(entry.blob, _SHA1)
    )


def _is_digest(text: Any, form: re.Pattern[str]) -> bool:
    return text is None or (isinstance(text, str) and form.fullmatch(text) is not None)


def _nonsense(hub: Hub, wanted: Wanted, what: str) -> SourceError:
    return SourceError(f"{shown(hub.endpoint)} says of {wanted.repo} what cannot be: {what}.", "Check HF_ENDPOINT.")


def _file(at: str, entry: Entry) -> RemoteFile:
    url = f"{at}/{quote(entry.path)}"
    if entry.sha256 is None and entry.blob is not None:
        url = f"{url}#{_BLOB}{entry.blob}"
    name = entry.base if entry.base.lower().endswith(".gguf") else entry.path
    part = RemotePart(url, entry.size, entry.sha256, length=entry.size)
    return RemoteFile(name, (part,), entry.size, entry.sha256)


def _licence(info: ModelInfo) -> str | None:
    """The licence that the model's card names, or else its tags."""
    card = info.card_data
    named = _words(card.license) if card is not None else []
    if named == ["other"] and card is not None:
        named = _words(card.license_name) or named
    return named[0] if named else _tagged(info.tags or ())


def _tagged(tags: Iterable[str]) -> str | None:
    return next((tag.partition(":")[2] for tag in tags if tag.startswith("license:")), None)


def _words(value: Any) -> list[str]:
    """The words in `value`, which people write as one or as a list, and sometimes as something else."""
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, str) and item.isprintable() and 0 < len(item) <= 200]


def _count(value: Any) -> int | None:
    """The number that `value` is, if it counts something."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _facts(info: ModelInfo, repo: str, choice: Choice) -> dict[str, Any]:
    card = info.card_data
    titles = _words(card.model_name) if card is not None else []
    facts: dict[str, Any] = {"title": titles[0] if titles else repo.rpartition("/")[2]}
    languages = _words(card.language) if card is not None else []
    if languages:
        facts["languages"] = languages
    if choice.chosen is not None:
        facts["quantization_chosen"] = choice.chosen
    return facts


def _is_named(info: ModelInfo) -> bool:
    """Whether the hit is called something that can be installed, and shown."""
    try:
        return Wanted.parse(info.id) == Wanted(info.id)
    except SourceNotFound:
        return False


def _hit(info: ModelInfo) -> Hit:
    tags = tuple(_words(info.tags))
    changed = info.last_modified
    return Hit(
        ref=ModelRef("hf", info.id),
        title=info.id.rpartition("/")[2],
        size=_size(info),
        licence=_tagged(tags),
        downloads=_count(info.downloads),
        likes=_count(info.likes),
        updated_at=changed.timestamp() if isinstance(changed, datetime) else None,
        gated=bool(info.gated),
        tags=tags,
        facts=_told(info),
    )


def _size(info: ModelInfo) -> int | None:
    """Bytes of the weights of a snapshot. What a GGUF repo takes depends on the quantisation."""
    if info.gguf or info.safetensors is None:
        return None
    counts = info.safetensors.parameters
    if not counts or not set(counts) <= set(_BYTES):
        return None
    return _count(sum(_BYTES[kind] * count for kind, count in counts.items()))


def _told(info: ModelInfo) -> dict[str, Any]:
    """What the hub has read from the files' headers."""
    header = info.gguf or {}
    total = _count(header.get("total"))
    if total is None and info.safetensors is not None:
        total = _count(info.safetensors.total)
    facts = {
        "parameters": total,
        "architecture": next(iter(_words(header.get("architecture"))), None),
        "context_length": _count(header.get("context_length")),
    }
    return {name: value for name, value in facts.items() if value is not None}


plugin = HuggingFace
