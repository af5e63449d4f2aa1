"""Three containers with purposes, from one file, on Ollama's ports: they answer through Corral and directly, and stay.

Real models behind Ollama's dialect, in a real Docker engine with published ports. Killed by hand, by the end of the
engine and by the end of Corral, they are there again.
"""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx2 as httpx
import ollama
import openai
import pytest

from tests.support.docker import CORRAL as IMAGE
from tests.support.docker import Engine, until
from tests.support.servers import CORRAL, Server, corral_server

pytestmark = pytest.mark.timeout(900)

PURPOSES = {"code": "code completion", "reasoning": "technical reasoning", "writing": "documents"}
PORTS = dict(zip(PURPOSES, (11434, 11435, 11436), strict=True))
PATIENCE = 180.0


def configuration(docker: Engine, store: Path) -> str:
    return json.dumps(
        {
            "docker": {"host": docker.address},
            "containers": {
                name: {
                    "kind": "ollama",
                    "image": IMAGE,
                    "purpose": purpose,
                    "port": PORTS[name],
                    "models": ["smollm2"],
                    "volumes": {str(store): "/seed:ro"},
                    "memory": "2GB",
                    "cpus": 2,
                    "pids": 200,
                }
                for name, purpose in PURPOSES.items()
            },
        }
    )


@pytest.fixture(scope="module")
def ports() -> None:
    """Nobody else has Ollama's ports."""
    for port in PORTS.values():
        with closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))


def cli(server: Server, *words: str, code: int = 0) -> Any:
    done = subprocess.run(
        [CORRAL, *words, "--json"], env=server.env, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == code, (words, done.stdout, done.stderr)
    return json.loads(done.stdout)


def states(server: Server) -> dict[str, str]:
    answer = httpx.get(f"{server.url}/api/v1/containers", timeout=30)
    return {one["name"]: one["state"] for one in answer.json()["containers"]}


def ended(server: Server, name: str) -> float | None:
    """When it ended last, which is still told once it is up again."""
    answer = httpx.get(f"{server.url}/api/v1/containers/{name}", timeout=30)
    at: float | None = answer.json()["container"]["finished_at"]
    return at


def well(server: Server) -> None:
    """All of them are healthy; or else it is told why not."""
    try:
        until(lambda: states(server) == dict.fromkeys(PURPOSES, "healthy"), PATIENCE)
    except AssertionError:
        answer = httpx.get(f"{server.url}/api/v1/containers", timeout=30)
        said = [(one["name"], one["state"], one["reason"]) for one in answer.json()["containers"]]
        log = httpx.get(f"{server.url}/api/v1/containers/code/logs?lines=30", timeout=30).text
        pytest.fail(f"{said}\n{log}\n{(server.home.parent / 'server.log').read_text()[-3000:]}")


def rows(server: Server) -> dict[str, dict[str, Any]]:
    with closing(sqlite3.connect(f"file:{server.home}/corral.db?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        return {row["name"]: dict(row) for row in database.execute("SELECT * FROM containers")}


def answers(url: str, model: str = "smollm2") -> Any:
    """What OpenAI's client gets for a question."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=PATIENCE) as client:
        asked = client.chat.completions.with_raw_response.create(
            model=model, max_tokens=8, messages=[{"role": "user", "content": "Name a colour."}]
        )
        assert asked.parse().choices[0].message.content
        return asked.headers


def test_three_containers_from_one_file(bridged: Engine, model_store: Path, tmp_path: Path, ports: None) -> None:
    bridged.image(IMAGE)
    with ExitStack() as stack:
        stack.enter_context(bridged.forwarded(*PORTS.values()))
        server = stack.enter_context(corral_server(tmp_path, configuration(bridged, model_store)))
        well(server)

        # Each for its purpose, at its port, on loopback alone, with no more rights than it needs.
        told = {one["name"]: one for one in cli(server, "containers", "ps")["containers"]}
        assert {name: (one["purpose"], one["port"], one["url"]) for name, one in told.items()} == {
            name: (purpose, PORTS[name], f"http://127.0.0.1:{PORTS[name]}") for name, purpose in PURPOSES.items()
        }
        for seen in bridged.seen().values():
            host = seen["HostConfig"]
            assert {bound["HostIp"] for bounds in host["PortBindings"].values() for bound in bounds} == {"127.0.0.1"}
            assert (host["Privileged"], host["CapDrop"], host["RestartPolicy"]["Name"]) == (False, ["ALL"], "no")
            assert "no-new-privileges" in " ".join(host["SecurityOpt"])
            assert host["Memory"] == host["MemorySwap"] == 2 * 10**9

        # Directly, with Ollama's own client; and through Corral, which tells whom it asked.
        for port in PORTS.values():
            with ollama.Client(host=f"http://127.0.0.1:{port}") as client:
                assert "smollm2:latest" in {model.model for model in client.list().models}
                assert client.generate("smollm2", "Hello", options={"num_predict": 4}).response
        assert answers(server.url)["x-corral-model"] == "smollm2"

        # Killed by hand.
        before = ended(server, "code")
        bridged.cli("kill", "corral-code")
        until(lambda: ended(server, "code") != before)
        well(server)

        # The engine ends, and with it all of them; it comes back.
        bridged.stop()
        until(lambda: set(states(server).values()) == {"unknown"})
        bridged.start()
        well(server)

        # Corral ends; they go on, and the next Corral finds them as they are.
        before = {name: seen["State"]["StartedAt"] for name, seen in bridged.seen().items()}
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        server = stack.enter_context(corral_server(tmp_path, configuration(bridged, model_store)))
        well(server)
        assert {name: seen["State"]["StartedAt"] for name, seen in bridged.seen().items()} == before
        answers(server.url)

        seen = bridged.seen()
        until(lambda: {r["container_id"] for r in rows(server).values()} == {s["Id"] for s in seen.values()})
        assert {row["status"] for row in rows(server).values()} == {"active"}
        cli(server, "containers", "down")
        assert bridged.seen() == {}
        assert {row["status"] for row in rows(server).values()} <= {"inactive"}
