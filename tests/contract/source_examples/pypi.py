"""A wheel with a model, on an index in a folder."""

from support import models
from support.examples import SourceExample


def build(folder):
    data = models.gguf(700_000, seed=1)
    name, wheel = models.wheel("tiny", "1.0", {"Tiny.gguf": data})
    url = models.folder_index(folder, (name, wheel))

    def damage():
        (folder / "files" / name).write_bytes(wheel[:10] + b"!" + wheel[11:])

    return SourceExample(
        reference="pypi:tiny==1.0",
        absent=("pypi:nobody", "pypi:tiny==9", "pypi:not a name"),
        content={"Tiny.gguf": data},
        env=models.only(url),
        damage=damage,
    )
