"""Runtime `ollama`: models on Ollama, by a daemon that is there or by `ollama serve` as a child under guard.

A model is one that the daemon has, or one it pulls, or it is made from the files that Corral has installed: their bytes
go to the daemon once, by digest. What Corral makes there is named `corral-…`. Requests take Ollama's OpenAI dialect.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

from corral.domain.memory import DEFAULT_SLOTS, Demand
from corral.domain.models import Capability
from corral.domain.ports import Availability, Endpoint, Footprint, LaunchSpec, Progress, Report, SessionFacts
from corral.errors import (
    CorralError,
    EngineError,
    EngineStartFailed,
    EngineTimeout,
    InvalidRequest,
    OutOfMemory,
    RuntimeUnavailable,
)
from corral.kit import process, program
from corral.kit.ollama_api import CALL_TIMEOUT, OllamaApi
from corral.kit.session import ChildSession

if TYPE_CHECKING:
    from collections.abc import Sequence

_USUAL = "http://127.0.0.1:11434"
_PORT = 11434
_PROBE_TIMEOUT = 1.5
_INSTALL = "Install Ollama, or start it: ollama serve. Another program or place: `executable`, `base_url`."
_DAEMON_KEEPS = 3600.0  # seconds; should Corral be killed, a daemon that stays does not hold the memory for ever
_ROLES = ("model", "mmproj")
_MEMORY = re.compile(r"out of memory|requires more system memory|unable to allocate|cudaMalloc failed", re.IGNORECASE)
_CAN: Mapping[str, frozenset[Capability]] = {
    "completion": frozenset({Capability.CHAT, Capability.COMPLETION, Capability.SYSTEM_ROLE, Capability.JSON_SCHEMA}),
    "tools": frozenset({Capability.TOOLS}),
    "vision": frozenset({Capability.VISION}),
    "embedding": frozenset({Capability.EMBEDDINGS}),
}


@dataclass(frozen=True, slots=True)
class OllamaOptions:
    """Which of Ollama's models, on which Ollama, and how it is loaded; None leaves a value to Ollama.

    Attributes:
        model: Ollama's name for it, such as `llama3.2:1b`; None is made from the installed files, or without any the
            name that clients use.
        pull: let Ollama pull a model that it does not have.
        base_url: where Ollama answers; None is what OLLAMA_HOST says, else `http://127.0.0.1:11434`.
        serve: `true` starts an Ollama of its own for the engine, `false` never does, `auto` when none answers.
        executable: the program `ollama`; None is the one on the PATH.
        models: the folder in which an Ollama that is started keeps its models; None is `ollama` in Corral's home.
        context: tokens of each slot (`num_ctx`).
        slots: requests answered at the same time, by an Ollama that is started.
        gpu_layers: layers put on the GPU (`num_gpu`); 0 none.
        threads: CPU threads (`num_thread`).
        parameters: any other of Ollama's parameters for the model, such as `{temperature: 0.2}`.
        keep_alive: seconds without a request after which Ollama unloads it by itself, if Corral has not; -1 is never.
            None is an hour on a daemon that was there, and never on one that was started.
        memory: bytes it takes in all, where you know it.
    """

    model: str | None = None
    pull: bool = True
    base_url: str | None = None
    serve: bool | Literal["auto"] = "auto"
    executable: Path | None = None
    models: Path | None = None
    context: int | None = None
    slots: int | None = None
    gpu_layers: int | None = None
    threads: int | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    keep_alive: float | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        least = {"context": 1, "slots": 1, "gpu_layers": 0, "threads": 1, "memory": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise InvalidRequest(f"Option {name!r} for ollama must be at least {bound}, not {value}.", param=name)
        if self.base_url is not None and self.serve is True:
            raise InvalidRequest(
                "Option 'base_url' for ollama names an Ollama that is there, and 'serve' starts another.",
                "Leave one of them out.",
                param="base_url",
            )
        if self.base_url is not None and address_of(self.base_url) is None:
            raise InvalidRequest(
                f"Option 'base_url' for ollama is {self.base_url!r}.", "Write http://HOST:PORT.", param="base_url"
            )

    def wanted(self) -> dict[str, Any]:
        """The parameters that the model is to have beyond its own."""
        own = {"num_ctx": self.context, "num_gpu": self.gpu_layers, "num_thread": self.threads}
        return {**{name: value for name, value in own.items() if value is not None}, **self.parameters}


def address_of(host: str) -> str | None:
    """The address that OLLAMA_HOST or an option means: scheme and port may be left out; None when it means none."""
    text = host.strip().rstrip("/")
    text = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or parts.path or parts.query or parts.username:
        return None
    name = "127.0.0.1" if parts.hostname in (None, "0.0.0.0", "::") else str(parts.hostname)  # noqa: S104 - a client's
    usual = {"http": _PORT if "://" not in host else 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{f'[{name}]' if ':' in name else name}:{port or usual}"


class Ollama:
    """Runs models on Ollama."""

    kind = "ollama"
    options = OllamaOptions
    formats: frozenset[str] = frozenset()
    accepts = frozenset({"gguf"})
    preference = 0
    capabilities = frozenset(Capability) - {Capability.RERANK}

    def __init__(self, env: Mapping[str, str], home: Path) -> None:
        self._env = env
        self._home = home

    async def probe(self) -> Availability:
        """Whether an Ollama answers at its usual place, or its program is installed."""
        version = await _version(self._address(None), _PROBE_TIMEOUT)
        if version is not None:
            return Availability(usable=True, version=version)
        if shutil.which("ollama", path=self._env.get("PATH", "")) is not None:
            return Availability(usable=True, reason="No Ollama answers; one is started for each engine.")
        return Availability(usable=False, reason="No Ollama answers here, and none is installed.", hint=_INSTALL)

    def demand(self, spec: LaunchSpec) -> Demand | None:
        """What the files and the context let expect; None for an Ollama on another machine."""
        options: OllamaOptions = spec.options
        host = urlsplit(self._address(options.base_url)).hostname
        if options.serve is not True and host not in ("127.0.0.1", "localhost", "::1"):
            return None
        return Demand(
            context=options.context,
            slots=options.slots or (DEFAULT_SLOTS if options.serve is True else 1),
            fixed=options.memory,
            layers=options.gpu_layers,
            splits=True,
        )

    async def start(self, spec: LaunchSpec, report: Report) -> ChildSession | DaemonSession:
        """Find or start an Ollama, see that it has the model, and load it."""
        options: OllamaOptions = spec.options
        address = self._address(options.base_url)
        served = options.serve is True
        if not served and await _version(address, _PROBE_TIMEOUT) is None:
            if options.serve is False or options.base_url is not None:
                raise RuntimeUnavailable(f"No Ollama answers at {address}.", _INSTALL)
            served = True
        if not served:
            report(Progress("load", detail=f"ollama at {address}"))
            return await _opened(OllamaApi(address), None, spec, report, self._home)
        what = self._program(spec)
        report(Progress("load", detail="ollama serve"))
        child = await program.start(what, spec.load_timeout)
        try:
            return await _opened(OllamaApi(child.facts["address"]), child, spec, report, self._home)
        except (CorralError, asyncio.CancelledError):
            await child.stop(0)
            raise

    def _address(self, given: str | None) -> str:
        return address_of(given or self._env.get("OLLAMA_HOST") or _USUAL) or _USUAL

    def _program(self, spec: LaunchSpec) -> program.Program:
        options: OllamaOptions = spec.options
        given = None if options.executable is None else options.executable.expanduser()
        found = shutil.which(str(given or "ollama"), path=self._env.get("PATH", ""))
        if found is None:
            raise RuntimeUnavailable(f"The program {str(given or 'ollama')!r} is not here.", _INSTALL)
        models = (options.models or self._home / "ollama").expanduser().absolute()
        environment = {
            **process.child_environment(self._env),
            "OLLAMA_HOST": "127.0.0.1:{port}",
            "OLLAMA_MODELS": str(models),
            "OLLAMA_KEEP_ALIVE": "-1",
            "OLLAMA_NOPRUNE": "1",
            "OLLAMA_NUM_PARALLEL": str(options.slots or DEFAULT_SLOTS),
        }
        return program.Program(
            title=f"The engine of {spec.model!r}",
            argv=(found, "serve"),
            environment=environment,
            ported=("OLLAMA_HOST",),
            health="/api/version",
            expect='"version"',
        )


class _Loaded:
    """A model that is loaded on an Ollama, and what was made for it."""

    def __init__(self, daemon: OllamaApi, model: str, own: bool) -> None:
        self.daemon = daemon
        self.model = model
        self._own = own

    async def devices(self, device: str | None) -> dict[str, int]:
        """Bytes as Ollama counts them: it tells the GPU's from the rest, which go under `device`."""
        entry = await self.daemon.running(self.model)
        if entry is None:
            return {}
        whole, graphics = int(entry.get("size") or 0), int(entry.get("size_vram") or 0)
        found = {"cpu": whole - graphics}
        if graphics:
            found[device if device not in (None, "cpu") else "gpu"] = graphics
        return {name: size for name, size in found.items() if size > 0}

    async def release(self, timeout: float) -> None:
        """Out of memory, and what was made for this engine alone removed; whether the daemon hears it or not."""
        try:
            await self.daemon.unload(self.model, max(timeout, 1.0))
            if self._own:
                await self.daemon.delete(self.model)
        except EngineError:
            return


class DaemonSession:
    """A model on an Ollama that was there and stays."""

    def __init__(self, loaded: _Loaded, endpoint: Endpoint, facts: SessionFacts) -> None:
        self._loaded = loaded
        self.endpoint: Final = endpoint
        self.facts: Final = facts
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def healthy(self) -> bool:
        """Whether the daemon answers, for it loads a model again that it let go."""
        return not self._ended.done() and await _version(self._loaded.daemon.address, _PROBE_TIMEOUT) is not None

    async def footprint(self) -> Footprint:
        """As the daemon counts it."""
        try:
            return Footprint({} if self._ended.done() else await self._loaded.devices(self.facts.device))
        except EngineError:
            return Footprint()

    def processes(self) -> Sequence[int]:
        """None of them is ours."""
        return ()

    async def ended(self) -> str:
        """Wait until it is stopped; the daemon's own end is told by `healthy`."""
        return await asyncio.shield(self._ended)

    def log(self) -> Sequence[str]:
        """The daemon keeps its own."""
        return ()

    async def stop(self, grace: float) -> None:
        """Have the model unloaded; the daemon stays."""
        if not self._ended.done():
            self._ended.set_result("was stopped")
            await self._loaded.release(grace)


async def _opened(
    daemon: OllamaApi, child: process.Child | None, spec: LaunchSpec, report: Report, home: Path
) -> ChildSession | DaemonSession:
    """The session of a model that this Ollama has, pulls or is given."""
    options: OllamaOptions = spec.options
    keep = options.keep_alive if options.keep_alive is not None else _DAEMON_KEEPS if child is None else -1
    loaded: _Loaded | None = None
    try:
        model, own = await _provided(daemon, spec, report, home)
        loaded = _Loaded(daemon, model, own)
        said = await daemon.show(model) or {}
        can = [str(item) for item in said.get("capabilities") or ()]
        report(Progress("load", detail=model))
        await daemon.load(model, can, keep, spec.load_timeout)
        entry = await daemon.running(model) or {}
    except (EngineError, asyncio.CancelledError) as error:
        if loaded is not None and child is None:
            await loaded.release(CALL_TIMEOUT)
        if isinstance(error, asyncio.CancelledError | EngineStartFailed | EngineTimeout):
            raise
        raise diagnose(f"The engine of {spec.model!r}", error.message, () if child is None else child.log()) from error
    facts = read_facts(entry, can, spec)
    endpoint = Endpoint(url=f"{daemon.address}/v1", model=model)
    if child is None:
        return DaemonSession(loaded, endpoint, facts)
    return ChildSession(child, endpoint, facts, health=f"{daemon.address}/api/version")


async def _provided(daemon: OllamaApi, spec: LaunchSpec, report: Report, home: Path) -> tuple[str, bool]:
    """Ollama's name of the model, and whether it was made for this engine alone."""
    options: OllamaOptions = spec.options
    if options.model is None and "model" in spec.files:
        base = await _given(daemon, spec, report)
    else:
        base = options.model or spec.model
        if await daemon.show(base) is None:
            if not options.pull:
                raise EngineStartFailed(
                    f"Ollama has no model {base!r}.", f"Let it pull: pull: true, or: ollama pull {base}"
                )
            await daemon.pull(base, report)
    wanted = options.wanted()
    if not wanted:
        return base, False
    # It goes with the engine: no other engine, of this home or of another, may be given the same.
    whose = [str(home), spec.model, base, wanted]
    mark = hashlib.sha256(json.dumps(whose, sort_keys=True).encode()).hexdigest()[:12]
    name = f"corral-{_plain(spec.model)}:{mark}"
    await daemon.create(name, {"from": base, "parameters": wanted})
    return name, True


async def _given(daemon: OllamaApi, spec: LaunchSpec, report: Report) -> str:
    """The name of a model made of the installed files; they are sent unless Ollama has them."""
    known = {} if spec.revision is None else {file.role: file.sha256 or "" for file in spec.revision.files}
    files: dict[str, str] = {}
    for role in (role for role in _ROLES if role in spec.files):
        path = spec.files[role]
        if path.is_dir():
            raise EngineStartFailed(
                f"The model {spec.model!r} is a folder, which Ollama is not given.", "It takes GGUF files."
            )
        digest = known.get(role, "") or await asyncio.to_thread(_digest, path)
        report(Progress("upload", 0, path.stat().st_size, f"{role} to Ollama"))
        await daemon.give(path, digest)
        files[f"{role}.gguf"] = f"sha256:{digest}"
    mark = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:12]
    name = f"corral-{_plain(spec.model)}:{mark}"
    if await daemon.show(name) is None:
        await daemon.create(name, {"files": files})
    return name


def read_facts(entry: Mapping[str, Any], can: Sequence[str], spec: LaunchSpec) -> SessionFacts:
    """What `/api/ps` and `/api/show` say, in Corral's words."""
    whole, graphics = int(entry.get("size") or 0), int(entry.get("size_vram") or 0)
    place = spec.placement
    on_gpu = place.device if place is not None and place.device != "cpu" else "gpu"
    notes = []
    if 0 < graphics < whole:
        notes.append(f"Ollama put {graphics / whole:.0%} of it on the GPU, and the rest beside it.")
    if whole and not graphics and place is not None and place.device != "cpu":
        notes.append(f"Ollama runs it on the CPU, and not on {place.device}.")
    context = entry.get("context_length")
    found: frozenset[Capability] = frozenset().union(*(_CAN.get(item, frozenset()) for item in can))
    return SessionFacts(
        context=context if isinstance(context, int) and context > 0 else spec.options.context,
        slots=spec.options.slots,
        device=None if not whole else on_gpu if graphics else "cpu",
        capabilities=found or None,
        notes=tuple(notes),
    )


def diagnose(title: str, reason: str, log: Sequence[str]) -> EngineStartFailed:
    """The error of a failed start: OutOfMemory where Ollama says so."""
    said = next((line for line in reversed(log) if _MEMORY.search(line)), "")
    if _MEMORY.search(reason) or said:
        return OutOfMemory(
            f"{title}: {reason} {said}".rstrip(), "Give it less to hold: a smaller context, fewer slots."
        )
    return EngineStartFailed(f"{title}: {reason}", f"It last said: {log[-1]}" if log else "See Ollama's own log.")


async def _version(address: str, timeout: float) -> str | None:
    """The version of the Ollama that answers; None when none does."""
    try:
        return await OllamaApi(address).version(timeout)
    except EngineError:
        return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "model"


plugin = Ollama
