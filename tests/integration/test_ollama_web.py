"""The source `ollama` and registries that want a login, move their blobs, lie, break off or are not there."""

import json
import re

import pytest

from corral.config import load
from corral.domain.models import ModelRef
from corral.domain.ports import silent
from corral.errors import AddressRefused, DigestMismatch, SourceError, SourceNotFound
from corral.kit.part import Part
from corral.sources.ollama import Ollama
from support import models, oci
from support.clocks import Restless
from support.origin import Origin, Reply

DATA = models.gguf(100_000, seed=1)
MADE = oci.image(DATA, params={"stop": ["."]}, license="MIT")
BLOB = f"/v2/library/tiny/blobs/sha256:{models.sha256(DATA)}"
MANIFEST = "/v2/library/tiny/manifests/1b"


def source(home, **env):
    told = {**models.only("file:///nowhere"), "HOME": str(home), "CORRAL_SOURCES_RETRIES": "2", **env}
    return Ollama(Restless(), told, load(told))


@pytest.fixture
async def origin():
    async with Origin(MADE.files("library/tiny", "1b")) as origin:
        yield origin


@pytest.fixture
def ref(origin):
    return ModelRef.parse(f"ollama:{origin.host}/library/tiny:1b")


async def fetched(source, file, path, held=b""):
    path.write_bytes(held)
    part = await Part.open(path, Restless())
    try:
        await source.fetch(file, part, silent)
    finally:
        part.close()
    return path.read_bytes()


async def pulled(home, ref, **env):
    """The bytes of the model, as resolved and fetched."""
    from_there = source(home, **env)
    listing = await from_there.resolve(ref)
    return await fetched(from_there, listing.files[0], home / "a.part")


class Gate:
    """Makes an origin want a token for everything under /v2/, which it gives out at /token."""

    def __init__(self, origin, realm=None, answer=None):
        self.origin, self.realm, self.answer = origin, realm or f"{origin.url}/token", answer
        self.given = 0
        origin.tamper = self

    def __call__(self, asked):
        if asked.path.startswith("/token"):
            self.given += 1
            body = json.dumps({"token": f"t{self.given}"}).encode() if self.answer is None else self.answer
            return Reply(200, {"Content-Length": str(len(body))}, body)
        if asked.headers.get("authorization") == f"Bearer t{self.given}":
            return None
        challenge = f'Bearer realm="{self.realm}",service="here",scope="repository:library/tiny:pull"'
        return Reply(401, {"WWW-Authenticate": challenge, "Content-Length": "0"})


async def test_a_registry_that_wants_a_token_gets_one(origin, ref, tmp_path):
    gate = Gate(origin)
    assert await pulled(tmp_path, ref) == DATA
    asked = [item.path for item in origin.asked if item.path.startswith("/token")]
    assert asked == ["/token?service=here&scope=repository:library/tiny:pull"] * 2  # to resolve, and to fetch
    assert gate.given == 2


async def test_a_token_that_ran_out_in_the_middle_is_replaced(origin, ref, tmp_path):
    gate = Gate(origin)
    from_there = source(tmp_path)
    listing = await from_there.resolve(ref)
    gate.given += 1  # the one it has is of no use any more, and it fetches with no other
    assert await fetched(from_there, listing.files[0], tmp_path / "a.part", DATA[:1000]) == DATA


@pytest.mark.parametrize(
    ("realm", "answer", "why"),
    [
        (None, b"{}", "gave no token"),
        (None, b"<html>", "gave no token"),
        (None, b'{"token": "a\\r\\nX-Evil: 1"}', "gave no token"),
        (None, b"x" * 100_000, "sends more than"),
        ("ftp://x/", None, "does not say where"),
        ("https://me:secret@x.example/", None, "does not say where"),
        ("http://10.0.0.1/token", None, "not encrypted"),
        ("https://10.0.0.1/token", None, "private address"),
    ],
)
async def test_a_realm_that_gives_no_token(origin, ref, tmp_path, realm, answer, why):
    Gate(origin, realm, answer)
    with pytest.raises(SourceError) as caught:
        await source(tmp_path).resolve(ref)
    assert why in caught.value.message
    assert "secret" not in str(caught.value)


async def test_a_token_that_is_refused_is_no_loop(origin, ref, tmp_path):
    gate = Gate(origin)
    gate.answer = b'{"access_token": "never right"}'
    with pytest.raises(SourceError, match="login"):
        await source(tmp_path).resolve(ref)
    assert gate.given == 1


async def test_a_login_that_is_no_bearer_is_said(origin, ref, tmp_path):
    origin.tamper = lambda _: Reply(401, {"WWW-Authenticate": 'Basic realm="x"', "Content-Length": "0"})
    with pytest.raises(SourceError, match="login"):
        await source(tmp_path).resolve(ref)


async def test_blobs_may_lie_elsewhere_and_the_token_does_not_go_there(origin, ref, tmp_path):
    async with Origin({"/store": DATA}) as elsewhere:
        gate = Gate(origin)

        def moved(asked):
            if asked.path == BLOB and asked.headers.get("authorization") == f"Bearer t{gate.given}":
                return Reply(307, {"Location": f"{elsewhere.url}/store?signed=1", "Content-Length": "0"})
            return gate(asked)

        elsewhere.files["/store?signed=1"] = DATA
        origin.tamper = moved
        from_there = source(tmp_path)
        listing = await from_there.resolve(ref)
        assert await fetched(from_there, listing.files[0], tmp_path / "a.part", DATA[:5000]) == DATA
        assert [item.range for item in elsewhere.asked] == ["bytes=5000-"]
        assert "authorization" not in elsewhere.asked[0].headers


async def test_a_challenge_from_elsewhere_gets_no_token(origin, ref, tmp_path):
    async with Origin() as elsewhere:
        gate = Gate(elsewhere)
        origin.tamper = lambda asked: (
            Reply(307, {"Location": f"{elsewhere.url}/x", "Content-Length": "0"}) if asked.path == BLOB else None
        )
        from_there = source(tmp_path)
        listing = await from_there.resolve(ref)
        with pytest.raises(SourceError, match="login"):
            await fetched(from_there, listing.files[0], tmp_path / "a.part")
        assert gate.given == 0


async def test_a_registry_on_loopback_leads_to_no_other_private_place(origin, ref, tmp_path):
    origin.tamper = lambda _: Reply(302, {"Location": "https://169.254.169.254/latest", "Content-Length": "0"})
    with pytest.raises(AddressRefused):
        await source(tmp_path).resolve(ref)


@pytest.mark.parametrize("locator", ["http://10.1.2.3/a/b", "10.1.2.3/a/b", "http://10.1.2.3:5000/a/b"])
async def test_private_addresses_are_refused_unless_allowed(locator, tmp_path):
    with pytest.raises(AddressRefused) as caught:
        await source(tmp_path).resolve(ModelRef("ollama", locator))
    assert "ALLOW_PRIVATE=10.1.2.3" in caught.value.hint


async def test_a_scheme_may_be_written_out(origin, tmp_path):
    listing = await source(tmp_path).resolve(ModelRef("ollama", f"{origin.url}/library/tiny:1b"))
    assert str(listing.ref) == f"ollama:{origin.url}/library/tiny:1b"
    with pytest.raises(SourceError, match=r"https://127\.0\.0\.1:1/v2/"):
        await source(tmp_path).resolve(ModelRef("ollama", "https://127.0.0.1:1/library/tiny:1b"))


def answers(status=200, body=b"", **headers):
    return lambda _: Reply(status, {"Content-Length": str(len(body)), **headers}, body)


@pytest.mark.parametrize(
    ("tamper", "kind", "why"),
    [
        (answers(body=b"<!DOCTYPE html><p>Log in"), SourceError, "a web page"),
        (answers(302, Location=MANIFEST), SourceError, "circle"),
        (answers(404), SourceNotFound, "has no model"),
        (answers(400), SourceError, "answered 400"),
        (answers(503), SourceError, "answered 503"),
        (answers(body=b"x" * (5 << 20)), SourceError, "sends more than"),
        (answers(body=MADE.manifest, **{"Docker-Content-Digest": f"sha256:{'0' * 64}"}), DigestMismatch, "promised"),
        (lambda _: Reply(200, {"Content-Length": "1000"}, MADE.manifest[:100]), SourceError, "broke off"),
    ],
)
async def test_a_manifest_that_does_not_come(origin, ref, tmp_path, tamper, kind, why):
    origin.tamper = lambda asked: tamper(asked) if asked.path == MANIFEST else None
    with pytest.raises(kind) as caught:
        await source(tmp_path).resolve(ref)
    assert why in caught.value.message


async def test_a_passing_failure_is_tried_again(origin, ref, tmp_path):
    replies = [Reply(503, {"Content-Length": "0"}), Reply(200, {"Content-Length": "9999"}, b"{")]
    origin.tamper = lambda _: replies.pop(0) if replies else None
    assert (await source(tmp_path).resolve(ref)).version == MADE.digest


async def test_another_manifest_under_a_pinned_digest_is_refused(origin, tmp_path):
    zero = f"sha256:{'0' * 64}"
    origin.files[f"/v2/library/tiny/manifests/{zero}"] = MADE.manifest
    with pytest.raises(DigestMismatch):
        await source(tmp_path).resolve(ModelRef("ollama", f"{origin.host}/library/tiny@{zero}"))
    listing = await source(tmp_path).resolve(ModelRef("ollama", f"{origin.host}/library/tiny@{MADE.digest}"))
    assert listing.version == MADE.digest


@pytest.mark.parametrize("more", [b"", b"more than was promised"])
async def test_a_small_layer_that_is_another_is_refused(origin, ref, tmp_path, more):
    path = next(path for path, data in origin.files.items() if data == b"MIT")
    origin.files[path] = b"GPL" + more
    with pytest.raises(SourceError if more else DigestMismatch):
        await source(tmp_path).resolve(ref)


@pytest.mark.parametrize(("size", "why"), [(len(DATA) - 1, "were promised"), (len(DATA) + 1, "were promised")])
async def test_a_lie_about_the_size_is_found(origin, ref, tmp_path, size, why):
    origin.files[MANIFEST] = MADE.relayered(size=size).manifest
    with pytest.raises(SourceError, match=why):
        await pulled(tmp_path, ref)


async def test_a_lie_about_the_digest_is_found(origin, ref, tmp_path):
    zero = "0" * 64
    origin.files[MANIFEST] = MADE.relayered(digest=f"sha256:{zero}").manifest
    origin.files[f"/v2/library/tiny/blobs/sha256:{zero}"] = DATA
    with pytest.raises(DigestMismatch):
        await pulled(tmp_path, ref)
    assert (tmp_path / "a.part").read_bytes() == b""


async def test_a_page_in_place_of_a_blob_is_not_kept(origin, ref, tmp_path):
    origin.tamper = lambda asked: (
        answers(body=b"<html>", **{"Content-Type": "text/html"})(asked) if asked.path == BLOB else None
    )
    with pytest.raises(SourceError):
        await pulled(tmp_path, ref)
    assert (tmp_path / "a.part").read_bytes() == b""


async def test_a_line_that_breaks_at_the_last_byte_is_taken_up(origin, ref, tmp_path):
    def cut(asked):
        if asked.path != BLOB or asked.range is not None:
            return None
        return Reply(200, {"Content-Length": str(len(DATA)), "ETag": '"one"'}, DATA[:-1])

    origin.tamper = cut
    assert await pulled(tmp_path, ref) == DATA
    ranges = [item.range for item in origin.asked_for(BLOB)]
    assert ranges[0] is None
    assert [text.startswith("bytes=") and text != "bytes=0-" for text in ranges[1:]] == [True]


async def test_a_file_that_is_none_of_ours_is_refused(origin, ref, tmp_path):
    from_there = source(tmp_path)
    file = (await from_there.resolve(ref)).files[0]
    with pytest.raises(SourceError, match="no layer"):
        await fetched(from_there, type(file)(file.name, file.parts * 2), tmp_path / "a.part")


async def test_without_a_network_this_machine_s_ollama_is_named(origin, ref, tmp_path):
    folder = MADE.store(tmp_path / "ollama", "library/tiny", "1b", origin.host)
    origin.tamper = answers(503)
    from_there = source(tmp_path, OLLAMA_MODELS=str(folder))
    with pytest.raises(SourceError, match="503") as caught:
        await from_there.resolve(ref)
    (there,) = re.findall(r"'(ollama:.*)'", caught.value.hint)
    listing = await from_there.resolve(ModelRef.parse(there))
    assert (listing.ref, listing.version) == (ref, MADE.digest)
    assert await fetched(from_there, listing.files[0], tmp_path / "a.part") == DATA
    (folder / "blobs" / f"sha256-{models.sha256(DATA)}").unlink()
    with pytest.raises(SourceError, match="503") as caught:
        await from_there.resolve(ref)
    assert str(folder) not in caught.value.hint
