"""Programs under guard: how they start, how they lie, and that nothing of them is ever left."""

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from corral.errors import EngineStartFailed, EngineTimeout
from corral.kit import program
from corral.kit.program import Program
from tests.support.servers import ended

PATIENCE = 90.0
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and a child subreaper")

# What every program under test begins with: `serve` answers 200 at /health and 404 elsewhere, `tell` writes a file.
PRELUDE = """
import http.server, os, signal, socket, subprocess, sys, threading
port = int(sys.argv[1])

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/crash":
            os._exit(9)
        status = 200 if self.path == "/health" else 404
        body = (self.headers.get("x-key") or "well").encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass

def serve(port=port):
    server = http.server.HTTPServer(("127.0.0.1", port), Handler)
    server.serve_forever(0.01)

def tell(word):
    with open("told", "a") as out:
        out.write(f"{word}\\n")

def daemon(then):
    "Leave as a daemon does: two forks and a session of its own; the process that is left runs `then`."
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            tell(os.getpid())
            then()
        os._exit(0)
    os.wait()
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path


@pytest.fixture
def made(folder):
    """A program of the given lines."""

    def make(body="serve()", **more):
        path = folder / "program_under_test.py"
        path.write_text(PRELUDE + textwrap.dedent(body))
        argv = (sys.executable, "-P", "-B", str(path), "{port}")
        return Program("The program", argv, {**os.environ, **more.pop("env", {})}, cwd=folder, **more)

    return make


def gone(pid: int) -> bool:
    """Wait, bounded, until the process has ended; whether anybody has collected it does not matter."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], PATIENCE)[0])
    finally:
        os.close(descriptor)


def told(folder) -> list[int]:
    return [int(word) for word in (folder / "told").read_text().split()]


def left(folder) -> list[psutil.Process]:
    """What runs in the folder of the program: wherever it went, it was started there."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def nothing_left(folder) -> bool:
    return not left(folder)


def fetched(address: str, path: str = "/health") -> bytes:
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as wire:
        wire.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        return b"".join(iter(lambda: wire.recv(65536), b""))


# It starts, answers and stops


async def test_a_program_answers_at_its_address_and_stops_when_asked(made, folder):
    child = await program.start(made(), PATIENCE)
    assert b" 200 " in fetched(child.facts["address"])
    assert len(child.family()) == 2
    await child.stop(PATIENCE)
    assert await child.ended() == "was stopped"
    assert nothing_left(folder)


async def test_neither_environment_nor_headers_show_in_a_listing(made):
    what = made(env={"SECRET_OF_IT": "hush-hush"}, headers={"X-Key": "hush-hush"}, expect="hush-hush")
    assert "hush" not in repr(what).replace("expect='hush-hush'", "")
    child = await program.start(what, PATIENCE)
    guard = psutil.Process(child.pid)
    assert "hush" not in repr((guard.cmdline(), guard.environ()))
    await child.stop(PATIENCE)


async def test_the_port_goes_into_the_environment_where_that_is_asked(made):
    body = """
        assert os.environ["KEPT"] == "{port}"
        assert os.environ["WHERE"] == f"at {port}"
        serve()
    """
    child = await program.start(made(body, env={"WHERE": "at {port}", "KEPT": "{port}"}, ported=("WHERE",)), PATIENCE)
    await child.stop(PATIENCE)


async def test_one_without_a_health_path_is_ready_when_it_takes_connections(made):
    body = """
        listener = socket.create_server(("127.0.0.1", port))
        threading.Event().wait()
    """
    child = await program.start(made(body, health=""), PATIENCE)
    await child.stop(PATIENCE)


@pytest.mark.parametrize(
    ("argv", "cwd", "says"),
    [
        (("/no/such/program",), None, "could not be started: No such file or directory: /no/such/program"),
        (("no-such-program-at-all",), None, "could not be started: No such file or directory: no-such-program-at-all"),
        (("/",), None, "could not be started: Permission denied: /"),
        ((sys.executable,), Path("/no/such/folder"), "No such file or directory: /no/such/folder"),
        (("a\0b",), None, "could not be started: .*embedded null"),
    ],
)
async def test_a_program_that_cannot_run_is_named(argv, cwd, says):
    with pytest.raises(EngineStartFailed, match=says):
        await program.start(Program("The program", argv, {"PATH": "/usr/bin:/bin"}, cwd=cwd), PATIENCE)
    assert psutil.Process().children() == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("print('no luck')", "exited with code 0"),
        ("print('no luck'); sys.exit(7)", "exited with code 7"),
        ("os.write(2, b'no luck'); os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
        ("os.write(2, b'no luck'); os.kill(os.getpid(), signal.SIGKILL)", "for want of memory"),
    ],
)
async def test_a_start_that_fails_says_why_with_the_log(made, folder, body, says):
    with pytest.raises(EngineStartFailed, match=says) as caught:
        await program.start(made(body), PATIENCE)
    assert caught.value.message.startswith("The program ")
    assert "no luck" in caught.value.hint
    assert psutil.Process().children() == []
    assert nothing_left(folder)


async def test_one_that_ends_later_is_told_as_it_ended(made):
    child = await program.start(made(), PATIENCE)
    os.kill(child.family()[1], signal.SIGABRT)
    assert await child.ended() == "was ended by SIGABRT"


# It does not become ready, or says so falsely


async def test_one_that_never_answers_is_given_up(made, folder):
    with pytest.raises(EngineTimeout, match="not ready within"):
        await program.start(made("threading.Event().wait()"), 1.0)
    assert nothing_left(folder)


FIVE_ANSWERS = """
    class Five(Handler):
        left = 5
        def do_GET(self):
            if not Five.left:
                os._exit(4)
            Five.left -= 1
            super().do_GET()
    http.server.HTTPServer(("127.0.0.1", port), Five).serve_forever(0.01)
"""
FIVE_GREETINGS = """
    listener = socket.create_server(("127.0.0.1", port))
    for _ in range(5):
        wire, _ = listener.accept()
        wire.recv(65536)
        wire.sendall(b"SSH-2.0 is this HTTP?\\r\\n")
        wire.close()
    sys.exit(4)
"""


@pytest.mark.parametrize(
    ("body", "more", "says"),
    [
        (FIVE_ANSWERS, {"health": "/elsewhere"}, "GET /elsewhere is answered with 404"),
        (FIVE_ANSWERS, {"expect": "something else"}, "GET /health is answered, and not with 'something else'"),
        (FIVE_GREETINGS, {}, "GET /health is not answered in HTTP"),
    ],
)
async def test_one_that_does_not_answer_as_it_should_is_not_ready(made, folder, body, more, says):
    """Five such answers change nothing, and the log says what they were."""
    with pytest.raises(EngineStartFailed, match="exited with code 4") as caught:
        await program.start(made(body, **more), PATIENCE)
    assert says in caught.value.hint
    assert nothing_left(folder)


async def test_garbage_in_its_output_harms_nobody(made):
    body = """
        os.write(1, bytes(range(256)) * 20 + b"\\n")
        os.write(2, b"\\xff\\xfe\\x1b[31mred\\n")
        serve()
    """
    child = await program.start(made(body), PATIENCE)
    await child.stop(PATIENCE)
    assert child.log()[-1] == "\ufffd\ufffdred"
    assert all(character >= " " or character == "\t" for line in child.log() for character in line)


@LINUX
async def test_another_servers_answer_on_its_port_is_not_taken_for_its_own(made, folder):
    elsewhere = await program.start(made(), PATIENCE)
    port = int(elsewhere.facts["address"].rpartition(":")[2])
    with pytest.raises(EngineStartFailed, match=f"port {port} is taken by another program"):
        await program.start(made("threading.Event().wait()", port=port), PATIENCE)
    await elsewhere.stop(PATIENCE)
    assert nothing_left(folder)


@LINUX
@pytest.mark.parametrize("thefts", [1, 2, 3])
async def test_a_port_stolen_between_choice_and_bind_is_chosen_anew_twice(made, folder, thefts):
    """The program tells its port and waits; the test takes the port and lets it go on."""
    os.mkfifo(folder / "port")
    os.mkfifo(folder / "go")
    body = """
        with open("port", "w") as out: out.write(str(port))
        open("go").read()
        serve()
    """

    def steal(times: int) -> list[socket.socket]:
        taken = []
        for turn in range(min(times + 1, 3)):
            port = int((folder / "port").read_text())
            if turn < times:
                taken.append(socket.create_server(("127.0.0.1", port)))
            (folder / "go").write_text("now")
        return taken

    starting = asyncio.ensure_future(program.start(made(body), PATIENCE))
    stolen = await asyncio.to_thread(steal, thefts)
    try:
        if thefts == 3:
            with pytest.raises(EngineStartFailed, match="is taken by another program"):
                await starting
        else:
            child = await starting
            assert sum("choosing another" in line for line in child.log()) == thefts
            assert b" 200 " in fetched(child.facts["address"])
            await child.stop(PATIENCE)
    finally:
        for thief in stolen:
            thief.close()
    assert nothing_left(folder)


@LINUX
async def test_who_has_stolen_the_port_is_told_no_key(made, folder):
    os.mkfifo(folder / "port")
    os.mkfifo(folder / "go")
    body = """
        with open("port", "w") as out: out.write(str(port))
        open("go").read()
        serve()
    """
    heard = bytearray()

    def steal() -> None:
        with socket.create_server(("127.0.0.1", int((folder / "port").read_text()))) as thief:
            thief.settimeout(PATIENCE)
            caller, _ = thief.accept()
            with caller:
                caller.settimeout(PATIENCE)
                heard.extend(caller.recv(65536))  # nothing, when it hangs up
            (folder / "port").read_text()  # it has been chosen anew
        (folder / "go").write_text("now")

    starting = asyncio.ensure_future(program.start(made(body, headers={"Authorization": "Bearer k"}), PATIENCE))
    await asyncio.to_thread(steal)
    child = await starting
    assert any("choosing another" in line for line in child.log())
    assert heard == b""
    await child.stop(PATIENCE)
    assert nothing_left(folder)


# Nothing of it is left


@LINUX
@pytest.mark.parametrize("ignores", [False, True], ids=["polite", "ignores SIGTERM"])
async def test_daemons_it_made_end_with_it(made, folder, ignores):
    body = f"""
        if {ignores}:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for _ in range(3):
            daemon(threading.Event().wait)
        serve()
    """
    child = await program.start(made(body), PATIENCE)
    daemons = told(folder)
    assert set(daemons) < set(child.family())
    await child.stop(0.2 if ignores else PATIENCE)
    assert await child.ended() == ("was killed, because it did not stop" if ignores else "was stopped")
    assert not any(map(psutil.pid_exists, daemons))
    assert nothing_left(folder)


@LINUX
async def test_a_program_that_becomes_a_daemon_is_ended_as_one_that_ended(made, folder):
    """Its server would answer; but who starts it could never tell when it is gone."""
    body = """
        alive, held = os.pipe()

        def serve_alone():
            os.close(held)
            os.read(alive, 1)  # until the program has ended
            serve()

        daemon(serve_alone)
        print("gone to the background")
    """
    with pytest.raises(EngineStartFailed, match="exited with code 0") as caught:
        await program.start(made(body), PATIENCE)
    assert "must stay in the foreground" in caught.value.hint
    assert nothing_left(folder)


@LINUX
async def test_one_that_forks_as_fast_as_it_can_is_caught(made, folder):
    body = """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        def breed():
            for _ in range(3000):  # the child goes on, its parent ends: never the same process for long
                if os.fork():
                    os._exit(0)
                os.setsid()
            os._exit(0)  # a test that is cut short must not leave this to the machine for ever
        for _ in range(2):
            if os.fork() == 0:
                breed()
        serve()
    """
    child = await program.start(made(body), PATIENCE)
    await child.stop(0.2)
    assert nothing_left(folder)


@LINUX
async def test_what_a_crash_leaves_is_ended(made, folder):
    child = await program.start(made("daemon(threading.Event().wait)\nserve()"), PATIENCE)
    assert fetched(child.facts["address"], "/crash") == b""
    assert await child.ended() == "exited with code 9"
    assert nothing_left(folder)


async def test_a_cancelled_start_leaves_nothing(made, folder):
    os.mkfifo(folder / "up")
    starting = asyncio.ensure_future(program.start(made("open('up', 'w').close()\nthreading.Event().wait()"), PATIENCE))
    await asyncio.to_thread((folder / "up").read_text)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert await asyncio.to_thread(all_gone, folder)


def all_gone(folder) -> bool:
    """Wait until the guards that this process started, and all below them, are gone."""
    _, alive = psutil.wait_procs(psutil.Process().children(recursive=True), PATIENCE)
    return not alive and nothing_left(folder)


# A flood


@LINUX
async def test_a_flood_neither_blocks_the_program_nor_grows_the_guard(made, folder):
    body = """
        threading.Thread(target=serve, daemon=True).start()
        line = b"x" * 1023 + b"\\n"
        for _ in range(256):
            os.write(1, line * 1024)
        os.write(1, b"the last line\\n")
        tell(1)
        threading.Event().wait()
    """
    child = await program.start(made(body), PATIENCE)
    guard = psutil.Process(child.pid)
    while not (folder / "told").exists():  # it has written 256 MiB when it tells
        await asyncio.sleep(0.01)
    assert guard.memory_full_info().uss < 24 * 1024**2
    await child.stop(PATIENCE)
    assert child.log()[-1] == "the last line"
    assert any("bytes of output left out" in line for line in child.log())


# Corral or the guard is killed

OWNER = """
import asyncio, json, os, sys
from pathlib import Path
from corral.kit import program
argv, cwd = json.loads(sys.argv[1])
async def main():
    child = await program.start(program.Program("The program", tuple(argv), dict(os.environ), cwd=Path(cwd)), 60)
    print(child.pid, flush=True)
    await child.ended()
asyncio.run(main())
"""


@pytest.fixture
def owner(made):
    """A process of its own that owns a program, as Corral does."""
    started = []

    def start(body):
        what = made(body)
        argv = json.dumps([what.argv, str(what.cwd)])
        process = subprocess.Popen([sys.executable, "-P", "-c", OWNER, argv], stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@LINUX
@pytest.mark.parametrize("ignores", [False, True], ids=["polite", "ignores SIGTERM"])
def test_when_corral_is_killed_the_program_and_its_daemons_end(owner, folder, ignores):
    body = f"""
        if {ignores}:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        daemon(threading.Event().wait)
        serve()
    """
    process = owner(body)
    guard = int(process.stdout.readline())
    process.kill()
    assert gone(guard)
    assert nothing_left(folder)


@LINUX
def test_when_corral_is_killed_in_the_middle_of_a_start_nothing_is_left(owner, folder):
    os.mkfifo(folder / "up")
    process = owner("daemon(threading.Event().wait)\nopen('up', 'w').close()\nthreading.Event().wait()")
    (folder / "up").read_text()
    guards = psutil.Process(process.pid).children()
    process.kill()
    assert all(gone(guard.pid) for guard in guards)
    assert nothing_left(folder)


@LINUX
async def test_when_the_guard_is_killed_nothing_is_left(made, folder):
    body = """
        daemon(threading.Event().wait)
        subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
        serve()
    """
    child = await program.start(made(body), PATIENCE)
    os.kill(child.pid, signal.SIGKILL)
    assert "SIGKILL" in await child.ended()
    assert ended(left(folder), PATIENCE)  # nobody is there to wait for them: the kernel ends them, in its own time


@LINUX
async def test_a_stopped_guard_is_killed_in_the_end(made, folder):
    """SIGSTOP: the guard cannot tidy up, so that Corral does."""
    child = await program.start(made("daemon(threading.Event().wait)\nserve()"), PATIENCE)
    os.kill(child.pid, signal.SIGSTOP)
    await child.stop(0)
    assert nothing_left(folder)


# A stop command, and one whose listener is another's


async def test_a_stop_command_ends_it_in_place_of_a_signal(made, folder):
    body = """
        signal.signal(signal.SIGTERM, lambda *_: tell(15))
        signal.signal(signal.SIGUSR1, lambda *_: os._exit(3))
        serve()
    """
    child = await program.start(made(body, stop=("sh", "-c", "echo {port} >> told; kill -USR1 {pid}")), PATIENCE)
    port = int(child.facts["address"].rpartition(":")[2])
    await child.stop(PATIENCE)
    assert await child.ended() == "was stopped"
    assert told(folder) == [port]


@pytest.mark.parametrize("stop", [("false",), ("/no/such/program",)])
async def test_when_the_stop_command_fails_a_signal_ends_it(made, folder, stop):
    child = await program.start(made(stop=stop), PATIENCE)
    await child.stop(PATIENCE)
    assert await child.ended() == "was stopped"
    assert any("stop command failed" in line for line in child.log())
    assert nothing_left(folder)


async def test_a_start_that_is_given_up_runs_the_stop_command_too(made, folder):
    """What stands behind it, such as a container, would be left otherwise."""
    with pytest.raises(EngineTimeout):
        await program.start(made("threading.Event().wait()", stop=("sh", "-c", "echo 1 > told")), 1.0)
    assert told(folder) == [1]
    assert nothing_left(folder)


@LINUX
async def test_a_listener_that_is_not_its_own_is_allowed_where_that_is_said(made, tmp_path_factory):
    elsewhere = await program.start(made(), PATIENCE)
    port = int(elsewhere.facts["address"].rpartition(":")[2])
    client = await program.start(made("threading.Event().wait()", port=port, owned=False), PATIENCE)
    assert client.facts["address"] == elsewhere.facts["address"]
    await client.stop(PATIENCE)
    await elsewhere.stop(PATIENCE)


@LINUX
async def test_nothing_dumps_its_core(made, folder):
    body = """
        import resource
        tell(resource.getrlimit(resource.RLIMIT_CORE)[1])
        serve()
    """
    child = await program.start(made(body), PATIENCE)
    await child.stop(PATIENCE)
    assert told(folder) == [0]
