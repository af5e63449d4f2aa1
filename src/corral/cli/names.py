"""Names for shell completion, of models, services, keys and the like: quick, and silent whatever happens.

Keys, budgets and the models in containers are looked up in the home's own SQLite file, which is only read: a completion
neither makes nor migrates a database. Of a database elsewhere it knows none: asking it could take long.
"""

from collections.abc import Callable, Iterable
from typing import Annotated

import typer

from corral.config import Settings, load
from corral.errors import CorralError

_PATIENCE = 0.2
"""Seconds to wait for a database that somebody else is writing to: a person is at the Tab key."""


def known() -> list[str]:
    """Every name that can be asked for here; nothing when they cannot be found out."""
    from corral.app import Corral

    try:
        return Corral(load()).names()
    except (CorralError, OSError):
        return []


def pullable() -> list[str]:
    """Every name of the library."""
    from corral.app import Corral

    try:
        return sorted(Corral(load()).registry.library.names())
    except (CorralError, OSError):
        return []


def services() -> list[str]:
    """Every service of the configuration."""
    return sorted(_configured(lambda settings: settings.services))


def containers() -> list[str]:
    """Every container of the configuration."""
    return sorted(_configured(lambda settings: settings.containers))


def kinds() -> list[str]:
    """Every runtime."""
    from corral.app import Corral

    try:
        return sorted(Corral(load()).runtimes)
    except (CorralError, OSError):
        return []


def keys() -> list[str]:
    """The names of the keys of this home that open something."""
    return _written("SELECT DISTINCT name FROM keys WHERE revoked_at IS NULL ORDER BY name")


def budgets() -> list[str]:
    """The names of the budgets of this home."""
    return _written("SELECT name FROM budgets ORDER BY name")


def inside() -> list[str]:
    """Every model that was seen in a container of this home."""
    return _written("SELECT DISTINCT name FROM container_models ORDER BY name")


def projects() -> list[str]:
    """The names of the projects of this home."""
    return _written("SELECT name FROM projects WHERE deleted_at IS NULL ORDER BY name")


def pipelines() -> list[str]:
    """The names of the pipelines of this home."""
    return _written("SELECT DISTINCT name FROM pipelines WHERE deleted_at IS NULL ORDER BY name")


def runs() -> list[str]:
    """The ids of the newest runs of this home."""
    return _written("SELECT id FROM runs WHERE deleted_at IS NULL ORDER BY updated_at DESC LIMIT 200")


def artifacts() -> list[str]:
    """The names and then the ids of the newest artifacts of this home."""
    called = _written("SELECT name FROM artifacts WHERE deleted_at IS NULL ORDER BY updated_at DESC LIMIT 200")
    ids = _written("SELECT id FROM artifacts WHERE deleted_at IS NULL ORDER BY updated_at DESC LIMIT 200")
    return [*dict.fromkeys(called), *ids]


def pipelines_and_runs() -> list[str]:
    """Both."""
    return [*pipelines(), *runs()]


def _configured(part: Callable[[Settings], Iterable[str]]) -> Iterable[str]:
    try:
        return part(load())
    except (CorralError, OSError):
        return ()


def _written(question: str) -> list[str]:
    """The first column of what the database of this home answers."""
    import sqlite3
    from contextlib import closing

    try:
        settings = load()
        if settings.database.url:
            return []
        place = f"{(settings.home / 'corral.db').as_uri()}?mode=ro"
        with closing(sqlite3.connect(place, uri=True, timeout=_PATIENCE)) as database:
            return [str(row[0]) for row in database.execute(question)]
    except (CorralError, OSError, sqlite3.Error):
        return []


def completion(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """The completion of a parameter that takes one of `names`."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


def chosen(*words: str) -> Callable[[str], list[str]]:
    """The completion of an option that takes one of `words`."""
    return completion(lambda: words)


Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="The model's name: see corral list.", autocompletion=completion(known))
]
MaybeModel = Annotated[
    str | None,
    typer.Argument(metavar="[MODEL]", help="The model's name: see corral list.", autocompletion=completion(known)),
]
Models = Annotated[
    list[str],
    typer.Argument(metavar="MODEL...", help="Names of models: see corral list.", autocompletion=completion(known)),
]
Some = Annotated[
    list[str] | None,
    typer.Argument(metavar="[MODEL]...", help="Names of models: see corral list.", autocompletion=completion(known)),
]
Whats = Annotated[
    list[str],
    typer.Argument(
        metavar="WHAT...",
        help="Library names (smollm2), references (hf:ORG/REPO:Q4_K_M, file:./model.gguf) or models of corral.yaml.",
        autocompletion=completion(pullable),
    ),
]


_CONTAINER = "The container, as the configuration calls it."

Container = Annotated[str, typer.Argument(metavar="NAME", help=_CONTAINER, autocompletion=completion(containers))]
Containers = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME]...",
        help="Containers, as the configuration calls them; none are all.",
        autocompletion=completion(containers),
    ),
]
Inside = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="The model, as the container's server calls it.", autocompletion=completion(inside)
    ),
]
Service = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="The service, as the configuration calls it.", autocompletion=completion(services)
    ),
]
Key = Annotated[str, typer.Argument(metavar="KEY", help="The key's name or id.", autocompletion=completion(keys))]
Budget = Annotated[
    str, typer.Argument(metavar="BUDGET", help="The budget's name or id.", autocompletion=completion(budgets))
]
Kind = Annotated[
    str,
    typer.Argument(metavar="KIND", help="The runtime's name: see corral runtimes.", autocompletion=completion(kinds)),
]

Project = Annotated[
    str, typer.Argument(metavar="PROJECT", help="The project's name or id.", autocompletion=completion(projects))
]
MaybeProject = Annotated[
    str | None,
    typer.Argument(metavar="[PROJECT]", help="The project's name or id.", autocompletion=completion(projects)),
]
Pipeline = Annotated[
    str, typer.Argument(metavar="PIPELINE", help="The pipeline's name or id.", autocompletion=completion(pipelines))
]
Run = Annotated[
    str, typer.Argument(metavar="RUN", help="The run's id, or how it begins.", autocompletion=completion(runs))
]
Artifact = Annotated[
    str,
    typer.Argument(metavar="ARTIFACT", help="The artifact's id or name.", autocompletion=completion(artifacts)),
]
Artifacts = Annotated[
    list[str],
    typer.Argument(metavar="ARTIFACT...", help="Artifacts, by id or name.", autocompletion=completion(artifacts)),
]
