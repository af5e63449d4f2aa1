"""What an engine's container is made of: options, files and placement, without a Docker engine."""

from __future__ import annotations

import pytest

from corral.domain.memory import Placement
from corral.domain.models import FileEntry, Revision
from corral.domain.options import parse_options
from corral.domain.ports import LaunchSpec
from corral.errors import InvalidRequest
from corral.runtimes._container.made import make, mounted
from corral.runtimes._container.options import ContainerOptions

GB = 1024**3


def spec(files=None, placement=None, name="a/Model:7b", **options):
    given = parse_options(ContainerOptions, options, "container")
    return LaunchSpec(name, given, files or {}, None, 30.0, placement)


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "0a1b2c"
    path.write_bytes(b"GGUF")
    return {"model": path}


def words(made):
    """The command as pairs of a flag and what follows it."""
    command = made.spec.command
    return {word: command[place + 1 : place + 2] for place, word in enumerate(command) if word.startswith("--")}


def test_a_model_on_the_processor(weights, tmp_path):
    made = make(spec(weights, Placement({"cpu": 4 * GB}), context=2048, slots=2), 4711, "1 2 boot")
    container = made.spec
    assert container.image == "ghcr.io/ggml-org/llama.cpp:server"
    assert [(mount.source, mount.target, mount.read_only) for mount in container.mounts] == [
        (str(tmp_path / "0a1b2c"), "/models/model.gguf", True)
    ]
    assert words(made)["--model"] == ("/models/model.gguf",)
    assert words(made)["--ctx-size"] == ("4096",)
    assert words(made)["--parallel"] == ("2",)
    assert words(made)["--n-gpu-layers"] == ("0",)
    assert words(made)["--alias"] == ("a/Model:7b",)
    assert (container.ports[0].inside, container.ports[0].outside, container.ports[0].host) == (8080, 4711, "127.0.0.1")
    assert container.memory == 5 * GB + 256 * 1024**2
    assert container.gpus == ()
    assert made.gpu is None
    assert container.read_only
    assert container.labels == {"corral.owner": "1 2 boot"}
    assert container.container.startswith("corral-engine-a-model-7b-")


def test_its_key_is_in_no_argument_and_in_nothing_that_is_shown(weights):
    made = make(spec(weights), 4711, "")
    assert made.spec.environment["LLAMA_API_KEY"] == made.key
    assert made.key
    assert made.key not in repr(made)
    assert made.key not in str(made.spec.command)


@pytest.mark.parametrize(
    ("placement", "gpus", "layers", "device"),
    [
        (Placement({"cuda:1": 6 * GB, "cpu": GB}), ("1",), "999", "cuda:1"),
        (Placement({"cuda:0": 6 * GB, "cuda:1": 6 * GB}), ("0", "1"), "999", "cuda:0"),
        (Placement({"cuda:0": 6 * GB, "cpu": GB}, layers=12), ("0",), "12", "cuda:0"),
        (Placement({"cpu": GB}), (), "0", None),
        (None, (), "0", None),
    ],
)
def test_it_gets_the_gpus_that_the_scheduler_gave_it(weights, placement, gpus, layers, device):
    made = make(spec(weights, placement), 4711, "")
    assert made.spec.gpus == gpus
    assert words(made)["--n-gpu-layers"] == (layers,)
    assert made.gpu == device
    assert made.spec.image.endswith(":server-cuda" if gpus else ":server")


def test_what_is_said_wins_over_what_was_placed(weights):
    made = make(
        spec(weights, Placement({"cuda:0": GB}), gpus=["GPU-1"], gpu_layers=3, memory=GB, image="mine:1"), 4711, ""
    )
    assert made.spec.gpus == ("GPU-1",)
    assert words(made)["--n-gpu-layers"] == ("3",)
    assert made.spec.memory == GB
    assert made.spec.image == "mine:1"
    assert make(spec(weights, Placement({"cuda:0": GB}), gpus=[]), 4711, "").gpu is None


def test_without_a_placement_there_is_no_limit(weights):
    assert make(spec(weights), 4711, "").spec.memory is None


def test_on_the_machines_own_network_it_listens_on_loopback_alone(weights):
    made = make(spec(weights, network="host"), 4711, "")
    assert words(made)["--host"] == ("127.0.0.1",)
    assert words(made)["--port"] == ("4711",)


def test_a_snapshot_and_the_pieces_of_a_split_model_are_mounted_by_what_they_lead_to(tmp_path):
    blobs, view = tmp_path / "blobs", tmp_path / "view"
    (view / "sub").mkdir(parents=True)
    blobs.mkdir()
    for number, name in enumerate(("config.json", "sub/x.safetensors", "m-1-of-2.gguf", "m-2-of-2.gguf")):
        (blobs / str(number)).write_bytes(b"x")
        (view / name).symlink_to(blobs / str(number))
    mounts, paths = mounted({"model": view})
    assert paths == {"model": "/models/model"}
    assert {mount.target: mount.source for mount in mounts} == {
        "/models/model/config.json": str(blobs / "0"),
        "/models/model/sub/x.safetensors": str(blobs / "1"),
        "/models/model/m-1-of-2.gguf": str(blobs / "2"),
        "/models/model/m-2-of-2.gguf": str(blobs / "3"),
    }
    _, paths = mounted({"model": view / "m-1-of-2.gguf"})
    assert paths == {"model": "/models/model/m-1-of-2.gguf"}
    assert all(mount.read_only for mount in mounts)


def test_vllm_gets_its_own_words(tmp_path):
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    made = make(spec({"model": folder}, kind="vllm", context=512, args=["--dtype", "half"]), 4711, "")
    assert words(made)["--model"] == ("/models/model",)
    assert words(made)["--max-model-len"] == ("512",)
    assert words(made)["--dtype"] == ("half",)
    assert made.spec.environment["VLLM_API_KEY"] == made.key


def test_any_other_server_says_its_own_command():
    made = make(
        spec(kind="openai", image="mine", command="serve --on '${PORT}' --as ${NAME}", env={"SLOTS": "${SLOTS}"}),
        4711,
        "",
    )
    assert made.spec.command == ("serve", "--on", "8000", "--as", "a/Model:7b")
    assert made.spec.environment == {"SLOTS": "4"}
    assert made.key == ""
    assert made.health == "/v1/models"
    assert make(spec(kind="openai", image="mine"), 4711, "").spec.command is None


def test_the_context_is_the_trained_one_up_to_the_usual_size(weights):
    def revision(trained):
        file = FileEntry("model.gguf", 4, "0" * 64)
        facts = {} if trained is None else {"context_length": trained}
        return Revision("file:x", "gguf", (file,), facts=facts)

    def context(trained):
        launch = LaunchSpec("m", ContainerOptions(slots=1), weights, revision(trained))
        return words(make(launch, 4711, ""))["--ctx-size"]

    assert context(2048) == ("2048",)
    assert context(131072) == ("4096",)
    assert context(None) == ("4096",)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"context": 0}, "'context' for container must be at least 1"),
        ({"memory": 1000}, "'memory' for container must be at least"),
        ({"cpus": 0}, "'cpus' for container must be more than nothing"),
        ({"inside": 99999}, "'inside' for container is no port"),
        ({"kind": "openai"}, "'image' for container is missing"),
        ({"digest": "abc"}, "'digest' for container is 'abc'"),
        ({"health": "health"}, "'health' for container is 'health'"),
        ({"base_path": "/v1\r\nx"}, "'base_path' for container"),
        ({"command": "serve 'x"}, "'command' for container cannot be split"),
        ({"entrypoint": ["a\0b"]}, "'entrypoint' for container has a NUL"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, said):
    with pytest.raises(InvalidRequest, match=said):
        spec(**options)


def test_what_needs_files_says_so():
    with pytest.raises(InvalidRequest, match="'command' for container is missing"):
        make(spec(), 4711, "")
    with pytest.raises(InvalidRequest, match=r"says \$\{MODEL\}, and the model has no files"):
        make(spec(kind="openai", image="mine", command=["serve", "${MODEL}"]), 4711, "")
