"""The budget of a run where several are asked in one step: what each may cost counts, and not the last alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from corral.domain.money import NANO
from corral.domain.workspace import RunStatus
from support.pipeline_vendor import vendor
from support.pipelines import at_work, done

PROMPT = "word " * 1600
SOURCE = """
name: dear
inputs: {{words: {{type: string}}}}
steps:
  one: {{model: {route}, prompt: "{{{{ inputs.words }}}}", retries: 0, parameters: {{max_tokens: 1000}}}}
"""


@asynccontextmanager
async def deaf() -> AsyncIterator[str]:
    """A vendor that takes whatever it is asked and never answers."""
    never = asyncio.Event()

    async def hear(request: web.Request) -> web.Response:
        await request.read()
        await never.wait()
        return web.Response()

    application = web.Application()
    application.router.add_post("/v1/chat/completions", hear)
    runner = web.AppRunner(application, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


def config(silent: str, speaking: str) -> str:
    return f"""
models:
  deaf: {{runtime: openai, options: {{base_url: "{silent}", upstream_model: a}}}}
  good: {{runtime: openai, options: {{base_url: "{speaking}", upstream_model: b}}}}
routes:
  patient: {{models: [deaf, good], first_byte_timeout: 3s, retries: 0}}
  hedged: {{models: [deaf, good], hedge: 100ms, first_byte_timeout: 3s, retries: 0}}
prices:
  deaf: {{input: 100, output: 0}}
  good: {{input: 0, output: 1000}}
"""


@pytest.mark.parametrize("route", ["patient", "hedged"])
async def test_what_the_first_has_cost_is_not_there_for_the_second(tmp_path: Path, route: str) -> None:
    async with deaf() as silent, vendor() as speaking, at_work(tmp_path, config(silent, speaking.url)) as corral:
        source = SOURCE.format(route=route)
        run, steps = await done(corral, source, {"words": PROMPT}, budget=NANO * 11 // 10)
        assert speaking.asked == []
        assert run.status is RunStatus.FAILED
        assert (steps["one"].error or {})["code"] in {"budget_exceeded", "upstream_timeout"}, steps["one"].error
        assert 0 < run.cost < NANO // 2

        run, _ = await done(corral, source, {"words": PROMPT}, budget=3 * NANO)
        assert run.status is RunStatus.COMPLETED, run.error
        assert len(speaking.asked) == 1
