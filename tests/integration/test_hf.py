"""The Hugging Face hub over a real socket, by its real client library: what it tells, and all it can do wrong."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download

from corral.config import load
from corral.domain.models import ModelRef
from corral.domain.ports import Query, silent
from corral.errors import (
    AddressRefused,
    CorralError,
    DigestMismatch,
    InvalidName,
    LoginRequired,
    SourceError,
    SourceNotFound,
)
from corral.kit.clock import SystemClock
from corral.kit.part import Part
from corral.kit.web import Transient
from corral.sources.hf import HuggingFace
from support import models
from support.clocks import Restless
from support.hub import Hub, git_blob, sha256

MODEL = models.gguf(200_000, seed=1)
OTHER = models.gguf(200_000, seed=2)
TOKEN = "hf_verysecret"


@pytest.fixture(params=[False, True], ids=["direct", "cdn"])
async def anyhub(request):
    async with Hub(cdn=request.param) as hub:
        yield hub


@pytest.fixture
async def hub():
    async with Hub() as hub:
        hub.repo("o/m-GGUF", {"m-Q4_K_M.gguf": MODEL, "m-Q8_0.gguf": OTHER, "README.md": b"# m"})
        yield hub


def source(hub, clock=None, **env):
    env = hub.env | {"CORRAL_SOURCES_RETRIES": "2", "CORRAL_SOURCES_STALL_TIMEOUT": "0.5", **env}
    return HuggingFace(clock or Restless(), env, load(env))


async def resolved(hub, text="hf:o/m-GGUF:Q4_K_M", clock=None, **env):
    return await source(hub, clock, **env).resolve(ModelRef.parse(text))


async def fetched(source, file, path, held=b"", report=silent):
    path.write_bytes(held)
    part = await Part.open(path, SystemClock())
    try:
        await source.fetch(file, part, report)
    finally:
        part.close()
    return path.read_bytes()


async def failure(work, kind=CorralError):
    """The error of `work`, which tells no secret."""
    with pytest.raises(kind) as caught:
        await work
    for secret in (TOKEN, "signature="):
        assert secret not in f"{caught.value} {caught.value!r}"
    return caught.value


async def test_a_listing_is_bound_to_the_commit_and_follows_the_branch(hub):
    listing = await resolved(hub, "hf:hf.co/o/m-GGUF:q4_k_m")
    commit = hub.repos["o/m-GGUF"].commits[0][0]
    assert (str(listing.ref), listing.version) == ("hf:o/m-GGUF:q4_k_m", commit)
    assert (listing.licence, listing.homepage) == ("apache-2.0", f"{hub.url}/o/m-GGUF")
    (file,) = listing.files
    assert (file.name, file.size, file.sha256) == ("m-Q4_K_M.gguf", len(MODEL), sha256(MODEL))
    assert file.parts[0].url == f"{hub.url}/o/m-GGUF/resolve/{commit}/m-Q4_K_M.gguf"
    assert listing.facts == {"title": "m-GGUF"}
    assert [asked.path for asked in hub.asked] == ["/api/models/o/m-GGUF"]


async def test_what_the_card_says_is_told(hub):
    card = {"license": "other", "license_name": "odd-1.0", "language": ["en", "de", 7], "model_name": "The M"}
    hub.repos["o/m-GGUF"].told["cardData"] = card
    listing = await resolved(hub, "hf:o/m-GGUF")
    assert listing.licence == "odd-1.0"
    assert listing.facts == {"title": "The M", "languages": ["en", "de"], "quantization_chosen": "Q4_K_M"}


@pytest.mark.parametrize(
    "card", [{"license": ["mit", "gpl"], "language": "en"}, {"license": {}, "language": None}, None]
)
async def test_an_odd_card_does_no_harm(hub, card):
    hub.repos["o/m-GGUF"].told["cardData"] = card
    assert (await resolved(hub)).licence in {"mit", "apache-2.0"}


async def test_a_renamed_repo_is_fetched_under_its_new_name(hub):
    hub.repos["o/old"] = hub.repos["o/m-GGUF"]
    hub.repos["o/m-GGUF"].told["id"] = "o/m-GGUF"
    listing = await resolved(hub, "hf:o/old:Q8_0")
    assert str(listing.ref) == "hf:o/old:Q8_0"
    assert f"{hub.url}/o/m-GGUF/resolve/" in listing.files[0].parts[0].url


async def test_a_tag_is_followed_and_a_commit_is_not(hub):
    repo = hub.repos["o/m-GGUF"]
    first = repo.commit({"m-Q4_K_M.gguf": MODEL}, tag="v1")
    latest = repo.commit({"m-Q4_K_M.gguf": OTHER})
    assert (await resolved(hub)).version == latest
    for revision in ("v1", first):
        listing = await resolved(hub, f"hf:o/m-GGUF@{revision}:Q4_K_M")
        assert (str(listing.ref), listing.version) == (f"hf:o/m-GGUF@{revision}:Q4_K_M", first)
        assert listing.files[0].sha256 == sha256(MODEL)


async def test_a_push_in_the_middle_changes_nothing_of_the_download(hub, tmp_path):
    listing = await resolved(hub)
    hub.fault("cut", after=300_000)

    def push(_):
        if len(hub.repos["o/m-GGUF"].commits) == 1:
            hub.repos["o/m-GGUF"].commit({"m-Q4_K_M.gguf": OTHER})

    assert await fetched(source(hub), listing.files[0], tmp_path / "a", report=push) == MODEL
    assert (await resolved(hub)).version != listing.version


async def test_a_commit_that_is_gone_is_not_found(hub, tmp_path):
    listing = await resolved(hub)
    hub.repos["o/m-GGUF"].commits.clear()
    hub.repos["o/m-GGUF"].commit({"m-Q4_K_M.gguf": OTHER})
    await failure(fetched(source(hub), listing.files[0], tmp_path / "a"), SourceNotFound)


async def test_small_files_are_verified_by_gits_digest(hub, tmp_path):
    files = {"config.json": b'{"a": 1}', "model.safetensors": OTHER, "deep/x.bin": b"!", "modeling.py": b"evil()"}
    repo = hub.repo("o/snapshot", files)
    listing = await resolved(hub, "hf:o/snapshot")
    assert [file.name for file in listing.files] == ["config.json", "model.safetensors"]
    config = listing.files[0]
    assert (config.size, config.sha256) == (8, None)
    assert config.parts[0].url.endswith(f"/config.json#git-sha1={git_blob(files['config.json'])}")
    assert await fetched(source(hub), config, tmp_path / "a", held=b'{"a"') == files["config.json"]
    repo.commits[-1][1]["config.json"] = b'{"a": 2}'
    await failure(fetched(source(hub), config, tmp_path / "a"), DigestMismatch)
    assert (tmp_path / "a").read_bytes() == b""


async def test_a_repo_of_pickles_is_listed_for_the_catalog_to_refuse(hub):
    hub.repo("o/old", {"config.json": b"{}", "pytorch_model.bin": MODEL, "run.py": b"evil()"})
    assert [file.name for file in (await resolved(hub, "hf:o/old")).files] == ["config.json", "pytorch_model.bin"]


@pytest.mark.parametrize("held", [0.0, 0.4, 1.0])
async def test_a_download_goes_on_where_it_was(anyhub, tmp_path, held):
    anyhub.repo("o/m", {"m.gguf": MODEL})
    file = (await resolved(anyhub, "hf:o/m")).files[0]
    start = int(len(MODEL) * held)
    assert await fetched(source(anyhub), file, tmp_path / "a", held=MODEL[:start]) == MODEL
    assert anyhub.sent == len(MODEL) - start


@pytest.mark.parametrize("where", ["bytes", "cdn"])
@pytest.mark.parametrize("left", [500_000, 1, 0])
async def test_a_connection_cut_in_the_middle_or_at_the_last_byte_is_opened_anew(tmp_path, where, left):
    async with Hub(cdn=where == "cdn") as hub:
        hub.repo("o/m", {"m.gguf": MODEL})
        file = (await resolved(hub, "hf:o/m")).files[0]
        hub.fault("cut", where=where, after=len(MODEL) - left)
        assert await fetched(source(hub), file, tmp_path / "a") == MODEL
        asked = [item for item in hub.asked if item.path.startswith("/o/m/resolve/")]
        assert len(asked) == (2 if left else 1)


async def test_a_stalled_connection_is_opened_anew(anyhub, tmp_path):
    anyhub.repo("o/m", {"m.gguf": MODEL})
    file = (await resolved(anyhub, "hf:o/m")).files[0]
    anyhub.fault("stall", where="cdn" if anyhub.cdn else "bytes", after=300_000)
    assert await fetched(source(anyhub), file, tmp_path / "a") == MODEL
    assert anyhub.stalled.is_set()
    assert anyhub.sent == len(MODEL)


@pytest.mark.parametrize("where", ["bytes", "api"])
async def test_a_server_error_that_passes_is_waited_for(hub, tmp_path, where):
    clock = Restless()
    hub.fault("status", where=where, status=503)
    hub.fault("status", where=where, status=429, retry_after="7")
    file = (await resolved(hub, clock=clock)).files[0]
    assert await fetched(source(hub, clock), file, tmp_path / "a") == MODEL
    assert len(clock.slept) == 2
    assert clock.slept[1] == 7


@pytest.mark.parametrize("where", ["bytes", "api"])
async def test_a_server_error_that_stays_is_told(hub, tmp_path, where):
    listing = await resolved(hub)
    hub.fault("status", where=where, status=500, times=99)
    work = resolved(hub) if where == "api" else fetched(source(hub), listing.files[0], tmp_path / "a")
    error = await failure(work, SourceError)
    assert "500" in error.message


async def test_other_bytes_are_refused_and_not_kept(hub, tmp_path):
    file = (await resolved(hub)).files[0]
    hub.fault("flip", after=1000)
    await failure(fetched(source(hub), file, tmp_path / "a"), DigestMismatch)
    assert (tmp_path / "a").read_bytes() == b""


async def test_another_size_is_refused(hub, tmp_path):
    file = (await resolved(hub)).files[0]
    hub.fault("longer")
    await failure(fetched(source(hub), file, tmp_path / "a"), SourceError)


async def test_a_page_in_place_of_the_model_is_refused(hub, tmp_path):
    file = (await resolved(hub)).files[0]
    hub.fault("html", times=9)
    await failure(fetched(source(hub), file, tmp_path / "a"), SourceError)
    assert (tmp_path / "a").read_bytes() == b""


@pytest.mark.parametrize("where", ["bytes", "api"])
async def test_redirects_in_a_circle_end(hub, tmp_path, where):
    file = (await resolved(hub)).files[0]
    hub.fault("loop", where=where, times=99)
    work = resolved(hub) if where == "api" else fetched(source(hub), file, tmp_path / "a")
    assert "circle" in (await failure(work, SourceError)).message


@pytest.mark.parametrize(
    "body",
    [
        "[]",
        "{}",
        "null",
        "{",
        '{"id": 7}',
        '{"id": "o/m", "sha": null}',
        '{"id": "o/m", "sha": "../../x"}',
        '{"id": "../../etc", "sha": "0123456789"}',
        '{"id": "o/m:Q4", "sha": "0123456789"}',
        '{"id": "o/m", "sha": "0123456789", "siblings": [{}]}',
        '{"id": "o/m", "sha": "0123456789", "siblings": [{"rfilename": "../x.gguf", "size": 1}]}',
        '{"id": "o/m", "sha": "0123456789", "siblings": [{"rfilename": "/etc/x.gguf", "size": 1}]}',
        '{"id": "o/m", "sha": "0123456789", "siblings": [{"rfilename": "a\\u0000.gguf", "size": 1}]}',
        '{"id": "o/m", "sha": "0123456789", "siblings": [{"rfilename": 3, "size": 1}]}',
        '{"id": "o/m", "sha": "0123456789", "siblings": [{"rfilename": "x.gguf", "size": -1}]}',
        '{"id": "o/m", "sha": "0123456789", "siblings": [{"rfilename": "x.gguf", "size": "many"}]}',
        '{"id": "o/m", "sha": "0123456789", "siblings": [{"rfilename": "x.gguf", "size": 1, "blobId": "zz"}]}',
        '{"id":"o/m","sha":"0123456","siblings": [{"rfilename": "x", "lfs":{"sha256":"","size":1,"pointerSize":1}}]}',
        "[" * 100_000,
    ],
)
async def test_a_hub_that_talks_nonsense_is_not_believed(hub, body):
    hub.fault("json", where="api", body=body)
    error = await failure(resolved(hub), SourceError)
    assert "HF_ENDPOINT" in error.hint


async def test_a_page_in_place_of_the_hub_is_told(hub):
    hub.fault("html", where="api")
    assert "did not answer as a Hugging Face hub" in (await failure(resolved(hub), SourceError)).message


async def test_silence_ends(hub, caplog):
    hub.fault("stall", where="api", times=9)
    quick = {"PIP_DEFAULT_TIMEOUT": "0.2", "CORRAL_SOURCES_RETRIES": "1"}
    await failure(resolved(hub, **quick), Transient)
    # The library sets no time-out for listings: its thread is left behind, and keeps nobody from ending.
    await failure(source(hub, **quick).search(Query("x")), Transient)
    assert len([asked for asked in hub.asked if asked.method == "GET"]) == 3
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "corral-hf")


async def test_the_librarys_own_words_are_not_logged(hub, caplog):
    hub.fault("status", where="api", status=503, retry_after="0")
    with caplog.at_level(logging.DEBUG, "huggingface_hub.utils._http"):
        assert await source(hub).search(Query("m"))
    assert not caplog.records


async def test_a_hub_that_is_not_there_is_told(hub):
    error = await failure(resolved(hub, HF_ENDPOINT="http://127.0.0.1:1"), Transient)
    assert "cannot be reached" in error.message


async def test_a_cancelled_question_is_left_at_once(hub):
    task = asyncio.ensure_future(resolved(hub))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_is_not_there_is_not_found(hub):
    for text, word in {
        "hf:o/none": "has no o/none",
        "hf:o/m-GGUF@v9": "no such revision",
        "hf:o/m-GGUF:Q2_K": "has no 'Q2_K'",
        "hf:o/m-GGUF/x.gguf": "no file",
    }.items():
        assert word in (await failure(resolved(hub, text), SourceNotFound)).message
        assert word in (await failure(resolved(hub, text, HF_TOKEN=TOKEN), SourceNotFound)).message


async def test_a_gated_repo_wants_a_token_before_the_first_byte(hub):
    hub.repos["o/m-GGUF"].gated = frozenset({TOKEN})
    error = await failure(resolved(hub), LoginRequired)
    assert f"{hub.url}/o/m-GGUF" in error.hint
    assert "export HF_TOKEN" in error.hint
    error = await failure(resolved(hub, HF_TOKEN="hf_stranger"), LoginRequired)
    assert "Accept the terms" in error.hint
    assert not hub.asked_for("/resolve/")


async def test_a_gated_repo_lets_the_token_in_and_no_other_host_sees_it(tmp_path):
    async with Hub(cdn=True) as hub:
        hub.repo("o/m", {"m.gguf": MODEL}, gated=frozenset({TOKEN}))
        listing = await resolved(hub, "hf:o/m", HF_TOKEN=TOKEN)
        assert TOKEN not in repr(listing)
        hub.fault("cut", where="cdn", after=1000)
        assert await fetched(source(hub, HF_TOKEN=TOKEN), listing.files[0], tmp_path / "a") == MODEL
        assert {asked.login for asked in hub.asked_for("/cdn/")} == {None}
        assert {asked.login for asked in hub.asked if not asked.path.startswith("/cdn")} == {f"Bearer {TOKEN}"}
        assert len({asked.host for asked in hub.asked}) == 2


async def test_a_token_that_no_longer_counts_is_told_as_such(hub, tmp_path):
    hub.repos["o/m-GGUF"].gated = frozenset({TOKEN})
    file = (await resolved(hub, HF_TOKEN=TOKEN)).files[0]
    error = await failure(fetched(source(hub), file, tmp_path / "a"), LoginRequired)
    assert "o/m-GGUF" in error.message
    assert "export HF_TOKEN" in error.hint


async def test_a_mirror_that_does_not_know_about_gates_serves_as_it_likes(hub, tmp_path):
    hub.repos["o/m-GGUF"].told["gated"] = "auto"
    hub.fault("status", where="api", of="auth-check", status=404, times=9)
    listing = await resolved(hub, HF_TOKEN=TOKEN)
    assert await fetched(source(hub, HF_TOKEN=TOKEN), listing.files[0], tmp_path / "a") == MODEL
    await failure(resolved(hub), LoginRequired)


async def test_a_private_repo_is_only_there_for_its_own(hub):
    hub.repos["o/m-GGUF"].private = frozenset({TOKEN})
    error = await failure(resolved(hub), SourceNotFound)
    assert "private" in error.message
    assert (await resolved(hub, HF_TOKEN=TOKEN)).files
    hub.fault("status", where="api", status=401)
    await failure(resolved(hub, HF_TOKEN=TOKEN), LoginRequired)


async def test_offline_nothing_is_asked(hub, tmp_path):
    file = (await resolved(hub)).files[0]
    before = len(hub.asked)
    offline = source(hub, HF_HUB_OFFLINE="1")
    for work in (
        offline.resolve(ModelRef.parse("hf:o/m-GGUF")),
        offline.search(Query("m")),
        fetched(offline, file, tmp_path / "a"),
    ):
        assert "HF_HUB_OFFLINE" in (await failure(work, SourceError)).message
    assert len(hub.asked) == before


async def test_search_tells_what_the_hub_tells(hub):
    header = {"total": 135_000_000, "architecture": "llama", "context_length": 8192}
    hub.repos["o/m-GGUF"].told |= {"gguf": header, "downloads": 3, "gated": "manual"}
    counts = {"parameters": {"BF16": 100, "F32": 10}, "total": 110}
    hub.repo("o/m", {"model.safetensors": OTHER}, told={"safetensors": counts, "downloads": 9})
    hub.repo("o/other", {"x.gguf": OTHER})
    snapshot, gguf = await source(hub).search(Query("M"))
    assert (str(snapshot.ref), snapshot.title, snapshot.size, snapshot.downloads) == ("hf:o/m", "m", 240, 9)
    assert snapshot.facts == {"parameters": 110}
    assert (gguf.size, gguf.gated, gguf.likes, gguf.licence) == (None, True, 1, "apache-2.0")
    assert gguf.facts == {"parameters": 135_000_000, "architecture": "llama", "context_length": 8192}
    assert gguf.updated_at == 1767312000.0
    assert "text-generation" in gguf.tags


async def test_search_for_nothing_asks_for_what_is_used_most(hub):
    hub.repo("o/pictures", {"x.safetensors": OTHER}, told={"pipeline_tag": "text-to-image", "downloads": 99})
    for number in range(4):
        hub.repo(f"o/x{number}", {"x.gguf": OTHER}, told={"downloads": number * 100})
    hits = await source(hub).search(Query(" ", limit=2))
    assert [str(hit.ref) for hit in hits] == ["hf:o/x3", "hf:o/x2"]
    assert hub.asked[-1].query["sort"] == "downloads"
    assert await source(hub).search(Query("x", limit=0)) == []


async def test_search_shows_only_what_can_be_named_and_shown(hub):
    for name, told in {"o/ok": {}, "o/a": {"id": "../x"}, "o/b": {"id": "o/b\x1b[2J"}, "o/c": {"id": "o/c:Q4"}}.items():
        odd = {
            "tags": ["fine", "\x1b]0;x", 7],
            "downloads": "many",
            "likes": -1,
            "gguf": {"total": True, "architecture": 3},
        }
        hub.repo(name, {"x.gguf": OTHER}, told=odd | told)
    del hub.repos["o/m-GGUF"]
    (hit,) = await source(hub).search(Query("o/"))
    assert (str(hit.ref), hit.tags, hit.downloads, hit.likes, hit.facts) == ("hf:o/ok", ("fine",), None, None, {})


async def test_an_unencrypted_hub_elsewhere_is_refused_before_it_is_asked(hub):
    error = await failure(resolved(hub, HF_ENDPOINT="http://192.0.2.1:8000", HF_TOKEN=TOKEN), AddressRefused)
    assert "CORRAL_SOURCES_ALLOW_PRIVATE=192.0.2.1:8000" in error.hint


async def test_search_of_a_hub_that_hangs_up_is_given_up_at_once(tmp_path):
    calls = []

    async def hang_up(_, writer):
        calls.append(1)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        env = {"HF_ENDPOINT": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "HOME": str(tmp_path)}
        with pytest.raises(SourceError):
            await HuggingFace(Restless(), env, load(env)).search(Query("m"))
    assert len(calls) <= 2  # a connection that was closed is tried once more, and no listing five times


async def test_search_of_a_hub_that_talks_nonsense_fails_plainly(hub):
    for body in (
        '{"error": 1}',
        "[1]",
        '[{"id": 3}]',
        '[{"id": "o/m", "safetensors": 3}]',
        '[{"id": "o/m", "gguf": 3}]',
    ):
        hub.fault("json", where="api", body=body)
        await failure(source(hub).search(Query("m")), SourceError)


async def test_the_hubs_own_library_talks_to_the_hub_played_here(anyhub, tmp_path):
    anyhub.repo("o/m", {"m.gguf": MODEL, "config.json": b"{}"})
    for name, data in (("m.gguf", MODEL), ("config.json", b"{}")):
        path = await asyncio.to_thread(
            hf_hub_download, "o/m", name, endpoint=anyhub.url, cache_dir=tmp_path, token=False
        )
        assert Path(path).read_bytes() == data
    refs = await asyncio.to_thread(HfApi(anyhub.url, token=False).list_repo_refs, "o/m")
    assert refs.branches[0].target_commit == anyhub.repos["o/m"].commits[0][0]
    tree = await asyncio.to_thread(lambda: list(HfApi(anyhub.url, token=False).list_repo_tree("o/m")))
    assert {item.path: item.size for item in tree} == {"m.gguf": len(MODEL), "config.json": 2}


async def test_a_reference_that_is_no_reference_is_told(hub):
    with pytest.raises((SourceNotFound, InvalidName)):
        await resolved(hub, "hf:../x")
    assert not hub.asked
