"""Every source keeps the port's promises. Sources are discovered; one without an example fails the build.

An example is `source_examples/SCHEME.py` with `build(folder)`, which lays something out in the folder and returns a
`SourceExample`.
"""

import asyncio
import importlib.util
import pkgutil
from pathlib import Path

import pytest

import corral.sources
from corral.config import load
from corral.domain.models import Listing, ModelRef
from corral.domain.ports import Hit, Query, Source, silent
from corral.errors import CorralError, NotSupported, SourceNotFound
from corral.kit.clock import SystemClock
from corral.kit.part import Part
from corral.plugins import Plugins

EXAMPLES = Path(__file__).parent / "source_examples"
SCHEMES = [module.name for module in pkgutil.iter_modules(corral.sources.__path__) if not module.name.startswith("_")]


def built(scheme, env, home):
    env = {"HOME": str(home), **env}
    ports = {"clock": SystemClock(), "env": env, "home": home, "settings": load(env)}
    return Plugins[Source]("corral.sources", ports)[scheme]


@pytest.fixture(params=SCHEMES)
def scheme(request):
    return request.param


@pytest.fixture
def example(scheme, tmp_path):
    path = EXAMPLES / f"{scheme}.py"
    if not path.exists():
        pytest.fail(f"source {scheme!r} has no example: write {path.relative_to(EXAMPLES.parent.parent.parent)}")
    spec = importlib.util.spec_from_file_location(f"source_example_{scheme}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path / "upstream"
    folder.mkdir()
    made = module.build(folder)
    yield made
    made.close()


@pytest.fixture
def source(scheme, example, tmp_path):
    return built(scheme, example.env, tmp_path)


@pytest.fixture
async def listing(source, example):
    return await source.resolve(ModelRef.parse(example.reference))


async def fetched(source, file, path, held=b"", report=silent):
    """What the part holds after a fetch that found `held` there."""
    path.write_bytes(held)
    part = await Part.open(path, SystemClock())
    try:
        await source.fetch(file, part, report)
        return path.read_bytes()
    finally:
        part.close()


def test_there_are_sources():
    assert {"pypi", "file"} <= set(SCHEMES)


def test_examples_belong_to_sources():
    assert {path.stem for path in EXAMPLES.glob("*.py")} <= set(SCHEMES)


def test_it_is_a_source_named_as_its_file(scheme, source):
    assert isinstance(source, Source)
    assert source.scheme == scheme


def test_it_is_built_without_a_network_or_a_file(scheme, tmp_path):
    assert built(scheme, {"PIP_CONFIG_FILE": "/nowhere", "HTTPS_PROXY": "http://127.0.0.1:1"}, tmp_path / "none")


async def test_it_lists_what_there_is(source, example, listing):
    assert isinstance(listing, Listing)
    assert listing.ref.scheme == source.scheme
    assert {file.name: file.size for file in listing.files} == {
        name: len(data) for name, data in example.content.items()
    }
    assert all(file.parts for file in listing.files)


async def test_its_listing_is_stable(source, example, listing):
    assert await source.resolve(ModelRef.parse(example.reference)) == listing


async def test_the_listed_reference_can_be_resolved_again(source, listing):
    again = await source.resolve(listing.ref)
    assert again.files == listing.files


async def test_what_is_not_there_is_not_found(source, example):
    for text in example.absent:
        with pytest.raises(SourceNotFound) as caught:
            await source.resolve(ModelRef.parse(text))
        assert caught.value.message


async def test_it_fetches_what_it_listed(source, example, listing, tmp_path):
    for file in listing.files:
        seen = []
        assert await fetched(source, file, tmp_path / "a.part", report=seen.append) == example.content[file.name]
        for phase in {item.phase for item in seen}:
            done = [item.done for item in seen if item.phase == phase]
            assert done == sorted(done)
        assert all(item.total is None or item.done <= item.total for item in seen)
        assert any(item.phase == "download" for item in seen)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
async def test_it_goes_on_from_what_is_held(source, example, listing, tmp_path, share):
    for file in listing.files:
        data = example.content[file.name]
        held = data[: int(len(data) * share)]
        assert await fetched(source, file, tmp_path / "a.part", held) == data


async def test_what_is_held_of_something_else_does_no_harm(source, example, listing, tmp_path):
    for file in listing.files:
        data = example.content[file.name]
        assert await fetched(source, file, tmp_path / "a.part", b"of another version") == data


async def test_a_cancelled_fetch_can_be_taken_up(source, example, listing, tmp_path):
    file, path = listing.files[0], tmp_path / "a.part"
    started = asyncio.Event()
    task = asyncio.ensure_future(fetched(source, file, path, report=lambda _: started.set()))
    await asyncio.wait([task, asyncio.ensure_future(started.wait())], return_when=asyncio.FIRST_COMPLETED)
    task.cancel()
    await asyncio.wait([task])
    assert await fetched(source, file, path, path.read_bytes()) == example.content[file.name]


async def test_other_bytes_than_promised_are_refused(source, example, listing, tmp_path):
    file, path = listing.files[0], tmp_path / "a.part"
    if example.damage is None:
        assert [file.sha256, *(part.sha256 for part in file.parts)] == [None] * (1 + len(file.parts))
        return
    example.damage()
    with pytest.raises(CorralError) as caught:
        await fetched(source, file, path)
    assert caught.value.code in {"digest_mismatch", "source_error"}
    assert path.read_bytes() == b""


async def test_it_searches_or_says_that_it_cannot(source):
    hits, hint = [], "none needed"
    try:
        hits = await source.search(Query("tiny"))
    except NotSupported as error:
        hint = error.hint
    assert hint
    assert all(isinstance(hit, Hit) for hit in hits)
