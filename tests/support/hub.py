"""A Hugging Face hub on loopback, for the real client library and for Corral, that misbehaves exactly as told.

    /api/models?search=…                      /OWNER/REPO/resolve/REVISION/PATH     (downloads)
    /api/models/OWNER/REPO[/revision/REV]     /cdn/…  on a second port: where large files are redirected to
    /api/models/OWNER/REPO/{tree,refs,auth-check}

A repo is a list of commits; older ones stay there. Files over `lfs_from` bytes are "in LFS": named by SHA-256 and, with
`cdn`, redirected to another origin. By hand, serving FOLDER/OWNER/REPO/…:

    python -m tests.support.hub FOLDER PORT [--cdn] [--fault stall,after=1000 …]
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import re
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

from aiohttp import web

_BLOCK = 1 << 18
_PLACE = re.compile(r"/(?P<repo>[^/]+(?:/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
_ABOUT = re.compile(
    r"/api/models/(?P<repo>[^/]+(?:/[^/]+)?)(?:/(?P<what>revision|tree|refs|auth-check)(?:/(?P<revision>[^/]+))?)?"
)

Bytes = bytes | Path


def sha256(data: Bytes) -> str:
    digest = hashlib.sha256()
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    with data.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def size_of(data: Bytes) -> int:
    return len(data) if isinstance(data, bytes) else data.stat().st_size


def git_blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Fault:
    """What goes wrong the next `times` times that a `where` (`api`, `bytes`, `cdn`) is asked whose path holds `of`.

    `kind` is `status` (`status`, `retry_after`), `cut` (the connection, `after` bytes of the answer), `stall` (silence
    after as many), `html`, `loop` (redirects to itself), `flip` (another byte there), `longer` (a wrong length),
    `json` (`body` instead).
    """

    kind: str
    where: str = "bytes"
    of: str = ""
    times: int = 1
    after: int = 0
    status: int = 503
    retry_after: str | None = None
    body: str = ""


@dataclass
class Asked:
    """A request as it arrived."""

    method: str
    path: str
    host: str
    range: str | None
    login: str | None
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Repo:
    """What a hub has under a name: commits, oldest first, each with its files; and what it tells of itself.

    `gated` and `private` name the tokens that are let in; None lets everybody in.
    """

    commits: list[tuple[str, dict[str, Bytes]]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)
    gated: frozenset[str] | None = None
    private: frozenset[str] | None = None

    def commit(self, files: Mapping[str, Bytes], tag: str | None = None) -> str:
        """Replace the files; the new commit's name."""
        text = json.dumps([len(self.commits), *sorted((name, sha256(data)) for name, data in files.items())])
        commit = hashlib.sha1(text.encode()).hexdigest()
        self.commits.append((commit, dict(files)))
        if tag is not None:
            self.tags[tag] = commit
        return commit

    def at(self, revision: str | None) -> tuple[str, dict[str, Bytes]] | None:
        if revision in {None, "main"}:
            return self.commits[-1]
        wanted = self.tags.get(str(revision), revision)
        return next((item for item in self.commits if item[0] == wanted), None)


class Hub:
    """`async with Hub() as hub`, or `hub.start()` and `hub.stop()` for a thread and loop of its own."""

    def __init__(self, *, cdn: bool = False, lfs_from: int = 100_000, port: int = 0) -> None:
        self.repos: dict[str, Repo] = {}
        self.asked: list[Asked] = []
        self.faults: list[Fault] = []
        self.port = port
        self.cdn = cdn
        self.lfs_from = lfs_from
        self.sent = 0
        self.released = asyncio.Event()
        self.stalled = asyncio.Event()
        self._digests: dict[tuple[str, int, int], str] = {}
        self._runners: list[web.AppRunner] = []
        self._ports: list[int] = []
        self._thread: threading.Thread | None = None

    def repo(self, name: str, files: Mapping[str, Bytes], **about: Any) -> Repo:
        """Add a repo with one commit."""
        repo = self.repos[name] = Repo(**about)
        repo.commit(files)
        return repo

    def folder(self, root: Path) -> Self:
        """Add what lies at ROOT/OWNER/REPO."""
        for place in sorted(root.glob("*/*")):
            files = {str(path.relative_to(place)): path for path in sorted(place.rglob("*")) if path.is_file()}
            self.repo(str(place.relative_to(root)), files)
        return self

    def fault(self, kind: str, **more: Any) -> None:
        """Let something go wrong; see `Fault`."""
        self.faults.append(Fault(kind, **more))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._ports[0]}"

    @property
    def env(self) -> dict[str, str]:
        """An environment in which this is the hub, whatever this machine is told."""
        return {
            "HF_ENDPOINT": self.url,
            "HOME": "/nonexistent",
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_DEFAULT_TIMEOUT": "20",
        }

    def asked_for(self, part: str) -> list[Asked]:
        return [item for item in self.asked if part in item.path]

    async def __aenter__(self) -> Self:
        for number in (self.port, 0):
            application = web.Application()
            application.router.add_route("*", "/{path:.*}", self._answer)
            runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", number).start()
            self._runners.append(runner)
            self._ports.append(runner.addresses[0][1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self.released.set()
        for runner in self._runners:
            await runner.cleanup()

    def start(self) -> Self:
        """Serve from a thread, for whoever has no loop."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.__aenter__(), self._loop).result(10)
        return self

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.__aexit__(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        assert self._thread is not None
        self._thread.join()
        self._loop.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = unquote(request.rel_url.raw_path)
        login = request.headers.get("Authorization")
        self.asked.append(
            Asked(request.method, path, request.host, request.headers.get("Range"), login, dict(request.query))
        )
        where = "api" if path.startswith("/api/") else "cdn" if path.startswith("/cdn/") else "bytes"
        fault = self._due(where, path)
        if fault is not None:
            early = await self._misbehave(fault, request, where)
            if early is not None:
                return early
        token = (login or "").removeprefix("Bearer ")
        if path == "/api/models":
            return self._list(request)
        about = _ABOUT.fullmatch(path)
        if about is not None:
            return self._tell(about["repo"], about["what"], about["revision"], token, "blobs" in request.query)
        place = _PLACE.fullmatch(path.removeprefix("/cdn"))
        if place is None:
            return _error(404, "NotFound")
        return await self._file(request, place, fault, token if where == "bytes" else None)

    def _due(self, where: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and fault.where == where and fault.of in path:
                fault.times -= 1
                return fault
        return None

    async def _misbehave(self, fault: Fault, request: web.Request, where: str) -> web.Response | None:
        """The answer that is given instead of the honest one, where nothing of that is needed."""
        if fault.kind == "status":
            after = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
            return web.Response(status=fault.status, headers=after)
        if fault.kind == "html":
            return web.Response(text="<!DOCTYPE html><title>Sign in</title>", content_type="text/html")
        if fault.kind == "json":
            return web.Response(text=fault.body, content_type="application/json")
        if fault.kind == "stall" and where == "api":
            self.stalled.set()
            await self.released.wait()
            return web.json_response([])
        if fault.kind == "loop":
            return web.Response(status=302, headers={"Location": str(request.rel_url)})
        return None

    def _list(self, request: web.Request) -> web.Response:
        text = request.query.get("search", "").lower()
        limit = int(request.query.get("limit", "1000"))
        kind = request.query.get("pipeline_tag")
        expand = set(request.query.getall("expand", []))
        found = [self._info(name, repo, None, blobs=False) for name, repo in self.repos.items() if text in name.lower()]
        found = [item for item in found if kind is None or item["pipeline_tag"] == kind]
        if request.query.get("sort") == "downloads":
            found.sort(key=lambda item: 0 if isinstance(item["downloads"], str) else -item["downloads"])
        always = {"_id", "id", "modelId"}
        return web.json_response([{k: v for k, v in item.items() if k in always | expand} for item in found[:limit]])

    def _info(self, name: str, repo: Repo, revision: str | None, *, blobs: bool) -> dict[str, Any]:
        at = repo.at(revision)
        assert at is not None
        return {
            "_id": "1",
            "id": name,
            "modelId": name,
            "author": name.split("/", maxsplit=1)[0],
            "sha": at[0],
            "private": repo.private is not None,
            "gated": "manual" if repo.gated is not None else False,
            "disabled": False,
            "downloads": 7,
            "likes": 1,
            "tags": ["text-generation", "license:apache-2.0"],
            "pipeline_tag": "text-generation",
            "library_name": "transformers",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "lastModified": "2026-01-02T00:00:00.000Z",
            "siblings": [self._entry(path, data, blobs=blobs) for path, data in sorted(at[1].items())],
            **repo.told,
        }

    def _entry(self, path: str, data: Bytes, *, blobs: bool) -> dict[str, Any]:
        if not blobs:
            return {"rfilename": path}
        size = size_of(data)
        entry: dict[str, Any] = {"rfilename": path, "size": size, "blobId": self._digest(data)[:40]}
        if size >= self.lfs_from:
            entry["lfs"] = {"sha256": self._digest(data), "size": size, "pointerSize": 135}
        return entry

    def _digest(self, data: Bytes) -> str:
        """SHA-256 of what is in LFS, git's name of what is not."""
        if size_of(data) < self.lfs_from:
            return git_blob(data if isinstance(data, bytes) else data.read_bytes())
        if isinstance(data, bytes):
            return sha256(data)
        facts = data.stat()
        key = (str(data), facts.st_size, facts.st_mtime_ns)
        if key not in self._digests:
            self._digests[key] = sha256(data)
        return self._digests[key]

    def _tell(self, name: str, what: str | None, revision: str | None, token: str, blobs: bool) -> web.Response:
        repo = self.repos.get(name)
        if repo is None or (repo.private is not None and token not in repo.private):
            # As the hub does it: strangers do not learn whether there is such a repo.
            return _error(404, "RepoNotFound") if token else _error(401, "RepoNotFound")
        if what == "auth-check":
            refused = repo.gated is not None and token not in repo.gated
            return _error(403 if token else 401, "GatedRepo") if refused else web.Response()
        at = repo.at(revision)
        if at is None:
            return _error(404, "RevisionNotFound")
        if what == "refs":
            main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.commits[-1][0]}
            return web.json_response({"branches": [main], "converts": [], "tags": []})
        info = self._info(name, repo, revision, blobs=blobs or what == "tree")
        if what != "tree":
            return web.json_response(info)
        return web.json_response(
            [
                {"type": "file", "oid": e["blobId"], "size": e["size"], "path": e["rfilename"]}
                | ({"lfs": {"oid": e["lfs"]["sha256"], **e["lfs"]}} if "lfs" in e else {})
                for e in info["siblings"]
            ]
        )

    async def _file(
        self, request: web.Request, place: re.Match[str], fault: Fault | None, token: str | None
    ) -> web.StreamResponse:
        repo = self.repos.get(place["repo"])
        at = None if repo is None else repo.at(place["revision"])
        if repo is None or at is None:
            return _error(404, "RepoNotFound" if repo is None else "RevisionNotFound")
        if token is not None and repo.gated is not None and token not in repo.gated:
            return _error(403 if token else 401, "GatedRepo")
        if token is not None and repo.private is not None and token not in repo.private:
            return _error(404 if token else 401, "RepoNotFound")
        data = at[1].get(place["path"])
        headers = {"X-Repo-Commit": at[0], "Accept-Ranges": "bytes"}
        if data is None:
            return _error(404, "EntryNotFound", headers)
        size, digest = size_of(data), self._digest(data)
        if self.cdn and token is not None and size >= self.lfs_from:
            onward = f"http://127.0.0.1:{self._ports[1]}/cdn{request.rel_url.raw_path}?signature=secret"
            linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(size), "Location": onward}
            return web.Response(status=302, headers=headers | linked)
        headers["ETag"] = f'"{digest}"'
        return await self._send(request, data, headers, fault)

    async def _send(
        self, request: web.Request, data: Bytes, headers: dict[str, str], fault: Fault | None
    ) -> web.StreamResponse:
        size = size_of(data)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        start, end = (int(asked[1]), min(int(asked[2] or size), size - 1)) if asked else (0, size - 1)
        if asked and start >= size:
            return web.Response(status=416, headers={"Content-Range": f"bytes */{size}"})
        reply = web.StreamResponse(status=206 if asked else 200, headers=headers)
        if asked:
            reply.headers["Content-Range"] = f"bytes {start}-{end}/{size}"
        reply.content_type = "application/octet-stream"
        kind = fault.kind if fault is not None else ""
        reply.content_length = end - start + 1 + (1000 if kind == "longer" else 0)
        await reply.prepare(request)
        if request.method == "HEAD":
            return reply
        stop = start + fault.after if fault is not None and kind in {"cut", "stall"} else end + 1
        flipped = start + fault.after if fault is not None and kind == "flip" else None
        for block in _blocks(data, start, min(stop, end + 1), flipped):
            await reply.write(block)
            self.sent += len(block)
        if kind == "stall":
            self.stalled.set()
            await self.released.wait()
        if kind in {"cut", "stall"} and request.transport is not None:
            request.transport.close()
        return reply


def _blocks(data: Bytes, start: int, stop: int, flipped: int | None) -> Any:
    """The bytes from `start` to `stop`, the one at `flipped` another."""
    stream = None if isinstance(data, bytes) else data.open("rb")
    try:
        while start < stop:
            count = min(_BLOCK, stop - start)
            if stream is None:
                assert isinstance(data, bytes)
                block = data[start : start + count]
            else:
                stream.seek(start)
                block = stream.read(count)
            if flipped is not None and start <= flipped < start + count:
                at = flipped - start
                block = block[:at] + bytes([block[at] ^ 1]) + block[at + 1 :]
            yield block
            start += count
    finally:
        if stream is not None:
            stream.close()


def _error(status: int, code: str, headers: Mapping[str, str] | None = None) -> web.Response:
    told = {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})}
    return web.json_response({"error": code}, status=status, headers=told)


def _parse(text: str) -> Fault:
    """`KIND[,NAME=VALUE…]` as a fault."""
    kind, *more = text.split(",")
    pairs = dict(item.split("=", 1) for item in more)
    return Fault(kind, **{name: int(value) if value.isdecimal() else value for name, value in pairs.items()})


async def _serve(root: Path, port: int, cdn: bool, faults: list[Fault]) -> None:
    hub = Hub(cdn=cdn, port=port).folder(root)
    hub.faults = faults
    async with hub:
        sys.stdout.write(f"{hub.url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--cdn", action="store_true")
    parser.add_argument("--fault", type=_parse, action="append", default=[])
    given = parser.parse_args()
    asyncio.run(_serve(given.folder, given.port, given.cdn, given.fault))
