"""Where requests go: pinned addresses, redirects judged hop by hop, secrets that stay with their origin."""

import asyncio
import socket
from contextlib import AsyncExitStack

import pytest

from corral.config.settings import SourceSettings
from corral.errors import AddressRefused, SourceError
from corral.kit.clock import SystemClock
from corral.kit.web import Access, Transient, Web
from support.origin import Origin, Reply


@pytest.fixture
async def two():
    """Two servers on loopback, of different origins."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Origin({"/file": b"of %d" % number})) for number in (1, 2)]


def to(target, status=302):
    return lambda asked: None if asked.path == "/file" else Reply(status, {"Location": target, "Content-Length": "0"})


def resolver(**answers):
    """A name server; what a name is given as list is answered one after the other."""

    async def lookup(host, port):
        found = answers[host.partition(".")[0]]
        return [found.pop(0) if len(found) > 1 else found[0]]

    return lookup


def allowed(*hosts, **more):
    return Access(guarded=True, private=frozenset(hosts), retries=0, **more)


async def nobody(host, port):
    raise socket.gaierror(-2, "Name or service not known")


async def read(access, url, lookup=nobody, **how):
    async with Web(access, SystemClock(), lookup=lookup) as web, web.get(url, **how) as reply:
        return await reply.read(), str(reply.url)


async def test_loopback_is_refused_unless_it_is_allowed(two):
    one, _ = two
    with pytest.raises(AddressRefused, match="is at a loopback address") as caught:
        await read(allowed(), f"{one.url}/file")
    assert f"CORRAL_SOURCES_ALLOW_PRIVATE={one.host}" in caught.value.hint
    assert one.asked == []
    assert await read(allowed(one.host), f"{one.url}/file") == (b"of 1", f"{one.url}/file")
    assert await read(allowed("127.0.0.1"), f"{one.url}/file") == (b"of 1", f"{one.url}/file")


async def test_the_connection_goes_to_the_address_that_was_looked_at(two):
    one, _ = two
    port = one.host.rpartition(":")[2]
    names = {"open": ["127.0.0.1", "127.0.0.2"]}
    url = f"http://open.test:{port}/file"
    assert (await read(allowed("open.test"), url, resolver(**names)))[0] == b"of 1"
    assert names == {"open": ["127.0.0.2"]}  # resolved once: the second answer was never asked for
    assert one.asked[0].headers["host"] == f"open.test:{port}"


async def test_a_name_that_leads_inside_is_refused(two):
    one, _ = two
    port = one.host.rpartition(":")[2]
    for address in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1"):
        with pytest.raises(AddressRefused, match=r"open\.test"):
            await read(allowed(), f"https://open.test:{port}/file", resolver(open=[address]))
    assert one.asked == []


async def test_odd_ways_to_write_loopback(two):
    one, _ = two
    port = one.host.rpartition(":")[2]
    names = resolver(**{key: ["127.0.0.1"] for key in ("2130706433", "0x7f", "127", "localhost")})
    for host in ("2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]", "localhost"):
        with pytest.raises(AddressRefused):
            await read(allowed(), f"https://{host}:{port}/file", names)
    assert one.asked == []


async def test_each_redirect_is_judged(two):
    one, other = two
    one.tamper = to(f"{other.url}/file")
    with pytest.raises(AddressRefused, match=other.host):
        await read(allowed(one.host), f"{one.url}/away")
    assert other.asked == []
    assert await read(allowed(one.host, other.host), f"{one.url}/away") == (b"of 2", f"{other.url}/file")


async def test_a_configured_place_leads_to_its_own_network_and_outside_only(two):
    """Not guarded: the address is trusted as whoever configured it, a redirect is not."""
    one, other = two
    one.tamper = to(f"{other.url}/file")
    assert (await read(Access(), f"{one.url}/away"))[0] == b"of 2"
    one.tamper = to("https://10.0.0.1/file")
    with pytest.raises(AddressRefused, match=r"10\.0\.0\.1:443 is at a private address"):
        await read(Access(), f"{one.url}/away")
    one.tamper = to("https://169.254.169.254/latest/meta-data")
    with pytest.raises(AddressRefused, match="is at a special address"):
        await read(Access(), f"{one.url}/away")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed_relative_too(two, status):
    one, _ = two
    one.tamper = to("file", status)
    assert await read(allowed(one.host), f"{one.url}/away") == (b"of 1", f"{one.url}/file")


async def test_secrets_stay_with_their_origin(two):
    one, other = two
    headers, secret = {"Accept": "x/y", "authorization": "plain secret"}, {"X-Token": "deep secret"}
    access = allowed(one.host, other.host)
    url = f"{one.url.replace('//', '//me:pw@')}/away"
    one.tamper = to("/file")
    await read(access, url, headers=headers, secret=secret)
    for asked in one.asked:
        assert (asked.headers["x-token"], asked.headers["authorization"]) == ("deep secret", "plain secret")
    one.tamper = to(f"{other.url.replace('//', '//him:pw@')}/file")
    await read(access, url, headers=headers, secret=secret)
    (asked,) = other.asked
    assert asked.headers["accept"] == "x/y"
    assert not {"x-token", "authorization", "cookie"} & set(asked.headers)


async def test_a_login_in_the_address_goes_to_its_origin_only(two):
    one, other = two
    one.tamper = to(f"{other.url}/file")
    await read(allowed(one.host, other.host), f"{one.url.replace('//', '//me:pw@')}/away")
    assert one.asked[0].headers["authorization"].startswith("Basic ")
    assert "authorization" not in other.asked[0].headers


async def test_no_redirect_to_what_is_not_encrypted_or_no_web_address(two):
    one, _ = two
    for target, error in {
        "http://8.8.8.8/file": AddressRefused,
        "ftp://8.8.8.8/file": SourceError,
        "file:///etc/passwd": SourceError,
        "https://[bad/": SourceError,
    }.items():
        one.tamper = to(target)
        with pytest.raises(error):
            await read(allowed(one.host), f"{one.url}/away")


async def test_redirects_end(two):
    one, _ = two
    one.tamper = lambda asked: (
        Reply(302, {"Location": f"/{int(asked.path[1:]) - 1}", "Content-Length": "0"})
        if asked.path not in {"/0", "/file"}
        else Reply(200, {"Content-Length": "4"}, b"done")
    )
    assert (await read(allowed(one.host), f"{one.url}/5"))[0] == b"done"
    with pytest.raises(SourceError, match="more than 5 times"):
        await read(allowed(one.host), f"{one.url}/6")


async def test_a_redirect_without_a_target_is_an_answer(two):
    one, _ = two
    one.tamper = lambda _: Reply(304, {"Content-Length": "0"})
    assert (await read(allowed(one.host), f"{one.url}/x"))[0] == b""


async def test_through_a_proxy_only_literal_addresses_are_judged(two):
    proxy, _ = two
    proxy.files = {"http://open.test/file": b"by proxy"}
    access = allowed("open.test", proxies={"http": proxy.url, "https": proxy.url})
    assert (await read(access, "http://open.test/file"))[0] == b"by proxy"
    for host in ("10.0.0.1", "127.1", "0x7f000001", "2130706433", "localhost"):
        with pytest.raises(AddressRefused):
            await read(access, f"https://{host}/file")
    assert len(proxy.asked) == 1


async def test_other_methods(two):
    one, _ = two
    one.tamper = lambda _: Reply(200, {"Content-Length": "7"})
    async with Web(allowed(one.host), SystemClock()) as web, web.get(f"{one.url}/file", method="HEAD") as reply:
        assert reply.headers["Content-Length"] == "7"


async def test_a_name_that_nobody_knows():
    with pytest.raises(Transient, match="its name is not known"):
        await read(Access(), "https://open.test/", nobody)


async def test_an_address_without_a_host():
    with pytest.raises(SourceError):
        await read(Access(), "https:///x")
    web = Web(Access(), SystemClock())
    with pytest.raises(RuntimeError, match="async with"):
        async with web.get("https://8.8.8.8/"):
            pass


def test_what_the_settings_say():
    settings = SourceSettings(allow_private=("a.test", "b.test:1"), stall_timeout=7.0, retries=2)
    access = Access(timeout=3.0).within(settings, guarded=True)
    assert (access.timeout, access.stall, access.retries, access.guarded) == (3.0, 7.0, 2, True)
    assert access.private == {"a.test", "b.test:1"}


async def test_silence_is_measured_apart_from_connecting(two):
    one, _ = two
    never = asyncio.Event()
    one.tamper = lambda _: Reply(200, {"Content-Length": "9"}, b"begun", never.wait)
    with pytest.raises(Transient, match=r"sent nothing for 0\.2 seconds"):
        await read(allowed(one.host, timeout=30.0, stall=0.2), f"{one.url}/x")
