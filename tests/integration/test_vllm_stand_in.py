"""The runtime vllm with a stand-in for vLLM: how it is started, that it sleeps, and that nothing of it is left."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from corral.domain.ports import LaunchSpec, Sleeper, silent
from corral.errors import EngineError, EngineStartFailed, EngineTimeout, OutOfMemory, RuntimeUnavailable
from corral.runtimes.vllm import Vllm, VllmOptions
from tests.support.vllm import FAULT, built

SOON = 60


def spec(stand_in, snapshot, **options):
    return LaunchSpec("m", VllmOptions(executable=stand_in.folder, **options), {"model": snapshot}, load_timeout=SOON)


def own_folders():
    """Folders of engines that this process has started; others may run such tests beside this one."""
    found = set()
    for folder in Path(tempfile.gettempdir()).glob("corral-vllm-*"):
        with suppress(OSError):
            if (folder / "owner").read_text() == str(os.getpid()):
                found.add(folder)
    return found


@pytest.fixture
def nothing_left():
    """No folder of an engine, no process below this one, before as after."""
    before = own_folders()
    children = set(psutil.Process().children(recursive=True))
    yield
    assert own_folders() <= before
    assert set(psutil.Process().children(recursive=True)) <= children


async def test_it_finds_its_name_and_its_key(vllm_stand_in, vllm_snapshot, tmp_path, nothing_left):
    runtime = Vllm(os.environ, tmp_path)
    session = await runtime.start(spec(vllm_stand_in, vllm_snapshot, context=512, slots=3), silent)
    try:
        (launch,) = vllm_stand_in.launches
        assert launch["version"] == "0.32.0+cpu"
        key = session.endpoint.headers["Authorization"].removeprefix("Bearer ")
        assert launch["environment"]["VLLM_API_KEY"] == key
        assert not any(key in word for word in launch["argv"])
        assert (session.facts.context, session.facts.slots, session.facts.device) == (512, 3, "cpu")
        assert not session.facts.sleeps
        assert await session.healthy()
    finally:
        await session.stop(5)


@pytest.mark.skipif(sys.platform != "linux", reason="shared memory is looked up in /dev/shm")
@pytest.mark.parametrize(("grace", "fault"), [(5, ""), (5, "forgetful"), (0, "")])
async def test_its_sockets_and_shared_memory_go_with_it(
    grace, fault, vllm_stand_in, vllm_snapshot, tmp_path, nothing_left
):
    runtime = Vllm({**os.environ, FAULT: fault}, tmp_path)
    session = await runtime.start(spec(vllm_stand_in, vllm_snapshot), silent)
    memory = vllm_stand_in.memory
    folder = Path(vllm_stand_in.launches[0]["environment"]["TMPDIR"])
    assert memory.exists()
    assert any(path.is_socket() for path in folder.iterdir())
    await session.stop(grace)
    assert not memory.exists()
    assert not folder.exists()


async def test_when_the_guard_is_killed_its_folder_goes_too(vllm_stand_in, vllm_snapshot, tmp_path, nothing_left):
    session = await Vllm(os.environ, tmp_path).start(spec(vllm_stand_in, vllm_snapshot), silent)
    os.kill(session.pid, signal.SIGKILL)
    assert "SIGKILL" in await session.ended()
    vllm_stand_in.memory.unlink(missing_ok=True)  # nobody was left who knew of it


OWNER = """
import asyncio, json, os, sys
from pathlib import Path
from corral.domain.ports import LaunchSpec, silent
from corral.runtimes.vllm import Vllm, VllmOptions

async def main():
    folder, snapshot, home = map(Path, sys.argv[1:])
    spec = LaunchSpec("m", VllmOptions(executable=folder), {"model": snapshot})
    session = await Vllm(os.environ, home).start(spec, silent)
    print(json.dumps({"processes": list(session.processes())}), flush=True)
    await session.ended()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="shared memory is looked up in /dev/shm")
def test_when_corral_is_killed_nothing_is_left(vllm_stand_in, vllm_snapshot, tmp_path, nothing_left):
    command = [sys.executable, "-P", "-c", OWNER, str(vllm_stand_in), str(vllm_snapshot), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        said = json.loads(owner.stdout.readline())
        processes = [psutil.Process(pid) for pid in said["processes"]]
        owner.kill()
    psutil.wait_procs(processes, timeout=SOON)
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)
    assert not vllm_stand_in.memory.exists()
    assert not Path(vllm_stand_in.launches[0]["environment"]["TMPDIR"]).exists()


@pytest.fixture
def for_gpus(tmp_path):
    return built(tmp_path / "gpu", "vllm", "0.33.0")


async def test_on_a_gpu_it_sleeps_and_wakes(for_gpus, vllm_snapshot, tmp_path, nothing_left):
    session = await Vllm(os.environ, tmp_path).start(spec(for_gpus, vllm_snapshot, sleep=True), silent)
    try:
        assert isinstance(session, Sleeper)
        assert session.facts.sleeps
        await session.sleep()
        await session.wake()
    finally:
        await session.stop(5)
    asked = [line for line in session.log() if line.startswith("POST")]
    assert asked == ["POST /sleep?level=1", "POST /wake_up"]
    with pytest.raises(EngineError, match="did not answer"):
        await session.sleep()


async def test_one_that_cannot_sleep_says_so(for_gpus, vllm_snapshot, tmp_path, nothing_left):
    runtime = Vllm({**os.environ, FAULT: "sleepless"}, tmp_path)
    session = await runtime.start(spec(for_gpus, vllm_snapshot, sleep=True), silent)
    try:
        with pytest.raises(EngineError, match="did not fall asleep"):
            await session.sleep()
    finally:
        await session.stop(5)


async def test_want_of_memory_is_told_as_such(vllm_stand_in, vllm_snapshot, tmp_path, nothing_left):
    with pytest.raises(OutOfMemory, match="No available memory for the cache blocks"):
        await Vllm({**os.environ, FAULT: "memory"}, tmp_path).start(spec(vllm_stand_in, vllm_snapshot), silent)


async def test_it_is_given_the_longer_of_two_times(vllm_stand_in, vllm_snapshot, tmp_path, nothing_left):
    runtime = Vllm({**os.environ, FAULT: "silent"}, tmp_path)
    hasty = replace(spec(vllm_stand_in, vllm_snapshot, load_timeout=1.5), load_timeout=0.1)
    with pytest.raises(EngineTimeout, match=r"within 1\.5 s"):
        await runtime.start(hasty, silent)


async def test_one_that_tells_nothing_of_itself_is_not_kept(vllm_stand_in, vllm_snapshot, tmp_path, nothing_left):
    with pytest.raises(EngineStartFailed, match="did not tell what it serves"):
        await Vllm({**os.environ, FAULT: "models"}, tmp_path).start(spec(vllm_stand_in, vllm_snapshot), silent)


async def test_without_vllm_the_error_says_what_to_type(vllm_snapshot, tmp_path):
    options = VllmOptions(executable=tmp_path / "nowhere")
    with pytest.raises(RuntimeUnavailable, match="nowhere") as caught:
        await Vllm(os.environ, tmp_path).start(LaunchSpec("m", options, {"model": vllm_snapshot}), silent)
    assert "corral runtimes install vllm" in caught.value.hint
