"""The index: fast, seen through at once when it is wrong, and never the reason for a wrong answer."""

import hashlib
import json
import os
import threading
from copy import deepcopy

import orjson
import pytest

from corral.catalog import history, manifests
from corral.catalog.index import Index
from corral.catalog.manifests import Facts, Recorded
from corral.domain.models import Capability, FileEntry, Installed, Revision
from corral.errors import CorruptModel, ModelNotFound, StoreError
from corral.kit.clock import SystemClock
from support.stores import VERSIONS, Store, digest

COUNT = 80  # over what makes a reader write the index


class Late(SystemClock):
    """Some seconds later than it is, so that everything has settled."""

    def wall(self):
        return super().wall() + 5


def fill(root, count=COUNT, template=""):
    """A store of `count` models, made without the registry."""
    for folder in ("manifests", "names"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        revision = Revision(
            f"hf:m{number}", "gguf", (FileEntry("m.gguf", number, f"{number:064x}"),), str(number), "mit",
            frozenset({Capability.CHAT}), {"number": number, "chat_template": template}, {"chat_template": template},
        )  # fmt: skip
        record = history.Record(f"m{number:03d}", revision.id, (history.Step(revision.id, float(number)),), "f")
        (root / "manifests" / f"{revision.id}.json").write_bytes(manifests.dump(revision))
        (root / "names" / f"m{number:03d}.json").write_bytes(history.dump(record))


@pytest.fixture
def root(tmp_path):
    fill(tmp_path)
    return tmp_path


def fresh(root):
    return Store(root, clock=Late())


def truth(root):
    """What the records say, read without any index."""
    store = fresh(root)
    store._index.forget()
    return [store.get(name) for name in store.names()]


def test_a_reader_of_many_writes_the_index_and_the_next_believes_it(root):
    first = fresh(root).all()
    assert (root / "index.json").exists()
    store = fresh(root)
    store._index._manifests = None  # nothing may be read but the index
    with pytest.raises(AttributeError):
        store.names()
    store = fresh(root)
    assert store.all() == first == truth(root)
    assert store._index._confirmed == set()  # no record was read
    store.get("m007")
    assert store._index._confirmed == {"m007"}


def test_few_models_need_no_index(tmp_path):
    fill(tmp_path, 10)
    assert len(fresh(tmp_path).all()) == 10
    assert not (tmp_path / "index.json").exists()


def rewritten(index, change):
    """The index with changed lines, and a head that vouches for them."""
    head, _, body = index.partition(b"\n")
    body = change(body)
    found = json.loads(head)
    return orjson.dumps(found | {"sha256": hashlib.sha256(body).hexdigest()}) + b"\n" + body


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"garbage",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data.replace(b"m001", b"m002", 1),
        lambda data: b"{}\n" + data.partition(b"\n")[2],
        lambda data: b'{"corral":1,"sha256":5,"names":"x"}\n',
        lambda data: os.urandom(5000),
        lambda data: rewritten(data, lambda body: b""),
        lambda data: rewritten(data, lambda body: body.replace(b"\t", b" ")),
        lambda data: rewritten(data, lambda body: b"\xff" + body),
        # Stamps of files that are no longer like that: each is read again.
        lambda data: rewritten(data, lambda body: body.replace(b".", b".1", 100)),
    ],
)
def test_a_damaged_index_is_no_index(root, damage):
    before = truth(root)
    fresh(root).names()
    index = (root / "index.json").read_bytes()
    (root / "index.json").write_bytes(damage(index))
    store = fresh(root)
    assert store.all() == before
    assert [store.get(name) for name in store.names()] == before


def test_an_index_of_another_store_is_seen_through(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    fill(other, COUNT + 20)
    fresh(other).names()
    before = truth(root)
    (root / "index.json").write_bytes((other / "index.json").read_bytes())
    assert fresh(root).all() == before


def test_an_index_forged_with_care_never_changes_what_is_acted_on(root):
    """All stamps and the digest are right; only what it says of one name is another model's revision."""
    fresh(root).names()
    before = {item.name: item for item in truth(root)}
    other = before["m002"].revision.id.encode()
    mine = before["m001"].revision.id.encode()
    index = (root / "index.json").read_bytes()

    def forge(body):
        lines = body.split(b"\n")
        return b"\n".join(line.replace(mine, other) if line.startswith(b"m001\t") else line for line in lines)

    (root / "index.json").write_bytes(rewritten(index, forge))
    store = fresh(root)
    assert store.get("m001") == before["m001"]
    assert store.all() == list(before.values())  # and by now the rest is believed no more, either


@pytest.mark.parametrize("seen", [True, False])
def test_what_changes_behind_the_index_is_seen(root, seen):
    store = fresh(root)
    if seen:
        store.names()
    fresh(root).names()
    (root / "names" / "m005.json").unlink()
    (root / "names" / "m006.json").write_text("{")
    os.utime(root / "names" / "m006.json", (1, 1))
    victim = truth(root)[0]
    (root / "manifests" / f"{victim.revision.id}.json").unlink()
    assert len(store.names()) == COUNT - 3
    assert list(store.damaged()) == ["m000", "m006"]
    with pytest.raises(ModelNotFound):
        store.get("m005")
    for name in ("m006", "m000"):
        with pytest.raises(StoreError, match="damaged"):
            store.get(name)


def test_a_record_replaced_in_place_is_seen_by_the_next_process(root):
    fresh(root).names()
    path = root / "names" / "m001.json"
    stat = path.stat()
    record = json.loads(path.read_bytes())
    path.write_text(json.dumps(record | {"pinned": True}))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - 7))
    assert fresh(root).get("m001").pinned
    assert [item.pinned for item in fresh(root).all()][:3] == [False, True, False]


@pytest.mark.parametrize("field", ["name", "sha256"])
@pytest.mark.parametrize("value", ["../../etc/passwd", "/etc/passwd", "a/../../b", "x\0y", "", "a//b"])
def test_a_manifest_with_a_path_as_a_file_name_is_refused(root, field, value):
    victim = truth(root)[3]
    path = root / "manifests" / f"{victim.revision.id}.json"
    content = json.loads(path.read_bytes())
    content["files"][0][field] = value
    file = FileEntry(content["files"][0]["name"], 3, content["files"][0]["sha256"])
    forged = Revision("hf:x", "gguf", (file,), facts={}, defaults=content["defaults"])
    # Its own id is right, and so is the file's name: the content alone gives it away.
    content["id"] = forged.id
    path.unlink()
    (root / "manifests" / f"{forged.id}.json").write_text(json.dumps(content))
    record = history.Record("m003", forged.id, (history.Step(forged.id, 1.0),))
    (root / "names" / "m003.json").write_bytes(history.dump(record))
    store = fresh(root)
    with pytest.raises(StoreError, match="damaged"):
        store.get("m003")
    assert "m003" not in store.names()


def test_long_texts_stay_out_of_the_index_and_are_there_when_asked_for(tmp_path):
    long = "{{ template }}" * 1000
    fill(tmp_path, COUNT, long)
    before = truth(tmp_path)
    fresh(tmp_path).names()
    assert (tmp_path / "index.json").stat().st_size < COUNT * 1000
    listed = fresh(tmp_path).all()
    assert listed[3].revision.id == before[3].revision.id
    assert not [item for item in listed if isinstance(item.revision.facts, dict)]
    assert listed[3].revision.facts["chat_template"] == long
    assert listed[3].revision.defaults["chat_template"] == long
    assert listed == before
    assert "…" in repr(listed[0].revision.facts)


def test_facts_behave_as_a_mapping():
    loads = []

    def load():
        loads.append(1)
        return {"long": "x" * 9}

    facts = Facts({"a": 1}, frozenset({"long"}), load)
    assert ("long" in facts, "b" in facts, len(facts), sorted(facts)) == (True, False, 2, ["a", "long"])
    changed = facts.but({"a": 2, "long": "short"})
    assert (changed["a"], changed["long"], loads) == (2, "short", [])
    assert deepcopy(facts) == {"a": 1, "long": "x" * 9} == dict(facts)
    with pytest.raises(KeyError):
        facts["b"]


def test_a_recorded_revision_is_equal_to_any_with_that_content():
    plain = Revision("hf:a", "gguf", (FileEntry("f", 1, "0" * 64),), facts={"x": 1})
    recorded = Recorded.under(plain.id, plain)
    assert recorded == plain == recorded
    assert plain == recorded
    assert recorded != Revision("hf:b", "gguf", plain.files)
    assert recorded != 5
    assert Recorded.under("f" * 64, plain, version="2").id == "f" * 64
    from dataclasses import replace

    assert replace(recorded, files=()).id == Revision("hf:a", "gguf", ()).id
    assert Installed("n", recorded, 1.0) == Installed("n", plain, 1.0)


def test_reads_are_free_when_nothing_changed(root):
    index = Index(root, Late())
    assert index.look() is index.look()
    assert index.stamp() == index.stamp() == Index(root, Late()).stamp()
    os.utime(root / "names", (1, 1))
    assert index.look() is not None
    young = Index(root, SystemClock())
    (root / "names" / "new.tmp").write_text("")
    assert young.look() is not young.look()


async def test_the_stamp_changes_with_whatever_lists_show(tmp_path):
    store, other = Store(tmp_path), Store(tmp_path)
    stamps = [store.stamp()]

    async def then(work):
        await work
        assert store.stamp() != stamps[-1]
        stamps.append(store.stamp())

    await then(other.through("m", 0))
    await then(other.through("m", 1))
    await then(other.rollback("m"))
    await then(other.pin("m"))
    await then(other.set_override("m", {"context_length": 5}))
    await then(other.unpin("m"))
    await then(other.remove("m"))


def test_pages_cover_everything_once(root):
    store = fresh(root)
    seen, after = [], None
    while page := store.page(after, 7):
        seen += [item.name for item in page]
        after = page[-1].name
    assert seen == store.names() == [f"m{number:03d}" for number in range(COUNT)]
    assert [item.name for item in store.page("m0105", 2)] == ["m011", "m012"]
    assert store.page("zzz", 5) == []
    assert store.page(None, 0) == []


async def test_a_page_does_not_stumble_over_what_is_being_removed(tmp_path):
    store = Store(tmp_path)
    await store.through("a", 0)
    await store.through("b", 1)
    view = store._index.look()
    (tmp_path / "manifests" / f"{view.records['a'].revision}.json").unlink()
    assert [item.name for item in store.all()] == ["b"]


async def test_threads_may_read_while_others_write(tmp_path):
    store = Store(tmp_path)
    stop = threading.Event()
    errors = []

    def read():
        while not stop.is_set():
            try:
                names = store.names()
                assert names == sorted(names)
                store.all()
            except Exception as error:
                errors.append(error)
                raise

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for version in (0, 1, 2, 0):
            for name in "abc":
                store.offer(name, version)
                assert (await store.install(f"memory:{name}")) == store.get(name)
            if version:
                await store.rollback("a")
            await store.remove("b")
            assert "b" not in store.names()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []


async def test_a_folder_that_is_no_folder_is_an_error_or_empty(tmp_path):
    (tmp_path / "names").write_text("")
    assert Store(tmp_path).names() == []


async def test_a_model_in_a_folder_of_its_own(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x.gguf").write_bytes(VERSIONS[1])
    entry = FileEntry("x.gguf", len(VERSIONS[1]), digest(1))
    found = Installed("x", Revision("file:x", "gguf", (entry,)), 1.0, folder=tmp_path / "mine")

    class Folder:
        def __init__(self):
            self.models = {"x": found}
            self.wrong = {}

        def installed(self):
            return self.models

        def problems(self):
            return self.wrong

    folder = Folder()
    store = Store(tmp_path / "models", discover=folder)
    assert (store.names(), store.all(), store.get("x"), "x" in store) == (["x"], [found], found, True)
    assert store.files(found) == {"model": tmp_path / "mine" / "x.gguf"}
    assert store.path(entry) == tmp_path / "mine" / "x.gguf"
    from corral.errors import Conflict

    for act in (store.update, store.rollback, store.pin, store.remove, store.check, store.verify):
        with pytest.raises(Conflict, match="mine"):
            await act("x")
    before = store.stamp()
    folder.wrong = {"mine/y.gguf": "it is cut short"}
    assert store.problems() == {"mine/y.gguf": "it is cut short"}
    assert store.stamp() != before
    before = store.stamp()
    await store.through("a", 0)
    assert store.names() == ["a", "x"]
    await store.through("x", 2)
    assert store.get("x").folder is None
    folder.models = {}
    assert store.stamp() != before
    with pytest.raises(CorruptModel):
        store.path(entry)
