"""A model with a projector, in a registry on loopback."""

from support import models, oci
from support.examples import SourceExample


def build(folder):
    data, eyes = models.gguf(700_000, seed=1), models.gguf(9_000, seed=2, general__architecture="clip")
    made = oci.image(data, projector=eyes, template="{{ .Prompt }}", params={"stop": ["<|im_end|>"]}, license="MIT")
    server = oci.Background(made.files("library/tiny", "1b"))
    path = f"/v2/library/tiny/blobs/sha256:{models.sha256(data)}"

    def damage():
        server.origin.files[path] = data[:10] + b"!" + data[11:]

    return SourceExample(
        reference=f"ollama:{server.host}/library/tiny:1b",
        absent=(f"ollama:{server.host}/library/tiny:none", f"ollama:{server.host}/nobody/x", "ollama:no such name"),
        content={"tiny.gguf": data, "tiny-mmproj.gguf": eyes},
        env=models.only("file:///nowhere"),
        damage=damage,
        close=server.close,
    )
