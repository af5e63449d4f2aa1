"""A model on a web server on loopback, which the settings allow."""

from support import models
from support.examples import SourceExample
from support.origin import ThreadedOrigin


def build(folder):
    data = models.gguf(700_000, seed=1)
    server = ThreadedOrigin({"/some/tiny.gguf": data})
    url = server.origin.url

    def damage():
        server.origin.files["/some/tiny.gguf"] = data[:-1] + b"!"

    return SourceExample(
        reference=f"{url}/some/tiny.gguf#sha256={models.sha256(data)}",
        absent=(f"{url}/none.gguf", "url:not an address"),
        content={"tiny.gguf": data},
        env={"CORRAL_SOURCES_ALLOW_PRIVATE": server.origin.host, "PIP_CONFIG_FILE": "/dev/null"},
        damage=damage,
        close=server.close,
    )
