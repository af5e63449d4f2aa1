"""Examples of what the workspace answers and takes, for OpenAPI. Tests hold them against the shapes."""

from __future__ import annotations

from typing import Any

AT = 1_763_780_400.0
"""When all in the examples happened."""
PAGE = "export function Counter() {\n  return <button>0</button>;\n}\n"
"""An artifact's text."""
PIPELINE = """name: page
inputs:
  topic: {type: string, required: true}
steps:
  analysis:
    model: smollm2
    prompt: "What belongs on a page about {{ inputs.topic }}?"
  code:
    model: qwen2.5-coder
    prompt: "Write a React component for: {{ steps.analysis.output }}"
    output: {code: tsx}
"""
"""A pipeline, for examples."""

ENTRY: dict[str, Any] = {
    "version": 1,
    "created_at": AT,
    "updated_at": AT,
    "archived_at": None,
    "deleted_at": None,
    "tags": ["web"],
}
PROJECT = {
    "id": "prj-0a1b2c3d4e5f",
    **ENTRY,
    "name": "website",
    "title": "The new website",
    "description": "",
    "settings": {},
}
CONTEXT = {
    "id": "ctx-0a1b2c3d4e5f",
    **ENTRY,
    "project": PROJECT["id"],
    "kind": "instructions",
    "name": "style",
    "position": 0,
    "text": "Small components, no libraries.",
    "variables": {},
    "digest": None,
    "size": 0,
    "media_type": "text/plain",
    "enabled": True,
}
KEPT_PIPELINE = {
    "id": "pip-0a1b2c3d4e5f",
    **ENTRY,
    "name": "page",
    "source": PIPELINE,
    "project": None,
    "description": "",
}
RUN_BRIEFLY = {
    "id": "run-0a1b2c3d4e5f",
    **ENTRY,
    "project": PROJECT["id"],
    "name": "page",
    "pipeline": KEPT_PIPELINE["id"],
    "title": "",
    "models": {},
    "seed": 7,
    "budget_usd": 0.05,
    "caller": "key-3f1c9ab2",
    "status": "completed",
    "operation": "op-0a1b2c3d4e5f",
    "rerun_of": None,
    "error": None,
    "started_at": AT,
    "ended_at": AT + 12,
    "paused_seconds": 0.0,
    "paused_at": None,
    "cost_usd": 0.0004,
    "input_tokens": 210,
    "output_tokens": 480,
    "steps_total": 2,
    "steps_done": 2,
}
RUN = {
    **RUN_BRIEFLY,
    "source": PIPELINE,
    "inputs": {"topic": "bees"},
    "material": [],
    "environment": {"corral": "0.6.0"},
    "reproducible": {},
}
STEP = {
    "run": RUN["id"],
    "key": "analysis",
    "name": "analysis",
    "index": None,
    "position": 0,
    "status": "completed",
    "attempt": 1,
    "model": "smollm2",
    "request_id": "run-0a1b2c3d4e5f:analysis:1",
    "request": {"model": "smollm2", "messages": [{"role": "user", "content": "What belongs on a page about bees?"}]},
    "output": "A heading, a picture, a counter of hives.",
    "value": None,
    "receipt": None,
    "tries": [],
    "reason": "",
    "error": None,
    "started_at": AT,
    "ended_at": AT + 4,
    "paused_seconds": 0.0,
    "cost_usd": 0.0,
    "input_tokens": 12,
    "output_tokens": 40,
}
ARTIFACT = {
    "id": "art-0a1b2c3d4e5f",
    **ENTRY,
    "project": PROJECT["id"],
    "name": "src/Counter.tsx",
    "kind": "tsx",
    "media_type": "text/plain",
    "digest": "4e" * 32,
    "size": len(PAGE),
    "number": 1,
    "title": "",
    "run": RUN["id"],
    "step": "code",
}
EDITION = {
    "artifact": ARTIFACT["id"],
    "number": 1,
    "digest": ARTIFACT["digest"],
    "size": ARTIFACT["size"],
    "created_at": AT,
    "run": RUN["id"],
    "step": "code",
    "model": "qwen2.5-coder",
    "request_id": "run-0a1b2c3d4e5f:code:1",
    "problems": [],
    "note": "",
}
