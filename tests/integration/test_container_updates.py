"""Images and models of containers updated one at a time, undone where the new does not answer, put back on request."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from corral.domain.operations import OperationStatus
from corral.errors import Conflict, ContainerUnhealthy, ModelNotFound, NotSupported
from tests.docs.pages import ROOT
from tests.support.docker import TINY, until
from tests.support.fleets import corral_with, player, publish, registry_in
from tests.support.ports import free_port

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with registry_in(tmp_path_factory.mktemp("registry")) as host:
        yield host


def running(docker, name="corral-coder"):
    """The image of a container that runs under that name."""
    seen = docker.seen()[name]
    assert seen["State"]["Running"]
    return seen["Image"]


def outcomes(done):
    return [(one.container, one.model, one.outcome) for one in done]


async def test_an_image_is_updated_and_put_back(tmp_path, docker, registry):
    first = publish(docker, registry)
    entry = player(f"{registry}/player:1", models="tiny:1b")
    async with corral_with(tmp_path / "home", docker, {"coder": {**entry, "models": ["tiny:1b"]}}) as corral:
        (up,) = await corral.fleet.up()
        assert (str(up.state), running(docker)) == ("healthy", first)
        assert outcomes(await corral.inside.update(models=False)) == [("coder", None, "unchanged")]

        second = publish(docker, registry, "ENV EDITION=2")
        assert outcomes(await corral.inside.update(models=False)) == [("coder", None, "updated")]
        assert running(docker) == second
        assert "corral-coder.before" not in docker.seen()
        assert (await corral.fleet.status("coder")).previous == first
        (now, before) = [row for row in await corral.fleet.versions("coder") if row["model"] is None]
        assert (now["version"], now["status"]) == (second, "current")
        assert (before["version"], before["status"]) == (first, "previous")
        docker.cli("image", "prune", "--force")

        standing = await corral.inside.rollback("coder")
        assert (str(standing.state), running(docker), standing.previous) == ("healthy", first, second)
        again = await corral.inside.rollback("coder")
        assert (running(docker), again.previous) == (second, first)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('ENTRYPOINT ["/no/such/program"]', "No such file"),
        ('ENTRYPOINT ["python3", "-c", "print(7)"]', "did not become healthy|not found"),
        ("ENV PLAYED_MUTE=1", "'tiny:1b' does not: .*terminated"),
        ("ENV PLAYED_MODELS=", ""),
    ],
    ids=["cannot start", "ends", "says nothing", "as before"],
)
async def test_what_does_not_answer_is_undone(tmp_path, docker, registry, change, said):
    first = publish(docker, registry)
    entry = {**player(f"{registry}/player:1"), "models": ["tiny:1b"]}
    async with corral_with(tmp_path / "home", docker, {"coder": entry}) as corral:
        await corral.fleet.up()
        second = publish(docker, registry, change)
        (done,) = await corral.inside.update(models=False)
        if not said:  # the configuration's own environment wins over the image's
            assert done.outcome == "updated"
            return
        assert done.outcome == "undone"
        assert re.search(said, done.reason), done.reason
        standing = await corral.fleet.status("coder")
        assert (str(standing.state), running(docker)) == ("healthy", first)
        assert "corral-coder.before" not in docker.seen()
        failed = next(row for row in await corral.fleet.versions("coder") if row["status"] == "failed")
        assert (failed["version"], bool(failed["reason"])) == (second, True)
        assert "undone" in [line.what for line in await corral.fleet.history("coder")]
        (again,) = await corral.fleet.up(recreate=True)
        assert (str(again.state), running(docker)) == ("healthy", first), "its name means what works"


async def test_nothing_further_is_tried_after_the_first_that_is_undone(tmp_path, docker, registry):
    publish(docker, registry)
    entries = {name: {**player(f"{registry}/player:1"), "models": ["tiny:1b"]} for name in ("one", "two", "three")}
    async with corral_with(tmp_path / "home", docker, entries) as corral:
        await corral.fleet.up()
        before = {name: seen["Id"] for name, seen in docker.seen().items()}
        publish(docker, registry, "ENV PLAYED_MUTE=1")
        done = await corral.inside.update()
        assert outcomes(done) == [("one", None, "undone"), ("two", None, "not tried"), ("three", None, "not tried")]
        assert {name: seen["Id"] for name, seen in docker.seen().items()} == before
        operation = await corral.catalog.perform(corral.inside.update_order())
        assert operation.status is OperationStatus.FAILED
        assert "The update of 'one' was undone: " in operation.error.message
        assert operation.error.message.endswith("Not tried: two, three.")


async def test_what_cannot_be_updated_says_why(tmp_path, docker):
    image = docker.image(TINY)
    digest = docker.json("image", "inspect", image)["Id"]
    port = free_port()
    served = {"network": "host", "kind": "openai", "image": image, "command": ["serve", str(port), "127.0.0.1"]}
    entries = {
        "pinned": {**served, "port": port, "digest": digest},
        "down": {**served, "port": free_port(), "enabled": False},
        "nowhere": player("127.0.0.1:9/nobody:1"),
    }
    async with corral_with(tmp_path / "home", docker, entries) as corral:
        await corral.fleet.up(["pinned"])
        done = {one.container: one for one in await corral.inside.update()}
        assert (done["pinned"].outcome, done["pinned"].reason) == ("skipped", f"it is pinned to {digest}")
        assert (done["down"].outcome, done["down"].reason) == ("skipped", "it is not up")
        with pytest.raises(Conflict, match="pinned to sha256:"):
            await corral.inside.rollback("pinned")
        with pytest.raises(Conflict, match="is not up"):
            await corral.inside.rollback("down")


async def test_an_image_that_cannot_be_fetched_changes_nothing(tmp_path, docker):
    docker.cli("tag", docker.image(TINY), "127.0.0.1:9/gone:1")
    port = free_port()
    entry = {"network": "host", "kind": "openai", "image": "127.0.0.1:9/gone:1", "port": port}
    entry |= {"command": ["serve", str(port), "127.0.0.1"]}
    async with corral_with(tmp_path / "home", docker, {"coder": entry}) as corral:
        await corral.fleet.up()
        before = docker.seen()["corral-coder"]["Id"]
        (done,) = await corral.inside.update()
        assert done.outcome == "failed"
        assert done.reason
        assert docker.seen()["corral-coder"]["Id"] == before
        (last, *_) = await corral.fleet.history("coder")
        assert (last.what, last.before, last.after, last.reason) == ("failed", "healthy", "healthy", done.reason)
        with pytest.raises(Conflict, match="has had no other image"):
            await corral.inside.rollback("coder")


async def test_an_image_that_no_registry_has_is_left_alone(tmp_path, docker, registry):
    docker.cli("tag", docker.image(TINY), f"{registry}/made-here:1")
    port = free_port()
    entry = {"network": "host", "kind": "openai", "image": f"{registry}/made-here:1", "port": port}
    entry |= {"command": ["serve", str(port), "127.0.0.1"]}
    async with corral_with(tmp_path / "home", docker, {"coder": entry}) as corral:
        await corral.fleet.up()
        (done,) = await corral.inside.update()
        assert done.outcome == "skipped"
        assert "made-here" in done.reason


async def test_models_are_fetched_tried_and_removed(tmp_path, docker, player_image):
    async with corral_with(tmp_path / "home", docker, {"coder": player(models="")}) as corral:
        await corral.fleet.up()
        inside = corral.inside
        operation = await corral.catalog.perform(inside.pull_order("coder", "tiny:1b"))
        assert operation.status is OperationStatus.COMPLETED, operation.error
        (model,) = await inside.models("coder")
        assert operation.result == {
            "container": "coder",
            "model": "tiny:1b",
            "digest": model.digest,
            "size": model.size,
        }
        assert await inside.version("coder", "tiny:1b") == model.digest
        assert [one.name for one in (await corral.fleet.status("coder")).models] == ["tiny:1b"]
        trial = await inside.test("coder", "tiny:1b")
        assert (trial.ok, trial.said) == (True, "Hi")
        await inside.remove("coder", "tiny:1b")
        assert await inside.models("coder") == []
        with pytest.raises(ModelNotFound):
            await inside.version("coder", "tiny:1b")
        failed = await corral.catalog.perform(inside.pull_order("coder", "nothing"))
        assert (failed.status, failed.error.code) == (OperationStatus.FAILED, "container_sick")
        await corral.fleet.stop("coder")
        with pytest.raises(ContainerUnhealthy, match="Container 'coder' is stopped"):
            await inside.models("coder")


async def test_a_model_is_updated_and_put_back(tmp_path, docker, player_image):
    entry = {**player(), "models": ["tiny:1b"]}
    async with corral_with(tmp_path / "home", docker, {"coder": entry}) as corral:
        await corral.fleet.up()
        inside = corral.inside
        first = await inside.version("coder", "tiny:1b")
        (done,) = await inside.update(image=False)
        second = await inside.version("coder", "tiny:1b")
        assert (done.outcome, done.before, done.after) == ("updated", first, second)
        assert [model.name for model in await inside.models("coder")] == ["tiny:1b"], "what is kept is not shown"
        await inside.rollback("coder", model="tiny:1b")
        assert await inside.version("coder", "tiny:1b") == first
        await inside.rollback("coder", model="tiny:1b")
        assert await inside.version("coder", "tiny:1b") == second
        rows = [row for row in await corral.fleet.versions("coder") if row["model"] == "tiny:1b"]
        assert {row["version"] for row in rows if row["status"] == "current"} == {second}
        with pytest.raises(ModelNotFound):
            await inside.rollback("coder", model="other")


async def test_a_model_that_says_nothing_any_more_is_undone(tmp_path, docker, player_image):
    entry = {**player(environment={"PLAYED_SPOILS": "1"}), "models": ["tiny:1b"]}
    async with corral_with(tmp_path / "home", docker, {"coder": entry}) as corral:
        await corral.fleet.up()
        first = await corral.inside.version("coder", "tiny:1b")
        (done,) = await corral.inside.update(image=False)
        assert (done.model, done.outcome, done.after) == ("tiny:1b", "undone", first)
        assert "terminated" in done.reason
        assert await corral.inside.version("coder", "tiny:1b") == first
        assert (await corral.inside.test("coder", "tiny:1b")).ok
        failed = [row for row in await corral.fleet.versions("coder") if row["status"] == "failed"]
        assert [row["model"] for row in failed] == ["tiny:1b"]


async def test_a_container_that_cannot_fetch_says_so_at_once(tmp_path, docker, tiny_image):
    entry = {"kind": "openai", "image": tiny_image, "network": "host", "port": free_port()}
    async with corral_with(tmp_path / "home", docker, {"coder": entry}) as corral:
        with pytest.raises(NotSupported, match="cannot fetch a model by itself"):
            corral.inside.pull_order("coder", "tiny:1b")


async def test_room_that_was_made_for_nobody_is_taken_back(tmp_path, docker, registry):
    """As it is when the process dies between making room and making the successor."""
    first = publish(docker, registry)
    entries = {"coder": {**player(f"{registry}/player:1"), "models": ["tiny:1b"]}}
    async with corral_with(tmp_path / "home", docker, entries) as corral:
        await corral.fleet.up()
    second = publish(docker, registry, "ENV EDITION=2")
    docker.cli("stop", "corral-coder")
    docker.cli("rename", "corral-coder", "corral-coder.before")
    async with corral_with(tmp_path / "home", docker, entries) as corral:
        operation = await corral.catalog.perform(corral.inside.update_order(models=False))
        assert operation.status is OperationStatus.COMPLETED, operation.error
        assert set(docker.seen()) == {"corral-coder"}
        assert running(docker) == second
        assert (await corral.fleet.status("coder")).previous == first


UPDATER = """
import asyncio, os, sys
from pathlib import Path
from corral.app import Corral
from corral.config import load

async def main():
    corral = Corral(load(dict(os.environ), {}, Path(sys.argv[1])), env=dict(os.environ))
    await corral.catalog.perform(corral.inside.update_order(models=False))

asyncio.run(main())
"""


@pytest.mark.parametrize("mute", [False, True], ids=["forward", "back"])
async def test_an_update_that_is_killed_is_brought_to_its_end_by_the_next(tmp_path, docker, registry, mute):
    first = publish(docker, registry)
    entries = {"coder": {**player(f"{registry}/player:1"), "models": ["tiny:1b"]}}
    async with corral_with(tmp_path / "home", docker, entries) as corral:
        await corral.fleet.up()
    second = publish(docker, registry, f"ENV PLAYED_DELAY=8 {'PLAYED_MUTE=1' if mute else 'EDITION=2'}")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("CORRAL_", "DOCKER_"))}
    env |= {"CORRAL_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT / "src")}
    words = [sys.executable, "-c", UPDATER, str(tmp_path / "home" / "corral.yaml")]
    with subprocess.Popen(words, env=env) as process:
        try:
            until(lambda: {"corral-coder", "corral-coder.before"} <= set(docker.seen()), within=60)
        finally:
            process.send_signal(signal.SIGKILL)
    async with corral_with(tmp_path / "home", docker, entries) as corral:
        operation = await corral.catalog.perform(corral.inside.update_order(models=False))
        assert operation.attempts == 2, "it is the same operation that goes on"
        assert set(docker.seen()) == {"corral-coder"}
        standing = await corral.fleet.status("coder")
        assert str(standing.state) == "healthy"
        assert (await corral.inside.test("coder", "tiny:1b")).ok
        rows = {row["status"]: row["version"] for row in await corral.fleet.versions("coder") if row["model"] is None}
        if mute:
            assert operation.status is OperationStatus.FAILED
            assert "was undone: Its API answers, and 'tiny:1b' does not" in operation.error.message
            assert (running(docker), rows["current"], rows["failed"]) == (first, first, second)
        else:
            assert operation.status is OperationStatus.COMPLETED
            assert (running(docker), rows["current"], standing.previous) == (second, second, first)
            await corral.inside.rollback("coder")
            assert running(docker) == first
