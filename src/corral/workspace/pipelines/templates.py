"""Templates and expressions of pipelines, rendered within bounds whatever they are.

A template is a program of a stranger's: it may loop for ever. One that only puts values into words is rendered here and
now: it does no more work than it has letters. Any other goes to a process of its own, which is used again for the next,
bounds its own processor time and memory, and is ended and replaced when it does not answer. So no template stops the
loop it is awaited in, and none takes longer than it may.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

import orjson

from corral.errors import InvalidRequest
from corral.kit.process import child_environment, module_argv
from corral.workspace.pipelines.sandbox import compiled, compiled_expression, line_of, said
from corral.workspace.pipelines.sandbox import plain as plain_value
from corral.workspace.pipelines.syntax import Syntax, expression_of, parse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self


_CHILD: Final = "corral.workspace.pipelines._rendering"
_LIGHT: Final = 1 << 18
"""Characters of values that are put into words here; more is done elsewhere, beside the loop."""
_MOST_SCOPE: Final = 64 << 20
_STUCK: Final = 30.0
"""Seconds: nothing of a child that may use so little of a processor is worth waiting for longer."""
_IDLE: Final = 60.0


class Templates:
    """Renders templates and evaluates expressions over plain values (those of JSON).

    Args:
        seconds: of processor time that one may take.
        most: characters that one may write.

    Belongs to one loop. `aclose` ends its process; so does the end of this one.
    """

    def __init__(self, *, seconds: float = 1.0, most: int = 4 << 20) -> None:
        self._seconds = seconds
        self._most = most
        self._lock = asyncio.Lock()
        self._child: asyncio.subprocess.Process | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._resting: asyncio.Task[None] | None = None

    async def render(self, template: str, scope: Mapping[str, Any]) -> str:
        """What the template writes with the values of `scope`.

        Raises:
            InvalidRequest: it is no template, names what is not there, or takes or writes more than it may; says where.
        """
        if "{" not in template:
            return self._short_enough(template)
        prepared = _prepared(template, False)
        given = prepared.picked(scope)
        if prepared.plain and _light(given):
            return self._short_enough(_here(template, given))
        return cast("str", await self._elsewhere("render", template, given))

    async def evaluate(self, expression: Any, scope: Mapping[str, Any]) -> Any:
        """What an expression comes to: `{{ steps.a.value.list }}`, or the same without braces.

        Anything that is no text is itself, but a tuple is a list.

        Raises:
            InvalidRequest: as `render`.
        """
        if not isinstance(expression, str):
            return list(expression) if isinstance(expression, tuple) else expression
        source = expression_of(expression)
        prepared = _prepared(source, True)
        given = prepared.picked(scope)
        if prepared.plain and _light(given):
            return _value_here(source, given)
        return await self._elsewhere("evaluate", source, given)

    async def aclose(self) -> None:
        """End the process, if there is one. Templates may be rendered afterwards; then there is one again."""
        async with self._lock:
            await self._end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _short_enough(self, text: str) -> str:
        if len(text) > self._most:
            raise InvalidRequest(f"A template writes more than {self._most:,} characters.", "Give it less.")
        return text

    async def _elsewhere(self, kind: str, source: str, scope: Mapping[str, Any]) -> Any:
        job = {"kind": kind, "source": source, "scope": scope, "most": self._most, "seconds": self._seconds}
        try:
            data = orjson.dumps(job)
        except (TypeError, orjson.JSONEncodeError) as error:
            raise InvalidRequest(f"A template was given a value that is none of JSON: {error}.") from error
        if len(data) > _MOST_SCOPE:
            raise InvalidRequest(
                f"A template was given {len(data) >> 20} MiB to work on.", "Give it fewer or smaller files."
            )
        async with self._lock:
            answer = await self._ask(data)
        if "error" in answer:
            raise _failed(source, str(answer["error"]), answer["line"])
        return answer["text" if kind == "render" else "value"]

    async def _ask(self, data: bytes) -> dict[str, Any]:
        """What the process says; it is ended when it says nothing, or nobody waits any more."""
        if self._idle is not None:
            self._idle.cancel()
        sound = False
        try:
            if self._child is None:
                self._child = await _start()
            async with asyncio.timeout(_STUCK):
                answer = await _exchange(self._child, data)
            sound = not answer.get("last")
        except TimeoutError:
            return {"error": f"it takes more than {self._seconds:g} s", "line": None}
        except (asyncio.IncompleteReadError, ConnectionError):
            return {"error": "it takes more time or memory than a template may", "line": None}
        else:
            return answer
        finally:
            if sound:
                self._idle = asyncio.get_running_loop().call_later(_IDLE, self._rest)
            else:
                await self._end()

    def _rest(self) -> None:
        """Nobody has asked for a while: the process is more than is needed."""
        self._resting = asyncio.ensure_future(self.aclose())

    async def _end(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        child, self._child = self._child, None
        if child is None or child.stdin is None or child.stdout is None:
            return
        with suppress(ProcessLookupError):
            child.kill()
        child.stdin.close()
        await child.stdout.read()  # to its end, so that nothing of it is left in the loop
        await child.wait()


def names(template: str) -> frozenset[str]:
    """What a template names of what it is given, as dotted paths: `inputs.topic`, `steps.analysis.value.sections`.

    Raises:
        InvalidRequest: it is no template; says where.
    """
    return frozenset(".".join(map(str, reference.path)) for reference in _prepared(template, False).references)


@lru_cache(maxsize=128)
def _prepared(source: str, is_expression: bool) -> Syntax:
    syntax = parse(source, is_expression=is_expression)
    if syntax.problems:
        first = syntax.problems[0]
        raise _failed(source, first.message, first.line, first.hint)
    return syntax


async def _start() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *module_argv(_CHILD),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=child_environment(os.environ),
        start_new_session=True,
    )


async def _exchange(child: asyncio.subprocess.Process, data: bytes) -> dict[str, Any]:
    assert child.stdin is not None  # noqa: S101 - both were asked for
    assert child.stdout is not None  # noqa: S101
    child.stdin.write(len(data).to_bytes(4) + data)
    await child.stdin.drain()
    length = int.from_bytes(await child.stdout.readexactly(4))
    return cast("dict[str, Any]", orjson.loads(await child.stdout.readexactly(length)))


def _here(source: str, scope: Mapping[str, Any]) -> str:
    try:
        return compiled(source).render(scope)
    except Exception as error:
        raise _failed(source, said(error), line_of(error)) from error


def _value_here(source: str, scope: Mapping[str, Any]) -> Any:
    try:
        return plain_value(compiled_expression(source)(scope))
    except Exception as error:
        raise _failed(source, said(error), line_of(error)) from error


def _failed(source: str, why: str, line: int | None, hint: str = "") -> InvalidRequest:
    """The error of a template, with the line of it that is meant."""
    lines = source.splitlines()
    shown = lines[line - 1].strip() if line and line <= len(lines) else source.strip()
    where = f"line {line} of the template" if line and len(lines) > 1 else "a template"
    return InvalidRequest(f"{why[:1].upper()}{why[1:].rstrip('.')}: in {where}, {shown[:120]!r}.", hint)


def _light(scope: Mapping[str, Any]) -> bool:
    """Whether all there is to put into words is short."""
    room, left = _LIGHT, [cast("Any", scope)]
    while left and room > 0:
        value = left.pop()
        if isinstance(value, str):
            room -= len(value)
        elif isinstance(value, dict):
            room -= len(value) + sum(map(len, map(str, value)))
            left.extend(value.values())
        elif isinstance(value, list | tuple):
            room -= len(value)
            left.extend(value)
        else:
            room -= 8
    return room > 0
