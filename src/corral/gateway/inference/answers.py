"""Answers inference requests: the body in, an engine's bytes out, and the facts of it in the headers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corral.errors import CorralError, UpstreamError
from corral.gateway.body import read_body
from corral.gateway.inference import openai
from corral.kit.relay import Clients, Outcome, Receive, Render, Send, relay
from corral.routing.dispatch import Ask, broken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from corral.app import Corral
    from corral.kit.http1 import Header
    from corral.lifecycle.supervisor import Engine

_FACTS_KEPT = 200


class Answers:
    """The way of a request, from its body to the last byte of the answer.

    Args:
        corral: the parts.
    """

    def __init__(self, corral: Corral) -> None:
        self._dispatcher = corral.dispatcher
        self._limit = corral.settings.server.max_body
        self._clients = Clients()
        self._facts: dict[str, tuple[Header, ...]] = {}

    async def answer(
        self, call: openai.Call, declared: bytes | None, request_id: bytes, receive: Receive, send: Send
    ) -> Outcome:
        """Answer one request.

        When the client goes away, the call to the engine is cancelled and this returns with `client_gone`.

        Raises:
            CorralError: nothing has been sent yet; the caller answers with the error.
            ClientLeft: the client went away before its request was whole.
        """
        body = await read_body(receive, declared, self._limit)
        document = openai.parse(body, call)
        wishes = openai.take_wishes(document)
        ask = Ask(document["model"], call.path, document, body, openai.needs(document, call))
        if wishes is not None:
            ask.body = None  # the engine gets the document without them
            ask.keep_alive, ask.priority = wishes
        outcome = Outcome()
        with self._clients.watch(receive) as client:
            await self._carry(ask, request_id, send, outcome)
        outcome.client_gone = client.gone
        return outcome

    async def _carry(self, ask: Ask, request_id: bytes, send: Send, outcome: Outcome) -> None:
        """Ask and relay; once more if the engine died with nothing sent to the client yet."""
        while True:
            answer = await self._dispatcher.open(ask)
            engine = answer.engine
            try:
                await relay(
                    answer.response,
                    send,
                    _teller(engine),
                    headers=self._headers(ask, engine, request_id),
                    outcome=outcome,
                )
            except UpstreamError as error:
                failure = error
            else:
                self._dispatcher.doubt(engine, outcome.error)
                return
            finally:
                answer.close()
            await self._dispatcher.recover(ask, engine, failure)

    def _headers(self, ask: Ask, engine: Engine, request_id: bytes) -> Sequence[Header]:
        facts = self._facts.get(engine.id)
        if facts is None:
            facts = self._note(engine)
        headers = [(b"x-request-id", request_id), *facts, (b"x-corral-attempts", b"%d" % ask.attempts)]
        if ask.wait_ms:
            headers.append((b"x-corral-wait-ms", b"%d" % ask.wait_ms))
        if ask.ignored:
            headers.append((b"x-corral-ignored", ", ".join(ask.ignored).encode()))
        return headers

    def _note(self, engine: Engine) -> tuple[Header, ...]:
        """The facts of an engine that are the same for each of its answers."""
        facts = [(b"x-corral-model", engine.model.encode()), (b"x-corral-engine", engine.id.encode())]
        if engine.revision is not None:
            facts.append((b"x-corral-revision", engine.revision.encode()))
        if engine.session.facts.context is not None:
            facts.append((b"x-corral-context", b"%d" % engine.session.facts.context))
        if len(self._facts) >= _FACTS_KEPT:  # engines come and go for as long as the server runs
            self._facts.clear()
        self._facts[engine.id] = tuple(facts)
        return self._facts[engine.id]


def _teller(engine: Engine) -> Render:
    """Says in a stream, as its last event, why it ends here."""

    def tell(error: CorralError) -> bytes:
        return openai.render_event(broken(engine, error))

    return tell
