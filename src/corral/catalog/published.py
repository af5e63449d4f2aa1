"""`manifest.json` beside the store: what is installed, for people and scripts to read. Nothing here reads it back."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import orjson

from corral.domain.models import Capability
from corral.errors import StoreError
from corral.kit.disk import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from corral.domain.models import Installed, Revision

_PROVIDERS: Final = {"hf": "huggingface"}
_RUNTIMES: Final = {"gguf": "llamacpp", "safetensors": "transformers"}


def provider(source: str) -> str:
    """What the document calls the source of the reference `source`."""
    scheme = source.partition(":")[0]
    scheme = {"https": "url", "http": "url", "s3": "bucket", "gs": "bucket", "az": "bucket"}.get(scheme, scheme)
    return _PROVIDERS.get(scheme, scheme)


def row(installed: Installed, runtime: str | None, path: Path | None) -> bytes:
    """The model as the document describes it, as JSON."""
    revision = installed.revision
    models = [file for file in revision.files if file.role == "model"]
    record: dict[str, Any] = {
        "name": installed.name,
        "provider": provider(revision.source),
        "display_name": title(installed),
        "size_gb": round(revision.size / 1e9, 3),
        "status": "installed",
        "capabilities": capabilities(revision),
        "local_path": None if path is None else str(path),
        "sha256": models[0].sha256 if len(models) == 1 else None,
        "installed_at": _time(installed.installed_at),
        "runtime": runtime or _RUNTIMES.get(revision.format),
    }
    return orjson.dumps(record)


def document(rows: list[bytes], now: float) -> bytes:
    """The whole file, a line for each model."""
    lines = b",\n    ".join(rows)
    models = b"[\n    " + lines + b"\n  ]" if rows else b"[]"
    return b'{\n  "models": ' + models + b',\n  "updated_at": ' + orjson.dumps(_time(now)) + b"\n}\n"


def write(path: Path, rows: list[bytes], now: float) -> None:
    """Put the document at `path`. What cannot be written now is written with the next change. Blocks."""
    with suppress(OSError):
        write_whole(path, document(rows, now), durable=False)


def title(installed: Installed) -> str:
    """A name for people: what the model calls itself, else its own name made readable."""
    for key in ("title", "name"):
        found = installed.revision.facts.get(key)
        if isinstance(found, str) and found.strip():
            return found.strip()[:200]
    return installed.name.rpartition("/")[2].replace("-", " ").replace("_", " ").replace(":", " ").title()


def capabilities(revision: Revision) -> dict[str, Any]:
    """What the model can do, in the document's words."""
    able, facts = revision.capabilities, revision.facts
    roles = facts.get("allowed_roles")
    if not isinstance(roles, list):
        roles = [*(["system"] if Capability.SYSTEM_ROLE in able else []), "user", "assistant"]
    return {
        "supports_system_role": Capability.SYSTEM_ROLE in able,
        "supports_function_calling": Capability.TOOLS in able,
        "allowed_roles": roles,
        "prompt_template": _template(revision),
        "max_context_length": facts.get("context_length"),
        "quantization": facts.get("quantization"),
    }


def _template(revision: Revision) -> str | None:
    try:
        found: Mapping[str, Any]
        for found in (revision.defaults, revision.facts):
            template = found.get("chat_template")
            if template is not None:
                return str(template)
    except StoreError:
        return None  # the manifest was removed while we wrote
    return None


def _time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC).isoformat(timespec="seconds")
