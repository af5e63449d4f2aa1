"""Virtual environments of engines: heavy libraries live in them, and never meet Corral's own.

    home/environments/
    ├── KIND            symbolic link to the environment in use; set when that is whole
    ├── .KIND-<digest>  the environment itself; the digest is of what was asked for and of the interpreter
    └── .KIND.lock      locked while one is made or removed, by the process that does it and by its pip

An environment cannot be moved once it is made, for its programs name their interpreter: so it is the link that moves.
One that was being made when its maker died is nobody's, and the next `install` begins anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from corral.domain.ports import Progress, Report
from corral.errors import Conflict, NotFound, RuntimeUnavailable
from corral.kit.disk import translated, try_lock
from corral.kit.process import child_environment

CUDA = "torch-cuda.txt"
"""Beside a list that names torch: what torch needs of CUDA, where the build of torch is not one for processors."""

_PYTHON = re.compile(r"^#!\s*(\S.*?)\s*$")
_FOREIGN = re.compile(r"PYTHON(HOME|PATH|USERBASE)|VIRTUAL_ENV|PIP_(TARGET|USER|PREFIX|ROOT|REQUIRE_VIRTUALENV)")
_PINNED = re.compile(r"^(\S+==[^\s;+]+)")
_LAST_LINES = 4
_GPUS = ("/dev/nvidiactl", "/dev/dxg", "/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What goes into the environment of the runtime `kind`.

    `requirements` is a list in pip's format: exact versions with hashes, complete, for nothing beside it is installed.
    `finish` is called with the environment's folder when all is in, for what pip cannot do; it may block.
    """

    kind: str
    requirements: Path
    finish: Callable[[Path], None] | None = None


def folder(kind: str, home: Path) -> Path:
    """Where the environment of `kind` is found once it is made."""
    return home / "environments" / kind


def program(kind: str, name: str, home: Path, env: Mapping[str, str], given: Path | None = None) -> Path | None:
    """Where the program `name` of the runtime `kind` is; None when nowhere.

    Looked for in this order: `given`, which is the program or an environment's folder; the environment made for `kind`;
    the one Corral runs in; PATH. When `given` is not there nothing else is taken in its place.
    """
    if given is not None:
        given = given.expanduser()
        return _runnable(given / "bin" / name if given.is_dir() else given)
    for place in (folder(kind, home) / "bin", Path(sys.prefix) / "bin"):
        if (found := _runnable(place / name)) is not None:
            return found
    path = shutil.which(name, path=env.get("PATH"))
    return Path(path) if path else None


def interpreter(program: Path) -> Path | None:
    """The Python that a program of an environment runs on; None when that cannot be told."""
    with suppress(OSError), program.open("rb") as file:
        first = _PYTHON.match(file.readline(300).decode("utf-8", "replace"))
        if first is not None and "python" in first[1] and (named := _runnable(Path(first[1]))) is not None:
            return named
    return _runnable(program.parent / "python") or _runnable(program.resolve().parent / "python")


def version(program: Path, package: str) -> str | None:
    """The version of `package` in the environment that `program` is of; None when not there. Starts nothing."""
    python = interpreter(program)
    if python is None:
        return None
    name = re.sub(r"[-_.]+", "_", package).lower()
    for place in sorted((python.parent.parent / "lib").glob("python3*/site-packages")):
        for found in sorted(place.glob("*.dist-info")):
            distribution, _, number = found.name.removesuffix(".dist-info").partition("-")
            if re.sub(r"[-_.]+", "_", distribution).lower() == name:
                return number
    return None


async def install(
    recipe: Recipe, home: Path, report: Report, env: Mapping[str, str], python: str = sys.executable
) -> Path:
    """Make the environment of a recipe, or find that it is there already, and return its folder.

    What was in use stays in use until the new one is whole. Where packages come from is pip's own affair: it reads its
    configuration and the environment. Takes minutes; when cancelled its pip is ended.

    Raises:
        Conflict: it is being made or removed already.
        RuntimeUnavailable: it could not be made; says what pip said last.
        StoreError: the home cannot be written.
    """
    link = folder(recipe.kind, home)
    whole = link.with_name(f".{recipe.kind}-{_digest(recipe.requirements, python)}")
    with _alone(recipe.kind, home) as lock:
        if link.is_symlink() and link.resolve() == whole.resolve() and link.exists():
            return link
        with translated("writing", link.parent):
            await asyncio.to_thread(_clear, recipe.kind, link, keep=link.resolve())
            pip = _Pip(whole / "bin" / "python", lock, report, env)
            try:
                await _fill(recipe, whole, pip, python)
            except BaseException:
                await asyncio.shield(asyncio.to_thread(shutil.rmtree, whole, ignore_errors=True))
                raise
            beside = link.with_name(f".{recipe.kind}.new")
            beside.unlink(missing_ok=True)
            beside.symlink_to(whole.name)
            beside.replace(link)
            await asyncio.to_thread(_clear, recipe.kind, link, keep=whole)
    return link


def remove(kind: str, home: Path) -> int:
    """Remove the environment of `kind` and return the bytes that this freed. Blocks.

    Raises:
        NotFound: there is none.
        Conflict: it is being made or removed already.
    """
    link = folder(kind, home)
    if not link.is_symlink() and not list(link.parent.glob(f".{kind}-*")):
        raise NotFound(f"There is no environment of {kind!r} to remove.", "See: corral runtimes")
    with _alone(kind, home), translated("removing", link):
        link.unlink(missing_ok=True)
        return _clear(kind, link, keep=None)


class _Pip:
    """Runs an environment's Python, and tells what it says line by line."""

    def __init__(self, python: Path, lock: int, report: Report, env: Mapping[str, str]) -> None:
        self._python = python
        self._lock = lock
        self._report = report
        clean = {name: value for name, value in child_environment(env).items() if not _FOREIGN.fullmatch(name)}
        self._environment = {**clean, "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    async def install(self, requirements: Path) -> None:
        """Install a list.

        Raises:
            RuntimeUnavailable: pip did not.
        """
        options = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "--progress-bar", "off")
        await self.run(str(self._python), "-m", "pip", "install", *options, "--requirement", str(requirements))

    async def run(self, *argv: str) -> None:
        """Run a program to its end; the lock is held by it too, so that it is not free while it still writes.

        Raises:
            RuntimeUnavailable: it failed.
        """
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environment,
            pass_fds=(self._lock,),
            start_new_session=True,
            limit=1 << 20,
        )
        last: deque[str] = deque(maxlen=_LAST_LINES)
        try:
            if process.stdout is not None:
                async for raw in process.stdout:
                    line = raw.decode("utf-8", "replace").strip()
                    if line:
                        last.append(line)
                        self._report(Progress("install", detail=line[:200]))
            code = await process.wait()
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())
            raise
        if code != 0:
            raise RuntimeUnavailable(
                f"The environment could not be made: pip ended with {code}: {' | '.join(last) or 'it said nothing'}.",
                "Where packages come from is pip's configuration: see `pip config list`, and the room on the disk.",
            )


async def _fill(recipe: Recipe, whole: Path, pip: _Pip, python: str) -> None:
    await pip.run(python, "-m", "venv", "--clear", str(whole))
    if sys.platform == "linux" and (torch := locked(recipe.requirements, "torch")) is not None:
        await _fill_torch(torch, whole, pip)
    await pip.install(recipe.requirements)
    built = version(whole / "bin" / "python", "torch")
    cuda = recipe.requirements.with_name(CUDA)
    if built is not None and "+cpu" not in built and sys.platform == "linux" and cuda.is_file():
        await pip.install(cuda)
    if recipe.finish is not None:
        await asyncio.to_thread(recipe.finish, whole)


async def _fill_torch(lock: str, whole: Path, pip: _Pip) -> None:
    """Take the build of torch for what is here, before the whole list would take either.

    The one for processors has a local version, `2.13.0+cpu`, which `==2.13.0` admits and `===2.13.0` does not.
    """
    pinned = whole / "torch.txt"
    if has_nvidia():
        pinned.write_text(lock.replace("==", "===", 1))
        await pip.install(pinned)
        return
    pinned.write_text(_PINNED.sub(r"\1+cpu", lock, count=1))
    with suppress(
        RuntimeUnavailable
    ):  # it is offered nowhere here: then the public build, which is many times the size
        await pip.install(pinned)


def locked(requirements: Path, package: str) -> str | None:
    """What a list says of a package: its version, marker and hashes, as it stands there; None when nothing."""
    blocks = re.split(r"\n(?=\S)", requirements.read_text())
    return next((block + "\n" for block in blocks if block.startswith(f"{package}==")), None)


def has_nvidia(places: tuple[str, ...] = _GPUS) -> bool:
    """Whether a driver of NVIDIA's is on this machine. Quick, and loads nothing."""
    return any(Path(place).exists() for place in places)


@contextmanager
def _alone(kind: str, home: Path) -> Iterator[int]:
    """Hold the lock of an environment, for as long as the block runs."""
    place = home / "environments"
    with translated("writing", place):
        place.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place / f".{kind}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not try_lock(descriptor):
            raise Conflict(
                f"The environment of {kind!r} is being made or removed already.", "Wait for it, then look again."
            )
        yield descriptor
    finally:
        os.close(descriptor)


def _clear(kind: str, link: Path, keep: Path | None) -> int:
    """Remove every environment of `kind` but `keep`, and return the bytes that were in them."""
    freed = 0
    for old in link.parent.glob(f".{kind}-*"):
        if keep is None or old.resolve() != keep.resolve():
            freed += sum(file.lstat().st_size for file in old.rglob("*") if not file.is_dir())
            shutil.rmtree(old)
    return freed


def _digest(requirements: Path, python: str) -> str:
    content = hashlib.sha256(requirements.read_bytes())
    content.update(python.encode())
    return content.hexdigest()[:12]


def _runnable(path: Path) -> Path | None:
    return path if path.is_file() and os.access(path, os.X_OK) else None
