"""Runs where others look on or interfere: a server that is killed, another process, who pays, and the operation."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from corral.app import Corral
from corral.config import load
from corral.domain.callers import Caller
from corral.domain.keys import KeyWish
from corral.domain.workspace import Project, Run, RunStatus, Step
from corral.routing.audit import Actor
from corral.routing.book import Budget
from corral.routing.budgets import Budgets
from corral.workspace.pipelines.journal import Answer, Journal
from support.database import cluster
from support.pipelines import PROJECT, at_work, done, ended, started, until
from support.servers import corral_server
from support.studio import Studio

CONFIG = """
models:
  robot: {runtime: fake, options: {reply: one two}}
  late: {runtime: fake, options: {reply: at last, first_token_ms: 1500}}
  later: {runtime: fake, options: {reply: at last, first_token_ms: 6000}}
  slow: {runtime: fake, options: {first_token_ms: 60000}}
prices:
  robot: {input: 1000, output: 1000}
"""
TWO = """
name: two
steps:
  one: {model: robot, prompt: hi}
  two: {model: late, prompt: "{{ steps.one.output }}"}
"""


@pytest.fixture
async def corral(tmp_path: Path) -> AsyncIterator[Corral]:
    async with at_work(tmp_path, CONFIG) as made:
        yield made


def stands(studio: Studio, run: str, step: str, status: str) -> None:
    for _, message in studio.messages(run):
        steps = message["steps"] if message["type"] == "snapshot" else [message.get("step")]
        if any(isinstance(each, dict) and (each["name"], each["status"]) == (step, status) for each in steps):
            return
    raise AssertionError(f"{step} never was {status}")


@pytest.mark.timeout(300)
def test_a_server_that_is_killed_goes_on_with_its_runs_and_asks_nothing_twice(tmp_path: Path) -> None:
    with corral_server(tmp_path, CONFIG) as server:
        studio = Studio(server)
        studio.project(PROJECT)
        run = studio.post("/runs", {"project": PROJECT, "source": TWO})["run"]["id"]
        stands(studio, run, "two", "running")
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
    with corral_server(tmp_path, CONFIG) as server:
        studio = Studio(server)
        ended_run = studio.finished(run)
        assert ended_run["status"] == "completed", ended_run
        steps = {step["key"]: step for step in studio.get(f"/runs/{run}/steps")["steps"]}
        assert [steps["one"]["output"], steps["two"]["output"]] == ["one two", "at last"]
        assert steps["one"]["request_id"] == f"{run}:one:1"
        receipt = studio.get(f"/receipts/{run}:one:1")["receipt"]
        assert receipt["cost_usd"] == steps["one"]["cost_usd"] == ended_run["cost_usd"]


async def test_another_process_looks_on(tmp_path: Path) -> None:
    with corral_server(tmp_path, CONFIG) as server:
        studio = Studio(server)
        studio.project(PROJECT)
        source = TWO.replace("model: late", "model: later")
        run = studio.post("/runs", {"project": PROJECT, "source": source})["run"]["id"]
        env = {"HOME": str(tmp_path), "CORRAL_HOME": str(server.home)}
        onlooker = Corral(load(env, cwd=tmp_path), env=env)
        told = [message async for message in onlooker.workspace.watch(run)]
        await onlooker.close()
        assert [told[0]["type"], told[-1]["type"], told[-1]["status"]] == ["snapshot", "end", "completed"]
        last = {message["step"]["key"]: message["step"]["status"] for message in told if message["type"] == "step"}
        assert last.get("two") == "completed"
        assert any(message["type"] == "artifact" for message in told)


async def test_the_budget_of_the_project_is_what_is_spent(corral: Corral) -> None:
    await Budgets(corral.database, corral.clock).create(
        Budget("", "small", "project", PROJECT, "usd", "total", 1_000_000_000)
    )
    await corral.traffic.ledger.refresh()
    run, steps = await done(corral, "name: x\nsteps: {one: {model: robot, prompt: hi, parameters: {max_tokens: 4000}}}")
    assert run.status is RunStatus.FAILED
    assert (steps["one"].error or {})["code"] == "budget_exceeded"
    run, steps = await done(corral, "name: x\nsteps: {one: {model: robot, prompt: hi, parameters: {max_tokens: 4}}}")
    assert run.status is RunStatus.COMPLETED, run.error
    await corral.traffic.ledger.flush()
    found = await Budgets(corral.database, corral.clock).get("small")
    assert (found.spent, found.abandoned) == (run.cost, 0)


async def test_a_key_that_is_gone_pays_for_nothing(corral: Corral) -> None:
    actor = Actor("test", "test")
    key, _ = await corral.keys.create(KeyWish("one"), actor)
    run, steps = await done(corral, TWO, caller=Caller(key.id, "one"))
    assert run.status is RunStatus.COMPLETED, run.error
    assert (steps["one"].receipt or {})["key"] == key.id
    assert (steps["one"].receipt or {})["project"] == PROJECT
    await corral.keys.revoke(key.id, actor)
    run = await corral.workspace.rerun(run.id, caller=Caller(key.id, "one"))
    run, steps = await ended(corral, run)
    assert run.status is RunStatus.FAILED
    assert (run.error or {})["code"] == "unauthorized"
    assert steps["one"].request_id is None


async def test_a_key_that_goes_in_mid_run_pays_for_no_more(corral: Corral) -> None:
    actor = Actor("test", "test")
    key, _ = await corral.keys.create(KeyWish("one"), actor)
    source = """
name: two
steps:
  one: {model: late, prompt: hi}
  two: {model: robot, prompt: "{{ steps.one.output }}", fallback: [late]}
"""
    run = await started(corral, source, caller=Caller(key.id, "one"))
    await until(corral, run, "one", "running")
    await corral.keys.revoke(key.id, actor)
    run, steps = await ended(corral, run)
    assert run.status is RunStatus.FAILED
    assert (steps["one"].status, steps["two"].status) == ("completed", "failed")
    assert (steps["two"].error or {})["code"] == "unauthorized"
    assert run.cost == steps["one"].cost


async def test_a_run_that_was_moved_is_paid_by_no_key_that_is_not_for_its_project(corral: Corral) -> None:
    actor = Actor("test", "test")
    key, _ = await corral.keys.create(KeyWish("one", projects=(PROJECT,)), actor)
    run = await started(corral, TWO, caller=Caller(key.id, "one", projects=(PROJECT,)))
    await until(corral, run, "two", "running")
    await corral.workspace.pause(run.id)
    other = await corral.workspace.store.projects.create(Project(id="", name="other"))
    await corral.workspace.store.runs.move(run.id, other.id)
    await corral.workspace.resume(run.id)
    run, _ = await ended(corral, run)
    assert (run.status, (run.error or {})["code"]) == (RunStatus.FAILED, "forbidden")


async def test_a_run_whose_process_died_before_its_steps_were_written_down_is_done(corral: Corral) -> None:
    store = corral.workspace.store.runs
    project = await corral.workspace.store.projects.get(PROJECT)
    left = await store.create(Run(id="", project=project.id, name="two", source=TWO))
    run = await corral.workspace.perform(left.id)
    assert run.status is RunStatus.COMPLETED, run.error
    assert (run.steps_total, run.steps_done) == (2, 2)


async def test_whoever_cancels_the_operation_cancels_the_run(corral: Corral) -> None:
    run = await started(corral, "name: x\nsteps: {one: {model: slow, prompt: hi}, two: {model: robot, prompt: hi}}")
    await until(corral, run, "one", "running")
    run = await corral.workspace.store.runs.get(run.id)
    await corral.catalog.operations.cancel(run.operation or "")
    run, steps = await ended(corral, run)
    assert run.status is RunStatus.CANCELLED
    assert steps["one"].status == "cancelled"
    assert run.ended_at is not None
    assert not list((corral.settings.home / "workspace" / "runs").glob("*"))


async def test_a_run_whose_process_died_before_it_was_ordered_is_begun(corral: Corral) -> None:
    store = corral.workspace.store.runs
    project = await corral.workspace.store.projects.get(PROJECT)
    long_ago = corral.clock.wall() - 60
    left = await store.create(Run(id="", project=project.id, name="two", source=TWO, created_at=long_ago))
    await store.plan(left.id, [Step(run=left.id, key=name, name=name) for name in ("one", "two")])
    keeping = asyncio.ensure_future(corral.workspace.keep())
    run, steps = await ended(corral, left)
    keeping.cancel()
    await asyncio.wait([keeping])
    assert run.status is RunStatus.COMPLETED
    assert steps["two"].output == "at last"


async def test_a_run_stands_as_its_operation_does(corral: Corral) -> None:
    run = await started(corral, "name: x\nsteps: {one: {model: slow, prompt: hi}}")
    await until(corral, run, "one", "running")
    run = await corral.workspace.cancel(run.id)
    # As a process leaves it that dies between the two.
    await corral.workspace.store.runs.update(run.id, status=RunStatus.RUNNING, ended_at=None)
    keeping = asyncio.ensure_future(corral.workspace.keep())
    run, _ = await ended(corral, run)
    keeping.cancel()
    await asyncio.wait([keeping])
    assert run.status is RunStatus.CANCELLED


async def test_what_was_answered_is_paid_though_nobody_gets_it(corral: Corral) -> None:
    """A process dies with answers in its journal, and the run is called off before anybody goes on with it."""
    run, steps = await done(corral, TWO)
    store = corral.workspace.store.runs
    other = await corral.workspace.rerun(run.id)
    await until(corral, other, "two", "running")
    await corral.workspace.pause(other.id)
    journal = Journal(corral.settings.home / "workspace" / "runs" / f"{other.id}.journal")
    journal.load()
    answer = replace(journal.answers["one"][0], step="more[3]", attempt=1, request_id=f"{other.id}:more[3]:1")
    row = (answer.request_id, *answer.rows[0][1:])
    journal.write(replace(answer, rows=[row]))
    journal.close()
    cancelled = await corral.workspace.cancel(other.id)
    assert cancelled.status is RunStatus.CANCELLED
    cancelled = await store.get(other.id)
    assert cancelled.cost == 2 * (steps["one"].cost)
    assert {step.key: step.status for step in await store.steps(other.id)}["more[3]"] == "cancelled"
    assert not journal.path.exists()
    assert (await corral.books.receipt(answer.request_id))["request_id"]


async def test_journals_of_runs_that_are_gone_are_swept(corral: Corral) -> None:
    run, _ = await done(corral, TWO)
    folder = corral.settings.home / "workspace" / "runs"
    kept, gone = Journal(folder / f"{run.id}.journal"), Journal(folder / "run-000000000000.journal")
    for journal in (kept, gone):
        journal.write(Answer("one", 1, "r", "m"))
        journal.close()
    await corral.workspace.runs.sweep()
    assert [path.name for path in folder.iterdir()] == [kept.path.name]


async def test_all_of_it_on_postgresql(tmp_path: Path) -> None:
    with cluster() as running:
        config = f"{CONFIG}database: {{url: '{running.new()}'}}\n"
        async with at_work(tmp_path, config) as corral:
            fan = """
name: fan
inputs: {topics: {type: list}}
steps:
  all: {model: robot, for_each: "{{ inputs.topics }}", prompt: "{{ item }}", output: json, repair: 0, retries: 0}
  last: {model: robot, prompt: "{{ steps.all.output }}"}
"""
            run, steps = await done(corral, fan.replace(", output: json", ""), {"topics": ["a", "b", "c"]})
            assert run.status is RunStatus.COMPLETED, run.error
            assert (run.steps_done, run.cost) == (5, sum(step.cost for step in steps.values()))
            run, steps = await done(corral, fan, {"topics": ["a", "b", "c"]})
            assert run.status is RunStatus.FAILED
            assert {(step.error or {}).get("code") for step in steps.values()} == {"contract", None}
            assert (await corral.workspace.resume(run.id)).status in {RunStatus.QUEUED, RunStatus.RUNNING}
            run, again = await ended(corral, run)
            assert run.status is RunStatus.FAILED
            assert again["all[0]"].attempt > steps["all[0]"].attempt
