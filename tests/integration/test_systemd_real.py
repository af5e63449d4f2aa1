"""Units under a real systemd, the machine's and a user's: started, watched, stopped, and nothing left."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest
import yaml

from support.services import SERVER
from support.systemd import HOME, USER, Machine, lacking, machine

pytestmark = pytest.mark.timeout(600)

ODD = ["$HOME", "${PATH}", "%h", "%%", "a b", 'q"q', "it's", "back\\slash", "\\t", ";", "é", "", "{braces}", "$$", "-x"]
VALUE = "a\"b\\c$d%e `x` 'y' ü #z"
SECRET = "s3cr3t-value"
_PRINT = "import json, os, sys, time; print(json.dumps([sys.argv[1:], os.environ['ODD']]), flush=True); time.sleep(1e6)"

SERVICES = {
    "web": {
        "kind": "command",
        "environment": {"HF_TOKEN": SECRET},
        "options": {
            "command": ["/usr/bin/python3", f"{HOME}/server.py", "{port}"],
            "port": 18200,
            "health": "/",
            "memory": "300MB",
        },
    },
    "deaf": {
        "kind": "command",
        "stop_grace": "500ms",
        "options": {"command": ["/usr/bin/python3", f"{HOME}/server.py", "{port}", "deaf", "forks"], "port": 18201},
    },
    "crashes": {
        "kind": "command",
        "options": {"command": ["/usr/bin/python3", f"{HOME}/server.py", "18202", "crashes"], "port": 18202},
    },
    "odd": {
        "kind": "command",
        "environment": {"ODD": VALUE},
        "options": {"command": ["/usr/bin/python3", "-c", _PRINT, *ODD]},
    },
}


@pytest.fixture(scope="module")
def yard() -> Iterator[Machine]:
    """The machine, with services configured."""
    if why := lacking():
        pytest.skip(why)
    with machine() as built:
        built.write(f"{HOME}/server.py", SERVER)
        built.write(f"{HOME}/corral.yaml", yaml.safe_dump({"services": SERVICES}))
        yield built


@pytest.fixture(params=["systemd", "systemd-user"])
def user(request: pytest.FixtureRequest) -> bool:
    """Whether it is the user's own manager."""
    return request.param == "systemd-user"


def _until(condition: Callable[[], bool], within: float = 60.0) -> None:
    """Wait until it holds; each look is a command in the container, and takes its time."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline


def _pid(yard: Machine, name: str, user: bool) -> int:
    return int(yard.systemctl("show", "--property=MainPID", "--value", f"corral-{name}.service", user=user))


def test_a_service_from_its_first_start_to_its_removal(yard: Machine, user: bool) -> None:
    up = yard.corral("services", "start", "web", user=user)
    assert (up["state"], up["healthy"], up["restarts"]) == ("running", True, 0)
    assert up["manager"] == ("systemd-user" if user else "systemd")
    assert up["pid"] == _pid(yard, "web", user)
    assert "server says hello" in yard.corral("services", "logs", "web", user=user)["lines"]
    assert yard.systemctl("is-enabled", "corral-web.service", user=user, code=None).strip() != "enabled"

    # It runs as whose home it is, without core dumps and without a way to more rights.
    status = yard.run("cat", f"/proc/{up['pid']}/status")
    assert "NoNewPrivs:\t1" in status
    assert "Uid:\t1000\t1000" in status
    limits = yard.run("grep", "core", f"/proc/{up['pid']}/limits")
    assert limits.split()[4:6] == ["0", "0"]
    unit = yard.systemctl("show", "--property=FragmentPath", "--value", "corral-web.service", user=user)
    variables = unit.replace(".service", ".environment")
    assert yard.run("stat", "--format", "%a %U", variables).split() == ["600", USER if user else "root"]
    assert SECRET not in yard.run("cat", unit)
    assert SECRET in yard.run("cat", variables)

    yard.kill(up["pid"])
    _until(lambda: _pid(yard, "web", user) not in (0, up["pid"]))
    _until(lambda: yard.corral("services", "list", user=user)["services"][3]["state"] == "running")
    again = yard.corral("services", "status", "web", user=user)
    assert again["restarts"] == 1
    assert again["pid"] != up["pid"]

    assert yard.corral("services", "install", "web", user=user)["installed"]
    assert yard.systemctl("is-enabled", "corral-web.service", user=user) == "enabled"

    assert yard.corral("services", "stop", "web", user=user)["state"] == "stopped"
    assert yard.processes("server.py") == []

    assert not yard.corral("services", "uninstall", "web", user=user)["installed"]
    assert "corral-web" not in yard.systemctl("list-unit-files", "corral-*", user=user, code=None)
    assert "corral-web" not in yard.systemctl("list-units", "--all", "corral-*", user=user, code=None)
    assert "corral-web" not in yard.run("ls", unit.rpartition("/")[0], code=None)


def test_a_crash_loop_is_stopped_by_the_start_limit(yard: Machine, user: bool) -> None:
    failed = yard.corral("services", "start", "crashes", user=user, code=1)["error"]

    assert "did not become healthy" in failed["message"]
    assert "no such model" in failed["message"]
    down = yard.corral("services", "status", "crashes", user=user, code=1)
    assert down["state"] == "failed"
    assert down["restarts"] >= 4
    assert down["last_exit"] == "exited with code 3"
    yard.corral("services", "uninstall", "crashes", user=user)


def test_what_ignores_sigterm_and_forks_is_ended_with_all_it_forked(yard: Machine, user: bool) -> None:
    yard.corral("services", "start", "deaf", user=user)
    _until(lambda: len(yard.processes("server.py")) == 4)

    yard.corral("services", "stop", "deaf", user=user)

    assert yard.processes("server.py") == []
    yard.corral("services", "uninstall", "deaf", user=user)


def test_every_argument_and_variable_arrives_as_it_was_written(yard: Machine, user: bool) -> None:
    yard.corral("services", "start", "odd", user=user)

    lines = yard.corral("services", "logs", "odd", user=user)["lines"]

    assert [json.loads(line) for line in lines if line.startswith("[[")] == [[ODD, VALUE]]
    yard.corral("services", "uninstall", "odd", user=user)


def test_the_machine_s_units_are_root_s(yard: Machine) -> None:
    assert USER in yard.run("loginctl", "list-users")
    text = yaml.safe_dump({"services": {"web": {**SERVICES["web"], "manager": "systemd"}}})
    yard.write(f"{HOME}/other.yaml", text)

    refused = yard.corral("services", "start", "web", "--config", f"{HOME}/other.yaml", user=True, code=1)

    assert "root's to write" in refused["error"]["message"]
