"""The anthropic runtime decides everything from its options and the environment."""

import pytest

from corral.domain.ports import LaunchSpec, silent
from corral.errors import InvalidRequest, RuntimeUnavailable
from corral.runtimes.anthropic import Anthropic, AnthropicOptions


async def start(env=None, **options):
    return await Anthropic(env or {}).start(LaunchSpec("claude", AnthropicOptions(**options)), silent)


async def test_the_endpoint_carries_key_version_and_betas():
    session = await start(
        {"ANTHROPIC_API_KEY": " sk-1\n"},
        upstream_model="claude-haiku-4-5",
        betas=("a-2025-01-01", "b"),
        headers={"X-Title": "Corral"},
        context=200000,
        max_output=100,
        thinking="budget",
        drop=("top_k",),
    )
    endpoint = session.endpoint
    assert endpoint.url == "https://api.anthropic.com/v1"
    assert (endpoint.dialect, endpoint.provider, endpoint.model) == ("anthropic", "anthropic", "claude-haiku-4-5")
    assert endpoint.headers == {
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "a-2025-01-01,b",
        "X-Title": "Corral",
        "x-api-key": "sk-1",
    }
    assert "sk-1" not in repr(endpoint)
    assert session.facts.context == 200000
    profile = endpoint.profile
    assert (profile.max_output, profile.thinking, profile.drop) == (100, "budget", {"top_k"})


async def test_the_version_of_2026_knows_no_sampling():
    session = await start({"ANTHROPIC_API_KEY": "k"}, version="2026-10-21")
    assert session.endpoint.profile.drop == {"temperature", "top_p", "top_k"}


async def test_a_missing_key_names_the_variable():
    with pytest.raises(RuntimeUnavailable, match="ANTHROPIC_API_KEY"):
        await start()
    assert "x-api-key" not in (await start(api_key_env=None)).endpoint.headers


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"base_url": "api.anthropic.com"}, "base_url"),
        ({"base_url": "https://a/v1?key=hidden"}, "base_url"),
        ({"api_key_env": "sk-ant-hidden"}, "api_key_env"),
        ({"betas": ("a, b",)}, "betas"),
        ({"version": "2023\r\nX: y"}, "headers"),
        ({"headers": {"Host": "a"}}, "headers"),
        ({"context": 0}, "context"),
        ({"max_output": 0}, "max_output"),
    ],
)
def test_what_cannot_be_is_refused_and_no_credential_repeated(options, param):
    with pytest.raises(InvalidRequest) as caught:
        AnthropicOptions(**options)
    assert caught.value.param == param
    assert "hidden" not in str(caught.value)


async def test_it_is_always_usable():
    assert (await Anthropic({}).probe()).usable
