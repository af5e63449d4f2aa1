"""In CI nothing is skipped: what a machine lacks there is a fault of the machine, and the test fails with the reason.

    pytest -p tests.plugins.skips        acts where the environment says CI=true, and does nothing elsewhere

Expected failures (xfail) are no skips.
"""

from __future__ import annotations

import os

import pytest


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    if isinstance(report.longrepr, tuple):
        path, line, text = report.longrepr
        return f"{path}:{line}: {text}"
    return str(report.longrepr)


def _refuse(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped, and CI may lack nothing: {_reason(report)}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    _refuse(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    report = yield
    _refuse(report)
    return report
