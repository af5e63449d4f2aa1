"""A vendor on loopback that plays a good coder, and keeps a book of what it was asked and has answered to the end.

What it says follows from the words that it is asked with: `list …` is answered by a JSON list, `code …` by two files,
`data …` by words that are no JSON, and, once it is told so, by JSON; anything else by a sentence.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Vendor:
    """What it was `asked`, by prompt; and which of those it has `answered` to the end. `pause` is between pieces."""

    url: str = ""
    pause: float = 0.003
    asked: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        prompt = body["messages"][0]["content"]
        self.asked.append(prompt)
        self.heard.set()
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await reply.prepare(request)
        text = said(prompt, len(body["messages"]))
        head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
        pieces = [text[at : at + 40] for at in range(0, len(text), 40)]
        for piece in pieces:
            await self._send(reply, {**head, "choices": [{"index": 0, "delta": {"content": piece}}]})
            await asyncio.sleep(self.pause)  # what makes the middle of an answer long enough to be hit
        await self._send(reply, {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(text), "total_tokens": len(prompt) + len(text)}
        await self._send(reply, {**head, "choices": [], "usage": usage})
        self.answered.append(prompt)
        await reply.write(b"data: [DONE]\n\n")
        return reply

    async def _send(self, reply: web.StreamResponse, chunk: dict[str, Any]) -> None:
        await reply.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")


def said(prompt: str, messages: int) -> str:
    """What it says to a prompt."""
    mark = hashlib.sha256(prompt.encode()).hexdigest()[:12]
    match prompt.split(maxsplit=1)[0]:
        case "list":
            return json.dumps([f"{mark}-{number}" for number in range(3)])
        case "code":
            component = f"export default function Shown() {{\n  return <p className='a'>{mark}</p>\n}}"
            return f"Here it is.\n```tsx\n{component}\n```\nand\n```css\n.a {{ color: red }} /* {mark} */\n```\n"
        case "data" if messages == 1:
            return "I would rather not."
        case "data":
            return json.dumps({"verdict": mark})
        case _:
            return f"A sentence about {mark}, which is long enough to come in several pieces, one after the other."


@asynccontextmanager
async def vendor(pause: float = 0.003) -> AsyncIterator[Vendor]:
    """One that answers at its `url` for the block's length."""
    made = Vendor(pause=pause)
    application = web.Application()
    application.router.add_post("/v1/chat/completions", made.answer)
    runner = web.AppRunner(application, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield made
    finally:
        await runner.cleanup()
