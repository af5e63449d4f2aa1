"""Answers inference requests: the body in, an engine's answer out in the client's dialect, the facts in its headers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import orjson

from corral.errors import CorralError, UpstreamError
from corral.gateway.body import read_body, too_large
from corral.gateway.envelope import beside
from corral.gateway.inference.doors import Asked, Door, read
from corral.gateway.ollama import resting
from corral.kit.clients import Clients
from corral.kit.relay import Message, Outcome, Quick, Receive, Send, relay, respond
from corral.observability.logs import tell_prompt
from corral.routing.faults import Refused

if TYPE_CHECKING:
    from corral.app import Corral
    from corral.gateway.wire import Direct
    from corral.routing.carrying import Carrying
    from corral.routing.order import Order


_LONGEST_LOGGED = 1024 * 1024
"""Bytes of a prompt, and of an answer, that are logged where that is wanted."""


class Answers:
    """The way of a request, from its body to the last byte of the answer.

    Args:
        corral: the parts.
    """

    def __init__(self, corral: Corral) -> None:
        self._corral = corral
        self._carrier = corral.carrier
        self._limits = corral.traffic.limits
        self._metrics = corral.traffic.metrics
        self._limit = corral.settings.server.max_body
        self._clients = Clients()
        self._prompts = corral.settings.log.prompts

    async def answer(
        self,
        door: Door,
        asked: Asked,
        declared: bytes | None,
        receive: Receive,
        send: Send,
        quick: Direct | None = None,
    ) -> Outcome:
        """Answer one request.

        When the client goes away, the call to the engine is cancelled and this returns with `client_gone`.

        Raises:
            CorralError: nothing has been sent yet; the caller answers with the error.
            ClientLeft: the client went away before its request was whole.
        """
        caller = asked.caller
        self._limits.enter(caller)
        self._metrics.enter()
        try:
            body = None if quick is None else quick.body()
            if body is None:
                body = await read_body(receive, declared, self._limit)
            elif len(body) > self._limit:
                raise too_large(self._limit)
            order = read(door, body, asked)
            outcome = Outcome()
            if order.form.dialect == "ollama" and resting.empty(order):
                return await self._rest(order, receive, send, outcome)
            if self._prompts:
                send, quick = _overheard(order.request_id, body, send), None
            carrying = self._carrier.begin(order)
            with self._clients.watch(receive) as client:
                if order.context is not None:
                    await self._widen(carrying, order)
                await self._carry(carrying, order, send, outcome, quick)
            outcome.client_gone = client.gone
            if client.gone and carrying.settled is None:
                carrying.gone()
            return outcome
        finally:
            self._metrics.leave()
            self._limits.leave(caller)

    async def _rest(self, order: Order, receive: Receive, send: Send, outcome: Outcome) -> Outcome:
        """Load a model, or let it go: nothing is asked of it."""
        with self._clients.watch(receive) as client:
            said = orjson.dumps(await resting.rest(self._corral, order))
            await respond(send, 200, said, [(b"x-request-id", order.request_id.encode())])
        outcome.client_gone, outcome.status = client.gone, 200
        return outcome

    async def _widen(self, carrying: Carrying, order: Order) -> None:
        """See that the engine's context is as long as is asked for."""
        try:
            carrying.wait_ms += await self._corral.contexts.provide(order, carrying.candidate.model)
        except CorralError as error:
            if len(carrying.plan.candidates) == 1:
                self._carrier.refuse(order, error)
                raise
            # Another may answer; whoever does, the wish stands among what was ignored.

    async def _carry(self, carrying: Carrying, order: Order, send: Send, outcome: Outcome, quick: Quick | None) -> None:
        """Ask and relay, and ask again as long as nothing has been sent to the client and another may answer."""
        while True:
            try:
                passage = await carrying.open()
            except Refused as error:
                await self._refuse(order, error, send, outcome)
                return
            try:
                headers = carrying.headers(passage)
                if order.caller.requests is not None or order.caller.tokens is not None:
                    headers += self._limits.headers(order.caller)
                await relay(
                    passage.response,
                    send,
                    passage.render,
                    headers=headers,
                    outcome=outcome,
                    onlooker=passage,
                    quick=quick,
                )
            except UpstreamError as error:
                failure = error
            except asyncio.CancelledError:
                outcome.client_gone = True
                carrying.finish(passage, outcome)
                raise
            else:
                carrying.finish(passage, outcome)
                return
            finally:
                passage.close()
            try:
                await carrying.failed(passage, failure)
            except Refused as error:
                await self._refuse(order, error, send, outcome)
                return

    @staticmethod
    async def _refuse(order: Order, error: Refused, send: Send, outcome: Outcome) -> None:
        """Hand on what an engine refused with: in its own words to clients of its dialect, else in theirs."""
        error.__traceback__ = None  # its frames hold it, and the request with it
        if error.told != error.status:
            raise error.error
        body = error.body or orjson.dumps(order.form.write_fault(error.fault, error.status))
        outcome.status = error.status
        headers = [(b"x-request-id", order.request_id.encode()), *beside(error)]
        await respond(send, error.status, body, headers)
        outcome.bytes, outcome.chunks = len(body), 1


def _overheard(request_id: str, prompt: bytes, send: Send) -> Send:
    """`send`, which writes into the log what was asked and answered, once that is whole."""
    said = bytearray()

    async def overhear(message: Message) -> None:
        if message["type"] == "http.response.body" and len(said) < _LONGEST_LOGGED:
            said.extend(message.get("body", b""))
        await send(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            tell_prompt(request_id, prompt[:_LONGEST_LOGGED], bytes(said[:_LONGEST_LOGGED]))

    return overhear
