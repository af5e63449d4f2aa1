"""Models made of installed ones, as a Modelfile of Ollama's says it: another name, and how it talks.

What such a model is told are launch options that anybody may give (`kit.advice`): texts and numbers, no file, no
program, nothing about the machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from corral.domain.generation import ModelConfig
from corral.domain.models import check_name
from corral.errors import CorralError, InvalidRequest, ModelNotFound, NotSupported
from corral.kit import advice
from corral.sources._ollama import layers
from corral.sources._ollama.gotemplate import Untranslatable
from corral.sources._ollama.jinja import translate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.app.corral import Corral
    from corral.app.registration import Registrations

_BEYOND = {
    "quantize": "it does not quantise models: install one that is",
    "files": "it makes no model of files that are sent to it: corral pull file:PATH installs one",
    "adapters": "adapters are files: name them in the configuration, models.NAME.options.lora",
    "modelfile": "it reads no Modelfile: clients of 2025 and later send its parts",
    "path": "it reads no Modelfile: clients of 2025 and later send its parts",
    "renderer": "it has the template of the model itself",
    "parser": "the engine parses what the model says",
    "remote_host": "a model elsewhere is an entry of the configuration",
}
"""Fields of the request with which Ollama does what Corral does not, and why."""


def made(corral: Corral, registrations: Registrations, document: Mapping[str, Any]) -> ModelConfig:
    """The registration that a request to create a model asks for.

    Raises:
        InvalidRequest: a field is no such thing; names it.
        ModelNotFound: there is no such model to make it of.
        NotSupported: something of it cannot be done here; says what, and why.
    """
    name, base = _text(document, "model") or _text(document, "name"), _text(document, "from")
    for field, why in _BEYOND.items():
        if document.get(field):
            raise NotSupported(f"Corral cannot follow `{field}`: {why}.", param=field)
    if not name or not base:
        missing = "model" if not name else "from"
        raise InvalidRequest(f"`{missing}` is missing: the name of a model.", param=missing)
    config = based(corral, registrations, base, name)
    options = {**config.options, **_parameters(document), **_texts(document)}
    return ModelConfig(config.model_id, config.model_name, options=options)


def based(corral: Corral, registrations: Registrations, base: str, name: str) -> ModelConfig:
    """The registration of `name` that is as `base` is now.

    Raises:
        ModelNotFound: there is no model `base`.
        NotSupported: it is not made of files.
    """
    name = check_name(name.removesuffix(":latest"))
    own = corral.canonical(base)
    known = registrations.get(own)
    if known is not None:
        return ModelConfig(known.model_id, name, options=dict(known.options))
    if own in corral.registry:
        return ModelConfig(own, name, options=_said(corral, own))
    try:
        definition = corral.definition(own)
    except ModelNotFound as error:
        raise ModelNotFound(error.message, error.hint, param="from") from error
    if definition.installed is None:
        raise NotSupported(
            f"{base!r} is no installed model but an entry of the configuration, which others are not made of.",
            "Give it another name there: models.NAME.aliases.",
            param="from",
        )
    return ModelConfig(definition.installed.name, name, options=_said(corral, own))


def _said(corral: Corral, name: str) -> dict[str, Any]:
    """What the configuration says of how a model talks, as far as anybody may say it."""
    return advice.sifted(corral.entry(name).options)[0]


def _parameters(document: Mapping[str, Any]) -> dict[str, Any]:
    given = document.get("parameters") or {}
    if not isinstance(given, dict):
        raise InvalidRequest("`parameters` must be an object.", param="parameters")
    found = layers.parameters(orjson.dumps(given), "parameters")
    if found.ignored:
        reasons = "; ".join(f"{name}: {why}" for name, why in found.ignored.items())
        raise NotSupported(f"Corral cannot follow these parameters: {reasons}.", param="parameters")
    return dict(found.options)


def _texts(document: Mapping[str, Any]) -> dict[str, Any]:
    """System message, template and opening, as launch options."""
    found: dict[str, Any] = {}
    system, template, messages = _text(document, "system"), _text(document, "template"), document.get("messages")
    if system:
        found["system"] = system
    if template:
        found["chat_template"] = _jinja(template)
    if messages:
        opening = layers.messages(orjson.dumps(messages))
        if opening is None:
            raise NotSupported(
                "`messages` must be texts of `user` and `assistant`, 100 at most.",
                "Say what the model shall be in `system`.",
                param="messages",
            )
        found["opening"] = opening
    _, unfit = advice.sifted(found)
    if unfit:
        raise InvalidRequest(f"`{next(iter(unfit))}` is too long, or no such text.", param=next(iter(unfit)))
    return found


def _jinja(template: str) -> str:
    """The template as a Jinja text, whichever of both it is written in."""
    if "{%" in template:
        return template
    try:
        return translate(template)
    except (Untranslatable, CorralError) as error:
        raise NotSupported(
            f"The template cannot be put into Jinja: {error}.", "Leave it out: the model has its own.", param="template"
        ) from error


def _text(document: Mapping[str, Any], field: str) -> str:
    value = document.get(field)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"`{field}` must be a string.", param=field)
    return value or ""
