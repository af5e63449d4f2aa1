"""A model in a bucket of an S3 server on loopback."""

from support import models
from support.examples import SourceExample
from support.s3 import S3


def build(folder):
    data = models.gguf(700_000, seed=1)
    server = S3()
    server.put("some/tiny.gguf", data)
    return SourceExample(
        reference=f"s3://yard/some/tiny.gguf#sha256={models.sha256(data)}",
        absent=("s3://yard/none.gguf", "s3://yard/empty", "s3://yard/some#nobody", "s3://other-yard/x.gguf"),
        content={"tiny.gguf": data},
        env=server.env,
        damage=lambda: server.put("some/tiny.gguf", data[:-1] + b"!"),
        close=server.close,
    )
