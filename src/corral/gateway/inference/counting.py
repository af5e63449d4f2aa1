"""How long a prompt is, before it is asked: Anthropic's `count_tokens`, Gemini's `countTokens`.

The engine counts where it can. Where none can, a number is reckoned from the bytes, and the header
`x-corral-estimated` says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from corral.dialects.form import form
from corral.domain.models import Capability
from corral.domain.ports import Counter
from corral.errors import CorralError
from corral.gateway.body import read_body
from corral.gateway.inference import openai
from corral.gateway.inference.doors import named
from corral.kit.clients import Clients
from corral.kit.relay import Outcome, Receive, Send, respond
from corral.routing.composing import too_deep
from corral.routing.order import BYTES_A_TOKEN, Order

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from corral.app import Corral
    from corral.dialects.canonical import Request
    from corral.gateway.inference.doors import Asked
    from corral.kit.response import Header
    from corral.lifecycle.engines import Engine

_CHAT = frozenset((Capability.CHAT,))
PATH = "/v1/messages/count_tokens"
GEMINI_PATH = "/v1beta/models/{id}:countTokens"


def counted(path: str) -> tuple[str, str | None] | None:
    """The form that a counting path speaks, and the model where the path names it; None: it is no such path."""
    if path == PATH:
        return "anthropic.messages", None
    model, method = named(path)
    return ("gemini.generate", model) if method == "countTokens" else None


class Counting:
    """Counts prompts.

    Args:
        corral: the parts.
    """

    def __init__(self, corral: Corral) -> None:
        self._corral = corral
        self._limit = corral.settings.server.max_body
        self._clients = Clients()

    async def answer(self, spoken: str, asked: Asked, declared: bytes | None, receive: Receive, send: Send) -> Outcome:
        """Answer one question.

        Raises:
            CorralError: it is none, or the model cannot be had.
            ClientLeft: the client went away.
        """
        limits = self._corral.traffic.limits
        limits.enter(asked.caller)
        try:
            return await self._answer(spoken, asked, await read_body(receive, declared, self._limit), receive, send)
        finally:
            limits.leave(asked.caller)

    async def _answer(self, spoken: str, asked: Asked, body: bytes, receive: Receive, send: Send) -> Outcome:
        document = openai.loaded(body)
        if asked.model is not None:
            document["model"] = asked.model
        openai.check_name(document)
        read, write = _forms(spoken)
        try:
            request = read(document)
        except RecursionError as error:
            raise too_deep() from error
        order = Order(
            asked.request_id,
            form(spoken),
            document["model"],
            document,
            None,
            asked.caller,
            needs=_CHAT,
            started=asked.started,
            asked=request,
        )
        model = self._corral.traffic.plan(order).candidates[0].model
        outcome = Outcome(status=200)
        with self._clients.watch(receive) as client:
            async with self._corral.supervisor.lease(self._corral.canonical(model)) as engine:
                found = await self._count(order, engine)
            headers: list[Header] = [(b"x-request-id", order.request_id.encode())]
            if found is None:
                found = len(body) // BYTES_A_TOKEN + 1
                headers.append((b"x-corral-estimated", b"true"))
            await respond(send, 200, orjson.dumps(write(found)), headers)
        outcome.client_gone = client.gone
        return outcome

    async def _count(self, order: Order, engine: Engine) -> int | None:
        session = engine.session
        if not session.facts.counts or not isinstance(session, Counter):
            return None
        call = self._corral.traffic.composer.compose(order, engine, engine.model)
        try:
            return await session.count(call.path, orjson.loads(call.body))
        except CorralError as error:
            self._corral.dispatcher.doubt(engine, error)
            raise


def _forms(
    spoken: str,
) -> tuple[Callable[[Mapping[str, Any]], Request], Callable[[int], dict[str, Any]]]:
    if spoken == "anthropic.messages":
        from corral.dialects.anthropic import read_count

        return read_count, lambda tokens: {"input_tokens": tokens}
    from corral.dialects.gemini import read_count as read_gemini
    from corral.dialects.gemini import write_count_reply

    return read_gemini, write_count_reply
