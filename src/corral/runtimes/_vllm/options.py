"""How an engine of vLLM is loaded, in Corral's words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from corral.domain.memory import DEFAULT_SLOTS
from corral.errors import InvalidRequest, NotSupported

DType = Literal["auto", "bfloat16", "float16", "float32"]
CacheType = Literal["auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2"]

# Flags that Corral sets itself, or that would open what it keeps shut. vLLM takes any beginning of a flag for the flag.
_OWN = frozenset(
    {"host", "port", "uds", "api-key", "root-path", "served-model-name", "model", "model-tag", "config", "headless"}
    | {"ssl-keyfile", "ssl-certfile", "ssl-ca-certs", "allowed-origins", "trust-remote-code", "lora-modules"}
    | {"max-model-len", "max-num-seqs", "dtype", "quantization", "kv-cache-dtype", "kv-cache-memory-bytes"}
    | {"tensor-parallel-size", "pipeline-parallel-size", "enforce-eager", "enable-prefix-caching", "chat-template"}
    | {"no-enforce-eager", "no-enable-prefix-caching", "enable-auto-tool-choice", "tool-call-parser", "enable-lora"}
    | {"reasoning-parser", "enable-sleep-mode", "max-lora-rank", "max-loras"}
    | {"gpu-memory-utilization", "device-memory-utilization"}
)
_SHORT = {"-q": "quantization", "-tp": "tensor-parallel-size", "-pp": "pipeline-parallel-size"}
_POSITIVE = ("context", "slots", "cache_mib", "tensor_parallel", "pipeline_parallel")


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """How an engine of this runtime is loaded; None leaves a value to the model or to vLLM.

    Attributes:
        context: tokens of one request, prompt and answer together; never more than the model was trained for. None is
            the trained length or 4096, whichever is less.
        slots: requests answered at the same time.
        dtype: number format of the weights; `auto` is the model's own.
        quantization: how vLLM makes the weights smaller while it loads them, such as `fp8`; models that are quantised
            already need nothing.
        cache_type: number format of the context; `auto` is that of the weights.
        cache_mib: memory for the context of all requests together, in MiB, on each GPU or on the processor. None is
            enough for every slot at its full length. vLLM deals it out in blocks, so that less serves as well where
            requests are shorter.
        device: where it must run: `cpu`, `cuda`, `cuda:1`; None is the best there is.
        tensor_parallel: GPUs over which each layer is spread.
        pipeline_parallel: groups of GPUs over which the layers are dealt out.
        eager: compute without compiling first: ready sooner, slower on a GPU. None is so on a processor only.
        prefix_caching: keep what requests have in common, and read it once.
        chat_template: a Jinja text, or the path of one, in place of the model's own.
        tool_parser: which of vLLM's parsers reads the model's tool calls, such as `hermes`; without one it calls none.
        reasoning_parser: which of vLLM's parsers tells thoughts from answers.
        lora: folder of an adapter (PEFT) that the model answers with.
        sleep: let the engine give back the GPU's memory and stay, instead of being stopped.
        trust_remote_code: run Python code that comes with the model.
        load_timeout: seconds it may take to become ready, where `engines.load_timeout` allows less: vLLM starts slowly.
        executable: vLLM's program or its environment's folder, in place of the one `corral runtimes install` made.
        args: more arguments for `vllm serve`, as they are.
    """

    context: int | None = None
    slots: int = DEFAULT_SLOTS
    dtype: DType = "auto"
    quantization: str | None = None
    cache_type: CacheType = "auto"
    cache_mib: int | None = None
    device: str | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    eager: bool | None = None
    prefix_caching: bool = True
    chat_template: str | None = None
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    lora: Path | None = None
    sleep: bool = False
    trust_remote_code: bool = False
    load_timeout: float = 600
    executable: Path | None = None
    args: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidRequest(f"Option {name!r} for vllm must be at least 1, not {value}.", param=name)
        for word in self.args:
            _check(word)
        if self.sleep and self.device == "cpu":
            raise NotSupported(
                "Option 'sleep' for vllm needs a GPU, and 'device' is cpu.", "Leave one of them out.", param="sleep"
            )

    @property
    def parallel(self) -> int:
        """GPUs over which it is spread."""
        return self.tensor_parallel * self.pipeline_parallel


def _check(word: str) -> None:
    """Refuse an argument that is Corral's own affair.

    Raises:
        InvalidRequest: it is.
    """
    if not word.startswith("-"):
        return
    flag = word.partition("=")[0].partition(".")[0]
    name = _SHORT.get(flag) or flag.lstrip("-").replace("_", "-")
    if name in _OWN or any(own.startswith(name) for own in _OWN) or any(flag.startswith(short) for short in _SHORT):
        raise InvalidRequest(
            f"Option 'args' for vllm has {flag}, which Corral sets itself or does not allow.",
            "See the runtime's own options in docs/runtimes.md.",
            param="args",
        )
