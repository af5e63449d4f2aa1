"""One request to one model: have its engine ready, ask it in its own terms, and once more if it died before that."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from corral.domain.models import Capability
from corral.domain.ports import Report, silent
from corral.errors import CorralError, EngineDied, NotSupported, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from corral.kit.upstream import Block, block

if TYPE_CHECKING:
    from collections.abc import Callable

    from corral.domain.ports import Clock
    from corral.kit.upstream import Response, Timeouts, Upstream
    from corral.lifecycle.supervisor import Engine, Supervisor

_ATTEMPTS = 2
_GONE_WITHIN = 0.25
"""Seconds in which a lost connection is taken for the sign of an engine that is ending."""

_CANNOT = {
    Capability.CHAT: (
        "chat: it has no chat template",
        "Have it complete a text at /v1/completions, or give it a template by the option chat_template.",
    ),
    Capability.EMBEDDINGS: ("make embeddings as it is loaded", "Load it for that by the option embeddings: true."),
    Capability.VISION: ("see images", "See what it can do: corral show MODEL"),
}
_CANNOT_ELSEWHERE = _CANNOT | {
    Capability.CHAT: ("chat", "Ask another model: corral list shows them."),
    Capability.EMBEDDINGS: ("make embeddings", "Ask another model: corral list shows them."),
}
"""The same of models elsewhere, which nothing here can load in another way."""

_TYPE = ((b"content-type", b"application/json"),)
_JSON: Block = block(_TYPE)


class Sent(Protocol):
    """What is sent to an engine: the path below its address, the body, and what `anthropic-beta` says beside it."""

    @property
    def path(self) -> str:
        """Begins with `/`."""
        ...

    @property
    def body(self) -> bytes:
        """JSON."""
        ...

    @property
    def betas(self) -> bytes:
        """Empty where there are none."""
        ...


class Asking(Protocol):
    """A request to `model`, and what composes what its engine is sent.

    `needs` is what the model must be able to do, `priority` as in `Supervisor.acquire`. Told of it are its `attempts`,
    the time it waited for an engine (`wait_ms`), and when it was `called`, on the clock of `time.perf_counter`.
    """

    model: str
    needs: frozenset[Capability]
    priority: int | None
    timeouts: Timeouts
    attempts: int
    wait_ms: float
    called: float

    def compose(self, engine: Engine) -> Sent | None:
        """What the engine is sent; None where something must be waited for first: then `prepare` is awaited for it."""
        ...

    async def prepare(self, engine: Engine) -> Sent:
        """What the engine is sent, after a wait."""
        ...


class Dispatcher:
    """Sends requests to the engines that a supervisor keeps.

    Args:
        supervisor: has the engines.
        upstream: makes the calls.
        clock: measures the wait.
        canonical: gives a model's own name for any name it is asked by; may raise CorralError.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        upstream: Upstream,
        clock: Clock,
        canonical: Callable[[str], str] = str,
    ) -> None:
        self._supervisor = supervisor
        self._upstream = upstream
        self._clock = clock
        self._canonical = canonical

    async def open(self, ask: Asking, report: Report = silent) -> tuple[Engine, Response]:
        """The engine, and the head of its answer to `ask`, loading the model first where needed.

        Whoever has them closes the answer, read or not, and tells it by `end`.

        A local engine that turns out to have died before a byte of its answer came is loaded again and asked once more.

        Raises:
            CorralError: there is no such model, it cannot be loaded, or its engine does not answer.
        """
        while True:
            ask.attempts += 1
            engine = self._supervisor.begin(ask.model) or await self._wait(ask, report)
            response = None
            try:
                able = engine.session.facts.capabilities
                if able is not None and not ask.needs <= able:
                    raise _lacking(engine, ask.needs - able)
                sent = ask.compose(engine) or await ask.prepare(engine)
                ask.called = perf_counter()
                response = await self._upstream.request(
                    engine.target,
                    "POST",
                    sent.path,
                    headers=_JSON if not sent.betas else block([*_TYPE, (b"anthropic-beta", sent.betas)]),
                    body=sent.body,
                    timeouts=ask.timeouts,
                )
            except UpstreamError as error:
                failure = error
            else:
                return engine, response
            finally:
                if response is None:
                    self._supervisor.end(engine)
            await self.recover(ask, engine, failure)

    def end(self, engine: Engine, keep_alive: float | None = None) -> None:
        """A request to the engine is done. `keep_alive` as in `Supervisor.end`."""
        self._supervisor.end(engine, keep_alive)

    async def recover(self, ask: Asking, engine: Engine, error: CorralError) -> None:
        """Return when `ask`, of which nothing has reached the client, should be sent again: its engine is gone.

        Raises:
            EngineDied: the engine is gone, and this was the last attempt.
            CorralError: `error`, which has another reason.
        """
        if not isinstance(error, UpstreamUnreachable) or not await self._is_gone(engine):
            self.doubt(engine, error)
            raise error
        if ask.attempts >= _ATTEMPTS:
            raise _died(engine) from error

    async def explain(self, engine: Engine, error: CorralError) -> CorralError:
        """`error`, or that the engine died where that is the reason."""
        if isinstance(error, UpstreamUnreachable) and await self._is_gone(engine):
            return _died(engine)
        return error

    def doubt(self, engine: Engine, error: CorralError | None) -> None:
        """Have an engine looked after that did not answer in time: it may hang, and then nobody else would notice."""
        if isinstance(error, UpstreamTimeout) and not engine.remote:
            self._supervisor.doubt(engine, f"it hangs: {error.message}")

    async def _wait(self, ask: Asking, report: Report) -> Engine:
        started = self._clock.now()
        engine = await self._supervisor.acquire(self._canonical(ask.model), report, priority=ask.priority)
        ask.wait_ms += (self._clock.now() - started) * 1000
        return engine

    async def _is_gone(self, engine: Engine) -> bool:
        """Whether a local engine has ended. Its process may be noticed a moment after its connections break."""
        if engine.remote or engine.gone.is_set():
            return engine.gone.is_set()
        try:
            async with asyncio.timeout(_GONE_WITHIN):
                await engine.gone.wait()
        except TimeoutError:
            return False
        return True


def _died(engine: Engine) -> EngineDied:
    return EngineDied(
        f"The engine of {engine.model!r} ended while it was answering.",
        f"Ask again: it is loaded anew. See why: corral logs {engine.model}",
    )


def broken(engine: Engine, error: CorralError) -> CorralError:
    """`error`, which broke an answer in its middle, in words for the client: an engine's address tells it nothing."""
    if engine.remote or not isinstance(error, UpstreamUnreachable):
        return error
    return EngineDied(
        f"The engine of {engine.model!r} ended in the middle of its answer.", "Ask again: it is loaded anew."
    )


def _lacking(engine: Engine, missing: frozenset[Capability]) -> NotSupported:
    """What is said of an engine that is known to be unable to do what is asked of it."""
    first = min(missing)  # without chat, nothing else of a chat matters
    reasons = _CANNOT_ELSEWHERE if engine.session.facts.device == "remote" else _CANNOT
    said, hint = reasons.get(first, (f"do {first}", "See what it can do: corral show MODEL."))
    return NotSupported(f"Model {engine.model!r} cannot {said}.", hint.replace("MODEL", engine.model), param="model")
