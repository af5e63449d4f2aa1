"""The adapter on a real Docker engine: what it does is what the engine then shows, and every failure has our words."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from corral.containers.contexts import Places
from corral.containers.docker import Docker
from corral.containers.ports import programs_with
from corral.domain.containers import ContainerEngine, ContainerSpec, Mount, Port, Usage
from corral.domain.hardware import Gpu, GpuProcess
from corral.errors import (
    ConfigError,
    Conflict,
    ContainerError,
    ContainerNotFound,
    DockerUnavailable,
    ImageNotFound,
    PortTaken,
)
from tests.support.docker import TINY, Engine
from tests.support.ports import free_port

YARD = "yard-of-tests"


def spec(name: str = "one", *command: str, **more: Any) -> ContainerSpec:
    base: dict[str, Any] = {"network": "none", "kind": "openai", "image": TINY, "command": command or ("wait",)}
    return ContainerSpec(name=name, container=f"corral-{name}", **{**base, **more})


@contextlib.asynccontextmanager
async def engine(docker: Engine, **more: Any) -> AsyncIterator[Docker]:
    docker.image(TINY)
    made = Docker(Places(host=docker.address, env={}), timeout=60, **more)
    try:
        yield made
    finally:
        await made.close()


def with_engine(docker: Engine, work: Any, **more: Any) -> Any:
    async def run() -> Any:
        async with engine(docker, **more) as made, asyncio.timeout(90):
            return await work(made)

    return asyncio.run(run())


def test_it_is_a_container_engine_and_says_what_it_is(docker: Engine):
    async def work(made: Docker) -> None:
        assert isinstance(made, ContainerEngine)
        info = await made.info()
        said = docker.json("info")
        assert (info.version, info.root, info.memory) == (
            said["ServerVersion"],
            said["DockerRootDir"],
            said["MemTotal"],
        )
        assert info.address == docker.address
        assert "runc" in info.runtimes
        assert tuple(map(int, info.api.split("."))) >= (1, 40)

    with_engine(docker, work)


def test_a_container_from_its_making_to_its_end(docker: Engine):
    wanted = spec()

    async def work(made: Docker) -> None:
        assert await made.list() == ()
        made_id = await made.create(wanted, YARD)
        seen = await made.inspect("corral-one")
        assert (seen.id, seen.yard, seen.name, seen.spec) == (made_id, YARD, "one", wanted.fingerprint())
        assert (seen.created_only, seen.running, seen.exit_code, seen.started_at) == (True, False, None, None)
        assert await made.start(made_id) is True
        assert await made.start(made_id) is False
        seen = await made.inspect(made_id)
        assert seen.running
        assert (seen.started_at or 0) >= (seen.created_at or 0) > 1_700_000_000
        assert docker.seen()["corral-one"]["State"]["Running"] is True
        assert await made.stop(made_id, 5) is True
        assert await made.stop(made_id, 5) is False
        (listed,) = await made.list(YARD)
        assert (listed.running, listed.exit_code, listed.container) == (False, 143, "corral-one")
        await made.rename(made_id, "corral-other")
        assert set(docker.seen()) == {"corral-other"}
        assert await made.remove(made_id) is True
        assert await made.remove(made_id) is False
        assert docker.seen() == {}

    with_engine(docker, work)


def test_no_container_has_a_right_that_it_does_not_need(docker: Engine, tmp_path: Path):
    wanted = spec(
        read_only=True,
        tmpfs={"/tmp": "size=8m"},
        memory=64 * 1024**2,
        cpus=0.5,
        shm=32 * 1024**2,
        user="65534:65534",
        capabilities=("NET_BIND_SERVICE",),
        environment={"SECRET": "x y=z"},
        mounts=(Mount("weights", "/models"), Mount(str(tmp_path), "/data", read_only=True)),
        labels={"team": "tests"},
        working="/www",
        stop_grace=7,
    )

    async def work(made: Docker) -> ContainerSpec:
        await made.create(wanted, YARD)
        await made.start("corral-one")
        return await made.describe("corral-one")

    described = with_engine(docker, work)
    found = docker.seen()["corral-one"]
    host = found["HostConfig"]
    assert host["Privileged"] is False
    assert host["CapDrop"] == ["ALL"]
    assert [name.removeprefix("CAP_") for name in host["CapAdd"]] == ["NET_BIND_SERVICE"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["ReadonlyRootfs"] is True
    assert host["RestartPolicy"]["Name"] in ("no", "")
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (64 * 1024**2, 64 * 1024**2, 500_000_000)
    assert host["PidsLimit"] > 0
    assert docker.cli("exec", "corral-one", "id", "-u") == "65534"
    assert docker.run("exec", "corral-one", "touch", "/data/x").returncode != 0
    assert docker.run("exec", "corral-one", "touch", "/new").returncode != 0
    assert docker.cli("exec", "corral-one", "cat", "/proc/self/status").count("CapEff:\t0000000000000000") == 1
    assert replace(described, kind="openai") == wanted


@pytest.mark.parametrize(
    "source", ["/", "/etc", "/etc/ssl", "/proc", "/sys/fs", "/dev", "/var", "/run", "socket", "data", "link"]
)
def test_folders_from_which_the_machine_could_be_had_are_refused(docker: Engine, tmp_path: Path, source: str):
    (tmp_path / "link").symlink_to("/etc")
    places = {"socket": str(docker.socket), "data": f"{docker.folder}/data/overlay2", "link": str(tmp_path / "link")}
    wanted = spec(mounts=(Mount(places.get(source, source), "/inside"),))
    with pytest.raises(ConfigError, match="is not mounted"):
        with_engine(docker, lambda made: made.create(wanted, YARD))
    assert docker.seen() == {}


def test_what_is_missing_or_in_the_way_is_named(docker: Engine):
    async def work(made: Docker) -> None:
        with pytest.raises(ImageNotFound, match="no-such/image:1"):
            await made.create(spec(image="no-such/image:1"), YARD)
        for call in (made.inspect("gone"), made.start("gone"), made.describe("gone"), made.usage("gone")):
            with pytest.raises(ContainerNotFound):
                await call
        with pytest.raises(ContainerNotFound):
            await anext(made.logs("gone", lines=1))
        await made.create(spec(), "another-yard")
        with pytest.raises(Conflict, match="another Corral's"):
            await made.create(spec(), YARD)
        docker.cli("create", "--name", "corral-two", "--network", "none", TINY)
        with pytest.raises(Conflict, match="not Corral's"):
            await made.create(spec("two"), YARD)
        await made.start("corral-one")
        with pytest.raises(Conflict):
            await made.remove("corral-one")
        assert await made.remove("corral-one", force=True)
        await made.create(spec("three", network="nowhere"), YARD)
        with pytest.raises(ContainerError, match="network") as caught:
            await made.start("corral-three")
        assert "docker network create" in caught.value.hint
        await made.create(spec("five", gpus=("all",)), YARD)
        with pytest.raises(ContainerError) as caught:
            await made.start("corral-five")
        assert "NVIDIA container toolkit" in caught.value.hint
        with pytest.raises(ConfigError, match="capabilities"):
            await made.create(spec("six", capabilities=("all",)), YARD)

    with_engine(docker, work)


def test_an_image_by_its_digest_is_that_image_whatever_its_tag_is(docker: Engine):
    async def work(made: Docker) -> None:
        found = await made.image(TINY)
        assert found is not None
        assert (found.tags, found.exposed, found.size > 1_000_000) == ((TINY,), (11434,), True)
        assert await made.image("no-such/image") is None
        await made.tag(found.id, "corral-test/kept:1")
        assert "corral-test/kept:1" in ((await made.image(found.id)) or found).tags
        await made.create(spec(digest=found.id), YARD)
        assert (await made.inspect("corral-one")).image == TINY
        await made.create(spec("two", image="corral-test/moved:1", digest=found.id), YARD)
        assert (await made.inspect("corral-two")).image_id == found.id
        with pytest.raises(ImageNotFound, match="digest"):
            await made.create(spec("three", digest="sha256:" + "0" * 64), YARD)
        docker.cli("image", "rm", "corral-test/kept:1")

    with_engine(docker, work)


def test_a_pull_that_fails_says_why(docker: Engine):
    async def work(made: Docker) -> None:
        with pytest.raises((ImageNotFound, ContainerError), match=r"127\.0\.0\.1"):
            await made.pull(f"127.0.0.1:{free_port()}/nothing:1", lambda _: None)

    with_engine(docker, work)


def test_events_are_told_as_they_happen_and_since(docker: Engine):
    async def work(made: Docker) -> None:
        events = made.events()
        first = asyncio.ensure_future(anext(events))
        await made.create(spec("one", "exit", "3"), YARD)
        while not first.done():  # the stream is there when something of it has come
            await made.create(spec("two"), YARD)
            await made.remove("corral-two")
            await asyncio.wait([first], timeout=0.2)
        begin = first.result().at
        await made.start("corral-one")
        seen = [first.result()]
        while seen[-1].what != "die":
            seen.append(await anext(events))
        died = seen[-1]
        assert (died.container, died.attributes["exitCode"], died.attributes["corral.yard"]) == (
            "corral-one",
            "3",
            YARD,
        )
        assert died.id == (await made.inspect("corral-one")).id
        assert (await made.inspect("corral-one")).exit_code == 3
        await events.aclose()
        again = made.events(since=died.at)
        assert (await anext(again)).what == "die"
        await again.aclose()
        assert begin <= died.at

    with_engine(docker, work)


def test_the_engine_goes_and_comes_in_the_middle_of_everything(docker: Engine):
    async def work(made: Docker) -> None:
        await made.create(spec("one", "print", "10"), YARD)
        await made.start("corral-one")
        events, lines, usages = made.events(), made.logs("corral-one", lines=1, follow=True), made.usages("corral-one")
        first = asyncio.ensure_future(anext(events))
        while not first.done():
            await made.create(spec("two"), YARD)
            await made.remove("corral-two")
            await asyncio.wait([first], timeout=0.2)
        await anext(lines)
        await anext(usages)
        await asyncio.to_thread(docker.kill)
        for stream in (events, lines, usages):
            with pytest.raises(DockerUnavailable):
                async for _ in stream:
                    pass
        with pytest.raises(DockerUnavailable, match=r"nobody listens|no such socket") as caught:
            await made.list()
        assert "systemctl start docker" in caught.value.hint
        await asyncio.to_thread(docker.start)
        (seen,) = await made.list(YARD)
        assert not seen.running
        assert await made.start(seen.id) is True

    with_engine(docker, work)


def test_oom_kill_is_seen(docker: Engine):
    async def work(made: Docker) -> None:
        made_id = await made.create(spec("one", "after", "2", "eat", "200", memory=32 * 1024**2), YARD)
        await made.start("corral-one")
        whats = []
        async for event in made.events(since=1):
            whats.append(event.what if event.id == made_id else "")
            if {"oom", "die"} <= set(whats):  # in which order is not said
                break
        seen = await made.inspect("corral-one")
        assert (seen.oom_killed, seen.exit_code, bool(seen.finished_at)) == (True, 137, True)

    with_engine(docker, work)


def test_lines_of_both_streams_with_times_and_long_ones_whole(docker: Engine):
    docker.image(TINY)
    long = "x" * 40_000
    words = ("warn", "wrong", "after", "0.3", "say", "out", "say", long, "exit", "0")
    docker.cli("run", "--name", "corral-one", "--network", "none", TINY, *words)
    docker.cli(
        "run", "-t", "--name", "tty", "--network", "none", TINY, "say", "of a terminal", "warn", "both", "exit", "0"
    )

    async def work(made: Docker) -> None:
        lines = [line async for line in made.logs("corral-one", lines=10)]
        assert sorted((line.text, line.error) for line in lines) == [("out", False), ("wrong", True), (long, False)]
        assert all(line.at and line.at > 1_700_000_000 for line in lines)
        assert [line.text async for line in made.logs("corral-one", lines=3)] == [long]  # three pieces
        assert [line.text async for line in made.logs("tty", lines=9, follow=True)] == ["of a terminal", "both"]

    with_engine(docker, work)


def test_a_flood_of_lines_comes_whole_and_in_order(docker: Engine):
    async def work(made: Docker) -> None:
        await made.create(spec("one", "lines", "50000", "say", "end", "exit", "0"), YARD)
        await made.start("corral-one")
        number, last = 0, ""
        async for line in made.logs("corral-one", lines=100_000, follow=True):
            if line.text != "end":
                number += 1
                assert line.text == f"line {number}"
            last = line.text
        assert (number, last) == (50_000, "end")

    with_engine(docker, work)


def test_what_a_container_takes(docker: Engine):
    async def work(made: Docker) -> list[Usage | None]:
        await made.create(spec("one", "burn", cpus=0.05, memory=64 * 1024**2), YARD)
        assert await made.usage("corral-one") is None
        await made.start("corral-one")
        found = [await made.usage("corral-one")]
        loop, took = asyncio.get_running_loop(), []
        for _ in range(5):  # the machine may stand still in some of them
            begun = loop.time()
            found[1:] = [await made.usage("corral-one")]
            took.append(loop.time() - begun)
        assert min(took) < 1.8, "the engine's own pair of samples takes two seconds, or one after the other"
        async for sample in made.usages("corral-one"):
            found.append(sample)
            if len(found) == 5:
                break
        return found

    once, again, first, *later = with_engine(docker, work)
    assert first is not None
    assert max(usage.throttled or 0 for usage in (once, again, *later)) > 0
    for usage in (once, again, *later):
        assert usage is not None
        assert 0 < (usage.cpu or 0) < 0.2
        assert usage.memory_limit == 64 * 1024**2
        assert 0 < (usage.memory or 0) < 64 * 1024**2
        assert (usage.pids or 0) >= 1
        assert usage.gpu_memory is None


def test_without_a_limit_there_is_none_and_a_stream_ends_with_its_container(docker: Engine):
    async def work(made: Docker) -> None:
        await made.create(spec("one", "after", "2", "exit", "0"), YARD)
        await made.start("corral-one")
        samples = [sample async for sample in made.usages("corral-one")]
        assert samples
        assert samples[0].memory_limit is None

    with_engine(docker, work)


def test_gpu_memory_is_told_by_the_processes_that_the_driver_names(docker: Engine):
    named: list[GpuProcess] = []
    gpu = Gpu("cuda:0", temperature=61.0, usage=40.0)

    async def work(made: Docker) -> tuple[Usage | None, Usage | None]:
        for name in ("one", "two"):
            await made.create(spec(name), YARD)
            await made.start(f"corral-{name}")
        named.append(GpuProcess(docker.seen()["corral-one"]["State"]["Pid"], 123_000_000))
        return await made.usage("corral-one"), await made.usage("corral-two")

    one, two = with_engine(docker, work, gpus=lambda: [replace(gpu, processes=tuple(named))])
    assert one is not None
    assert (one.gpu_memory, one.gpu_temperature, one.gpu_utilization) == (123_000_000, 61.0, 40.0)
    assert two is not None
    assert (two.gpu_memory, two.gpu_temperature) == (0, None)


def test_a_port_that_another_container_or_program_has(bridged: Engine):
    port, other = free_port(), free_port()

    async def work(made: Docker) -> None:
        at = {"network": "bridge", "command": ("serve", "8000")}
        await made.create(spec("one", ports=(Port(8000, port),), **at), YARD)
        await made.start("corral-one")
        assert (await made.inspect("corral-one")).ports == (Port(8000, port),)
        (listed,) = await made.list(YARD)
        assert listed.ports == (Port(8000, port),)
        await made.create(spec("two", ports=(Port(8000, port),), **at), YARD)
        with pytest.raises(PortTaken, match=rf"127\.0\.0\.1:{port} is taken by the container corral-one of the Corral"):
            await made.start("corral-two")
        await made.create(spec("three", ports=(Port(8000, other),), **at), YARD)
        with pytest.raises(PortTaken, match=f"127.0.0.1:{other}"):
            await made.start("corral-three")

    bridged.cli("run", "-d", "--network", "host", bridged.image(TINY), "serve", str(other), "127.0.0.1")
    with_engine(bridged, work)


def test_a_program_that_has_a_port_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = Port(8000, server.getsockname()[1])
        assert [str(os.getpid()) in found for found in programs_with(port)] == [True]
        assert programs_with(replace(port, host="127.0.0.2")) == []


def test_who_may_not_use_the_socket_is_told_the_group(docker: Engine, tmp_path: Path):
    nobody_there = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(nobody_there))

    async def work() -> None:
        made = Docker(Places(host=f"unix://{nobody_there}", env={}))
        try:
            with pytest.raises(DockerUnavailable, match="nobody listens"):
                await made.list()
        finally:
            await made.close()

    asyncio.run(work())
