"""A model in a folder: a snapshot of several files."""

from support import models
from support.examples import SourceExample


def build(folder):
    content = models.snapshot() | {"model.safetensors": models.safetensors({"a": ("F32", (700_000,))}, seed=1)}
    content["1_Pooling/config.json"] = b'{"pooling_mode_mean_tokens": true}'
    for name, data in content.items():
        path = folder / "tiny" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return SourceExample(
        reference=f"file:{folder}/tiny",
        absent=(f"file:{folder}/none.gguf", f"file:{folder}/none", "file:/nowhere/at/all.gguf"),
        content=content,
    )
