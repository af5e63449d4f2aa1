"""The process of a `llamacpp` engine: load the model, serve it, die with Corral. Imports nothing it can do without."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from corral.kit import child

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xllamacpp import CommonParams

_DEFAULT_BATCH = 2048
_HEADER = 64 * 1024 * 1024
_SPARE_HTTP_THREADS = 64
_LOG_DELAY = 0.25  # seconds; llama.cpp writes its log from a thread of its own, which the end of the process cuts off

_SAMPLING = {
    "temperature": "temp",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "typical_p": "typ_p",
    "repeat_penalty": "penalty_repeat",
    "repeat_last_n": "penalty_last_n",
    "presence_penalty": "penalty_present",
    "frequency_penalty": "penalty_freq",
    "mirostat": "mirostat",
    "mirostat_tau": "mirostat_tau",
    "mirostat_eta": "mirostat_eta",
    "seed": "seed",
}


def main() -> None:
    """Serve until the parent goes or says so."""
    parent = child.attach()
    import xllamacpp

    launch = parent.launch
    kinds = xllamacpp.ggml_backend_dev_type
    graphics = (kinds.GGML_BACKEND_DEVICE_TYPE_GPU, kinds.GGML_BACKEND_DEVICE_TYPE_IGPU)
    gpus = [device["name"] for device in xllamacpp.get_device_info() if device["type"] in graphics]
    params = xllamacpp.CommonParams()
    _fill(params, launch)
    _fill_devices(params, launch)
    params.fit_params = bool(gpus) and launch["layers"] is None
    try:
        server = xllamacpp.Server(params)
    except RuntimeError:
        time.sleep(_LOG_DELAY)
        parent.failed("it could not load the model")
    parent.ready(address=server.listening_address, gpus=gpus)
    child.rest()  # nothing is closed at the end: llama.cpp would wait for its open streams, and the kernel does not


def _fill(params: CommonParams, launch: dict[str, Any]) -> None:
    """Write the launch data into llama.cpp's parameters."""
    import xllamacpp

    params.model.path = launch["model"]
    params.n_parallel = launch["slots"]
    params.n_ctx = launch["context"] * launch["slots"]  # llama.cpp counts the tokens of all slots together
    params.n_batch = launch["batch"] or _DEFAULT_BATCH
    params.cache_type_k = xllamacpp.ggml_type[f"GGML_TYPE_{launch['cache_type_k'].upper()}"]
    params.cache_type_v = xllamacpp.ggml_type[f"GGML_TYPE_{launch['cache_type_v'].upper()}"]
    params.cache_ram_mib = launch["prompt_cache_mib"]
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, scale) for path, scale in launch["lora"].items()]
    params.cpuparams.n_threads = launch["threads"]["decode"]
    params.cpuparams_batch.n_threads = launch["threads"]["batch"]
    params.cpuparams.poll = params.cpuparams_batch.poll = launch["poll"]
    if launch["micro_batch"] is not None:
        params.n_ubatch = launch["micro_batch"]
    if launch["flash_attention"] is not None:
        state = "ENABLED" if launch["flash_attention"] else "DISABLED"
        params.flash_attn_type = xllamacpp.llama_flash_attn_type[f"LLAMA_FLASH_ATTN_TYPE_{state}"]
    if launch["chat_template"] is not None:
        params.chat_template = launch["chat_template"]
    if launch["mmproj"] is not None:
        params.mmproj.path = launch["mmproj"]
    if launch["rerank"] or launch["embeddings"]:
        _fill_embeddings(params, launch)
    _fill_answers(params, launch)
    _fill_server(params, launch)


def _fill_devices(params: CommonParams, launch: Mapping[str, Any]) -> None:
    """Where it computes. The GPUs it sees are those it was given: the environment hides the others."""
    import xllamacpp

    if launch["layers"] is not None:
        params.n_gpu_layers = launch["layers"]
        params.mmproj_use_gpu = launch["layers"] > 0
    if launch["split_mode"] is not None:
        params.split_mode = xllamacpp.llama_split_mode[f"LLAMA_SPLIT_MODE_{launch['split_mode'].upper()}"]
    if launch["split"]:
        shares = list(params.tensor_split)
        shares[: len(launch["split"])] = launch["split"]
        params.tensor_split = shares
    params.main_gpu = launch["main_gpu"]


def _fill_embeddings(params: CommonParams, launch: dict[str, Any]) -> None:
    import xllamacpp

    params.embedding = True
    if launch["micro_batch"] is None:
        params.n_ubatch = params.n_batch  # a text is embedded in one step: a smaller step would bound its length
    pooling = "rank" if launch["rerank"] else launch["pooling"]
    if pooling is None and not _has_pooling(launch["model"]):
        pooling = "mean"  # a chat model has no pooling of its own, and without one there is no vector of a text
    if pooling is not None:
        params.pooling_type = xllamacpp.llama_pooling_type[f"LLAMA_POOLING_TYPE_{pooling.upper()}"]


def _fill_answers(params: CommonParams, launch: Mapping[str, Any]) -> None:
    """What holds for a request that does not say otherwise."""
    import xllamacpp

    for name, value in launch["sampling"].items():
        field = _SAMPLING[name]
        setattr(params.sampling, field, value)
        # Without this, what the file's metadata says of it (`general.sampling.…`) would overrule us.
        told = f"COMMON_PARAMS_SAMPLING_CONFIG_{field.upper()}"
        if told in xllamacpp.common_params_sampling_config.__members__:
            params.sampling.user_sampling_config |= xllamacpp.common_params_sampling_config[told]
    if launch["stop"]:
        params.antiprompt = list(launch["stop"])
    if launch["max_tokens"] is not None:
        params.n_predict = launch["max_tokens"]
    if launch["keep"] is not None:
        params.n_keep = launch["keep"]


def _fill_server(params: CommonParams, launch: dict[str, Any]) -> None:
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [launch["key"]]
    params.model_alias = {launch["name"]}
    params.ui = False
    params.cors_origins = ""
    params.endpoint_slots = False  # it shows the prompts of others
    params.endpoint_metrics = True
    params.sse_ping_interval = 1  # how soon a stream notices that its reader has gone
    # A request that waits for a slot holds a thread, and so does an idle connection: keep some for the health check.
    params.n_threads_http = launch["slots"] + _SPARE_HTTP_THREADS


def _has_pooling(path: str) -> bool:
    """Whether the GGUF file's header names a pooling."""
    import mmap
    from pathlib import Path

    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
        return held.find(b".pooling_type", 0, _HEADER) >= 0


if __name__ == "__main__":
    main()
