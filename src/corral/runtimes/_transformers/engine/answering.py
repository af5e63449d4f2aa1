"""Who generates the answers, and what the library's handlers ask for that."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

from .choosing import sampling
from .stopping import StoppedQueue, Stops, room

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_EXIT_DELAY = 0.5
_LAST_STEP = 60.0
"""Seconds in which a step that was begun has ended, and with it the last that is heard of a cancelled request."""


class Batch:
    """Answers many requests at once, over the library's continuous batching."""

    def __init__(self, batching: Any, context: int, last_step: float = _LAST_STEP) -> None:
        self._batching = batching
        self._context = context
        self._last_step = last_step

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
        streamer = CBStreamer(self, name, tokenizer, loop, queue, more.get("response_parser"))

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
                self.cancel_request(request_id)
                done.set_result((certain, output.generated_tokens))
            elif output.is_finished():
                done.set_result((text, output.generated_tokens))

        self._ask(request_id, inputs["input_ids"], config, heard, streaming=bool(stops))
        try:
            text, tokens = await done
        except asyncio.CancelledError:
            self.cancel_request(request_id)
            raise
        return text, len(inputs["input_ids"]), tokens

    def cancel_request(self, name: str) -> None:
        """End a request for which nobody waits any more. The library forgets who listens only at an end of its own."""
        self._batching.cancel_request(name)
        listening = self._batching.output_router.result_handlers
        asyncio.get_running_loop().call_later(self._last_step, listening.pop, name, None)

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

    def __init__(self, library: Any, name: str) -> None:
        self._library = library
        self.name = name
        self.model, self.processor = library.load_model_and_processor(".@main")

    def get_model_modality(self, model: Any, processor: Any = None) -> Any:
        """What it understands."""
        return self._library.get_model_modality(model, processor=processor)

    def get_gen_models(self) -> list[dict[str, Any]]:
        """The models served: one."""
        return [{"id": self.name, "object": "model", "created": 0, "owned_by": "corral"}]

    def shutdown(self) -> None:
        """The process ends anyway."""


class Named:
    """One of the library's handlers, beside this, answers for the one model there is, whatever a request calls it."""

    model_manager: Loaded

    def _resolve_model(self, _body: Mapping[str, Any]) -> tuple[str, Any, Any]:
        loaded = self.model_manager
        return loaded.name, loaded.model, loaded.processor


def handler(kind: type, loaded: Loaded, turns: Turns) -> Any:
    """A handler of the library's `kind` for the model."""
    return type(kind.__name__, (Named, kind), {})(loaded, turns)
