"""Python, processor, memory, home, disk, clock."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from corral import __version__
from corral.app.checkup.checks import Check, Verdict
from corral.domain.sizes import human

_ENOUGH_MEMORY = 2 * 10**9
_ENOUGH_DISK = 2 * 10**9
_OLDEST = (3, 11)
_DRIFT = 300.0
"""Seconds that a file may lie in the future: disks and machines round, and people mount folders of others."""

_WHY_PYTHON = "Corral and its engines are written for it."
_WHY_PLATFORM = "The built-in llama.cpp is compiled for it; without AVX2 it cannot start."
_WHY_MEMORY = "A model lies in memory while it answers."
_WHY_HOME = "Models, keys, receipts and budgets are kept there."
_WHY_DISK = "Models are large; an install that runs out of room fails."
_WHY_CLOCK = "Budgets by the day, keys that expire and receipts go by it, and TLS refuses a wrong one."


def python(version: tuple[int, ...], where: str) -> Check:
    """Whether this Python is new enough."""
    text = ".".join(str(part) for part in version)
    if version[:2] < _OLDEST:
        return Check("python", Verdict.FAIL, f"{text} is too old.", "Install Python 3.11 or newer.", _WHY_PYTHON)
    return Check("python", Verdict.OK, f"{text} at {where}, Corral {__version__}", why=_WHY_PYTHON)


def processor(system: str, machine: str, cpuinfo: str) -> Check:
    """Whether the processor has what llama.cpp was built for. `cpuinfo` is what the kernel says of it."""
    name = f"{system} on {machine}"
    if machine not in ("x86_64", "AMD64"):
        return Check("platform", Verdict.OK, name, why=_WHY_PLATFORM)
    flags = next((row.split(":", 1)[1].split() for row in cpuinfo.splitlines() if row.startswith("flags")), None)
    if flags is None:
        return Check("platform", Verdict.OK, f"{name}, processor features unknown", why=_WHY_PLATFORM)
    if "avx2" not in flags:
        fix = "Build xllamacpp for this processor: pip install --no-binary xllamacpp xllamacpp"
        detail = f"{name} without AVX2, which the built-in llama.cpp needs"
        return Check("platform", Verdict.WARN, detail, fix, _WHY_PLATFORM)
    best = "AVX-512" if "avx512f" in flags else "AVX2"
    return Check("platform", Verdict.OK, f"{name} with {best}, {os.cpu_count()} processors", why=_WHY_PLATFORM)


def memory() -> Check:
    """Whether there is memory for a small model."""
    import psutil

    found = psutil.virtual_memory()
    detail = f"{human(found.available)} free of {human(found.total)}"
    if found.available < _ENOUGH_MEMORY:
        fix = "Free some, or let models go: corral ps; corral unload MODEL"
        return Check("memory", Verdict.WARN, detail, fix, _WHY_MEMORY)
    return Check("memory", Verdict.OK, detail, why=_WHY_MEMORY)


def home(folder: Path) -> Check:
    """Whether the home can be written."""
    nearest = existing(folder)
    if not nearest.is_dir():
        fix = "Choose another: export CORRAL_HOME=DIR"
        return Check("home", Verdict.FAIL, f"{nearest} is not a folder.", fix, _WHY_HOME)
    if not os.access(nearest, os.W_OK | os.X_OK):
        return Check("home", Verdict.FAIL, f"{folder} cannot be written.", f"sudo chown -R $USER {nearest}", _WHY_HOME)
    detail = f"{folder}" if nearest == folder else f"{folder} will be made when it is needed"
    return Check("home", Verdict.OK, detail, why=_WHY_HOME)


def disk(models_dir: Path) -> Check:
    """Whether there is room for a model."""
    free = shutil.disk_usage(existing(models_dir)).free
    detail = f"{human(free)} free for {models_dir}"
    if free < _ENOUGH_DISK:
        fix = "Remove a model (corral rm MODEL), or set CORRAL_STORE_MODELS_DIR."
        return Check("disk", Verdict.WARN, detail, fix, _WHY_DISK)
    return Check("disk", Verdict.OK, detail, why=_WHY_DISK)


def clock(now: float, folder: Path) -> Check:
    """Whether the clock can be right: no file of the home is from the future. `now` in Unix seconds."""
    shown = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC")
    fix = "Set it: sudo timedatectl set-ntp true"
    newest = _newest(folder)
    if newest is not None and newest > now + _DRIFT:
        when = datetime.fromtimestamp(newest, UTC).strftime("%Y-%m-%d %H:%M UTC")
        detail = f"{shown}, but {folder} was written at {when}: the clock goes wrong, or went wrong then."
        return Check("clock", Verdict.WARN, detail, fix, _WHY_CLOCK)
    return Check("clock", Verdict.OK, shown, why=_WHY_CLOCK)


def existing(path: Path) -> Path:
    """The nearest folder above `path`, or itself, that exists."""
    # Not `Path.exists`, which raises where a folder on the way may not be entered.
    return next((place for place in (path, *path.parents) if os.path.exists(place)), Path("/"))  # noqa: PTH110


def read(path: Path) -> str:
    """What a file says; nothing where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _newest(folder: Path) -> float | None:
    """When anything directly in the folder was last written, in Unix seconds."""
    try:
        with os.scandir(folder) as entries:
            return max((entry.stat(follow_symlinks=False).st_mtime for entry in entries), default=None)
    except OSError:
        return None
