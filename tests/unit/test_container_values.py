"""What makes a container another one, and what does not."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import pytest

from corral.domain.containers import ContainerSpec, Mount, Port

ONE = ContainerSpec(
    "one",
    "corral-one",
    "ollama",
    "ollama/ollama",
    environment={"A": "1", "B": "2"},
    ports=(Port(11434, 11435),),
    mounts=(Mount("models", "/models"),),
)
OTHER: dict[str, Any] = {
    "name": "two",
    "container": "corral-two",
    "kind": "vllm",
    "image": "ollama/ollama:1",
    "digest": "sha256:00",
    "entrypoint": (),
    "command": (),
    "environment": {"A": "1"},
    "ports": (Port(11434, 11435, "0.0.0.0"),),
    "mounts": (Mount("models", "/models", read_only=True),),
    "tmpfs": {"/tmp": ""},
    "gpus": ("0",),
    "memory": 0,
    "cpus": 1.5,
    "shm": 1,
    "pids": 1,
    "user": "1000",
    "read_only": True,
    "capabilities": ("SYS_NICE",),
    "network": "host",
    "stop_grace": 21.0,
    "labels": {"a": ""},
    "working": "/x",
    "fitted": True,
}


@dataclass(frozen=True, slots=True)
class _Later(ContainerSpec):
    """What a later Corral knows of: a container that was made before is as it is by default."""

    niceness: int = 0
    aliases: tuple[str, ...] = dataclasses.field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class _LaterPort(Port):
    protocol: str = "tcp"


def _later(**more: Any) -> ContainerSpec:
    return _Later(**{each.name: getattr(ONE, each.name) for each in dataclasses.fields(ONE)}, **more)


def test_what_a_later_corral_knows_of_makes_no_container_another_one():
    assert _later().fingerprint() == ONE.fingerprint()
    assert replace(ONE, ports=(_LaterPort(11434, 11435),)).fingerprint() == ONE.fingerprint()
    prints = {_later(niceness=5).fingerprint(), _later(aliases=("a",)).fingerprint(), ONE.fingerprint()}
    prints.add(replace(ONE, ports=(_LaterPort(11434, 11435, protocol="udp"),)).fingerprint())
    assert len(prints) == 4


def test_the_fingerprint_of_today_is_that_of_yesterday():
    assert ONE.fingerprint() == "24e2046d453b"
    turned = replace(ONE, environment=MappingProxyType({"B": "2", "A": "1"}), command=None, labels={})
    assert turned.fingerprint() == ONE.fingerprint(), "neither order nor saying what is so anyway changes anything"


@pytest.mark.parametrize("name", [each.name for each in dataclasses.fields(ContainerSpec)])
def test_whatever_differs_makes_another_container(name: str):
    assert replace(ONE, **{name: OTHER[name]}).fingerprint() != ONE.fingerprint()
