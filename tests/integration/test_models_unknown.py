"""What is said of a model that is none: what was meant, or how to see what there is; never what a key may not see."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.api import Client
from tests.support.commands import Yard
from tests.support.servers import Server, corral_server

CONFIG = """
models:
  robot: {runtime: fake, aliases: [automaton]}
  hobot: {runtime: fake}
  hidden: {runtime: fake}
routes:
  everyone: {models: [robot, hobot]}
"""
LIST = "See what there is: corral list, or GET /v1/models."
_SAID = [{"role": "user", "content": "hi"}]
_SAID_TO_GEMINI = [{"role": "user", "parts": [{"text": "hi"}]}]
# Method, path and body by which a model is named; NAME stands for it.
DOORS = {
    "chat": ("POST", "/v1/chat/completions", {"model": "NAME", "messages": _SAID}),
    "text": ("POST", "/v1/completions", {"model": "NAME", "prompt": "hi"}),
    "embeddings": ("POST", "/v1/embeddings", {"model": "NAME", "input": "hi"}),
    "responses": ("POST", "/v1/responses", {"model": "NAME", "input": "hi"}),
    "messages": ("POST", "/v1/messages", {"model": "NAME", "messages": _SAID, "max_tokens": 5}),
    "count": ("POST", "/v1/messages/count_tokens", {"model": "NAME", "messages": _SAID}),
    "gemini": ("POST", "/v1beta/models/NAME:generateContent", {"contents": _SAID_TO_GEMINI}),
    "ollama": ("POST", "/api/chat", {"model": "NAME", "messages": _SAID}),
    "show": ("POST", "/api/show", {"model": "NAME"}),
    "model": ("GET", "/v1/models/NAME", None),
    "gemini model": ("GET", "/v1beta/models/NAME", None),
    "generate": ("POST", "/api/v1/runtime/generate", {"model_name": "NAME", "prompt": "hi"}),
    "pipeline": (
        "POST",
        "/api/v1/pipelines/validate",
        {"source": "pipeline: p\nsteps:\n  a:\n    model: NAME\n    prompt: hi\n"},
    ),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with corral_server(tmp_path_factory.mktemp("unknown"), CONFIG) as running:
        yield running


@pytest.fixture(scope="module")
def scoped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A server, and a key for what begins with `rob`."""
    with corral_server(tmp_path_factory.mktemp("scoped"), CONFIG) as running:
        made = Client(running).ask("POST", "/api/v1/keys", {"name": "ci", "models": ["rob*"]}, base="")
        yield running, made.json["secret"]


def asked(server: Server, door: str, name: str, key: str = "") -> str:
    """What is answered where a model of that name is asked for."""
    method, path, body = DOORS[door]
    document = None if body is None else json.loads(json.dumps(body).replace("NAME", name))
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return Client(server).ask(method, path.replace("NAME", name), document, headers, base="").body.decode()


@pytest.mark.parametrize("door", DOORS)
def test_the_nearest_names_are_said(server: Server, door: str) -> None:
    assert "Did you mean robot or hobot?" in asked(server, door, "robbot")


@pytest.mark.parametrize("door", DOORS)
def test_where_nothing_is_near_it_is_said_how_to_see_what_there_is(server: Server, door: str) -> None:
    told = asked(server, door, "zzz-9")
    assert "Model 'zzz-9' does not exist." in told
    assert LIST in told


@pytest.mark.parametrize(("name", "meant"), [("everyon", "everyone"), ("automatom", "automaton")])
def test_routes_and_other_names_are_meant_as_well(server: Server, name: str, meant: str) -> None:
    assert f"Did you mean {meant}?" in asked(server, "chat", name)


@pytest.mark.parametrize("door", DOORS)
def test_a_key_is_told_of_no_model_that_it_may_not_see(scoped: tuple[Server, str], door: str) -> None:
    told = asked(scoped[0], door, "robbot", scoped[1])
    assert "Did you mean robot?" in told
    assert "hobot" not in told


@pytest.mark.parametrize("name", ["robzzzzzzzzzz", "hiden", "hobott", "everyon"])
@pytest.mark.parametrize("door", DOORS)
def test_a_key_learns_no_name_by_asking_for_one_that_is_near(scoped: tuple[Server, str], door: str, name: str) -> None:
    told = asked(scoped[0], door, name, scoped[1]).replace(name, "")
    assert not any(each in told for each in ("hidden", "hobot", "everyone"))


def test_the_terminal_says_the_same(server: Server) -> None:
    for name, hint in (("robbot", "Did you mean robot or hobot?"), ("zzz-9", LIST)):
        done = Yard(server.home).run("show", name, code=None)
        assert f"error: Model {name!r} does not exist.\nhint: {hint}" in done.stderr
