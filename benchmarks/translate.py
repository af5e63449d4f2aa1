"""Requests a second and p50 in each dialect that is translated, beside the one that is relayed, at 16 connections.

    python -m benchmarks.translate [--rounds N] [--seconds N] [--dialects A,B] [--check]

The upstream speaks OpenAI's chat completions, so those are relayed; Anthropic's messages, Ollama's chat, Gemini's
generateContent and OpenAI's responses are translated there and back. All ask the same, in the words of their dialect
and with the headers of its clients. Rounds alternate, medians are printed. Target: relayed requests a second at most
2.5 times the translated ones. The processor time for a request stands beside: other work changes it least.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.peers import PLAIN, start_corral
from benchmarks.stage import (
    CONTENT,
    MODEL,
    PROMPT,
    REQUEST,
    SYSTEM,
    Call,
    Malfunction,
    Stage,
    ask,
    exact,
    lacking,
    staged,
)

TARGET = 2.5
CONNECTIONS = 16
RELAYED = "openai"
USER = {"role": "user", "content": PROMPT}
TEMPERATURE, TOKENS = 0.7, 128


@dataclass(slots=True)
class Dialect:
    """How one dialect asks, where its answer has the text and the tokens, and what was measured in each round.

    `key` is the header that its clients send their key in; `text` and `tokens` are paths into the answer. Measured are
    requests a second, milliseconds and microseconds of processor time.
    """

    path: str
    key: str
    body: dict[str, Any]
    text: Sequence[str | int]
    tokens: Sequence[str | int]
    headers: dict[str, str] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    p50s: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)

    def call(self, key: str | None) -> Call:
        """The request as its clients send it, with a key if there is one."""
        given = {} if key is None else {self.key: f"Bearer {key}" if self.key == "authorization" else key}
        return Call(self.path, {**self.headers, **given}, json.dumps(self.body))

    def holds(self, said: bytes) -> bool:
        """Whether an answer says what the upstream said, in so many tokens."""
        try:
            answer = json.loads(said)
            return bool(_at(answer, self.text) == CONTENT and _at(answer, self.tokens) == 62)
        except (ValueError, LookupError, TypeError):
            return False


def _at(value: Any, path: Sequence[str | int]) -> Any:
    for step in path:
        value = value[step]
    return value


def dialects() -> dict[str, Dialect]:
    """The relayed one, and all that are translated."""
    return {
        RELAYED: Dialect(
            "/v1/chat/completions",
            "authorization",
            json.loads(REQUEST),
            ("choices", 0, "message", "content"),
            ("usage", "completion_tokens"),
        ),
        "anthropic": Dialect(
            "/v1/messages",
            "x-api-key",
            {"model": MODEL, "system": SYSTEM, "messages": [USER], "temperature": TEMPERATURE, "max_tokens": TOKENS},
            ("content", 0, "text"),
            ("usage", "output_tokens"),
            {"anthropic-version": "2023-06-01"},
        ),
        "ollama": Dialect(
            "/api/chat",
            "authorization",
            {
                "model": MODEL,
                "messages": [{"role": "system", "content": SYSTEM}, USER],
                "options": {"temperature": TEMPERATURE, "num_predict": TOKENS},
                "stream": False,
            },
            ("message", "content"),
            ("eval_count",),
        ),
        "gemini": Dialect(
            f"/v1beta/models/{MODEL}:generateContent",
            "x-goog-api-key",
            {
                "systemInstruction": {"parts": [{"text": SYSTEM}]},
                "contents": [{"role": "user", "parts": [{"text": PROMPT}]}],
                "generationConfig": {"temperature": TEMPERATURE, "maxOutputTokens": TOKENS},
            },
            ("candidates", 0, "content", "parts", 0, "text"),
            ("usageMetadata", "candidatesTokenCount"),
        ),
        "responses": Dialect(
            "/v1/responses",
            "authorization",
            {
                "model": MODEL,
                "instructions": SYSTEM,
                "input": PROMPT,
                "temperature": TEMPERATURE,
                "max_output_tokens": TOKENS,
            },
            ("output", -1, "content", 0, "text"),
            ("usage", "output_tokens"),
        ),
    }


def run(stage: Stage, chosen: dict[str, Dialect], rounds: int, seconds: float, *, plain: bool) -> None:
    """Measure all in rounds, whose order alternates."""
    corral = start_corral(stage, stage.upstream(), plain=plain)
    calls = {name: dialect.call(corral.key) for name, dialect in chosen.items()}
    stage.wait(corral.name, corral.port, calls[RELAYED], exact)
    for name, dialect in chosen.items():
        said = ask(corral.port, calls[name])
        if not dialect.holds(said):
            raise Malfunction(f"{dialect.path} answered {said[:500]!r}.")
        stage.load(corral.port, [calls[name]], CONNECTIONS, 1)  # warm
    for number in range(rounds):
        for name, dialect in chosen.items() if number % 2 == 0 else reversed(chosen.items()):
            before = corral.worked()
            found = stage.load(corral.port, [calls[name]], CONNECTIONS, seconds)
            if found.refused:
                raise Malfunction(f"{found.refused} of {found.requests} requests in {name}'s dialect were refused.")
            dialect.rates.append(found.rate)
            dialect.p50s.append(found.p50)
            dialect.costs.append((corral.worked() - before) / found.requests * 1e6)


def report(chosen: dict[str, Dialect]) -> bool:
    """Print the table; returns whether the target is met by all."""
    heading = "times the relayed, in requests/s and processor"
    print(f"{'':12}{'requests/s':>12}{'p50 ms':>9}{'processor µs':>14}{heading:>48}")
    found = {
        name: [statistics.median(values) for values in (dialect.rates, dialect.p50s, dialect.costs)]
        for name, dialect in chosen.items()
    }
    relayed = found[RELAYED]
    for name, (rate, p50, cost) in found.items():
        print(f"{name:12}{rate:>12.0f}{p50:>9.3f}{cost:>14.1f}{relayed[0] / rate:>34.2f}{cost / relayed[2]:>14.2f}")
    most = max(relayed[0] / rate for rate, _, _ in found.values())
    print(f"\nmost times the relayed: {most:.2f} (target: at most {TARGET})")
    return most <= TARGET


def main() -> int:
    every = dialects()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="for one measurement, whole seconds")
    parser.add_argument("--dialects", default=",".join(every), help="those measured; openai always is")
    parser.add_argument("--plain", action="store_true", help=PLAIN)
    parser.add_argument("--check", action="store_true", help="exit with 1 when the target is missed")
    given = parser.parse_args()
    names = [RELAYED, *(name for name in given.dialects.split(",") if name != RELAYED)]
    unknown = sorted(set(names) - set(every))
    if unknown:
        parser.error(f"no such dialect: {', '.join(unknown)}; there are {', '.join(every)}")
    if lacking("nginx", "wrk", "taskset"):
        return 2
    chosen = {name: every[name] for name in names}
    try:
        with staged() as stage:
            run(stage, chosen, given.rounds, given.seconds, plain=given.plain)
    except (Malfunction, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0 if report(chosen) or not given.check else 1


if __name__ == "__main__":
    sys.exit(main())
