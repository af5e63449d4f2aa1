"""What the doctor makes of what it finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.app import Corral
from corral.cli.doctor import (
    Check,
    Verdict,
    check_disk,
    check_driver,
    check_home,
    check_memory,
    check_platform,
    check_python,
    check_runtimes,
    check_store,
    judge,
)
from corral.config import load
from corral.domain.ports import Availability


@pytest.mark.parametrize(
    ("version", "verdict"), [((3, 10, 9), Verdict.FAIL), ((3, 11, 0), Verdict.OK), ((4, 0, 0), Verdict.OK)]
)
def test_python(version: tuple[int, ...], verdict: Verdict) -> None:
    assert check_python(version, "python").verdict is verdict


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "verdict", "words"),
    [
        ("x86_64", "flags\t\t: sse avx2 fma\n", Verdict.OK, "AVX2"),
        ("x86_64", "flags : avx2 avx512f\n", Verdict.OK, "AVX-512"),
        ("x86_64", "flags : sse4_2 avx\n", Verdict.WARN, "without AVX2"),
        ("x86_64", "", Verdict.OK, "unknown"),
        ("arm64", "", Verdict.OK, "on arm64"),
    ],
)
def test_platform(machine: str, cpuinfo: str, verdict: Verdict, words: str) -> None:
    check = check_platform("Linux", machine, cpuinfo)

    assert check.verdict is verdict
    assert words in check.detail
    assert bool(check.fix) is (verdict is Verdict.WARN)


def test_memory_is_told() -> None:
    assert "free of" in check_memory().detail


def test_a_home_that_can_be_made(tmp_path: Path) -> None:
    assert check_home(tmp_path) == Check("home", Verdict.OK, str(tmp_path))
    assert "will be made" in check_home(tmp_path / "a" / "b").detail


def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    check = check_home(tmp_path / "home")

    assert check.verdict is Verdict.FAIL
    assert "CORRAL_HOME" in check.fix


def yard(home: Path, config: str = "") -> Corral:
    (home / "corral.yaml").write_text(config)
    env = {"HOME": str(home), "CORRAL_HOME": str(home)}
    return Corral(load(env, cwd=home), env=env)


def test_a_store_that_can_be_read(tmp_path: Path) -> None:
    check = check_store(yard(tmp_path))

    assert (check.verdict, check.detail) == (Verdict.OK, f"0 models in {tmp_path / 'models'}")


def test_a_store_that_cannot_be_read_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "names").symlink_to("names")  # which even root cannot follow
    corral = yard(tmp_path, "models: { parrot: { runtime: fake } }")

    check = check_store(corral)
    assert check.verdict is Verdict.FAIL
    assert str(tmp_path / "models") in check.detail
    checks = {check.name: check for check in check_runtimes(corral)}
    assert {"fake", "llamacpp"} <= set(checks)
    assert "model" not in checks


def test_the_disk_of_a_store_that_lies_under_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert str(tmp_path / "file" / "models") in check_disk(tmp_path / "file" / "models").detail


@pytest.mark.parametrize(
    ("text", "tool", "verdict", "words"),
    [
        ("NVRM version: NVIDIA UNIX 570.1\nGCC 12\n", None, Verdict.OK, "NVIDIA UNIX 570.1"),
        (None, "nvidia-smi", Verdict.WARN, "not loaded"),
        (None, None, Verdict.OK, "no NVIDIA driver"),
    ],
)
def test_driver(tmp_path: Path, text: str | None, tool: str | None, verdict: Verdict, words: str) -> None:
    version = tmp_path / "version"
    if text is not None:
        version.write_text(text)
    check = check_driver(version, tool)

    assert check.verdict is verdict
    assert words in check.detail


def test_a_runtime_fails_only_where_a_model_needs_it() -> None:
    missing = Availability(usable=False, reason="no library", hint="pip install it")
    there = Availability(usable=True, version="1.2", devices=("cpu",))

    assert judge("r", there, ["m"]) == Check("r", Verdict.OK, "runtime 1.2 on cpu, usable")
    assert judge("r", missing, []) == Check("r", Verdict.WARN, "runtime not usable: no library", "pip install it")
    assert judge("r", missing, ["m"]).verdict is Verdict.FAIL
