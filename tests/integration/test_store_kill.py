"""kill -9 in the middle of an install, again and again: never a visible broken model, and the next install goes on."""

import asyncio
import json
import os
import random
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from corral.catalog.library import Library
from corral.catalog.registry import Registry
from corral.errors import ModelNotFound
from corral.kit.clock import SystemClock
from support import mangler, models
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


@asynccontextmanager
async def nursery(folder, disk):
    """A process that forks the ones to be killed: a fresh interpreter for each would take most of the time."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "support.mangler", str(folder), str(disk)),
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield child
    finally:
        child.stdin.close()
        await child.wait()


async def killed(child, seed, *, step=0, delay=0.0):
    """Let one process change the store; it dies before its change number `step`, or is killed after `delay` seconds."""
    child.stdin.write(b"%d %d\n" % (seed, step))
    pid = int(await child.stdout.readline())
    if not step:
        await asyncio.sleep(delay)  # the moment of the kill is what is random here
        os.kill(pid, signal.SIGKILL)
    status = int(await child.stdout.readline())
    assert status == -signal.SIGKILL, f"the process with seed {seed} failed by itself"


def leftovers(folder, disk):
    """Files that are there and should not be, when nothing is under way."""
    manifests = {path.stem for path in (folder / "manifests").glob("*")}
    named, needed = set(), set()
    for path in (folder / "names").glob("*.json"):
        named |= {step["revision"] for step in json.loads(path.read_text())["history"]}
    for known in named:
        needed |= {item["sha256"] for item in json.loads((folder / "manifests" / f"{known}.json").read_text())["files"]}
    blobs = {path.name for path in (folder / "blobs" / "sha256").glob("*")}
    away = {path.name.removeprefix("sha256-") for path in disk.glob("*/*")}
    return {
        "parts": sorted(path.name for path in (folder / "partial").glob("*")),
        "unfinished": sorted(path.name for end in ("tmp", "gone") for path in folder.rglob(f"*.{end}")),
        "manifests": sorted(manifests - named),
        "blobs": sorted(blobs - needed),
        "away": sorted(away - blobs),
    }


ROUNDS = 120


@pytest.mark.timeout(300)
@pytest.mark.parametrize("by", ["step", "time"])
async def test_a_hundred_kills_of_whatever_changes_a_store(tmp_path, by):
    folder, disk = tmp_path / "models", tmp_path / "disk"
    seed = random.randrange(1_000_000)
    chance = random.Random(seed)
    async with nursery(folder, disk) as child:
        for turn in range(ROUNDS if by == "step" else ROUNDS // 4):
            how = {"step": chance.randrange(1, 150)} if by == "step" else {"delay": chance.uniform(0.0, 0.25)}
            await killed(child, seed + turn, **how)
            store = mangler.registry(folder)
            findings = await store.verify_all()
            assert [finding for finding in findings if finding.error] == [], f"seed {seed}, {turn}, {how}"
            assert store.damaged() == {}, f"seed {seed}, {turn}, {how}"
            if turn % 3 == 2:
                await store.gc()
                assert not any(leftovers(folder, disk).values()), f"seed {seed}, {turn}: {leftovers(folder, disk)}"
                assert (await store.gc()).bytes == 0
                assert [model.name for model in store.all()] == store.names()


async def test_two_processes_change_one_store_and_one_is_killed_now_and_then(tmp_path):
    folder, disk = tmp_path / "models", tmp_path / "disk"
    seed = random.randrange(1_000_000)
    async with nursery(folder, disk) as one, nursery(folder, disk) as two:
        for turn in range(5):
            await asyncio.gather(killed(one, seed + turn, delay=0.6), killed(two, seed + 100 + turn, delay=0.15))
            store = mangler.registry(folder)
            assert [finding for finding in await store.verify_all() if finding.error] == [], f"seed {seed}, {turn}"
        await store.gc()
    assert not any(leftovers(folder, disk).values()), f"seed {seed}: {leftovers(folder, disk)}"
