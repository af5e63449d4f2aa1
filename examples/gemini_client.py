"""Google's own Python library against a running Corral: a stream, and JSON that keeps a schema.

make run
pip install google-genai
python examples/gemini_client.py
"""

import json
import os

from google import genai
from google.genai import types

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 40}, "large": {"type": "boolean"}},
    "required": ["city", "large"],
    "additionalProperties": False,
}


def main() -> None:
    client = genai.Client(
        api_key=os.environ.get("CORRAL_API_KEY", "none"),
        http_options=types.HttpOptions(base_url=os.environ.get("GOOGLE_GEMINI_BASE_URL", "http://127.0.0.1:7860")),
    )
    counted = client.models.count_tokens(model="smollm2", contents="Count from one to five.")
    print("Tokens of the question:", counted.total_tokens)

    stream = client.models.generate_content_stream(
        model="smollm2",
        contents="Count from one to five.",
        config=types.GenerateContentConfig(system_instruction="You are brief.", max_output_tokens=40),
    )
    for chunk in stream:
        print(chunk.text or "", end="", flush=True)
    print()

    answer = client.models.generate_content(
        model="smollm2",
        contents="Describe a city as JSON.",
        config=types.GenerateContentConfig(
            response_mime_type="application/json", response_json_schema=CITY, max_output_tokens=80
        ),
    )
    print("As JSON:", json.loads(answer.text or "{}"))


if __name__ == "__main__":
    main()
