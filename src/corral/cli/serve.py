"""`corral serve`: the server in the foreground, and what to try once it answers."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from corral import __version__
from corral.cli.invocation import Invocation, command
from corral.domain.models import Capability
from corral.errors import CorralError

if TYPE_CHECKING:
    from corral.app import Corral


@command
def serve(
    invocation: Invocation,
    host: Annotated[
        str | None, typer.Option("--host", metavar="HOST", help="Address to listen on (server.host).")
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", "-p", metavar="PORT", help="Port; 0 lets the system choose (server.port).")
    ] = None,
    models_dir: Annotated[
        Path | None, typer.Option("--models-dir", metavar="DIR", help="Folder of the models (store.models_dir).")
    ] = None,
    idle_timeout: Annotated[
        str | None,
        typer.Option("--idle-timeout", metavar="TIME", help="30s, 5m, never: when an unused model leaves memory."),
    ] = None,
) -> None:
    """Serve the models at one address, until Ctrl-C.

    For example: corral serve --port 8080
    """
    invocation.here_only("serve")
    flags = {
        "server.host": host,
        "server.port": port,
        "store.models_dir": None if models_dir is None else str(models_dir),
        "engines.idle_timeout": idle_timeout,
    }
    settings = invocation.settings(flags)
    import asyncio

    import uvloop

    from corral.gateway.server import serve as run

    corral = invocation.corral()
    model, some = to_try(corral), bool(corral.names())
    output = invocation.output

    def ready(url: str) -> None:
        data = {"event": "ready", "url": url, "pid": os.getpid(), "version": __version__}
        output.result(
            data, lambda: output.say(welcome(url, model, some=some, keyed=settings.api_key is not None)), [url]
        )

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(settings, ready, again=lambda: invocation.again(flags)))
    output.note("Corral has stopped.")


def to_try(corral: "Corral") -> str | None:
    """The first model that chats and that a runtime here runs: an installed one, else one of the configuration.

    Of many models no more are looked at than it takes.
    """
    after = None
    while page := corral.registry.page(after, 50):
        for installed in page:
            if Capability.CHAT in installed.revision.capabilities and _chats(corral, installed.name):
                return installed.name
        after = page[-1].name
    return next((name for name in sorted(corral.models) if _chats(corral, name)), None)


def _chats(corral: "Corral", name: str) -> bool:
    try:
        installed = corral.definition(name).installed
    except CorralError:
        return False
    return installed is None or Capability.CHAT in installed.revision.capabilities


def welcome(url: str, model: str | None, *, some: bool, keyed: bool) -> str:
    """What a person reads when the server answers: the address, and lines to try that work as they stand.

    `model` is the one to try; `some` says whether there is any, though it may not chat.
    """
    missing = None if model else "No model here chats yet." if some else "No model is installed yet."
    model = model or "smollm2"
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello!"}]})
    login = ' -H "authorization: Bearer $CORRAL_API_KEY"' if keyed else ""
    key = "os.environ['CORRAL_API_KEY']" if keyed else "'none'"
    python = (
        f"import os, openai; c = openai.OpenAI(base_url='{url}/v1', api_key={key}); "
        f"print(c.chat.completions.create(model='{model}', messages=[{{'role': 'user', 'content': 'Hello!'}}])"
        ".choices[0].message.content)"
    )
    lines = [
        f"Corral {__version__} serves at {url}",
        "",
        *([f"{missing} In another terminal: corral pull {model}", ""] if missing else []),
        "Try it:",
        f"  curl {url}/v1/chat/completions -H 'content-type: application/json'{login} -d '{body}'",
        "",
        f'  python -c "{python if keyed else python.replace("import os, openai", "import openai")}"',
        "",
        f"OpenAI clients use the base URL {url}/v1. Ctrl-C stops.",
    ]
    return "\n".join(lines)
