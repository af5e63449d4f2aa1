"""The runtime `container` on a real Docker engine: what an engine may, how it ends, and what is left after a kill."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import yaml

from corral.domain.memory import Placement
from corral.domain.options import parse_options
from corral.domain.ports import LaunchSpec, silent
from corral.domain.states import State
from corral.errors import EngineStartFailed, EngineTimeout, OutOfMemory, RuntimeUnavailable
from corral.kit.clock import SystemClock
from corral.runtimes.container import Container, ContainerOptions
from tests.docs.pages import ROOT
from tests.support.container_engines import Containers
from tests.support.docker import CORRAL, TINY, until
from tests.support.fleets import corral_with
from tests.support.servers import corral_server

MIB = 1024**2

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def runtime(containers):
    return Container(containers, SystemClock())


@pytest.fixture
def launch(engine_image, engine_entrypoint, smollm2):
    def spec(placement=None, timeout=60.0, files=None, **options):
        usual = {"image": engine_image, "entrypoint": engine_entrypoint, "network": "host", "context": 256, "slots": 1}
        given = parse_options(ContainerOptions, usual | options, "container")
        return LaunchSpec("smollm2", given, {"model": smollm2} if files is None else files, None, timeout, placement)

    return spec


@pytest.fixture
def tiny(docker):
    """The launch of a server without a model; its words are those of tests/images/tiny.sh."""

    def spec(*words, timeout=30.0, **options):
        given = {"kind": "openai", "image": docker.image(TINY), "network": "host", "command": list(words), **options}
        return LaunchSpec("tiny", parse_options(ContainerOptions, given, "container"), load_timeout=timeout)

    return spec


SERVE = ("serve", "${PORT}", "127.0.0.1")


async def test_it_gets_what_it_needs_and_nothing_else(runtime, launch, docker, smollm2):
    session = await runtime.start(launch(Placement({"cpu": 512 * MIB})), silent)
    try:
        ((name, seen),) = docker.seen().items()
        assert name.startswith("corral-engine-smollm2-")
        host = seen["HostConfig"]
        (mount,) = [each for each in seen["Mounts"] if each["Type"] == "bind"]
        assert (mount["Source"], mount["Destination"], mount["RW"]) == (
            str(smollm2.resolve()),
            "/models/model.gguf",
            False,
        )
        assert host["CapDrop"] == ["ALL"]
        assert (host["Privileged"], host["ReadonlyRootfs"]) == (False, True)
        assert host["RestartPolicy"]["Name"] in ("", "no")
        assert host["Memory"] == host["MemorySwap"] == 512 * MIB * 5 // 4 + 256 * MIB
        labels = seen["Config"]["Labels"]
        assert labels["corral.yard"] == "tests-of-runtimes.engines"
        assert labels["corral.owner"].startswith(f"{os.getpid()} ")
        assert session.facts.context == 256
        assert (session.facts.slots, session.facts.device) == (1, "cpu")
        measured = (await session.footprint()).devices["cpu"]
        assert smollm2.stat().st_size * 0.7 < measured < 900 * MIB, "its weights are its own memory"
    finally:
        await session.stop(5)
    assert docker.seen() == {}


async def test_more_memory_than_it_may_is_told_as_that(runtime, launch, docker):
    with pytest.raises(OutOfMemory, match="took more memory than it may") as caught:
        await runtime.start(launch(memory=60 * MIB, timeout=150.0), silent)
    assert "62914560 bytes now" in caught.value.hint
    assert docker.seen() == {}


async def test_an_engine_that_is_killed_has_ended_and_is_taken_away(runtime, tiny, docker):
    session = await runtime.start(tiny("say", "hello", *SERVE), silent)
    (name,) = docker.seen()
    docker.cli("kill", name)
    assert await session.ended() == "was ended by signal 9"
    assert not await session.healthy()
    assert (await session.footprint()).devices == {}
    assert session.log() == ("hello",)
    await session.stop(0)
    assert docker.seen() == {}


async def test_one_that_is_removed_by_hand_has_ended(runtime, tiny, docker):
    session = await runtime.start(tiny(*SERVE), silent)
    (name,) = docker.seen()
    docker.cli("rm", "--force", name)
    assert await session.ended()
    await session.stop(5)


@pytest.mark.parametrize(
    ("words", "options", "error", "said"),
    [
        (("say", "no model", "exit", "7"), {}, EngineStartFailed, "ended with code 7. It last said: no model"),
        (SERVE, {"health": "/nowhere", "timeout": 1.0}, EngineTimeout, "did not answer within 1 s"),
        (SERVE, {"image": "127.0.0.1:9/nobody:1"}, EngineStartFailed, "could not be started in a container"),
        (SERVE, {"image": "nobody/here:1", "pull": False}, EngineStartFailed, "nobody/here:1 is not here"),
        ((), {"entrypoint": ["/no/such/program"]}, EngineStartFailed, "no such file|ended with code 127|No such file"),
    ],
)
async def test_a_start_that_fails_says_why_and_leaves_nothing(runtime, tiny, docker, words, options, error, said):
    with pytest.raises(error) as caught:
        await runtime.start(tiny(*words, **options), silent)
    assert re.search(said, f"{caught.value.message} {caught.value.hint}"), caught.value
    assert docker.seen() == {}


async def test_a_start_that_is_cancelled_leaves_nothing(runtime, tiny, docker):
    for turns in (1, 5, 20):
        starting = asyncio.ensure_future(runtime.start(tiny("after", "60", *SERVE), silent))
        await asyncio.wait({starting}, timeout=turns / 20)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert docker.seen() == {}


async def test_without_docker_it_cannot_be_used(runtime, tiny, docker):
    spec = tiny(*SERVE)
    docker.stop()
    availability = await runtime.probe()
    assert not availability.usable
    assert availability.reason
    assert availability.hint
    with pytest.raises(RuntimeUnavailable):
        await runtime.start(spec, silent)


async def test_an_engine_outlives_a_docker_that_is_away_for_a_moment(runtime, tiny, docker):
    session = await runtime.start(tiny(*SERVE), silent)
    waiting = asyncio.ensure_future(session.ended())
    docker.kill()
    assert await session.healthy(), "the container goes on"
    docker.start()  # without --live-restore its containers end with its return
    assert await asyncio.wait_for(waiting, 30)
    await session.stop(0)
    assert docker.seen() == {}


CHILD = """
import asyncio, sys
from corral.containers.contexts import Places
from corral.containers.docker import Docker
from corral.domain.ports import LaunchSpec, silent
from corral.kit.clock import SystemClock
from corral.runtimes.container import Container, ContainerOptions

class Port:
    engine = Docker(Places(host=sys.argv[1], env={}))
    yard = sys.argv[2]

async def main():
    command = ("serve", "${PORT}", "127.0.0.1")
    options = ContainerOptions(kind="openai", image=sys.argv[3], network="host", command=command)
    await Container(Port(), SystemClock()).start(LaunchSpec("left", options), silent)
    print("up", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_what_a_killed_corral_left_is_swept_and_nothing_else(runtime, containers, tiny, docker):
    words = [sys.executable, "-c", CHILD, docker.address]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}

    def other(yard):
        process = subprocess.Popen([*words, yard, docker.image(TINY)], stdout=subprocess.PIPE, text=True, env=env)
        assert process.stdout.readline() == "up\n"
        return process

    killed, alive, stranger = other(containers.yard), other(containers.yard), other("somebody-else")
    try:
        for process in (killed, stranger):
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert len(docker.seen()) == 3
        session = await runtime.start(tiny(*SERVE), silent)
        owners = {seen["Config"]["Labels"]["corral.owner"].split()[0] for seen in docker.seen().values()}
        assert owners == {str(os.getpid()), str(alive.pid), str(stranger.pid)}
        await session.stop(5)
        assert await runtime.sweep() == []
        neighbour = Container(Containers(containers.engine, "somebody-else"), SystemClock())
        assert any(name.startswith("corral-engine-left-") for name in docker.seen())
        assert (await neighbour.probe()).usable
        assert set(docker.seen()) == {name for name, seen in docker.seen().items() if str(alive.pid) in str(seen)}
    finally:
        for process in (killed, alive, stranger):
            process.kill()
            process.wait()
            process.stdout.close()


async def test_two_at_once_have_ports_of_their_own(runtime, tiny):
    sessions = await asyncio.gather(*(runtime.start(replace(tiny(*SERVE), model=f"m{i}"), silent) for i in range(3)))
    try:
        assert len({session.endpoint.url for session in sessions}) == 3
        assert all(await asyncio.gather(*(session.healthy() for session in sessions)))
    finally:
        await asyncio.gather(*(session.stop(5) for session in sessions))


async def test_the_scheduler_loads_it_and_lets_it_go(tmp_path, docker, model_store, engine_entrypoint):
    """A revision of the store runs in a container like in any runtime."""
    options = {"image": docker.image(CORRAL), "entrypoint": engine_entrypoint, "network": "host", "context": 256}
    models = {"smollm2": {"runtime": "container", "options": options}}
    store = {"models_dir": str(model_store)}
    async with corral_with(tmp_path / "home", docker, {}, models=models, store=store) as corral:
        engine = await corral.load("smollm2")
        assert engine.runtime == "container"
        (seen,) = docker.seen().values()
        assert seen["HostConfig"]["Memory"] > 0, "the limit comes from its placement"
        assert seen["Config"]["Labels"]["corral.yard"] == f"{corral.yard}.engines"
        assert await corral.fleet.list() == [], "it is no container of the fleet's"
        (status,) = corral.supervisor.statuses()
        assert status.state is State.READY
        assert await corral.unload("smollm2")
        assert docker.seen() == {}
        await corral.load("smollm2")
    until(lambda: docker.seen() == {})


def test_a_server_takes_away_what_a_killed_one_left(tmp_path, docker, model_store, engine_entrypoint):
    options = {"image": docker.image(CORRAL), "entrypoint": engine_entrypoint, "network": "host", "context": 256}
    model = {"runtime": "container", "options": options, "preload": True}
    config = yaml.safe_dump({"docker": {"host": docker.address}, "models": {"smollm2": model}})
    with corral_server(tmp_path, config, models_dir=model_store) as server:
        until(lambda: any(seen["State"]["Running"] for seen in docker.seen().values()), within=60)
        server.process.kill()
        server.process.wait()
    (left,) = docker.seen()
    later = yaml.safe_dump({"docker": {"host": docker.address}, "models": {"smollm2": {**model, "preload": False}}})
    with corral_server(tmp_path, later, models_dir=model_store):
        until(lambda: left not in docker.seen(), within=90)
    assert docker.seen() == {}
