"""Files of other programs, found by their digest."""

import os

import pytest

from corral.catalog.caches import Caches

SHA = "a" * 64


@pytest.mark.parametrize(
    ("env", "hub"),
    [
        ({}, "home/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "{0}/xdg"}, "xdg/huggingface/hub"),
        ({"XDG_CACHE_HOME": "{0}/xdg", "HF_HOME": "{0}/hf"}, "hf/hub"),
        ({"HF_HOME": "{0}/hf", "HF_HUB_CACHE": "{0}/cache"}, "cache"),
        ({"HF_HUB_CACHE": "", "HF_HOME": "", "XDG_CACHE_HOME": ""}, "home/.cache/huggingface/hub"),
    ],
)
def test_the_environment_says_where(tmp_path, env, hub):
    env = {key: value.format(tmp_path) for key, value in env.items()}
    caches = Caches({"HOME": str(tmp_path / "home"), **env})
    assert caches.hub == tmp_path / hub
    assert caches.ollama == tmp_path / "home" / ".ollama" / "models"
    assert Caches(env, tmp_path / "home").hub == tmp_path / hub


@pytest.fixture
def caches(tmp_path):
    return Caches({"HF_HUB_CACHE": str(tmp_path / "hub"), "OLLAMA_MODELS": str(tmp_path / "ollama")}, tmp_path)


def lay(path, data=b"12345"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_nothing_is_found_where_nothing_is(caches):
    assert caches.find(SHA, 5) == []


def test_both_caches_are_looked_into(caches):
    one = lay(caches.hub / "models--org--name" / "blobs" / SHA)
    two = lay(caches.ollama / "blobs" / f"sha256-{SHA}")
    lay(caches.hub / "datasets--org--name" / "blobs" / SHA)
    lay(caches.hub / "models--org--name" / "blobs" / ("b" * 64))
    assert caches.find(SHA, 5) == [two, one]


def test_another_size_is_another_file(caches):
    lay(caches.hub / "models--org--name" / "blobs" / SHA, b"123")
    assert caches.find(SHA, 5) == []


@pytest.mark.parametrize("sha256", ["", "../x", "A" * 64, "a" * 63])
def test_what_is_no_digest_is_not_looked_for(caches, sha256):
    lay(caches.ollama / "blobs" / f"sha256-{sha256.strip('./')}")
    assert caches.find(sha256, 5) == []


def test_a_link_inside_the_cache_is_followed_and_one_out_of_it_is_not(caches, tmp_path):
    inside, outside = lay(caches.hub / "store" / "x"), lay(tmp_path / "secret")
    for number, target in enumerate([inside, outside, tmp_path / "nowhere", tmp_path]):
        folder = caches.hub / f"models--o--{number}" / "blobs"
        folder.mkdir(parents=True)
        (folder / SHA).symlink_to(target)
    loop = caches.hub / "models--o--loop" / "blobs"
    loop.mkdir(parents=True)
    (loop / SHA).symlink_to(SHA)
    assert caches.find(SHA, 5) == [inside]


def test_a_pipe_is_no_file(caches):
    path = caches.ollama / "blobs" / f"sha256-{SHA}"
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    assert caches.find(SHA, 0) == []
