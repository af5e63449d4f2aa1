"""The server of a transformers engine: the library's own, put together from its parts.

    python server.py PORT      with the launch data as JSON in the variable CORRAL_ENGINE

It runs on the Python of the engine's environment, which has the library and nothing of Corral: it imports neither
Corral nor, until it starts, anything that is not Python's. `transformers serve` does the same with the same parts; what
differs is told in docs/decisions/0017-environments-of-engines.md. In short: there is a key; each request is sampled by
its own parameters; one that is too long is refused instead of ending the engine; texts that end an answer end it; a
stream ends with `[DONE]`; the context is set aside before it says that it is ready.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

LAUNCH = "CORRAL_ENGINE"
PATHS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/facts"})

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_EXIT_DELAY = 0.5


class TooLongError(Exception):
    """The prompt leaves no room for an answer."""

    def __init__(self, tokens: int, context: int) -> None:
        super().__init__(
            f"The prompt has {tokens} tokens, and the engine holds {context} with the answer: "
            "shorten it, or raise the option context."
        )


class Door:
    """Lets in who has the key, to the paths that Corral uses, and ends streams as OpenAI does."""

    def __init__(self, app: App, key: str) -> None:
        self._app = app
        self._key = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if not hmac.compare_digest(given, self._key):
            await refuse(send, 401, "The key is missing or wrong.")
        elif scope["path"] not in PATHS:
            await refuse(send, 404, f"There is nothing at {scope['path']}.")
        else:
            # Ids of requests are the library's keys to what it computes: two clients must not choose the same.
            headers = [item for item in scope["headers"] if item[0] != b"x-request-id"]
            await self._app({**scope, "headers": headers}, receive, finishing(send))


def finishing(send: Send) -> Send:
    """`send`, with `[DONE]` put at the end of a stream of events."""
    events = False

    async def sent(message: Message) -> None:
        nonlocal events
        if message["type"] == "http.response.start":
            kinds = [value for name, value in message.get("headers", ()) if name.lower() == b"content-type"]
            events = bool(kinds) and kinds[0].startswith(b"text/event-stream")
        elif events and message["type"] == "http.response.body" and not message.get("more_body"):
            message = {**message, "body": message.get("body", b"") + b"data: [DONE]\n\n"}
        await send(message)

    return sent


async def refuse(send: Send, status: int, said: str) -> None:
    """Answer with an error in OpenAI's form."""
    body = json.dumps(error_body(status, said)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def error_body(status: int, said: str, code: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's form."""
    kind = "authentication_error" if status == 401 else "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": said, "type": kind, "param": None, "code": code}}


class Stops:
    """Holds back what may be the beginning of a text that ends the answer."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = [text for text in texts if text]
        self._held = ""
        self.hit = False

    def feed(self, piece: str) -> str:
        """What of the answer is certain, now that `piece` has come; nothing after a hit."""
        if self.hit:
            return ""
        self._held += piece
        found = [at for text in self._texts if (at := self._held.find(text)) >= 0]
        if found:
            self.hit = True
            return self._held[: min(found)]
        keep = max((self._overlap(text) for text in self._texts), default=0)
        certain = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return certain

    def rest(self) -> str:
        """What was held back when the answer ends by itself."""
        held, self._held = self._held, ""
        return "" if self.hit else held

    def _overlap(self, text: str) -> int:
        longest = min(len(text) - 1, len(self._held))
        return next((size for size in range(longest, 0, -1) if self._held.endswith(text[:size])), 0)


class StoppedQueue:
    """The queue of a stream's pieces, ended where the answer must end; `end` tells the engine."""

    def __init__(self, queue: asyncio.Queue[Any], stops: Stops, end: Callable[[], None]) -> None:
        self._queue = queue
        self._stops = stops
        self._end = end
        self._ready: list[Any] = []

    async def get(self) -> Any:
        """The next piece; None at the end."""
        while not self._ready:
            self._take(await self._queue.get())
        return self._ready.pop(0)

    def get_nowait(self) -> Any:
        """The next piece, where one is there.

        Raises:
            asyncio.QueueEmpty: none is.
        """
        while not self._ready:
            self._take(self._queue.get_nowait())
        return self._ready.pop(0)

    def _take(self, piece: Any) -> None:
        if type(piece) is str:  # and not one of the library's kinds of text, such as thoughts
            certain = self._stops.feed(piece)
            self._ready += [certain] if certain else []
            if self._stops.hit:
                self._end()
                self._ready.append(None)
        elif piece is None and (rest := self._stops.rest()):
            self._ready += [rest, None]
        else:
            self._ready.append(piece)


def room(tokens: int, context: int, asked: int | None) -> int:
    """How many tokens the answer may have.

    Raises:
        TooLongError: none.
    """
    left = context - tokens
    if left < 1:
        raise TooLongError(tokens, context)
    return left if asked is None else min(left, asked)


def sampling(config: Any) -> dict[str, Any]:
    """How the library's generation config says that the next token is chosen; empty is the likeliest."""
    found: dict[str, Any] = {
        "repetition": config.repetition_penalty or 1.0,
        "presence": getattr(config, "presence_penalty", None) or 0.0,
        "frequency": getattr(config, "frequency_penalty", None) or 0.0,
    }
    if config.do_sample:
        found |= {
            "temperature": 1.0 if config.temperature is None else config.temperature,
            "top_k": config.top_k or 0,
            "top_p": 1.0 if config.top_p is None else config.top_p,
            "min_p": config.min_p or 0.0,
            "seed": getattr(config, "seed", None),
        }
    neutral = {"repetition": 1.0, "presence": 0.0, "frequency": 0.0}
    return {name: value for name, value in found.items() if name not in neutral or value != neutral[name]}


class Chooser:
    """Chooses each request's next token by its own parameters, in a batch of many.

    To the library it is a processor of scores, registered as one of those that know requests apart: it leaves the
    chosen token as the likeliest.
    """

    supported_kwargs: Mapping[str, type] = {"sampling": dict}
    ignored_kwargs: tuple[str, ...] = ()

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._states: list[Any] = []
        self._generators: dict[str, Any] = {}

    def fill_defaults(self, tensor: Any) -> None:
        """Nothing is kept in tensors."""
        tensor.zero_()

    def prepare_tensor_args(self, requests: Sequence[Any]) -> Any:
        """Note which requests the rows of the next scores are of."""
        self._states = [request.state for request in requests]
        known = {state.request_id for state in self._states}
        self._generators = {name: found for name, found in self._generators.items() if name in known}
        return self._torch.zeros(len(self._states), dtype=self._torch.int32)

    def __call__(self, scores: Any, _: Any) -> Any:
        """Scores in which the chosen token of each row is the likeliest."""
        plans = [state.logit_processor_kwargs.get("sampling") or {} for state in self._states]
        if not any(plans):
            return scores
        chosen = scores.clone()
        for row, (state, plan) in enumerate(zip(self._states, plans, strict=True)):
            if plan and row < chosen.shape[0]:
                token = self._choose(chosen[row].float(), plan, state)
                chosen[row].fill_(float("-inf"))
                chosen[row, token] = 0.0
        return chosen

    def _choose(self, scores: Any, plan: Mapping[str, Any], state: Any) -> int:
        torch = self._torch
        scores = self._penalised(scores, plan, state)
        if not plan.get("temperature"):
            return int(scores.argmax())
        scores = scores / plan["temperature"]
        count = min(plan["top_k"] or scores.shape[0], scores.shape[0])
        best, tokens = torch.topk(scores, count)  # sorted, the best first
        shares = torch.softmax(best, dim=-1)
        out = torch.cumsum(shares, dim=-1) - shares >= plan["top_p"]
        out |= shares < plan["min_p"] * shares[0]
        out[0] = False
        shares = shares.masked_fill(out, 0.0)
        return int(tokens[torch.multinomial(shares, 1, generator=self._generator(plan, state, scores.device))])

    def _penalised(self, scores: Any, plan: Mapping[str, Any], state: Any) -> Any:
        torch = self._torch
        repetition = plan.get("repetition", 1.0)
        if repetition != 1.0:
            seen = torch.tensor([*state.initial_tokens, *state.generated_tokens], device=scores.device).unique()
            held = scores[seen]
            scores[seen] = torch.where(held > 0, held / repetition, held * repetition)
        presence, frequency = plan.get("presence", 0.0), plan.get("frequency", 0.0)
        if (presence or frequency) and state.generated_tokens:
            said = torch.tensor(state.generated_tokens, device=scores.device)
            seen, counts = said.unique(return_counts=True)
            scores[seen] -= presence + frequency * counts
        return scores

    def _generator(self, plan: Mapping[str, Any], state: Any, device: Any) -> Any:
        seed = plan.get("seed")
        if seed is None:
            return None
        if state.request_id not in self._generators:
            self._generators[state.request_id] = self._torch.Generator(device=device).manual_seed(seed)
        return self._generators[state.request_id]


class Batch:
    """Answers many requests at once, over the library's continuous batching."""

    def __init__(self, batching: Any, context: int) -> None:
        self._batching = batching
        self._context = context

    def init_cb(self, _model: Any, _config: Any) -> None:
        """It was, before the first request came."""

    def generate_streaming(
        self, _model: Any, processor: Any, inputs: Mapping[str, Any], config: Any, *_: Any, **more: Any
    ) -> tuple[Any, Any]:
        """The queue on which the pieces of the answer come, and what counts its tokens."""
        from transformers.cli.serving.utils import CBStreamer, _StreamError

        queue: asyncio.Queue[Any] = asyncio.Queue()
        name, loop = more["request_id"], asyncio.get_running_loop()
        tokenizer = getattr(processor, "tokenizer", processor)._tokenizer  # noqa: SLF001 — the library's way to the Rust one
        streamer = CBStreamer(self._batching, name, tokenizer, loop, queue, more.get("response_parser"))

        def heard(output: Any) -> None:
            streamer.put(output)
            if output.error is not None:
                # The library writes this between two quotes.
                queue.put_nowait(_StreamError(json.dumps(output.error)[1:-1]))
                self._end_if_dead()
            elif output.is_finished():
                streamer.end()

        self._ask(name, inputs["input_ids"], config, heard, streaming=True)
        stops = _texts(config)
        return (StoppedQueue(queue, Stops(stops), streamer.cancel) if stops else queue), streamer

    async def generate_non_streaming(
        self, _model: Any, processor: Any, inputs: Mapping[str, Any], config: Any, request_id: str
    ) -> tuple[str, int, list[int]]:
        """The answer's text, the prompt's tokens in number, and the answer's tokens."""
        done: asyncio.Future[tuple[str, list[int]]] = asyncio.get_running_loop().create_future()
        stops = _texts(config)

        def heard(output: Any) -> None:
            if done.done():
                return
            if output.error is not None:
                done.set_exception(RuntimeError(str(output.error)))
                self._end_if_dead()
                return
            text = processor.decode(output.generated_tokens, skip_special_tokens=True)
            certain = (watch := Stops(stops)).feed(text)
            if watch.hit:
                self._batching.cancel_request(request_id)
                done.set_result((certain, output.generated_tokens))
            elif output.is_finished():
                done.set_result((text, output.generated_tokens))

        self._ask(request_id, inputs["input_ids"], config, heard, streaming=bool(stops))
        try:
            text, tokens = await done
        except asyncio.CancelledError:
            self._batching.cancel_request(request_id)
            raise
        return text, len(inputs["input_ids"]), tokens

    @property
    def alive(self) -> bool:
        """Whether it would answer."""
        return self._batching.background_thread_status.fatal_error is None

    def _ask(self, name: str, tokens: Any, config: Any, heard: Callable[[Any], None], *, streaming: bool) -> None:
        config.max_new_tokens = room(len(tokens), self._context, config.max_new_tokens)
        self._batching.register_result_handler(name, heard)
        self._batching.add_request(
            tokens,
            request_id=name,
            max_new_tokens=config.max_new_tokens,
            eos_token_id=config.eos_token_id,
            streaming=streaming,
            sampling=sampling(config),
        )

    def _end_if_dead(self) -> None:
        """An engine whose worker has died answers nothing more: it ends, so that Corral starts another."""
        if not self.alive:
            asyncio.get_running_loop().call_later(_EXIT_DELAY, os._exit, 70)


class Single:
    """Answers one request at a time, by the library's own means; for what it cannot batch."""

    def __init__(self, manager: Any, context: int) -> None:
        self._manager = manager
        self._context = context

    def init_cb(self, _model: Any, _config: Any) -> None:
        """Nothing is batched."""

    def generate_streaming(
        self, model: Any, processor: Any, inputs: Mapping[str, Any], config: Any, *_: Any, **more: Any
    ) -> tuple[Any, Any]:
        """The queue on which the pieces of the answer come, and what counts its tokens."""
        config.max_new_tokens = room(inputs["input_ids"].shape[-1], self._context, config.max_new_tokens)
        queue, streamer = self._manager.generate_streaming(model, processor, inputs, config, **more)
        stops = _texts(config)
        return (StoppedQueue(queue, Stops(stops), streamer.cancel) if stops else queue), streamer

    async def generate_non_streaming(
        self, model: Any, processor: Any, inputs: Mapping[str, Any], config: Any, request_id: str
    ) -> tuple[str, int, Any]:
        """The answer's text, the prompt's tokens in number, and the answer's tokens."""
        config.max_new_tokens = room(inputs["input_ids"].shape[-1], self._context, config.max_new_tokens)
        text, count, tokens = await self._manager.generate_non_streaming(model, processor, inputs, config, request_id)
        watch = Stops(_texts(config))
        certain = watch.feed(text)
        return certain + watch.rest(), count, tokens

    alive = True


def _texts(config: Any) -> list[str]:
    """The texts that end an answer."""
    stops = config.stop_strings or []
    return [stops] if isinstance(stops, str) else list(stops)


class Turns:
    """Who generates; what the library's handlers ask for that."""

    def __init__(self, manager: Batch | Single, *, compiled: bool) -> None:
        self.manager = manager
        self._compile = compiled

    def use_continuous_batching(self, _model: Any, _modality: Any) -> bool:
        """Whether requests are batched."""
        return isinstance(self.manager, Batch)

    def get_manager(self, _name: str, use_cb: bool = False) -> Batch | Single:
        """The one there is."""
        assert use_cb is isinstance(self.manager, Batch)  # noqa: S101
        return self.manager

    def is_cb_alive(self) -> bool:
        """Whether it would answer."""
        return self.manager.alive


class Loaded:
    """The model under the name that clients know; what the library's handlers ask for that."""

    force_model = None

    def __init__(self, library: Any, name: str) -> None:
        self._library = library
        self._name = name
        self.model, self.processor = library.load_model_and_processor(".@main")

    def process_model_name(self, name: str) -> str:
        """The name as it is."""
        return name

    def load_model_and_processor(self, _name: str, **_: Any) -> tuple[Any, Any]:
        """It is loaded."""
        return self.model, self.processor

    def get_model_modality(self, model: Any, processor: Any = None) -> Any:
        """What it understands."""
        return self._library.get_model_modality(model, processor=processor)

    def get_gen_models(self) -> list[dict[str, Any]]:
        """The models served: one."""
        return [{"id": self._name, "object": "model", "created": 0, "owned_by": "corral"}]

    def shutdown(self) -> None:
        """The process ends anyway."""


def serve(port: int, launch: Mapping[str, Any]) -> None:
    """Load the model and answer until SIGTERM."""
    import torch
    import uvicorn
    from transformers.cli.serving.chat_completion import ChatCompletionHandler
    from transformers.cli.serving.completion import CompletionHandler
    from transformers.cli.serving.model_manager import ModelManager
    from transformers.cli.serving.server import build_server
    from transformers.cli.serving.utils import GenerateManager

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
    if launch["chat_template"]:
        loaded.processor.chat_template = launch["chat_template"]
    if launch["seed"] is not None:
        torch.manual_seed(launch["seed"])
    context = fitted(loaded.model.config, launch["context"])
    modality = loaded.get_model_modality(loaded.model, loaded.processor).value
    batched = launch["batching"] and modality == "LLM" and hasattr(loaded.model, "init_continuous_batching")
    manager = (
        Batch(begin(torch, loaded.model, launch, context), context) if batched else Single(GenerateManager(), context)
    )
    state = Turns(manager, compiled=launch["compile"])
    chat = ChatCompletionHandler(loaded, state)
    app = build_server(loaded, chat, CompletionHandler(loaded, state), None, None, None, state)
    facts = told(loaded, context, modality, launch["batching"] if batched else None)
    app.add_api_route("/facts", lambda: facts)
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
    uvicorn.Server(config).run()


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
        "generation": json.loads(model.generation_config.to_json_string(use_diff=True)),
        "library": library_version(),
    }


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


def main() -> None:
    """Serve, and leave at once: taking torch down piece by piece takes seconds, and nothing is left to write."""
    launch = json.loads(os.environ.pop(LAUNCH))
    try:
        serve(int(sys.argv[1]), launch)
    except ImportError as error:
        sys.exit(f"corral: this version of transformers lacks a part of its server: {error}")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
