"""From a configuration to plans: what names lead to, what is remembered of candidates, what a request would cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from corral.app import Corral
from corral.config import load
from corral.domain.callers import Caller
from corral.domain.models import Capability
from corral.domain.money import UNKNOWN
from corral.errors import ConfigError, InvalidRequest, ModelNotFound, UnknownOption
from corral.gateway.forecast import forecast, order_of
from corral.routing.plan import HELD, Facts, Plan, Route
from corral.routing.policies import Action, Verdict, conversation
from support.clocks import HandClock

CONFIG = """
models:
  robot: {runtime: fake, aliases: [android], fallback: [cloud]}
  cloud: {runtime: openai, options: {base_url: "http://127.0.0.1:9/v1", upstream_model: gpt-4o, provider: openai}}
  dear: {runtime: openai, options: {base_url: "http://127.0.0.1:9/v1"}}
  small: {runtime: fake, options: {context: 100}}
routes:
  wide: {models: [small, android], policy: weighted, weights: {small: 3}}
  cheap: {models: [dear, cloud], policy: cheapest}
prices:
  dear: {input: 500, output: 500}
"""
FAILED = Verdict(Action.RETRY, "status_500", "it answered 500", counts=True)


def corral(home: Path, content: str = CONFIG, clock: HandClock | None = None) -> Corral:
    file = home / "corral.yaml"
    file.write_text(content)
    env = {"CORRAL_HOME": str(home), "HOME": str(home)}
    return Corral(load(env, file=file), env=env, clock=clock, again=lambda: load(env, file=file))


def order(model: str, text: str = "What is a corral?", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def models(found: Plan | Route) -> list[str]:
    whole = found.whole if isinstance(found, Route) else found
    return [each.model for each in whole.candidates]


async def test_a_name_leads_to_one_model_or_to_a_route(tmp_path: Path) -> None:
    routes = corral(tmp_path).routes
    single = routes.find("cloud")
    assert isinstance(single, Plan)
    assert routes.find("cloud") is single, "it is made once"
    assert models(routes.find("android")) == ["robot", "cloud"]
    assert models(routes.find("wide")) == ["small", "robot"], "aliases within a route are what they mean"
    unknown = routes.find("nobody")
    assert isinstance(unknown, Plan)
    assert routes.find("nobody") is not unknown, "names that clients make up are not remembered"


def test_auto_leads_to_what_runs_here_unless_it_is_something(tmp_path: Path) -> None:
    assert models(corral(tmp_path).routes.find("auto")) == ["robot", "small"], "no vendor is asked unnamed"
    (tmp_path / "own").mkdir()
    own = corral(tmp_path / "own", CONFIG.replace("  wide:", "  auto: {models: [dear]}\n  wide:"))
    assert models(own.routes.find("auto")) == ["dear"]
    (tmp_path / "none").mkdir()
    nothing = corral(tmp_path / "none", "models: {}").routes.find("auto")
    assert isinstance(nothing, Plan)
    assert models(nothing) == ["auto"], "which is missing, and told so"


async def test_a_changed_configuration_is_in_use_at_once_and_one_with_a_circle_is_refused(tmp_path: Path) -> None:
    running = corral(tmp_path)
    before = running.routes.find("robot")
    file = tmp_path / "corral.yaml"
    file.write_text(CONFIG.replace("fallback: [cloud]", "fallback: [small, cloud]"))
    assert await running.reloading.reload() == []
    assert models(running.routes.find("robot")) == ["robot", "small", "cloud"]
    file.write_text("routes: {a: {models: [b]}, b: {models: [a]}}")
    with pytest.raises(ConfigError, match="a → b → a"):
        await running.reloading.reload()
    assert models(running.routes.find("robot")) == ["robot", "small", "cloud"]
    assert models(before) == ["robot", "cloud"]


def test_a_circle_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a → b → a"):
        corral(tmp_path, "routes: {a: {models: [b]}, b: {models: [a]}}")


async def test_a_registered_model_and_its_fallbacks_come_and_go(tmp_path: Path) -> None:
    running = corral(tmp_path)
    assert models(running.routes.find("new")) == ["new"]
    running.register("new", {"runtime": "fake", "fallback": ["robot"]})
    assert models(running.routes.find("new")) == ["new", "robot"]


async def test_what_is_known_of_candidates(tmp_path: Path) -> None:
    clock = HandClock()
    routes = corral(tmp_path, clock=clock).routes
    assert routes.known("nobody").missing == ("model_not_found", "Model 'nobody' does not exist.")
    assert (routes.known("small").context, routes.known("small").local) == (100, True)
    assert (routes.known("cloud").local, routes.known("cloud").ready) == (False, False)
    for _ in range(5):
        routes.breakers.failed("cloud", FAILED)
    routes.speeds.note("cloud", 0.5)
    found = routes.known("cloud")
    assert (found.alone, found.why, found.due, found.speed) == (30.0, "it answered 500", False, 0.5)
    clock.time += 30.0
    assert routes.known("cloud").due
    assert routes.breakers.claim("cloud")
    routes.breakers.probed("cloud", well=True)
    assert (routes.known("cloud").alone, routes.known("cloud").why) == (0.0, "")


async def test_draws_go_round_and_conversations_stay(tmp_path: Path) -> None:
    running = corral(tmp_path)
    route = running.routes.find("wide")
    assert isinstance(route, Route)
    firsts = [running.routes.plan(route, Facts()).candidates[0].model for _ in range(400)]
    assert abs(firsts.count("small") - 300) < 8
    assert running.routes.preview("wide", Facts()) == running.routes.preview("wide", Facts()), "a look draws nothing"
    stays = running.routes.plan(route, Facts(place="robot"))
    assert (stays.candidates[0].model, stays.candidates[0].reason) == ("robot", HELD)


async def test_a_conversation_is_found_again_by_its_beginning(tmp_path: Path) -> None:
    running = corral(tmp_path)
    first = order_of(order("wide"))
    key = conversation(first.caller.id, first.document)
    assert key is not None
    running.routes.stickiness.keep(key, "robot")
    later = order_of(order("wide"))
    later.document["messages"] += [{"role": "assistant", "content": "A pen."}, {"role": "user", "content": "Whose?"}]
    assert running.traffic.facts(later, sticky=True).place == "robot"
    assert running.traffic.facts(later, sticky=False).place is None
    other = order_of(order("wide"), caller=Caller("k2", "another"))
    assert running.traffic.facts(other, sticky=True).place is None
    await running.close()


async def test_a_forecast_has_every_candidate_with_its_figures(tmp_path: Path) -> None:
    running = corral(tmp_path)
    told = await forecast(running, order_of(order("wide", "word " * 400, max_tokens=50)))
    assert (told["means"], told["policy"], told["needs"], told["max_tokens"]) == ("wide", "weighted", ["chat"], 50)
    assert 400 < told["prompt_tokens"] < 700
    (robot,) = told["candidates"]
    assert (robot["model"], robot["local"], robot["cost"], robot["worst"]) == ("robot", True, 0.0, 0.0)
    assert robot["memory"]["verdict"] == "loads"
    assert [(each["model"], each["code"]) for each in told["dropped"]] == [("small", "context_length_exceeded")]
    assert told["error"] is None
    assert not running.supervisor.statuses(), "nothing was loaded for it"
    await running.close()


async def test_the_cheapest_is_told_with_its_price(tmp_path: Path) -> None:
    running = corral(tmp_path)
    told = await forecast(running, order_of(order("cheap", max_tokens=1000)))
    assert [each["model"] for each in told["candidates"]] == ["cloud", "dear"]
    cloud, dear = told["candidates"]
    assert cloud["price"].endswith("openai:gpt-4o")
    assert cloud["cost"] < dear["cost"] <= dear["worst"]
    assert dear["cost"] > 0.5
    await running.close()


async def test_who_asks_and_how_strictly_matters(tmp_path: Path) -> None:
    running = corral(tmp_path)
    only = Caller("k", "k", models=("cloud",))
    told = await forecast(running, order_of(order("robot"), caller=only))
    assert [each["model"] for each in told["candidates"]] == ["cloud"]
    strict = await forecast(running, order_of(order("robot"), strict=True))
    assert [each["code"] for each in strict["dropped"]] == ["degraded"]
    nowhere = await forecast(running, order_of(order("small"), caller=only))
    assert nowhere["error"]["code"] == "forbidden"
    with pytest.raises(ModelNotFound, match="Did you mean robot"):
        await forecast(running, order_of(order("robt")))
    await running.close()


def test_requests_of_all_dialects_are_read_as_at_their_doors() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    seen = order_of({"model": "m", "messages": [{"role": "user", "content": [picture]}]})
    assert seen.needs == {Capability.CHAT, Capability.VISION}
    gemini = {"contents": [{"role": "user", "parts": [{"text": "a"}]}], "generationConfig": {"maxOutputTokens": 7}}
    assert (order_of(gemini, "gemini", "g").model, order_of(gemini, "gemini", "g").max_tokens) == ("g", 7)
    claude = {"model": "c", "max_tokens": 9, "messages": [{"role": "user", "content": "a"}]}
    assert order_of(claude, "anthropic").max_tokens == 9
    with pytest.raises(UnknownOption, match="Did you mean 'anthropic'"):
        order_of(claude, "anthropc")
    with pytest.raises(InvalidRequest, match="messages"):
        order_of({"model": "m"})


def test_a_request_for_vectors_is_told_by_its_form() -> None:
    assert order_of({"model": "m", "input": "a"}, "openai.embeddings").needs == {Capability.EMBEDDINGS}


async def test_who_is_not_priced_is_no_bargain(tmp_path: Path) -> None:
    routes = corral(tmp_path, CONFIG.replace("provider: openai", "provider: nobody")).routes
    assert routes.priced("cloud").price == replace(UNKNOWN)
