"""Usage and receipts over HTTP: what a key may see, what it is told, and what is refused."""

import csv
import io

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from corral.config.traffic import UsageSettings
from corral.db.engine import Database
from corral.domain.callers import Caller, Scope
from corral.errors import CorralError
from corral.gateway.api import usage
from corral.gateway.envelope import envelope
from corral.observability.usage import Books
from support.clocks import HandClock
from support.records import ADA, AT, answered

BOB = Caller("key-bob", "bob", models=("big",))
BOSS = Caller("key-boss", "boss", Scope.MANAGE)
SPAN = "from=2023-11-13&to=2023-11-16"


class Client:
    """Asks the routes as somebody whom the gate has let in."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def get(self, path, caller=BOSS):
        async def admitted(scope, receive, send):
            await self._app({**scope, "corral.caller": caller}, receive, send)

        async with httpx.AsyncClient(transport=httpx.ASGITransport(admitted), base_url="http://corral") as client:
            return await client.get(f"/api/v1{path}")


@pytest.fixture
async def client(tmp_path):
    database = Database(None, tmp_path)
    books = Books(database, HandClock(), UsageSettings())
    for number in range(3):
        books.record(answered(number, at=AT + number * 3600))
    books.record(answered("b", caller=BOB, project="=HYPERLINK()", model="big", cost=2_500_000_000))
    await books.flush()
    app = FastAPI()
    app.include_router(usage.router(books, HandClock()))
    app.add_exception_handler(CorralError, lambda _, error: JSONResponse(envelope(error), error.http_status))
    yield Client(app)
    await database.close()


async def test_sums(client):
    found = (await client.get(f"/usage?{SPAN}")).json()

    assert found["success"]
    assert [(row["model"], row["requests"], row["cost_usd"]) for row in found["usage"]] == [
        ("big", 1, 2.5),
        ("smollm2", 3, 0.000015),
    ]
    assert found["total"]["requests"] == 4
    assert (found["from"], found["to"], found["count"]) == (1_699_833_600, 1_700_092_800, 2)
    usage.Usage.model_validate(found)


async def test_nothing_was_used(client):
    found = (await client.get("/usage?from=2020-01-01&to=2020-01-02")).json()

    assert (found["usage"], found["total"]) == ([], None)


async def test_a_key_sees_its_own(client):
    mine = (await client.get(f"/usage?{SPAN}&by=key", BOB)).json()
    single = (await client.get(f"/usage/requests?{SPAN}", BOB)).json()

    assert [row["key"] for row in mine["usage"]] == ["key-bob"]
    assert mine["total"]["requests"] == 1
    assert [row["request_id"] for row in single["requests"]] == ["req-b"]
    for path in (f"/usage?{SPAN}&key=key-ada", f"/usage/requests?{SPAN}&key=key-ada"):
        assert (await client.get(path, BOB)).status_code == 403
    assert (await client.get(f"/usage?{SPAN}&key=key-bob", BOB)).status_code == 200


async def test_single_answers(client):
    first = (await client.get(f"/usage/requests?{SPAN}&limit=3")).json()
    rest = (await client.get(f"/usage/requests?{SPAN}&limit=3&before={first['next']}")).json()

    ids = [row["request_id"] for row in first["requests"] + rest["requests"]]
    assert ids == ["req-2", "req-1", "req-b", "req-0"]
    assert (first["count"], rest["count"], rest["next"]) == (3, 1, None)


async def test_receipts(client):
    found = (await client.get("/receipts/req-1", ADA)).json()["receipt"]

    assert (found["model"], found["cost_nano"], found["cost_usd"]) == ("smollm2", 5000, 0.000005)
    assert (await client.get("/receipts/req-1")).status_code == 200
    others, none = await client.get("/receipts/req-1", BOB), await client.get("/receipts/req-9", BOB)
    assert (others.status_code, none.status_code) == (404, 404)
    assert others.json()["error"]["code"] == none.json()["error"]["code"] == "receipt_missing"
    assert others.json()["error"]["message"].replace("req-1", "req-9") == none.json()["error"]["message"]


async def test_a_table_for_a_spreadsheet_holds_no_formula(client):
    answer = await client.get(f"/usage?{SPAN}&by=project&format=csv")

    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert [row["project"] for row in rows] == ["'=HYPERLINK()", "atlas"]
    assert rows[0]["cost_nano"] == "2500000000"
    empty = await client.get("/usage?from=2020-01-01&to=2020-01-02&by=day&format=csv")
    assert empty.text == "day\r\n"


@pytest.mark.parametrize(
    "path",
    [
        "/usage?by=secret",
        "/usage?by=key,model,day",
        "/usage?from=yesterday",
        "/usage?from=2023-11-16&to=2023-11-15",
        "/usage?from=2020-01-01&to=2023-01-01&by=hour",
        "/usage?model=a%00b",
        "/usage/requests?before=x",
        "/usage/requests?to=-1",
    ],
)
async def test_what_cannot_be_answered_is_said(client, path):
    answer = await client.get(path)

    assert answer.status_code == 400
    assert answer.json()["error"]["message"]
