"""Engines in other places and other moods: over TLS, by a context, forbidden, too old, with a registry, full."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from corral.containers.contexts import Places
from corral.containers.docker import Docker
from corral.domain.containers import ContainerSpec
from corral.domain.ports import Progress
from corral.errors import DiskFull, DockerUnavailable, ImageNotFound
from tests.support.docker import PLAYER, TINY, Engine, running
from tests.support.oci import docker_registry
from tests.support.ports import free_port

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="no openssl command to make certificates with"
)


def asked(places: Places, work: Any) -> Any:
    async def run() -> Any:
        made = Docker(places, timeout=60)
        try:
            async with asyncio.timeout(90):
                return await work(made)
        finally:
            await made.close()

    return asyncio.run(run())


def certificates(folder: Path) -> None:
    """An authority, and one certificate for both sides."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    commands = [
        ["req", "-x509", *key, "-keyout", "ca-key.pem", "-out", "ca.pem", "-subj", "/CN=authority"],
        ["req", *key[:-2], "-keyout", "key.pem", "-out", "req.pem", "-subj", "/CN=127.0.0.1"],
        ["x509", "-req", "-in", "req.pem", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial"],
    ]
    commands[-1] += ["-days", "2", "-extfile", "names", "-out", "cert.pem"]
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    for command in commands:
        subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)


@needs_openssl
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # see its end
def test_an_engine_behind_certificates(tmp_path: Path):
    certificates(tmp_path)
    port = free_port()
    files = ("--tlscacert", tmp_path / "ca.pem", "--tlscert", tmp_path / "cert.pem", "--tlskey", tmp_path / "key.pem")
    with running("--host", f"tcp://127.0.0.1:{port}", "--tlsverify", *map(str, files)) as docker:
        env = {"DOCKER_HOST": f"tcp://127.0.0.1:{port}", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
        info = asked(Places(env=env), lambda made: made.info())
        assert info.address == f"tcp://127.0.0.1:{port}"
        assert info.root == docker.json("info")["DockerRootDir"]

        home = tmp_path / "home"
        (home / ".docker").mkdir(parents=True)
        tls = ",".join(
            f"{name}={tmp_path / file}" for name, file in (("ca", "ca.pem"), ("cert", "cert.pem"), ("key", "key.pem"))
        )
        made = ["docker", "context", "create", "far", "--docker", f"host=tcp://127.0.0.1:{port},{tls}"]
        subprocess.run(made, env={**os.environ, "HOME": str(home)}, check=True, capture_output=True)
        assert asked(Places(env={"DOCKER_CONTEXT": "far"}, home=home), lambda made: made.info()).root == info.root

        with pytest.raises(DockerUnavailable):
            asked(Places(env={"DOCKER_HOST": f"tcp://127.0.0.1:{port}"}), lambda made: made.list())
        (tmp_path / "ca.pem").write_bytes((tmp_path / "cert.pem").read_bytes())
        with pytest.raises(DockerUnavailable):
            asked(Places(env=env), lambda made: made.list())
    gc.collect()  # asyncio does not always close a transport whose handshake failed; not in the next test


def test_who_may_not_use_the_socket_is_told_the_group(docker: Engine):
    os.chown(docker.socket, 0, 1)
    docker.folder.chmod(0o755)
    group = docker.socket.group()

    async def work(made: Docker) -> None:
        await made.info()
        with nobody(), pytest.raises(DockerUnavailable, match=f"root and the group {group}") as caught:
            await made.list()
        assert f"usermod -aG {group} $USER" in caught.value.hint
        assert await made.list() == ()

    asked(Places(host=docker.address, env={}), work)


@contextmanager
def nobody() -> Iterator[None]:
    """This process as a user without rights, for the block's length."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"Version": "18.09", "ApiVersion": "1.39", "MinAPIVersion": "1.12"}, "too old: it is version 18.09"),
        ({}, "too old"),
        ("<html>", "cannot be understood"),
    ],
)
def test_what_is_too_old_or_no_engine_at_all_is_said(tmp_path: Path, answer: Any, words: str):
    async def version(_: web.Request) -> web.Response:
        return web.Response(
            text=answer if isinstance(answer, str) else json.dumps(answer), content_type="application/json"
        )

    async def work(made: Docker) -> None:
        app = web.Application()
        app.router.add_get("/version", version)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.UnixSite(runner, str(tmp_path / "d.sock")).start()
            with pytest.raises(DockerUnavailable, match=words):
                await made.list()
        finally:
            await runner.cleanup()

    asked(Places(host=f"unix://{tmp_path}/d.sock", env={}), work)


def test_an_engine_that_says_nothing_is_not_waited_for(tmp_path: Path):
    async def work(_: Docker) -> None:
        silent: list[asyncio.StreamWriter] = []
        server = await asyncio.start_unix_server(lambda _, writer: silent.append(writer), tmp_path / "d.sock")
        made = Docker(Places(host=f"unix://{tmp_path}/d.sock", env={}), timeout=0.3)
        try:
            with pytest.raises(DockerUnavailable, match="did not answer in time"):
                await made.list()
        finally:
            await made.close()
            server.close()
            for writer in silent:
                writer.close()
                await writer.wait_closed()

    asked(Places(host="unix:///nowhere", env={}), work)


def test_an_engine_that_comes_later_and_one_that_moves(docker: Engine, tmp_path: Path):
    link = tmp_path / "d.sock"

    async def work(made: Docker) -> None:
        with pytest.raises(DockerUnavailable, match="no such socket"):
            await made.list()
        link.symlink_to(docker.socket)
        assert await made.list() == ()
        await made.close()
        assert (await made.info()).version
        link.unlink()
        with pytest.raises(DockerUnavailable, match="no such socket"):
            await made.list()

    asked(Places(env={}, home=tmp_path, sockets=(link,)), work)


def test_an_image_is_pulled_and_its_layers_counted(docker: Engine, tmp_path: Path):
    heard: list[Progress] = []

    async def work(made: Docker) -> None:
        async with docker_registry(tmp_path) as host:
            reference = f"{host}/tests/tiny:1"
            with pytest.raises(ImageNotFound, match="tests/tiny:1"):
                await made.pull(reference, heard.append)
            await made.tag(docker.image(TINY), reference)
            await asyncio.to_thread(docker.cli, "push", reference)
            here = await made.image(TINY)
            assert here is not None
            await asyncio.to_thread(docker.cli, "image", "rm", reference, TINY)
            docker.forget(TINY)
            assert await made.image(reference) is None
            heard.clear()
            pulled = await made.pull(reference, heard.append)
            assert (pulled.id, pulled.tags) == (here.id, (reference,))
            digest = pulled.digests[0].partition("@")[2]
            again = await made.pull(f"{host}/tests/tiny@{digest}", lambda _: None)
            assert again.id == here.id
            spec = ContainerSpec("a", "corral-a", "openai", f"{host}/tests/tiny:gone", digest=digest, network="none")
            await made.create(spec, "yard")
            assert (await made.inspect("corral-a")).image == f"{host}/tests/tiny@{digest}"

    asked(Places(host=docker.address, env={}, home=tmp_path), work)
    done = [progress.done for progress in heard if progress.phase == "download"]
    assert done == sorted(done)
    assert heard[-1].detail


def test_a_disk_that_is_full_is_said_so(docker: Engine, tmp_path: Path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", small], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"mounting a small disk is not allowed here: {mounted.stderr.strip()}")

    async def push(host: str) -> str:
        reference = f"{host}/tests/player:1"
        docker.cli("tag", docker.image(PLAYER), reference)
        docker.cli("push", reference)
        return reference

    async def work(made: Docker) -> None:
        async with docker_registry(tmp_path / "registry") as host:
            reference = await push(host)
            with pytest.raises(DiskFull, match="no room"):
                await made.pull(reference, lambda _: None)

    try:
        with running("--data-root", str(small)) as full:
            asked(Places(host=full.address, env={}), work)
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_an_engine_that_gives_no_single_sample_takes_both_itself(docker: Engine, tmp_path: Path):
    samples: list[str] = []

    async def older(request: web.Request) -> web.Response:
        """What the engine says, as one says it that is no newer than 1.40."""
        if request.path.endswith("/stats"):
            samples.append(request.query_string)
        connector = aiohttp.UnixConnector(str(docker.socket))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(
                request.method, f"http://docker{request.path_qs}", data=await request.read(), headers=request.headers
            ) as answer,
        ):
            said = await answer.text()
        if request.path == "/version":
            said = json.dumps({**json.loads(said), "ApiVersion": "1.40"})
        return web.Response(status=answer.status, text=said, content_type="application/json")

    async def work(made: Docker) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", older)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.UnixSite(runner, str(tmp_path / "d.sock")).start()
            assert (await made.info()).api == "1.40"
            await made.create(ContainerSpec("one", "one", "openai", TINY, command=("burn",), network="none"), "yard")
            await made.start("one")
            usage = await made.usage("one")
        finally:
            await runner.cleanup()
        assert samples == ["stream=0"]
        assert usage is not None
        assert (usage.cpu or 0) > 0

    docker.image(TINY)
    asked(Places(host=f"unix://{tmp_path}/d.sock", env={}), work)
