"""Where the models of a configuration come from: what is asked for by a short name, a reference, or an entry there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corral.catalog.references import name_of, reference
from corral.domain.models import ModelRef
from corral.domain.ports import silent

if TYPE_CHECKING:
    from collections.abc import Callable

    from corral.app.corral import Corral
    from corral.domain.models import Installed
    from corral.domain.ports import Report


class Origins:
    """The origins of the models of one `Corral`. Creating it does no I/O."""

    def __init__(self, corral: Corral) -> None:
        self._corral = corral

    def of(self, what: str) -> ModelRef | None:
        """Where `what` would be installed from: the pinned reference of a library name, or the reference itself."""
        asked = self._asked(what)
        entry = self._corral.registry.library.find(asked)
        if entry is not None:
            return entry.ref
        return ModelRef.parse(asked) if ":" in asked else None

    def name_for(self, what: str) -> str:
        """What `what` would be called once installed; itself where it means nothing here."""
        asked = self._asked(what)
        entry = self._corral.registry.library.find(asked)
        if entry is not None:
            return entry.name
        if asked != what or ":" not in asked:
            return what
        return name_of(ModelRef.parse(asked))

    def check(self, what: str) -> None:
        """Refuse what is neither in the library nor a reference to a source that is here.

        Raises:
            ModelNotFound: with what was perhaps meant.
        """
        asked = self._asked(what)
        if self._corral.registry.library.find(asked) is None:
            reference(asked, self._corral.sources, self._corral.registry.library.names())

    async def install(
        self,
        what: str,
        *,
        name: str | None = None,
        report: Report = silent,
        on_part: Callable[[str], None] = lambda _: None,
    ) -> Installed:
        """Install a library name, a reference, or a configured model's source; at once when it is there already.

        `on_part` is told the key of each unfinished file that a next try would go on from.
        """
        entry = self._corral.models.get(what)
        if entry is None or entry.source is None:
            wanted, called = what, name
        elif self._corral.registry.library.find(entry.source) is not None or ":" not in entry.source:
            wanted, called = entry.source, name  # it is another name for that
        else:
            wanted, called = entry.source, name or what
        return await self._corral.registry.install(wanted, name=called, report=report, on_part=on_part)

    def _asked(self, what: str) -> str:
        """`what`, or where the configuration says that it comes from."""
        configured = self._corral.models.get(what)
        return what if configured is None or configured.source is None else configured.source
