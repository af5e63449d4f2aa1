"""How far a key reaches into the workspace: one place decides, for every route and for WebSockets.

A key that names projects works within them, whatever its scope; one that names none works everywhere. What is out of
reach is answered as if it were not there. Pipelines without a project are for every project: who is bounded may run
them, and not change them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from corral.domain.callers import Caller, Scope
from corral.domain.workspace import Hit, Page, Project, Query
from corral.errors import EntryNotFound, Forbidden

if TYPE_CHECKING:
    from corral.app.workspace import Workspace

_LONGEST = 200


class Visit:
    """One request in the workspace.

    Args:
        workspace: all of it.
        caller: who asks.
    """

    def __init__(self, workspace: Workspace, caller: Caller) -> None:
        self.workspace = workspace
        self.store = workspace.store
        self.caller = caller

    def kept(self, many: str) -> Any:
        """The entries of a kind, which is called `projects`, `contexts` and so on."""
        return getattr(self.store, many)

    async def within(self) -> tuple[str, ...] | None:
        """The ids of the projects that the caller may work in; None is all."""
        if not self.caller.projects:
            return None
        found = [await self._known(name) for name in self.caller.projects]
        return tuple(project.id for project in found if project is not None)

    async def project(self, key: str) -> Project:
        """The project of that id or name.

        Raises:
            EntryNotFound: there is none, or the caller's key is not for it.
        """
        return await self.entry("projects", key)  # type: ignore[no-any-return]

    async def entry(self, many: str, key: str, *, deleted: bool = False) -> Any:
        """The entry of that kind and id (or name); with `deleted`, also one that is thrown away.

        Raises:
            EntryNotFound: there is none, or it is of a project that the caller's key is not for.
            Conflict: several projects of the caller's have a pipeline of that name.
        """
        # Names are told apart among what the caller may see: what is beyond would be told by a 409, too.
        bounds = {"within": await self.within()} if many == "pipelines" else {}
        return await self._seen(many, key, deleted=deleted, **bounds)

    async def pipeline(self, key: str, project: Project) -> Any:
        """The pipeline of that id, or of that name in the project or in all of them.

        Raises:
            EntryNotFound: there is none, or it is of a project that the caller's key is not for.
            Conflict: neither has one of that name, and several others of the caller's projects do.
        """
        return await self._seen("pipelines", key, project=project.id, within=await self.within())

    async def changeable(self, many: str, key: str, *, deleted: bool = False) -> Any:
        """As `entry`, of one that is to be changed.

        Raises:
            EntryNotFound: likewise.
            Forbidden: it is a pipeline of all projects, and the caller's key is for some.
        """
        entry = await self.entry(many, key, deleted=deleted)
        if self.caller.projects and not isinstance(entry, Project) and entry.project is None:
            raise Forbidden(
                f"The key {self.caller.name!r} is for some projects, and {key} is for all.",
                "Copy it into a project: POST …/duplicate.",
            )
        return entry

    def naming(self, name: str) -> None:
        """Refuse to make a project that the caller could not work in.

        Raises:
            Forbidden: the caller's key is for others.
        """
        if self.caller.projects and name not in self.caller.projects:
            raise Forbidden(
                f"The key {self.caller.name!r} is not for the project {name[:100]!r}.",
                f"It is for: {', '.join(self.caller.projects)}.",
                param="name",
            )

    def managing(self, what: str) -> None:
        """Refuse what takes a key that may manage.

        Raises:
            Forbidden: the caller's key may not; says so of `what`.
        """
        if not self.caller.may(Scope.MANAGE):
            raise Forbidden(
                f"The key {self.caller.name!r} is for {self.caller.scope}; {what} takes {Scope.MANAGE}.",
                "Ask whoever runs this server for a key with that scope.",
            )

    async def page(self, many: str, query: Query, *, total: bool = False) -> Page[Any]:
        """A page of what the caller may see, with what a list needs. `query.project` may be an id or a name.

        Raises:
            EntryNotFound: there is no such project for the caller.
        """
        bounded = await self._bounded(query)
        found: Page[Any] = await self.kept(many).listed(bounded)
        return replace(found, total=await self.kept(many).count(bounded)) if total else found

    async def ids(self, many: str, query: Query, most: int) -> list[str]:
        """The ids of what the caller may change and the query asks for, `most` at most.

        Raises:
            EntryNotFound: there is no such project for the caller.
        """
        bounded = await self._bounded(query)
        found: list[str] = await self.kept(many).ids(bounded, most)
        if many != "pipelines" or bounded.within is None:
            return found
        return [each for each in found if (await self.entry(many, each, deleted=True)).project is not None]

    async def search(
        self, text: str, *, project: str | None, kinds: tuple[str, ...], limit: int, cursor: str | None
    ) -> Page[Hit]:
        """A page of what has these words in it, of what the caller may see. `project` may be an id or a name.

        Raises:
            EntryNotFound: there is no such project for the caller.
        """
        only = None if project is None else (await self.project(project)).id
        within = await self.within()
        return await self.store.search(text, project=only, within=within, kinds=kinds, limit=limit, cursor=cursor)

    async def home(self, key: str | None) -> str | None:
        """The id of the project that something is put into; None, for all projects, is not for bounded keys.

        Raises:
            EntryNotFound: there is no such project for the caller.
            Forbidden: it would be for all, and the caller's key is for some.
        """
        if key is not None:
            return (await self.project(key)).id
        if self.caller.projects:
            raise Forbidden(
                f"The key {self.caller.name!r} is for some projects: say which this is for.",
                f"It is for: {', '.join(self.caller.projects)}.",
                param="project",
            )
        return None

    async def _bounded(self, query: Query) -> Query:
        bounded = replace(query, within=await self.within())
        return bounded if query.project is None else replace(bounded, project=(await self.project(query.project)).id)

    async def _seen(self, many: str, key: str, **how: Any) -> Any:
        """What the store has under that key; what is out of reach is told in the same words as what is not there."""
        if not 0 < len(key) <= _LONGEST or not key.isprintable():
            raise EntryNotFound.of(many.removesuffix("s"), key)
        entry = await self.kept(many).get(key, **how)
        if not await self._reaches(entry):
            raise EntryNotFound.of(many.removesuffix("s"), key)
        return entry

    async def _reaches(self, entry: Any) -> bool:
        if not self.caller.projects:
            return True
        if isinstance(entry, Project):
            return entry.name in self.caller.projects
        if entry.project is None:
            return True
        project = await self._known(entry.project)
        return project is not None and project.name in self.caller.projects

    async def _known(self, key: str) -> Project | None:
        """The project, also one that is thrown away: what is in it is still its."""
        try:
            return await self.store.projects.get(key, deleted=True)
        except EntryNotFound:
            return None
