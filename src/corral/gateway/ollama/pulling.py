"""Operations told as Ollama tells its progress: one line of JSON after the other, or the last one alone."""

from __future__ import annotations

import hashlib
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from corral.domain.models import ModelRef
from corral.domain.operations import OperationStatus
from corral.errors import Conflict, CorralError, NotSupported
from corral.gateway.progress import changes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from corral.app import Corral
    from corral.domain.operations import Operation, Order
    from corral.gateway.workshop import Workshop

_LATEST = ":latest"
_OF_THE_HUB = ("hf.co/", "huggingface.co/")


def order(corral: Corral, name: str) -> Order:
    """What pulling `name` means.

    It is a short name, an entry of the configuration, a reference to a source, or else what Ollama's registry calls so.
    What is here already and came from such a registry is brought up to date.

    Raises:
        InvalidName: it cannot be a name.
    """
    catalog, own = corral.catalog, corral.canonical(name)
    if own in corral.registry:
        installed = corral.registry.get(own)
        if (installed.follows or installed.revision.source).startswith("ollama:"):
            return catalog.order("update", own)
        return catalog.install_order(own)
    entry = corral.models.get(own)
    if corral.registry.library.find(own) is not None or (entry is not None and entry.source is not None):
        return catalog.install_order(own)
    scheme = name.partition(":")[0]
    if ":" in name and scheme in corral.sources:
        return catalog.install_order(name)
    called = name.removesuffix(_LATEST)
    for begin in _OF_THE_HUB:
        if name.startswith(begin):
            return catalog.install_order(f"hf:{called.removeprefix(begin)}", name=called)
    return catalog.install_order(str(ModelRef("ollama", name)), name=called)


def check(document: dict[str, Any]) -> None:
    """Refuse what a pull of Corral cannot do.

    Raises:
        NotSupported: names it.
    """
    if document.get("insecure"):
        raise NotSupported(
            "Corral fetches over encrypted connections only, or from this machine: `insecure` is not taken.",
            "Name the registry with http:// if it is on this machine: ollama:http://127.0.0.1:5000/library/NAME:TAG",
            param="insecure",
        )


async def done(corral: Corral, workshop: Workshop, wanted: Order) -> AsyncGenerator[dict[str, Any], None]:
    """Do an operation and tell how it goes on; the last line says `success`, or there is an error.

    Whoever stops reading does not stop it: it can be followed and called off as any operation.

    Raises:
        CorralError: it cannot be done; at the first step, as far as that can be told beforehand.
    """
    corral.catalog.check(wanted)
    operations = await workshop.open()
    operation = await corral.catalog.start(wanted)
    yield {"status": "pulling manifest"}
    # Clients keep a bar for each digest. What is fetched has none before its listing is read: it gets one of its name.
    digest = f"sha256:{hashlib.sha256(str(wanted.params.get('what', wanted.model)).encode()).hexdigest()}"
    told: dict[str, Any] = {}
    async with aclosing(changes(operations, operation.id, workshop.leaving)) as steps:
        async for step in steps:
            if step is None:
                continue
            operation = step
            line = _line(operation, digest)
            if line is not None and line != told:
                told = line
                yield line
    _check_end(operation)
    yield {"status": "writing manifest"}
    yield {"status": "success"}


def _line(operation: Operation, digest: str) -> dict[str, Any] | None:
    """What Ollama would say of it now."""
    if operation.total and (operation.phase == "download" or operation.status is OperationStatus.COMPLETED):
        status = f"pulling {digest[7:19]}"
        return {"status": status, "digest": digest, "total": operation.total, "completed": operation.done}
    return {"status": "verifying sha256 digest"} if operation.phase == "check" else None


def _check_end(operation: Operation) -> None:
    failure = operation.error
    if failure is not None:
        kind = next((kind for kind in _kinds(CorralError) if kind.code == failure.code), CorralError)
        raise kind(failure.message, failure.hint)
    if operation.status is not OperationStatus.COMPLETED:
        raise Conflict(
            f"The operation on {operation.order.model!r} is {operation.status.replace('_', ' ')}.",
            f"See how it goes on: corral operations show {operation.id}",
        )


def _kinds(root: type[CorralError]) -> Iterator[type[CorralError]]:
    """Every class of error: of a failure that is kept only the code is known, and the status is the class's."""
    yield root
    for kind in root.__subclasses__():
        yield from _kinds(kind)
