"""Where an engine of llama.cpp stands, and with how many threads it computes."""

import pytest

from corral.domain.memory import Placement
from corral.errors import RuntimeUnavailable
from corral.runtimes._llamacpp.devices import ALL, Ground, computes_on, ground, matching, named, shown
from corral.runtimes._llamacpp.options import LlamaCppOptions
from corral.runtimes._llamacpp.threads import SMALL, Threads, chosen, cores, quota, waiting

TWO = ("cpu", "cuda:0", "cuda:1")
HIDDEN = {"CUDA_VISIBLE_DEVICES": "-1", "HIP_VISIBLE_DEVICES": "-1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("CUDA0", "cuda:0"),
        ("ROCm1", "rocm:1"),
        ("HIP0", "rocm:0"),
        ("MTL0", "mps"),
        ("Metal", "mps"),
        ("Vulkan2", "vulkan:2"),
        ("SYCL", "sycl:0"),
        ("CPU", "cpu"),
        ("A/B", "a/b"),
    ],
)
def test_devices_have_the_names_that_corral_knows_them_by(theirs, ours):
    assert named(theirs) == ours


@pytest.mark.parametrize(
    ("asked", "found"),
    [("cuda:1", ("cuda:1",)), ("cuda", ("cuda:0", "cuda:1")), ("gpu", ("cuda:0", "cuda:1")), ("rocm", ())],
)
def test_a_device_may_be_named_by_its_kind(asked, found):
    assert matching(asked, ("cuda:0", "cuda:1")) == found


def stands(options=None, placement=None, devices=TWO, env=None):
    return ground(LlamaCppOptions(**(options or {})), placement, devices, env or {})


def test_where_nobody_counts_llama_cpp_finds_out_what_fits():
    assert stands() == Ground(("cuda:0", "cuda:1"))
    assert stands({"gpu_layers": 7}).layers == 7


def test_a_planned_engine_sees_its_own_gpus_and_no_others():
    found = stands(placement=Placement({"cuda:1": 1, "cpu": 1}, layers=12))
    assert (found.gpus, found.layers, found.split) == (("cuda:1",), 12, ())
    assert dict(found.environment)["CUDA_VISIBLE_DEVICES"] == "1"
    assert stands(placement=Placement({"cuda:0": 1})).layers == ALL


def test_several_gpus_share_as_memory_was_set_aside():
    placed = Placement({"cuda:0": 30, "cuda:1": 10, "cpu": 5})
    assert stands(placement=placed).split == (30.0, 10.0)
    assert stands({"tensor_split": (1.0, 1.0)}, placed).split == (1.0, 1.0)


@pytest.mark.parametrize(
    ("options", "placement"), [({}, Placement({"cpu": 1})), ({"gpu_layers": 0}, None), ({"device": "cpu"}, None)]
)
def test_an_engine_of_the_processor_sees_no_gpu(options, placement):
    found = stands(options, placement)
    assert (found.gpus, found.layers, dict(found.environment)) == ((), 0, HIDDEN)


def test_a_gpu_set_aside_that_the_build_cannot_use_is_said():
    found = stands(placement=Placement({"cuda:0": 1, "cpu": 1}), devices=("cpu",))
    assert found.layers == 0
    assert "cuda:0 was set aside for it, and this build of xllamacpp can use cpu" in found.notes[0]


def test_layers_for_a_gpu_that_is_not_there_are_said():
    for placement in (None, Placement({"cpu": 1})):
        assert "gpu_layers: 9 has no effect" in stands({"gpu_layers": 9}, placement, ("cpu",)).notes[0]


def test_a_device_that_was_asked_for_by_name_is_had_or_refused():
    with pytest.raises(RuntimeUnavailable, match="'rocm', and this build of xllamacpp can use cpu, cuda:0, cuda:1"):
        stands({"device": "rocm"})
    found = stands({"device": "cuda:1"})
    assert (found.gpus, dict(found.environment)["CUDA_VISIBLE_DEVICES"]) == (("cuda:1",), "1")


def test_what_could_not_be_asked_is_believed():
    assert stands({"device": "cuda:1"}, devices=()).gpus == ("cuda:1",)
    assert stands({"device": "cuda"}, devices=()).environment == ()
    assert stands(placement=Placement({"cuda:0": 1}), devices=()).gpus == ("cuda:0",)


@pytest.mark.parametrize(
    ("env", "gpus", "cuda", "rocm"),
    [
        ({}, ("cuda:0", "cuda:2"), "0,2", "-1"),
        ({"CUDA_VISIBLE_DEVICES": "3, 5"}, ("cuda:1",), "5", "-1"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-ab,GPU-cd"}, ("cuda:0",), "GPU-ab", "-1"),
        ({"CUDA_VISIBLE_DEVICES": "3"}, ("cuda:4",), "-1", "-1"),
        ({}, ("rocm:1",), "-1", "1"),
    ],
)
def test_gpus_are_counted_among_those_that_are_shown(env, gpus, cuda, rocm):
    found = dict(shown(gpus, env))
    assert (found["CUDA_VISIBLE_DEVICES"], found["HIP_VISIBLE_DEVICES"]) == (cuda, rocm)


SAID = ["0.1 I load_tensors: offloaded {}/31 layers to GPU"]


@pytest.mark.parametrize(
    ("at", "seen", "layers", "device", "notes"),
    [
        (Ground(("cuda:1",), 12), ["CUDA0"], 12, "cuda:1", ("12 of 31 layers are on the GPU.",)),
        (Ground(("cuda:1",), ALL), ["CUDA0"], 31, "cuda:1", ()),
        (Ground(("cuda:1",)), ["CUDA0"], 0, "cpu", ()),
        (Ground(("cuda:1",)), ["CUDA0"], None, "cuda:1", ()),
        (Ground(), ["CUDA0"], None, "cuda:0", ()),
        (Ground(layers=0), ["CUDA0"], None, "cpu", ()),
        (Ground(notes=("a",)), [], None, "cpu", ("a",)),
        (Ground(("cuda:1",)), [], None, "cpu", ("cuda:1 was not found: it computes on the processor.",)),
    ],
)
def test_it_tells_where_it_really_computes(at, seen, layers, device, notes):
    log = [] if layers is None else [line.format(layers) for line in SAID]
    assert computes_on(at, seen, log, 0) == (device, notes)


def test_the_main_gpu_is_the_one_it_computes_on():
    both = Ground(("cuda:0", "cuda:1"))
    assert computes_on(both, ["CUDA0", "CUDA1"], [], 1)[0] == "cuda:1"
    assert computes_on(both, ["CUDA0", "CUDA1"], [], 5)[0] == "cuda:0"


@pytest.mark.parametrize(
    ("options", "size", "threads"),
    [
        ({}, SMALL, Threads(1, 8)),
        ({}, SMALL + 1, Threads(8, 8)),
        ({"threads": 3}, SMALL, Threads(3, 3)),
        ({"threads": 3, "threads_batch": 6}, SMALL, Threads(3, 6)),
        ({"threads_batch": 6}, SMALL, Threads(1, 6)),
    ],
)
def test_a_small_model_writes_with_one_thread(options, size, threads):
    assert chosen(LlamaCppOptions(**options), size, 8) == threads


def test_there_is_a_core_at_least():
    assert cores() >= 1


@pytest.mark.parametrize(
    ("env", "poll", "set_"),
    [
        ({}, 0, {"OMP_WAIT_POLICY": "passive"}),
        ({}, 50, {}),
        ({"OMP_WAIT_POLICY": "active"}, 0, {}),
        ({"GOMP_SPINCOUNT": "9"}, 0, {}),
    ],
)
def test_threads_sleep_while_they_wait_unless_told_otherwise(env, poll, set_):
    assert waiting(env, poll) == set_


@pytest.mark.parametrize(
    ("membership", "files", "limit"),
    [
        ("0::/a/b\n", {"a/cpu.max": "150000 100000\n", "a/b/cpu.max": "max 100000\n"}, 2),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "300000 100000\n"}, 3),
        ("0::/\n", {}, None),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        (
            "4:cpu,cpuacct:/x\n1:name=y:/\n",
            {"cpu/x/cpu.cfs_quota_us": "250000", "cpu/x/cpu.cfs_period_us": "100000"},
            3,
        ),
        ("4:cpu,cpuacct:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, None),
        (None, {}, None),
    ],
)
def test_a_container_s_quota_bounds_the_cores(tmp_path, membership, files, limit):
    group = tmp_path / "cgroup"
    if membership is not None:
        group.write_text(membership)
    for name, text in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert quota(group, tmp_path / "fs") == limit
