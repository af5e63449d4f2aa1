"""Templates that want too much: none stops the loop or takes longer than it may, and the next is rendered as ever."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from textwrap import dedent

import psutil
import pytest

from corral.errors import InvalidRequest
from corral.workspace.pipelines.templates import Templates

FOR_EVER = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3
OVER_AND_OVER = "{%% set n = namespace(x=%s) %%}{%% for i in range(60) %%}{%% set n.x = n.x %s n.x %%}{%% endfor %%}"
SOUND = "{{ inputs.x | upper }}"


@pytest.fixture
async def templates() -> AsyncIterator[Templates]:
    async with Templates(seconds=0.3, most=100_000) as made:
        yield made


async def sound(templates: Templates) -> None:
    assert await templates.render(SOUND, {"inputs": {"x": "still here"}}) == "STILL HERE"


HOSTILE = {
    "loops for ever": (FOR_EVER, "takes more than 0.3 s"),
    "recurses": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "nested too deeply"),
    "recurses in a loop": ("{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}", "nested too deeply"),
    "fills the memory": ("{{ 'a' * 10 ** 10 }}", "too much memory"),
    "doubles": (OVER_AND_OVER % ("'aaaa'", "~"), "too much memory | takes more"),  # whichever comes first
    "pads": ("{{ '%0999999999d' | format(1) }}", "too much memory"),
    "reckons": ("{{ 9 ** (9 ** 9) }}", "power that large"),
    "multiplies": (OVER_AND_OVER % ("10 ** 999", "*"), "takes more"),
    "writes much": ("{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}", "writes more than 100,000 characters"),
    "writes much at once": ("{{ ('a' * 200000) | upper }}", "writes more than 100,000 characters"),
    "counts far": ("{{ range(10 ** 9) | list }}", "Range too big"),
    "reaches by a filter": ("{{ '' | attr('__class__') }}", "is unsafe"),
    "reaches by a format": ("{{ '{0.__class__.__init__.__globals__}'.format(inputs) }}", "is unsafe"),
    "reaches by a map": ("{{ [''] | map(attribute='__class__') | list }}", "is unsafe"),
    "reaches by a name": ("{{ inputs['__cla' ~ 'ss__'] }}", "is unsafe"),
    "reaches a generator": ("{{ (inputs.x for x in y) }}", "got 'for'"),
    "changes what it is given": ("{{ inputs.update({'a': 1}) }}", "is unsafe"),
    "fails": ("{{ 1 // 0 }}", "division or modulo by zero"),
    "goes round": ("{% set a = namespace() %}{% set a.b = a %}{{ a }}", "cannot be written"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_template_that_wants_too_much_is_refused_and_the_next_is_rendered(
    templates: Templates, name: str
) -> None:
    template, said = HOSTILE[name]
    with pytest.raises(InvalidRequest) as raised:
        await templates.render(template, {"inputs": {"x": "x"}})
    assert any(each in str(raised.value) for each in said.split(" | "))
    await sound(templates)


async def test_the_loop_goes_on_while_a_template_does_not_end() -> None:
    async with Templates(seconds=20) as templates:
        await sound(templates)
        (child,) = psutil.Process().children()
        before = child.cpu_times().user
        task = asyncio.ensure_future(templates.render(FOR_EVER, {}))
        while child.cpu_times().user < before + 0.1:  # it works on the template, and nothing else
            await asyncio.sleep(0)
        assert not task.done(), "the loop stood still until the template had been given up"
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_an_expression_that_does_not_end(templates: Templates) -> None:
    with pytest.raises(InvalidRequest, match="takes more than"):
        await templates.evaluate("range(99999) | map('string') | map('center', 9999) | map('wordcount') | sum", {})
    assert await templates.evaluate("range(3)", {}) == [0, 1, 2]


async def test_what_is_cancelled_leaves_nothing_behind_that_answers_for_it(templates: Templates) -> None:
    await sound(templates)
    task = asyncio.ensure_future(templates.render(FOR_EVER, {}))
    while not task.done() and not any(child.cpu_times().user for child in psutil.Process().children()):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError, InvalidRequest):
        await task
    await sound(templates)


async def test_a_process_that_is_killed_is_replaced(templates: Templates) -> None:
    await sound(templates)
    (child,) = psutil.Process().children()
    child.send_signal(signal.SIGKILL)
    with suppress(InvalidRequest):
        await sound(templates)
    await sound(templates)


async def test_many_at_once_are_answered_each_with_its_own(templates: Templates) -> None:
    scopes = [{"inputs": {"x": f"n{number}"}} for number in range(200)]
    written = await asyncio.gather(*(templates.render(SOUND, scope) for scope in scopes))
    assert written == [f"N{number}" for number in range(200)]
    assert len(psutil.Process().children()) == 1


async def test_large_values_are_put_into_words_elsewhere(templates: Templates) -> None:
    async with Templates() as wide:
        assert len(await wide.render("{{ inputs.x }}!", {"inputs": {"x": "x" * 3_000_000}})) == 3_000_001
        with pytest.raises(InvalidRequest, match="MiB to work on"):
            await wide.render("{{ inputs.x | length }}", {"inputs": {"x": ["x" * (1 << 20)] * 65}})


async def test_plain_templates_need_no_process() -> None:
    async with Templates() as made:
        assert await made.render("{{ inputs.x }}", {"inputs": {"x": 1}}) == "1"
        assert psutil.Process().children() == []


async def test_the_same_is_written_here_and_there(templates: Templates) -> None:
    """A loop that does nothing sends a template to the process."""
    there = "{% for never in [] %}{% endfor %}"
    scope = {"inputs": {"x": [1, None, {"a": "ä"}], "f": [{"name": "n", "text": "t"}], "y": True, "z": None}}
    for template in (
        "{{ inputs.x }}",
        "{{ inputs.f }}",
        "{{ inputs.y }}{{ inputs.z }}",
        "{{ inputs.x | tojson }}",
        "a\n",
    ):
        assert await templates.render(there + template, scope) == await templates.render(template, scope)


def test_the_process_ends_with_its_parent() -> None:
    """Also when the parent is killed while a template runs."""
    script = dedent(
        """
        import asyncio, psutil
        from corral.workspace.pipelines.templates import Templates

        async def main():
            made = Templates(seconds=60)
            await made.render("{{ inputs.x | upper }}", {"inputs": {"x": "x"}})
            print(psutil.Process().children()[0].pid, flush=True)
            await made.render(FOR_EVER, {})

        asyncio.run(main())
        """
    )
    script = f"FOR_EVER = {FOR_EVER!r}\n{script}"
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    with suppress(psutil.NoSuchProcess):
        child.wait(90)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
