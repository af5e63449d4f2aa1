"""What a request needs of a model, and what happens when the model is known not to have it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from corral.domain.models import Capability
from corral.domain.ports import Availability, Endpoint, Footprint, LaunchSpec, Report, SessionFacts
from corral.errors import InvalidRequest, NotSupported, UpstreamTimeout, UpstreamUnreachable
from corral.gateway.inference.openai import CALLS, needs, take_wishes
from corral.kit.upstream import Timeouts, Upstream
from corral.lifecycle.supervisor import Launch, Supervisor
from corral.routing.dispatch import Dispatcher, broken
from support.clocks import HandClock

CHAT, COMPLETIONS, EMBEDDINGS = (CALLS[f"/v1/{name}"] for name in ("chat/completions", "completions", "embeddings"))
IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}


@dataclass(frozen=True)
class NoOptions:
    pass


@dataclass(frozen=True)
class Sending:
    path: str = "/x"
    betas: bytes = b""
    body: bytes = b"{}"


@dataclass
class Asked:
    model: str = "m"
    needs: frozenset[Capability] = frozenset()
    priority: int | None = None
    timeouts: Timeouts = field(default_factory=lambda: Timeouts(connect=1))
    attempts: int = 0
    wait_ms: float = 0.0
    called: float = 0.0

    def compose(self, engine: Any) -> Sending:
        return Sending()

    async def prepare(self, engine: Any) -> Sending:
        return Sending()


@dataclass
class Still:
    """An engine that is there, can do what it says, and is never reached."""

    facts: SessionFacts
    endpoint: Endpoint = field(default_factory=lambda: Endpoint("http://127.0.0.1:9/v1"))

    async def healthy(self) -> bool:
        return True

    async def footprint(self) -> Footprint:
        return Footprint()

    def processes(self) -> Sequence[int]:
        return ()

    async def ended(self) -> str:
        return await asyncio.get_running_loop().create_future()  # a remote engine never does

    def log(self) -> Sequence[str]:
        return []

    async def stop(self, grace: float) -> None:
        return None


class Stills:
    kind = "still"
    options = NoOptions
    formats: frozenset[str] = frozenset()
    preference = 0
    capabilities: frozenset[Capability] = frozenset()

    def __init__(self, facts: SessionFacts) -> None:
        self.facts = facts

    async def probe(self) -> Availability:
        return Availability(usable=True)

    def demand(self, spec: LaunchSpec) -> None:
        return None

    async def start(self, spec: LaunchSpec, report: Report) -> Still:
        return Still(self.facts)


def yard(facts: SessionFacts) -> tuple[Supervisor, Dispatcher]:
    async def plan(model: str) -> Launch:
        return Launch(Stills(facts), LaunchSpec(model, NoOptions()), 60)

    clock = HandClock()
    supervisor = Supervisor(plan, clock)
    return supervisor, Dispatcher(supervisor, Upstream({}), clock)


@pytest.mark.parametrize(
    ("call", "document", "expected"),
    [
        (COMPLETIONS, {"prompt": "x"}, set()),
        (EMBEDDINGS, {"input": "x"}, {Capability.EMBEDDINGS}),
        (CHAT, {"messages": [{"role": "user", "content": "x"}]}, {Capability.CHAT}),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}, {Capability.CHAT}),
        (CHAT, {"messages": [{"role": "user", "content": [IMAGE]}]}, {Capability.CHAT, Capability.VISION}),
        (CHAT, {"messages": [{"role": "user", "content": [3]}, {"role": "user"}]}, {Capability.CHAT}),
    ],
)
def test_what_a_request_needs(call: Any, document: dict[str, Any], expected: set[Capability]) -> None:
    assert needs(document, call) == expected


@pytest.mark.parametrize(
    ("needed", "words"),
    [
        (Capability.CHAT, "no chat template"),
        (Capability.EMBEDDINGS, "embeddings: true"),
        (Capability.VISION, "corral show m"),
    ],
)
async def test_what_a_model_lacks_is_refused_before_it_is_asked(needed: Capability, words: str) -> None:
    supervisor, dispatcher = yard(SessionFacts(capabilities=frozenset({Capability.COMPLETION})))
    with pytest.raises(NotSupported, match=words):
        await dispatcher.open(Asked(needs=frozenset({needed})))
    (status,) = supervisor.statuses()
    assert status.engine is not None
    assert status.engine.in_flight == 0


async def test_an_engine_that_says_nothing_of_itself_is_asked() -> None:
    _, dispatcher = yard(SessionFacts(device="remote"))
    with pytest.raises(UpstreamUnreachable):
        await dispatcher.open(Asked(needs=frozenset({Capability.CHAT})))


async def test_in_mid_answer_a_local_engines_address_is_not_told() -> None:
    supervisor, _ = yard(SessionFacts())
    engine = await supervisor.load("m")
    lost = UpstreamUnreachable("http://127.0.0.1:4711 closed")
    assert "4711" not in str(broken(engine, lost))
    slow = UpstreamTimeout("too slow")
    assert broken(engine, slow) is slow
    supervisor, _ = yard(SessionFacts(device="remote"))
    assert broken(await supervisor.load("m"), lost) is lost


@pytest.mark.parametrize("priority", [101, -101, 1 << 62, 1.0, True, "5"])
def test_a_request_cannot_go_before_all_others_for_ever(priority: object) -> None:
    with pytest.raises(InvalidRequest, match="-100 to 100"):
        take_wishes({"priority": priority})


def test_what_a_request_wishes_is_taken_out_of_it() -> None:
    document = {"priority": -100, "keep_alive": "5m", "prompt": "x"}
    assert take_wishes(document) == (300.0, -100)
    assert document == {"prompt": "x"}
