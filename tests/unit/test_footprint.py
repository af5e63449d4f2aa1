"""The footprint, reckoned by hand; what grows with what; and verdicts with their reasons."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.domain.memory import Demand, Placement
from corral.lifecycle.footprint import Room, Verdict, fit, key, placements, reach, refusal
from corral.lifecycle.reckoning import estimate, slices

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
    found = estimate(SMOLLM2, 98_362_432, Demand(context=1024, slots=1))

    assert found.cells == 1024 * 30 * 3 * (64 + 64) * 2
    assert found.weights == 98_362_432
    assert not found.guessed
    assert found.total == found.weights + found.cells + found.compute + found.process


def test_a_smaller_number_format_takes_less() -> None:
    whole = estimate(SMOLLM2, 1, Demand(1024, 1)).cells

    assert estimate(SMOLLM2, 1, Demand(1024, 1, "q8_0", "q8_0")).cells == whole * 34 // 64
    assert estimate(SMOLLM2, 1, Demand(1024, 1, "f16", "q4_0")).cells == whole // 2 + whole * 9 // 64


def test_no_more_context_than_the_model_was_trained_for() -> None:
    assert estimate(SMOLLM2, 1, Demand(100_000, 1)).tokens == 8192
    assert estimate(SMOLLM2, 1).tokens == 4096
    assert estimate({**SMOLLM2, "context_length": 2048}, 1).tokens == 2048


def test_a_sliding_window_bounds_its_layers() -> None:
    token = 2 * (256 + 256)
    found = estimate(GEMMA3, 1, Demand(8192, 1))

    assert found.cells == token * (2 * 8192 + 10 * (512 + 512))


def test_the_file_says_which_layers_have_the_window() -> None:
    token = 2 * (256 + 256)

    assert estimate({**GEMMA3, "sliding_window_pattern": 2}, 1, Demand(8192, 1)).cells == token * (6 * 8192 + 6 * 1024)
    each = {**GEMMA3, "sliding_window_pattern": [True] * 12}
    assert estimate(each, 1, Demand(8192, 1)).cells == token * 12 * 1024


def test_a_window_of_which_nobody_knows_the_layers_saves_nothing() -> None:
    unknown = {**GEMMA3, "architecture": "novel"}

    assert estimate(unknown, 1, Demand(8192, 1)).cells == 2 * 512 * 12 * 8192


def test_heads_may_differ_by_layer() -> None:
    facts = {**SMOLLM2, "block_count": 3, "head_count_kv": (3, 0, 1)}

    assert estimate(facts, 1, Demand(10, 1)).cells == 10 * (3 + 0 + 1) * 128 * 2


@pytest.mark.parametrize("missing", ["block_count", "head_count", "embedding_length"])
def test_what_the_file_does_not_say_is_guessed_and_told(missing: str) -> None:
    facts = {key: value for key, value in SMOLLM2.items() if key not in (missing, "head_count_kv")}
    found = estimate(facts, GB, Demand(4096, 1))

    assert found.guessed
    assert 250_000_000 < found.cells < 350_000_000
    assert "a guess" in fit(found, [Room("cpu", 10 * GB, 9 * GB)]).reason


@pytest.mark.parametrize(
    "facts", [{}, {"block_count": "many"}, {"block_count": True, "head_count": [1]}, {"head_count": -1}]
)
def test_nonsense_is_no_fact(facts: dict[str, object]) -> None:
    assert estimate(facts, GB).guessed


@settings(deadline=None)
@given(
    context=st.integers(1, 1 << 20),
    slots=st.integers(1, 64),
    layers=st.integers(1, 200),
    heads=st.integers(1, 128),
    size=st.integers(0, 1 << 42),
)
def test_more_is_never_less(context: int, slots: int, layers: int, heads: int, size: int) -> None:
    facts = {"block_count": layers, "head_count": heads, "head_count_kv": heads, "key_length": 64, "value_length": 64}
    one = estimate(facts, size, Demand(context, slots))

    assert one.total >= size
    assert one.total < estimate(facts, size, Demand(context + 1, slots)).total
    assert one.total < estimate(facts, size, Demand(context, slots + 1)).total
    assert one.total < estimate({**facts, "block_count": layers + 1}, size, Demand(context, slots)).total
    assert estimate(facts, size, Demand(context, slots, "q8_0", "q8_0")).total < one.total


@settings(deadline=None)
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


LLAMA8B = {
    "architecture": "llama",
    "context_length": 131072,
    "embedding_length": 4096,
    "block_count": 32,
    "head_count": 32,
    "head_count_kv": 8,
    "vocab_size": 128256,
    "parameters": 8_000_000_000,
}
SIZE = 5 * GB
GPU = Room("cuda:0", 24 * GB, 20 * GB)
LLAMACPP = Demand(context=4096, slots=1, splits=True)


def _keys(found: tuple[Placement, ...]) -> list[str]:
    return [key(placement) for placement in found]


def test_a_gpu_comes_before_the_processor_and_the_larger_before_the_smaller() -> None:
    small, twin = Room("cuda:1", 8 * GB, 8 * GB), Room("cuda:2", 24 * GB, 23 * GB)
    found = placements(LLAMA8B, SIZE, LLAMACPP, [small, GPU, twin, CPU])

    assert _keys(found) == ["cuda:2", "cuda:0", "cuda:1", "cpu"]
    assert found[0].device == "cuda:2"
    assert found[0].devices["cuda:2"] == estimate(LLAMA8B, SIZE, LLAMACPP).on_gpu
    assert found[0].layers is None
    assert found[-1].said == "on the processor, without a GPU"
    assert {placement.source for placement in found} == {"estimated"}


def test_a_gpu_that_is_too_small_takes_the_layers_that_fit() -> None:
    small = Room("cuda:0", 4 * GB, 4 * GB)
    partly, beside = placements(LLAMA8B, SIZE, LLAMACPP, [small, CPU])

    assert key(partly) == f"cuda:0+cpu/{partly.layers}"
    assert partly.layers is not None
    assert 16 < partly.layers < 33
    assert f"{partly.layers} of 33 layers on cuda:0" in partly.said
    assert 3.8 * GB < partly.devices["cuda:0"] <= 4 * GB
    whole = estimate(LLAMA8B, SIZE, LLAMACPP).total
    assert whole < partly.total < whole * 1.3  # the outer layers and the buffers of a step lie on both
    assert key(beside) == "cpu"
    without = placements(LLAMA8B, SIZE, Demand(context=4096, slots=1), [small, CPU])
    assert _keys(without) == ["cpu"]


@settings(deadline=None)
@given(total=st.integers(1, 10 * GB), context=st.integers(1, 131072), slots=st.integers(1, 8))
def test_what_is_placed_fits_or_nothing_does(total: int, context: int, slots: int) -> None:
    rooms = {"cuda:0": total, "cpu": 7 * GB}
    demand = Demand(context=context, slots=slots, splits=True)
    found = placements(LLAMA8B, SIZE, demand, [Room(name, size, size) for name, size in rooms.items()])

    assert found
    fitting = [all(taken <= rooms[name] for name, taken in way.devices.items()) for way in found]
    assert all(fitting) or not any(fitting)
    assert (refusal(LLAMA8B, SIZE, demand, [Room(n, s, s) for n, s in rooms.items()]) is None) == all(fitting)


@pytest.mark.parametrize(
    ("device", "layers", "keys"),
    [
        ("cpu", None, ["cpu"]),
        ("cuda", None, ["cuda:0", "cuda:1"]),
        ("cuda:1", None, ["cuda:1"]),
        ("gpu", None, ["cuda:0", "cuda:1"]),
        ("mps", None, []),
        ("cuda:7", None, []),
        (None, 0, ["cpu"]),
        ("cuda", 0, ["cpu"]),
        (None, 20, ["cuda:0+cpu/20", "cuda:1+cpu/20", "cpu"]),
        (None, 99, ["cuda:0", "cuda:1", "cpu"]),
    ],
)
def test_a_demand_is_put_where_it_says(device: str | None, layers: int | None, keys: list[str]) -> None:
    rooms = [GPU, Room("cuda:1", 12 * GB, 12 * GB), CPU]
    demand = Demand(context=4096, slots=1, splits=True, device=device, layers=layers)

    assert _keys(placements(LLAMA8B, SIZE, demand, rooms)) == keys


def test_amds_gpus_are_cudas_to_torch_unless_there_are_real_ones() -> None:
    amd = Room("rocm:0", 24 * GB, 24 * GB)

    assert _keys(placements(LLAMA8B, SIZE, Demand(device="cuda"), [amd, CPU])) == ["rocm:0"]
    assert _keys(placements(LLAMA8B, SIZE, Demand(device="cuda:0"), [amd, CPU])) == ["rocm:0"]
    assert _keys(placements(LLAMA8B, SIZE, Demand(device="cuda:0"), [amd, GPU, CPU])) == ["cuda:0"]
    assert _keys(placements(LLAMA8B, SIZE, Demand(device="rocm"), [amd, GPU, CPU])) == ["rocm:0"]


def test_parallel_is_over_equals_and_never_alone() -> None:
    rooms = [Room(f"cuda:{n}", 24 * GB, (20 - n) * GB) for n in range(3)]
    demand = Demand(parallel=2, overhead=GB, cache=2 * GB, process=3 * GB)
    over, beside = placements(LLAMA8B, SIZE, demand, [*rooms, CPU])
    found = estimate(LLAMA8B, SIZE, demand)

    assert over.said == "over cuda:0 and cuda:1"
    share = (SIZE + 2 * GB) // 2 + found.compute + found.logits + GB
    assert over.devices == {"cuda:0": share, "cuda:1": share, "cpu": 3 * GB}
    assert key(beside) == "cpu"
    assert placements(LLAMA8B, SIZE, Demand(parallel=4, device="cuda"), [*rooms, CPU]) == ()
    refused = refusal(LLAMA8B, SIZE, Demand(parallel=4, device="cuda"), rooms)
    assert refused is not None
    assert "4 devices" in refused[0]


def test_shared_memory_is_counted_once() -> None:
    mac = Room("mps", None, None, unified=True)
    found = placements(LLAMA8B, SIZE, LLAMACPP, [mac, CPU])

    assert _keys(found) == ["mps", "cpu"]
    assert found[0].devices == {"mps": 0, "cpu": found[1].total}
    assert found[0].device == "mps"


def test_what_was_measured_takes_the_place_of_the_estimate() -> None:
    known = {"cuda:0": {"cuda:0": 6 * GB, "cpu": GB}, "cpu": {"cpu": 7 * GB}}
    first, last = placements(LLAMA8B, SIZE, LLAMACPP, [GPU, CPU], known)

    assert (first.devices, first.source) == ({"cuda:0": 6 * GB, "cpu": GB}, "measured")
    assert (last.devices, last.source) == ({"cpu": 7 * GB}, "measured")
    half = placements(LLAMA8B, SIZE, LLAMACPP, [GPU, CPU], {"cuda:0": {"cpu": GB}})[0]
    assert half.source == "estimated"  # of the GPU nothing was measured
    assert half.devices["cpu"] == GB


def test_what_did_not_suffice_sends_it_elsewhere() -> None:
    found = placements(LLAMA8B, SIZE, LLAMACPP, [GPU, CPU], {"cuda:0": {"cuda:0": 30 * GB}})

    assert found[0].layers == 32
    assert _keys(found) == ["cuda:0+cpu/32", "cpu"]


def test_a_fixed_size_is_all_there_is() -> None:
    found = placements({}, 1, Demand(fixed=3 * GB), [GPU, CPU])

    assert [dict(way.devices) for way in found] == [{"cuda:0": 3 * GB, "cpu": 0}, {"cpu": 3 * GB}]
    assert found[0].source == "estimated"
    assert slices(LLAMA8B, estimate(LLAMA8B, 1, Demand(fixed=1)), Demand(fixed=1)) is None


def test_a_guess_is_told() -> None:
    assert placements({}, GB, Demand(), [CPU])[0].source == "guessed"
    assert placements({}, GB, Demand(cache=GB), [CPU])[0].source == "estimated"


def test_weights_may_take_more_or_less_than_their_files() -> None:
    found = estimate(LLAMA8B, SIZE, Demand(weights=0.5))

    assert found.weights == SIZE // 2


def test_a_lost_gpu_is_never_replaced_in_silence() -> None:
    gone = Room("cuda:0", 24 * GB, 20 * GB, lost="GPU is lost")
    (beside,) = placements(LLAMA8B, SIZE, LLAMACPP, [gone, CPU])

    assert beside.said == "on the processor; cuda:0 is gone: GPU is lost"
    bound = Demand(device="cuda")
    assert placements(LLAMA8B, SIZE, bound, [gone, CPU]) == ()
    assert refusal(LLAMA8B, SIZE, bound, [gone, CPU]) == ("cuda:0 is gone: GPU is lost", "See: corral hardware")
    assert refusal(LLAMA8B, SIZE, bound, [CPU]) == (
        "it wants a device 'cuda', and this machine has cpu",
        "See: corral hardware",
    )


def test_a_refusal_says_what_would_fit() -> None:
    demand = Demand(context=131072, slots=4, splits=True)
    refused = refusal(LLAMA8B, SIZE, demand, [Room("cpu", 16 * GB, 15 * GB)])

    assert refused is not None
    assert "4 x 131072 tokens" in refused[0]
    assert "more than cpu may give (16.0 GB)" in refused[0]
    assert refused[1] == "Try context 20480; or slots 1 with context 82176."
    smaller = refusal(LLAMA8B, SIZE, demand, [Room("cpu", GB, GB)])
    assert smaller is not None
    assert smaller[1] == "Try a smaller model or quantisation."


def test_a_model_of_the_block_bytes_is_cut_where_the_file_says() -> None:
    found = estimate(LLAMA8B, SIZE, LLAMACPP)
    cut = slices({**LLAMA8B, "block_bytes": 4 * GB}, found, LLAMACPP)

    assert cut is not None
    assert (cut.outer, cut.weights, cut.count) == (GB, 4 * GB // 32, 33)
    assert cut.taken(0) == 0
    assert cut.taken(1) == GB
    assert cut.taken(33) == cut.taken(99) == found.weights + found.cells
    assert cut.left(33) == GB
    assert cut.left(0) == cut.left(1) == found.weights + found.cells
    assert slices({}, estimate({}, 1), LLAMACPP) is None


@settings(deadline=None)
@given(total=st.integers(1, 40 * GB), slots=st.integers(1, 8), layers=st.none() | st.integers(1, 40))
def test_the_reach_is_exact(total: int, slots: int, layers: int | None) -> None:
    demand = Demand(context=8192, slots=slots, splits=True, layers=layers)
    room = Room("cuda:0", total, total)
    found = reach(LLAMA8B, SIZE, demand, room)

    if found.context is not None:
        again = reach(LLAMA8B, SIZE, Demand(found.context, slots, splits=True, layers=layers), room)
        assert again.needed <= total
        longer = Demand(found.context + 256, slots, splits=True, layers=layers)
        assert found.context == 131072 or reach(LLAMA8B, SIZE, longer, room).needed > total
    assert (found.single or 0) >= (found.context or 0)
    assert (found.verdict is Verdict.NO) == (found.needed > total)
    assert (found.verdict is Verdict.NO) == bool(found.advice)
    assert found.of == 33
    if found.layers:
        assert reach(LLAMA8B, SIZE, Demand(8192, slots, splits=True, layers=found.layers), room).needed <= total


def test_the_reach_of_what_is_not_known() -> None:
    found = reach(LLAMA8B, SIZE, LLAMACPP, Room("cpu", None, None))

    assert (found.context, found.single, found.layers, found.verdict) == (None, None, None, None)
    assert reach({}, GB, Demand(), CPU).context is None
    assert reach({}, GB, Demand(), CPU).verdict is Verdict.YES
    assert reach(LLAMA8B, SIZE, Demand(context=131072, slots=1, cache=GB), Room("cpu", 3 * GB, GB)).advice == (
        "a smaller model or quantisation",
    )


def test_a_vocabularys_tables_count_in_the_process() -> None:
    without = {key: value for key, value in SMOLLM2.items() if key != "vocab_size"}

    assert estimate(SMOLLM2, 1).process - estimate(without, 1).process == 200 * 49152


def test_a_guess_is_on_the_large_side_for_a_small_model_too() -> None:
    known, guessed = estimate(SMOLLM2, 98_362_432), estimate({}, 98_362_432)

    assert 1 <= guessed.total / known.total < 1.25
