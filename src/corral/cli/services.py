"""`corral services`: long-lived servers of models, which outlive Corral. No Corral server is needed for them."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from corral.cli.invocation import Invocation, Verbs, command, flag, group, invocation
from corral.cli.names import Service
from corral.cli.output import FAILED, Painted, size_text, time_text
from corral.cli.table import Column

if TYPE_CHECKING:
    from corral.app.services import Services

T = TypeVar("T")

app = typer.Typer(invoke_without_command=True, add_help_option=False, cls=Verbs)

NoWait = Annotated[bool, flag("--no-wait", help="Do not wait until it is healthy.")]

_STYLES = {
    "running": "green",
    "starting": "yellow",
    "waiting": "yellow",
    "stopping": "yellow",
    "unhealthy": "red",
    "failed": "red",
    "stopped": "dim",
}


@app.callback()
@group
def services(context: typer.Context) -> None:
    """Show and control long-lived servers, such as Ollama and vLLM.

    For example: corral services
    """
    if context.invoked_subcommand is None:
        _list(invocation(context, {}))


@app.command("list", add_help_option=False)
@command
def list_services(given: Invocation) -> None:
    """Show every service of the configuration and how it stands.

    For example: corral services list
    """
    _list(given)


@app.command(add_help_option=False)
@command
def start(given: Invocation, name: Service, no_wait: NoWait = False) -> None:
    """Start a service, and wait until it is healthy.

    For example: corral services start ollama
    """
    with given.output.busy(f"Starting {name} …"):
        found = _ask(given, "start", name, wait=not no_wait)
    _said(given, found, "starts" if no_wait else "is running")


@app.command(add_help_option=False)
@command
def stop(given: Invocation, name: Service) -> None:
    """Stop a service and all of its processes, politely at first.

    For example: corral services stop ollama
    """
    with given.output.busy(f"Stopping {name} …"):
        found = _ask(given, "stop", name)
    _said(given, found, "is stopped")


@app.command(add_help_option=False)
@command
def restart(given: Invocation, name: Service, no_wait: NoWait = False) -> None:
    """Stop a service and start it as it is configured now.

    For example: corral services restart ollama
    """
    with given.output.busy(f"Restarting {name} …"):
        found = _ask(given, "restart", name, wait=not no_wait)
    _said(given, found, "starts" if no_wait else "is running")


@app.command(add_help_option=False)
@command
def status(given: Invocation, name: Service) -> None:
    """Show how a service stands; the exit code is 0 when it runs.

    For example: corral services status ollama
    """
    found = _ask(given, "status", name)
    output = given.output

    def show() -> None:
        pairs = [
            ("Service", f"{found['name']} ({found['kind']}, kept by {found['manager']})"),
            ("State", _state(found)),
            ("Why", found["reason"]),
            ("Process", found["pid"]),
            ("Up for", None if found["uptime"] is None else time_text(found["uptime"])),
            ("Restarts", found["restarts"]),
            ("Last exit", found["last_exit"]),
            ("Health", {True: "good", False: "does not answer", None: None}[found["healthy"]]),
            ("Memory", None if found["memory"] is None else size_text(found["memory"])),
            ("Port", found["port"]),
            ("Log", found["log"]),
            ("With the machine", "yes" if found["installed"] else None),
        ]
        output.fields([(name, value) for name, value in pairs if value not in (None, "")])
        for note in found["notes"]:
            output.note(f"note: {note}")

    output.result(found, show, [found["state"]])
    if found["state"] != "running":
        raise typer.Exit(FAILED)


@app.command(add_help_option=False)
@command
def logs(
    given: Invocation,
    name: Service,
    lines: Annotated[
        int, typer.Option("--lines", "-n", metavar="N", min=1, max=10_000, help="How many of the last lines.")
    ] = 100,
) -> None:
    """Show the last lines that a service printed.

    For example: corral services logs ollama -n 20
    """
    if given.url:
        found = given.ask(lambda server: server.service_log(name, lines))
    else:
        found = list(_here(given, lambda services: services.log(name, lines)))
    output = given.output

    def show() -> None:
        for text in found:
            output.say(text)

    output.result({"name": name, "lines": found}, show, found)


@app.command(add_help_option=False)
@command
def install(given: Invocation, name: Service) -> None:
    """Let a service start with the machine, or with your login (systemd).

    For example: corral services install ollama
    """
    found = _ask(given, "install", name)
    _said(given, found, "starts with the machine now" if found["manager"] == "systemd" else "starts with you now")


@app.command(add_help_option=False)
@command
def uninstall(given: Invocation, name: Service) -> None:
    """Stop a service and remove what was written for it, but its log.

    For example: corral services uninstall ollama
    """
    _said(given, _ask(given, "uninstall", name), "is removed; its log and its settings stay")


def _list(given: Invocation) -> None:
    if given.url:
        found = given.ask(lambda server: server.services())
    else:
        found = [_described(status) for status in _here(given, lambda services: services.list())]
    output = given.output

    def show() -> None:
        if not found:
            output.say("No service is configured; describe one in corral.yaml, under `services`.")
            return
        columns = [
            Column("NAME"),
            Column("STATE"),
            Column("PORT", right=True),
            Column("PID", right=True),
            Column("UP", right=True),
            Column("RESTARTS", right=True),
            Column("HEALTH"),
            Column("MEMORY", right=True),
            Column("MANAGER"),
            Column("LOG", soft=True),
        ]
        output.table(columns, [_row(service) for service in found])
        for service in found:
            if service["reason"]:
                output.say(f"{service['name']}: {service['reason']}", "dim")

    data = {"services": found, "count": len(found)}
    output.result(data, show, [service["name"] for service in found if service["state"] == "running"])


def _row(service: Mapping[str, Any]) -> list[object]:
    return [
        service["name"],
        _state(service),
        service["port"] or "-",
        service["pid"] or "-",
        time_text(service["uptime"]),
        service["restarts"],
        {True: "good", False: Painted("bad", "red"), None: "-"}[service["healthy"]],
        size_text(service["memory"]),
        service["manager"],
        service["log"] or "-",
    ]


def _state(service: Mapping[str, Any]) -> Painted:
    return Painted(service["state"], _STYLES.get(service["state"], ""))


def _said(given: Invocation, found: Mapping[str, Any], what: str) -> None:
    output = given.output

    def show() -> None:
        pid = f", process {found['pid']}" if found["pid"] and "running" in what else ""
        output.say(f"{found['name']} {what}{pid}.")
        for note in found["notes"]:
            output.note(f"note: {note}")

    output.result(found, show, [found["name"]])


def _ask(given: Invocation, verb: str, name: str, **more: Any) -> dict[str, Any]:
    """Do something to a service, here or at the server that was named; how it stands then."""
    if given.url:
        return given.ask(lambda server: server.service(name, verb, **more))
    return _described(_here(given, lambda services: getattr(services, verb)(name, **more)))


def _here(given: Invocation, question: Callable[["Services"], Awaitable[T]]) -> T:
    """Ask the services of this home, in this process."""
    import asyncio

    async def work() -> T:
        corral = given.corral()
        try:
            return await question(corral.services)
        finally:
            await corral.close()

    return asyncio.run(work())


def _described(status: Any) -> dict[str, Any]:
    from corral.domain.services import describe

    return describe(status, time.time())
