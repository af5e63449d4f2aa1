"""What is remembered of footprints: the peak of the latest engines, over restarts, beside others, in a damaged file."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.lifecycle.recollection import Recollection, Subject, digest

SMOL = Subject("0a1b", "llamacpp", "x")
OTHER = Subject("0a1b", "llamacpp", "y")


class Ticking:
    """Unix seconds that go on by one with each look."""

    def __init__(self, start: int = 0) -> None:
        self._ticks = count(start)

    def __call__(self) -> float:
        return float(next(self._ticks))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "home" / "footprints.json"


def test_nothing_is_remembered_of_what_never_ran(file: Path) -> None:
    known = Recollection(file)

    assert known.recall(SMOL) == {}
    known.remember(SMOL, "cpu", {})
    known.save()
    assert not file.exists()


def test_an_engines_peak_is_kept_over_a_restart(file: Path) -> None:
    known = Recollection(file, now=Ticking())
    known.remember(SMOL, "cpu", {"cpu": 100}, "e1")
    known.remember(SMOL, "cpu", {"cpu": 160}, "e1")
    known.remember(SMOL, "cpu", {"cpu": 120}, "e1")
    known.save()

    again = Recollection(file)
    again.read()
    assert again.recall(SMOL) == {"cpu": {"cpu": 160}}
    assert again.recall(OTHER) == {}
    (life,) = again.lives(SMOL)["cpu"]
    assert (life.load, life.peak) == ({"cpu": 100}, {"cpu": 160})


def test_what_a_model_took_at_most_however_it_ran(file: Path) -> None:
    known = Recollection(file, now=Ticking())
    known.remember(SMOL, "cpu", {"cpu": 100}, "e1")
    known.remember(replace(SMOL, options="other"), "cuda:0", {"cpu": 20, "cuda:0": 90}, "e2")
    known.too_small(SMOL, "cpu", {"cpu": 1000})

    assert known.most(SMOL.model) == 110
    assert known.most("another") is None


def test_the_newest_engines_win_over_an_old_one(file: Path) -> None:
    known = Recollection(file, now=Ticking())
    known.remember(SMOL, "cuda:0", {"cuda:0": 900}, "old")
    for number in range(3):
        assert known.recall(SMOL)["cuda:0"]["cuda:0"] == 900
        known.remember(SMOL, "cuda:0", {"cuda:0": 500 + number, "cpu": 7}, f"new {number}")

    assert known.recall(SMOL) == {"cuda:0": {"cuda:0": 502, "cpu": 7}}


def test_engines_without_a_name_are_one(file: Path) -> None:
    known = Recollection(file, now=Ticking())
    for size in (300, 100, 200):
        known.remember(SMOL, "cpu", {"cpu": size})

    assert [life.peak for life in known.lives(SMOL)["cpu"]] == [{"cpu": 300}]


def test_what_did_not_suffice_is_exceeded_by_a_fifth(file: Path) -> None:
    known = Recollection(file, now=Ticking())
    known.remember(SMOL, "cuda:0", {"cuda:0": 90})
    known.too_small(SMOL, "cuda:0", {"cuda:0": 100, "cpu": 10})

    assert known.recall(SMOL) == {"cuda:0": {"cuda:0": 120, "cpu": 12}}
    known.too_small(SMOL, "cuda:0", {"cuda:0": 120})
    assert known.recall(SMOL)["cuda:0"]["cuda:0"] == 144
    known.save()
    assert Recollection(file, now=Ticking(99)).recall(SMOL)["cuda:0"]["cuda:0"] == 144


def test_what_did_not_suffice_is_tried_again_after_an_hour() -> None:
    seconds = 0.0
    known = Recollection(None, now=lambda: seconds)
    known.too_small(SMOL, "cuda:0", {"cuda:0": 100})
    assert known.recall(SMOL) == {"cuda:0": {"cuda:0": 120}}
    seconds = 3601.0

    assert known.recall(SMOL) == {}


def test_two_at_once_lose_nothing(file: Path) -> None:
    one, two = Recollection(file, now=Ticking()), Recollection(file, now=Ticking(100))
    one.read()
    two.read()
    one.remember(SMOL, "cpu", {"cpu": 100}, "a")
    one.remember(OTHER, "cpu", {"cpu": 1}, "a")
    two.remember(SMOL, "cpu", {"cpu": 300}, "b")
    two.remember(SMOL, "cuda:0", {"cuda:0": 5}, "b")
    one.save()
    two.save()
    one.remember(OTHER, "cpu", {"cpu": 2}, "a")
    one.save()

    for reader in (one, Recollection(file)):
        assert reader.recall(SMOL) == {"cpu": {"cpu": 300}, "cuda:0": {"cuda:0": 5}}
        assert reader.recall(OTHER) == {"cpu": {"cpu": 2}}


def test_what_was_used_least_recently_is_dropped(file: Path) -> None:
    known = Recollection(file, most=3, now=Ticking())
    for number in range(3):
        known.remember(Subject(f"m{number}", "r"), "cpu", {"cpu": 1})
    known.recall(Subject("m0", "r"))
    known.remember(Subject("m3", "r"), "cpu", {"cpu": 1})
    known.save()

    again = Recollection(file, most=3)
    assert [n for n in range(4) if again.recall(Subject(f"m{n}", "r"))] == [0, 2, 3]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\x00\xff",
        b"[]",
        b'{"corral": 99, "footprints": []}',
        b'{"corral": 1}',
        b" " * ((16 << 20) + 1),
    ],
    ids=["empty", "cut", "binary", "list", "newer", "without", "large"],
)
def test_a_damaged_file_is_told_and_started_anew(file: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    known = Recollection(file)
    with caplog.at_level(logging.WARNING, "corral"):
        assert known.recall(SMOL) == {}

    assert "are left aside" in caplog.text
    known.remember(SMOL, "cpu", {"cpu": 5})
    known.save()
    assert Recollection(file).recall(SMOL) == {"cpu": {"cpu": 5}}


@pytest.mark.parametrize(
    "record",
    [
        None,
        {},
        {"model": 1, "runtime": "r", "options": "", "place": "cpu", "used": 0, "lives": []},
        {"model": "m", "runtime": "r", "options": "", "place": "cpu", "used": 0, "lives": []},
        {"model": "m", "runtime": "r", "options": "", "place": "cpu", "used": 0, "lives": [{"id": 5}]},
        {
            "model": "m",
            "runtime": "r",
            "options": "",
            "place": "cpu",
            "used": 0,
            "lives": [{"id": "a", "at": 1, "load": {}, "peak": {"cpu": -1}, "short": {}}],
        },
    ],
)
def test_a_record_that_is_none_is_passed_over(file: Path, record: object) -> None:
    sound = {
        "model": "0a1b",
        "runtime": "llamacpp",
        "options": "x",
        "place": "cpu",
        "used": 1,
        "lives": [{"id": "a", "at": 1, "load": {"cpu": 3}, "peak": {"cpu": 4}, "short": {}}],
    }
    file.parent.mkdir()
    file.write_bytes(orjson.dumps({"corral": 1, "footprints": [record, sound]}))
    known = Recollection(file)

    assert known.recall(SMOL) == {"cpu": {"cpu": 4}}
    assert known.recall(Subject("m", "r")) == {}


def test_a_disk_that_takes_nothing_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    known = Recollection(tmp_path / "file" / "footprints.json")
    known.remember(SMOL, "cpu", {"cpu": 5})
    with caplog.at_level(logging.WARNING, "corral"):
        known.save()

    assert "cannot be remembered" in caplog.text
    assert known.recall(SMOL) == {"cpu": {"cpu": 5}}


def test_without_a_file_it_lasts_as_long_as_the_object() -> None:
    known = Recollection(None)
    known.remember(SMOL, "cpu", {"cpu": 5})
    known.save()

    assert known.recall(SMOL) == {"cpu": {"cpu": 5}}


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c", "d", "e"]), st.integers(0, 100)), min_size=1))
def test_the_last_three_lives_count(history: list[tuple[str, int]]) -> None:
    known = Recollection(None, now=Ticking())
    for life, size in history:
        known.remember(SMOL, "cpu", {"cpu": size}, life)

    last = history[-1][1]
    assert known.recall(SMOL)["cpu"]["cpu"] >= last
    assert len(known.lives(SMOL)["cpu"]) <= 3
    assert known.recall(SMOL)["cpu"]["cpu"] <= max(size for _, size in history)


@dataclass(frozen=True)
class Options:
    context: int = 1
    names: frozenset[str] = frozenset()
    adapters: dict[str, float] = field(default_factory=dict)
    file: Path | None = None


def test_the_same_options_have_the_same_digest() -> None:
    one = Options(names=frozenset({"a", "b"}), adapters={"x": 1.0, "y": 2.0}, file=Path("f"))
    two = Options(names=frozenset({"b", "a"}), adapters={"y": 2.0, "x": 1.0}, file=Path("f"))

    assert digest(one) == digest(two)
    assert digest(one) != digest(Options())
    assert digest({"a": 1}) != digest({"a": 2})
    assert len(digest({})) == 16
