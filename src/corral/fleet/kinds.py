"""What can serve in a container: one row for each kind. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from corral.errors import ConfigError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

MODELS = "/models"
"""Where a container's own volume for models lies in it."""

_DIGEST = re.compile(r"@sha256:[0-9a-f]+$")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(?::[\w.-]+)?")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of model server.

    Attributes:
        name: as in the configuration.
        image: its image, where there is a usual one.
        inside: the port it listens on in its usual image.
        port: the port of this machine that is tried first.
        health: the path that answers 2xx while it is well.
        dialect: what it speaks: `ollama` or `openai`.
        told_by: parts of an image's name, without tag, by which it is known.
        variable: of its environment: where its models are kept; None: it keeps none.
        usual: folders where it keeps them when that variable is not set; a volume there is left as it is.
        scratch: folders that it writes to, which are put in memory when its root cannot be written.
        listen: the variables that make it listen, for an address and a port; empty: it cannot be told by variables.
        listen_flags: the arguments that do, where it has no such variables.
        flags: arguments that name its model; an own command with one of them is left as it is.
        arguments: those that make it serve a model; None: it serves what is in it.
    """

    name: str
    image: str | None
    inside: int
    port: int
    health: str
    dialect: str
    told_by: tuple[str, ...] = ()
    variable: str | None = None
    usual: tuple[str, ...] = ()
    scratch: tuple[str, ...] = ("/tmp",)  # noqa: S108 # a folder in the container's own memory
    listen: Callable[[str, int], Mapping[str, str]] = field(default=lambda _host, _port: {})
    listen_flags: Callable[[str, int], tuple[str, ...]] | None = None
    flags: tuple[str, ...] = ()
    arguments: Callable[[str], tuple[str, ...]] | None = None

    @property
    def keeps_models(self) -> bool:
        """Whether models are pulled into it and removed from it while it runs."""
        return self.dialect == "ollama"


def _ollama_listens(host: str, port: int) -> dict[str, str]:
    return {"OLLAMA_HOST": f"[{host}]:{port}" if ":" in host else f"{host}:{port}"}


def _llamacpp_listens(host: str, port: int) -> dict[str, str]:
    return {"LLAMA_ARG_HOST": host, "LLAMA_ARG_PORT": str(port)}


def _llamacpp_serves(model: str) -> tuple[str, ...]:
    """A file below the folder of models, or a repository of the Hub, from which the server fetches it itself."""
    if model.startswith("/") or model.endswith(".gguf"):
        return ("-m", model if model.startswith("/") else f"{MODELS}/{model}", "--alias", model)
    if _REPOSITORY.fullmatch(model):
        return ("-hf", model, "--alias", model)
    return ("-m", f"{MODELS}/{model}.gguf", "--alias", model)


def _vllm_serves(model: str) -> tuple[str, ...]:
    return ("--model", model, "--served-model-name", model)


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            name="ollama",
            image="ollama/ollama",
            inside=11434,
            port=11434,
            health="/api/version",
            dialect="ollama",
            told_by=("ollama",),
            variable="OLLAMA_MODELS",
            usual=("/root/.ollama/models",),
            scratch=("/tmp", "/root/.ollama"),  # noqa: S108 # it writes a key of its own beside its models
            listen=_ollama_listens,
        ),
        Kind(
            name="llamacpp",
            image="ghcr.io/ggml-org/llama.cpp:server",
            inside=8080,
            port=8080,
            health="/health",
            dialect="openai",
            told_by=("llama.cpp", "llama-cpp", "llamacpp", "llama-server"),
            variable="LLAMA_CACHE",
            usual=("/root/.cache/llama.cpp",),
            listen=_llamacpp_listens,
            flags=("-m", "--model", "-hf", "--hf-repo", "-hfr", "-mu", "--model-url", "--models-dir"),
            arguments=_llamacpp_serves,
        ),
        Kind(
            name="vllm",
            image="vllm/vllm-openai",
            inside=8000,
            port=8000,
            health="/health",
            dialect="openai",
            told_by=("vllm",),
            variable="HF_HOME",
            usual=("/root/.cache/huggingface",),
            scratch=("/tmp", "/root/.cache/vllm", "/root/.triton"),  # noqa: S108 # what it compiles
            listen_flags=lambda host, port: ("--host", host, "--port", str(port)),
            flags=("--model",),
            arguments=_vllm_serves,
        ),
        Kind(
            name="openai",
            image=None,
            inside=8000,
            port=8000,
            health="/v1/models",
            dialect="openai",
        ),
    )
}
"""Every kind by its name. The last is whatever speaks OpenAI's dialect."""


def kind_of(image: str | None, given: str | None = None) -> Kind:
    """The kind that was given, else the one that the image's name tells; without either it is Ollama.

    Raises:
        ConfigError: there is no kind of that name.
    """
    if given is not None:
        if given not in KINDS:
            close = nearest(given, KINDS, 1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Kinds: {', '.join(KINDS)}."
            raise ConfigError(f"There is no kind of container {given[:60]!r}.", hint)
        return KINDS[given]
    if image is None:
        return KINDS["ollama"]
    repository = _repository(image).lower()
    for kind in KINDS.values():
        # `llama.cpp` may stand anywhere in it, `ollama` only last: many a repository of that name holds something else
        if any(part in (repository if "." in part else repository.rsplit("/", 1)[-1]) for part in kind.told_by):
            return kind
    return KINDS["openai"]


def serving(kind: Kind, models: Sequence[str], command: Sequence[str] | None) -> tuple[str, ...] | None:
    """The command of a container of this kind: as given, with what makes it serve its model; None is the image's.

    Raises:
        ConfigError: such a server has one model, and there are several.
    """
    given = None if command is None else tuple(command)
    if kind.arguments is None or not models or names_model(kind, given or ()):
        return given
    if len(models) > 1:
        raise ConfigError(
            f"A container of kind {kind.name} serves one model, and this one is to have {len(models)}.",
            "Give each model a container of its own, or say with `command` how this one serves them.",
        )
    return (*(given or ()), *kind.arguments(models[0]))


def names_model(kind: Kind, command: Sequence[str]) -> bool:
    """Whether the command says itself which model is served."""
    return any(word.split("=", 1)[0] in kind.flags for word in command)


def _repository(image: str) -> str:
    """An image's name without tag and digest."""
    name = _DIGEST.sub("", image)
    head, slash, last = name.rpartition("/")
    return head + slash + last.split(":", 1)[0]
