"""The runtime `command`: what its options become, without a process."""

from pathlib import Path

import pytest

from corral.domain.models import Capability
from corral.domain.options import parse_options
from corral.domain.ports import LaunchSpec
from corral.errors import InvalidRequest
from corral.runtimes.command import Command, CommandOptions, adapter, made, where, words


def options(**values):
    return parse_options(CommandOptions, {"cmd": "server ${PORT}", **values}, "command")


def program(files=None, **values):
    return made(LaunchSpec("my/model", options(**values), files or {}), {"PATH": "/bin"})


def test_a_text_is_split_as_a_shell_would_and_comments_are_left_out():
    line = "server --port ${PORT} \\\n  # a comment\n --name 'two words' a#b\n"
    assert words(line, "cmd") == ("server", "--port", "${PORT}", "--name", "two words", "a#b")
    assert words(("a b", "$(x)"), "cmd") == ("a b", "$(x)")


def test_everything_but_the_port_is_filled_in():
    what = program(
        {"model": Path("/m/x.gguf")},
        cmd=["server", "-m", "${MODEL}", "--port=${PORT}", "${NAME}", "{port}"],
        cmd_stop="stop ${PID} ${NAME}",
        env={"WHERE": "${PORT}", "FILE": "${MODEL}"},
        cwd="/w",
    )
    assert what.argv == ("server", "-m", "/m/x.gguf", "--port={port}", "my/model", "{port}")
    assert what.stop == ("stop", "{pid}", "my/model")
    assert what.environment == {"PATH": "/bin", "WHERE": "{port}", "FILE": "/m/x.gguf"}
    assert set(what.ported) == {"WHERE", "FILE"}
    assert what.cwd == Path("/w")
    assert (what.host, what.port, what.owned, what.health) == ("127.0.0.1", None, True, "/health")


def test_a_model_without_files_cannot_be_filled_in():
    with pytest.raises(InvalidRequest, match=r"says \$\{MODEL\}, and 'my/model' has no files"):
        program(cmd="server ${PORT} ${MODEL}")


@pytest.mark.parametrize(
    ("url", "cmd", "found", "owned"),
    [
        ("http://127.0.0.1:9000", "server", ("127.0.0.1", 9000), True),
        ("http://localhost:${PORT}/", "server ${PORT}", ("127.0.0.1", None), True),
        ("http://[::1]:80", "server", ("::1", 80), True),
        ("http://10.0.0.7:80", "server", ("10.0.0.7", 80), False),
        (None, "/usr/bin/docker run -p ${PORT}:80 x", ("127.0.0.1", None), False),
    ],
)
def test_where_it_listens_and_whose_the_port_must_be(url, cmd, found, owned):
    given = options(cmd=cmd, url=url)
    assert where(given) == found
    assert program(cmd=cmd, url=url).owned is owned
    assert program(cmd=cmd, url=url, own_port=not owned).owned is not owned


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"cmd": ""}, "has no program"),
        ({"cmd": []}, "has no program"),
        ({"cmd": "# only a comment"}, "has no program"),
        ({"cmd": "server 'open ${PORT}"}, "No closing quotation"),
        ({"cmd": ["server", "a\0b"]}, "NUL"),
        ({"cmd": "server"}, r"does not say \$\{PORT\}"),
        ({"cmd_stop": "'"}, "cmd_stop"),
        ({"url": "https://x:1"}, "url"),
        ({"url": "http://x:1/path"}, "url"),
        ({"url": "http://x:99999"}, "url"),
        ({"url": "http://"}, "url"),
        ({"health": "health"}, "health"),
        ({"base_path": "v1"}, "base_path"),
        ({"base_path": "/v1/"}, "base_path"),
        ({"context": 0}, "at least 1"),
        ({"memory": 0}, "at least 1"),
        ({"headers": {"a": "b\r\nc: d"}}, "line break"),
        ({"capabilities": ["sing"]}, "capabilities"),
        ({"dialect": "klingon"}, "dialect"),
    ],
)
def test_options_that_cannot_be(values, says):
    with pytest.raises(InvalidRequest, match=says):
        options(**values)


def test_fields_are_taken_out_and_set_but_never_the_model():
    adapt = adapter(options(strip=["temperature", "model"], set={"top_k": 5, "model": "no"}))
    body = {"model": "x", "temperature": 1, "messages": []}
    assert adapt("/chat/completions", body)
    assert body == {"model": "x", "messages": [], "top_k": 5}
    assert not adapt("/chat/completions", body)
    assert adapter(options()) is None


def test_what_it_takes_is_what_is_said():
    runtime = Command({})
    demand = runtime.demand(LaunchSpec("m", options(memory=5, context=7, slots=2)))
    assert (demand.fixed, demand.context, demand.slots) == (5, 7, 2)
    assert runtime.demand(LaunchSpec("m", options())).fixed is None
    assert Capability.CHAT in Command.capabilities


def test_secrets_of_the_environment_are_not_shown():
    assert "hush" not in repr(options(env={"A": "hush"}, headers={"Authorization": "hush"}))
    assert "hush" not in repr(program(env={"A": "hush"}, headers={"Authorization": "hush"}))
