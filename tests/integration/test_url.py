"""Models at an address: whole, in pieces, in an archive; from servers that answer with something else."""

import io
import random
import stat
import zipfile

import pytest

from corral.config import load
from corral.domain.models import ModelRef
from corral.domain.ports import silent
from corral.errors import AddressRefused, DigestMismatch, LoginRequired, SourceError, SourceNotFound
from corral.kit.clock import SystemClock
from corral.kit.part import Part
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
