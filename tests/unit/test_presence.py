"""How a terminal finds the server of its home."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.errors import DiskFull
from corral.gateway.presence import Presence, claim, find


def test_a_server_is_found_once_it_answers_and_no_longer(tmp_path: Path) -> None:
    said = Presence("http://127.0.0.1:7860", 7, "0.1.0")
    with claim(tmp_path) as mine:
        assert find(tmp_path) is None
        mine.announce(said)
        assert find(tmp_path) == said
    assert find(tmp_path) is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_said_before_anything_is_started(tmp_path: Path) -> None:
    (tmp_path / "server.json").symlink_to("/dev/full")
    before = len(list(Path("/dev/fd").iterdir()))
    with pytest.raises(DiskFull, match=r"server\.json"), claim(tmp_path):
        pytest.fail("the block was entered")
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_what_opens_a_server_is_for_its_owner_and_gone_with_it(tmp_path: Path) -> None:
    file = tmp_path / "server.json"
    file.touch(0o644)
    with claim(tmp_path) as mine:
        mine.announce(Presence("http://127.0.0.1:7860", 7, "0.1.0", "secret-word"))
        assert file.stat().st_mode & 0o777 == 0o600
        found = find(tmp_path)
        assert found is not None
        assert found.token == "secret-word"
        assert "secret-word" not in repr(found)
    assert file.read_bytes() == b""
