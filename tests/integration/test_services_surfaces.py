"""Services from the terminal and over HTTP: a service started by one is seen and stopped by the other."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from corral.kit import pidfile
from support.api import Client
from support.commands import Yard
from support.ports import free_port
from support.servers import corral_server
from support.services import Place

pytestmark = pytest.mark.timeout(300)

BASE = "/api/v1/services"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    built = Place(tmp_path)
    yield built
    for home in (built.home, tmp_path / ".corral"):
        for path in home.glob("services/*/keeper.pid"):
            if known := pidfile.read(path):
                pidfile.send(known, signal.SIGTERM)
    assert [entry for entry in built.left() if "server.py" in entry or "_keeper" in entry] == []


def _configuration(place: Place) -> str:
    def service(*modes: str, **more: object) -> dict[str, object]:
        port = free_port()
        command = [sys.executable, str(place.program), "{port}", *modes]
        return {
            "kind": "command",
            "manager": "local",
            "options": {"command": command, "port": port, "health": "/"},
            **more,
        }

    services = {"web": service(), "once": service("crashes", restart=False), "ollama": {"options": {"prot": 1}}}
    return yaml.safe_dump({"services": services})


def test_from_the_terminal_without_a_server(place: Place) -> None:
    yard = Yard(place.home)
    yard.configure(_configuration(place))
    with yard.desk() as desk:
        assert [row["state"] for row in desk.json("services")["services"]] == ["failed", "stopped", "stopped"]
        assert "web" in desk.run("services", "list").stdout

        up = desk.json("services", "start", "web")
        assert (up["state"], up["healthy"], up["manager"]) == ("running", True, "local")
        assert f"process {up['pid']}" in desk.run("services", "start", "web").stdout
        assert desk.json("services", "status", "web")["pid"] == up["pid"]
        shown = desk.run("services", "status", "web").stdout
        assert all(word in shown for word in ("running", str(up["pid"]), str(up["port"]), "service.log"))
        assert "server says hello" in desk.run("services", "logs", "web", "-n", "5").stdout
        assert desk.run("services", "-q").stdout == "web\n"

        again = desk.json("services", "restart", "web", "--no-wait")
        assert again["state"] in ("starting", "running")
        desk.run("services", "start", "web")
        assert "stopped" in desk.run("services", "stop", "web").stdout
        assert desk.run("services", "status", "web", code=1).stdout

        failed = desk.run("services", "start", "once", code=1).stderr
        assert "exited with code 3" in failed
        assert "no such model" in failed
        assert "corral services logs once" in failed

        assert "no service 'wep'" in desk.run("services", "stop", "wep", code=3).stderr
        assert "manager" in desk.run("services", "install", "web", code=1).stderr
        assert "Did you mean 'port'?" in desk.run("services", "start", "ollama", code=2).stderr
        desk.run("services", "status", "../x", code=2)
        assert "removed" in desk.run("services", "uninstall", "web").stdout


def test_over_http_and_by_url(place: Place) -> None:
    with corral_server(place.folder, _configuration(place)) as server:
        client = Client(server)
        started = client.ask("POST", "/web/start", base=BASE)
        assert started.status == 200, started.body
        up = started.json["service"]
        assert (up["state"], up["healthy"]) == ("running", True)
        assert client.ask("GET", "", base=BASE).json["count"] == 3
        assert client.ask("GET", "/web", base=BASE).json["service"]["pid"] == up["pid"]
        assert "server says hello" in client.ask("GET", "/web/log?lines=5", base=BASE).json["lines"]

        yard = Yard(place.home, {"CORRAL_URL": server.url})
        place.home.mkdir(exist_ok=True)
        with yard.desk() as desk:
            assert desk.json("services", "status", "web")["pid"] == up["pid"]
            assert len(desk.json("services")["services"]) == 3
            assert "server says hello" in desk.json("services", "logs", "web")["lines"]
            assert desk.json("services", "restart", "web")["pid"] != up["pid"]
            desk.run("services", "stop", "wep", code=3)

        for verb, code in (("install", 501), ("start", 200)):
            assert client.ask("POST", f"/web/{verb}", {"wait": False}, base=BASE).status == code
        missing = client.ask("POST", "/wep/stop", base=BASE)
        assert (missing.status, missing.code) == (404, "service_missing")
        assert client.ask("POST", "/once/start", base=BASE).status == 500
        # It outlives the server that started it.
        pid = client.ask("GET", "/web", base=BASE).json["service"]["pid"]
        assert pid
    assert psutil.pid_exists(pid)

    with corral_server(place.folder, _configuration_of(place)) as server:
        client = Client(server)
        adopted = client.ask("POST", "/web/start", base=BASE).json["service"]
        assert adopted["pid"] == pid
        assert client.ask("POST", "/web/stop", base=BASE).json["service"]["state"] == "stopped"
        assert client.ask("POST", "/web/uninstall", base=BASE).status == 200


def _configuration_of(place: Place) -> str:
    """The configuration as it stands."""
    return (place.folder / ".corral" / "corral.yaml").read_text()
