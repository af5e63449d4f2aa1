"""A repo with a model on a hub on loopback."""

from support import models
from support.examples import SourceExample
from support.hub import Hub


def build(folder):
    data = models.gguf(700_000, seed=1)
    hub = Hub(cdn=True).start()
    repo = hub.repo(
        "corral/Tiny-GGUF", {"Tiny-Q4_K_M.gguf": data, "Tiny-Q8_0.gguf": data + b"8", "README.md": b"# Tiny"}
    )

    def damage():
        repo.commits[-1][1]["Tiny-Q4_K_M.gguf"] = data[:-1] + b"!"

    return SourceExample(
        reference="hf:corral/Tiny-GGUF:Q4_K_M",
        absent=(
            "hf:corral/Nothing",
            "hf:corral/Tiny-GGUF:Q2_K",
            "hf:corral/Tiny-GGUF@v9",
            "hf:corral/Tiny-GGUF/none.gguf",
            "hf:../../etc/passwd",
            "hf:not a name",
        ),
        content={"Tiny-Q4_K_M.gguf": data},
        env=hub.env,
        damage=damage,
        close=hub.stop,
    )
