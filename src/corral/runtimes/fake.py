"""Runtime `fake`: an engine that answers from a script. It is a real process, speaks real HTTP, and fails as told.

It ships with Corral, so that a setup can be tried, and every part tested, without a model. Besides OpenAI's paths it
has `GET /fake/seen` (what it was asked), `POST /fake/release` (let held answers go on), `POST /fake/hold` (hold again)
and `POST /fake/count` (how many tokens the prompt of a request is).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from corral.domain.memory import Demand
from corral.domain.models import Capability
from corral.domain.ports import Availability, Endpoint, LaunchSpec, Progress, Report, SessionFacts
from corral.errors import InvalidRequest
from corral.kit import process, tally
from corral.kit.session import ChildSession

FAULTS = {
    "none": "answers",
    "refuse": "takes no connection once it is ready",
    "cut": "drops the connection after `fault_after` tokens, or in the middle of a whole answer",
    "garbage": "answers with bytes that are not HTTP",
    "garbage_event": "sends one event that is not JSON after `fault_after` tokens of a stream",
    "hang": "takes the request and never answers",
    "stall": "falls silent after the head of its answer and `fault_after` tokens",
    "crash": "ends its process after `fault_after` tokens",
    "truncate": "promises more bytes than it sends",
    "half": "sends half of a whole answer as if that were all of it; ends a stream early, after `fault_after` tokens",
    "empty": "answers with no byte, and as if that were well",
    "error": "reports an error with the status 200, in a stream after `fault_after` tokens",
    "html": "answers with a web page",
    "untyped": "answers as it should, and calls it plain text",
    "drip": "sends what it says byte by byte, `delay_ms` apart",
    "crash_on_start": "ends before it is ready",
    "never_ready": "never says that it is ready",
    "ignore_sigterm": "answers, and does not stop when asked politely",
}
_PROCESS = 24 * 1024**2
_STATUS = re.compile(r"status:[45]\d\d")
_NOT_NEGATIVE = (
    "delay_ms",
    "first_token_ms",
    "load_ms",
    "memory_mib",
    "retry_after",
    "fault_after",
    "fault_times",
    "hold_after",
)


@dataclass(frozen=True, slots=True)
class FakeOptions:
    """The script. A request may carry the same names, but for those about starting, in a field `fake` of its body.

    Attributes:
        reply: what it says; None echoes the last user message.
        tokens: the tokens themselves, or how many to make up; overrides `reply`.
        tool_calls: calls to answer with when the request offers tools: each has a `name` and `arguments`, an object.
        delay_ms: wait between two tokens.
        first_token_ms: wait before the first.
        load_ms: wait before it is ready.
        memory_mib: memory it really takes, in MiB, beside some 20 for the process.
        hold_after: stop after this many tokens until released at `/fake/release`.
        embed_dimensions: length of an embedding.
        context: tokens it pretends to hold; a longer prompt is refused as llama.cpp refuses it.
        slots: requests answered at the same time.
        fault: how it fails: a name of `FAULTS`, or `status:NNN`.
        retry_after: seconds, sent as `Retry-After` with a `status:` fault.
        fault_after: tokens before a fault in mid-answer.
        fault_late: a fault in mid-stream comes only after the stream's last event.
        fault_times: how many requests fail before the rest succeed; 0 means all.
        prompted: a prompt may have the script too, so that clients of any dialect can: its first line is `#fake JSON`.
    """

    reply: str | None = None
    tokens: tuple[str, ...] | int | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    delay_ms: float = 0
    first_token_ms: float = 0
    load_ms: float = 0
    memory_mib: int = 0
    hold_after: int | None = None
    embed_dimensions: int = 8
    context: int = 4096
    slots: int = 16
    fault: str = "none"
    retry_after: float | None = None
    fault_after: int = 0
    fault_late: bool = False
    fault_times: int = 0
    prompted: bool = False

    def __post_init__(self) -> None:
        if self.fault not in FAULTS and not _STATUS.fullmatch(self.fault):
            raise InvalidRequest(
                f"Option 'fault' for fake: there is no fault {self.fault!r}.",
                f"Faults: {', '.join(FAULTS)}, status:NNN.",
                param="fault",
            )
        least = dict.fromkeys(_NOT_NEGATIVE, 0) | {"embed_dimensions": 1, "context": 1, "slots": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise InvalidRequest(f"Option {name!r} for fake must be at least {bound}, not {value}.", param=name)


class Fake:
    """Answers from a script."""

    kind = "fake"
    options = FakeOptions
    formats: frozenset[str] = frozenset()
    preference = 0
    capabilities = frozenset(Capability) - {Capability.VISION, Capability.RERANK}

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    async def probe(self) -> Availability:
        """Always usable."""
        return Availability(usable=True, devices=("cpu",))

    def demand(self, spec: LaunchSpec) -> Demand:
        """What the script says, and what the process takes."""
        options: FakeOptions = spec.options
        return Demand(fixed=_PROCESS + options.memory_mib * 1024**2, device="cpu")

    async def start(self, spec: LaunchSpec, report: Report) -> ChildSession:
        """Start the process and wait until it answers."""
        options: FakeOptions = spec.options
        key = secrets.token_urlsafe(32)
        command = process.Command(
            title=f"The engine of {spec.model!r}",
            argv=process.module_argv("corral.runtimes._fake"),
            environment=process.child_environment(self._env),
            launch={"key": key, "name": spec.model, "script": asdict(options)},
        )
        report(Progress("load", detail="fake"))
        child = await process.start(command, spec.load_timeout)
        address = child.facts["address"]
        endpoint = Endpoint(url=f"{address}/v1", headers={"Authorization": f"Bearer {key}"}, model=spec.model)
        facts = SessionFacts(options.context, options.slots, "cpu", self.capabilities, counts=True)

        async def counted(_: str, document: Mapping[str, Any]) -> int | None:
            return await tally.ask(f"{address}/fake/count", endpoint.headers, document, "count")

        return ChildSession(child, endpoint, facts, f"{address}/health", counted)


plugin = Fake
