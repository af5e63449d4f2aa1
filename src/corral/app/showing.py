"""Artifacts as they are looked at and taken away: what a preview shows, the files for elsewhere, and differences."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from corral.domain.workspace import FORMS
from corral.errors import InvalidRequest, NotSupported
from corral.kit.disk import in_thread
from corral.workspace.code import diffs
from corral.workspace.code.components import Component, analyse
from corral.workspace.code.languages import check
from corral.workspace.described import describe
from corral.workspace.exports import framer, page, vite
from corral.workspace.exports.beside import gather, text_of
from corral.workspace.exports.exported import Exported, Material

if TYPE_CHECKING:
    from pathlib import Path

    from corral.domain.workspace import Artifact
    from corral.workspace.store import Store


class Showing:
    """Shows the artifacts of a store. `assets` is the folder with the built files of Corral's pages.

    Raises:
        EntryNotFound: from every method: there is no such artifact, or it has no such edition.
        StoreError: from every method: a content cannot be read.
    """

    def __init__(self, store: Store, assets: Path = page.ASSETS) -> None:
        self._store = store
        self._assets = assets

    async def preview(self, artifact_id: str, number: int | None = None) -> dict[str, Any]:
        """What a page needs to show it, in that edition or the newest.

        `{artifact, kind, source, files, sheets, props, problems, component}`: `files` are the artifacts of its run that
        it needs, each `{name, kind, content}`, `sheets` the names of those style sheets among them that nothing
        imports; `props` are those of its component, `component` is that one's name, None where it has none.

        Raises:
            NotSupported: it is no text.
        """
        artifact = await self._store.artifacts.get(artifact_id)
        material = await gather(self._store, artifact, number)
        component = await in_thread(analyse, material.source, artifact.kind)
        problems = await in_thread(check, artifact.kind, material.source)
        return {
            "artifact": describe(artifact),
            "kind": artifact.kind,
            "source": material.source,
            "files": [
                {"name": name, "kind": material.language(name), "content": text}
                for name, text in material.files.items()
                if name != artifact.name
            ],
            "sheets": list(material.sheets),
            "props": [] if component is None else [asdict(prop) for prop in component.props],
            "problems": [asdict(problem) for problem in problems],
            "component": None if component is None else component.name,
        }

    async def export(self, artifact_id: str, form: str = "plain", number: int | None = None) -> Exported:
        """The file for elsewhere: as it is, as a Framer component, as a Vite project (zip), or as one HTML page.

        Raises:
            InvalidRequest: there is no such form, or it needs what that form cannot hold.
            NotSupported: nothing of that form can be made of it.
            UiMissing: the page of a component is asked for, and Corral's own pages are not built.
        """
        if form not in FORMS:
            raise InvalidRequest(f"There is no form {form[:40]!r}.", f"One of: {', '.join(FORMS)}.", param="form")
        artifact = await self._store.artifacts.get(artifact_id)
        if form == "plain":
            content = await self._store.artifacts.content(artifact_id, number)
            return Exported(artifact.name.rpartition("/")[2], artifact.media_type, content)
        material = await gather(self._store, artifact, number)
        return await in_thread(self._made, material, form)

    async def diff(self, a: str, b: str) -> dict[str, Any]:
        """How the newest editions of two differ: both, as `a` and `b`, and what `diffs.compare` says of them.

        Raises:
            NotSupported: one of them is no text.
        """
        one, other = await self._store.artifacts.get(a), await self._store.artifacts.get(b)
        left, right = await self._text(one), await self._text(other)
        found = await in_thread(diffs.compare, left, right, names=(one.name, other.name))
        return {"a": describe(one), "b": describe(other), **found}

    def _made(self, material: Material, form: str) -> Exported:
        component = analyse(material.source, material.kind)
        if form == "framer":
            return framer.code_component(material, _some(component, material))
        if form == "vite":
            return vite.project(material, component)
        return page.page(material, component, self._assets)

    async def _text(self, artifact: Artifact) -> str:
        return text_of(artifact, await self._store.artifacts.content(artifact.id))


def _some(component: Component | None, material: Material) -> Component:
    """The component, which there has to be."""
    if component is None:
        raise NotSupported(
            f"A code component of Framer is made of a React component; {material.path} ({material.kind}) has none.",
            "Export it as a plain file.",
        )
    return component
