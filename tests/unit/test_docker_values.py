"""What is wanted and what is seen, between our words and the engine's: containers, use, GPUs, logs, pulls."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiodocker.exceptions import DockerError
from hypothesis import given
from hypothesis import strategies as st

from corral.containers import specs, streams
from corral.containers.contexts import Place
from corral.containers.failures import is_port_taken, translated, unreachable
from corral.containers.gpus import Share, container_of, shares
from corral.containers.meters import Samples, usage
from corral.containers.ports import containers_with
from corral.containers.pulling import Pulled
from corral.containers.streams import JsonReader, LogReader, Rest
from corral.domain.containers import ContainerSpec, Line, Mount, Port, Seen
from corral.domain.hardware import Gpu, GpuProcess
from corral.domain.ports import Progress
from corral.errors import (
    ConfigError,
    Conflict,
    ContainerError,
    ContainerNotFound,
    CorralError,
    DiskFull,
    DockerUnavailable,
    ImageNotFound,
)

ONE, TWO = "1" * 64, "2" * 64


def test_a_container_for_gpus_asks_for_those_and_publishes_on_loopback():
    spec = ContainerSpec("a", "corral-a", "ollama", "ollama/ollama", gpus=("0", "GPU-1"), ports=(Port(11434, 11435),))
    host = specs.creation(spec, "yard", "ollama/ollama")["HostConfig"]
    assert host["DeviceRequests"] == [{"Driver": "nvidia", "Capabilities": [["gpu"]], "DeviceIDs": ["0", "GPU-1"]}]
    assert host["PortBindings"] == {"11434/tcp": [{"HostIp": "127.0.0.1", "HostPort": "11435"}]}
    assert host["PidsLimit"] == specs.PIDS
    assert (host["Init"], host["RestartPolicy"]) == (True, {"Name": "no"})
    assert "Memory" not in host
    everything = ContainerSpec("a", "corral-a", "ollama", "x", gpus=("all",), network="host", ports=spec.ports)
    body = specs.creation(everything, "yard", "x", init=False)
    assert body["HostConfig"]["DeviceRequests"][0]["Count"] == -1
    assert body["HostConfig"]["PortBindings"] == {}
    assert "Init" not in body["HostConfig"]
    assert "Cmd" not in body
    assert body["Labels"]["corral.yard"] == "yard"


@pytest.mark.parametrize(
    ("gpus", "drivers"),
    [
        ((), []),
        (("all",), ["nvidia"]),
        (("0", "1", "GPU-1"), ["nvidia"]),
        (("nvidia.com/gpu=0", "nvidia.com/gpu=1"), ["cdi"]),
        (("0", "nvidia.com/gpu=1"), ["nvidia", "cdi"]),
    ],
)
def test_gpus_are_asked_of_who_gives_them_and_read_back(gpus: tuple[str, ...], drivers: list[str]):
    spec = ContainerSpec("a", "corral-a", "ollama", "x", gpus=gpus)
    host = specs.creation(spec, "yard", "x")["HostConfig"]
    requests = host.get("DeviceRequests", [])
    assert [request["Driver"] for request in requests] == drivers
    for request in requests:
        assert ("Capabilities" in request) == (request["Driver"] == "nvidia"), "the interface looks at names alone"
    assert described(*requests).gpus == gpus


def test_every_request_for_gpus_counts_and_no_other_one():
    gpu = {"Driver": "", "Capabilities": [["compute", "gpu"]]}
    network = {"Driver": "cdi", "DeviceIDs": ["vendor.com/nic=0", "amd.com/gpu=1"]}
    codes = {"Driver": "vendor", "Count": 1, "Capabilities": [["tpu"]]}
    assert described({**gpu, "DeviceIDs": ["1"]}, codes, network, {**gpu, "Count": 1}).gpus == (
        "0",
        "1",
        "amd.com/gpu=1",
    )
    assert described({**gpu, "DeviceIDs": ["1"]}, {**gpu, "Count": -1}).gpus == ("all",)


def described(*requests: dict[str, Any]) -> ContainerSpec:
    host = {"DeviceRequests": list(requests) or None}
    return specs.spec_of({"Name": "/a", "Config": {"Image": "x"}, "HostConfig": host})


def test_a_list_entry_is_read():
    entry = {
        "Id": ONE,
        "Names": ["/other/alias", "/corral-a"],
        "Image": "x:1",
        "ImageID": "sha256:9",
        "Created": 1_700_000_000,
        "State": "exited",
        "Status": "Exited (137) 3 seconds ago",
        "Labels": {"corral.name": "a"},
        "Ports": [
            {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
            {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
            {"PrivatePort": 81, "Type": "tcp"},
            {"IP": "127.0.0.1", "PrivatePort": 53, "PublicPort": 53, "Type": "udp"},
        ],
    }
    seen = specs.seen_in_list(entry)
    assert (seen.container, seen.exit_code, seen.running, seen.name) == ("corral-a", 137, False, "a")
    assert seen.ports == (Port(80, 8080, "0.0.0.0"),)
    assert not seen.detailed
    for state, up in (("running", True), ("paused", True), ("restarting", True), ("dead", False), ("created", False)):
        seen = specs.seen_in_list({**entry, "State": state, "Status": ""})
        assert (seen.running, seen.exit_code) == (up, None)


def test_a_container_that_compose_made_is_described_without_what_its_image_brings():
    found = {
        "Id": ONE,
        "Name": "/stack-ollama-1",
        "Image": "sha256:9",
        "Config": {
            "Image": "ollama/ollama:latest",
            "Env": ["PATH=/bin", "OLLAMA_KEEP_ALIVE=5m"],
            "Cmd": ["serve"],
            "Entrypoint": ["/bin/ollama"],
            "User": "",
            "WorkingDir": "",
            "Labels": {"com.docker.compose.service": "ollama", "maintainer": "x"},
        },
        "HostConfig": {
            "NetworkMode": "default",
            "PortBindings": {"11434/tcp": [{"HostIp": "", "HostPort": "11434"}], "53/udp": [{"HostPort": "53"}]},
            "DeviceRequests": [{"Driver": "nvidia", "Count": 2, "Capabilities": [["gpu"]]}],
            "ShmSize": 67108864,
            "PidsLimit": None,
            "NanoCpus": 1_500_000_000,
            "Memory": 0,
            "CapAdd": ["CAP_SYS_NICE"],
        },
        "Mounts": [
            {"Type": "volume", "Name": "models", "Destination": "/root/.ollama", "RW": True},
            {"Type": "volume", "Name": "a" * 64, "Destination": "/cache", "RW": True},
            {"Type": "bind", "Source": "/srv/x", "Destination": "/x", "RW": False},
        ],
    }
    image = {
        "Config": {"Env": ["PATH=/bin"], "Cmd": ["serve"], "Entrypoint": ["/bin/ollama"], "Labels": {"maintainer": "x"}}
    }
    assert specs.spec_of(found, image) == ContainerSpec(
        name="stack-ollama-1",
        container="stack-ollama-1",
        kind="",
        image="ollama/ollama:latest",
        environment={"OLLAMA_KEEP_ALIVE": "5m"},
        ports=(Port(11434, 11434, "0.0.0.0"),),
        mounts=(Mount("models", "/root/.ollama"), Mount("/srv/x", "/x", read_only=True)),
        gpus=("0", "1"),
        cpus=1.5,
        capabilities=("SYS_NICE",),
        stop_grace=10.0,
        labels={"com.docker.compose.service": "ollama"},
    )
    alone = specs.spec_of(found)
    assert (alone.command, alone.entrypoint) == (("serve",), ("/bin/ollama",))


@pytest.mark.parametrize("source", ["/", "/etc", "/proc/1", "/dev/shm", "/run/user", "/srv/docker/volumes", "/srv"])
def test_mounts_that_would_give_the_machine_away(source: str):
    with pytest.raises(ConfigError, match=source):
        specs.refuse_mounts([Mount(source, "/x")], ["/run/user/1000/docker.sock"], "/srv/docker")


def test_other_mounts_are_fine():
    specs.refuse_mounts(
        [Mount("/srv/models", "/x"), Mount("etc", "/x"), Mount("/etcetera", "/y")], ["/run/d"], "/srv/d"
    )
    specs.refuse_capabilities(["SYS_NICE"])


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("ollama/ollama", ("ollama/ollama", None)),
        ("localhost:5000/x", ("localhost:5000/x", None)),
        ("localhost:5000/x:1", ("localhost:5000/x", "1")),
        ("x:1@sha256:00", ("x", "1")),
        ("x@sha256:00", ("x", None)),
    ],
)
def test_a_reference_has_a_repository_and_perhaps_a_tag(reference: str, found: tuple[str, str | None]):
    assert specs.parted(reference) == found


def test_times_of_the_engine():
    assert specs.moment("0001-01-01T00:00:00Z") is None
    assert specs.moment("") is None
    assert specs.moment("1970-01-01T00:00:01.123456789Z") == pytest.approx(1.123456, abs=1e-6)
    assert specs.moment("1970-01-01T01:00:01+01:00") == 1


STATS: dict[str, Any] = {
    "read": "2026-01-01T00:00:02Z",
    "preread": "2026-01-01T00:00:00Z",
    "cpu_stats": {
        "cpu_usage": {"total_usage": 5_000_000_000},
        "throttling_data": {"periods": 30, "throttled_periods": 15},
    },
    "precpu_stats": {
        "cpu_usage": {"total_usage": 2_000_000_000},
        "throttling_data": {"periods": 10, "throttled_periods": 10},
    },
    "pids_stats": {"current": 7},
    "blkio_stats": {
        "io_service_bytes_recursive": [
            {"op": "Read", "value": 10},
            {"op": "read", "value": 5},
            {"op": "Write", "value": 3},
            {"op": "Total", "value": 99},
        ]
    },
    "networks": {"eth0": {"rx_bytes": 1, "tx_bytes": 2}, "eth1": {"rx_bytes": 10, "tx_bytes": 20}},
}


@pytest.mark.parametrize(
    "stats", [{"total_inactive_file": 30, "inactive_file": 1}, {"inactive_file": 30}], ids=["version 1", "version 2"]
)
def test_use_with_both_versions_of_control_groups(stats: dict[str, int]):
    found = usage({**STATS, "memory_stats": {"usage": 100, "limit": 500, "stats": stats}}, machine=1000)
    assert found is not None
    assert (found.cpu, found.memory, found.memory_limit, found.pids) == (1.5, 70, 500, 7)
    assert (found.received, found.sent, found.read, found.written) == (11, 22, 15, 3)
    assert found.throttled == 0.25


def test_use_that_is_not_known_is_none():
    memory = {"usage": 100, "limit": 1000, "stats": {}}
    bare = {"read": STATS["read"], "preread": "0001-01-01T00:00:00Z", "memory_stats": memory, "blkio_stats": {}}
    found = usage(bare, machine=1000)
    assert found is not None
    assert (found.cpu, found.memory, found.memory_limit) == (None, 100, None)
    assert (found.received, found.read, found.throttled) == (None, None, None)
    assert usage({"read": "0001-01-01T00:00:00Z", "memory_stats": {}}) is None
    assert usage({"read": STATS["read"], "memory_stats": {}, "pids_stats": {}}) is None


def in_container(proc: Path, pid: int, text: str) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "cgroup").write_text(text)


def test_a_sample_stands_beside_the_last_one_unless_that_is_old_or_of_another_life():
    def sample(second: float, total: int, who: str = ONE) -> dict[str, Any]:
        read = datetime.fromtimestamp(1_700_000_000 + second, UTC).isoformat()
        return {"id": who, "read": read, "cpu_stats": {"cpu_usage": {"total_usage": total}}, "memory_stats": {}}

    kept = Samples()
    assert kept.before(sample(0, 5)) is None
    kept.keep(sample(0, 5))
    before = kept.before(sample(2, 9))
    assert before is not None
    assert before["cpu_stats"]["cpu_usage"]["total_usage"] == 5
    for other in (sample(0.05, 6), sample(30, 9), sample(2, 4), sample(2, 9, TWO)):
        assert kept.before(other) is None
    kept.keep(sample(40, 1, TWO))
    assert kept.before(sample(2, 9)) is None, "what is old is not kept"


def test_processes_on_gpus_are_told_by_their_control_groups(tmp_path: Path):
    in_container(tmp_path, 1, f"12:memory:/docker/{ONE}\n0::/docker/{ONE}\n")
    in_container(tmp_path, 2, f"0::/system.slice/docker-{TWO}.scope\n")
    in_container(tmp_path, 3, "0::/user.slice/session-1.scope\n")
    assert [container_of(pid, tmp_path) for pid in (1, 2, 3, 4)] == [ONE, TWO, None, None]
    first = Gpu("cuda:0", temperature=50, usage=90, processes=(GpuProcess(1, 10), GpuProcess(3, 500), GpuProcess(2, 7)))
    second = Gpu("cuda:1", temperature=70, usage=None, processes=(GpuProcess(1, 5),))
    assert shares([first, second], tmp_path) == {ONE: Share(15, 70, 90), TWO: Share(7, 50, 90)}
    assert shares([Gpu("cuda:0", processes=())], tmp_path) == {}
    assert shares([], tmp_path) is None
    assert shares(None, tmp_path) is None
    assert shares([first, Gpu("cuda:1", processes=None)], tmp_path) is None
    assert shares([Gpu("cuda:0", processes=(GpuProcess(1, None),))], tmp_path) is None


def frame(text: str, *, error: bool = False, at: str = "2026-01-01T00:00:00.5Z") -> bytes:
    data = f"{at} {text}".encode()
    return bytes([2 if error else 1, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


def read(reader: LogReader, *pieces: bytes) -> Iterator[Line]:
    for piece in pieces:
        yield from reader.feed(piece)
    yield from reader.end()


@given(st.data())
def test_lines_are_the_same_wherever_the_bytes_are_cut(data: st.DataObject):
    whole = (
        frame("one\n")
        + frame("two: ü", error=True)
        + frame("x" * 99)
        + frame("y\n", at="2026-01-01T00:00:09Z")
        + frame("\n")
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    found = list(read(LogReader(terminal=False), *pieces))
    assert [(line.text, line.error) for line in found] == [
        ("one", False),
        ("x" * 99 + "y", False),
        ("", False),
        ("two: ü", True),
    ]
    assert len({line.at for line in found}) == 1


def test_a_terminal_has_one_stream():
    whole = b"2026-01-01T00:00:00Z one\r\n2026-01-01T00:00:00Z \r\nno time\n2026-13 odd\nrest"
    for size in (1, 7, 999):
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        found = list(read(LogReader(terminal=True), *pieces))
        assert [line.text for line in found] == ["one", "", "no time", "2026-13 odd", "rest"]
        assert found[2].at is None


@pytest.mark.parametrize("terminal", [True, False])
def test_a_line_without_an_end_is_cut_and_not_kept(terminal: bool):
    reader = LogReader(terminal=terminal)
    piece = b"x" * 16_384 if terminal else frame("x" * 16_384)
    found = [line for _ in range(40) for line in reader.feed(piece)]
    assert len(found) == 2
    assert all(len(line.text) <= streams.LONGEST + 16_384 for line in found)


def test_json_is_read_line_by_line():
    reader = JsonReader()
    assert [*reader.feed(b'{"a": 1}\n\n{"b"'), *reader.feed(b': 2}\r\n{"c'), *reader.feed(b'":3}')] == [
        {"a": 1},
        {"b": 2},
    ]
    with pytest.raises(json.JSONDecodeError):
        list(reader.feed(b"}\n"))


def test_a_pull_goes_forward_only_and_its_total_is_known_when_all_layers_have_told_theirs():
    pulled = Pulled("x:1")

    def heard(layer: str, status: str, current: int = 0, total: int = 0) -> Progress:
        detail = {"current": current, "total": total} if total else {}
        return pulled.heard({"id": layer, "status": status, "progressDetail": detail})

    assert heard("1", "Pulling from library/x").total is None
    heard("a", "Pulling fs layer")
    heard("b", "Pulling fs layer")
    assert heard("a", "Downloading", 10, 100) == Progress("download", 10, None, "x:1")
    assert heard("b", "Downloading", 5, 50) == Progress("download", 15, 150, "x:1")
    assert heard("a", "Downloading", 3, 100).done == 15
    assert heard("a", "Download complete").done == 105
    assert heard("a", "Extracting", 20, 100).phase == "download"
    heard("b", "Verifying Checksum")
    assert heard("a", "Extracting", 50, 100) == Progress("unpack", 50, 150, "x:1")
    heard("a", "Pull complete")
    assert heard("b", "Pull complete") == Progress("unpack", 150, 150, "x:1")


def test_a_layer_that_comes_in_one_piece_tells_no_size():
    pulled = Pulled("x")
    pulled.heard({"id": "a", "status": "Pulling fs layer"})
    assert pulled.heard({"id": "a", "status": "Download complete"}) == Progress("download", 0, 0, "x")


def test_an_event_without_nanoseconds_has_seconds():
    said = {"Action": "die", "Actor": {"ID": ONE, "Attributes": {"name": "a"}}, "time": 5}
    event = specs.event_of(said)
    assert (event.what, event.id, event.container, event.at) == ("die", ONE, "a", 5.0)


def test_who_has_a_port():
    seen = [
        Seen(ONE, "a", "x", running=True, ports=(Port(1, 80),), labels={"corral.yard": "y"}),
        Seen(TWO, "b", "x", running=True, ports=(Port(1, 80, "0.0.0.0"),)),
        Seen("3", "c", "x", running=True, ports=(Port(1, 80, "127.0.0.2"), Port(1, 81))),
        Seen("4", "d", "x", running=False, ports=(Port(1, 80),)),
    ]
    assert containers_with(Port(9, 80), seen, "me") == ["the container a of the Corral y", "the container b"]
    assert containers_with(Port(9, 80), seen, ONE) == ["the container b"]


@pytest.mark.parametrize(
    "words",
    [
        "driver failed programming external connectivity: Bind for 127.0.0.1:1 failed: port is already allocated",
        "Error starting userland proxy: listen tcp4 127.0.0.1:1: bind: address already in use",
        "failed to set up container networking: failed to bind host port 127.0.0.1:1/tcp: address already in use",
    ],
)
def test_the_words_of_engines_for_a_port_that_is_taken(words: str):
    assert is_port_taken(words)
    assert not is_port_taken("no such network")


@pytest.mark.parametrize(
    ("status", "words", "kind", "hint"),
    [
        (500, "write /var/lib/docker/x: no space left on device", DiskFull, "docker system df"),
        (404, "No such image: x:1", ImageNotFound, "docker pull x:1"),
        (500, "manifest for x:1 not found: manifest unknown", ImageNotFound, "docker pull x:1"),
        (500, "Head https://r/v2: unauthorized", ImageNotFound, "docker pull x:1"),
        (400, "invalid reference format", ImageNotFound, "docker pull x:1"),
        (404, "No such container: a", ContainerNotFound, ""),
        (409, "You cannot remove a running container", Conflict, ""),
        (400, "client version 1.51 is too new. Maximum supported API version is 1.41", DockerUnavailable, ""),
        (
            500,
            'could not select device driver "nvidia" with capabilities: [[gpu]]',
            ContainerError,
            "container toolkit",
        ),
        (400, "invalid mount config: bind source path does not exist: /x", ContainerError, "Make the folder"),
        (500, 'exec: "x": executable file not found in $PATH', ContainerError, "entrypoint"),
        (500, "something else", ContainerError, ""),
    ],
)
def test_what_the_engine_refuses_has_our_words(status: int, words: str, kind: type[CorralError], hint: str):
    found = translated(DockerError(status, words), Place("unix:///d", "its usual place"), "start a", "x:1")
    assert type(found) is kind
    assert hint in found.hint


def test_why_an_engine_does_not_answer(tmp_path: Path):
    there = tmp_path / "d.sock"
    there.touch()
    place = Place(f"unix://{there}", "DOCKER_HOST")
    cases = [
        (PermissionError(13, "x"), "may not use", "usermod -aG docker"),
        (ConnectionRefusedError(111, "x"), "nobody listens", "systemctl start docker"),
        (FileNotFoundError(2, "x"), "no such socket", "apt-get install docker.io"),
        (ConnectionResetError(104, "x"), "went away", "docker info"),
    ]
    for error, words, hint in cases:
        found = unreachable(error, place, "list")
        assert words in found.message
        assert "DOCKER_HOST" in found.message
        assert hint in found.hint


# A log that is read again, since the engine stopped in the middle

SAID = [Line(str(number), 100.0 + number / 10) for number in range(30)]


def rest_of(had: Sequence[Line], again: Sequence[Line]) -> list[Line]:
    rest = Rest()
    for line in had:
        rest.had(line)
    found = [new for line in again if rest.since is None or (line.at or 0) >= rest.since for new in rest.of(line)]
    return [*found, *rest.end()]


@pytest.mark.parametrize("had", [0, 1, 7, 29, 30])
def test_of_a_log_that_is_read_again_what_was_not_read_is_new(had: int) -> None:
    assert rest_of(SAID[:had], SAID) == SAID[had:]


@pytest.mark.parametrize("had", [1, 2, 3])
def test_equal_lines_of_one_moment_are_counted(had: int) -> None:
    same = [Line("the same", 100.0)] * 4
    assert rest_of(same[:had], [*same, Line("other", 100.0)]) == [*same[had:], Line("other", 100.0)]


def test_lines_of_two_streams_may_be_out_of_order() -> None:
    late, early = Line("out", 100.5), Line("wrong", 100.2, error=True)
    between = Line("before", 100.9)
    assert rest_of([between, late], [between, late, early, Line("end", 100.6)]) == [early, Line("end", 100.6)]


def test_what_was_read_last_may_be_thrown_away_by_now() -> None:
    assert rest_of(SAID[:2], SAID[5:]) == SAID[5:]
    assert rest_of(SAID[:2], SAID[5:8]) == SAID[5:8]
    assert rest_of(SAID[:2], []) == []


def test_lines_without_a_time_are_read_as_before() -> None:
    lines = [Line("a"), Line("b"), Line("c")]
    assert rest_of(lines[:2], lines) == lines[2:]
