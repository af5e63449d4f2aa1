"""The gemini runtime decides everything from its options, the model's name and the environment."""

from __future__ import annotations

import pytest

from corral.domain.options import parse_options
from corral.domain.ports import LaunchSpec, silent
from corral.errors import InvalidRequest, RuntimeUnavailable, UnknownOption
from corral.runtimes.gemini import Gemini, GeminiOptions

ENV = {"GEMINI_API_KEY": " key-1\n"}


async def start(model="gemini-2.5-pro", env=ENV, **options):
    given = parse_options(GeminiOptions, options, "gemini")
    return await Gemini(env).start(LaunchSpec(model, given), silent)


async def test_a_name_is_enough():
    session = await start()
    endpoint = session.endpoint
    assert (endpoint.url, endpoint.dialect, endpoint.provider, endpoint.model) == (
        "https://generativelanguage.googleapis.com/v1beta",
        "gemini",
        "google",
        "gemini-2.5-pro",
    )
    assert endpoint.headers == {"x-goog-api-key": "key-1"}
    assert "key-1" not in repr(endpoint)
    assert endpoint.adapt is None
    assert session.facts.context == 1_048_576
    assert session.facts.device == "remote"


@pytest.mark.parametrize(
    ("env", "key"),
    [
        ({"GOOGLE_API_KEY": "g"}, "g"),
        ({"GOOGLE_API_KEY": "g", "GEMINI_API_KEY": "m"}, "m"),
        ({"GOOGLE_API_KEY": "g", "GEMINI_API_KEY": " "}, "g"),
    ],
)
async def test_the_key_is_looked_for_in_both_variables(env, key):
    assert (await start(env=env)).endpoint.headers == {"x-goog-api-key": key}


async def test_a_missing_key_names_the_variable():
    with pytest.raises(RuntimeUnavailable, match="GEMINI_API_KEY"):
        await start(env={})
    with pytest.raises(RuntimeUnavailable, match="MY_KEY"):
        await start(env=ENV, api_key_env="MY_KEY")


async def test_headers_and_names_of_ones_own():
    session = await start("big", upstream_model="models/gemini-2.0-flash", headers={"X-Team": "a"}, context=9)
    assert session.endpoint.model == "gemini-2.0-flash"
    assert session.endpoint.headers == {"X-Team": "a", "x-goog-api-key": "key-1"}
    assert session.facts.context == 9


@pytest.mark.parametrize(
    ("model", "thinking", "budgets"),
    [
        ("gemini-2.0-flash", "none", None),
        ("gemini-2.5-pro", "budget", (128, 32768)),
        ("gemini-2.5-flash", "budget", (0, 24576)),
        ("gemini-3-pro-preview", "level", None),
        ("something-else", "effort", None),
    ],
)
async def test_models_think_in_different_ways(model, thinking, budgets):
    profile = (await start(model)).endpoint.profile
    assert (profile.thinking, profile.thinking_range) == (thinking, budgets)


async def test_permissive_blocks_nothing_in_all_four_categories():
    settings = (await start(safety="permissive")).endpoint.profile.extra["safetySettings"]
    assert settings == [
        {"category": f"HARM_CATEGORY_{name}", "threshold": "BLOCK_NONE"}
        for name in ("HARASSMENT", "HATE_SPEECH", "SEXUALLY_EXPLICIT", "DANGEROUS_CONTENT")
    ]


@pytest.mark.parametrize(
    ("safety", "expected"),
    [
        ("default", {}),
        ("strict", {"BLOCK_LOW_AND_ABOVE"}),
        ({"harassment": "only_high"}, {"BLOCK_ONLY_HIGH"}),
        ({"HARM_CATEGORY_HATE_SPEECH": "BLOCK_NONE"}, {"BLOCK_NONE"}),
        ({"HARM_CATEGORY_HATE_SPEECH": "OFF"}, {"OFF"}),
    ],
)
async def test_other_thresholds(safety, expected):
    found = (await start(safety=safety)).endpoint.profile.extra.get("safetySettings", [])
    assert {each["threshold"] for each in found} == (expected or set())


async def test_what_a_request_of_the_same_dialect_leaves_out_is_put_in():
    endpoint = (await start(safety="permissive", thinking_budget=1024, max_output=99)).endpoint
    document = {"contents": [], "generation_config": {"temperature": 1}}
    assert endpoint.adapt("", document) is True
    assert len(document["safetySettings"]) == 4
    assert document["generationConfig"] == {
        "temperature": 1,
        "maxOutputTokens": 99,
        "thinkingConfig": {"thinkingBudget": 1024},
    }
    assert endpoint.adapt("", document) is False
    said = {"contents": [], "safety_settings": [], "generationConfig": {"maxOutputTokens": 1, "thinking_config": {}}}
    kept = dict(said)
    assert endpoint.adapt("", said) is False
    assert said == kept
    assert endpoint.adapt("", {"content": {}}) is False


@pytest.mark.parametrize(
    ("model", "options", "param"),
    [
        ("gemini-2.5-pro", {"safety": "permisive"}, "safety"),
        ("gemini-2.5-pro", {"safety": {"harassment": "never"}}, "safety.harassment"),
        ("gemini-2.5-pro", {"thinking_budget": 0}, "thinking_budget"),
        ("gemini-2.5-pro", {"thinking_budget": 32769}, "thinking_budget"),
        ("gemini-2.5-flash", {"thinking_budget": 24577}, "thinking_budget"),
        ("gemini-2.0-flash", {"thinking_budget": 512}, "thinking_budget"),
        ("gemini-2.5-pro", {"thinking_budget": -2}, "thinking_budget"),
        ("gemini-2.5-pro", {"thinking_level": "low"}, "thinking_level"),
        ("gemini-3-pro", {"thinking_level": "lots"}, "thinking_level"),
        ("gemini-3-pro", {"thinking_level": "low", "thinking_budget": 1}, "thinking_level"),
        ("gemini-2.5-pro", {"max_output": 0}, "max_output"),
        ("gemini-2.5-pro", {"base_url": "http://u:p@a"}, "base_url"),
        ("gemini-2.5-pro", {"headers": {"Host": "x"}}, "headers"),
        ("gemini-2.5-pro", {"api_key_env": "AIza-key"}, "api_key_env"),
    ],
)
async def test_what_the_model_or_google_would_refuse_is_refused(model, options, param):
    with pytest.raises(InvalidRequest) as caught:
        await start(model, **options)
    assert caught.value.param == param


async def test_budgets_within_the_range_and_levels():
    for model, options, expected in (
        ("gemini-2.5-flash", {"thinking_budget": 0}, {"thinkingBudget": 0}),
        ("gemini-2.5-pro", {"thinking_budget": -1}, {"thinkingBudget": -1}),
        ("gemini-3-pro", {"thinking_level": "low"}, {"thinkingLevel": "LOW"}),
    ):
        assert (await start(model, **options)).endpoint.profile.extra == {"thinkingConfig": expected}


def test_an_unknown_category_names_the_nearest():
    with pytest.raises(UnknownOption) as caught:
        GeminiOptions(safety={"harasment": "none"})
    assert "harassment" in caught.value.hint
