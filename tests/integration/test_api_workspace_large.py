"""Large files over HTTP: clients that are slow or go away cost the server no memory, and leave nothing behind."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

import psutil
import pytest

from tests.support.servers import Server, corral_server
from tests.support.studio import API, Studio

MIB = 1024 * 1024
SIZE = 16 * MIB - 7
SLOW = 12


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with corral_server(tmp_path) as running:
        yield running


def memory(server: Server) -> int:
    return int(psutil.Process(server.process.pid).memory_info().rss)


def sent(server: Server, head: str, body: bytes = b"") -> socket.socket:
    """A connection on which a request was begun."""
    place = urlsplit(server.url)
    connection = socket.create_connection((place.hostname or "", place.port or 0), timeout=30)
    lines = head.replace(" /", f" {API}/", 1) + " HTTP/1.1", f"Host: {place.netloc}"
    connection.sendall("\r\n".join(lines).encode() + (b"\r\n\r\n" if not body else b"\r\n") + body)
    return connection


@pytest.mark.timeout(120)
def test_those_who_take_a_large_file_slowly_take_up_no_memory(server: Server) -> None:
    studio = Studio(server)
    studio.project("web")
    content = os.urandom(SIZE // 2).hex().encode() + b"\n"
    made = studio.upload("POST", "/artifacts/content?project=web&name=large.txt", content).json["artifact"]
    path = f"/artifacts/{made['id']}/content"
    whole = studio.do("GET", path)
    assert hashlib.sha256(whole.body).hexdigest() == made["digest"]
    assert whole.headers["content-length"] == str(len(content))
    assert studio.do("GET", path, headers={"if-none-match": whole.headers["etag"]}).status == 304
    assert studio.do("GET", f"{path}?edition=1").body == content

    before = memory(server)
    with ExitStack() as stack:
        for _ in range(SLOW):
            slow = stack.enter_context(sent(server, f"GET {path}"))
            assert slow.recv(4096).startswith(b"HTTP/1.1 200")
        assert studio.do("GET", "/projects").status == 200
        assert memory(server) - before < SLOW * SIZE / 3
        studio.post(f"/artifacts/{made['id']}/purge")
    assert studio.do("GET", path).status == 404


@pytest.mark.timeout(120)
def test_an_upload_that_is_cut_leaves_nothing_and_no_alarm(tmp_path: Path) -> None:
    with corral_server(tmp_path) as server:
        studio = Studio(server)
        studio.project("web")
        for path in ("/artifacts/content?project=web&name=cut.txt", "/projects/import"):
            head = f"Content-Length: {8 * MIB}\r\n\r\n".encode()
            sent(server, f"POST {path}", head + b"x" * 3 * MIB).close()
        assert studio.get("/artifacts?project=web&total=true")["total"] == 0
    assert "Traceback" not in (tmp_path / "server.log").read_text()


@pytest.mark.timeout(120)
def test_an_archive_that_comes_in_lies_where_the_home_is(server: Server) -> None:
    head = f"Content-Length: {8 * MIB}\r\n\r\n".encode()
    with sent(server, "POST /projects/import", head + b"x" * 3 * MIB):
        until = monotonic() + 30
        while not [name for name in _open(server) if name.startswith(f"{server.home}/workspace/")]:
            assert monotonic() < until


def _open(server: Server) -> list[str]:
    found = []
    for entry in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with suppress(OSError):
            found.append(str(entry.readlink()))
    return found
