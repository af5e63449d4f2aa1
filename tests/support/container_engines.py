"""Engines in containers for tests: llama.cpp's server, told by its own arguments, on a Docker engine of tests' own."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from typing import Any

import pytest

from corral.containers.contexts import Places
from corral.containers.docker import Docker
from tests.support.docker import Engine
from tests.support.docker_images import CORRAL, _python

PROGRAM = """
import argparse, os, signal, threading
import xllamacpp

parser = argparse.ArgumentParser()
for name in ("model", "host", "alias", "mmproj"):
    parser.add_argument(f"--{name}")
for name in ("port", "ctx-size", "parallel", "n-gpu-layers"):
    parser.add_argument(f"--{name}", type=int)
parser.add_argument("--jinja", action="store_true")
given = parser.parse_args()
params = xllamacpp.CommonParams()
params.model.path = given.model
params.hostnames, params.port = [given.host], given.port
params.n_ctx, params.n_parallel, params.n_gpu_layers = given.ctx_size, given.parallel, given.n_gpu_layers
params.load_mode = xllamacpp.llama_load_mode[f"LLAMA_LOAD_MODE_{os.environ['LLAMA_ARG_LOAD_MODE'].upper()}"]
params.model_alias = {given.alias}
params.api_keys = [os.environ["LLAMA_API_KEY"]]
params.cpuparams.n_threads = 1
server = xllamacpp.Server(params)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
threading.Event().wait()
"""
"""The arguments of llama.cpp's server, every one of which has to be known to it, served by the same library."""


@dataclass
class Containers:
    """The port that the runtime is given."""

    engine: Any
    yard: str = "tests-of-runtimes"


@pytest.fixture
async def containers(docker: Engine):
    """The port `containers`, to an engine of the tests' own."""
    engine = Docker(Places(host=docker.address, env={**os.environ}))
    yield Containers(engine)
    await engine.close()


@pytest.fixture
def engine_image(docker: Engine) -> str:
    """An image that `engine_entrypoint` runs in."""
    return docker.image(CORRAL)


@pytest.fixture
def engine_entrypoint() -> str:
    """A program that takes the arguments of llama.cpp's server."""
    return shlex.join([_python(), "-c", PROGRAM])
