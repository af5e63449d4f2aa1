"""Buckets on a real S3 server: objects, folders, shared catalogs, and lines that break."""

import asyncio
import dataclasses
import random
import subprocess
import sys

import orjson
import pytest

from corral.config import load
from corral.domain.models import Capability, FileEntry, Installed, ModelRef, RemoteFile, Revision
from corral.domain.ports import Query, silent
from corral.errors import CorruptModel, DigestMismatch, LoginRequired, NotSupported, SourceError, SourceNotFound
from corral.kit.clock import SystemClock
from corral.kit.objects import Objects, Spot
from corral.kit.part import Part
from corral.kit.web import Access
from corral.sources.bucket import Bucket
from support import models
from support.clocks import Restless
from support.origin import Origin, Reply
from support.s3 import S3, Line

DATA = models.gguf(800_000, seed=4)
BIG = b"GGUF" + random.Random(8).randbytes(17_000_000)


@pytest.fixture(scope="module")
def server():
    made = S3()
    yield made
    made.close()


@pytest.fixture
def s3(server):
    for key in server.held():
        server.delete(key)
    return server


class Bench:
    def __init__(self, env, folder):
        env = {"HOME": str(folder), **env}
        self.source = Bucket(Restless(), env, load(env, cwd=folder))
        self.folder = folder
        self.seen = []

    async def resolve(self, text):
        return await self.source.resolve(ModelRef.parse(text))

    async def fetch(self, file, held=b""):
        path = self.folder / "a.part"
        path.write_bytes(held)
        part = await Part.open(path, SystemClock())
        try:
            await self.source.fetch(file, part, self.seen.append)
            assert part.digest() == models.sha256(path.read_bytes())
            return path.read_bytes()
        finally:
            part.close()

    async def push(self, to, name="tiny", report=silent, **files):
        """Push files, by name, as one revision."""
        revision = revision_of(**files)
        paths = {}
        for entry, data in zip(revision.files, files.values(), strict=True):
            paths[entry.sha256] = self.folder / entry.sha256
            paths[entry.sha256].write_bytes(data)
        installed = Installed(name, revision, 0.0)
        return revision, await self.source.push(installed, paths, ModelRef.parse(to), report)


def revision_of(**files):
    entries = tuple(FileEntry(f"{name}.gguf", len(data), models.sha256(data)) for name, data in files.items())
    facts = {"parameters": 5, "title": "Tiny", "context_length": 128}
    return Revision(
        "file:x", "gguf", entries, "1", "mit", frozenset({Capability.CHAT}), facts, {"chat_template": "{{ x }}"}
    )


@pytest.fixture
def bench(s3, tmp_path):
    return Bench(s3.env, tmp_path)


async def test_an_object(s3, bench):
    s3.put("a/tiny.gguf", DATA)
    listing = await bench.resolve("s3://yard/a/tiny.gguf")
    assert listing.version.startswith('"')
    assert str(listing.ref) == "s3://yard/a/tiny.gguf"
    assert await bench.fetch(listing.files[0]) == DATA
    done = [item.done for item in bench.seen]
    assert done == sorted(done)
    assert (done[-1], bench.seen[-1].total) == (len(DATA), len(DATA))


async def test_pieces_and_a_projector_in_a_folder(s3, bench):
    for name in ("big-00001-of-00002.gguf", "big-00002-of-00002.gguf", "mmproj-f16.gguf", ".hidden/x.gguf", "README"):
        s3.put(f"m/{name}", name.encode())
    listing = await bench.resolve("s3://yard/m/")
    assert [file.name for file in listing.files] == [
        "big-00001-of-00002.gguf",
        "big-00002-of-00002.gguf",
        "mmproj-f16.gguf",
    ]
    assert len(listing.version) == 64
    assert len((await bench.resolve("s3://yard/m/big-00002-of-00002.gguf")).files) == 2
    s3.put("m/other.gguf", b"x")
    with pytest.raises(SourceError, match="holds several models"):
        await bench.resolve("s3://yard/m")


async def test_a_snapshot_in_a_folder(s3, bench):
    for name in ("config.json", "model.safetensors", "pytorch_model.bin", "sub/tokenizer.json"):
        s3.put(f"snap/{name}", name.encode())
    names = [file.name for file in (await bench.resolve("s3://yard/snap")).files]
    assert names == ["config.json", "model.safetensors", "sub/tokenizer.json"]
    s3.put("text/readme.txt", b"x")
    with pytest.raises(SourceNotFound, match="holds no GGUF"):
        await bench.resolve("s3://yard/text")


@pytest.mark.parametrize("name", ["big-00003-of-00002.gguf", "big-00000-of-00002.gguf"])
async def test_impossible_pieces(s3, bench, name):
    s3.put(name, b"x")
    with pytest.raises(SourceError, match="says that it is piece"):
        await bench.resolve(f"s3://yard/{name}")


async def test_other_bytes_are_thrown_away(s3, bench):
    s3.put("tiny.gguf", DATA)
    (file,) = (await bench.resolve(f"s3://yard/tiny.gguf#sha256={'0' * 64}")).files
    with pytest.raises(DigestMismatch, match="Nothing of it was kept"):
        await bench.fetch(file)
    assert (bench.folder / "a.part").read_bytes() == b""


async def test_damaged_bytes_on_the_disk_are_fetched_again(s3, bench):
    s3.put("tiny.gguf", DATA)
    (file,) = (await bench.resolve(f"s3://yard/tiny.gguf#sha256={models.sha256(DATA)}")).files
    assert await bench.fetch(file, b"!" + DATA[1:1000]) == DATA
    assert await bench.fetch(file, DATA + b"more") == DATA
    assert await bench.fetch(file, DATA) == DATA


async def test_a_changed_object_is_not_mixed(s3, bench):
    s3.put("tiny.gguf", DATA)
    (file,) = (await bench.resolve("s3://yard/tiny.gguf")).files
    s3.put("tiny.gguf", DATA[:-5])
    with pytest.raises(SourceError, match="were promised"):
        await bench.fetch(file)


async def test_broken_lines_are_taken_up(s3, tmp_path):
    s3.put("tiny.gguf", DATA)
    async with Line(s3.port) as line:
        bench = Bench(s3.env_through(line.endpoint), tmp_path)
        (file,) = (await bench.resolve("s3://yard/tiny.gguf")).files
        asked = []

        def limit(head):
            asked.append(head)
            return 1_500_000 if head.startswith(b"GET") and len(asked) < 3 else None

        line.limit = limit
        assert await bench.fetch(file) == DATA
        assert line.cuts == 2
        assert any(b"range: bytes=" in head and b"if-match" in head.lower() for head in asked)
        done = [item.done for item in bench.seen]
        assert done == sorted(done)


async def test_a_change_after_a_broken_line_is_noticed(s3, tmp_path):
    s3.put("tiny.gguf", DATA)
    new = DATA[:-1] + b"!"
    async with Line(s3.port) as line:
        bench = Bench(s3.env_through(line.endpoint), tmp_path)
        (file,) = (await bench.resolve("s3://yard/tiny.gguf")).files
        asked = []

        def limit(head):
            asked.append(head)
            if len(asked) == 2:  # the server has a thread of its own: this does not wait for us
                s3.put("tiny.gguf", new)
            return 1_500_000 if len(asked) == 1 else None

        line.limit = limit
        assert await bench.fetch(file) == new


async def test_patience_ends(s3, tmp_path):
    s3.put("tiny.gguf", DATA)
    async with Line(s3.port) as line:
        env = {**s3.env_through(line.endpoint), "CORRAL_SOURCES_RETRIES": "2"}
        bench = Bench(env, tmp_path)
        (file,) = (await bench.resolve("s3://yard/tiny.gguf")).files
        line.limit = lambda _: 10
        with pytest.raises(SourceError, match="cannot be reached"):
            await bench.fetch(file)
        assert line.cuts == 3


async def test_a_server_that_is_not_there(s3, tmp_path):
    async with Line(s3.port) as gone:
        endpoint = gone.endpoint
    bench = Bench({**s3.env_through(endpoint), "CORRAL_SOURCES_RETRIES": "1"}, tmp_path)
    with pytest.raises(SourceError, match="cannot be reached") as caught:
        await bench.resolve("s3://yard/tiny.gguf")
    assert "a-secret" not in str(caught.value)


async def test_pushed_and_installed_from_there(s3, bench):
    revision, ref = await bench.push("s3://yard/team", a=DATA)
    assert str(ref) == "s3://yard/team#tiny"
    digest = models.sha256(DATA)
    assert s3.held() == [
        f"team/blobs/sha256/{digest}",
        f"team/manifests/{revision.id}.json",
        "team/names/tiny.json",
    ]
    for text in ("s3://yard/team#tiny", f"s3://yard/team#tiny@{revision.id[:8]}", f"s3://yard/team#@{revision.id}"):
        listing = await bench.resolve(text)
        assert str(listing.ref) == text
        assert (listing.version, listing.licence) == (revision.id, "mit")
        assert dict(listing.defaults) == {"chat_template": "{{ x }}"}
        assert dict(listing.facts) == {"title": "Tiny"}
        (file,) = listing.files
        assert (file.name, file.size, file.sha256) == ("a.gguf", len(DATA), digest)
        assert await bench.fetch(file) == DATA
    mirrored = bench.source.mirrored(ModelRef.parse("s3://yard/team"), file)
    assert await bench.fetch(mirrored) == DATA


async def test_what_is_there_is_not_sent_again(s3, bench):
    seen = []
    await bench.push("s3://yard/team", a=BIG, b=b"GGUFsmall", report=seen.append)
    done = [item.done for item in seen]
    assert done == sorted(done)
    assert (done[-1], seen[-1].total, seen[-1].phase) == (len(BIG) + 9, len(BIG) + 9, "upload")
    assert s3.get(f"team/blobs/sha256/{models.sha256(BIG)}") == BIG
    s3.put(f"team/blobs/sha256/{models.sha256(BIG)}", BIG[::-1])  # to see whether it is written again
    _, ref = await bench.push("s3://yard/team#Other:Name/1", a=BIG)
    assert s3.get(f"team/blobs/sha256/{models.sha256(BIG)}") == BIG[::-1]
    assert "team/names/%4Fther%3A%4Eame%2F1.json" in s3.held()
    assert (await bench.resolve(str(ref))).files[0].sha256 == models.sha256(BIG)
    s3.put(f"team/blobs/sha256/{models.sha256(BIG)}", b"cut short")
    await bench.push("s3://yard/team", a=BIG)
    assert s3.get(f"team/blobs/sha256/{models.sha256(BIG)}") == BIG


@pytest.mark.parametrize("data", [DATA, BIG])
async def test_a_damaged_file_is_not_pushed(s3, bench, data):
    installed = Installed("tiny", revision_of(a=data), 0.0)
    path = bench.folder / "damaged"
    for bad in (data[:-1] + b"!", data[:-1], data + b"!"):
        path.write_bytes(bad)
        with pytest.raises(DigestMismatch, match="was not pushed"):
            await bench.source.push(installed, {models.sha256(data): path}, ModelRef.parse("s3://yard/t"), silent)
    assert s3.held() == []
    assert s3.uploads() == 0


async def test_a_push_that_is_cut_short_leaves_nothing_to_install(s3, tmp_path):
    async with Line(s3.port) as line:
        bench = Bench({**s3.env_through(line.endpoint), "CORRAL_SOURCES_RETRIES": "1"}, tmp_path)
        line.limit = lambda head: 0 if head.startswith(b"PUT") and b"manifests" in head.partition(b"\r")[0] else None
        with pytest.raises(SourceError):
            await bench.push("s3://yard/team", a=DATA)
        with pytest.raises(SourceNotFound, match="has no model called tiny"):
            await bench.resolve("s3://yard/team#tiny")
        line.limit = lambda _: None
        _, ref = await bench.push("s3://yard/team", a=DATA)
        assert (await bench.resolve(str(ref))).files[0].size == len(DATA)


async def test_a_cancelled_push_leaves_nothing_to_install(s3, bench):
    begun = asyncio.Event()
    task = asyncio.ensure_future(bench.push("s3://yard/team", a=BIG, report=lambda _: begun.set()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not [key for key in s3.held() if "names" in key or "manifests" in key]


async def test_damaged_records_are_not_believed(s3, bench):
    revision, ref = await bench.push("s3://yard/team", a=DATA)
    manifest, name = f"team/manifests/{revision.id}.json", "team/names/tiny.json"
    whole, record = orjson.loads(s3.get(manifest)), orjson.loads(s3.get(name))
    other = {**whole, "files": [{**whole["files"][0], "sha256": "0" * 64}]}
    climbing = {**whole, "files": [{**whole["files"][0], "size": -1}]}
    for bad in (b"", b"[]", b"null", orjson.dumps(other), orjson.dumps(climbing), orjson.dumps({"id": revision.id})):
        s3.put(manifest, bad)
        with pytest.raises(CorruptModel, match="is damaged"):
            await bench.resolve(str(ref))
    for bad in (b"{", b"[]", orjson.dumps({**record, "name": "other"}), orjson.dumps({**record, "revision": "../x"})):
        s3.put(name, bad)
        with pytest.raises(CorruptModel, match="is damaged"):
            await bench.resolve(str(ref))
    assert await bench.source.search(Query("s3://yard/team")) == []


def record(revision):
    """A revision's record as a stranger writes it."""
    return orjson.dumps(
        {
            "source": revision.source,
            "format": revision.format,
            "version": revision.version,
            "licence": revision.licence,
            "files": [{"name": f.name, "size": f.size, "sha256": f.sha256, "role": f.role} for f in revision.files],
            "capabilities": ["chat", "flying"],
            "facts": revision.facts,
            "defaults": revision.defaults,
        }
    )


async def test_whoever_may_push_is_not_believed(s3, bench):
    """Its identifier vouches for a record, and a stranger writes what he likes into one."""
    defaults = {"temperature": 0.5, "chat_template": "/dev/zero", "mmproj": "/etc/passwd", "lora": {"/x": 1.0}}
    facts = {"title": ["x" * 5000], "languages": ["en"], "parameters": 7, "context_length": {"deep": 1}}
    evil = dataclasses.replace(revision_of(a=DATA), defaults=defaults, facts=facts)
    s3.put(f"team/manifests/{evil.id}.json", record(evil))
    s3.put("team/names/evil.json", orjson.dumps({"name": "evil", "revision": evil.id}))
    listing = await bench.resolve("s3://yard/team#evil")
    assert listing.defaults == {"temperature": 0.5}
    assert listing.version == evil.id
    assert set(listing.facts) == {"languages", "ignored_defaults"}
    assert set(listing.facts["ignored_defaults"]) == {"chat_template", "mmproj", "lora"}
    (hit,) = await bench.source.search(Query("s3://yard/team"))
    assert hit.facts == {"languages": ["en"], "parameters": 7}


async def test_records_that_nobody_would_write(s3, bench):
    deep, many = [], revision_of(a=DATA).files * 2001
    for _ in range(100):
        deep = [deep]
    plain = revision_of(a=DATA)
    for bad in (
        dataclasses.replace(plain, facts={"deep": deep}),
        dataclasses.replace(plain, files=many),
        dataclasses.replace(plain, licence="x" * 1001),
        dataclasses.replace(plain, facts={"many": list(range(60_000))}),
    ):
        s3.put(f"team/manifests/{bad.id}.json", record(bad))
        with pytest.raises(CorruptModel, match="is damaged"):
            await bench.resolve(f"s3://yard/team#@{bad.id}")


async def test_a_record_too_large_does_not_end_a_search(s3, bench):
    revision, _ = await bench.push("s3://yard/team", a=DATA)
    other, _ = await bench.push("s3://yard/team", name="other", a=b"GGUFother")
    s3.put(f"team/manifests/{revision.id}.json", b" " * (2 << 20))
    assert [hit.title for hit in await bench.source.search(Query("s3://yard/team"))] == ["other"]
    with pytest.raises(SourceError, match="is too large"):
        await bench.resolve(f"s3://yard/team#@{revision.id}")
    assert other.id != revision.id


async def test_what_nobody_would_read_is_not_pushed(s3, bench):
    many = dataclasses.replace(revision_of(a=DATA), files=revision_of(a=DATA).files * 2001)
    with pytest.raises(NotSupported, match="cannot be shared"):
        await bench.source.push(Installed("tiny", many, 0.0), {}, ModelRef.parse("s3://yard/team"), silent)
    assert s3.held() == []


async def test_revisions_by_their_beginning(s3, bench):
    revision, _ = await bench.push("s3://yard/team", a=DATA)
    begins = "0" * 6 if not revision.id.startswith("000000") else "1" * 6
    with pytest.raises(SourceNotFound, match="no revision that begin"):
        await bench.resolve(f"s3://yard/team#@{begins}")
    twin = revision.id[:6] + "0" * 58
    s3.put(f"team/manifests/{twin}.json", b"{}")
    with pytest.raises(SourceNotFound, match="2 revisions that begin"):
        await bench.resolve(f"s3://yard/team#@{revision.id[:6]}")


async def test_a_shared_catalog_is_searched(s3, bench):
    await bench.push("s3://yard/team", name="tiny", a=DATA)
    await bench.push("s3://yard/team", name="tiny-b", b=b"GGUFother")
    hits = await bench.source.search(Query("s3://yard/team"))
    assert [str(hit.ref) for hit in hits] == ["s3://yard/team#tiny", "s3://yard/team#tiny-b"]
    assert (hits[0].title, hits[0].size, hits[0].licence) == ("tiny", len(DATA), "mit")
    assert hits[0].facts["parameters"] == 5
    assert [hit.title for hit in await bench.source.search(Query("s3://yard/team -B"))] == ["tiny-b"]
    assert len(await bench.source.search(Query("s3://yard/team", limit=1))) == 1
    with pytest.raises(SourceError, match="is a shared catalog"):
        await bench.resolve("s3://yard/team")


async def test_records_of_any_size_are_not_read(s3, bench):
    _, ref = await bench.push("s3://yard/team", a=DATA)
    s3.put("team/names/tiny.json", b" " * (17 << 20))
    with pytest.raises(SourceError, match="is too large"):
        await bench.resolve(str(ref))


async def test_a_size_that_is_a_lie(s3, bench):
    s3.put("tiny.gguf", DATA)
    (file,) = (await bench.resolve("s3://yard/tiny.gguf")).files
    with pytest.raises(SourceError, match="were promised"):
        await bench.fetch(RemoteFile(file.name, file.parts, file.size + 1, None))


def test_without_obstore_it_says_what_to_install(tmp_path):
    code = (
        "import asyncio, sys; sys.modules['obstore'] = None\n"
        "from corral.config import load; from corral.kit.clock import SystemClock\n"
        "from corral.domain.models import ModelRef; from corral.sources.bucket import plugin\n"
        "from corral.errors import RuntimeUnavailable\n"
        "source = plugin(SystemClock(), {'HOME': sys.argv[1]}, load({'HOME': sys.argv[1]}))\n"
        "try: asyncio.run(source.resolve(ModelRef('bucket', 's3://yard/x')))\n"
        "except RuntimeUnavailable as error: print(error.hint)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=False, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "Install it: pip install 'corral[bucket]'", done.stderr


async def killed(s3, folder, at):
    """What a process that was killed left of an object, as its next one finds it."""
    async with Line(s3.port) as line:
        bench = Bench({**s3.env_through(line.endpoint), "CORRAL_SOURCES_RETRIES": "1"}, folder)
        (file,) = (await bench.resolve("s3://yard/tiny.gguf")).files
        asked = []

        def limit(head):
            asked.append(head)
            return at if len(asked) == 1 else 0

        line.limit = limit
        with pytest.raises(SourceError):
            await bench.fetch(file)
    held = (folder / "a.part").read_bytes()
    assert 0 < len(held) < len(DATA)
    return file, held


@pytest.mark.parametrize("same", [True, False])
async def test_without_a_digest_the_store_vouches_for_what_is_held(s3, bench, same):
    s3.put("tiny.gguf", DATA)
    file, held = await killed(s3, bench.folder, 2_500_000)
    new = DATA if same else DATA[::-1]
    s3.put("tiny.gguf", new)
    assert await bench.fetch(file, held) == new
    assert bench.seen[0].done == len(held)
    (bench.folder / "a~tag").unlink()
    assert await bench.fetch(file, b"x" * 10) == new


async def test_a_store_that_wants_to_know_who_asks(s3, tmp_path):
    async with Origin() as origin:
        for status, error in {403: LoginRequired, 401: LoginRequired, 404: SourceNotFound, 418: SourceError}.items():
            origin.tamper = lambda _, status=status: Reply(status, {"Content-Length": "0"})
            bench = Bench(s3.env_through(origin.url), tmp_path)
            with pytest.raises(error) as caught:
                await bench.source.search(Query("s3://yard/team"))
            assert "a-secret" not in str(caught.value)


async def test_nobody_in_particular_is_asked_as_such(s3, tmp_path):
    async with Origin() as origin:
        bench = Bench({"AWS_ENDPOINT_URL": origin.url, "PIP_CONFIG_FILE": "/dev/null"}, tmp_path)
        with pytest.raises(SourceNotFound):
            await bench.resolve("s3://yard/tiny.gguf")
        assert origin.asked
        assert not any("authorization" in asked.headers for asked in origin.asked)


async def test_an_object_at_azure(tmp_path):
    async with Origin({"/box/a/tiny.gguf": DATA}) as origin:

        def dated(asked):
            reply = origin.serve(asked)
            reply.headers |= {"Last-Modified": "Sat, 21 Nov 2026 10:00:00 GMT"}
            return reply

        origin.tamper = dated
        env = {
            "AZURE_STORAGE_ENDPOINT": origin.url,
            "AZURE_STORAGE_ACCOUNT_KEY": "c2VjcmV0",
            "PIP_CONFIG_FILE": "/dev/null",
        }
        bench = Bench(env, tmp_path)
        listing = await bench.resolve("az://me/box/a/tiny.gguf")
        assert (listing.files[0].size, listing.version) == (len(DATA), '"one"')
        assert await bench.fetch(listing.files[0]) == DATA
        assert all(asked.headers["authorization"].startswith("SharedKey me:") for asked in origin.asked)
        with pytest.raises(SourceNotFound):
            await bench.resolve("az://me/box/a/none.gguf")


@pytest.mark.parametrize("text", ["s3://yard/x", "gs://yard/x", "az://me/box/x"])
def test_every_kind_can_be_opened(text):
    """Without a word to a server."""
    assert Objects({}, Access(), Restless())._opened(Spot.parse(text)) is not None
