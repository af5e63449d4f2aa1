"""`corral pull`: models installed, several at once, by the server that runs or by this process."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from corral.cli.invocation import Invocation, command, flag
from corral.cli.models import described
from corral.cli.names import Whats, completion, kinds
from corral.cli.output import Mode, size_text
from corral.domain.models import Capability, Installed, check_name
from corral.domain.operations import Operation, Order
from corral.errors import (
    CorralError,
    InvalidName,
    InvalidRequest,
    ModelNotFound,
    RuntimeUnavailable,
    ServerNotRunning,
)

if TYPE_CHECKING:
    from corral.app import Corral
    from corral.cli.work import Task

_LONGEST = 4000
"""Characters of what is asked for: longer than any path or address."""


@command
def pull(
    invocation: Invocation,
    what: Whats,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Install it under this name.")] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            "--runtime", metavar="RUNTIME", autocompletion=completion(kinds), help="The runtime that shall run it."
        ),
    ] = None,
    detach: Annotated[bool, flag("--detach", "-d", help="Only queue it on the server, and say its operation.")] = False,
) -> None:
    """Install models, or go on where the last pull stopped.

    Several are installed side by side. With a server running, the server does it, and a browser sees the same. Ctrl-C
    keeps what has arrived. For example: corral pull smollm2 file:./model.gguf
    """
    wanted = list(dict.fromkeys(_checked(item) for item in what))
    if name is not None and len(wanted) > 1:
        raise InvalidRequest("--name is for one model, and several are given.", "Pull them one by one.")
    if name is not None:
        check_name(name)
    if detach and invocation.running() is None:
        raise ServerNotRunning("--detach needs a server that does it.", "Start one in another terminal: corral serve")
    corral = None if invocation.url else invocation.corral()
    before = {} if corral is None else {model.name: model.revision.id for model in corral.registry.all()}
    there = [_there(corral, item, name, runtime) if corral else None for item in wanted]
    missing = [item for item, known in zip(wanted, there, strict=True) if known is None]
    tasks = [_task(corral, item, name, runtime) for item in missing]
    if detach:
        _detach(invocation, tasks)
        return
    for installed in there:
        if installed is not None:
            _tell(invocation, described(installed), corral, moved=False, already=True)
    if tasks:
        from corral.cli.work import carry_out

        carry_out(invocation, tasks, corral)
        conclude(invocation, tasks, corral, before)


def install(invocation: Invocation, corral: "Corral", what: str) -> str:
    """Install `what` and show how far it is; the name that it has then. Ctrl-C keeps what has arrived, and says so.

    Raises:
        CorralError: it cannot be had.
    """
    known = _there(corral, what, None, None)
    if known is not None:
        return known.name
    from corral.cli.work import carry_out

    task = _task(corral, what, None, None)
    carry_out(invocation, [task], corral)
    if task.error is not None:
        raise task.error
    return str(_result(task.operation)["name"])


def _checked(what: str) -> str:
    """`what`, when it can be asked for at all.

    Raises:
        InvalidName: empty, very long, or with characters that cannot be shown.
    """
    if not what.strip() or len(what) > _LONGEST or not what.isprintable():
        raise InvalidName(f"{what[:60]!r} names no model.", "Find one with: corral search")
    return what


def _there(corral: "Corral", what: str, name: str | None, runtime: str | None) -> Installed | None:
    """What is installed as it would be installed, when that can be told without asking anybody."""
    if runtime is not None:
        return None
    entry = corral.models.get(what)
    asked = what if entry is None or entry.source is None else entry.source
    pinned = corral.registry.library.find(asked)
    try:
        if pinned is None:
            return None if name or ":" in asked else corral.registry.get(asked)
        installed = corral.registry.get(name or pinned.name)
        wanted = [file.entry.sha256 for file in pinned.files]
        if [file.sha256 for file in installed.revision.files] != wanted:
            return None
        if dict(installed.revision.defaults) != dict(pinned.defaults):
            return None
        if not corral.registry.sound(installed.revision):
            return None
    except CorralError:
        return None
    return installed


def _task(corral: "Corral | None", what: str, name: str | None, runtime: str | None) -> "Task":
    from corral.cli.work import Task, located

    again = f"corral pull {what}" + (f" --name {name}" if name else "")
    if corral is None:
        params = {"what": what, "name": name, "runtime": runtime}
        order = Order("install", name or what, {key: value for key, value in params.items() if value})
    else:
        if runtime is not None and runtime not in corral.runtimes:
            raise ModelNotFound(f"There is no runtime {runtime!r} here.", f"Runtimes: {', '.join(corral.runtimes)}.")
        order = corral.catalog.install_order(located(what), name=name, runtime=runtime)
        corral.catalog.check(order)
    return Task(order, name or what, again)


def _detach(invocation: Invocation, tasks: Sequence["Task"]) -> None:
    """Queue the orders on the server, and say what they are called."""
    import asyncio

    from corral.cli.work import hands

    async def submit() -> list[Operation]:
        workers = hands(invocation)
        try:
            return [await workers.submit(task.order) for task in tasks]
        finally:
            await workers.close()

    output = invocation.output
    for task, operation in zip(tasks, asyncio.run(submit()) if tasks else (), strict=True):

        def show(task: "Task" = task, operation: Operation = operation) -> None:
            output.say(f"{task.called} is queued as operation {operation.id}.")
            output.note(f"See how far it is: corral operations {operation.id}")

        data = {"event": "queued", "name": task.called, "operation": operation.id, "status": operation.status}
        output.result(data, show, [operation.id])


def conclude(
    invocation: Invocation, tasks: Sequence["Task"], corral: "Corral | None", before: Mapping[str, str]
) -> None:
    """Say of each what became of it. `before` are the revisions that were installed, by name.

    Raises:
        CorralError: the last failure; the others have been said.
    """
    output = invocation.output
    failed = [task for task in tasks if task.error is not None]
    for task in tasks:
        if task.error is None:
            facts = _facts(task.operation, corral)
            already = before.get(str(facts["name"])) == facts.get("revision")
            _tell(invocation, facts, corral, moved=task.moved, already=already)
        elif len(tasks) > 1 and output.mode is Mode.JSON:
            content = {"code": task.error.code, "message": task.error.message, "hint": task.error.hint}
            output.emit({"event": "failed", "name": task.called, "error": content})
        elif len(tasks) > 1:
            output.note(f"{task.called} is not installed:")
        if task.error is not None and task is not failed[-1] and output.mode is not Mode.JSON:
            output.fail(task.error)
    if failed and failed[-1].error is not None:
        raise failed[-1].error


def _tell(
    invocation: Invocation, facts: Mapping[str, Any], corral: "Corral | None", *, moved: bool, already: bool
) -> None:
    output = invocation.output

    def show() -> None:
        verb = "was installed already" if already else "is installed"
        about = f"{size_text(facts.get('size'))}, {facts.get('format')}, revision {str(facts.get('revision'))[:12]}"
        output.say(f"{facts['name']} {verb}: {about}.")
        note = next_step(facts, runs=_runs(invocation, corral, str(facts["name"])))
        if note:
            output.note(note)

    output.result({"event": "installed", "downloaded": moved, **facts}, show, [facts["name"]])


def next_step(facts: Mapping[str, Any], *, runs: bool) -> str:
    """What can be done with an installed model; empty where there is nothing to say. `runs`: a runtime here runs it."""
    capabilities = facts.get("capabilities") or ()
    if not runs:
        return f"No runtime here runs {facts.get('format')} files yet. What could: corral runtimes"
    if Capability.CHAT in capabilities:
        return f"Talk to it: corral run {facts['name']}"
    if Capability.COMPLETION in capabilities:
        return "It has no chat template: it completes texts, at /v1/completions."
    return ""


def _runs(invocation: Invocation, corral: "Corral | None", name: str) -> bool:
    """Whether something runs the model where it is installed; of another machine's, its server says so."""
    if corral is None:
        with suppress(CorralError):
            return invocation.ask(lambda server: server.model(name)).get("runtime") is not None
        return True
    try:
        corral.definition(name)
    except RuntimeUnavailable:
        return False
    except CorralError:
        return True  # something else is the matter with it, which is said when it is asked for
    return True


def _facts(operation: Operation | None, corral: "Corral | None") -> Mapping[str, Any]:
    """What was installed, as the store has it, or else as the server says."""
    result = _result(operation)
    if corral is not None:
        with suppress(CorralError):
            return described(corral.registry.get(str(result["name"])))
    return result


def _result(operation: Operation | None) -> Mapping[str, Any]:
    if operation is None or operation.result is None:
        raise CorralError("The operation ended without a result.", "See: corral list")
    return operation.result
