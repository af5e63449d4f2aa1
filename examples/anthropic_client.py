"""Anthropic's own Python library against a running Corral: a stream, and a tool that a model of your own calls.

make run
pip install anthropic
python examples/anthropic_client.py
"""

import os

from anthropic import Anthropic
from anthropic.types import MessageParam, ToolParam, ToolResultBlockParam

WEATHER: ToolParam = {
    "name": "get_weather",
    "description": "The weather in a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def main() -> None:
    client = Anthropic(
        base_url=os.environ.get("ANTHROPIC_BASE_URL", "http://127.0.0.1:7860"),
        api_key=os.environ.get("CORRAL_API_KEY", "none"),
    )
    question: MessageParam = {"role": "user", "content": "What is the weather in Paris?"}
    print("Tokens of the question:", client.messages.count_tokens(model="smollm2", messages=[question]).input_tokens)

    with client.messages.stream(
        model="smollm2",
        system="You are brief.",
        messages=[{"role": "user", "content": "Count from one to five."}],
        max_tokens=40,
    ) as stream:
        for text in stream.text_stream:
            print(text, end="", flush=True)
    print()

    asked = client.messages.create(
        model="smollm2",
        messages=[question],
        tools=[WEATHER],
        tool_choice={"type": "tool", "name": "get_weather"},
        max_tokens=80,
    )
    call = next(block for block in asked.content if block.type == "tool_use")
    print(f"It calls {call.name} with {call.input}")

    result: ToolResultBlockParam = {
        "type": "tool_result",
        "tool_use_id": call.id,
        "content": "17 degrees, and it rains.",
    }
    answer = client.messages.create(
        model="smollm2",
        messages=[question, {"role": "assistant", "content": asked.content}, {"role": "user", "content": [result]}],
        tools=[WEATHER],
        max_tokens=60,
    )
    print("Then:", " ".join(block.text for block in answer.content if block.type == "text"))


if __name__ == "__main__":
    main()
