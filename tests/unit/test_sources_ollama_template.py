"""Go templates as Ollama's library writes them, and what their Jinja prints for a conversation."""

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from corral.sources._ollama.gotemplate import MOST_TEXT, Untranslatable, parse
from corral.sources._ollama.jinja import translate
from support.gotemplates import CHATML, GEMMA, LLAMA3, MISTRAL

TALK = [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello!"), ("user", "Bye")]
TOOL = {"type": "function", "function": {"name": "f", "description": "does", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}


def rendered(template, *talk, **more):
    world = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    world.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    world.globals["strftime_now"] = lambda shape: f"today as {shape}"
    messages = [item if isinstance(item, dict) else {"role": item[0], "content": item[1]} for item in talk]
    return world.from_string(translate(template)).render(messages=messages, **more)


def test_chatml():
    assert rendered(CHATML, *TALK) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
    )


def test_mistral():
    assert rendered(MISTRAL, *TALK) == "[INST] Be kind.\n\nHi [/INST] Hello!</s>[INST] Bye [/INST] "


def test_gemma():
    assert rendered(GEMMA, *TALK[1:]) == (
        "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello!<end_of_turn>\n"
        "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n"
    )


def test_llama_3():
    assert rendered(LLAMA3, *TALK) == (
        "<|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_llama_3_with_tools():
    calls = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert rendered(LLAMA3, ("user", "Hi"), tools=[TOOL]) == (
        "<|start_header_id|>system<|end_header_id|>\n\n\nYou may call functions.<|eot_id|>"
        f"<|start_header_id|>user<|end_header_id|>\n\n{json.dumps(TOOL)}\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert rendered(LLAMA3, ("user", "Hi"), calls, ("tool", "42")).endswith(
        "<|start_header_id|>assistant<|end_header_id|>\n"
        '\n{"name": "f", "parameters": {"a": 1}}<|eot_id|>'
        "<|start_header_id|>ipython<|end_header_id|>\n\n42<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_an_answer_that_was_begun_is_gone_on_with():
    begun = [("user", "Hi"), ("assistant", "Well,")]
    assert rendered(CHATML, *begun).endswith("<|im_start|>assistant\nWell,")
    assert rendered(LLAMA3, *begun).endswith("<|end_header_id|>\n\nWell,")


def test_messages_of_one_role_in_a_row_become_one():
    assert rendered(GEMMA, ("user", "a"), ("user", "b")).startswith("<start_of_turn>user\na\n\nb<end_of_turn>")
    assert (
        rendered("{{ .System }}{{ range .Messages }}{{ end }}", ("system", "a"), ("user", "x"), ("system", "b"))
        == "a\n\nb"
    )
    assert rendered("{{ range .Messages }}<{{ .Content }}>{{ end }}", ("tool", "1"), ("tool", "2")) == "<1><2>"
    answers = [{"role": "assistant", "content": "", "tool_calls": [CALL]} for _ in range(2)]
    assert rendered("{{ range .Messages }}{{ len .ToolCalls }}{{ end }}", *answers) == "2"


def test_a_system_message_in_the_middle_opens_a_turn():
    talk = [("user", "a"), ("assistant", "b"), ("system", "s"), ("user", "c")]
    assert rendered(MISTRAL, *talk) == "[INST] a [/INST] b</s>[INST] s\n\nc [/INST] "


def test_a_developer_is_a_system_and_parts_are_a_text():
    parts = [{"type": "text", "text": "what "}, {"type": "text", "text": "is it"}, {"type": "image_url"}]
    assert rendered(CHATML, ("developer", "Be."), ("user", parts)).startswith(
        "<|im_start|>system\nBe.<|im_end|>\n<|im_start|>user\nwhat is it<|im_end|>"
    )


def test_a_template_without_a_response_gets_one_at_the_end():
    assert rendered("{{ .Prompt }}\n### Answer:\n", ("user", "a"), ("assistant", "b"), ("user", "c")) == (
        "a\n### Answer:\nbc\n### Answer:\n"
    )


def test_what_follows_the_response_is_for_turns_that_are_over():
    template = "{{ if .Prompt }}<{{ .Prompt }}>{{ .Response }}{{ if .Response }}!{{ end }}{{ else }}?{{ end }}."
    assert rendered(template, ("user", "a"), ("assistant", "b"), ("user", "c")) == "<a>b!.<c>"
    assert rendered("{{ if .Prompt }}p{{ else }}{{ .Response }}{{ end }}z", ("assistant", "b")) == "b"


def test_variables_that_change_in_a_loop_keep_their_value_after_it():
    template = """{{- $at := -1 -}}{{- range $i, $m := .Messages -}}{{- if eq $m.Role "user" }}{{ $at = $i }}{{ end -}}
{{- end }}{{- range $i, $_ := .Messages }}{{ if eq $i $at }}*{{ end }}{{ .Content }} {{ end }}"""
    assert rendered(template, *TALK, ("assistant", "x")) == "Be kind. Hi Hello! *Bye x "


@pytest.mark.parametrize(
    ("expression", "printed"),
    [
        ("{{ len .Messages }}", "4"),
        ('{{ if eq (index .Messages 0).Role "user" "system" }}yes{{ end }}', "yes"),
        ("{{ if and .System (not .Tools) }}yes{{ end }}", "yes"),
        ("{{ if or .Tools .System }}yes{{ end }}", "yes"),
        ("{{ if gt (len .Messages) 3 }}yes{{ end }}{{ if lt 1 2 }}!{{ end }}", "yes!"),
        ("{{ if ge 1 2 }}yes{{ else if le 1 1 }}no{{ else }}never{{ end }}", "no"),
        ('{{ if ne .System "" }}yes{{ end }}', "yes"),
        ("{{ .System | json }}", '"Be kind."'),
        ("{{ json .System }}", '"Be kind."'),
        ("{{ with .System }}[{{ . }}]{{ else }}none{{ end }}", "[Be kind.]"),
        ("{{ with .Tools }}[{{ . }}]{{ else }}none{{ end }}", "none"),
        ("{{ with $x := .System }}[{{ $x }}]{{ end }}", "[Be kind.]"),
        ("{{ if $x := .System }}[{{ $x }}]{{ end }}", "[Be kind.]"),
        ("{{ range .Tools }}x{{ else }}none{{ end }}", "none"),
        ("{{ range $m := slice .Messages 1 2 }}{{ $m.Content }}{{ end }}", "Hi"),
        (
            "{{ range .Messages }}{{ if eq .Role `assistant` }}{{ break }}{{ end }}{{ .Content }};{{ end }}",
            "Be kind.;Hi;",
        ),
        (
            "{{ range .Messages }}{{ if eq .Role `user` }}{{ continue }}{{ end }}{{ .Content }};{{ end }}",
            "Be kind.;Hello!;",
        ),
        ("{{ if eq currentDate `x` }}yes{{ else }}no{{ end }}", "no"),
        ("{{ $x := true }}{{ if $x }}a{{ end }}{{ $y := nil }}{{ if $y }}b{{ end }}", "a"),
        ("{{ .Response }}{{ .Prompt }}{{ .Suffix }}|", "|"),
        ('{{ "a\\n\\"b\\"" }}{{ `c\\n` }}', 'a\n"b"c\\n'),
        ("{{/* said to nobody */}}x {{- /* nor this */ -}} y", "xy"),
        ("a  {{- 3 -}}  b", "a3b"),
        ("{{3}}{{-3}}{{ 1.5 }}", "3-31.5"),
        ("{{ currentDate }}", "today as %Y-%m-%d"),
        ("'\\ {% raw %} <\uff5cend\uff5c>\t\r", "'\\ {% raw %} <\uff5cend\uff5c>\t\r"),
    ],
)
def test_what_the_language_has(expression, printed):
    assert rendered(expression + "{{ if .Messages }}{{ end }}", *TALK) == printed


def test_tools_and_their_properties():
    tool = {"function": {"name": "f", "parameters": {"properties": {"city": {"type": "string", "enum": ["a", "b"]}}}}}
    template = """{{ range .Tools }}{{ .Function.Name }}({{ range $k, $v := .Function.Parameters.Properties }}
{{- $k }}: {{ $v.Type }} {{ $v.Enum }}{{ end }}){{ json .Function }}{{ end }}{{ if .Messages }}{{ end }}"""
    assert rendered(template, *TALK, tools=[tool]) == f'f(city: string ["a", "b"]){json.dumps(tool["function"])}'


@pytest.mark.parametrize("how", ["{{ .Function.Arguments }}", "{{ json .Function.Arguments }}"])
@pytest.mark.parametrize("arguments", [{"a": 1}, '{"a": 1}'])
def test_the_arguments_of_a_call_are_json_once(how, arguments):
    said = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}
    assert rendered("{{ range .Messages }}{{ range .ToolCalls }}" + how + "{{ end }}{{ end }}", said) == '{"a": 1}'


def test_thinking():
    template = "{{ if .IsThinkSet }}{{ if .Think }}/think{{ else }}/no_think{{ end }}{{ end }}"
    template += "{{ .ThinkLevel }}{{ len .Messages }}"
    assert rendered(template) == "0"
    assert rendered(template, enable_thinking=True) == "/think0"
    assert rendered(template, enable_thinking=False, reasoning_effort="low") == "/no_thinklow0"
    said = {"role": "assistant", "content": "b", "reasoning_content": "hm"}
    assert rendered("{{ range .Messages }}{{ .Thinking }}>{{ .Content }}{{ end }}", said) == "hm>b"


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ .Prompt }}", "as it comes"),
        ("{{ .Prompt }} {{ .Response }}", "as it comes"),
        ("", "as it comes"),
        ("{{ if .Prompt }}", "no {{ end }}"),
        ("{{ end }}", "too many"),
        ("{{ else }}", "too many"),
        ("{{ if .Prompt }}a{{ else }}b{{ else }}c{{ end }}", "no {{ end }}"),
        ("{{ .Prompt", "cannot be read"),
        ("{{ ? }}", "cannot be read"),
        ('{{ "open }}', "cannot be read"),
        ('{{ "\\q" }}{{ .Prompt ', "cannot be read"),
        ('{{ define "x" }}{{ end }}', "define"),
        ('{{ template "x" }}', "template"),
        ("{{ break }} {{ .Response }}", "outside of every loop"),
        ("{{ range .Tools }}{{ break .Prompt }}{{ end }}", "uses {{ break }}"),
        ("{{ .Nothing }}", "`.Nothing`"),
        ("{{ range .Messages }}{{ .Images }}{{ end }}", "`.Images`"),
        ("{{ . }} {{ .Response }}", "`.`"),
        ("{{ $ }} {{ .Response }}", "`$`"),
        ("{{ $x }} {{ .Response }}", "`$x`"),
        ("{{ $x = 1 }} {{ .Response }}", "`$x`"),
        ('{{ printf "%s" .Prompt }}', "`printf` with 2"),
        ("{{ not }}", "`not` with 0"),
        ("{{ yesterdayDate }}", "yesterdayDate"),
        ("{{ .Prompt .System }}", "no value and no call"),
        ("{{ .Prompt | .System }}", "no value and no call"),
        ("{{ | }}", "no value and no call"),
        ("{{ (.Prompt }}", "not closed"),
        ("{{ .Prompt) }}", "where none can be"),
        ("{{ , }}", "cannot be read"),
        ("{{ 1, := 2 }}", "no variable"),
        ("{{ .Prompt = 2 }}", "no variable"),
        ("{{ $a, $b := .Messages }}", "two variables"),
        ("{{ if $a, $b := .Messages }}{{ end }}", "two variables"),
        ("{{ range $.Messages }}" * 5 + "x" + "{{ end }}" * 5, "loops are nested"),
        ("{{ if .Prompt }}" * 50 + "x" + "{{ end }}" * 50, "blocks are nested"),
        ("{{ " + "(" * 50 + ".Prompt" + ")" * 50 + " }}", "expressions are nested"),
        ("{{ .Prompt" + " | json" * 50 + " }}", "expressions are nested"),
        ("{{ $x" + ".Function" * 50 + " }}", "expressions are nested"),
        ("{{ and" + " .Prompt" * 2000 + " }}", "too long"),
        ("x" * (MOST_TEXT + 1), "KiB"),
    ],
)
def test_what_has_no_counterpart_is_said(template, why):
    with pytest.raises(Untranslatable) as caught:
        translate(template)
    assert why in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["{{", "}}", "-", " ", "if", "end", "range", ".Messages", "$x", ":=", "(", ")", '"', "|", "x", "`"]
        )
    )
)
def test_no_text_makes_it_fail_otherwise(pieces):
    with suppress(Untranslatable):
        parse("".join(pieces))


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab{}%#-'\\\"\n \t", max_size=30), st.text(min_size=1, max_size=10))
def test_texts_come_through_as_they_are(between, said):
    if "{{" in between:
        return
    assert rendered(f"<{between}>{{{{ .Response }}}}", ("user", "q"), ("assistant", said)) == f"<{between}>{said}"
