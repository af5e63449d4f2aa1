"""What a workspace keeps, with the verbs that each kind of entries has from Python."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from corral.app import authoring
from corral.domain.workspace import (
    Artifact,
    Context,
    ContextKind,
    Edition,
    Entry,
    Page,
    Pipeline,
    Project,
    Query,
    Run,
    RunBrief,
    check_project,
    text_in,
    text_type,
)
from corral.errors import Conflict, InvalidRequest
from corral.kit.disk import pour, translated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from corral.app.workspace import Workspace as Parts
    from corral.workspace.exports.exported import Exported
    from corral.workspace.pipelines.plan import Checked

E = TypeVar("E", bound=Entry)
L = TypeVar("L", bound=Entry)

_FIELDS = frozenset({"project", "tags", "search", "archived", "deleted", "sort", "limit", "cursor"})
"""What `page` takes beside filters."""


class Kept(Generic[E, L]):
    """The entries of one kind: `E`, and `L` as lists have it. One is meant by its id, or by itself; some by name, too.

    Raises (every method):
        EntryNotFound: there is no such entry.
        Stale: it is no longer at the `version` that was given.
    """

    kind = ""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def get(self, which: str | E | L, *, deleted: bool = False) -> E:
        """The entry as it is now; with `deleted`, also one that was removed."""
        found: E = await self._kept.get(which if isinstance(which, str) else which.id, deleted=deleted)
        return found

    async def page(self, *, total: bool = False, **asked: Any) -> Page[L]:
        """Some of them, those that changed last first; `asked` are fields of `Query`, and beside them columns.

        `total` counts all of them, too.
        """
        known = {name: value for name, value in asked.items() if name in _FIELDS}
        if known.get("project") is not None:
            where = known["project"]
            project = await self._parts.store.projects.get(where if isinstance(where, str) else where.id)
            known["project"] = project.id
        filters = {name: value for name, value in asked.items() if name not in _FIELDS and value is not None}
        query = Query(filters=filters, **known)
        page: Page[L] = await self._kept.listed(query)
        return Page(page.items, page.next, await self._kept.count(query)) if total else page

    async def all(self, **asked: Any) -> list[L]:
        """The entries of a page (see `page`)."""
        return list((await self.page(**asked)).items)

    async def change(self, which: str | E | L, *, version: int | None = None, **fields: Any) -> E:
        """The entry with other fields."""
        entry = await self.get(which)
        found: E = await self._kept.change(entry.id, await self._checked(fields), version=version)
        return found

    async def archive(self, which: str | E | L, *, version: int | None = None) -> E:
        """Put it away: it is no longer listed unless that is asked for."""
        entry = await self.get(which)
        await self._kept.archive(entry.id, version=version)
        return await self.get(entry.id)

    async def restore(self, which: str | E | L, *, version: int | None = None) -> E:
        """Have it back, removed or archived."""
        entry = await self.get(which, deleted=True)
        await self._kept.restore(entry.id, version=version)
        return await self.get(entry.id)

    async def remove(self, which: str | E | L, *, version: int | None = None) -> E:
        """Remove it; until `workspace.retention` has passed, `restore` has it back."""
        entry = await self.get(which)
        await self._kept.delete(entry.id, version=version)
        return await self.get(entry.id, deleted=True)

    async def purge(self, which: str | E | L) -> E:
        """Remove it for good; as it was."""
        entry = await self.get(which, deleted=True)
        await self._kept.purge(entry.id)
        return entry

    async def duplicate(
        self, which: str | E | L, *, name: str | None = None, project: str | Project | None = None
    ) -> E:
        """Another one like it; a project takes its contexts and pipelines along."""
        where = None if project is None else (await self._project(project)).id
        found: E = await self._kept.duplicate((await self.get(which)).id, name=name, project=where)
        return found

    async def move(self, which: str | E | L, project: str | Project) -> E:
        """Put it into another project."""
        entry = await self.get(which)
        await self._kept.move(entry.id, (await self._project(project)).id)
        return await self.get(entry.id)

    async def _checked(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """What may be changed."""
        return fields

    async def _project(self, which: str | Project) -> Project:
        found: Project = await self._parts.store.projects.get(which if isinstance(which, str) else which.id)
        return found

    @property
    def _kept(self) -> Any:
        return getattr(self._parts.store, self.kind)


class Projects(Kept[Project, Project]):
    """What is worked on."""

    kind = "projects"

    async def create(
        self,
        name: str,
        *,
        title: str = "",
        description: str = "",
        tags: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> Project:
        """A project of that name, which stays.

        Raises:
            InvalidName: it cannot be called so.
            Conflict: there is one of that name.
        """
        project = Project(
            id="",
            name=check_project(name),
            title=title,
            description=description,
            tags=tuple(tags),
            settings=dict(settings or {}),
        )
        found: Project = await self._kept.create(project)
        return found

    async def export(self, which: str | Project, file: str | Path) -> Path:
        """Write a whole project into an archive, which must not be there yet; its path.

        Raises:
            Conflict: there is such a file.
            NoPermission, DiskFull: it cannot be written.
        """
        from corral.workspace.exports.archive import export_project

        project, place = await self.get(which), _place(file)

        def check() -> None:
            if place.exists():
                raise Conflict(f"There is a file {place}.", "Name another.")

        check()
        with translated("writing", place):
            async with aclosing(export_project(self._parts.store, project.id)) as pieces:
                await pour(place, pieces, check)
        return place

    async def load(self, file: str | Path, *, name: str | None = None) -> Project:
        """Make a project of an archive, called as it was, or `name`.

        Raises:
            Conflict: there is one of that name.
            InvalidRequest: it is no such archive.
        """
        place = _place(file)
        if name is not None:
            check_project(name)
        try:
            with place.open("rb") as archive:
                return await self._parts.take_in(archive, name=name)
        except OSError as error:
            raise InvalidRequest(f"{place} cannot be read: {error.strerror}.") from error


class Contexts(Kept[Context, Context]):
    """The material of projects: what their runs are given, in its order."""

    kind = "contexts"

    async def instruct(self, project: str | Project, text: str, *, name: str = "instructions") -> Context:
        """Add instructions."""
        return await self.create(project, ContextKind.INSTRUCTIONS, name, text=text)

    async def variables(self, project: str | Project, values: Mapping[str, Any], *, name: str = "variables") -> Context:
        """Add variables, which templates have as `context.variables`."""
        return await self.create(project, ContextKind.VARIABLES, name, variables=dict(values))

    async def add_file(self, project: str | Project, file: str | Path | bytes, *, name: str | None = None) -> Context:
        """Add a file of text; `bytes` are its content, and then it needs a `name`."""
        if isinstance(file, bytes):
            if name is None:
                raise InvalidRequest("A file's content has no name.", 'Give it one: name="brief.md"')
            content, called = file, name
        else:
            content, called = await asyncio.to_thread(_place(file).read_bytes), name or Path(file).name
        text_in(content, called, "Give a text, or what was read of it.")
        made = await self.create(project, ContextKind.FILE, called)
        return await self.put(made, content, media_type=text_type(called))

    async def create(self, project: str | Project, kind: ContextKind | str, name: str, **fields: Any) -> Context:
        """Add a piece of material; the last, unless `position` says where."""
        where = (await self._project(project)).id
        entry = Context(id="", project=where, kind=ContextKind(kind), name=name, **fields)
        found: Context = await self._kept.create(entry)
        return found

    async def put(
        self, which: str | Context, content: bytes, *, media_type: str = "text/plain", version: int | None = None
    ) -> Context:
        """A file with another content, which must be text in UTF-8.

        Raises:
            InvalidRequest: it is of a kind that has no file, or too large.
            NotSupported: it is no text.
        """
        store = self._parts.store
        return await authoring.put_file(store, await self.get(which), content, media_type, version=version)

    async def content(self, which: str | Context) -> bytes:
        """The bytes of a file."""
        found: bytes = await self._kept.content((await self.get(which)).id)
        return found

    async def reorder(self, project: str | Project, which: Sequence[str | Context]) -> list[Context]:
        """Put the contexts of a project into that order; those that are left out follow."""
        where = (await self._project(project)).id
        await self._kept.reorder(where, [each if isinstance(each, str) else each.id for each in which])
        return await self.all(project=where, sort="position", limit=200)


class Pipelines(Kept[Pipeline, Pipeline]):
    """Steps of several models, as YAML."""

    kind = "pipelines"

    async def validate(self, pipeline: str | Path | Pipeline) -> Checked:
        """What is wrong with a pipeline, all of it: `issues`, and the `definition` where there are none."""
        source = await asyncio.to_thread(source_of, pipeline)
        if source is None:
            source = (await self.get(pipeline)).source  # type: ignore[arg-type]  # no path
        return await self._parts.validate(source)

    async def save(
        self, pipeline: str | Path, *, project: str | Project | None = None, name: str | None = None
    ) -> Pipeline:
        """Keep a pipeline (a file's path, or YAML) under its name, in place of what had that; `project` None is all.

        Raises:
            PipelineInvalid: it could never run; says where and why.
        """
        source = await asyncio.to_thread(source_of, pipeline)
        if source is None:
            raise InvalidRequest(f"{str(pipeline)[:100]!r} is neither a YAML file nor YAML.")
        where = None if project is None else (await self._project(project)).id
        entry = await asyncio.to_thread(authoring.new_pipeline, source, name=name, project=where)
        asked: dict[str, Any] = {"name": entry.name} | ({} if where is None else {"project": where})
        before = await self.page(**asked)
        same = next((each for each in before.items if each.project == where), None)
        if same is None:
            found: Pipeline = await self._kept.create(entry)
            return found
        return await self.change(same, source=source, description=entry.description)

    async def create(self, source: str, **fields: Any) -> Pipeline:
        """Keep a pipeline. Raises Conflict when there is one of its name."""
        if fields.get("project") is not None:
            fields["project"] = (await self._project(fields["project"])).id
        entry = await asyncio.to_thread(lambda: authoring.new_pipeline(source, **fields))
        found: Pipeline = await self._kept.create(entry)
        return found

    async def _checked(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        return await asyncio.to_thread(authoring.pipeline_changes, fields)


class Runs(Kept[Run, RunBrief]):
    """Executions. Lists have them without what they were given, which `get` has."""

    kind = "runs"


class Artifacts(Kept[Artifact, Artifact]):
    """What came of runs, or was put there by hand; each has editions."""

    kind = "artifacts"

    async def put(
        self, project: str | Project, name: str, content: str | bytes, *, kind: str | None = None, note: str = ""
    ) -> Artifact:
        """Keep a text under a relative path; another edition, where the project has one of that name.

        Raises:
            InvalidName, NotSupported, InvalidRequest: it cannot be kept so.
        """
        where = (await self._project(project)).id
        written = content.encode() if isinstance(content, str) else content
        before = await self.page(project=where, name=name, limit=1)
        if before.items:
            return await self.edit(before.items[0], written, note=note)
        return await authoring.add_artifact(self._parts.store, where, name, written, kind=kind, note=note)

    async def edit(
        self, which: str | Artifact, content: str | bytes, *, version: int | None = None, note: str = ""
    ) -> Artifact:
        """Another edition of it; those before stay."""
        written = content.encode() if isinstance(content, str) else content
        return await authoring.edit_artifact(
            self._parts.store, await self.get(which), written, version=version, note=note
        )

    async def editions(self, which: str | Artifact) -> list[Edition]:
        """Its editions."""
        return list(await self._kept.editions((await self.get(which)).id))

    async def content(self, which: str | Artifact, edition: int | None = None) -> bytes:
        """The bytes of an edition; None is the newest."""
        found: bytes = await self._kept.content((await self.get(which)).id, edition)
        return found

    async def text(self, which: str | Artifact, edition: int | None = None) -> str:
        """As `content`, as text."""
        return (await self.content(which, edition)).decode("utf-8", "replace")

    async def export(self, which: str | Artifact, form: str = "plain", edition: int | None = None) -> Exported:
        """A file for elsewhere: `plain`, a `framer` component, a `vite` project (zip), or one `html` page."""
        return await self._parts.showing.export((await self.get(which)).id, form, edition)

    async def diff(self, one: str | Artifact, other: str | Artifact) -> Any:
        """How two differ, line by line."""
        return await self._parts.showing.diff((await self.get(one)).id, (await self.get(other)).id)


def _place(file: str | Path) -> Path:
    return Path(file).expanduser().absolute()


def source_of(pipeline: str | Path | Pipeline) -> str | None:
    """The YAML that is meant: of a file, or itself where it has several lines; None for a saved one's name or id.

    Raises:
        InvalidRequest: there is no such file, or it is no text.
    """
    if isinstance(pipeline, str) and "\n" in pipeline:
        return pipeline
    if isinstance(pipeline, Pipeline) or (isinstance(pipeline, str) and not pipeline.endswith((".yaml", ".yml"))):
        return None
    try:
        return Path(pipeline).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The pipeline {str(pipeline)[:200]} cannot be read: {error}.") from error


def given_models(models: str | Mapping[str, str] | None) -> dict[str, str]:
    """Who is asked in which step; one name alone is for all."""
    return {"*": models} if isinstance(models, str) else dict(models or {})
