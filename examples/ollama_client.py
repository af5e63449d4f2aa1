"""Ollama's own Python library against a running Corral: the models, a stream, and JSON that keeps a schema.

make run
pip install ollama
python examples/ollama_client.py
"""

import json
import os

from ollama import Client

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 40}, "large": {"type": "boolean"}},
    "required": ["city", "large"],
    "additionalProperties": False,
}


def main() -> None:
    key = os.environ.get("CORRAL_API_KEY", "none")
    client = Client(os.environ.get("OLLAMA_HOST", "http://127.0.0.1:7860"), headers={"Authorization": f"Bearer {key}"})
    print("Models:", ", ".join(model.model or "" for model in client.list().models))

    stream = client.chat(
        model="smollm2",
        messages=[{"role": "user", "content": "Count from one to five."}],
        options={"num_predict": 40},
        stream=True,
    )
    for chunk in stream:
        print(chunk.message.content or "", end="", flush=True)
    print()

    answer = client.chat(
        model="smollm2",
        messages=[{"role": "user", "content": "Describe a city as JSON."}],
        options={"num_predict": 80},
        format=CITY,
    )
    print("As JSON:", json.loads(answer.message.content or "{}"))


if __name__ == "__main__":
    main()
