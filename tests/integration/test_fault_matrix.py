"""Every way in which an engine fails x every point of its answer x every dialect of a client x whole or streamed.

Each cell is one request to one server. The client must get an answer or an error of its own dialect, at once or within
the time-outs; nothing of it stays in the engine; and what its receipt says it cost is what the budget was charged.
`pytest -s` prints the whole table.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from corral.domain.money import NANO
from tests.support.api import Client
from tests.support.endings import ANSWER, BROKEN, REFUSED, TONGUES, Tongue, Unreadable
from tests.support.servers import Server, corral_server
from tests.support.vendors.anthropic import Anthropic
from tests.support.vendors.gemini import Gemini
from tests.support.vendors.vendor import played

pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning")  # Google's own way
FIRST_BYTE, BETWEEN = 12.0, 6.0
"""Seconds that those are waited for who fall silent; a busy machine has let a played vendor stand still for four."""
PATIENCE = 60.0
"""Seconds that the others may take for each: whatever the machine's pace, they do not end by the clock."""
LONGEST = 90.0
"""Seconds that no cell may take."""
AT_ONCE = 20
SILENT = frozenset({"hang", "stall"})
"""Faults that only wait for a time-out: they take nobody's turn, and ask by a route that waits less long."""
MANAGER = "manager-key-of-the-matrix"
MORTALS = 4
CONFIG = """
upstream: {{first_byte_timeout: {patience}s, between_timeout: {patience}s}}
routing: {{retries: 0, breaker_failures: 1000000}}
engines: {{restarts: 1000000}}
usage: {{write_every: 100ms}}
models:
  fake: {{runtime: fake, options: {{prompted: true, slots: 200, tokens: [one, " two", " three", " four"]}}}}
{mortals}
  claude: {{runtime: anthropic, options: {{base_url: "{claude}", upstream_model: claude}}}}
  google: {{runtime: gemini, options: {{base_url: "{google}", upstream_model: gemini-2.5-pro}}}}
routes:
  fake-silent: {{models: [fake], first_byte_timeout: {first}s, between_timeout: {between}s}}
  claude-silent: {{models: [claude], first_byte_timeout: {first}s, between_timeout: {between}s}}
  google-silent: {{models: [google], first_byte_timeout: {first}s, between_timeout: {between}s}}
prices:
  fake: {{input: 3, output: 7}}
{prices}
  claude: {{input: 3, output: 15, cached: 1}}
  google: {{input: 1, output: 10}}
"""


@dataclass(frozen=True)
class Fault:
    """A fault and when it comes. `streamed` and `whole` are the ends that are right; None: there is no such cell.

    An end is `answer`, `broken` (an error within the stream), or the HTTP status of an error. `text` is how many pieces
    of text a client has heard at least.
    """

    name: str
    point: str
    words: str
    streamed: frozenset[str | int] | None
    whole: frozenset[str | int] | None
    text: int = 0
    model: str = "fake"


def ends(*wanted: str | int) -> frozenset[str | int]:
    return frozenset(wanted)


def scripted(**script: Any) -> str:
    return f"#fake {json.dumps(script)}\nHello there"


def fakes() -> Iterator[Fault]:
    """The faults of the fake engine."""
    for status in (400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529):
        told = ends(502 if status in (401, 403) else status)
        after = {"retry_after": 7} if status in (429, 503) else {}
        yield Fault(f"status {status}", "before the head", scripted(fault=f"status:{status}", **after), told, told)
    yield Fault("none", "", scripted(), ends(ANSWER), ends(ANSWER), 4)
    yield Fault("hang", "before the head", scripted(fault="hang"), ends(504), ends(504))
    yield Fault("garbage", "before the head", scripted(fault="garbage"), ends(502), ends(502))
    yield Fault("empty", "after the head", scripted(fault="empty"), ends(502), ends(502))
    yield Fault("html", "after the head", scripted(fault="html"), ends(502), ends(502))
    yield Fault("untyped", "throughout", scripted(fault="untyped"), ends(ANSWER), ends(ANSWER), 4)
    yield Fault("drip", "throughout", scripted(fault="drip"), ends(ANSWER), ends(ANSWER), 4)
    yield Fault("truncate", "middle", scripted(fault="truncate"), None, ends(502))
    points: tuple[tuple[str, dict[str, Any], int], ...] = (
        ("first token", {"fault_after": 0}, 0),
        ("middle", {"fault_after": 2}, 2),
        ("last token", {"fault_after": 3}, 3),
    )
    whole: dict[str, int] = {"stall": 504, "cut": 502, "half": 502, "error": 502}
    for fault in ("stall", "cut", "half", "error", "garbage_event"):
        for point, script, text in points:
            # What breaks before anything of it was sent on is refused, which a client is better served with.
            streamed = ends(BROKEN, whole.get(fault, 502))
            given = ends(whole[fault]) if fault in whole and not text else None
            yield Fault(fault, point, scripted(fault=fault, **script), streamed, given, text)
        # The model has come to its end by then; an error in the client's own form is passed on all the same.
        after_all = ends(ANSWER, BROKEN, 502) if fault in ("error", "garbage_event") else ends(ANSWER)
        yield Fault(fault, "before the end", scripted(fault=fault, fault_after=99), after_all, None, 4)
        yield Fault(fault, "after the end", scripted(fault=fault, fault_late=True), ends(ANSWER), None, 4)
    for point, script, text in points:
        yield Fault("crash", point, scripted(fault="crash", **script), ends(BROKEN, 502), ends(502), text, "mortal")
    yield Fault(
        "crash", "before the end", scripted(fault="crash", fault_after=99), ends(ANSWER), ends(502), 4, "mortal"
    )
    yield Fault(
        "crash", "after the end", scripted(fault="crash", fault_late=True), ends(ANSWER), ends(502), 4, "mortal"
    )


def vendors(model: str) -> Iterator[Fault]:
    """The faults of a played vendor."""
    for status in (400, 401, 403, 404, 413, 429, 500, 503, 529):
        told = ends(502 if status in (401, 403) else status)
        yield Fault(f"status {status}", "before the head", f"Hello #status={status}", told, told, model=model)
    yield Fault("none", "", "Hello", ends(ANSWER), ends(ANSWER), 1, model)
    yield Fault("garbage", "first token", "Hello #garbage", ends(BROKEN, 502), ends(502), model=model)
    for word, status in (("hang", 504), ("cut", 502), ("error", 502)):
        whole = ends(status) if word != "error" else None
        streamed = ends(BROKEN, status) if word != "error" else ends(BROKEN, 502, 503, 529)
        yield Fault(word, "before the first piece", f"Hello #{word}=0", streamed, whole, model=model)
        yield Fault(word, "middle", f"Hello #{word}=2", streamed, None, model=model)


@dataclass
class Cell:
    """One request, and what came of it."""

    fault: Fault
    tongue: Tongue
    stream: bool
    model: str
    end: str | int = ""
    text: int = 0
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0
    request_id: str = ""
    receipt: dict[str, Any] = field(default_factory=dict)

    @property
    def wanted(self) -> frozenset[str | int]:
        found = self.fault.streamed if self.stream else self.fault.whole
        assert found is not None
        return found

    def __str__(self) -> str:
        how = "stream" if self.stream else "whole"
        return f"{self.model}: {self.fault.name} {self.fault.point} x {self.tongue.name} x {how}"


def cells() -> list[Cell]:
    found = []
    for fault in (*fakes(), *vendors("claude"), *vendors("google")):
        for at, tongue in enumerate(TONGUES):
            for stream in (False, True):
                if (fault.streamed if stream else fault.whole) is None:
                    continue
                if tongue.name == "gemini array" and not stream:
                    continue
                model = f"mortal-{at % MORTALS}" if fault.model == "mortal" else fault.model
                if fault.name in SILENT:
                    model = f"{model}-silent"
                found.append(Cell(fault, tongue, stream, model))
    return found


class Matrix:
    """A server, its key under a budget, and the cells that have been asked."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._manager = Client(server, {"authorization": f"Bearer {MANAGER}"})
        made = self.manage("POST", "/api/v1/keys", {"name": "matrix"})
        self.key: str = made["secret"]
        self.key_id: str = made["key"]["id"]
        wanted = {"name": "all", "amount": 1000, "subject": "key", "who": self.key_id}
        self.manage("POST", "/api/v1/budgets", wanted)
        self.cells = cells()
        self.first = [Cell(next(fakes()), TONGUES[0], False, model) for model in ("fake", "claude", "google")]
        """Asked before the others, so that loading an engine counts in nobody's time."""

    def manage(self, method: str, path: str, body: Any = None) -> Any:
        reply = self._manager.ask(method, path, body, base="")
        assert reply.status < 300, reply.body
        return reply.json

    def text(self, path: str) -> str:
        """A page that is no JSON."""
        return self._manager.ask("GET", path, base="").body.decode()

    def receipt(self, cell: Cell) -> dict[str, Any]:
        """What was written down of a cell's request."""
        if not cell.receipt:
            cell.receipt = self.manage("GET", f"/api/v1/receipts/{cell.request_id}")["receipt"]
        return cell.receipt

    def usage(self) -> dict[str, Any]:
        """The sums of all requests."""
        found: dict[str, Any] = self.manage("GET", "/api/v1/usage?from=1d")["total"]
        return found

    @staticmethod
    def until(said: Callable[[], bool]) -> None:
        """Return when it is so: books are written a moment later."""
        deadline = time.monotonic() + 20
        while not said():
            assert time.monotonic() < deadline

    def budget(self) -> dict[str, Any]:
        found: dict[str, Any] = self.manage("GET", "/api/v1/budgets/all")["budget"]
        return found

    async def run(self) -> None:
        """Ask all cells, many at a time, and those that end an engine one after the other for each of them."""
        places = asyncio.Semaphore(AT_ONCE)
        alone: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(self.server.url, connector=connector) as http:

            async def one(cell: Cell) -> None:
                if cell.fault.model == "mortal":
                    async with alone[cell.model]:
                        await self._ask(http, cell)
                elif cell.fault.name in SILENT:
                    await self._ask(http, cell)
                else:
                    async with places:
                        await self._ask(http, cell)

            for cell in self.first:
                await self._ask(http, cell)
            await asyncio.gather(*(one(cell) for cell in self.cells))

    async def _ask(self, http: aiohttp.ClientSession, cell: Cell) -> None:
        tongue = cell.tongue
        body = tongue.body(cell.model, cell.fault.words, cell.stream)
        headers = {"authorization": f"Bearer {self.key}"}
        started = time.monotonic()
        try:
            async with (
                asyncio.timeout(LONGEST),
                http.post(tongue.path(cell.model, cell.stream), json=body, headers=headers) as answer,
            ):
                cell.request_id = answer.headers["x-request-id"]
                raw = await answer.read()
            cell.end, cell.text = tongue.read(answer.status, answer.content_type, raw, stream=cell.stream)
            if cell.end == REFUSED:
                cell.end = answer.status
        except Unreadable as error:
            cell.end, cell.wrong = "unreadable", [str(error)]
        except (aiohttp.ClientError, TimeoutError) as error:
            cell.end, cell.wrong = type(error).__name__, [str(error)]
        cell.seconds = time.monotonic() - started


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    mortals = [f"mortal-{at}" for at in range(MORTALS)]
    options = '{runtime: fake, options: {prompted: true, tokens: [one, " two", " three", " four"]}}'
    with ExitStack() as stack:
        config = CONFIG.format(
            patience=PATIENCE,
            first=FIRST_BYTE,
            between=BETWEEN,
            claude=stack.enter_context(played(Anthropic)),
            google=stack.enter_context(played(Gemini)),
            mortals="\n".join(f"  {name}: {options}" for name in mortals),
            prices="\n".join(f"  {name}: {{input: 3, output: 7}}" for name in mortals),
        )
        env = {"ANTHROPIC_API_KEY": Anthropic.key, "GEMINI_API_KEY": Gemini.key, "CORRAL_API_KEY": MANAGER}
        home = tmp_path_factory.mktemp("matrix")
        found = Matrix(stack.enter_context(corral_server(home, config, env=env)))
        asyncio.run(found.run())
        yield found


def test_every_client_gets_an_answer_or_an_error_of_its_dialect(matrix: Matrix) -> None:
    print("\n" + table(matrix.cells))
    wrong = [f"{cell}: {'; '.join(cell.wrong)}" for cell in matrix.cells if cell.wrong]
    assert not wrong, f"{len(wrong)} of {len(matrix.cells)}:\n" + "\n".join(wrong[:40])


def test_each_ends_as_its_fault_should(matrix: Matrix) -> None:
    wrong = [
        f"{cell}: {cell.end} after {cell.text}, not {sorted(map(str, cell.wanted))}"
        for cell in matrix.cells
        if cell.end not in cell.wanted or (cell.end in (ANSWER, BROKEN) and cell.stream and cell.text < cell.fault.text)
    ]
    assert not wrong, f"{len(wrong)} of {len(matrix.cells)}:\n" + "\n".join(wrong[:60])


def test_every_answer_has_a_receipt_that_says_what_happened(matrix: Matrix) -> None:
    wrong = []
    for cell in matrix.cells:
        told = matrix.receipt(cell)
        reply = cell.end if isinstance(cell.end, int) else 200
        expected = {"asked": cell.model, "status": reply, "request_id": cell.request_id, "key": matrix.key_id}
        found = {name: told.get(name) for name in expected}
        if found != expected:
            wrong.append(f"{cell}: {found}, not {expected}")
        if (told.get("error") is None) != (cell.end == ANSWER):
            wrong.append(f"{cell}: {cell.end}, and the receipt's error is {told.get('error')}")
        if cell.end == ANSWER and (told.get("finish_reason") != "stop" or not told["usage"]["output"]):
            wrong.append(f"{cell}: {told.get('finish_reason')} with {told.get('usage')}")
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong[:40])


def test_the_books_balance_to_the_nanodollar(matrix: Matrix) -> None:
    told = [matrix.receipt(cell) for cell in (*matrix.cells, *matrix.first)]
    costs = sum(each.get("cost_nano", 0) for each in told)
    by_hand = sum(cost(attempt) for each in told for attempt in each.get("tries", [each]))
    matrix.until(lambda: matrix.usage()["requests"] == len(told))
    matrix.until(lambda: not matrix.budget()["leased"])

    assert costs == by_hand
    assert matrix.usage()["cost_nano"] == costs
    assert round(matrix.budget()["spent"] * NANO) == costs
    assert matrix.usage()["unpriced"] == 0


def test_nothing_stays_behind(matrix: Matrix) -> None:
    models = matrix.manage("GET", "/api/v1/runtime/models")["models"]
    loaded = {each["name"]: each["in_flight"] for each in models if each["loaded"]}
    assert loaded.keys() >= {"fake", "claude", "google"}
    assert set(loaded.values()) == {0}
    text = matrix.text("/metrics")
    under_way = [line for line in text.splitlines() if line.startswith("corral_in_flight ")]
    assert under_way == ["corral_in_flight 0.0"], under_way
    assert "Traceback" not in (matrix.server.home.parent / "server.log").read_text()


PRICES = {"fake": (3, 7, 3), "mortal": (3, 7, 3), "claude": (3, 15, 1), "google": (1, 10, 1)}
"""US dollars for a million tokens: of prompt, of answer, and of prompt in the vendor's cache."""


def cost(attempt: dict[str, Any]) -> int:
    """Nanodollars of one attempt as its receipt tells it, reckoned here once more."""
    used = attempt.get("usage")
    if used is None or attempt.get("billed") is False:
        return 0
    read, written, cached = PRICES[attempt["model"].partition("-")[0]]
    from_cache = used.get("cached", 0)
    return 1000 * ((used["input"] - from_cache) * read + from_cache * cached + used["output"] * written)


def table(asked: list[Cell]) -> str:
    """Fault by fault what came of it in each dialect: as a stream, and whole."""
    names = [tongue.name for tongue in TONGUES]
    rows: dict[tuple[str, str, str], dict[tuple[str, bool], str]] = defaultdict(dict)
    for cell in asked:
        place = (cell.model.partition("-")[0], cell.fault.name, cell.fault.point)
        rows[place][cell.tongue.name, cell.stream] = str(cell.end)
    head = f"{'engine':8}{'fault':15}{'point':24}" + "".join(f"{name:19}" for name in names)
    lines = [head, "-" * len(head)]
    for place, row in rows.items():
        shown = "".join(f"{row.get((n, True), '·'):>8} /{row.get((n, False), '·'):>8} " for n in names)
        lines.append(f"{place[0]:8}{place[1]:15}{place[2]:24}{shown}")
    counted = Counter(str(cell.end) for cell in asked)
    slowest = max(cell.seconds for cell in asked)
    lines.append(f"{len(asked)} cells, stream / whole: " + ", ".join(f"{n} {end}" for end, n in counted.most_common()))
    lines.append(f"the slowest took {slowest:.2f} s")
    return "\n".join(lines)
