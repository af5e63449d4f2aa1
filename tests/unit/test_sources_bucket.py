"""What a bucket's address says, and what is refused before anything is asked."""

import pytest

from corral.config import load
from corral.domain.models import Installed, ModelRef, RemoteFile, RemotePart, Revision
from corral.domain.ports import Query, silent
from corral.errors import AddressRefused, ConfigError, InvalidName, NotSupported, SourceError
from corral.kit.objects import Spot
from corral.sources.bucket import plugin
from support.clocks import Restless

DIGEST = "ab" * 32


def bucket(tmp_path, **env):
    env = {"HOME": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null", **env}
    return plugin(Restless(), env, load(env, cwd=tmp_path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://yard/a/b.gguf", Spot("s3", "yard", "a/b.gguf")),
        ("gs://yard", Spot("gs", "yard")),
        ("s3://yard/", Spot("s3", "yard")),
        ("az://me/box/a/", Spot("az", "me/box", "a")),
    ],
)
def test_places(text, expected):
    assert Spot.parse(text) == expected
    assert str(expected) == text.rstrip("/")
    assert str(expected / "x/y").endswith("/x/y")


@pytest.mark.parametrize(
    "text",
    [
        "yard/a",
        "s3:yard/a",
        "http://yard/a",
        "s3://",
        "s3:///a",
        "s3://key:secret@yard/a",
        "s3://yard/a?sig=secret",
        "s3://yard/../a",
        "s3://yard/a/../b",
        "s3://yard/..",
        "s3://yard/a//b",
        "s3://yard/a\nb",
        "az://me",
        "az://me/",
    ],
)
async def test_what_is_no_place(tmp_path, text):
    with pytest.raises(InvalidName, match="is no address of a bucket") as caught:
        Spot.parse(text)
    assert "secret" not in str(caught.value)
    with pytest.raises(InvalidName):
        await bucket(tmp_path).resolve(ModelRef("bucket", text))


@pytest.mark.parametrize("behind", ["sha256=abc", "sha256=", "NA ME", "../x", "name@xyz", "name@abc", "@"])
async def test_what_is_no_name(tmp_path, behind):
    with pytest.raises(InvalidName):
        await bucket(tmp_path).resolve(ModelRef("bucket", f"s3://yard/a#{behind}"))


async def test_only_buckets_are_searched(tmp_path):
    with pytest.raises(NotSupported):
        await bucket(tmp_path).search(Query("tiny"))


@pytest.mark.parametrize("behind", [f"#sha256={DIGEST}", "#name@abcdef0"])
async def test_only_names_are_pushed_to(tmp_path, behind):
    installed = Installed("a", Revision("file:x", "gguf", ()), 0.0)
    with pytest.raises(InvalidName, match="no place for a model"):
        await bucket(tmp_path).push(installed, {}, ModelRef("bucket", f"s3://yard/a{behind}"), silent)


def test_a_mirror_is_asked_by_digest(tmp_path):
    source = bucket(tmp_path)
    file = RemoteFile("a.gguf", (RemotePart("hf:whatever"),), 5, DIGEST)
    found = source.mirrored(ModelRef("bucket", "s3://yard/team/"), file)
    assert found.parts == (RemotePart(f"s3://yard/team/blobs/sha256/{DIGEST}", 5, DIGEST, length=5),)
    assert source.mirrored(ModelRef("bucket", "s3://yard"), RemoteFile("a", (), None, DIGEST)) is None


async def test_a_file_without_a_size_is_not_this_sources(tmp_path):
    with pytest.raises(SourceError, match="does not lie at one place"):
        await bucket(tmp_path).fetch(RemoteFile("a", (RemotePart("s3://yard/a"),)), None, silent)


async def test_an_endpoint_that_is_not_encrypted_must_be_allowed(tmp_path):
    with pytest.raises(AddressRefused, match=r"endpoint 10\.0\.0\.1:9000 is not encrypted") as caught:
        await bucket(tmp_path, AWS_ENDPOINT_URL="http://10.0.0.1:9000").resolve(ModelRef("bucket", "s3://yard/a"))
    assert "CORRAL_SOURCES_ALLOW_PRIVATE=10.0.0.1:9000" in caught.value.hint


async def test_settings_that_cannot_be(tmp_path):
    key = "a secret that is no key"
    source = bucket(tmp_path, GOOGLE_SERVICE_ACCOUNT_KEY=key)
    with pytest.raises(ConfigError, match="gs://yard cannot be opened") as caught:
        await source.resolve(ModelRef("bucket", "gs://yard/a"))
    assert key not in str(caught.value)
