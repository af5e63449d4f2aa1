"""Where an answer ends: at a text, and at the end of the context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence


class TooLongError(Exception):
    """The prompt leaves no room for an answer."""

    def __init__(self, tokens: int, context: int) -> None:
        super().__init__(
            f"The prompt has {tokens} tokens, and the engine holds {context} with the answer: "
            "shorten it, or raise the option context."
        )


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
