"""What the doctor makes of what it finds."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from corral.app import Corral
from corral.app.checkup import Check, Verdict, docker, examine, graphics, machine, models, network
from corral.config import load
from corral.domain.containers import EngineInfo
from corral.domain.ports import Availability
from tests.support.nvml import Nvml


@pytest.mark.parametrize(
    ("version", "verdict"), [((3, 10, 9), Verdict.FAIL), ((3, 11, 0), Verdict.OK), ((4, 0, 0), Verdict.OK)]
)
def test_python(version: tuple[int, ...], verdict: Verdict) -> None:
    assert machine.python(version, "python").verdict is verdict


@pytest.mark.parametrize(
    ("kind", "cpuinfo", "verdict", "words"),
    [
        ("x86_64", "flags\t\t: sse avx2 fma\n", Verdict.OK, "AVX2"),
        ("x86_64", "flags : avx2 avx512f\n", Verdict.OK, "AVX-512"),
        ("x86_64", "flags : sse4_2 avx\n", Verdict.WARN, "without AVX2"),
        ("x86_64", "", Verdict.OK, "unknown"),
        ("arm64", "", Verdict.OK, "on arm64"),
    ],
)
def test_processor(kind: str, cpuinfo: str, verdict: Verdict, words: str) -> None:
    check = machine.processor("Linux", kind, cpuinfo)

    assert check.verdict is verdict
    assert words in check.detail
    assert bool(check.fix) is (verdict is Verdict.WARN)


def test_memory_is_told() -> None:
    assert "free of" in machine.memory().detail


def test_a_home_that_can_be_made(tmp_path: Path) -> None:
    check = machine.home(tmp_path)

    assert (check.verdict, check.detail, check.fix) == (Verdict.OK, str(tmp_path), "")
    assert "will be made" in machine.home(tmp_path / "a" / "b").detail


def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    check = machine.home(tmp_path / "home")

    assert check.verdict is Verdict.FAIL
    assert "CORRAL_HOME" in check.fix


def test_the_disk_of_a_store_that_lies_under_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert str(tmp_path / "file" / "models") in machine.disk(tmp_path / "file" / "models").detail


@pytest.mark.parametrize(("ahead", "verdict"), [(-60.0, Verdict.OK), (60.0, Verdict.OK), (86_400.0, Verdict.WARN)])
def test_a_clock_that_runs_behind_what_it_wrote(tmp_path: Path, ahead: float, verdict: Verdict) -> None:
    (tmp_path / "corral.db").write_text("")
    os.utime(tmp_path / "corral.db", (1.8e9 + ahead, 1.8e9 + ahead))
    os.utime(tmp_path, (1.8e9, 1.8e9))
    check = machine.clock(1.8e9, tmp_path)

    assert check.verdict is verdict
    assert "2027-01-15" in check.detail
    assert ("timedatectl" in check.fix) is (verdict is Verdict.WARN)


def test_the_clock_of_a_home_that_is_not_there(tmp_path: Path) -> None:
    assert machine.clock(1.8e9, tmp_path / "none").verdict is Verdict.OK


@pytest.mark.parametrize(
    ("env", "verdict", "words"),
    [
        ({}, Verdict.OK, "none"),
        ({"HTTPS_PROXY": "http://ann:hush@proxy.example:3128"}, Verdict.WARN, "https_proxy proxy.example:3128"),
        ({"https_proxy": "http://p:1", "NO_PROXY": "x, localhost"}, Verdict.OK, "https_proxy p:1"),
        ({"https_proxy": "http://p:port", "no_proxy": "*"}, Verdict.OK, "https_proxy p"),
        ({"all_proxy": "nonsense"}, Verdict.FAIL, "all_proxy is no address"),
    ],
)
def test_proxies_are_told_without_their_passwords(env: dict[str, str], verdict: Verdict, words: str) -> None:
    check = network.proxies(env)

    assert check.verdict is verdict
    assert words in check.detail
    assert "hush" not in repr(check)
    assert "ann" not in repr(check)


def yard(home: Path, config: str = "", **env: str) -> Corral:
    (home / "corral.yaml").write_text(config)
    given = {"HOME": str(home), "CORRAL_HOME": str(home), "DOCKER_HOST": f"unix://{home}/none.sock", **env}
    return Corral(load(given, cwd=home), env=given)


def test_a_store_that_can_be_read(tmp_path: Path) -> None:
    check = models.store(yard(tmp_path))

    assert (check.verdict, check.detail) == (Verdict.OK, f"0 models in {tmp_path / 'models'}")


async def test_a_store_that_cannot_be_read_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "names").symlink_to("names")  # which even root cannot follow
    corral = yard(tmp_path, "models: { parrot: { runtime: fake } }")

    check = models.store(corral)
    assert check.verdict is Verdict.FAIL
    assert str(tmp_path / "models") in check.detail
    checks = {check.name: check async for check in models.runtimes(corral)}
    await corral.close()
    assert {"fake", "llamacpp"} <= set(checks)
    assert "model" not in checks


@pytest.mark.parametrize(
    ("text", "tool", "verdict", "found", "words"),
    [
        ("NVRM version: NVIDIA UNIX 570.1\nGCC 12\n", False, Verdict.OK, True, "NVIDIA UNIX 570.1"),
        (None, True, Verdict.WARN, False, "not loaded"),
        (None, False, Verdict.OK, False, "no NVIDIA driver"),
    ],
)
def test_driver(tmp_path: Path, text: str | None, tool: bool, verdict: Verdict, found: bool, words: str) -> None:
    version = tmp_path / "version"
    if text is not None:
        version.write_text(text)
    if tool:
        (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    check = graphics.driver(version, str(tmp_path))

    assert (check.verdict, check.found) == (verdict, found)
    assert words in check.detail


@pytest.mark.parametrize(
    ("number", "verdict", "words"),
    [
        (13000, Verdict.OK, "13.0"),
        (12040, Verdict.OK, "12.4"),
        (11080, Verdict.WARN, "11.8"),
        (None, Verdict.WARN, "not"),
    ],
)
def test_cuda(number: int | None, verdict: Verdict, words: str) -> None:
    check = graphics.cuda(Nvml([{} if number is None else {"cuda": number}]))

    assert check.verdict is verdict
    assert words in check.detail


@pytest.mark.parametrize(
    ("engine", "verdict"),
    [
        (EngineInfo("unix:///d", "28", "1.50", runtimes=("io.containerd.runc.v2", "nvidia")), Verdict.OK),
        (EngineInfo("unix:///d", "28", "1.50", cdi=True), Verdict.OK),
        (EngineInfo("unix:///d", "28", "1.50", runtimes=("runc",)), Verdict.WARN),
    ],
)
def test_the_toolkit_for_containers(engine: EngineInfo, verdict: Verdict) -> None:
    check = graphics.toolkit(engine)

    assert check.verdict is verdict
    assert ("nvidia-ctk" in check.fix) is (verdict is Verdict.WARN)


def test_a_runtime_fails_only_where_a_model_needs_it() -> None:
    missing = Availability(usable=False, reason="no library", hint="pip install it")
    there = Availability(usable=True, version="1.2", devices=("cpu",))

    found = models.judge("r", there, ["m"])
    assert (found.verdict, found.detail) == (Verdict.OK, "runtime 1.2 on cpu, usable")
    found = models.judge("r", missing, [])
    assert (found.verdict, found.detail, found.fix) == (
        Verdict.WARN,
        "runtime not usable: no library",
        "pip install it",
    )
    assert models.judge("r", missing, ["m"]).verdict is Verdict.FAIL


VENDORS = """
models:
  sonnet: { runtime: anthropic }
  flash: { runtime: gemini }
  deep: { runtime: openai, options: { vendor: deepseek } }
  own: { runtime: openai, options: { base_url: "http://127.0.0.1:9/v1" } }
  wrong: { runtime: openai, options: { vendor: nobody } }
"""


def test_keys_that_are_missing_are_named_with_who_needs_them(tmp_path: Path) -> None:
    check = models.keys(yard(tmp_path, VENDORS, ANTHROPIC_API_KEY="hush-1", GOOGLE_API_KEY="hush-2"))

    assert check.verdict is Verdict.FAIL
    assert check.detail == "DEEPSEEK_API_KEY is not set, which deep needs."
    assert check.fix == "export DEEPSEEK_API_KEY=…"


def test_keys_that_are_there_are_named_and_never_shown(tmp_path: Path) -> None:
    keys = dict.fromkeys(("ANTHROPIC_API_KEY", "GEMINI_API_KEY", "DEEPSEEK_API_KEY", "HF_TOKEN"), "hush")
    check = models.keys(yard(tmp_path, VENDORS, **keys, EMPTY_API_KEY=" "))

    assert check.verdict is Verdict.OK
    assert check.detail == "set: ANTHROPIC_API_KEY, DEEPSEEK_API_KEY, GEMINI_API_KEY, HF_TOKEN"
    assert "hush" not in repr(check)


@pytest.mark.parametrize(
    ("config", "verdict", "words"),
    [("", Verdict.OK, "not needed"), ("containers: { code: { kind: ollama } }", Verdict.FAIL, "needed by code")],
)
async def test_a_docker_engine_that_does_not_answer(tmp_path: Path, config: str, verdict: Verdict, words: str) -> None:
    corral = yard(tmp_path, config)
    try:
        engine, check = await docker.engine(corral)
    finally:
        await corral.close()

    assert engine is None
    assert check.verdict is verdict
    assert words in check.detail


def test_a_port_that_somebody_has() -> None:
    port: Any = SimpleNamespace(outside=0, host="127.0.0.1")
    wanted: Any = SimpleNamespace(spec=SimpleNamespace(ports=(port,)))
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port.outside = taken.getsockname()[1]
        assert docker.taken(wanted) is port
    assert docker.taken(wanted) is None


async def test_everything_is_looked_at_and_says_why(tmp_path: Path) -> None:
    corral = yard(tmp_path)
    try:
        checks: list[Check] = [check async for check in examine(corral)]
    finally:
        await corral.close()

    assert {"home", "disk", "clock", "proxies", "gpu", "docker", "store", "keys", "fake"} <= {c.name for c in checks}
    assert all(check.why for check in checks)
    assert all(check.fix for check in checks if check.verdict is Verdict.FAIL)
