"""How long a prompt is, put together as the library's handlers do it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from .answering import Loaded


def counter(loaded: Loaded, chat: Any) -> Callable[[Any], Awaitable[Any]]:
    """What answers a request for the length of a prompt: `{"count": n}`; null where it is no prompt of text."""
    from starlette.responses import JSONResponse

    async def count(request: Any) -> Any:
        return JSONResponse({"count": length(loaded, chat, await request.json())})

    return count


def length(loaded: Loaded, chat: Any, document: Mapping[str, Any]) -> int | None:
    """Tokens of a conversation in the model's template, or of a text."""
    processor, prompt = loaded.processor, document.get("prompt")
    if isinstance(document.get("messages"), list):
        modality = loaded.get_model_modality(loaded.model, processor=processor)
        inputs = processor.apply_chat_template(
            chat.get_processor_inputs_from_messages(document["messages"], modality),
            add_generation_prompt=True,
            tools=document.get("tools"),
            return_dict=True,
            tokenize=True,
            **{**chat.chat_template_kwargs, **(document.get("chat_template_kwargs") or {})},
        )
    elif isinstance(prompt, str):
        inputs = getattr(processor, "tokenizer", processor)(prompt)
    else:
        return None
    tokens = inputs["input_ids"]
    return len(tokens[0]) if tokens and isinstance(tokens[0], list) else len(tokens)
