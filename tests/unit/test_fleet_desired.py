"""The configuration as specs: what each entry becomes, and how it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corral.app.contained import entry_of
from corral.config import ContainerSettings, load
from corral.config.loading import container_settings
from corral.domain.containers import Mount, Port, Wanted
from corral.errors import ConfigError
from corral.fleet.checks import refuse_mount
from corral.fleet.desired import all_wanted, url_of, wanted
from corral.fleet.kinds import KINDS, kind_of, names_model, serving

BASE = Path("/srv/corral")
DIGEST = "sha256:" + "ab" * 32


def one(env: dict[str, str] | None = None, **entry: Any) -> Wanted:
    return wanted("qwen", ContainerSettings(**entry), env or {}, base=BASE)


def refused(env: dict[str, str] | None = None, **entry: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        one(env, **entry)
    assert caught.value.hint
    return str(caught.value)


def fleet(tmp_path: Path, text: str, env: dict[str, str] | None = None) -> dict[str, Wanted]:
    file = tmp_path / "corral.yaml"
    file.write_text(text)
    return all_wanted(load(env={"HOME": str(tmp_path)}, file=file), env or {})


def test_an_empty_entry_is_ollama() -> None:
    found = one()
    spec = found.spec
    assert (spec.name, spec.container, spec.kind, spec.image) == ("qwen", "corral-qwen", "ollama", "ollama/ollama")
    assert spec.ports == (Port(11434, 11434, "127.0.0.1"),)
    assert spec.mounts == (Mount("corral-qwen-models", "/models"),)
    assert spec.environment == {"OLLAMA_MODELS": "/models"}
    assert (spec.command, spec.entrypoint, spec.gpus, spec.capabilities) == (None, None, (), ())
    assert (found.watch.health, found.watch.gpu, found.up, found.purpose) == ("/api/version", False, True, "")
    assert url_of(spec) == "http://127.0.0.1:11434"


def test_three_with_purposes_from_one_file(tmp_path: Path) -> None:
    found = fleet(
        tmp_path,
        """
containers:
  qwen: {purpose: code completion, models: [qwen2.5-coder:7b], port: 11434, gpus: all, memory: 8GiB}
  deepseek: {purpose: technical reasoning, models: [deepseek-r1:8b], gpus: 0}
  mistral: {purpose: writing, models: [mistral:7b], container: writer, enabled: no}
""",
    )
    assert [want.spec.ports[0].outside for want in found.values()] == [11434, 11435, 11436]
    assert [want.purpose for want in found.values()] == ["code completion", "technical reasoning", "writing"]
    assert found["qwen"].spec.gpus == ("all",)
    assert found["qwen"].watch.gpu
    assert found["deepseek"].spec.gpus == ("0",)
    assert found["qwen"].spec.memory == 8 * 2**30
    assert (found["mistral"].spec.container, found["mistral"].up) == ("writer", False)
    assert len({want.spec.fingerprint() for want in found.values()}) == 3


def test_ports_that_are_given_come_first(tmp_path: Path) -> None:
    found = fleet(
        tmp_path,
        "containers:\n  a: {}\n  b: {port: 11434}\n  c: {ports: ['11435:9']}\n  d: {kind: vllm, models: [m/n]}\n",
    )
    assert [want.spec.ports[0].outside for want in found.values()] == [11436, 11434, 11437, 8000]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: {port: 1}\n  b: {port: 1}", ["containers.b has port 1", "containers.a has too", "containers.b.port: 2"]),
        ("a: {port: 1}\n  b: {ports: ['1:5']}", ["containers.b has port 1", "containers.a"]),
        ("a: {port: 1, host: 127.0.0.2}\n  b: {port: 1, host: 0.0.0.0}", ["port 1"]),
        ("a: {port: 1, host: '::'}\n  b: {port: 1}", ["port 1"]),
        ("a: {port: 1, ports: ['1:5']}", ["containers.a has port 1 twice"]),
        ("a: {container: x1}\n  b: {container: x1}", ["'x1'", "containers.a", "containers.b"]),
        ("a: {host: nowhere}", ["containers.a.host", "'nowhere'", "corral.yaml:2"]),
        ("a: {memory: 1MB}", ["corral.yaml:2: containers.a.memory", "6 MiB"]),
        ("A: {}", ["'A' cannot name a container"]),
    ],
)
def test_what_cannot_be_together_names_both_and_where(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        fleet(tmp_path, f"containers:\n  {text}\n")
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_one_port_on_two_addresses(tmp_path: Path) -> None:
    found = fleet(tmp_path, "containers:\n  a: {port: 1, host: 127.0.0.2}\n  b: {port: 1}\n")
    assert [url_of(want.spec) for want in found.values()] == ["http://127.0.0.2:1", "http://127.0.0.1:1"]


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("localhost", "http://127.0.0.1:5"),
        ("0.0.0.0", "http://127.0.0.1:5"),
        ("::", "http://[::1]:5"),
        ("::1", "http://[::1]:5"),
        ("10.0.0.2", "http://10.0.0.2:5"),
    ],
)
def test_where_it_is_asked(host: str, url: str) -> None:
    assert url_of(one(port=5, host=host).spec) == url


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        ("ollama/ollama:0.5.4", "ollama"),
        ("docker.io/ollama/ollama@" + DIGEST, "ollama"),
        ("localhost:5000/my-ollama:x", "ollama"),
        ("ghcr.io/ggml-org/llama.cpp:server-cuda", "llamacpp"),
        ("ghcr.io/ggml-org/llama.cpp/server:x", "llamacpp"),
        ("vllm/vllm-openai:v0.9", "vllm"),
        ("ollama/something-else", "openai"),
        ("ghcr.io/open-webui/open-webui:ollama", "openai"),
        ("lmsysorg/sglang", "openai"),
    ],
)
def test_the_image_tells_the_kind(image: str, kind: str) -> None:
    assert kind_of(image).name == kind
    assert kind_of(image, "vllm").name == "vllm"


def test_a_kind_that_is_none() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'ollama'"):
        kind_of(None, "olama")
    with pytest.raises(ConfigError, match="Kinds: ollama, llamacpp"):
        kind_of(None, "zzz")


def test_every_kind_is_whole() -> None:
    for name, kind in KINDS.items():
        assert kind.name == name
        assert kind.health.startswith("/")
        assert kind.dialect in ("ollama", "openai")
        assert kind.keeps_models == (name == "ollama")


@pytest.mark.parametrize(
    ("kind", "models", "command", "becomes"),
    [
        ("ollama", ("a", "b"), None, None),
        ("llamacpp", (), None, None),
        ("llamacpp", ("x.gguf",), None, ("-m", "/models/x.gguf", "--alias", "x.gguf")),
        ("llamacpp", ("/w/x.gguf",), None, ("-m", "/w/x.gguf", "--alias", "/w/x.gguf")),
        ("llamacpp", ("org/repo:Q4_K_M",), None, ("-hf", "org/repo:Q4_K_M", "--alias", "org/repo:Q4_K_M")),
        ("llamacpp", ("smollm2",), ("-c", "512"), ("-c", "512", "-m", "/models/smollm2.gguf", "--alias", "smollm2")),
        ("llamacpp", ("a", "b"), ("--models-dir", "/models"), ("--models-dir", "/models")),
        ("llamacpp", ("a",), ("--model=/x",), ("--model=/x",)),
        ("vllm", ("org/m",), None, ("--model", "org/m", "--served-model-name", "org/m")),
        ("openai", ("a",), ("serve", "a"), ("serve", "a")),
    ],
)
def test_models_as_arguments(kind: str, models: tuple[str, ...], command: Any, becomes: Any) -> None:
    assert serving(KINDS[kind], models, command) == becomes


def test_several_models_where_one_is_served() -> None:
    assert "containers.qwen.models: A container of kind vllm serves one model" in refused(
        kind="vllm", models=("a", "b")
    )
    assert names_model(KINDS["vllm"], ["--model=x"])


def test_where_models_are_kept() -> None:
    def kept(**entry: Any) -> tuple[str | None, tuple[Mount, ...]]:
        spec = one(**entry).spec
        return spec.environment.get("OLLAMA_MODELS"), spec.mounts

    own = {"OLLAMA_MODELS": "/data/m"}
    assert kept(environment=own) == ("/data/m", ())
    assert kept(volumes={"v1": "/models"})[1] == (Mount("v1", "/models"),)
    assert kept(volumes={"ollama": "/root/.ollama"}) == (None, (Mount("ollama", "/root/.ollama"),))
    assert kept(volumes={"/srv/w": "/weights:ro"})[1] == (
        Mount("/srv/w", "/weights", read_only=True),
        Mount("corral-qwen-models", "/models"),
    )
    assert one(kind="vllm", models=("a/b",)).spec.environment == {"HF_HOME": "/models"}
    assert one(image="x/y").spec.mounts == ()


def test_a_root_that_cannot_be_written_has_room_in_memory() -> None:
    assert one(read_only=True).spec.tmpfs == {"/tmp": "rw", "/root/.ollama": "rw"}
    spec = one(read_only=True, volumes={"o1": "/root/.ollama"}, tmpfs={"/tmp": "size=64m"}).spec
    assert spec.tmpfs == {"/tmp": "size=64m"}


def test_another_port_inside() -> None:
    assert one(inside=9000).spec.environment["OLLAMA_HOST"] == "0.0.0.0:9000"
    assert one(inside=9000, environment={"OLLAMA_HOST": "x"}).spec.environment["OLLAMA_HOST"] == "x"
    assert one(kind="llamacpp", inside=9000).spec.environment["LLAMA_ARG_PORT"] == "9000"
    assert one(kind="vllm", inside=9000, models=("m/n",)).spec.command == (
        *("--model", "m/n", "--served-model-name", "m/n"),
        *("--host", "0.0.0.0", "--port", "9000"),
    )
    assert one(kind="vllm", inside=9000, command=("--port=9000",)).spec.command == ("--port=9000",)


def test_the_machines_own_network() -> None:
    spec = one(network="host", port=9000).spec
    assert (spec.ports, spec.environment["OLLAMA_HOST"]) == ((Port(9000, 9000),), "127.0.0.1:9000")
    assert one(network="host", inside=9000).spec.ports == (Port(9000, 9000),)
    assert one(network="host", port=9, host="::1").spec.environment["OLLAMA_HOST"] == "[::1]:9"
    assert "one port" in refused(network="host", port=1, inside=2)
    assert "containers.qwen.ports" in refused(network="host", ports=("1:2",))


def test_variables_of_corral() -> None:
    env = {"TOKEN": "s3cret", "WHO": "me"}
    given = {"A": "$TOKEN", "B": "x-${WHO}-y", "C": "$$HOME", "D": 5, "E": True, "F": None, "G": "100%"}
    found = one(env, environment=given).spec
    assert {key: found.environment[key] for key in given} == {
        "A": "s3cret", "B": "x-me-y", "C": "$HOME", "D": "5", "E": "true", "F": "", "G": "100%"
    }  # fmt: skip
    assert "s3cret" not in repr(found)
    told = refused(environment={"A": "$MISSING"})
    assert "containers.qwen.environment.A" in told
    assert "MISSING" in told
    assert "no text" in refused(environment={"A": ["x"]})
    assert "no variable" in refused(environment={"A B": "x"})


def test_digests() -> None:
    assert (one(digest=DIGEST).spec.digest, one(digest=DIGEST).spec.image) == (DIGEST, "ollama/ollama")
    pinned = one(image=f"ollama/ollama:0.5@{DIGEST}").spec
    assert (pinned.image, pinned.digest) == ("ollama/ollama:0.5", DIGEST)
    assert one(image=f"ollama/ollama@{DIGEST}", digest=DIGEST).spec.digest == DIGEST
    assert "another digest" in refused(image=f"ollama/ollama@{DIGEST}", digest="sha256:" + "0" * 64)
    for wrong in ("sha256:abc", DIGEST.upper(), "latest"):
        assert "containers.qwen.digest" in refused(digest=wrong)


@pytest.mark.parametrize("image", ["", "UPPER/case", "a b", "http://x/y", "-x", "x:", "x:y:z"])
def test_images_that_are_none(image: str) -> None:
    if image:
        assert "containers.qwen.image" in refused(image=image, kind="ollama")
    else:
        assert "has no image of its own" in refused(kind="openai")


@pytest.mark.parametrize("image", ["x", "a.b:5000/c/d_e.f-g:T.1-2", "localhost/x", "sha256:" + "0" * 64, "0" * 12])
def test_images_that_are_some(image: str) -> None:
    assert one(image=image).spec.image == image


def test_folders() -> None:
    assert one(volumes={"./w": "/models"}).spec.mounts == (Mount("/srv/corral/w", "/models"),)
    assert one(volumes={"../w": "/models/"}).spec.mounts == (Mount("/srv/w", "/models"),)
    assert one({"HOME": "/people/me"}, volumes={"~/w": "/models"}).spec.mounts == (Mount("/people/me/w", "/models"),)
    assert "no HOME" in refused(volumes={"~/w": "/models"})
    assert "Write ./w/x" in refused(volumes={"w/x": "/models"})
    assert "'z' after its place" in refused(volumes={"w1": "/models:z"})
    assert "'ro:rw' after" in refused(volumes={"w1": "/models:ro:rw"})
    assert "no folder in a container" in refused(volumes={"w1": "models"})
    assert "no folder in a container" in refused(volumes={"w1": "/"})
    assert "at /models" in refused(volumes={"v1": "/models", "v2": "/models/"})
    assert "at /tmp" in refused(volumes={"v1": "/tmp"}, tmpfs={"/tmp": "rw"})
    assert "colon" in refused(volumes={"/a:b": "/models"})


@pytest.mark.parametrize(
    "source",
    [
        *("/", "//", "/.", "/etc", "/etc/", "/etc/ssl", "/proc/1", "/sys", "/dev", "/dev/shm", "/boot"),
        *(
            "/var/run/docker.sock",
            "/run/docker.sock",
            "/run",
            "/var/run",
            "/var",
            "/var/lib",
            "/var/lib/docker/volumes",
        ),
        *("/srv/../etc", "//etc", "/srv/../"),
    ],
)
def test_folders_that_are_refused(source: str) -> None:
    assert refuse_mount(source) is not None
    assert "containers.qwen.volumes" in refused(volumes={source: "/models"})


def test_the_engines_own_places_are_refused() -> None:
    assert refuse_mount("/data/docker") is None
    for source in ("/data/docker", "/data", "/data/docker/volumes"):
        assert refuse_mount(source, ["/data/docker"]) is not None
    for source in ("/srv/models", "/people/me/.ollama", "/var/lib/models", "/data2"):
        assert refuse_mount(source, ["/data/docker"]) is None


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"gpus": ("all", "0")}, "gpus has 'all'"),
        ({"gpus": ("x",)}, "gpus has 'x'"),
        ({"gpus": ("0", "0")}, "twice"),
        ({"cpus": 0.0}, "cpus is 0"),
        ({"memory": 5}, "6 MiB"),
        ({"user": "a b"}, "no user"),
        ({"capabilities": ("SYS_ADMIN",)}, "SYS_ADMIN"),
        ({"capabilities": ("all",)}, "ALL"),
        ({"capabilities": ("x",)}, "'X'"),
        ({"network": "none"}, "nobody could ask"),
        ({"network": "container:x"}, "no network"),
        ({"labels": {"corral.yard": "x"}}, "corral.yard"),
        ({"health": "health"}, "no path"),
        ({"stop_grace": float("inf")}, "never ends"),
        ({"start_timeout": float("inf")}, "never ends"),
        ({"container": "-"}, "cannot name"),
        ({"working": "x"}, "no folder"),
    ],
)
def test_values_that_cannot_be(entry: dict[str, Any], words: str) -> None:
    told = refused(**entry)
    assert words in told
    assert f"containers.qwen.{next(iter(entry))}" in told


def test_values_as_they_become() -> None:
    spec = one(
        gpus=("GPU-1a2b", "1", "nvidia.com/gpu=0"), capabilities=("cap_ipc_lock", "SYS_NICE"), labels={"a": 1},
        user="1000:1000", working="/w/", ports=("8080:80", "0.0.0.0:9:10"), entrypoint=("x",),
    ).spec  # fmt: skip
    assert spec.capabilities == ("IPC_LOCK", "SYS_NICE")
    assert spec.labels == {"a": "1"}
    assert spec.working == "/w"
    assert spec.ports[1:] == (Port(80, 8080), Port(10, 9, "0.0.0.0"))
    assert spec.entrypoint == ("x",)
    assert one(health="/ready", start_timeout=5.0, restart=False).watch.health == "/ready"


def test_a_container_that_is_there_as_an_entry_and_back() -> None:
    spec = one(
        {"SECRET": "pa$$word ${X} $Y"},
        image="ollama/ollama:0.5",
        container="theirs",
        environment={"PASSWORD": "$SECRET", "PLAIN": "1"},
        volumes={"stack_models": "/root/.ollama", "/srv/w": "/weights:ro"},
        gpus=("0", "GPU-1a2b"),
        port=5,
        ports=("0.0.0.0:8:9",),
        memory=2**30,
        read_only=True,
        command=("serve", "$HOME"),
    ).spec
    assert spec.environment["PASSWORD"] == "pa$$word ${X} $Y"
    again = wanted("qwen", container_settings(entry_of(spec), "adopted"), {}).spec
    assert again == spec
