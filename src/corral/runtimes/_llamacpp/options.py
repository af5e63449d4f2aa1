"""How an engine of the runtime `llamacpp` may be loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from corral.errors import InvalidRequest

DEFAULT_CONTEXT = 4096
DEFAULT_SLOTS = 4

CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
Pooling = Literal["none", "mean", "cls", "last", "rank"]
Split = Literal["none", "layer", "row", "tensor"]

_DEVICE = re.compile(r"cpu|gpu|mps|[a-z]+(:\d+)?")
_QUANTISED = frozenset({"q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"})
_MOST_POLL = 100
_MOST_TOKENS = 2**31 - 1
_DEFAULT_BATCH = 2048
_POSITIVE = ("context", "slots", "threads", "threads_batch", "batch", "micro_batch")
_NOT_NEGATIVE = ("gpu_layers", "main_gpu", "poll", "prompt_cache_mib", "temperature", "top_p", "min_p", "seed")


@dataclass(frozen=True, slots=True)
class LlamaCppOptions:
    """How an engine of this runtime is loaded; None leaves a value to the model or to llama.cpp.

    Attributes:
        context: tokens each slot holds, prompt and answer together; never more than the model was trained for. None is
            the trained length or 4096, whichever is less.
        slots: requests answered at the same time. Memory for the context is taken for every slot.
        threads: CPU threads that write; None is one for a small model, else one for each core this process may use.
        threads_batch: CPU threads that read prompts and write several answers at once; None is `threads`, or the cores.
        poll: whether threads that wait for each other spin (1 to 100) or sleep (0). Spinning is faster for one engine
            alone on idle cores, and ruins several at once.
        device: where it is to compute: `cpu`, `cuda:1`, any of a kind (`cuda`), or any `gpu`. None is the best.
        gpu_layers: layers put on the GPU; None puts as many as fit, 0 none.
        split_mode: how it is spread over several GPUs.
        tensor_split: the share of each GPU, in their order, in any unit.
        main_gpu: the GPU, by its place among those it is given, for what is not spread.
        cache_type_k: number format of the keys in the context cache; a smaller one takes less memory.
        cache_type_v: number format of the values; the quantised ones need flash attention.
        flash_attention: None lets llama.cpp decide.
        embeddings: answer `/v1/embeddings` too; None does where the model is made for it, or `pooling` is given.
        pooling: how token vectors become one; None is the model's own, or `mean` where it has none.
        chat_template: a Jinja text, or the path of one, in place of the model's own.
        rerank: answer `/v1/rerank`, and write no text; None does where the model is made for it or `pooling` says so.
        lora: adapter files and the scale of each; a request may give other scales in its field `lora`.
        mmproj: the projector of a multimodal model, in place of the one installed with it.
        batch: tokens of a prompt handled in one call.
        micro_batch: tokens computed in one step.
        prompt_cache_mib: memory for the prompts of earlier requests, in MiB, taken as they come; 0 keeps none.
        system: the system message of a conversation whose client sends none, where the template has a place for one.
        opening: messages (`role` and `content`) that every conversation begins with, as examples to the model.
        stop: texts that end an answer when the client names none.
        max_tokens: most tokens of an answer when the client says nothing; -1 is until the model or the context ends.
        keep: tokens of a completion's prompt that stay when it is cut to fit; -1 all.
        temperature, top_p, top_k, min_p, typical_p, repeat_penalty, repeat_last_n, presence_penalty, frequency_penalty,
            mirostat, mirostat_tau, mirostat_eta, seed: how the next token is chosen when the client does not say.
    """

    context: int | None = None
    slots: int = DEFAULT_SLOTS
    threads: int | None = None
    threads_batch: int | None = None
    poll: int = 0
    device: str | None = None
    gpu_layers: int | None = None
    split_mode: Split | None = None
    tensor_split: tuple[float, ...] = ()
    main_gpu: int = 0
    cache_type_k: CacheType = "f16"
    cache_type_v: CacheType = "f16"
    flash_attention: bool | None = None
    embeddings: bool | None = None
    pooling: Pooling | None = None
    rerank: bool | None = None
    chat_template: str | None = None
    lora: Mapping[str, float] = field(default_factory=dict)
    mmproj: Path | None = None
    batch: int | None = None
    micro_batch: int | None = None
    prompt_cache_mib: int = 256
    system: str | None = None
    opening: tuple[Mapping[str, str], ...] = ()
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    keep: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    mirostat: Literal[0, 1, 2] | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if any(set(message) != {"role", "content"} for message in self.opening):
            raise InvalidRequest(
                "Option 'opening' for llamacpp has messages that are not {role, content}.", param="opening"
            )
        for name, least in [(name, 1) for name in _POSITIVE] + [(name, 0) for name in _NOT_NEGATIVE]:
            value = getattr(self, name)
            if value is not None and value < least:
                raise InvalidRequest(f"Option {name!r} for llamacpp must be at least {least}, not {value}.", param=name)
        if self.poll > _MOST_POLL:
            raise InvalidRequest(f"Option 'poll' for llamacpp must be at most 100, not {self.poll}.", param="poll")
        self._check_tokens()
        self._check_vectors()
        self._check_device()

    def _check_tokens(self) -> None:
        if (self.context or DEFAULT_CONTEXT) * self.slots > _MOST_TOKENS:
            raise InvalidRequest(
                f"Option 'context' for llamacpp is {self.context} for each of {self.slots} slots; all of them together "
                f"may hold {_MOST_TOKENS} tokens.",
                param="context",
            )
        batch = self.batch or _DEFAULT_BATCH
        if self.micro_batch is not None and self.micro_batch > batch:
            raise InvalidRequest(
                f"Option 'micro_batch' for llamacpp is {self.micro_batch}, and a batch has only {batch} tokens.",
                "Make batch as large.",
                param="micro_batch",
            )

    def _check_vectors(self) -> None:
        if self.pooling is not None and self.embeddings is False and self.pooling != "rank":
            raise InvalidRequest(
                "Option 'pooling' for llamacpp says how to embed, and 'embeddings' is off.",
                "Set embeddings: true.",
                param="pooling",
            )
        if self.rerank and (self.embeddings or self.pooling not in (None, "rank")):
            raise InvalidRequest(
                "Option 'rerank' for llamacpp leaves no room for embeddings or another pooling.",
                "An engine ranks or embeds: give the model two names, one with rerank: true.",
                param="rerank",
            )
        if self.cache_type_v in _QUANTISED and self.flash_attention is False:
            raise InvalidRequest(
                f"Option 'cache_type_v' for llamacpp is {self.cache_type_v}, which needs flash attention.",
                "Set flash_attention: true, or cache_type_v: f16.",
                param="cache_type_v",
            )

    def _check_device(self) -> None:
        if self.device is not None and not _DEVICE.fullmatch(self.device):
            raise InvalidRequest(
                f"Option 'device' for llamacpp is {self.device!r}.",
                "Write cpu, gpu, a kind (cuda, rocm, vulkan, mps) or one of them (cuda:1).",
                param="device",
            )
        if self.device == "cpu" and self.gpu_layers:
            raise InvalidRequest(
                "Option 'gpu_layers' for llamacpp asks for a GPU, and 'device' is cpu.",
                "Leave one of them out.",
                param="gpu_layers",
            )
        if any(share < 0 for share in self.tensor_split) or (self.tensor_split and not any(self.tensor_split)):
            raise InvalidRequest(
                "Option 'tensor_split' for llamacpp has shares of which none is more than nothing, or one is less.",
                "Write one number for each GPU, such as [3, 1].",
                param="tensor_split",
            )
