"""Models at an address: whole, in pieces, in an archive; from servers that answer with something else."""

import io
import random
import stat
import struct
import threading
import zipfile

import pytest

from corral.config import load
from corral.domain.models import ModelRef, RemotePart
from corral.domain.ports import silent
from corral.errors import AddressRefused, DigestMismatch, LoginRequired, SourceError, SourceNotFound
from corral.kit.archive import survey
from corral.kit.clock import SystemClock
from corral.kit.part import Part
from corral.kit.web import Access, Web
from corral.sources.url import Url
from support import models
from support.clocks import Restless
from support.origin import Origin, Reply

DATA = models.gguf(50_000, seed=3)


@pytest.fixture
async def origin():
    async with Origin({"/m/tiny.gguf": DATA}) as server:
        yield server


class Bench:
    def __init__(self, origin, folder, **env):
        env = {"HOME": str(folder), "PIP_CONFIG_FILE": "/dev/null", "CORRAL_SOURCES_ALLOW_PRIVATE": origin.host, **env}
        self.source = Url(Restless(), env, load(env, cwd=folder))
        self.origin, self.folder = origin, folder

    async def resolve(self, path):
        return await self.source.resolve(ModelRef("url", self.origin.url + path))

    async def fetch(self, file):
        part = await Part.open(self.folder / "a.part", SystemClock())
        try:
            await part.restart()
            await self.source.fetch(file, part, silent)
            return part.path.read_bytes()
        finally:
            part.close()


@pytest.fixture
def bench(origin, tmp_path):
    return Bench(origin, tmp_path)


async def test_the_version_is_the_servers(bench):
    listing = await bench.resolve("/m/tiny.gguf")
    assert (listing.version, listing.files[0].size, listing.files[0].sha256) == ('"one"', len(DATA), None)
    assert [asked.range for asked in bench.origin.asked] == ["bytes=0-511"]
    assert await bench.fetch(listing.files[0]) == DATA


async def test_a_digest_is_the_version_and_is_checked(bench):
    listing = await bench.resolve(f"/m/tiny.gguf#sha256={models.sha256(DATA).upper()}")
    assert listing.version == listing.files[0].sha256 == models.sha256(DATA)
    assert str(listing.ref).endswith(f"/m/tiny.gguf#sha256={models.sha256(DATA)}")
    bench.origin.files["/m/tiny.gguf"] = DATA[:-1] + b"!"
    with pytest.raises(DigestMismatch):
        await bench.fetch(listing.files[0])
    assert (bench.folder / "a.part").read_bytes() == b""


async def test_logins_and_queries_are_used_and_not_written_down(origin, tmp_path):
    origin.files = {"/m/tiny.gguf?signed=deep": DATA}
    bench = Bench(origin, tmp_path)
    address = origin.url.replace("//", "//me:pw@")
    listing = await bench.source.resolve(ModelRef("url", f"{address}/m/tiny.gguf?signed=deep"))
    assert str(listing.ref) == f"{origin.url}/m/tiny.gguf"
    assert listing.files[0].name == "tiny.gguf"
    assert await bench.fetch(listing.files[0]) == DATA
    assert all(asked.headers["authorization"].startswith("Basic ") for asked in origin.asked)
    origin.tamper = lambda _: Reply(403, {"Content-Length": "0"})
    with pytest.raises(LoginRequired) as caught:
        await bench.resolve("/m/tiny.gguf?signed=deep")
    assert "deep" not in str(caught.value)


async def test_a_server_without_ranges(bench):
    bench.origin.ranges = False
    listing = await bench.resolve("/m/tiny.gguf")
    assert listing.files[0].size == len(DATA)
    assert await bench.fetch(listing.files[0]) == DATA


async def test_a_server_that_tells_no_length(bench):
    bench.origin.tamper = lambda _: Reply(200, {}, DATA)
    listing = await bench.resolve("/m/tiny.gguf")
    assert listing.files[0].size is None
    assert await bench.fetch(listing.files[0]) == DATA


async def test_a_passing_failure_is_tried_again(bench):
    faults = [Reply(503, {"Content-Length": "0"}), Reply(500, {"Content-Length": "0"})]
    bench.origin.tamper = lambda _: faults.pop() if faults else None
    assert (await bench.resolve("/m/tiny.gguf")).files[0].size == len(DATA)


ODD = {
    "other bytes": Reply(200, {"Content-Length": "8"}, b"whatever"),
    "a page": Reply(200, {"Content-Type": "text/html", "Content-Length": "6"}, b"<html>"),
    "a page in disguise": Reply(200, {"Content-Length": "17"}, b"  <!doctype html>"),
    "nothing": Reply(200, {"Content-Length": "0"}),
    "an empty file": Reply(416, {"Content-Length": "0"}),
    "a range without a size": Reply(206, {"Content-Range": "bytes 0-3/*", "Content-Length": "4"}, b"GGUF"),
    "no content": Reply(204),
}


@pytest.mark.parametrize("odd", ODD)
async def test_what_is_no_model(bench, odd):
    bench.origin.tamper = lambda _: ODD[odd]
    with pytest.raises(SourceError):
        await bench.resolve("/m/tiny.gguf")
    assert len(bench.origin.asked) == 1


async def test_loopback_must_be_allowed(origin, tmp_path):
    with pytest.raises(AddressRefused, match="loopback"):
        await Bench(origin, tmp_path, CORRAL_SOURCES_ALLOW_PRIVATE="").resolve("/m/tiny.gguf")


async def test_a_mirror_of_the_settings_is_allowed(origin, tmp_path):
    bench = Bench(origin, tmp_path, CORRAL_SOURCES_ALLOW_PRIVATE="", CORRAL_SOURCES_MIRRORS=f"{origin.url}/store")
    digest = models.sha256(DATA)
    origin.files[f"/store/blobs/sha256/{digest}"] = DATA
    listing = await Bench(origin, tmp_path).resolve(f"/m/tiny.gguf#sha256={digest}")
    file = bench.source.mirrored(ModelRef("url", f"{origin.url}/store"), listing.files[0])
    assert await bench.fetch(file) == DATA


async def test_pieces_are_found_from_any_of_them(bench):
    pieces = {f"/s/big-{n:05}-of-00003.gguf": b"GGUF" + random.Random(n).randbytes(900 + n) for n in (1, 2, 3)}
    bench.origin.files |= pieces
    for first in (1, 2):
        listing = await bench.resolve(f"/s/big-{first:05}-of-00003.gguf")
        assert [file.name for file in listing.files] == [path.rpartition("/")[2] for path in pieces]
        assert [file.size for file in listing.files] == [len(data) for data in pieces.values()]
        assert len(listing.version) == 64
    assert [await bench.fetch(file) for file in listing.files] == list(pieces.values())
    del bench.origin.files["/s/big-00003-of-00003.gguf"]
    with pytest.raises(SourceNotFound, match="00003-of-00003"):
        await bench.resolve("/s/big-00001-of-00003.gguf")


@pytest.mark.parametrize("name", ["big-00004-of-00003.gguf", "big-00000-of-00003.gguf", "big-00001-of-09999.gguf"])
async def test_impossible_pieces(bench, name):
    bench.origin.files[f"/{name}"] = DATA
    with pytest.raises(SourceError, match="says that it is piece"):
        await bench.resolve(f"/{name}")


def archive(**members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return out.getvalue()


@pytest.mark.parametrize("digest", [True, False])
async def test_a_model_in_an_archive(bench, digest):
    data = archive(**{"model/Tiny.gguf": DATA, "README.md": b"x"})
    bench.origin.files["/t.zip"] = data
    listing = await bench.resolve("/t.zip" + (f"#sha256={models.sha256(data)}" if digest else ""))
    (file,) = listing.files
    assert (file.name, file.size) == ("Tiny.gguf", len(DATA))
    assert await bench.fetch(file) == DATA
    bench.origin.files["/t.zip"] = data[:200] + b"!" + data[201:]
    with pytest.raises((DigestMismatch, SourceError)):
        await bench.fetch(file)
    assert (bench.folder / "a.part").read_bytes() == b""


ARCHIVES = {
    "no model": (archive(**{"README.md": b"x"}), SourceNotFound, "holds no GGUF"),
    "several": (archive(**{"a.gguf": b"x", "b.gguf": b"y"}), SourceError, "holds several models"),
    "a bomb": (archive(**{"a.gguf": b"\0" * 5_000_000}), SourceError, "over 100 times"),
    "no archive": (b"PK\x03\x04" + b"x" * 500, SourceError, "not a sound zip archive"),
}


@pytest.mark.parametrize("case", ARCHIVES)
async def test_archives_that_are_refused(bench, case):
    data, kind, text = ARCHIVES[case]
    bench.origin.files["/t.zip"] = data
    with pytest.raises(kind, match=text):
        await bench.resolve("/t.zip")


async def test_links_in_an_archive_are_passed_over(bench):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        link = zipfile.ZipInfo("evil.gguf")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/passwd")
        file.writestr("../../climbs.gguf", DATA)
    bench.origin.files["/t.zip"] = out.getvalue()
    (file,) = (await bench.resolve("/t.zip")).files
    assert file.name == "climbs.gguf"
    assert await bench.fetch(file) == DATA


def directory(members, name=b"%07d.txt"):
    """An archive that is a directory of so many members, and nothing else."""
    entries = b"".join(
        struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 0, 20, *[0] * 8, len(name % 0), *[0] * 6) + name % number
        for number in range(members)
    )
    told = members & 0xFFFF
    return b"PK\3\4" + entries + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, told, told, len(entries), 4, 0)


async def test_a_directory_without_end_is_neither_fetched_nor_read(bench):
    bench.origin.files["/t.zip"] = directory(40_000)
    with pytest.raises(SourceError, match=r"its directory has over 2\.1 MB"):
        await bench.resolve("/t.zip")
    assert [asked.range for asked in bench.origin.asked] == ["bytes=0-511", "bytes=-65536"]


async def test_members_without_end_are_refused(bench):
    bench.origin.files["/t.zip"] = directory(20_000)
    with pytest.raises(SourceError, match="has 20000 members"):
        await bench.resolve("/t.zip")


async def test_an_archive_is_looked_into_in_a_thread(bench):
    """What `zipfile` makes of a directory takes its time, which the loop does not have."""
    bench.origin.files["/t.zip"] = directory(3000)
    seen = []

    def look(file):
        seen.append(threading.get_ident())
        return len(file.infolist())

    async with Web(Access(), SystemClock()) as web:
        assert (await survey(web, RemotePart(f"{bench.origin.url}/t.zip"), look))[0] == 3000
    assert seen
    assert threading.get_ident() not in seen


async def test_what_a_look_may_read_of_an_archive_is_bounded(bench):
    noise = random.Random(1).randbytes(6_000_000)
    bench.origin.files["/t.zip"] = archive(**{"a.txt": noise})

    def look(file):
        with file.open("a.txt") as stream:
            while stream.read(1 << 16):
                pass

    async with Web(Access(), SystemClock()) as web:
        with pytest.raises(SourceError, match=r"over 4\.2 MB of it would have to be read"):
            await survey(web, RemotePart(f"{bench.origin.url}/t.zip"), look)
    read = [asked.range.removeprefix("bytes=").split("-") for asked in bench.origin.asked]
    assert sum(int(end) - int(start) + 1 for start, end in read if start) <= 4 << 20


@pytest.mark.parametrize("says", [True, False])
async def test_without_ranges_no_large_archive_is_fetched_to_look_into_it(bench, says):
    """A look is no download: it also happens when somebody only asks for updates."""
    sent = 0

    async def endless():
        nonlocal sent
        yield b"PK\3\4"
        while True:
            sent += 1 << 20
            yield bytes(1 << 20)

    bench.origin.tamper = lambda _: Reply(200, {"Content-Length": str(1 << 40)} if says else {}, endless())
    with pytest.raises(SourceError, match=r"sends whole files only, and it has over 33\.6 MB") as caught:
        await bench.resolve("/t.zip")
    assert "PIP_FIND_LINKS" in caught.value.hint
    assert sent < (20 if says else 60) << 20


async def test_without_ranges_a_small_archive_is_looked_into(bench):
    bench.origin.ranges = False
    bench.origin.files["/t.zip"] = archive(**{"Tiny.gguf": DATA})
    (file,) = (await bench.resolve("/t.zip")).files
    assert await bench.fetch(file) == DATA


@pytest.mark.parametrize("way", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
async def test_unusual_compression_is_refused(bench, way):
    """Of these Python inflates a run whole, whatever comes out."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", way) as file:
        file.writestr("Tiny.gguf", DATA)
    bench.origin.files["/t.zip"] = out.getvalue()
    (file,) = (await bench.resolve("/t.zip")).files
    with pytest.raises(SourceError, match="compressed in an unusual way"):
        await bench.fetch(file)


async def test_a_login_is_of_one_install(origin, tmp_path):
    """The next one from there, and an update, ask as nobody in particular."""
    bench = Bench(origin, tmp_path)
    listing = await bench.source.resolve(ModelRef("url", f"{origin.url.replace('//', '//me:pw@')}/m/tiny.gguf"))
    other = await bench.source.resolve(ModelRef("url", f"{origin.url}/m/tiny.gguf"))
    origin.asked.clear()
    await bench.fetch(other.files[0])
    assert "authorization" not in origin.asked[-1].headers
    await bench.fetch(listing.files[0])
    assert origin.asked[-1].headers["authorization"].startswith("Basic ")
    origin.asked.clear()
    await bench.source.resolve(listing.ref)
    assert "authorization" not in origin.asked[-1].headers


async def test_an_address_that_says_no_kind(bench):
    bench.origin.files["/download/42"] = DATA
    assert (await bench.resolve("/download/42")).files[0].name == "42.gguf"


async def test_names_that_are_none(bench):
    for path in ("/", "/m/%2e%2e", "/m/a%2Fb%00.gguf", f"/m/{'x' * 300}.gguf"):
        bench.origin.tamper = lambda _: Reply(200, {"Content-Length": str(len(DATA))}, DATA)
        name = (await bench.resolve(path)).files[0].name
        assert name == "model.gguf"


async def test_a_killed_download_goes_on_without_a_digest(bench):
    """What a process that was killed left is used where the server vouches for it, through the source as well."""
    (file,) = (await bench.resolve("/m/tiny.gguf")).files
    half = len(DATA) // 2
    faults = [
        Reply(200, {"Content-Length": str(len(DATA)), "ETag": '"one"'}, DATA[:half]),
        Reply(403, {"Content-Length": "0"}),
    ]
    bench.origin.tamper = lambda _: faults.pop(0) if faults else None
    part = await Part.open(bench.folder / "b.part", SystemClock())
    try:
        with pytest.raises(LoginRequired):
            await bench.source.fetch(file, part, silent)
    finally:
        part.close()
    again = await Part.open(bench.folder / "b.part", SystemClock())
    try:
        assert again.size == half
        await bench.source.fetch(file, again, silent)
        assert again.path.read_bytes() == DATA
        assert bench.origin.asked[-1].range == f"bytes={half}-"
        await again.publish(bench.folder / "blob")
        assert {path.name for path in bench.folder.iterdir()} == {"blob"}
    finally:
        again.close()


async def test_an_archive_that_changed_is_not_unpacked(bench):
    bench.origin.files["/t.zip"] = archive(**{"Tiny.gguf": DATA})
    (file,) = (await bench.resolve("/t.zip")).files
    for changed in (archive(**{"Tiny.gguf": DATA[:-1]}), archive(**{"Other.gguf": DATA})):
        bench.origin.files["/t.zip"] = changed
        with pytest.raises((DigestMismatch, SourceError)):
            await bench.fetch(file)
        assert (bench.folder / "a.part").read_bytes() == b""
