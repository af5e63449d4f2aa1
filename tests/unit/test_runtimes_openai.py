"""The openai runtime decides everything from its options and the environment."""

import pytest

from corral.dialects.canonical import Message, Request, Role, Text, Thought
from corral.dialects.form import form
from corral.domain.options import parse_options
from corral.domain.ports import LaunchSpec, silent
from corral.errors import InvalidRequest, RuntimeUnavailable, UnknownOption
from corral.runtimes.openai import OpenAI, OpenAIOptions, _vendors

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


@pytest.mark.parametrize("vendor", _vendors())
async def test_every_row_of_the_table_is_an_endpoint(vendor):
    row = _vendors()[vendor]
    given = {} if "base_url" in row else {"base_url": URL}
    parse_options(
        OpenAIOptions, {**{key: list(v) if isinstance(v, tuple) else v for key, v in row.items()}, **given}, "t"
    )
    session = await start({row["api_key_env"]: "k"}, vendor=vendor, **given)
    assert session.endpoint.url == row.get("base_url", URL)
    assert session.endpoint.provider == row.get("provider")
    assert session.endpoint.headers == ({"api-key": "k"} if vendor == "azure" else {"Authorization": "Bearer k"})
    assert ("openai.responses" in session.endpoint.speaks) is row.get("responses", False)


async def test_what_is_given_wins_over_what_is_known():
    session = await start(
        {"MINE": "k"},
        vendor="openai",
        base_url=URL,
        api_key_env="MINE",
        provider="other",
        responses=False,
        max_tokens_field="max_tokens",
        drop=("seed",),
    )
    endpoint = session.endpoint
    assert (endpoint.url, endpoint.provider, endpoint.speaks) == (URL, "other", frozenset())
    assert (endpoint.profile.max_tokens, endpoint.profile.developer) == ("max_tokens", True)
    assert endpoint.profile.drop == {"seed"}


async def test_a_version_stands_behind_every_path():
    session = await start({"AZURE_OPENAI_API_KEY": "k"}, vendor="azure", base_url=URL, api_version="2024-10-21 &x")
    assert session.endpoint.query == "api-version=2024-10-21%20%26x"


def test_an_unknown_vendor_is_told_the_nearest():
    with pytest.raises(UnknownOption, match="groq"):
        OpenAIOptions(vendor="grok")


def test_a_vendor_without_an_address_needs_one():
    with pytest.raises(InvalidRequest, match="base_url"):
        OpenAIOptions(vendor="azure")


@pytest.mark.parametrize("vendor", ["openai", "azure", "groq", "mistral"])
def test_what_a_strict_vendor_refuses_is_left_out_and_said(vendor):
    options = OpenAIOptions(vendor=vendor, base_url="https://a.example/v1").filled()
    turns = (Message(Role.USER, (Text("Hi"),)), Message(Role.ASSISTANT, (Thought("Hm."), Text("Yes."))))
    asked = Request("m", (*turns, turns[0]), top_k=4, min_p=0.1, repeat_penalty=1.1)

    written = form("openai.chat").write_request(asked, options.profile())

    assert written.document.keys() <= {"model", "messages"}
    assert written.document["messages"][1].keys() == {"role", "content"}
    assert set(written.ignored) == {"top_k", "min_p", "repeat_penalty", "thought"}
