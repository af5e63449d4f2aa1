"""OpenAI's client, asked in its own words; and what every `Tongue` is, one call of one client."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

import openai

from tests.support.wishes import CALLED, PICTURE, RESULTS, SCHEMA, TOOLS, Ask, Said


class Tongue:
    """One call of one client. `lacks` are the wishes that it has no words for; `vague` usage that it does not tell."""

    name: ClassVar[str]
    client: ClassVar[str]
    lacks: ClassVar[frozenset[str]] = frozenset()
    vague: ClassVar[frozenset[str]] = frozenset()
    ends_with: ClassVar[str] = "tools"
    """How it tells that tools are called."""
    refused: ClassVar[tuple[type[Exception], type[Exception]]]
    """Its exceptions for a request that is wrong, and for a model that is not there."""

    @staticmethod
    def call(client: Any, ask: Ask, *, stream: bool) -> Any:
        """The answer, the stream, or what is to be awaited for either."""
        raise NotImplementedError

    @staticmethod
    def whole(answer: Any) -> Said:
        """What a whole answer says."""
        raise NotImplementedError

    @staticmethod
    def pieces(events: Sequence[Any]) -> Said:
        """What a stream says."""
        raise NotImplementedError


class Chat(Tongue):
    """`chat.completions` of OpenAI's."""

    name, client = "openai chat", "openai"
    refused = (openai.BadRequestError, openai.NotFoundError)
    _stops: ClassVar = {"stop": "end", "tool_calls": "tools", "length": "length"}

    @staticmethod
    def call(client: Any, ask: Ask, *, stream: bool) -> Any:
        """Ask."""
        content: Any = ask.text
        if ask.image:
            url = f"data:image/png;base64,{PICTURE}"
            content = [{"type": "text", "text": ask.text}, {"type": "image_url", "image_url": {"url": url}}]
        messages: list[Any] = [{"role": "system", "content": ask.system}] if ask.system else []
        messages.append({"role": "user", "content": content})
        if ask.again:
            calls = [
                {"id": id_, "type": "function", "function": {"name": name, "arguments": json.dumps(given)}}
                for id_, name, given in CALLED
            ]
            messages.append({"role": "assistant", "content": None, "tool_calls": calls})
            for (id_, _, _), result in zip(CALLED, RESULTS, strict=True):
                messages.append({"role": "tool", "tool_call_id": id_, "content": result})
        more: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        if ask.tools:
            more["tools"] = [
                {"type": "function", "function": {"name": name, "description": told, "parameters": schema}}
                for name, told, schema in TOOLS
            ]
        if ask.forced:
            more["tool_choice"] = {"type": "function", "function": {"name": TOOLS[0][0]}}
        if ask.schema:
            shape = {"name": "answer", "schema": SCHEMA, "strict": True}
            more["response_format"] = {"type": "json_schema", "json_schema": shape}
        if ask.stop:
            more["stop"] = list(ask.stop)
        if ask.thinking:
            more["reasoning_effort"] = "low"
        return client.chat.completions.create(model=ask.model, messages=messages, max_tokens=ask.limit, **more)

    @classmethod
    def whole(cls, answer: Any) -> Said:
        """Read."""
        (choice,) = answer.choices
        message = choice.message
        calls = [(c.id, c.function.name, json.loads(c.function.arguments)) for c in message.tool_calls or ()]
        thought = getattr(message, "reasoning_content", None) or ""
        said = Said(message.content or "", thought, calls, cls._stops[choice.finish_reason])
        return cls._counted(said, answer.usage)

    @classmethod
    def pieces(cls, events: Sequence[Any]) -> Said:
        """Read."""
        said, calls = Said(), {}
        for chunk in events:
            for choice in chunk.choices:
                delta = choice.delta
                said.pieces += bool(delta.content)
                said.text += delta.content or ""
                said.thought += getattr(delta, "reasoning_content", None) or ""
                for piece in delta.tool_calls or ():
                    call = calls.setdefault(piece.index, [piece.id, piece.function.name, ""])
                    call[2] += piece.function.arguments or ""
                if choice.finish_reason:
                    said.stop = cls._stops[choice.finish_reason]
            if chunk.usage:
                cls._counted(said, chunk.usage)
        said.calls = [(id_, name, json.loads(given)) for id_, name, given in calls.values()]
        return said

    @staticmethod
    def _counted(said: Said, usage: Any) -> Said:
        said.read, said.written = usage.prompt_tokens, usage.completion_tokens
        assert usage.total_tokens == said.read + said.written
        said.cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None
        told = usage.completion_tokens_details
        said.reasoned = told.reasoning_tokens if told else None
        return said


class Responses(Tongue):
    """`responses` of OpenAI's."""

    name, client = "openai responses", "openai"
    lacks = frozenset({"stop"})
    refused = Chat.refused

    @staticmethod
    def call(client: Any, ask: Ask, *, stream: bool) -> Any:
        """Ask."""
        content: list[Any] = [{"type": "input_text", "text": ask.text}]
        if ask.image:
            url = f"data:image/png;base64,{PICTURE}"
            content.append({"type": "input_image", "image_url": url, "detail": "auto"})
        given: list[Any] = [{"role": "user", "content": content}]
        if ask.again:
            given += [
                {"type": "function_call", "call_id": id_, "name": name, "arguments": json.dumps(made)}
                for id_, name, made in CALLED
            ]
            given += [
                {"type": "function_call_output", "call_id": call[0], "output": result}
                for call, result in zip(CALLED, RESULTS, strict=True)
            ]
        more: dict[str, Any] = {"stream": True} if stream else {}
        if ask.system:
            more["instructions"] = ask.system
        if ask.tools:
            more["tools"] = [
                {"type": "function", "name": name, "description": told, "parameters": schema, "strict": False}
                for name, told, schema in TOOLS
            ]
        if ask.forced:
            more["tool_choice"] = {"type": "function", "name": TOOLS[0][0]}
        if ask.schema:
            more["text"] = {"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}}
        if ask.thinking:
            more["reasoning"] = {"effort": "low", "summary": "auto"}
        return client.responses.create(model=ask.model, input=given, max_output_tokens=ask.limit, store=False, **more)

    @staticmethod
    def whole(answer: Any) -> Said:
        """Read."""
        said = Said(answer.output_text)
        for item in answer.output:
            if item.type == "function_call":
                said.calls.append((item.call_id, item.name, json.loads(item.arguments)))
            elif item.type == "reasoning":
                said.thought += "".join(part.text for part in item.summary or item.content or ())
        if answer.status == "incomplete":
            assert answer.incomplete_details.reason == "max_output_tokens"
            said.stop = "length"
        else:
            assert answer.status == "completed"
            said.stop = "tools" if said.calls else "end"
        said.read, said.written = answer.usage.input_tokens, answer.usage.output_tokens
        said.cached = answer.usage.input_tokens_details.cached_tokens
        said.reasoned = answer.usage.output_tokens_details.reasoning_tokens
        return said

    @classmethod
    def pieces(cls, events: Sequence[Any]) -> Said:
        """Read; what was written piece by piece is what is there in the end."""
        assert [event.sequence_number for event in events] == sorted(event.sequence_number for event in events)
        said = cls.whole(events[-1].response)
        texts = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert "".join(texts) == said.text
        calls: dict[str, str] = {}
        for event in events:
            if event.type == "response.function_call_arguments.delta":
                calls[event.item_id] = calls.get(event.item_id, "") + event.delta
        assert [json.loads(each) for each in calls.values()] == [given for *_, given in said.calls]
        said.pieces = len(texts)
        return said


class Completions(Tongue):
    """`completions` of OpenAI's: plain text goes on."""

    name, client = "openai completions", "openai"
    lacks = frozenset({"system", "tools", "again", "schema", "image", "thinking"})
    refused = Chat.refused

    @staticmethod
    def call(client: Any, ask: Ask, *, stream: bool) -> Any:
        """Ask."""
        more: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        if ask.stop:
            more["stop"] = list(ask.stop)
        return client.completions.create(model=ask.model, prompt=ask.text, max_tokens=ask.limit, **more)

    @classmethod
    def whole(cls, answer: Any) -> Said:
        """Read."""
        said = Said(answer.choices[0].text, stop=Chat._stops[answer.choices[0].finish_reason])
        return Chat._counted(said, answer.usage)

    @classmethod
    def pieces(cls, events: Sequence[Any]) -> Said:
        """Read."""
        said = Said()
        for chunk in events:
            for choice in chunk.choices:
                said.pieces += bool(choice.text)
                said.text += choice.text
                if choice.finish_reason:
                    said.stop = Chat._stops[choice.finish_reason]
            if chunk.usage:
                Chat._counted(said, chunk.usage)
        return said
