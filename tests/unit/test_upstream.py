"""Targets, header blocks and the choice of a proxy: pure."""

from __future__ import annotations

import pytest

from corral.errors import ConfigError, InvalidRequest
from corral.kit.proxy import Proxy, choose, is_loopback
from corral.kit.upstream import Target, block


@pytest.mark.parametrize(
    ("url", "address", "authority", "prefix", "tls"),
    [
        ("http://127.0.0.1:4711/v1", "http://127.0.0.1:4711", b"127.0.0.1:4711", b"/v1", False),
        ("https://api.example.com/v1/", "https://api.example.com:443", b"api.example.com", b"/v1", True),
        ("http://example.com", "http://example.com:80", b"example.com", b"", False),
        ("http://[::1]:8080", "http://[::1]:8080", b"[::1]:8080", b"", False),
        ("https://EXÄMPLE.com:443", "https://xn--exmple-cua.com:443", b"xn--exmple-cua.com:443", b"", True),
    ],
)
def test_a_target_is_worked_out_once(url, address, authority, prefix, tls):
    target = Target.of(url)
    assert (target.address, target.prefix, target.tls) == (address, prefix, tls)
    assert target.authority in {authority, authority.removesuffix(b":443")}
    assert target.head == b" HTTP/1.1\r\nhost: " + target.authority + b"\r\nuser-agent: corral\r\n"


def test_headers_of_a_target_go_with_every_request_and_are_never_shown():
    target = Target.of("http://a.example", {"Authorization": "Bearer s3cret", "User-Agent": "mine"})
    assert target.head.endswith(b"\r\nauthorization: Bearer s3cret\r\nuser-agent: mine\r\n")
    assert "s3cret" not in repr(target)


@pytest.mark.parametrize(
    "url",
    [
        "example.com",
        "ftp://a.example",
        "http://",
        "http://a.example:99999",
        "http://a.example/?q",
        "http://a/#f",
        "http://a/ b",
    ],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ConfigError, match="not an address"):
        Target.of(url)


def test_credentials_in_an_address_are_refused_and_not_repeated():
    with pytest.raises(ConfigError, match="carries credentials") as caught:
        Target.of("http://user:s3cret@a.example/v1")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "header",
    [
        (b"x", b"a\r\nevil: 1"),
        (b"x", b"a\nb"),
        (b"x", b"\x00"),
        (b"a b", b"1"),
        (b"", b"1"),
        (b"x:", b"1"),
        (b"Content-Length", b"1"),
    ],
)
def test_headers_that_would_break_a_request_are_refused(header):
    with pytest.raises(InvalidRequest):
        block([header])


def test_a_value_outside_latin_1_is_refused():
    with pytest.raises(InvalidRequest, match="authorization"):
        Target.of("http://a.example", {"authorization": "Bearer …"})


def test_a_block_is_what_is_sent():
    assert block([(b"X-A", b"1"), (b"x-b", b"a\tb")]) == b"X-A: 1\r\nx-b: a\tb\r\n"


PROXY = {"HTTP_PROXY": "http://p.example:3128", "https_proxy": "q.example:8080", "HTTPS_PROXY": "http://no.example"}


@pytest.mark.parametrize(
    ("environ", "tls", "proxy"),
    [
        ({}, False, None),
        (PROXY, False, Proxy("p.example", 3128)),
        (PROXY, True, Proxy("q.example", 8080)),
        ({"ALL_PROXY": "http://all.example"}, True, Proxy("all.example", 80)),
        ({"all_proxy": "http://all.example", "http_proxy": ""}, False, None),
        ({"HTTP_PROXY": "http://u:p%40ss@p.example:1"}, False, Proxy("p.example", 1, b"Basic dTpwQHNz")),
    ],
)
def test_the_environment_chooses_the_proxy(environ, tls, proxy):
    assert choose(environ, "far.example", 80, tls=tls) == proxy


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.8.9.1", "::1"])
def test_loopback_never_goes_through_a_proxy(host):
    assert is_loopback(host)
    assert choose(PROXY, host, 80, tls=False) is None


@pytest.mark.parametrize(
    ("entry", "host", "direct"),
    [
        ("*", "far.example", True),
        ("far.example", "far.example", True),
        ("far.example", "api.FAR.example.", True),
        (".far.example", "far.example", True),
        ("*.far.example", "api.far.example", True),
        ("far.example", "notfar.example", False),
        ("other.example, far.example:80", "far.example", True),
        ("far.example:81", "far.example", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3:80", "10.1.2.3", True),
        ("fd00::/8", "fd00::1", True),
        ("[fd00::1]:80", "fd00::1", True),
        ("fd00::1", "fd00::1", True),
        ("far.example", "10.1.2.3", False),
        (",", "far.example", False),
    ],
)
def test_no_proxy(entry, host, direct):
    chosen = choose({**PROXY, "NO_PROXY": entry}, host, 80, tls=False)
    assert (chosen is None) == direct


@pytest.mark.parametrize("value", ["socks5://p.example:1080", "https://p.example", "http://", "http://p.example:port"])
def test_what_is_no_http_proxy_is_refused_without_its_credentials(value):
    value = value.replace("://", "://user:s3cret@")
    with pytest.raises(ConfigError, match="HTTP_PROXY") as caught:
        choose({"HTTP_PROXY": value}, "far.example", 80, tls=False)
    assert "s3cret" not in str(caught.value)
