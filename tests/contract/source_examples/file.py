"""A model in a folder."""

from support import models
from support.examples import SourceExample


def build(folder):
    data = models.gguf(700_000, seed=1)
    (folder / "tiny.gguf").write_bytes(data)
    return SourceExample(
        reference=f"file:{folder}/tiny.gguf",
        absent=(f"file:{folder}/none.gguf", "file:/nowhere/at/all.gguf"),
        content={"tiny.gguf": data},
    )
