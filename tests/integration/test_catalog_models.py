"""Real models through the catalog: in pieces, from another program's cache, in a folder of their own."""

import json
import os
import urllib.request

import pytest

from corral.catalog import prompting
from corral.catalog.blobs import Blobs
from corral.catalog.caches import Caches
from corral.catalog.discovery import Discovery
from corral.catalog.prompting import Prompting, Template
from corral.catalog.pull import Origin, Pull, files_of
from corral.catalog.views import Views, found_files
from corral.domain.models import Capability, Listing, ModelRef, RemoteFile, RemotePart
from corral.domain.ports import LaunchSpec, silent
from corral.kit.clock import SystemClock
from corral.kit.disk import in_thread
from corral.runtimes.llamacpp import LlamaCpp, LlamaCppOptions
from corral.sources.file import File
from support import models
from support.sources import MemorySource
from support.splitter import split

CHATS = {Capability.CHAT, Capability.COMPLETION, Capability.JSON_SCHEMA, Capability.SYSTEM_ROLE}


async def answer(revision, files):
    """What an engine of that model says."""
    launch = LaunchSpec("m", LlamaCppOptions(context=512, slots=1, gpu_layers=0, threads=1), files, revision)
    session = await LlamaCpp(os.environ).start(launch, silent)
    try:
        body = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 12, "temperature": 0}
        request = urllib.request.Request(
            f"{session.endpoint.url}/chat/completions",
            json.dumps(body).encode(),
            {**session.endpoint.headers, "Content-Type": "application/json"},
        )

        def ask():
            with urllib.request.urlopen(request, timeout=60) as got:
                return json.load(got)["choices"][0]["message"]["content"]

        return await in_thread(ask)
    finally:
        await session.stop(5)


@pytest.fixture
def blobs(tmp_path):
    return Blobs(tmp_path / "models", SystemClock())


async def pulled(blobs, source, listing, **more):
    async with Pull(blobs, silent, **more) as pull:
        await pull.bring_all(files_of(listing), source)
        return await pull.conclude(Origin.of(listing))


async def test_a_model_in_pieces_chats(blobs, smollm2, tmp_path):
    folder = tmp_path / "split"
    folder.mkdir()
    named = tmp_path / "smollm2.gguf"
    named.symlink_to(smollm2)
    pieces = split(named, folder, 3)
    source = File({})
    revision = await pulled(blobs, source, await source.resolve(ModelRef("file", str(folder))))
    assert [(entry.name, entry.role) for entry in revision.files] == [
        (path.name, "split" if number else "model") for number, path in enumerate(pieces)
    ]
    assert revision.facts["parameters"] == 134_515_008
    assert revision.capabilities == CHATS
    whole = await answer(revision, {"model": smollm2})
    assert whole
    assert await answer(revision, Views(blobs).files(revision)) == whole
    (found,) = Discovery((folder,), SystemClock()).installed().values()
    assert (found.revision.facts["parameters"], found.revision.capabilities) == (134_515_008, CHATS)
    assert found_files(found) == {"model": pieces[0]}


async def test_a_model_in_the_cache_of_hugging_face_is_not_fetched(blobs, smollm2, tmp_path):
    sha256 = smollm2.name
    cached = tmp_path / "hub" / "models--org--smollm2" / "blobs" / sha256
    cached.parent.mkdir(parents=True)
    cached.write_bytes(smollm2.read_bytes())
    size = cached.stat().st_size
    listing = Listing(
        ModelRef("memory", "x"), (RemoteFile("x.gguf", (RemotePart("memory:none/x.gguf"),), size, sha256),)
    )
    caches = Caches({"HF_HUB_CACHE": str(tmp_path / "hub"), "HOME": str(tmp_path)})
    revision = await pulled(blobs, MemorySource({}), listing, caches=caches)
    assert blobs.path(sha256).samefile(cached)
    assert revision.capabilities == CHATS
    assert revision.facts["languages"] == ["en"]


async def test_a_snapshot_in_a_folder_is_installed_and_lists_what_it_can_do(blobs, tmp_path):
    folder = tmp_path / "tiny"
    for name, data in {**models.snapshot(3), "modeling_tiny.py": b"import os", ".git/config": b"x"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    source = File({})
    revision = await pulled(blobs, source, await source.resolve(ModelRef("file", str(folder))))
    assert revision.capabilities == CHATS
    assert revision.facts["ignored_files"] == ["modeling_tiny.py"]
    view = Views(blobs).files(revision)["model"]
    assert {path.name: path.read_bytes() for path in view.iterdir()} == models.snapshot(3)


# Templates, in the process that is made for them

BOMBS = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a power": "{{ 2 ** (10 ** 9) }}",
    "a text": "{{ 'x' * 10 ** 10 }}",
    "a width": "{{ '%0999999999d' % 1 }}",
    "doubling": "{% set n = namespace(a='x' * 999) %}{% for i in range(60) %}{% set n.a = n.a ~ n.a %}{% endfor %}",
    "a list": "{% set n = namespace(a=[0] * 999) %}{% for i in range(60) %}{% set n.a = n.a + n.a %}{% endfor %}",
    "lipsum": "{{ lipsum(n=99999, max=99999) }}",
}


async def test_a_bomb_ends_alone():
    bombs = [Template(text) for text in BOMBS.values()]
    sound = Template(models.CHATML)
    found = await in_thread(prompting.probe_all, [bombs[0], sound, *bombs[2:4]])
    assert found[sound] == Prompting(("system", "developer", "user", "assistant", "tool"))
    assert all(found[bomb].error for bomb in (bombs[0], *bombs[2:4]))


@pytest.mark.parametrize("name", BOMBS)
async def test_a_bomb_is_an_answer_too(name):
    found = await in_thread(prompting.probe, Template(BOMBS[name]))
    assert (found.roles, found.tools) == ((), False)
    assert found.error


async def test_what_is_too_long_is_not_tried():
    assert prompting.probe(Template("x" * (prompting.LONGEST_TEMPLATE + 1))) == Prompting(error=prompting.TOO_LONG)


async def test_the_shipped_template_takes_everything():
    from corral.catalog.library import shipped

    template = Template(shipped().find("smollm2").defaults["chat_template"])
    found = await in_thread(prompting.probe, template)
    assert found == Prompting(("system", "developer", "user", "assistant", "tool"), tools=True)
