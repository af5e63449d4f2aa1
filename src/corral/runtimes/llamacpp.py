"""Runtime `llamacpp`: GGUF files on llama.cpp's own server, one child process for each engine.

    llamacpp.py                 the runtime: options to launch data, an engine's facts
    _llamacpp/options.py        how an engine may be loaded
              devices.py        which devices there are, and which an engine is given
              threads.py        how many threads, and how they wait
              conversation.py   requests put in llama.cpp's words
              tally.py          how long a prompt is
              diagnosis.py      why a start failed
              asking.py         a process that asks the library for its devices
              child.py          the engine's process

The child loads `xllamacpp` and listens on a loopback port of the kernel's choosing with a random key. The parent never
imports the library: a crash in native code costs one engine and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corral.domain.memory import Demand
from corral.domain.models import Capability
from corral.domain.ports import Availability, Endpoint, LaunchSpec, Progress, Report, SessionFacts
from corral.errors import CorralError, EngineStartFailed, InvalidRequest, RuntimeUnavailable
from corral.kit import chat_template, loopback, process
from corral.kit.session import ChildSession
from corral.runtimes._llamacpp import devices, threads
from corral.runtimes._llamacpp.conversation import opening_adapter, tool_adapter
from corral.runtimes._llamacpp.diagnosis import diagnose
from corral.runtimes._llamacpp.options import DEFAULT_CONTEXT, DEFAULT_SLOTS, LlamaCppOptions
from corral.runtimes._llamacpp.tally import tally

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["DEFAULT_CONTEXT", "DEFAULT_SLOTS", "LlamaCpp", "LlamaCppOptions", "plugin"]

SAMPLING = (
    *("temperature", "top_p", "top_k", "min_p", "typical_p", "repeat_penalty", "repeat_last_n"),
    *("presence_penalty", "frequency_penalty", "mirostat", "mirostat_tau", "mirostat_eta", "seed"),
)
_QUIET = {"GGML_NO_BACKTRACE": "1"}
"""An engine that gives up ends at once, and does not call a debugger first."""
_PROPS_TIMEOUT = 10.0
_PROCESS = 40 * 1024**2
_BATCH = 2048
_STEP = 512
_ACTIVATIONS = 64
"""Bytes for each token of a step and each number of a token's vector: sixteen vectors of four-byte numbers."""


class LlamaCpp:
    """Runs GGUF files."""

    kind = "llamacpp"
    options = LlamaCppOptions
    formats = frozenset({"gguf"})
    preference = 50
    capabilities = frozenset(Capability)

    def __init__(self, env: Mapping[str, str], home: Path | None = None) -> None:
        self._env = env
        self._home = home
        self._known: dict[str, tuple[str, ...]] = {}

    async def probe(self) -> Availability:
        """Whether `xllamacpp` is installed, and which devices it can use; that is asked once and remembered."""
        try:
            found = version("xllamacpp")
        except PackageNotFoundError:
            return Availability(
                usable=False, reason="The package xllamacpp is not installed.", hint="Type: pip install xllamacpp"
            )
        return Availability(usable=True, version=found, devices=await self._usable(found))

    async def _usable(self, found: str) -> tuple[str, ...]:
        if found not in self._known:
            self._known[found] = await devices.usable(found, self._env, self._home)
        return self._known[found]

    def demand(self, spec: LaunchSpec) -> Demand:
        """Weights, and the context of every slot; layers may lie on both sides.

        Counted with the process: adapters and a projector that the options name, and the wider steps of an engine that
        makes vectors. Not counted: `prompt_cache_mib`, which is taken as prompts come, and measured then.
        """
        options: LlamaCppOptions = spec.options
        return Demand(
            context=slot_context(options, spec),
            slots=options.slots,
            keys=options.cache_type_k,
            values=options.cache_type_v,
            process=_PROCESS + _sizes(_extra_files(options)) + _wider_step(options, spec),
            device="cpu" if options.gpu_layers == 0 else options.device,
            layers=options.gpu_layers,
            splits=True,
            parallel=max(1, len(options.tensor_split)),
        )

    async def start(self, spec: LaunchSpec, report: Report) -> ChildSession:
        """Load the file `spec.files["model"]` in a child process and wait until it answers."""
        available = await self.probe()
        if not available.usable:
            raise RuntimeUnavailable(available.reason, available.hint)
        ground = devices.ground(spec.options, spec.placement, available.devices, self._env)
        key = secrets.token_urlsafe(32)
        shown = {**_QUIET, **self._env, **threads.waiting(self._env, spec.options.poll), **dict(ground.environment)}
        command = process.Command(
            title=f"The engine of {spec.model!r}",
            argv=process.module_argv("corral.runtimes._llamacpp.child"),
            environment=process.child_environment(shown),
            launch=await asyncio.to_thread(_launch_data, spec, key, ground),
            diagnose=diagnose,
        )
        report(Progress("load", detail=f"llama.cpp {available.version}"))
        child = await process.start(command, spec.load_timeout)
        try:
            return await _session(child, spec, key, ground)
        except (CorralError, asyncio.CancelledError):
            await child.stop(0)
            raise


def _launch_data(spec: LaunchSpec, key: str, ground: devices.Ground) -> dict[str, Any]:
    """What the child is told. Reads the chat template and looks at the files; blocks."""
    options: LlamaCppOptions = spec.options
    if "model" not in spec.files:
        raise EngineStartFailed(f"The engine of {spec.model!r} has no model file.", "Install it again.")
    mmproj = options.mmproj or spec.files.get("mmproj")
    for name, path in [("mmproj", mmproj), *(("lora", Path(adapter)) for adapter in options.lora)]:
        if path is not None and not path.expanduser().is_file():
            raise InvalidRequest(f"Option {name!r} for llamacpp: there is no file {path}.", param=name)
    return {
        **asdict(options),
        "sampling": {name: value for name in SAMPLING if (value := getattr(options, name)) is not None},
        "threads": asdict(threads.chosen(options, _sizes(spec.files.values()), threads.cores())),
        "layers": ground.layers,
        "split": ground.split,
        "key": key,
        "name": spec.model,
        "model": str(spec.files["model"]),
        "context": slot_context(options, spec),
        "embeddings": embeds(spec),
        "rerank": ranks(spec),
        "chat_template": chat_template.text(options.chat_template, "llamacpp"),
        "mmproj": str(mmproj.expanduser()) if mmproj else None,
        "lora": {str(Path(path).expanduser()): scale for path, scale in options.lora.items()},
    }


def slot_context(options: LlamaCppOptions, spec: LaunchSpec) -> int:
    """Tokens for each slot: what was asked for, or 4096, and never more than the model is known to be trained for."""
    trained = spec.revision.facts.get("context_length") if spec.revision else None
    asked = options.context or DEFAULT_CONTEXT
    return min(asked, trained) if isinstance(trained, int) and trained > 0 else asked


def embeds(spec: LaunchSpec) -> bool:
    """Whether the engine answers `/v1/embeddings`."""
    options: LlamaCppOptions = spec.options
    if ranks(spec):
        return False
    made_for_it = spec.revision is not None and Capability.EMBEDDINGS in spec.revision.capabilities
    return made_for_it or options.pooling is not None if options.embeddings is None else options.embeddings


def ranks(spec: LaunchSpec) -> bool:
    """Whether the engine answers `/v1/rerank`; the score that it gives takes the place of a vector."""
    options: LlamaCppOptions = spec.options
    if options.rerank is not None:
        return options.rerank
    made_for_it = spec.revision is not None and Capability.RERANK in spec.revision.capabilities
    return options.pooling == "rank" or (made_for_it and options.pooling is None and not options.embeddings)


def _doubts(spec: LaunchSpec) -> tuple[str, ...]:
    known = spec.revision.capabilities if spec.revision else frozenset()
    if known and ranks(spec) and Capability.RERANK not in known:
        return ("The model's file does not say that it was made for ranking: its scores may mean nothing.",)
    return ()


def _extra_files(options: LlamaCppOptions) -> list[Path]:
    return [*map(Path, options.lora), *([options.mmproj] if options.mmproj is not None else [])]


def _sizes(paths: Iterable[Path]) -> int:
    """Bytes of the files that are there."""
    total = 0
    for path in paths:
        try:
            total += path.expanduser().stat().st_size
        except OSError:
            continue  # the start says so
    return total


def _wider_step(options: LlamaCppOptions, spec: LaunchSpec) -> int:
    """Bytes that a step takes over one of 512 tokens, for which everyone reckons."""
    width = spec.revision.facts.get("embedding_length") if spec.revision else None
    whole = (options.batch or _BATCH) if embeds(spec) or ranks(spec) else _STEP
    tokens = options.micro_batch or whole
    return max(0, tokens - _STEP) * _ACTIVATIONS * width if isinstance(width, int) else 0


async def _session(child: process.Child, spec: LaunchSpec, key: str, ground: devices.Ground) -> ChildSession:
    address, headers = child.facts["address"], {"Authorization": f"Bearer {key}"}
    status, body = await loopback.get(f"{address}/props", headers, _PROPS_TIMEOUT)
    try:
        props = json.loads(body) if status == 200 else None
    except ValueError:
        props = None
    if not isinstance(props, dict):
        raise EngineStartFailed(f"The engine of {spec.model!r} did not tell its properties (status {status}).")
    device, notes = devices.computes_on(ground, child.facts["gpus"], child.log(), spec.options.main_gpu)
    facts = replace(read_facts(props, device, spec), notes=(*notes, *_doubts(spec)))
    takes_system = Capability.SYSTEM_ROLE in (facts.capabilities or frozenset())
    tools = tool_adapter(props.get("chat_template") or "")
    adapt = opening_adapter(tools, spec.options.system if takes_system else None, spec.options.opening)
    endpoint = Endpoint(url=f"{address}/v1", headers=headers, model=spec.model, adapt=adapt)
    return ChildSession(child, endpoint, facts, f"{address}/health", tally(address, headers))


def read_facts(props: Mapping[str, Any], device: str | None, spec: LaunchSpec) -> SessionFacts:
    """What `/props` says, in Corral's words. A model known to write no text is not credited with any."""
    caps = props.get("chat_template_caps") or {}
    found = {Capability.CHAT, Capability.COMPLETION, Capability.JSON_SCHEMA}
    found |= {Capability.TOOLS} if caps.get("supports_tools") and caps.get("supports_tool_calls") else set()
    found |= {Capability.SYSTEM_ROLE} if caps.get("supports_system_role") else set()
    found |= {Capability.VISION} if (props.get("modalities") or {}).get("vision") else set()
    known = spec.revision.capabilities if spec.revision else frozenset()
    if known and Capability.COMPLETION not in known:
        found = set()
    elif known and Capability.CHAT not in known and spec.options.chat_template is None:
        found -= {Capability.CHAT, Capability.TOOLS, Capability.SYSTEM_ROLE}
    found |= {Capability.EMBEDDINGS} if embeds(spec) else set()
    found = {Capability.RERANK} if ranks(spec) else found
    context = (props.get("default_generation_settings") or {}).get("n_ctx")
    return SessionFacts(
        context=context if isinstance(context, int) and context > 0 else None,
        slots=props.get("total_slots"),
        device=device,
        capabilities=frozenset(found),
        counts=True,
    )


plugin = LlamaCpp
