"""Model names for shell completion: quick, and silent whatever happens."""

from collections.abc import Callable, Iterable
from typing import Annotated

import typer

from corral.config import load
from corral.errors import CorralError


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


def _completion(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="The model's name: see corral list.", autocompletion=_completion(known))
]
MaybeModel = Annotated[
    str | None,
    typer.Argument(metavar="[MODEL]", help="The model's name: see corral list.", autocompletion=_completion(known)),
]
Models = Annotated[
    list[str],
    typer.Argument(metavar="MODEL...", help="Names of models: see corral list.", autocompletion=_completion(known)),
]
Some = Annotated[
    list[str] | None,
    typer.Argument(metavar="[MODEL]...", help="Names of models: see corral list.", autocompletion=_completion(known)),
]
Whats = Annotated[
    list[str],
    typer.Argument(
        metavar="WHAT...",
        help="Library names (smollm2), references (hf:ORG/REPO:Q4_K_M, file:./model.gguf) or models of corral.yaml.",
        autocompletion=_completion(pullable),
    ),
]


def kept() -> list[str]:
    """Every container of the configuration."""
    try:
        return sorted(load().containers)
    except (CorralError, OSError):
        return []


_CONTAINER = "The container, as the configuration calls it."

Container = Annotated[str, typer.Argument(metavar="NAME", help=_CONTAINER, autocompletion=_completion(kept))]
Containers = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME]...",
        help="Containers, as the configuration calls them; none are all.",
        autocompletion=_completion(kept),
    ),
]
