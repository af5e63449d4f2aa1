"""`corral usage`, as a user types it: over the database of the home, and over a server."""

import asyncio
import json
import subprocess
import time

import pytest

from corral.config.traffic import UsageSettings
from corral.db.engine import Database
from corral.domain.receipts import Attempt, Fallback
from corral.kit.clock import SystemClock
from corral.observability.usage import Books
from support.records import answered
from support.servers import CORRAL, corral_server, environment

BUSY = Attempt("big", "openai", None, "upstream_busy", "No room there.", 503, None, 0, 1.25)
TINY = Fallback("tiny", "context_length_exceeded", "It holds 4,096 tokens.")
DAY = 86400


@pytest.fixture
def home(tmp_path):
    """A home where two models were used: one today and three days ago, one without a known price."""
    folder = tmp_path / ".corral"

    async def fill():
        database = Database(None, folder)
        books = Books(database, SystemClock(), UsageSettings())
        now = time.time()
        for number in range(3):
            books.record(answered(number, at=now - number % 2 * 3 * DAY, cost=10**9))
        books.record(answered("free", at=now, model="mystery", cost=None, price=None))
        books.record(answered("x", at=now, attempts=(BUSY,), drops=(TINY,), ignored=("seed",)))
        await books.close()
        await database.close()

    asyncio.run(fill())
    return tmp_path


def corral(home, *words, **more):
    return subprocess.run(
        [CORRAL, *words], env=environment(home) | more, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_table_with_a_plot(home):
    done = corral(home, "usage")

    lines = done.stdout.splitlines()
    assert " ".join(lines[0].split()) == "MODEL REQUESTS ERRORS INPUT CACHED OUTPUT FIRST TIME COST UNPRICED BY COST"
    assert lines[1].split()[:2] == ["smollm2", "4"]
    assert lines[1].endswith("█" * 16)
    assert lines[2].split()[0] == "mystery"
    assert lines[2].split()[-2] == "?"
    assert lines[3].startswith("In all: $3.00, 5 requests, 500 tokens in, 100 out.")
    assert "The cost of 1 answers is not known" in done.stderr


def test_a_plot_of_days_shows_the_empty_ones(home):
    done = corral(home, "usage", "--by", "day", "--since", "5d")

    days = [line.split() for line in done.stdout.splitlines()[1:-1]]
    assert [row[1] for row in days] == ["1", "0", "0", "4"]


def test_json_and_quiet(home):
    found = json.loads(corral(home, "usage", "--json", "--by", "project,model").stdout)

    assert (found["count"], found["total"]["cost_nano"], found["by"]) == (2, 3 * 10**9 + 5000, ["project", "model"])
    assert corral(home, "usage", "-q", "--model", "mystery").stdout == "mystery\n"


def test_a_receipt(home):
    done = corral(home, "usage", "show", "req-x")

    shown = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for line in (
        "model smollm2",
        "cost $0.000005 (configured)",
        "call 1 big, 1.2 s: upstream_busy: No room there.",
        "call 2 smollm2, 0.0 s, $0.000005: answered",
        "not asked tiny: It holds 4,096 tokens.",
    ):
        assert line in shown
    assert json.loads(corral(home, "usage", "show", "req-x", "--json").stdout)["request_id"] == "req-x"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("show", "req-none"), "There is no receipt of 'req-none'."),
        (("--by", "secret"), "by: key, project, model, runtime, day, hour"),
        (("--since", "yesterday"), "'yesterday' is no time."),
    ],
)
def test_what_cannot_be_shown_is_said(home, words, told):
    done = corral(home, "usage", *words)

    assert done.returncode
    assert done.stdout == ""
    assert told in done.stderr


def test_nothing_was_used(tmp_path):
    assert corral(tmp_path, "usage").stdout == "Nothing was used in that time.\n"


def test_a_server_says_the_same(home):
    alone = json.loads(corral(home, "usage", "--json").stdout)
    receipt = corral(home, "usage", "show", "req-x").stdout

    with corral_server(home) as server:
        asked = json.loads(corral(home, "usage", "--json", "--url", server.url).stdout)
        assert corral(home, "usage", "show", "req-x", "--url", server.url).stdout == receipt

    assert asked["usage"] == alone["usage"]
    assert asked["total"] == alone["total"]


def test_costs_are_computed_anew(home):
    (home / ".corral" / "corral.yaml").write_text("prices: {mystery: {input: 1, output: 2}}\n")

    tried = corral(home, "usage", "recompute", "--model", "mystery", "--dry-run")
    done = json.loads(corral(home, "usage", "recompute", "--json").stdout)
    found = json.loads(corral(home, "usage", "--json", "--model", "mystery").stdout)["usage"]

    assert tried.stdout == "1 of 1 costs would change: $0.00 before, $0.00014 after.\n"
    assert (done["rows"], done["changed"], done["skipped"]) == (5, 1, 4)
    assert [(row["cost_nano"], row["unpriced"]) for row in found] == [(140_000, 0)]
    elsewhere = corral(home, "usage", "recompute", "--url", "http://127.0.0.1:1")
    assert "Do it on the server's machine." in elsewhere.stderr
