"""Who may come in: every style of a key, two of them at once, none, and wrong ones."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.config import Settings, load
from corral.config.traffic import AuthSettings
from corral.db.engine import Database
from corral.domain.callers import LOCAL, SERVER, Scope
from corral.domain.keys import KeyWish
from corral.errors import DatabaseError, Forbidden, HostRefused, InvalidRequest, Unauthorized, UnsafeBind
from corral.gateway.auth import NOBODY, Gate, Head, check_exposure, offered, queried, redacted
from corral.routing.audit import TERMINAL
from corral.routing.keys import Keys
from tests.support.clocks import HandClock

HOST = (b"host", b"127.0.0.1:7860")
TOKEN = "the-terminals-own"


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def keys(tmp_path: Path, clock: HandClock) -> AsyncIterator[Keys]:
    database = Database(None, tmp_path)
    yield Keys(database, clock)
    await database.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load({"HOME": str(tmp_path)}, cwd=tmp_path)


def bearer(key: str) -> Head:
    return Head([HOST, (b"authorization", b"Bearer " + key.encode())])


NONE = Head([HOST])


async def test_without_keys_whoever_asks_is_this_machine(settings: Settings, keys: Keys) -> None:
    gate = Gate(settings, keys, TOKEN)

    assert not gate.closed
    assert gate.admit(NONE) is LOCAL
    assert gate.admit(bearer("sk-whatever-a-client-must-send")) is LOCAL
    assert gate.admit(bearer(TOKEN)) is LOCAL
    with pytest.raises(Unauthorized, match="not valid"):
        gate.admit(bearer("ck-of-another-server"))
    assert gate.admit(bearer("ck-of-another-server"), public=True) is NOBODY


async def test_the_first_key_closes_and_the_terminal_stays_in(settings: Settings, keys: Keys) -> None:
    gate = Gate(settings, keys, TOKEN)
    key, secret = await keys.create(KeyWish("ci"), TERMINAL)

    caller = gate.admit(bearer(secret))
    assert caller.id == key.id
    assert gate.admit(bearer(TOKEN)) is LOCAL
    for head in (NONE, bearer("sk-else"), bearer(secret[:-1]), bearer(TOKEN[:-1]), bearer("")):
        with pytest.raises(Unauthorized):
            gate.admit(head)
    assert gate.admit(NONE, public=True) is NOBODY


async def test_a_last_key_that_expires_or_is_revoked_opens_to_nobody(
    settings: Settings, keys: Keys, clock: HandClock
) -> None:
    gate = Gate(settings, keys, TOKEN)
    _, secret = await keys.create(KeyWish("ci", expires_at=clock.wall() + 5), TERMINAL)
    clock.time += 5
    with pytest.raises(Unauthorized, match="expired"):
        gate.admit(bearer(secret))
    await keys.revoke("ci", TERMINAL)
    for head in (NONE, bearer(secret)):
        with pytest.raises(Unauthorized):
            gate.admit(head)
    await keys.delete("ci", TERMINAL)
    assert gate.admit(NONE) is LOCAL


async def test_the_servers_own_key(settings: Settings, keys: Keys) -> None:
    gate = Gate(replace(settings, api_key="ck-lookalike"), keys, TOKEN)

    assert gate.admit(bearer("ck-lookalike")) is SERVER
    assert gate.admit(bearer(TOKEN)) is LOCAL
    with pytest.raises(Unauthorized, match="needs a key"):
        gate.admit(NONE)
    with pytest.raises(Unauthorized, match="not valid"):
        gate.admit(bearer("é"))


@pytest.mark.parametrize(("host", "closed"), [("127.0.0.1", False), ("::1", False), ("0.0.0.0", True), ("yard", True)])
def test_a_server_that_others_reach_is_closed(settings: Settings, keys: Keys, host: str, closed: bool) -> None:
    server = replace(settings.server, host=host)
    assert Gate(replace(settings, server=server), keys).closed is closed


def test_always_is_from_the_start(settings: Settings, keys: Keys) -> None:
    gate = Gate(replace(settings, auth=AuthSettings("always")), keys, TOKEN)
    with pytest.raises(Unauthorized):
        gate.admit(NONE)
    assert gate.admit(bearer(TOKEN)) is LOCAL


async def test_a_terminal_without_a_token_is_let_in_by_nothing_empty(settings: Settings) -> None:
    gate = Gate(replace(settings, api_key="sesame"))
    for value in (b"Bearer", b"Bearer ", b"Bearer  ", b""):
        with pytest.raises(Unauthorized):
            gate.admit(Head([HOST, (b"authorization", value)]))


async def test_while_keys_cannot_be_read_only_the_owner_comes_in(
    settings: Settings, tmp_path: Path, clock: HandClock
) -> None:
    (tmp_path / "corral.db").write_bytes(b"no database" * 100)
    keys = Keys(Database(None, tmp_path), clock)
    with pytest.raises(DatabaseError):
        await keys.refresh()
    gate = Gate(settings, keys, TOKEN)

    assert gate.admit(bearer(TOKEN)) is LOCAL
    for head in (NONE, bearer("sk-else")):
        with pytest.raises(DatabaseError):
            gate.admit(head)


async def test_a_key_made_a_moment_ago_by_another_process_works_at_once(
    settings: Settings, keys: Keys, tmp_path: Path, clock: HandClock
) -> None:
    gate = Gate(settings, keys, TOKEN)
    elsewhere = Database(None, tmp_path)
    key, secret = await Keys(elsewhere, clock).create(KeyWish("ci"), TERMINAL)
    await elsewhere.close()

    with pytest.raises(Unauthorized):
        gate.admit(bearer(secret))
    assert (await gate.admit_anew(bearer(secret))).id == key.id
    assert gate.admit(bearer(secret)).id == key.id
    with pytest.raises(Unauthorized):
        await gate.admit_anew(bearer("ck-wrong"))
    with pytest.raises(Unauthorized):
        await gate.admit_anew(NONE)


async def test_a_request_names_its_project(settings: Settings, keys: Keys) -> None:
    gate = Gate(settings, keys, TOKEN)
    _, bound = await keys.create(KeyWish("bound", projects=("web", "docs")), TERMINAL)
    _, free = await keys.create(KeyWish("free"), TERMINAL)

    def ask(secret: str, project: bytes) -> str:
        caller = gate.admit(Head([HOST, (b"x-api-key", secret.encode()), (b"x-corral-project", project)]))
        assert caller.name in ("bound", "free", "this machine")
        return caller.project

    assert gate.admit(bearer(bound)).project == "web"
    assert ask(bound, b"docs") == "docs"
    assert ask(free, b"anything-1.0_x") == "anything-1.0_x"
    assert ask(TOKEN, b"mine") == "mine"
    assert LOCAL.project == ""
    with pytest.raises(Forbidden, match="web, docs"):
        ask(bound, b"secret")
    for wrong in (b"", b"a b", b"-x", b"a" * 101, "é".encode(), b"a\n", b"../x"):
        with pytest.raises(InvalidRequest):
            ask(free, wrong)
    same = [gate.admit(Head([HOST, (b"x-api-key", bound.encode()), (b"x-corral-project", b"docs")])) for _ in range(2)]
    assert same[0] is same[1]
    for number in range(3000):
        ask(TOKEN, b"p%d" % number)
    assert len(gate._projects) <= 1024


async def test_the_projects_that_a_key_makes_up_have_an_end(settings: Settings, keys: Keys) -> None:
    gate = Gate(settings, keys, TOKEN)
    _, free = await keys.create(KeyWish("free"), TERMINAL)
    _, other = await keys.create(KeyWish("other"), TERMINAL)
    _, manager = await keys.create(KeyWish("manager", scope=Scope.MANAGE), TERMINAL)

    def ask(secret: str, project: bytes) -> None:
        gate.admit(Head([HOST, (b"x-api-key", secret.encode()), (b"x-corral-project", project)]))

    for number in range(100):
        ask(free, b"p%d" % number)
    with pytest.raises(Forbidden, match="100 projects"):
        ask(free, b"one-more")
    ask(free, b"p7")
    ask(other, b"one-more")
    for number in range(200):
        ask(manager, b"p%d" % number)


STYLES = [
    (b"authorization", b"Bearer first"),
    (b"x-api-key", b"second"),
    (b"api-key", b"third"),
    (b"x-goog-api-key", b"fourth"),
]


def test_of_two_keys_the_same_one_counts_in_any_order() -> None:
    for first in range(len(STYLES)):
        for order in permutations(STYLES[first:]):
            expected = STYLES[first][1].removeprefix(b"Bearer ")
            assert Head([HOST, *order]).key == expected


def test_two_different_keys_of_one_name_are_none(settings: Settings) -> None:
    gate = Gate(replace(settings, api_key="good"))
    for name, lead in ((b"authorization", b"Bearer "), (b"x-api-key", b"")):
        for values in ((b"good", b"bad"), (b"bad", b"good")):
            with pytest.raises(Unauthorized):
                gate.admit(Head([HOST, *((name, lead + value) for value in values)]))
        assert gate.admit(Head([HOST, (name, lead + b"good"), (name, lead + b"good")])) is SERVER


def test_a_wrong_key_is_not_made_good_by_another(settings: Settings) -> None:
    gate = Gate(replace(settings, api_key="good"))
    with pytest.raises(Unauthorized):
        gate.admit(Head([HOST, (b"x-api-key", b"good"), (b"authorization", b"Bearer bad")]))
    assert gate.admit(Head([HOST, (b"x-api-key", b"good"), (b"authorization", b"Basic bad")])) is SERVER
    with pytest.raises(Unauthorized):
        gate.admit(queried(Head([HOST, (b"x-api-key", b"bad")]), b"key=good"))


@pytest.mark.parametrize(
    ("query", "key"),
    [
        (b"", None),
        (b"key=k1", b"k1"),
        (b"alt=sse&api_key=k1", b"k1"),
        (b"%6Bey=k%2B1", b"k+1"),
        (b"KEY=k1", b"k1"),
        (b"key=", None),
        (b"key", None),
        (b"mykey=k1", None),
        (b"key=k1&key=k1", b"k1"),
        (b"key=k1&api_key=k2", b"?"),
        (b"&&=&key=k1", b"k1"),
    ],
)
def test_a_key_in_the_query(query: bytes, key: bytes | None) -> None:
    assert queried(Head([HOST]), query).key == key
    assert queried(Head([HOST, (b"x-api-key", b"other")]), query).key == b"other"


def test_a_key_among_the_protocols_goes_before_the_query() -> None:
    head = queried(offered(Head([HOST]), ["corral", "key.one"]), b"key=two")
    assert head.key == b"one"


text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=60)


@given(secret=text, name=st.sampled_from(["key", "api_key", "%6bey", "KEY", "access_token", "x-api-key"]), more=text)
def test_no_secret_of_a_query_is_ever_shown(secret: str, name: str, more: str) -> None:
    marked = f"QQQ{quote(secret, safe='')}QQQ"
    query = f"a={quote(more, safe='')}&{name}={marked}&b=1".encode()

    shown = redacted(query)

    assert shown.isascii()
    assert shown.isprintable()
    assert "QQQ" not in shown
    assert shown.startswith("a=")
    assert shown.endswith("=***&b=1")


@given(st.binary(max_size=200))
def test_any_query_can_be_read_and_shown(query: bytes) -> None:
    queried(Head([HOST]), query)
    assert redacted(query).isascii()


names = st.sampled_from([name for name, _ in STYLES] + [b"host", b"origin", b"content-length", b"x-corral-project"])
headers = st.lists(st.tuples(names | st.binary(max_size=20), st.binary(max_size=40)), max_size=12)


@given(headers, st.lists(st.text(max_size=20), max_size=4), st.binary(max_size=30))
def test_no_headers_open_a_closed_server(
    given_headers: list[tuple[bytes, bytes]], names: list[str], query: bytes
) -> None:
    gate = Gate(replace(Settings(), api_key="k" * 41))
    head = queried(offered(Head(given_headers), names), query)
    with pytest.raises((Unauthorized, HostRefused, InvalidRequest)):
        gate.admit(head)


@given(headers, st.integers(0, 12))
def test_the_highest_style_counts_wherever_it_stands(others: list[tuple[bytes, bytes]], place: int) -> None:
    rest = [header for header in others if header[0] != b"authorization"]
    rest.insert(place, (b"authorization", b"bEaReR the-key"))
    assert Head(rest).key == b"the-key"


@given(st.binary(min_size=1, max_size=60))
def test_a_key_with_any_bytes_can_be_offered(key: bytes) -> None:
    name = "key64." + base64.urlsafe_b64encode(key).decode().rstrip("=")
    assert offered(Head([HOST]), ["corral", name]).key == key


async def test_nobody_listens_to_others_without_a_key(settings: Settings, keys: Keys) -> None:
    for safe in ("127.0.0.1", "127.8.9.1", "::1", "::1%lo"):
        check_exposure(safe, settings, None)
    for address in ("0.0.0.0", "::", "192.168.1.5", "fe80::1%eth0"):
        with pytest.raises(UnsafeBind, match="CORRAL_API_KEY"):
            check_exposure(address, settings, keys)
        check_exposure(address, replace(settings, api_key="k"), None)
    await keys.create(KeyWish("ci"), TERMINAL)
    check_exposure("0.0.0.0", settings, keys)
    await keys.revoke("ci", TERMINAL)
    with pytest.raises(UnsafeBind, match="corral keys create"):
        check_exposure("0.0.0.0", settings, keys)
