"""Which devices this build of llama.cpp can use, and which of them an engine is given.

The library is asked in a short-lived child (`asking`), never loaded here. CUDA and ROCm count the devices that the
environment shows them, so an engine is confined to its own by what it is shown.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corral.errors import CorralError, RuntimeUnavailable
from corral.kit import process

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from corral.domain.memory import Placement
    from corral.runtimes._llamacpp.options import LlamaCppOptions

ALL = 9999
"""More layers than any model has."""

_ASKING = 30.0
_KINDS = {"cuda": "cuda", "rocm": "rocm", "hip": "rocm", "mtl": "mps", "metal": "mps"}
_SHOWN = {"cuda": ("CUDA_VISIBLE_DEVICES",), "rocm": ("HIP_VISIBLE_DEVICES",)}
_NODES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg", "/dev/dri")
_OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")


@dataclass(frozen=True, slots=True)
class Ground:
    """Where an engine stands: its GPUs, the one it computes on first, and what makes it so.

    `layers` on the GPU, None for as many as llama.cpp finds room for. `environment` shows the child its GPUs and no
    others. `split` is each GPU's share, empty for llama.cpp's own. `notes` say what could not be followed.
    """

    gpus: tuple[str, ...] = ()
    layers: int | None = None
    environment: tuple[tuple[str, str], ...] = ()
    split: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()


def named(device: str) -> str:
    """The name in Corral of a device, by llama.cpp's, such as `CUDA0`, `ROCm1` or `MTL0`."""
    match = re.fullmatch(r"([A-Za-z_]+)(\d*)", device)
    if match is None:
        return device.casefold()
    kind = _KINDS.get(match[1].casefold(), match[1].casefold())
    return kind if kind in ("mps", "cpu") else f"{kind}:{match[2] or 0}"


def matching(asked: str, devices: Iterable[str]) -> tuple[str, ...]:
    """Those of the devices that `asked` means: `cuda:1`, all of a kind (`cuda`), or any GPU (`gpu`)."""
    return tuple(item for item in devices if asked in (item, item.partition(":")[0]) or (asked == "gpu" != item))


def ground(
    options: LlamaCppOptions, placement: Placement | None, devices: Sequence[str], env: Mapping[str, str]
) -> Ground:
    """Where an engine is to stand, by its options, by what was set aside for it and by what the library can use.

    `devices` empty: not known, and then what was set aside is believed.

    Raises:
        RuntimeUnavailable: the options name a device that this build cannot use.
    """
    usable = tuple(item for item in devices if item != "cpu")
    if options.device not in (None, "cpu") and devices and not matching(str(options.device), usable):
        raise RuntimeUnavailable(
            f"Option 'device' for llamacpp is {options.device!r}, and this build of xllamacpp can use "
            f"{', '.join(devices)}.",
            "Install a build of xllamacpp made for that device (docs/runtimes.md says how), or set device: cpu.",
        )
    if placement is not None:
        return _placed(options, placement, devices, env)
    if options.device == "cpu" or options.gpu_layers == 0:
        return Ground(layers=0, environment=shown((), env))
    notes = _ignored(options, devices)
    if options.device is None:
        return Ground(usable, options.gpu_layers, split=options.tensor_split, notes=notes)
    gpus = matching(options.device, usable) or (() if devices else _literal(options.device))
    return Ground(gpus, options.gpu_layers, shown(gpus, env) if gpus else (), options.tensor_split, notes)


def _placed(options: LlamaCppOptions, placement: Placement, devices: Sequence[str], env: Mapping[str, str]) -> Ground:
    granted = tuple(item for item in placement.devices if item != "cpu")
    gpus = tuple(item for item in granted if not devices or item in devices)
    if not gpus:
        notes = _ignored(options, devices)
        if granted:
            only = f"this build of xllamacpp can use {', '.join(devices)}"
            notes = (f"{' and '.join(granted)} was set aside for it, and {only}: it computes on the processor.",)
        return Ground(layers=0, environment=shown((), env), notes=notes)
    asked = options.gpu_layers if placement.layers is None else placement.layers
    split = options.tensor_split
    if len(gpus) > 1 and not split:
        split = tuple(float(placement.devices[item]) for item in gpus)
    return Ground(gpus, ALL if asked is None else asked, shown(gpus, env), split)


def _ignored(options: LlamaCppOptions, devices: Sequence[str]) -> tuple[str, ...]:
    if options.gpu_layers and tuple(devices) == ("cpu",):
        return (f"gpu_layers: {options.gpu_layers} has no effect: this build of xllamacpp can use the processor only.",)
    return ()


def _literal(device: str) -> tuple[str, ...]:
    return (device,) if ":" in device or device == "mps" else ()


def shown(gpus: Sequence[str], env: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The variables under which CUDA and ROCm see these GPUs and no others, counted among those that `env` shows."""
    found = []
    for kind, variables in _SHOWN.items():
        wanted = [int(item.partition(":")[2]) for item in gpus if re.fullmatch(rf"{kind}:\d+", item)]
        for variable in variables:
            there = [item.strip() for item in env.get(variable, "").split(",") if item.strip()]
            known = [there[index] if there else str(index) for index in wanted if not there or index < len(there)]
            found.append((variable, ",".join(known) or "-1"))
    return (*found, ("CUDA_DEVICE_ORDER", "PCI_BUS_ID"))


def computes_on(ground: Ground, seen: Sequence[str], log: Sequence[str], main: int) -> tuple[str, tuple[str, ...]]:
    """Where an engine computes, and what to say of it: `seen` are the GPUs that its process found, `log` its words."""
    counts = next((match for line in reversed(log) if (match := _OFFLOADED.search(line))), None)
    if not seen:
        lost = (f"{' and '.join(ground.gpus)} was not found: it computes on the processor.",) if ground.gpus else ()
        return "cpu", (*ground.notes, *lost)
    if ground.layers == 0 or (counts is not None and int(counts[1]) == 0):
        return "cpu", ground.notes
    found = ground.gpus or tuple(map(named, seen))
    device = found[main] if main < len(found) else found[0]
    partly = counts is not None and counts[1] != counts[2]
    said = (f"{counts[1]} of {counts[2]} layers are on the GPU.",) if partly and counts is not None else ()
    return device, (*ground.notes, *said)


async def usable(version: str, env: Mapping[str, str], home: Path | None) -> tuple[str, ...]:
    """The devices that the library finds here, `cpu` first; empty when it could not be asked.

    What was found is remembered in `home` until the library or the machine's GPUs are others.
    """
    import asyncio

    mark = await asyncio.to_thread(_mark, version, env)
    memory = None if home is None else home / "llamacpp.json"
    known = await asyncio.to_thread(_recall, memory, mark)
    if known is not None:
        return known
    command = process.Command(
        title="The question for llama.cpp's devices",
        argv=process.module_argv("corral.runtimes._llamacpp.asking"),
        environment={**process.child_environment(env), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
    )
    try:
        child = await process.start(command, _ASKING)
    except CorralError:
        return ()
    await child.ended()
    gpus = [named(name) for name in child.facts["gpus"]]
    found = ("cpu", *dict.fromkeys(gpus))
    await asyncio.to_thread(_remember, memory, mark, found)
    return found


def _mark(version: str, env: Mapping[str, str]) -> dict[str, Any]:
    """What an answer is good for: this library, these device nodes, these variables."""
    found = importlib.util.find_spec("xllamacpp")
    origin = Path(found.origin).stat().st_mtime if found is not None and found.origin else None
    return {
        "version": version,
        "installed": [str(origin), found.origin if found else None],
        "nodes": [node for node in _NODES if os.path.lexists(node)],
        "shown": {name: env[name] for names in _SHOWN.values() for name in names if name in env},
    }


def _recall(memory: Path | None, mark: Mapping[str, Any]) -> tuple[str, ...] | None:
    try:
        held = json.loads(memory.read_text(encoding="utf-8")) if memory is not None else None
    except (OSError, ValueError):
        return None
    known = held.get("devices") if isinstance(held, dict) and held.get("mark") == mark else None
    return tuple(known) if isinstance(known, list) and all(isinstance(item, str) for item in known) else None


def _remember(memory: Path | None, mark: Mapping[str, Any], devices: Sequence[str]) -> None:
    """Write it down; a home that is not there, or may not be written, is no reason to fail."""
    if memory is None or not memory.parent.is_dir():
        return
    beside = memory.with_name(f".{memory.name}.{os.getpid()}")
    try:
        beside.write_text(json.dumps({"mark": mark, "devices": list(devices)}), encoding="utf-8")
        beside.replace(memory)
    except OSError:
        beside.unlink(missing_ok=True)
