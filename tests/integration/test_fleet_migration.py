"""Containers that compose has started are taken over with what is in their volumes, or are as they were."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.commands import Yard
from tests.support.docker import PLAYER, TINY, Engine, until
from tests.support.ports import free_port

pytestmark = pytest.mark.timeout(300)


class Project:
    """A compose file, and containers as compose makes them: known by its labels."""

    def __init__(self, folder: Path, docker: Engine) -> None:
        self.folder = folder / "stack"
        self.folder.mkdir()
        self.docker = docker
        self.services: dict[str, Any] = {}
        self.yard = Yard(folder / "home")
        self.yard.configure(yaml.safe_dump({"docker": {"host": docker.address}}))

    def add(self, name: str, *, volume: bool = True, **own: Any) -> int:
        port = free_port()
        command = ["serve", str(port), "127.0.0.1"]
        service = {"image": TINY, "network_mode": "host", "command": command, "stop_grace_period": "1s"}
        mounts = [f"{name}:/models"] if volume else []
        own = {"kind": "openai", "port": port, "inside": port, "health": "/health", **own}
        self.services[name] = {**service, "volumes": mounts, "x-corral": own}
        labels = ("--label", "com.docker.compose.project=stack", "--label", f"com.docker.compose.service={name}")
        volumes = ("--volume", f"stack_{name}:/models") if volume else ()
        self.docker.cli(
            *("run", "--detach", "--name", f"stack-{name}-1", "--network", "host", *labels, *volumes, TINY, *command)
        )
        return port

    def take_over(self, *more: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        volumes: dict[str, Any] = {name: {} for name, service in self.services.items() if service["volumes"]}
        whole = {"name": "stack", "services": self.services, "volumes": volumes}
        (self.folder / "compose.yaml").write_text(yaml.safe_dump(whole))
        return self.yard.run("import", "docker-compose", str(self.folder), "--yes", *more, code=code)


@pytest.fixture
def project(docker: Engine, tiny_image: str, tmp_path: Path) -> Project:
    return Project(tmp_path, docker)


def test_what_is_in_a_volume_stays(project: Project) -> None:
    docker = project.docker
    project.add("code")
    docker.cli("exec", "stack-code-1", "touch", "/models/a-model")
    before = docker.seen()["stack-code-1"]["Id"]

    planned = project.take_over("--json").stdout
    assert json.loads(planned)["existing"] == [
        {"name": "code", "container": "stack-code-1", "running": True, "kept": ["stack_code"], "others": []}
    ]
    assert set(docker.seen()) == {"stack-code-1"}  # not without being told to

    done = project.take_over("--migrate")
    assert "code is healthy" in done.stdout
    assert set(docker.seen()) == {"corral-code"}
    assert docker.seen()["corral-code"]["Id"] != before
    assert docker.cli("exec", "corral-code", "ls", "/models") == "a-model"
    assert "nothing to import" in project.take_over().stdout


def test_with_a_server_it_is_the_server_that_has_them(project: Project) -> None:
    project.add("code")
    with project.yard.serving():
        project.take_over("--migrate")
        assert project.yard.json("containers", "status", "code")["state"] == "healthy"
    assert set(project.docker.seen()) == {"corral-code"}


def test_what_does_not_become_well_is_put_back(project: Project) -> None:
    docker = project.docker
    project.add("code", health="/no-such-path", start_timeout=2)
    project.add("writing")
    before = docker.seen()["stack-code-1"]["Id"]

    failed = project.take_over("--migrate", code=1)
    assert "error: " in failed.stderr
    assert "writing is healthy" in failed.stdout  # one that cannot be does not keep the others
    assert set(docker.seen()) == {"stack-code-1", "corral-writing"}
    assert docker.seen()["stack-code-1"]["Id"] == before
    assert docker.seen()["stack-code-1"]["State"]["Running"] is True


def test_what_is_in_the_container_itself_is_not_thrown_away(project: Project) -> None:
    docker = project.docker
    project.add("code", volume=False)
    docker.cli("exec", "stack-code-1", "touch", "/a-model")

    done = project.take_over("--migrate")
    assert "stays behind" in done.stdout
    assert set(docker.seen()) == {"corral-code", "stack-code-1.before-corral"}
    assert "a-model" in docker.cli("diff", "stack-code-1.before-corral")
    assert "nothing to import" in project.take_over().stdout


def test_models_in_the_container_itself_are_not_thrown_away(project: Project) -> None:
    docker = project.docker
    project.add("code")
    project.add("writing")
    blobs = "/root/.ollama/models/blobs"
    docker.cli("exec", "stack-code-1", "sh", "-c", f"mkdir -p {blobs}; touch {blobs}/sha256-00")
    before = docker.seen()["stack-code-1"]["Id"]

    refused = project.take_over("--migrate", code=5)
    assert "in itself, in /root/.ollama/models" in refused.stderr
    assert "docker cp stack-code-1:/root/.ollama/models" in refused.stderr
    assert set(docker.seen()) == {"stack-code-1", "corral-writing"}
    assert (docker.seen()["stack-code-1"]["Id"], docker.seen()["stack-code-1"]["State"]["Running"]) == (before, True)
    assert docker.cli("exec", "stack-code-1", "ls", blobs) == "sha256-00"


def test_what_was_cut_short_goes_on(project: Project) -> None:
    docker = project.docker
    project.add("code")
    project.take_over()
    docker.cli("rename", "stack-code-1", "stack-code-1.before-corral")
    docker.cli("stop", "--time", "1", "stack-code-1.before-corral")

    project.take_over("--migrate")
    until(lambda: set(docker.seen()) == {"corral-code"})


def test_a_container_of_nobodys_is_adopted(bridged: Engine, tmp_path: Path) -> None:
    docker, image, port = bridged, bridged.image(PLAYER), free_port()
    place = Yard(tmp_path / "home", {"SOME_API_KEY": "s3cret"})
    place.configure(yaml.safe_dump({"docker": {"host": docker.address}}))
    mine = ("--name", "My-Ollama", "--publish", f"127.0.0.1:{port}:11434", "--volume", "mine:/models")
    docker.cli("run", "--detach", "--init", "--memory", "300m", *mine, "--env", "SOME_API_KEY=s3cret", image)
    (tmp_path / "a-model").write_text("weights")
    docker.cli("cp", str(tmp_path / "a-model"), "My-Ollama:/models/a-model")

    shown = place.run("containers", "adopt", "My-Ollama")
    assert "s3cret" not in shown.stdout
    assert "SOME_API_KEY" in shown.stderr
    found = place.json("containers", "adopt", "My-Ollama")
    assert found["secrets"] == ["SOME_API_KEY"]
    assert (found["entry"]["port"], found["entry"]["volumes"]) == (port, {"mine": "/models"})
    assert "containers:" not in (place.home / "corral.yaml").read_text()

    with docker.forwarded(port):
        place.run("containers", "adopt", "My-Ollama", "--as", "coder", "--migrate")
        assert place.json("containers", "status", "coder")["state"] == "healthy"
    assert set(docker.seen()) == {"My-Ollama"}
    kept = docker.seen()["My-Ollama"]
    assert kept["Config"]["Labels"]["corral.name"] == "coder"
    assert "SOME_API_KEY=s3cret" in kept["Config"]["Env"]
    docker.cli("cp", "My-Ollama:/models/a-model", str(tmp_path / "again"))
    assert (tmp_path / "again").read_text() == "weights"
    assert "s3cret" not in (place.home / "corral.yaml").read_text()
    place.run("containers", "adopt", "My-Ollama", "--as", "coder", "--write", code=5)
    place.run("containers", "adopt", "nothing-there", code=3)
