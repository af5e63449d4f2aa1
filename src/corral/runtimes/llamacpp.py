"""Runtime `llamacpp`: GGUF files on llama.cpp's own server, one child process for each engine.

The child (`_llamacpp_child`) loads `xllamacpp` and listens on a loopback port of the kernel's choosing with a random
key. The parent never imports the library: a crash in native code costs one engine and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from corral.domain.memory import Demand
from corral.domain.models import Capability
from corral.domain.ports import Availability, Endpoint, LaunchSpec, Progress, Report, SessionFacts
from corral.errors import CorralError, EngineStartFailed, InvalidRequest, RuntimeUnavailable
from corral.kit import loopback, process
from corral.kit.session import ChildSession

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DEFAULT_CONTEXT = 4096
DEFAULT_SLOTS = 4
FORCED_TOOL = "forced_tool"
END_OF_CALL = "</tool_call>"

CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
Adapt: TypeAlias = "Callable[[str, dict[str, Any]], bool]"
Pooling = Literal["none", "mean", "cls", "last", "rank"]

_PROPS_TIMEOUT = 10.0
SAMPLING = (
    *("temperature", "top_p", "top_k", "min_p", "typical_p", "repeat_penalty", "repeat_last_n"),
    *("presence_penalty", "frequency_penalty", "mirostat", "mirostat_tau", "mirostat_eta", "seed"),
)
_POSITIVE = ("context", "slots", "threads", "batch", "micro_batch")
_NOT_NEGATIVE = ("gpu_layers", "prompt_cache_mib", "temperature", "top_p", "min_p", "seed")


@dataclass(frozen=True, slots=True)
class LlamaCppOptions:
    """How an engine of this runtime is loaded; None leaves a value to the model or to llama.cpp.

    Attributes:
        context: tokens each slot holds, prompt and answer together; never more than the model was trained for. None is
            the trained length or 4096, whichever is less.
        slots: requests answered at the same time. Memory for the context is taken for every slot.
        threads: CPU threads.
        gpu_layers: layers put on the GPU; None puts as many as fit, 0 none.
        cache_type_k: number format of the keys in the context cache; a smaller one takes less memory.
        cache_type_v: number format of the values; the quantised ones need flash attention.
        flash_attention: None lets llama.cpp decide.
        embeddings: answer `/v1/embeddings` too; None does where the model is made for it, or `pooling` is given.
        pooling: how token vectors become one; None is the model's own, or `mean` where it has none.
        chat_template: a Jinja text, or the path of one, in place of the model's own.
        lora: adapter files and the scale of each.
        mmproj: the projector of a multimodal model, in place of the one installed with it.
        batch: tokens of a prompt handled in one call.
        micro_batch: tokens computed in one step.
        prompt_cache_mib: memory for the prompts of earlier requests, in MiB; 0 keeps none.
        system: the system message of a conversation whose client sends none, where the template has a place for one.
        opening: messages (`role` and `content`) that every conversation begins with, as examples to the model.
        stop: texts that end an answer when the client names none.
        max_tokens: most tokens of an answer when the client says nothing; -1 is until the model or the context ends.
        keep: tokens of a completion's prompt that stay when it is cut to fit; -1 all.
        temperature, top_p, top_k, min_p, typical_p, repeat_penalty, repeat_last_n, presence_penalty, frequency_penalty,
            mirostat, mirostat_tau, mirostat_eta, seed: how the next token is chosen when the client does not say.
    """

    context: int | None = None
    slots: int = DEFAULT_SLOTS
    threads: int | None = None
    gpu_layers: int | None = None
    cache_type_k: CacheType = "f16"
    cache_type_v: CacheType = "f16"
    flash_attention: bool | None = None
    embeddings: bool | None = None
    pooling: Pooling | None = None
    chat_template: str | None = None
    lora: Mapping[str, float] = field(default_factory=dict)
    mmproj: Path | None = None
    batch: int | None = None
    micro_batch: int | None = None
    prompt_cache_mib: int = 256
    system: str | None = None
    opening: tuple[Mapping[str, str], ...] = ()
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    keep: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    mirostat: Literal[0, 1, 2] | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if any(set(message) != {"role", "content"} for message in self.opening):
            raise InvalidRequest(
                "Option 'opening' for llamacpp has messages that are not {role, content}.", param="opening"
            )
        for name, least in [(name, 1) for name in _POSITIVE] + [(name, 0) for name in _NOT_NEGATIVE]:
            value = getattr(self, name)
            if value is not None and value < least:
                raise InvalidRequest(f"Option {name!r} for llamacpp must be at least {least}, not {value}.", param=name)
        if self.pooling is not None and self.embeddings is False:
            raise InvalidRequest(
                "Option 'pooling' for llamacpp says how to embed, and 'embeddings' is off.",
                "Set embeddings: true.",
                param="pooling",
            )


class LlamaCpp:
    """Runs GGUF files."""

    kind = "llamacpp"
    options = LlamaCppOptions
    formats = frozenset({"gguf"})
    capabilities = frozenset(Capability)

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    async def probe(self) -> Availability:
        """Whether `xllamacpp` is installed. Devices stay unknown: to ask would load the library into this process."""
        try:
            return Availability(usable=True, version=version("xllamacpp"))
        except PackageNotFoundError:
            return Availability(
                usable=False, reason="The package xllamacpp is not installed.", hint="Type: pip install xllamacpp"
            )

    def demand(self, spec: LaunchSpec) -> Demand:
        """Weights, and the context of every slot; layers may lie on both sides."""
        options: LlamaCppOptions = spec.options
        return Demand(
            context=slot_context(options, spec),
            slots=options.slots,
            keys=options.cache_type_k,
            values=options.cache_type_v,
            layers=options.gpu_layers,
            splits=True,
        )

    async def start(self, spec: LaunchSpec, report: Report) -> ChildSession:
        """Load the file `spec.files["model"]` in a child process and wait until it answers."""
        available = await self.probe()
        if not available.usable:
            raise RuntimeUnavailable(available.reason, available.hint)
        key = secrets.token_urlsafe(32)
        command = process.Command(
            title=f"The engine of {spec.model!r}",
            argv=process.module_argv("corral.runtimes._llamacpp_child"),
            environment=process.child_environment(self._env),
            launch=await asyncio.to_thread(_launch_data, spec, key),
            diagnose=diagnose,
        )
        report(Progress("load", detail=f"llama.cpp {available.version}"))
        child = await process.start(command, spec.load_timeout)
        try:
            return await _session(child, spec, key)
        except (CorralError, asyncio.CancelledError):
            await child.stop(0)
            raise


def tool_adapter(template: str) -> Adapt:
    """A function for `Endpoint.adapt` that makes llama.cpp keep OpenAI's promise about forced tool calls.

    llama.cpp takes `tool_choice: required` and yet lets the model write prose first; it does not read the form that
    names one function; and its grammar allows more calls where `parallel_tool_calls` is false. Where the chat
    `template` knows the variable `forced_tool`, the template opens the answer with the call itself; a named function
    becomes the only one on offer; and where it ends a call with `</tool_call>`, the answer ends there too.
    See docs/decisions/0006.
    """
    opens_call, ends_call = FORCED_TOOL in template, END_OF_CALL in template

    def adapt(path: str, body: dict[str, Any]) -> bool:
        choice, tools = body.get("tool_choice"), body.get("tools")
        if path != "/chat/completions":
            return False
        if not isinstance(tools, list) or not tools:
            return opens_call and _think_not(body)
        forced = isinstance(choice, dict) or choice == "required"
        if isinstance(choice, dict):
            body["tools"] = [_named_tool(choice, tools)]
        if forced:
            body["tool_choice"] = "required"
            body.setdefault("parallel_tool_calls", False)
        if forced and opens_call:
            body["chat_template_kwargs"] = {**(body.get("chat_template_kwargs") or {}), FORCED_TOOL: True}
        single = ends_call and choice != "none" and body.get("parallel_tool_calls") is False
        if single:
            stop = body.get("stop") or []
            body["stop"] = [*([stop] if isinstance(stop, str) else stop), END_OF_CALL]
        return forced or single

    return adapt


def opening_adapter(adapt: Adapt, system: str | None, opening: Sequence[Mapping[str, str]] = ()) -> Adapt:
    """`adapt`, after putting `system` before a conversation whose client sent no system message, then `opening`."""
    if system is None and not opening:
        return adapt

    def introduce(path: str, body: dict[str, Any]) -> bool:
        said = body.get("messages")
        if path != "/chat/completions" or not isinstance(said, list):
            return adapt(path, body)
        own = sum(1 for _ in takewhile(_is_system, said))
        default = system is not None and not any(map(_is_system, said))
        before = [{"role": "system", "content": system}] if default else said[:own]
        body["messages"] = [*before, *map(dict, opening), *said[own:]]
        return adapt(path, body) or default or bool(opening)

    return introduce


def _is_system(message: object) -> bool:
    return isinstance(message, dict) and message.get("role") in ("system", "developer")


def _think_not(body: dict[str, Any]) -> bool:
    """Keep an answer that must be JSON from thinking first; true if it would have been allowed to.

    The think block of a template that can open a call is there for the call's sake: the model was never taught to close
    one, and would ramble in it until its tokens are spent.
    """
    wanted = body.get("response_format")
    if not isinstance(wanted, dict) or wanted.get("type") not in ("json_object", "json_schema"):
        return False
    body.setdefault("reasoning_format", "none")
    return True


def _named_tool(choice: Mapping[str, Any], tools: Sequence[object]) -> object:
    function = choice.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if choice.get("type") != "function" or not isinstance(name, str):
        raise InvalidRequest(
            "tool_choice names no function.",
            'Write "none", "auto", "required" or {"type": "function", "function": {"name": …}}.',
            param="tool_choice",
        )
    known = {_tool_name(tool): tool for tool in tools}
    if name not in known:
        offered = ", ".join(sorted(item for item in known if item))
        raise InvalidRequest(
            f"tool_choice asks for {name!r}, which is not among the tools.", f"Tools: {offered}.", param="tool_choice"
        )
    return known[name]


def _tool_name(tool: object) -> str | None:
    function = tool.get("function") if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def _launch_data(spec: LaunchSpec, key: str) -> dict[str, Any]:
    """What the child is told. Reads the chat template and looks at the files; blocks."""
    options: LlamaCppOptions = spec.options
    if "model" not in spec.files:
        raise EngineStartFailed(f"The engine of {spec.model!r} has no model file.", "Install it again.")
    mmproj = options.mmproj or spec.files.get("mmproj")
    for name, path in [("mmproj", mmproj), *(("lora", Path(adapter)) for adapter in options.lora)]:
        if path is not None and not path.expanduser().is_file():
            raise InvalidRequest(f"Option {name!r} for llamacpp: there is no file {path}.", param=name)
    return {
        **asdict(options),
        "sampling": {name: value for name in SAMPLING if (value := getattr(options, name)) is not None},
        "key": key,
        "name": spec.model,
        "model": str(spec.files["model"]),
        "context": slot_context(options, spec),
        "embeddings": embeds(spec),
        "chat_template": _template_text(options.chat_template),
        "mmproj": str(mmproj.expanduser()) if mmproj else None,
        "lora": {str(Path(path).expanduser()): scale for path, scale in options.lora.items()},
    }


def slot_context(options: LlamaCppOptions, spec: LaunchSpec) -> int:
    """Tokens for each slot: what was asked for, or 4096, and never more than the model is known to be trained for."""
    trained = spec.revision.facts.get("context_length") if spec.revision else None
    asked = options.context or DEFAULT_CONTEXT
    return min(asked, trained) if isinstance(trained, int) and trained > 0 else asked


def embeds(spec: LaunchSpec) -> bool:
    """Whether the engine answers `/v1/embeddings`."""
    options: LlamaCppOptions = spec.options
    made_for_it = spec.revision is not None and Capability.EMBEDDINGS in spec.revision.capabilities
    return made_for_it or options.pooling is not None if options.embeddings is None else options.embeddings


def _template_text(option: str | None) -> str | None:
    if option is None or "{" in option or "\n" in option:
        return option
    try:
        return Path(option).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            f"Option 'chat_template' for llamacpp: {option!r} cannot be read: {error}.",
            "Give a Jinja text or the path of one.",
            param="chat_template",
        ) from error


async def _session(child: process.Child, spec: LaunchSpec, key: str) -> ChildSession:
    address, headers = child.facts["address"], {"Authorization": f"Bearer {key}"}
    status, body = await loopback.get(f"{address}/props", headers, _PROPS_TIMEOUT)
    try:
        props = json.loads(body) if status == 200 else None
    except ValueError:
        props = None
    if not isinstance(props, dict):
        raise EngineStartFailed(f"The engine of {spec.model!r} did not tell its properties (status {status}).")
    facts = read_facts(props, child.facts["device"], spec)
    takes_system = Capability.SYSTEM_ROLE in (facts.capabilities or frozenset())
    tools = tool_adapter(props.get("chat_template") or "")
    adapt = opening_adapter(tools, spec.options.system if takes_system else None, spec.options.opening)
    endpoint = Endpoint(url=f"{address}/v1", headers=headers, model=spec.model, adapt=adapt)
    return ChildSession(child, endpoint, facts, health=f"{address}/health")


def read_facts(props: Mapping[str, Any], device: str | None, spec: LaunchSpec) -> SessionFacts:
    """What `/props` says, in Corral's words. A model known to write no text is not credited with any."""
    caps = props.get("chat_template_caps") or {}
    found = {Capability.CHAT, Capability.COMPLETION, Capability.JSON_SCHEMA}
    found |= {Capability.TOOLS} if caps.get("supports_tools") and caps.get("supports_tool_calls") else set()
    found |= {Capability.SYSTEM_ROLE} if caps.get("supports_system_role") else set()
    found |= {Capability.VISION} if (props.get("modalities") or {}).get("vision") else set()
    known = spec.revision.capabilities if spec.revision else frozenset()
    if known and Capability.COMPLETION not in known:
        found = set()
    elif known and Capability.CHAT not in known and spec.options.chat_template is None:
        found -= {Capability.CHAT, Capability.TOOLS, Capability.SYSTEM_ROLE}
    found |= {Capability.EMBEDDINGS} if embeds(spec) else set()
    context = (props.get("default_generation_settings") or {}).get("n_ctx")
    return SessionFacts(
        context=context if isinstance(context, int) and context > 0 else None,
        slots=props.get("total_slots"),
        device=device,
        capabilities=frozenset(found),
    )


_STAMP = re.compile(r"^[\d.]+ E +(?:\w+ +)?[\w:()]+: ?")
_NOISE = re.compile(r"exiting due to|failed to (load|create \w+ with) model(,? '| from|$)|common_fit_params")
_HINTS = (
    (r"SIGILL", "This build of xllamacpp needs a processor with AVX2."),
    (r"unknown model architecture", "A newer llama.cpp may know it: pip install --upgrade xllamacpp"),
    (
        r"alloc|out of memory|want of memory|SIGKILL",
        "Give it less to hold: fewer slots, a smaller context, cache_type_k and cache_type_v q8_0, fewer gpu_layers.",
    ),
    (r"V cache.*flash_attn|flash_attn.*V cache", "Set flash_attention: true, or cache_type_v: f16."),
    (r"template", "Check the option chat_template."),
    (r"lora|adapter", "Check the option lora: an adapter fits only the model it was made from."),
    (
        r"magic|corrupt|incomplete|error loading model|GGUF|gguf|key-value pairs|tensor (info|data)",
        "The file is damaged or of a kind llama.cpp does not read. To install it again: corral rm, corral pull.",
    ),
)


def diagnose(title: str, reason: str, log: Sequence[str]) -> EngineStartFailed:
    """The error of a failed start: the lines of llama.cpp's log that decide, and what to do about them."""
    errors: dict[str, None] = {}
    for line in log:
        if _STAMP.match(line) and not _NOISE.search(line):
            errors[_STAMP.sub("", line)] = None
    if not errors:
        tail = [line for line in log if line.strip()][-2:]
        errors = dict.fromkeys(tail)
    said = "; ".join(list(errors)[:3]) or "it printed nothing"
    for pattern, hint in _HINTS:
        if re.search(pattern, f"{reason} {said}"):
            return EngineStartFailed(f"{title} {reason}: {said}.", hint)
    return EngineStartFailed(f"{title} {reason}: {said}.", "Its log may say more.")


plugin = LlamaCpp
