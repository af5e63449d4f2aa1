"""Figures that people can believe: never backwards, never done before it is, and no rate out of thin air."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.domain.ports import Progress
from corral.operations.progress import MEMORY, Meter

MB = 1_000_000


def after(*reports, floor=0.0, every=1.0):
    """The figures after these reports, one each `every` seconds."""
    meter = Meter(floor)
    now = 0.0
    for now, report in enumerate(reports):
        meter.take(Progress(*report), now * every)
    return meter.figures(now * every)


@pytest.mark.parametrize(
    ("reports", "progress"),
    [
        ([], 0),
        ([("resolve",)], 0),
        ([("resolve",), ("download", 0, 100)], 0),
        ([("download", 50, 100)], 47.5),
        ([("download", 100, 100)], 95),
        ([("download", 300, 100)], 95),
        ([("download", 50, None)], 0),
        ([("download", 0, 0)], 0),
        ([("download", 100, 100), ("check", 50, 100)], 97),
        ([("download", 100, 100), ("check", 100, 100), ("unpack", 10, 100)], 99),
        ([("download", 50, 100), ("check", 50, 50)], 47.5),
        ([("download", 50, 100), ("check", 50, 50), ("download", 60, 100)], 57),
        ([("upload", 100, 100)], 95),
        ([("check", 50, 100)], 49.5),
        ([("check", 100, 100)], 99),
        ([("download", 50, 100), ("download", 60, 200)], 47.5),
        ([("download", 50, 100), ("download", 10, 100)], 47.5),
    ],
)
def test_the_percentage(reports, progress):
    assert after(*reports).progress == pytest.approx(progress)


def test_a_restart_goes_on_from_what_was_shown():
    assert after(floor=60).progress == 60
    assert after(("download", 10, 100), floor=60).progress == 60
    assert after(("download", 80, 100), floor=60).progress == pytest.approx(76)


phases = st.sampled_from(["resolve", "wait", "download", "check", "upload", "unpack"])
reports = st.builds(Progress, phases, st.integers(0, 10**13), st.none() | st.integers(0, 10**13))


@given(st.lists(st.tuples(reports, st.floats(0, 1e6))), st.floats(0, 99))
def test_it_never_goes_back_and_never_says_that_it_is_done(steps, floor):
    meter, now, last = Meter(floor), 0.0, floor
    for report, passed in steps:
        now += passed
        meter.take(report, now)
        figures = meter.figures(now)
        assert last <= figures.progress < 100
        assert figures.total is None or figures.done <= figures.total
        assert figures.rate is None or figures.rate >= 0
        assert figures.eta is None or figures.eta >= 0
        last = figures.progress


def test_the_bytes_are_those_of_the_transfer_while_one_file_of_it_is_checked():
    figures = after(("download", 50, 100), ("check", 50, 50))

    assert (figures.phase, figures.done, figures.total) == ("check", 50, 100)


def test_a_steady_transfer_has_its_rate_and_the_time_left():
    figures = after(*(("download", n * MB, 100 * MB) for n in range(11)))

    assert figures.rate == pytest.approx(MB)
    assert figures.eta == pytest.approx(90)


def test_many_small_reports_say_the_same_as_few():
    figures = after(*(("download", n * 1000, 10 * MB) for n in range(10_001)), every=0.001)

    assert figures.rate == pytest.approx(MB, rel=0.02)


def test_one_report_says_nothing_about_speed():
    figures = after(("download", 50 * MB, 100 * MB))

    assert (figures.rate, figures.eta) == (None, None)


def test_what_was_there_before_is_no_speed():
    figures = after(("download", 50 * MB, 100 * MB), ("download", 51 * MB, 100 * MB))

    assert figures.rate == pytest.approx(MB)


def test_a_new_phase_has_a_speed_of_its_own():
    figures = after(("download", 0, 9), ("download", 9, 9), ("check", 0, 9 * MB))

    assert figures.rate is None


def test_the_rate_follows_a_change_within_its_memory():
    slow = [("download", n * MB, 10**12) for n in range(20)]
    fast = [("download", 19 * MB + n * 10 * MB, 10**12) for n in range(1, 21)]

    at_once = after(*slow, *fast[:1]).rate
    later = after(*slow, *fast).rate

    assert MB < at_once < 3 * MB
    assert later > 9 * MB


def test_a_stalled_transfer_slows_down_until_nothing_can_be_said():
    meter = Meter()
    for n in range(10):
        meter.take(Progress("download", n * MB, 100 * MB), float(n))

    soon, later, last = (meter.figures(9.0 + MEMORY * n) for n in (0, 1, 20))

    assert soon.rate > later.rate > 0
    assert later.eta > soon.eta
    assert (last.rate, last.eta) == (None, None)


def test_doing_it_again_is_no_negative_speed():
    figures = after(
        ("download", 0, 9 * MB), ("download", 5 * MB, 9 * MB), ("download", 0, 9 * MB), ("download", MB, 9 * MB)
    )

    assert figures.rate > 0
    assert figures.done == MB
