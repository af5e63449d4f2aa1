"""The openai runtime decides everything from its options and the environment."""

import pytest

from corral.domain.options import parse_options
from corral.domain.ports import LaunchSpec, silent
from corral.errors import InvalidRequest, RuntimeUnavailable
from corral.runtimes.openai import OpenAI, OpenAIOptions

URL = "https://api.example.com/v1"


async def start(env=None, **options):
    return await OpenAI(env or {}).start(LaunchSpec("big", OpenAIOptions(**options)), silent)


async def test_the_endpoint_carries_key_model_and_headers():
    session = await start(
        {"EXAMPLE_KEY": " sk-1\n"},
        base_url=URL + "/",
        api_key_env="EXAMPLE_KEY",
        upstream_model="big-2",
        organization="org",
        project="p",
        headers={"X-Title": "Corral"},
        context=8192,
    )
    assert session.endpoint.url == URL
    assert session.endpoint.model == "big-2"
    assert session.endpoint.headers == {
        "OpenAI-Organization": "org",
        "OpenAI-Project": "p",
        "X-Title": "Corral",
        "Authorization": "Bearer sk-1",
    }
    assert session.facts.context == 8192
    assert "sk-1" not in repr(session.endpoint)


async def test_without_a_key_none_is_sent():
    session = await start(base_url=URL)
    assert session.endpoint.headers == {}
    assert session.endpoint.model is None


@pytest.mark.parametrize("env", [{}, {"EXAMPLE_KEY": " "}])
async def test_a_missing_key_names_the_variable(env):
    with pytest.raises(RuntimeUnavailable, match="EXAMPLE_KEY"):
        await start(env, base_url=URL, api_key_env="EXAMPLE_KEY")


async def test_a_key_that_would_split_the_request_is_refused_and_not_shown():
    with pytest.raises(RuntimeUnavailable) as caught:
        await start({"EXAMPLE_KEY": "sk-1\r\nX: y"}, base_url=URL, api_key_env="EXAMPLE_KEY")
    assert "sk-1" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com",
        "ftp://a",
        "http://",
        "http://a:b",
        "http://a:0",
        "http://a b",
        "http://a/\n",
        "http://[::1",
    ],
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(InvalidRequest) as caught:
        OpenAIOptions(base_url=url)
    assert caught.value.param == "base_url"


@pytest.mark.parametrize("url", ["http://u:hidden@a/v1", "http://a/v1?key=hidden", "http://a/v1#hidden"])
def test_a_credential_in_the_address_is_refused_and_not_repeated(url):
    with pytest.raises(InvalidRequest) as caught:
        OpenAIOptions(base_url=url)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "headers",
    [{"X": "a\r\nY: b"}, {"X": "a\nb"}, {"X\r\n": "a"}, {"": "a"}, {"Host": "a"}, {"content-length": "1"}, {"X": "→"}],
)
def test_headers_that_would_break_the_request_are_refused(headers):
    with pytest.raises(InvalidRequest) as caught:
        OpenAIOptions(base_url=URL, headers=headers)
    assert caught.value.param == "headers"


def test_the_organisation_is_a_header_too():
    with pytest.raises(InvalidRequest, match="OpenAI-Organization"):
        OpenAIOptions(base_url=URL, organization="a\nb")


def test_a_key_in_place_of_a_variable_is_refused_and_not_repeated():
    with pytest.raises(InvalidRequest) as caught:
        OpenAIOptions(base_url=URL, api_key_env="sk-proj-hidden")
    assert "hidden" not in str(caught.value)
    assert caught.value.param == "api_key_env"


def test_a_context_must_hold_something():
    with pytest.raises(InvalidRequest, match="context"):
        OpenAIOptions(base_url=URL, context=0)


def test_the_address_is_needed():
    with pytest.raises(InvalidRequest, match="base_url"):
        parse_options(OpenAIOptions, {}, "openai")


async def test_there_is_nothing_to_see_or_to_stop():
    session = await start(base_url=URL)
    await session.stop(0)
    await session.stop(0)
    assert session.log() == ()
    assert (await session.footprint()).devices == {}
    assert (await OpenAI({}).probe()).usable
