"""From llama-swap to Corral: its configuration is imported, and what it describes answers, one model at a time."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from tests.support.commands import Yard

SERVER = """
import http.server, json, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        asked = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or "{}")
        said = {"role": "assistant", "content": f"{sys.argv[2]} got {sorted(asked)} for {asked.get('model')}"}
        streamed = asked.get("stream", False)
        choice = {"index": 0, "delta" if streamed else "message": said, "finish_reason": "stop"}
        body = json.dumps({"object": "chat.completion.chunk", "choices": [choice]}).encode()
        if streamed:
            body = b"data: " + body + b"\\n\\ndata: [DONE]\\n\\n"
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if streamed else "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST = answer
    def log_message(self, *_): pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
CONFIG = """
healthCheckTimeout: 60
macros:
  server: "${{env.PYTHON_HERE}} {script} ${{PORT}}"
models:
  first:
    cmd: |
      # what llama-swap would start
      ${{server}} \\
      "the first"
    useModelName: upstream/first
    filters: {{ stripParams: "temperature" }}
    aliases: [alias]
  second: {{ cmd: "${{server}} second", ttl: 60 }}
"""


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    home = tmp_path / "home"
    home.mkdir()
    (home / "server.py").write_text(SERVER)
    (home / "config.yaml").write_text(CONFIG.format(script=home / "server.py"))
    return Yard(home, {"PYTHON_HERE": sys.executable})


def running(home: Path) -> list[str]:
    """The last word of every server of the test that lives."""
    found = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
        except psutil.Error:
            continue
        if str(home / "server.py") in line:
            found.append(line[-1])
    return found


def test_what_llama_swap_ran_runs(yard: Yard) -> None:
    shown = yard.run("import", "llama-swap", "config.yaml", "--yes").stdout
    assert "+ first  command" in shown
    assert "+ group llama-swap: first, second" in shown
    assert yard.run("list", "-q").stdout.split() == ["first", "second"]
    again = yard.json("import", "llama-swap", "config.yaml")
    assert (again["models"], again["configured"]) == ({}, ["first", "second"])

    with yard.serving():
        said = yard.run("run", "alias", "--set", "temperature=0.5", "hi").stdout
        assert said.startswith("the first got ")
        assert "for upstream/first" in said
        assert "temperature" not in said
        assert yard.run("run", "second", "hi").stdout.startswith("second got ")
        assert running(yard.home) == ["second"], "the group lets one of them be in memory"
    assert running(yard.home) == []


@pytest.mark.parametrize("arguments", [["llama-swap"], ["llama-swap", "nowhere.yaml"], ["x.json", "config.yaml"]])
def test_what_cannot_be_imported(yard: Yard, arguments: list[str]) -> None:
    done = yard.run("import", *arguments, code=2)
    assert done.stderr.startswith("error: ")
