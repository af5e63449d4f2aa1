"""Runtime `vllm`: safetensors snapshots on vLLM's own server, a family of processes for each engine.

vLLM lives in a virtual environment of its own and is never imported here; `kit.program` starts it under a guard, for it
forks, makes shared memory and sockets, and leaves them behind when it is killed. Its key goes by the environment, which
only its owner can read, and not by the command line, which everyone can.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from corral.domain.models import Capability
from corral.domain.ports import Availability, Endpoint, LaunchSpec, Progress, Report, SessionFacts
from corral.errors import CorralError, EngineError, EngineStartFailed, RuntimeUnavailable, UpstreamError
from corral.kit import environments, leftovers, loopback, program
from corral.kit.session import ChildSession
from corral.runtimes._vllm import command, sizes
from corral.runtimes._vllm.options import VllmOptions
from corral.runtimes._vllm.tally import tally
from corral.runtimes._vllm.trouble import diagnose

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corral.domain.memory import Demand
    from corral.kit.process import Child

_INSTALL = "Type: corral runtimes install vllm"
_ASKING = 10.0
_FALLING_ASLEEP = 120.0


class VllmSession(ChildSession):
    """One engine of vLLM. On a GPU it can sleep: its weights lie in main memory then, and its context is empty."""

    def __init__(self, child: Child, endpoint: Endpoint, facts: SessionFacts, folder: Path) -> None:
        self._root = endpoint.url.removesuffix("/v1")
        self._folder = folder
        super().__init__(child, endpoint, facts, f"{self._root}/health", tally(self._root, endpoint.headers))

    async def ended(self) -> str:
        """Wait until it is gone, and return why."""
        reason = await super().ended()
        await self._tidy()
        return reason

    async def stop(self, grace: float) -> None:
        """End it."""
        await super().stop(grace)
        await self._tidy()

    async def sleep(self) -> None:
        """Give back the GPU's memory."""
        await self._command("/sleep?level=1", asleep=True)

    async def wake(self) -> None:
        """Take it again."""
        await self._command("/wake_up", asleep=False)

    async def _command(self, path: str, *, asleep: bool) -> None:
        """Give a command and see that it was followed."""
        headers = self.endpoint.headers
        try:
            status, _ = await loopback.post(f"{self._root}{path}", headers, _FALLING_ASLEEP)
            said, body = await loopback.get(f"{self._root}/is_sleeping", headers, _ASKING)
        except UpstreamError as error:
            raise EngineError(f"vLLM did not answer: {error.message}", error.hint) from error
        if status != 200 or said != 200 or _parsed(body).get("is_sleeping") is not asleep:
            did = "fall asleep" if asleep else "wake up"
            raise EngineError(f"vLLM did not {did} (status {status}).", "Its log may say more.")

    async def _tidy(self) -> None:
        """Remove its folder, which the guard has done unless it was killed itself."""
        await asyncio.to_thread(leftovers.remove, (), str(self._folder))


class Vllm:
    """Runs snapshots of safetensors, many requests at a time."""

    kind = "vllm"
    options = VllmOptions
    formats = frozenset({"safetensors"})
    preference = 40
    capabilities = frozenset(Capability)
    recipe = environments.Recipe("vllm", Path(__file__).parent / "_locks" / "vllm.txt")

    def __init__(self, env: Mapping[str, str], home: Path) -> None:
        self._env = env
        self._home = home

    async def probe(self) -> Availability:
        """Whether vLLM is installed, and what it is made for."""
        return _judged(command.find(self._home, self._env))

    def demand(self, spec: LaunchSpec) -> Demand:
        """Weights, the context that is set aside at once, and vLLM's own processes."""
        build = command.find(self._home, self._env, spec.options.executable)
        known = spec.revision.facts if spec.revision else {}
        return sizes.demand(spec.options, known, on_processor=_on_processor(build, spec))

    async def start(self, spec: LaunchSpec, report: Report) -> VllmSession:
        """Load the snapshot in the folder `spec.files["model"]` and wait until it answers."""
        options: VllmOptions = spec.options
        build = await asyncio.to_thread(command.find, self._home, self._env, options.executable)
        if build is None:
            where = f" at {options.executable}" if options.executable else ""
            raise RuntimeUnavailable(f"vLLM is not installed{where}.", _INSTALL)
        await asyncio.to_thread(command.check, build, spec)
        await asyncio.to_thread(command.sweep)
        facts = await asyncio.to_thread(command.facts, spec)
        folder = await asyncio.to_thread(command.prepare, build, spec, os.getpid())
        key = secrets.token_urlsafe(32)
        engine = program.Program(
            title=f"The engine of {spec.model!r}",
            argv=command.arguments(build, spec, folder, facts),
            environment=command.environment(self._env, build, spec, (folder, self._home / "engines" / "vllm"), key),
            cwd=folder,
            scratch=folder,
            diagnose=diagnose,
        )
        report(Progress("load", detail=f"vLLM {build.version}"))
        try:
            child = await program.start(engine, max(spec.load_timeout, options.load_timeout))
        except (CorralError, asyncio.CancelledError):
            await asyncio.shield(asyncio.to_thread(leftovers.remove, (), str(folder)))
            raise
        session = None
        try:
            session = await _session(child, build, spec, folder, key)
            return session
        finally:
            if session is None:
                await child.stop(0)


def _judged(build: command.Build | None) -> Availability:
    if build is None:
        return Availability(usable=False, reason="vLLM is not installed.", hint=_INSTALL)
    if build.version == "unknown":
        return Availability(
            usable=False, reason=f"{build.program} is no program of an environment with vLLM in it.", hint=_INSTALL
        )
    if build.on_processor:
        return Availability(usable=True, version=build.version, devices=("cpu",), preferred=False)
    if not environments.has_nvidia():
        return Availability(
            usable=False,
            version=build.version,
            reason=f"vLLM {build.version} is made for GPUs, and no driver of one is found here.",
            hint=f"For the build for processors: {_INSTALL[0].lower()}{_INSTALL[1:]}",
        )
    return Availability(usable=True, version=build.version, devices=("cuda",))


def _on_processor(build: command.Build | None, spec: LaunchSpec) -> bool:
    if build is not None and build.version != "unknown":
        return build.on_processor
    return spec.options.device == "cpu" or not environments.has_nvidia()


async def _session(child: Child, build: command.Build, spec: LaunchSpec, folder: Path, key: str) -> VllmSession:
    address, headers = child.facts["address"], {"Authorization": f"Bearer {key}"}
    status, body = await loopback.get(f"{address}/v1/models", headers, _ASKING)
    data = _parsed(body).get("data") if status == 200 else None
    if not isinstance(data, list):
        raise EngineStartFailed(f"The engine of {spec.model!r} did not tell what it serves (status {status}).")
    endpoint = Endpoint(url=f"{address}/v1", headers=headers, model=spec.model)
    return VllmSession(child, endpoint, read_facts(data, build, spec), folder)


def read_facts(models: list[object], build: command.Build, spec: LaunchSpec) -> SessionFacts:
    """What `/v1/models` and the launch itself tell of an engine."""
    lengths = [item.get("max_model_len") for item in models if isinstance(item, dict)]
    context = next((length for length in lengths if isinstance(length, int)), None)
    placed = spec.placement.device if spec.placement else "cuda:0"
    options: VllmOptions = spec.options
    notes = []
    if build.on_processor and placed != "cpu" and spec.placement is not None:
        notes.append(f"vLLM {build.version} is made for processors: it does not use {placed}.")
    if Capability.TOOLS in _known(spec) and options.tool_parser is None:
        notes.append("It calls no tools without the option tool_parser.")
    return SessionFacts(
        context=context,
        slots=options.slots,
        device="cpu" if build.on_processor else placed,
        capabilities=_able(spec),
        notes=tuple(notes),
        sleeps=options.sleep and not build.on_processor,
        counts=True,
    )


def _known(spec: LaunchSpec) -> frozenset[Capability]:
    return spec.revision.capabilities if spec.revision else frozenset()


def _able(spec: LaunchSpec) -> frozenset[Capability]:
    """What the engine can do: as the model, but for tools, which need a parser."""
    known, options = _known(spec), spec.options
    found = set(known) if known else {Capability.CHAT, Capability.COMPLETION, Capability.SYSTEM_ROLE}
    if Capability.COMPLETION in found:
        found |= {Capability.JSON_SCHEMA} | ({Capability.CHAT} if options.chat_template is not None else set())
    return frozenset(found - {Capability.TOOLS} if options.tool_parser is None else found | {Capability.TOOLS})


def _parsed(body: bytes) -> dict[str, object]:
    try:
        data = json.loads(body)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


plugin = Vllm
