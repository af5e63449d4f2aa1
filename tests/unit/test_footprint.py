"""The footprint, reckoned by hand; what grows with what; and verdicts with their reasons."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.lifecycle.footprint import Plan, Room, Verdict, estimate, fit

GB = 1000**3
SMOLLM2 = {
    "architecture": "llama",
    "context_length": 8192,
    "embedding_length": 576,
    "block_count": 30,
    "head_count": 9,
    "head_count_kv": 3,
    "vocab_size": 49152,
}
GEMMA3 = {
    "architecture": "gemma3",
    "context_length": 32768,
    "embedding_length": 1152,
    "block_count": 12,
    "head_count": 4,
    "head_count_kv": 1,
    "key_length": 256,
    "value_length": 256,
    "sliding_window": 512,
}


def test_the_context_is_two_vectors_for_each_token_and_layer() -> None:
    found = estimate(SMOLLM2, 98_362_432, Plan(context=1024, slots=1))

    assert found.cells == 1024 * 30 * 3 * (64 + 64) * 2
    assert found.weights == 98_362_432
    assert not found.guessed
    assert found.total == found.weights + found.cells + found.compute + found.process


def test_a_smaller_number_format_takes_less() -> None:
    whole = estimate(SMOLLM2, 1, Plan(1024, 1)).cells

    assert estimate(SMOLLM2, 1, Plan(1024, 1, "q8_0", "q8_0")).cells == whole * 34 // 64
    assert estimate(SMOLLM2, 1, Plan(1024, 1, "f16", "q4_0")).cells == whole // 2 + whole * 9 // 64


def test_no_more_context_than_the_model_was_trained_for() -> None:
    assert estimate(SMOLLM2, 1, Plan(100_000, 1)).tokens == 8192
    assert estimate(SMOLLM2, 1).tokens == 4096
    assert estimate({**SMOLLM2, "context_length": 2048}, 1).tokens == 2048


def test_a_sliding_window_bounds_its_layers() -> None:
    token = 2 * (256 + 256)
    found = estimate(GEMMA3, 1, Plan(8192, 1))

    assert found.cells == token * (2 * 8192 + 10 * (512 + 512))


def test_the_file_says_which_layers_have_the_window() -> None:
    token = 2 * (256 + 256)

    assert estimate({**GEMMA3, "sliding_window_pattern": 2}, 1, Plan(8192, 1)).cells == token * (6 * 8192 + 6 * 1024)
    each = {**GEMMA3, "sliding_window_pattern": [True] * 12}
    assert estimate(each, 1, Plan(8192, 1)).cells == token * 12 * 1024


def test_a_window_of_which_nobody_knows_the_layers_saves_nothing() -> None:
    unknown = {**GEMMA3, "architecture": "novel"}

    assert estimate(unknown, 1, Plan(8192, 1)).cells == 2 * 512 * 12 * 8192


def test_heads_may_differ_by_layer() -> None:
    facts = {**SMOLLM2, "block_count": 3, "head_count_kv": (3, 0, 1)}

    assert estimate(facts, 1, Plan(10, 1)).cells == 10 * (3 + 0 + 1) * 128 * 2


@pytest.mark.parametrize("missing", ["block_count", "head_count", "embedding_length"])
def test_what_the_file_does_not_say_is_guessed_and_told(missing: str) -> None:
    facts = {key: value for key, value in SMOLLM2.items() if key not in (missing, "head_count_kv")}
    found = estimate(facts, GB, Plan(4096, 1))

    assert found.guessed
    assert found.cells == 120_000_000
    assert "a guess" in fit(found, [Room("cpu", 10 * GB, 9 * GB)]).reason


@pytest.mark.parametrize(
    "facts", [{}, {"block_count": "many"}, {"block_count": True, "head_count": [1]}, {"head_count": -1}]
)
def test_nonsense_is_no_fact(facts: dict[str, object]) -> None:
    assert estimate(facts, GB).guessed


@given(
    context=st.integers(1, 1 << 20),
    slots=st.integers(1, 64),
    layers=st.integers(1, 200),
    heads=st.integers(1, 128),
    size=st.integers(0, 1 << 42),
)
def test_more_is_never_less(context: int, slots: int, layers: int, heads: int, size: int) -> None:
    facts = {"block_count": layers, "head_count": heads, "head_count_kv": heads, "key_length": 64, "value_length": 64}
    one = estimate(facts, size, Plan(context, slots))

    assert one.total >= size
    assert one.total < estimate(facts, size, Plan(context + 1, slots)).total
    assert one.total < estimate(facts, size, Plan(context, slots + 1)).total
    assert one.total < estimate({**facts, "block_count": layers + 1}, size, Plan(context, slots)).total
    assert estimate(facts, size, Plan(context, slots, "q8_0", "q8_0")).total < one.total


@given(size=st.integers(0, 1 << 40), total=st.integers(1, 1 << 40), share=st.floats(0, 1))
def test_verdicts_are_in_order(size: int, total: int, share: float) -> None:
    found = estimate(SMOLLM2, size)
    free = round(total * share)
    verdict = fit(found, [Room("cpu", total, free)]).verdict

    assert (verdict is Verdict.NO) == (found.total > total)
    assert verdict is not Verdict.YES or found.total <= free
    better = fit(found, [Room("cpu", total * 2, free + total)]).verdict
    order = [Verdict.NO, Verdict.TIGHT, Verdict.YES]
    assert order.index(better) >= order.index(verdict)


BIG = estimate({**SMOLLM2, "block_count": 32}, 8 * GB)
CPU = Room("cpu", 32 * GB, 30 * GB)


@pytest.mark.parametrize(
    ("rooms", "verdict", "words"),
    [
        ([Room("cuda:0", 24 * GB, 20 * GB), CPU], Verdict.YES, ["cuda:0 has 20.0 GB free of 24.0 GB", "4 x 4096"]),
        ([Room("cuda:0", 24 * GB, 5 * GB), CPU], Verdict.TIGHT, ["cuda:0 has 5.0 GB free", "cpu has room, too"]),
        ([Room("cuda:0", 24 * GB, 9 * GB)], Verdict.TIGHT, ["9.0 GB free"]),
        ([Room("cuda:0", 24 * GB, None)], Verdict.TIGHT, ["not known"]),
        ([Room("cuda:0", 4 * GB, 4 * GB), CPU], Verdict.TIGHT, ["more than cuda:0 has (4.0 GB)", "cpu has room"]),
        ([Room("cuda:0", 6 * GB, 6 * GB), Room("cpu", 6 * GB, 5 * GB)], Verdict.TIGHT, ["cuda:0 and cpu together"]),
        ([Room("cuda:0", 4 * GB, 4 * GB), Room("cpu", 5 * GB, 4 * GB)], Verdict.NO, ["more than cuda:0 has"]),
        ([Room("mps", None, None), CPU], Verdict.YES, ["cpu has 30.0 GB free"]),
        ([Room("cpu", 8 * GB, 8 * GB)], Verdict.NO, ["needs 8.5 GB", "more than cpu has (8.0 GB)"]),
        ([], None, ["not known"]),
        ([Room("cpu", None, None)], None, ["not known"]),
    ],
)
def test_the_verdict_says_why(rooms: list[Room], verdict: Verdict | None, words: list[str]) -> None:
    found = fit(BIG, rooms)

    assert found.verdict == verdict
    assert [word for word in words if word not in found.reason] == []
    assert [device.device for device in found.devices] == [room.id for room in rooms]


def test_a_gpu_sets_the_logits_aside_and_the_process_stays_outside() -> None:
    found = fit(BIG, [Room("cuda:0", 24 * GB, 20 * GB), CPU])

    on_gpu, on_cpu = (device.needed for device in found.devices)
    assert on_gpu == BIG.weights + BIG.cells + BIG.compute + 512 * 4 * 49152
    assert on_cpu == BIG.total
