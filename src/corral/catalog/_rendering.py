"""The process that tries chat templates out: nothing of a template runs anywhere else.

stdin is a JSON list of {"template", "tool_template", "tokens"}, stdout a JSON list of {"roles", "tools", "error"}. The
process bounds its own time, memory, files and output before it reads the first template, and the parent ends it when it
takes too long: what a template can do at worst is to make its own answer an error.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jinja2.environment import Template
    from jinja2.parser import Parser
    from jinja2.runtime import Context

_SECONDS_EACH: Final = 1.0  # of processor time
_CPU_SECONDS: Final = 3
_MEMORY: Final = 512 << 20
_LARGEST_BASE: Final = 1 << 64
_LARGEST_EXPONENT: Final = 1000
_LONGEST_OUTPUT: Final = 1 << 18
_LONGEST_ERROR: Final = 200

_SYSTEM, _USER, _ASSISTANT, _RESULT, _TOOL = (
    f"corralprobe{word}" for word in ("system", "user", "assistant", "result", "tool")
)
_CALL_ID: Final = "callprobe"  # nine letters and digits: some templates insist
_TOOLS: Final = [
    {
        "type": "function",
        "function": {
            "name": _TOOL,
            "description": "Says how the weather is.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "Where."}},
                "required": ["city"],
            },
        },
    }
]

Message = dict[str, Any]


class RenderError(Exception):
    """A template refused, failed, or wrote too much."""


class OutOfTime(Exception):
    """A template takes longer than any that is meant to be used."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """The sandbox, without the sums that nothing can interrupt."""

    intercepted_binops = frozenset({"**"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and (abs(left) > _LARGEST_BASE or abs(right) > _LARGEST_EXPONENT):
            raise OverflowError("a power that large is no use")
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    """`{% generation %}`, with which templates mark for training what the model says; here it marks nothing."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def environment() -> ImmutableSandboxedEnvironment:
    """Jinja as `transformers` sets it up for chat templates."""
    made = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation])
    made.filters["tojson"] = _tojson
    made.globals["raise_exception"] = _raise_exception
    made.globals["strftime_now"] = _strftime_now
    return made


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(str(message)[:_LONGEST_ERROR])


def _strftime_now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)


class Trial:
    """One template, tried with conversations of marked texts."""

    def __init__(self, template: str, tokens: Mapping[str, str]) -> None:
        try:
            self._template: Template = environment().from_string(template)
        except (TemplateError, ValueError, RecursionError, MemoryError, OverflowError) as error:
            raise RenderError(_said(error)) from error
        self._tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", **tokens}
        self._absent: dict[str, Any] = {"tools": None, "documents": None}

    def render(self, messages: Sequence[Message], tools: Any = None) -> str:
        """What the template makes of the messages.

        Raises:
            RenderError: it refuses them, fails, or does not come to an end.
        """
        given: dict[str, Any] = {**self._tokens, **self._absent, "messages": messages}
        given |= {"tools": tools} if tools is not None else {}
        out: list[str] = []
        length = 0
        try:
            for piece in self._template.generate(**given, add_generation_prompt=True):
                out.append(piece)
                length += len(piece)
                if length > _LONGEST_OUTPUT:
                    break
        except OutOfTime:
            raise
        except Exception as error:  # a template is a program of a stranger's and may raise anything
            raise RenderError(_said(error)) from error
        if length > _LONGEST_OUTPUT:
            raise RenderError("it writes without end")
        return "".join(out)

    def shows(self, messages: Sequence[Message], *texts: str, tools: Any = None) -> bool:
        """Whether the template takes the messages and writes all of the texts."""
        try:
            written = self.render(messages, tools)
        except RenderError:
            return False
        return all(text in written for text in texts)

    def roles(self) -> list[str]:
        """The roles whose words reach the model; empty when not even the user's do."""
        user = self._understood()
        if user is None:
            return []
        answer = _like(user, "assistant", _ASSISTANT)
        found = [
            role for role in ("system", "developer") if self.shows([_like(user, role, _SYSTEM), user], _SYSTEM, _USER)
        ]
        found.append("user")
        if self.shows([user, answer, user], _USER, _ASSISTANT):
            found.append("assistant")
        if self._takes_results(user):
            found.append("tool")
        return found

    def _understood(self) -> Message | None:
        """A user's message in the form that the template takes: a text or a list of parts.

        Some templates loop over tools wherever `tools` is defined, and take none only when it is not.
        """
        parts = [{"type": "text", "text": _USER}]
        for absent in ({"tools": None, "documents": None}, {}):
            self._absent = dict(absent)
            for content in (_USER, parts):
                user: Message = {"role": "user", "content": content}
                if self.shows([user], _USER):
                    return user
        return None

    def offers_tools(self) -> bool:
        """Whether the model learns which tools there are."""
        user = self._understood() or {"role": "user", "content": _USER}
        return self.shows([user], _TOOL, tools=_TOOLS)

    def _takes_results(self, user: Message) -> bool:
        result = {**_like(user, "tool", _RESULT), "name": _TOOL, "tool_call_id": _CALL_ID}
        for arguments in ({"city": "Oslo"}, '{"city": "Oslo"}'):
            call = {"id": _CALL_ID, "type": "function", "function": {"name": _TOOL, "arguments": arguments}}
            asked = {**_like(user, "assistant", ""), "tool_calls": [call]}
            if any(self.shows([user, asked, result], _RESULT, tools=tools) for tools in (_TOOLS, None)):
                return True
        return False


def _like(message: Message, role: str, text: str) -> Message:
    """A message in the same form as `message`: plain text, or a list of parts."""
    content = message["content"]
    return {"role": role, "content": text if isinstance(content, str) else [{"type": "text", "text": text}]}


def _said(error: BaseException) -> str:
    text = "".join(char if char.isprintable() else " " for char in str(error)[:_LONGEST_ERROR])
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def try_out(job: Mapping[str, Any]) -> dict[str, Any]:
    """What one template takes, and why not where it takes nothing."""
    try:
        trial = Trial(job["template"], job["tokens"])
        roles = trial.roles()
        if not roles:
            trial.render([{"role": "user", "content": _USER}])  # says why
            return _nothing("it does not write what the user says")
        with_tools = Trial(job["tool_template"], job["tokens"]) if job["tool_template"] else trial
        return {"roles": roles, "tools": with_tools.offers_tools(), "error": None}
    except OutOfTime:
        return _nothing("it takes too much time")
    except RenderError as error:
        return _nothing(str(error))


def _nothing(why: str) -> dict[str, Any]:
    return {"roles": [], "tools": False, "error": why}


def confine(jobs: int) -> None:
    """Bound what this process may take for so many templates, for good. What a system does not know is left out."""
    seconds = _CPU_SECONDS + jobs // 2
    limits = {
        "RLIMIT_CPU": (seconds, seconds + 1),
        "RLIMIT_AS": (_MEMORY, _MEMORY),
        "RLIMIT_DATA": (_MEMORY, _MEMORY),
        "RLIMIT_FSIZE": (0, 0),
        "RLIMIT_CORE": (0, 0),
    }
    for name, limit in limits.items():
        with suppress(AttributeError, OSError, ValueError):
            resource.setrlimit(getattr(resource, name), limit)


def main() -> None:
    """Answer what stands on stdin."""
    jobs = json.load(sys.stdin)
    confine(len(jobs))
    signal.signal(signal.SIGPROF, _too_long)
    answers = []
    for job in jobs:
        signal.setitimer(signal.ITIMER_PROF, _SECONDS_EACH)
        answers.append(try_out(job))
        signal.setitimer(signal.ITIMER_PROF, 0)
    sys.stdout.write(json.dumps(answers))


def _too_long(*_: object) -> NoReturn:
    raise OutOfTime


if __name__ == "__main__":
    main()
