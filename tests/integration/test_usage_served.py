"""A server writes down what it answered: a receipt at once, sums and metrics, also after it was stopped."""

import json
import sqlite3
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prometheus_client.parser import text_string_to_metric_families

from corral.observability.record import restored
from support.servers import corral_server

CONFIG = """\
usage: {write_every: 100ms}
models:
  echo: {runtime: fake}
prices:
  echo: {input: 1, output: 2}
"""


def ask(server, path, body=None):
    request = urllib.request.Request(
        server.url + path, None if body is None else json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.headers, answer.read()


def chat(server, *, stream):
    body = {"model": "echo", "messages": [{"role": "user", "content": "Hello there"}], "stream": stream}
    headers, _ = ask(server, "/v1/chat/completions", body)
    return headers["x-request-id"]


def test_what_was_answered_is_written_down(tmp_path):
    with corral_server(tmp_path, CONFIG) as server:
        names = [chat(server, stream=number % 2 == 1) for number in range(6)]
        receipts = [json.loads(ask(server, f"/api/v1/receipts/{name}")[1])["receipt"] for name in names]
        deadline = time.monotonic() + 30
        while (found := json.loads(ask(server, "/api/v1/usage?from=1d")[1]))["total"] is None or (
            found["total"]["requests"] < 6
        ):
            assert time.monotonic() < deadline
        text = ask(server, "/metrics")[1].decode()

    for receipt in receipts:
        assert receipt["model"] == receipt["asked"] == "echo"
        assert receipt["usage"]["output"] > 0
        assert receipt["cost_nano"] == receipt["usage"]["input"] * 1000 + receipt["usage"]["output"] * 2000
        assert receipt["total_ms"] >= receipt["first_ms"] > 0
    assert found["total"]["cost_nano"] == sum(receipt["cost_nano"] for receipt in receipts)
    counted = {
        sample.labels["outcome"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "corral_requests_total"
    }
    assert counted == {"ok": 6}
    with sqlite3.connect(server.home / "corral.db") as database:
        database.row_factory = sqlite3.Row
        kept = [restored(dict(row)) for row in database.execute("SELECT * FROM usage ORDER BY number")]
    database.close()
    assert {each["request_id"]: each for each in kept} == dict(zip(names, receipts, strict=True))


def test_who_is_turned_away_at_the_door_is_counted(tmp_path):
    with corral_server(tmp_path, CONFIG) as server:
        for headers in ({"authorization": "Bearer ck-wrong"}, {"x-api-key": "ck-wrong"}, {"host": "evil.example"}):
            request = urllib.request.Request(server.url + "/v1/models", headers=headers)
            with pytest.raises(urllib.error.HTTPError):
                urllib.request.urlopen(request, timeout=30)
        text = ask(server, "/metrics")[1].decode()

    assert 'corral_refused_total{code="unauthorized"} 2.0' in text
    assert 'corral_refused_total{code="host_refused"} 1.0' in text


class Collector(ThreadingHTTPServer):
    """Takes spans, and keeps what it was sent."""

    def __init__(self):
        self.sent = []
        super().__init__(("127.0.0.1", 0), Taking)


class Taking(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.sent.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_spans_and_lines_are_sent_where_they_are_asked_for(tmp_path):
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        env = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
            "CORRAL_LOG_FORMAT": "json",
            "CORRAL_LOG_REQUESTS": "on",
        }
        try:
            with corral_server(tmp_path, CONFIG, env=env) as server:
                name = chat(server, stream=False)
        finally:
            collector.shutdown()
            thread.join()

    assert {path for path, _ in collector.sent} == {"/v1/traces"}
    spans = b"".join(body for _, body in collector.sent)  # in one piece, unless their time came between two of them
    assert all(word in spans for word in (b"chat echo", b"call echo", b"gen_ai.usage.output_tokens", name.encode()))
    lines = [json.loads(line) for line in (tmp_path / "server.log").read_text().splitlines()]
    (line,) = [line for line in lines if line.get("request_id") == name]
    assert (line["model"], line["status"], line["caller"]) == ("echo", 200, "local")
    assert "Hello there" not in json.dumps(lines)


def test_what_was_answered_last_is_written_when_the_server_stops(tmp_path):
    with corral_server(tmp_path, CONFIG.replace("100ms", "1h")) as server:
        name = chat(server, stream=False)

    with sqlite3.connect(server.home / "corral.db") as database:
        rows = database.execute("SELECT request_id FROM usage").fetchall()
        sums = database.execute("SELECT requests FROM usage_days").fetchall()
    database.close()
    assert (rows, sums) == ([(name,)], [(1,)])
