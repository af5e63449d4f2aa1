"""Providers as people name them, and what is installed when a model of one is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corral.domain.registry import provider_of, scheme_of
from corral.errors import InvalidRequest

if TYPE_CHECKING:
    from corral.app.corral import Corral

_ADDRESSED = frozenset({"url", "file", "bucket"})
"""Sources whose models have an address and no name."""


def scheme(corral: Corral, provider: str) -> str:
    """The scheme of `provider`, by either of its names.

    Raises:
        InvalidRequest: there is no such provider; names those there are.
    """
    found = scheme_of(str(provider))
    if found not in corral.sources:
        known = ", ".join(sorted(provider_of(name) for name in corral.sources))
        raise InvalidRequest(f"There is no provider {provider[:100]!r}.", f"Providers: {known}.", param="provider")
    return found


def wanted(corral: Corral, name: str, provider: str | None) -> tuple[str, str | None]:
    """What to install when a provider's model `name` is asked for, and what to call it; None lets the source say.

    Raises:
        InvalidRequest: there is no such provider.
    """
    if provider is None:
        return name, None
    found = scheme(corral, provider)
    entry = corral.registry.library.find(name)
    if entry is not None and entry.ref.scheme == found:
        return name, None
    bare = name.removeprefix(f"{found}:")
    if found in _ADDRESSED:
        return (bare if "://" in bare else f"{found}:{bare}"), None
    return f"{found}:{bare}", bare
