"""`corral doctor`: what works here, what does not, and the command that mends it."""

import asyncio
import platform
import socket
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from corral.cli.invocation import Invocation, command, flag
from corral.cli.output import line, painted_state
from corral.errors import CorralError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from corral.app.checkup import Check
    from corral.config import Settings

_CPUINFO = Path("/proc/cpuinfo")
_WIDTH = 12
_WHY_CONFIG = "It says what Corral runs, and where."
_WHY_SERVER = "Clients, editors and the terminal menu ask it."


@command
def doctor(
    invocation: Invocation,
    online: Annotated[bool, flag("--online", help="Also see whether the package index can be reached.")] = False,
    why: Annotated[bool, flag("--why", help="Say of each thing why it matters.")] = False,
) -> None:
    """Check this machine, and say what mends what is wrong.

    Exit code 1 when something has to be mended. For example: corral doctor --online
    """
    from corral.app.checkup import Verdict

    checks: list[Check] = []

    async def look() -> None:
        async for check in examine(invocation, online=online):
            checks.append(check)
            _tell(invocation, check, why=why)

    asyncio.run(look())
    failures = [check for check in checks if check.verdict is Verdict.FAIL]
    output = invocation.output

    def conclude() -> None:
        warnings = sum(check.verdict is Verdict.WARN for check in checks)
        output.say()
        output.say(f"{len(failures)} to mend, {warnings} to know." if failures or warnings else "All is well.", "bold")

    data = {"ok": not failures, "checks": [asdict(check) for check in checks]}
    output.result(data, conclude, [f"{c.verdict} {c.name}: {c.detail}" for c in checks if c.verdict is not Verdict.OK])
    if failures:
        raise typer.Exit(1)


def _tell(invocation: Invocation, check: "Check", *, why: bool) -> None:
    """A check as soon as it is done; why it matters, where it is not well or somebody wants to know."""
    output = invocation.output
    if not output.human:
        return
    state = painted_state(check.verdict)
    output.piece(f"{state.value:<5}", state.style)
    output.say(f"{check.name:<{_WIDTH}} {line(check.detail)}")
    lead = " " * (_WIDTH + 6)
    if check.why and (why or check.verdict != "ok"):
        output.say(f"{lead}{line(check.why)}", "dim")
    if check.fix:
        output.say(f"{lead}→ {line(check.fix)}", "dim")


async def examine(invocation: Invocation, *, online: bool) -> "AsyncIterator[Check]":
    """Every check, as each is done; where the configuration cannot be read, it is the last."""
    from corral.app import checkup
    from corral.app.checkup import machine
    from corral.app.checkup.checks import Check, Verdict

    if invocation.url:
        for found in await asyncio.to_thread(_asked, invocation, online=online):
            yield found
        return
    yield machine.python(sys.version_info[:3], sys.executable)
    yield machine.processor(platform.system(), platform.machine(), machine.read(_CPUINFO))
    yield machine.memory()
    try:
        settings = invocation.settings()
    except CorralError as error:
        yield Check("config", Verdict.FAIL, error.message, error.hint, _WHY_CONFIG)
        return
    told = str(settings.file) if settings.file else "no file; defaults and environment"
    yield Check("config", Verdict.OK, told, why=_WHY_CONFIG)
    yield await asyncio.to_thread(check_server, invocation, settings)
    corral = invocation.corral()
    try:
        async for check in checkup.examine(corral, online=online):
            yield check
    finally:
        await corral.close()


def _asked(invocation: Invocation, *, online: bool) -> "list[Check]":
    """What the server that `--url` names finds on its own machine. Blocks."""
    from corral.app.checkup.checks import Check, Verdict

    path = f"/api/v1/doctor?online={str(online).lower()}"
    told = invocation.ask(lambda server: server.question(path, "checks"))
    return [Check(**{**check, "verdict": Verdict(check["verdict"])}) for check in told["checks"]]


def check_server(invocation: Invocation, settings: "Settings") -> "Check":
    """Whether Corral runs, or could. Blocks; not to be called in a loop's own thread."""
    from corral.app.checkup.checks import Check, Verdict

    where = invocation.running()
    if where is not None:
        try:
            models = invocation.ask(lambda server: server.models())
        except CorralError as error:
            return Check("server", Verdict.FAIL, error.message, error.hint, _WHY_SERVER)
        loaded = sum(model.get("state") == "ready" for model in models)
        detail = f"runs at {where.url}, {loaded} of {len(models)} models in memory"
        return Check("server", Verdict.OK, detail, why=_WHY_SERVER)
    host, port = settings.server.host, settings.server.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        fix = f"Take another port: corral serve --port {port + 1}"
        return Check("server", Verdict.FAIL, f"{host}:{port}: {reason}", fix, _WHY_SERVER)
    return Check("server", Verdict.OK, f"not running; {host}:{port} is free", why=_WHY_SERVER)
