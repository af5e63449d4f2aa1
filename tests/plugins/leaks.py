"""No test file leaves a process behind: what still lives when its last test is done fails that test, by its command.

pytest -p tests.plugins.leaks
"""

from __future__ import annotations

import contextlib

import psutil
import pytest

_DYING = 15.0  # seconds for what was told to end, and is only not yet gone


def _commands(processes: list[psutil.Process]) -> list[str]:
    found = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            found.append(f"{process.pid} {' '.join(process.cmdline())}")
    return found


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None):
    result = yield
    if nextitem is None or nextitem.path != item.path:
        _, alive = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=_DYING)
        commands = _commands(alive)
        for process in alive:  # so that one file's fault does not fail the files after it
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if commands:
            pytest.fail(f"{item.path.name} left processes behind: {'; '.join(commands)}", pytrace=False)
    return result
