"""The catalog's commands, as people run them: with a server and without one, on sources that behave and that do not."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pexpect
import pytest

from support import models
from support.hub import Hub
from support.oci import image
from tests.support.commands import CORRAL, Yard

BIG = models.gguf(1_500_000, seed=7)
REPO = "ann/tiny-GGUF"
REF = f"hf:{REPO}"


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub with one model of 6 MB."""
    hub = Hub().start()
    try:
        hub.repo(REPO, {"tiny-Q8_0.gguf": BIG, "README.md": b"# Tiny\n"})
        yield hub
    finally:
        hub.stop()


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    home = tmp_path / "home"
    home.mkdir()
    return Yard(home)


@pytest.fixture
def desk(yard: Yard) -> Iterator[Yard]:
    """The yard, where the commands of a test do not each take a process of their own to start."""
    with yard.desk() as desk:
        yield desk


@pytest.fixture(params=["alone", "served"])
def any_desk(request: pytest.FixtureRequest, desk: Yard) -> Iterator[Yard]:
    """A home without a server, and one with it: the commands do the same."""
    with ExitStack() as stack:
        if request.param == "served":
            stack.enter_context(desk.serving())
        yield desk


def of(hub: Hub, yard: Yard) -> Yard:
    """The yard that asks this hub."""
    private = hub.url.removeprefix("http://")
    # A download that stops here goes on when the test says so, however long that takes.
    more = {"CORRAL_SOURCES_ALLOW_PRIVATE": private, "CORRAL_SOURCES_STALL_TIMEOUT": "1h"}
    return Yard(yard.home, {**yard.more, **hub.env, **more})


def file(yard: Yard, name: str, seed: int, elements: int = 256) -> Path:
    path = yard.home / name
    path.write_bytes(models.gguf(elements, seed=seed))
    return path


def snapshot(yard: Yard) -> Path:
    """The folder of a model that no runtime here runs."""
    folder = yard.home / "tiny"
    folder.mkdir()
    for name, data in models.snapshot().items():
        (folder / name).write_bytes(data)
    return folder


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


@contextmanager
def pulling(hub: Hub, yard: Yard, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`corral pull` whose bytes stop to flow after two megabytes, in the middle of that."""
    hub.fault("stall", after=2_000_000)
    command = [CORRAL, "pull", REF, *arguments, "--json"]
    with subprocess.Popen(command, env=yard.env, cwd=yard.home, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if json.loads(line).get("done", 0) > 1_000_000:
                    break
            yield process
        finally:
            process.kill()


def test_the_life_of_revisions(any_desk: Yard) -> None:
    yard = any_desk
    file(yard, "m.gguf", 1)
    assert yard.run("pull", "file:m.gguf").stdout.startswith("m is installed: ")
    assert yard.run("pull", "file:./m.gguf").stdout.startswith("m was installed already: ")
    first = yard.json("show", "m")["revision"]
    assert yard.run("update", "m").stdout == "m is up to date.\n"
    assert yard.json("update", "--check")["changed"] is False

    file(yard, "m.gguf", 2, 300)
    change = yard.json("update", "m", "--check")
    assert (change["changed"], change["revision"]) == (True, first)
    assert [(item["name"], item["kind"]) for item in change["files"]] == [("m.gguf", "changed")]
    assert yard.json("show", "m")["revision"] == first
    shown = yard.run("update", "m").stdout
    assert "  ~ m.gguf (" in shown
    assert f"revision {first[:12]} → " in shown
    second = yard.json("show", "m")["revision"]
    assert [(row["revision"], row["current"]) for row in yard.json("history", "m")["revisions"]] == [
        (second, True), (first, False),
    ]  # fmt: skip

    assert yard.run("rollback", "m", "-q").stdout == f"{first}\n"
    assert "no earlier revision" in yard.run("rollback", "m", code=5).stderr
    assert yard.run("rollback", "m", second[:8], "-q").stdout == f"{second}\n"
    assert yard.run("history", "m").stdout.splitlines()[1].startswith(f"*  {second[:12]}  ")

    yard.run("pin", "m")
    assert yard.run("list").stdout.splitlines()[0].split()[5] == "MARKS"
    assert yard.run("update", "m", code=5).stderr.splitlines() == [
        "error: m is pinned, and not updated.", "hint: Let go: corral pin m --off",
    ]  # fmt: skip
    assert json.loads(yard.run("update", "m", "--json", code=5).stderr)["error"]["code"] == "model_pinned"
    assert "corral pin m --off" in yard.run("rm", "m", "--yes", code=5).stderr
    assert yard.run("pin", "m", "--off").stdout == "m is no longer pinned.\n"
    assert yard.json("verify", "m")["ok"] is True
    assert yard.run("verify").stdout == "All 2 revisions are sound.\n"
    done = lines(yard.run("rm", "m", "--yes", "--json"))[-1]
    assert done["removed"] == "m"
    assert done["freed"] > 0
    assert yard.json("list")["count"] == 0
    kinds = [row["operation_type"] for row in yard.json("operations")["operations"]]
    assert kinds == ["remove", "verify", "verify", "update", "install", "install"]


def test_several_at_once(any_desk: Yard) -> None:
    yard = any_desk
    for number, name in enumerate("abc"):
        file(yard, f"{name}.gguf", number)
    done = lines(yard.run("pull", "file:a.gguf", "file:b.gguf", "file:a.gguf", "--json"))
    assert sorted(line["name"] for line in done if line["event"] == "installed") == ["a", "b"]

    broken = yard.run("pull", "file:c.gguf", "file:none.gguf", "--json", code=3)
    ends = {line["name"]: line["event"] for line in lines(broken) if line["event"] != "progress"}
    assert ends == {"c": "installed", "file:none.gguf": "failed"}
    assert json.loads(broken.stderr)["error"]["code"] == "source_not_found"
    assert yard.run("list", "-q").stdout.split() == ["a", "b", "c"]
    assert "one by one" in yard.run("pull", "file:a.gguf", "file:b.gguf", "--name", "x", code=2).stderr


def test_rm_of_several_and_of_nobody(any_desk: Yard) -> None:
    yard = any_desk
    for number, name in enumerate("ab"):
        file(yard, f"{name}.gguf", number)
    yard.run("pull", "file:a.gguf", "file:b.gguf")
    yard.run("rm", "a", "nobody", "--yes", code=3)
    assert yard.run("list", "-q").stdout.split() == ["a", "b"]
    assert sorted(yard.run("rm", "a", "b", "--yes", "-q").stdout.split()) == ["a", "b"]
    assert yard.run("list", "-q").stdout == ""


def test_what_nothing_here_runs_is_installed_and_that_is_said(any_desk: Yard) -> None:
    done = any_desk.run("pull", f"file:{snapshot(any_desk)}")

    assert done.stdout.startswith("tiny is installed: ")
    assert done.stderr.splitlines()[-1] == "No runtime here runs safetensors files yet. What could: corral runtimes"


def test_the_server_and_the_command_show_the_same(hub: Hub, yard: Yard) -> None:
    yard = of(hub, yard)
    with yard.serving() as url:
        with pulling(hub, yard) as process:
            operation = yard.json("operations")["operations"][0]
            events = f"{url}/api/v1/models/operations/{operation['operation_id']}/events"
            with urllib.request.urlopen(events, timeout=30) as stream:
                seen = _first(stream)
            assert process.poll() is None
            assert seen["status"] == "in_progress"
            assert seen["total_bytes"] == operation["total_bytes"] == len(BIG)
            assert 1_000_000 < seen["done_bytes"] <= 2_000_000
            yard.run("operations", "cancel", operation["operation_id"][:8])
            assert process.stdout is not None
            process.stdout.read()
            assert process.wait(60) == 5
        assert yard.json("operations")["operations"][0]["status"] == "cancelled"
        with_server = lines(yard.run("pull", REF, "--json"))[-1]
        served = yard.json("operations")["operations"][0]
    other = Yard(yard.home / "other", yard.more)
    other.home.mkdir()
    alone = lines(other.run("pull", REF, "--json"))[-1]
    own = other.json("operations")["operations"][0]
    told = ("status", "progress", "phase", "done_bytes", "total_bytes", "model_name")
    assert {key: served[key] for key in told} == {key: own[key] for key in told}
    assert served["done_bytes"] == len(BIG)
    assert (with_server["revision"], with_server["downloaded"]) == (alone["revision"], True)


def _first(stream: Any) -> dict[str, Any]:
    """The first event that a stream tells."""
    return next(json.loads(line[5:]) for line in iter(stream.readline, b"") if line.startswith(b"data:"))


@pytest.mark.parametrize("with_server", [False, True])
def test_two_pulls_of_one_model_share_its_bytes(hub: Hub, yard: Yard, with_server: bool) -> None:
    yard = of(hub, yard)
    with ExitStack() as stack:
        if with_server:
            stack.enter_context(yard.serving())
        done = _twice(yard)

    assert [lines(item)[-1]["name"] for item in done] == ["tiny-gguf", "tiny-gguf"]
    assert len(yard.json("operations")["operations"]) <= 2
    assert hub.sent < 1.5 * len(BIG)


def _twice(yard: Yard) -> list[subprocess.CompletedProcess[str]]:
    """The same pull, by two processes at once."""
    done: list[subprocess.CompletedProcess[str]] = []
    threads = [threading.Thread(target=lambda: done.append(yard.run("pull", REF, "--json"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


@pytest.mark.parametrize("with_server", [False, True])
def test_ctrl_c_pauses_and_the_next_pull_goes_on(hub: Hub, yard: Yard, with_server: bool) -> None:
    yard = of(hub, yard)
    with ExitStack() as stack:
        if with_server:
            stack.enter_context(yard.serving())
        with pulling(hub, yard) as process:
            process.send_signal(signal.SIGINT)
            assert process.stdout is not None
            process.stdout.read()
            assert process.wait(60) == 130
        paused = yard.json("operations")["operations"][0]
        assert paused["status"] == "paused"
        assert yard.run("list", "-q").stdout == ""
        done = lines(yard.run("pull", REF, "--json"))[-1]
        assert (done["event"], done["downloaded"]) == ("installed", True)
        ended = yard.json("operations")["operations"]
        assert [(row["operation_id"], row["status"]) for row in ended] == [(paused["operation_id"], "completed")]
    assert any(asked.range and asked.range != "bytes=0-" for asked in hub.asked)


def test_a_kill_and_then_again(hub: Hub, yard: Yard) -> None:
    yard = of(hub, yard)
    with pulling(hub, yard) as process:
        process.kill()
        process.wait(60)
    assert yard.run("list", "-q").stdout == ""
    done = lines(yard.run("pull", REF, "--json"))[-1]

    assert done["event"] == "installed"
    assert any(asked.range and asked.range != "bytes=0-" for asked in hub.asked)
    assert [row["status"] for row in yard.json("operations")["operations"]] == ["completed"]
    assert yard.json("verify")["verified"] == 1
    assert lines(yard.run("gc", "--json"))[-1]["parts"] == 0


def test_a_server_that_stops_keeps_what_has_arrived(hub: Hub, yard: Yard) -> None:
    yard = of(hub, yard)
    with ExitStack() as stack:
        with yard.serving():
            process = stack.enter_context(pulling(hub, yard))
        assert process.stdout is not None
        process.stdout.read()
        assert process.wait(60) == 4
    assert yard.json("operations")["operations"][0]["status"] in {"pending", "in_progress"}
    assert lines(yard.run("pull", REF, "--json"))[-1]["event"] == "installed"
    assert [row["status"] for row in yard.json("operations")["operations"]] == ["completed"]


def test_an_operation_for_a_person(hub: Hub, yard: Yard) -> None:
    yard = of(hub, yard)
    with pulling(hub, yard) as process:
        identifier = yard.run("operations", "-q").stdout.strip()
        running = yard.run("operations", identifier).stdout
        assert "status     in_progress" in running
        assert "/6 MB" in running
        told = yard.run("operations", "pause", identifier).stdout
        assert re.fullmatch(rf"Operation {identifier} \(install .*\) is (being )?paused\.\n", told)
        assert process.wait(60) == 5
    assert "corral serve" in yard.run("operations", "resume", identifier).stderr
    assert "is cancelled." in yard.run("operations", "cancel", identifier[:9]).stdout
    assert "status     cancelled" in yard.run("operations", identifier, code=0).stdout
    assert "parts" not in yard.run("gc", "--dry-run").stdout
    assert "was cancelled" in yard.run("operations", identifier, "--follow", code=5).stderr
    assert "Which operation" in yard.run("operations", "cancel", code=2).stderr
    assert "one operation" in yard.run("operations", "--follow", code=2).stderr


def test_all_of_a_model_for_a_person(hub: Hub, yard: Yard) -> None:
    yard = of(hub, yard)
    with yard.desk() as desk:
        _about_one(desk)
    with yard.serving() as url, Yard(yard.home, {**yard.more, "CORRAL_URL": url}).desk() as far:
        rows = {row["ref"]: row for row in far.json("search", "tiny")["models"]}
        assert rows[REF]["fit"] in {"yes", "tight", "no", None}
        assert "one --source" in far.run("search", "x", "--source", "hf", "--source", "file", code=2).stderr
        assert "Name them" in far.run("update", "--all", code=2).stderr


def _about_one(yard: Yard) -> None:
    file(yard, "m.gguf", 1)
    yard.run("pull", "file:m.gguf")
    file(yard, "m.gguf", 2)
    yard.run("update", "m")
    yard.run("override", "m", "context_length=64")
    shown = yard.run("show", "m").stdout
    for title in ("Facts", "Said by hand, with corral override", "History", "Files", "fits here", "because"):
        assert f"\n{title}" in shown, title
    assert shown.count("\n  * ") == 1


def test_detached_pulls_are_done_by_the_server(hub: Hub, yard: Yard) -> None:
    yard = of(hub, yard)
    assert "corral serve" in yard.run("pull", REF, "--detach", code=4).stderr
    with yard.serving():
        identifier = yard.run("pull", REF, "--detach", "-q").stdout.strip()
        assert yard.run("operations", identifier, "--follow", "-q").stdout.strip() == "completed"
        assert yard.run("list", "-q").stdout == "tiny-gguf\n"
        assert yard.run("operations").stdout.splitlines()[1].split()[:4] == [
            identifier[:11], "install", "tiny-gguf", "completed",
        ]  # fmt: skip
        assert yard.run("operations", "cancel", identifier, code=5).stderr.startswith("error: ")


def test_the_quota_is_told_with_the_sizes(hub: Hub, yard: Yard) -> None:
    small = of(hub, Yard(yard.home, {"CORRAL_STORE_QUOTA": "3MB"}))
    done = small.run("pull", REF, code=6)

    assert "needs 6.0 MB more" in done.stderr
    assert "quota of 3.0 MB" in done.stderr
    assert hub.sent < len(BIG)
    assert small.json("df")["total"] < 1_000_000


def test_searching_the_hub_and_what_is_here(hub: Hub, yard: Yard) -> None:
    yard = of(hub, yard)
    file(yard, "mine.gguf", 1)
    yard.run("pull", "file:mine.gguf", "--name", "my-tiny")
    found = yard.json("search", "tiny")["models"]
    by_ref = {row["ref"]: row for row in found}
    assert by_ref[REF]["installed"] is None
    assert next(row for row in found if row["installed"])["installed"] == "my-tiny"
    assert all(row["fit"] in {"yes", "tight", "no", None} for row in found)
    table = yard.run("search", "tiny").stdout.splitlines()
    assert table[0].split() == ["REFERENCE", "SIZE", "FIT", "PARAMETERS", "LICENCE", "DOWNLOADS", "HERE"]

    offline = Yard(yard.home, {**yard.more, "HF_ENDPOINT": "http://127.0.0.1:1"})
    done = offline.run("search", "tiny", "--json", code=1)  # once: it takes half a minute to give up
    assert json.loads(done.stderr)["error"]["code"] == "source_error"
    document = json.loads(done.stdout)
    assert [row["installed"] for row in document["models"]] == ["my-tiny"]
    assert document["problems"][0]["code"] == "source_error"
    assert "Sources:" in yard.run("search", "x", "--source", "nowhere", code=2).stderr


def test_what_takes_room(desk: Yard) -> None:
    yard = desk
    assert yard.run("df").stdout.splitlines()[-1].endswith("free on the disk")
    file(yard, "a.gguf", 1, 100_000)
    yard.run("pull", "file:a.gguf")
    yard.run("pull", "file:a.gguf", "--name", "same")
    usage = yard.json("df")
    rows = {row["name"]: row for row in usage["models"]}
    assert rows["a"]["shared"] == rows["same"]["shared"] == rows["a"]["size"]
    assert rows["a"]["unique"] == 0
    assert usage["total"] >= rows["a"]["size"]
    assert "of 50 GB (0%)" in yard.run("df").stdout
    assert yard.run("gc", "--dry-run").stdout == "Nothing is there that nobody needs.\n"


def test_damage_is_found_named_and_mended(desk: Yard) -> None:
    yard = desk
    path = file(yard, "a.gguf", 1)
    yard.run("pull", "file:a.gguf")
    assert yard.run("verify").stdout == "The only revision is sound.\n"
    blob = Path(yard.json("show", "a")["files"][0]["path"]).resolve()
    blob.chmod(0o644)
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)

    for arguments in (["verify", "a"], ["verify"]):
        error, hint = yard.run(*arguments, code=6).stderr.splitlines()[-2:]
        assert error.startswith("error: ")
        assert hint.endswith(f": corral pull file:{path} --name a")
    yard.run("pull", f"file:{path}", "--name", "a")
    assert yard.json("verify", "a")["ok"] is True


def test_moving_to_another_folder_and_back(desk: Yard, tmp_path: Path) -> None:
    yard = desk
    file(yard, "a.gguf", 1, 100_000)
    yard.run("pull", "file:a.gguf")
    other = tmp_path / "other"
    other.mkdir()
    assert "Move it where?" in yard.run("move", "a", code=2).stderr
    assert f"a lies in {other} now" in yard.run("move", "a", str(other)).stdout
    assert any(path.is_file() for path in other.rglob("*"))
    assert yard.json("verify", "a")["ok"] is True
    assert "back in the store" in yard.run("move", "a", "--back").stdout
    assert not any(path.is_file() for path in other.rglob("*"))


def test_models_that_are_used_where_they_lie(yard: Yard) -> None:
    (yard.home / "models").mkdir()
    elsewhere = Yard(yard.home, {"CORRAL_STORE_MODELS_DIR": str(yard.home / "store")})
    path = file(yard, "models/found.gguf", 1)
    assert elsewhere.run("list").stdout.splitlines()[1].endswith("in place")
    shown = elsewhere.json("show", "found")
    assert (shown["files"][0]["path"], shown["history"]) == (str(path), [])
    assert "it lies in" in elsewhere.run("rm", "found", "--yes", code=5).stderr
    assert "No model is installed" in elsewhere.run("update", "--check").stdout
    assert path.exists()


def test_what_is_said_by_hand(desk: Yard) -> None:
    yard = desk
    file(yard, "a.gguf", 1)
    yard.run("pull", "file:a.gguf")
    assert "Nothing is said" in yard.run("override", "a").stdout
    assert yard.json("override", "a", "supports_tools=true", "context_length=64")["override"] == {
        "capabilities": {"supports_tools": True}, "context_length": 64,
    }  # fmt: skip
    shown = yard.json("show", "a")
    assert "tools" in shown["capabilities"]
    assert shown["facts"]["context_length"] == 64
    assert "supports_tools" in yard.run("override", "a", "supports_tolls=true", code=2).stderr
    assert yard.json("override", "a", "--clear")["override"] == {}


def test_importing_a_models_json(yard: Yard) -> None:
    plan = yard.home / "models.json"
    entry = {"name": "gemini-2.0-flash", "model_type": "gemini", "local": False, "api_key_env": "GEMINI_API_KEY"}
    plan.write_text(json.dumps({"models": [entry, {"name": "strange", "model_type": "?", "local": False}]}))
    yard.configure("# mine\nmodels:\n  parrot: { runtime: fake }\n")

    assert "--yes" in yard.run("import", "models.json", code=2).stderr
    shown = yard.run("import", "models.json", "--yes")
    assert "+ gemini-2.0-flash" in shown.stdout
    assert "! strange: " in shown.stdout
    assert (yard.home / "corral.yaml").read_text().startswith("# mine\n")
    assert yard.run("list", "-q").stdout.split() == ["gemini-2.0-flash", "parrot"]
    again = yard.json("import", "models.json")
    assert (again["models"], again["configured"]) == ({}, ["gemini-2.0-flash"])


def test_importing_what_ollama_has(yard: Yard, tmp_path: Path) -> None:
    made = image(models.gguf(100_000, seed=3), params={"temperature": 0.5}, license="MIT")
    folder = made.store(tmp_path / "ollama", "library/tiny", "1b")
    there = Yard(yard.home, {"OLLAMA_MODELS": str(folder)})

    assert "+ tiny:1b" in there.run("import", "ollama", "--yes").stdout
    shown = there.json("show", "tiny:1b")
    assert shown["defaults"]["temperature"] == 0.5
    weights = next(entry for entry in shown["files"] if entry["role"] == "model")
    assert Path(weights["path"]).resolve().stat().st_nlink == 2
    there.run("import", "ollama", str(folder), "--yes")
    assert there.run("list", "-q").stdout == "tiny:1b\n"


@pytest.mark.parametrize(
    ("arguments", "code"), [(["nothing.json"], 2), (["litellm.toml"], 2), (["ollama", "nowhere"], 1), (["x" * 5000], 2)]
)
def test_what_cannot_be_imported(yard: Yard, arguments: list[str], code: int) -> None:
    (yard.home / "litellm.toml").write_text("")
    done = yard.run("import", *arguments, code=code)

    assert done.stderr.startswith("error: ")
    assert len(done.stderr) < 1000


@pytest.fixture(scope="module")
def shared_desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """A yard where nothing ever succeeds."""
    yard = Yard(tmp_path_factory.mktemp("names") / "home")
    yard.home.mkdir()
    file(yard, "a.gguf", 1)
    with yard.desk() as desk:
        yield desk


NAMES = ["../up", "a/../../b", "a\nb", "a\x1b[31m", "x" * 10_000, "", " "]
COMMANDS = [
    ["show"], ["rm", "--yes"], ["update"], ["rollback"], ["history"], ["pin"], ["verify"], ["move", "--back"],
    ["override"], ["push", "s3://bucket/x"], ["pull"], ["pull", "file:a.gguf", "--name"],
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_names_that_cannot_be(shared_desk: Yard, command: list[str]) -> None:
    first, *rest = command
    for name in NAMES:
        last = rest[-1:] == ["--name"]
        done = shared_desk.run(first, *([*rest, name] if last else [name, *rest]), code=None)
        if command != ["verify"] or name:  # without a name it is for all
            assert done.returncode in {2, 3}, (name, done)
        assert "Traceback" not in done.stderr
        assert "\x1b" not in done.stderr
        assert len(done.stderr) < 2000
    assert not (shared_desk.home.parent / "up").exists()


def test_operations_that_are_not_there(any_desk: Yard) -> None:
    for arguments in (["nope"], ["cancel", "nope"], ["pause", "a\nb"], ["nope", "--follow"]):
        assert any_desk.run("operations", *arguments, code=3).stderr.startswith("error: ")


def test_another_machine_s_models(tmp_path: Path) -> None:
    there, here = Yard(tmp_path / "there"), Yard(tmp_path / "here")
    for yard in (there, here):
        yard.home.mkdir()
    path = file(there, "m.gguf", 1)
    with there.serving() as url, Yard(here.home, {"CORRAL_URL": url}).desk() as far:
        assert lines(far.run("pull", f"file:{path}", "--json"))[-1]["name"] == "m"
        assert far.json("list")["models"][0]["name"] == "m"
        first = far.json("history", "m")["revisions"][0]["revision"]
        file(there, "m.gguf", 2)
        assert far.json("update", "m", "--check")["changed"] is True
        assert lines(far.run("update", "m", "--json"))[-1]["before"] == first
        assert far.json("rollback", "m")["revision"] == first
        assert far.json("pin", "m")["pinned"] is True
        far.run("pin", "m", "--off")
        assert far.json("df")["count"] == 1
        assert far.json("verify")["ok"] is True
        assert far.json("operations")["count"] == 3
        assert "No runtime here runs" in far.run("pull", f"file:{snapshot(there)}").stderr
        far.run("rm", "tiny", "--yes")
        assert far.run("rm", "m", "--yes", "-q").stdout == "m\n"
    assert here.run("list", "-q").stdout == ""


@pytest.mark.parametrize("columns", [20, 40, 120])
def test_bars_on_terminals(hub: Hub, yard: Yard, columns: int) -> None:
    yard = of(hub, yard)
    terminal = pexpect.spawn(
        CORRAL, ["pull", REF], env={**yard.env, "TERM": "xterm"}, encoding="utf-8", timeout=90, dimensions=(10, columns)
    )
    terminal.expect_exact("tiny-gguf is installed")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0


def test_a_pipe_gets_lines_and_no_bars(hub: Hub, yard: Yard) -> None:
    done = of(hub, yard).run("pull", REF)

    assert "\x1b" not in done.stderr + done.stdout
    assert "\r" not in done.stderr
    assert done.stderr.splitlines()[0] == f"{REF}: resolve"
    assert len(done.stderr.splitlines()) < 12


def test_a_library_model_that_is_there_opens_no_database(yard: Yard, model_store: Path) -> None:
    there = Yard(yard.home, {"CORRAL_STORE_MODELS_DIR": str(model_store)})

    assert there.run("pull", "smollm2").stdout.startswith("smollm2 was installed already")
    assert there.run("pull", "smollm2", "-q").stdout == "smollm2\n"
    assert list(yard.home.iterdir()) == []
