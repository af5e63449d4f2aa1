"""Models in folders of the user's own: found, named, watched; nothing is copied and nothing is believed."""

import json
import os
import struct

import pytest

from corral.catalog.discovery import Discovery
from corral.catalog.views import found_files
from corral.domain.models import Capability
from support import models, templates
from support.clocks import HandClock

ONE, TWO = models.gguf(seed=1), models.gguf(seed=2)
EYES = models.gguf(seed=3, general__architecture="clip")


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    return folder


@pytest.fixture
def discovery(root, clock):
    return Discovery((root, root.parent / "nowhere"), clock, probe=templates.probe_all)


def lay(folder, files):
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


async def names(discovery, clock):
    """As they are a second later, when what is new has been opened."""
    await clock.advance(1)
    discovery.installed()
    await discovery.settled()
    return list(discovery.installed())


def test_nothing_is_found_where_nothing_is(discovery):
    assert discovery.installed() == {}
    assert discovery.problems() == {}


def test_a_gguf_is_a_model_where_it_lies(discovery, root):
    lay(root, {"My Model.Q4_K_M.gguf": ONE, "notes.txt": b"x"})
    found = discovery.installed()
    assert list(found) == ["my-model.q4_k_m"]
    installed = found["my-model.q4_k_m"]
    revision = installed.revision
    assert (installed.folder, installed.pinned, installed.follows) == (root, False, "")
    assert installed.installed_at == pytest.approx((root / "My Model.Q4_K_M.gguf").stat().st_mtime)
    assert (revision.source, revision.format) == (f"file:{root}/My Model.Q4_K_M.gguf", "gguf")
    assert (revision.facts["referenced"], revision.facts["architecture"]) == (True, "llama")
    assert (revision.licence, revision.size) == ("mit", len(ONE))
    assert revision.capabilities >= {Capability.CHAT, Capability.SYSTEM_ROLE}
    assert found_files(installed) == {"model": root / "My Model.Q4_K_M.gguf"}
    assert sorted(path.name for path in root.iterdir()) == ["My Model.Q4_K_M.gguf", "notes.txt"]


def test_the_pieces_of_a_split_gguf_are_one_model(discovery, root):
    lay(root / "big", models.split_gguf(3))
    (installed,) = discovery.installed().values()
    assert installed.name == "tiny"
    assert [entry.role for entry in installed.revision.files] == ["model", "split", "split"]
    assert found_files(installed) == {"model": root / "big" / "tiny-00001-of-00003.gguf"}


def test_a_projector_belongs_to_the_model_beside_it(discovery, root):
    lay(root, {"a/llava.gguf": ONE, "a/mmproj-f16.gguf": EYES})
    lay(root, {"b/one.Q4.gguf": ONE, "b/two.Q4.gguf": TWO, "b/mmproj-two-f16.gguf": EYES})
    lay(root, {"c/three.gguf": ONE, "c/four.gguf": TWO, "c/mmproj-f16.gguf": EYES})
    found = discovery.installed()
    sighted = {name for name in found if Capability.VISION in found[name].revision.capabilities}
    assert sighted == {"llava", "two.q4"}
    assert found_files(found["llava"])["mmproj"] == root / "a" / "mmproj-f16.gguf"
    assert list(discovery.problems()) == [str(root / "c" / "mmproj-f16.gguf")]


def test_a_snapshot_is_its_folder(discovery, root):
    lay(root / "Tiny-Llama", {**models.snapshot(3), "1_Pooling/config.json": b"{}", "modeling.py": b"", "x.bin": b""})
    (installed,) = discovery.installed().values()
    assert (installed.name, installed.folder) == ("tiny-llama", root / "Tiny-Llama")
    assert installed.revision.format == "safetensors"
    assert installed.revision.facts["languages"] == ["en", "de"]
    files = {entry.name for entry in installed.revision.files}
    assert "1_Pooling/config.json" in files
    assert not files & {"modeling.py", "x.bin"}
    assert found_files(installed) == {"model": root / "Tiny-Llama"}


@pytest.mark.parametrize("main", [True, False])
def test_the_cache_of_hugging_face_is_understood(discovery, root, main):
    repository = root / "hub" / "models--Org--Tiny--X"
    for number, revision in enumerate(("aaaa", "bbbb")):
        for name, data in models.snapshot(seed__txt=revision.encode()).items():
            blob = lay(repository / "blobs", {models.sha256(data): data}) / models.sha256(data)
            link = repository / "snapshots" / revision / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
        os.utime(repository / "snapshots" / revision, (number, number))
    if main:
        lay(repository, {"refs/main": b"aaaa"})
    (installed,) = discovery.installed().values()
    assert installed.name == "tiny--x"
    assert installed.folder == repository / "snapshots" / ("aaaa" if main else "bbbb")
    assert discovery.problems() == {}


def test_one_name_for_two_is_told_apart_by_the_folder(discovery, root):
    lay(root, {"a/model.gguf": ONE, "b/model.gguf": TWO, "c/b/model.gguf": TWO, "d/MODEL.gguf": ONE, "ü.gguf": ONE})
    found = discovery.installed()
    assert {name: item.folder.relative_to(root).as_posix() for name, item in found.items()} == {
        "model": "a",
        "b-model": "b",
        "b-model-2": "c/b",
        "d-model": "d",
        "mine": ".",
    }
    assert len({item.revision.id for item in found.values()}) == 5


async def test_changes_are_noticed_without_a_restart(discovery, root, clock):
    lay(root, {"one.gguf": ONE})
    assert list(discovery.installed()) == ["one"]
    before = discovery.installed()["one"].revision.id
    lay(root, {"two.gguf": TWO})
    assert list(discovery.installed()) == ["one"]  # one look a second
    assert await names(discovery, clock) == ["one", "two"]
    first = discovery.installed()
    await clock.advance(1)
    assert discovery.installed() is first
    (root / "two.gguf").unlink()
    lay(root, {"one.gguf": TWO})
    os.utime(root / "one.gguf", (1, 1))
    assert await names(discovery, clock) == ["one"]
    assert discovery.installed()["one"].revision.id != before
    (root / "one.gguf").unlink()
    assert await names(discovery, clock) == []


async def test_what_is_still_being_written_is_no_model_yet(discovery, root, clock):
    path = root / "slow.gguf"
    path.write_bytes(ONE[:900])
    assert discovery.installed() == {}
    assert "still being written" not in discovery.problems()[str(path)]
    path.write_bytes(ONE[:1200])
    assert await names(discovery, clock) == []
    assert discovery.problems()[str(path)].startswith(
        "It is still being written. slow.gguf: The model file is truncated"
    )
    await clock.advance(11)
    assert discovery.problems()[str(path)].startswith("slow.gguf: The model file is truncated")
    path.write_bytes(ONE)
    assert await names(discovery, clock) == ["slow"]
    assert discovery.problems() == {}


async def test_only_what_is_new_is_read(discovery, root, clock):
    lay(root, {"one.gguf": ONE})
    assert list(discovery.installed()) == ["one"]
    facts = (root / "one.gguf").stat()
    (root / "one.gguf").write_bytes(b"x" * len(ONE))  # behind its back: same size, same time
    os.utime(root / "one.gguf", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    lay(root, {"two.gguf": TWO})
    assert await names(discovery, clock) == ["one", "two"]


@pytest.mark.parametrize(
    ("files", "path", "says"),
    [
        ({"bad.gguf": b"GGUF nonsense"}, "bad.gguf", "bad.gguf: GGUF version"),
        ({"bad.gguf": b"\x80\x04\x95 pickle"}, "bad.gguf", "a pickle"),
        ({"bad.gguf": b""}, "bad.gguf", "bad.gguf: Not a sound GGUF"),
        (dict(list(models.split_gguf(3).items())[:2]), "tiny-00001-of-00003.gguf", "1 of 3 pieces are missing"),
        ({f"s/{n}": d for n, d in models.snapshot(config__json=b"{").items()}, "s", "config.json"),
        ({f"s/{n}": d for n, d in models.snapshot(tokenizer__json=b"\x80\x04.").items()}, "s", "a pickle"),
    ],
)
def test_what_is_damaged_is_told_and_is_no_model(discovery, root, files, path, says):
    lay(root, files)
    assert discovery.installed() == {}
    assert list(discovery.problems()) == [str(root / path)]
    assert says in discovery.problems()[str(root / path)]


def test_links_to_weights_are_followed_and_links_to_folders_or_documents_elsewhere_are_not(discovery, root, tmp_path):
    lay(tmp_path / "outside", {"a.gguf": ONE})
    lay(root, {"real/one.gguf": ONE})
    (root / "inside.gguf").symlink_to("real/one.gguf")
    (root / "out.gguf").symlink_to(tmp_path / "outside" / "a.gguf")
    (root / "text").symlink_to(tmp_path / "outside" / "a.gguf")
    (root / "nowhere.gguf").symlink_to("none.gguf")
    (root / "loop.gguf").symlink_to("loop.gguf")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "self").symlink_to(root)
    os.mkfifo(root / "pipe.gguf")
    snapshot = models.snapshot()
    lay(root / "snapshot", {name: data for name, data in snapshot.items() if name != "config.json"})
    lay(tmp_path / "outside", {"config.json": snapshot["config.json"]})
    (root / "snapshot" / "config.json").symlink_to(tmp_path / "outside" / "config.json")
    assert set(discovery.installed()) == {"inside", "one", "out"}
    assert {str(root / name) for name in ("nowhere.gguf", "loop.gguf")} <= set(discovery.problems())


def test_it_looks_four_folders_deep_and_not_into_hidden_ones(discovery, root):
    lay(root, {"1/2/3/4/near.gguf": ONE, "1/2/3/4/5/far.gguf": ONE, ".hidden/a.gguf": ONE, ".a.gguf": ONE})
    assert list(discovery.installed()) == ["near"]


def test_the_store_itself_is_left_out(root, clock):
    lay(root, {"store/blobs/a.gguf": ONE, "mine.gguf": TWO})
    assert list(Discovery((root, root), clock, exclude=root / "store", probe=templates.probe_all).installed()) == [
        "mine"
    ]
    assert Discovery((root,), clock, exclude=root).installed() == {}


def test_names_that_cannot_be_shown_are_told_and_left_out(discovery, root):
    lay(root, {os.fsdecode(b"a\xff.gguf"): ONE, "b\x1b[31m.gguf": ONE})
    assert discovery.installed() == {}
    assert len(discovery.problems()) == 2
    assert all(key.isprintable() for key in discovery.problems())


def test_a_folder_that_is_a_file_is_nothing(tmp_path, clock):
    (tmp_path / "file").write_bytes(ONE)
    assert Discovery((tmp_path / "file", tmp_path / "\0"), clock).installed() == {}


async def test_there_is_a_limit_to_what_is_looked_at(root, clock):
    for number in range(1001):
        (root / f"{number:04}.gguf").write_bytes(b"")
    discovery = Discovery((root,), clock)
    assert discovery.installed() == {}
    assert len(discovery.problems()) == 1001
    assert discovery.problems()[str(root / "1000.gguf")].startswith("More than 1000 models")
    first = discovery.problems()
    await clock.advance(1)
    assert discovery.problems() is first


async def test_what_is_new_is_opened_beside_the_loop(discovery, root, clock):
    lay(root, {"one.gguf": ONE})
    assert list(discovery.installed()) == ["one"]  # the first time at once
    lay(root, {"two.gguf": TWO})
    await clock.advance(1)
    assert list(discovery.installed()) == ["one"]
    assert list(discovery.installed()) == ["one"]
    await discovery.settled()
    assert list(discovery.installed()) == ["one", "two"]
    await discovery.settled()


def test_where_no_loop_runs_it_is_opened_at_once(discovery, root, clock):
    lay(root, {"one.gguf": ONE})
    assert list(discovery.installed()) == ["one"]
    lay(root, {"two.gguf": TWO})
    clock.time += 1
    assert list(discovery.installed()) == ["one", "two"]


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


def test_what_was_found_out_is_remembered(root, clock, store):
    lay(root, {"one.gguf": ONE, "bad.gguf": b"GGUF"})
    lay(root / "tiny", models.snapshot())
    first = Discovery((root,), clock, exclude=store, probe=templates.probe_all)
    found = first.installed()
    assert len(json.loads((store / "discovered.json").read_bytes())["models"]) == 2
    facts = (root / "one.gguf").stat()
    (root / "one.gguf").write_bytes(b"x" * len(ONE))  # behind its back: same size, same time
    os.utime(root / "one.gguf", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    second = Discovery((root,), clock, exclude=store, probe=templates.probe_all)
    assert second.installed() == found
    assert second.problems() == first.problems()
    os.utime(root / "one.gguf", ns=(1, 1))
    assert list(Discovery((root,), clock, exclude=store, probe=templates.probe_all).installed()) == ["tiny"]


def test_nothing_is_remembered_without_a_store(root, clock, tmp_path):
    lay(root, {"one.gguf": ONE})
    assert list(Discovery((root,), clock, exclude=tmp_path / "none", probe=templates.probe_all).installed()) == ["one"]
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: b"{",
        lambda text: b"[]",
        lambda text: text.replace(b'"corral":1', b'"corral":99', 1),
        lambda text: text.replace(b'"llama"', b"[1]"),
        lambda text: text.replace(b'"sha256":"', b'"sha256":"0'),
        lambda text: text.replace(b'"id":"', b'"id":"../'),
        lambda text: text.replace(b'"id":', b'"ID":'),
        lambda text: b'{"corral":1,"models":{"k":7,"l":{"id":3}}}',
    ],
)
def test_a_damaged_memory_harms_nobody(root, clock, store, damage):
    lay(root, {"one.gguf": ONE})
    found = Discovery((root,), clock, exclude=store, probe=templates.probe_all).installed()
    path = store / "discovered.json"
    path.write_bytes(damage(path.read_bytes()))
    assert Discovery((root,), clock, exclude=store, probe=templates.probe_all).installed().keys() == found.keys()


def test_a_memory_that_cannot_be_written_is_no_error(root, clock, store):
    lay(root, {"one.gguf": ONE})
    (store / "discovered.json").mkdir()
    assert list(Discovery((root,), clock, exclude=store, probe=templates.probe_all).installed()) == ["one"]


def test_what_changes_while_it_is_looked_into_is_read_again(root, clock):
    lay(root / "tiny", models.snapshot(**{"chat_template.jinja": b"{{ messages }}"}))
    lay(root / "small", models.snapshot(**{"chat_template.jinja": b"{{ messages }}", "README.md": b"---\n---\n"}))

    def meanwhile(asked):
        lay(root / "tiny", {"chat_template.jinja": b"{{ messages }}, other"})
        (root / "small" / "README.md").unlink(missing_ok=True)
        return templates.probe_all(asked)

    discovery = Discovery((root,), clock, probe=meanwhile)
    assert discovery.installed() == {}
    problems = discovery.problems()
    assert problems[str(root / "tiny")] == "It was changed while it was read."
    assert problems[str(root / "small")].startswith("It cannot be read")
    clock.time += 1
    assert list(discovery.installed()) == ["small", "tiny"]


def test_a_folder_whose_path_cannot_be_shown_is_told_of(clock, tmp_path, store):
    root = tmp_path / os.fsdecode(b"\xe9")
    lay(root, {"one.gguf": ONE})
    discovery = Discovery((root,), clock, exclude=store, probe=templates.probe_all)
    assert discovery.installed() == {}
    assert list(discovery.problems().values()) == ["Its path has characters that cannot be shown."]


def test_a_clock_beyond_all_calendars_hides_nothing(root, clock):
    lay(root, {"one.gguf": ONE})
    os.utime(root / "one.gguf", (0, 10**12))  # some file systems keep that, others their own latest time
    assert list(Discovery((root,), clock, probe=templates.probe_all).installed()) == ["one"]


def test_a_header_that_lies_about_its_size_hides_nothing_else(root, clock, store):
    lies = b"GGUF" + struct.pack("<IQQ", 3, 40, 1) + models.text("general.architecture") + models.value("llama")
    lies += models.tensor("a", (1 << 59,), 99, 0) * 40 + bytes(64)
    lay(root, {"one.gguf": ONE, "lies.gguf": lies})
    discovery = Discovery((root,), clock, exclude=store, probe=templates.probe_all)
    assert list(discovery.installed()) == ["one"]
    assert "impossible number of parameters" in discovery.problems()[str(root / "lies.gguf")]


class SlowDisk(HandClock):
    """A clock on which each look takes a quarter of a second."""

    def now(self):
        self.time += 0.25
        return self.time


def test_a_slow_disk_is_looked_at_less_often(root):
    clock = SlowDisk()
    discovery = Discovery((root,), clock, probe=templates.probe_all)
    assert discovery.installed() == {}
    lay(root, {"one.gguf": ONE})
    clock.time += 4
    assert discovery.installed() == {}
    clock.time += 4
    assert list(discovery.installed()) == ["one"]
