"""Corrals with containers on a Docker engine of the tests' own, and a registry that images are updated from."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from corral.app import Corral
from corral.config import load
from tests.support.docker import PLAYER, Engine, until
from tests.support.ports import free_port


@asynccontextmanager
async def corral_with(
    home: Path, docker: Engine, containers: Mapping[str, Mapping[str, Any]], /, **more: Any
) -> AsyncIterator[Corral]:
    """A Corral whose home is `home`, with these `containers`, on `docker`."""
    home.mkdir(parents=True, exist_ok=True)
    file = home / "corral.yaml"
    file.write_text(
        yaml.safe_dump({"docker": {"host": docker.address}, "containers": dict(containers), **more}, sort_keys=False)
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith(("CORRAL_", "DOCKER_"))}
    env["CORRAL_HOME"] = str(home)
    corral = Corral(load(env, {}, file), env=env)
    try:
        yield corral
    finally:
        await corral.close()


@contextmanager
def registry_in(folder: Path) -> Iterator[str]:
    """Debian's docker-registry on loopback with its storage in `folder`; its `host:port`."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is missing: apt-get install docker-registry")
    storage = {"filesystem": {"rootdirectory": str(folder / "data")}}
    settings, log = folder / "registry.json", folder / "registry.log"
    settings.write_text(json.dumps({"version": 0.1, "storage": storage, "http": {"addr": "127.0.0.1:0"}}))
    with log.open("wb") as output:
        process = subprocess.Popen([program, "serve", str(settings)], stdout=output, stderr=output)
    try:
        found = until(lambda: re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text(errors="replace")))
        yield found[1]
    finally:
        process.terminate()
        process.wait(90)


def player(image: str = PLAYER, *, models: str = "tiny:1b", **more: Any) -> dict[str, Any]:
    """The entry of a container that plays Ollama on a port of this machine; `models` are in it from the start."""
    environment = {"PLAYED_MODELS": models, **more.pop("environment", {})}
    return {
        "kind": "ollama",
        "image": image,
        "network": "host",
        "port": free_port(),
        "environment": environment,
        "stop_grace": "2s",
        "start_timeout": "90s",
        **more,
    }


def publish(docker: Engine, host: str, change: str = "", *, name: str = "player", source: str = PLAYER) -> str:
    """Put an image into the registry, with a `change` as a Dockerfile has it, and take it off `docker`; its id."""
    there, made = f"{host}/{name}:1", docker.image(source)
    container = docker.cli("create", made)
    changes = ["--change", change] if change else []
    docker.cli("commit", *changes, container, there)
    docker.cli("rm", container)
    docker.cli("push", "--quiet", there)
    found = str(docker.json("image", "inspect", there)["Id"])
    docker.cli("rmi", there)
    return found
