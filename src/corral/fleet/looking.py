"""A look at one container on the engine, which counts only as long as nothing newer is known of it.

Several ask at once: whoever does something looks afterwards, and each event is followed by a look. Answers may come in
another order than they were asked for, and one from before a start would have it start again:

    event ──▶ look ─────────────────────────────▶ "made, and never started"   outdated: asked again
         start ──▶ done ──▶ look ──▶ "it has ended"
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from corral.errors import ContainerNotFound

if TYPE_CHECKING:
    from corral.domain.containers import ContainerEngine, Seen
    from corral.fleet.observing import Observer


async def looked(observer: Observer, engine: ContainerEngine, name: str, container: str) -> tuple[Seen | None, int]:
    """What the engine shows of it now, and when that was asked, for `Observer.observe`; None: there is none.

    It is asked again for as long as something newer has become known of `name` meanwhile. `container`: an id or name.

    Raises:
        DockerUnavailable: the engine does not answer.
    """
    while True:
        asked = observer.asking()
        try:
            seen = await engine.inspect(container)
        except ContainerNotFound:
            seen = None
        if not observer.outdated(name, asked):
            return seen, asked
