"""The server of a transformers engine: the library's own, put together from its parts.

    python -m engine.server PORT      with the launch data as JSON in the variable CORRAL_ENGINE

It runs on the Python of the engine's environment, which has the library and nothing of Corral. Until it starts it
imports nothing that is not Python's. `transformers serve` does the same with the same parts; what
differs is told in docs/decisions/0017-environments-of-engines.md. In short: there is a key; each request is sampled by
its own parameters; one that is too long is refused instead of ending the engine; texts that end an answer end it; a
stream ends with `[DONE]`; the context is set aside before it says that it is ready.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .answering import Batch, Loaded, Single, Turns, handler
from .choosing import Chooser
from .counting import counter
from .door import Door, error_body
from .rehearsal import rehearse
from .stopping import TooLongError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

LAUNCH = "CORRAL_ENGINE"


def serve(port: int, launch: Mapping[str, Any]) -> None:
    """Load the model and answer until SIGTERM."""
    import torch
    import uvicorn
    from transformers.cli.serving.chat_completion import ChatCompletionHandler
    from transformers.cli.serving.completion import CompletionHandler
    from transformers.cli.serving.model_manager import ModelManager
    from transformers.cli.serving.server import build_server
    from transformers.cli.serving.utils import GenerateManager
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would fill the log with one long line
    os.chdir(launch["folder"])  # a model's own path may hold what the library reads as more than a path
    if launch["threads"]:
        torch.set_num_threads(launch["threads"])
    device = chosen_device(torch, launch["device"])
    library = ModelManager(
        device=device,
        dtype=chosen_dtype(torch, launch["dtype"], device),
        trust_remote_code=launch["trust_remote_code"],
        attn_implementation=launch["attention"],
        quantization=launch["quantization"],
        force_model=".",
    )
    loaded = Loaded(library, launch["name"])
    if launch["quantization"]:
        let_go(torch, loaded.model)
    if launch["chat_template"]:
        loaded.processor.chat_template = launch["chat_template"]
    context = fitted(loaded.model.config, launch["context"])
    modality = loaded.get_model_modality(loaded.model, loaded.processor).value
    batched = launch["batching"] and modality == "LLM" and hasattr(loaded.model, "init_continuous_batching")
    manager = (
        Batch(begin(torch, loaded.model, launch, context), context) if batched else Single(GenerateManager(), context)
    )
    state = Turns(manager, compiled=launch["compile"])
    chat, completion = (handler(kind, loaded, state) for kind in (ChatCompletionHandler, CompletionHandler))
    app = build_server(loaded, chat, completion, None, None, None, state)
    facts = told(loaded, context, modality, launch["batching"] if batched else None)
    app.add_api_route("/facts", lambda: facts)
    app.add_route("/count", counter(loaded, chat), methods=["POST"])
    answer_errors(app)
    config = uvicorn.Config(
        Door(app, launch["key"]),
        host="127.0.0.1",
        port=port,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=3600,
        timeout_graceful_shutdown=1,
    )
    asyncio.run(opened(uvicorn.Server(config), launch))


async def opened(server: Any, launch: Mapping[str, Any]) -> None:
    """Have a request answered, then open the port: what is ready has answered, and its weights are in memory."""
    await rehearse(server.config.app, launch["key"], launch["name"])
    await server.serve()


def let_go(torch: Any, model: Any) -> None:
    """Give back what is left of loading: the file, of which few weights are still read, and the heap between them."""
    for weight in (*model.parameters(), *model.buffers()):
        if type(weight) in (torch.nn.Parameter, torch.Tensor) and weight.device.type == "cpu":
            weight.data = weight.data.clone()
    gc.collect()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library than GNU's
            ctypes.CDLL(None).malloc_trim(0)


def begin(torch: Any, model: Any, launch: Mapping[str, Any], context: int) -> Any:
    """Set the context aside and start the worker of the batches."""
    from transformers import ContinuousBatchingConfig, GenerationConfig, LogitsProcessorList
    from transformers.generation.continuous_batching.cb_logits_processors import (
        ContinuousBatchingLogitsProcessor,
        ContinuousBatchingLogitsProcessorList,
    )

    plan = launch["batching"]
    blocks = plan["blocks"] or plan["slots"] * (-(-context // plan["block"]) + 1)
    batching = model.init_continuous_batching(
        generation_config=GenerationConfig(do_sample=False, eos_token_id=model.generation_config.eos_token_id),
        continuous_batching_config=ContinuousBatchingConfig(
            page_size=plan["block"],
            num_blocks=blocks,
            max_batch_tokens=plan["tokens"],
            max_requests_per_batch=plan["slots"],
            max_memory_percent=1.0,
            use_cuda_graph=False,  # each request is sampled by its own parameters, which no graph can hold
            use_async_batching=False,
            auto_switch_to_flash=False,
        ),
    )
    ContinuousBatchingLogitsProcessor.register(Chooser)
    processors = ContinuousBatchingLogitsProcessorList(LogitsProcessorList([Chooser(torch)]))
    processors.tensors_required = 1
    batching.logit_processor = processors
    batching.warmup()
    batching.start()
    return batching


def answer_errors(app: Any) -> None:
    """Have the errors of the library answered in OpenAI's form."""
    import jinja2
    from fastapi import HTTPException, Request
    from fastapi.responses import JSONResponse

    def refused(_: Request, error: Exception) -> JSONResponse:
        if isinstance(error, HTTPException):
            return JSONResponse(error_body(error.status_code, str(error.detail)), error.status_code)
        if isinstance(error, TooLongError):
            return JSONResponse(error_body(400, str(error), "context_length_exceeded"), 400)
        if isinstance(error, jinja2.TemplateError):
            return JSONResponse(error_body(400, f"The model's chat template refuses this conversation: {error}."), 400)
        return JSONResponse(error_body(500, f"{type(error).__name__}: {error}"), 500)

    for kind in (HTTPException, TooLongError, jinja2.TemplateError, RuntimeError, ValueError, KeyError, TypeError):
        app.add_exception_handler(kind, refused)


def chosen_device(torch: Any, asked: str) -> str:
    """The device asked for, or the best there is."""
    if asked != "auto":
        return "cuda:0" if asked == "cuda" else asked
    if torch.cuda.is_available():
        return "cuda:0"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def chosen_dtype(torch: Any, asked: str, device: str) -> str:
    """The number format asked for; of itself what the device computes fastest without losing what the weights hold."""
    if asked != "auto":
        return asked
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    if device.startswith("mps"):
        return "float16"
    return "bfloat16" if reckons_bf16() else "float32"


def reckons_bf16(path: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor has instructions for bfloat16; without them it is slower than float32."""
    with suppress(OSError), path.open() as file:
        for line in file:
            if line.startswith(("flags", "Features")):
                return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(line.split()))
    return False


def fitted(config: Any, asked: int) -> int:
    """The context, which is no longer than the model was trained for."""
    trained = getattr(config.get_text_config(), "max_position_embeddings", None)
    return min(asked, trained) if isinstance(trained, int) and trained > 0 else asked


def told(loaded: Loaded, context: int, modality: str, batching: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the runtime asks once the server answers."""
    from transformers.cli.serving.utils import get_response_template

    model = loaded.model
    tokenizer = getattr(loaded.processor, "tokenizer", loaded.processor)
    device = str(model.device)
    parses = get_response_template(loaded.processor, model) is not None
    return {
        "device": "cuda:0" if device == "cuda" else device.removesuffix(":0") if device == "mps:0" else device,
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention": str(model.config._attn_implementation),  # noqa: SLF001 — the library has no other word for it
        "context": context,
        "slots": batching["slots"] if batching else 1,
        "batched": batching is not None,
        "modality": modality,
        "chat": tokenizer.chat_template is not None,
        "system": rendered(tokenizer, [{"role": "system", "content": "XYZZY"}, {"role": "user", "content": "Hi"}]),
        "tools": parses and rendered(tokenizer, [{"role": "user", "content": "Hi"}], [TOOL]),
        "generation": settings(model.generation_config.to_json_string(use_diff=True)),
        "library": library_version(),
    }


def settings(config: str) -> dict[str, Any]:
    """The model's settings of generation, without what the library notes there about their origin.

    One of those notes, `_from_model_config`, has it forget the settings that it does not know itself: seeds, penalties.
    """
    found = json.loads(config)
    return {name: value for name, value in found.items() if not name.startswith("_") and name != "transformers_version"}


TOOL = {
    "type": "function",
    "function": {"name": "XYZZY", "description": "Say it.", "parameters": {"type": "object", "properties": {}}},
}


def rendered(tokenizer: Any, messages: list[dict[str, str]], tools: list[Any] | None = None) -> bool:
    """Whether the chat template has a place for what is called XYZZY here."""
    import jinja2

    if tokenizer.chat_template is None:
        return False
    try:
        text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=True)
    except (jinja2.TemplateError, ValueError, TypeError, KeyError):
        return False
    return "XYZZY" in text


def library_version() -> str:
    """The library's version."""
    import transformers

    return str(transformers.__version__)


def end_with(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print what went wrong and leave: the worker of the batches would keep the process alive for ever."""
    traceback.print_exception(kind, error, trace)
    leave(1)


def leave(status: int) -> None:
    """End at once: taking torch down piece by piece takes seconds, and nothing is left to write."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main() -> None:
    """Serve, and leave."""
    sys.excepthook = end_with
    launch = json.loads(os.environ.pop(LAUNCH))
    try:
        serve(int(sys.argv[1]), launch)
    except ImportError as error:
        sys.exit(f"corral: this version of transformers lacks a part of its server: {error}")
    leave(0)


if __name__ == "__main__":
    main()
