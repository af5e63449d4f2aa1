"""How far the pull of an image is, from what the engine says of each of its layers. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from corral.domain.ports import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping

_WHOLE = ("Download complete", "Verifying Checksum", "Pull complete", "Extracting")


class Pulled:
    """One pull of an image: bytes over all of its layers, which are compressed.

    The phase is `download`, and `unpack` once every layer is here. The total is None until each layer has told its own.
    """

    def __init__(self, reference: str) -> None:
        self._reference = reference
        self._totals: dict[str, int | None] = {}
        self._done: dict[str, int] = {}
        self._unpacked: dict[str, int] = {}
        self._furthest = 0

    def heard(self, said: Mapping[str, Any]) -> Progress:
        """How far it is after one more line of the engine's."""
        layer, status = str(said.get("id", "")), str(said.get("status", ""))
        detail = said.get("progressDetail") or {}
        if status in ("Pulling fs layer", "Waiting"):
            self._totals.setdefault(layer, None)
        elif status == "Downloading":
            if detail.get("total"):
                self._totals[layer] = int(detail["total"])
            self._done[layer] = max(self._done.get(layer, 0), int(detail.get("current", 0)))
        elif layer in self._totals and status in _WHOLE:
            self._done[layer] = self._whole(layer)
            if status == "Pull complete":
                self._unpacked[layer] = self._whole(layer)
            elif status == "Extracting":
                self._unpacked[layer] = min(int(detail.get("current", 0)), self._whole(layer))
        return self._progress(status)

    def _whole(self, layer: str) -> int:
        """A layer that comes in one piece tells no size: then it is what has come of it."""
        total = self._totals.get(layer)
        if total is None:
            total = self._totals[layer] = self._done.get(layer, 0)
        return total

    def _progress(self, status: str) -> Progress:
        known = [total for total in self._totals.values() if total is not None]
        total = sum(known) if known and len(known) == len(self._totals) else None
        done = sum(self._done.values())
        if total is not None and done >= total and self._unpacked:
            return Progress("unpack", sum(self._unpacked.values()), total, self._reference)
        self._furthest = max(self._furthest, done)
        return Progress("download", self._furthest, total, self._reference if self._totals else status)
