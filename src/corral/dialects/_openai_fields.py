"""Fields of OpenAI's requests, taken with their types checked. What is refused is refused in the words of the door."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from corral.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NAMES: dict[type, str] = {
    str: "a string",
    bool: "a boolean",
    list: "an array",
    dict: "an object",
    float: "a number",
    int: "an integer",
}
EFFORTS = frozenset(("none", "minimal", "low", "medium", "high", "xhigh", "max"))
_LONGEST_NAME = 100


def wrong(where: str, expected: str) -> InvalidRequest:
    """The refusal of the field `where`, which must be `expected`."""
    return InvalidRequest(f"`{where}` must be {expected}.", param=where)


def take(document: Mapping[str, Any], name: str, kind: type, where: str = "") -> Any:
    """The field `name` of `document`, which may be missing or null: then None. `float` takes whole numbers too.

    Raises:
        InvalidRequest: it is not of the type `kind`; names it, with `where` before it.
    """
    value = document.get(name)
    if value is None or type(value) is kind or (kind is float and type(value) is int):
        return value
    raise wrong(where + name, NAMES[kind])


def need(document: Mapping[str, Any], name: str, kind: type, where: str = "") -> Any:
    """As `take`, of a field that must be there.

    Raises:
        InvalidRequest: it is not.
    """
    value = document.get(name)
    if type(value) is kind:
        return value
    raise wrong(where + name, NAMES[kind])


def take_model(document: Mapping[str, Any]) -> str:
    """The name of the model.

    Raises:
        InvalidRequest: there is none.
    """
    model = document.get("model")
    if type(model) is str and model:
        return model
    raise InvalidRequest("`model` is missing or not a string.", "Name a model: see GET /v1/models.", param="model")


def take_stop(document: Mapping[str, Any]) -> tuple[str, ...]:
    """The stop sequences: one, several, or none.

    Raises:
        InvalidRequest: they are no strings.
    """
    stop = document.get("stop")
    if stop is None:
        return ()
    if type(stop) is str:
        return (stop,)
    if type(stop) is list and all(type(each) is str for each in stop):
        return tuple(stop)
    raise InvalidRequest("`stop` must be a string or an array of strings.", param="stop")


def take_effort(document: Mapping[str, Any], name: str, where: str = "") -> str | None:
    """How much to think, if that is said.

    Raises:
        InvalidRequest: it is no effort that is known.
    """
    effort: str | None = take(document, name, str, where)
    if effort is not None and effort not in EFFORTS:
        raise wrong(where + name, "one of none, minimal, low, medium, high, xhigh, max")
    return effort


def take_usage_wanted(document: Mapping[str, Any], lost: dict[str, None]) -> bool:
    """Whether the client of a stream wants to be told its usage; what else it wishes of a stream is `lost`.

    Raises:
        InvalidRequest: `stream_options` is no object of that kind.
    """
    options = take(document, "stream_options", dict)
    if options is None:
        return False
    for key, value in options.items():
        if key != "include_usage" and value:
            lost[f"stream_options.{shorten(key)}"] = None
    return bool(take(options, "include_usage", bool, "stream_options."))


def check_count(document: Mapping[str, Any], lost: dict[str, None], name: str = "n") -> None:
    """That `n` is a number of answers; more than one is `lost`, as an answer between dialects is one.

    Raises:
        InvalidRequest: it is none.
    """
    count = take(document, name, int)
    if count is not None and count < 1:
        raise wrong(name, "at least 1")
    if count is not None and count > 1:
        lost[name] = None


def note_unknown(given: Iterable[str], known: frozenset[str], where: str, lost: dict[str, None]) -> None:
    """Note as `lost` each key in `given` that is not `known`."""
    for key in given:
        if key not in known:
            lost[f"{where}.{shorten(key)}"] = None


def shorten(name: Any) -> str:
    """A name from a request as it may be repeated in a message or header."""
    return str(name)[:_LONGEST_NAME]


def cache_of(part: Mapping[str, Any]) -> str | None:
    """How long the vendor may keep the prompt up to `part`, by the mark that OpenAI's clients borrow from Anthropic."""
    mark = part.get("cache_control")
    if type(mark) is not dict or mark.get("type") != "ephemeral":
        return None
    return "1h" if mark.get("ttl") == "1h" else "5m"
