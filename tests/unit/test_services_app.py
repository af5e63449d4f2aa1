"""The facade over services, with managers that are played."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from corral.app import Corral
from corral.app.services import Services
from corral.config import load
from corral.domain.ports import Availability
from corral.domain.services import ServiceSpec, ServiceState, ServiceStatus
from corral.errors import ConfigError, InvalidName, ModelNotFound, ServiceError, ServiceNotFound
from corral.services.folder import Folder, Record
from support.clocks import HandClock, Restless

FILE = """
services:
  web: {kind: command, options: {command: [/bin/true], port: 18300}, start_timeout: 5s}
  named: {kind: command, manager: local, options: {command: [/bin/true]}}
  wrong: {kind: command, manager: upstart, options: {command: [/bin/true]}}
  broken: {kind: command, options: {comand: [x]}}
  model: {kind: vllm, options: {model: nobody, executable: /bin/true}}
"""


class Played:
    """A manager that goes through `states`, one at each look, once it is started."""

    def __init__(self, name: str, *, usable: bool = True) -> None:
        self.name = name
        self.usable = usable
        self.states = [ServiceState.STARTING, ServiceState.RUNNING]
        self.state = ServiceState.STOPPED
        self.done: list[str] = []
        self.at_work = 0

    async def probe(self) -> Availability:
        return Availability(self.usable, reason="" if self.usable else "It is played out.", hint="Play on.")

    async def install(self, spec: ServiceSpec) -> None:
        self.done.append(f"install {spec.name}")

    async def uninstall(self, spec: ServiceSpec) -> None:
        self.done.append(f"uninstall {spec.name}")

    async def start(self, spec: ServiceSpec) -> bool:
        self.at_work += 1
        assert self.at_work == 1
        await asyncio.sleep(0)
        self.at_work -= 1
        self.done.append(f"start {spec.name}")
        self.state = self.states[0]
        return True

    async def stop(self, spec: ServiceSpec) -> bool:
        self.done.append(f"stop {spec.name}")
        self.state = ServiceState.STOPPED
        return True

    async def status(self, spec: ServiceSpec) -> ServiceStatus:
        if self.state in self.states[:-1]:
            self.state = self.states[self.states.index(self.state) + 1]
        reason = "it fell" if self.state is ServiceState.FAILED else ""
        return ServiceStatus(spec.name, spec.kind, self.name, self.state, reason=reason)

    async def log(self, spec: ServiceSpec, lines: int) -> Sequence[str]:
        return ["first", "", "no such model"][-lines:]


class Bench:
    def __init__(self, folder: Path) -> None:
        file = folder / "corral.yaml"
        file.write_text(FILE)
        self.corral = Corral(load({"HOME": str(folder)}, file=file), env={}, clock=Restless())
        self.managers = {name: Played(name) for name in ("systemd-user", "systemd", "local")}
        self.services = Services(self.corral, self.managers)

    @property
    def done(self) -> list[str]:
        return [entry for manager in self.managers.values() for entry in manager.done]


@pytest.fixture
async def bench(tmp_path: Path):
    built = Bench(tmp_path)
    yield built
    await built.corral.close()


async def test_systemd_keeps_them_where_it_can_and_local_processes_elsewhere(bench: Bench) -> None:
    assert (await bench.services.manager("web")).name in ("systemd", "systemd-user")
    assert (await bench.services.manager("named")).name == "local"

    folder = Folder(bench.corral.settings.home, "web")
    folder.make()
    folder.write(Record(ServiceState.RUNNING))
    assert (await bench.services.manager("web")).name == "local"  # it has been started so
    folder.write(Record(ServiceState.STOPPED))

    for name in ("systemd", "systemd-user"):
        bench.managers[name].usable = False
    fresh = Services(bench.corral, bench.managers)
    assert (await fresh.manager("web")).name == "local"
    with pytest.raises(ConfigError, match="upstart"):
        await fresh.manager("wrong")
    bench.managers["local"].usable = False
    with pytest.raises(ServiceError, match="played out"):
        await fresh.manager("named")


async def test_a_start_waits_until_it_is_healthy_or_does_not(bench: Bench) -> None:
    assert (await bench.services.start("web")).state is ServiceState.RUNNING
    bench.managers["local"].states = [ServiceState.WAITING, ServiceState.STARTING, ServiceState.RUNNING]
    assert (await bench.services.start("named", wait=False)).state is ServiceState.STARTING
    assert (await bench.services.restart("named")).state is ServiceState.RUNNING
    assert bench.managers["local"].done == ["start named", "stop named", "start named"]
    assert (await bench.services.stop("web")).state is ServiceState.STOPPED


@pytest.mark.parametrize(
    ("states", "why"), [([ServiceState.FAILED], "it fell"), ([ServiceState.STARTING], "not healthy yet")]
)
async def test_one_that_does_not_become_healthy_is_an_error_with_its_last_words(
    bench: Bench, states: list[ServiceState], why: str
) -> None:
    for manager in bench.managers.values():
        manager.states = states

    with pytest.raises(ServiceError, match=why) as caught:
        await bench.services.start("web")

    assert "It last said: first | no such model." in caught.value.message
    assert "corral services logs web" in caught.value.hint


async def test_what_is_done_to_one_is_done_one_after_the_other(bench: Bench) -> None:
    await asyncio.gather(*(bench.services.restart("web") for _ in range(3)))

    assert bench.done == ["stop web", "start web"] * 3


@pytest.mark.parametrize("how", ["start", "restart"])
async def test_one_that_is_starting_can_be_stopped(bench: Bench, how: str) -> None:
    clock = bench.corral.clock = HandClock()
    manager = bench.managers["local"]
    manager.states = [ServiceState.STARTING]
    starting = asyncio.create_task(getattr(bench.services, how)("named"))
    while manager.state is not ServiceState.STARTING:
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await bench.services.stop("named")
    assert not starting.done()
    await clock.advance(1)
    with pytest.raises(ServiceError, match="did not become healthy"):
        await starting
    assert manager.done[-1] == "stop named"


async def test_a_list_has_the_wrong_ones_too_and_says_why(bench: Bench) -> None:
    found = {status.name: status for status in await bench.services.list()}

    assert list(found) == ["broken", "model", "named", "web", "wrong"]
    assert found["web"].state is ServiceState.STOPPED
    assert "Did you mean 'command'?" in found["broken"].reason
    assert "nobody" in found["model"].reason
    assert "upstart" in found["wrong"].reason
    assert {found[name].state for name in ("broken", "model", "wrong")} == {ServiceState.FAILED}


async def test_names_that_nothing_has(bench: Bench) -> None:
    with pytest.raises(ServiceNotFound, match="web") as caught:
        await bench.services.start("wep")
    assert caught.value.hint == "Did you mean web?"
    with pytest.raises(ServiceNotFound):
        await bench.services.status("zzzzzz")
    with pytest.raises(InvalidName):
        await bench.services.log("../x")
    with pytest.raises(ModelNotFound):
        bench.services.spec("model")


async def test_the_rest_is_the_manager_s(bench: Bench, tmp_path: Path) -> None:
    await bench.services.install("named")
    await bench.services.uninstall("named")

    assert bench.done == ["install named", "uninstall named"]
    assert list(await bench.services.log("named", 1)) == ["no such model"]
    assert bench.services.names() == ["broken", "model", "named", "web", "wrong"]


async def test_a_folder_can_be_a_model(tmp_path: Path) -> None:
    (tmp_path / "snapshot").mkdir()
    file = tmp_path / "corral.yaml"
    file.write_text(f"services: {{v: {{kind: vllm, options: {{model: {tmp_path}/snapshot, executable: /bin/true}}}}}}")
    corral = Corral(load({"HOME": str(tmp_path)}, file=file), env={})

    assert Services(corral).spec("v").argv[2] == f"{tmp_path}/snapshot"
    await corral.close()
