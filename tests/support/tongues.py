"""The official clients, each asked in its own words for the same things."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any, ClassVar

import anthropic
import ollama
from google import genai
from google.genai import types

from tests.support.tongues_openai import Chat, Completions, Responses, Tongue
from tests.support.wishes import BUDGET, CALLED, PICTURE, RESULTS, SCHEMA, TOOLS, Ask, Said


class Messages(Tongue):
    """`messages` of Anthropic's."""

    name, client = "anthropic", "anthropic"
    vague = frozenset({"reasoned"})
    refused = (anthropic.BadRequestError, anthropic.NotFoundError)
    _stops: ClassVar = {"end_turn": "end", "stop_sequence": "end", "tool_use": "tools", "max_tokens": "length"}

    @staticmethod
    def call(client: Any, ask: Ask, *, stream: bool) -> Any:
        """Ask."""
        content: list[Any] = [{"type": "text", "text": ask.text}]
        if ask.image:
            source = {"type": "base64", "media_type": "image/png", "data": PICTURE}
            content.append({"type": "image", "source": source})
        messages: list[Any] = [{"role": "user", "content": content}]
        if ask.again:
            calls = [{"type": "tool_use", "id": id_, "name": name, "input": given} for id_, name, given in CALLED]
            results = [
                {"type": "tool_result", "tool_use_id": call[0], "content": result}
                for call, result in zip(CALLED, RESULTS, strict=True)
            ]
            messages += [{"role": "assistant", "content": calls}, {"role": "user", "content": results}]
        more: dict[str, Any] = {"stream": True} if stream else {}
        if ask.system:
            more["system"] = ask.system
        if ask.tools:
            more["tools"] = [
                {"name": name, "description": told, "input_schema": schema} for name, told, schema in TOOLS
            ]
        if ask.forced:
            more["tool_choice"] = {"type": "tool", "name": TOOLS[0][0]}
        if ask.schema:
            more["output_config"] = {"format": {"type": "json_schema", "schema": SCHEMA}}
        if ask.stop:
            more["stop_sequences"] = list(ask.stop)
        if ask.thinking:
            more["thinking"] = {"type": "enabled", "budget_tokens": BUDGET}
        return client.messages.create(model=ask.model, messages=messages, max_tokens=ask.limit, **more)

    @classmethod
    def whole(cls, answer: Any) -> Said:
        """Read."""
        said = Said(stop=cls._stops[answer.stop_reason])
        for block in answer.content:
            said.text += block.text if block.type == "text" else ""
            said.thought += block.thinking if block.type == "thinking" else ""
            if block.type == "tool_use":
                said.calls.append((block.id, block.name, block.input))
        usage = answer.usage
        said.cached = usage.cache_read_input_tokens
        said.read = usage.input_tokens + (said.cached or 0) + (usage.cache_creation_input_tokens or 0)
        said.written = usage.output_tokens
        return said

    @classmethod
    def pieces(cls, events: Sequence[Any]) -> Said:
        """Read; blocks come one after the other, each begun and ended."""
        message = events[0].message
        arguments: dict[int, str] = {}
        count = 0
        for event in events[1:]:
            if event.type == "content_block_start":
                assert event.index == len(message.content)
                message.content.append(event.content_block)
            elif event.type == "content_block_delta":
                block, delta = message.content[event.index], event.delta
                if delta.type == "text_delta":
                    block.text += delta.text
                    count += 1
                elif delta.type == "thinking_delta":
                    block.thinking += delta.thinking
                elif delta.type == "input_json_delta":
                    arguments[event.index] = arguments.get(event.index, "") + delta.partial_json
            elif event.type == "content_block_stop" and arguments.get(event.index):
                message.content[event.index].input = json.loads(arguments[event.index])
            elif event.type == "message_delta":
                message.stop_reason = event.delta.stop_reason
                told = event.usage.model_dump(exclude_none=True, include=set(type(message.usage).model_fields))
                message.usage = message.usage.model_copy(update=told)
        assert events[-1].type == "message_stop"
        said = cls.whole(message)
        said.pieces = count
        return said


class Google(Tongue):
    """`generate_content` of Google's."""

    name, client = "google", "google"
    ends_with = "end"
    refused = (genai.errors.ClientError, genai.errors.ClientError)

    @staticmethod
    def call(client: Any, ask: Ask, *, stream: bool) -> Any:
        """Ask."""
        parts = [types.Part(text=ask.text)]
        if ask.image:
            parts.append(types.Part.from_bytes(data=base64.b64decode(PICTURE), mime_type="image/png"))
        contents = [types.Content(role="user", parts=parts)]
        if ask.again:
            calls = [types.FunctionCall(id=id_, name=name, args=given) for id_, name, given in CALLED]
            results = [
                types.FunctionResponse(id=id_, name=name, response={"output": result})
                for (id_, name, _), result in zip(CALLED, RESULTS, strict=True)
            ]
            contents.append(types.Content(role="model", parts=[types.Part(function_call=each) for each in calls]))
            contents.append(types.Content(role="user", parts=[types.Part(function_response=each) for each in results]))
        more: dict[str, Any] = {}
        if ask.tools:
            functions = [
                types.FunctionDeclaration(name=name, description=told, parameters_json_schema=schema)
                for name, told, schema in TOOLS
            ]
            more["tools"] = [types.Tool(function_declarations=functions)]
        if ask.forced:
            calling = types.FunctionCallingConfig(
                mode=types.FunctionCallingConfigMode.ANY, allowed_function_names=[TOOLS[0][0]]
            )
            more["tool_config"] = types.ToolConfig(function_calling_config=calling)
        if ask.schema:
            more |= {"response_mime_type": "application/json", "response_json_schema": SCHEMA}
        if ask.thinking:
            more["thinking_config"] = types.ThinkingConfig(thinking_budget=BUDGET, include_thoughts=True)
        config = types.GenerateContentConfig(
            system_instruction=ask.system,
            max_output_tokens=ask.limit,
            stop_sequences=list(ask.stop) or None,
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
            **more,
        )
        call = client.models.generate_content_stream if stream else client.models.generate_content
        return call(model=ask.model, contents=contents, config=config)

    @classmethod
    def whole(cls, answer: Any) -> Said:
        """Read."""
        return cls.pieces([answer])

    @staticmethod
    def pieces(events: Sequence[Any]) -> Said:
        """Read."""
        said = Said()
        stops = {types.FinishReason.STOP: "end", types.FinishReason.MAX_TOKENS: "length"}
        for chunk in events:
            for candidate in chunk.candidates or ():
                for part in (candidate.content.parts if candidate.content else None) or ():
                    if part.function_call:
                        call = part.function_call
                        said.calls.append((call.id or "", call.name, call.args))
                    elif part.thought:
                        said.thought += part.text
                    elif part.text:
                        said.text += part.text
                        said.pieces += 1
                if candidate.finish_reason:
                    said.stop = stops[candidate.finish_reason]
            if chunk.usage_metadata:
                usage = chunk.usage_metadata
                said.read, said.cached = usage.prompt_token_count, usage.cached_content_token_count
                said.reasoned = usage.thoughts_token_count
                said.written = (usage.candidates_token_count or 0) + (said.reasoned or 0)
        return said


class OllamaChat(Tongue):
    """`chat` of Ollama's."""

    name, client = "ollama chat", "ollama"
    vague = frozenset({"reasoned", "cached"})
    ends_with = "end"
    lacks = frozenset({"forced"})
    refused = (ollama.ResponseError, ollama.ResponseError)
    _stops: ClassVar = {"stop": "end", "length": "length"}

    @staticmethod
    def call(client: Any, ask: Ask, *, stream: bool) -> Any:
        """Ask."""
        turn: dict[str, Any] = {"role": "user", "content": ask.text}
        if ask.image:
            turn["images"] = [PICTURE]
        messages = [{"role": "system", "content": ask.system}] if ask.system else []
        messages.append(turn)
        if ask.again:
            calls = [{"function": {"name": name, "arguments": given}} for _, name, given in CALLED]
            messages.append({"role": "assistant", "content": "", "tool_calls": calls})
            for (_, name, _), result in zip(CALLED, RESULTS, strict=True):
                messages.append({"role": "tool", "tool_name": name, "content": result})
        tools = [
            {"type": "function", "function": {"name": name, "description": told, "parameters": schema}}
            for name, told, schema in TOOLS
        ]
        return client.chat(
            model=ask.model,
            messages=messages,
            tools=tools if ask.tools else None,
            stream=stream,
            **OllamaChat.common(ask),
        )

    @staticmethod
    def common(ask: Ask) -> dict[str, Any]:
        """What both of its calls are asked with."""
        options: dict[str, Any] = {"num_predict": ask.limit}
        if ask.stop:
            options["stop"] = list(ask.stop)
        more: dict[str, Any] = {"options": options}
        if ask.schema:
            more["format"] = SCHEMA
        if ask.thinking:
            more["think"] = True
        return more

    @classmethod
    def whole(cls, answer: Any) -> Said:
        """Read."""
        return cls.pieces([answer])

    @classmethod
    def pieces(cls, events: Sequence[Any]) -> Said:
        """Read."""
        said = Said()
        for each in events:
            said.text += each.message.content or ""
            said.pieces += bool(each.message.content)
            said.thought += each.message.thinking or ""
            for call in each.message.tool_calls or ():
                said.calls.append((str(len(said.calls)), call.function.name, dict(call.function.arguments)))
        return cls.ended(said, events[-1])

    @classmethod
    def ended(cls, said: Said, last: Any) -> Said:
        """What stands in the last piece."""
        assert last.done
        said.stop = cls._stops[last.done_reason]
        said.read, said.written = last.prompt_eval_count, last.eval_count
        return said


class OllamaGenerate(Tongue):
    """`generate` of Ollama's."""

    name, client = "ollama generate", "ollama"
    vague = OllamaChat.vague
    lacks = frozenset({"tools", "again"})
    refused = OllamaChat.refused

    @staticmethod
    def call(client: Any, ask: Ask, *, stream: bool) -> Any:
        """Ask."""
        return client.generate(
            model=ask.model,
            prompt=ask.text,
            system=ask.system or "",
            images=[PICTURE] if ask.image else None,
            stream=stream,
            **OllamaChat.common(ask),
        )

    @classmethod
    def whole(cls, answer: Any) -> Said:
        """Read."""
        return cls.pieces([answer])

    @classmethod
    def pieces(cls, events: Sequence[Any]) -> Said:
        """Read."""
        said = Said()
        for each in events:
            said.text += each.response
            said.pieces += bool(each.response)
            said.thought += each.thinking or ""
        return OllamaChat.ended(said, events[-1])


TONGUES: tuple[type[Tongue], ...] = (Chat, Responses, Completions, Messages, Google, OllamaChat, OllamaGenerate)
