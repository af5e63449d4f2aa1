"""How an engine in a container is started."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from corral.domain.models import Capability
from corral.errors import InvalidRequest

Kind = Literal["llamacpp", "vllm", "openai"]
Can = Literal["chat", "completion", "embeddings", "rerank", "tools", "vision", "json_schema", "system_role"]

PORT, MODEL, NAME, CONTEXT, SLOTS = "${PORT}", "${MODEL}", "${NAME}", "${CONTEXT}", "${SLOTS}"
TEXT = frozenset({Capability.CHAT, Capability.COMPLETION, Capability.SYSTEM_ROLE})


@dataclass(frozen=True, slots=True)
class ContainerOptions:
    """An engine's image, what it runs, and what it may take; None leaves a value to the kind or the image.

    Attributes:
        kind: what serves in it, which says how it is started: `llamacpp` and `vllm` by their own images' arguments,
            `openai` by `command` alone.
        image: the image; None is that of the kind, for a GPU where the engine gets one.
        digest: exactly that image, as `sha256:…`.
        pull: fetch the image when it is not here.
        command: arguments in place of the kind's: a list, or one text that is split as a shell would, without being
            read by one. `${PORT}`, `${MODEL}`, `${NAME}`, `${CONTEXT}` (of all slots) and `${SLOTS}` are filled in.
        args: arguments beside the kind's, filled in likewise.
        entrypoint: program in place of the image's, written like `command`.
        env: variables of its environment, filled in likewise.
        context: tokens of each slot; None is what the model was trained with, at most 4096.
        slots: requests answered at the same time.
        gpus: GPUs, by number or UUID, or `all`; None is where the scheduler puts it; empty is none.
        gpu_layers: layers put on the GPU; None is as many as the scheduler found room for.
        memory: most bytes of main memory it may take, which it may not exceed by swapping either; None is what is set
            aside for it and a quarter more.
        cpus: most processors it may take, such as 1.5.
        shm: bytes of shared memory.
        pids: most processes.
        user: who it runs as, `UID[:GID]`.
        read_only: whether its root file system is; None is yes for `llamacpp`.
        capabilities_kept: Linux capabilities that it keeps; all others are dropped.
        network: the Docker network: `bridge`, `host`, or the name of one.
        inside: the port it listens on in the container.
        health: the path that answers 2xx once it is ready.
        base_path: where the dialect's paths begin at the server.
        upstream_model: the server's own name for the model.
        capabilities: what it can do; None is what the model's files say, else chat, completion and system messages.
    """

    kind: Kind = "llamacpp"
    image: str | None = None
    digest: str | None = None
    pull: bool = True
    command: tuple[str, ...] | str | None = None
    args: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | str | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    context: int | None = None
    slots: int | None = None
    gpus: tuple[str, ...] | None = None
    gpu_layers: int | None = None
    memory: int | None = None
    cpus: float | None = None
    shm: int | None = None
    pids: int | None = 1024
    user: str | None = None
    read_only: bool | None = None
    capabilities_kept: tuple[str, ...] = ()
    network: str = "bridge"
    inside: int | None = None
    health: str | None = None
    base_path: str = "/v1"
    upstream_model: str | None = None
    capabilities: tuple[Can, ...] | None = None

    def __post_init__(self) -> None:
        least: dict[str, Any] = {"context": 1, "slots": 1, "memory": 6 << 20, "pids": 1, "shm": 1, "gpu_layers": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise wrong(name, f"must be at least {bound}, not {value}")
        if self.cpus is not None and self.cpus <= 0:
            raise wrong("cpus", f"must be more than nothing, not {self.cpus:g}")
        if self.inside is not None and not 0 < self.inside < 65536:
            raise wrong("inside", f"is no port: {self.inside}")
        if self.kind == "openai" and not self.image:
            raise wrong("image", "is missing", "A container of kind openai has no usual image; name one.")
        if self.digest is not None and not self.digest.startswith("sha256:"):
            raise wrong("digest", f"is {self.digest!r:.80}", "Write it as sha256:….")
        for name in ("health", "base_path"):
            path = getattr(self, name)
            if path and (not path.startswith("/") or any(sign in path for sign in "\r\n ")):
                raise wrong(name, f"is {path!r:.80}", "Write a path, such as /v1.")
        words(self.command, "command")
        words(self.entrypoint, "entrypoint")


def words(line: tuple[str, ...] | str | None, name: str) -> tuple[str, ...] | None:
    """A command as a list: a text is split by a shell's rules for quotes.

    Raises:
        InvalidRequest: a quotation in it does not end, or it holds a NUL.
    """
    if line is None:
        return None
    if "\0" in "".join(line):
        raise wrong(name, "has a NUL character in it")
    if not isinstance(line, str):
        return line
    try:
        return tuple(shlex.split(line))
    except ValueError as error:
        raise wrong(name, f"cannot be split into words: {error}", "Check its quotes, or write a list.") from error


def wrong(name: str, what: str, hint: str = "") -> InvalidRequest:
    """The error of an option that cannot be meant."""
    return InvalidRequest(f"Option {name!r} for container {what}.", hint, param=name)
