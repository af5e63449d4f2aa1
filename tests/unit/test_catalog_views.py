"""Files of the store under their own names."""

import asyncio
import threading

import pytest

from corral.catalog.blobs import Blobs
from corral.catalog.views import Views, found_files
from corral.domain.models import FileEntry, Installed, Revision
from corral.errors import CorruptModel
from corral.kit.clock import SystemClock
from support import models

FILES = {"config.json": b"{}", "model.safetensors": b"weights", "1_Pooling/config.json": b"{} "}


@pytest.fixture
def blobs(tmp_path):
    return Blobs(tmp_path / "models", SystemClock())


@pytest.fixture
def views(blobs):
    return Views(blobs)


def put(blobs, files, form="safetensors", **roles):
    entries = []
    for name, data in files.items():
        path = blobs.path(models.sha256(data))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        entries.append(FileEntry(name, len(data), models.sha256(data), roles.get(name, "file")))
    return Revision("memory:x", form, tuple(entries))


def seen(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_snapshot_is_given_as_a_folder(blobs, views, tmp_path):
    files = views.files(put(blobs, FILES))
    assert list(files) == ["model"]
    assert seen(files["model"]) == FILES
    links = [path for path in files["model"].rglob("*") if path.is_symlink()]
    assert len(links) == 3
    assert not any(path.readlink().is_absolute() for path in links)
    (tmp_path / "models").rename(tmp_path / "elsewhere")
    assert seen(tmp_path / "elsewhere" / files["model"].relative_to(tmp_path / "models")) == FILES


def test_one_file_is_given_as_it_lies(blobs, views):
    revision = put(blobs, {"a": b"1", "b": b"22", "LICENSE": b"MIT"}, "gguf", a="model", b="mmproj")
    paths = [blobs.path(entry.sha256) for entry in revision.files]
    assert views.files(revision) == {"model": paths[0], "mmproj": paths[1]}
    assert not (blobs.root / "views").exists()


def test_a_split_model_is_given_by_its_first_piece(blobs, views):
    revision = put(
        blobs, {"Q4/m-1.gguf": b"1", "Q4/m-2.gguf": b"22", "eyes": b"333"}, "gguf",
        **{"Q4/m-1.gguf": "model", "Q4/m-2.gguf": "split", "eyes": "mmproj"},
    )  # fmt: skip
    files = views.files(revision)
    assert files["mmproj"] == blobs.path(models.sha256(b"333"))
    assert (files["model"].name, files["model"].read_bytes()) == ("m-1.gguf", b"1")
    assert (files["model"].parent / "m-2.gguf").read_bytes() == b"22"


def ruin_link(folder):
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/etc/passwd")


def ruin_file(folder):
    (folder / "config.json").unlink()
    (folder / "config.json").write_text("other")


DAMAGES = {
    "a link is gone": lambda folder: (folder / "config.json").unlink(),
    "a link leads elsewhere": ruin_link,
    "a file in place of a link": ruin_file,
    "something more": lambda folder: (folder / "evil.py").write_text("x"),
    "a folder is gone": lambda folder: [
        (folder / "1_Pooling" / "config.json").unlink(),
        (folder / "1_Pooling").rmdir(),
    ],
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_view_mends_itself(blobs, views, how):
    revision = put(blobs, FILES)
    folder = views.view(revision)
    DAMAGES[how](folder)
    assert views.view(revision) == folder
    assert seen(folder) == FILES
    assert [path.name for path in folder.parent.iterdir()] == [revision.id]


def test_a_sound_view_is_left_alone(blobs, views):
    revision = put(blobs, FILES)
    before = views.view(revision).stat().st_ino
    assert views.view(revision).stat().st_ino == before


async def test_many_may_ask_at_once(blobs, views):
    revision = put(blobs, FILES)
    gate = threading.Barrier(4)

    def ask():
        gate.wait()
        return Views(blobs).view(revision)

    folders = await asyncio.gather(*(asyncio.to_thread(ask) for _ in range(4)))
    assert len(set(folders)) == 1
    assert seen(folders[0]) == FILES


def test_a_collection_meanwhile_does_no_harm(blobs, views):
    revision = put(blobs, {f"{number}/file": b"%d" % number for number in range(300)})
    root = blobs.root / "views"
    there = threading.Event()

    def collect():
        while not (root.is_dir() and any("~" in path.name for path in root.iterdir())):
            pass
        there.set()
        Views(blobs).sweep({revision.id})

    collector = threading.Thread(target=collect)
    collector.start()
    folder = views.view(revision)
    collector.join()
    assert there.is_set()
    assert len(seen(folder)) == 300


@pytest.mark.parametrize("cut", [True, False])
def test_a_file_that_is_not_whole_is_refused(blobs, views, cut):
    revision = put(blobs, FILES)
    path = blobs.path(models.sha256(b"weights"))
    path.write_bytes(b"we") if cut else path.unlink()
    with pytest.raises(CorruptModel, match=r"model\.safetensors is not in the store"):
        views.files(revision)


def test_views_that_nobody_needs_are_swept(blobs, views):
    views.sweep(())
    one, two = put(blobs, FILES), put(blobs, {"config.json": b"{}"})
    views.view(one)
    views.view(two)
    (blobs.root / "views" / f"{one.id}~killed").mkdir()
    views.sweep({two.id})
    assert [path.name for path in (blobs.root / "views").iterdir()] == [two.id]
    assert blobs.path(models.sha256(b"weights")).exists()


def test_a_model_in_a_folder_of_its_own_is_used_there(tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"12")
    files = (FileEntry("a.gguf", 2, "0", "model"), FileEntry("a.gguf", 2, "0", "file"))
    installed = Installed("a", Revision("file:a", "gguf", files), 0.0, folder=tmp_path)
    assert found_files(installed) == {"model": tmp_path / "a.gguf"}
    snapshot = Installed("a", Revision("file:a", "safetensors", files), 0.0, folder=tmp_path)
    assert found_files(snapshot) == {"model": tmp_path}
    (tmp_path / "a.gguf").write_bytes(b"123")
    with pytest.raises(CorruptModel, match="not as it was found"):
        found_files(installed)
    with pytest.raises(ValueError, match="lies in the store"):
        found_files(Installed("a", Revision("file:a", "gguf", files), 0.0))
