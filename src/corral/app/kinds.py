"""`RuntimeType.TRANSFORMERS` and its like: names for the runtimes there are, whoever brought them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corral.errors import nearest
from corral.plugins import runtimes

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Kinds(type):
    """Looks the names up among the plugins, so that a new runtime is a new file and nothing else."""

    def __getattr__(cls, name: str) -> RuntimeType:
        if not name.startswith("_"):
            wanted = _folded(name)
            found = next((kind for kind in runtimes({}) if _folded(kind) == wanted), None)
            if found is not None:
                return RuntimeType(found)
            close = nearest(name, (kind.name for kind in cls), 1)
            raise AttributeError(f"there is no runtime {name}{f'; did you mean {close[0]}?' if close else ''}")
        raise AttributeError(name)

    def __iter__(cls) -> Iterator[RuntimeType]:
        return (RuntimeType(kind) for kind in runtimes({}))

    def __len__(cls) -> int:
        return len(runtimes({}))

    def __contains__(cls, kind: object) -> bool:
        return kind in runtimes({})

    def __dir__(cls) -> list[str]:
        return sorted({*super().__dir__(), *(kind.name for kind in cls)})


class RuntimeType(str, metaclass=_Kinds):
    """A runtime's name: `RuntimeType.LLAMACPP`, or `LLAMA_CPP`, is `"llamacpp"`. It loops over all there are."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """As an attribute of this class."""
        return self.replace("-", "_").upper()

    @property
    def value(self) -> str:
        """As a plain text."""
        return str(self)

    def __repr__(self) -> str:
        return f"RuntimeType.{self.name}"


def _folded(name: str) -> str:
    return name.replace("_", "").replace("-", "").casefold()
