"""How usage is written for a person."""

import pytest

from corral.cli.usage import bar, count_text, money_text


@pytest.mark.parametrize(
    ("nano", "shown"),
    [(0, "$0.00"), (1, "$0.000000001"), (5000, "$0.000005"), (9_999_999, "$0.009999999"), (10**7, "$0.01"),
     (1_234_560_000_000, "$1,234.56")],
)  # fmt: skip
def test_money_is_never_nothing_for_something(nano, shown):
    assert money_text(nano) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0"), (999, "999"), (1000, "1.0k"), (34_512, "34.5k"), (99_960, "100k"), (999_499, "999k"),
     (999_600, "1.0M"), (6_700_000, "6.7M"), (10**15, "1000T")],
)  # fmt: skip
def test_counts_are_short(count, shown):
    assert count_text(count) == shown


@pytest.mark.parametrize(("part", "shown"), [(0, ""), (1e-9, "▏"), (0.5, "████"), (0.55, "████▍"), (1, "████████")])
def test_bars_are_as_long_as_their_part_and_something_is_never_nothing(part, shown):
    assert bar(part, 8) == shown
