"""Each official client and each kind of engine, by all that clients ask for, in one table, printed at the end.

What reaches a played vendor is checked twice: by the player, with the types of the vendor's own library, and here, by
what it says. Where an engine cannot do a thing, the client gets an error of its own that says so.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support import vendors
from tests.support.clients import Clients, vectors
from tests.support.received import Received, last
from tests.support.servers import corral_server
from tests.support.tongues import TONGUES
from tests.support.tongues_openai import Tongue
from tests.support.vendors.vendor import Vendor, played
from tests.support.wishes import CALLED, PICTURE, RESULTS, SCHEMA, TOOLS, Ask, Said

pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning")  # Google's own way
HELLO = "#say=Now_then"
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY")
WEATHER = [{"name": "get_weather", "arguments": {"city": "Paris", "number": 0}}]
WEATHER.append({"name": "get_time", "arguments": {"city": "Paris", "number": 1}})


@dataclass(frozen=True)
class Engine:
    """A kind of engine: the models of it, and what can be promised of it.

    `vendor` is who is asked in the end. `length` is its word for an answer that is too long. `read`, `written`,
    `cached` and `reasoned` are what it tells of a prompt with `#cached #think`.
    """

    name: str
    model: str
    options: str
    embeds: str | None = None
    calls: str | None = None
    vendor: str | None = None
    length: str = ""
    written: int = 12
    cached: int = 2000
    reasoned: int | None = None
    thinks: bool = False
    """Whether it shows what it thought."""
    efforts: bool = False
    """Whether it is told by an effort how much to think, and by nothing else."""

    @property
    def caller(self) -> str:
        """The model that calls tools."""
        return self.calls or self.model


ENGINES = (
    Engine(
        "llama.cpp",
        "smollm2",
        "smollm2: {options: {context: 2048, slots: 2}}\n"
        "  embedder: {source: smollm2, options: {embeddings: true, context: 512, slots: 1}}",
        embeds="embedder",
    ),
    Engine(
        "fake",
        "fake",
        "fake: {runtime: fake}\n"
        f"  calling: {{runtime: fake, options: {{reply: Done., tool_calls: {json.dumps(WEATHER)}}}}}",
        embeds="fake",
        calls="calling",
    ),
    Engine(
        "OpenAI",
        "gpt",
        "gpt: {runtime: openai, options: {vendor: openai, base_url: $openai, upstream_model: gpt-5}}",
        embeds="gpt",
        vendor="openai",
        length="length",
        reasoned=5,
        efforts=True,
    ),
    Engine(
        "OpenAI's chat",
        "compatible",
        "compatible: {runtime: openai, options: {base_url: $openai, api_key_env: OPENAI_API_KEY}}",
        embeds="compatible",
        vendor="openai",
        length="length",
        reasoned=5,
        efforts=True,
    ),
    Engine(
        "Anthropic",
        "claude",
        "claude: {runtime: anthropic, options: {base_url: $anthropic, upstream_model: claude-haiku-4-5}}",
        vendor="anthropic",
        length="max_tokens",
        thinks=True,
    ),
    Engine(
        "Gemini",
        "gemini-2.5-pro",
        "gemini-2.5-pro: {runtime: gemini, options: {base_url: $gemini}}\n"
        "  vectors: {runtime: gemini, options: {base_url: $gemini, upstream_model: gemini-embedding-001}}",
        embeds="vectors",
        vendor="gemini",
        length="MAX_TOKENS",
        written=19,
        reasoned=7,
        thinks=True,
    ),
    Engine(
        "a second Corral",
        "far",
        "far: {runtime: openai, options: {base_url: $corral, upstream_model: claude, responses: true}}",
        vendor="anthropic",
        length="max_tokens",
        thinks=True,
        efforts=True,
    ),
)


@dataclass
class Stage:
    """The server, its clients, and the vendors behind it."""

    clients: Clients
    addresses: dict[str, str]
    table: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)

    def received(self, engine: Engine) -> Received:
        """What the engine's vendor was asked last."""
        assert engine.vendor is not None
        return last(self.addresses[engine.vendor])

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the table."""
        terminalreporter.section("clients and engines")
        for line in _lines(self.table):
            terminalreporter.write_line(line)


def _players() -> dict[str, type[Vendor]]:
    """Every vendor that is played."""
    for module in pkgutil.iter_modules(vendors.__path__):
        importlib.import_module(f"{vendors.__name__}.{module.name}")
    return {each.name: each for each in Vendor.__subclasses__()}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, model_store: Path, pytestconfig: pytest.Config) -> Iterator[Stage]:
    with ExitStack() as stack:
        addresses = {name: stack.enter_context(played(player)) for name, player in _players().items()}
        env = dict.fromkeys(KEYS, Vendor.key)

        def serve(engines: tuple[Engine, ...]) -> str:
            config = "models:\n" + "\n".join(f"  {engine.options}" for engine in engines) + "\n"
            for name, url in addresses.items():
                config = config.replace(f"${name}", url)
            home = tmp_path_factory.mktemp("home")
            return stack.enter_context(corral_server(home, config, models_dir=model_store, env=env)).url

        addresses["corral"] = serve(tuple(each for each in ENGINES if each.name == "Anthropic")) + "/v1"
        made = Stage(stack.enter_context(Clients(serve(ENGINES))), addresses)
        pytestconfig.pluginmanager.register(made, "client-matrix")
        yield made


# -- what clients ask for: each gives back a mark of the table, or fails ----------------------------------------------

WORKS, REFUSED, NO_WORDS = "✓", "!", "·"


@dataclass(frozen=True)
class Case:
    """One client, asked in one way, and one engine."""

    stage: Stage
    tongue: type[Tongue]
    engine: Engine
    sync: bool

    def ask(self, *, stream: bool = False, model: str | None = None, **wishes: Any) -> Said:
        """What is answered."""
        asked = Ask(model or self.engine.model, **wishes)
        return self.stage.clients.ask(self.tongue, asked, stream=stream, sync=self.sync)

    def said(self, said: Said, *, text: str = HELLO) -> None:
        """That the answer is the engine's."""
        if self.engine.vendor is not None:
            assert said.text == "Now then"
        elif self.engine.name == "fake":
            assert said.text.strip() == text
        assert said.text
        assert said.read
        assert said.written

    @property
    def received(self) -> Received:
        """What the vendor got."""
        return self.stage.received(self.engine)


def plain(case: Case) -> str:
    """An answer as a whole."""
    said = case.ask(text=HELLO, limit=16)
    case.said(said)
    assert said.stop in ("end", "length")
    if case.engine.vendor:
        assert said.stop == "end"
        assert case.received.user == HELLO
    return WORKS


def stream(case: Case) -> str:
    """An answer in pieces, with its usage."""
    said = case.ask(text=HELLO + " and some words more", limit=16, stream=True)
    case.said(said, text=HELLO + " and some words more")
    assert said.pieces > 1
    if case.engine.vendor:
        assert said.stop == "end"
        assert case.received.user == HELLO + " and some words more"
    return WORKS


def system(case: Case) -> str:
    """Instructions."""
    case.said(case.ask(text=HELLO, system="Be brief.", limit=16))
    if case.engine.vendor:
        got = case.received
        assert (got.system, got.user) == ("Be brief.", HELLO)
    return WORKS


def tools(case: Case, *, stream: bool = False) -> str:
    """Two calls at once; of a small model, the one that it is forced to."""
    if case.engine.name == "llama.cpp":
        if "forced" in case.tongue.lacks:
            return NO_WORDS
        said = case.ask(text="What is the weather in Paris?", tools=True, forced=True, limit=96, stream=stream)
        ((_, name, given),) = said.calls
        assert name == "get_weather"
        assert given["city"]
        assert said.stop == case.tongue.ends_with
        return WORKS
    said = case.ask(model=case.engine.caller, text="#tools=2", tools=True, stream=stream)
    assert [(name, given) for _, name, given in said.calls] == [
        ("get_weather", {"city": "Paris", "number": 0}),
        ("get_time", {"city": "Paris", "number": 1}),
    ]
    assert len({id_ for id_, *_ in said.calls}) == 2
    assert said.stop == case.tongue.ends_with
    if case.engine.vendor:
        assert case.received.tools == [(name, schema) for name, _, schema in TOOLS]
    return WORKS


def tools_streamed(case: Case) -> str:
    """The same in pieces."""
    return tools(case, stream=True)


def forced(case: Case) -> str:
    """A tool that must be called."""
    if not case.engine.vendor:
        return NO_WORDS
    case.ask(text="#tool", tools=True, forced=True)
    assert case.received.forced == "get_weather"
    return WORKS


def results(case: Case) -> str:
    """What the tools gave goes back."""
    said = case.ask(text=HELLO, tools=True, again=True, limit=32)
    case.said(said)
    if case.engine.vendor:
        got = case.received
        assert got.calls == [(name, given) for _, name, given in CALLED]
        assert got.results == [(call[1], result) for call, result in zip(CALLED, RESULTS, strict=True)]
    return WORKS


def schema(case: Case) -> str:
    """JSON that keeps to a schema."""
    said = case.ask(text=HELLO, schema=True, limit=128)
    if case.engine.name != "fake":
        assert json.loads(said.text).keys() == {"said"}
    if case.engine.vendor:
        assert case.received.schema == SCHEMA
    return WORKS


def image(case: Case) -> str:
    """A picture; models that see none refuse it."""
    if case.engine.vendor is None:
        with pytest.raises(case.tongue.refused[0], match=r"(?i)image|vision|see"):
            case.ask(image=True)
        return REFUSED
    case.said(case.ask(text=HELLO, image=True))
    assert case.received.images == [PICTURE]
    return WORKS


def stop(case: Case) -> str:
    """Stop sequences."""
    story = "Tell me a long story. Once upon a time there was a horse who"
    said = case.ask(text=HELLO if case.engine.vendor else story, stop=("END", "e"), limit=64)
    assert said.stop == "end"
    if case.engine.name == "llama.cpp":
        assert "e" not in said.text
    if case.engine.vendor:
        assert case.received.stop == ["END", "e"]
    return WORKS


def limit(case: Case) -> str:
    """A bound of the answer, and that it was met."""
    text = f"{HELLO} #stop={case.engine.length} Tell me a long story. Once upon a time there was a horse who"
    said = case.ask(text=text, limit=3)
    assert said.stop == "length"
    if case.engine.vendor:
        assert case.received.limit == 3
    else:
        assert said.written == 3
    return WORKS


def usage(case: Case, *, stream: bool = False) -> str:
    """What is told of tokens: all, those that were cached, those of thoughts."""
    said = case.ask(text=f"{HELLO} #cached #think", limit=32, stream=stream)
    if case.engine.vendor is None:
        assert said.read
        assert said.written
        return WORKS
    assert said.read is not None
    assert said.read > case.engine.cached
    assert said.written == case.engine.written
    text = case.tongue.name == "openai completions"
    if "cached" not in case.tongue.vague:
        assert said.cached == case.engine.cached
    if "reasoned" not in case.tongue.vague and not text:
        assert (said.reasoned or 0) == (case.engine.reasoned or 0)
    return WORKS


def usage_streamed(case: Case) -> str:
    """The same of a stream."""
    return usage(case, stream=True)


def thinking(case: Case, *, stream: bool = False) -> str:
    """The wish for thoughts, and the thoughts."""
    said = case.ask(text=f"{HELLO} #think", thinking=True, limit=4096 if case.engine.vendor else 16, stream=stream)
    case.said(said, text=f"{HELLO} #think")
    if case.engine.vendor:
        if case.tongue.client == "ollama" and case.engine.efforts:
            return WORKS  # it asks for as much thought as the model likes: OpenAI's is asked for that by saying nothing
        assert case.received.thinking
        if case.engine.thinks:
            assert said.thought == "Let me see."
    return WORKS


def thinking_streamed(case: Case) -> str:
    """The same in pieces."""
    return thinking(case, stream=True)


def missing(case: Case) -> str:
    """A model that is not there, in the client's own exception."""
    with pytest.raises(case.tongue.refused[1], match="nobody"):
        case.ask(model="nobody")
    return REFUSED


WISHES: dict[str, tuple[Callable[[Case], str], str]] = {
    "plain": (plain, ""),
    "stream": (stream, ""),
    "system": (system, "system"),
    "tools": (tools, "tools"),
    "tools streamed": (tools_streamed, "tools"),
    "tool forced": (forced, "forced"),
    "results": (results, "again"),
    "schema": (schema, "schema"),
    "image": (image, "image"),
    "stop": (stop, "stop"),
    "limit": (limit, ""),
    "usage": (usage, ""),
    "usage streamed": (usage_streamed, ""),
    "thinking": (thinking, "thinking"),
    "thinking streamed": (thinking_streamed, "thinking"),
    "missing": (missing, ""),
}
"""Each with the words that a client must have for it."""
ASYNC = ("plain", "stream", "tools", "tools streamed", "missing")
"""What the asynchronous clients are asked: they send and read what the others do, another way."""


def _cases() -> Iterator[Any]:
    for tongue in TONGUES:
        for sync in (True, False):
            for engine in ENGINES:
                for wish in WISHES if sync else ASYNC:
                    name = f"{tongue.name}-{'sync' if sync else 'async'}-{engine.name}-{wish}".replace(" ", "_")
                    yield pytest.param(tongue, sync, engine, wish, id=name)


@pytest.mark.parametrize(("tongue", "sync", "engine", "wish"), list(_cases()))
def test_a_client_and_an_engine(stage: Stage, tongue: type[Tongue], sync: bool, engine: Engine, wish: str) -> None:
    row = stage.table.setdefault((f"{tongue.name}{'' if sync else ', async'}", engine.name), {})
    call, words = WISHES[wish]
    needed = {words, "tools"} if words == "forced" else {words}
    row[wish] = "✗"
    row[wish] = NO_WORDS if needed & tongue.lacks else call(Case(stage, tongue, engine, sync))


@pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
@pytest.mark.parametrize("engine", ENGINES, ids=[engine.name.replace(" ", "_") for engine in ENGINES])
@pytest.mark.parametrize("client", ["openai", "google", "ollama"])
def test_vectors(stage: Stage, client: str, engine: Engine, sync: bool) -> None:
    row = stage.table.setdefault((f"{client}{'' if sync else ', async'}", engine.name), {})
    row["embeddings"] = "✗"
    model = engine.embeds or engine.model
    if engine.embeds is None:
        refused = next(tongue.refused[0] for tongue in TONGUES if tongue.client == client)
        with pytest.raises(refused, match=r"cannot make embeddings\. (?!Load)"):
            vectors(client, stage.clients, model, ["one"], sync=sync)
        row["embeddings"] = REFUSED
        return
    found = vectors(client, stage.clients, model, ["one", "three"], sync=sync)
    assert len(found) == 2
    assert len(found[0]) == len(found[1]) > 0
    assert found[0] != found[1]
    row["embeddings"] = WORKS


def test_every_vendor_that_is_played_is_in_the_table() -> None:
    assert set(_players()) == {engine.vendor for engine in ENGINES} - {None}


def _lines(table: dict[tuple[str, str], dict[str, str]]) -> Iterator[str]:
    wide = max((len(client) for client, _ in table), default=0)
    yield f"in each cell: {', '.join(WISHES)} — or embeddings alone"
    yield f"{WORKS} works   {REFUSED} refused, and the error says why   {NO_WORDS} the client has no words for it"
    yield " | ".join(["".ljust(wide), *(engine.name.ljust(len(WISHES)) for engine in ENGINES)])
    for client in dict.fromkeys(client for client, _ in table):
        cells = ["".join(table.get((client, engine.name), {}).values()).ljust(len(WISHES)) for engine in ENGINES]
        yield " | ".join([client.ljust(wide), *cells])
