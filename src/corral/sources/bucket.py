"""Models in buckets of S3, Google or Azure, and shared catalogs there, which revisions are pushed to.

    s3://BUCKET/PATH/model.gguf          a file; `#sha256=…` behind it says which bytes
    s3://BUCKET/PATH                     a folder with one model: a GGUF, its pieces, or a snapshot
    s3://BUCKET/PATH#NAME                a model of the shared catalog there
    s3://BUCKET/PATH#NAME@REVISION       one revision of it, by the beginning of its identifier

`gs://` and `az://ACCOUNT/CONTAINER/…` likewise. How a shared catalog is laid out is drawn in `kit/shared_catalog.py`.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from corral.domain.models import FileEntry, Listing, ModelRef, RemoteFile, RemotePart, Revision, check_name
from corral.domain.ports import Hit, Progress
from corral.errors import CorruptModel, DigestMismatch, InvalidName, NotSupported, SourceError, SourceNotFound
from corral.kit import shared_catalog
from corral.kit.disk import in_thread
from corral.kit.fetch import note, recall
from corral.kit.objects import PIECE, Object, Objects, Spot, TooLarge, blocks, translated
from corral.kit.pip_config import PipConfig
from corral.kit.web import Transient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    from corral.config.settings import Settings
    from corral.domain.models import Installed
    from corral.domain.ports import Clock, PartFile, Query, Report

_MOST_HITS = 100
_DIGEST = re.compile(r"[0-9a-f]{64}")
_BEGINNING = re.compile(r"[0-9a-f]{6,64}")
_PIECE_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".pkl")
_TOLD = ("title", "languages", "licence_text")
"""What a manifest's facts may add to what the files say themselves."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a reference asks for: bytes or a folder at a place, or a name or revision of the shared catalog there."""

    spot: Spot
    digest: str | None = None
    name: str | None = None
    revision: str | None = None

    @classmethod
    def parse(cls, locator: str) -> _Wanted:
        """Read a locator.

        Raises:
            InvalidName: it is none.
        """
        address, _, behind = locator.partition("#")
        spot = Spot.parse(address)
        if not behind:
            return cls(spot)
        if behind.startswith("sha256="):
            if not _DIGEST.fullmatch(behind[7:].lower()):
                raise InvalidName(f"The part of {spot} behind # is no SHA-256.", "Write it as #sha256=64 hex digits.")
            return cls(spot, digest=behind[7:].lower())
        name, _, revision = behind.partition("@")
        if revision and not _BEGINNING.fullmatch(revision):
            raise InvalidName(f"{revision[:80]!r} is no revision's identifier.", "Give six hex digits of it, or more.")
        if not name and not revision:
            raise InvalidName(f"{spot} is followed by no name.", "Write it as s3://BUCKET/PATH#NAME.")
        return cls(spot, name=check_name(name) if name else None, revision=revision or None)

    @property
    def ref(self) -> ModelRef:
        text = str(self.spot)
        if self.digest is not None:
            text += f"#sha256={self.digest}"
        elif self.name is not None or self.revision is not None:
            text += f"#{self.name or ''}" + (f"@{self.revision}" if self.revision else "")
        return ModelRef("bucket", text)


class Bucket:
    """Buckets as a source of models, and as a place to share them from."""

    scheme = "bucket"

    def __init__(self, clock: Clock, env: Mapping[str, str], settings: Settings) -> None:
        self._clock = clock
        self._env = env
        self._settings = settings
        self._known: Objects | None = None

    async def resolve(self, ref: ModelRef) -> Listing:
        """What lies there. The version is the store's mark, or of a shared catalog the revision's identifier.

        Raises:
            SourceNotFound: nothing lies there, or the catalog has no such name.
            LoginRequired: the credentials in the environment do not open it.
            RuntimeUnavailable: obstore is not installed.
            SourceError: it cannot be reached, or holds no model, or several.
        """
        wanted = _Wanted.parse(ref.locator)
        objects = await self._objects()
        if wanted.name is not None or wanted.revision is not None:
            return await _shared(objects, wanted)
        found = await _found(objects, wanted.spot)
        files = tuple(_file(name, item, wanted.digest if len(found) == 1 else None) for name, item in found)
        marks = [item.tag or "" for _, item in found]
        joint = marks[0] if len(marks) == 1 else hashlib.sha256("\n".join(marks).encode()).hexdigest()
        return Listing(wanted.ref, files, wanted.digest or (joint if all(marks) else ""))

    async def fetch(self, file: RemoteFile, into: PartFile, report: Report) -> None:
        """Fetch it, going on from what is held.

        Raises:
            DigestMismatch: it is not what was promised; nothing is kept.
            SourceError: the store failed; what arrived is kept.
        """
        if len(file.parts) != 1 or file.size is None:
            raise SourceError(f"{file.name} does not lie at one place.")
        spot = Spot.parse(file.parts[0].url)
        objects = await self._objects()
        download = _Download(objects, spot, file, into, report)
        await download.run()

    async def search(self, query: Query) -> Sequence[Hit]:
        """The names in a shared catalog, for a text that begins with its address; further words narrow them down.

        Raises:
            NotSupported: the text names no bucket.
        """
        first, _, words = query.text.strip().partition(" ")
        if not first.startswith(("s3://", "gs://", "az://")):
            raise NotSupported(
                f"Buckets cannot be searched for {query.text!r}.", "Begin with the address: s3://BUCKET/PATH WORDS"
            )
        base = Spot.parse(first.partition("#")[0])
        objects = await self._objects()
        hits: list[Hit] = []
        records = await objects.under(shared_catalog.names(base))
        for item in sorted(records, key=lambda item: item.spot.key.removesuffix(".json")):
            if len(hits) >= min(query.limit, _MOST_HITS):
                break
            with suppress(SourceNotFound, CorruptModel, TooLarge):
                name, revision_id, pushed_at = await shared_catalog.named(objects, item.spot)
                if all(word in name.casefold() for word in words.casefold().split()):
                    shared = await shared_catalog.manifest(objects, base, revision_id)
                    hits.append(_hit(base, name, shared.revision, pushed_at))
        return hits

    def mirrored(self, base: ModelRef, file: RemoteFile) -> RemoteFile | None:
        """`file` where a shared catalog holds it."""
        if file.sha256 is None or file.size is None:
            return None
        spot = shared_catalog.blob(Spot.parse(base.locator.partition("#")[0]), file.sha256)
        return RemoteFile(
            file.name, (RemotePart(str(spot), file.size, file.sha256, length=file.size),), file.size, file.sha256
        )

    async def push(self, installed: Installed, files: Mapping[str, Path], to: ModelRef, report: Report) -> ModelRef:
        """Put the revision into the shared catalog at `to`, under its own name or the one behind `#`.

        Raises:
            DigestMismatch: a file here is damaged; nothing of it appears there.
            NotSupported: nobody would read its record; nothing is sent.
            LoginRequired, SourceError: the store refuses, or cannot be reached.
        """
        wanted = _Wanted.parse(to.locator)
        if wanted.digest is not None or wanted.revision is not None:
            raise InvalidName(
                f"{to} is no place for a model.", "Write it as s3://BUCKET/PATH, or with #NAME behind it."
            )
        name, base, revision = wanted.name or installed.name, wanted.spot, installed.revision
        await in_thread(shared_catalog.check, name, revision)
        objects = await self._objects()
        entries = {entry.sha256: entry for entry in revision.files}
        meter = _Meter(report, sum(entry.size for entry in entries.values()))
        for digest, entry in entries.items():
            await _put(objects, shared_catalog.blob(base, digest), entry, files[digest], meter)
            meter.finished(entry)
        await shared_catalog.add(objects, base, name, revision, self._clock.wall())
        return _Wanted(base, name=name).ref

    async def _objects(self) -> Objects:
        if self._known is None:
            config = await in_thread(PipConfig.read, self._env)
            access = config.access.within(self._settings.sources, guarded=True)
            self._known = Objects(self._env, access, self._clock)
        return self._known


class _Download:
    """One object on its way into a part."""

    def __init__(self, objects: Objects, spot: Spot, file: RemoteFile, into: PartFile, report: Report) -> None:
        self._objects = objects
        self._spot = spot
        self._file = file
        self._size = file.size or 0
        self._into = into
        self._report = report
        self._highest = 0
        self._tag: str | None = None

    async def run(self) -> None:
        """Bring all of it, and verify it."""
        into, file = self._into, self._file
        if into.size > self._size:
            await into.restart()
        if file.sha256 is None and into.size:
            self._tag = recall(into.scratch("tag"))
            if self._tag is None or into.size == self._size:
                await into.restart()
        resumed = into.size > 0
        while True:
            await self._complete()
            got = into.digest()
            if file.sha256 in {None, got}:
                return
            await into.restart()
            if not resumed:
                raise DigestMismatch(
                    f"{self._spot} is not what was promised: its SHA-256 is {got}, promised was {file.sha256}.",
                    "Nothing of it was kept. Try again; if it stays so, do not trust the bucket.",
                )
            resumed = False  # what was held may have been damaged since: blame the bucket only for what it just sent

    async def _complete(self) -> None:
        patience = self._objects.patience()
        self._tell()
        while self._into.size < self._size:
            before = self._into.size
            try:
                await self._once()
            except Transient as error:
                if self._into.size > before:
                    patience.progressed()
                if error.after == 0.0:  # of another version
                    await self._into.restart()
                    self._tag = None
                await patience.wait(error)

    async def _once(self) -> None:
        into = self._into
        found, data = await self._objects.stream(self._spot, into.size, self._tag if into.size else None)
        if found.size != self._size:
            raise SourceError(
                f"{self._spot} has {found.size} bytes where {self._size} were promised.", "Try again later."
            )
        self._tag = found.tag
        if self._file.sha256 is None:
            note(into.scratch("tag"), found.tag)
        while True:
            with translated(self._spot):
                run = await anext(data, None)
            if run is None:
                break
            if into.size + len(run) > self._size:
                await into.restart()
                raise SourceError(f"{self._spot} sends more than the {self._size} bytes that it has.")
            await into.append(run)
            self._tell()
        if into.size < self._size:
            raise Transient(f"{self._spot} ended after {into.size} of {self._size} bytes.", "Try again.")

    def _tell(self) -> None:
        self._highest = max(self._highest, self._into.size)
        self._report(Progress("download", self._highest, self._size, self._file.name))


class _Meter:
    """Adds up what of several files is there, and never goes back."""

    def __init__(self, report: Report, total: int) -> None:
        self._report = report
        self._total = total
        self._before = 0
        self._highest = 0

    def at(self, entry: FileEntry, done: int) -> None:
        """So many bytes of `entry` were sent."""
        self._highest = max(self._highest, self._before + done)
        self._report(Progress("upload", self._highest, self._total, entry.name))

    def finished(self, entry: FileEntry) -> None:
        """All of `entry` is there."""
        self.at(entry, entry.size)
        self._before += entry.size


async def _put(objects: Objects, spot: Spot, entry: FileEntry, path: Path, meter: _Meter) -> None:
    """Make sure that the blob lies at `spot`: what is there in its full size is not sent again."""
    with suppress(SourceNotFound):
        if (await objects.head(spot)).size == entry.size:
            return

    def data() -> AsyncIterator[bytes]:
        return _verified(path, entry, lambda done: meter.at(entry, done))

    if entry.size <= PIECE:
        await objects.write(spot, b"".join([block async for block in data()]))
    else:
        await objects.upload(spot, entry.size, data)
    there = await objects.head(spot)
    if there.size != entry.size:
        raise SourceError(f"{spot} has {there.size} bytes after {entry.size} were sent.", "Try again.")


async def _verified(path: Path, entry: FileEntry, tell: Callable[[int], None]) -> AsyncIterator[bytes]:
    """The file's bytes; at their end, an error if they are not the blob's."""
    digest, done = hashlib.sha256(), 0
    async for block in blocks(path):
        await in_thread(digest.update, block)
        done += len(block)
        tell(min(done, entry.size))
        if done < entry.size:
            yield block
            continue
        # The last block is held back until all is known to be right: without it nothing appears in the bucket.
        if done != entry.size or digest.hexdigest() != entry.sha256:
            break
        yield block
        return
    if entry.size or done:
        raise DigestMismatch(f"{entry.name} is damaged here, and was not pushed.", "Check it: corral verify")


async def _found(objects: Objects, spot: Spot) -> list[tuple[str, Object]]:
    """Names and objects of the model at `spot`: a file with its further pieces, or what a folder holds."""
    if spot.key:
        with suppress(SourceNotFound):
            item = await objects.head(spot)
            return [(other.spot.key.rpartition("/")[2], other) for other in await _pieces(objects, item)]
    below = {item.spot.key[len(spot.key) :].lstrip("/"): item for item in await objects.under(spot)}
    if not below:
        raise SourceNotFound(f"{spot} does not exist.", "Check the bucket and the key.")
    return _chosen(spot, below)


async def _pieces(objects: Objects, item: Object) -> list[Object]:
    folder, slash, last = item.spot.key.rpartition("/")
    match = _PIECE_NAME.fullmatch(last)
    if match is None:
        return [item]
    count = int(match["count"])
    if not 1 <= int(match["number"]) <= count:
        raise SourceError(f"{item.spot} says that it is piece {match['number']} of {match['count']}.")
    keys = [f"{folder}{slash}{match['stem']}-{number:05}-of-{match['count']}.gguf" for number in range(1, count + 1)]
    return [await objects.head(Spot(item.spot.kind, item.spot.bucket, key)) for key in keys]


def _chosen(spot: Spot, below: Mapping[str, Object]) -> list[tuple[str, Object]]:
    """The one model in a folder."""
    if any(name.startswith("manifests/") for name in below):
        raise SourceError(f"{spot} is a shared catalog.", f"Name one of its models: {spot}#NAME")
    visible = {name: item for name, item in below.items() if not any(s.startswith(".") for s in name.split("/"))}
    models: dict[str, list[str]] = {}
    projectors: list[str] = []
    for name in visible:
        if name.lower().endswith(".gguf"):
            match = _PIECE_NAME.fullmatch(name)
            if "mmproj" in name.rpartition("/")[2].lower():
                projectors.append(name)
            else:
                models.setdefault(match["stem"] if match else name, []).append(name)
    if models:
        if len(models) > 1 or len(projectors) > 1:
            names = ", ".join([*models, *projectors][:8])
            raise SourceError(f"{spot} holds several models: {names}.", "Name one of them by its whole key.")
        return [(name.rpartition("/")[2], visible[name]) for name in (*next(iter(models.values())), *projectors)]
    if any(name.endswith(".safetensors") for name in visible):
        return [(name, item) for name, item in visible.items() if not name.lower().endswith(_OTHER_WEIGHTS)]
    raise SourceNotFound(f"{spot} holds no GGUF or safetensors file.", "Name the folder or file of a model.")


def _file(name: str, item: Object, digest: str | None) -> RemoteFile:
    return RemoteFile(name, (RemotePart(str(item.spot), item.size, digest, length=item.size),), item.size, digest)


async def _shared(objects: Objects, wanted: _Wanted) -> Listing:
    """What the shared catalog has for a name or revision."""
    base = wanted.spot
    if wanted.revision is not None:
        revision_id = await shared_catalog.whole(objects, base, wanted.revision)
    else:
        revision_id = await shared_catalog.current(objects, base, wanted.name or "")
    shared = await shared_catalog.manifest(objects, base, revision_id)
    revision = shared.revision
    files = tuple(
        _file(entry.name, Object(shared_catalog.blob(base, entry.sha256), entry.size, None), entry.sha256)
        for entry in revision.files
    )
    facts = {key: revision.facts[key] for key in _TOLD if key in revision.facts}
    if shared.ignored:
        facts["ignored_defaults"] = dict(shared.ignored)
    return Listing(wanted.ref, files, shared.id, revision.licence, defaults=dict(revision.defaults), facts=facts)


def _hit(base: Spot, name: str, revision: Revision, pushed_at: float | None) -> Hit:
    ref = _Wanted(base, name=name).ref
    return Hit(ref, name, revision.size, revision.licence, updated_at=pushed_at, facts=dict(revision.facts))


plugin = Bucket
