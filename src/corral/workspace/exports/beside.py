"""An artifact with what lies beside it: the artifacts of its run that it imports, and style sheets of its own.

Models put files where they like. An import that leads nowhere means the only artifact of the run that has the file's
name; what is gathered has it where the import looks for it.

A style sheet that nothing imports belongs to the components that the same step made, to those of its name, and to the
only component of its run.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from corral.domain.workspace import Artifact, Query
from corral.errors import InvalidRequest, NotSupported
from corral.kit.disk import in_thread
from corral.workspace.exports import html
from corral.workspace.exports.exported import Material, reached
from corral.workspace.exports.modules import SCRIPTS, SUFFIXES, imports, resolve

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from corral.workspace.store import Store

MOST = 200
"""Files that are gathered for one artifact, at most."""

_LOOKED = 500  # artifacts of a run, the newest


async def gather(store: Store, artifact: Artifact, number: int | None = None) -> Material:
    """The artifact, in that edition or its newest, with the newest editions of what it needs.

    Raises:
        NotSupported: it is no text.
        EntryNotFound: it has no such edition.
        StoreError: a content cannot be read.
    """
    siblings = await _siblings(store, artifact)
    files = {artifact.name: text_of(artifact, await store.artifacts.content(artifact.id, number))}
    kinds = {artifact.name: artifact.kind}
    waiting = [artifact.name]
    while waiting and len(files) < MOST:
        path = waiting.pop(0)
        for place, there in await in_thread(_needed, path, kinds[path], files[path], siblings):
            if place not in files:
                files[place] = await _content(store, there)
                kinds[place] = there.kind
                waiting.append(place)
    sheets = []
    if artifact.kind in SCRIPTS:
        for sheet in await _loose(store, artifact, siblings):
            if sheet.name not in files and sheet.id not in {siblings[path].id for path in files if path in siblings}:
                files[sheet.name] = await _content(store, sheet)
                kinds[sheet.name] = sheet.kind
                sheets.append(sheet.name)
    return Material(artifact.name, artifact.kind, artifact.title, files, tuple(sheets))


async def _siblings(store: Store, artifact: Artifact) -> dict[str, Artifact]:
    """The artifacts that may be meant beside it, by their names: the newest of each."""
    query = Query(project=artifact.project, filters={"run": artifact.run}, sort="-created_at", limit=_LOOKED)
    found = {each.name: each for each in reversed((await store.artifacts.page(query)).items)}
    return found | {artifact.name: artifact}


def _needed(path: str, kind: str, text: str, siblings: Mapping[str, Artifact]) -> list[tuple[str, Artifact]]:
    """What a file brings in: for each the place where it looks for it, and the artifact that is meant.

    A file that cannot be read brings in nothing: it is shown with what is wrong in it.
    """
    with suppress(InvalidRequest):
        return list(_brought(path, kind, text, siblings))
    return []


def _brought(path: str, kind: str, text: str, siblings: Mapping[str, Artifact]) -> Iterator[tuple[str, Artifact]]:
    if kind == "html":
        for reference in html.references(text):
            place = reached(reference.address, path) if reference.local else ""
            there = siblings.get(place) or _called(place, siblings)
            if there is not None:
                yield place, there
        return
    for item in imports(text, kind):
        exact = resolve(item.specifier, path, siblings) if item.relative else None
        if exact is not None:
            yield exact, siblings[exact]
        elif item.relative and (place := reached(item.specifier, path)):
            there = _called(place, siblings)
            if there is not None:
                suffix = "" if place.endswith(SUFFIXES) else "." + there.name.rpartition(".")[2]
                yield place + suffix, there


def _called(place: str, siblings: Mapping[str, Artifact]) -> Artifact | None:
    """The only artifact whose file has the name that is looked for at `place`."""
    wanted = place.rpartition("/")[2]
    if not wanted:
        return None
    files = {wanted, *(wanted + suffix for suffix in SUFFIXES)}
    found = [each for name, each in siblings.items() if name.rpartition("/")[2] in files]
    return found[0] if len(found) == 1 else None


async def _loose(store: Store, artifact: Artifact, siblings: Mapping[str, Artifact]) -> list[Artifact]:
    """The style sheets of its run that nothing imports and that are its own."""
    sheets = [each for each in siblings.values() if each.kind == "css"]
    scripts = [each for each in siblings.values() if each.kind in SCRIPTS]
    if not sheets or artifact.run is None:
        return []
    brought = set()
    for script in scripts[:MOST]:
        text = await _content(store, script)
        brought |= {there.id for _, there in await in_thread(_needed, script.name, script.kind, text, siblings)}
    components = [each for each in scripts if each.kind in ("tsx", "jsx")]
    return [each for each in sheets if each.id not in brought and _belongs(each, artifact, components)]


def _belongs(sheet: Artifact, artifact: Artifact, components: Iterable[Artifact]) -> bool:
    same = _stem(sheet) == _stem(artifact)
    return same or sheet.step == artifact.step or [each.id for each in components] == [artifact.id]


def _stem(artifact: Artifact) -> str:
    return artifact.name.rpartition("/")[2].partition(".")[0].lower()


async def _content(store: Store, artifact: Artifact) -> str:
    return text_of(artifact, await store.artifacts.content(artifact.id))


def text_of(artifact: Artifact, content: bytes) -> str:
    """The content of an artifact as text.

    Raises:
        NotSupported: it is none.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise NotSupported(
            f"{artifact.name} is no text in UTF-8.", "Export it as a plain file, for a program that knows it."
        ) from error
