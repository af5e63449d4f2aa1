"""What a model that is registered over HTTP may have done on this machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from corral.app import Corral, launching
from corral.app.registration import Registrations
from corral.config import load
from corral.domain.generation import ModelConfig
from corral.domain.states import State
from corral.errors import Conflict, EngineStartFailed
from corral.lifecycle.supervisor import Launch, Supervisor

ELSEWHERE = "10.0.0.1:5000/some/model:latest"
"""Which Ollama would take for a registry's address."""


def corral(home: Path, content: str = "") -> Corral:
    file = home / "corral.yaml"
    file.write_text(content)
    env = {"CORRAL_HOME": str(home), "HOME": str(home)}
    return Corral(load(env, file=file), env=env)


async def pulls(running: Corral) -> bool:
    return bool((await launching.prepare(running, ELSEWHERE)).spec.options.pull)


@pytest.mark.parametrize(
    ("content", "pulled"), [("", False), ("runtimes: {ollama: {pull: true}}", True), ("runtimes: {ollama: {}}", False)]
)
async def test_over_http_nothing_is_fetched_from_an_address_that_a_name_is(
    tmp_path: Path, content: str, pulled: bool
) -> None:
    running = corral(tmp_path, content)
    Registrations(running).keep(ModelConfig(model_id="m", model_name=ELSEWHERE, runtime_type="ollama"))
    assert await pulls(running) is pulled

    again = corral(tmp_path, content)
    Registrations(again).restore()
    assert await pulls(again) is pulled


async def test_from_python_what_is_registered_is_fetched(tmp_path: Path) -> None:
    running = corral(tmp_path)
    Registrations(running).add(ModelConfig(model_id="m", model_name=ELSEWHERE, runtime_type="ollama"))
    assert await pulls(running)


async def test_a_device_is_not_forgotten_where_the_files_decide_about_the_runtime(tmp_path: Path) -> None:
    running = corral(tmp_path)
    Registrations(running).keep(ModelConfig(model_id="m", model_name="there", device_type="cuda"))
    Registrations(running).keep(ModelConfig(model_id="m", model_name="anywhere"))
    assert running.entry("there").options == {"device": "cuda"}
    assert running.entry("anywhere").options == {}


async def test_what_comes_into_the_configuration_takes_the_place_of_what_was_registered(tmp_path: Path) -> None:
    running = corral(tmp_path)
    registrations = Registrations(running)
    registrations.keep(ModelConfig(model_id="m", model_name="a", runtime_type="ollama"))
    registrations.keep(ModelConfig(model_id="m", model_name="b", runtime_type="ollama"))
    running.take_over(corral(tmp_path, "models: {a: {runtime: fake}}").settings)
    assert running.definition("a").runtime == "fake"
    assert running.definition("b").runtime == "ollama"
    registrations.remove("a")
    assert running.definition("a").runtime == "fake"


async def test_what_a_program_registers_in_the_place_of_the_configuration_s_stays_when_that_changes(
    tmp_path: Path,
) -> None:
    running = corral(tmp_path, "models: {a: {runtime: fake}}")
    Registrations(running).add(ModelConfig(model_id="m", model_name="a", runtime_type="ollama"))
    running.take_over(corral(tmp_path, "models: {a: {runtime: fake, idle_timeout: 9s}}").settings)
    assert running.definition("a").runtime == "ollama"


async def test_registrations_over_http_do_not_grow_without_end(tmp_path: Path) -> None:
    def written(count: int) -> ModelConfig:
        return ModelConfig(model_id="m", model_name=f"a{count}")

    one = asdict(written(0))
    content = [{**one, "model_name": f"a{count}"} for count in range(1000)]
    (tmp_path / "registered.json").write_text(json.dumps({"models": content}))
    registrations = Registrations(corral(tmp_path))
    registrations.restore()
    with pytest.raises(Conflict, match="no more are kept"):
        registrations.keep(written(1000))
    registrations.keep(ModelConfig(model_id="other", model_name="a5"))
    registrations.remove("a5")
    registrations.keep(written(1000))
    assert len(registrations.names()) == 1000


async def test_what_was_taken_back_is_no_problem_any_more(tmp_path: Path) -> None:
    async def plan(model: str) -> Launch:
        raise EngineStartFailed(f"{model} cannot be had")

    running = corral(tmp_path)
    running.supervisor = Supervisor(plan, running.clock)
    registrations = Registrations(running)
    registrations.keep(ModelConfig(model_id="m", model_name="a", runtime_type="ollama"))
    with pytest.raises(EngineStartFailed):
        await running.load("a")
    assert [status.state for status in running.supervisor.statuses()] == [State.FAILED]
    registrations.remove("a")
    assert running.supervisor.statuses() == []
