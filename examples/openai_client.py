"""OpenAI's own Python library against a running Corral: a stream, and JSON that keeps a schema.

make run
pip install openai
python examples/openai_client.py
"""

import json
import os

from openai import OpenAI

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 40}, "large": {"type": "boolean"}},
    "required": ["city", "large"],
    "additionalProperties": False,
}


def main() -> None:
    client = OpenAI(
        base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:7860/v1"),
        api_key=os.environ.get("CORRAL_API_KEY", "none"),
    )
    print("Models:", ", ".join(model.id for model in client.models.list()))

    stream = client.chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": "Count from one to five."}],
        max_tokens=40,
        stream=True,
    )
    for chunk in stream:
        if chunk.choices:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()

    answer = client.chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": "Describe a city as JSON."}],
        max_tokens=80,
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}},
    )
    print("As JSON:", json.loads(answer.choices[0].message.content or "{}"))


if __name__ == "__main__":
    main()
