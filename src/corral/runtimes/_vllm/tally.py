"""How long a prompt is, by vLLM's own count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from corral.kit.tally import ask, prompt_of, written

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.kit.tally import Tally

_OF_A_CONVERSATION = (
    *("model", "messages", "tools", "chat_template", "chat_template_kwargs"),
    *("add_generation_prompt", "continue_final_message", "add_special_tokens"),
)


def tally(root: str, headers: Mapping[str, str]) -> Tally:
    """Counts prompts of the engine at `root`: conversations with its template and its tools, and plain texts."""

    async def counted(path: str, document: Mapping[str, Any]) -> int | None:
        if path == "/chat/completions" and written(document):
            asked = {name: document[name] for name in _OF_A_CONVERSATION if document.get(name) is not None}
            return await ask(f"{root}/tokenize", headers, asked, "count")
        if path == "/completions":
            prompt = prompt_of(document)
            if not isinstance(prompt, str):
                return prompt
            asked = {"model": document.get("model"), "prompt": prompt}
            if "add_special_tokens" in document:
                asked["add_special_tokens"] = document["add_special_tokens"]
            return await ask(f"{root}/tokenize", headers, asked, "count")
        return None

    return counted
