"""Containers that compose has started, taken over from the terminal."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from corral.cli.containers_hands import Here, There
from corral.cli.containers_words import sentence
from corral.errors import ContainerNotFound, CorralError, DockerUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from corral.cli.containers_hands import Hands
    from corral.cli.invocation import Invocation
    from corral.cli.output import Output
    from corral.fleet.compose import Imported
    from corral.fleet.migration import Started


def existing(given: Invocation, found: Imported) -> list[Started]:
    """The containers of the compose project that are on the engine; none, and a note, where it does not answer."""

    async def look() -> list[Started]:
        from corral.fleet.migration import started

        corral = given.corral()
        try:
            sources = {name: set(entry.get("volumes") or ()) for name, entry in found.entries.items()}
            return await started(corral.fleet.engine, found.project, found.services, sources)
        finally:
            await corral.close()

    try:
        return asyncio.run(look())
    except DockerUnavailable as error:
        given.output.note(f"Whether its containers are there is not known: {error.message}")
        return []


def standing(given: Invocation, name: str, container: str, entry: Mapping[str, Any]) -> list[Started]:
    """The container that is adopted as `name`, where it is a stranger's; an orphan of ours needs no more than that."""

    async def look() -> list[Started]:
        from corral.fleet.migration import Started

        corral = given.corral()
        try:
            seen = await corral.fleet.engine.inspect(container)
            ours = seen.yard == corral.yard
        finally:
            await corral.close()
        kept = tuple(entry.get("volumes") or ())
        return [] if ours else [Started(name, seen.container, seen.id, seen.running, kept)]

    return asyncio.run(look())


def tell(output: Output, there: Sequence[Started]) -> None:
    """What is there, and what becomes of what is in it."""
    for old in there:
        kept = f"{', '.join(old.kept)} stays as it is" if old.kept else "what is in it stays behind, with its models"
        runs = "runs" if old.running else "is there, stopped"
        output.say(f"  ~ {old.name}: container {old.container} {runs}; {kept}", "cyan")
        if old.others:
            output.say(f"  ! {old.name}: {', '.join(old.others)} of the same service are left alone", "yellow")


def described(there: Sequence[Started]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [
        {
            "name": old.name,
            "container": old.container,
            "running": old.running,
            "kept": list(old.kept),
            "others": list(old.others),
        }
        for old in there
    ]


def migrate(given: Invocation, there: Sequence[Started]) -> None:
    """Take them over, one after the other. What cannot be is put back, and said; the others go on.

    Raises:
        CorralError: the last that went wrong.
    """
    failed = asyncio.run(_migrate(given, there))
    for error in failed[:-1]:
        given.output.fail(error)
    if failed:
        raise failed[-1]


async def _migrate(given: Invocation, there: Sequence[Started]) -> list[CorralError]:
    from corral.app import Corral
    from corral.cli.server import Server

    corral = Corral(given.again(), env=given.env)
    server = Server.of(given) if given.running() is not None else None
    if server is not None:
        await server.reload()  # it is to know of what was written just now
    hands: Hands = Here(corral) if server is None else There(server)
    failed = []
    try:
        for old in there:
            try:
                _done(given.output, old, await _one(corral.fleet.engine, hands, old))
            except CorralError as error:
                failed.append(error)
    finally:
        await corral.close()
        if server is not None:
            await server.close()
    return failed


async def _one(engine: Any, hands: Hands, old: Started) -> Mapping[str, Any]:
    from corral.fleet.migration import take_over

    async def drop() -> None:
        with suppress(ContainerNotFound):  # it was not even made
            await hands.remove(old.name, force=True)

    return await take_over(engine, old, lambda: hands.do("start", old.name, wait=True), drop)


def _done(output: Output, old: Started, one: Mapping[str, Any]) -> None:
    from corral.fleet.migration import ASIDE

    def show() -> None:
        output.say(sentence(one))
        if not old.kept:
            output.note(f"{old.container}{ASIDE} is still there, stopped, with what is in it.")

    output.result({"event": "taken_over", "container": old.container, "now": dict(one)}, show, [one["name"]])
