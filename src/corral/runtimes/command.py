"""Runtime `command`: any server of OpenAI's dialect, started from a command line and kept under guard.

The command line comes from the configuration alone: whoever may write that may run programs here, and nobody else may.
No shell reads it. What is filled into it: `${PORT}`, `${MODEL}` (the path of the model's file or folder) and `${NAME}`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from corral.domain.memory import Demand
from corral.domain.models import Capability
from corral.domain.ports import Availability, Endpoint, LaunchSpec, Progress, Report, SessionFacts
from corral.errors import InvalidRequest
from corral.kit import process, program
from corral.kit.session import ChildSession

_PORTS = ("${PORT}", "{port}")
_MODEL, _NAME, _PID = "${MODEL}", "${NAME}", "${PID}"
_CLIENTS = frozenset({"docker", "podman", "nerdctl", "ssh"})
_LOCAL = frozenset({"localhost", "0.0.0.0", "::", "[::]"})  # noqa: S104 - what a client writes, not a bind
_TEXT = frozenset({Capability.CHAT, Capability.COMPLETION, Capability.SYSTEM_ROLE})

Dialect = Literal["openai"]
Can = Literal["chat", "completion", "embeddings", "rerank", "tools", "vision", "json_schema", "system_role"]


@dataclass(frozen=True, slots=True)
class CommandOptions:
    """A server's command line, and how to speak to it.

    Attributes:
        cmd: the program and its arguments: a list, or one text that is split as a shell would, without being read by
            one. A line that begins with `#` is a comment, and a backslash at the end of a line is left out.
        url: where the server listens when that is not `http://127.0.0.1:${PORT}`; plain HTTP, without a path.
        health: the path that answers 2xx once it is ready; `none` is ready as soon as it takes connections.
        env: variables of its environment, beside those of Corral that are no credentials.
        cwd: the folder it runs in; None is Corral's own.
        cmd_stop: a command that ends it, in place of SIGTERM; `${PID}` in it is the program's process.
        own_port: whether the port must belong to the program; None is no for the clients docker, podman, nerdctl and
            ssh, which have it opened elsewhere.
        base_path: where the dialect's paths begin at the server.
        dialect: what the server speaks.
        upstream_model: the server's own name for the model; None is the name the client used.
        context: tokens each slot holds, where you know it.
        slots: requests it answers at the same time, where you know it.
        memory: bytes it takes in all; None is estimated by the model's files, where it has any.
        capabilities: what it can do; None says chat, completion and system messages.
        headers: sent with every request, and with the health check.
        strip: fields that are taken out of every request.
        set: fields that every request gets, over what the client says.
    """

    cmd: tuple[str, ...] | str
    url: str | None = None
    health: str = "/health"
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: Path | None = None
    cmd_stop: tuple[str, ...] | str = ()
    own_port: bool | None = None
    base_path: str = "/v1"
    dialect: Dialect = "openai"
    upstream_model: str | None = None
    context: int | None = None
    slots: int | None = None
    memory: int | None = None
    capabilities: tuple[Can, ...] | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    strip: tuple[str, ...] = ()
    set: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not words(self.cmd, "cmd"):
            raise _wrong("cmd", "has no program", 'Write, for example: cmd: "llama-server --port ${PORT} -m x.gguf"')
        words(self.cmd_stop, "cmd_stop")
        for name in ("context", "slots", "memory"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise _wrong(name, f"must be at least 1, not {value}", "")
        if self.health != "none" and not self.health.startswith("/"):
            raise _wrong("health", f"is {self.health!r}", "Write a path, such as /health, or none.")
        if self.base_path and (not self.base_path.startswith("/") or self.base_path.endswith("/")):
            raise _wrong("base_path", f"is {self.base_path!r}", "Write a path without a / at its end, such as /v1.")
        if any("\r" in text or "\n" in text for pair in self.headers.items() for text in pair):
            raise _wrong("headers", "has a line break", "")
        where(self)


class Command:
    """Runs any server from its command line."""

    kind = "command"
    options = CommandOptions
    formats: frozenset[str] = frozenset()
    accepts = frozenset({"gguf", "safetensors"})
    preference = 0
    capabilities = frozenset(Capability)

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    async def probe(self) -> Availability:
        """Always usable: whether the program is there shows when it is started."""
        return Availability(usable=True)

    def demand(self, spec: LaunchSpec) -> Demand:
        """What the options say; else what its files and context let expect."""
        options: CommandOptions = spec.options
        return Demand(context=options.context, slots=options.slots or 1, fixed=options.memory)

    async def start(self, spec: LaunchSpec, report: Report) -> ChildSession:
        """Start the program and wait until its port answers."""
        options: CommandOptions = spec.options
        what = made(spec, process.child_environment(self._env))
        report(Progress("load", detail=Path(what.argv[0]).name))
        child = await program.start(what, spec.load_timeout)
        address = child.facts["address"]
        endpoint = Endpoint(
            url=f"{address}{options.base_path}",
            dialect=options.dialect,
            headers=options.headers,
            model=options.upstream_model,
            adapt=adapter(options),
        )
        facts = SessionFacts(
            context=options.context,
            slots=options.slots,
            device=None if spec.placement is None else spec.placement.device,
            capabilities=_capabilities(spec),
        )
        if options.health == "none":
            return _Unasked(child, endpoint, facts, health=address)
        return ChildSession(child, endpoint, facts, health=f"{address}{options.health}")


class _Unasked(ChildSession):
    """One without a health path: it is well as long as it lives."""

    async def healthy(self) -> bool:
        return bool(self.processes())


def made(spec: LaunchSpec, environment: Mapping[str, str]) -> program.Program:
    """The program that the options describe, everything but the port filled in.

    Raises:
        InvalidRequest: `${MODEL}` is used and the model has no files.
    """
    options: CommandOptions = spec.options
    host, port = where(options)
    argv = _filled(words(options.cmd, "cmd"), "cmd", spec)
    given = dict(zip(options.env, _filled(tuple(options.env.values()), "env", spec), strict=True))
    own = options.own_port
    if own is None:
        own = Path(argv[0]).name not in _CLIENTS and host in ("127.0.0.1", "::1")
    return program.Program(
        title=f"The engine of {spec.model!r}",
        argv=argv,
        environment={**environment, **given},
        ported=tuple(options.env),
        health="" if options.health == "none" else options.health,
        headers=options.headers,
        cwd=None if options.cwd is None else options.cwd.expanduser(),
        host=host,
        port=port,
        owned=own,
        stop=_filled(words(options.cmd_stop, "cmd_stop"), "cmd_stop", spec),
    )


def words(line: tuple[str, ...] | str, name: str) -> tuple[str, ...]:
    """A command line as a list: a text is split by a shell's rules for quotes, comments and continued lines.

    Raises:
        InvalidRequest: a quotation in it does not end, or it holds a NUL.
    """
    if "\0" in "".join(line):
        raise _wrong(name, "has a NUL character in it", "")
    if not isinstance(line, str):
        return line
    kept = [row.removesuffix("\\") for row in line.splitlines() if not row.lstrip().startswith("#")]
    try:
        return tuple(shlex.split("\n".join(kept)))
    except ValueError as error:
        raise _wrong(name, f"cannot be split into words: {error}", "Check its quotes, or write a list.") from error


def where(options: CommandOptions) -> tuple[str, int | None]:
    """The address the server listens on, and its port; None for one that is chosen anew at each start.

    Raises:
        InvalidRequest: it is no address of plain HTTP.
    """
    if options.url is None:
        fixed = not any(word in text for text in _texts(options) for word in _PORTS)
        if fixed:
            raise _wrong(
                "cmd", "does not say ${PORT}", "Put ${PORT} where its port goes, or say where it listens: url."
            )
        return "127.0.0.1", None
    chosen = any(word in options.url for word in _PORTS)
    text = options.url
    for word in _PORTS:
        text = text.replace(word, "1")
    try:
        parts = urlsplit(text)
        port, host = parts.port or 80, parts.hostname or ""
    except ValueError:
        parts, port, host = urlsplit(""), 0, ""
    if parts.scheme != "http" or not host or parts.path not in ("", "/") or parts.query or parts.username:
        raise _wrong("url", f"is {options.url!r}", "Write http://HOST:PORT; a path goes into base_path.")
    return ("127.0.0.1" if host in _LOCAL else host), None if chosen else port


def adapter(options: CommandOptions) -> Any:
    """The function for `Endpoint.adapt` that takes out and sets fields; None when there are none."""
    if not options.strip and not options.set:
        return None

    def adapt(_: str, body: dict[str, Any]) -> bool:
        kept = {name: value for name, value in body.items() if name == "model" or name not in options.strip}
        wanted = {**kept, **{name: value for name, value in options.set.items() if name != "model"}}
        if wanted == body:
            return False
        body.clear()
        body.update(wanted)
        return True

    return adapt


def _texts(options: CommandOptions) -> tuple[str, ...]:
    line = (options.cmd,) if isinstance(options.cmd, str) else options.cmd
    return (*line, *options.env.values())


def _filled(items: tuple[str, ...], name: str, spec: LaunchSpec) -> tuple[str, ...]:
    path = spec.files.get("model")
    if path is None and any(_MODEL in item for item in items):
        raise InvalidRequest(
            f"Option {name!r} for command says ${{MODEL}}, and {spec.model!r} has no files here.",
            "Give the model a source to install it from, or write the path itself.",
            param=name,
        )
    fill = {"${PORT}": "{port}", _PID: "{pid}", _NAME: spec.model, _MODEL: str(path)}
    return tuple(_replaced(item, fill) for item in items)


def _replaced(text: str, fill: Mapping[str, str]) -> str:
    for word, value in fill.items():
        text = text.replace(word, value)
    return text


def _capabilities(spec: LaunchSpec) -> frozenset[Capability]:
    given = spec.options.capabilities
    if given is not None:
        return frozenset(map(Capability, given))
    known = spec.revision.capabilities if spec.revision else frozenset()
    return known or _TEXT


def _wrong(name: str, what: str, hint: str) -> InvalidRequest:
    return InvalidRequest(f"Option {name!r} for command {what}.", hint, param=name)


plugin = Command
