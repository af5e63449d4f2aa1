"""Two hundred random loads, requests, unloads, kills and crashes under a budget: afterwards nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from corral import GenerationConfig, ModelManager
from corral.config import load
from corral.errors import CorralError
from support.servers import ended

MIB = 1024**2
MODELS = 6
STEPS = 200

SIZED = "\n".join(
    f"  m{n}: {{runtime: fake, options: {{memory_mib: {20 + 10 * n}, reply: 'I am m{n}'}}}}" for n in range(MODELS)
)
CONFIG = f"""
engines: {{memory: {{cpu: 260MiB}}, stop_grace: 1s, patience: 2s, restarts: 1000, measure_every: 1s}}
models:
{SIZED}
  stubborn: {{runtime: fake, options: {{fault: ignore_sigterm, reply: 'I am stubborn'}}}}
  broken: {{runtime: fake, options: {{fault: crash_on_start}}}}
  mortal: {{runtime: fake, options: {{fault: crash, fault_after: 2, tokens: 5}}}}
"""
NAMES = [f"m{n}" for n in range(MODELS)] + ["stubborn", "broken", "mortal"]


_OF_OTHERS = ("corral-vllm-", "psm_", "sem.mp-", "PostgreSQL.")
"""What tests of vLLM and PostgreSQL, which may run beside this one, have while they run. Nothing here makes such."""


def shared_memory() -> set[str]:
    folder = Path("/dev/shm")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return {name for name in names if not name.startswith(_OF_OTHERS)}


def left_in_tmp() -> set[str]:
    names = {path.name for path in Path(tempfile.gettempdir()).iterdir()}
    return {name for name in names if name.startswith("corral") and not name.startswith(_OF_OTHERS)}


def family() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


class Chaos:
    """Does random things with one manager, several at a time, and knows what it has seen."""

    def __init__(self, manager: ModelManager, seed: int) -> None:
        self.manager = manager
        self.chance = random.Random(seed)
        self.seen: dict[int, psutil.Process] = {}
        self.ports: set[int] = set()
        self.answers = 0
        self.over = 0

    async def step(self) -> None:
        name = self.chance.choice(NAMES)
        with suppress(CorralError):
            match self.chance.choice(["ask", "ask", "ask", "load", "unload", "force", "kill", "leave", "hint"]):
                case "ask":
                    reply = await self.manager.generate(name, GenerationConfig("?", max_tokens=20))
                    assert name in reply.text or name == "mortal"
                    self.answers += 1
                case "load":
                    await self.manager.load_model(name)
                case "unload":
                    await self.manager.unload_model(name)
                case "force":
                    await self.manager.corral.unload(name, drain=0, force=True)
                case "kill":
                    for process in self.chance.sample(family(), k=min(1, len(family()))):
                        with suppress(psutil.NoSuchProcess):
                            process.send_signal(signal.SIGKILL)
                case "leave":
                    asked = asyncio.ensure_future(self.manager.generate(name, GenerationConfig("?", max_tokens=20)))
                    await asyncio.wait([asked], timeout=self.chance.random() / 10)
                    asked.cancel()
                    with suppress(asyncio.CancelledError):
                        await asked
                case "hint":
                    self.manager.corral.supervisor.hint(name)
        self.look()

    def look(self) -> None:
        """Note every process and port there is, and whether more memory is held than may be."""
        for process in family():
            self.seen[process.pid] = process
            with suppress(psutil.Error):
                self.ports |= {c.laddr.port for c in process.net_connections("tcp") if c.status == "LISTEN"}
        supervisor = self.manager.corral.supervisor
        self.over = max(self.over, supervisor.held().get("cpu", 0) - 260 * MIB)


def answers_at(port: int) -> bool:
    """Whether somebody listens there."""
    return any(c.laddr.port == port and c.status == "LISTEN" for c in psutil.net_connections("tcp"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_is_left_over(tmp_path: Path, seed: int) -> None:
    before, files = shared_memory(), left_in_tmp()
    home = tmp_path / "home"
    home.mkdir()
    (home / "corral.yaml").write_text(CONFIG)
    env = {**os.environ, "HOME": str(tmp_path), "CORRAL_HOME": str(home)}
    async with ModelManager(settings=load(env, cwd=home), env=env) as manager:
        chaos = Chaos(manager, seed)
        limit = asyncio.Semaphore(4)

        async def bounded() -> None:
            async with limit:
                await chaos.step()

        await asyncio.gather(*(bounded() for _ in range(STEPS)))
        assert chaos.answers > STEPS / 10
        supervisor = manager.corral.supervisor
        assert supervisor.counters["evict"]
        assert supervisor.counters["crash"]
        states = supervisor.statuses()
    assert all(status.engine is None or status.engine.in_flight == 0 for status in states)
    assert chaos.over <= 0
    assert supervisor.held() == {}
    assert supervisor.statuses() == [s for s in supervisor.statuses() if s.engine is None]
    assert ended(list(chaos.seen.values()))
    assert family() == []
    assert chaos.ports
    assert not [port for port in chaos.ports if answers_at(port)]
    assert shared_memory() <= before
    assert left_in_tmp() <= files
    assert not list(home.rglob("*.pid"))
