"""`corral override`: what is said of a model by hand, instead of what its files say."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from corral.catalog.overrides import CAPABILITIES
from corral.cli.invocation import Invocation, command, flag
from corral.cli.names import Model
from corral.errors import InvalidRequest, UnknownOption

_PLAIN = ("runtime", "context_length")
KEYS = (*_PLAIN, *CAPABILITIES)
"""All that can be said of a model."""


@command
def override(
    invocation: Invocation,
    model: Model,
    values: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="supports_tools=true, allowed_roles=user,assistant, context_length=4096, runtime=llamacpp; "
            "KEY= takes one back.",
        ),
    ] = None,
    clear: Annotated[bool, flag("--clear", help="Believe its files again in everything.")] = False,
) -> None:
    """Say by hand what a model can do; it survives updates.

    Without KEY=VALUE it shows what was said. For example: corral override smollm2 supports_tools=false
    """
    if clear and values:
        raise InvalidRequest("--clear takes no values.", f"corral override {model} --clear")
    invocation.here_only("override")
    corral = invocation.corral()
    registry = corral.registry
    name = registry.get(model).name
    output = invocation.output
    before = dict(registry.override(name))
    after = {} if clear else changed(before, values or ())
    if after != before:
        asyncio.run(registry.set_override(name, after or None))

    def show() -> None:
        rows = _flat(after)
        if not rows:
            output.say(f"Nothing is said of {name} by hand: it is what its files say.")
            return
        output.fields([(key, _text(value)) for key, value in sorted(rows.items())])

    output.result(
        {"name": name, "override": after}, show, [f"{key}={_text(value)}" for key, value in _flat(after).items()]
    )


def changed(before: Mapping[str, Any], values: Sequence[str]) -> dict[str, Any]:
    """The override with `values` in it, each KEY=VALUE; an empty VALUE takes one back.

    Raises:
        InvalidRequest: there is no `=`, or no key.
        UnknownOption: a key that nobody knows; names the nearest, or all.
    """
    after = {key: value for key, value in before.items() if key != "capabilities"}
    able = dict(before.get("capabilities") or {})
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InvalidRequest(f"{text[:80]!r} is no KEY=VALUE.", "For example: supports_tools=true")
        target = after if key in _PLAIN else able
        if value:
            if key not in KEYS:
                raise UnknownOption.among(key, KEYS, "an override")
            target[key] = _value(key, value)
        else:
            target.pop(key, None)
    return after | ({"capabilities": able} if able else {})


def _value(key: str, text: str) -> Any:
    if key == "allowed_roles":
        return [role.strip() for role in text.split(",") if role.strip()]
    if text.lower() in ("true", "yes", "false", "no"):
        return text.lower() in ("true", "yes")
    if key == "context_length" and text.isascii() and text.isdigit() and len(text) < 20:
        return int(text)
    return text


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    flat = {key: value for key, value in values.items() if key != "capabilities"}
    return flat | dict(values.get("capabilities") or {})


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value)
