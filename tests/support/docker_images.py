"""Images for tests, made of what is on this machine, as archives that `docker load` takes; no engine makes them.

    corral-test/tiny      busybox and tests/images/tiny.sh: 2 MB
    corral-test/ollama    this machine's Python with Ollama's API played, no model (tests/support/ollama_daemon.py)
    corral-test/corral    the same Python with Corral, which serves real models (tests/images/model_server.py)

The layers that change seldom (Python, packages) are kept in the engines' cache; Corral's own is made each time.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fcntl import LOCK_EX, flock
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent.parent
HERE = ROOT / "tests" / "images"
TINY, PLAYER, CORRAL = "corral-test/tiny:latest", "corral-test/ollama:latest", "corral-test/corral:latest"
_APPLETS = (
    "sh",
    "httpd",
    "sleep",
    "awk",
    "dd",
    "mkfifo",
    "cat",
    "ls",
    "id",
    "touch",
    "nc",
    "wget",
    "env",
    "ps",
    "kill",
)
_ANSWERS: dict[str, Any] = {
    "health": {"status": "ok"},
    "api/version": {"version": "0.0.1"},
    "api/tags": {"models": []},
    "api/ps": {"models": []},
    "v1/models": {"object": "list", "data": []},
    "index.html": "tiny\n",
}
_OLLAMA = {"OLLAMA_HOST": "0.0.0.0:11434", "OLLAMA_MODELS": "/models"}
_NEEDLESS = {"test", "idlelib", "ensurepip", "lib2to3", "tkinter", "turtledemo", "site-packages", "dist-packages"}
_USERS = "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"


@dataclass(frozen=True)
class Layer:
    """A tar archive, and its SHA-256."""

    path: Path
    sha: str


@dataclass(frozen=True)
class Image:
    """Layers from below to above, and what a container of them runs."""

    name: str
    layers: tuple[Layer, ...]
    entrypoint: tuple[str, ...]
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int = 11434

    def config(self) -> bytes:
        """The image's own description, as the engine keeps it."""
        inner = {
            "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", *(f"{k}={v}" for k, v in self.environment.items())],
            "Entrypoint": list(self.entrypoint),
            "Cmd": list(self.command),
            "ExposedPorts": {f"{self.port}/tcp": {}},
            "Labels": {"corral.test": self.name},
        }
        sums = [f"sha256:{layer.sha}" for layer in self.layers]
        machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
        return json.dumps(
            {
                "architecture": machine,
                "os": "linux",
                "config": inner,
                "created": "2026-01-01T00:00:00Z",
                "rootfs": {"type": "layers", "diff_ids": sums},
                "history": [{"created": "2026-01-01T00:00:00Z"} for _ in sums],
            }
        ).encode()


def lacking(name: str) -> str:
    """Why an image cannot be made here; empty when it can."""
    if name == TINY:
        return "" if _busybox() else "no static busybox (Debian: busybox-static)"
    return "" if shutil.which("ldd") else "no ldd, which tells what libraries Python needs"


def load(name: str, docker: tuple[str, ...]) -> None:
    """Give an image to an engine; `docker` is the command line that reaches it."""
    with _cache() as folder:
        image = {TINY: _tiny, PLAYER: _player, CORRAL: _corral}[name](folder)
        process = subprocess.Popen([*docker, "load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=False)
        assert process.stdin is not None
        with process.stdin as into:
            _write(image, into)
        said = process.stdout.read() if process.stdout else b""
        if process.stdout:
            process.stdout.close()
        assert process.wait(120) == 0, said


def _write(image: Image, into: IO[bytes]) -> None:
    config = image.config()
    stem = hashlib.sha256(config).hexdigest()
    listed = [
        {
            "Config": f"{stem}.json",
            "RepoTags": [image.name],
            "Layers": [f"{layer.sha}/layer.tar" for layer in image.layers],
        }
    ]
    with tarfile.open(fileobj=into, mode="w|", format=tarfile.PAX_FORMAT) as out:
        _put(out, "manifest.json", json.dumps(listed).encode())
        _put(out, f"{stem}.json", config)
        for layer in image.layers:
            about = tarfile.TarInfo(f"{layer.sha}/layer.tar")
            about.size = layer.path.stat().st_size
            with layer.path.open("rb") as source:
                out.addfile(about, source)


def _tiny(folder: Path) -> Image:
    busybox = _busybox()
    assert busybox is not None

    def fill(out: tarfile.TarFile) -> None:
        _folders(out, "bin", "www/api", "www/v1", "etc", "tmp", "proc", "sys", "dev", "models")
        _put(out, "bin/busybox", busybox.read_bytes(), 0o755)
        _put(out, "bin/tiny", (HERE / "tiny.sh").read_bytes(), 0o755)
        _put(out, "etc/passwd", _USERS.encode())
        for name, answer in _ANSWERS.items():
            _put(out, f"www/{name}", (answer if isinstance(answer, str) else json.dumps(answer)).encode())
        for applet in _APPLETS:
            about = tarfile.TarInfo(f"bin/{applet}")
            about.type, about.linkname = tarfile.SYMTYPE, "busybox"
            out.addfile(about)

    layer = _layer(folder, "tiny", _key(busybox.read_bytes(), (HERE / "tiny.sh").read_bytes(), _own()), fill)
    return Image(TINY, (layer,), ("/bin/tiny",), ("serve", "11434"))


def _player(folder: Path) -> Image:
    player = ROOT / "tests" / "support" / "ollama_daemon.py"

    def fill(out: tarfile.TarFile) -> None:
        _put(out, "opt/ollama_daemon.py", player.read_bytes())

    layer = _layer(folder, "player", _key(player.read_bytes(), _own()), fill)
    run = (_python(), "-u", "-P", "/opt/ollama_daemon.py")
    return Image(
        PLAYER, (_base(folder), layer), run, ("serve",), {"OLLAMA_HOST": "0.0.0.0:11434", "OLLAMA_MODELS": "/models"}
    )


def _corral(folder: Path) -> Image:
    source = [path for path in sorted((ROOT / "src" / "corral").rglob("*")) if path.is_file()]
    kept = [path for path in source if "__pycache__" not in path.parts]
    texts = [path.read_bytes() for path in kept]

    def fill(out: tarfile.TarFile) -> None:
        for path, text in zip(kept, texts, strict=True):
            _put(out, f"opt/corral/{path.relative_to(ROOT / 'src')}", text)
        _put(out, "opt/model_server.py", (HERE / "model_server.py").read_bytes())

    names = [str(path).encode() for path in kept]
    key = _key(*names, *texts, (HERE / "model_server.py").read_bytes(), _own())
    layers = (_base(folder), _packages(folder), _layer(folder, "source", key, fill))
    environment = {
        **_OLLAMA,
        "CORRAL_HOME": "/tmp/corral",
        "PYTHONPATH": "/opt/corral:/opt/packages",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HF_HUB_OFFLINE": "1",
    }
    return Image(CORRAL, layers, (_python(), "-u", "/opt/model_server.py"), (), environment)


def _base(folder: Path) -> Layer:
    """This machine's Python: its program, standard library and every shared library that they need."""
    library = Path(sysconfig.get_path("stdlib", vars={"base": sys.base_prefix, "installed_base": sys.base_prefix}))

    def fill(out: tarfile.TarFile) -> None:
        _folders(out, "etc", "tmp", "models", "opt", "proc", "sys", "dev")
        _put(out, "etc/passwd", _USERS.encode())
        _put(out, "etc/hosts", b"127.0.0.1 localhost\n")
        _put(out, _python()[1:], Path(_python()).resolve().read_bytes(), 0o755)
        binaries = [Path(_python()).resolve()]
        for path in sorted(library.rglob("*")):
            if path.is_file() and not _NEEDLESS & set(path.relative_to(library).parts) and not _built(path):
                _put(out, str(path)[1:], path.read_bytes())
                if ".so" in path.suffixes:
                    binaries.append(path)
        _libraries(out, binaries, set())

    return _layer(folder, "python", _key(sys.version.encode(), str(library).encode(), _own()), fill)


def _packages(folder: Path) -> Layer:
    """What Corral needs, as it is installed here, without what only tests and checks need."""
    found = _closure("corral")
    versions = sorted(f"{name}=={dist.version}" for name, dist in found.items())

    def fill(out: tarfile.TarFile) -> None:
        binaries = []
        for name in sorted(found):
            for file in found[name].files or ():
                path = Path(str(file.locate()))
                if ".." in file.parts or not path.is_file() or path.suffix == ".pth":
                    continue
                _put(out, f"opt/packages/{file}", path.read_bytes())
                if ".so" in path.suffixes:
                    binaries.append(path)
        _libraries(out, binaries, {path.name for path in binaries})

    return _layer(folder, "packages", _key(*(v.encode() for v in versions), sys.version.encode(), _own()), fill)


def _closure(name: str) -> dict[str, metadata.Distribution]:
    """A distribution and all that it needs, by canonical name."""
    found: dict[str, metadata.Distribution] = {}
    done: set[tuple[str, str]] = set()
    waiting = [(name, "")]
    while waiting:
        name, extra = waiting.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if (key, extra) in done:
            continue
        done.add((key, extra))
        found[key] = metadata.distribution(name)
        for each in map(Requirement, found[key].requires or ()):
            if each.marker is None or each.marker.evaluate({"extra": extra}):
                waiting += [(each.name, one) for one in ("", *each.extras)]
    return found


def _libraries(out: tarfile.TarFile, binaries: Iterable[Path], bundled: set[str]) -> None:
    """Shared libraries of the system that programs and libraries need, at their own paths."""
    said = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False).stdout
    for text in sorted(set(re.findall(r"(?:=> |^\s+)(/[^ :]+) \(0x", said, re.MULTILINE))):
        if Path(text).name not in bundled:
            _put(out, text[1:], Path(text).resolve().read_bytes(), 0o755)


def _built(path: Path) -> bool:
    """Parts of the interpreter for building others, which take room."""
    return path.suffix == ".a" or any(part.startswith("config-") for part in path.parts)


def _python() -> str:
    major, minor = sys.version_info[:2]
    return f"{sys.base_prefix}/bin/python{major}.{minor}"


def _busybox() -> Path | None:
    found = shutil.which("busybox", path=f"{os.environ.get('PATH', '')}:/bin:/usr/bin")
    if found is None:
        return None
    said = subprocess.run(["ldd", found], capture_output=True, text=True, check=False)
    return Path(found).resolve() if said.returncode != 0 or "statically linked" in said.stdout else None


@contextmanager
def _cache() -> Iterator[Path]:
    """The folder of kept layers, for one process at a time."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "corral-engines"
    folder = Path(os.environ.get("CORRAL_ENGINES") or base) / "images"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        flock(lock, LOCK_EX)
        yield folder


def _layer(folder: Path, what: str, key: str, fill: Callable[[tarfile.TarFile], None]) -> Layer:
    """A kept layer; made when it is not there yet."""
    for path in folder.glob(f"{what}-{key}-*.tar"):
        return Layer(path, path.stem.rpartition("-")[2])
    for old in folder.glob(f"{what}-*.tar"):
        old.unlink()
    beside = folder / f"{what}.part"
    with tarfile.open(beside, "w", format=tarfile.PAX_FORMAT) as out:
        fill(out)
    with beside.open("rb") as made:
        sha = hashlib.file_digest(made, "sha256").hexdigest()
    return Layer(beside.replace(folder / f"{what}-{key}-{sha}.tar"), sha)


def _put(out: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    about = tarfile.TarInfo(name)
    about.size, about.mode = len(data), mode
    out.addfile(about, io.BytesIO(data))


def _folders(out: tarfile.TarFile, *names: str) -> None:
    for name in names:
        about = tarfile.TarInfo(name)
        about.type, about.mode = tarfile.DIRTYPE, 0o1777 if name in ("tmp", "models") else 0o755
        out.addfile(about)


def _key(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]


def _own() -> bytes:
    return Path(__file__).read_bytes()
