"""Models that lie in folders of the user's own: found, watched and used where they are; nothing is copied.

    FOLDER/model.gguf, FOLDER/any/where/model.gguf          one model each
    FOLDER/…/big-00001-of-00003.gguf and its pieces         one model
    FOLDER/…/mmproj-*.gguf                                  the eyes of the model beside it
    FOLDER/…/config.json, *.safetensors, …                  a snapshot: the folder is the model
    FOLDER/…/models--ORG--NAME/snapshots/REVISION/…         the Hugging Face cache's own layout

A look walks the folders and compares names, sizes and times of change with the look before; only what is new is read.
So files that come, change, grow or go are noticed at the next look, without a restart.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from corral.catalog import capabilities, formats, prompting
from corral.catalog.recollection import Recollection
from corral.domain.models import FileEntry, Installed, RemoteFile, RemotePart, Revision
from corral.errors import CorralError, CorruptModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from corral.catalog.formats import Inspected, Shape
    from corral.catalog.prompting import Prompting, Template
    from corral.domain.ports import Clock

PAUSE: Final = 1.0
"""Seconds between two looks at the disk, at least."""

_SHARE: Final = 20  # times what a look takes until the next one: a slow disk does not hold up who asks

_STILL: Final = 10.0  # seconds for which a file that grew is taken to grow on
_DEEPEST: Final = 4
_MOST_ENTRIES: Final = 20_000
_MOST_MODELS: Final = 1000
_FINGERPRINT: Final = 1 << 16
_PIECE: Final = re.compile(r"(.+)-\d{5}-of-\d{5}")
_REPOSITORY: Final = re.compile(r"models--(?:(?P<org>.+?)--)?(?P<name>.+)")


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it was seen: `name` below the folder of its model."""

    name: str
    path: Path
    size: int
    changed: int
    inode: int


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Files that may be a model. `called` and `above` are what it may be named by."""

    folder: Path
    files: tuple[_File, ...]
    called: str
    above: str

    @property
    def place(self) -> str:
        """The path that it is known by: a file's, or of a snapshot the folder's."""
        return str(self.folder if "config.json" in {file.name for file in self.files} else self.files[0].path)

    @property
    def key(self) -> str:
        """What stands for the files as they were seen."""
        what = [str(self.folder), [[file.name, file.size, file.changed, file.inode] for file in self.files]]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Sight:
    """What a look found: the candidates that are known, what is odd, and when files were last seen to grow."""

    known: frozenset[_Candidate] = frozenset()
    odd: Mapping[str, str] = field(default_factory=dict)
    grown: Mapping[Path, float] = field(default_factory=dict)
    sizes: Mapping[Path, int] = field(default_factory=dict)


class Discovery:
    """The models below `folders`. `exclude` is a folder, the store's own, that is not looked into.

    Cheap to ask: at most one look at names and times each second, on the asker's thread; fewer on a slow disk. What is
    new is opened then, too, the first time and where no event loop runs; later in a thread of the loop, and shows when
    that is done. Never raises: what is wrong with a file is told by `problems`. What was found out is remembered in the
    store, where there is one. `probe` tries chat templates out.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        clock: Clock,
        exclude: Path | None = None,
        probe: Callable[[Sequence[Template]], Mapping[Template, Prompting]] = prompting.probe_all,
    ) -> None:
        self._folders = tuple(folders)
        self._clock = clock
        self._exclude = exclude
        self._recollection = Recollection(exclude)
        self._probe = probe
        self._looked: float | None = None
        self._pause = PAUSE
        self._opened = False
        self._opening: asyncio.Future[dict[_Candidate, Revision | str]] | None = None
        self._known: dict[_Candidate, Revision | str] = {}
        self._seen: _Sight = _Sight()
        self._models: Mapping[str, Installed] = {}
        self._problems: Mapping[str, str] = {}

    def installed(self) -> Mapping[str, Installed]:
        """The models by name; the same mapping as long as nothing changed."""
        self._refresh()
        return self._models

    def problems(self) -> Mapping[str, str]:
        """What is wrong with files that would be models, by path."""
        self._refresh()
        return self._problems

    async def settled(self) -> None:
        """Wait until what the last look found has been opened."""
        if self._opening is not None:
            await asyncio.wait([self._opening])

    def _refresh(self) -> None:
        now = self._clock.now()
        if self._looked is not None and now - self._looked < self._pause:
            return
        self._looked = now
        walk = _Walk(self._exclude)
        candidates = list(dict.fromkeys(found for folder in self._folders for found in walk.candidates(folder)))
        self._pause = max(PAUSE, _SHARE * (self._clock.now() - now))
        if len(candidates) > _MOST_MODELS:
            walk.odd[candidates[_MOST_MODELS].place] = f"More than {_MOST_MODELS} models: the rest is not looked at."
            del candidates[_MOST_MODELS:]
        unknown = [candidate for candidate in candidates if candidate not in self._known]
        if unknown:
            self._open(unknown)
        self._known = {candidate: self._known[candidate] for candidate in candidates if candidate in self._known}
        sizes = {file.path: file.size for candidate in candidates for file in candidate.files}
        grown = {path: now for path, size in sizes.items() if size > self._seen.sizes.get(path, size)}
        grown = {path: at for path, at in {**self._seen.grown, **grown}.items() if now - at < _STILL}
        before, self._seen = self._seen, _Sight(frozenset(self._known), dict(walk.odd), grown, sizes)
        if (before.known, before.odd, before.grown.keys()) != (self._seen.known, self._seen.odd, grown.keys()):
            self._show()

    def _show(self) -> None:
        problems = dict(self._seen.odd)
        for candidate, found in self._known.items():
            if isinstance(found, str):
                grown = any(file.path in self._seen.grown for file in candidate.files)
                problems[candidate.place] = f"It is still being written. {found}" if grown else found
        self._models = _named({item: found for item, found in self._known.items() if isinstance(found, Revision)})
        self._problems = problems

    def _open(self, unknown: Sequence[_Candidate]) -> None:
        """Find out what the candidates are: now, or in a thread when a server would have to wait for it."""
        try:
            loop = asyncio.get_running_loop() if self._opened else None
        except RuntimeError:
            loop = None
        self._opened = True
        if loop is None:
            self._known |= self._find_out(unknown)
        elif self._opening is None or self._opening.get_loop().is_closed():
            self._opening = loop.run_in_executor(None, self._find_out, unknown)
            self._opening.add_done_callback(self._take)

    def _take(self, opened: asyncio.Future[dict[_Candidate, Revision | str]]) -> None:
        self._opening = self._looked = None
        if not opened.cancelled():
            self._known |= opened.result()

    def _find_out(self, candidates: Sequence[_Candidate]) -> dict[_Candidate, Revision | str]:
        """What each candidate is: a revision, or why it is none. Blocks."""
        remembered = self._recollection.recall()
        shapes: dict[_Candidate, Shape] = {}
        templates: list[Template | None] = []
        found: dict[_Candidate, Revision | str] = {}
        for candidate in candidates:
            if candidate.key in remembered:
                found[candidate] = remembered[candidate.key]
                continue
            try:
                shape = _shape(candidate)
                templates.append(capabilities.template_of(shape, {}))
                shapes[candidate] = shape
            except CorralError as error:
                found[candidate] = error.message
            except OSError as error:
                found[candidate] = _unreadable(error)
        answers = self._probe([template for template in templates if template is not None])
        new: dict[str, Revision] = {}
        for candidate, shape in shapes.items():
            try:
                found[candidate] = new[candidate.key] = _revision(candidate, shape, answers)
            except CorralError as error:
                found[candidate] = error.message
            except OSError as error:
                found[candidate] = _unreadable(error)
        if new:
            self._recollection.keep(new)
        return found


class _Walk:
    """One look at the disk: names, sizes and times; no model is opened."""

    def __init__(self, exclude: Path | None) -> None:
        self.odd: dict[str, str] = {}
        self._exclude = exclude.resolve() if exclude is not None else None
        self._entries = 0
        self._root = Path()

    def candidates(self, folder: Path) -> Iterator[_Candidate]:
        """What may be models below `folder`, in the order of their paths."""
        try:
            self._root = folder.expanduser().resolve()
        except (OSError, RuntimeError, ValueError):
            return
        if not str(self._root).isprintable():
            self.odd[ascii(str(self._root))] = "Its path has characters that cannot be shown."
            return
        yield from self._folder(self._root, 0)

    def _folder(self, folder: Path, depth: int) -> Iterator[_Candidate]:
        if folder == self._exclude:
            return
        files, below = self._list(folder)
        snapshot = "config.json" in files and any(name.endswith(".safetensors") for name in files)
        if snapshot:
            yield self._snapshot(folder, files, below)
        yield from _of_ggufs(folder, [files[name] for name in files if name.lower().endswith(".gguf")])
        for path in below if depth < _DEEPEST and not snapshot else []:
            repository = _REPOSITORY.fullmatch(path.name)
            if repository is not None and (path / "snapshots").is_dir():
                yield from self._repository(path, repository["name"], repository["org"] or "")
            else:
                yield from self._folder(path, depth + 1)

    def _snapshot(self, folder: Path, files: Mapping[str, _File], below: Sequence[Path]) -> _Candidate:
        found = [file for name, file in files.items() if not name.lower().endswith(".gguf")]
        for path in below:
            found += [replace(file, name=f"{path.name}/{file.name}") for file in self._list(path)[0].values()]
        return _Candidate(folder, tuple(found), folder.name, folder.parent.name)

    def _repository(self, folder: Path, name: str, org: str) -> Iterator[_Candidate]:
        """The revision that `main` stands for in a repository of the Hugging Face cache, else the newest."""
        revisions = self._list(folder / "snapshots")[1]
        try:
            main = (folder / "refs" / "main").read_text(encoding="ascii")[:100].strip()
        except (OSError, ValueError):
            main = ""
        wanted = [path for path in revisions if path.name == main]
        for path in wanted or sorted(revisions, key=_changed)[-1:]:
            for candidate in self._folder(path, _DEEPEST):
                is_snapshot = candidate.called == path.name
                yield replace(candidate, called=name if is_snapshot else candidate.called, above=org or name)

    def _list(self, folder: Path) -> tuple[dict[str, _File], list[Path]]:
        """The files in a folder by name, and the folders in it; hidden ones are left out."""
        files: dict[str, _File] = {}
        below: list[Path] = []
        try:
            with os.scandir(folder) as listed:
                entries = sorted((entry for entry in listed if not entry.name.startswith(".")), key=lambda e: e.name)
        except (FileNotFoundError, NotADirectoryError):
            return files, below
        except OSError as error:
            self.odd[str(folder)] = f"It cannot be read: {error.strerror}."
            return files, below
        for entry in entries:
            self._entries += 1
            if self._entries > _MOST_ENTRIES:
                self.odd[str(self._root)] = f"More than {_MOST_ENTRIES} files and folders: the rest is not looked at."
                break
            if not entry.name.isprintable():
                self.odd[ascii(entry.path)] = "Its name has characters that cannot be shown."
            elif entry.is_dir(follow_symlinks=False):
                below.append(Path(entry.path))
            elif (file := self._file(entry)) is not None:
                files[entry.name] = file
        return files, below

    def _file(self, entry: os.DirEntry[str]) -> _File | None:
        path = Path(entry.path)
        try:
            # Weights often lie on another disk, and nothing but numbers is read of them. A document that is really a
            # file elsewhere could be anything, and what it says would be shown.
            outside = entry.is_symlink() and not path.resolve(strict=True).is_relative_to(self._root)
            if outside and path.suffix.lower() not in {".gguf", ".safetensors"}:
                return None
            facts = entry.stat()
        except (OSError, RuntimeError) as error:
            self.odd[str(path)] = f"It is a link that leads nowhere: {error}." if entry.is_symlink() else str(error)
            return None
        if not stat.S_ISREG(facts.st_mode):
            return None
        return _File(entry.name, path, facts.st_size, facts.st_mtime_ns, facts.st_ino)


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _of_ggufs(folder: Path, files: Sequence[_File]) -> Iterator[_Candidate]:
    """The GGUF files of one folder as models: pieces together, and each projector with the model that it belongs to."""
    groups: dict[str, list[_File]] = {}
    for file in files:
        stem = file.name[: -len(".gguf")]
        piece = _PIECE.fullmatch(stem)
        groups.setdefault(piece[1] if piece else stem, []).append(file)
    eyes = {stem for stem in groups if "mmproj" in stem.lower()}
    models = [stem for stem in groups if stem not in eyes]
    for stem in models:
        belongs = [file for eye in sorted(eyes) if _fits(eye, stem, models) for file in groups[eye]]
        yield _Candidate(folder, (*groups[stem], *belongs[:1]), stem, folder.name)
    for stem in sorted(eyes):
        if not any(_fits(stem, model, models) for model in models):
            yield _Candidate(folder, tuple(groups[stem]), stem, folder.name)


def _fits(eye: str, model: str, models: Sequence[str]) -> bool:
    """Whether a projector is that model's: the only one beside it, or the one whose name it bears."""
    words = re.sub(r"mmproj|model|\b(f16|f32|bf16|q8_0|q\d\w*)\b", " ", eye.lower())
    wanted = re.sub(r"[^a-z0-9]+", "", words)
    bears = bool(wanted) and re.sub(r"[^a-z0-9]+", "", model.lower()).startswith(wanted)
    return bears or len(models) == 1


def _shape(candidate: _Candidate) -> Shape:
    """What the candidate's files make up.

    Raises:
        CorralError: no model.
        OSError: one of them cannot be read.
    """
    offered = [RemoteFile(file.name, (RemotePart(file.path.as_uri()),), file.size) for file in candidate.files]
    taken = {file.name for file in formats.select(offered, candidate.place).files}
    items: list[Inspected] = []
    for file in candidate.files:
        if file.name in taken:
            entry = FileEntry(file.name, file.size, _fingerprint(file))
            try:
                items.append(formats.inspect(file.path, entry))
            except CorruptModel as error:
                raise CorruptModel(f"{file.name}: {error.message}", error.hint) from error
    return formats.assemble(sorted(items, key=lambda item: item.entry.name))


def _fingerprint(file: _File) -> str:
    """What stands for the digest of a file that is not read whole: where it is, how large, how old, how it begins."""
    with file.path.open("rb") as stream:
        head = stream.read(_FINGERPRINT)
    what = json.dumps([str(file.path), file.size, file.changed])
    return hashlib.sha256(what.encode("utf-8", "surrogateescape") + b"\0" + head).hexdigest()


def _revision(candidate: _Candidate, shape: Shape, answers: Mapping[Template, Prompting]) -> Revision:
    def answered(template: Template) -> Prompting:
        if template not in answers:
            raise CorruptModel("It was changed while it was read.", "It is read again.")
        return answers[template]

    found = capabilities.of_shape(shape, {}, answered)
    changed = max(file.changed for file in candidate.files)
    licence = found.facts.get("licence")
    return Revision(
        source=f"file:{candidate.place}",
        format=shape.format,
        files=shape.files,
        version=_moment(changed // 1_000_000_000),
        licence=licence if isinstance(licence, str) else None,
        capabilities=found.capabilities,
        facts={**found.facts, "referenced": True},
    )


def _moment(seconds: int) -> str:
    """The time of day as people read it; the bare seconds where a file's clock was beyond all calendars."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def _unreadable(error: OSError) -> str:
    return f"It cannot be read: {error.strerror or error}."


def _named(revisions: Mapping[_Candidate, Revision]) -> dict[str, Installed]:
    """The models by name. Of several with one name the first by path keeps it; the others bear their folder's too."""
    named: dict[str, Installed] = {}
    for candidate, revision in sorted(revisions.items(), key=lambda item: item[0].place):
        name = called = _called(candidate.called)
        if name in named:
            name = called = _called(f"{candidate.above}-{candidate.called}")
        number = 2
        while name in named:
            name = f"{called}-{number}"
            number += 1
        changed = max(file.changed for file in candidate.files) / 1e9
        named[name] = Installed(name, revision, changed, folder=candidate.folder)
    return named


def _called(text: str) -> str:
    return re.sub(r"[^\w.\-]+", "-", text, flags=re.ASCII).strip("-.").lower()[:150] or "model"
