"""Spans of answers for OpenTelemetry, with its attributes for generative models. Only with the extra `corral[otel]`.

    POST … of the client            its own trace, when it sends `traceparent`
    └─ chat smollm2                 the answer, with tokens and what it cost
       ├─ call big                  each call of an engine
       └─ call smollm2

Spans are made of the record, after the answer has been sent: while one is under way, tracing costs nothing. The
attributes are those of https://github.com/open-telemetry/semantic-conventions-genai; no span holds a prompt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from corral import __version__
from corral.domain.money import NANO
from corral.errors import ConfigError
from corral.observability.record import receipt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.trace import TracerProvider

    from corral.observability.record import Record

WHERE = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""The variables of which one switches tracing on."""

_OPERATIONS = {
    "gemini.array": "generate_content",
    "gemini.batch": "embeddings",
    "gemini.embed": "embeddings",
    "gemini.generate": "generate_content",
    "ollama.embed": "embeddings",
    "ollama.generate": "text_completion",
    "openai.completions": "text_completion",
    "openai.embeddings": "embeddings",
    "openai.rerank": "rerank",
}
"""What OpenTelemetry calls what is asked for in a dialect's form; all others are chat."""
_PROVIDERS = {"gemini": "gcp.gemini"}
"""What OpenTelemetry calls the vendors that we call otherwise."""
_NANOSECONDS = 1e9


def tracing(env: Mapping[str, str]) -> Tracing | None:
    """Tracing to where the standard variables of `env` lead; None, and nothing is imported, where they say nowhere.

    Raises:
        ConfigError: the extra is not installed.
    """
    if not any(env.get(name) for name in WHERE) or env.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(
            "The environment asks for OpenTelemetry, and its libraries are not installed.",
            "Install them with: pip install 'corral[otel]', or unset OTEL_EXPORTER_OTLP_ENDPOINT.",
        ) from error
    named = "service.name=" in env.get("OTEL_RESOURCE_ATTRIBUTES", "") or env.get("OTEL_SERVICE_NAME")
    provider = TracerProvider(
        resource=Resource.create({} if named else {"service.name": "corral"}), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


class Tracing:
    """Makes spans of answers.

    Args:
        provider: where spans go; shut down by `close`.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("corral", __version__)
        self._server, self._client = SpanKind.SERVER, SpanKind.CLIENT
        self._extract = TraceContextTextMapPropagator().extract
        self._below = set_span_in_context
        self._failed = Status(StatusCode.ERROR)

    def record(self, record: Record) -> None:
        """Make the spans of an answer that has ended; they are sent by a thread of the SDK."""
        parent = self._extract({"traceparent": record.trace}) if record.trace else None
        operation = _OPERATIONS.get(record.dialect, "chat")
        span = self._tracer.start_span(
            f"{operation} {record.model}".rstrip(),
            parent,
            self._server,
            {"gen_ai.operation.name": operation, **_facts(record)},
            start_time=_wall(record, record.started),
        )
        if record.error is not None:
            span.set_status(self._failed)
        self._calls(record, self._below(span))
        span.end(_wall(record, record.ended))

    def close(self) -> None:
        """Send what has not been sent, for as long as the SDK's variables allow. Blocks meanwhile."""
        self._provider.shutdown()

    def _calls(self, record: Record, below: Any) -> None:
        """A span for each call: the last where it was, those before it one after the other up to there."""
        tries = receipt(record).tries
        start = (record.sent or record.started) - sum(each.seconds for each in tries[:-1])
        for each in tries:
            facts = {
                "gen_ai.provider.name": _provider(each.runtime),
                "gen_ai.request.model": each.model,
                "corral.engine": each.engine,
                "corral.billed": each.billed,
                "http.response.status_code": each.status,
                "error.type": each.error,
            }
            span = self._tracer.start_span(
                f"call {each.model}", below, self._client, _known(facts), start_time=_wall(record, start)
            )
            if each.error is not None:
                span.set_status(self._failed)
            start += each.seconds
            span.end(_wall(record, start))


def _wall(record: Record, moment: float) -> int:
    """A moment of the performance counter in Unix nanoseconds."""
    return round(record.at * _NANOSECONDS) + round((moment - record.started) * _NANOSECONDS)


def _provider(runtime: str) -> str | None:
    return _PROVIDERS.get(runtime, runtime) or None


def _facts(record: Record) -> dict[str, Any]:
    used, spent = record.usage, record.spent
    facts: dict[str, Any] = {
        "gen_ai.provider.name": _provider(record.runtime),
        "gen_ai.request.model": record.asked or None,
        "gen_ai.response.model": record.model or None,
        "gen_ai.request.stream": record.stream or None,
        "gen_ai.response.finish_reasons": None if record.stop is None else (record.stop,),
        "error.type": record.error,
        "http.response.status_code": record.status or None,
        "corral.request_id": record.request_id,
        "corral.key": record.caller.id,
        "corral.project": record.project or None,
        "corral.revision": record.revision,
        "corral.wait_ms": record.wait_ms or None,
        "corral.cost_usd": None if spent is None else spent / NANO,
    }
    if record.stream and record.first:
        facts["gen_ai.response.time_to_first_chunk"] = record.first - record.started
    if used is not None:
        facts |= {
            "gen_ai.usage.input_tokens": used.input,
            "gen_ai.usage.output_tokens": used.output,
            "gen_ai.usage.cache_read.input_tokens": used.cached or None,
            "gen_ai.usage.cache_creation.input_tokens": used.cache_write or None,
            "gen_ai.usage.reasoning.output_tokens": used.reasoning or None,
        }
    return _known(facts)


def _known(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}
