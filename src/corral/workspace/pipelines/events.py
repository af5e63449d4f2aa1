"""What happens in runs, told to whoever looks on, in one form for SSE, WebSocket, terminal and Python.

    snapshot ─▶ run | step | text | artifact | cost … ─▶ end

Nobody who listens holds up a run, and nobody loses what matters: what a slow listener has not taken yet is brought up
to date instead of being queued, so that it is bounded by what there is and not by how much happens.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

Message = dict[str, Any]


class Listener:
    """Somebody who looks on at one run."""

    def __init__(self) -> None:
        self._pending: dict[tuple[str, ...], Message] = {}
        self._texts: dict[tuple[str, ...], list[str]] = {}
        self._news = asyncio.Event()

    def take(self, message: Message) -> None:
        """Have it delivered; one of which a newer one says all is left out, and texts are put together."""
        kind = message["type"]
        place = (kind, *_subject(message))
        before = self._pending.get(place)
        if kind == "text" and before is not None:
            self._pending[place] = {**before, "at": message["at"]}
            self._texts.setdefault(place, [before["text"]]).append(message["text"])  # put together when it is read
        else:
            self._pending.pop(place, None)  # so that it stands behind what came in between
            self._pending[place] = message
        self._news.set()

    async def wait(self, seconds: float) -> list[Message]:
        """All that is new, at the latest after `seconds`, when there may be nothing."""
        if not self._pending:
            try:
                async with asyncio.timeout(seconds):
                    await self._news.wait()
            except TimeoutError:
                return []
        self._news.clear()
        for place, texts in self._texts.items():
            self._pending[place] = {**self._pending[place], "text": "".join(texts)}
        found = list(self._pending.values())
        self._pending, self._texts = {}, {}
        return found


class Feeds:
    """Who looks on at which run, in this process."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[Listener]] = {}

    def heard(self, run: str) -> bool:
        """Whether anybody looks on at it."""
        return run in self._listeners

    def tell(self, run: str, message: Message) -> None:
        """Tell all who look on at it. Does not wait."""
        for each in self._listeners.get(run, ()):
            each.take(message)

    def join(self, run: str) -> Listener:
        """Look on at it from now on, until `leave`."""
        listener = Listener()
        self._listeners.setdefault(run, set()).add(listener)
        return listener

    def leave(self, run: str, listener: Listener) -> None:
        """Look on no more."""
        there = self._listeners.get(run, set())
        there.discard(listener)
        if not there:
            self._listeners.pop(run, None)


def _subject(message: Message) -> Iterator[str]:
    """What a message is about, beside its type: a newer one about the same replaces it."""
    match message["type"]:
        case "step":
            yield message["step"]["key"]
        case "text":
            yield message["step"]
            yield str(message.get("attempt"))
        case "artifact":
            yield message["artifact"]["id"]
