"""The image that a container is made from: found, fetched, and exactly the one that is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corral.domain.ports import Progress, silent
from corral.errors import ImageNotFound

if TYPE_CHECKING:
    from corral.domain.containers import ContainerEngine, ContainerSpec, ImageInfo
    from corral.domain.ports import Report


async def present(
    engine: ContainerEngine, spec: ContainerSpec, *, pull: bool = True, report: Report = silent
) -> ImageInfo:
    """The image of `spec`, which is on the engine then; fetched where it was not, and `pull` allows it.

    Raises:
        ImageNotFound: it is not there, and is not to be fetched or cannot be; or it is not the one of the digest.
        ContainerError: it could not be fetched.
    """
    pinned = reference(spec)
    found = await engine.image(pinned)
    if found is None and spec.digest is not None:
        found = await engine.image(spec.digest)  # one that was never in a registry is known by its id alone
    if found is None and not pull:
        raise ImageNotFound(f"The image {pinned} is not here.", f"Fetch it: corral containers up {spec.name}")
    if found is None:
        report(Progress("pull", detail=f"{spec.name}: {pinned}"))
        found = await engine.pull(pinned, report)
    if spec.digest is not None and found.id != spec.digest and not _known_as(found, spec.digest):
        raise ImageNotFound(
            f"The image {spec.image} is {found.id}, and not {spec.digest}.",
            f"Correct containers.{spec.name}.digest, or leave it out.",
        )
    return found


def reference(spec: ContainerSpec) -> str:
    """The image as an engine is asked for it: by digest where one is given."""
    if spec.digest is None:
        return spec.image
    head, slash, last = spec.image.partition("@")[0].rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}@{spec.digest}"


def _known_as(image: ImageInfo, digest: str) -> bool:
    return any(known.endswith(f"@{digest}") for known in image.digests)
