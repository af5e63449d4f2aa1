"""How long a prompt is, by llama.cpp's own count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from corral.kit.tally import ask, prompt_of, written

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.kit.tally import Tally


def tally(address: str, headers: Mapping[str, str]) -> Tally:
    """Counts prompts of the engine at `address`: conversations with its template and its tools, and plain texts."""

    async def counted(path: str, document: Mapping[str, Any]) -> int | None:
        if path == "/chat/completions" and written(document):
            return await ask(f"{address}/v1/chat/completions/input_tokens", headers, document, "input_tokens")
        if path == "/completions":
            prompt = prompt_of(document)
            if not isinstance(prompt, str):
                return prompt
            asked = {"content": prompt, "add_special": True, "parse_special": True}
            return await ask(f"{address}/tokenize", headers, asked, "tokens")
        return None

    return counted
