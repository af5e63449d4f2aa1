"""Whole Corrals that run a pipeline over and over, made to be killed: each line of input forks one.

python -m support.pipeline_yard HOME VENDOR     input: a line; the pid, and at its end the exit code, are answered
"""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from importlib import import_module
from pathlib import Path

from corral.app import Corral
from corral.app.workspace import RunOrder
from corral.config import load
from corral.domain.workspace import Query, Run, RunStatus

PROJECT = "yard"
LIMITS = "operations: {attempts: 1000}\n"
"""On a busy machine several in a row may be killed before any of them gets on, which is a matter of luck here."""
SLOW = (
    *("aiohttp", "aiosqlite", "jinja2", "corral.db.engine", "corral.operations.durable", "corral.app.runs"),
    *("corral.runtimes.openai", "corral.workspace.store", "corral.workspace.pipelines.definition"),
    *("corral.app.work", "corral.routing.budgets", "corral.routing.treasury", "corral.observability.writing"),
    *("sqlalchemy.dialects.sqlite.aiosqlite", "corral.workspace.code.trees", "genai_prices"),
)
"""Imported before the children are forked, so that none of them spends its short life on that."""
PIPELINE = """
name: yard
inputs: {topic: {type: string}}
budget: 1
steps:
  plan:
    model: alpha
    prompt: "list {{ inputs.topic }}"
    output: {json: {type: array, items: {type: string}}}
  parts:
    model: beta
    for_each: "{{ steps.plan.value }}"
    width: 2
    prompt: "tell of {{ item }}"
  code:
    model: alpha
    prompt: "code {{ steps.parts.output }}"
    output: {code: [tsx, css]}
  never:
    model: beta
    when: "{{ inputs.topic == '' }}"
    prompt: "never"
  review:
    model: beta
    prompt: "data {{ steps.code.output }}"
    output: {json: {type: object, required: [verdict]}}
    repair: 1
  all:
    assemble: [plan, parts, code, review, never]
"""


def corral_of(home: Path, vendor: str, more: str = "") -> Corral:
    """A Corral with that home, whose models are the vendor's, and `more` in its configuration."""
    models = "\n".join(
        f"  {name}: {{runtime: openai, options: {{base_url: '{vendor}', upstream_model: {name}}}}}"
        for name in ("alpha", "beta")
    )
    file = home / "corral.yaml"
    prices = "\n".join(f"  {name}: {{input: 2, output: 8}}" for name in ("alpha", "beta"))
    file.write_text(f"models:\n{models}\nprices:\n{prices}\nrouting: {{breaker_failures: 1000}}\n{LIMITS}{more}")
    env = {"HOME": str(home), "NO_PROXY": "*"}
    return Corral(load(env, file=file, cwd=home), env=env)


async def unfinished(corral: Corral) -> list[Run]:
    """The runs that have not ended."""
    found: list[Run] = []
    for status in (RunStatus.QUEUED, RunStatus.RUNNING):
        found += (await corral.workspace.store.runs.page(Query(filters={"status": status}))).items
    return found


async def work(home: Path, vendor: str) -> None:
    corral = corral_of(home, vendor)
    workspace = corral.workspace
    tasks = [corral.traffic.run(), corral.catalog.operations.run(), workspace.keep()]
    running = [asyncio.ensure_future(task) for task in tasks]
    while not any(task.done() for task in running):
        waiting = await unfinished(corral)
        if not waiting:
            count = await workspace.store.runs.count(Query())
            waiting = [await workspace.start(RunOrder(project=PROJECT, source=PIPELINE, inputs={"topic": f"t{count}"}))]
        async for _ in workspace.watch(waiting[0].id):
            pass
    await asyncio.gather(*running)


def child(home: Path, vendor: str) -> None:
    try:
        asyncio.run(work(home, vendor))
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(3)


def main() -> None:
    home, vendor = Path(sys.argv[1]), sys.argv[2]
    for name in SLOW:
        import_module(name)
    print("ready", flush=True)
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            child(home, vendor)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
