"""Spans: one for the answer, one below it for each call, in OpenTelemetry's words; none where none are asked for."""

import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from corral.dialects import form
from corral.domain.money import Usage
from corral.domain.receipts import Attempt
from corral.observability.tracing import _OPERATIONS, Tracing, tracing
from support.records import AT, answered


@pytest.fixture
def spans():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    made = Tracing(provider)

    def record(*records):
        for each in records:
            made.record(each)
        return exporter.get_finished_spans()

    yield record
    made.close()


def test_an_answer_is_a_span_with_the_call_below_it(spans):
    used = Usage(100, 20, cached=30, reasoning=5)

    call, answer = spans(answered(stream=True, usage=used))

    assert (answer.name, answer.kind, answer.parent) == ("chat smollm2", SpanKind.SERVER, None)
    assert call.parent.span_id == answer.context.span_id
    assert (call.name, call.kind) == ("call smollm2", SpanKind.CLIENT)
    facts = dict(answer.attributes)
    assert facts.pop("gen_ai.response.time_to_first_chunk") == pytest.approx(0.01)
    assert facts == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "llamacpp",
        "gen_ai.request.model": "smollm2",
        "gen_ai.response.model": "smollm2",
        "gen_ai.request.stream": True,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 30,
        "gen_ai.usage.reasoning.output_tokens": 5,
        "http.response.status_code": 200,
        "corral.request_id": "req-1",
        "corral.key": "key-ada",
        "corral.project": "atlas",
        "corral.revision": "rev-1",
        "corral.cost_usd": pytest.approx(5e-6),
    }
    assert not any(name.startswith("gen_ai.usage") for name in call.attributes)  # it would be counted twice


def test_times_are_those_of_the_answer(spans):
    call, answer = spans(answered())

    assert answer.start_time == AT * 1e9
    assert (answer.end_time - answer.start_time) / 1e6 == pytest.approx(50)
    assert (call.start_time - answer.start_time) / 1e6 == pytest.approx(1)
    assert call.end_time == answer.end_time


def test_calls_before_it_come_before_it(spans):
    failed = Attempt("big", "gemini", None, "upstream_busy", "No room.", 503, None, 0, 0.3)

    first, second, answer = spans(answered(sent=10.4, ended=10.5, attempts=(failed,)))

    assert (first.name, second.name) == ("call big", "call smollm2")
    assert first.attributes["gen_ai.provider.name"] == "gcp.gemini"
    assert first.attributes["error.type"] == "upstream_busy"
    assert first.status.status_code is StatusCode.ERROR
    assert first.end_time == second.start_time
    assert first.start_time >= answer.start_time
    assert answer.status.status_code is StatusCode.UNSET


def test_an_error_before_any_call(spans):
    (answer,) = spans(answered(model="", runtime="", engine=None, error="model_not_found", status=404, usage=None))

    assert answer.name == "chat"
    assert answer.attributes["error.type"] == "model_not_found"
    assert answer.status.status_code is StatusCode.ERROR


def test_the_trace_of_a_client_is_continued(spans):
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

    call, answer = spans(answered(trace=f"00-{trace}-{parent}-01"))

    assert f"{answer.context.trace_id:032x}" == f"{call.context.trace_id:032x}" == trace
    assert f"{answer.parent.span_id:016x}" == parent


@pytest.mark.parametrize("trace", ["", "nonsense", "00-zz-yy-01", "\0" * 500])
def test_what_is_no_trace_begins_a_new_one(spans, trace):
    assert spans(answered(trace=trace))[1].parent is None


def test_every_form_that_is_named_exists():
    assert set(_OPERATIONS) <= set(form.names())


@pytest.mark.parametrize(
    "env", [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "True"}]
)
def test_without_being_asked_for_there_is_none(env):
    assert tracing(env) is None


def test_with_an_address_there_is_one():
    made = tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})

    assert isinstance(made, Tracing)
    made.close()


def test_nothing_is_imported_while_nobody_asks():
    script = (
        "import sys; from corral.observability.tracing import tracing; tracing({});"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )

    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
