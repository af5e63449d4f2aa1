"""Compose files: read into entries, written from them, and what of them is said not to be taken over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.config import ContainerSettings, Settings
from corral.config.loading import container_settings
from corral.domain.containers import Port, Wanted
from corral.errors import ConfigError
from corral.fleet.compose import Imported, plan_compose, read_compose, to_compose
from corral.fleet.compose.keys import OTHER_KEYS
from corral.fleet.compose.text import Filling, parse, variables
from corral.fleet.desired import all_wanted

EXAMPLE = Path(__file__).parents[2] / "examples" / "compose.yml"
FOLDER = Path("/srv/stack")


def read(text: str, env: dict[str, str] | None = None, files: dict[str, str] | None = None) -> Imported:
    return read_compose(text, env or {}, folder=FOLDER, read=(files or {}).get)


def one(body: str, **more: Any) -> dict[str, Any]:
    """The entry of one service of Ollama's, of which nothing is left out."""
    found = service(body, **more)
    assert not found.unsupported, found.unsupported
    return dict(found.entries["a"])


def service(body: str, rest: str = "volumes: {v1: {}}\n", **more: Any) -> Imported:
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return read(f"services:\n  a:\n    image: ollama/ollama\n{lines}{rest}", **more)


def left(found: Imported) -> dict[str, str]:
    return {item.key: item.reason for item in found.unsupported}


def wanted_of(found: Imported, env: dict[str, str] | None = None) -> dict[str, Wanted]:
    entries = {name: container_settings(entry, name) for name, entry in found.entries.items()}
    return all_wanted(Settings(containers=entries), env or {})


def test_three_model_servers_with_reservations_of_the_gpu() -> None:
    found = plan_compose(EXAMPLE, {})
    assert (found.project, list(found.entries)) == ("llm-stack", ["qwen", "deepseek", "mistral"])
    wanted = wanted_of(found)
    specs = [want.spec for want in wanted.values()]
    assert [spec.ports for spec in specs] == [(Port(11434, port),) for port in (11434, 11435, 11436)]
    assert [spec.mounts[0].source for spec in specs] == ["llm-stack_qwen", "llm-stack_deepseek", "mistral-models"]
    assert [spec.container for spec in specs] == ["ollama-qwen", "ollama-deepseek", "ollama-mistral"]
    assert {(spec.image, spec.gpus, spec.memory, spec.kind) for spec in specs} == {
        ("ollama/ollama:0.5.4", ("all",), 12 * 2**30, "ollama")
    }
    assert all(want.watch.gpu and want.watch.restart for want in wanted.values())
    assert [want.up for want in wanted.values()] == [True, True, False]
    assert specs[0].environment == {"OLLAMA_KEEP_ALIVE": "30m", "OLLAMA_NUM_PARALLEL": "2"}
    assert specs[1].environment == {**specs[0].environment, "OLLAMA_CONTEXT_LENGTH": "16384"}
    told = {(item.service, item.key) for item in found.unsupported}
    checks = {(name, f"healthcheck.{key}") for name in found.entries for key in ("test", "interval")}
    assert told == {*checks, ("mistral", "depends_on"), ("mistral", "profiles")}
    assert all(item.reason for item in found.unsupported)
    other = plan_compose(EXAMPLE.parent, {"OLLAMA_TAG": "0.6", "COMPOSE_PROFILES": "x,writing"})
    assert other.entries["qwen"]["image"] == "ollama/ollama:0.6"
    assert "enabled" not in other.entries["mistral"]


def test_that_file_read_written_and_read_again_means_the_same() -> None:
    first = plan_compose(EXAMPLE, {})
    assert wanted_of(again(first)) == wanted_of(first)


def again(found: Imported) -> Imported:
    entries = {name: container_settings(entry, name) for name, entry in found.entries.items()}
    return read(to_compose(entries, all_wanted(Settings(containers=entries), {})))


@pytest.mark.parametrize(
    ("ports", "entry"),
    [
        ("['127.0.0.1:5:11434']", {"port": 5}),
        ("['0.0.0.0:5:11434']", {"port": 5, "host": "0.0.0.0"}),
        ("['[::1]:5:11434/tcp']", {"port": 5, "host": "::1"}),
        ("['127.0.0.1:5:9']", {"port": 5, "inside": 9}),
        ("['127.0.0.1:8:80', '127.0.0.1:5:11434']", {"port": 5, "ports": ["8:80"]}),
        ("['127.0.0.1:5:11434', '0.0.0.0:8:80']", {"port": 5, "ports": ["0.0.0.0:8:80"]}),
        ("[{target: 11434, published: '5', host_ip: 127.0.0.1, mode: host}]", {"port": 5}),
    ],
)
def test_ports(ports: str, entry: dict[str, Any]) -> None:
    assert one(f"ports: {ports}") == {"image": "ollama/ollama", **entry}


@pytest.mark.parametrize(
    ("port", "words"),
    [
        ("'11434'", "any port that is free"),
        ("{target: 11434}", "any port that is free"),
        ("'9000-9002:9000-9002'", "a range of ports"),
        ("'53:53/udp'", "over TCP"),
        ("{target: 1, published: 2, protocol: udp}", "over TCP"),
        ("'0:5'", "no port from 1"),
        ("'x:5'", "no port from 1"),
        ("'8080:11434'", "host: 0.0.0.0"),
        ("{target: 1, published: 2, host_ip: 127.0.0.1, name: web}", "note for people"),
    ],
)
def test_ports_that_are_said(port: str, words: str) -> None:
    found = service(f"ports: [{port}]")
    assert words in " ".join(left(found).values())


def test_ports_are_texts_as_yaml_1_2_has_them() -> None:
    assert parse("a: [22:22, 8080:30, no, 0123, 1_000, 2001-01-01]", "x") == {
        "a": ["22:22", "8080:30", "no", "0123", "1_000", "2001-01-01"]
    }


@pytest.mark.parametrize(
    ("volumes", "becomes"),
    [
        ("['v1:/m']", {"stack_v1": "/m"}),
        ("['v1:/m:ro']", {"stack_v1": "/m:ro"}),
        ("['./w:/m', '../x:/n:rw']", {"/srv/stack/w": "/m", "/srv/x": "/n"}),
        ("['~/.ollama:/root/.ollama']", {"/people/me/.ollama": "/root/.ollama"}),
        ("['/srv/m:/m']", {"/srv/m": "/m"}),
        ("[{type: volume, source: v1, target: /m, read_only: true}]", {"stack_v1": "/m:ro"}),
        ("[{type: bind, source: w, target: /m, bind: {create_host_path: true}}]", {"/srv/stack/w": "/m"}),
        ("['ext:/m', 'old:/n', 'own:/o']", {"ext": "/m", "older": "/n", "mine": "/o"}),
    ],
)
def test_volumes(volumes: str, becomes: dict[str, str]) -> None:
    rest = "volumes: {v1: , ext: {external: true}, old: {external: {name: older}}, own: {name: mine, driver: local}}\n"
    assert one(f"volumes: {volumes}", rest=rest, env={"HOME": "/people/me"})["volumes"] == becomes


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        ("/data", "no name"),
        ("{type: volume, target: /m}", "no name"),
        ("{type: npipe, source: x, target: /m}", "no npipe"),
        ("unknown:/m", "no volume 'unknown'"),
        ("nfs:/m", "driver"),
        ("/var/run/docker.sock:/var/run/docker.sock", "has the machine"),
        ("/:/host:ro", "the whole machine"),
        ("/etc:/etc", "system's own"),
        ("~/x:/m", "whose home"),
        ("v1:/m:z", "left to the engine"),
        ("{type: volume, source: v1, target: /m, volume: {nocopy: true}}", "nocopy"),
    ],
)
def test_volumes_that_are_said(volume: str, words: str) -> None:
    quoted = volume if volume.startswith("{") else f"'{volume}'"
    found = service(f"volumes: [{quoted}]", rest="volumes: {v1: , nfs: {driver: nfs}}\n")
    assert words in left(found).get("volumes", left(found).get("volumes.volume", ""))


def test_one_volume_at_two_places() -> None:
    found = service("volumes: ['v1:/m', 'v1:/n']")
    assert found.entries["a"]["volumes"] == {"stack_v1": "/m"}
    assert "twice" in left(found)["volumes"]


def test_folders_in_memory() -> None:
    assert one("tmpfs: /tmp")["tmpfs"] == {"/tmp": "rw"}
    body = "tmpfs: ['/a:size=1m', /b]\nvolumes: [{type: tmpfs, target: /c, tmpfs: {size: 2m, mode: 0700}}]"
    assert one(body)["tmpfs"] == {"/a": "size=1m", "/b": "rw", "/c": "size=2097152,mode=700"}


def test_the_environment() -> None:
    body = """environment:
  A: 5
  B: true
  C: "x$$y"
  D: ${UNSET}
  E: pre-${UNSET:?say so}-post
  F: ${TAG}
  G: ${UNSET:-usual}
  H:
  HF_TOKEN: ${TAG}
  I: ${API_KEY:-}
"""
    found = service(body, env={"TAG": "t1", "API_KEY": "s3cret"})
    assert found.entries["a"]["environment"] == {
        "A": "5", "B": "true", "C": "x$$y", "D": "${UNSET}", "E": "pre-${UNSET}-post", "F": "t1", "G": "usual",
        "H": "${H}", "HF_TOKEN": "${TAG}", "I": "${API_KEY}",
    }  # fmt: skip
    assert "s3cret" not in repr(found)
    assert left(found).keys() == {"environment.HF_TOKEN", "environment.I"}
    assert "set API_KEY for Corral" in left(found)["environment.I"]
    assert one("environment: [A=1, B, 'C=x=y']")["environment"] == {"A": "1", "B": "${B}", "C": "x=y"}
    spec = wanted_of(found, {"UNSET": "u", "H": "h", "TAG": "t", "API_KEY": "k"})["a"].spec
    assert (spec.environment["C"], spec.environment["E"]) == ("x$y", "pre-u-post")


def test_files_of_variables() -> None:
    files = {
        ".env": "TAG='0.9'\nEMPTY=\n",
        "a.env": "# no\nexport A=1 # one\nB=\"two $A\"\nC='$raw'\nHF_TOKEN=s3cret\nnonsense\n",
        "b.env": "A=9\n",
    }
    body = "env_file: [a.env, {path: b.env}, {path: none.env, required: false}, gone.env]\nenvironment: {B: mine}"
    found = service(body, files=files)
    assert found.entries["a"]["environment"] == {"A": "9", "B": "mine", "C": "$$raw", "HF_TOKEN": "${HF_TOKEN}"}
    assert [item.reason for item in found.unsupported if item.key == "env_file"] == [
        "HF_TOKEN is kept out of corral.yaml: set it for Corral.",
        "gone.env cannot be read.",
    ]
    assert "s3cret" not in repr(found)
    assert read("services: {a: {image: 'ollama/ollama:${TAG}'}}", files=files).entries["a"]["image"].endswith("0.9")
    told = service("env_file: {path: b.env, format: other}", files=files)
    assert "env_file.format" in left(told)


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("$A", "1"), ("${A}", "1"), ("${A}b$A", "1b1"), ("$$A", "$A"), ("$", "$"), ("a$", "a$"), ("$ x", "$ x"),
        ("${N:-d}", "d"), ("${N-d}", "d"), ("${E:-d}", "d"), ("${E-d}", ""), ("${A:-d}", "1"), ("${N:-}", ""),
        ("${N:-${M:-${A}}}", "1"), ("${A:+x}", "x"), ("${N:+x}", ""), ("${E:+x}", ""), ("${E+x}", "x"),
        ("${A:?no}", "1"), ("${E?no}", ""), ("$N", ""), ("${N:-a-b:?c}", "a-b:?c"),
    ],
)  # fmt: skip
def test_variables_are_filled_in_as_compose_does(text: str, becomes: str) -> None:
    assert Filling({"A": "1", "E": ""}.get).text(text) == becomes


@pytest.mark.parametrize("text", ["${N:?why}", "${E:?}", "${N?why}", "${A", "${}", "${1}", "${A!x}"])
def test_variables_that_cannot_be_filled_in(text: str) -> None:
    with pytest.raises(ConfigError):
        Filling({"A": "1", "E": ""}.get).text(text)


def test_a_variable_that_is_needed_names_where() -> None:
    with pytest.raises(ConfigError, match=r"services\.a\.image: The variable TAG is not set: say which"):
        read("services: {a: {image: 'ollama/ollama:${TAG:?say which}'}}")
    found = service("working_dir: /w$UNSET")
    assert left(found) == {"working_dir": "The variable UNSET is not set, and counts as empty."}


@pytest.mark.parametrize(
    ("body", "gpus"),
    [
        ("gpus: all", "all"),
        ("gpus: 2", ["0", "1"]),
        ("gpus: [{driver: nvidia, device_ids: ['1']}]", ["1"]),
        ("runtime: nvidia", "all"),
        ("runtime: nvidia\nenvironment: {NVIDIA_VISIBLE_DEVICES: '1,0'}", ["1", "0"]),
        ("runtime: nvidia\nenvironment: {NVIDIA_VISIBLE_DEVICES: $WHICH}", "all"),
        ("devices: ['nvidia.com/gpu=all']", ["nvidia.com/gpu=all"]),
    ],
)
def test_gpus(body: str, gpus: Any) -> None:
    assert one(body)["gpus"] == gpus


@pytest.mark.parametrize(
    ("device", "gpus"),
    [
        ("{driver: nvidia, count: all, capabilities: [gpu]}", "all"),
        ("{driver: nvidia, count: 1, capabilities: [[gpu, utility]]}", ["0"]),
        ("{capabilities: [gpu]}", "all"),
        ("{driver: nvidia, device_ids: ['0', 'GPU-1a2b3c'], capabilities: [gpu]}", ["0", "GPU-1a2b3c"]),
        ("{driver: cdi, device_ids: ['nvidia.com/gpu=0']}", ["nvidia.com/gpu=0"]),
        ("{driver: amd, count: all, capabilities: [gpu]}", None),
        ("{driver: nvidia, count: all, capabilities: [tpu]}", None),
        ("{driver: nvidia, count: many, capabilities: [gpu]}", None),
    ],
)
def test_reservations(device: str, gpus: Any) -> None:
    found = service(f"deploy: {{resources: {{reservations: {{devices: [{device}]}}}}}}")
    assert found.entries["a"].get("gpus") == gpus
    assert bool(found.unsupported) == (gpus is None)


def test_limits_and_rights() -> None:
    body = """deploy:
  resources: {limits: {cpus: "1.5", memory: 50M, pids: 100}}
  restart_policy: {condition: none}
shm_size: 2gb
user: 1000:1000
read_only: true
cap_add: [CAP_IPC_LOCK]
cap_drop: [ALL]
security_opt: ["no-new-privileges:true"]
init: true
privileged: false
network_mode: host
working_dir: /w
stop_grace_period: 1m30s
labels: [a=b, c]
command: serve --flag "two words"
entrypoint: [/bin/run, 5]
x-note: ours
"""
    assert one(body) == {
        "image": "ollama/ollama", "cpus": 1.5, "memory": 50 * 2**20, "pids": 100, "restart": False, "shm": 2**31,
        "user": "1000:1000", "read_only": True, "capabilities": ["IPC_LOCK"], "network": "host", "working": "/w",
        "stop_grace": 90.0, "labels": {"a": "b", "c": ""}, "command": ["serve", "--flag", "two words"],
        "entrypoint": ["/bin/run", "5"],
    }  # fmt: skip
    assert one("mem_limit: 1g\nmemswap_limit: 1024m\ncpus: 2\npids_limit: -1")["memory"] == 2**30
    assert one("restart: no")["restart"] is False
    assert one("restart: always")["restart"] is True


@pytest.mark.parametrize(
    ("test", "health"),
    [
        ("['CMD', 'curl', '-f', 'http://localhost:11434/api/tags']", "/api/tags"),
        ("curl -fsS http://127.0.0.1:11434/api/version || exit 1", "/api/version"),
        ("['CMD-SHELL', 'wget -qO- http://0.0.0.0:8000 || exit 1']", "/"),
        ("['CMD', 'ollama', 'list']", None),
        ("curl https://example.org/x", None),
        ("['NONE']", None),
    ],
)
def test_health(test: str, health: str | None) -> None:
    found = service(f"healthcheck: {{test: {test}, start_period: 2m}}")
    assert found.entries["a"].get("health") == health
    assert found.entries["a"]["start_timeout"] == 120.0
    assert ("healthcheck.test" in left(found)) == (health is None)


def test_networks() -> None:
    rest = "networks: {front: {external: true, name: proxy}, back: {}, more: {external: true}}\n"
    found = service("networks: {front: , back: {aliases: [x]}, more: }", rest=rest)
    assert found.entries["a"]["network"] == "proxy"
    assert [item.reason.split(":")[0] for item in found.unsupported] == ["back", "more"]
    assert one("networks: [default]") == {"image": "ollama/ollama"}


@pytest.mark.parametrize("key", sorted(OTHER_KEYS.keys() - {"build"}))
def test_every_key_that_is_not_taken_over_is_said(key: str) -> None:
    assert left(service(f"{key}: {{some: thing}}")) == {key: OTHER_KEYS[key]}


@pytest.mark.parametrize(
    ("body", "key", "words"),
    [
        ("imagee: x", "imagee", "did you mean 'image'"),
        ("zzzzzz: x", "zzzzzz", "no such key"),
        ("privileged: true", "privileged", "never"),
        ("deploy: {replicas: 3}", "deploy.replicas", "another entry"),
        ("deploy: {placement: {}}", "deploy.placement", "cluster"),
        ("deploy: {restart_policy: {delay: 5s}}", "deploy.restart_policy.delay", "crash loop"),
        ("deploy: {resources: {limits: {disk: 5}}}", "deploy.resources.limits.disk", "no such limit"),
        ("deploy: {resources: {reservations: {memory: 5g}}}", "deploy.resources.reservations.memory", "reserves"),
        ("devices: [/dev/dri]", "devices", "no other device"),
        ("runtime: runsc", "runtime", "runsc"),
        ("cap_add: [SYS_ADMIN]", "cap_add", "has the machine"),
        ("cap_drop: [NET_RAW]", "cap_drop", "NET_RAW"),
        ("network_mode: none", "network_mode", "could not be asked"),
        ("network_mode: service:b", "network_mode", "service:b"),
        ("stop_grace_period: soon", "stop_grace_period", "'soon'"),
        ("mem_limit: lots", "memory", "lots"),
        ("command: 'un\"closed'", "command", "words"),
        ("healthcheck: {disable: true}", "healthcheck.disable", "always"),
        ("healthcheck: {retries: 3}", "healthcheck.retries", "own settings"),
        ("healthcheck: {start_period: x}", "healthcheck.start_period", "'x'"),
        ("labels: {corral.yard: x}", "labels.corral.yard", "told apart"),
        ("profiles: [gpu]", "profiles", "gpu"),
        ("restart: on-failure:3", "restart", "whatever the exit code"),
        ("x-corral: {colour: red}", "x-corral.colour", "no such key"),
        ("gpus: [{driver: nvidia, options: {a: b}}]", "gpus.options", "driver"),
    ],
)
def test_what_is_said(body: str, key: str, words: str) -> None:
    found = service(body)
    assert words in left(found)[key], found.unsupported
    assert "a" in found.entries


def test_services_that_are_no_model_servers() -> None:
    found = read(
        """
services:
  web: {image: ghcr.io/open-webui/open-webui:ollama}
  built: {build: .}
  A: {image: ollama/ollama}
  a: {image: ollama/ollama}
  -bad-: {image: ollama/ollama}
  wrong: {image: "Not An Image ollama", x-corral: {kind: ollama}}
  mine: {image: example/server, x-corral: {kind: openai, purpose: mine}}
secrets: {x: {file: y}}
include: [z.yaml]
"""
    )
    assert list(found.entries) == ["a", "mine"]
    assert found.services == {"a": "A", "mine": "mine"}
    told = [(item.service, item.key) for item in found.unsupported]
    assert told == [("", "include"), ("", "secrets"), ("web", "image"), ("built", "build"), ("a", ""), ("-bad-", ""),
        ("wrong", "")]  # fmt: skip
    assert found.entries["mine"] == {"kind": "openai", "purpose": "mine", "image": "example/server"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("services:\n\ta: {}", r"compose.yaml:2 is indented with a tab"),
        ("services:\n  a:\n  \timage: x", r"compose.yaml:3 is indented with a tab"),
        ("services: {a: ", r"compose.yaml:1 is not YAML"),
        ("services:\n  a: {}\n  b: {}\n  a: {}", r"compose.yaml:4 gives 'a' again, after line 2"),
        ("services:\n  a:\n    image: x\n    image: y", r":4 gives 'image' again"),
        ("[1, 2]", "does not hold names"),
        ("version: '3'", "has no services"),
        ("", "has no services"),
        ("services: {a: {image: &x [*x]}}", "Check its anchors"),
        ("a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
            f"{b}: &{b} [{', '.join(['*' + a] * 10)}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)
        ) + "services: {}", "too much"),
        ("services: !!python/object:os.system {}", "not YAML"),
        ("x" * (1 << 21), "too long"),
        ("services: " + "[" * 5000, "YAML|nested"),
    ],
)  # fmt: skip
def test_files_that_are_none(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        read(text)
    assert len(str(caught.value)) < 500


def test_files_on_the_disk(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no compose file"):
        plan_compose(tmp_path, {})
    with pytest.raises(ConfigError, match="cannot be read"):
        plan_compose(tmp_path / "none.yml", {})
    folder = tmp_path / "My Stack"
    folder.mkdir()
    (folder / "docker-compose.yml").write_text("services: {a: {image: 'ollama/ollama:${T}', volumes: ['v1:/m']}}\n"
        "volumes: {v1: }")  # fmt: skip
    (folder / ".env").write_text("T=7\n")
    (folder / "docker-compose.override.yml").write_text("services: {}")
    found = plan_compose(folder, {})
    assert found.project == "mystack"
    assert found.entries["a"] == {"image": "ollama/ollama:7", "volumes": {"mystack_v1": "/m"}}
    assert left(found) == {
        "docker-compose.override.yml": "Compose reads it too, over this file; Corral reads one file."
    }
    assert plan_compose(folder / "docker-compose.yml", {"COMPOSE_PROJECT_NAME": "other"}).project == "other"


def test_a_dot_env_file() -> None:
    text = "A=1\nB=${A}2\nC = spaced \nD=a#b\nE='x $A'\nF=\"l\\nm\"\n=x\n9=x\n"
    assert variables(text) == {"A": "1", "B": "12", "C": "spaced", "D": "a#b", "E": "x $A", "F": "l\nm"}


# Written.


def test_what_is_written_gives_as_little_as_corral_does() -> None:
    entries = {"a": ContainerSettings(gpus=("0",), memory=2**30, environment={"HF_TOKEN": "$HF", "P": "100$ $$x ${Q}"})}
    wanted = all_wanted(Settings(containers=entries), {"HF": "s3cret", "Q": "q"})
    text = to_compose(entries, wanted)
    assert "s3cret" not in text
    written = yaml.safe_load(text)["services"]["a"]
    assert written["environment"] == {
        "HF_TOKEN": "${HF}", "P": "100$$ $$x ${Q}", "OLLAMA_MODELS": "/models"
    }  # fmt: skip
    assert written["cap_drop"] == ["ALL"]
    assert written["security_opt"] == ["no-new-privileges:true"]
    assert written["ports"] == ["127.0.0.1:11434:11434"]
    assert written["deploy"]["resources"]["reservations"]["devices"] == [
        {"driver": "nvidia", "device_ids": ["0"], "capabilities": ["gpu"]}
    ]
    assert written["mem_limit"] == written["memswap_limit"] == 2**30
    assert yaml.safe_load(text)["volumes"] == {"corral-a-models": {"name": "corral-a-models"}}


WORDS = st.text("ab $-=/.:'\"é#{}", min_size=1, max_size=12).filter(lambda text: text.strip() == text)
REFERENCES = st.sampled_from(["$VAR", "${VAR}", "$$x", "p${VAR}s", "no", "007", "1e3", "~", "5:5", "a#b", "a: b", "$"])
IMAGES = st.sampled_from(
    ["ollama/ollama", "ollama/ollama:0.5", "ghcr.io/ggml-org/llama.cpp:server", "vllm/vllm-openai"]
)
NAMES = st.sampled_from(["a", "b", "qwen_2.5", "x-y"])


@st.composite
def settings_of(draw: st.DrawFn) -> ContainerSettings:
    """Whatever can be configured, and compose can say."""
    image = draw(IMAGES)
    of: dict[str, Any] = {"image": image}

    def maybe(key: str, values: st.SearchStrategy[Any]) -> None:
        if draw(st.booleans()):
            of[key] = draw(values)

    maybe("kind", st.sampled_from(["ollama", "llamacpp", "vllm", "openai"]))
    maybe("digest", st.just("sha256:" + "0f" * 32))
    maybe("purpose", WORDS)
    maybe("models", st.lists(st.sampled_from(["m:7b", "org/x", "y.gguf"]), min_size=1, max_size=1).map(tuple))
    maybe("inside", st.integers(1, 65535))
    maybe("host", st.sampled_from(["127.0.0.1", "0.0.0.0", "::1", "10.1.2.3"]))
    maybe(
        "gpus", st.sampled_from([("all",), ("0", "1"), ("GPU-1a2b",), ("nvidia.com/gpu=0",), ("nvidia.com/gpu=0", "1")])
    )
    maybe("memory", st.integers(2**23, 2**40))
    maybe("cpus", st.integers(1, 64).map(lambda it: it / 4))
    maybe("shm", st.integers(1, 2**33))
    maybe("pids", st.integers(1, 9999))
    maybe("volumes", st.dictionaries(st.sampled_from(["vol", "/srv/x y", "/srv/$z", "v.2"]),
        st.sampled_from(["/m/a", "/m/b:ro"]), max_size=1))  # fmt: skip
    maybe("tmpfs", st.dictionaries(st.sampled_from(["/t1", "/t2"]), st.sampled_from(["rw", "size=64m,mode=700"])))
    maybe("environment", st.dictionaries(st.sampled_from(["A", "B_2", "API_KEY"]), REFERENCES | WORDS | st.booleans()
        | st.integers() | st.none()))  # fmt: skip
    maybe("entrypoint", st.lists(WORDS, max_size=3).map(tuple))
    maybe("command", st.lists(WORDS, max_size=3).map(tuple))
    maybe("user", st.sampled_from(["1000", "1000:1000", "me"]))
    maybe("read_only", st.booleans())
    maybe("capabilities", st.sampled_from([("IPC_LOCK",), ("IPC_LOCK", "SYS_NICE")]))
    maybe("network", st.sampled_from(["bridge", "host", "proxy"]))
    maybe("working", st.sampled_from(["/w", "/w/x"]))
    maybe("labels", st.dictionaries(st.sampled_from(["l", "m.n"]), WORDS))
    maybe("health", st.sampled_from(["/ready", "/api/version", "/v1/models?x=1"]))
    maybe("start_timeout", st.sampled_from([5.0, 0.5, 301.25]))
    maybe("stop_grace", st.sampled_from([0.0, 1.5, 20.0, 3600.0]))
    maybe("restart", st.booleans())
    maybe("enabled", st.booleans())
    if of.get("network") == "host" and "inside" in of:
        del of["inside"]
    if of.get("network") != "host":
        maybe("ports", st.sampled_from([("30001:80",), ("0.0.0.0:30002:81", "30003:82")]))
    return ContainerSettings(**of)


ENV = {"VAR": "value of it", "x": "y"}


@settings(max_examples=200, deadline=None)
@given(settings_of(), NAMES)
def test_read_again_what_was_written_means_the_same(entry: ContainerSettings, name: str) -> None:
    try:
        first = all_wanted(Settings(containers={name: entry}), ENV)
    except ConfigError:
        return  # a value that is refused cannot be written either
    text = to_compose({name: entry}, first)
    found = read_compose(text, {}, folder=Path("/elsewhere"))
    assert not found.unsupported, (found.unsupported, text)
    assert wanted_of(found, ENV) == first, text
    twice = to_compose({name: container_settings(found.entries[name], "")}, first)
    assert yaml.safe_load(twice) == yaml.safe_load(text)


def test_several_are_written_together() -> None:
    entries = {"a": ContainerSettings(), "b": ContainerSettings(network="proxy"), "c": ContainerSettings(enabled=False)}
    first = all_wanted(Settings(containers=entries), {})
    found = read(to_compose(entries, first, "mine"))
    assert found.project == "mine"
    assert not found.unsupported
    assert wanted_of(found) == first
    assert replace(first["c"], up=True) != first["c"]


def test_what_is_no_text_is_refused_with_its_line() -> None:
    with pytest.raises(ConfigError, match=r"compose\.yaml:2 has a character"):
        read_compose("services:\n  a: \x13\n", {})
