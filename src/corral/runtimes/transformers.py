"""Runtime `transformers`: safetensors snapshots on the library's own serving, one child process for each engine.

The library and torch live in an environment of their own (`corral.kit.environments`): nothing of them is imported here.
The child is `_transformers/engine` on that environment's Python, started under the guard of `corral.kit.program`.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from corral.domain.memory import DEFAULT_CONTEXT, DEFAULT_SLOTS, Demand
from corral.domain.models import Capability
from corral.domain.ports import Availability, Endpoint, LaunchSpec, Progress, Report, SessionFacts
from corral.errors import CorralError, EngineStartFailed, InvalidRequest, OutOfMemory, RuntimeUnavailable
from corral.kit import chat_template, environments, loopback, process, program, tally
from corral.kit.session import ChildSession
from corral.runtimes._transformers.asking import SAMPLING, Asking
from corral.runtimes._transformers.engine import server

if TYPE_CHECKING:
    from collections.abc import Sequence

OLDEST = (5, 23)
"""The oldest version of the library whose parts `_transformers/engine` knows."""

_INSTALL = "Type: corral runtimes install transformers"
_FACTS_TIMEOUT = 30.0
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
_POSITIVE = ("context", "slots", "threads", "block", "blocks", "batch_tokens", "max_tokens", "repeat_penalty")
_NOT_NEGATIVE = ("temperature", "top_p", "top_k", "min_p", "typical_p", "seed")
_SMALLEST_BLOCK = 4
_MIB = 1024**2

_PROCESS = 430 * _MIB
"""Python, torch and the library, measured on a processor once a model is loaded; on a GPU the libraries of CUDA too."""
_CUDA_PROCESS = 1500 * _MIB
_CUDA_OVERHEAD = 600 * _MIB

_WIDTHS: Mapping[str, float] = {"bfloat16": 2.0, "float16": 2.0, "float32": 4.0}
_NUMBERS: Mapping[str, str] = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}
_PACKED: Mapping[str, float] = {"int8": 1.03, "4bit": 0.56}
"""Bytes of a weight that is quantised at load, with its share of the scales."""
_LIBRARY_QUANTIZATION: Mapping[str, str] = {"int8": "bnb-8bit", "4bit": "bnb-4bit"}


@dataclass(frozen=True, slots=True)
class TransformersOptions:
    """How an engine of this runtime is loaded; None leaves a value to the model or to the library.

    Attributes:
        executable: the program `transformers` to take, or the folder of its environment; None looks for it.
        context: tokens of each slot, prompt and answer together; never more than the model was trained for. None is
            the trained length or 4096, whichever is less.
        slots: requests answered at the same time.
        device: `cpu`, `cuda`, `cuda:1` or `mps`; `auto` is what the scheduler chose, without one the best there is.
        dtype: number format of weights and context; `auto` is what the device computes fastest.
        quantization: weights made smaller while they are loaded: `int8` or `4bit`; needs the package bitsandbytes.
        attention: how attention is computed; the flash kinds need a package of their own.
        batching: whether requests are answered together; without it one after the other, whatever `slots` says.
        block: tokens of one block of the context.
        blocks: blocks set aside, for all slots together; None is what context and slots need.
        batch_tokens: tokens computed in one step, of prompts and answers together.
        compile: translate the model for the device while it is loaded, which takes longer then; ends batching.
        threads: CPU threads.
        chat_template: a Jinja text, or the path of one, in place of the model's own.
        trust_remote_code: run Python code that came with the model.
        stop: texts that end an answer when the client names none.
        max_tokens: most tokens of an answer when the client says nothing; None is until the model or the context ends.
        temperature, top_p, top_k, min_p, typical_p, repeat_penalty, presence_penalty, frequency_penalty, seed: how the
            next token is chosen when the client does not say.
        extra: more of the library's settings of generation, by its names; only without batching.
    """

    executable: Path | None = None
    context: int | None = None
    slots: int = DEFAULT_SLOTS
    device: str = "auto"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    quantization: Literal["none", "int8", "4bit"] = "none"
    attention: Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3"] | None = None
    batching: bool = True
    block: int = 32
    blocks: int | None = None
    batch_tokens: int = 512
    compile: bool = False
    threads: int | None = None
    chat_template: str | None = None
    trust_remote_code: bool = False
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    extra: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        least = {**dict.fromkeys(_NOT_NEGATIVE, 0), **dict.fromkeys(_POSITIVE, 1), "block": _SMALLEST_BLOCK}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                _refuse(name, f"must be at least {bound}, not {value}")
        if not _DEVICE.fullmatch(self.device):
            _refuse("device", f"must be auto, cpu, mps, cuda or cuda:N, not {self.device!r:.40}")
        if self.batch_tokens < self.slots:
            _refuse("batch_tokens", f"must be at least the number of slots, {self.slots}, not {self.batch_tokens}")
        if self.batched:
            for name in ("extra", "typical_p"):
                if getattr(self, name) is not None:
                    _refuse(name, "is followed only without batching", "Set batching: false.")
        elif self.presence_penalty or self.frequency_penalty:
            _refuse("presence_penalty and frequency_penalty", "are followed only with batching")

    @property
    def batched(self) -> bool:
        """Whether requests are answered together, where the model can."""
        return self.batching and not self.compile


def _refuse(name: str, why: str, hint: str = "") -> None:
    raise InvalidRequest(f"Option {name!r} for transformers {why}.", hint, param=name)


class Transformers:
    """Runs snapshots of safetensors."""

    kind = "transformers"
    options = TransformersOptions
    formats = frozenset({"safetensors"})
    preference = 30
    capabilities = frozenset(Capability) - {Capability.EMBEDDINGS, Capability.JSON_SCHEMA}
    recipe = environments.Recipe("transformers", Path(__file__).parent / "_locks" / "transformers.txt")

    def __init__(self, env: Mapping[str, str], home: Path) -> None:
        self._env = env
        self._home = home

    async def probe(self) -> Availability:
        """Whether an environment with the library is there. Devices are those its build of torch was made for."""
        found = environments.program(self.kind, "transformers", self._home, self._env)
        if found is None:
            return Availability(usable=False, reason="The library transformers is not installed.", hint=_INSTALL)
        return _judged(found)

    def demand(self, spec: LaunchSpec) -> Demand:
        """Weights in the format they are loaded in, and the context of every slot."""
        options: TransformersOptions = spec.options
        device = None if options.device == "auto" else options.device
        gpu = device.startswith("cuda") if device else environments.has_nvidia()
        dtype = _expected_dtype(options, device, gpu=gpu)
        slots = options.slots if options.batched else 1
        context = slot_context(options, spec)
        if options.batched and options.blocks is not None:
            context = -(-options.blocks * options.block // slots)
        return Demand(
            context=context,
            slots=slots,
            keys=_NUMBERS[dtype],
            values=_NUMBERS[dtype],
            weights=weight_factor(options, dtype, spec.revision.facts if spec.revision else {}),
            process=_CUDA_PROCESS if gpu else _PROCESS,
            overhead=_CUDA_OVERHEAD if gpu else 0,
            device=device,
        )

    async def start(self, spec: LaunchSpec, report: Report) -> ChildSession:
        """Load the snapshot in the folder `spec.files["model"]` and wait until it answers."""
        options: TransformersOptions = spec.options
        found = environments.program(self.kind, "transformers", self._home, self._env, options.executable)
        if found is None:
            where = f" at {options.executable}" if options.executable else ""
            raise RuntimeUnavailable(f"The library transformers is not installed{where}.", _INSTALL)
        available = await asyncio.to_thread(_judged, found)
        python = environments.interpreter(found)
        if not available.usable or python is None:
            raise RuntimeUnavailable(available.reason, available.hint)
        if options.quantization != "none" and environments.version(found, "bitsandbytes") is None:
            raise RuntimeUnavailable(
                f"Option 'quantization' for transformers needs the package bitsandbytes, which {found.parent} lacks.",
                f"{_INSTALL} — or set quantization: none.",
            )
        key = secrets.token_urlsafe(32)
        launch = await asyncio.to_thread(launch_data, spec, key)
        cache = self._home / "engines" / "transformers"
        await asyncio.to_thread((cache / "hub").mkdir, parents=True, exist_ok=True)
        headers = {"Authorization": f"Bearer {key}"}
        report(Progress("load", detail=f"transformers {available.version}"))
        command = program.Program(
            title=f"The engine of {spec.model!r}",
            argv=(str(python), "-P", "-m", "engine.server", "{port}"),
            environment=child_environment(self._env, cache) | {server.LAUNCH: json.dumps(launch)},
            headers=headers,
            cwd=Path(launch["folder"]),
            diagnose=diagnose,
        )
        child = await program.start(command, spec.load_timeout)
        try:
            return await _session(child, spec, headers, available)
        except (CorralError, asyncio.CancelledError):
            await child.stop(0)
            raise


def _judged(found: Path) -> Availability:
    """Whether the library beside the program `found` is one this runtime knows. Looks at files only."""
    number = environments.version(found, "transformers")
    torch = environments.version(found, "torch")
    if environments.interpreter(found) is None or number is None:
        return Availability(usable=False, reason=f"{found} is no program of a Python environment.", hint=_INSTALL)
    if tuple(int(part) for part in re.findall(r"\d+", number)[:2]) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return Availability(
            usable=False,
            version=number,
            reason=f"The library transformers is {number}, and Corral needs {oldest} or newer.",
            hint=_INSTALL,
        )
    for package in ("torch", "uvicorn", "fastapi", "openai"):
        if environments.version(found, package) is None:
            return Availability(
                usable=False,
                version=number,
                reason=f"The package {package}, which the server of transformers needs, is not beside it.",
                hint=_INSTALL,
            )
    cuda = "+cpu" not in (torch or "") and environments.has_nvidia()
    devices = ("mps", "cpu") if sys.platform == "darwin" else ("cuda", "cpu") if cuda else ("cpu",)
    return Availability(usable=True, version=number, devices=devices)


def launch_data(spec: LaunchSpec, key: str) -> dict[str, Any]:
    """What the child is told. Looks at the files and reads the chat template; blocks."""
    options: TransformersOptions = spec.options
    folder = spec.files.get("model")
    if folder is None or not (folder / "config.json").is_file():
        raise EngineStartFailed(f"The engine of {spec.model!r} has no snapshot of a model.", "Install it again.")
    if not any(folder.glob("*.safetensors")):
        raise EngineStartFailed(
            f"The snapshot of {spec.model!r} has no weights in the format safetensors.",
            "Corral opens no other: such files can run code.",
        )
    device = options.device
    if device == "auto" and spec.placement is not None:
        device = spec.placement.device
    batching = {
        "slots": options.slots,
        "block": options.block,
        "blocks": options.blocks,
        "tokens": options.batch_tokens,
    }
    return {
        "folder": str(folder.resolve()),
        "name": spec.model,
        "key": key,
        "device": device,
        "dtype": options.dtype,
        "quantization": _LIBRARY_QUANTIZATION.get(options.quantization),
        "attention": options.attention,
        "compile": options.compile,
        "threads": options.threads,
        "trust_remote_code": options.trust_remote_code,
        "chat_template": chat_template.text(options.chat_template, "transformers"),
        "context": slot_context(options, spec),
        "batching": batching if options.batched else None,
    }


def child_environment(env: Mapping[str, str], cache: Path) -> dict[str, str]:
    """The engine's environment: it asks no hub, tells nobody, and finds its program but nothing else of Corral's."""
    kept = {
        name: value
        for name, value in process.child_environment(env).items()
        if not name.startswith(("PYTHON", "HF_", "TRANSFORMERS_")) and name != "VIRTUAL_ENV"
    }
    return kept | {
        "HF_HOME": str(cache),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONPATH": str(Path(server.__file__).parent.parent),
        "PYTHONUNBUFFERED": "1",
    }


def slot_context(options: TransformersOptions, spec: LaunchSpec) -> int:
    """Tokens for each slot: what was asked for, or 4096, and never more than the model is known to be trained for."""
    trained = spec.revision.facts.get("context_length") if spec.revision else None
    asked = options.context or DEFAULT_CONTEXT
    return min(asked, trained) if isinstance(trained, int) and trained > 0 else asked


def _expected_dtype(options: TransformersOptions, device: str | None, *, gpu: bool) -> str:
    if options.dtype != "auto":
        return options.dtype
    if gpu:
        return "bfloat16"
    if device == "mps" or (device is None and sys.platform == "darwin"):
        return "float16"
    return "bfloat16" if server.reckons_bf16() else "float32"


def weight_factor(options: TransformersOptions, dtype: str, facts: Mapping[str, Any]) -> float:
    """What the weights take in memory over what their files take, by the `facts` of a revision."""
    numbers, parameters = facts.get("dtypes"), facts.get("parameters")
    if not isinstance(numbers, Mapping) or not isinstance(parameters, int) or parameters < 1:
        return 1.0
    size = sum(value for value in numbers.values() if isinstance(value, int))
    packed = sum(value for name, value in numbers.items() if not name.startswith(("F16", "BF16", "F32", "F64")))
    if size < 1 or packed > size / 2:  # quantised in the file already: it stays as it is
        return 1.0
    whole = _WIDTHS[dtype]
    if options.quantization == "none":
        return parameters * whole / size
    rows, width = facts.get("vocab_size"), facts.get("embedding_length")
    kept = min(rows * width, parameters) if isinstance(rows, int) and isinstance(width, int) else 0
    return (kept * whole + (parameters - kept) * _PACKED[options.quantization]) / size


async def _session(
    child: process.Child, spec: LaunchSpec, headers: Mapping[str, str], available: Availability
) -> ChildSession:
    address = child.facts["address"]
    status, body = await loopback.get(f"{address}/facts", headers, _FACTS_TIMEOUT)
    try:
        said = json.loads(body) if status == 200 else None
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise EngineStartFailed(f"The engine of {spec.model!r} did not tell its properties (status {status}).")
    adapt = asking(said, spec.options)
    endpoint = Endpoint(url=f"{address}/v1", headers=headers, model=spec.model, adapt=adapt)

    async def counted(_: str, document: Mapping[str, Any]) -> int | None:
        return await tally.ask(f"{address}/count", headers, document, "count") if tally.written(document) else None

    return ChildSession(child, endpoint, read_facts(said, spec, available), f"{address}/health", counted)


def asking(said: Mapping[str, Any], options: TransformersOptions) -> Asking:
    """How requests are put to an engine that `said` this of itself."""
    return Asking(
        model={**(said.get("generation") or {}), **(options.extra or {})},
        defaults={name: value for name in SAMPLING if (value := getattr(options, name, None)) is not None},
        system=bool(said.get("system")),
        batched=bool(said.get("batched")),
        max_tokens=options.max_tokens,
        stop=options.stop,
    )


def read_facts(said: Mapping[str, Any], spec: LaunchSpec, available: Availability) -> SessionFacts:
    """What the engine said, in Corral's words. A model known to write no text is not credited with any."""
    found = {Capability.COMPLETION}
    known = spec.revision.capabilities if spec.revision else frozenset()
    own_template = spec.options.chat_template is not None
    if said.get("chat") and (own_template or not known or Capability.CHAT in known):
        found |= {Capability.CHAT}
        found |= {Capability.SYSTEM_ROLE} if said.get("system") else set()
        found |= {Capability.TOOLS} if said.get("tools") else set()
        found |= {Capability.VISION} if said.get("modality") in {"VLM", "MULTIMODAL"} else set()
    if known and Capability.COMPLETION not in known:
        found = set()
    return SessionFacts(
        context=said.get("context"),
        slots=said.get("slots"),
        device=said.get("device"),
        capabilities=frozenset(found),
        notes=tuple(_notes(said, spec.options, available)),
        counts=True,
    )


def _notes(said: Mapping[str, Any], options: TransformersOptions, available: Availability) -> list[str]:
    notes = [f"computes in {said.get('dtype')}, attention {said.get('attention')}"]
    if options.quantization != "none":
        notes.append(f"weights quantised to {options.quantization} while they were loaded")
    if options.batched and not said.get("batched"):
        notes.append("the library cannot batch this model: requests are answered one after the other")
    if said.get("device") == "cpu" and options.device == "auto" and environments.has_nvidia():
        why = "" if "cuda" in available.devices else ": its build of torch is one for processors"
        notes.append(f"runs on the processor although there is an NVIDIA GPU{why}")
    if not said.get("system"):
        notes.append("has no place for a system message: it is put before the first message of the user")
    return notes


_ERROR = re.compile(r"^(?:[\w.]*\.)?([A-Z]\w*(?:Error|Exception|Exit)): (.+)")
_SAID = re.compile(r"^corral: (.+)")
_MEMORY = re.compile(
    r"out of memory|OutOfMemory|MemoryError|bad_alloc|[Cc]annot allocate|can't allocate|want of memory|SIGKILL"
    r"|memory footprint|not enough (?:free )?memory",
)
_HINTS = (
    (r"lacks a part of its server", _INSTALL),
    (
        r"does not recognize this architecture|has no attribute '\w+(?:For|Model)|Unrecognized (?:model|configuration)",
        "The library does not know this kind of model; a newer version may: corral runtimes install transformers",
    ),
    (r"trust_remote_code|custom code", "The model brings Python code. If you trust it, set trust_remote_code: true."),
    (r"[Bb]itsandbytes|bnb", "Set quantization: none, or give it a device that bitsandbytes knows."),
    (r"FlashAttention|flash[_-]attn|attn_implementation", "Set attention: sdpa."),
    (
        r"CUDA|cuda|NVIDIA",
        "See whether the driver works: nvidia-smi. To run on the processor, set device: cpu.",
    ),
    (r"MPS|mps", "To run on the processor, set device: cpu."),
    (r"No module named|requires the .* library|[Ii]mportError", "Something is missing. " + _INSTALL),
    (
        r"[Ss]afetensor|deserializ|HeaderTooLarge|size mismatch|shape|json|JSON|[Tt]okenizer",
        "The snapshot is damaged or incomplete. To install it again: corral rm, corral pull.",
    ),
)


def diagnose(title: str, reason: str, log: Sequence[str]) -> EngineStartFailed:
    """The error of a failed start: the exception that ended the library, and what to do about it."""
    said = [f"{match[1]}: {match[2]}" for line in log if (match := _ERROR.match(line))][-1:]
    said = said or [match[1] for line in log if (match := _SAID.match(line))][-1:]
    said = said or [line for line in log if line.strip()][-2:]
    text = "; ".join(said)[:600].rstrip(".") or "it printed nothing"
    if _MEMORY.search(f"{reason} {text}"):
        return OutOfMemory(
            f"{title} {reason}: {text}.",
            "Give it less to hold: fewer slots, a smaller context, quantization: int8 or 4bit.",
        )
    hint = next((hint for pattern, hint in _HINTS if re.search(pattern, text)), "Its log may say more.")
    return EngineStartFailed(f"{title} {reason}: {text}.", hint)


plugin = Transformers
