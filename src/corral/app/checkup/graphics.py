"""NVIDIA's driver, CUDA, and its toolkit for containers."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from corral.app.checkup.checks import Check, Verdict
from corral.app.checkup.machine import read
from corral.hardware import nvidia

if TYPE_CHECKING:
    from pathlib import Path

    from corral.domain.containers import EngineInfo

_OLDEST_CUDA = (12, 0)
_WHY_DRIVER = "Models on a GPU answer ten times as fast."
_WHY_CUDA = "Engines for GPUs are built for a version of it, and an older driver cannot run them."
_WHY_TOOLKIT = "Without it no container sees a GPU."


def driver(version: Path, path: str) -> Check:
    """Whether there is a driver for NVIDIA's GPUs. `version` is the kernel's file of it, `path` where programs are."""
    text = read(version).partition("\n")[0].removeprefix("NVRM version:").strip()
    if text:
        return Check("gpu", Verdict.OK, text, why=_WHY_DRIVER)
    if shutil.which("nvidia-smi", path=path):
        detail = "nvidia-smi is installed, but the driver is not loaded."
        return Check("gpu", Verdict.WARN, detail, "sudo modprobe nvidia", _WHY_DRIVER, found=False)
    detail = "no NVIDIA driver; models run on the processor"
    return Check("gpu", Verdict.OK, detail, why=_WHY_DRIVER, found=False)


def cuda(library: object = None) -> Check:
    """Which CUDA the driver can run. Blocks for some 0.1 s when NVIDIA's library is first loaded."""
    found = nvidia.cuda(library)
    if found is None:
        detail = "the driver does not answer"
        return Check("cuda", Verdict.WARN, detail, "See what is wrong with it: nvidia-smi", _WHY_CUDA)
    text = f"{found[0]}.{found[1]}"
    if found < _OLDEST_CUDA:
        fix = "Install a newer driver: sudo ubuntu-drivers install, or your system's way"
        return Check("cuda", Verdict.WARN, f"up to {text}; engines for GPUs are built for 12 and newer", fix, _WHY_CUDA)
    return Check("cuda", Verdict.OK, f"up to {text}", why=_WHY_CUDA)


def toolkit(engine: EngineInfo) -> Check:
    """Whether containers can be given a GPU."""
    if "nvidia" in engine.runtimes:
        return Check("toolkit", Verdict.OK, "the Docker engine has NVIDIA's runtime", why=_WHY_TOOLKIT)
    if engine.cdi:
        return Check("toolkit", Verdict.OK, "the Docker engine is given GPUs by CDI", why=_WHY_TOOLKIT)
    fix = (
        "sudo apt-get install nvidia-container-toolkit && sudo nvidia-ctk runtime configure --runtime=docker"
        " && sudo systemctl restart docker"
    )
    return Check("toolkit", Verdict.WARN, "the Docker engine cannot give containers a GPU", fix, _WHY_TOOLKIT)
