"""What an address says before anything is asked: its name, its digest, and what of it is written down."""

import pytest

from corral.config import load
from corral.domain.models import ModelRef, RemoteFile, RemotePart
from corral.domain.ports import Query
from corral.errors import InvalidName, NotSupported, SourceError, SourceNotFound
from corral.sources.url import Url, plugin
from support.clocks import Restless

DIGEST = "ab" * 32


def url(tmp_path, **env):
    env = {"HOME": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null", **env}
    return Url(Restless(), env, load(env, cwd=tmp_path))


@pytest.mark.parametrize(
    "locator",
    ["model.gguf", "//host/x", "ftp://host/x", "https://", "https://ho st/x", "https://[::1", "https://a\\b/x"],
)
async def test_what_is_no_address(tmp_path, locator):
    with pytest.raises(SourceNotFound, match="is not a web address"):
        await url(tmp_path).resolve(ModelRef("url", locator))


async def test_no_secret_in_the_message(tmp_path):
    for locator in ("https://me:pw@host/a b?token=pw", "https:/me?token=pw"):
        with pytest.raises(SourceNotFound) as caught:
            await url(tmp_path).resolve(ModelRef("url", locator))
        assert "pw" not in str(caught.value)


@pytest.mark.parametrize("fragment", ["main", "sha256=", "sha256=abc", "md5=" + DIGEST])
async def test_a_fragment_is_a_digest_or_a_mistake(tmp_path, fragment):
    with pytest.raises(InvalidName, match="is no SHA-256"):
        await url(tmp_path).resolve(ModelRef("url", f"https://h.test/m.gguf#{fragment}"))


async def test_search_is_refused(tmp_path):
    with pytest.raises(NotSupported):
        await url(tmp_path).search(Query("x"))


def test_a_mirror_is_asked_by_digest(tmp_path):
    source = plugin(Restless(), {}, load({"HOME": str(tmp_path)}, cwd=tmp_path))
    file = RemoteFile("a.gguf", (RemotePart("hf:whatever"),), 5, DIGEST)
    base = ModelRef("url", "https://mirror.test/store/")
    found = source.mirrored(base, file)
    assert found is not None
    assert (found.name, found.size, found.sha256) == ("a.gguf", 5, DIGEST)
    assert found.parts == (RemotePart(f"https://mirror.test/store/blobs/sha256/{DIGEST}", 5, DIGEST, length=5),)
    assert source.mirrored(base, RemoteFile("a", (), None, DIGEST)) is None
    assert source.mirrored(base, RemoteFile("a", (), 5, None)) is None


async def test_a_file_of_several_addresses_is_not_this_sources(tmp_path):
    with pytest.raises(SourceError, match="does not lie at one address"):
        await url(tmp_path).fetch(RemoteFile("a", ()), None, lambda _: None)
