"""The menu's tables and fields, whatever a server leaves out."""

from __future__ import annotations

from typing import Any

import pytest

from corral.cli.tui.marks import Fields, Row, Table
from corral.cli.tui.texts import (
    container_fields,
    containers_table,
    engines_table,
    happened_lines,
    memory_lines,
    model_fields,
    models_table,
    operation_fields,
    work_table,
)
from corral.cli.tui.yard import Yard
from corral.domain.operations import Failure, Operation, OperationStatus, Order
from corral.domain.standings import ContainerState, ModelInside, Standing, describe

NOW = 1_000_000.0


def told(rows: list[Row] | tuple[Row, ...]) -> list[str]:
    return ["".join(piece.text for piece in row).strip() for row in rows]


def shown(table: Table) -> dict[str, dict[str, str]]:
    titles = [column.title for column in table.columns]
    return {
        key: dict(zip(titles, (cell.text for cell in row), strict=True))
        for key, row in zip(table.keys, table.rows, strict=True)
    }


def named(fields: Fields) -> dict[str, str]:
    return {name: value.text for name, value in fields}


def model(name: str = "m", **more: Any) -> dict[str, Any]:
    return {"name": name, "state": "cold", "runtime": "fake", **more}


def operation(**more: Any) -> Operation:
    given = {"id": "op-1", "order": Order("install", "m", {}), "status": OperationStatus.IN_PROGRESS, "created_at": NOW}
    return Operation(**(given | more))


def test_a_model_in_memory_with_everything() -> None:
    yard = Yard(url="http://here")
    yard.set_models(
        [
            model(
                state="ready", engine="fake-1", size=1_200_000, footprint={"cpu": 3_000_000}, device="cpu", slots=4,
                in_flight=1, served=7, capabilities=["chat"], revision="sha256:abcdef0123456789ff",
            )
        ]
    )  # fmt: skip
    yard.installed = {"m": {"version": "main"}}
    assert shown(models_table(yard))["m"] == {
        "NAME": "m", "STATE": "ready", "VERSION": "main", "SIZE": "1.2 MB", "MEMORY": "3 MB", "RUNTIME": "fake",
        "DEVICE": "cpu", "BUSY": "1/4", "ANSWERED": "7", "CAN": "chat",
    }  # fmt: skip


def test_a_model_of_which_nothing_is_known() -> None:
    yard = Yard()
    yard.set_models([{"name": "m"}])
    row = shown(models_table(yard))["m"]

    assert row.pop("NAME") == "m"
    assert row.pop("STATE") == "unknown"
    assert set(row.values()) == {"-"}


def test_without_a_version_it_is_the_beginning_of_the_revision() -> None:
    yard = Yard()
    yard.set_models([model(revision="sha256:abcdef0123456789ff")])

    assert shown(models_table(yard))["m"]["VERSION"] == "abcdef0123456789"


def test_models_are_in_the_order_of_their_names_and_what_is_coming_is_first() -> None:
    yard = Yard()
    yard.set_models([model("b"), model("A"), model("c")])
    yard.set_operation(operation(order=Order("install", "new", {}), progress=41.6))
    yard.set_operation(operation(id="op-2", order=Order("update", "b", {}), status=OperationStatus.PENDING))
    table = models_table(yard)

    assert table.keys == ("new", "A", "b", "c")
    assert shown(table)["new"]["STATE"] == "installing 42 %"
    assert shown(table)["b"]["STATE"] == "updating: pending"


def test_a_yard_without_models_says_what_to_press() -> None:
    assert "Press i" in models_table(Yard()).empty
    assert "corral.yaml" in containers_table(Yard(), NOW).empty
    assert "No model is in memory" in engines_table(Yard()).empty


def test_the_facts_of_a_model() -> None:
    fields = named(
        model_fields(
            model(
                state="ready", reason="loaded in 1 s", engine="fake-1", context=4096, slots=2, until=0.0, idle_left=300,
                footprint={"cpu": 1_000_000}, fallback=["x", "y"], format="gguf",
            ),
            {"pinned": True, "licence": "mit", "capabilities": {"quantization": "Q4_K_M"}},
            "http://127.0.0.1:7860",
        )
    )  # fmt: skip

    assert fields["address"] == "http://127.0.0.1:7860/v1, model m"
    assert fields["context"] == "4,096 tokens, 2 slots"
    assert fields["memory"] == "1 MB on cpu"
    assert fields["format"] == "gguf Q4_K_M"
    assert fields["fallback"] == "x, y"
    assert fields["pinned"].startswith("yes")
    assert fields["why"] == "loaded in 1 s"


def test_what_a_cold_model_would_take() -> None:
    fields = named(model_fields(model(estimated={"cpu": 2_000_000}, notes=["slow"]), {}, "u"))

    assert fields["memory"] == "2 MB on cpu expected"
    assert fields["note"] == "slow"
    assert "context" not in fields


def test_engines_are_those_that_are_not_cold_and_those_in_memory_first() -> None:
    yard = Yard()
    yard.set_models([model("a", state="queued", waiting=2), model("b", state="ready", loaded=True), model("c")])
    yard.queues = {"b": 1}
    table = engines_table(yard)

    assert table.keys == ("b", "a")
    assert shown(table)["a"]["WAIT"] == "2"
    assert shown(table)["b"]["WAIT"] == "1"


def test_an_engine_leaves_in_a_while_or_at_a_time() -> None:
    yard = Yard()
    yard.set_models([model("a", state="ready", idle_left=90.0), model("b", state="ready", idle_left=90.0, until=NOW)])
    rows = shown(engines_table(yard))

    assert rows["a"]["LEAVES"] == "in 1m 30s"
    assert len(rows["b"]["LEAVES"]) == 5


def test_memory_has_a_bar_for_each_device() -> None:
    memory = {"cpu": {"held": 5_000_000, "capacity": 10_000_000}, "cuda:0": {"held": 0, "capacity": None}}
    lines = told(memory_lines(memory, 60))

    assert lines[0].startswith("cpu     ████")
    assert lines[0].endswith("5 MB held of 10 MB for engines")
    assert lines[1].endswith("0 B held")
    assert told(memory_lines(memory, 0))[0] == "cpu       5 MB held of 10 MB for engines"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"type": "transition", "model": "m", "state": "ready", "reason": "loaded"}, "m is ready: loaded"),
        ({"type": "transition", "model": "m", "state": "cold"}, "m is cold"),
        ({"type": "decision", "model": "m", "effect": "evict", "room_for": "n", "reason": "r"}, "evict m for n: r"),
        ({"type": "device", "device": "cuda:0", "back": False, "reason": "fell off"}, "cuda:0 is lost: fell off"),
        ({"type": "device", "device": "cuda:0", "back": True}, "cuda:0 is back"),
        ({"type": "lost", "count": 4}, "4 events were missed: they came faster than they were read"),
        ({"type": "happening", "name": "c", "what": "oom_killed", "reason": "too much"}, "c oom killed: too much"),
    ],
)
def test_what_happened_is_told_in_words(message: dict[str, Any], text: str) -> None:
    assert told(happened_lines([message])) == [f"--:--:--  {text}"]


def standing(**more: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "name": "code",
        "container": "corral-code",
        "kind": "ollama",
        "state": ContainerState.HEALTHY,
    }
    return describe(Standing(**(given | more)), NOW)


def test_a_container_that_runs() -> None:
    yard = Yard()
    one = standing(
        purpose="completion", port=11434, started_at=NOW - 90, models=(ModelInside("qwen"),), image="ollama/ollama"
    )
    yard.set_containers([one])
    yard.set_usage_of("code", {"cpu": 1.5, "memory": 2_000_000})
    row = shown(containers_table(yard, NOW))["code"]

    assert (row["STATE"], row["PORT"], row["UP"], row["MODELS"]) == ("healthy", "11434", "1m 30s", "qwen")
    assert row["CPU"] == "·······█ 150 %"
    assert row["MEMORY"].endswith(" 2 MB")


def test_a_container_that_does_not() -> None:
    yard = Yard()
    yard.set_containers([standing(state=ContainerState.CRASH_LOOP, reason="it ended five times")])
    row = shown(containers_table(yard, NOW))["code"]

    assert (row["STATE"], row["UP"], row["CPU"]) == ("crash loop", "-", "········ -")


def test_where_docker_is_not_that_is_what_is_said() -> None:
    yard = Yard(docker="No Docker engine answers at unix:///run/docker.sock.")

    assert containers_table(yard, NOW).empty == "No Docker engine answers at unix:///run/docker.sock."


def test_the_facts_of_a_container() -> None:
    fields = named(
        container_fields(
            standing(
                state=ContainerState.STOPPED, wanted=False, drift=("memory",), exit_code=0, memory_limit=1_000_000_000,
                cpu_limit=1.5, url="http://127.0.0.1:11434", missing=("phi",),
                models=(ModelInside("qwen", size=5_000_000, loaded=True),),
            )
        )
    )  # fmt: skip

    assert fields["wanted"] == "stopped: somebody wants it so"
    assert fields["limits"] == "1 GB, 1.5 processors"
    assert fields["models"] == "qwen 5 MB (in memory)"
    assert (fields["missing"], fields["differs"], fields["exit code"]) == ("phi", "memory", "0")


def test_work_under_way() -> None:
    yard = Yard()
    yard.set_operation(operation(progress=50.0, rate=2_000_000.0, eta=30.0, started_at=NOW - 5, message="file 1"))
    row = shown(work_table(yard, NOW))["op-1"]

    assert row == {
        "WHAT": "install", "MODEL": "m", "STATUS": "at work", "DONE": "██████······  50 %", "RATE": "2 MB/s",
        "LEFT": "30s", "WHEN": "5s ago", "MESSAGE": "file 1",
    }  # fmt: skip


def test_a_run_of_a_pipeline_counts_steps_and_no_bytes() -> None:
    yard = Yard()
    run = operation(order=Order("pipeline-run", "page", {}), phase="steps", done=2, total=5, rate=1.0, progress=40.0)
    yard.set_operation(run)

    assert shown(work_table(yard, NOW))["op-1"]["RATE"] == "-"
    assert named(operation_fields(run))["done"] == "2 of 5"
    assert "bytes" not in named(operation_fields(run))


def test_work_that_failed_says_why_and_what_to_do() -> None:
    yard = Yard()
    failed = operation(
        status=OperationStatus.FAILED, rate=5.0, eta=1.0, ended_at=NOW, attempts=3, done=5, total=10,
        error=Failure("disk_full", "There is no room.", "Make some: corral gc"),
    )  # fmt: skip
    yard.set_operation(failed)
    row = shown(work_table(yard, NOW))["op-1"]

    assert (row["STATUS"], row["RATE"], row["MESSAGE"]) == ("failed", "-", "There is no room.")
    assert named(operation_fields(failed)) == {
        "operation": "op-1", "status": "failed", "error": "There is no room.", "do": "Make some: corral gc",
        "bytes": "5 B of 10 B", "tries": "3",
    }  # fmt: skip
