"""Who descends from whom, where the way to the living leads over what looks dead."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from corral.kit import lineage

PARENT = """
import ctypes, subprocess, sys, threading
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
threading.Thread(target=threading.Event().wait).start()
print(child.pid, flush=True)
ctypes.CDLL(None).pthread_exit(None)  # the first thread ends, the process does not
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc: processes are found otherwise here")
def test_the_child_of_a_process_without_its_first_thread_is_found() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            middle = psutil.Process(parent.pid)
            while middle.status() != psutil.STATUS_ZOMBIE:
                assert middle.is_running()
            assert child in lineage.descendants(psutil.Process().pid)
            assert parent.pid not in lineage.descendants(psutil.Process().pid)
        finally:
            parent.kill()
    psutil.wait_procs([psutil.Process(child)] if psutil.pid_exists(child) else [], 20)
    assert not psutil.pid_exists(child)
