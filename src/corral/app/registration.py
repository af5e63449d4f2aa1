"""Models that are registered at run time: from Python for as long as the program runs, over HTTP until taken back.

What comes over HTTP is anybody's who may ask the server. It names a model, a runtime, a few numbers, and how the model
talks; it cannot name a program, a file or an address, and it takes no model's place that the configuration or the store
has.
"""

from __future__ import annotations

import logging
import re
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import orjson

from corral.config import model_settings
from corral.domain.generation import ModelConfig
from corral.domain.models import check_name
from corral.domain.options import parse_options
from corral.domain.states import State
from corral.errors import Conflict, CorralError, InvalidRequest, ModelBusy, NotFound, NotSupported
from corral.kit import advice
from corral.kit.disk import translated, write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from corral.app.corral import Corral
    from corral.domain.ports import Runtime

_BY_HTTP = frozenset({"context", "slots", "gpu_layers", "dtype"})
"""Options that a registration over HTTP may give: numbers and choices that run nothing and read nothing."""
_MOST = 1000
"""Registrations over HTTP that are kept."""
_WORD = re.compile(r"[\w.\-:]{1,60}", re.ASCII)

_log = logging.getLogger("corral.server")


def fallbacks(corral: Corral, name: str) -> Sequence[str]:
    """The models to ask in the place of `name` when that cannot be had."""
    entry = corral.models.get(name)
    return () if entry is None else entry.fallback


def entry_of(corral: Corral, config: ModelConfig) -> dict[str, Any]:
    """The registration as `models.NAME` of a configuration file would say it.

    Raises:
        UnknownPlugin: there is no such runtime.
        NotSupported: the runtime cannot do what is asked, such as quantising while loading.
    """
    options = dict(config.options)
    entry: dict[str, Any] = {"options": options}
    if config.fallback:
        entry["fallback"] = list(config.fallback)
    if config.runtime_type is not None:
        kind = str(config.runtime_type)
        entry["runtime"] = kind
        runtime = corral.runtimes[kind]
        known = {f.name for f in fields(runtime.options)}
        if config.quantization is not None and not _is_so_already(corral, config):
            _give(options, known, config, "quantization", config.quantization)
        _place(options, known, config)
        if not runtime.formats and "upstream_model" in known:
            options.setdefault("upstream_model", config.model_id)
    elif config.quantization is not None and not _is_so_already(corral, config):
        raise NotSupported(
            "`quantization` needs a `runtime_type` that quantises.", "Name one, or install a quantised file."
        )
    if config.runtime_type is None and str(config.device_type) != "auto":
        options.setdefault("device", str(config.device_type))  # whichever runs files: it obeys, or refuses the option
    if "upstream_model" not in options:
        entry["source"] = config.model_id
    return entry


def _place(options: dict[str, Any], known: set[str], config: ModelConfig) -> None:
    """Say where it shall run, in the runtime's own words."""
    device = str(config.device_type)
    if device == "auto":
        return
    if "device" in known:
        options.setdefault("device", device)
    elif device != "cpu":
        _give(options, known, config, "device", device)
    elif "gpu_layers" in known:
        options.setdefault("gpu_layers", 0)


def _give(options: dict[str, Any], known: set[str], config: ModelConfig, name: str, value: Any) -> None:
    """Set option `name`, or say that the runtime has no such thing."""
    if name not in known:
        raise NotSupported(
            f"The runtime {str(config.runtime_type)!r} cannot set {name} to {value!r} when it loads "
            f"{config.model_name!r}.",
            "Leave it out, or take another runtime.",
            param=name,
        )
    options.setdefault(name, value)


def _is_so_already(corral: Corral, config: ModelConfig) -> bool:
    """Whether the model's file is quantised as is asked for."""
    try:
        found = corral.registry.get(config.model_id).revision.facts.get("quantization")
    except CorralError:
        return False
    return str(found).casefold() == str(config.quantization).casefold()


class Registrations:
    """What has been registered with one `Corral`, by name."""

    def __init__(self, corral: Corral) -> None:
        self._corral = corral
        self._known: dict[str, ModelConfig] = {}
        self._kept: set[str] = set()

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def get(self, name: str) -> ModelConfig | None:
        """What is registered under `name`; None: nothing is."""
        return self._known.get(name)

    def names(self) -> list[str]:
        """Every registered name."""
        return sorted(self._known)

    def model_type(self, name: str) -> str:
        """What the model was registered as; `llm` for any other."""
        config = self._known.get(name)
        return "llm" if config is None else config.model_type

    def add(self, config: ModelConfig) -> None:
        """Make it a model that can be asked for, for as long as the `Corral` lives; replaces one of that name.

        Raises:
            CorralError: as `entry_of`; or the name, or an option, is none.
        """
        self._corral.register(config.model_name, entry_of(self._corral, config))
        self._known[config.model_name] = config

    def keep(self, config: ModelConfig) -> None:
        """As `add`, for what came over HTTP; it is there again after a restart. Blocks for one small file.

        Raises:
            InvalidRequest: an option that only the configuration may give.
            Conflict: the name is taken by the configuration or an installed model, or there are too many.
            ModelBusy: the model is in memory as it was registered before.
        """
        name = check_name(config.model_name)
        if self._known.get(name) == config and name in self._kept:
            return
        if len(self._kept) >= _MOST and name not in self._kept:
            raise Conflict(
                f"{_MOST} models are registered, and no more are kept.",
                "Take one back: DELETE /api/v1/runtime/models/NAME",
            )
        self._check_name(name, config)
        self._check_options(config)
        self._add_tamed(config)
        self._write()

    def remove(self, name: str) -> None:
        """Take a registration back. Blocks for one small file.

        Raises:
            NotFound: there is none of that name.
            ModelBusy: the model is in memory.
        """
        if name not in self._kept:
            raise NotFound(f"No model was registered as {name[:200]!r}.", "GET /api/v1/runtime/models lists them.")
        self._check_idle(name)
        del self._known[name]
        self._kept.discard(name)
        self._corral.supervisor.forget(name)
        if name not in self._corral.configured:  # else it has come into the configuration since
            self._corral.models.pop(name, None)
            self._corral.routes.renew()
        self._write()

    def restore(self) -> None:
        """Register again what an earlier server was told; what cannot be is logged and left out. Blocks."""
        try:
            found = orjson.loads(self._file.read_bytes())["models"]
            configs = [ModelConfig(**{**item, "fallback": tuple(item["fallback"])}) for item in found]
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("registrations are not read: %s: %s", self._file, error)
            return
        for config in configs:
            try:
                self._check_name(config.model_name, config)
                self._check_options(config)
                self._add_tamed(config)
            except CorralError as error:
                _log.warning("the registration of %s is left out: %s", config.model_name, error)

    def _add_tamed(self, config: ModelConfig) -> None:
        """As `add`; what it runs on fetches nothing, unless the configuration says that it may.

        A model's name can be an address to others, such as a registry's to Ollama.
        """
        entry = entry_of(self._corral, config)
        kind = entry.get("runtime")
        if kind is not None and "pull" in {f.name for f in fields(self._corral.runtimes[kind].options)}:
            entry["options"]["pull"] = self._corral.settings.runtimes.get(kind, {}).get("pull", False)
        self._corral.register(config.model_name, entry)
        self._known[config.model_name] = config
        self._kept.add(config.model_name)

    def _check_name(self, name: str, config: ModelConfig) -> None:
        corral = self._corral
        if name in corral.configured:
            raise Conflict(f"Model {name!r} stands in the configuration.", "Choose another name, or change it there.")
        if name in corral.registry and config.model_id != name:
            raise Conflict(f"A model {name!r} is installed.", "Choose another name.")
        self._check_idle(name)

    def _check_idle(self, name: str) -> None:
        states = {status.model: status.state for status in self._corral.supervisor.statuses()}
        if states.get(name, State.COLD) not in (State.COLD, State.FAILED):
            raise ModelBusy(f"Model {name!r} is in memory.", f"Let it go first: corral unload {name}")

    def _check_options(self, config: ModelConfig) -> None:
        """Refuse what somebody far away has no business to say."""
        for name, value in (
            ("runtime_type", config.runtime_type),
            ("device_type", config.device_type),
            ("quantization", config.quantization),
        ):
            if value is not None and not _WORD.fullmatch(str(value)):
                raise InvalidRequest(f"{name}: {str(value)[:100]!r} is no word.", param=name)
        for option, value in config.options.items():
            if option in advice.OPTIONS and advice.OPTIONS[option](value):
                continue
            if option not in _BY_HTTP or not isinstance(value, bool | int | float | str | None):
                raise NotSupported(
                    f"The option {option[:100]!r} cannot be given over HTTP.",
                    "Put the model into corral.yaml. Over HTTP: "
                    f"{', '.join(sorted(_BY_HTTP))}, and how it talks: {', '.join(sorted(advice.OPTIONS))}.",
                    param=option,
                )
            if isinstance(value, str) and not _WORD.fullmatch(value):
                raise InvalidRequest(f"The option {option!r} is a word.", param=option)
        if config.runtime_type is not None:
            self._check_runtime(self._corral.runtimes[config.runtime_type], config)

    def _check_runtime(self, runtime: Runtime, config: ModelConfig) -> None:
        """Refuse a runtime that must be told a program or an address, unless the configuration tells it.

        Raises:
            NotSupported: it must.
        """
        given = self._corral.settings.runtimes.get(runtime.kind, {})
        entry = model_settings(entry_of(self._corral, config), f"the registration of {config.model_name}")
        try:
            parse_options(runtime.options, {**given, **entry.options}, f"runtime {runtime.kind}")
        except InvalidRequest as error:
            known = {f.name for f in fields(runtime.options)}
            if error.param in known - _BY_HTTP - {"quantization", "device", "upstream_model"}:
                raise NotSupported(
                    f"The runtime {runtime.kind!r} must be told {error.param!r}, which cannot be given over HTTP.",
                    f"Put the model into corral.yaml, or {error.param} below runtimes.{runtime.kind}.",
                    param=error.param,
                ) from error
            raise

    def _write(self) -> None:
        content = [asdict(self._known[name]) for name in sorted(self._kept)]
        with translated("writing", self._file):
            write_whole(self._file, orjson.dumps({"models": content}, option=orjson.OPT_INDENT_2))

    @property
    def _file(self) -> Path:
        return self._corral.settings.home / "registered.json"
