"""What clients are asked to ask for, and what their answers say, in one way for all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="  # one pixel
)
SCHEMA = {
    "type": "object",
    "properties": {"said": {"type": "string", "enum": ["yes", "no"]}},
    "required": ["said"],
    "additionalProperties": False,
}
PLACE = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = (("get_weather", "The weather in a city", PLACE), ("get_time", "The time in a city", PLACE))
CALLED = (("call_a", "get_weather", {"city": "Paris"}), ("call_b", "get_time", {"city": "Rome"}))
RESULTS = ("It rains.", "It is noon.")
BUDGET = 1024


@dataclass(frozen=True)
class Ask:
    """What is wanted. `again`: the tools were called, and gave RESULTS. `forced`: the first tool must be called."""

    model: str
    text: str = "Hello."
    system: str | None = None
    tools: bool = False
    forced: bool = False
    again: bool = False
    schema: bool = False
    image: bool = False
    stop: tuple[str, ...] = ()
    limit: int = 2048
    thinking: bool = False


@dataclass
class Said:
    """What was answered. `read` and `written` are all tokens, `cached` and `reasoned` among them; None: not told."""

    text: str = ""
    thought: str = ""
    calls: list[tuple[str, str, Any]] = field(default_factory=list)
    stop: str = ""
    read: int | None = None
    written: int | None = None
    cached: int | None = None
    reasoned: int | None = None
    pieces: int = 0
