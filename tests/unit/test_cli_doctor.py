"""What the doctor makes of what it finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.cli.doctor import (
    Check,
    Verdict,
    check_driver,
    check_home,
    check_memory,
    check_platform,
    check_python,
    judge,
)
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
