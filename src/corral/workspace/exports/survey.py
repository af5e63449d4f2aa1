"""What an archive of a project says, looked through as a whole before anything of it is kept. Blocks; no database.

    NAME.zip
    ├── entries/project.jsonl       one line
    │           contexts.jsonl      a line each, as `records` writes them, by the time they were made
    │           pipelines.jsonl
    │           runs.jsonl
    │           steps.jsonl
    │           artifacts.jsonl
    │           editions.jsonl
    ├── contents/<sha256>           the bytes of artifacts and files, each once
    └── manifest.json               {format, version, made_by, exported_at, project, entries, contents}

The manifest comes last, since it says how many lines each file of entries has, what their SHA-256 is, and how large
each content is. What has no manifest was cut.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

import orjson

from corral.domain.workspace import (
    Artifact,
    Context,
    Edition,
    Entry,
    Pipeline,
    Project,
    Run,
    Step,
    check_path,
    check_project,
)
from corral.errors import InvalidRequest
from corral.workspace.code.languages import KINDS
from corral.workspace.exports import records
from corral.workspace.soundness import check_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from corral.workspace.exports.zips import Suspect

FORMAT: Final = "corral-project"
VERSION: Final = 1
MANIFEST: Final = "manifest.json"
LARGEST_MANIFEST: Final = 256 * 1024**2

RECORDS: Final[Mapping[str, type[Any]]] = {
    "project": Project,
    "contexts": Context,
    "pipelines": Pipeline,
    "runs": Run,
    "steps": Step,
    "artifacts": Artifact,
    "editions": Edition,
}
"""What each file of entries has in it."""

_PREFIXES = {"project": "prj", "contexts": "ctx", "pipelines": "pip", "runs": "run", "artifacts": "art"}
_ROOM = dict.fromkeys(("pipeline", "run", "rerun_of", "operation", "artifact"), 40) | {"key": 200, "step": 200}
"""Characters of what is named, at most."""
_LATEST = 1e11
_CONTENT = re.compile(r"contents/[0-9a-f]{64}")
_HINT = "Export the project again."


def place(kind: str) -> str:
    """Where the entries of a kind lie in an archive."""
    return f"entries/{kind}.jsonl"


def is_member(name: str) -> bool:
    """Whether an archive of this form has a file of that name."""
    return name == MANIFEST or _CONTENT.fullmatch(name) is not None or name in _PLACES


_PLACES = frozenset(place(kind) for kind in RECORDS)


@dataclass(slots=True)
class Survey:
    """What is in an archive. `ids` are those of its entries by their kind, `contents` the sizes of its contents.

    `runs_named` are ids of runs that artifacts came of and that are not in it: they were deleted.
    """

    project: Project
    contents: Mapping[str, int]
    ids: dict[str, set[str]] = field(default_factory=lambda: {kind: set() for kind in _PREFIXES})
    runs_named: set[str] = field(default_factory=set)


def survey(archive: Suspect) -> Survey:
    """Look through an archive.

    Raises:
        InvalidRequest: it is not one, is of a version that is not known here, or does not agree with itself.
        BodyTooLarge: it unpacks to more than it may.
    """
    manifest = _manifest(archive)
    found = Survey(_project(archive), manifest["contents"])
    checks = _Checks(found)
    for kind in RECORDS:
        digest, count = hashlib.sha256(), 0
        for line in archive.lines(place(kind), records.LONGEST):
            digest.update(line + b"\n")
            count += 1
            checks.take(kind, records.read(line, RECORDS[kind]))
        if manifest["entries"][kind] != {"count": count, "sha256": digest.hexdigest()}:
            raise InvalidRequest(f"The {kind} in the archive are not those that its manifest names.", _HINT)
    checks.end()
    return found


def entries(archive: Suspect, kind: str) -> Iterator[Any]:
    """The entries of a kind, one after the other."""
    return (records.read(line, RECORDS[kind]) for line in archive.lines(place(kind), records.LONGEST))


def content(archive: Suspect, digest: str, size: int) -> bytes:
    """The bytes of a content.

    Raises:
        InvalidRequest: they are not what they are called.
    """
    data = archive.read(f"contents/{digest}", size)
    if len(data) != size or hashlib.sha256(data).hexdigest() != digest:
        raise InvalidRequest(f"The content {digest[:12]}… in the archive is damaged.", _HINT)
    return data


def _manifest(archive: Suspect) -> dict[str, Any]:
    if MANIFEST not in archive.members:
        raise InvalidRequest(f"There is no {MANIFEST} in it.", "Give an archive that a Corral has exported.")
    try:
        found = check_json(orjson.loads(archive.read(MANIFEST, LARGEST_MANIFEST)), MANIFEST)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The {MANIFEST} in it is not JSON: {error}.", _HINT) from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InvalidRequest(f"Its {MANIFEST} is not that of a project.", "Give an archive that a Corral has exported.")
    if found.get("version") != VERSION:
        raise InvalidRequest(
            f"The archive has version {str(found.get('version'))[:20]}, and only version {VERSION} is known here.",
            "Import it with the Corral that made it, or a later one.",
        )
    contents, lines = found.get("contents"), found.get("entries")
    if not isinstance(contents, dict) or not isinstance(lines, dict) or not all(map(_is_size, contents.values())):
        raise InvalidRequest(f"The {MANIFEST} in it does not say what is in it.", _HINT)
    told = {MANIFEST, *_PLACES, *(f"contents/{digest}" for digest in contents)}
    if lines.keys() != RECORDS.keys() or told != archive.members.keys():
        wrong = sorted(told ^ archive.members.keys())
        raise InvalidRequest(
            f"The archive is not whole, or has more in it than it says: {', '.join(wrong)[:200]}.", _HINT
        )
    return found


def _is_piece(piece: Mapping[str, Any]) -> bool:
    """Whether it is material as runs are given it."""
    texts = (piece.get("kind"), piece.get("name"), piece.get("text") or "")
    return all(isinstance(each, str) for each in texts) and isinstance(piece.get("variables") or {}, dict)


def _is_size(size: Any) -> bool:
    return type(size) is int and size >= 0


def _project(archive: Suspect) -> Project:
    found = list(entries(archive, "project"))
    if len(found) != 1:
        raise InvalidRequest(f"The archive is of {len(found)} projects, and not of one.", _HINT)
    project: Project = found[0]
    check_project(project.name)
    return project


class _Checks:
    """What entries say of each other, taken one after the other in the order of `RECORDS`."""

    def __init__(self, found: Survey) -> None:
        self._found = found
        self._names: set[str] = set()
        self._steps: set[tuple[str, str]] = set()
        self._artifacts: dict[str, Artifact] = {}
        self._editions: Counter[str] = Counter()
        self._named: set[str] = set()

    def take(self, kind: str, record: Any) -> None:
        """Look at an entry."""
        self._values(record)
        if isinstance(record, Entry):
            self._entry(kind, record)
        if isinstance(record, Run):
            self._need(all(map(_is_piece, record.material)), record.id, "was given material that is none")
        if isinstance(record, Step):
            self._need(record.run in self._found.ids["runs"], f"step {record.key}", "is of a run that is not there")
            self._need((record.run, record.key) not in self._steps, f"step {record.key}", "is there twice")
            self._steps.add((record.run, record.key))
        elif isinstance(record, Edition):
            self._edition(record)
        elif isinstance(record, Context) and record.digest is not None:
            self._content(record.id, record.digest, record.size)
        elif isinstance(record, Pipeline):
            self._need(record.name not in self._names, f"pipeline {record.name}", "is there twice")
            self._names.add(record.name)
        elif isinstance(record, Artifact):
            check_path(record.name)
            self._need(record.kind in KINDS, record.id, f"is of a kind that is not known here: {record.kind[:40]}")
            self._artifacts[record.id] = record

    def end(self) -> None:
        """Look at what only the whole can tell."""
        for artifact in self._artifacts.values():
            self._need(self._editions[artifact.id] == artifact.number, artifact.id, "has not all of its editions")
        spare = sorted(self._found.contents.keys() - self._named)
        self._need(not spare, ", ".join(digest[:12] for digest in spare[:3]), "belongs to nothing in it")

    def _values(self, record: Any) -> None:
        """Look whether a record's values are such as a Corral writes: names that have room, amounts and times."""
        for each in fields(record):
            value = getattr(record, each.name)
            what = f"a {type(record).__name__.lower()}"
            if isinstance(value, str):
                room = _ROOM.get(each.name)
                self._need(room is None or len(value) <= room, what, f"has a {each.name} that is too long")
            elif isinstance(value, float):  # all that are no whole numbers are times
                self._need(0 <= value <= _LATEST, what, f"has no time in {each.name}: {value:g}")
            elif isinstance(value, int):
                least = 1 if each.name == "version" else 0
                self._need(value >= least, what, f"has no amount in {each.name}: {value}")

    def _entry(self, kind: str, entry: Entry) -> None:
        prefix = _PREFIXES[kind]
        self._need(re.fullmatch(f"{prefix}-[0-9a-f]{{12}}", entry.id) is not None, entry.id[:40], "is no id")
        self._need(entry.id not in self._found.ids[kind], entry.id, "is there twice")
        self._need(entry.deleted_at is None, entry.id, "was deleted")
        owner = getattr(entry, "project", entry.id)
        self._need(owner == self._found.project.id, entry.id, "belongs to another project")
        self._found.ids[kind].add(entry.id)

    def _edition(self, edition: Edition) -> None:
        artifact, place_ = self._artifacts.get(edition.artifact), f"edition {edition.number} of {edition.artifact[:40]}"
        if artifact is None:
            raise InvalidRequest(f"In the archive {place_} is of an artifact that is not there.", _HINT)
        self._editions[artifact.id] += 1
        self._need(edition.number == self._editions[artifact.id], place_, "comes out of turn")
        self._content(place_, edition.digest, edition.size)
        if edition.number == artifact.number:
            same = (edition.digest, edition.size) == (artifact.digest, artifact.size)
            self._need(same, place_, "is the newest, and not what the artifact says")
        for run in (edition.run, artifact.run):
            if run is not None and run not in self._found.ids["runs"]:
                self._found.runs_named.add(run)

    def _content(self, what: str, digest: str, size: int) -> None:
        self._need(self._found.contents.get(digest) == size, what, "has a content that is not there in that size")
        self._named.add(digest)

    def _need(self, fine: bool, what: str, wrong: str) -> None:
        if not fine:
            raise InvalidRequest(f"In the archive {what} {wrong}.", _HINT)
