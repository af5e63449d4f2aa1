"""PID files: one process and no other is named, whatever number it had."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from corral.kit import pidfile


@pytest.fixture
def me() -> pidfile.Identity:
    known = pidfile.identity(os.getpid())
    assert known is not None
    return known


def test_what_was_written_is_read_and_is_alive(tmp_path: Path, me: pidfile.Identity) -> None:
    path = tmp_path / "a.pid"

    pidfile.write(path, me)

    assert pidfile.read(path) == me
    assert pidfile.alive(me)
    assert [item.name for item in tmp_path.iterdir()] == ["a.pid"]


@pytest.mark.parametrize("content", ["", "123", "{}", "[]", '{"pid": "x", "began": 1, "boot": "b"}', "\x00"])
def test_what_means_nothing_names_nobody(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.pid"
    path.write_text(content)

    assert pidfile.read(path) is None
    assert pidfile.read(tmp_path / "missing.pid") is None


def test_a_process_that_began_at_another_moment_or_in_another_boot_is_another(me: pidfile.Identity) -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, _: received.append(number))
    try:
        for other in (replace(me, began=me.began - 1), replace(me, boot="another"), replace(me, pid=2**22 - 3)):
            assert not pidfile.alive(other)
            assert not pidfile.send(other, signal.SIGUSR2)
        assert received == []
        assert pidfile.send(me, signal.SIGUSR2)
        assert received == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_number_that_nobody_has_is_nobody() -> None:
    assert pidfile.identity(2**22 - 3) is None


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, me: pidfile.Identity) -> None:
    path = tmp_path / "a.pid"
    path.mkdir()

    with pytest.raises(OSError, match="directory"):
        pidfile.write(path, me)

    assert [item.name for item in tmp_path.iterdir()] == ["a.pid"]


def test_the_file_is_for_people_too(tmp_path: Path, me: pidfile.Identity) -> None:
    pidfile.write(tmp_path / "a.pid", me)

    assert json.loads((tmp_path / "a.pid").read_text())["pid"] == os.getpid()
