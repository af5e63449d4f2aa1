"""The pages for browsers as the server hands them out: what is listed, under which policy, and what without any."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from corral.errors import NotFound, UiMissing
from corral.gateway.ui import FOLDER, Ui

SCRIPT = "let page = 1"
HASH = "sha256-" + b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
FILES = {
    "preview.html": "<!doctype html><title>page</title>",
    "frame.html": f"<!doctype html><script>{SCRIPT}</script>",
    "assets/app-1a2b.js": "console.log(1);" * 100,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "assets").mkdir()
    build(tmp_path, FILES)
    (tmp_path / "secret.txt").write_text("not listed")
    return tmp_path


def build(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)
    listed: dict[str, dict[str, Any]] = {name: {"size": len(text)} for name, text in files.items()}
    listed["frame.html"]["script"] = HASH
    (folder / "manifest.json").write_text(json.dumps(listed))


async def ask(ui: Ui, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    status = await ui.answer(path, given, send, b"req-1")
    assert sent[0]["status"] == status
    return status, {name.decode(): value.decode() for name, value in sent[0]["headers"]}, sent[1]["body"]


async def test_a_page_is_asked_for_anew_and_what_is_named_by_its_content_never(folder: Path) -> None:
    ui = Ui(folder)
    status, headers, body = await ask(ui, "/ui/preview.html")
    assert (status, body) == (200, FILES["preview.html"].encode())
    assert headers["cache-control"] == "no-cache"
    assert headers["x-content-type-options"] == "nosniff"
    _, headers, _ = await ask(ui, "/ui/assets/app-1a2b.js")
    assert headers["content-type"] == "text/javascript; charset=utf-8"
    assert "immutable" in headers["cache-control"]
    assert "content-security-policy" not in headers


async def test_what_a_browser_has_is_not_sent_again(folder: Path) -> None:
    ui = Ui(folder)
    _, headers, _ = await ask(ui, "/ui/frame.html")
    status, again, body = await ask(ui, "/ui/frame.html", if_none_match=headers["etag"])
    assert (status, body) == (304, b"")
    assert again["content-security-policy"] == headers["content-security-policy"]
    build(folder, {**FILES, "frame.html": "another"})
    status, _, body = await ask(ui, "/ui/frame.html", if_none_match=headers["etag"])
    assert (status, body) == (200, b"another")


async def test_what_is_large_is_packed_for_whoever_can_unpack_it(folder: Path) -> None:
    ui = Ui(folder)
    _, plain, whole = await ask(ui, "/ui/assets/app-1a2b.js")
    _, headers, packed = await ask(ui, "/ui/assets/app-1a2b.js", accept_encoding="br, gzip")
    assert gzip.decompress(packed) == whole
    assert headers["content-encoding"] == "gzip"
    assert headers["vary"] == "accept-encoding"
    assert headers["etag"] != plain["etag"]


async def test_a_frame_may_run_one_script_and_reach_nobody(folder: Path) -> None:
    _, headers, _ = await ask(Ui(folder), "/ui/frame.html")
    said = headers["content-security-policy"]
    policy = dict(part.strip().split(" ", 1) for part in said.split(";"))
    assert policy["sandbox"] == "allow-scripts allow-forms"
    assert policy["script-src"] == f"'{HASH}' 'unsafe-eval'"
    assert {policy[name] for name in ("default-src", "connect-src", "base-uri", "form-action")} == {"'none'"}
    assert not re.search(r"https?:|\*|'self'", said.replace(policy["frame-ancestors"], ""))
    assert "camera=()" in headers["permissions-policy"]


async def test_a_page_runs_its_own_scripts_and_frames_only_this_server(folder: Path) -> None:
    _, headers, _ = await ask(Ui(folder), "/ui/preview.html")
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert (policy["default-src"], policy["script-src"], policy["frame-src"]) == ("'none'", "'self'", "'self'")


@pytest.mark.parametrize(
    "path", ["/ui/", "/ui/secret.txt", "/ui/manifest.json", "/ui/../ui.py", "/ui/assets/../secret.txt", "/ui/assets"]
)
async def test_only_what_was_built_is_served(folder: Path, path: str) -> None:
    with pytest.raises(NotFound):
        await ask(Ui(folder), path)


async def test_without_a_build_it_says_how_to_make_one(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UiMissing, match="make web") as told:
        await ask(Ui(tmp_path / "none"), "/ui/preview.html")
    assert told.value.http_status == 501
    ui = Ui(folder)
    await ask(ui, "/ui/preview.html")
    (folder / "manifest.json").unlink()  # as while it is built again
    with pytest.raises(UiMissing):
        await ask(ui, "/ui/preview.html")


def test_the_frame_that_was_built_is_the_one_its_policy_means() -> None:
    manifest = FOLDER / "manifest.json"
    if not manifest.exists():
        pytest.skip("the pages were not built: make web")
    listed = json.loads(manifest.read_bytes())
    frame = (FOLDER / "frame.html").read_text()
    scripts = re.findall(r"<script>(.*?)</script>", frame, re.DOTALL)
    assert ["sha256-" + b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts] == [
        listed["frame.html"]["script"]
    ]
    assert all((FOLDER / name).stat().st_size == entry["size"] for name, entry in listed.items())
