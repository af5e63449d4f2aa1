"""Rollback and rollback again, while the model answers: each answer is whole, and the next is the other revision's."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import httpx2 as httpx
import pytest

from support.servers import CORRAL, Server, corral_server


def another(model: Path, into: Path) -> Path:
    """The same model with one letter of its title changed: another digest, as able as before."""
    shutil.copyfile(model, into)
    with into.open("r+b") as file:
        head = file.read(1 << 16)
        place = head.index(b"general.name") + len(b"general.name") + 4 + 8
        file.seek(place)
        file.write(b"X")
    return into


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # One thread waits for no other, so that a busy machine slows the answers no more than it must.
    options = "runtimes: {llamacpp: {threads: 1}}"
    with corral_server(tmp_path_factory.mktemp("rollback"), options) as running:
        yield running


def corral(server: Server, *arguments: str) -> Any:
    done = subprocess.run(
        [CORRAL, "--json", *arguments], check=False, env=server.env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()][-1]


def ask(server: Server, tokens: int, begun: Event | None = None) -> tuple[str, str]:
    """The revision that answered, and what it wrote; `begun` is set at its first byte."""
    body = {"model": "m", "max_tokens": tokens, "stream": True, "ignore_eos": True}
    body |= {"messages": [{"role": "user", "content": "Count."}]}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=120) as reply:
        assert reply.status_code == 200, reply.read()
        pieces = []
        for piece in reply.iter_bytes():
            pieces.append(piece)
            if begun is not None:
                begun.set()
        return reply.headers["x-corral-revision"], b"".join(pieces).decode()


@contextmanager
def answering(server: Server, pool: ThreadPoolExecutor) -> Iterator[None]:
    """While a long answer is under way, which must come to its end on the revision that began it."""
    before, begun = ask(server, 1)[0], Event()
    answer = pool.submit(ask, server, 200, begun)
    assert begun.wait(60)
    yield
    revision, text = answer.result()
    assert revision == before
    assert text.endswith("data: [DONE]\n\n")


def history(server: Server) -> list[dict[str, Any]]:
    return list(httpx.get(f"{server.url}/api/v1/models/m/revisions").json()["revisions"])


def test_rollback_and_again_while_it_answers(server: Server, smollm2: Path, tmp_path: Path) -> None:
    shutil.copyfile(smollm2, tmp_path / "m.gguf")
    corral(server, "pull", f"file:{tmp_path / 'm.gguf'}")
    first, _ = ask(server, 4)
    another(smollm2, tmp_path / "m.gguf")
    with ThreadPoolExecutor() as pool:
        with answering(server, pool):
            corral(server, "update", "m")
        second, _ = ask(server, 4)
        assert second != first

        for expected, command in ((first, ["rollback", "m"]), (second, ["rollback", "m", second[:12]])):
            with answering(server, pool):
                corral(server, *command)
            assert ask(server, 4)[0] == expected

    assert [(step["revision"], step["current"]) for step in history(server)] == [(second, True), (first, False)]


def test_at_the_oldest_revision_there_is_none_to_go_back_to(server: Server) -> None:
    corral(server, "rollback", "m")
    refused = httpx.post(f"{server.url}/api/v1/models/m/rollback", json={})
    assert refused.status_code == 409
    newer = history(server)[0]["revision"]
    assert newer[:12] in refused.json()["error"]["hint"] + refused.json()["error"]["message"]


def test_df_says_what_two_names_share(server: Server, smollm2: Path, tmp_path: Path) -> None:
    shutil.copyfile(smollm2, tmp_path / "twin.gguf")
    corral(server, "pull", f"file:{tmp_path / 'twin.gguf'}")
    found = httpx.get(f"{server.url}/api/v1/models/df").json()
    size = smollm2.stat().st_size
    twin = next(model for model in found["models"] if model["name"] == "twin")
    assert (twin["size"], twin["shared"], twin["unique"]) == (size, size, 0)
    assert found["blobs"] == 2 * size
