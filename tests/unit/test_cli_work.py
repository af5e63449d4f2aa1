"""Operations as the commands have them done: what they are given, what they say, and what they make of the end."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from corral.cli.invocation import Invocation
from corral.cli.operations import OwnBook, _understood, _whole
from corral.cli.output import Output
from corral.cli.progress import Step, Watch
from corral.cli.server import _request, operation_of
from corral.cli.work import Task, _one, _say_how_to_go_on, failure, located, order
from corral.domain.operations import Failure, Operation, OperationStatus, Order, describe
from corral.errors import Conflict, DiskFull, InvalidRequest, NotSupported, OperationNotFound


def operation(status: OperationStatus, **more: object) -> Operation:
    return Operation("op-1", Order("install", "m", {"what": "m"}), status, 1.5, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "told",
    [
        operation(OperationStatus.PENDING),
        operation(
            OperationStatus.IN_PROGRESS, progress=12.5, phase="download", done=5, total=40, rate=2.5, eta=14.0,
            message="a.gguf", attempts=2, started_at=2.5,
        ),
        operation(OperationStatus.FAILED, error=Failure("disk_full", "No room.", "Make some."), ended_at=3.5),
        operation(OperationStatus.COMPLETED, progress=100.0, result={"name": "m"}, ended_at=3.5),
    ],
)  # fmt: skip
def test_an_operation_survives_the_way_through_json(told: Operation) -> None:
    assert operation_of(describe(told)) == replace(told, message=describe(told)["message"])


def test_what_is_no_operation() -> None:
    for content in ({}, {"operation_id": "x"}, describe(operation(OperationStatus.PENDING)) | {"status": "lost"}):
        with pytest.raises((KeyError, ValueError)):
            operation_of(content)


def test_how_operations_end() -> None:
    failed = failure(operation(OperationStatus.FAILED, error=Failure("disk_full", "No room.", "Make some.")), "again")
    assert isinstance(failed, DiskFull)
    assert (failed.message, failed.hint) == ("No room.", "Make some.")
    for status in (OperationStatus.CANCELLED, OperationStatus.PAUSED):
        left = failure(operation(status), "corral pull m")
        assert isinstance(left, Conflict)
        assert "corral pull m" in left.hint
    assert failure(operation(OperationStatus.COMPLETED), "again") is None


@pytest.mark.parametrize(
    ("order_", "asked"),
    [
        (
            Order("install", "n", {"what": "hf:a/b", "name": "n"}),
            ("POST", "/api/v1/models/registry/install", {"name": "hf:a/b", "alias": "n"}),
        ),
        (Order("remove", "a/b", {"force": True}), ("DELETE", "/api/v1/models/registry/a/b?force=true", None)),
        (Order("remove", "a b"), ("DELETE", "/api/v1/models/registry/a%20b?force=false", None)),
        (Order("update", "m"), ("POST", "/api/v1/models/m/update", None)),
        (Order("verify", ""), ("POST", "/api/v1/models/verify", None)),
        (Order("verify", "m"), ("POST", "/api/v1/models/m/verify", None)),
        (Order("gc", "", {"dry_run": True}), ("POST", "/api/v1/models/gc", {"dry_run": True})),
        (Order("move", "m", {"folder": "/x"}), ("POST", "/api/v1/models/m/move", {"folder": "/x"})),
        (Order("push", "m", {"to": "s3://b/m"}), ("POST", "/api/v1/models/m/push", {"to": "s3://b/m"})),
    ],
)
def test_orders_as_requests(order_: Order, asked: tuple[str, str, object]) -> None:
    assert _request(order_) == asked


def test_an_order_that_no_request_gives() -> None:
    with pytest.raises(NotSupported):
        _request(Order("dance", "m"))


def test_orders_for_another_machine_carry_what_was_given() -> None:
    assert order(None, "move", "m", folder=None) == Order("move", "m")
    assert order(None, "gc", dry_run=True) == Order("gc", "", {"dry_run": True})


@pytest.mark.parametrize("what", ["smollm2", "hf:a/b", "file:", "file:///x.gguf", "https://a/b", "file:a\0b", ""])
def test_references_that_stay(what: str) -> None:
    assert located(what) == what


def test_files_get_their_whole_path() -> None:
    assert located("file:./a.gguf") == f"file:{Path.cwd()}/a.gguf"
    assert located("file:/a.gguf") == "file:/a.gguf"
    assert located("file:~/a.gguf") == f"file:{Path.home()}/a.gguf"


class Stuck:
    """Hands that take up an operation as it was left, show these steps of it, and then come no further."""

    def __init__(self, left: Operation, *steps: Operation) -> None:
        self._left = left
        self._steps = steps
        self.begun = asyncio.Event()

    async def submit(self, order: Order) -> Operation:
        return self._left

    async def follow(self, operation: Operation, show: Callable[[Operation], None]) -> Operation:
        for step in self._steps:
            show(step)
        self.begun.set()
        return await asyncio.Future()

    async def pause(self, identifier: str) -> Operation:
        return replace(self._left, status=OperationStatus.PAUSED, done=0)

    async def close(self) -> None: ...


def nothing(step: Step) -> None: ...


UNDER_WAY = operation(OperationStatus.IN_PROGRESS)


@pytest.mark.parametrize(
    ("left", "steps", "kept"),
    [
        (replace(UNDER_WAY, done=2_000_000, progress=30.0), ["resolve"], "; 2 MB are kept"),
        (replace(UNDER_WAY, done=2_000_000, progress=30.0), ["resolve", "download"], "; 1.9 MB are kept"),
        (replace(UNDER_WAY, progress=30.0), ["resolve"], "; what had arrived is kept"),
        (UNDER_WAY, ["resolve"], ""),
        (replace(UNDER_WAY, order=Order("verify", ""), done=2_000_000, progress=30.0), ["check"], ""),
    ],
)
async def test_what_is_kept_is_told_however_soon_one_stops(left: Operation, steps: list[str], kept: str) -> None:
    done = {"download": 1_900_000}
    workers = Stuck(left, *(replace(left, phase=phase, done=done.get(phase, 0)) for phase in steps))
    task = Task(left.order, "m", "corral pull m", watch=Watch(nothing))
    work = asyncio.create_task(_one(workers, task))
    await workers.begun.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    stderr = io.StringIO()
    _say_how_to_go_on(Invocation(Output(stderr=stderr, env={})), task)

    assert stderr.getvalue().splitlines() == [
        f"m: stopped{kept}. To go on: corral pull m", "To drop what is kept: corral operations cancel op-1",
    ]  # fmt: skip


class Pages(OwnBook):
    """A book with these operations, and no database."""

    def __init__(self, *identifiers: str) -> None:
        self._ids = identifiers

    async def operations(self, limit: int) -> list[Operation]:
        return [Operation(name, Order("gc", ""), OperationStatus.PENDING, 1.0) for name in self._ids[:limit]]


async def test_the_beginning_of_an_identifier_is_enough() -> None:
    book = Pages("op-12", "op-13", "op-1")

    assert await _whole(book, "op-12") == "op-12"
    assert await _whole(book, "op-1") == "op-1"
    assert await _whole(Pages("op-12"), "op-") == "op-12"
    assert await _whole(book, "unknown") == "unknown"
    with pytest.raises(OperationNotFound, match="3 operations"):
        await _whole(book, "op")


@pytest.mark.parametrize("start", ["", "a\nb", "a\0", "x" * 10_000])
async def test_identifiers_that_cannot_be(start: str) -> None:
    with pytest.raises(OperationNotFound):
        await _whole(Pages(), start)


def test_verbs_and_identifiers() -> None:
    assert _understood([]) == ("", [])
    assert _understood(["op-1"]) == ("", ["op-1"])
    assert _understood(["cancel", "op-1", "op-2"]) == ("cancel", ["op-1", "op-2"])
    with pytest.raises(InvalidRequest, match="paused"):
        _understood(["pause"])
