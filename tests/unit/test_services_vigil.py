"""When a service is started again, its folder, its log; values and files only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from corral.domain.services import ServiceSpec, ServiceState, ServiceStatus, Vigilance, check_service, describe
from corral.errors import InvalidName
from corral.services._keeper import ended
from corral.services._logfile import LogFile
from corral.services.folder import Folder, Record, fingerprint, packed, unpacked
from corral.services.vigil import Again, Enough, Vigil

SPEC = ServiceSpec("web", "command", ("/bin/true", "a"), {"TOKEN": "s3cr3t"}, Path("/somewhere"), port=1, memory=5)


def test_pauses_double_up_to_the_longest_and_then_it_is_enough() -> None:
    vigil = Vigil(Vigilance(first=1, longest=60, crashes=9))

    pauses = [vigil.ended(0) for _ in range(9)]

    assert pauses[:-1] == [Again(pause) for pause in (1, 2, 4, 8, 16, 32, 60, 60)]
    assert pauses[-1] == Enough("it ended 9 times in a row")


def test_having_been_well_for_long_enough_all_is_forgotten() -> None:
    vigil = Vigil(Vigilance(settled=60, crashes=3))

    assert [vigil.ended(59), vigil.ended(59.9)] == [Again(1), Again(2)]
    assert [vigil.ended(60), vigil.ended(0), vigil.ended(0)] == [
        Again(1),
        Again(2),
        Enough("it ended 3 times in a row"),
    ]


def test_it_is_hung_after_so_many_bad_checks_in_a_row_and_no_fewer() -> None:
    vigil = Vigil(Vigilance(failures=3))
    checks = [False, False, True, False, False, False]

    assert [vigil.hung(healthy=healthy) for healthy in checks] == [False] * 5 + [True]


def test_an_end_clears_the_count_of_bad_checks() -> None:
    vigil = Vigil(Vigilance(failures=2))
    vigil.hung(healthy=False)
    vigil.ended(0)

    assert not vigil.hung(healthy=False)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exited with code 0"),
        (3, "exited with code 3"),
        (-15, "was ended by SIGTERM"),
        (-9, "was ended by SIGKILL, perhaps by the system for want of memory"),
        (-250, "was ended by signal 250"),
    ],
)
def test_why_a_process_ended(code: int, words: str) -> None:
    assert ended(code) == words


def test_a_spec_survives_its_way_to_the_keeper() -> None:
    spec = replace(SPEC, vigilance=Vigilance(every=3), start_timeout=float("inf"))

    assert unpacked(packed(spec)) == spec
    assert unpacked(packed(replace(spec, cwd=None))).cwd is None


def test_a_fingerprint_tells_configurations_apart_and_nothing_of_them() -> None:
    assert fingerprint(SPEC, "a") == fingerprint(SPEC, "a")
    assert len({fingerprint(SPEC, "a"), fingerprint(SPEC, "b"), fingerprint(replace(SPEC, port=2), "a")}) == 3
    assert "s3cr3t" not in repr(SPEC)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "web")
    folder.make()
    record = Record(ServiceState.RUNNING, pid=5, since=1.5, restarts=2, healthy=True, mark="m")

    folder.write(record)

    assert folder.read() == record
    assert oct(folder.path.stat().st_mode)[-3:] == "700"
    assert [path.name for path in folder.path.iterdir()] == ["status.json"]


@pytest.mark.parametrize("content", ["", "[]", '{"state": "asleep"}', '{"state": "running", "more": 1}', "{}"])
def test_a_record_that_means_nothing_is_a_stopped_service(tmp_path: Path, content: str) -> None:
    folder = Folder(tmp_path, "web")
    folder.make()
    folder.status.write_text(content)

    assert folder.read() == Record()


def test_a_log_is_cut_in_two_and_no_more_is_kept(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "service.log", largest=100)
    for number in range(100):
        log.write(b"line %03d\n" % number)
    log.close()
    folder = Folder(tmp_path, "web")
    folder.log = tmp_path / "service.log"

    kept = folder.tail(1000)

    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 200
    assert kept == [f"line {number:03d}" for number in range(100 - len(kept), 100)]
    assert len(kept) > 10
    assert folder.tail(3) == ["line 097", "line 098", "line 099"]


def test_a_long_log_is_read_from_its_end(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "web")
    folder.make()
    folder.log.write_bytes(b"".join(b"%06d " % number * 20 + b"\n" for number in range(5000)))

    assert [line[:6] for line in folder.tail(2)] == ["004998", "004999"]
    assert len(folder.tail(10_000)) == 5000
    assert Folder(tmp_path, "other").tail(5) == []


@pytest.mark.parametrize("name", ["web", "a", "llama-3_1", "0"])
def test_names_that_are_good(name: str) -> None:
    assert check_service(name) == name


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "-a", "a-", "a b", "a.b", "a\n", "é", "a" * 49, "%i", "a@b"])
def test_names_that_could_be_more_than_names(name: str) -> None:
    with pytest.raises(InvalidName):
        check_service(name)


def test_a_status_is_described_with_its_uptime() -> None:
    status = ServiceStatus("web", "command", "local", ServiceState.RUNNING, started_at=100.0, notes=("n",))

    told = describe(status, 160.0)

    assert (told["state"], told["uptime"], told["notes"]) == ("running", 60.0, ["n"])
    assert describe(replace(status, started_at=None), 160.0)["uptime"] is None
    assert [state.value for state in ServiceState if not state.up] == ["stopped", "failed"]
