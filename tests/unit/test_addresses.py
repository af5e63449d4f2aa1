"""Where connections may lead: every kind of address, and names that change what they stand for."""

import pytest

from corral.errors import AddressRefused, SourceError
from corral.kit.addresses import EVERYWHERE, OUTSIDE, Addresses, Zone, literal_zone, named, place, zone
from support.clocks import HandClock

PUBLIC, PRIVATE, LOOPBACK, SPECIAL = Zone.PUBLIC, Zone.PRIVATE, Zone.LOOPBACK, Zone.SPECIAL


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", PUBLIC),
        ("2606:4700::1111", PUBLIC),
        ("127.0.0.1", LOOPBACK),
        ("127.9.9.9", LOOPBACK),
        ("::1", LOOPBACK),
        ("10.1.2.3", PRIVATE),
        ("172.16.0.1", PRIVATE),
        ("172.32.0.1", PUBLIC),
        ("192.168.1.1", PRIVATE),
        ("100.64.0.1", PRIVATE),
        ("100.128.0.1", PUBLIC),
        ("fc00::1", PRIVATE),
        ("fd12::1", PRIVATE),
        ("fec0::1", PRIVATE),
        ("169.254.169.254", SPECIAL),
        ("fe80::1%eth0", SPECIAL),
        ("224.0.0.1", SPECIAL),
        ("ff02::1", SPECIAL),
        ("0.0.0.0", SPECIAL),
        ("0.1.2.3", SPECIAL),
        ("::", SPECIAL),
        ("240.0.0.1", SPECIAL),
        ("255.255.255.255", SPECIAL),
        ("192.0.2.1", SPECIAL),
        ("198.18.0.1", SPECIAL),
        ("2001:db8::1", SPECIAL),
        ("::ffff:127.0.0.1", LOOPBACK),
        ("::ffff:10.0.0.1", PRIVATE),
        ("::ffff:8.8.8.8", PUBLIC),
        ("64:ff9b::a00:1", PRIVATE),
        ("64:ff9b::7f00:1", LOOPBACK),
        ("64:ff9b::808:808", PUBLIC),
        ("64:ff9b:1::1", SPECIAL),
        ("2002:a00:1::1", PRIVATE),
        ("2001::1", SPECIAL),
        ("192.0.0.9", SPECIAL),
        ("192.88.99.1", SPECIAL),
        ("192.88.98.1", PUBLIC),
        ("3fff:fff::1", SPECIAL),
        ("5f00::1", SPECIAL),
    ],
)
def test_zones(address, expected):
    assert zone(address) is expected


def test_names_are_not_addresses():
    assert literal_zone("example.org") is None
    assert literal_zone("::1") is LOOPBACK
    assert literal_zone("bücher.example") is None
    with pytest.raises(ValueError, match="example"):
        zone("example.org")


@pytest.mark.parametrize("host", ["127.1", "0x7f000001", "0x7f.1", "2130706433", "0177.0.0.1", "127.0.0.1.", "127.1."])
async def test_every_way_to_write_an_address_is_judged(host):
    assert literal_zone(host) is LOOPBACK
    addresses = Addresses(HandClock(), Names([]))
    with pytest.raises(AddressRefused):
        await addresses.admit(host, 443, OUTSIDE)
    await addresses.admit(host, 443, EVERYWHERE)
    assert await given(addresses, host) == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://Example.ORG/x", ("example.org", 443)),
        ("http://[::1]:8080/", ("::1", 8080)),
        ("http://user:pw@h.test/", ("h.test", 80)),
        ("https://bücher.example/", ("xn--bcher-kva.example", 443)),
    ],
)
def test_places(url, expected):
    assert place(url) == expected


@pytest.mark.parametrize("url", ["https:///x", "https://h:99999/", "mailto:x", "https://[::1/"])
def test_no_place(url):
    with pytest.raises(SourceError):
        place(url)


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ({"h.test"}, True),
        ({"H.TEST:443"}, True),
        ({"h.test:80"}, False),
        ({"test"}, False),
        ({"x.h.test"}, False),
        (set(), False),
    ],
)
def test_hosts_by_name(hosts, expected):
    assert named("https://h.test/a", hosts) is expected


def test_hosts_by_address():
    assert named("http://[::1]:99/", {"[::1]:99"})
    assert named("http://[::1]:99/", {"::1"})
    assert named("http://127.0.0.1:8000/", {"127.0.0.1:8000"})


class Names:
    """A name server that answers as told, one answer after the other, and counts."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self, host, port):
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


async def given(addresses, host="h.test", port=443):
    return [item["host"] for item in await addresses.resolve(host, port)]


async def test_the_connection_goes_to_what_was_looked_at():
    names = Names(["8.8.8.8"], ["10.0.0.1"])
    addresses = Addresses(HandClock(), names)
    assert await addresses.admit("h.test", 443, OUTSIDE) is PUBLIC
    assert await given(addresses) == ["8.8.8.8"]
    assert await given(addresses) == ["8.8.8.8"]
    assert await addresses.admit("h.test", 443, OUTSIDE) is PUBLIC
    assert names.asked == 1


async def test_a_name_that_turns_private_is_refused_when_it_is_looked_at_again():
    clock = HandClock()
    addresses = Addresses(clock, Names(["8.8.8.8"], ["10.0.0.1"]))
    await addresses.admit("h.test", 443, OUTSIDE)
    await clock.advance(61)
    with pytest.raises(AddressRefused, match=r"h\.test:443 is at a private address") as caught:
        await addresses.admit("h.test", 443, OUTSIDE)
    assert "CORRAL_SOURCES_ALLOW_PRIVATE=h.test:443" in caught.value.hint
    assert "10.0.0.1" not in str(caught.value)


async def test_of_several_addresses_only_the_fit_ones_are_used():
    addresses = Addresses(HandClock(), Names(["127.0.0.1", "8.8.8.8", "::1", "2606:4700::1111"]))
    await addresses.admit("h.test", 443, OUTSIDE)
    assert await given(addresses) == ["8.8.8.8", "2606:4700::1111"]


async def test_what_was_not_looked_at_is_not_connected_to():
    addresses = Addresses(HandClock(), Names(["8.8.8.8"]))
    with pytest.raises(OSError, match="was not looked at"):
        await addresses.resolve("h.test", 443)
    await addresses.admit("h.test", 443, EVERYWHERE)
    with pytest.raises(OSError, match="was not looked at"):
        await addresses.resolve("h.test", 80)
    with pytest.raises(AddressRefused):
        await addresses.admit("other.test", 443, frozenset({PRIVATE}))


async def test_an_address_that_does_not_answer_is_forgotten():
    names = Names(["8.8.8.8"], ["9.9.9.9"])
    addresses = Addresses(HandClock(), names)
    await addresses.admit("h.test", 443, OUTSIDE)
    addresses.forget("h.test", 443)
    await addresses.admit("h.test", 443, OUTSIDE)
    assert await given(addresses) == ["9.9.9.9"]


async def test_literal_addresses_need_no_name_server():
    names = Names([])
    addresses = Addresses(HandClock(), names)
    assert await addresses.admit("::1", 80, EVERYWHERE) is LOOPBACK
    with pytest.raises(AddressRefused, match=r"\[::1\]:80 is at a loopback address"):
        await addresses.admit("::1", 80, OUTSIDE)
    assert names.asked == 0
    with pytest.raises(OSError, match="no address"):
        await addresses.admit("h.test", 80, OUTSIDE)
    await addresses.close()
