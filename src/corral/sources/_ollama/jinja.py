"""Ollama's chat templates, made into Jinja templates that print the same. Pure.

Ollama gives a template that knows `.Messages` the whole conversation: consecutive messages of one role joined, all
system messages in `.System`, too. An older one knows a single turn (`.System .Prompt .Response`) and is printed turn by
turn, the last time only up to where the answer begins. Both are done here in a few lines of Jinja in front.

Every text is printed by an expression and every tag takes the white space beside it: how an engine treats line ends
around tags makes no difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from corral.sources._ollama.gotemplate import (
    Assign,
    Block,
    Call,
    Dot,
    Field,
    Jump,
    Literal,
    Node,
    Print,
    Text,
    Untranslatable,
    Variable,
    parse,
    walk,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from corral.sources._ollama.gotemplate import Expression

_MOST_NESTED_LOOPS = 4
_LONGEST_VALUE = 10_000

_MESSAGES = """\
{%- set ns = namespace(system='', messages=[], text='') -%}
{%- set offered = tools if tools else [] -%}
{%- for m in messages -%}
{%- set role = 'system' if m['role'] == 'developer' else m['role'] -%}
{%- if m['content'] is string -%}{%- set ns.text = m['content'] -%}
{%- else -%}{%- set ns.text = '' -%}
{%- for part in (m['content'] if m['content'] else []) -%}
{%- if part['text'] -%}{%- set ns.text = ns.text + part['text'] -%}{%- endif -%}
{%- endfor -%}{%- endif -%}
{%- if role == 'system' -%}
{%- if ns.system -%}{%- set ns.system = ns.system + '\\n\\n' + ns.text -%}
{%- else -%}{%- set ns.system = ns.text -%}{%- endif -%}{%- endif -%}
{%- set calls = m['tool_calls'] if m['tool_calls'] else [] -%}
{%- if ns.messages and role != 'tool' and ns.messages[-1]['role'] == role -%}
{%- set ns.text = ns.messages[-1]['content'] + '\\n\\n' + ns.text -%}
{%- set calls = ns.messages[-1]['tool_calls'] + calls -%}
{%- set ns.messages = ns.messages[:-1] -%}
{%- endif -%}
{%- set ns.messages = ns.messages + [{'role': role, 'content': ns.text, 'tool_calls': calls,
'reasoning_content': m['reasoning_content'] if m['reasoning_content'] else '', 'name': m['name'] if m['name'] else '',
'tool_call_id': m['tool_call_id'] if m['tool_call_id'] else ''}] -%}
{%- endfor -%}
"""

_TURNS = """\
{%- set now = namespace(turns=[], system='', prompt='', response='') -%}
{%- for m in ns.messages -%}
{%- if (m['role'] == 'user' and now.response) or (m['role'] == 'system' and (now.prompt or now.response)) -%}
{%- set now.turns = now.turns + [{'system': now.system, 'prompt': now.prompt, 'response': now.response}] -%}
{%- set now.system = '' -%}{%- set now.prompt = '' -%}{%- set now.response = '' -%}
{%- endif -%}
{%- if m['role'] == 'system' -%}{%- set now.system = m['content'] -%}
{%- elif m['role'] == 'user' -%}{%- set now.prompt = m['content'] -%}
{%- elif m['role'] == 'assistant' -%}{%- set now.response = m['content'] -%}
{%- endif -%}
{%- endfor -%}
"""

_THINKING = {
    "Think": "(enable_thinking is defined and enable_thinking)",
    "IsThinkSet": "(enable_thinking is defined)",
    "ThinkLevel": "(reasoning_effort if reasoning_effort is defined else '')",
}
_CONVERSATION = {
    "System": "ns.system",
    "Messages": "ns.messages",
    "Tools": "offered",
    "Prompt": "''",
    "Response": "''",
    "Suffix": "''",
    **_THINKING,
}
_NOTHING_ELSE = {"Tools": "[]", "Suffix": "''", **_THINKING}
_TURN = {"System": "turn['system']", "Prompt": "turn['prompt']", "Response": "turn['response']", **_NOTHING_ELSE}
_LAST_TURN = {"System": "now.system", "Prompt": "now.prompt", "Response": "now.response", **_NOTHING_ELSE}

_KEYS = {
    "Role": "role",
    "Content": "content",
    "Thinking": "reasoning_content",
    "ToolCalls": "tool_calls",
    "ToolName": "name",
    "ToolCallID": "tool_call_id",
    "ID": "id",
    "Type": "type",
    "Function": "function",
    "Name": "name",
    "Description": "description",
    "Arguments": "arguments",
    "Parameters": "parameters",
    "Properties": "properties",
    "Required": "required",
    "Enum": "enum",
}
"""Go's names of what a conversation and its tools consist of, and OpenAI's."""

_TEXTS = frozenset({"System", "Prompt", "Response", "Suffix", "Role", "Content", "Thinking", "ThinkLevel", "ToolName"})
_MAPPINGS = frozenset({"Arguments", "Parameters", "Properties"})
_COMPARISONS = {"ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def translate(template: str) -> str:
    """The Go template as a Jinja template over `messages`, `tools` and `enable_thinking`.

    Raises:
        Untranslatable: it says something for which there is no counterpart here.
    """
    nodes = parse(template)
    names = {item.name for item in walk(nodes) if isinstance(item, Field)}
    if "Messages" in names:
        jinja = _MESSAGES + _Writer(nodes, _CONVERSATION).text(nodes)
    else:
        nodes = nodes if "Response" in names else (*nodes, Print(Field(Dot(), "Response")))
        if all(item.value == Field(Dot(), "Prompt") for item in nodes[:-1] if isinstance(item, Print)) and not any(
            isinstance(item, Block | Assign | Jump) or (isinstance(item, Text) and item.text.strip()) for item in nodes
        ):
            raise Untranslatable("it prints the prompt as it comes, and no conversation")
        last, _ = _until_answer(nodes)
        jinja = _MESSAGES + _TURNS + "{%- for turn in now.turns -%}\n" + _Writer(nodes, _TURN).text(nodes)
        jinja += "{%- endfor -%}\n" + _Writer(last, _LAST_TURN).text(last)
    return jinja


def _until_answer(nodes: Iterable[Node]) -> tuple[tuple[Node, ...], bool]:
    """The nodes up to and with the first that prints `.Response`, and whether there is one."""
    kept: list[Node] = []
    for node in nodes:
        if isinstance(node, Print):
            kept.append(node)
            if any(isinstance(item, Field) and item.name == "Response" for item in walk(node.value)):
                return tuple(kept), True
        elif isinstance(node, Block):
            body, found = _until_answer(node.body)
            otherwise, also = ((), False) if found else _until_answer(node.otherwise)
            kept.append(replace(node, body=body, otherwise=otherwise))
            if found or also:
                return tuple(kept), True
        else:
            kept.append(node)
    return tuple(kept), False


@dataclass(frozen=True, slots=True)
class _Scope:
    """What `.` and the variables stand for; `dot` is None for the data that the template was given."""

    dot: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    loops: int = 0

    def with_variable(self, name: str, jinja: str) -> _Scope:
        return replace(self, variables={**self.variables, name: jinja})


class _Writer:
    def __init__(self, nodes: tuple[Node, ...], root: Mapping[str, str]) -> None:
        self._root = root
        # Jinja forgets at the end of a loop what was set in it, but for what is set in a namespace.
        self._changing = {item.name for item in walk(nodes) if isinstance(item, Assign) and not item.declares}
        self._count = 0

    def text(self, nodes: tuple[Node, ...]) -> str:
        return self._nodes(nodes, _Scope())

    def _fresh(self, stem: str) -> str:
        self._count += 1
        return f"{stem}{self._count}"

    def _nodes(self, nodes: tuple[Node, ...], scope: _Scope) -> str:
        parts = []
        for node in nodes:
            if isinstance(node, Text):
                parts.append("{{- " + _quoted(node.text) + " -}}\n")
            elif isinstance(node, Print):
                parts.append("{{- " + self._printed(node.value, scope) + " -}}\n")
            elif isinstance(node, Assign):
                text, scope = self._assign(node, scope)
                parts.append(text)
            elif isinstance(node, Jump):
                if not scope.loops:
                    raise Untranslatable(f"it has a {{{{ {node.word} }}}} outside of every loop")
                parts.append(f"{{%- {node.word} -%}}\n")
            else:
                parts.append(self._block(node, scope))
        return "".join(parts)

    def _assign(self, node: Assign, scope: _Scope) -> tuple[str, _Scope]:
        value = self._value(node.value, scope)
        if not node.declares:
            held = self._value(Variable(node.name), scope)
            return f"{{%- set {held} = {value} -%}}\n", scope
        name = self._fresh("v")
        if node.name in self._changing:
            return f"{{%- set {name} = namespace(value={value}) -%}}\n", scope.with_variable(node.name, f"{name}.value")
        return f"{{%- set {name} = {value} -%}}\n", scope.with_variable(node.name, name)

    def _block(self, node: Block, scope: _Scope) -> str:
        if node.kind == "range":
            return self._range(node, scope)
        if len(node.names) > 1:
            raise Untranslatable(f"{{{{ {node.kind} }}}} declares two variables")
        value, before, inner = self._value(node.value, scope), "", scope
        if node.names or node.kind == "with":
            name = self._fresh("w")
            before, value = f"{{%- set {name} = {value} -%}}\n", name
            inner = scope.with_variable(node.names[0], name) if node.names else scope
        body = self._nodes(node.body, replace(inner, dot=value) if node.kind == "with" else inner)
        otherwise = "{%- else -%}\n" + self._nodes(node.otherwise, inner) if node.otherwise else ""
        return f"{before}{{%- if {value} -%}}\n{body}{otherwise}{{%- endif -%}}\n"

    def _range(self, node: Block, scope: _Scope) -> str:
        if scope.loops >= _MOST_NESTED_LOOPS:
            raise Untranslatable("its loops are nested too deeply")
        value, item = self._value(node.value, scope), self._fresh("d")
        inner, head, target = replace(scope, dot=item, loops=scope.loops + 1), "", item
        if len(node.names) == 2:
            index = self._fresh("i")
            inner = inner.with_variable(node.names[0], index).with_variable(node.names[1], item)
            if isinstance(node.value, Field) and node.value.name in _MAPPINGS:
                value, target = f"{value}.items()", f"{index}, {item}"
            else:
                head = f"{{%- set {index} = loop.index0 -%}}\n"
        elif node.names:
            inner = inner.with_variable(node.names[0], item)
        body = self._nodes(node.body, inner)
        otherwise = "{%- else -%}\n" + self._nodes(node.otherwise, scope) if node.otherwise else ""
        return f"{{%- for {target} in {value} -%}}\n{head}{body}{otherwise}{{%- endfor -%}}\n"

    def _printed(self, value: Expression, scope: _Scope) -> str:
        """The value as Go prints it: texts as they are, everything else as JSON."""
        text = self._value(value, scope)
        plain = isinstance(value, Literal) or (isinstance(value, Field) and value.name in _TEXTS)
        if plain or (isinstance(value, Call) and value.function in {"json", "toJson", "currentDate"}):
            return text
        return f"({text} if {text} is string else {text} | tojson)"

    def _value(self, value: Expression, scope: _Scope) -> str:
        text = self._written(value, scope)
        if len(text) > _LONGEST_VALUE:
            raise Untranslatable("an expression is too long")
        return text

    def _written(self, value: Expression, scope: _Scope) -> str:
        if isinstance(value, Literal):
            return _literal(value.value)
        if isinstance(value, Dot):
            return _known(scope.dot, "`.`")
        if isinstance(value, Variable):
            return _known(scope.variables.get(value.name), f"`${value.name}`")
        if isinstance(value, Call):
            return self._call(value, scope)
        of_root = (isinstance(value.base, Dot) and scope.dot is None) or value.base == Variable("")
        if of_root:
            return _known(self._root.get(value.name), f"`.{value.name}`")
        return f"{self._value(value.base, scope)}['{_known(_KEYS.get(value.name), f'`.{value.name}`')}']"

    def _call(self, call: Call, scope: _Scope) -> str:
        given = [self._value(item, scope) for item in call.arguments]
        match call.function, len(given):
            case "eq", count if count >= 2:
                text = f"{given[0]} == {given[1]}" if count == 2 else f"{given[0]} in [{', '.join(given[1:])}]"
            case "ne" | "lt" | "le" | "gt" | "ge", 2:
                text = f"{given[0]} {_COMPARISONS[call.function]} {given[1]}"
            case "and" | "or", count if count >= 1:
                text = f" {call.function} ".join(given)
            case "not" | "len", 1:
                text = f"not {given[0]}" if call.function == "not" else f"{given[0]} | length"
            case "index", count if count >= 2:
                text = given[0] + "".join(f"[{item}]" for item in given[1:])
            case "slice", 2 | 3:
                text = f"{given[0]}[{':'.join([*given[1:], ''][:2])}]"
            case "json" | "toJson", 1:
                # The arguments of a call may come as the JSON text that they are on the wire.
                wire = isinstance(call.arguments[0], Field) and call.arguments[0].name == "Arguments"
                text = (
                    f"{given[0]} if {given[0]} is string else {given[0]} | tojson" if wire else f"{given[0]} | tojson"
                )
            case "currentDate", 0:
                text = "strftime_now('%Y-%m-%d')"
            case name, count:
                raise Untranslatable(f"it calls `{name}` with {count} values")
        return f"({text})"


def _known(text: str | None, what: str) -> str:
    if text is None:
        raise Untranslatable(f"it uses {what}, which is not known here")
    return text


def _literal(value: str | float | bool | None) -> str:
    if isinstance(value, str):
        return _quoted(value)
    return str(value).lower()  # true, false and none are written small in Jinja


def _quoted(text: str) -> str:
    """A Jinja literal, with no escape that not every engine knows."""
    for plain, escaped in (("\\", "\\\\"), ("'", "\\'"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(plain, escaped)
    return f"'{text}'"
