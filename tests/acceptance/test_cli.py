"""The commands, as people run them: the installed console script, in a home of its own."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from corral import __version__
from tests.support import models
from tests.support.commands import CORRAL, Yard
from tests.support.ports import free_port

CONFIG = """\
models:
  parrot: { runtime: fake }
  poet: { runtime: fake, options: { reply: "Roses are \\e[31mred\\a." } }
  broken: { runtime: fake, options: { fault: crash, fault_after: 2, reply: "one two three four" } }
  lame: { runtime: fake, options: { fault: crash_on_start } }
  held: { runtime: fake, options: { hold_after: 1, reply: "one two three" } }
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Yard, str]]:
    yard = Yard(tmp_path_factory.mktemp("served"))
    yard.configure(CONFIG)
    with yard.serving() as url:
        yield yard, url


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    """A home with fake models and no server."""
    yard = Yard(tmp_path / "home")
    yard.configure(CONFIG)
    return yard


@pytest.mark.parametrize("arguments", [["--version"], ["-V"], ["--quiet", "--version"]])
def test_version(yard: Yard, arguments: list[str]) -> None:
    assert yard.run(*arguments).stdout == f"corral {__version__}\n"


def test_version_as_json_and_as_a_module(yard: Yard) -> None:
    assert yard.json("--version") == {"version": __version__}
    done = subprocess.run(
        [sys.executable, "-m", "corral", "-V"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == f"corral {__version__}\n"


def test_help_is_what_one_gets_without_a_command(yard: Yard) -> None:
    assert "serve" in yard.run().stdout
    assert yard.run("--help").stdout == yard.run().stdout
    assert "--yes" in yard.run("rm", "-h").stdout
    assert yard.run("unknown", "--help", code=2).stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lst"], "error: No such command 'lst'. Did you mean 'list', 'ls'?\nhint: See: corral --help\n"),
        (["pull"], "error: Missing argument 'WHAT...'.\nhint: See: corral pull --help\n"),
        (
            ["ps", "--url", "nonsense"],
            "error: 'nonsense' is not an address.\nhint: Write it as http://HOST:PORT/PATH.\n",
        ),
        (["run", "parrot", "--set", "seed", "hi"], "error: --set seed has no value.\n"),
        (["run", "parrot"], "error: The prompt is empty.\n"),
        (["config", "--config", "/nowhere"], "error: There is no configuration file /nowhere.\n"),
        (["serve", "--port", "70000"], "error: server.port is 70000"),
    ],
)
def test_what_cannot_be_understood(yard: Yard, arguments: list[str], message: str) -> None:
    done = yard.run(*arguments, code=2)

    assert done.stdout == ""
    assert done.stderr.startswith(message)


def test_json_and_quiet_exclude_each_other(yard: Yard) -> None:
    assert "exclude each other" in yard.run("--json", "list", "--quiet", code=2).stderr


def test_errors_as_json_before_and_after_the_command(yard: Yard) -> None:
    before, after = yard.run("--json", "show", "nobody", code=3), yard.run("show", "nobody", "--json", code=3)

    assert before.stdout == after.stdout == ""
    assert json.loads(before.stderr) == json.loads(after.stderr)
    assert json.loads(before.stderr)["error"]["code"] == "model_not_found"
    assert json.loads(yard.run("pull", "--json", code=2).stderr)["error"]["code"] == "invalid_request"


@pytest.mark.parametrize(
    "arguments",
    [["ps"], ["load", "parrot"], ["unload", "parrot"], ["logs", "parrot"], ["explain", "parrot"], ["events"]],
)
def test_without_a_server_the_command_to_type_is_named(yard: Yard, arguments: list[str]) -> None:
    assert "hint: Start one in another terminal: corral serve" in yard.run(*arguments, code=4).stderr


def test_a_server_that_is_gone(yard: Yard) -> None:
    with socket.socket() as taken:  # bound and not listening: nobody answers there
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for arguments in (["list"], ["ps"], ["show", "parrot"], ["run", "parrot", "hi"]):
            assert f"No Corral server answers at {url}" in yard.run(*arguments, "--url", url, code=4).stderr


@pytest.mark.parametrize("arguments", [["import", "ollama"], ["override", "parrot"], ["serve"]])
def test_what_works_on_this_machine_refuses_another(yard: Yard, arguments: list[str]) -> None:
    assert "on this machine's models" in yard.run(*arguments, "--url", "http://127.0.0.1:1", code=2).stderr


def test_list_and_show_without_a_server(yard: Yard) -> None:
    assert yard.run("ls", "-q").stdout.split() == ["broken", "held", "lame", "parrot", "poet"]
    listed = yard.json("list")
    assert listed["count"] == 5
    assert listed["models"][3] == {
        "name": "parrot", "runtime": "fake", "size": None, "format": None, "capabilities": None, "source": None,
        "revision": None, "installed_at": None, "pinned": None, "folder": None, "state": None, "problem": None,
    }  # fmt: skip
    shown = yard.json("show", "held")
    assert shown["options"]["hold_after"] == 1
    assert shown["options_given"] == ["hold_after", "reply"]
    assert "hold_after  1" in yard.run("show", "held").stdout


def test_an_empty_yard_says_what_to_do(tmp_path: Path) -> None:
    done = Yard(tmp_path).run("list")

    assert done.stdout == "No model is installed.\n"
    assert "corral pull smollm2" in done.stderr


def test_a_damaged_record_is_shown_and_can_be_removed(yard: Yard) -> None:
    (yard.home / "tiny.gguf").write_bytes(models.gguf(seed=1))
    yard.run("pull", "file:./tiny.gguf", "--name", "A:tiny")
    manifest = next((yard.home / "models" / "manifests").iterdir())
    manifest.write_text("garbage")

    listed = {model["name"]: model for model in yard.json("list")["models"]}
    assert "damaged" in listed["A:tiny"]["problem"]
    assert "is damaged" in yard.run("list").stdout
    assert "--yes" in yard.run("rm", "A:tiny", code=2).stderr
    assert yard.run("rm", "A:tiny", "--yes").stdout.startswith("A:tiny is removed")
    assert not manifest.exists()
    yard.run("rm", "A:tiny", "--yes", code=3)


def test_a_pipe_that_closes_is_no_drama(yard: Yard) -> None:
    done = subprocess.run(
        f"{shlex.quote(CORRAL)} config | true; {shlex.quote(CORRAL)} list | head -1",
        shell=True,
        env=yard.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout.startswith("NAME")
    assert done.stderr in ("", f"File: {yard.home}/corral.yaml\n")


def test_a_reader_that_is_gone_is_quiet(yard: Yard) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [CORRAL, "list"], env=yard.env, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    os.close(writer)

    assert (done.returncode, done.stderr) == (141, "")


def test_an_unexpected_error_is_two_lines_and_a_traceback_on_request(yard: Yard) -> None:
    code = "import sys\nfrom corral.cli.app import run\nrun(sys.argv[1:])\nprint(1 / 0)"

    def fail(*arguments: str) -> str:
        command = [sys.executable, "-c", code, "config", "path", *arguments]
        done = subprocess.run(command, env=yard.env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        return done.stderr

    assert fail().startswith("error: Unexpected ZeroDivisionError: division by zero (<string>:4). This is a fault of")
    assert "hint: Run it again with --debug" in fail()
    assert "Traceback" not in fail()
    assert json.loads(fail("--json"))["error"]["code"] == "error"
    assert fail("--debug").startswith("Traceback")


def test_config_says_where_values_come_from(yard: Yard) -> None:
    values = {row["key"]: row for row in yard.json("config")["values"]}

    assert values["home"]["origin"] == "environment CORRAL_HOME"
    assert values["models.held.options"]["origin"].startswith(f"{yard.home}/corral.yaml:")
    assert values["upstream.total_timeout"]["value"] == "never"
    assert yard.json("config", "path")["file"] == f"{yard.home}/corral.yaml"
    assert yard.json("--config", "corral.yaml", "config", "path")["file"] == f"{yard.home}/corral.yaml"
    assert "server.port" in yard.run("config").stdout


def test_config_of_an_empty_yard(tmp_path: Path) -> None:
    yard = Yard(tmp_path)

    assert "The first of these" in yard.run("config", "path").stdout
    assert yard.json("config")["file"] is None
    assert "server.port=7860\n" in yard.run("config", "-q").stdout


def test_warnings_of_the_environment(yard: Yard) -> None:
    odd = Yard(yard.home, {"CORRAL_SERVER_PROT": "1"})

    assert "warning: Unknown option 'CORRAL_SERVER_PROT'" in odd.run("list").stderr
    assert "'CORRAL_SERVER_PROT'" in json.loads(odd.run("list", "--json").stderr)["warning"]["message"]
    assert "warning" not in odd.run("list", "-q").stderr


def test_run_without_a_server(yard: Yard) -> None:
    assert yard.run("run", "parrot", "Hello there").stdout == "Hello there\n"
    assert yard.run("run", "parrot", "-q", typed="From a pipe\n").stdout == "From a pipe\n"
    assert yard.run("run", "parrot", "Sum it up.", typed="Much text").stdout == "Much text\n\nSum it up.\n"
    assert yard.run("run", "poet", "Sing").stdout == "Roses are [31mred.\n"
    answer = yard.json("run", "parrot", "one two three", "--set", "max_tokens=2")
    assert answer["text"].split() == ["one", "two"]
    assert (answer["finish_reason"], answer["completion_tokens"]) == ("length", 2)


def test_run_of_what_cannot_run(yard: Yard) -> None:
    assert "nobody" in yard.run("run", "nobody", "hi", code=3).stderr
    assert "error: " in yard.run("run", "lame", "hi", code=1).stderr
    done = yard.run("run", "broken", "hi", code=1)
    assert done.stdout.startswith("one two")
    assert done.stdout.endswith("\n")


def test_a_chat_needs_a_terminal_to_answer_on(yard: Yard) -> None:
    import pty

    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [CORRAL, "run", "parrot"],
            env=yard.env,
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        with_json = subprocess.run(
            [CORRAL, "run", "parrot", "--json"],
            env=yard.env,
            stdin=theirs,
            capture_output=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)

    assert done.returncode == with_json.returncode == 2
    assert "A chat needs a terminal." in done.stderr


def test_doctor_of_a_machine_that_is_well(yard: Yard) -> None:
    well = Yard(yard.home, {"CORRAL_SERVER_PORT": str(free_port())})
    found = well.json("doctor")

    assert found["ok"] is True
    names = [check["name"] for check in found["checks"]]
    assert {
        "python",
        "platform",
        "memory",
        "config",
        "home",
        "disk",
        "store",
        "server",
        "gpu",
        "fake",
        "llamacpp",
    } <= set(names)
    assert well.run("doctor").stdout.splitlines()[0].startswith("ok   python")


def test_doctor_names_what_is_wrong_and_what_mends_it(yard: Yard) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = Yard(yard.home, {"CORRAL_SERVER_PORT": port}).run("doctor", code=1)

    assert f"127.0.0.1:{port}: address already in use" in done.stdout
    assert f"corral serve --port {int(port) + 1}" in done.stdout
    assert "1 to mend" in done.stdout


def test_doctor_goes_on_where_the_store_cannot_be_read(yard: Yard) -> None:
    (yard.home / "models").mkdir()
    (yard.home / "models" / "names").symlink_to("names")  # which even root cannot follow
    found = json.loads(yard.run("doctor", "--json", code=1).stdout)
    verdicts = {check["name"]: check["verdict"] for check in found["checks"]}

    assert verdicts["store"] == "fail"
    assert {"fake", "llamacpp"} <= set(verdicts)


def test_doctor_of_a_broken_configuration(yard: Yard) -> None:
    yard.configure("server: { prot: 1 }")
    found = json.loads(yard.run("doctor", "--json", code=1).stdout)

    assert found["ok"] is False
    assert found["checks"][-1]["name"] == "config"
    assert "server.port" in found["checks"][-1]["fix"]


def test_completion_offers_model_names(yard: Yard) -> None:
    env = {"_CORRAL_COMPLETE": "complete_bash", "COMP_WORDS": "corral show pa", "COMP_CWORD": "2"}

    assert Yard(yard.home, env).run(code=None).stdout.split() == ["parrot"]
    env["COMP_WORDS"] = "corral pull smo"
    assert "smollm2" in Yard(yard.home, env).run(code=None).stdout.split()


# With a server.


def test_the_life_of_a_model(served: tuple[Yard, str]) -> None:
    yard, url = served
    loaded = yard.json("load", "poet")
    assert (loaded["state"], loaded["runtime"]) == ("ready", "fake")
    assert yard.run("ps", "-q").stdout.split() == ["poet"]
    state = yard.json("ps")
    assert state["server"]["url"] == url
    assert state["models"][0]["engine"] == loaded["engine"]
    table = yard.run("ps").stdout
    assert re.search(r"^poet +ready +fake-\d+ .* 0/16 +\d\d:\d\d \(", table, re.MULTILINE), table
    assert {m["name"]: m["state"] for m in yard.json("list")["models"]}["poet"] == "ready"
    assert yard.json("show", "poet")["state"] == "ready"
    assert yard.json("logs", "poet")["model"] == "poet"
    assert yard.run("stop", "poet").stdout == "poet is no longer in memory.\n"
    assert yard.run("ps").stdout.startswith("No model is in memory")
    assert "listening" in yard.run("logs", "poet").stdout


def test_a_model_is_loaded_for_so_long_or_if_there_is_room(served: tuple[Yard, str]) -> None:
    yard, _ = served
    assert 3500 < yard.json("load", "poet", "--keep-alive", "1h")["idle_left"] <= 3600
    assert yard.json("load", "poet", "--keep-alive", "never")["until"] is None
    assert "10m" in yard.run("load", "poet", "--keep-alive", "long", code=2).stderr
    assert yard.json("ps")["models"][0]["footprint"]["cpu"] > 0
    yard.run("unload", "poet")
    assert "if there is room" in yard.run("load", "poet", "--prefetch").stdout
    assert yard.json("load", "poet")["state"] == "ready"
    yard.run("unload", "poet")


def test_why_a_model_is_or_is_not_in_memory_is_told(served: tuple[Yard, str]) -> None:
    yard, _ = served
    told = yard.json("explain", "poet")
    assert told["model"] == "poet"
    assert told["verdict"] == "loads"
    assert told["reason"]
    yard.run("load", "parrot")
    story = yard.run("explain", "poet").stdout
    assert story.startswith("poet: loads\n")
    assert re.search(r"^  It takes [\d.]+ MB of cpu \(\w+\); .* free of the ", story, re.MULTILINE), story
    assert re.search(r"^parrot +ready +(no|could) ", story, re.MULTILINE), story
    assert yard.run("explain", "parrot", "-q").stdout == "answers now\n"
    assert "nobody" in yard.run("explain", "nobody", code=3).stderr
    yard.run("unload", "parrot")


def test_what_happens_is_told_as_it_happens(served: tuple[Yard, str]) -> None:
    yard, _ = served
    with subprocess.Popen(
        [CORRAL, "events", "--json"], env=yard.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as following:
        assert following.stdout is not None
        assert json.loads(following.stdout.readline())["type"] == "snapshot"
        yard.run("load", "poet")
        told = [json.loads(following.stdout.readline())]
        while told[-1].get("state") != "ready":
            told.append(json.loads(following.stdout.readline()))
        following.send_signal(signal.SIGINT)
        assert following.wait(60) == 130
    assert {"transition", "decision"} <= {event["type"] for event in told}
    yard.run("unload", "poet")


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_the_base_url_of_clients_is_an_address_too(served: tuple[Yard, str], tmp_path: Path, end: str) -> None:
    _, url = served
    assert "parrot" in Yard(tmp_path).run("--url", url + end, "list", "--quiet").stdout.split()


def test_a_name_that_nobody_has_leaves_no_trace(served: tuple[Yard, str]) -> None:
    yard, _ = served
    assert "nobody" in yard.run("load", "nobody", code=3).stderr
    assert "nobody" in yard.run("run", "nobody", "hi", code=3).stderr
    assert "nobody" not in [m["name"] for m in yard.json("ps")["models"]]


def test_a_model_that_cannot_load_says_why(served: tuple[Yard, str]) -> None:
    yard, _ = served
    assert "error: " in yard.run("load", "lame", code=1).stderr
    assert "lame: " in yard.run("ps").stdout
    assert yard.run("ps", "-q").stdout.split() == []


def test_run_asks_the_server_and_leaves_the_model_there(served: tuple[Yard, str]) -> None:
    yard, url = served
    assert yard.run("run", "parrot", "Hello there").stdout == "Hello there\n"
    assert "parrot" in yard.run("ps", "-q").stdout.split()
    elsewhere = Yard(yard.home / "elsewhere", {"CORRAL_URL": url})
    elsewhere.configure("{}")
    assert elsewhere.run("run", "parrot", "From afar").stdout == "From afar\n"
    assert "parrot" in elsewhere.run("list", "-q").stdout.split()
    assert elsewhere.json("show", "parrot")["runtime"] == "fake"
    assert "(runtime fake)" in elsewhere.run("list").stdout
    yard.run("unload", "parrot")


def test_an_engine_that_dies_in_mid_answer(served: tuple[Yard, str]) -> None:
    yard, _ = served
    done = yard.run("run", "broken", "hi", code=1)

    assert done.stdout.startswith("one two")
    assert done.stderr.startswith("error: ")


def test_ctrl_c_ends_an_answer_and_frees_the_engine(served: tuple[Yard, str]) -> None:
    yard, _ = served
    with subprocess.Popen([CORRAL, "run", "held", "hi"], env=yard.env, stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout is not None
        assert asking.stdout.read(3) == "one"
        asking.send_signal(signal.SIGINT)
        assert asking.wait(60) == 130
    assert yard.json("unload", "held", "--drain", "60")["state"] == "cold"


def test_a_busy_model_is_left_alone(served: tuple[Yard, str]) -> None:
    yard, _ = served
    with subprocess.Popen([CORRAL, "run", "held", "hi"], env=yard.env, stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout is not None
        assert asking.stdout.read(3) == "one"
        assert "--force" in yard.run("unload", "held", "--drain", "0", code=5).stderr
        assert yard.run("unload", "held", "--force", "--drain", "0").stdout == "held is no longer in memory.\n"
        assert asking.wait(60) == 1


def test_a_second_server_is_refused(served: tuple[Yard, str]) -> None:
    yard, url = served

    assert url in yard.run("serve", "--port", "0", code=5).stderr


def test_doctor_finds_the_server(served: tuple[Yard, str]) -> None:
    yard, url = served
    checks = {check["name"]: check for check in yard.json("doctor")["checks"]}

    assert f"runs at {url}" in checks["server"]["detail"]


class Stranger(BaseHTTPRequestHandler):
    """Something else that answers HTTP, in ways that a Corral never would."""

    bodies: ClassVar = {
        "/text": b"Welcome!",
        "/list": b"[]",
        "/empty": b"{}",
        "/words": b'{"error": "No such page."}',
        "/short": b'{"models":',
        "/stream": b'data: {"choices": []}\n\ndata: {"error": {"code": "engine_died", "message": "Gone."}}\n\n',
    }

    def do_GET(self) -> None:
        kind = "/" + self.path.split("/", 2)[1]
        body = self.bodies[kind]
        self.send_response(500 if kind == "/words" else 200)
        self.send_header("Content-Length", str(len(body) + (kind == "/short")))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def stranger() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "arguments", "code", "message"),
    [
        ("text", ["ps"], 4, "is not a Corral server."),
        ("list", ["ps"], 4, "is not a Corral server."),
        ("empty", ["show", "m"], 4, "is not a Corral server."),
        ("words", ["load", "m"], 1, "No such page."),
        ("short", ["list"], 4, "went away"),
        ("stream", ["run", "m", "hi"], 1, "Gone."),
        ("short", ["run", "m", "hi"], 1, "broke off"),
    ],
)
def test_what_is_no_corral(yard: Yard, stranger: str, path: str, arguments: list[str], code: int, message: str) -> None:
    assert message in yard.run(*arguments, "--url", f"{stranger}/{path}", code=code).stderr


def test_what_serve_prints_can_be_typed(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    yard.configure("models: { parrot: { runtime: fake } }")
    with subprocess.Popen(
        [CORRAL, "serve", "--port", "0"], env=yard.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        printed = ""
        while "Ctrl-C stops." not in printed:
            line = server.stdout.readline()
            assert line, printed
            printed += line
        try:
            url = re.search(r"serves at (http://127\.0\.0\.1:\d+)\n", printed)[1]
            with urllib.request.urlopen(f"{url}/health", timeout=30) as answer:
                assert answer.status == 200
            curl, python = (line.strip() for line in printed.splitlines() if line.startswith("  "))
            done = subprocess.run(curl, shell=True, capture_output=True, text=True, timeout=60, check=True)
            assert json.loads(done.stdout)["choices"][0]["message"]["content"]
            python = python.replace("python", shlex.quote(sys.executable), 1)
            done = subprocess.run(python, shell=True, capture_output=True, text=True, timeout=60, check=True)
            assert done.stdout.strip()
        finally:
            server.send_signal(signal.SIGINT)
            assert server.wait(60) == 0


def test_a_key_is_asked_for_and_given(tmp_path: Path) -> None:
    keyed = Yard(tmp_path, {"CORRAL_API_KEY": "a-key-of-some-length"})
    keyed.configure(CONFIG)
    with keyed.serving() as url:
        assert keyed.run("run", "parrot", "hi").stdout == "hi\n"
        Yard(tmp_path).run("ps")  # the terminal of the server's own home needs none
        done = Yard(tmp_path).run("ps", "--json", "--url", url, code=1)
        assert json.loads(done.stderr)["error"]["code"] == "unauthorized"
        wrong = Yard(tmp_path, {"CORRAL_API_KEY": "another"}).run("run", "parrot", "hi", code=1)
        assert wrong.stderr.startswith("error: ")
