"""The doctor with a real Docker engine: what it says of the engine, and of each container of the configuration."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from corral.app import Corral
from corral.app.checkup import Check, Verdict, examine
from corral.config import load
from tests.support.docker import TINY, Engine
from tests.support.ports import free_port


@pytest.fixture
async def corral(docker: Engine, tmp_path: Path) -> AsyncIterator[Corral]:
    entries = {
        name: {
            "kind": "openai",
            "image": image,
            "network": "host",
            "port": (port := free_port()),
            "inside": port,
            "command": ["serve", str(port), "127.0.0.1"],
            "health": "/health",
        }
        for name, image in {"runs": docker.image(TINY), "waits": TINY, "taken": TINY, "lacks": "nobody/none:1"}.items()
    }
    config = {"docker": {"host": docker.address}, "containers": entries}
    (tmp_path / "corral.yaml").write_text(json.dumps(config))
    env = {"HOME": str(tmp_path), "CORRAL_HOME": str(tmp_path)}
    built = Corral(load(env, cwd=tmp_path), env=env)
    yield built
    await built.close()


async def looked(corral: Corral) -> dict[str, Check]:
    return {check.name: check async for check in examine(corral)}


async def test_the_engine_and_its_containers(docker: Engine, corral: Corral) -> None:
    await corral.fleet.up(["runs"])
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", corral.fleet.wanted("taken").spec.ports[0].outside))
        taken.listen()
        checks = await looked(corral)

    assert checks["docker"].verdict is Verdict.OK
    assert docker.address in checks["docker"].detail
    assert checks["docker"].detail.startswith(docker.json("version")["Server"]["Version"])
    assert (checks["container runs"].verdict, checks["container runs"].detail) == (Verdict.OK, "healthy")
    assert checks["container waits"].verdict is Verdict.OK
    assert checks["container taken"].verdict is Verdict.FAIL
    assert "in use" in checks["container taken"].detail
    assert checks["container lacks"].verdict is Verdict.WARN
    assert "nobody/none:1 is not here" in checks["container lacks"].detail
    assert "corral containers up lacks" in checks["container lacks"].fix


async def test_an_engine_that_goes_away(docker: Engine, corral: Corral) -> None:
    docker.stop()
    try:
        checks = await looked(corral)
    finally:
        docker.start()

    assert checks["docker"].verdict is Verdict.FAIL
    assert "needed by lacks, runs, taken, waits" in checks["docker"].detail
    assert not [name for name in checks if name.startswith("container ")]
