"""A file in `runtimes/` or `sources/` is a plugin, its stem its name; so is an entry point of another distribution.

    corral/runtimes/NAME.py        `plugin = SomeClass`           a leading underscore is not a plugin
    entry point `corral.runtimes`  NAME = "package.module:SomeClass"

Names are listed without importing anything. A plugin is imported when it is first used, and built once: its constructor
names the ports it needs, and gets them by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from corral.errors import ConfigError, RuntimeUnavailable, UnknownPlugin, nearest

if TYPE_CHECKING:
    from corral.domain.ports import Runtime, Source

T = TypeVar("T")


class Plugins(Mapping[str, T], Generic[T]):
    """The plugins of one package by name: built when first asked for, with the ports they name.

    Args:
        package: dotted name of the package whose modules are plugins; also the entry points' group.
        ports: what constructors may ask for, by parameter name.
    """

    def __init__(self, package: str, ports: Mapping[str, Any]) -> None:
        self._package = package
        self._ports = ports
        self._built: dict[str, T] = {}
        self._outside: dict[str, EntryPoint] | None = None

    @property
    def noun(self) -> str:
        """`runtime` or `source`."""
        return self._package.rsplit(".", 1)[-1].removesuffix("s")

    def __iter__(self) -> Iterator[str]:
        yield from sorted({*self._files(), *self._entry_points()})

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in self._built or name in set(self)

    def __getitem__(self, name: str) -> T:
        """The plugin called `name`.

        Raises:
            UnknownPlugin: there is none.
            RuntimeUnavailable: a library it needs is missing; says which.
            ConfigError: the file or entry point is not a plugin.
        """
        if name not in self._built:
            self._built[name] = self._build(name)
        return self._built[name]

    def _files(self) -> list[str]:
        folder = Path(cast("str", import_module(self._package).__file__)).parent
        return [module.name for module in iter_modules([str(folder)]) if not module.name.startswith("_")]

    def _entry_points(self) -> dict[str, EntryPoint]:
        if self._outside is None:
            self._outside = {point.name: point for point in entry_points(group=self._package)}
        return self._outside

    def _build(self, name: str) -> T:
        factory = self._load(name)
        wanted = inspect.signature(factory).parameters
        missing = [port for port in wanted if port not in self._ports]
        if missing:
            raise ConfigError(
                f"The {self.noun} {name!r} asks for a port that does not exist: {', '.join(missing)}.",
                f"Ports: {', '.join(sorted(self._ports))}.",
            )
        return cast("T", factory(**{port: self._ports[port] for port in wanted}))

    def _load(self, name: str) -> Any:
        try:
            if name in self._files():
                return import_module(f"{self._package}.{name}").plugin
            if name in self._entry_points():
                return self._entry_points()[name].load()
        except ModuleNotFoundError as error:
            raise RuntimeUnavailable(
                f"The {self.noun} {name!r} needs the module {error.name!r}, which is not installed.",
                f"Install it, for example: pip install {error.name}",
            ) from error
        except AttributeError as error:
            raise ConfigError(
                f"The {self.noun} {name!r} has no `plugin`: {error}.", "End the file in `plugin = …`."
            ) from error
        close = nearest(name, self)
        hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(self)}."
        raise UnknownPlugin(f"There is no {self.noun} {name!r}.", hint)


def runtimes(ports: Mapping[str, Any]) -> Plugins[Runtime]:
    """The runtimes."""
    return Plugins("corral.runtimes", ports)


def sources(ports: Mapping[str, Any]) -> Plugins[Source]:
    """The sources."""
    return Plugins("corral.sources", ports)
