"""Every runtime keeps the port's promises. Runtimes are discovered; one without an example launch fails the build.

An example is `runtime_examples/KIND.yaml`: `options` (`{name}` is what that fixture gives), `files` (role: fixture that
gives the path), `env`, `remote: true` where nothing is started on this machine, `dialect` where it is not OpenAI's, and
`vendor: module:Class` for one that is played (`{vendor}` is its address, `{vendor_key}` its key).
"""

import asyncio
import dataclasses
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import yaml

import corral
import corral.runtimes
from corral.dialects.canonical import Message, Request, Role, Text
from corral.dialects.form import PLAIN, Kind, form, native
from corral.domain.models import Capability
from corral.domain.options import parse_options
from corral.domain.ports import LaunchSpec, Runtime, Session, silent
from corral.errors import UnknownOption
from corral.kit.clock import SystemClock
from corral.plugins import Plugins

EXAMPLES = Path(__file__).parent / "runtime_examples"
KINDS = [module.name for module in pkgutil.iter_modules(corral.runtimes.__path__) if not module.name.startswith("_")]
CHAT = Request("model", (Message(Role.USER, (Text("Say hello."),)),), max_tokens=4)


def built(kind: str, env: dict[str, str], home: Path, containers: Any = None) -> Runtime:
    ports = {"env": {**os.environ, **env}, "clock": SystemClock(), "home": home, "containers": containers}
    return Plugins[Runtime]("corral.runtimes", ports)[kind]


def children() -> list[psutil.Process]:
    """What runs below this process, but for a Docker engine of the tests' own, whose containers are told elsewhere."""
    own = psutil.Process()
    engines = [each for each in own.children() if each.name() in ("dockerd", "docker")]
    theirs = {each for engine in engines for each in (engine, *engine.children(recursive=True))}
    return [each for each in own.children(recursive=True) if each not in theirs]


@dataclasses.dataclass
class Example:
    runtime: Runtime
    spec: LaunchSpec
    remote: bool
    dialect: str


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def engines(kind, request):
    """The Docker engine for a runtime that asks for one."""
    return request.getfixturevalue("containers") if kind == "container" else None


@pytest.fixture
def runtime(kind, tmp_path, engines):
    return built(kind, {}, tmp_path, engines)


@pytest.fixture
async def upstream(tmp_path):
    """A server of OpenAI's dialect for runtimes that only reach one."""
    fake = built("fake", {}, tmp_path)
    session = await fake.start(LaunchSpec("upstream", fake.options(reply="hello")), silent)
    key = session.endpoint.headers["Authorization"].removeprefix("Bearer ")
    yield {"{upstream}": session.endpoint.url, "{upstream_key}": key}
    await session.stop(5)


def filled(value: Any, with_: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: filled(item, with_) for key, item in value.items()}
    return with_.get(value, value) if isinstance(value, str) else value


@pytest.fixture
def launch(kind, request):
    """The example launch of the runtime, with paths for its files."""
    path = EXAMPLES / f"{kind}.yaml"
    if not path.exists():
        pytest.fail(f"the runtime {kind!r} has no example launch: write {path.name}")
    data = yaml.safe_load(path.read_text())
    files = {role: request.getfixturevalue(fixture) for role, fixture in data.get("files", {}).items()}
    options = {name: given(value, request) for name, value in data.get("options", {}).items()}
    return {"env": {}, "remote": False, "dialect": "openai", **data, "options": options, "files": files}


def given(value: Any, request) -> Any:
    """What an option `{name}` stands for: the fixture of that name, unless it is about the upstream."""
    found = re.fullmatch(r"\{(\w+)\}", value) if isinstance(value, str) else None
    away = found and found[1].startswith(("upstream", "vendor"))
    return str(request.getfixturevalue(found[1])) if found and not away else value


@pytest.fixture
async def vendor(launch):
    """The vendor that the example names, played."""
    if "vendor" not in launch:
        yield {}
        return
    module, name = launch["vendor"].split(":")
    async with getattr(importlib.import_module(module), name)() as vendor:
        yield {"{vendor}": vendor.url, "{vendor_key}": vendor.key}


@pytest.fixture
def example(kind, launch, tmp_path, upstream, vendor, engines):
    data = filled(launch, upstream | vendor)
    runtime = built(kind, data["env"], tmp_path, engines)
    options = parse_options(runtime.options, data["options"], kind)
    return Example(runtime, LaunchSpec("contract", options, data["files"]), data["remote"], data["dialect"])


@pytest.fixture
async def session(example):
    session = await example.runtime.start(example.spec, silent)
    yield session
    await session.stop(5)


def test_an_example_belongs_to_a_runtime():
    assert {path.stem for path in EXAMPLES.glob("*.yaml")} == set(KINDS)


def test_it_is_what_the_port_asks(kind, runtime):
    assert isinstance(runtime, Runtime)
    assert runtime.kind == kind
    assert isinstance(runtime.formats, frozenset)
    assert runtime.capabilities
    assert runtime.capabilities <= frozenset(Capability)


def test_its_options_are_frozen_and_closed(kind, runtime):
    assert dataclasses.is_dataclass(runtime.options)
    assert runtime.options.__dataclass_params__.frozen
    with pytest.raises(UnknownOption, match="no_such_option") as caught:
        parse_options(runtime.options, {"no_such_option": 1}, kind)
    assert caught.value.hint


async def test_a_probe_answers_without_starting_anything(runtime):
    availability = await runtime.probe()
    assert availability.usable or (availability.reason and availability.hint)
    assert children() == []


async def test_an_engine_answers_and_tells_of_itself(example, session):
    assert isinstance(session, Session)
    assert await session.healthy()
    assert not session.endpoint.url.endswith("/")
    assert session.endpoint.dialect == example.dialect
    for secret in session.endpoint.headers.values():
        assert secret.removeprefix("Bearer ") not in repr(session.endpoint)
        assert not any(secret.removeprefix("Bearer ") in line for line in session.log())
    spoken = form(native(session.endpoint.dialect, Kind.CHAT))
    asked = dataclasses.replace(CHAT, model=session.endpoint.model or CHAT.model)
    written = spoken.write_request(asked, session.endpoint.profile or PLAIN)
    query = f"?{session.endpoint.query}" if session.endpoint.query else ""
    async with (
        aiohttp.ClientSession(headers=session.endpoint.headers) as client,
        client.post(f"{session.endpoint.url}{written.path}{query}", json=written.document) as answer,
    ):
        assert answer.status == 200
        (said,) = spoken.read_reply(await answer.json()).parts
        assert said.text
    footprint = await session.footprint()
    assert bool(footprint.devices) is not example.remote
    assert all(size > 0 for size in footprint.devices.values())


async def test_an_engine_that_is_stopped_is_gone(example, upstream):
    before = children()
    session = await example.runtime.start(example.spec, silent)
    waiting = asyncio.ensure_future(session.ended())
    await asyncio.gather(session.stop(5), session.stop(5))
    await session.stop(5)
    assert children() == before
    if example.remote:
        assert not waiting.done()
        waiting.cancel()
        return
    assert await waiting == await session.ended() == "was stopped"
    assert not await session.healthy()
    assert (await session.footprint()).devices == {}


async def test_a_wait_for_the_end_may_be_given_up(session):
    waiting = asyncio.ensure_future(session.ended())
    await asyncio.wait({waiting}, timeout=0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await session.healthy()


async def test_a_cancelled_start_leaves_nothing(example, upstream):
    before, begun = children(), asyncio.Event()
    starting = asyncio.ensure_future(example.runtime.start(example.spec, lambda _: begun.set()))
    begin = asyncio.ensure_future(begun.wait())
    await asyncio.wait({starting, begin}, return_when=asyncio.FIRST_COMPLETED)
    begin.cancel()
    if example.remote:
        await (await starting).stop(0)
        return
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert children() == before


NEWCOMER = """
from dataclasses import dataclass
from corral.domain.ports import Availability

@dataclass(frozen=True)
class Options:
    colour: str = "red"

class Newcomer:
    kind = "newcomer"
    options = Options
    formats = frozenset()
    capabilities = frozenset()
    def __init__(self, clock): ...
    async def probe(self): return Availability(usable=True, version="found")
    async def start(self, spec, report): ...

plugin = Newcomer
"""
FIND = """
import asyncio
from corral.plugins import Plugins
found = Plugins("corral.runtimes", {"clock": object()})
assert "newcomer" in list(found)
print(asyncio.run(found["newcomer"].probe()).version)
"""


@pytest.fixture
def copy(tmp_path):
    """A copy of the package with one file more."""
    package = tmp_path / "corral"
    shutil.copytree(Path(corral.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "runtimes" / "newcomer.py").write_text(NEWCOMER)
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


def test_a_new_file_is_found_with_no_other_edit(copy):
    found = subprocess.run([sys.executable, "-P", "-c", FIND], env=copy, capture_output=True, text=True, check=False)
    assert found.stdout.strip() == "found", found.stderr


def test_a_new_file_without_an_example_fails_the_build(copy, tmp_path):
    command = [
        sys.executable,
        "-P",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        __file__,
        "-k",
        "newcomer or belongs",
    ]
    run = subprocess.run(command, env=copy, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "test_an_example_belongs_to_a_runtime" in run.stdout
    assert "the runtime 'newcomer' has no example launch: write newcomer.yaml" in run.stdout
