"""Fetching over a real socket, from servers that are slow, broken, confused or lying."""

import asyncio
import random

import pytest

from corral.domain.models import RemotePart
from corral.domain.ports import Progress
from corral.errors import DigestMismatch, SourceError, SourceNotFound
from corral.kit.clock import SystemClock
from corral.kit.fetch import TooLong, fetch
from corral.kit.part import Part
from corral.kit.web import Access, Patience, Transient, Web
from support.clocks import Restless, settle
from support.models import sha256
from support.origin import Origin, Reply

DATA = random.Random(7).randbytes(300_000)
GOOD = sha256(DATA)


class Bench:
    """An origin with one file, and what fetching it came to."""

    def __init__(self, origin, folder):
        self.origin = origin
        self.folder = folder
        self.clock = Restless()
        self.seen: list[Progress] = []

    async def fetch(self, *, held=b"", size=None, digest=GOOD, timeout=5.0, retries=3, path="/file"):
        """Fetch with `held` left by an earlier process; what lies on the disk after."""
        target = self.folder / "a.part"
        target.write_bytes(held)
        part = await Part.open(target, SystemClock())
        try:
            async with Web(Access(timeout=timeout, retries=retries), self.clock) as web:
                await fetch(web, RemotePart(self.origin.url + path, size, digest), part, self.seen.append)
            assert part.digest() == sha256(target.read_bytes())
        finally:
            part.close()
        return target.read_bytes()

    @property
    def held(self):
        return (self.folder / "a.part").read_bytes()

    @property
    def ranges(self):
        return [asked.range for asked in self.origin.asked]

    def first(self, *replies):
        """Answer so at first, and honestly from then on."""
        left = list(replies)
        self.origin.tamper = lambda asked: left.pop(0)(asked) if left else None


@pytest.fixture
async def bench(tmp_path):
    async with Origin({"/file": DATA}) as origin:
        yield Bench(origin, tmp_path)


def cut(at):
    """An answer that breaks off after `at` bytes."""

    def reply(asked, origin=None):
        return Reply(200, {"Content-Length": str(len(DATA)), "ETag": '"one"'}, DATA[:at])

    return reply


def status(code, **headers):
    return lambda _: Reply(code, {"Content-Length": "0", **{k.replace("_", "-"): v for k, v in headers.items()}})


@pytest.mark.parametrize("size", [None, len(DATA)])
@pytest.mark.parametrize("digest", [None, GOOD])
async def test_a_whole_file(bench, size, digest):
    assert await bench.fetch(size=size, digest=digest) == DATA
    assert bench.ranges == [None]
    done = [item.done for item in bench.seen]
    assert done == sorted(done)
    assert (done[-1], bench.seen[-1].total) == (len(DATA), len(DATA))


async def test_an_empty_file(bench):
    bench.origin.files["/file"] = b""
    assert await bench.fetch(digest=sha256(b"")) == b""


async def test_what_is_held_is_not_asked_for_again(bench):
    assert await bench.fetch(held=DATA[:100_000]) == DATA
    assert bench.ranges == ["bytes=100000-"]
    assert bench.seen[0].done == 100_000


@pytest.mark.parametrize("size", [None, len(DATA)])
async def test_what_is_held_whole_is_only_verified(bench, size):
    assert await bench.fetch(held=DATA, size=size) == DATA
    assert len(bench.ranges) == (0 if size else 1)


async def test_without_a_digest_nothing_held_is_trusted(bench):
    assert await bench.fetch(held=b"of another version", digest=None) == DATA
    assert bench.ranges == [None]


async def test_a_server_without_ranges_sends_it_all_again(bench):
    bench.origin.ranges = False
    assert await bench.fetch(held=DATA[:100_000]) == DATA
    done = [item.done for item in bench.seen]
    assert done == sorted(done)


async def test_damaged_bytes_on_the_disk_are_found_and_fetched_again(bench):
    assert await bench.fetch(held=b"!" + DATA[1:200_000], size=len(DATA)) == DATA
    assert bench.ranges == ["bytes=200000-", None]
    done = [item.done for item in bench.seen]
    assert done == sorted(done)
    assert "again from the start" in {item.detail for item in bench.seen}


async def test_more_held_than_there_is(bench):
    assert await bench.fetch(held=DATA + b"more", size=len(DATA)) == DATA
    assert await bench.fetch(held=DATA + b"more") == DATA


async def test_a_lost_connection_is_taken_up(bench):
    bench.first(cut(120_000), status(503))
    assert await bench.fetch() == DATA
    assert bench.ranges[0] is None
    assert all(item == "bytes=120000-" for item in bench.ranges[1:])
    assert bench.origin.asked[1].headers["if-range"] == '"one"'


async def test_a_file_that_changed_meanwhile_is_fetched_anew(bench):
    bench.first(lambda _: Reply(200, {"Content-Length": str(len(DATA)), "ETag": '"old"'}, b"x" * 1000))
    assert await bench.fetch() == DATA
    assert bench.origin.asked[1].headers["if-range"] == '"old"'


async def test_a_weak_tag_is_no_tag(bench):
    bench.first(lambda _: Reply(200, {"Content-Length": str(len(DATA)), "ETag": 'W/"one"'}, DATA[:1000]))
    assert await bench.fetch() == DATA
    assert "if-range" not in bench.origin.asked[1].headers


async def test_a_stalled_connection_is_noticed_and_opened_again(bench):
    never = asyncio.Event()
    stalled = Reply(200, {"Content-Length": str(len(DATA))}, DATA[:50_000], never.wait)
    bench.origin.tamper = lambda asked: None if asked.range else stalled
    assert await bench.fetch(timeout=0.2, retries=100) == DATA
    starts = [int(each[6:-1]) for each in bench.ranges if each]
    assert bench.ranges[0] is None
    assert starts[0] > 0  # 50,000, unless the machine itself stood still for so long
    assert starts == sorted(starts)


async def test_a_stream_without_a_length_that_ends_early_is_taken_up(bench):
    bench.first(lambda _: Reply(200, {}, DATA[:1000]))
    assert await bench.fetch(size=len(DATA)) == DATA


async def test_a_stream_without_a_length(bench):
    bench.first(lambda _: Reply(200, {}, DATA))
    assert await bench.fetch() == DATA


async def test_ranges_shorter_than_asked_for_are_put_together(bench):
    def some(asked):
        start = int(asked.range[6:-1])
        body = DATA[start : start + 90_000]
        span = f"bytes {start}-{start + len(body) - 1}/{len(DATA)}"
        return Reply(206, {"Content-Range": span, "Content-Length": str(len(body))}, body)

    bench.origin.tamper = some
    assert await bench.fetch(held=DATA[:10]) == DATA
    assert len(bench.ranges) == 4


async def test_patience_ends_and_what_arrived_is_kept(bench):
    bench.first(cut(1000), *[status(500)] * 9)
    with pytest.raises(SourceError, match="answered 500"):
        await bench.fetch(retries=2)
    assert bench.held == DATA[:1000]
    assert len(bench.ranges) == 1 + 2


async def test_progress_renews_patience(bench):
    bench.first(*[lambda asked: part(asked, 1000)] * 12)

    def part(asked, count):
        start = int(asked.range[6:-1]) if asked.range else 0
        body, head = DATA[start : start + count], {"Content-Length": str(len(DATA) - start)}
        if start:
            head["Content-Range"] = f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"
        return Reply(206 if start else 200, head, body)

    assert await bench.fetch(retries=1) == DATA
    assert len(bench.ranges) == 13


async def test_the_server_says_when_to_come_again(bench):
    bench.first(status(429, Retry_After="7"), status(503, Retry_After="999"), status(503, Retry_After="soon"))
    assert await bench.fetch() == DATA
    first, second, third = bench.clock.slept
    assert (first, second) == (7.0, 30.0)
    assert 0 < third < 30


@pytest.mark.parametrize(
    ("code", "kind"), [(404, SourceNotFound), (410, SourceNotFound), (403, SourceError), (418, SourceError)]
)
async def test_a_refusal_is_not_tried_again(bench, code, kind):
    bench.first(*[status(code)] * 9)
    with pytest.raises(kind, match=f"answered {code}"):
        await bench.fetch()
    assert len(bench.ranges) == 1


async def test_other_bytes_are_thrown_away(bench):
    with pytest.raises(DigestMismatch, match="Nothing of it was kept"):
        await bench.fetch(digest="0" * 64)
    assert bench.held == b""
    assert bench.ranges == [None]


LIES = {
    "a length other than promised": lambda _: Reply(200, {"Content-Length": "5"}, b"12345"),
    "more than it announced": lambda _: Reply(200, {}, DATA + b"more"),
    "compressed anew": lambda _: Reply(200, {"Content-Encoding": "gzip", "Content-Length": "3"}, b"abc"),
    "a range unasked": lambda _: Reply(
        206, {"Content-Range": f"bytes 5-9/{len(DATA)}", "Content-Length": "5"}, b"12345"
    ),
    "no content": lambda _: Reply(204),
}
RANGE_LIES = {
    "another range": ("bytes 5-9/300000", 5),
    "a length other than the range": ("bytes 100-299999/300000", 5),
    "another total": ("bytes 100-299999/300001", 299900),
    "past the end": ("bytes 100-300000/300000", 299901),
    "backwards": ("bytes 100-50/300000", 5),
    "no range": ("", 5),
    "nonsense": ("items 1-2/3", 5),
    "a refusal": ("bytes */300000", 5),
}


@pytest.mark.parametrize("lie", LIES)
async def test_lies_about_a_whole_file(bench, lie):
    bench.first(*[LIES[lie]] * 9)
    with pytest.raises(SourceError):
        await bench.fetch(size=len(DATA))
    assert len(bench.ranges) == 1
    assert DATA.startswith(bench.held)


@pytest.mark.parametrize("lie", RANGE_LIES)
async def test_lies_about_a_range(bench, lie):
    text, length = RANGE_LIES[lie]
    bench.first(*[lambda _: Reply(206, {"Content-Range": text, "Content-Length": str(length)}, b"x" * length)] * 9)
    with pytest.raises(SourceError):
        await bench.fetch(held=DATA[:100], size=len(DATA))
    assert bench.held == DATA[:100]


async def test_a_range_of_unknown_total(bench):
    body = DATA[100:]
    bench.first(
        lambda _: Reply(206, {"Content-Range": f"bytes 100-{len(DATA) - 1}/*", "Content-Length": str(len(body))}, body)
    )
    assert await bench.fetch(held=DATA[:100]) == DATA


async def test_a_refused_range_for_no_reason_starts_again(bench):
    bench.first(status(416))
    assert await bench.fetch(held=DATA[:100], size=len(DATA)) == DATA
    assert bench.ranges == ["bytes=100-", None]


async def test_nobody_there(bench, tmp_path):
    async with Origin() as gone:
        url = gone.url
    bench.origin = type("Gone", (), {"url": url})
    with pytest.raises(SourceError, match="cannot be reached"):
        await bench.fetch(retries=1)
    assert len(bench.clock.slept) == 1


async def test_redirects_are_followed_and_circles_are_not(bench):
    bench.origin.tamper = lambda asked: (
        Reply(302, {"Location": "/file" if asked.path == "/there" else "/round", "Content-Length": "0"})
        if asked.path != "/file"
        else None
    )
    assert await bench.fetch(path="/there") == DATA
    with pytest.raises(SourceError, match="circle"):
        await bench.fetch(path="/round")


async def test_pauses_grow_and_differ():
    clock = Restless()
    patience = Patience(clock, 9, jitter=lambda: 1.0)
    for _ in range(9):
        await patience.wait(Transient("x"))
    assert clock.slept == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    with pytest.raises(Transient):
        await patience.wait(Transient("x"))
    lowest = Patience(clock, 1, jitter=lambda: 0.0)
    await lowest.wait(Transient("x"))
    assert clock.slept[-1] == 0.25


async def test_a_local_file(bench, tmp_path):
    (tmp_path / "x").write_bytes(DATA)
    bench.origin = type("Local", (), {"url": tmp_path.as_uri()})
    assert await bench.fetch(path="/x", held=b"old") == DATA
    with pytest.raises(SourceNotFound):
        await bench.fetch(path="/y")


async def killed(bench, at, **how):
    """Leave `at` bytes as a process that was killed leaves them, without a digest to check them against."""
    bench.first(lambda _: Reply(200, {"Content-Length": str(len(DATA)), "ETag": '"one"'}, DATA[:at]), status(418))
    with pytest.raises(SourceError, match="418"):
        await bench.fetch(digest=None, **how)
    assert bench.held == DATA[:at]


@pytest.mark.parametrize("size", [None, len(DATA)])
@pytest.mark.parametrize("at", [100_000, len(DATA)])
async def test_without_a_digest_the_server_vouches_for_what_is_held(bench, size, at):
    await killed(bench, 100_000, size=size)
    assert await bench.fetch(held=DATA[:at], digest=None, size=size) == DATA
    assert bench.ranges[-1] == f"bytes={at}-"
    assert bench.origin.asked[-1].headers["if-range"] == '"one"'


@pytest.mark.parametrize("honours", [True, False])
async def test_without_a_digest_another_version_is_fetched_anew(bench, honours):
    await killed(bench, 1000)
    new = DATA[::-1]

    def other(asked):
        start = 0 if honours or not asked.range else int(asked.range[6:-1])
        head = {"Content-Length": str(len(new) - start), "ETag": '"two"'}
        if start:
            head["Content-Range"] = f"bytes {start}-{len(new) - 1}/{len(new)}"
        return Reply(206 if start else 200, head, new[start:])

    bench.origin.tamper = other
    assert await bench.fetch(held=DATA[:1000], digest=None) == new


async def test_what_another_run_of_the_machine_left_is_not_trusted(bench):
    await killed(bench, 1000)
    (bench.folder / "a~tag").write_bytes(b'["before the power cut", "\\"one\\""]')
    assert await bench.fetch(held=DATA[:1000], digest=None) == DATA
    assert bench.ranges[-1] is None


async def test_a_page_is_no_file(bench):
    bench.first(lambda _: Reply(200, {"Content-Type": "text/html", "Content-Length": "6"}, b"<html>"))
    with pytest.raises(SourceError, match="is a web page"):
        await bench.fetch(digest=None)
    assert bench.held == b""


async def test_a_server_that_closes_at_the_last_byte(bench):
    bench.first(cut(len(DATA) - 1))
    assert await bench.fetch() == DATA
    assert bench.ranges == [None, f"bytes={len(DATA) - 1}-"]


async def test_a_server_that_announces_more_than_it_has(bench):
    bench.first(lambda _: Reply(200, {"Content-Length": str(len(DATA) + 100)}, DATA))
    assert await bench.fetch() == DATA
    assert bench.ranges == [None, f"bytes={len(DATA)}-"]


async def test_a_drip_is_a_stall(bench):
    """A byte now and then, each in time, would hold a place in the queue for ever."""
    bench.clock = clock = Moved()

    async def drip():
        for byte in DATA:
            clock.time += 4.0
            yield bytes([byte])
            await settle()

    bench.origin.tamper = lambda _: Reply(200, {"Content-Length": str(len(DATA)), "ETag": '"one"'}, drip())
    with pytest.raises(Transient, match="sent less than 1000 bytes a second for 20 seconds"):
        await bench.fetch(retries=2)
    assert len(bench.origin.asked) == 3
    assert bench.held == DATA[: len(bench.held)]


async def test_a_byte_a_connection_is_no_progress(bench):
    def little(asked):
        at = int((asked.range or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        head = {"Content-Length": str(len(DATA) - at), "ETag": '"one"'}
        if not at:
            return Reply(200, head, DATA[:1])
        return Reply(206, {**head, "Content-Range": f"bytes {at}-{len(DATA) - 1}/{len(DATA)}"}, DATA[at : at + 1])

    bench.origin.tamper = little
    with pytest.raises(Transient):
        await bench.fetch(retries=3)
    assert len(bench.origin.asked) < 10


async def test_a_slow_server_is_waited_for(bench):
    """Two kilobytes a second: slower than anybody likes, and it arrives."""
    bench.clock = clock = Moved()

    async def slow():
        for at in range(0, len(DATA), 10_000):
            clock.time += 5.0
            yield DATA[at : at + 10_000]

    bench.origin.tamper = lambda _: Reply(200, {"Content-Length": str(len(DATA)), "ETag": '"one"'}, slow())
    assert await bench.fetch(retries=0) == DATA
    assert len(bench.origin.asked) == 1


async def test_no_more_is_fetched_than_was_wanted(bench, tmp_path):
    for headers in ({"Content-Length": str(len(DATA))}, {}):
        bench.origin.tamper = lambda _, headers=headers: Reply(200, headers, DATA)
        part = await Part.open(tmp_path / "b.part", SystemClock())
        try:
            async with Web(Access(), bench.clock) as web:
                with pytest.raises(TooLong, match="has over 1000 bytes"):
                    await fetch(web, RemotePart(f"{bench.origin.url}/file"), part, most=1000)
            assert part.size <= 1000
        finally:
            part.close()


class Moved(Restless):
    """A clock that another moves on."""

    time = 0.0

    def now(self):
        return self.time + sum(self.slept)
