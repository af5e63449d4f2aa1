"""Local services with real programs: they outlive whoever started them, are taken up again, and leave nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from corral.domain.services import ServiceState
from corral.errors import AddressInUse, ServiceError, ServiceUnavailable
from corral.kit import pidfile
from corral.kit.clock import SystemClock
from corral.kit.disk import lies_at, try_lock
from corral.services import _logfile
from corral.services.folder import Folder
from corral.services.local import LocalServices
from support.clocks import HandClock, settle
from support.services import QUICK, Place, until, until_state

RUNNING, FAILED, STOPPED = ServiceState.RUNNING, ServiceState.FAILED, ServiceState.STOPPED


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A home; at the end nothing of its services may be left."""
    built = Place(tmp_path)
    yield built
    until_time = time.monotonic() + 30
    while (left := built.left()) and time.monotonic() < until_time:
        with suppress(psutil.NoSuchProcess):
            psutil.wait_procs([psutil.Process(int(entry.split()[0])) for entry in left], timeout=0.1)
    for entry in left:
        with suppress(ProcessLookupError):
            os.kill(int(entry.split()[0]), signal.SIGKILL)
    assert left == []


def keeper_of(place: Place, name: str = "web") -> pidfile.Identity:
    known = pidfile.read(Folder(place.home, name).pid)
    assert known is not None
    return known


async def test_a_service_starts_becomes_healthy_and_stops_cleanly(place: Place) -> None:
    manager, spec = place.manager(), place.spec()

    assert await manager.start(spec)
    up = await until_state(manager, spec, RUNNING)
    assert up.healthy
    assert up.pid is not None
    assert (up.memory or 0) > 1_000_000
    assert up.restarts == 0
    assert os.getpgid(up.pid) == up.pid
    assert os.getsid(keeper_of(place).pid) == keeper_of(place).pid
    assert "server says hello" in await manager.log(spec, 10)

    assert await manager.stop(spec)
    down = await manager.status(spec)
    assert (down.state, down.pid, down.memory, down.started_at) == (STOPPED, None, None, None)
    assert not Folder(place.home, "web").pid.exists()
    assert not await manager.stop(spec)


async def test_another_corral_adopts_it(place: Place) -> None:
    spec = place.spec()
    await place.manager().start(spec)
    other = place.manager()

    up = await until_state(other, spec, RUNNING)
    assert not await other.start(spec)
    assert (await other.status(spec)).pid == up.pid
    assert await other.stop(spec)


async def test_of_many_starts_at_once_one_starts(place: Place) -> None:
    spec = place.spec()

    started = await asyncio.gather(*(place.manager().start(spec) for _ in range(5)))

    assert sorted(started) == [False] * 4 + [True]
    await until_state(place.manager(), spec, RUNNING)
    assert len([entry for entry in place.left() if "server.py" in entry]) == 1
    await place.manager().stop(spec)


async def test_one_that_ignores_sigterm_is_killed_after_its_grace(place: Place) -> None:
    manager, spec = place.manager(), place.spec("deaf", stop_grace=0.3)
    await manager.start(spec)
    await until_state(manager, spec, RUNNING)

    await manager.stop(spec)

    assert (await manager.status(spec)).last_exit == "was killed, because it did not stop"


async def test_what_it_forked_goes_with_it_wherever_it_went(place: Place) -> None:
    manager, spec = place.manager(), place.spec("forks", stop_grace=0.3)
    await manager.start(spec)
    await until_state(manager, spec, RUNNING)
    await until(lambda: len([entry for entry in place.left() if "server.py" in entry]) == 4)

    await manager.stop(spec)

    assert place.left() == []


async def test_one_that_is_killed_is_started_again(place: Place) -> None:
    manager, spec = place.manager(), place.spec("forks", stop_grace=0.2)
    await manager.start(spec)
    first = await until_state(manager, spec, RUNNING)
    assert first.pid is not None

    os.kill(first.pid, signal.SIGKILL)

    await until(lambda: Folder(place.home, "web").read().restarts == 1)
    second = await until_state(manager, spec, RUNNING)
    assert second.pid != first.pid
    assert second.last_exit == "was ended by SIGKILL, perhaps by the system for want of memory"
    await until(lambda: len([entry for entry in place.left() if "server.py" in entry]) == 4)
    await manager.stop(spec)


async def test_a_crash_loop_is_left_down_with_its_last_words(place: Place) -> None:
    manager, spec = place.manager(), place.spec("crashes")
    await manager.start(spec)

    down = await until_state(manager, spec, FAILED)

    assert down.restarts == QUICK.crashes - 1
    assert "ended 4 times in a row" in down.reason
    assert "exited with code 3" in down.reason
    assert "no such model" in down.reason
    assert await manager.start(spec)
    assert (await until_state(manager, spec, FAILED)).restarts == QUICK.crashes - 1


@pytest.mark.parametrize(("mode", "state"), [("crashes", FAILED), ("", RUNNING)])
async def test_one_that_is_not_to_be_started_again_stays_down(place: Place, mode: str, state: ServiceState) -> None:
    manager, spec = place.manager(), place.spec(mode, restart=False)
    await manager.start(spec)
    up = await until_state(manager, spec, state)
    if up.pid is not None:
        os.kill(up.pid, signal.SIGTERM)
        down = await until_state(manager, spec, FAILED)
        assert down.last_exit == "was ended by SIGTERM"
    assert (await manager.status(spec)).restarts == 0


async def test_a_hung_one_is_started_again(place: Place) -> None:
    manager, spec = place.manager(), place.spec(vigilance=replace(QUICK, timeout=1.0))
    await manager.start(spec)
    up = await until_state(manager, spec, RUNNING)
    assert up.pid is not None

    os.kill(up.pid, signal.SIGUSR1)

    await until(lambda: Folder(place.home, "web").read().restarts == 1)
    again = await until_state(manager, spec, RUNNING)
    assert again.last_exit == "did not answer 3 health checks in a row"
    await manager.stop(spec)


async def test_one_that_never_becomes_healthy_is_ended_and_said(place: Place) -> None:
    vigilance = replace(QUICK, crashes=1)
    manager, spec = place.manager(), place.spec("sick", start_timeout=0.5, vigilance=vigilance)
    await manager.start(spec)

    down = await until_state(manager, spec, FAILED)

    assert "was not healthy within 0.5 s" in down.reason


async def test_one_without_anything_to_ask_is_well_when_it_stays(place: Place) -> None:
    manager, spec = place.manager(), place.spec(health=None)
    silent = replace(spec, port=None)
    await manager.start(silent)
    up = await until_state(manager, silent, RUNNING)
    assert up.healthy is None
    await manager.stop(silent)

    await manager.start(spec)
    assert (await until_state(manager, spec, RUNNING)).healthy
    await manager.stop(spec)


async def test_when_the_keeper_is_killed_the_program_dies_and_the_next_look_tidies_up(place: Place) -> None:
    manager, spec = place.manager(), place.spec("forks", stop_grace=0.3)
    await manager.start(spec)
    up = await until_state(manager, spec, RUNNING)
    await until(lambda: len([entry for entry in place.left() if "server.py" in entry]) == 4)
    keeper = keeper_of(place)

    pidfile.send(keeper, signal.SIGKILL)
    await until(lambda: not pidfile.alive(keeper))
    await until(lambda: not psutil.pid_exists(up.pid or 0))

    down = await manager.status(spec)
    assert down.state is FAILED
    assert "keeper was killed" in down.reason
    assert not Folder(place.home, "web").pid.exists()
    await until(lambda: place.left() == [])

    await manager.start(spec)
    await until_state(manager, spec, RUNNING)
    await manager.stop(spec)


async def test_a_number_that_another_process_has_now_is_never_signalled(place: Place) -> None:
    manager, spec = place.manager(), place.spec()
    bystander = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        folder = Folder(place.home, "web")
        folder.make()
        now = pidfile.identity(bystander.pid)
        assert now is not None
        pidfile.write(folder.pid, replace(now, began=now.began - 100))
        folder.write(replace(folder.read(), state=RUNNING, pid=bystander.pid, mark="nobody has it"))

        assert not await manager.stop(spec)
        assert (await manager.status(spec)).state is FAILED
        assert await manager.start(spec)
        await until_state(manager, spec, RUNNING)
        assert await manager.stop(spec)

        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


async def test_one_whose_keeper_has_given_up_is_started_as_soon_as_that_has_gone(place: Place) -> None:
    manager, spec, folder = place.manager(), place.spec(), Folder(place.home, "web")
    folder.make()
    lock = os.open(folder.lock, os.O_RDWR | os.O_CREAT, 0o600)
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as going:
        assert try_lock(lock)
        keeper = pidfile.identity(going.pid)
        assert keeper is not None
        pidfile.write(folder.pid, keeper)
        folder.write(replace(folder.read(), state=FAILED))
        starting = asyncio.ensure_future(manager.start(spec))
        await asyncio.sleep(0)  # it has looked
        going.kill()
    folder.pid.unlink()
    os.close(lock)
    assert await starting
    assert await manager.stop(spec)


async def test_one_that_is_removed_while_its_start_waits_is_started_all_the_same(place: Place) -> None:
    clock, spec, folder = HandClock(), place.spec(), Folder(place.home, "web")
    manager = LocalServices(place.home, dict(os.environ), clock)
    folder.make()
    lock = os.open(folder.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        assert try_lock(lock)  # as the keeper that is about to go
        starting = asyncio.ensure_future(manager.start(spec))
        await settle()  # it has looked, and waits
    finally:
        os.close(lock)
    await place.manager().uninstall(spec)
    assert not folder.path.exists()
    await clock.advance(60)
    assert await starting
    assert await place.manager().stop(spec)


class Hurried(SystemClock):
    """A clock that a minute passes on at each look."""

    def __init__(self) -> None:
        self.looks = 0

    def now(self) -> float:
        self.looks += 1
        return 60.0 * self.looks


async def test_a_pid_file_that_names_another_than_the_keeper_is_said_and_not_waited_for_without_end(
    place: Place,
) -> None:
    manager, spec = place.manager(), place.spec()
    assert await manager.start(spec)
    await until_state(manager, spec, RUNNING)
    folder = Folder(place.home, "web")
    right = folder.pid.read_bytes()
    folder.pid.write_text("garbage")
    try:
        with pytest.raises(ServiceError, match=r"does not name: the file was changed") as caught:
            await LocalServices(place.home, os.environ, Hurried()).status(spec)
        assert str(folder.lock) in caught.value.hint
    finally:
        folder.pid.write_bytes(right)
        assert await manager.stop(spec)


async def test_a_port_in_use_is_said_before_the_start_with_who_has_it(place: Place) -> None:
    class Handler(BaseHTTPRequestHandler):
        """Answers nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        spec = place.spec(port=server.server_address[1])

        with pytest.raises(AddressInUse) as caught:
            await place.manager().start(spec)
        server.shutdown()

    assert f"(process {os.getpid()})" in caught.value.message
    assert "services.web.options.port" in caught.value.hint
    assert (await place.manager().status(spec)).state is STOPPED


async def test_credentials_stay_here_unless_they_are_named_and_no_core_is_dumped(place: Place) -> None:
    env = {**os.environ, "SOME_API_KEY": "s3cr3t-inherited", "PLAIN": "plain"}
    manager = place.manager(env)
    spec = place.spec("environment", environment={"HF_TOKEN": "s3cr3t-named"})
    await manager.start(spec)
    await until_state(manager, spec, RUNNING)

    said = "\n".join(await manager.log(spec, 20))

    assert "('PLAIN', 'plain')" in said
    assert "('HF_TOKEN', 's3cr3t-named')" in said
    assert "s3cr3t-inherited" not in said
    assert "core (0, 0)" in said
    keeper = psutil.Process(keeper_of(place).pid)
    assert not [value for value in keeper.environ().values() if "s3cr3t" in value]
    written = [path.read_text() for path in Folder(place.home, "web").path.iterdir() if path.suffix != ".log"]
    assert not [text for text in written if "s3cr3t" in text]
    await manager.stop(spec)


async def test_a_changed_configuration_is_noticed(place: Place) -> None:
    manager, spec = place.manager(), place.spec()
    await manager.start(spec)
    await until_state(manager, spec, RUNNING)

    changed = await manager.status(replace(spec, environment={"A": "1"}, memory=10**9))

    assert any("has changed" in note for note in changed.notes)
    assert any("memory is not limited" in note for note in changed.notes)
    assert (await manager.status(spec)).notes == ()
    await manager.stop(spec)


async def test_a_flooded_log_stays_bounded(place: Place) -> None:
    manager, spec = place.manager(), place.spec("flood", health=None, stop_grace=1.0)
    silent = replace(spec, port=None)
    await manager.start(silent)
    log = Folder(place.home, "web").log
    older = log.with_name("service.log.1")
    await until(older.exists, 60)

    await manager.stop(silent)

    assert older.stat().st_size <= _logfile.LARGEST
    assert log.stat().st_size <= _logfile.LARGEST
    assert len(await manager.log(silent, 50)) == 50


async def test_a_program_that_is_not_there_is_said(place: Place) -> None:
    vigilance = replace(QUICK, crashes=1)
    spec = replace(place.spec(), argv=(str(place.folder / "nothing"),), vigilance=vigilance)
    manager = place.manager()
    await manager.start(spec)

    assert "could not be started: No such file or directory" in (await until_state(manager, spec, FAILED)).reason


async def test_what_no_program_can_be_called_is_said(place: Place) -> None:
    script = """
from pathlib import Path
from corral.services import _program
try:
    _program.start(("/bin/true", "a\\0b"), {}, Path("/"))
except OSError as error:
    print(error.strerror)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "Invalid argument\n"


async def test_it_can_be_stopped_while_it_waits_for_its_next_start(place: Place) -> None:
    manager, spec = place.manager(), place.spec("crashes", vigilance=replace(QUICK, first=60.0, longest=60.0))
    await manager.start(spec)
    waiting = await until_state(manager, spec, ServiceState.WAITING)
    assert "started again after 60 s" in waiting.reason

    assert await manager.stop(spec)

    assert (await manager.status(spec)).state is STOPPED


async def test_a_port_that_is_taken_between_two_starts_is_said(place: Place) -> None:
    manager, spec = place.manager(), place.spec("waits", cwd=place.folder)
    assert spec.port is not None
    go = place.folder / "go"
    os.mkfifo(go)
    await manager.start(spec)
    it_runs = await asyncio.to_thread(go.open, "w")
    with socket.create_server(("127.0.0.1", spec.port)):
        it_runs.close()  # which is the end of it
        down = await until_state(manager, spec, FAILED)

    assert "in use by another program" in down.reason


async def test_what_cannot_be_installed_and_what_is_removed(place: Place) -> None:
    manager, spec = place.manager(), place.spec()
    with pytest.raises(ServiceUnavailable):
        await manager.install(spec)
    assert (await manager.probe()).usable
    await manager.start(spec)
    await until_state(manager, spec, RUNNING)

    await manager.uninstall(spec)

    assert [path.name for path in Folder(place.home, "web").path.iterdir()] == ["service.log"]


async def test_what_another_has_started_again_meanwhile_is_not_removed_from_under_it(place: Place) -> None:
    manager, spec, folder = place.manager(), place.spec(), Folder(place.home, "web")
    folder.make()
    lock = os.open(folder.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        assert try_lock(lock)  # as whoever starts it does
        with pytest.raises(ServiceError, match="started it again"):
            await manager.uninstall(spec)
        assert lies_at(lock, folder.lock)
    finally:
        os.close(lock)
    await manager.uninstall(spec)
    assert not folder.path.exists()
    await manager.uninstall(spec)


STARTER = """
import asyncio, json, os, sys
from pathlib import Path
from corral.kit.clock import SystemClock
from corral.services.folder import unpacked
from corral.services.local import LocalServices

home, spec = sys.argv[1:]
asyncio.run(LocalServices(Path(home), os.environ, SystemClock()).start(unpacked(json.loads(spec))))
"""


@pytest.mark.parametrize("after", [0.0, 0.05, 0.1, 0.15, 0.2, 0.3])
async def test_kill_minus_nine_in_the_middle_of_a_start_leaves_all_or_nothing(place: Place, after: float) -> None:
    from corral.services.folder import packed

    manager, spec = place.manager(), place.spec()
    starter = subprocess.Popen([sys.executable, "-c", STARTER, str(place.home), json.dumps(packed(spec))])
    folder = Folder(place.home, "web")
    await until(lambda: folder.lock.exists() or starter.poll() is not None)
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.to_thread(starter.wait, 10), after)
    starter.kill()
    await asyncio.to_thread(starter.wait)

    # Whatever it had got to: a start by somebody else leads to one service that runs.
    await manager.start(spec)
    await until_state(manager, spec, RUNNING)
    assert len([entry for entry in place.left() if "server.py" in entry and "-c" not in entry.split()]) == 1
    await manager.stop(spec)
