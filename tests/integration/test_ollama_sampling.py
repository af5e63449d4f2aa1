"""How an engine chooses tokens when nobody says: what the revision pins goes before what its file says of itself."""

import os
import struct

import aiohttp

from corral.domain.ports import LaunchSpec, silent
from corral.runtimes.llamacpp import LlamaCpp, LlamaCppOptions
from support.models import text, value


def advised(data, **metadata):
    """The GGUF with more metadata in front, as much as keeps its tensors aligned."""
    more = b"".join(text(f"general.sampling.{key}") + value(item) for key, item in metadata.items())
    fill = text("general.filler") + value("")
    more += text("general.filler") + value("x" * (-(len(more) + len(fill)) % 32))
    (count,) = struct.unpack_from("<Q", data, 16)
    return data[:16] + struct.pack("<Q", count + len(metadata) + 1) + more + data[24:]


async def test_options_go_before_the_file_s_own_advice(smollm2, tmp_path):
    path = tmp_path / "advised.gguf"
    path.write_bytes(advised(smollm2.read_bytes(), temp=0.25, top_k=5, min_p=0.5))
    options = LlamaCppOptions(context=256, slots=1, gpu_layers=0, temperature=0.0, min_p=0.0, typical_p=0.5, keep=-1)
    session = await LlamaCpp(os.environ).start(LaunchSpec("m", options, {"model": path}), silent)
    try:
        where = f"{session.endpoint.url.removesuffix('/v1')}/props"
        async with aiohttp.request("GET", where, headers=session.endpoint.headers) as answer:
            said = (await answer.json())["default_generation_settings"]["params"]
    finally:
        await session.stop(5)
    assert (said["temperature"], said["min_p"], said["typical_p"]) == (0.0, 0.0, 0.5)
    assert said["top_k"] == 5  # nobody but the file said anything of it
