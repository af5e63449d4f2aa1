"""Real children: how they start, what they say, and that none is ever left."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap

import psutil
import pytest
import uvloop

from corral.errors import EngineStartFailed, EngineTimeout
from corral.kit import process

PATIENCE = 90.0


@pytest.fixture
def command(tmp_path):
    """A command that runs the given lines as a child, with `parent` at hand."""

    def make(body, **launch):
        path = tmp_path / "child_under_test.py"
        path.write_text("from corral.kit import child\nparent = child.attach()\n" + textwrap.dedent(body))
        environment = process.child_environment(os.environ)
        return process.Command("The child", (sys.executable, "-P", str(path)), environment, launch)

    return make


def gone(pid: int) -> bool:
    """Wait, bounded, until no process has that id."""
    try:
        psutil.Process(pid).wait(timeout=PATIENCE)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request):
    """Both loops that Corral runs on."""
    return request.param


def test_a_child_says_that_it_is_ready_and_stops_when_asked(run, command):
    async def main():
        child = await process.start(command("parent.ready(got=parent.launch['a'])\nchild.rest()", a=[1, "é"]), PATIENCE)
        assert child.facts == {"got": [1, "é"]}
        assert await child.resident() > 1_000_000
        await child.stop(PATIENCE)
        assert await child.ended() == "was stopped"
        assert await child.resident() is None
        assert gone(child.pid)

    run(main())


def test_what_libraries_print_goes_to_the_log_and_not_into_the_talk(run, command):
    body = """
        import os, sys
        print("printed", flush=True)
        os.write(1, b"from native code\\n")
        os.write(2, b"bad \\xff bytes\\n")
        print("x" * 5000, file=sys.stderr, flush=True)
        parent.ready()
        child.rest()
    """

    async def main():
        child = await process.start(command(body), PATIENCE)
        await child.stop(PATIENCE)
        assert child.log() == ("printed", "from native code", "bad \ufffd bytes", "x" * 2000 + "…")

    run(main())


async def test_launch_data_shows_neither_in_the_listing_nor_in_the_environment(command):
    child = await process.start(command("parent.ready()\nchild.rest()", key="hush-hush"), PATIENCE)
    seen = psutil.Process(child.pid)
    assert "hush-hush" not in repr((seen.cmdline(), seen.environ()))
    await child.stop(PATIENCE)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("import sys; print('no luck', file=sys.stderr); sys.exit(7)", "exited with code 7"),
        ("import sys; print('no luck', file=sys.stderr); parent.failed('it is Monday')", "failed: it is Monday"),
        ("import os; os.write(2, b'no luck'); os.kill(os.getpid(), 11)", "was ended by SIGSEGV"),
        ("import os; os.write(2, b'no luck'); os.kill(os.getpid(), 9)", "perhaps by the system for want of memory"),
        ("import os; os.write(2, b'no luck'); os.write(parent._control, b'hello\\n'); child.rest()", "something else"),
        ("import os; os.write(2, b'no luck'); os.write(parent._control, b'x' * 70000); child.rest()", "something else"),
        ("import os; os.write(2, b'no luck'); os.write(parent._control, b'[1]\\n'); child.rest()", "something else"),
    ],
)
def test_a_start_that_fails_says_why_with_the_log(run, command, body, says):
    async def main():
        with pytest.raises(EngineStartFailed, match=says) as caught:
            await process.start(command(body), PATIENCE)
        assert caught.value.message.startswith("The child ")
        assert "no luck" in caught.value.hint
        assert psutil.Process().children() == []

    run(main())


@pytest.mark.parametrize("argv", [("/no/such/program",), ("/",)])
def test_a_program_that_cannot_run_is_named(run, argv):
    async def main():
        with pytest.raises(EngineStartFailed, match=f"could not be started: .*: {argv[0]}"):
            await process.start(process.Command("The child", argv, {}), PATIENCE)

    run(main())


def test_a_child_that_never_gets_ready_is_given_up(run, command):
    async def main():
        with pytest.raises(EngineTimeout, match=r"not ready within 0\.5 s"):
            await process.start(command("child.rest()"), 0.5)
        assert psutil.Process().children() == []

    run(main())


async def test_the_last_words_of_a_slow_child_are_passed_on(command, tmp_path):
    """It is given longer until it has come to speak."""
    said = tmp_path / "said"
    body = f"""
        import os, threading
        os.write(2, b'still loading\\n')
        open({str(said)!r}, 'w').close()
        threading.Event().wait()
    """
    seconds = 1.0
    while not said.exists():
        with pytest.raises(EngineTimeout) as caught:
            await process.start(command(body), seconds)
        seconds *= 2
    assert "still loading" in caught.value.hint


def test_a_cancelled_start_leaves_nothing(run, command):
    async def main(turns):
        starting = asyncio.ensure_future(process.start(command("child.rest()"), PATIENCE))
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert psutil.Process().children() == []

    for turns in (0, 1, 2, 5, 20):
        run(main(turns))


STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); parent.ready()\nwhile True: signal.pause()"


def test_one_that_does_not_listen_is_killed(run, command):
    async def main():
        child = await process.start(command(STUBBORN), PATIENCE)
        await child.stop(0.1)
        assert await child.ended() == "was killed, because it did not stop"
        assert gone(child.pid)

    run(main())


def test_many_may_stop_it_and_the_least_patient_wins(run, command):
    async def main():
        child = await process.start(command(STUBBORN), PATIENCE)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(child.stop(1000), child.stop(float("inf")), child.stop(0))
        await child.stop(0)
        assert gone(child.pid)

    run(main())


async def test_a_cancelled_stop_kills(command):
    child = await process.start(command(STUBBORN), PATIENCE)
    stopping = asyncio.ensure_future(child.stop(1000))
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert await child.ended() == "was killed, because it did not stop"


def test_one_that_dies_alone_is_noticed(run, command):
    async def main():
        child = await process.start(command("parent.ready()\nchild.rest()"), PATIENCE)
        os.kill(child.pid, signal.SIGKILL)
        assert await child.ended() == "was killed by SIGKILL, perhaps by the system for want of memory"
        await child.stop(5)
        assert await child.ended() == "was killed by SIGKILL, perhaps by the system for want of memory"

    run(main())


WITH_OFFSPRING = """
    import subprocess, sys
    sleeper = [sys.executable, "-c", "import signal; signal.signal(15, signal.SIG_IGN); signal.pause()"]
    own = subprocess.Popen(sleeper, start_new_session={away})
    parent.ready(offspring=own.pid)
    child.rest()
"""


@pytest.mark.parametrize("ending", ["stop", "crash"])
def test_what_it_started_goes_with_it(run, command, ending):
    async def main():
        child = await process.start(command(WITH_OFFSPRING.format(away=False)), PATIENCE)
        if ending == "crash":
            os.kill(child.pid, signal.SIGKILL)
        await child.stop(PATIENCE)
        assert gone(child.facts["offspring"])

    run(main())


async def test_a_runaway_that_holds_the_log_open_does_not_hold_the_end(command):
    child = await process.start(command(WITH_OFFSPRING.format(away=True)), PATIENCE)
    await child.stop(PATIENCE)
    assert await child.ended() == "was stopped"
    os.kill(child.facts["offspring"], signal.SIGKILL)


PARENT = """
import asyncio, os, sys
from corral.kit import process

async def main():
    command = process.Command("The child", (sys.executable, "-P", sys.argv[1]), dict(os.environ))
    child = await process.start(command, 30)
    print(child.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("body", ["parent.ready()\nchild.rest()", STUBBORN], ids=["polite", "stubborn"])
def test_a_killed_parent_leaves_no_child(command, tmp_path, body):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, "-P", str(script), command(body).argv[-1]], stdout=subprocess.PIPE, text=True
    )
    with parent:
        child = int(parent.stdout.readline())
        assert psutil.pid_exists(child)
        parent.kill()
    assert gone(child)


class Bare:
    """A child started by hand, without the kernel's tie between parent and child."""

    def __init__(self, argv, said_parent):
        untied = (
            "import runpy, sys; from corral.kit import child; child._die_with_parent = lambda: None; "
            "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])"
        )
        self.popen = subprocess.Popen(
            [argv[0], "-P", "-c", untied, argv[-1]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.popen.stdin.write(json.dumps({"parent": said_parent, "launch": {}}).encode() + b"\n")
        self.popen.stdin.flush()


def test_the_lifeline_alone_is_enough(command):
    bare = Bare(command(STUBBORN).argv, os.getpid())
    with bare.popen:
        assert json.loads(bare.popen.stdout.readline()) == {"ready": {}}
        bare.popen.stdin.close()
        assert bare.popen.wait(PATIENCE) == -signal.SIGKILL


def test_a_child_whose_parent_died_before_it_looked_ends(command):
    bare = Bare(command(STUBBORN).argv, os.getpid() + 1)
    with bare.popen:
        assert bare.popen.wait(PATIENCE) == 3


def test_a_child_that_is_told_nothing_ends(command):
    with subprocess.Popen(command("").argv, stdin=subprocess.DEVNULL) as child:
        assert child.wait(PATIENCE) == 3
