"""The manager that speaks to systemd, with a systemd that is played: what is asked, and what is made of its answers."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from corral.domain.services import ServiceSpec, ServiceState
from corral.errors import InvalidName, ServiceError
from corral.services.systemd import Done, SystemdServices
from support.clocks import HandClock

SPEC = ServiceSpec("web", "command", ("/bin/true",), {"TOKEN": "s3cr3t"})
STATE = {
    "LoadState": "loaded",
    "ActiveState": "inactive",
    "SubState": "dead",
    "Job": "0",
    "MainPID": "0",
    "NRestarts": "0",
    "Result": "success",
    "ExecMainCode": "0",
    "ExecMainStatus": "0",
    "MemoryCurrent": "[not set]",
    "UnitFileState": "disabled",
}
RUNNING = {
    "ActiveState": "active",
    "SubState": "running",
    "MainPID": "7",
    "NRestarts": "2",
    "MemoryCurrent": "5000",
    "StateChangeTimestampMonotonic": "990000000",
    "ExecMainStartTimestampMonotonic": "980000000",
}


class Played:
    """systemd's programs. `told` is what `show` answers; `refuses` are words that fail."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.told: dict[str, str] = {}
        self.refuses: dict[str, str] = {}
        self.version = "systemd 252 (252.1)"
        self.env: Mapping[str, str] = {}
        self.verified = ""

    async def __call__(self, argv: Sequence[str], environment: Mapping[str, str], timeout: float) -> Done:
        assert timeout > 0
        self.env = environment
        words = [word for word in argv if not word.startswith("--") or word == "--version"]
        self.asked.append(" ".join(words))
        for word, why in self.refuses.items():
            if word in argv:
                return Done(1, "", f"{why}.\nmore\n")
        if "--version" in argv:
            return Done(0, f"{self.version}\n+PAM\n", "")
        if argv[0] == "systemd-analyze":
            self.verified = Path(argv[-1]).read_text()
        if argv[0] == "journalctl":
            return Done(0, "one\ntwo\n", "")
        return Done(0, "".join(f"{name}={value}\n" for name, value in {**STATE, **self.told}.items()), "")

    @property
    def orders(self) -> list[str]:
        return [word.removeprefix("systemctl ") for word in self.asked if "version" not in word and " show" not in word]


class Bench:
    def __init__(self, folder: Path, *, user: bool = True) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self.played = Played()
        self.clock = HandClock()
        env = {"HOME": str(folder), "PATH": "/bin", "SOME_API_KEY": "s3cr3t-other"}
        self.manager = SystemdServices(
            self.home, env, self.clock, user=user, run=self.played, runs=folder, linger=folder / "linger"
        )
        self.unit = folder / ".config/systemd/user/corral-web.service"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_a_start_writes_checks_loads_and_starts(bench: Bench) -> None:
    assert await bench.manager.start(SPEC)

    assert [order.partition(" ")[0] for order in bench.played.orders] == [
        *("systemd-analyze", "daemon-reload", "reset-failed", "start")
    ]
    assert bench.unit.read_text() == bench.played.verified
    variables = bench.unit.with_name("corral-web.environment")
    assert variables.read_text() == 'PATH="/bin"\nTOKEN="s3cr3t"\n'
    assert oct(variables.stat().st_mode)[-3:] == "600"
    assert "s3cr3t" not in bench.unit.read_text()

    bench.played.asked.clear()
    await bench.manager.start(SPEC)
    assert bench.played.orders == ["reset-failed corral-web.service", "start corral-web.service"]


async def test_one_that_is_up_is_left_and_one_that_is_down_is_not_stopped(bench: Bench) -> None:
    assert not await bench.manager.stop(SPEC)
    bench.played.told = RUNNING
    assert not await bench.manager.start(SPEC)
    assert bench.played.orders == []
    assert await bench.manager.stop(SPEC)
    assert bench.played.orders == ["stop corral-web.service"]


async def test_a_unit_that_systemd_refuses_is_not_put_in_place(bench: Bench) -> None:
    bench.played.refuses = {"verify": "corral-web.service: Command is not executable"}

    with pytest.raises(ServiceError, match="Command is not executable"):
        await bench.manager.start(SPEC)

    assert not bench.unit.exists()


async def test_a_unit_of_somebody_else_is_neither_replaced_nor_removed(bench: Bench) -> None:
    bench.unit.parent.mkdir(parents=True)
    bench.unit.write_text("[Service]\nExecStart=/bin/other\n")

    for work in (bench.manager.start, bench.manager.install, bench.manager.uninstall):
        with pytest.raises(ServiceError, match="not written by Corral"):
            await work(SPEC)

    assert "other" in bench.unit.read_text()
    bench.unit.unlink()
    bench.unit.mkdir()
    with pytest.raises(ServiceError, match="cannot be read"):
        await bench.manager.install(SPEC)


async def test_install_enables_and_uninstall_removes_all(bench: Bench) -> None:
    await bench.manager.install(SPEC)
    assert bench.played.orders[-1] == "enable corral-web.service"

    bench.played.asked.clear()
    await bench.manager.uninstall(SPEC)

    assert bench.played.orders == ["disable corral-web.service", "daemon-reload", "reset-failed corral-web.service"]
    assert not bench.unit.exists()
    assert list(bench.unit.parent.iterdir()) == []
    bench.played.asked.clear()
    await bench.manager.uninstall(SPEC)
    assert bench.played.orders == []


@pytest.mark.parametrize(
    ("told", "state", "reason", "last"),
    [
        ({}, "stopped", "", None),
        ({"Job": "17"}, "starting", "", None),
        ({"ActiveState": "activating", "SubState": "start"}, "starting", "", None),
        ({"ActiveState": "deactivating", "SubState": "stop-sigterm"}, "stopping", "", None),
        (
            {"ActiveState": "activating", "SubState": "auto-restart", "Result": "signal", "ExecMainCode": "2"},
            *("waiting", "it was ended by a signal", "was ended by signal 0"),
        ),
        (
            {"ActiveState": "failed", "Result": "start-limit-hit", "ExecMainCode": "1", "ExecMainStatus": "3"},
            *("failed", "it ended too often in a row", "exited with code 3"),
        ),
        ({"ActiveState": "failed", "Result": "oom-kill"}, "failed", "the system ended it for want of memory", None),
        (RUNNING, "running", "", None),
    ],
)
async def test_what_systemd_says_in_our_words(
    bench: Bench, told: dict[str, str], state: str, reason: str, last: str | None
) -> None:
    bench.played.told = told

    found = await bench.manager.status(SPEC)

    assert (found.state, found.reason, found.last_exit) == (state, reason, last)


async def test_figures_of_one_that_runs(bench: Bench) -> None:
    await bench.manager.start(SPEC)
    bench.played.told = {**RUNNING, "UnitFileState": "enabled"}

    found = await bench.manager.status(SPEC)

    assert (found.pid, found.restarts, found.memory, found.healthy) == (7, 2, 5000, None)
    assert found.started_at == bench.clock.wall() - 20
    assert found.since == bench.clock.wall() - 10
    assert found.installed
    assert found.log == "journalctl --user --unit corral-web.service"
    assert found.notes == ("it ends with your last session here; keep it with: loginctl enable-linger",)
    assert list(await bench.manager.log(SPEC, 2)) == ["one", "two"]


async def test_one_that_has_only_begun_and_cannot_be_asked_is_starting(bench: Bench) -> None:
    bench.played.told = {**RUNNING, "ExecMainStartTimestampMonotonic": "999500000"}

    assert (await bench.manager.status(SPEC)).state is ServiceState.STARTING


async def test_a_change_of_the_configuration_is_noticed_and_another_terminal_is_none(bench: Bench) -> None:
    await bench.manager.start(SPEC)
    elsewhere = SystemdServices(
        bench.home,
        {"HOME": str(bench.home.parent), "PATH": "/other"},
        bench.clock,
        user=True,
        run=bench.played,
        runs=bench.home,
        linger=bench.home.parent / "linger",
    )

    (bench.home.parent / "linger").mkdir()
    (bench.home.parent / "linger" / pwd.getpwuid(os.getuid()).pw_name).touch()
    assert (await elsewhere.status(SPEC)).notes == ()
    for changed in (
        replace(SPEC, environment={"TOKEN": "new"}),
        replace(SPEC, environment={}),
        replace(SPEC, memory=1),
    ):
        assert "has changed" in (await elsewhere.status(changed)).notes[0]


async def test_whether_it_can_be_used_is_told_with_the_reason(bench: Bench, tmp_path: Path) -> None:
    assert (await bench.manager.probe()).version == "252"

    bench.played.version = "systemd 243 (243)"
    assert "too old" in (await bench.manager.probe()).reason
    bench.played.version = "something"
    assert "version" in (await bench.manager.probe()).reason
    bench.played.refuses = {"show": "Failed to connect to bus"}
    bench.played.version = "systemd 252"
    assert "Failed to connect to bus" in (await bench.manager.probe()).reason
    nowhere = SystemdServices(tmp_path, {}, bench.clock, user=True, run=bench.played, runs=tmp_path / "none")
    assert "does not run here" in (await nowhere.probe()).reason
    machine = SystemdServices(tmp_path, {}, bench.clock, user=False, run=bench.played, runs=tmp_path)
    bench.played.refuses = {}
    assert (await machine.probe()).usable == (os.geteuid() == 0)


async def test_what_systemd_refuses_is_said(bench: Bench) -> None:
    bench.played.refuses = {"start": "Unit is masked", "journalctl": "No access"}

    with pytest.raises(ServiceError, match="Unit is masked"):
        await bench.manager.start(SPEC)
    with pytest.raises(ServiceError, match="No access"):
        await bench.manager.log(SPEC, 5)


@pytest.mark.parametrize("name", ["../evil", "a b", "x.service"])
async def test_no_name_reaches_systemd_that_is_not_allowed(bench: Bench, name: str) -> None:
    with pytest.raises(InvalidName):
        await bench.manager.status(replace(SPEC, name=name))

    assert bench.played.asked == []
