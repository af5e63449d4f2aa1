"""What can be a service: `ollama`, `vllm`, and `command`, which is anything. Settings become a ServiceSpec here.

A kind is a frozen dataclass of options and a function from these to what is run; nothing is looked up but by the two
questions in `Surroundings`. A new kind is a new row of `KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corral.config.values import size
from corral.domain.options import parse_options
from corral.domain.services import ServiceSpec, check_service
from corral.errors import ConfigError, InvalidRequest, ServiceUnavailable, UnknownOption
from corral.services.ports import reached

if TYPE_CHECKING:
    from corral.config import ServiceSettings


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a kind may ask for.

    `program(kind, name, given)` is where a program is, or None; `model(name)` the path of an installed model's files,
    or of a folder that is given as it is.
    """

    program: Callable[[str, str, Path | None], Path | None]
    model: Callable[[str], Path]


@dataclass(frozen=True, slots=True)
class Listening:
    """Options that every kind has.

    Attributes:
        host: the address to listen on, as a number.
        memory: most memory it may take, as `8GB`; systemd enforces it.
    """

    host: str = "127.0.0.1"
    memory: str | int | None = None

    def __post_init__(self) -> None:
        """Refuse what no service can mean."""
        try:
            ip_address(self.host)
        except ValueError:
            raise InvalidRequest(f"{self.host!r} is no address.", "Give a number, such as 127.0.0.1.") from None
        if self.memory is not None:
            try:
                size(self.memory)
            except (TypeError, ValueError) as error:
                raise InvalidRequest(f"memory is {error}.", "Write it as 8GB or 512MiB.") from error


@dataclass(frozen=True, slots=True)
class OllamaOptions(Listening):
    """Options of `ollama serve`.

    Attributes:
        port: where it listens.
        models: the folder of its models. Default: Ollama's own.
        executable: the program. Default: the one that is found.
    """

    port: int = 11434
    models: Path | None = None
    executable: Path | None = None


@dataclass(frozen=True, slots=True)
class VllmOptions(Listening):
    """Options of `vllm serve`.

    Attributes:
        model: an installed model, or a folder of safetensors.
        port: where it listens.
        served_name: what clients call the model. Default: `model`.
        dtype: number format of the weights.
        context: tokens of a request, prompt and answer together.
        gpu_memory: part of a GPU's memory that it takes, 0 to 1.
        parallel: GPUs that one model is spread over.
        arguments: more arguments, as vLLM's own documentation has them.
        executable: the program. Default: the one that is found.
    """

    model: str = field(kw_only=True)
    port: int = 8000
    served_name: str | None = None
    dtype: str | None = None
    context: int | None = None
    gpu_memory: float | None = None
    parallel: int | None = None
    arguments: tuple[str, ...] = ()
    executable: Path | None = None


@dataclass(frozen=True, slots=True)
class CommandOptions(Listening):
    """Options of any other server.

    Attributes:
        command: the program and its arguments; `{port}` and `{host}` in them are replaced.
        port: where it listens.
        health: the path that answers 2xx while it is well. Without one it is well while its port takes connections, and
            without a port while it runs.
        cwd: its working folder. Default: the service's own.
    """

    command: tuple[str, ...] = field(kw_only=True)
    port: int | None = None
    health: str | None = None
    cwd: Path | None = None


@dataclass(frozen=True, slots=True)
class _Run:
    """What a kind makes of its options."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    health: str | None = None
    cwd: Path | None = None


def _ollama(name: str, options: OllamaOptions, around: Surroundings) -> _Run:
    program = _found(name, "ollama", "ollama", options.executable, around)
    environment = {"OLLAMA_HOST": f"{_bracketed(options.host)}:{options.port}"}
    if options.models is not None:
        environment["OLLAMA_MODELS"] = str(options.models.expanduser())
    return _Run((str(program), "serve"), environment, "/api/version")


def _vllm(name: str, options: VllmOptions, around: Surroundings) -> _Run:
    program = _found(name, "vllm", "vllm", options.executable, around)
    argv = [str(program), "serve", str(around.model(options.model))]
    flags: dict[str, object] = {
        "--host": options.host,
        "--port": options.port,
        "--served-model-name": options.served_name or options.model,
        "--dtype": options.dtype,
        "--max-model-len": options.context,
        "--gpu-memory-utilization": options.gpu_memory,
        "--tensor-parallel-size": options.parallel,
    }
    for flag, value in flags.items():
        argv += [] if value is None else [flag, str(value)]
    return _Run((*argv, *options.arguments), health="/health")


def _command(name: str, options: CommandOptions, around: Surroundings) -> _Run:
    if not options.command:
        raise InvalidRequest(f"The command of service {name!r} is empty.", "Give the program and its arguments.")
    if options.health is not None and options.port is None:
        raise InvalidRequest(f"Service {name!r} has a health path and no port.", "Set its option `port`.")
    words = {"{port}": str(options.port or ""), "{host}": options.host}
    argv = []
    for item in options.command:
        text = item
        for word, value in words.items():
            text = text.replace(word, value)
        if "\0" in text or "\n" in text:
            raise InvalidRequest(f"The command of service {name!r} has a line break in it.", "Use a script for that.")
        argv.append(text)
    program = _found(name, "command", argv[0], Path(argv[0]) if "/" in argv[0] else None, around)
    return _Run((str(program), *argv[1:]), health=options.health, cwd=options.cwd)


KINDS: Mapping[str, tuple[type[Any], Callable[[str, Any, Surroundings], _Run]]] = {
    "command": (CommandOptions, _command),
    "ollama": (OllamaOptions, _ollama),
    "vllm": (VllmOptions, _vllm),
}
"""Each kind's options, and what it makes of them."""


def kind_of(name: str, settings: ServiceSettings) -> str:
    """The kind of a service: what its settings say, or its name.

    Raises:
        ConfigError: it is none.
    """
    kind = settings.kind or name
    if kind not in KINDS:
        known = ", ".join(KINDS)
        raise ConfigError(
            f"Service {name!r} has no kind." if settings.kind is None else f"There is no kind {kind!r} of services.",
            f"Set services.{name}.kind to one of: {known}.",
        )
    return kind


def spec(name: str, settings: ServiceSettings, around: Surroundings) -> ServiceSpec:
    """What to run for the service `name`.

    Raises:
        InvalidName: no service can have that name.
        ConfigError: no such kind, or a variable that cannot be one.
        UnknownOption, InvalidRequest: an option is wrong.
        ServiceUnavailable: its program is not installed.
    """
    check_service(name)
    kind = kind_of(name, settings)
    shape, run = KINDS[kind]
    where = f"service {name!r} (kind {kind})"
    try:
        options = parse_options(shape, settings.options, where)
    except UnknownOption:
        raise
    except InvalidRequest as error:
        raise InvalidRequest(f"{where.capitalize()}: {error.message}", error.hint, param=error.param) from error
    if options.port is not None and not 0 < options.port < 65536:
        raise InvalidRequest(f"Port {options.port} of {where} is none.", "Give one from 1 to 65535.", param="port")
    made = run(name, options, around)
    return ServiceSpec(
        name=name,
        kind=kind,
        argv=made.argv,
        environment={**made.environment, **_variables(name, settings.environment)},
        cwd=None if made.cwd is None else made.cwd.expanduser().absolute(),
        host=options.host,
        port=options.port,
        health=None if made.health is None else _url(options.host, options.port, made.health),
        stop_grace=settings.stop_grace,
        start_timeout=settings.start_timeout,
        memory=None if options.memory is None else size(options.memory),
        restart=settings.restart,
    )


def _found(name: str, kind: str, program: str, given: Path | None, around: Surroundings) -> Path:
    found = around.program(kind, program, given)
    if found is None:
        looked = str(given) if given is not None else program
        hint = "Install it, or name it in the service's options."
        if kind == "vllm":
            hint = "Install it with: corral runtimes install vllm"
        raise ServiceUnavailable(f"Service {name!r} needs the program {looked}, which is not here.", hint)
    return found


def _variables(name: str, given: Mapping[str, Any]) -> dict[str, str]:
    """Variables as a process takes them: YAML's numbers and truths as text."""
    found = {}
    for key, value in given.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        usable = key.replace("_", "a").isalnum() and key.isascii() and not key[:1].isdigit()
        if not usable or value is None or isinstance(value, list | dict) or not set(text).isdisjoint("\0\n\r"):
            raise ConfigError(
                f"{key!r} of services.{name}.environment cannot be a variable.", "Give a name and a text."
            )
        found[key] = text
    return found


def _url(host: str, port: int | None, path: str) -> str:
    return f"http://{_bracketed(reached(host))}:{port}/{path.removeprefix('/')}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
