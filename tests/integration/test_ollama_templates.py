"""What a translated template prints in llama.cpp is what it prints in Jinja itself."""

import json
import os

import aiohttp
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from corral.domain.models import Capability
from corral.domain.ports import LaunchSpec, silent
from corral.runtimes.llamacpp import LlamaCpp, LlamaCppOptions
from corral.sources._ollama.jinja import translate
from support.gotemplates import CHATML, GEMMA, LLAMA3, MISTRAL

PROPERTIES = """{{ range .Tools }}{{ .Function.Name }}({{ range $k, $v := .Function.Parameters.Properties }}
{{- $k }}: {{ $v.Type }}{{ end }}){{ end }}{{ $n := 0 }}{{ range $i, $m := .Messages }}{{ $n = $i }}
{{- if eq $m.Role "system" }}{{ continue }}{{ end }}<{{ $m.Role }}>{{ $m.Content }}
{{- json $m.Content }}{{ end }}{{ $n }}"""
TOOL = {
    "type": "function",
    "function": {
        "name": "f",
        "description": "does",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
TALK = [
    {"role": "system", "content": 'Be "kind" & <good>.'},
    {"role": "user", "content": "Hi\n{{ x }}"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Bye"},
]


def rendered(template, **given):
    world = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    world.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return world.from_string(template).render(add_generation_prompt=True, **given)


@pytest.mark.parametrize(
    ("template", "tools"),
    [(CHATML, False), (MISTRAL, False), (GEMMA, False), (LLAMA3, True), (PROPERTIES, True)],
    ids=["chatml", "mistral", "gemma", "llama3", "properties"],
)
async def test_both_engines_print_the_same(smollm2, template, tools):
    jinja = translate(template)
    options = LlamaCppOptions(context=256, slots=1, gpu_layers=0, chat_template=jinja)
    session = await LlamaCpp(os.environ).start(LaunchSpec("m", options, {"model": smollm2}), silent)
    try:
        assert session.facts.capabilities >= {Capability.CHAT, Capability.SYSTEM_ROLE}
        assert (Capability.TOOLS in session.facts.capabilities) is tools
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(headers=session.endpoint.headers, connector=connector) as http:
            for given in (
                {"messages": TALK},
                {"messages": TALK[1:2]},
                *([{"messages": TALK, "tools": [TOOL]}] * tools),
            ):
                where = f"{session.endpoint.url.removesuffix('/v1')}/apply-template"
                async with http.post(where, json=given) as answer:
                    assert (await answer.json())["prompt"] == rendered(jinja, **given)
    finally:
        await session.stop(5)
