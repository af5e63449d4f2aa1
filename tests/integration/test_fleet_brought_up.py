"""Containers brought up from a configuration, made anew, taken down: what is done, and what is only said."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from corral.app.fleet import Fleet
from corral.domain.containers import NAME_LABEL, SPEC_LABEL, YARD_LABEL
from corral.domain.standings import ContainerState as State
from corral.domain.standings import Step
from corral.errors import ConfigError, Conflict, ContainerNotFound, ContainerUnhealthy, DockerUnavailable, PortTaken
from tests.support.docker import TINY, Engine
from tests.support.kept import Counted, Place, reach, states, tiny, truth
from tests.support.ports import free_port

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def place(docker: Engine, tmp_path: Path) -> Place:
    docker.image(TINY)
    return Place(docker, tmp_path)


async def test_up_then_nothing_to_do_then_down(place: Place) -> None:
    place.write({"one": tiny(purpose="code"), "two": tiny(), "off": tiny(enabled=False)})
    async with place.corral() as corral:
        fleet = corral.fleet
        planned = {step.name: step.step for step in await fleet.plan()}
        assert planned == {"one": Step.CREATE, "two": Step.CREATE, "off": Step.KEEP}
        assert place.docker.seen() == {}  # a plan does nothing
        up = await fleet.up()
        assert states(up) == {"one": State.HEALTHY, "two": State.HEALTHY, "off": State.ABSENT}
        assert {step.step for step in await fleet.plan()} == {Step.KEEP}
        assert truth(place.docker, await fleet.works.rows.yard()).keys() == {"one", "two"}
    async with place.corral() as corral:  # another process finds it as it is
        assert states(await corral.fleet.list()) == {"one": State.HEALTHY, "two": State.HEALTHY, "off": State.ABSENT}
        assert {step.step for step in await corral.fleet.plan(down=True)} == {Step.REMOVE, Step.KEEP}
        down = await corral.fleet.down()
        assert set(states(down).values()) == {State.ABSENT}
        assert place.docker.seen() == {}


async def test_least_privilege_is_what_docker_has(place: Place) -> None:
    place.write({"one": tiny(read_only=True, memory="64MB", cpus=0.5, pids=50)})
    async with place.corral() as corral:
        await corral.fleet.up()
        seen = place.docker.seen()["corral-one"]["HostConfig"]
    assert seen["CapDrop"] == ["ALL"]
    assert not seen["Privileged"]
    assert seen["ReadonlyRootfs"]
    assert any("no-new-privileges" in option for option in seen["SecurityOpt"])
    assert seen["RestartPolicy"]["Name"] in ("", "no")
    assert (seen["Memory"], seen["MemorySwap"], seen["PidsLimit"]) == (64_000_000, 64_000_000, 50)


async def test_what_is_configured_otherwise_is_made_anew(place: Place) -> None:
    place.write({"one": tiny(), "two": tiny()})
    async with place.corral() as corral:
        first = {each.name: each.id for each in await corral.fleet.up()}
    one, two = tiny(labels={"a": "b"}), tiny()
    place.write({"one": one, "two": two})
    async with place.corral() as corral:
        planned = {step.name: step.step for step in await corral.fleet.plan(["one"])}
        assert planned == {"one": Step.RECREATE}
        status = await corral.fleet.status("one")
        assert status.drift
        (again,) = await corral.fleet.up(["one"])
        assert again.state is State.HEALTHY
        assert again.id != first["one"]
        assert not again.drift
    there = place.docker.seen()
    assert set(there) == {"corral-one", "corral-two"}  # nothing is left aside
    assert there["corral-two"]["Id"] == first["two"]


async def test_one_that_is_not_well_when_made_anew_is_undone(place: Place) -> None:
    port = free_port()
    place.write({"one": tiny(port=port)})
    async with place.corral() as corral:
        (first,) = await corral.fleet.up()
    place.write({"one": tiny("say", "no way", "exit", "7", port=port, restart=False)})
    async with place.corral() as corral:
        (told,) = await corral.fleet.up()
        assert "exit code 7" in told.reason
        assert "no way" in told.reason
    seen = place.docker.seen()
    assert set(seen) == {"corral-one"}
    assert seen["corral-one"]["Id"] == first.id
    assert seen["corral-one"]["State"]["Running"]


@pytest.mark.parametrize("well", [True, False])
async def test_what_was_cut_short_is_brought_to_an_end(place: Place, well: bool) -> None:
    port = free_port()
    place.write({"one": tiny(port=port)})
    async with place.corral() as corral:
        (first,) = await corral.fleet.up()
        labels = place.docker.seen()["corral-one"]["Config"]["Labels"]
    await place.by_hand("stop", "--time", "1", "corral-one")
    await place.by_hand("rename", "corral-one", "corral-one.before")
    if well:  # Corral ended when the successor was up, else before it was made
        given = [f"--label={name}={labels[name]}" for name in (YARD_LABEL, NAME_LABEL, SPEC_LABEL)]
        serve = [TINY, "serve", str(port), "127.0.0.1"]
        await place.by_hand("run", "--detach", "--network", "host", "--name", "corral-one", *given, *serve)
    async with place.corral(keep=True) as corral:
        now = await reach(corral.fleet, "one", State.HEALTHY)
        assert (now.id == first.id) is not well
        async with asyncio.timeout(90):
            while set(place.docker.seen()) != {"corral-one"}:
                await asyncio.sleep(0.05)


async def test_an_orphan_is_reported_then_adopted_or_removed(place: Place) -> None:
    place.write({"one": tiny(), "old": tiny(labels={"kept": "yes"}, purpose="what was")})
    async with place.corral() as corral:
        await corral.fleet.up()
    place.write({"one": tiny()})
    async with place.corral() as corral:
        fleet = corral.fleet
        assert states(await fleet.list())["old"] is State.ORPHAN
        await fleet.up(["one"])
        assert {step.name: step.step for step in await fleet.plan()}["old"] is Step.ORPHAN
        entry = await fleet.adopt("old")
        assert (entry["image"], entry["labels"], entry["purpose"]) == (TINY, {"kept": "yes"}, "what was")
        assert {step.name: step.step for step in await fleet.plan(orphans="remove")}["old"] is Step.REMOVE
        await fleet.up(orphans="remove")
        assert "old" not in states(await fleet.list())
    assert set(place.docker.seen()) == {"corral-one"}


async def test_two_corrals_on_one_engine_leave_each_other_alone(docker: Engine, tmp_path: Path) -> None:
    docker.image(TINY)
    here, there = Place(docker, tmp_path / "here"), Place(docker, tmp_path / "there")
    port = free_port()
    here.write({"one": tiny(port=port)})
    there.write({"one": tiny(port=port)})
    async with here.corral(keep=True) as ours, there.corral() as theirs:
        first = await reach(ours.fleet, "one", State.HEALTHY)
        told = {each.name: each.reason for each in await theirs.fleet.up(wait=False)}
        assert "another Corral" in told["one"]
        await theirs.fleet.down()
        assert [each.id for each in await ours.fleet.list()] == [first.id]
        assert "one" in states(await theirs.fleet.list())
        assert states(await theirs.fleet.list())["one"] is State.ABSENT
    assert docker.seen()["corral-one"]["State"]["Running"]


async def test_without_docker_everything_is_told(tmp_path: Path) -> None:
    place = Place(None, tmp_path, address=f"unix://{tmp_path}/nothing.sock")  # type: ignore[arg-type]
    place.write({"one": tiny(models=["m"])})
    async with place.corral(keep=True) as corral:
        fleet = corral.fleet
        (one,) = await fleet.list()
        assert one.state is State.UNKNOWN
        assert "nothing.sock" in one.reason
        assert (await fleet.status("one")).state is State.UNKNOWN
        stack = await fleet.stack()
        assert (stack["engine"], stack["containers"]) == (None, {"unknown": 1})
        for refused in (fleet.up(), fleet.start("one"), fleet.down(), fleet.sync(), fleet.plan(), fleet.usage("one")):
            with pytest.raises(DockerUnavailable):
                await refused
        assert (await fleet.history("one"))[0].after == "unknown"


async def test_a_daemon_that_dies_while_it_is_worked_with(place: Place) -> None:
    place.write({f"c{number}": tiny() for number in range(4)}, docker={"parallel": 1})
    async with place.corral() as corral:
        bringing = asyncio.ensure_future(corral.fleet.up())
        await reach(corral.fleet, "c0", State.STARTING, State.HEALTHY)
        await asyncio.to_thread(place.docker.kill)
        told = await bringing
        assert any("Docker" in each.reason for each in told)
        await asyncio.to_thread(place.docker.start)
        assert set(states(await corral.fleet.up()).values()) == {State.HEALTHY}


async def test_what_is_wrong_is_said_and_the_others_are_up(place: Place) -> None:
    taken = socket.socket()
    with taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        place.write(
            {
                "good": tiny(),
                "nowhere": tiny(image="corral-test/none:1"),
                "pinned": tiny(digest="sha256:" + "0" * 64),
                "ends": tiny("say", "bad", "exit", "5", restart=False),
                "late": tiny("wait", start_timeout=1, port=port),
            }
        )
        async with place.corral() as corral:
            told = {each.name: each for each in await corral.fleet.up(pull=False)}
            assert told["good"].state is State.HEALTHY
            assert "corral-test/none:1 is not here" in told["nowhere"].reason
            assert "is not here" in told["pinned"].reason
            assert "exit code 5" in told["ends"].reason
            assert told["late"].state is not State.HEALTHY
            with pytest.raises(ContainerUnhealthy, match="bad"):
                await corral.fleet.start("ends")


async def test_a_digest_pin_takes_exactly_that_image(place: Place) -> None:
    image = place.docker.json("image", "inspect", TINY)["Id"]
    place.write({"one": tiny(digest=image)})
    async with place.corral() as corral:
        (up,) = await corral.fleet.up(pull=False)
        assert (up.state, up.image_id) == (State.HEALTHY, image)
        (version,) = await corral.fleet.versions("one")
        assert (version["version"], version["status"], version["model"]) == (image, "current", None)


async def test_a_published_port_that_is_taken_says_by_whom(bridged: Engine, tmp_path: Path) -> None:
    bridged.image(TINY)
    place, port = Place(bridged, tmp_path), 18080
    await place.by_hand("run", "--detach", "--name", "other", "--publish", f"127.0.0.1:{port}:80", TINY, "wait")
    place.write({"one": tiny("wait", port=port, inside=80, network="bridge")})
    async with place.corral() as corral:
        (told,) = await corral.fleet.up(wait=False)
        assert str(port) in told.reason
        assert "other" in told.reason
        with pytest.raises(PortTaken):
            await corral.fleet.start("one", wait=False)


async def test_names_that_are_nobodys(place: Place) -> None:
    place.write({"coder": tiny()})
    async with place.corral() as corral:
        with pytest.raises(ContainerNotFound) as caught:
            await corral.fleet.up(["codr"])
        assert "coder" in (caught.value.hint or "")
        with pytest.raises(ContainerNotFound):
            await corral.fleet.remove("coder")
        await corral.fleet.up()
        with pytest.raises(Conflict):
            await corral.fleet.remove("coder")
        await corral.fleet.remove("coder", force=True)
        assert place.docker.seen() == {}
        assert not (await corral.fleet.status("coder")).wanted


async def test_fifty_containers_with_nothing_to_do_are_one_list(place: Place) -> None:
    image = tiny("wait")
    ports = range(20_000, 20_050)
    place.write({f"c{port}": {**image, "port": port, "inside": port} for port in ports}, docker={"parallel": 8})
    async with place.corral() as corral:
        await corral.fleet.up(wait=False)
    async with place.corral() as corral:
        counted = Counted(corral.docker)
        fleet = Fleet(corral, counted)
        steps = await fleet.plan()
        assert {step.step for step in steps} == {Step.KEEP}
        assert counted.calls == ["list"]
        counted.calls.clear()
        await fleet.up(wait=False)
        assert counted.calls == ["list"]
        counted.calls.clear()
        assert len(await fleet.list()) == 50
        assert counted.calls == ["list"]
        await fleet.down()
        assert place.docker.seen() == {}


async def test_a_reload_brings_up_what_is_new_and_leaves_the_rest(place: Place) -> None:
    place.write({"one": tiny(models=["m1"])})
    async with place.corral(keep=True) as corral:
        first = await reach(corral.fleet, "one", State.UNHEALTHY)
        content = (place.folder / ".corral" / "corral.yaml").read_text()
        assert "m1" in corral.names()
        place.write({"two": tiny(models=["m2"])})
        await corral.reloading.reload()
        await reach(corral.fleet, "two", State.UNHEALTHY)
        await reach(corral.fleet, "one", State.ORPHAN)
        assert "m2" in corral.names()
        assert "m1" not in corral.names()
        (place.folder / ".corral" / "corral.yaml").write_text(content)
        await corral.reloading.reload()
        assert (await reach(corral.fleet, "one", State.UNHEALTHY, State.STARTING)).id == first.id
        place.write({"two": {"image": TINY, "kind": "openai", "volumes": {"/etc": "/x"}}})
        with pytest.raises(ConfigError):
            await corral.reloading.reload()
        assert "m1" in corral.names()
