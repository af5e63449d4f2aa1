"""What an engine's container is made of: image, arguments, mounts and limits from options, files and placement."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from corral.domain.containers import ContainerSpec, Mount, Port
from corral.domain.memory import DEFAULT_CONTEXT, DEFAULT_SLOTS
from corral.runtimes._container.options import CONTEXT, MODEL, NAME, PORT, SLOTS, words, wrong

if TYPE_CHECKING:
    from pathlib import Path

    from corral.domain.ports import LaunchSpec
    from corral.runtimes._container.options import ContainerOptions

OWNER_LABEL = "corral.owner"
"""The process that an engine belongs to: `PID BEGAN BOOT`."""

_FOLDER = "/models"
_ROOM = 256 * 1024**2
_ROOM_OF_GPU = 2 * 1024**3
"""Main memory that a driver and its libraries take beside the model, at most."""
_ALL_LAYERS = 999
_MARGIN = 1.25


@dataclass(frozen=True, slots=True)
class _Serving:
    """How a kind is started. `secret` is the variable that its key goes by, which no other user of the machine sees."""

    image: str | None
    image_of_gpu: str | None
    inside: int
    health: str
    secret: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    read_only: bool = False
    tmpfs: Mapping[str, str] = field(default_factory=dict)


_KINDS: Mapping[str, _Serving] = {
    "llamacpp": _Serving(
        "ghcr.io/ggml-org/llama.cpp:server",
        "ghcr.io/ggml-org/llama.cpp:server-cuda",
        8080,
        "/health",
        "LLAMA_API_KEY",
        # Weights are read and not mapped: so its limit holds for them too, and what it takes can be measured. It has
        # been told so in two ways over time, and refuses an argument that it does not know, but no variable.
        {"LLAMA_ARG_LOAD_MODE": "none", "LLAMA_ARG_NO_MMAP": "1"},
        read_only=True,
        tmpfs={"/tmp": "size=64m"},  # noqa: S108 - the container's own
    ),
    "vllm": _Serving("vllm/vllm-openai", "vllm/vllm-openai", 8000, "/health", "VLLM_API_KEY"),
    "openai": _Serving(None, None, 8000, "/v1/models"),
}


@dataclass(frozen=True, slots=True)
class Made:
    """A container to be, and how the engine in it is reached. `gpu` is the device it computes on, where it is one."""

    spec: ContainerSpec
    key: str = field(repr=False)
    health: str
    gpu: str | None
    context: int | None
    slots: int


def make(launch: LaunchSpec, port: int, owner: str) -> Made:
    """The container of an engine that answers on loopback's `port`.

    Raises:
        InvalidRequest: `${MODEL}` is used and the model has no files, or options do not go together.
    """
    options: ContainerOptions = launch.options
    serving = _KINDS[options.kind]
    gpus, device = _gpus(launch)
    inside = port if options.network == "host" else options.inside or serving.inside
    mounts, paths = mounted(launch.files)
    slots, key = options.slots or DEFAULT_SLOTS, secrets.token_urlsafe(32)
    context = options.context or _trained(launch)
    fill = {
        PORT: str(inside),
        MODEL: paths.get("model", ""),
        NAME: options.upstream_model or launch.model,
        CONTEXT: str((context or DEFAULT_CONTEXT) * slots),
        SLOTS: str(slots),
    }
    environment = {**serving.environment, **({} if serving.secret is None else {serving.secret: key})}
    given = {name: _filled((text,), fill, "env")[0] for name, text in options.env.items()}
    image = options.image or (serving.image_of_gpu if gpus else serving.image) or ""
    spec = ContainerSpec(
        name=launch.model,
        container=f"corral-engine-{_plain(launch.model)}-{secrets.token_hex(4)}",
        kind=options.kind,
        image=image,
        digest=options.digest,
        entrypoint=words(options.entrypoint, "entrypoint"),
        command=_command(launch, fill, paths, gpu=bool(gpus)),
        environment={**environment, **given},
        ports=(Port(inside, port),),
        mounts=mounts,
        tmpfs=serving.tmpfs,
        gpus=gpus,
        memory=_limit(launch, gpu=bool(gpus)),
        cpus=options.cpus,
        shm=options.shm,
        pids=options.pids,
        user=options.user,
        read_only=serving.read_only if options.read_only is None else options.read_only,
        capabilities=options.capabilities_kept,
        network=options.network,
        labels={OWNER_LABEL: owner},
    )
    return Made(spec, key if serving.secret else "", options.health or serving.health, device, context, slots)


def mounted(files: Mapping[str, Path]) -> tuple[tuple[Mount, ...], dict[str, str]]:
    """Every file of the model read-only below one neutral folder, and where each role lies there.

    What is a link here, as the pieces of a split model and a snapshot's files are, is mounted by what it leads to: a
    link would lead nowhere in the container.
    """
    mounts, paths = [], {}
    for role, path in files.items():
        if path.is_dir() or path.is_symlink():
            folder = path if path.is_dir() else path.parent
            found = sorted(each for each in folder.rglob("*") if each.is_file())
            mounts += [_mount(each, f"{_FOLDER}/{role}/{each.relative_to(folder).as_posix()}") for each in found]
            paths[role] = f"{_FOLDER}/{role}" if path.is_dir() else f"{_FOLDER}/{role}/{path.name}"
        else:
            paths[role] = f"{_FOLDER}/{role}{path.suffix or '.gguf'}"
            mounts.append(_mount(path, paths[role]))
    return tuple(mounts), paths


def _mount(path: Path, target: str) -> Mount:
    return Mount(str(path.resolve()), target, read_only=True)


def _command(
    launch: LaunchSpec, fill: Mapping[str, str], paths: Mapping[str, str], *, gpu: bool
) -> tuple[str, ...] | None:
    options: ContainerOptions = launch.options
    given = words(options.command, "command")
    if given is None:
        if options.kind == "openai":
            given = ()
        elif "model" not in paths:
            raise wrong("command", "is missing", f"{launch.model!r} has no files here, so say what the image serves.")
        else:
            given = _of_llamacpp(launch, paths, gpu=gpu) if options.kind == "llamacpp" else _of_vllm(launch)
    return _filled((*given, *options.args), fill, "command") or None


def _of_llamacpp(launch: LaunchSpec, paths: Mapping[str, str], *, gpu: bool) -> tuple[str, ...]:
    """Arguments of llama.cpp's server."""
    options: ContainerOptions = launch.options
    layers = options.gpu_layers
    if layers is None and launch.placement is not None:
        layers = launch.placement.layers
    on_gpu = (_ALL_LAYERS if layers is None else layers) if gpu else 0
    return (
        *("--model", MODEL, *(("--mmproj", paths["mmproj"]) if "mmproj" in paths else ())),
        *("--host", _listens(options), "--port", PORT, "--alias", NAME),
        *("--ctx-size", CONTEXT, "--parallel", SLOTS, "--n-gpu-layers", str(on_gpu)),
        "--jinja",
    )


def _of_vllm(launch: LaunchSpec) -> tuple[str, ...]:
    options: ContainerOptions = launch.options
    context = () if options.context is None else ("--max-model-len", str(options.context))
    slots = () if options.slots is None else ("--max-num-seqs", str(options.slots))
    return (
        "--model",
        MODEL,
        "--served-model-name",
        NAME,
        "--host",
        _listens(options),
        "--port",
        PORT,
        *context,
        *slots,
    )


def _listens(options: ContainerOptions) -> str:
    """Where it listens: in a network of its own everywhere, and in the machine's on loopback alone."""
    return "127.0.0.1" if options.network == "host" else "0.0.0.0"  # noqa: S104 - published on loopback alone


def _gpus(launch: LaunchSpec) -> tuple[tuple[str, ...], str | None]:
    """The GPUs it is given, and the device it computes on; the scheduler's where nobody says."""
    options, placement = launch.options, launch.placement
    placed = [] if placement is None else [name for name in placement.devices if name != "cpu"]
    if options.gpus is not None:
        return options.gpus, (placed[0] if placed else "gpu") if options.gpus else None
    if placement is None or placement.device == "cpu":
        return (), None
    numbers = [name.partition(":")[2] or "0" for name in placed]
    return tuple(numbers), placement.device


def _limit(launch: LaunchSpec, *, gpu: bool) -> int | None:
    if launch.options.memory is not None:
        return int(launch.options.memory)
    if launch.placement is None or not launch.placement.devices:
        return None
    aside = launch.placement.devices.get("cpu", 0)
    return int(aside * _MARGIN) + (_ROOM_OF_GPU if gpu else _ROOM)


def _trained(launch: LaunchSpec) -> int | None:
    """What the model was trained with, up to the usual size; None where its files do not say."""
    trained = launch.revision.facts.get("context_length") if launch.revision else None
    return min(trained, DEFAULT_CONTEXT) if isinstance(trained, int) else None


def _filled(items: tuple[str, ...], fill: Mapping[str, str], name: str) -> tuple[str, ...]:
    if not fill[MODEL] and any(MODEL in item for item in items):
        raise wrong(
            name,
            f"says {MODEL}, and the model has no files here",
            "Give it a source to install it from, or write the path in the container.",
        )
    found = []
    for item in items:
        for word, value in fill.items():
            item = item.replace(word, value)  # noqa: PLW2901 - one after the other
        found.append(item)
    return tuple(found)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:30] or "model"
