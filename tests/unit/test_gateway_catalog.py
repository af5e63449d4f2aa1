"""What the catalog's routes decide without a server: units, overrides, keys of sockets, work that was left, silence."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from corral.domain.hardware import Cpu, Disk, Gpu, Machine, Memory
from corral.domain.operations import Failure, Operation, OperationStatus, Order, describe
from corral.domain.registry import ModelOperation, ModelProvider, provider_of, scheme_of
from corral.errors import DatabaseError, InvalidRequest
from corral.gateway.api.catalog import usage_of
from corral.gateway.api.models import override_of
from corral.gateway.api.operations import identity
from corral.gateway.api.pages import printable
from corral.gateway.auth import Head, offered
from corral.gateway.progress import changes, converse
from corral.gateway.workshop import unfinished

HEAVY = (
    "fastapi",
    "pydantic",
    "sqlalchemy",
    "alembic",
    "aiosqlite",
    "websockets",
    "pynvml",
    "huggingface_hub",
    "aiohttp",
)


def test_a_server_starts_without_what_it_may_never_need() -> None:
    code = f"import sys, corral.gateway.server, corral.app; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_usage_is_in_the_documents_units() -> None:
    machine = Machine(
        Cpu(8, 4, "x", 45.2),
        Memory(16 * 1024**3, 8 * 1024**3),
        Disk(),
        (Gpu("cuda:0", "a", 10 << 30, 5 << 30, 75.0), Gpu("cuda:1", "b")),
    )

    assert usage_of(machine, 12_500_000_000, 50_000_000_000, 3) == {
        "disk_usage_gb": 12.5,
        "disk_limit_gb": 50.0,
        "disk_usage_percent": 25.0,
        "cpu_usage_percent": 45.2,
        "memory_total_gb": 16.0,
        "memory_used_gb": 8.0,
        "memory_usage_percent": 50.0,
        "gpu_usage_percent": 75.0,
        "vram_usage_mb": 5120.0,
        "vram_total_mb": 10240.0,
        "vram_usage_percent": 50.0,
        "models_count": 3,
    }


def test_what_is_not_known_is_null() -> None:
    usage = usage_of(Machine(Cpu(), Memory(), Disk(), None), 0, None, 0)

    known = {key for key, value in usage.items() if value is not None}
    assert known == {"disk_usage_gb", "models_count"}


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"supports_tools": True}, {"capabilities": {"supports_tools": True}}),
        ({"max_context_length": 9, "runtime": "x"}, {"context_length": 9, "runtime": "x"}),
        (
            {"capabilities": {"supports_tools": False}, "context_length": 5},
            {"capabilities": {"supports_tools": False}, "context_length": 5},
        ),
        ({}, None),
        ({"runtime": None}, None),
    ],
)
def test_what_is_said_by_hand_is_kept_in_its_place(said: dict[str, Any], kept: dict[str, Any] | None) -> None:
    assert override_of(said) == kept


@pytest.mark.parametrize("text", ["a\0", "a\n", "x" * 1001])
def test_what_cannot_be_shown_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="printable"):
        printable(text, "it")
    assert printable("é x", "it") == "é x"


@pytest.mark.parametrize(
    ("headers", "names", "key"),
    [
        ([], ["corral", "key.abc"], b"abc"),
        ([], ["key64.YS9i"], b"a/b"),
        ([], ["key64.YQ"], b"a"),
        ([], ["key64.!!"], b"?"),
        ([], ["key."], None),
        ([], ["corral"], None),
        ([(b"x-api-key", b"header")], ["key.other"], b"header"),
    ],
)
def test_the_key_of_a_socket(headers: list[tuple[bytes, bytes]], names: list[str], key: bytes | None) -> None:
    assert offered(Head(headers), names).key == key


def test_providers_have_two_names() -> None:
    assert [scheme_of(provider) for provider in ModelProvider] == ["hf", "ollama", "pypi", "url", "file", "bucket"]
    assert [provider_of(scheme_of(provider)) for provider in ModelProvider] == list(ModelProvider)
    assert scheme_of("hf") == "hf"


def test_work_that_was_left_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "a b#?.db"
    assert not unfinished(file)
    file.write_text("this is no database, and longer than a hundred bytes" * 10)
    assert unfinished(file)
    file.unlink()
    with closing(sqlite3.connect(file)) as database:
        assert unfinished(file)  # no such table: whoever opens it properly finds out
        database.execute("CREATE TABLE operations (ended_at DOUBLE)")
        database.execute("INSERT INTO operations VALUES (1.0)")
        database.commit()
        assert not unfinished(file)
        database.execute("INSERT INTO operations VALUES (NULL)")
        database.commit()
        assert unfinished(file)


def operation(status: OperationStatus = OperationStatus.IN_PROGRESS, **more: Any) -> Operation:
    return Operation("op-1", Order("install", "m", {"what": "file:x"}), status, 1.0, **more)


def test_an_operation_is_told_in_words_and_in_parts() -> None:
    failed = operation(OperationStatus.FAILED, error=Failure("disk_full", "No room.", "Make some."), progress=12.34)

    told = describe(failed)

    assert (told["error"], told["failure"]["code"], told["progress"]) == ("No room. Make some.", "disk_full", 12.3)
    assert (told["operation_id"], told["model_name"], told["operation_type"]) == ("op-1", "m", "install")
    assert told["message"] == "install m: failed"
    assert ModelOperation.of(failed).error == "No room. Make some."
    assert identity(told) == identity(describe(failed)) != identity(describe(operation()))


class Watched:
    """Operations of which one is watched, by hand."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[Operation | None] = asyncio.Queue()
        self.begun = asyncio.Event()
        self.closed = False

    async def watch(self, _: str) -> AsyncIterator[Operation]:
        self.begun.set()
        try:
            while (now := await self.said.get()) is not None:
                yield now
        finally:
            self.closed = True


async def test_silence_is_told_and_changes_pass() -> None:
    watched: Any = Watched()
    stream = changes(watched, "op-1", asyncio.Event(), heartbeat=0.001)

    assert await anext(stream) is None
    watched.said.put_nowait(operation())
    found = [item async for item in _until_something(stream)]
    assert found[-1] == operation()
    watched.said.put_nowait(None)
    assert [item async for item in stream if item is not None] == []
    assert watched.closed


async def test_a_server_that_leaves_ends_every_stream() -> None:
    watched: Any = Watched()
    leaving = asyncio.Event()
    stream = changes(watched, "op-1", leaving, heartbeat=60)
    watched.said.put_nowait(operation())
    assert await anext(stream) == operation()

    leaving.set()

    assert [item async for item in stream] == []
    assert watched.closed


async def test_a_client_that_leaves_ends_the_watch() -> None:
    watched: Any = Watched()
    stream = changes(watched, "op-1", asyncio.Event(), heartbeat=60)
    watched.said.put_nowait(operation())
    await anext(stream)

    await stream.aclose()
    assert watched.closed
    watched = Watched()
    waiting = changes(watched, "op-1", asyncio.Event(), heartbeat=60)
    step = asyncio.ensure_future(anext(waiting))
    await watched.begun.wait()
    step.cancel()
    await asyncio.wait({step})

    assert watched.closed


class Workshop:
    """A workshop whose operations can be looked at once, and then no more."""

    leaving = asyncio.Event()

    async def look(self) -> Any:
        return self

    async def get(self, _: str) -> Operation:
        return operation()

    async def watch(self, _: str) -> AsyncIterator[Operation]:
        yield operation()
        raise DatabaseError("The database is gone.")


async def test_a_socket_that_was_accepted_is_closed_and_not_refused() -> None:
    workshop: Any = Workshop()
    said: list[Any] = []

    async def silent() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        said.append(message)

    await converse(workshop, "op-1", silent, send, None)

    assert [message["type"] for message in said] == ["websocket.accept", "websocket.send", "websocket.close"]
    assert (said[-1]["code"], said[-1]["reason"]) == (1011, "database_error")


async def _until_something(stream: AsyncIterator[Operation | None]) -> AsyncIterator[Operation | None]:
    async for item in stream:
        yield item
        if item is not None:
            return
