"""`corral run`: ask a model once, or talk to it."""

import os
import stat
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from corral.cli.chat.conversation import Answer, Conversation, setting
from corral.cli.invocation import Invocation, command
from corral.cli.names import Model
from corral.cli.output import Mode
from corral.errors import InvalidRequest, ModelNotFound

if TYPE_CHECKING:
    from corral.app import Corral
    from corral.cli.chat.talker import Talker


@command
def run(
    invocation: Invocation,
    model: Model,
    prompt: Annotated[str | None, typer.Argument(metavar="PROMPT", help="What to ask; without it, a chat.")] = None,
    system: Annotated[str | None, typer.Option("--system", "-s", metavar="TEXT", help="The system prompt.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="temperature, top_p, max_tokens, seed or stop. Repeatable."),
    ] = None,
) -> None:
    """Ask a model once, or chat with it in the terminal.

    What is piped in is the prompt, or stands before the PROMPT that is given. A library model is pulled first.

    For example: corral run smollm2 "What is a corral?"; git diff | corral run smollm2 "Write a commit message."
    """
    chosen = dict(_setting(text) for text in settings or ())
    question = _question(prompt)
    if question is None and invocation.output.mode is not Mode.HUMAN:
        raise InvalidRequest("A chat is for people.", "Give a prompt with --json and --quiet: corral run MODEL PROMPT")
    if question is None and not sys.stdout.isatty():
        raise InvalidRequest("A chat needs a terminal.", "Give a prompt: corral run MODEL PROMPT")
    import asyncio

    name = ready(invocation, model)
    conversation = Conversation(name, system, {key: value for key, value in chosen.items() if value is not None})
    asyncio.run(_talk(invocation, conversation, question))


async def _talk(invocation: Invocation, conversation: Conversation, question: str | None) -> None:
    talker = _talker(invocation)
    try:
        if question is not None:
            await once(invocation, conversation, talker, question)
            return
        from corral.cli.chat.terminal import Chat, history_in, prompt

        session = prompt(history_in(invocation.settings().home), await talker.models())
        await Chat(conversation, talker, invocation.output, session).run()
    finally:
        await talker.close()


async def once(invocation: Invocation, conversation: Conversation, talker: "Talker", question: str) -> None:
    """Ask, and print the answer as it comes; with --json at the end, as one object."""
    from contextlib import ExitStack

    from corral.cli.chat.talker import listen

    output, answer = invocation.output, Answer()
    with ExitStack() as waiting:
        waiting.enter_context(output.busy(f"Waiting for {conversation.model} …"))

        def hear(_: str, said: str) -> None:
            if said and output.mode is not Mode.JSON:
                waiting.close()
                output.piece(said)

        try:
            await listen(talker, conversation.ask(question), answer, hear)
        finally:
            if output.mode is not Mode.JSON and answer.text and not answer.text.endswith("\n"):
                output.piece("\n")
    if output.mode is Mode.JSON:
        output.emit(_facts(conversation.model, answer))
    elif answer.finish_reason == "length":
        output.note("(cut off at the limit of tokens; see --set max_tokens=N)")


def _facts(model: str, answer: Answer) -> dict[str, Any]:
    return {
        "model": model,
        "text": answer.text,
        "reasoning": answer.reasoning or None,
        "finish_reason": answer.finish_reason,
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "tokens_per_second": answer.tokens_per_second,
        "first_token_seconds": answer.wait,
    }


def ready(invocation: Invocation, model: str) -> str:
    """The name to ask for, installed first where the library or a source has it.

    Raises:
        ModelNotFound: nobody knows it.
    """
    if invocation.url:
        return model
    corral = invocation.corral()
    try:
        corral.definition(model)
    except ModelNotFound:
        if not pullable(corral, model):
            if invocation.running() is not None:
                return model  # the server may have been given another configuration; it knows
            raise
    else:
        return model
    from corral.cli.pull import install

    return install(invocation, corral, model)


def pullable(corral: "Corral", model: str) -> bool:
    """Whether `corral pull` would find `model`: in the library, in the configuration, or at a source."""
    entry = corral.models.get(model)
    if corral.registry.library.find(model) is not None or (entry is not None and entry.source is not None):
        return True
    from corral.plugins import sources

    scheme, colon, _ = model.partition(":")
    return bool(colon) and scheme in sources({})


def _talker(invocation: Invocation) -> "Talker":
    from corral.cli.chat.talker import LocalTalker, ServerTalker

    if invocation.running() is not None:
        from corral.cli.server import Server

        return ServerTalker(Server.of(invocation))
    from corral.manager import ModelManager

    return LocalTalker(ModelManager(settings=invocation.settings(), env=invocation.env))


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidRequest(f"--set {text} has no value.", "Write it as --set temperature=0.2")
    return setting(name, value)


def _question(prompt: str | None) -> str | None:
    """The prompt that was given and the text that was piped in, together; None when a person sits there.

    Raises:
        InvalidRequest: there is a prompt, and nothing in it.
    """
    piped = _piped() if prompt is None or _has_data() else ""
    if prompt is None and piped is None:
        return None
    parts = [part.strip("\n") for part in (piped, prompt) if part and part.strip()]
    if not parts:
        raise InvalidRequest("The prompt is empty.", 'Give one: corral run MODEL "Why is the sky blue?"')
    return "\n\n".join(parts)


def _has_data() -> bool:
    """Whether standard input is a pipe or a file, and not a terminal, a device or closed."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _piped() -> str | None:
    """Everything on standard input; None when that is a terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        return None
    return sys.stdin.buffer.read().decode("utf-8", "replace")
